package esp

import (
	"sync/atomic"

	"adit/internal/simbug"
)

// window is the anti-replay window of RFC 4303 §3.4.3, as a ring of blocks in
// the manner of RFC 6479. A slot holds in its upper half the number of the block
// whose bits are in its lower half. As block number and bits change in one atomic
// step, a number once taken is either found in its slot or the slot already
// belongs to a later block, and both refuse it: goroutines need no lock, and no
// interleaving takes a packet twice. Block numbers are compared modulo 2^32: a
// slot passed over for 2^36 packets would refuse, never repeat.
type window struct {
	size uint64 // packets; 0: no protection, top alone is kept
	top  atomic.Uint64
	// slots are made by the first packet: most SAs of a large gateway are idle.
	slots atomic.Pointer[[]atomic.Uint64]
}

const blockBits = 32

func newWindow(size uint32) *window {
	return &window{size: uint64(size)}
}

// ring returns the slots, and makes them once.
func (w *window) ring() []atomic.Uint64 {
	if p := w.slots.Load(); p != nil {
		return *p
	}
	// One block more than the window covers, as its lower edge lies inside a block,
	// and one for a size that is no whole number of blocks.
	slots := make([]atomic.Uint64, w.size/blockBits+2)
	if !w.slots.CompareAndSwap(nil, &slots) {
		return *w.slots.Load()
	}
	return slots
}

// stale reports whether seq lies behind the window.
func (w *window) stale(seq uint64) bool {
	top := w.top.Load()
	if simbug.Chosen == simbug.ReplayWindow && top > 0 {
		top--
	}
	return seq == 0 || top >= w.size && seq <= top-w.size
}

// check is the test before authentication: could seq be new?
func (w *window) check(seq uint64) bool {
	if w.size == 0 {
		return true
	}
	if w.stale(seq) {
		return false
	}
	p := w.slots.Load()
	if p == nil {
		return true
	}
	v := (*p)[seq/blockBits%uint64(len(*p))].Load()
	age := int32(uint32(seq/blockBits) - uint32(v>>32))
	return age > 0 || age == 0 && v&(1<<(seq%blockBits)) == 0
}

// commit marks an authenticated number as received; false if it was already, or
// fell behind the window meanwhile.
func (w *window) commit(seq uint64) bool {
	if w.size != 0 {
		if w.stale(seq) {
			return false
		}
		block, bit := uint32(seq/blockBits), uint64(1)<<(seq%blockBits)
		slots := w.ring()
		slot := &slots[seq/blockBits%uint64(len(slots))]
		for {
			v := slot.Load()
			next := v | bit
			age := int32(block - uint32(v>>32))
			if age > 0 {
				next = uint64(block)<<32 | bit
			} else if age < 0 || next == v {
				return false
			}
			if slot.CompareAndSwap(v, next) {
				break
			}
		}
	}
	for {
		top := w.top.Load()
		if seq <= top || w.top.CompareAndSwap(top, seq) {
			return true
		}
	}
}

// extend guesses the whole of an extended sequence number from its low half
// (RFC 4303 appendix A2.2): the value nearest to the window that is not before
// it. False: it could only be a number from before the first.
func (w *window) extend(low uint32) (uint64, bool) {
	size := w.size
	if size == 0 {
		size = guessWindow
	}
	top := w.top.Load()
	tl, th := uint32(top), top>>32
	edge := tl - uint32(size) + 1 // modulo 2^32
	if uint64(tl) >= size-1 {     // the window lies in one subspace
		if low < edge {
			th++
		}
	} else if low >= edge { // it spans two, and low is in the older
		if th == 0 {
			return 0, false
		}
		th--
	}
	return th<<32 | uint64(low), true
}

package userspace

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"adit/tun"
)

// handover is the way of packets from the worker that took them of a device to the one
// that seals for their SA: a ring with one writer and one reader, without a lock.
type handover struct {
	to  *worker
	mem []byte
	rec [handoverPackets]handed

	_     [64]byte      // the reader's on a cache line of their own
	freed atomic.Uint64 // bytes of mem given back, counted from the beginning
	read  atomic.Uint64 // records
	_     [64]byte      // the writer's
	wrote atomic.Uint64 // records
	end   uint64        // of what is taken of mem, counted like freed
	fresh bool          // there is something that the reader was not told of
}

// handed is a packet or train as it came from a device.
type handed struct {
	super tun.Super
	dev   *device
	end   uint64
}

const (
	// handoverPackets and handoverBytes bound what waits from one worker for another.
	handoverPackets = 1024
	handoverBytes   = 512 << 10
	// handoverWait is how long a worker waits for another that is behind, in steps of
	// handoverStep: it is better than to lose what a sender has in flight, but a worker
	// has others to serve.
	handoverWait = time.Millisecond
	handoverStep = 20 * time.Microsecond
)

// meet gives every worker a way to every other. None of them runs yet.
func meet(list []*worker) {
	for _, w := range list {
		w.out.to = make([]*handover, len(list))
		for _, o := range list {
			if o != w {
				w.out.to[o.n] = newHandover(o)
				o.from = append(o.from, w.out.to[o.n])
			}
		}
	}
}

func newHandover(to *worker) *handover { return &handover{to: to, mem: make([]byte, handoverBytes)} }

// handOver gives what is at hand to the worker that seals for its SA; false: this one
// must do it.
func (w *outbound) handOver(s *sa, t *tun.Super) bool {
	if w.handed || w.to == nil {
		return false // what was handed over once stays: its SA has changed on the way
	}
	h := w.to[s.owner]
	if !h.put(w.dev, t) {
		w.drop(OutWorker)
	}
	return true
}

// put copies a packet or train into the ring. It waits a little for room.
func (h *handover) put(d *device, t *tun.Super) bool {
	for waited := time.Duration(0); ; waited += handoverStep {
		if h.place(d, t) {
			h.fresh = true
			return true
		}
		if h.tell(); waited >= handoverWait {
			return false
		}
		pause := unix.NsecToTimespec(int64(handoverStep))
		_ = unix.Nanosleep(&pause, nil)
	}
}

func (h *handover) place(d *device, t *tun.Super) bool {
	n, size := h.wrote.Load(), uint64(len(t.Packet))
	if n-h.read.Load() == handoverPackets {
		return false
	}
	at := h.end % handoverBytes
	skip := uint64(0)
	if at+size > handoverBytes { // in one piece
		skip = handoverBytes - at
		at = 0
	}
	end := h.end + skip + size
	if end-h.freed.Load() > handoverBytes {
		return false
	}
	r := &h.rec[n%handoverPackets]
	r.super, r.dev, r.end = *t, d, end
	r.super.Packet = h.mem[at : at+size : at+size]
	copy(r.super.Packet, t.Packet)
	h.end = end
	h.wrote.Store(n + 1)
	return true
}

// tell wakes the reader if it sleeps.
func (h *handover) tell() {
	if h.fresh {
		h.fresh = false
		if h.to.asleep.Load() {
			h.to.rouse()
		}
	}
}

// waiting reports whether another worker has handed something over.
func (w *worker) waiting() bool {
	for _, h := range w.from {
		if h.wrote.Load() != h.read.Load() {
			return true
		}
	}
	return false
}

// takeOver moves what another worker has handed over, up to the bounds of a turn.
func (w *worker) takeOver(h *handover) (moved bool) {
	if h.wrote.Load() == h.read.Load() {
		return false
	}
	w.out.guardedHanded(h)
	return true
}

// guardedHanded is guardedTurn for what was handed over.
func (w *outbound) guardedHanded(h *handover) {
	defer func() { w.handed = false }()
	defer w.recovered()
	for n, size := 0, 0; n < turnPackets && size < turnBytes; n++ {
		at := h.read.Load()
		if at == h.wrote.Load() {
			break
		}
		r := &h.rec[at%handoverPackets]
		if n == 0 {
			w.begin(r.dev)
		}
		w.dev, w.handed = r.dev, true
		size += len(r.super.Packet)
		w.handedPacket(h, r, at)
	}
	w.flush()
}

// handedPacket gives the place back whatever happens: what brings a bug to light must
// not come again.
func (w *outbound) handedPacket(h *handover, r *handed, at uint64) {
	defer func() {
		r.dev = nil
		h.freed.Store(r.end)
		h.read.Store(at + 1)
	}()
	w.packet(&r.super)
}

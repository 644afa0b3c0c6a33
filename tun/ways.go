package tun

import (
	"encoding/binary"
	"sync/atomic"

	"adit/tun/ring"
)

// quick is the way past a device's queue, a ring.Ring.
type quick interface {
	On() ring.Class
	Turn(c, old ring.Class) bool
	Off()
	Sleep() bool
	Wake()
	Head() uint64
	Before(head uint64) bool
	Take(mem []byte) int
}

// ways takes packets of the two ways that a device has, its queue and the quick one, so
// that a flow keeps its order. A flow's packets come one after the other in one processor
// of the kernel's, each into the way that is on for its class. This reader switches a class
// on when the queue is empty, the kernel's program off, with the first packet that only the
// queue takes.
//
//   - A packet in the queue whose class is on was there before those of the ring, so
//     the queue is read until it is empty before the ring's packets that were there by
//     then are taken.
//   - After that the ring has its turn at the latest behind turnAfter packets of the queue,
//     which is never empty while the gateway is slower than who fills it.
//   - A packet in the queue whose class was switched off comes after those of the ring.
//     Until the queue is empty again after the class was switched on, there can be some that
//     were on their way: all before the first that only the queue takes.
//
// A processor that stands still in the midst of the program, for longer than the reader takes to
// find the queue empty, and beside which a class is switched, can put a packet before an older one
// of its flow. So can one that brings a packet in the instant between another's switching a
// class off and its packet, if that class was switched on a moment before: the packet is
// taken for one from before that.
type ways struct {
	ring quick
	// read takes from the queue into mem, which has the virtio header before the packet; 0:
	// it is empty, or failed.
	read func(mem []byte) (int, error)
	// seen tells that a capture or the like looks at the device, which sees the queue alone.
	seen *atomic.Bool

	after int // switchAfter, but for tests

	single [ring.All + 1]int // by class: packets in a row that the ring could have taken
	on     ring.Class        // switched on here
	was    ring.Class        // of which there may be packets in the ring
	early  ring.Class        // of which there may be packets in the queue from before they were on
	calm   int               // looks at the empty queue since was is more than on
	mark   uint64            // behind the last packet of those classes
	head   uint64            // up to where the ring's packets have their turn
	row    int               // packets of the queue since the ring had one
	aside  []byte            // a packet of the queue that comes after them
	held   int               // its length with header; 0: there is none
}

const (
	// switchAfter is how many packets of a class have to come one by one before it is on
	// (again).
	switchAfter = 256
	// calmAfter is how many times the queue has to be empty before nobody in the kernel is
	// still about to put a packet into the ring whose class was on when it looked.
	calmAfter = 64
	// turnAfter is how many packets of the queue the ring waits for at most. One that was on
	// its way into the queue when its class was switched on is among the first then.
	turnAfter = 64
)

// next takes a packet with its header; 0: there is none now.
func (w *ways) next(mem []byte) (int, error) {
	w.ring.Wake()
	if w.ring.Before(w.head) {
		return w.record(mem), nil
	}
	if n := w.held; n > 0 {
		w.held = 0
		return copy(mem, w.aside[:n]), nil
	}
	head := w.ring.Head() // before the look at the queue: what is in it now is older
	if w.row >= turnAfter {
		w.row, w.early, w.head = 0, 0, head
		w.look()
		if n := w.record(mem); n > 0 {
			return n, nil
		}
	}
	n, err := w.read(mem)
	w.row++
	if n == 0 {
		w.row, w.head = 0, head
		w.settle()
		return w.record(mem), err
	}
	c, single := w.note(mem[:n])
	on := w.ring.On()
	if w.on&c&^on != 0 { // switched off by the program
		w.on &^= c
		w.single[c] = 0
	}
	if c&w.was&^on != 0 && (w.early&c == 0 || !single) {
		w.early &^= c
		if w.head = w.ring.Head(); w.ring.Before(w.head) {
			return w.putAside(mem, n), nil
		}
	}
	return n, nil
}

// putAside keeps a packet of the queue for later, and takes the ring's before it.
func (w *ways) putAside(mem []byte, n int) int {
	if w.aside == nil {
		w.aside = make([]byte, TakeSize)
	}
	w.held = copy(w.aside, mem[:n])
	return w.record(mem)
}

// settle does what can be done when the queue is empty: nothing in it is from before a
// switch.
func (w *ways) settle() {
	w.early = 0
	w.look()
	w.choose(ring.UDP)
	w.choose(ring.TCP)
	if w.was == w.on {
		w.calm = 0
		return
	}
	if w.calm++; w.calm == calmAfter {
		w.mark = w.ring.Head()
	}
	if w.calm >= calmAfter && !w.ring.Before(w.mark) {
		w.was, w.calm = w.on, 0
	}
}

// look switches off what somebody else wants to see.
func (w *ways) look() {
	if w.seen.Load() && w.on != 0 {
		w.on = 0
		w.ring.Off()
	}
}

// choose switches a class on that comes in single packets.
func (w *ways) choose(c ring.Class) {
	if (w.on|w.early)&c != 0 || w.single[c] < w.after || w.seen.Load() {
		return
	}
	if on := w.ring.On(); w.ring.Turn(c, on) {
		w.on |= c
		w.was |= c
		w.early |= c
	}
}

// note counts a packet of the queue and returns its class, and whether the ring would
// have taken it.
func (w *ways) note(b []byte) (c ring.Class, single bool) {
	if len(b) < vnetHdrLen {
		return 0, false
	}
	pkt := b[vnetHdrLen:]
	if c = ring.ClassOf(pkt); c == 0 {
		return 0, false
	}
	if b[1] != gsoNone || len(pkt) > ring.Largest || fragment(pkt) || within(b) {
		w.single[c] = 0
		return c, false
	}
	w.single[c] = min(w.single[c]+1, w.after)
	return c, true
}

// fragment tells of a packet of TCP or UDP whether it is one, or has IPv4's options.
func fragment(pkt []byte) bool {
	if pkt[0]>>4 == 6 {
		return pkt[6] != protoTCP && pkt[6] != protoUDP
	}
	return binary.BigEndian.Uint16(pkt[6:])&0x3fff != 0 || pkt[0] != 0x45
}

// within tells of a single packet of TCP or UDP whether the checksum that is to be completed
// is that of a packet in it.
func within(b []byte) bool {
	var h vnetHdr
	h.parse(b)
	start := uint16(ipv4Len)
	if b[vnetHdrLen]>>4 == 6 {
		start = ipv6Len
	}
	return h.flags&vnetNeedsCsum != 0 && h.csumStart != start
}

// rest is called before the reader sleeps; false: there is still something to take.
func (w *ways) rest() bool {
	return w.held == 0 && w.ring.Sleep()
}

// record takes the ring's next packet, if it has its turn, and puts a header before it.
func (w *ways) record(mem []byte) int {
	if !w.ring.Before(w.head) {
		return 0
	}
	n := w.ring.Take(mem[vnetHdrLen:])
	if n == 0 {
		return 0
	}
	var h vnetHdr
	h.partial(mem[vnetHdrLen : vnetHdrLen+n])
	h.put(mem)
	return vnetHdrLen + n
}

// partial finds out whether the checksum of a whole packet of TCP or UDP is still to
// be completed: the field holds the sum of the pseudo header then, which the ring can't
// tell. A checksum that is complete and the same by chance is the same when completed.
// That of a packet that was damaged on its way can be as well, once in 65,535 times, and
// be made good by that: as often as a damaged packet's checksum is right anyway.
func (h *vnetHdr) partial(pkt []byte) {
	if ring.ClassOf(pkt) == 0 { // no such packet, nor room for its addresses
		return
	}
	addrs, proto, start := pkt[12:20], pkt[9], ipv4Len
	if pkt[0]>>4 == 6 {
		addrs, proto, start = pkt[8:40], pkt[6], ipv6Len
	}
	offset := 6
	if proto == protoTCP {
		offset = 16
	}
	if len(pkt) < start+offset+2 {
		return
	}
	sum := fold(pseudo(addrs, proto) + uint64(len(pkt)-start))
	have := binary.BigEndian.Uint16(pkt[start+offset:])
	// Zero has two forms, of which address translation can bring the other. In UDP that is
	// a packet without checksum: the program leaves to the queue what is meant otherwise.
	if have == sum || have == 0 && sum == 0xffff && proto == protoTCP {
		h.flags, h.csumStart, h.csumOffset = vnetNeedsCsum, uint16(start), uint16(offset)
	}
}

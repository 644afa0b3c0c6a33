package lab

import (
	"bytes"
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Direction is the way of a frame through the forwarder.
type Direction int

// The two directions.
const (
	LeftToRight Direction = iota
	RightToLeft
)

// Impairment says what the forwarder does to the frames that pass. Probabilities
// are of each frame and lie in [0, 1]. What happens to the n-th frame of a
// direction depends on Seed and n alone; the zero value forwards unchanged.
// Frames by which neighbours find each other (ARP, IPv6 neighbour discovery) and
// frames that aren't IP always pass unharmed.
type Impairment struct {
	Seed      uint64
	Loss      float64       // dropped
	Duplicate float64       // sent twice
	Reorder   float64       // held back by ReorderBy, so that later ones overtake it
	ReorderBy time.Duration // 0 means 5 ms
	Corrupt   float64       // one bit flipped behind the UDP or ESP header, checksum mended
	Delay     time.Duration // of every frame
	Jitter    time.Duration // additional, evenly spread; causes reordering

	// Filter, if set, sees each Ethernet frame first, may change it in place, and
	// has it dropped by returning false. It is called by one goroutine a
	// direction; the frame is only valid during the call.
	Filter func(dir Direction, frame []byte) bool
}

// ForwarderCounts are what the forwarder did, by direction.
type ForwarderCounts struct {
	Forwarded, Dropped, Duplicated, Delayed, Corrupted [2]uint64
}

// Limits of the forwarder.
const (
	maxDelayedFrames = 1 << 15 // in flight in one direction; more are dropped
	maxFrame         = 1<<16 + 64
)

type forwarder struct {
	ports  [2]*os.File // by the direction whose frames are read there
	lanes  [2]*lane
	imp    atomic.Pointer[Impairment]
	flips  atomic.Int64
	wg     sync.WaitGroup
	mu     sync.Mutex
	counts ForwarderCounts
}

// lane is one direction: its random numbers and the frames in flight.
type lane struct {
	dir Direction
	out *os.File
	rng *rand.Rand
	imp *Impairment // the one rng was seeded for

	mu     sync.Mutex
	queue  frameHeap
	serial uint64
	wake   chan struct{}
}

type delayedFrame struct {
	due    time.Time
	serial uint64 // keeps frames that are due at once in order
	frame  []byte
}

type frameHeap []delayedFrame

func (h frameHeap) Len() int      { return len(h) }
func (h frameHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h frameHeap) Less(i, j int) bool {
	if h[i].due.Equal(h[j].due) {
		return h[i].serial < h[j].serial
	}
	return h[i].due.Before(h[j].due)
}
func (h *frameHeap) Push(x any) { *h = append(*h, x.(delayedFrame)) }
func (h *frameHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}

func (l *Lab) startForwarder() error {
	for _, n := range []string{Left, Right} {
		if out, err := l.Exec(10*time.Second, n, "ethtool", "-K", Wan, "tx", "off", "tso", "off", "gso", "off", "gro", "off"); err != nil {
			return fmt.Errorf("switching offload off: %w: %s", err, out)
		}
	}
	f := &forwarder{}
	f.imp.Store(&Impairment{})
	for dir, iface := range []string{Left, Right} {
		fd, err := packetSocket(l.NS(Wire), iface, unix.SOCK_RAW)
		if err != nil {
			return err
		}
		f.ports[dir] = os.NewFile(uintptr(fd), "forwarder-"+iface)
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
			return err
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 16<<20); err != nil {
			return err
		}
	}
	quit := make(chan struct{})
	for dir := range f.lanes {
		f.lanes[dir] = &lane{dir: Direction(dir), out: f.ports[1-dir], wake: make(chan struct{}, 1)}
		f.wg.Add(2)
		go func() { defer f.wg.Done(); f.read(f.lanes[dir]) }()
		go func() { defer f.wg.Done(); f.release(f.lanes[dir], quit) }()
	}
	l.forward = f
	l.onClose(func() {
		close(quit)
		f.ports[0].Close()
		f.ports[1].Close()
		f.wg.Wait()
	})
	return nil
}

// Impair has the forwarder of a lab with [Impaired] in the middle treat frames so
// from now on, counting frames from zero again.
func (l *Lab) Impair(i Impairment) error {
	if l.forward == nil {
		return errors.New("lab: Impair needs the forwarder in the middle")
	}
	if i.ReorderBy == 0 {
		i.ReorderBy = 5 * time.Millisecond
	}
	l.forward.imp.Store(&i)
	return nil
}

// FlipBits has the forwarder flip one bit in the ciphertext of each of the next n
// ESP packets, in whichever direction they go.
func (l *Lab) FlipBits(n int) error {
	if l.forward == nil {
		return errors.New("lab: FlipBits needs the forwarder in the middle")
	}
	l.forward.flips.Store(int64(n))
	return nil
}

// ForwarderCounts are the counts since the lab was built; zero without a forwarder.
func (l *Lab) ForwarderCounts() ForwarderCounts {
	if l.forward == nil {
		return ForwarderCounts{}
	}
	l.forward.mu.Lock()
	defer l.forward.mu.Unlock()
	return l.forward.counts
}

func (f *forwarder) count(field *[2]uint64, dir Direction) {
	f.mu.Lock()
	field[dir]++
	f.mu.Unlock()
}

func (f *forwarder) read(ln *lane) {
	buf := make([]byte, maxFrame)
	for {
		n, err := f.ports[ln.dir].Read(buf)
		if err != nil {
			if errors.Is(err, unix.ENETDOWN) || errors.Is(err, unix.EINTR) {
				continue
			}
			return
		}
		f.handle(ln, buf[:n])
	}
}

// handle decides about one frame. All random numbers are drawn for every frame,
// so that one frame's fate does not shift the next one's.
func (f *forwarder) handle(ln *lane, frame []byte) {
	imp := f.imp.Load()
	if imp != ln.imp {
		ln.imp = imp
		ln.rng = rand.New(rand.NewPCG(imp.Seed, uint64(ln.dir)))
	}
	if len(frame) < 14 {
		return
	}
	if !impairable(frame) {
		f.send(ln, frame)
		return
	}
	var roll [5]float64
	for i := range roll {
		roll[i] = ln.rng.Float64()
	}
	bit := ln.rng.Uint64()
	if imp.Filter != nil && !imp.Filter(ln.dir, frame) || roll[0] < imp.Loss {
		f.count(&f.counts.Dropped, ln.dir)
		return
	}
	if roll[3] < imp.Corrupt && flipBit(frame[14:], bit, false) ||
		f.flips.Load() > 0 && flipBit(frame[14:], bit, true) && f.flips.Add(-1) >= 0 {
		f.count(&f.counts.Corrupted, ln.dir)
	}
	delay := imp.Delay + time.Duration(roll[4]*float64(imp.Jitter))
	if roll[2] < imp.Reorder {
		delay += imp.ReorderBy
	}
	f.later(ln, delay, frame)
	if roll[1] < imp.Duplicate {
		f.count(&f.counts.Duplicated, ln.dir)
		f.later(ln, delay, frame)
	}
}

// impairable tells user traffic from what links need to work at all.
func impairable(frame []byte) bool {
	switch b := frame[14:]; binary.BigEndian.Uint16(frame[12:]) {
	case unix.ETH_P_IP:
		return true
	case unix.ETH_P_IPV6: // types 133 to 137 are neighbour discovery (RFC 4861)
		return len(b) < 41 || b[6] != protoICMPv6 || b[40] < 133 || b[40] > 137
	}
	return false
}

// later sends a frame now or hands a copy to release.
func (f *forwarder) later(ln *lane, delay time.Duration, frame []byte) {
	if delay <= 0 {
		f.send(ln, frame)
		return
	}
	ln.mu.Lock()
	full := len(ln.queue) >= maxDelayedFrames
	if !full {
		ln.serial++
		heap.Push(&ln.queue, delayedFrame{time.Now().Add(delay), ln.serial, bytes.Clone(frame)})
	}
	ln.mu.Unlock()
	if full {
		f.count(&f.counts.Dropped, ln.dir)
		return
	}
	f.count(&f.counts.Delayed, ln.dir)
	select {
	case ln.wake <- struct{}{}:
	default:
	}
}

// release sends delayed frames when they are due.
func (f *forwarder) release(ln *lane, quit <-chan struct{}) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		wait := time.Hour
		ln.mu.Lock()
		var due [][]byte
		for now := time.Now(); len(ln.queue) > 0; {
			if wait = ln.queue[0].due.Sub(now); wait > 0 {
				break
			}
			due = append(due, heap.Pop(&ln.queue).(delayedFrame).frame)
			wait = time.Hour
		}
		ln.mu.Unlock()
		for _, fr := range due {
			f.send(ln, fr)
		}
		timer.Reset(wait)
		select {
		case <-quit:
			return
		case <-ln.wake:
		case <-timer.C:
		}
	}
}

func (f *forwarder) send(ln *lane, frame []byte) {
	if _, err := ln.out.Write(frame); err != nil {
		f.count(&f.counts.Dropped, ln.dir)
		return
	}
	f.count(&f.counts.Forwarded, ln.dir)
}

// flipBit flips one bit behind the UDP header, or behind SPI and sequence number
// of raw ESP, and mends the UDP checksum, so that the packet reaches the one whose
// integrity check should find out. With onlyESP it leaves IKE alone. It reports
// whether it did anything.
func flipBit(b []byte, bit uint64, onlyESP bool) bool {
	p := Packet{Bytes: b, Len: len(b)}
	parsePacket(&p, nil)
	payload, first, ok := parseIP(&p)
	if !ok || !first || onlyESP && p.Class != ClassESP && p.Class != ClassUDPESP {
		return false
	}
	skip := 8 // SPI and sequence number, or the UDP header
	if p.Class == ClassUDPESP {
		skip = 16
	}
	if p.Proto != protoUDP && p.Proto != protoESP || len(payload) <= skip {
		return false
	}
	target := payload[skip:]
	i := bit % uint64(len(target)*8)
	at := skip + int(i/8)
	old := target[i/8]
	target[i/8] ^= 1 << (i % 8)
	if sum := binary.BigEndian.Uint16(payload[6:]); p.Proto == protoUDP && sum != 0 {
		// RFC 1624: HC' = ~(~HC + ~m + m'), for the 16-bit word that changed.
		m, m2 := uint32(old), uint32(target[i/8])
		if at%2 == 0 {
			m, m2 = m<<8, m2<<8
		}
		s := uint32(^sum) + (^m & 0xffff) + m2
		s = s&0xffff + s>>16
		s = s&0xffff + s>>16
		sum = ^uint16(s)
		if sum == 0 {
			sum = 0xffff
		}
		binary.BigEndian.PutUint16(payload[6:], sum)
	}
	return true
}

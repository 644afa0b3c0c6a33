package tun_test

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"adit/tun"
	"adit/tun/ring"
)

// stamped is where the number of a flow's packet is, which follows the headers.
func stamped(p []byte) int {
	start, offset := sumOf(p)
	if offset == 16 {
		return start + 20
	}
	return start + 8
}

// sender sends numbered packets of a flow.
type sender struct {
	l       *ringLab
	rng     *rand.Rand
	v6      bool
	class   ring.Class
	flow    uint16
	special int // one in so many is a superpacket or a fragment; 0: none
	number  uint32
}

// write sends the next packet, or packets, and returns how many.
func (s *sender) write() int {
	const head = 200
	p := packetFrom(s.rng, s.v6, s.class, head+s.rng.IntN(1300), nil)
	start, _ := sumOf(p)
	binary.BigEndian.PutUint16(p[start:], s.flow)
	at := stamped(p)
	binary.BigEndian.PutUint32(p[at:], s.number)
	n := 1
	kind := 0
	if s.special > 0 && s.rng.IntN(s.special) == 0 {
		kind = 1 + s.rng.IntN(2)
	}
	switch {
	case kind == 1:
		const size = 64
		n = 1 + s.rng.IntN(20)
		p = p[:at]
		for i := range n {
			p = binary.BigEndian.AppendUint32(p, s.number+uint32(i))
			p = append(p, make([]byte, size-4)...)
		}
		p = lengthened(p)
		super := map[bool]uint8{false: 1, true: 4}[s.v6]
		if s.class == ring.UDP {
			super = 5
		}
		start, offset := sumOf(p)
		s.l.write(append(s.l.header(super, size, start, offset, s.v6), partial(p)...))
	case kind == 2 && !s.v6:
		binary.BigEndian.PutUint16(p[6:], 0x2000)
		s.l.put(headerSummed(p))
	case s.rng.IntN(2) == 0:
		s.l.putPartial(summed(p))
	default:
		s.l.put(summed(p))
	}
	s.number += uint32(n)
	return n
}

// TestRingOrder has several processors of the kernel's bring flows of both classes, by both
// ways at once, to a reader that sleeps and wakes: each flow keeps its order, nothing is lost.
func TestRingOrder(t *testing.T) {
	withRing(t, func(l *ringLab) {
		const window = 400
		each := 12_000
		if os.Getenv("ADIT_LONG") != "" {
			each = 500_000
		}
		var sent, got atomic.Int64
		var group sync.WaitGroup
		var stop atomic.Bool
		for i, list := range [][]*sender{
			{{class: ring.UDP}, {class: ring.TCP, special: 3000}, {class: ring.TCP, v6: true}},
			{{class: ring.UDP, v6: true, special: 2000}, {class: ring.TCP}},
			{{class: ring.UDP, special: 700}, {class: ring.UDP}},
		} {
			for j, s := range list {
				s.l, s.flow = l, uint16(100*i+j)
				s.rng = rand.New(rand.NewPCG(rand.Uint64(), 1))
			}
			group.Go(func() {
				runtime.LockOSThread() // for good: it keeps its processor
				onCPU(i)
				rng := list[0].rng
				for n := 0; n < each && !stop.Load(); n++ {
					for sent.Load()-got.Load() > window && !stop.Load() {
						time.Sleep(20 * time.Microsecond)
					}
					sent.Add(int64(list[rng.IntN(len(list))].write()))
					if rng.IntN(300) == 0 {
						time.Sleep(time.Duration(rng.IntN(300)) * time.Microsecond)
					}
				}
			})
		}
		all := make(chan struct{})
		go func() { group.Wait(); close(all) }()
		defer func() { stop.Store(true); <-all }()
		next := map[uint16]uint32{}
		buf := make([]byte, ringMTU)
		sleeps, idle := 0, 0
		for done := false; !done || got.Load() < sent.Load(); {
			var s tun.Super
			if !l.next(&s) {
				if !l.dev.Rest() {
					continue
				}
				sleeps++
				if !l.poll(100*time.Millisecond) && done {
					if idle++; idle == 20 {
						break
					}
				}
				select {
				case <-all:
					done = true
				default:
				}
				if l.rng.IntN(10) == 0 {
					time.Sleep(time.Duration(l.rng.IntN(200)) * time.Microsecond)
				}
				continue
			}
			for s.More() {
				n, err := s.Next(buf)
				l.must(err)
				p := buf[:n]
				start, _ := sumOf(p)
				flow := binary.BigEndian.Uint16(p[start:])
				if n := binary.BigEndian.Uint32(p[stamped(p):]); n != next[flow] {
					t.Errorf("flow %d brings packet %d, want %d", flow, n, next[flow])
					return
				}
				next[flow]++
				got.Add(1)
			}
		}
		st := l.dev.Stats()
		dropped := l.link("adit0").Attrs().Statistics.TxDropped
		if got.Load() != sent.Load() || st.RingFull != 0 || dropped != 0 {
			t.Errorf("%d of %d, dropped %d, %+v", got.Load(), sent.Load(), dropped, st)
		}
		if st.ReadRing == 0 || st.ReadRing == st.ReadPackets || st.ReadSuper == 0 || sleeps < 100 {
			t.Errorf("%d sleeps, %+v", sleeps, st)
		}
		t.Logf("%d sleeps, %+v", sleeps, st)
	})
}

// TestRingWakes sends the next packet when the last one has come, before, while or after the
// reader goes to sleep: it is woken for each. Every so often a packet comes by the queue.
func TestRingWakes(t *testing.T) {
	for name, epoll := range map[string]bool{"poll": false, "epoll": true} {
		t.Run(name, func(t *testing.T) { withRing(t, func(l *ringLab) { wakes(l, epoll) }) })
	}
}

func wakes(l *ringLab, epoll bool) {
	const packets = int64(10_000)
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	l.must(err)
	defer unix.Close(fd)
	for _, s := range []int{l.dev.FD(), l.dev.RestFD()} {
		l.must(unix.EpollCtl(fd, unix.EPOLL_CTL_ADD, s, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(s)}))
	}
	l.warm(ring.UDP)
	single := append(l.header(0, 0, 0, 0, false), l.packet(false, ring.UDP, 100, nil)...)
	other := append(l.header(0, 0, 0, 0, false), l.packet(false, 0, 100, nil)...)
	var got atomic.Int64
	var stop atomic.Bool
	var group sync.WaitGroup
	defer group.Wait()
	defer stop.Store(true)
	group.Go(func() {
		runtime.LockOSThread()
		onCPU(1)
		rng := rand.New(rand.NewPCG(rand.Uint64(), 1))
		for n := range packets {
			for start, wait := time.Now(), time.Duration(rng.IntN(15_000)); got.Load() < n || time.Since(start) < wait; {
				if stop.Load() {
					return
				}
				if got.Load() < n {
					start = time.Now()
				}
			}
			if rng.IntN(20) == 0 {
				l.write(other)
			} else {
				l.write(single)
			}
		}
	})
	sleeps, most := 0, time.Duration(0)
	var events [4]unix.EpollEvent
	var s tun.Super
	for got.Load() < packets {
		if l.next(&s) {
			got.Add(1)
			continue
		}
		if epoll { // as a worker that looks after other things: the poller forgets what had nothing
			_, _ = unix.EpollWait(fd, events[:], 0)
		}
		if l.next(&s) {
			got.Add(1)
			continue
		}
		if !l.dev.Rest() {
			continue
		}
		sleeps++
		start := time.Now()
		if epoll {
			_, _ = unix.EpollWait(fd, events[:], 2000)
		} else {
			l.poll(2 * time.Second)
		}
		// When the time is over the kernel looks itself.
		if most = max(most, time.Since(start)); most > time.Second {
			l.t.Errorf("packet %d wakes nobody for %v", got.Load(), most)
			return
		}
	}
	st := l.dev.Stats()
	if sleeps < int(packets)/10 || st.ReadRing < uint64(packets)*9/10 {
		l.t.Errorf("%d sleeps, %+v", sleeps, st)
	}
	l.t.Logf("%d sleeps, the longest %v", sleeps, most)
}

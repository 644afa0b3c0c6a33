package userspace_test

import (
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"adit/dataplane/userspace"
	"adit/ipsec"
	"adit/ipsec/dptest"
)

// TestConformance runs the suite for every data plane against this one.
func TestConformance(t *testing.T) {
	dptest.Run(t, func(t *testing.T) dptest.Link {
		taken := make([]*takenTap, 0, 2)
		l := newLab(t, func(c *userspace.Config) {
			taken = append(taken, &takenTap{})
			c.Tap = taken[len(taken)-1]
		})
		end := func(s *side, tap *takenTap) dptest.End {
			return dptest.End{Plane: s.plane, Send: tap.counted(func(b []byte) { s.send(b) }), Settled: tap.settled, Receive: s.inbox(t)}
		}
		a, b := end(l.a, taken[0]), end(l.b, taken[1])
		a.Outer4, a.Outer6, b.Outer4, b.Outer6 = addrA4, addrA6, addrB4, addrB6
		return dptest.Link{A: a, B: b}
	})
}

// takenTap counts the packets that a gateway takes up, to know when it met all
// that were sent. (It is asked before a decision; what follows takes no waiting.)
type takenTap struct{ sent, taken atomic.Int64 }

func (c *takenTap) Inner(dir ipsec.Direction, _ []byte) {
	if dir == ipsec.Out {
		c.taken.Add(1)
	}
}
func (c *takenTap) Outer(ipsec.Direction, netip.AddrPort, netip.AddrPort, bool, uint8, []byte) {}

func (c *takenTap) counted(send func([]byte)) func([]byte) {
	return func(b []byte) {
		c.sent.Add(1)
		send(b)
	}
}

func (c *takenTap) settled() {
	for end := time.Now().Add(5 * time.Second); c.taken.Load() < c.sent.Load() && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
}

// inbox reads the gateway's network in the background, for receiving with a time limit.
func (s *side) inbox(t *testing.T) func(time.Duration) []byte {
	packets := make(chan []byte, 1024)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			bufs, sizes := [][]byte{make([]byte, 65536)}, []int{0}
			if _, err := s.host.Read(bufs, sizes, 0); err != nil {
				return
			}
			packets <- bufs[0][:sizes[0]]
		}
	}()
	t.Cleanup(func() {
		s.host.Close()
		<-ended
	})
	return func(wait time.Duration) []byte {
		select {
		case b := <-packets:
			return b
		case <-time.After(wait):
			return nil
		}
	}
}

package userspace_test

import (
	"testing"
	"time"

	"adit/ipsec/dptest"
)

// TestConformance runs the suite for every data plane against this one.
func TestConformance(t *testing.T) {
	dptest.Run(t, func(t *testing.T) dptest.Link {
		l := newLab(t, nil)
		end := func(s *side) dptest.End {
			return dptest.End{Plane: s.plane, Send: func(b []byte) { s.send(b) }, Receive: s.inbox(t)}
		}
		a, b := end(l.a), end(l.b)
		a.Outer4, a.Outer6, b.Outer4, b.Outer6 = addrA4, addrA6, addrB4, addrB6
		return dptest.Link{A: a, B: b}
	})
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

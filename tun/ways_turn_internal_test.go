package tun

import (
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"adit/tun/ring"
)

// TestWaysTurn has a queue that is never empty, as that of a gateway which is slower than a
// bulk transfer in superpackets. A call's packets, which come by the ring, must not wait for
// its end, and a capture that begins meanwhile must see them.
func TestWaysTurn(t *testing.T) {
	for _, early := range []ring.Class{0, ring.UDP} {
		bulk := sent{flow: 1, class: ring.TCP, special: true}
		call := sent{flow: 2, class: ring.UDP}
		k := &twoWays{t: t, rng: rand.New(rand.NewPCG(1, 1)), pace: 6, burst: 8, cpus: []*processor{{}}, on: ring.UDP}
		var seen atomic.Bool
		w := &ways{ring: k, seen: &seen, after: 4, on: ring.UDP, was: ring.UDP, early: early,
			read: func(mem []byte) (int, error) { return copy(mem, bulk.packet()), nil }}
		mem := make([]byte, TakeSize)
		for range 10 {
			k.ring = append(k.ring, record{call.packet()[vnetHdrLen:], true})
		}
		calls, bulks := 0, 0
		for range 3 * turnAfter {
			n, err := w.next(mem)
			if n == 0 || err != nil {
				t.Fatal(n, err)
			}
			if ring.ClassOf(mem[vnetHdrLen:n]) == ring.UDP {
				calls++
			} else {
				bulks++
			}
		}
		if calls != 10 || bulks == 0 {
			t.Errorf("early %d: %d packets of the ring are taken, %d of the queue", early, calls, bulks)
		}
		seen.Store(true)
		for range turnAfter + 1 {
			_, _ = w.next(mem)
		}
		if k.on != 0 {
			t.Errorf("early %d: somebody looks, but %d is on", early, k.on)
		}
	}
}

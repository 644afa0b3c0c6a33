package hostnet

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// The index of ranges says what a plain list says.
func TestRangeIndex(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	at := func(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}) }
	var x rangeIndex
	var plain []addrRange
	for range 4_000 {
		from := rng.IntN(12_000)
		r := addrRange{at(from), at(from + rng.IntN(4))}
		clash := slices.ContainsFunc(plain, r.overlaps)
		if x.overlaps(r) != clash {
			t.Fatalf("%v overlaps: %v, want %v", r, !clash, clash)
		}
		switch {
		case !clash:
			x.add(r)
			plain = append(plain, r)
		case rng.IntN(2) == 0:
			i := rng.IntN(len(plain))
			x.remove(plain[i])
			plain = slices.Delete(plain, i, i+1)
		}
	}
	n := 0
	for _, p := range x.pieces {
		n += len(p)
	}
	if n != len(plain) || !slices.IsSortedFunc(slices.Concat(x.pieces...), func(a, b addrRange) int { return a.from.Compare(b.from) }) {
		t.Errorf("%d ranges of %d, or not in order", n, len(plain))
	}
	x.remove(addrRange{at(1 << 20), at(1 << 20)}) // is not there
}

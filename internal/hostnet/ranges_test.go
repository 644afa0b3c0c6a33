package hostnet

import (
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// small draws a range out of sixteen addresses at either end of a family.
func small(t *rapid.T, label string, v6 bool) addrRange {
	a, b := rapid.IntRange(0, 15).Draw(t, label+" from"), rapid.IntRange(0, 15).Draw(t, label+" to")
	if b < a {
		a, b = b, a
	}
	return addrRange{nth(a, v6), nth(b, v6)}
}

// nth is one of sixteen addresses: the first eight and the last eight.
func nth(i int, v6 bool) netip.Addr {
	b := make([]byte, 4)
	if v6 {
		b = make([]byte, 16)
	}
	if i >= 8 {
		for j := range b {
			b[j] = 0xff
		}
		b[len(b)-1] = byte(240 + i)
	} else {
		b[len(b)-1] = byte(i)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func TestWithoutLeavesExactlyTheRest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v6 := rapid.Bool().Draw(t, "v6")
		r := small(t, "range", v6)
		var holes []addrRange
		for range rapid.IntRange(0, 5).Draw(t, "holes") {
			holes = append(holes, small(t, "hole", v6))
		}
		left := r.without(holes)
		for i := range 16 {
			a := nth(i, v6)
			want := r.contains(a) && !slices.ContainsFunc(holes, func(h addrRange) bool { return h.contains(a) })
			if got := slices.ContainsFunc(left, func(l addrRange) bool { return l.contains(a) }); got != want {
				t.Fatalf("%v in %v: %v", a, left, got)
			}
		}
		for i := 1; i < len(left); i++ {
			if !left[i-1].to.Less(left[i].from) {
				t.Fatalf("%v: not in order", left)
			}
		}
	})
}

func TestPrefixesMakeUpTheRange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := small(t, "range", rapid.Bool().Draw(t, "v6"))
		at := r.from
		ps := r.prefixes()
		for _, p := range ps {
			if p.Masked().Addr() != at {
				t.Fatalf("%v: %v does not start at %v", r, p, at)
			}
			at = prefixRange(p).to.Next()
		}
		if at != r.to.Next() {
			t.Fatalf("%v ends before %v", ps, r.to)
		}
		if len(ps) > 2*r.from.BitLen() {
			t.Fatalf("%d prefixes", len(ps))
		}
	})
	for _, s := range []string{"0.0.0.0/0", "::/0", "10.0.0.0/8", "2001:db8::/32", "192.0.2.1/32"} {
		p := netip.MustParsePrefix(s)
		if got := prefixRange(p).prefixes(); len(got) != 1 || got[0] != p {
			t.Errorf("%v: %v", p, got)
		}
	}
}

// Whatever the ranges, the dispatch names for every address exactly the rules
// that have it, in order; the coarse one at least names all of them.
func TestDispatchNamesEveryRuleOfAnAddress(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v6 := rapid.Bool().Draw(t, "v6")
		var ranges []addrRange
		for range rapid.IntRange(1, 9).Draw(t, "n") {
			ranges = append(ranges, small(t, "range", v6))
		}
		d, ok := cut(ranges, 1000)
		if !ok {
			t.Fatal("limit")
		}
		coarse := cutCoarse(ranges)
		for i := range 16 {
			a := nth(i, v6)
			var want []int
			for n, r := range ranges {
				if r.contains(a) {
					want = append(want, n)
				}
			}
			if got := d.at(a); !slices.Equal(got, want) {
				t.Fatalf("%v: rules %v, want %v", a, got, want)
			}
			if got := coarse.at(a); (got != nil) != (want != nil) {
				t.Fatalf("%v: coarse dispatch has %v, want %v", a, got, want)
			}
		}
		for _, d := range []dispatch{d, coarse} {
			for i := 1; i < len(d.slots); i++ {
				if !d.slots[i-1].r.to.Less(d.slots[i].r.from) {
					t.Fatalf("slots overlap: %v", d.slots)
				}
			}
		}
	})
}

func (d dispatch) at(a netip.Addr) []int {
	for _, s := range d.slots {
		if s.r.contains(a) {
			return d.lists[s.list]
		}
	}
	return nil
}

func TestDispatchStaysSmall(t *testing.T) {
	var nested []addrRange
	for i := range 3000 {
		from, to := netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), netip.AddrFrom4([4]byte{20, byte((5000 - i) >> 8), byte(5000 - i), 0})
		nested = append(nested, addrRange{from, to})
	}
	if _, ok := cut(nested, maxLists); ok {
		t.Error("thousands of nested ranges are within the limit")
	}
}

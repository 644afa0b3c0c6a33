package hostnet

import (
	"net/netip"
	"slices"
)

// addrRange is a range of addresses of one family, both ends included.
type addrRange struct{ from, to netip.Addr }

func prefixRange(p netip.Prefix) addrRange {
	from := p.Masked().Addr()
	b := from.AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	to, _ := netip.AddrFromSlice(b)
	return addrRange{from, to}
}

// String returns both ends as RFC 7296's traffic selectors are usually written.
func (r addrRange) String() string { return r.from.String() + "-" + r.to.String() }

// full reports whether the range has every address of its family.
func (r addrRange) full() bool {
	return r.from.IsUnspecified() && !r.to.Next().IsValid()
}

func (r addrRange) contains(a netip.Addr) bool {
	return r.from.BitLen() == a.BitLen() && !a.Less(r.from) && !r.to.Less(a)
}

// within reports whether r lies inside o and is smaller than it.
func (r addrRange) within(o addrRange) bool {
	return r != o && o.contains(r.from) && o.contains(r.to)
}

func (r addrRange) overlaps(o addrRange) bool {
	return r.from.BitLen() == o.from.BitLen() && !r.to.Less(o.from) && !o.to.Less(r.from)
}

func (r addrRange) intersect(o addrRange) (addrRange, bool) {
	if !r.overlaps(o) {
		return addrRange{}, false
	}
	if r.from.Less(o.from) {
		r.from = o.from
	}
	if o.to.Less(r.to) {
		r.to = o.to
	}
	return r, true
}

// without returns what is left of r when the holes are taken out, in order.
func (r addrRange) without(holes []addrRange) []addrRange {
	holes = slices.DeleteFunc(slices.Clone(holes), func(h addrRange) bool { return !h.overlaps(r) })
	slices.SortFunc(holes, func(a, b addrRange) int { return a.from.Compare(b.from) })
	var left []addrRange
	at := r.from
	for _, h := range holes {
		if at.Less(h.from) {
			left = append(left, addrRange{at, h.from.Prev()})
		}
		if !h.to.Less(at) {
			at = h.to.Next()
		}
		if !at.IsValid() {
			return left
		}
	}
	if !r.to.Less(at) {
		left = append(left, addrRange{at, r.to})
	}
	return left
}

// prefixes returns the fewest prefixes that make up the range, in order.
func (r addrRange) prefixes() []netip.Prefix {
	var ps []netip.Prefix
	for at := r.from; at.IsValid() && !r.to.Less(at); {
		bits := at.BitLen()
		for bits > 0 {
			wider := netip.PrefixFrom(at, bits-1)
			if wider.Masked().Addr() != at || r.to.Less(prefixRange(wider).to) {
				break
			}
			bits--
		}
		p := netip.PrefixFrom(at, bits)
		ps = append(ps, p)
		at = prefixRange(p).to.Next()
	}
	return ps
}

// slot is one interval of a dispatch table: the addresses of r concern exactly
// the rules of list (a number into the dispatch's lists).
type slot struct {
	r    addrRange
	list int
}

// dispatch cuts the address space so that a lookup of one address yields the few
// rules that can concern it, however many policies there are.
type dispatch struct {
	slots []slot
	lists [][]int // rule numbers, ascending
}

// cut builds the dispatch of ranges (all of one family); the rule numbers are
// indexes into ranges. It reports false if the lists would have more than limit
// entries together, as with many wide ranges that overlap.
func cut(ranges []addrRange, limit int) (dispatch, bool) {
	type edge struct {
		at   netip.Addr // first address where the rule is (or is no longer) active
		rule int
		open bool
	}
	edges := make([]edge, 0, 2*len(ranges))
	for i, r := range ranges {
		edges = append(edges, edge{r.from, i, true})
		if end := r.to.Next(); end.IsValid() {
			edges = append(edges, edge{end, i, false})
		}
	}
	slices.SortFunc(edges, func(a, b edge) int { return a.at.Compare(b.at) })
	var d dispatch
	var active []int
	known := map[string]int{}
	var key []byte
	total := 0
	for i := 0; i < len(edges); {
		at := edges[i].at
		for ; i < len(edges) && edges[i].at == at; i++ {
			pos, _ := slices.BinarySearch(active, edges[i].rule)
			if edges[i].open {
				active = slices.Insert(active, pos, edges[i].rule)
			} else {
				active = slices.Delete(active, pos, pos+1)
			}
		}
		if len(active) == 0 {
			continue
		}
		to := lastAddr(at)
		if i < len(edges) {
			to = edges[i].at.Prev()
		}
		key = key[:0]
		for _, a := range active {
			key = append(key, byte(a), byte(a>>8), byte(a>>16), byte(a>>24))
		}
		list, ok := known[string(key)]
		if !ok {
			if total += len(active); total > limit {
				return dispatch{}, false
			}
			list = len(d.lists)
			known[string(key)] = list
			d.lists = append(d.lists, slices.Clone(active))
		}
		if n := len(d.slots); n > 0 && d.slots[n-1].list == list && d.slots[n-1].r.to.Next() == at {
			d.slots[n-1].r.to = to
		} else {
			d.slots = append(d.slots, slot{addrRange{at, to}, list})
		}
	}
	return d, true
}

// cutCoarse is the dispatch with one list of all rules for every address that
// any of them has: slow to evaluate but small.
func cutCoarse(ranges []addrRange) dispatch {
	sorted := slices.Clone(ranges)
	slices.SortFunc(sorted, func(a, b addrRange) int { return a.from.Compare(b.from) })
	var d dispatch
	for _, r := range sorted {
		if n := len(d.slots); n > 0 {
			last := &d.slots[n-1].r
			if next := last.to.Next(); !next.IsValid() || !next.Less(r.from) {
				if last.to.Less(r.to) {
					last.to = r.to
				}
				continue
			}
		}
		d.slots = append(d.slots, slot{r, 0})
	}
	all := make([]int, len(ranges))
	for i := range all {
		all[i] = i
	}
	d.lists = [][]int{all}
	return d
}

// total adds slots of no list (-1) for the addresses that have none.
func (d *dispatch) total(family netip.Addr) {
	var used []addrRange
	for _, s := range d.slots {
		used = append(used, s.r)
	}
	all := prefixRange(netip.PrefixFrom(family, 0))
	for _, r := range all.without(used) {
		d.slots = append(d.slots, slot{r, -1})
	}
	slices.SortFunc(d.slots, func(a, b slot) int { return a.r.from.Compare(b.r.from) })
}

func lastAddr(family netip.Addr) netip.Addr {
	return prefixRange(netip.PrefixFrom(family, 0)).to
}

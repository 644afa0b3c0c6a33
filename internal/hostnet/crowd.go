package hostnet

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/google/nftables/expr"
)

// crowd is policies of one Group that differ in nothing but their remote
// addresses, which overlap no other policy's: the clients of a gateway. They share
// the rules, which ask a set of remote addresses, and the counters, so that one
// comes or goes by an element of a set (change.go) however many there are.
type crowd struct {
	key     string
	group   string
	sample  Policy // any of them: its local side, device and action are those of all
	ranges  [setKinds][]addrRange
	members int
}

// setKind tells the sets of a crowd apart: by family, and single addresses, which
// the kernel finds by a hash, from ranges, whose tree it walks through at every
// change.
type setKind int

const setKinds = 4

func kindOf(r addrRange) setKind {
	k := setKind(2 * familyOf(r.from))
	if r.from != r.to {
		k++
	}
	return k
}

func (k setKind) family() int  { return int(k / 2) }
func (k setKind) v6() bool     { return k >= 2 }
func (k setKind) ranges() bool { return k%2 == 1 }

// maxCrowds bounds the rules that every packet is compared with before the
// lookup; what is more is no crowd.
const maxCrowds = 32

// crowdKey is what the members of a crowd have in common; empty if the policy
// cannot be in one.
func (q *Policy) crowdKey(h *host) string {
	if q.Group == "" || q.Action != Protect || !q.wide() || q.IncludeConnected {
		return ""
	}
	outside := q.outside(h)
	for _, r := range q.Remote {
		remote := addrRange{r.From, r.To}
		for _, o := range outside {
			if o.within(remote) {
				return ""
			}
		}
		// A range that the local side has too would be sent back into the tunnel; a
		// single address talks to itself at most.
		if r.From == r.To {
			continue
		}
		for _, l := range q.Local {
			if remote.overlaps(addrRange{l.From, l.To}) {
				return ""
			}
		}
	}
	h1 := sha256.New()
	fmt.Fprintf(h1, "%q %q %v %v", q.Group, q.Device, q.InstallRoutes, q.SrcHint)
	for _, l := range q.Local {
		fmt.Fprintf(h1, " %v-%v", l.From, l.To)
	}
	return hex.EncodeToString(h1.Sum(nil)[:12])
}

// crowds sorts out the policies that are members of crowds: those in candidates
// (by index, with their keys) whose remote addresses are nobody else's.
func (p *plan) gather(keys []string) {
	type span struct {
		r      addrRange
		policy int
	}
	var spans [2][]span
	for i := range p.state.Policies {
		for _, r := range p.state.Policies[i].Remote {
			f := familyOf(r.From)
			spans[f] = append(spans[f], span{addrRange{r.From, r.To}, i})
		}
	}
	for _, list := range spans {
		slices.SortFunc(list, func(a, b span) int { return a.r.from.Compare(b.r.from) })
		last := -1 // of those that reach farthest
		for i, s := range list {
			if last >= 0 && !list[last].r.to.Less(s.r.from) {
				// Whoever overlaps s overlaps the farthest, too, or was found before.
				keys[s.policy], keys[list[last].policy] = "", ""
			}
			if last < 0 || list[last].r.to.Less(s.r.to) {
				last = i
			}
		}
	}
	p.crowdOf = make([]*crowd, len(keys))
	for i, key := range keys {
		if key == "" {
			continue
		}
		q := &p.state.Policies[i]
		c := p.crowds[key]
		if c == nil {
			if len(p.crowds) >= maxCrowds {
				continue
			}
			c = &crowd{key: key, group: q.Group, sample: *q}
			p.crowds[key] = c
		}
		p.crowdOf[i] = c
		c.members++
		for _, r := range q.Remote {
			k := kindOf(addrRange{r.From, r.To})
			c.ranges[k] = append(c.ranges[k], addrRange{r.From, r.To})
		}
	}
}

// sorted are the crowds in an order of their own.
func (p *plan) sorted() []*crowd {
	list := make([]*crowd, 0, len(p.crowds))
	for _, c := range p.crowds {
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b *crowd) int {
		if a.key < b.key {
			return -1
		}
		return 1
	})
	return list
}

// setName is the name of the crowd's set of remote addresses of one kind.
func (c *crowd) setName(k setKind, epoch uint64) string {
	return fmt.Sprintf("c%d_%d_%s", k, epoch, c.key)
}

// crowdSets adds the sets of all crowds.
func (b *builder) crowdSets() {
	for _, c := range b.p.sorted() {
		for k, ranges := range c.ranges {
			if len(ranges) == 0 {
				continue
			}
			kind := setKind(k)
			m := verdictMap{name: c.setName(kind, b.epoch), v6: kind.v6(), set: true, exact: !kind.ranges()}
			for _, r := range ranges {
				m.jumps = append(m.jumps, jump{r: r})
			}
			b.out.maps = append(b.out.maps, m)
		}
	}
}

// crowdRules are the rules of a purpose for all crowds: they come before the
// lookups of the others, with which they have no address in common.
func (b *builder) crowdRules(u purpose) (rules []exprs) {
	for _, c := range b.p.sorted() {
		act := u.act(b, &c.sample, row{})
		if !u.guard && !c.sample.InstallRoutes {
			continue // nothing is steered
		}
		for k, ranges := range c.ranges {
			if len(ranges) == 0 {
				continue
			}
			kind := setKind(k)
			v6 := kind.v6()
			for _, l := range c.sample.Local {
				if familyOf(l.From) != kind.family() {
					continue
				}
				rules = append(rules, slices.Concat(family(v6), addrMatch(addrRange{l.From, l.To}, v6, u.inbound),
					exprs{address(v6, !u.inbound), &expr.Lookup{SourceRegister: 1, SetName: c.setName(kind, b.epoch)}}, act))
			}
		}
	}
	return rules
}

// counterID is what the guard's drops of the policy are counted under.
func (p *plan) counterID(i int) string {
	if p.crowdOf[i] != nil {
		return p.crowdOf[i].group
	}
	return p.state.Policies[i].ID
}

// rangeIndex holds ranges that do not overlap, in order, in pieces of bounded size.
type rangeIndex struct{ pieces [][]addrRange }

// pieceSize is the most ranges in one piece.
const pieceSize = 512

// find returns the piece and the place of the first range that does not end before a.
func (x *rangeIndex) find(r addrRange) (piece, at int) {
	piece, _ = slices.BinarySearchFunc(x.pieces, r, func(p []addrRange, r addrRange) int { return p[len(p)-1].to.Compare(r.from) })
	if piece == len(x.pieces) {
		return piece, 0
	}
	at, _ = slices.BinarySearchFunc(x.pieces[piece], r, func(p, r addrRange) int { return p.to.Compare(r.from) })
	return piece, at
}

// overlaps reports whether any range has an address of r.
func (x *rangeIndex) overlaps(r addrRange) bool {
	i, j := x.find(r)
	return i < len(x.pieces) && j < len(x.pieces[i]) && !r.to.Less(x.pieces[i][j].from)
}

// add puts in a range that overlaps none.
func (x *rangeIndex) add(r addrRange) {
	i, j := x.find(r)
	if i == len(x.pieces) {
		if i == 0 {
			x.pieces = [][]addrRange{{r}}
			return
		}
		i, j = i-1, len(x.pieces[i-1])
	}
	x.pieces[i] = slices.Insert(x.pieces[i], j, r)
	if len(x.pieces[i]) > pieceSize {
		half := slices.Clone(x.pieces[i][pieceSize/2:])
		x.pieces[i] = slices.Clip(x.pieces[i][:pieceSize/2])
		x.pieces = slices.Insert(x.pieces, i+1, half)
	}
}

// remove takes out a range that was added.
func (x *rangeIndex) remove(r addrRange) {
	i, j := x.find(r)
	if i == len(x.pieces) || j == len(x.pieces[i]) || x.pieces[i][j] != r {
		return
	}
	if x.pieces[i] = slices.Delete(x.pieces[i], j, j+1); len(x.pieces[i]) == 0 {
		x.pieces = slices.Delete(x.pieces, i, i+1)
	}
}

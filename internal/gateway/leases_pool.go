package gateway

import (
	"container/list"
	"net/netip"
	"slices"
	"time"

	"adit/internal/config"
)

// addressPool gives addresses out: one that was the identity's before, else one that was
// nobody's, else the one that was given back longest ago.
type addressPool struct {
	config.Pool
	source Source
	next   netip.Addr // the first that was never given out; invalid: none is left
	start  netip.Addr // where next began: at From, or elsewhere if several gateways share the pool
	used   map[netip.Addr]*entry
	last   map[string]netip.Addr // the identity's last address
	free   list.List             // of netip.Addr: what was given back, the longest ago first
	silent func(gateway string) time.Duration
}

// entry is an address that was given out. A make-before-break reauthentication
// has two holders of the same identity for a moment.
type entry struct {
	identity string
	holders  []uint64
	free     *list.Element // where it stands in free; nil: somebody has it
	rev      uint64        // of its record in the store; 0: there is none
	owner    string        // another gateway, whose client has it
	asked    bool          // the store is being asked
}

func newAddressPool(p config.Pool, source Source) *addressPool {
	return &addressPool{Pool: p, source: source, next: p.From, start: p.From, used: map[netip.Addr]*entry{}, last: map[string]netip.Addr{}}
}

// online counts the addresses that clients of ours have.
func (p *addressPool) online() (n uint64) {
	for _, e := range p.used {
		if len(e.holders) > 0 {
			n++
		}
	}
	return n
}

func (p *addressPool) contains(a netip.Addr) bool {
	return a.IsValid() && p.From.BitLen() == a.BitLen() && !a.Less(p.From) && !p.To.Less(a)
}

// follow is the address after a, around the end of the pool; invalid: that is where it began.
func (p *addressPool) follow(a netip.Addr) netip.Addr {
	if a = a.Next(); !p.contains(a) {
		a = p.From
	}
	if a == p.start {
		return netip.Addr{}
	}
	return a
}

// mine reports whether the address was the identity's last, and may be taken: with
// online, nobody but the identity itself has it, else nobody has it. A gateway that is
// not heard any more has lost its clients to us.
func (p *addressPool) mine(a netip.Addr, identity string, online bool) bool {
	e := p.used[a]
	if e == nil || e.identity != identity || e.asked || online != (len(e.holders) > 0) {
		return false
	}
	return e.owner == "" || p.silent != nil && p.silent(e.owner) > silentGateway
}

// leaves reports whether only these leases have the address, for the identity.
func (p *addressPool) leaves(a netip.Addr, identity string, leases []uint64) bool {
	e := p.used[a]
	return e != nil && e.identity == identity && !e.asked && e.owner == "" &&
		!slices.ContainsFunc(e.holders, func(x uint64) bool { return !slices.Contains(leases, x) })
}

// take takes an address in memory; undo has it as it was. Vacated are addresses of the
// identity's own that its older IKE SAs have until they are gone.
func (p *addressPool) take(lease uint64, identity string, wish netip.Addr, vacated []netip.Addr) (a netip.Addr, undo func()) {
	// A pool may be larger than memory: beyond this many, somebody's old address is given.
	remembered := len(p.used) >= limitRemembered && p.free.Len() > 0
	if wish.IsValid() && !wish.IsUnspecified() {
		// Its own address, also if the IKE SA that has it is just being replaced.
		if p.mine(wish, identity, false) || p.mine(wish, identity, true) {
			return p.grant(wish, lease, identity)
		}
		if !remembered && p.contains(wish) && p.used[wish] == nil {
			return p.grant(wish, lease, identity)
		}
	}
	if a, ok := p.last[identity]; ok && (p.mine(a, identity, false) || slices.Contains(vacated, a)) {
		return p.grant(a, lease, identity)
	}
	if len(vacated) > 0 {
		return p.grant(vacated[0], lease, identity)
	}
	for p.next.IsValid() && !remembered {
		a := p.next
		p.next = p.follow(a)
		if p.used[a] == nil {
			return p.grant(a, lease, identity)
		}
	}
	if oldest := p.free.Front(); oldest != nil {
		return p.grant(oldest.Value.(netip.Addr), lease, identity)
	}
	return netip.Addr{}, nil
}

// exactly takes an address that nobody else has now, whoever had it last.
func (p *addressPool) exactly(a netip.Addr, lease uint64, identity string) (netip.Addr, func()) {
	e := p.used[a]
	switch {
	case e == nil && len(p.used) >= limitRemembered && p.free.Len() > 0: // forget the oldest
		old := p.free.Remove(p.free.Front()).(netip.Addr)
		p.name(p.used[old], old, "")
		delete(p.used, old)
	case e == nil && len(p.used) >= limitRemembered:
		return netip.Addr{}, nil
	case e == nil, p.mine(a, identity, false), p.mine(a, identity, true):
	case len(e.holders) > 0 || e.asked || e.owner != "":
		return netip.Addr{}, nil
	}
	return p.grant(a, lease, identity)
}

func (p *addressPool) grant(a netip.Addr, lease uint64, identity string) (netip.Addr, func()) {
	e := p.used[a]
	if e == nil {
		e = &entry{}
		p.used[a] = e
	}
	was := *e
	if e.free != nil {
		p.free.Remove(e.free)
		e.free = nil
	}
	p.name(e, a, identity)
	e.owner = ""
	e.holders = append(e.holders, lease)
	return a, func() {
		e.asked, e.owner = false, was.owner
		e.holders = slices.DeleteFunc(e.holders, func(x uint64) bool { return x == lease })
		p.name(e, a, was.identity)
		if len(e.holders) == 0 && e.owner == "" && e.free == nil {
			e.free = p.free.PushFront(a)
		}
	}
}

// name makes an address the last one of an identity; nobody is its last owner no more.
func (p *addressPool) name(e *entry, a netip.Addr, identity string) {
	if e.identity != identity && p.last[e.identity] == a {
		delete(p.last, e.identity)
	}
	if e.identity = identity; identity != "" {
		p.last[identity] = a
	}
}

// giveBack ends a lease's hold; true: it was the last one.
func (p *addressPool) giveBack(e *entry, a netip.Addr, lease uint64) bool {
	had := len(e.holders) > 0
	e.holders = slices.DeleteFunc(e.holders, func(x uint64) bool { return x == lease })
	if len(e.holders) > 0 || e.asked || e.owner != "" {
		return false
	}
	if e.free == nil {
		e.free = p.free.PushBack(a)
	}
	return had
}

package gateway

import (
	"container/list"
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"sync"

	"adit/ike"
	"adit/ike/wire"
	"adit/internal/config"
)

// PoolState is a pool of addresses as it stands.
type PoolState struct {
	config.Pool
	Size, Online, Offline uint64
	Leases                []PoolLease // in the order of addresses
}

// PoolLease is an address that somebody has, or had and would get again.
type PoolLease struct {
	Addr     netip.Addr
	Identity string
	Online   bool
}

// leases are the pools and who has which address of them. Safe for concurrent use.
type leases struct {
	mu    sync.Mutex
	pools map[string]*addressPool
	order []string
	held  map[uint64][]hold // by the engine's number of the lease
	// global are the attributes that everybody with an address is told.
	global []wire.Attribute
}

// hold is one address that a lease has.
type hold struct {
	pool string
	addr netip.Addr
}

// addressPool gives addresses out: one that was the identity's before, else one that was
// nobody's, else the one that was given back longest ago.
type addressPool struct {
	config.Pool
	source Source
	next   netip.Addr // the first that was never given out; invalid: none is left
	used   map[netip.Addr]*entry
	last   map[string]netip.Addr // the identity's last address
	free   list.List             // of netip.Addr: what was given back, the longest ago first
}

// entry is an address that was given out. A make-before-break reauthentication
// has two holders of the same identity for a moment.
type entry struct {
	identity string
	holders  []uint64
	free     *list.Element // where it stands in free; nil: it has holders
}

func (l *leases) init() { l.pools, l.held = map[string]*addressPool{}, map[uint64][]hold{} }

func newAddressPool(p config.Pool, source Source) *addressPool {
	return &addressPool{Pool: p, source: source, next: p.From, used: map[netip.Addr]*entry{}, last: map[string]netip.Addr{}}
}

// LoadPool adds a pool, or replaces the one of its name: leases inside the same
// range stay.
func (g *Gateway) LoadPool(p config.Pool) error { return g.leases.load(p, FromVICI) }

func (l *leases) load(p config.Pool, source Source) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.pools[p.Name]
	switch {
	case old != nil && old.From == p.From && old.To == p.To:
		old.Pool = p
		return nil
	case old != nil && old.online() > 0:
		return fmt.Errorf("pool '%s' has leases online, unable to replace its addresses", p.Name)
	case old == nil && len(l.pools) >= limitPools:
		return fmt.Errorf("more than %d pools", limitPools)
	case old == nil:
		l.order = append(l.order, p.Name)
	}
	l.pools[p.Name] = newAddressPool(p, source)
	return nil
}

// UnloadPool forgets a pool that nobody has an address of.
func (g *Gateway) UnloadPool(name string) error {
	l := &g.leases
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.pools[name]
	switch {
	case p == nil:
		return notFound("pool", name)
	case p.online() > 0:
		return fmt.Errorf("pool '%s' has leases online, unable to unload", name)
	}
	l.forget(name)
	return nil
}

func (l *leases) forget(name string) {
	delete(l.pools, name)
	l.order = slices.DeleteFunc(l.order, func(n string) bool { return n == name })
}

// replace makes the file's pools these. Those that are in use stay until a later
// reload; their names are returned.
func (l *leases) replace(list []config.Pool) (kept []string, err error) {
	l.mu.Lock()
	for _, name := range slices.Clone(l.order) {
		p := l.pools[name]
		if p.source != FromFile || slices.ContainsFunc(list, func(n config.Pool) bool { return n.Name == name }) {
			continue
		}
		if p.online() > 0 {
			kept = append(kept, name)
			continue
		}
		l.forget(name)
	}
	l.mu.Unlock()
	for _, p := range list {
		if e := l.load(p, FromFile); e != nil && err == nil {
			err = e
		}
	}
	return kept, err
}

func (p *addressPool) online() (n uint64) {
	for _, e := range p.used {
		if len(e.holders) > 0 {
			n++
		}
	}
	return n
}

// Pools are the loaded pools, in the order of loading.
func (g *Gateway) Pools() []PoolState {
	l := &g.leases
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]PoolState, 0, len(l.order))
	for _, name := range l.order {
		p := l.pools[name]
		s := PoolState{Pool: p.Pool, Size: rangeSize(p.From, p.To), Online: p.online()}
		s.Offline = uint64(len(p.used)) - s.Online
		for a, e := range p.used {
			s.Leases = append(s.Leases, PoolLease{a, e.identity, len(e.holders) > 0})
		}
		slices.SortFunc(s.Leases, func(a, b PoolLease) int { return a.Addr.Compare(b.Addr) })
		out = append(out, s)
	}
	return out
}

// rangeSize counts addresses, at most 2^31 as strongSwan does.
func rangeSize(from, to netip.Addr) uint64 {
	if !from.IsValid() {
		return 0
	}
	const most = 1 << 31
	a, b := from.As16(), to.As16()
	low, borrow := bits.Sub64(binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(a[8:]), 0)
	high, _ := bits.Sub64(binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(a[:8]), borrow)
	if high > 0 || low >= most {
		return most
	}
	return low + 1
}

// give answers a CFG_REQUEST: an address of each family that is asked for, out of
// the first of the connection's pools that has one, and what those pools tell. Err:
// there are addresses to be given and none is left.
func (l *leases) give(q ike.LeaseAddresses) (*ike.Lease, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := &ike.Lease{}
	var missing error
	for _, a := range q.Request {
		var six bool
		switch a.Type {
		case wire.InternalIP4Address:
		case wire.InternalIP6Address:
			six = true
		default:
			continue
		}
		if len(out.Addrs) >= limitLeased {
			break
		}
		wish, _ := netip.AddrFromSlice(a.Value[:min(len(a.Value), map[bool]int{false: 4, true: 16}[six])])
		got, err := l.address(q, wish, six)
		if err != nil {
			missing = err
		} else if got.IsValid() {
			out.Addrs = append(out.Addrs, got)
		}
	}
	if len(out.Addrs) == 0 && missing != nil {
		return nil, missing
	}
	if len(out.Addrs) > 0 {
		out.Attributes = append(out.Attributes, l.global...)
	}
	for _, name := range q.Peer.Pools {
		if p := l.pools[name]; p != nil {
			out.Attributes = append(out.Attributes, p.Attributes...)
		}
	}
	return out, nil
}

// address takes one address of the family. No pool of the family: none, without an error.
func (l *leases) address(q ike.LeaseAddresses, wish netip.Addr, six bool) (netip.Addr, error) {
	var full error
	for _, name := range q.Peer.Pools {
		p := l.pools[name]
		if p == nil || !p.From.IsValid() || p.From.Is6() != six {
			continue
		}
		if a := p.take(q.Lease, q.ID, wish); a.IsValid() {
			l.held[q.Lease] = append(l.held[q.Lease], hold{name, a})
			return a, nil
		}
		full = fmt.Errorf("pool '%s' has no free address", name)
	}
	return netip.Addr{}, full
}

func (p *addressPool) contains(a netip.Addr) bool {
	return a.IsValid() && p.From.BitLen() == a.BitLen() && !a.Less(p.From) && !p.To.Less(a)
}

func (p *addressPool) take(lease uint64, identity string, wish netip.Addr) netip.Addr {
	mine := func(a netip.Addr, online bool) bool {
		e := p.used[a]
		return e != nil && e.identity == identity && online == (len(e.holders) > 0)
	}
	grant := func(a netip.Addr) netip.Addr {
		e := p.used[a]
		if e == nil {
			e = &entry{}
			p.used[a] = e
		} else if e.identity != identity && p.last[e.identity] == a {
			delete(p.last, e.identity)
		}
		if e.free != nil {
			p.free.Remove(e.free)
			e.free = nil
		}
		e.identity = identity
		e.holders = append(e.holders, lease)
		p.last[identity] = a
		return a
	}
	// A pool may be larger than memory: beyond this many, somebody's old address is given.
	remembered := len(p.used) >= limitRemembered && p.free.Len() > 0
	if wish.IsValid() && !wish.IsUnspecified() {
		// Its own address, also if the IKE SA that has it is just being replaced.
		if mine(wish, false) || mine(wish, true) {
			return grant(wish)
		}
		if !remembered && p.contains(wish) && p.used[wish] == nil && p.next.IsValid() && !wish.Less(p.next) {
			return grant(wish)
		}
	}
	if a, ok := p.last[identity]; ok && mine(a, false) {
		return grant(a)
	}
	for p.next.IsValid() && !remembered {
		a := p.next
		if p.next = a.Next(); !p.contains(p.next) {
			p.next = netip.Addr{}
		}
		if p.used[a] == nil {
			return grant(a)
		}
	}
	if oldest := p.free.Front(); oldest != nil {
		return grant(oldest.Value.(netip.Addr))
	}
	return netip.Addr{}
}

// release gives the addresses of a lease back; they are kept for their identity.
func (l *leases) release(lease uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range l.held[lease] {
		p := l.pools[h.pool]
		if p == nil || p.used[h.addr] == nil {
			continue
		}
		e := p.used[h.addr]
		e.holders = slices.DeleteFunc(e.holders, func(x uint64) bool { return x == lease })
		if len(e.holders) == 0 && e.free == nil {
			e.free = p.free.PushBack(h.addr)
		}
	}
	delete(l.held, lease)
}

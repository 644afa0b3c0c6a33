package gateway

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"sync"

	"adit/ike"
	"adit/ike/wire"
	"adit/internal/config"
	"adit/internal/hostnet"
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
	kept   keptLeases
	// granted is the address that a RADIUS server gave to the client of a lease.
	granted func(lease uint64, six bool) (netip.Addr, bool)
	// framed has those addresses, which are in no range of ours.
	framed *addressPool
}

// hold is one address that a lease has.
type hold struct {
	pool string
	addr netip.Addr
}

func (l *leases) init() {
	l.pools, l.held = map[string]*addressPool{}, map[uint64][]hold{}
	l.framed = newAddressPool(config.Pool{Name: config.RADIUSPool}, FromVICI)
	l.kept.asking = map[uint64]*leaseAsk{}
}

// LoadPool adds a pool, or replaces the one of its name: leases inside the same
// range stay.
func (g *Gateway) LoadPool(p config.Pool) error {
	defer g.clientsChanged(g.leases.clients())
	return g.leases.load(p, FromVICI)
}

// clients are the site's rules for the addresses of the pools.
func (l *leases) clients() (out []hostnet.Clients) {
	l.mu.Lock()
	defer l.mu.Unlock()
	rules := false
	for _, name := range l.order {
		if p := l.pools[name]; p.From.IsValid() {
			rules = rules || p.Masquerade || p.Apart
			out = append(out, hostnet.Clients{From: p.From, To: p.To, Masquerade: p.Masquerade, Apart: p.Apart})
		}
	}
	if !rules {
		return nil
	}
	return out
}

// clientsChanged has the host follow if the rules are no longer those of before. While
// there is no policy nothing is done: the first one brings them along, and the guard of
// an instance that died stands until then.
func (g *Gateway) clientsChanged(before []hostnet.Clients) {
	v := &g.inv
	v.mu.Lock()
	idle := len(v.active)+len(v.static) == 0
	v.mu.Unlock()
	if !idle && !slices.Equal(before, g.leases.clients()) {
		g.host.changed(nil)
	}
}

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
	l.recall(l.pools[p.Name])
	return nil
}

// UnloadPool forgets a pool that nobody has an address of.
func (g *Gateway) UnloadPool(name string) error {
	defer g.clientsChanged(g.leases.clients()) // runs after the unlocking below
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

// pool is a pool by name, also that of RADIUS.
func (l *leases) pool(name string) *addressPool {
	if p := l.pools[name]; p != nil || name != config.RADIUSPool {
		return p
	}
	return l.framed
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

// Pools are the loaded pools, in the order of loading.
func (g *Gateway) Pools() []PoolState {
	l := &g.leases
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]PoolState, 0, len(l.order))
	for _, name := range l.order {
		p := l.pools[name]
		s := PoolState{Pool: p.Pool, Size: rangeSize(p.From, p.To)}
		for a, e := range p.used {
			online := len(e.holders) > 0 || e.owner != ""
			if s.Leases = append(s.Leases, PoolLease{a, e.identity, online}); online {
				s.Online++
			}
		}
		s.Offline = uint64(len(p.used)) - s.Online
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
// there are addresses to be given and none is left. Where leases are kept in a store it
// waits for that.
func (l *leases) give(ctx context.Context, q ike.LeaseAddresses) (*ike.Lease, error) {
	defer l.given(q.Lease)
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
		got, err := l.address(ctx, q, wish, six)
		if err != nil {
			missing = err
		} else if got.IsValid() {
			out.Addrs = append(out.Addrs, got)
		}
	}
	if len(out.Addrs) == 0 && missing != nil {
		return nil, missing
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(out.Addrs) > 0 {
		out.Attributes = append(out.Attributes, l.global...)
	}
	out.Attributes = append(out.Attributes, l.attributes(q.Peer.Pools)...)
	return out, nil
}

// address takes one address of the family. No pool of the family: none, without an error.
func (l *leases) address(ctx context.Context, q ike.LeaseAddresses, wish netip.Addr, six bool) (netip.Addr, error) {
	var full error
	for _, name := range q.Peer.Pools {
		a, err := l.fromPool(ctx, q, name, wish, six)
		if a.IsValid() || errors.Is(err, ErrLeaseStore) {
			return a, err
		}
		if err != nil {
			full = err
		}
	}
	return netip.Addr{}, full
}

// fromPool takes an address of one pool, and has the store write it down. Where another
// gateway was faster with that address, it takes the next.
func (l *leases) fromPool(ctx context.Context, q ike.LeaseAddresses, name string, wish netip.Addr, six bool) (netip.Addr, error) {
	full := fmt.Errorf("pool '%s' has no free address", name)
	for range limitContended {
		a, record, undo, err := l.choose(q, name, wish, six)
		if err != nil || !a.IsValid() || record == nil {
			return a, err
		}
		now, err := l.kept.store.Take(ctx, *record)
		switch done := l.settle(q.Lease, name, now, err, undo); {
		case done:
			return a, nil
		case !errors.Is(err, ErrLeaseTaken) && err != nil:
			return netip.Addr{}, err
		}
	}
	return netip.Addr{}, fmt.Errorf("%w (others were faster %d times)", full, limitContended)
}

// choose takes an address in memory. With a record, the store must be asked for it.
func (l *leases) choose(q ike.LeaseAddresses, name string, wish netip.Addr, six bool) (a netip.Addr, r *LeaseRecord, undo func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.pools[name]
	switch {
	case p == nil && name == config.RADIUSPool && l.granted != nil:
		p = l.framed
		if a, _ = l.granted(q.Lease, six); !a.IsValid() {
			return a, nil, nil, fmt.Errorf("the RADIUS server gives no %s", map[bool]string{false: "Framed-IP-Address", true: "Framed-IPv6-Address"}[six])
		}
		if a, undo = p.exactly(a, q.Lease, q.ID); !a.IsValid() {
			return a, nil, nil, errors.New("somebody else has the address that the RADIUS server gives")
		}
	case p == nil || !p.From.IsValid() || p.From.Is6() != six:
		return a, nil, nil, nil
	}
	if a.IsValid() {
	} else if a, undo = p.take(q.Lease, q.ID, wish, l.vacated(q, name)); !a.IsValid() {
		return a, nil, nil, fmt.Errorf("pool '%s' has no free address", name)
	}
	e := p.used[a]
	if !l.kept.on || len(e.holders) > 1 { // of a second IKE SA of the same identity, the record stands
		l.held[q.Lease] = append(l.held[q.Lease], hold{name, a})
		return a, nil, nil, nil
	}
	e.asked = true
	return a, &LeaseRecord{Addr: a, Pool: name, Identity: q.ID, Rev: e.rev}, undo, nil
}

// vacated are the addresses of a pool that leases have which go for this one.
func (l *leases) vacated(q ike.LeaseAddresses, pool string) (out []netip.Addr) {
	for _, lease := range q.Instead {
		for _, h := range l.held[lease] {
			if p := l.pool(pool); h.pool == pool && p != nil && p.leaves(h.addr, q.ID, q.Instead) {
				out = append(out, h.addr)
			}
		}
	}
	return out
}

// release gives the addresses of a lease back; they are kept for their identity.
func (l *leases) release(lease uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if x := l.kept.asking[lease]; x != nil {
		x.ended = true
	}
	l.drop(lease)
}

func (l *leases) drop(lease uint64) {
	for _, h := range l.held[lease] {
		p := l.pool(h.pool)
		if p == nil || p.used[h.addr] == nil {
			continue
		}
		if e := p.used[h.addr]; p.giveBack(e, h.addr, lease) && l.kept.on {
			l.kept.store.Free(LeaseRecord{Addr: h.addr, Pool: h.pool, Identity: e.identity, Rev: e.rev})
		}
	}
	delete(l.held, lease)
}

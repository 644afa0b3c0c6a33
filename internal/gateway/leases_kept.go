package gateway

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"time"

	"adit/ike"
)

// LeaseRecord is a lease as a store keeps it.
type LeaseRecord struct {
	Addr           netip.Addr
	Pool, Identity string
	Gateway, Boot  string // who gave it, and in which of its runs
	Online         bool
	At             time.Time // of the last change
	Rev            uint64    // of the record; each change has a higher one
	Mine, Ours     bool      // by this run of this gateway; by any run of it
}

// LeaseStore keeps leases where restarts do not reach them, and where other gateways
// see them.
type LeaseStore interface {
	// Open begins to tell every record, and then each change; it does not block.
	Open(told func(LeaseRecord))
	// Ready waits until all that was known has been told. Not kept, without an error:
	// there is no store, and leases live in memory.
	Ready(context.Context) (kept bool, err error)
	// Take writes a lease if its record is still that of Rev (0: there is none), or
	// returns the one that stands and ErrLeaseTaken.
	Take(context.Context, LeaseRecord) (LeaseRecord, error)
	// Free writes, some time later, that nobody uses a lease any more.
	Free(LeaseRecord)
	// Silent is how long another gateway has not been heard.
	Silent(gateway string) time.Duration
	// Shared: other gateways may use it, and this is our name among them.
	Shared() (name string, shared bool)
	Close()
}

// Errors of a LeaseStore.
var (
	ErrLeaseTaken = errors.New("somebody else has taken the address")
	ErrLeaseStore = errors.New("leases cannot be written")
)

// keptLeases is what leases have of a store.
type keptLeases struct {
	store  LeaseStore // nil: none
	opened bool
	on     bool                       // it is used
	known  map[netip.Addr]LeaseRecord // for pools that are loaded later
	asking map[uint64]*leaseAsk
	lost   func(netip.Addr)
}

// leaseAsk is a LeaseAddresses under way.
type leaseAsk struct {
	count int
	ended bool // its IKE SA is gone
}

// open has the store begin, once: the first connection has come that gives addresses.
func (l *leases) open() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k := &l.kept; k.store != nil && !k.opened {
		k.opened, k.known = true, map[netip.Addr]LeaseRecord{}
		k.store.Open(l.told)
	}
}

// waits reports whether giving an address may have to wait for others. It is called in
// the order of the engine's effects: an end of the lease comes after it.
func (l *leases) waits(lease uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.kept.store == nil || !l.kept.opened {
		return false
	}
	x := l.kept.asking[lease]
	if x == nil {
		x = &leaseAsk{}
		l.kept.asking[lease] = x
	}
	x.count++
	x.ended = false // a lease that asks anew goes on
	return true
}

// given ends an asking; what nobody waits for any more is given back.
func (l *leases) given(lease uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	x := l.kept.asking[lease]
	if x == nil {
		return
	}
	if x.count--; x.count == 0 {
		delete(l.kept.asking, lease)
	}
	if x.ended {
		l.drop(lease)
	}
}

// keep answers a question for addresses as soon as the store is there.
func (l *leases) keep(ctx context.Context, q ike.LeaseAddresses) (*ike.Lease, error) {
	wait, cancel := context.WithTimeout(ctx, leaseStoreWait)
	kept, err := l.kept.store.Ready(wait)
	cancel()
	if err != nil {
		l.given(q.Lease)
		return nil, err
	}
	if kept {
		l.switchOn()
	}
	return l.give(ctx, q)
}

func (l *leases) switchOn() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.kept.on {
		return
	}
	l.kept.on = true
	for _, p := range l.pools {
		l.share(p)
	}
	l.framed.silent = l.kept.store.Silent
}

// share has each of several gateways begin elsewhere in a pool, so that they seldom meet.
func (l *leases) share(p *addressPool) {
	name, shared := l.kept.store.Shared()
	p.silent = l.kept.store.Silent
	if size := rangeSize(p.From, p.To); shared && size > 1 && p.next == p.From && p.start == p.From {
		h := fnv.New64a()
		h.Write([]byte(name))
		p.start = later(p.From, h.Sum64()%size)
		p.next = p.start
	}
}

// later is the address n after a.
func later(a netip.Addr, n uint64) netip.Addr {
	b := a.As16()
	low := binary.BigEndian.Uint64(b[8:])
	binary.BigEndian.PutUint64(b[8:], low+n)
	if low+n < low {
		binary.BigEndian.PutUint64(b[:8], binary.BigEndian.Uint64(b[:8])+1)
	}
	if out := netip.AddrFrom16(b); a.Is4() {
		return out.Unmap()
	} else {
		return out
	}
}

// settle ends the asking of the store; true: the lease has the address.
func (l *leases) settle(lease uint64, pool string, now LeaseRecord, err error, undo func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.pool(pool)
	if p == nil || p.used[now.Addr] == nil { // it cannot be unloaded while somebody has an address of it
		return false
	}
	e := p.used[now.Addr]
	if newer, ok := l.kept.known[now.Addr]; ok && newer.Rev > now.Rev && err == nil {
		now, err = newer, ErrLeaseTaken // as soon as we had it
	}
	if err == nil {
		e.asked, e.rev = false, now.Rev
		l.held[lease] = append(l.held[lease], hold{pool, now.Addr})
		l.remember(now)
		return true
	}
	undo()
	if errors.Is(err, ErrLeaseTaken) {
		l.remember(now)
		p.apply(now)
	}
	return false
}

func (l *leases) remember(r LeaseRecord) bool {
	old, known := l.kept.known[r.Addr]
	if known && old.Rev >= r.Rev || !known && len(l.kept.known) >= limitRemembered {
		return false
	}
	l.kept.known[r.Addr] = r
	return true
}

// told takes a record that the store tells of: at the start all of them, then what
// changes, our own changes too.
func (l *leases) told(r LeaseRecord) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.remember(r) {
		return
	}
	for _, p := range l.pools {
		if p.contains(r.Addr) {
			l.losing(p, r)
		}
	}
	if l.framed.used[r.Addr] != nil {
		l.losing(l.framed, r)
	}
}

// losing applies a record; who has an address that is somebody else's now, loses it.
func (l *leases) losing(p *addressPool, r LeaseRecord) {
	for _, lease := range p.apply(r) {
		l.held[lease] = slices.DeleteFunc(l.held[lease], func(h hold) bool { return h.addr == r.Addr })
		if l.kept.lost != nil {
			l.kept.lost(r.Addr)
		}
	}
}

// recall has a pool that is loaded know what the store has told of its addresses.
func (l *leases) recall(p *addressPool) {
	var list []LeaseRecord
	for a, r := range l.kept.known {
		if p.contains(a) {
			list = append(list, r)
		}
	}
	slices.SortFunc(list, func(a, b LeaseRecord) int { return a.At.Compare(b.At) }) // the longest ago first
	for _, r := range list {
		p.apply(r)
	}
	if l.kept.on {
		l.share(p)
	}
}

// apply takes a record over, unless it is the one that we have or are about to change;
// lost are the holders of an address that is another's now.
func (p *addressPool) apply(r LeaseRecord) (lost []uint64) {
	e := p.used[r.Addr]
	switch {
	case e == nil && len(p.used) >= limitRemembered:
		return nil
	case e == nil:
		e = &entry{}
		p.used[r.Addr] = e
	case e.asked || e.rev >= r.Rev:
		return nil
	}
	e.rev = r.Rev
	if len(e.holders) > 0 && r.Mine {
		return nil // our own change
	}
	lost, e.holders = e.holders, nil
	p.name(e, r.Addr, r.Identity)
	e.owner = ""
	if r.Online && !r.Ours {
		e.owner = r.Gateway
	}
	switch {
	case e.owner != "" && e.free != nil:
		p.free.Remove(e.free)
		e.free = nil
	case e.owner == "" && e.free == nil:
		e.free = p.free.PushBack(r.Addr)
	}
	return lost
}

// reclaim frees what gateways have that were not heard for the time after which their
// addresses may be given to others.
func (l *leases) reclaim(after time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.kept.on || after <= 0 {
		return
	}
	gone := map[string]bool{}
	for _, p := range l.pools {
		for a, e := range p.used {
			if e.owner == "" || e.asked {
				continue
			}
			is, asked := gone[e.owner]
			if !asked {
				is = l.kept.store.Silent(e.owner) > after
				gone[e.owner] = is
			}
			if is {
				e.owner = ""
				e.free = p.free.PushBack(a)
			}
		}
	}
}

// runLeases frees the addresses of gateways that are gone, and closes the store at the end.
func (g *Gateway) runLeases(ctx context.Context) {
	if g.leases.kept.store == nil {
		return
	}
	t := time.NewTicker(leaseReclaim)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			g.leases.reclaim(g.opt.Daemon.Leases.Reclaim)
		}
	}
}

// loseAddress ends the tunnel whose address the store says is somebody else's: this
// gateway was taken for dead, and its client, or another, has the address elsewhere.
func (g *Gateway) loseAddress(a netip.Addr) {
	g.pool.ask(&g.pool.outside, func(ctx context.Context) {
		list, err := g.SAs(ctx)
		if err != nil {
			return
		}
		for _, sa := range list {
			if slices.Contains(sa.RemoteVIPs, a) {
				g.bus.publish(ike.Note{SAKey: ike.SAKey{Name: sa.Name, ID: sa.ID}, Level: 1, Text: fmt.Sprintf("the address %s was given to somebody else by another gateway; the IKE SA is closed", a)})
				_ = g.shard.deliver(ctx, ike.Terminate{IKEID: sa.ID})
			}
		}
	}, func(error) {})
}

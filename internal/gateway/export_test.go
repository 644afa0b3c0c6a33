package gateway

import (
	"context"
	"net/netip"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/internal/config"
)

// Lessor is what a gateway has of leases, without the rest of it.
type Lessor struct{ l leases }

func NewLessor(store LeaseStore, lost func(netip.Addr), pools ...config.Pool) *Lessor {
	x := &Lessor{}
	x.l.init()
	x.l.kept.store, x.l.kept.lost = store, lost
	for _, p := range pools {
		if err := x.l.load(p, FromFile); err != nil {
			panic(err)
		}
	}
	x.l.open()
	return x
}

// Give is one client that wants an address.
func (x *Lessor) Give(ctx context.Context, lease uint64, identity, pool string) (netip.Addr, error) {
	q := ike.LeaseAddresses{Lease: lease, Peer: &ike.Peer{Pools: []string{pool}}, ID: identity, Request: []wire.Attribute{{Type: wire.InternalIP4Address}}}
	if !x.l.waits(lease) {
		panic("no store")
	}
	got, err := x.l.keep(ctx, q)
	if err != nil || len(got.Addrs) == 0 {
		return netip.Addr{}, err
	}
	return got.Addrs[0], nil
}

func (x *Lessor) Release(lease uint64)        { x.l.release(lease) }
func (x *Lessor) Reclaim(after time.Duration) { x.l.reclaim(after) }
func (x *Lessor) Pools() []PoolState {
	g := &Gateway{}
	g.leases.pools, g.leases.order = x.l.pools, x.l.order
	x.l.mu.Lock()
	defer x.l.mu.Unlock()
	return g.Pools()
}

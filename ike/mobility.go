package ike

import (
	"net/netip"
	"slices"
	"time"
)

// AddressesChanged tells that addresses, links or routes of the host are, or may be,
// others than before. IKE SAs that can move (MOBIKE, RFC 4555) then look for their path.
type AddressesChanged struct {
	// Own are the host's addresses that a peer may be told of; at most so many count as
	// limitOwnAddresses says.
	Own []netip.Addr
	// Links: addresses or links changed and not routes alone, so that the same address may
	// now be in another network.
	Links bool
	// Slept: the host was suspended. Every peer is asked at once whether it lives.
	Slept bool
}

func (AddressesChanged) command() {}

// Paths asks by which local address the host would reach each of Remotes. Value:
// []netip.Addr, one for each of them, invalid where no route leads.
type Paths struct{ Remotes []netip.Addr }

func (Paths) question() {}

// Mover is an SA that acts on AddressesChanged.
type Mover interface {
	AddressesChanged(now time.Time, c AddressesChanged)
}

func (e *Engine) addressesChanged(now time.Time, c AddressesChanged) {
	c.Own = slices.Clone(c.Own[:min(len(c.Own), limitOwnAddresses)])
	e.own = c.Own
	for _, env := range e.ordered() {
		m, ok := env.sa.(Mover)
		if !ok || env.upSince.IsZero() || env.gone || env.rekeyed {
			continue
		}
		e.guard(env, func() { m.AddressesChanged(now, c) })
	}
}

// OwnAddresses are the host's addresses as the last AddressesChanged told them.
func (v *Env) OwnAddresses() []netip.Addr { return v.e.own }

// AnyLocal reports whether the connection leaves its own address to the host's routes.
func (p *Peer) AnyLocal() bool {
	return len(p.LocalAddrs) == 0 || slices.ContainsFunc(p.LocalAddrs, func(s AddrSpec) bool { return s.Any || s.Host == "" && s.From != s.To })
}

// Allows reports whether the connection may use the local address: local_addrs names it,
// or any. Names count as any.
func (p *Peer) Allows(local netip.Addr) bool {
	if len(p.LocalAddrs) == 0 {
		return true
	}
	for _, s := range p.LocalAddrs {
		if s.Any || s.Host != "" || s.From.IsValid() && s.From.Is4() == local.Is4() && s.From.Compare(local) <= 0 && local.Compare(s.To) <= 0 {
			return true
		}
	}
	return false
}

package ikev2

import (
	"net/netip"

	"adit/ipsec"
)

// Transport mode through a NAT (RFC 7296 §2.23.1): each side knows other addresses
// than its peer. What a peer writes for a side behind a NAT is replaced by the
// address that packets of that side have here; the answer names what the peer
// wrote. ESP rebuilds headers and checksums from the endpoints (RFC 3948 §3.1.2).

// translate puts the addresses that are seen here into a peer's selectors, on each
// side that is behind a NAT.
func (s *sa) translate(local, remote []ipsec.Selector) (l, r []ipsec.Selector) {
	l, r = local, remote
	if s.nat.local {
		l = moved(local, s.local.Addr())
	}
	if s.nat.remote {
		r = moved(remote, s.remote.Addr())
	}
	return l, r
}

// moved gives selectors that are all of one host the address a; others, which
// transport mode cannot have, stay.
func moved(list []ipsec.Selector, a netip.Addr) []ipsec.Selector {
	a = a.Unmap().WithZone("")
	for _, t := range list {
		if t.From != t.To || t.From != list[0].From || t.From.Is4() != a.Is4() {
			return list
		}
	}
	out := make([]ipsec.Selector, len(list))
	for i, t := range list {
		t.From, t.To = a, a
		out[i] = t
	}
	return out
}

// untranslate puts the address back that the peer wrote, if translate took it away.
func untranslate(granted, written []ipsec.Selector, nat bool) []ipsec.Selector {
	if !nat || len(written) == 0 {
		return granted
	}
	return moved(granted, written[0].From)
}

// translated reports whether the selectors are not just the endpoints that we see:
// through a NAT transport mode can have no others.
func (s *sa) translated(local, remote []ipsec.Selector) bool {
	if !s.nat.encap() {
		return false
	}
	for _, side := range []struct {
		list []ipsec.Selector
		addr netip.Addr
	}{{local, s.local.Addr()}, {remote, s.remote.Addr()}} {
		for _, t := range side.list {
			if t.From != side.addr || t.To != side.addr {
				return true
			}
		}
	}
	return false
}

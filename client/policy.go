package client

import (
	"net/netip"
	"slices"

	"adit/internal/hostnet"
)

// steering is what a client adds to the policies of its Child SAs.
type steering struct {
	device string
	vips   []netip.Addr
	// inside is what the gateway let in the last time: it stays inside while the tunnel is
	// lost, if killSwitch is set. Everything is, if closed.
	inside             []hostnet.Selector
	killSwitch, closed bool
	lan                []netip.Prefix // local networks that stay reachable
}

// Places in the order of policies: those of Child SAs lie between (ike.Priority).
const (
	firstPlace = 0
	ownPlace   = 1<<32 - 2
	lastPlace  = 1<<32 - 1
)

var (
	any4 = hostnet.PrefixSelector(netip.MustParsePrefix("0.0.0.0/0"))
	any6 = hostnet.PrefixSelector(netip.MustParsePrefix("::/0"))
	// linkLocal must be named: a wide selector leaves them out.
	linkLocal = []hostnet.Selector{hostnet.PrefixSelector(netip.MustParsePrefix("169.254.0.0/16")), hostnet.PrefixSelector(netip.MustParsePrefix("fe80::/10"))}
)

// compose makes of the gateway's policies those of a client's host:
//
//   - what goes through the tunnel does so wherever the local network claims to be: a
//     network that has the addresses of a target takes nothing out of it (TunnelCrack's
//     LocalNet attack, CVE-2023-36672, CVE-2023-35838);
//   - what comes by another way than the tunnel for an address that the gateway gave is
//     dropped, and so is what would leave with it (CVE-2019-14899);
//   - while there is no tunnel, what it protected goes nowhere, and of a tunnel for
//     everything also the family that it does not have.
//
// Routes alone decide nothing: packets are steered by marks, before any route that a DHCP
// server may have sent (TunnelVision, CVE-2024-3661).
func compose(s hostnet.State, t steering) hostnet.State {
	out := hostnet.State{Devices: []string{t.device}}
	for _, p := range s.Policies {
		p.IncludeConnected = true
		out.Policies = append(out.Policies, p)
	}
	for i, p := range t.bypassed() {
		both := []hostnet.Selector{hostnet.PrefixSelector(p)}
		out.Policies = append(out.Policies, hostnet.Policy{ID: "client/lan/" + p.String(), Action: hostnet.Bypass, Local: both, Remote: both, Priority: uint32(firstPlace + i)})
	}
	if len(t.vips) > 0 {
		own := hostnet.Policy{ID: "client/own", Action: hostnet.Discard, Remote: append([]hostnet.Selector{any4, any6}, linkLocal...), Priority: ownPlace}
		for _, a := range t.vips {
			own.Local = append(own.Local, hostnet.PrefixSelector(netip.PrefixFrom(a, a.BitLen())))
		}
		out.Policies = append(out.Policies, own)
	}
	if remote := t.held(); len(remote) > 0 {
		out.Policies = append(out.Policies, hostnet.Policy{ID: "client/kill-switch", Action: hostnet.Discard, Local: []hostnet.Selector{any4, any6}, Remote: remote, Priority: lastPlace})
	}
	return out
}

// held are the addresses that must not be reached but by the tunnel.
func (t *steering) held() []hostnet.Selector {
	switch {
	case t.closed:
		return []hostnet.Selector{any4, any6}
	case !t.killSwitch:
		return nil
	case slices.Contains(t.inside, any4) || slices.Contains(t.inside, any6):
		return []hostnet.Selector{any4, any6}
	}
	return t.inside
}

// maxLANs bounds the local networks that stay reachable.
const maxLANs = 32

// bypassed are the local networks that stay reachable: private ones only, for who runs a
// local network can give it any addresses, and none that the gateway has named as its own.
func (t *steering) bypassed() (out []netip.Prefix) {
	for _, p := range t.lan {
		if !private(p) || len(out) == maxLANs {
			continue
		}
		if !slices.ContainsFunc(t.inside, func(s hostnet.Selector) bool {
			return s != any4 && s != any6 && s.From.BitLen() == p.Addr().BitLen() && overlaps(s, p)
		}) {
			out = append(out, p)
		}
	}
	return out
}

func overlaps(s hostnet.Selector, p netip.Prefix) bool {
	q := hostnet.PrefixSelector(p)
	return !s.To.Less(q.From) && !q.To.Less(s.From)
}

// privateRanges are those of RFC 1918 and RFC 4193.
var privateRanges = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("fc00::/7")}

func private(p netip.Prefix) bool {
	return slices.ContainsFunc(privateRanges, func(r netip.Prefix) bool { return r.Contains(p.Addr()) && p.Bits() >= r.Bits() })
}

// insideOf are the remote sides of protect policies, without protocols and ports.
func insideOf(s hostnet.State) (out []hostnet.Selector) {
	for _, p := range s.Policies {
		if p.Action != hostnet.Protect {
			continue
		}
		for _, r := range p.Remote {
			if r = (hostnet.Selector{From: r.From, To: r.To}); !slices.Contains(out, r) {
				out = append(out, r)
			}
		}
	}
	return out
}

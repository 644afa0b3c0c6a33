package hostnet

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// host is what a plan must know of the host.
type host struct {
	links     map[string]hostLink
	connected []addrRange    // subnets of the host's links, ours left out
	addrs     []netip.Addr   // candidates for the source hint, in order of preference
	strict    bool           // some interface has a strict reverse-path filter
	strays    []netlink.Link // TUN devices of ours that have left our group
}

type hostLink struct {
	index int
	up    bool
}

// readHost reads links and addresses; ours are the names of our own devices.
func readHost(ours []string) (*host, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("hostnet: listing links: %w", err)
	}
	h := &host{links: make(map[string]hostLink, len(links))}
	own := map[int]bool{}
	for _, l := range links {
		a := l.Attrs()
		h.links[a.Name] = hostLink{a.Index, a.RawFlags&unix.IFF_UP != 0}
		own[a.Index] = slices.Contains(ours, a.Name)
		if own[a.Index] && isTUN(l) && a.Group != deviceGroup {
			h.strays = append(h.strays, l)
		}
		h.strict = h.strict || !own[a.Index] && strictFilter(a.Name)
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("hostnet: listing addresses: %w", err)
	}
	var virtual []netip.Addr
	for _, a := range addrs {
		p, ok := ipNetPrefix(a.IPNet)
		if !ok || p.Addr().IsLoopback() || p.Addr().IsLinkLocalUnicast() {
			continue
		}
		if own[a.LinkIndex] {
			virtual = append(virtual, p.Addr())
			continue
		}
		if a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) == 0 {
			h.addrs = append(h.addrs, p.Addr())
		}
		if peer, ok := ipNetPrefix(a.Peer); ok {
			p = peer
		}
		if !p.IsSingleIP() {
			h.connected = append(h.connected, prefixRange(p.Masked()))
		}
	}
	h.addrs = append(virtual, h.addrs...) // a virtual address is there to be used
	return h, nil
}

// unroutable are ranges that never belong into a tunnel by the way of a wider
// selector: multicast, broadcast, link-local and loopback.
var unroutable = func() []addrRange {
	var rs []addrRange
	for _, s := range []string{"127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "255.255.255.255/32",
		"::1/128", "fe80::/10", "ff00::/8"} {
		rs = append(rs, prefixRange(netip.MustParsePrefix(s)))
	}
	return rs
}()

// plan is what a State means on a host: rows for nftables, routes and rules.
type plan struct {
	state  *State
	host   *host
	rows   [2][]row // IPv4, IPv6; in order of precedence; members of crowds have none
	device map[string]int
	routes map[routeKey]route
	rules  []rule
	// crowds by key, and of which each policy is a member, if any.
	crowds  map[string]*crowd
	crowdOf []*crowd
}

// row is one alternative of one policy: a pair of selectors whose remote range
// is already free of the subnets that stay outside.
type row struct {
	policy        int // index into State.Policies
	local, remote addrRange
	proto         uint8
	lport, rport  portRange
	// both are the packets that match the policy in both directions, since its
	// sides overlap: what came out of the tunnel like this is not sent back.
	both []flow
}

// flow is all packets from one range to another.
type flow struct{ src, dst addrRange }

// maxBoth bounds the flows of one row; beyond it all that is possible is taken
// for one flow.
const maxBoth = 32

// portRange is a range of ports; any takes all, fragments only those packets
// whose ports can't be seen.
type portRange struct {
	from, to       uint16
	any, fragments bool
}

func (s Selector) ports() portRange {
	return portRange{from: s.PortFrom, to: s.PortTo, any: s.anyPort(), fragments: !s.anyPort() && s.opaque()}
}

// makePlan plans a State. The policies in apart were of no crowd so far and stay so:
// to move one into a crowd would for a moment leave it in neither.
func makePlan(s *State, h *host, o *Options, apart map[string]bool) *plan {
	p := &plan{state: s, host: h, device: map[string]int{}, routes: map[routeKey]route{}, crowds: map[string]*crowd{}}
	for _, d := range s.Devices {
		if _, ok := p.device[d]; !ok && len(p.device) < o.steerable() {
			p.device[d] = len(p.device)
		}
	}
	keys := make([]string, len(s.Policies))
	for i := range keys {
		if !apart[s.Policies[i].ID] {
			keys[i] = s.Policies[i].crowdKey(h)
		}
	}
	p.gather(keys)
	order := make([]int, len(s.Policies))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Compare(s.Policies[a].Priority, s.Policies[b].Priority)
	})
	for _, i := range order {
		if p.crowdOf[i] == nil {
			p.addRows(i, h)
		}
	}
	p.addRoutes(h, o)
	p.rules = rulesFor(p, h, o)
	return p
}

// outside returns the ranges that the policy leaves alone although its remote
// selectors have them.
func (q *Policy) outside(h *host) []addrRange {
	switch {
	case q.Action == Bypass:
		return nil
	case q.Action == Discard || q.IncludeConnected:
		return unroutable
	}
	return append(slices.Clone(unroutable), h.connected...)
}

func (p *plan) addRows(i int, h *host) {
	q := &p.state.Policies[i]
	outside := q.outside(h)
	for _, r := range q.Remote {
		remote := addrRange{r.From, r.To}
		var holes []addrRange
		for _, o := range outside {
			if o.within(remote) {
				holes = append(holes, o)
			}
		}
		left := remote.without(holes)
		for _, l := range q.Local {
			proto, ok := jointProto(l, r)
			if !ok {
				continue
			}
			family := 0
			if remote.from.Is6() {
				family = 1
			}
			for _, part := range left {
				p.rows[family] = append(p.rows[family], row{i, addrRange{l.From, l.To}, part, proto,
					l.ports(), r.ports(), q.both(addrRange{l.From, l.To}, part)})
			}
		}
	}
}

// both returns which packets from local to remote match the policy also in the
// other direction.
func (q *Policy) both(local, remote addrRange) []flow {
	var flows []flow
	for _, r := range q.Remote {
		src, ok := local.intersect(addrRange{r.From, r.To})
		if !ok {
			continue
		}
		for _, l := range q.Local {
			dst, ok := remote.intersect(addrRange{l.From, l.To})
			if !ok {
				continue
			}
			if len(flows) == maxBoth {
				return []flow{{local, remote}}
			}
			flows = append(flows, flow{src, dst})
		}
	}
	return flows
}

// jointProto returns the protocol of a pair of selectors; false if no packet can
// match both.
func jointProto(l, r Selector) (uint8, bool) {
	switch {
	case l.From.Is4() != r.From.Is4():
		return 0, false
	case l.Proto == 0:
		return r.Proto, true
	case r.Proto == 0 || r.Proto == l.Proto:
		return l.Proto, true
	}
	return 0, false
}

// addRoutes plans the routes. The tables of the devices serve marked packets
// only, so they may be as wide as the selectors. The shared table is asked for
// packets of the host itself before they have a mark, often a source: it has
// only what is wholly the policy's, and throws back what stays outside.
func (p *plan) addRoutes(h *host, o *Options) {
	for i := range p.state.Policies {
		q := &p.state.Policies[i]
		_, own := q.source(h)
		if !p.routesOf(q, o, p.addRoute) {
			continue
		}
		for _, r := range q.Remote {
			remote := addrRange{r.From, r.To}
			if own[familyOf(r.From)] && q.wide() {
				for _, hole := range q.outside(h) {
					if hole.within(remote) {
						p.addThrows(hole, o)
					}
				}
			}
		}
	}
	for i := range p.state.Policies {
		if q := &p.state.Policies[i]; q.Action == Bypass && q.wide() {
			for _, r := range q.Remote {
				p.addThrows(addrRange{r.From, r.To}, o)
			}
		}
	}
}

// routesOf gives add the routes to the remote side of a policy; false if it has
// none, or none now.
func (p *plan) routesOf(q *Policy, o *Options, add func(route)) bool {
	if q.Action != Protect || !q.InstallRoutes {
		return false
	}
	index, ok := p.device[q.Device]
	link := p.host.links[q.Device]
	if !ok || link.index == 0 || !link.up {
		return false // the guard holds the traffic back; Refresh comes again
	}
	src, own := q.source(p.host)
	for _, r := range q.Remote {
		base := route{link: link.index, mtu: q.MTU}
		for _, dst := range (addrRange{r.From, r.To}).prefixes() {
			base.dst, base.table, base.src = dst, o.SteerTable+index, netip.Addr{}
			add(base)
			if hint := src[familyOf(dst.Addr())]; own[familyOf(dst.Addr())] && q.wide() {
				base.table = o.Table
				if q.SrcHint {
					base.src = hint
				}
				add(base)
			}
		}
	}
	return true
}

// addRoute adds a route unless there is one to its destination: the first
// policy's stands, with the smaller MTU of both.
func (p *plan) addRoute(r route) {
	k := r.key()
	have, ok := p.routes[k]
	if !ok {
		p.routes[k] = r
		return
	}
	if have.link == r.link && r.mtu > 0 && (have.mtu == 0 || r.mtu < have.mtu) {
		have.mtu = r.mtu
		p.routes[k] = have
	}
}

func (p *plan) addThrows(r addrRange, o *Options) {
	for _, dst := range r.prefixes() {
		t := route{table: o.Table, dst: dst, throw: true}
		if _, taken := p.routes[t.key()]; !taken {
			p.routes[t.key()] = t
		}
	}
}

// source returns the host's addresses inside the local selectors, one a family,
// and whether there are any.
func (q *Policy) source(h *host) (src [2]netip.Addr, ok [2]bool) {
	for _, a := range h.addrs {
		f := familyOf(a)
		for _, l := range q.Local {
			if !ok[f] && (addrRange{l.From, l.To}).contains(a) {
				src[f], ok[f] = a, true
			}
		}
	}
	return src, ok
}

func familyOf(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

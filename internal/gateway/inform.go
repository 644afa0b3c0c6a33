package gateway

import (
	"context"
	"net/netip"
	"slices"

	"adit/ike"
	"adit/ike/wire"
	"adit/internal/dhcp"
	"adit/ipsec"
)

// injector is a data plane that sends packets of ours through an SA.
type injector interface {
	Inject(ipsec.SARef, []byte) error
}

// informs are the DHCPINFORMs of clients that wait for their answer.
type informs struct {
	g     *Gateway
	queue chan ipsec.Inform
}

func (i *informs) init(g *Gateway) { i.g, i.queue = g, make(chan ipsec.Inform, limitInforms) }

// take never blocks: whoever gets no answer asks again.
func (i *informs) take(x ipsec.Inform) {
	select {
	case i.queue <- x:
	default:
	}
}

func (i *informs) run(ctx context.Context) {
	dp, ok := i.g.opt.Dataplane.(injector)
	if !ok {
		return
	}
	for {
		select {
		case <-ctx.Done():
			return
		case x := <-i.queue:
			if q, err := dhcp.ParseInform(x.Packet); err == nil {
				if s, ok := i.settings(ctx, x.Ref.Child, q.Client); ok {
					_ = dp.Inject(ipsec.SARef{Child: x.Ref.Child, Dir: ipsec.Out}, q.Answer(s))
				}
			}
		}
	}
}

// settings are what a client that we gave its address may know: the networks of its
// Child SA, and the name servers and domains of its pools.
func (i *informs) settings(ctx context.Context, child uint32, client netip.Addr) (s dhcp.Settings, found bool) {
	_ = i.g.EachSA(ctx, Listed{}, func(sa ike.SAInfo) error {
		for _, c := range sa.Children {
			for _, v := range sa.RemoteVIPs {
				if c.ID == child && v == client {
					found = true
					s = i.describe(sa, c)
				}
			}
		}
		return nil
	})
	return s, found && s.Server.IsValid()
}

func (i *informs) describe(sa ike.SAInfo, c ike.ChildInfo) (s dhcp.Settings) {
	for _, t := range c.LocalTS {
		if !t.From.Is4() {
			continue
		}
		if s.Routes = append(s.Routes, t.Prefixes()...); !s.Server.IsValid() {
			// Any address of ours will do for a route into the tunnel, but the client's own
			// selectors must let the answer in.
			if s.Server = t.From; t.From != t.To && !t.From.IsUnspecified() {
				s.Server = t.From.Next()
			} else if t.From.IsUnspecified() {
				s.Server = netip.AddrFrom4([4]byte{10, 0, 0, 1})
				if a := sa.Local.Addr().Unmap(); a.Is4() {
					s.Server = a
				}
			}
		}
	}
	for _, a := range i.g.leases.toldBy(i.g.poolsOf(sa.Name)) {
		if a.Type == wire.InternalIP4DNS && len(a.Value) == 4 {
			s.DNS = append(s.DNS, netip.AddrFrom4([4]byte(a.Value)))
		} else if a.Type == wire.InternalDNSDomain {
			s.Domains = append(s.Domains, string(a.Value))
		}
	}
	return s
}

// poolsOf are the pools of a loaded connection.
func (g *Gateway) poolsOf(name string) []string {
	g.inv.mu.Lock()
	defer g.inv.mu.Unlock()
	if l := g.inv.conns[name]; l != nil {
		return l.peer.Pools
	}
	return nil
}

// toldBy is what clients of these pools are told besides their addresses.
func (l *leases) toldBy(pools []string) []wire.Attribute {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append(slices.Clone(l.global), l.attributes(pools)...)
}

// attributes are those of the pools. The caller holds mu.
func (l *leases) attributes(pools []string) (out []wire.Attribute) {
	for _, name := range pools {
		if p := l.pools[name]; p != nil {
			out = append(out, p.Attributes...)
		}
	}
	return out
}

package gateway

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"

	"adit/ike"
	"adit/ike/wire"
)

// virtualAddresses are those that peers gave us, by the engine's number of the lease.
type virtualAddresses struct {
	mu   sync.Mutex
	held map[uint64][]netip.Prefix
}

// assume puts the addresses that a peer gave us on our device. Name servers and
// domains are told; the host's resolver is the operator's.
func (g *Gateway) assume(q ike.AssumeAddresses) error {
	if g.opt.Host == nil {
		return nil // without a host there is nobody to have them
	}
	var done []netip.Prefix
	for _, a := range q.Addrs {
		p := netip.PrefixFrom(a, a.BitLen())
		if err := g.opt.Host.AddAddress(g.opt.Device, p); err != nil {
			for _, p := range done {
				_ = g.opt.Host.DelAddress(g.opt.Device, p)
			}
			return err
		}
		done = append(done, p)
	}
	g.virtual.mu.Lock()
	g.virtual.held[q.Lease] = append(g.virtual.held[q.Lease], done...)
	g.virtual.mu.Unlock()
	if text := settings(q.Attributes); text != "" {
		g.bus.publish(ike.Note{SAKey: ike.SAKey{Name: q.Peer.Name}, Level: 1, Text: "the peer tells " + text})
	}
	return nil
}

// undo takes the addresses of a lease off the device.
func (g *Gateway) undo(lease uint64) {
	g.virtual.mu.Lock()
	list := g.virtual.held[lease]
	delete(g.virtual.held, lease)
	g.virtual.mu.Unlock()
	for _, p := range list {
		if err := g.opt.Host.DelAddress(g.opt.Device, p); err != nil {
			g.bus.publish(ike.Note{Level: 1, Text: fmt.Sprintf("removing virtual address: %v", err)})
		}
	}
}

// settings are the attributes of a CFG_REPLY for people; what comes of the peer is
// cut to what can be printed.
func settings(list []wire.Attribute) string {
	var out []string
	for _, a := range list {
		name := ""
		switch a.Type {
		case wire.InternalIP4DNS, wire.InternalIP6DNS:
			name = "DNS"
		case wire.InternalIP4NBNS:
			name = "NBNS"
		case wire.InternalDNSDomain:
			name = "domain"
		default:
			continue
		}
		value := fmt.Sprintf("%q", a.Value)
		if ip, ok := netip.AddrFromSlice(a.Value); ok && name != "domain" {
			value = ip.String()
		}
		if len(out) == 8 {
			out = append(out, "…")
			break
		}
		out = append(out, name+" "+value[:min(len(value), 80)])
	}
	return strings.Join(out, ", ")
}

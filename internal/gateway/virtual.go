package gateway

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"

	"adit/ike"
	"adit/ike/wire"
)

// virtualAddresses are those that peers gave us, by the engine's number of the lease.
// A lease is entered when it is asked for and goes when it is given up, in the order of
// the engine's effects; what the kernel did for one that has gone is undone at once.
type virtualAddresses struct {
	mu   sync.Mutex
	held map[uint64][]netip.Prefix
}

// expect enters a lease.
func (v *virtualAddresses) expect(lease uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, known := v.held[lease]; !known {
		v.held[lease] = nil
	}
}

// forget takes a lease out and returns what is on the device for it.
func (v *virtualAddresses) forget(lease uint64) []netip.Prefix {
	v.mu.Lock()
	defer v.mu.Unlock()
	list := v.held[lease]
	delete(v.held, lease)
	return list
}

// keep notes what is on the device for a lease; false: it has gone meanwhile.
func (v *virtualAddresses) keep(lease uint64, list []netip.Prefix) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	held, ok := v.held[lease]
	if ok {
		v.held[lease] = append(held, list...)
	}
	return ok
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
	if !g.virtual.keep(q.Lease, done) {
		g.undo(done)
		return errors.New("the addresses were given up while they were set up")
	}
	if text := settings(q.Attributes); text != "" {
		g.bus.publish(ike.Note{SAKey: ike.SAKey{Name: q.Peer.Name}, Level: 1, Text: "the peer tells " + text})
	}
	return nil
}

// undo takes addresses off the device.
func (g *Gateway) undo(list []netip.Prefix) {
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

package gateway

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
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
	held map[uint64]assumed
}

// assumed is what was done on the host for a lease.
type assumed struct {
	addrs   []netip.Prefix // on the device
	servers []netip.Addr   // name servers in the resolver's file
	told    uint64         // the lease whose names the host has (nameTaker), 0: none
}

// expect enters a lease.
func (v *virtualAddresses) expect(lease uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, known := v.held[lease]; !known {
		v.held[lease] = assumed{}
	}
}

// forget takes a lease out and returns what is on the host for it.
func (v *virtualAddresses) forget(lease uint64) assumed {
	v.mu.Lock()
	defer v.mu.Unlock()
	done := v.held[lease]
	delete(v.held, lease)
	return done
}

// keep notes what is on the host for a lease; false: it has gone meanwhile.
func (v *virtualAddresses) keep(lease uint64, done assumed) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	held, ok := v.held[lease]
	if ok {
		v.held[lease] = assumed{append(held.addrs, done.addrs...), append(held.servers, done.servers...), max(held.told, done.told)}
	}
	return ok
}

// nameServers is a Host that can change the host's resolver.
type nameServers interface {
	AddNameServer(file string, a netip.Addr) error
	DelNameServer(file string, a netip.Addr) error
}

// nameTaker is a Host that sees itself to name servers and domains of a tunnel, by the
// number of the lease.
type nameTaker interface {
	TakeNames(lease uint64, servers []netip.Addr, domains []string)
	DropNames(lease uint64)
}

// virtualDevice is where virtual addresses are put (charon.install_virtual_ip_on); empty: nowhere.
func (g *Gateway) virtualDevice() string {
	if g.opt.Daemon.NoVirtualIPs {
		return ""
	}
	return cmp.Or(g.opt.Daemon.VirtualIPDevice, g.opt.Device)
}

// assume puts the addresses that a peer gave us on our device, and the name servers
// into the resolver's file if strongswan.conf says so; otherwise those are told only:
// the host's resolver is the operator's. Without the name servers the tunnel is none the worse.
func (g *Gateway) assume(q ike.AssumeAddresses) error {
	if g.opt.Host == nil {
		return nil // without a host there is nobody to have them
	}
	var done assumed
	if device := g.virtualDevice(); device != "" {
		for _, a := range q.Addrs {
			p := netip.PrefixFrom(a, a.BitLen())
			if err := g.opt.Host.AddAddress(device, p); err != nil {
				g.undo(done)
				return err
			}
			done.addrs = append(done.addrs, p)
		}
	}
	if host, ok := g.opt.Host.(nameTaker); ok {
		host.TakeNames(q.Lease, servers(q.Attributes), domains(q.Attributes))
		done.told = q.Lease
	} else if host, ok := g.opt.Host.(nameServers); ok && g.opt.Daemon.ResolveFile != "" {
		for _, a := range servers(q.Attributes) {
			if err := host.AddNameServer(g.opt.Daemon.ResolveFile, a); err != nil {
				g.bus.publish(ike.Note{SAKey: ike.SAKey{Name: q.Peer.Name}, Level: 1, Text: fmt.Sprintf("name server %v: %v", a, err)})
				continue
			}
			done.servers = append(done.servers, a)
		}
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

// undo takes from the host what was done for a lease.
func (g *Gateway) undo(done assumed) {
	if done.told != 0 {
		g.opt.Host.(nameTaker).DropNames(done.told)
	}
	for _, p := range done.addrs {
		if err := g.opt.Host.DelAddress(g.virtualDevice(), p); err != nil {
			g.bus.publish(ike.Note{Level: 1, Text: fmt.Sprintf("removing virtual address: %v", err)})
		}
	}
	for _, a := range done.servers {
		if err := g.opt.Host.(nameServers).DelNameServer(g.opt.Daemon.ResolveFile, a); err != nil {
			g.bus.publish(ike.Note{Level: 1, Text: fmt.Sprintf("removing name server: %v", err)})
		}
	}
}

// limitServers bounds the name servers of one peer.
const limitServers = 6

// servers are the name servers of a CFG_REPLY. None that only reaches this host or link
// is taken: it would be another one than the peer means.
func servers(list []wire.Attribute) (out []netip.Addr) {
	for _, a := range list {
		if a.Type != wire.InternalIP4DNS && a.Type != wire.InternalIP6DNS || len(out) == limitServers {
			continue
		}
		ip, ok := netip.AddrFromSlice(a.Value)
		if ok && !ip.IsUnspecified() && !ip.IsLoopback() && !ip.IsMulticast() && !ip.IsLinkLocalUnicast() && !ip.Is4In6() && !slices.Contains(out, ip) {
			out = append(out, ip)
		}
	}
	return out
}

// limitDomains bounds the domains of one peer.
const limitDomains = 32

// domains are the domains of a CFG_REPLY that the tunnel's name servers know (RFC 8598).
// What is no host name is left out: it goes into files that others read.
func domains(list []wire.Attribute) (out []string) {
	for _, a := range list {
		if a.Type != wire.InternalDNSDomain || len(out) == limitDomains {
			continue
		}
		if name, ok := domainName(a.Value); ok && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

// domainName is a domain in lower case and without a dot at its end; false if it has
// other characters than host names have (RFC 1123 §2.1), or an underscore.
func domainName(b []byte) (string, bool) {
	name := strings.ToLower(strings.Trim(string(b), "."))
	if name == "" || len(name) > 253 {
		return "", false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return "", false
		}
		for _, c := range []byte(label) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return "", false
			}
		}
	}
	return name, true
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

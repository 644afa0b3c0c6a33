package hostnet

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// Clients is a range of addresses that clients get through the tunnel, and the site's
// rules for them.
type Clients struct {
	From, To netip.Addr
	// Masquerade gives their packets that leave by any device but ours the host's own
	// address, so that nobody needs a route back to them.
	Masquerade bool
	// Apart keeps them from other clients: no packet goes from a tunnel to one of them
	// if it comes from an address of any Clients, and none from one of them to such an address.
	Apart bool
}

// MaxClients is the number of ranges of clients in one State.
const MaxClients = 4096

const (
	chainMasquerade    = "masquerading"
	counterApart       = "client_to_client"
	priorityMasquerade = 100 // of source NAT
)

func (s *State) validateClients() error {
	if len(s.Clients) > MaxClients {
		return fmt.Errorf("hostnet: %d ranges of clients, at most %d are possible", len(s.Clients), MaxClients)
	}
	for _, c := range s.Clients {
		if err := (Selector{From: c.From, To: c.To}).validate(); err != nil {
			return fmt.Errorf("hostnet: clients: %w", err)
		}
	}
	return nil
}

// clientSet adds a set of those clients of a family that are wanted and returns its
// name; empty: there are none. It is named after its content, for ranges that grow
// or shrink cannot replace each other within one set.
func (b *builder) clientSet(v6 bool, want func(Clients) bool) string {
	var ranges []addrRange
	h := sha256.New()
	for _, c := range b.p.state.Clients {
		if c.From.Is6() == v6 && want(c) {
			ranges = append(ranges, addrRange{c.From, c.To})
		}
	}
	if len(ranges) == 0 {
		return ""
	}
	m := verdictMap{v6: v6, set: true}
	for _, s := range cutCoarse(ranges).slots {
		m.jumps = append(m.jumps, jump{r: s.r})
		fmt.Fprintf(h, "%v-%v ", s.r.from, s.r.to)
	}
	m.name = fmt.Sprintf("clients_%d_%s", b.epoch, hex.EncodeToString(h.Sum(nil)[:8]))
	if !slices.ContainsFunc(b.out.maps, func(o verdictMap) bool { return o.name == m.name }) {
		b.out.maps = append(b.out.maps, m)
	}
	return m.name
}

// within matches an address against a set of clients.
func within(set string, v6, dst bool) exprs {
	return exprs{address(v6, dst), &expr.Lookup{SourceRegister: 1, SetName: set}}
}

// masquerade is the chain of source NAT; nil if nobody is to be masqueraded. What goes
// back into a tunnel, to other clients or sites, keeps its address.
func (b *builder) masquerade() *baseChain {
	c := &baseChain{name: chainMasquerade, kind: nftables.ChainTypeNAT, hook: nftables.ChainHookPostrouting, priority: priorityMasquerade}
	for _, v6 := range []bool{false, true} {
		if set := b.clientSet(v6, func(c Clients) bool { return c.Masquerade }); set != "" {
			c.rules = append(c.rules, slices.Concat(family(v6), within(set, v6, false), exprs{&expr.Masq{}}))
		}
	}
	if len(c.rules) == 0 {
		return nil
	}
	c.rules = append(b.ours(expr.MetaKeyOIFGROUP, verdict(expr.VerdictAccept)), c.rules...)
	return c
}

// apart are the rules that keep clients from each other, for packets that came by one
// of our devices. They are counted together, under a name of their own.
func (b *builder) apart() (rules []exprs) {
	drop := exprs{&expr.Objref{Type: int(nftables.ObjTypeCounter), Name: counterApart}, verdict(expr.VerdictDrop)}
	for _, v6 := range []bool{false, true} {
		apart := b.clientSet(v6, func(c Clients) bool { return c.Apart })
		if apart == "" || len(b.p.state.Devices) == 0 {
			continue
		}
		b.out.counters[counterApart] = true
		all := b.clientSet(v6, func(Clients) bool { return true })
		for _, way := range [][2]string{{apart, all}, {all, apart}} {
			rules = append(rules, slices.Concat(device(expr.MetaKeyIIFGROUP, deviceGroup), family(v6),
				within(way[0], v6, false), within(way[1], v6, true), drop))
		}
	}
	return rules
}

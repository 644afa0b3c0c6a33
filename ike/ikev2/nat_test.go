package ikev2_test

import (
	"net/netip"
	"testing"
	"time"

	"adit/ike"
	"adit/ipsec"
)

// natted puts a NAT before a: where it maps a's two ports to can be changed.
type natted struct {
	*pair
	plain, float netip.AddrPort
	inside       map[netip.AddrPort]netip.AddrPort
}

func newNATted(t *testing.T, tweak func(a, b *side)) *natted {
	n := &natted{plain: netip.MustParseAddrPort("203.0.113.5:40500"), inside: map[netip.AddrPort]netip.AddrPort{}}
	n.pair = newPair(t, func(a, b *side) {
		b.peer.RemoteAddrs = nil
		if tweak != nil {
			tweak(a, b)
		}
	})
	dump(t, n.pair)
	n.inside[n.plain] = netip.AddrPortFrom(addrA, 500)
	n.remap(44500)
	n.filter = func(from *host, d ike.Datagram) bool {
		// The NAT: rewrite, in place of the pair's own delivery.
		out := ike.Datagram{Local: d.Remote, Remote: d.Local, Data: append([]byte(nil), d.Data...)}
		if from == n.a {
			out.Remote = n.plain
			if d.Local.Port() == 4500 {
				out.Remote = n.float
			}
		} else {
			in, ok := n.inside[d.Remote]
			if !ok {
				return false
			}
			out.Local = in
		}
		n.seq++
		n.queue = append(n.queue, packet{n.now.Add(10 * time.Millisecond), n.seq, n.other(from), out})
		return false
	}
	return n
}

// remap gives a's port 4500 another one outside.
func (n *natted) remap(port uint16) {
	n.float = netip.AddrPortFrom(n.plain.Addr(), port)
	n.inside[n.float] = netip.AddrPortFrom(addrA, 4500)
}

func TestRFC7296_2_23_NATBeforeTheInitiator(t *testing.T) {
	p := newNATted(t, nil)
	p.a.initiate("net")
	p.run(2 * time.Second)
	p.up()
	a, b := p.a.e.SAs()[0], p.b.e.SAs()[0]
	if !a.NATLocal || a.NATRemote || b.NATLocal || !b.NATRemote || !a.Encap || !b.Encap {
		t.Errorf("a %+v\nb %+v", a, b)
	}
	if b.Remote != p.float || a.Remote.Port() != 4500 || a.Local.Port() != 4500 {
		t.Errorf("no float: a %v %v, b %v", a.Local, a.Remote, b.Remote)
	}
	// Keepalives: only a sends them.
	p.run(65 * time.Second)
	count := func(h *host) (n int) {
		for _, d := range h.sent {
			if len(d.Data) == 1 && d.Data[0] == 0xff {
				n++
			}
		}
		return n
	}
	if count(p.a) != 3 || count(p.b) != 0 {
		t.Errorf("keepalives: a %d, b %d, want 3 and 0", count(p.a), count(p.b))
	}
	// The mapping changes; the data plane notices.
	p.remap(45555)
	moved := p.float
	ref := ipsec.SARef{Child: b.Children[0].ID, Dir: ipsec.In}
	if !p.b.plane.sas[ref].TrackNAT {
		t.Error("b does not track the mapping")
	}
	p.b.e.Dataplane(p.now, ipsec.MappingChange{Ref: ref, Remote: moved})
	p.b.drain()
	if got := p.b.plane.sas[ipsec.SARef{Child: ref.Child, Dir: ipsec.Out}].Remote; got != moved {
		t.Errorf("b sends to %v, want %v", got, moved)
	}
	if len(eventsOf[ike.Moved](p.b)) != 1 {
		t.Error("no Moved event")
	}
	// An authenticated request from yet another port moves it too.
	p.remap(46666)
	p.a.do(ike.Rekey{Child: "net"})
	p.run(10 * time.Second)
	p.up()
	if got := p.b.e.SAs()[0].Remote; got != p.float {
		t.Errorf("b has %v, want %v", got, p.float)
	}
}

func TestForcedEncapsulation(t *testing.T) {
	for name, tt := range map[string]struct {
		tweak func(a, b *side)
		encap bool
	}{
		"auto":         {func(a, b *side) {}, false},
		"auto, forced": {func(a, b *side) { a.config.ForceEncap = true }, true},
		"responder":    {func(a, b *side) { b.config.ForceEncap = true }, true},
		"both":         {func(a, b *side) { a.config.ForceEncap, b.config.ForceEncap = true, true }, true},
		"yes":          {func(a, b *side) { b.peer.Encap = ike.EncapYes }, true},
		"no":           {func(a, b *side) { a.config.ForceEncap = true; a.peer.Encap = ike.EncapNo }, false},
	} {
		t.Run(name, func(t *testing.T) {
			p := mustUp(t, tt.tweak)
			for _, h := range []*host{p.a, p.b} {
				i := h.e.SAs()[0]
				port := uint16(500)
				if tt.encap {
					port = 4500
				}
				if i.Encap != tt.encap || i.Local.Port() != port || i.Remote.Port() != port {
					t.Errorf("%s: encap %v, %v to %v", h.name, i.Encap, i.Local, i.Remote)
				}
			}
		})
	}
}

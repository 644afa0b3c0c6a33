package ikev2_test

import (
	"bytes"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/ipsec"
	"adit/suite"
)

// dump prints both traces of a test that failed.
func dump(t *testing.T, p *pair) {
	t.Cleanup(func() {
		if t.Failed() {
			for _, l := range append(p.a.trace(), p.b.trace()...) {
				t.Log(l)
			}
		}
	})
}

func mustUp(t *testing.T, tweak func(a, b *side)) *pair {
	t.Helper()
	p := newPair(t, tweak)
	dump(t, p)
	p.a.initiate("net")
	p.run(2 * time.Second)
	p.up()
	return p
}

func TestRFC7296_1_4_1_DeleteIKE(t *testing.T) {
	for _, by := range []string{"initiator", "responder"} {
		t.Run(by, func(t *testing.T) {
			p := mustUp(t, nil)
			h := p.a
			if by == "responder" {
				h = p.b
			}
			h.do(ike.Terminate{ID: 7, IKE: h.name})
			p.run(time.Second)
			p.down()
			if d := eventsOf[ike.CommandDone](h); len(d) == 0 || d[len(d)-1].ID != 7 || d[len(d)-1].Matched != 1 || d[len(d)-1].Err != nil {
				t.Errorf("CommandDone: %+v", d)
			}
			for _, x := range []*host{p.a, p.b} {
				if len(eventsOf[ike.IKEDown](x)) != 1 || len(eventsOf[ike.ChildDown](x)) != 1 {
					t.Errorf("%s: down events do not balance: %v", x.name, x.trace())
				}
			}
		})
	}
}

func TestRFC7296_1_4_1_DeleteChild(t *testing.T) {
	for _, h := range []string{"a", "b"} {
		p := mustUp(t, nil)
		x := p.a
		if h == "b" {
			x = p.b
		}
		x.do(ike.Terminate{ID: 7, Child: "net"})
		p.run(time.Second)
		if len(p.a.plane.sas)+len(p.b.plane.sas)+len(p.a.plane.pol)+len(p.b.plane.pol) != 0 {
			t.Error("SAs or policies are left")
		}
		if n := len(p.a.e.SAs()); n != 1 {
			t.Errorf("%d IKE SAs, want 1", n)
		}
		x.initiate("net")
		p.run(time.Second)
		p.up()
	}
}

func TestRFC7296_1_4_1_DeleteAtOnce(t *testing.T) {
	p := mustUp(t, nil)
	p.a.do(ike.Terminate{Child: "net"})
	p.b.do(ike.Terminate{Child: "net"})
	p.run(time.Second)
	if len(p.a.plane.sas)+len(p.b.plane.sas) != 0 {
		t.Error("SAs are left")
	}
	p = mustUp(t, nil)
	p.a.do(ike.Terminate{IKE: "a"})
	p.b.do(ike.Terminate{IKE: "b"})
	p.run(time.Second)
	p.down()
}

func TestForcedClose(t *testing.T) {
	p := mustUp(t, nil)
	p.a.do(ike.Terminate{ID: 3, IKE: "a", Force: true})
	if len(p.a.e.SAs()) != 0 {
		t.Error("a waits although forced")
	}
	p.run(time.Second)
	p.down()
}

func TestShutdown(t *testing.T) {
	p := mustUp(t, nil)
	p.a.do(ike.Shutdown{Grace: 3 * time.Second})
	p.run(time.Second)
	p.down()
	if len(eventsOf[ike.ShutdownDone](p.a)) != 1 {
		t.Error("no ShutdownDone")
	}
	// A peer that does not answer cannot hold it up.
	p = mustUp(t, nil)
	p.filter = func(*host, ike.Datagram) bool { return false }
	p.a.do(ike.Shutdown{Grace: 3 * time.Second})
	p.run(4 * time.Second)
	if len(eventsOf[ike.ShutdownDone](p.a)) != 1 {
		t.Error("no ShutdownDone after the grace")
	}
}

func TestRFC7296_2_17_RekeyChild(t *testing.T) {
	for _, esp := range []string{"aes128gcm16", "aes128gcm16-x25519", "aes256-sha256-ecp384", "aes128-sha256-modp2048-esn"} {
		for _, by := range []string{"a", "b"} {
			t.Run(esp+" by "+by, func(t *testing.T) {
				p := mustUp(t, func(a, b *side) {
					a.child.Proposals = mustProposals(t, suite.ESP, esp)
					b.child.Proposals = a.child.Proposals
				})
				h := p.a
				if by == "b" {
					h = p.b
				}
				var pol ipsec.PolicyID
				for i := range p.a.plane.pol {
					pol = i
				}
				before := p.a.e.SAs()[0].Children[0]
				for range 3 {
					h.do(ike.Rekey{ID: 5, Child: "net"})
					p.run(20 * time.Second)
					p.up()
				}
				after := p.a.e.SAs()[0].Children[0]
				if before.SPIIn == after.SPIIn || before.ID == after.ID || before.ReqID != after.ReqID {
					t.Errorf("not rekeyed as it should be: %+v, %+v", before, after)
				}
				if _, ok := p.a.plane.pol[pol]; !ok {
					t.Error("the policy's ID changed")
				}
				for _, x := range []*host{p.a, p.b} {
					if len(eventsOf[ike.ChildRekeyed](x)) != 3 || len(eventsOf[ike.ChildDown](x)) != 0 || len(eventsOf[ike.ChildUp](x)) != 1 {
						t.Errorf("%s: events: %v", x.name, x.trace())
					}
				}
			})
		}
	}
}

// A replaced inbound SA stays for packets on the way; the responder's outbound SA
// changes only with the Delete of the old one.
func TestRFC7296_2_8_RekeyCutOver(t *testing.T) {
	p := mustUp(t, nil)
	old := p.b.e.SAs()[0].Children[0]
	outOf := func(h *host) ipsec.SPI {
		for _, pol := range h.plane.pol {
			return h.plane.sas[pol.Out].SPI
		}
		return 0
	}
	p.a.do(ike.Rekey{Child: "net"})
	p.run(15 * time.Millisecond) // b has answered, a has not seen it
	if len(p.b.plane.sas) != 4 || outOf(p.b) != old.SPIOut {
		t.Errorf("b: %d SAs, sends under %v, want 4 and the old %v", len(p.b.plane.sas), outOf(p.b), old.SPIOut)
	}
	p.run(10 * time.Millisecond) // a has the answer and sent its Delete
	if outOf(p.a) == old.SPIIn {
		t.Error("a still sends under the old SPI")
	}
	p.run(10 * time.Millisecond) // b has the Delete
	if outOf(p.b) == old.SPIOut {
		t.Error("b still sends under the old SPI")
	}
	p.run(3 * time.Second)
	if len(p.a.plane.sas) != 4 || len(p.b.plane.sas) != 4 {
		t.Error("the replaced inbound SAs went before the delay was over")
	}
	p.run(3 * time.Second)
	p.up()
}

func TestRFC7296_2_18_RekeyIKE(t *testing.T) {
	for _, by := range []string{"a", "b"} {
		for _, prop := range []string{"aes128-sha256-x25519", "aes256gcm16-prfsha384-ecp384", "aes128-aesxcbc-modp1024"} {
			t.Run(prop+" by "+by, func(t *testing.T) {
				p := mustUp(t, func(a, b *side) {
					a.peer.Proposals = mustProposals(t, suite.IKE, prop)
					b.peer.Proposals = a.peer.Proposals
				})
				h := p.a
				if by == "b" {
					h = p.b
				}
				first := p.a.e.SAs()[0]
				for range 3 {
					h.do(ike.Rekey{IKE: h.name})
					p.run(10 * time.Second)
					p.up()
				}
				last := p.a.e.SAs()[0]
				if first.SPIi == last.SPIi || first.ID == last.ID || last.Initiator != (by == "a") || first.Children[0].ID != last.Children[0].ID {
					t.Errorf("%+v\n%+v", first, last)
				}
				p.a.do(ike.Rekey{Child: "net"})
				p.run(10 * time.Second)
				p.up()
				for _, x := range []*host{p.a, p.b} {
					if len(eventsOf[ike.IKERekeyed](x)) != 3 || len(eventsOf[ike.IKEDown](x)) != 0 || len(eventsOf[ike.IKEUp](x)) != 1 {
						t.Errorf("%s: events", x.name)
					}
					if n := x.e.Stats().Established; n != 1 {
						t.Errorf("%s counts %d established", x.name, n)
					}
				}
				p.b.do(ike.Terminate{IKE: "b"})
				p.run(time.Second)
				p.down()
			})
		}
	}
}

func TestRFC7296_2_1_RetransmissionIsBitIdentical(t *testing.T) {
	p := newPair(t, nil)
	dump(t, p)
	lost := map[string]int{}
	var datagrams [][]byte
	p.filter = func(from *host, d ike.Datagram) bool {
		datagrams = append(datagrams, bytes.Clone(d.Data))
		k := from.name + string(d.Data[:28])
		lost[k]++
		return lost[k] > 1 // every message is lost once
	}
	p.a.initiate("net")
	p.run(time.Minute)
	p.up()
	seen := map[string][]byte{}
	for _, d := range datagrams {
		k := string(d[:16]) + string(d[18:24])
		if old, ok := seen[k]; ok && !bytes.Equal(old, d) && d[18] != byte(wire.ExchangeIKESAInit) {
			t.Errorf("two different messages of one ID: %x and %x", old, d)
		}
		seen[k] = d
	}
	if p.a.e.Stats().Retransmits == 0 || p.b.e.Stats().Retransmits == 0 {
		t.Error("nothing was repeated")
	}
}

func TestRFC7296_2_4_RetransmissionSchedule(t *testing.T) {
	p := newPair(t, nil)
	var at []time.Duration
	p.filter = func(from *host, d ike.Datagram) bool {
		at = append(at, p.now.Sub(start).Round(10*time.Millisecond))
		return false
	}
	p.a.initiate("net")
	p.run(200 * time.Second)
	want := []time.Duration{0, 4000 * time.Millisecond, 11200 * time.Millisecond, 24160 * time.Millisecond, 47490 * time.Millisecond, 89480 * time.Millisecond}
	if !slices.Equal(at, want) {
		t.Errorf("sent at %v, want %v", at, want)
	}
	d := eventsOf[ike.CommandDone](p.a)
	var r *ike.Rejection
	if len(d) != 1 || !errors.As(d[0].Err, &r) || r.Reason != ike.ReasonNoAnswer {
		t.Errorf("CommandDone: %+v", d)
	}
	p.down()
}

func TestRFC7296_2_6_Cookie(t *testing.T) {
	p := newPair(t, func(a, b *side) { b.config.CookieThreshold = -1; b.config.CookieThresholdIP = -1 })
	dump(t, p)
	p.a.initiate("net")
	p.run(2 * time.Second)
	p.up()
	if p.b.e.Stats().Cookies != 1 {
		t.Errorf("%d cookies", p.b.e.Stats().Cookies)
	}
}

func TestRFC7296_2_6_1_CookieAndInvalidKE(t *testing.T) {
	p := newPair(t, func(a, b *side) {
		b.config.CookieThreshold, b.config.CookieThresholdIP = -1, -1
		a.peer.Proposals = mustProposals(t, suite.IKE, "aes128-sha256-x25519-ecp256-modp2048")
		b.peer.Proposals = mustProposals(t, suite.IKE, "aes128-sha256-modp2048")
	})
	dump(t, p)
	p.a.initiate("net")
	p.run(2 * time.Second)
	p.up()
	inits := 0
	for _, d := range p.a.sent {
		if header(t, d).Exchange == wire.ExchangeIKESAInit {
			inits++
		}
	}
	if inits != 3 {
		t.Errorf("%d IKE_SA_INIT requests, want 3: plain, with cookie, with cookie and the right group", inits)
	}
}

func TestRFC7296_1_3_InvalidKEPayload(t *testing.T) {
	p := mustUp(t, func(a, b *side) {
		a.peer.Proposals = mustProposals(t, suite.IKE, "aes128-sha256-ecp256-x25519")
		b.peer.Proposals = mustProposals(t, suite.IKE, "aes128-sha256-x25519")
		a.child.Proposals = mustProposals(t, suite.ESP, "aes128gcm16-ecp256-ecp384")
		b.child.Proposals = mustProposals(t, suite.ESP, "aes128gcm16-ecp384")
	})
	p.a.do(ike.Rekey{Child: "net"})
	p.run(10 * time.Second)
	p.up()
	if n := len(eventsOf[ike.ChildRekeyed](p.a)); n != 1 {
		t.Errorf("%d rekeys", n)
	}
	p.a.do(ike.Rekey{IKE: "a"})
	p.run(10 * time.Second)
	p.up()
}

func TestRejections(t *testing.T) {
	for _, tt := range []struct {
		name   string
		tweak  func(p *pair, a, b *side)
		reason ike.Reason
		at     string // who must tell why
		alive  bool   // the IKE SA stays up
	}{
		{"proposal", func(_ *pair, a, b *side) { b.peer.Proposals = mustProposals(t, suite.IKE, "aes256-sha384-ecp384") }, ike.ReasonProposal, "ab", false},
		{"address", func(_ *pair, a, b *side) {
			b.peer.RemoteAddrs = []ike.AddrSpec{{From: netip.MustParseAddr("192.0.2.77"), To: netip.MustParseAddr("192.0.2.77")}}
		}, ike.ReasonAddress, "b", false},
		{"version", func(_ *pair, a, b *side) { b.peer.Version = 1 }, ike.ReasonAddress, "b", false},
		{"identity", func(_ *pair, a, b *side) { b.peer.Remote[0].ID = id("somebody.example.org") }, ike.ReasonIdentity, "b", false},
		{"idr", func(_ *pair, a, b *side) { b.peer.Local[0].ID = id("other.example.org") }, ike.ReasonIdentity, "b", false},
		{"key", func(p *pair, a, b *side) { p.b.psk = suite.Key("wrong") }, ike.ReasonAuthentication, "ab", false},
		{"no key", func(p *pair, a, b *side) { p.b.psk = nil }, ike.ReasonAuthentication, "ab", false},
		{"no key here", func(p *pair, a, b *side) { p.a.psk = nil }, ike.ReasonAuthentication, "a", false},
		{"selectors", func(_ *pair, a, b *side) { b.child.Local = []ipsec.Selector{sel("10.9.0.0/16")} }, ike.ReasonSelectors, "ab", true},
		{"esp proposal", func(_ *pair, a, b *side) { b.child.Proposals = mustProposals(t, suite.ESP, "aes256-sha512") }, ike.ReasonProposal, "ab", true},
		{"install", func(p *pair, a, b *side) { p.b.plane.fail = errors.New("no") }, ike.ReasonInstall, "b", true},
		{"install here", func(p *pair, a, b *side) { p.a.plane.fail = errors.New("no") }, ike.ReasonInstall, "a", true},
		{"mode", func(p *pair, a, b *side) {
			a.child.Mode = ipsec.ModeTransport
			a.child.Local, a.child.Remote = []ipsec.Selector{ipsec.Dynamic()}, []ipsec.Selector{ipsec.Dynamic()}
		}, ike.ReasonSelectors, "b", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var p *pair
			var ta, tb *side
			p = newPair(t, func(a, b *side) { ta, tb = a, b })
			tt.tweak(p, ta, tb)
			dump(t, p)
			p.a.initiate("net")
			p.run(32 * time.Second) // longer than a half-open IKE SA lives
			for _, h := range []*host{p.a, p.b} {
				found := slices.Contains(h.reasons(), tt.reason)
				if must := bytes.Contains([]byte(tt.at), []byte(h.name)); must && !found {
					t.Errorf("%s does not say %q but %q", h.name, tt.reason, h.reasons())
				}
			}
			d := eventsOf[ike.CommandDone](p.a)
			if len(d) != 1 || d[0].Err == nil {
				t.Errorf("CommandDone: %+v", d)
			}
			if len(p.a.plane.sas)+len(p.b.plane.sas)+len(p.a.plane.pol) != 0 {
				t.Error("Child SAs are left in the data plane")
			}
			if tt.alive {
				if len(p.a.e.SAs()) != 1 || len(p.b.e.SAs()) != 1 {
					t.Error("the IKE SA did not stay")
				}
				p.a.do(ike.Terminate{IKE: "a"})
				p.run(time.Second)
			}
			p.down()
		})
	}
}

// An identity that nobody knows and a wrong key look the same from outside.
func TestUnknownIdentityLooksLikeAWrongKey(t *testing.T) {
	shape := func(tweak func(p *pair, b *side)) (sizes []int) {
		var p *pair
		var tb *side
		p = newPair(t, func(a, b *side) { tb = b })
		tweak(p, tb)
		p.b.onEach = func(f ike.Effect) {
			if a, ok := f.(ike.Ask); ok {
				if _, ok := a.Question.(ike.PSKLookup); ok {
					sizes = append(sizes, -1)
				}
			}
			if s, ok := f.(ike.Send); ok {
				sizes = append(sizes, len(s.Data))
			}
		}
		p.a.initiate("net")
		p.run(5 * time.Second)
		return sizes
	}
	unknown := shape(func(_ *pair, b *side) { b.peer.Remote[0].ID = id("somebody.example.org") })
	wrong := shape(func(p *pair, _ *side) { p.b.psk = suite.Key("wrong") })
	none := shape(func(p *pair, _ *side) { p.b.psk = nil })
	if !slices.Equal(unknown, wrong) || !slices.Equal(none, wrong) || len(wrong) < 3 {
		t.Errorf("unknown %v, wrong key %v, no key %v", unknown, wrong, none)
	}
}

func TestRFC7296_2_9_Narrowing(t *testing.T) {
	p := mustUp(t, func(a, b *side) {
		a.child.Remote = []ipsec.Selector{sel("10.0.0.0/8")}
		b.child.Remote = []ipsec.Selector{sel("10.1.4.0/24"), sel("10.1.8.0/24[tcp/80]")}
	})
	c := p.a.e.SAs()[0].Children[0]
	if !slices.Equal(c.LocalTS, []ipsec.Selector{sel("10.1.4.0/24"), sel("10.1.8.0/24[tcp/80]")}) || !slices.Equal(c.RemoteTS, []ipsec.Selector{sel("10.2.0.0/16")}) {
		t.Errorf("%v === %v", c.LocalTS, c.RemoteTS)
	}
	p.b.do(ike.Rekey{Child: "net"})
	p.run(10 * time.Second)
	p.up()
}

func TestRFC7296_2_9_AcquireGoesFirst(t *testing.T) {
	p := newPair(t, nil)
	dump(t, p)
	p.a.e.Dataplane(p.now, ipsec.Acquire{Name: "net", Src: netip.MustParseAddr("10.1.0.7"), Dst: netip.MustParseAddr("10.2.0.9"), Proto: 17, SrcPort: 4711, DstPort: 53})
	p.a.drain()
	p.run(2 * time.Second)
	p.up()
	if c := p.b.e.SAs()[0].Children[0]; !slices.Equal(c.LocalTS, []ipsec.Selector{sel("10.2.0.0/16")}) {
		t.Errorf("the whole network should be granted: %v", c.LocalTS)
	}
}

func TestRFC7296_1_3_1_FurtherChildren(t *testing.T) {
	p := newPair(t, func(a, b *side) {
		for i, s := range []*side{a, b} {
			c := *s.child
			c.Name = "second"
			lists := [2][]ipsec.Selector{{sel("10.3.0.0/16")}, {sel("10.4.0.0/16")}}
			c.Local, c.Remote = lists[i], lists[1-i]
			s.peer.Children = append(s.peer.Children, &c)
		}
	})
	dump(t, p)
	p.a.initiate("net")
	p.a.initiate("second")
	p.run(2 * time.Second)
	p.upN(2)
	if d := eventsOf[ike.CommandDone](p.a); len(d) != 2 || d[0].Err != nil || d[1].Err != nil {
		t.Errorf("CommandDone: %+v", d)
	}
	p.a.initiate("second") // is up already
	p.run(2 * time.Second)
	p.upN(2)
	p.b.do(ike.Rekey{IKE: "b"})
	p.run(10 * time.Second)
	p.upN(2)
	p.b.do(ike.Terminate{Child: "second"})
	p.run(time.Second)
	p.up()
}

func TestRFC7296_2_4_DeadPeerDetection(t *testing.T) {
	p := mustUp(t, func(a, b *side) { a.peer.DPDDelay = 30 * time.Second })
	p.run(100 * time.Second)
	p.up()
	checks := len(p.a.sent)
	if checks < 4 {
		t.Errorf("only %d messages sent in 100 s", checks)
	}
	// ESP of the peer counts as a sign of life.
	c := p.a.e.SAs()[0].Children[0].ID
	p.a.onEach = func(f ike.Effect) {
		if _, ok := f.(ike.QueryChild); ok {
			p.a.stats[c] = ike.ChildStats{In: ipsec.SAStats{LastUse: p.now.Add(-time.Second)}}
		}
	}
	p.run(300 * time.Second)
	if len(p.a.sent) != checks {
		t.Errorf("%d checks although traffic came in", len(p.a.sent)-checks)
	}
	p.a.onEach, p.a.stats = nil, map[uint32]ike.ChildStats{}
	p.filter = func(*host, ike.Datagram) bool { return false }
	p.run(250 * time.Second)
	if n := len(p.a.e.SAs()); n != 0 {
		t.Errorf("%d IKE SAs after the peer died: %v", n, brief(p.a.e.SAs()))
	}
	if d := eventsOf[ike.IKEDown](p.a); len(d) != 1 || d[0].Reason != "peer does not answer" {
		t.Errorf("%+v", d)
	}
}

func TestDPDActionRestarts(t *testing.T) {
	p := mustUp(t, func(a, b *side) {
		a.peer.DPDDelay = 10 * time.Second
		a.child.DPDAction = ike.ActionStart
	})
	p.filter = func(*host, ike.Datagram) bool { return false }
	p.run(400 * time.Second)
	if len(eventsOf[ike.ChildDown](p.a)) != 1 {
		t.Error("no ChildDown")
	}
	p.filter = nil
	p.b.do(ike.Terminate{IKE: "b", Force: true})
	p.run(300 * time.Second)
	p.up()
}

func TestCloseActionRestarts(t *testing.T) {
	p := mustUp(t, func(a, b *side) { a.child.CloseAction = ike.ActionStart })
	p.b.do(ike.Terminate{IKE: "b"})
	p.run(10 * time.Second)
	p.up()
	p.b.do(ike.Terminate{Child: "net"})
	p.run(10 * time.Second)
	p.up()
	// What we close ourselves stays closed.
	p.a.do(ike.Terminate{IKE: "a"})
	p.run(10 * time.Second)
	p.down()
}

func TestLifetimes(t *testing.T) {
	p := mustUp(t, func(a, b *side) {
		a.child.RekeyTime, a.child.LifeTime, a.child.RandTime = 60*time.Second, 80*time.Second, 10*time.Second
		a.peer.RekeyTime, a.peer.OverTime, a.peer.RandTime = 10*time.Minute, time.Minute, time.Minute
		b.child.RekeyTime, b.child.LifeTime, b.child.RandTime = 65*time.Second, 90*time.Second, 20*time.Second
		b.peer.RekeyTime, b.peer.OverTime, b.peer.RandTime = 10*time.Minute, time.Minute, time.Minute
	})
	for range 60 {
		p.run(time.Minute)
		p.flows()
		if len(p.a.e.SAs()) > 2 || p.a.plane.maxSAs > 8 {
			t.Fatalf("too many SAs: %v", brief(p.a.e.SAs()))
		}
	}
	p.filter = nil
	p.run(7 * time.Second)
	if n := p.a.e.Stats(); n.RekeysChild < 50 || n.RekeysIKE < 5 {
		t.Errorf("%+v", n)
	}
	for _, h := range []*host{p.a, p.b} {
		if len(eventsOf[ike.ChildDown](h))+len(eventsOf[ike.IKEDown](h)) != 0 {
			t.Errorf("%s went down", h.name)
		}
	}
}

func TestHardLifetimeCloses(t *testing.T) {
	p := mustUp(t, func(a, b *side) { a.child.LifeTime = time.Minute })
	p.run(61 * time.Second)
	if len(p.a.plane.sas)+len(p.b.plane.sas) != 0 {
		t.Error("the Child SA outlived its lifetime")
	}
	p = mustUp(t, func(a, b *side) { a.child.LifeBytes, a.child.RekeyBytes = 1000, 900 })
	c := p.a.e.SAs()[0].Children[0].ID
	if l := p.a.plane.sas[ipsec.SARef{Child: c, Dir: ipsec.Out}].Life; l.SoftBytes != 900 || l.HardBytes != 1000 || l.SoftPackets == 0 || l.SoftPackets >= 1<<32 {
		t.Errorf("%+v", l)
	}
	p.a.e.Dataplane(p.now, ipsec.Expire{Ref: ipsec.SARef{Child: c, Dir: ipsec.Out}})
	p.run(10 * time.Second)
	p.up()
	if len(eventsOf[ike.ChildRekeyed](p.a)) != 1 {
		t.Error("the soft bound did not rekey")
	}
	c = p.a.e.SAs()[0].Children[0].ID
	p.a.e.Dataplane(p.now, ipsec.Expire{Ref: ipsec.SARef{Child: c, Dir: ipsec.Out}, Hard: true})
	p.run(time.Second)
	if len(p.a.plane.sas)+len(p.b.plane.sas) != 0 {
		t.Error("the hard bound did not close")
	}
}

func TestReauthenticationMakesBeforeItBreaks(t *testing.T) {
	for _, unique := range []ike.UniquePolicy{ike.UniqueNo, ike.UniqueReplace, ike.UniqueNever} {
		p := mustUp(t, func(a, b *side) {
			a.peer.ReauthTime, a.peer.OverTime = 5*time.Minute, time.Minute
			a.peer.Unique, b.peer.Unique = unique, unique
		})
		gap := false
		watch := func(h *host) {
			h.onEach = func(f ike.Effect) {
				if r, ok := f.(ike.RemoveChild); ok && len(r.Policies) > 0 {
					gap = true
				}
			}
		}
		watch(p.a)
		if unique != ike.UniqueReplace {
			watch(p.b)
		}
		first := p.a.e.SAs()[0].ID
		p.run(320 * time.Second)
		p.up()
		if p.a.e.SAs()[0].ID == first || p.a.e.Stats().RekeysIKE != 0 {
			t.Error("not reauthenticated")
		}
		if gap {
			t.Errorf("unique %v: the policies were gone for a moment", unique)
		}
	}
}

// Neither end sends by a Child SA that the other has not installed yet, at any time of a
// reauthentication (RFC 7296 §2.8.3); and the responder, too, passes on to the new one.
func TestRFC7296_2_8_3_ReauthenticationLosesNothing(t *testing.T) {
	for _, unique := range []ike.UniquePolicy{ike.UniqueNo, ike.UniqueNever} {
		p := mustUp(t, func(a, b *side) { a.peer.Unique, b.peer.Unique = unique, unique })
		old := p.b.plane.out()
		p.a.do(ike.Rekey{IKE: "a", Reauth: true})
		for range 500 {
			p.run(time.Millisecond)
			p.flows()
		}
		if now := p.b.plane.out(); now == old {
			t.Errorf("unique %v: after 0.5 s the responder still sends by %v", unique, now)
		}
		p.run(3 * time.Second)
		p.up()
	}
}

// out is the outbound SA of a policy, all of which have the same here.
func (m *model) out() (ref ipsec.SARef) {
	for _, p := range m.pol {
		if p.Out != (ipsec.SARef{}) {
			ref = p.Out
		}
	}
	return ref
}

func TestBreakBeforeMake(t *testing.T) {
	p := mustUp(t, func(a, b *side) {
		a.peer.ReauthTime, a.peer.OverTime = 5*time.Minute, time.Minute
		a.config.BreakBeforeMake = true
	})
	p.run(320 * time.Second)
	p.up()
}

func TestUniquePolicies(t *testing.T) {
	// a is rebooted: a new engine, which knows nothing of the old IKE SA.
	for _, tt := range []struct {
		unique ike.UniquePolicy
		want   int // IKE SAs at b
	}{{ike.UniqueNo, 1}, {ike.UniqueReplace, 1}, {ike.UniqueNever, 2}, {ike.UniqueKeep, 1}} {
		var ta *side
		p := newPair(t, func(a, b *side) { ta = a; b.peer.Unique = tt.unique })
		dump(t, p)
		p.a.initiate("net")
		p.run(2 * time.Second)
		p.up()
		old := p.b.e.SAs()[0].ID
		n := newPair(t, nil)
		p.a.e, p.a.plane = n.a.e, newModel(t, "a2")
		p.a.peer = ta.peer
		p.a.initiate("net")
		p.run(2 * time.Second)
		list := p.b.e.SAs()
		if len(list) != tt.want {
			t.Fatalf("unique %v: %d IKE SAs at b, want %d", tt.unique, len(list), tt.want)
		}
		if kept := list[0].ID == old; kept != (tt.unique == ike.UniqueKeep || tt.unique == ike.UniqueNever) {
			t.Errorf("unique %v: old kept: %v", tt.unique, kept)
		}
	}
}

func TestRFC6023_Childless(t *testing.T) {
	p := newPair(t, nil)
	dump(t, p)
	p.a.initiate("")
	p.run(time.Second)
	if l := p.a.e.SAs(); len(l) != 1 || l[0].State != "ESTABLISHED" || len(l[0].Children) != 0 {
		t.Fatalf("%v", brief(l))
	}
	p.a.initiate("net")
	p.run(time.Second)
	p.up()
}

func TestTransportMode(t *testing.T) {
	tweak := func(a, b *side) {
		for _, s := range []*side{a, b} {
			s.child.Mode = ipsec.ModeTransport
			s.child.Local, s.child.Remote = []ipsec.Selector{ipsec.Dynamic()}, []ipsec.Selector{ipsec.Dynamic()}
		}
	}
	p := mustUp(t, tweak)
	c := p.b.e.SAs()[0].Children[0]
	if c.Mode != ipsec.ModeTransport || c.LocalTS[0].From != addrB || c.RemoteTS[0].To != addrA {
		t.Errorf("%+v", c)
	}
	p.a.do(ike.Rekey{Child: "net"})
	p.run(10 * time.Second)
	p.up()
	// A NAT that is only pretended is no hindrance (a real one is: nat_test.go).
	p = mustUp(t, func(a, b *side) { tweak(a, b); a.peer.Encap = ike.EncapYes })
	if !p.b.e.SAs()[0].Children[0].Encap {
		t.Error("no encapsulation")
	}
}

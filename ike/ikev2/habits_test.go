package ikev2_test

import (
	"encoding/hex"
	"net/netip"
	"slices"
	"testing"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/ipsec"
	"adit/suite"
)

// initPayloads are the payloads of the first message that a host sent.
func initPayloads(t *testing.T, h *host) []wire.Payload {
	t.Helper()
	msg, err := wire.ParseMessage(h.sent[0].Data)
	if err != nil {
		t.Fatal(err)
	}
	return msg.Payloads
}

// send_vendor_id and cisco_flexvpn put vendor IDs into both messages of IKE_SA_INIT.
func TestVendorIDs(t *testing.T) {
	for _, on := range []bool{false, true} {
		p := newPair(t, func(a, b *side) {
			a.config.SendVendorID, b.config.SendVendorID, a.config.FlexVPN = on, on, on
		})
		p.a.initiate("net")
		p.run(time.Second)
		p.up()
		var got []string
		for _, h := range []*host{p.a, p.b} {
			for _, x := range initPayloads(t, h) {
				if v, ok := x.(*wire.VendorID); ok {
					got = append(got, hex.EncodeToString(v.Data))
				}
			}
		}
		want := []string{"882fe56d6fd20dbc2251613b2ebe5beb", hex.EncodeToString([]byte("FLEXVPN-SUPPORTED")), "882fe56d6fd20dbc2251613b2ebe5beb"}
		if !on {
			want = nil
		}
		if !slices.Equal(got, want) {
			t.Errorf("on %v: vendor IDs %q", on, got)
		}
	}
}

// multiple_authentication = no leaves the notify out, on either side.
func TestNoMultipleAuthentication(t *testing.T) {
	for _, off := range []bool{false, true} {
		p := newPair(t, func(_, b *side) { b.config.NoMultipleAuth = off })
		p.a.initiate("net")
		p.run(time.Second)
		p.up()
		if said := wire.FindNotify(initPayloads(t, p.b), wire.MultipleAuthSupported) != nil; said == off {
			t.Errorf("off %v: MULTIPLE_AUTH_SUPPORTED announced: %v", off, said)
		}
	}
	// Whoever needs two rounds does not get through to a side that takes one.
	p := newPair(t, func(a, b *side) {
		a.peer.Local = append(a.peer.Local, a.peer.Local[0])
		b.peer.Remote = append(b.peer.Remote, b.peer.Remote[0])
		b.config.NoMultipleAuth = true
	})
	p.a.initiate("net")
	p.run(5 * time.Second)
	if len(p.b.e.SAs()) != 0 {
		t.Errorf("b took one round where two are demanded: %v", brief(p.b.e.SAs()))
	}
}

// initiator_only drops the first messages of others, and initiates.
func TestInitiatorOnly(t *testing.T) {
	p := newPair(t, func(_, b *side) { b.config.InitiatorOnly = true })
	p.a.initiate("net")
	p.run(time.Second)
	if st := p.b.e.Stats(); len(p.b.sent) != 0 || st.Dropped[ike.DropInitiatorOnly] != 1 || st.SAs != 0 {
		t.Errorf("b sent %d messages: %+v", len(p.b.sent), st)
	}
	p.b.initiate("net")
	p.run(time.Second)
	if sas := p.b.e.SAs(); len(sas) != 1 || !sas[0].Initiator || sas[0].State != "ESTABLISHED" {
		t.Errorf("b does not initiate: %v", brief(sas))
	}
}

// ikesa_limit refuses first messages while there are so many IKE SAs.
func TestLimitOfIKESAs(t *testing.T) {
	p := newPair(t, func(a, b *side) { b.config.MaxSAs = 1 })
	p.a.initiate("net")
	p.run(time.Second)
	p.up()
	second := wire.Header{SPIi: 77, Version: wire.IKEv2, Exchange: wire.ExchangeIKESAInit, Flags: wire.FlagInitiator}
	p.b.e.Datagram(p.now, ike.Datagram{Local: netip.AddrPortFrom(addrB, 500), Remote: netip.AddrPortFrom(addrA, 500), Data: wire.AppendMessage(nil, second, nil)})
	p.b.drain()
	if n := p.b.e.Stats().Dropped[ike.DropTable]; n != 1 {
		t.Errorf("%d first messages were dropped", n)
	}
}

// close_ike_on_child_failure: an IKE SA without its first Child SA goes, whoever it is
// that wants so.
func TestCloseIKEOnChildFailure(t *testing.T) {
	for _, who := range []string{"neither", "initiator", "responder"} {
		p := newPair(t, func(a, b *side) {
			b.child.Remote = []ipsec.Selector{sel("10.9.0.0/16")}
			a.config.CloseOnChildFailure, b.config.CloseOnChildFailure = who == "initiator", who == "responder"
		})
		p.a.initiate("net")
		p.run(2 * time.Second)
		want := 0
		if who == "neither" {
			want = 1
		}
		if len(p.a.e.SAs()) != want || len(p.b.e.SAs()) != want {
			t.Errorf("%s: %v %v", who, brief(p.a.e.SAs()), brief(p.b.e.SAs()))
		}
		if n := len(eventsOf[ike.IKEUp](p.a)); n != 1 {
			t.Errorf("%s: it was up %d times", who, n)
		}
	}
}

// inactivity_close_ike takes the IKE SA along with its only Child SA.
func TestInactivityClosesIKE(t *testing.T) {
	for _, whole := range []bool{false, true} {
		p := newPair(t, func(a, _ *side) {
			a.child.Inactivity = 30 * time.Second
			a.config.CloseOnInactivity = whole
		})
		p.a.initiate("net")
		p.run(time.Second)
		p.up()
		p.run(time.Minute)
		sas := p.a.e.SAs()
		if whole != (len(sas) == 0) || !whole && len(sas[0].Children) != 0 {
			t.Errorf("whole %v: %v", whole, brief(sas))
		}
	}
}

// keep_alive_dpd_margin: after a sleep the peer is asked in place of a keepalive.
func TestLateKeepAliveAsksThePeer(t *testing.T) {
	for _, margin := range []time.Duration{0, 5 * time.Second} {
		p := newNATted(t, func(a, _ *side) { a.config.KeepAliveDPDMargin = margin })
		p.a.initiate("net")
		p.run(time.Second)
		p.up()
		count := func() (keep, checks int) {
			for _, d := range p.a.sent {
				if len(d.Data) == 1 {
					keep++
				} else if header(t, d).Exchange == wire.ExchangeInformational {
					checks++
				}
			}
			return keep, checks
		}
		p.run(25 * time.Second)
		if keep, checks := count(); keep != 1 || checks != 0 {
			t.Fatalf("%d keepalives, %d checks", keep, checks)
		}
		p.now = p.now.Add(10 * time.Minute) // asleep
		p.run(time.Second)
		if keep, checks := count(); margin > 0 && (keep != 1 || checks != 1) || margin == 0 && (keep != 2 || checks != 0) {
			t.Errorf("margin %v: %d keepalives, %d checks", margin, keep, checks)
		}
	}
}

// ignore_acquire_ts leaves the packet's own selectors out: IKE_AUTH is as long as without a packet.
func TestIgnoreAcquire(t *testing.T) {
	size := func(ignore bool, packet *ipsec.Acquire) int {
		p := newPair(t, func(a, _ *side) { a.config.IgnoreAcquire = ignore })
		p.a.do(ike.Initiate{ID: 1, Peer: p.a.peer, Child: "net", Acquired: packet})
		p.run(time.Second)
		p.up()
		return len(p.a.sent[1].Data)
	}
	packet := &ipsec.Acquire{Src: netip.MustParseAddr("10.1.3.4"), Dst: netip.MustParseAddr("10.2.3.4"), Proto: 6, SrcPort: 1000, DstPort: 80}
	plain := size(false, nil)
	if with := size(false, packet); with <= plain {
		t.Errorf("the packet's selectors take no room: %d and %d bytes", with, plain)
	}
	if without := size(true, packet); without != plain {
		t.Errorf("%d bytes, without a packet %d", without, plain)
	}
}

// spi_min and spi_max bound the SPIs of Child SAs, and may change at run time.
func TestSPIRange(t *testing.T) {
	p := newPair(t, func(a, _ *side) { a.config.SPIMin, a.config.SPIMax = 0xc0000000, 0xc000ffff })
	p.a.initiate("net")
	p.run(time.Second)
	p.up()
	if spi := p.a.e.SAs()[0].Children[0].SPIIn; spi < 0xc0000000 || spi > 0xc000ffff {
		t.Errorf("SPI %v", spi)
	}
	p.a.e.Retune(ike.Config{Habits: ike.Habits{SPIMin: 0xd0000000, SPIMax: 0xd000ffff}})
	p.a.do(ike.Rekey{ID: 2, Child: "net"})
	p.run(time.Second)
	ch := p.a.e.SAs()[0].Children
	if spi := ch[len(ch)-1].SPIIn; spi < 0xd0000000 || spi > 0xd000ffff {
		t.Errorf("SPI %v", spi)
	}
}

// RFC 4806 §3.1: `ocsp = request` asks for the status beside the certificates, and only there.
func TestRFC4806_3_1_AskedFor(t *testing.T) {
	for _, asks := range []bool{false, true} {
		p := signed(t, "ed25519", func(a, b *side) {
			a.peer.SendCertReq, b.peer.SendCertReq = true, true
			b.peer.AskOCSP = asks
		})
		for _, h := range []*host{p.a, p.b} {
			h.do(ike.Trust{Authorities: [][20]byte{{1}}})
		}
		p.a.initiate("net")
		p.run(2 * time.Second)
		p.up()
		n := 0
		for _, x := range initPayloads(t, p.b) {
			if c, ok := x.(*wire.CertReq); ok && c.Encoding == wire.CertOCSPContent && len(c.Authorities) == 0 {
				n++
			}
		}
		if asks != (n == 1) || n > 1 {
			t.Errorf("asks %v: asked %d times", asks, n)
		}
	}
}

// sha256_96 changes what the SAs make of HMAC-SHA-256, and nothing that is agreed on.
func TestSHA256_96(t *testing.T) {
	p := newPair(t, func(a, b *side) {
		for _, s := range []*side{a, b} {
			s.child.Proposals = mustProposals(t, suite.ESP, "aes128-sha256")
			s.child.SHA256_96 = true
		}
	})
	p.a.initiate("net")
	p.run(time.Second)
	p.up()
	for _, h := range []*host{p.a, p.b} {
		for ref, sa := range h.plane.sas {
			if sa.Integ.ID != suite.IntegHMACSHA2_256_96 || len(sa.IntegKey) != 32 {
				t.Errorf("%s: %v has %v", h.name, ref, sa.Integ)
			}
		}
		if got := h.e.SAs()[0].Children[0].Suite.Integ.ID; got != suite.IntegHMACSHA2_256_128 {
			t.Errorf("%s agreed on %v", h.name, got)
		}
	}
}

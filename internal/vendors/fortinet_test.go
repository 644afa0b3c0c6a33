package vendors_test

import (
	"testing"
	"time"

	"adit/ike"
	"adit/ipsec"
)

// FortiGate (FortiOS). Source: strongSwan's documentation, interop/fortinet, "Other
// Known Quirks": one set of subnets a Child SA; it initiates by itself when it gets an
// IKE_SA_INIT, which makes Child SAs twice; a bad checksum of NAT detection leaves it
// without UDP while we have it, cured by `encap = yes`; SPIs begin with 0xe.
// Lifetimes of 86400 s and 43200 s: shared notes, section 3.
const (
	fortiIKE    = "aes256-sha256-modp2048"
	fortiESP    = "aes256-sha256-modp2048"
	fortiPhase2 = 43200 * time.Second
)

func forti(t *testing.T) *peer {
	return plain(t, fortiIKE, fortiESP, "10.2.0.0/16", "10.1.0.0/16")
}

var fortiConn = conn{ike: fortiIKE, esp: fortiESP, children: []string{"net 10.1.0.0/16 === 10.2.0.0/16"}, change: func(p *ike.Peer) {
	p.Children[0].RekeyTime = fortiPhase2
}}

// It initiates back: two IKE SAs come up, one stays, whoever has to see to that.
func TestFortiGateInitiatesBack(t *testing.T) {
	for _, delay := range []time.Duration{0, time.Millisecond, 15 * time.Millisecond, 50 * time.Millisecond, 200 * time.Millisecond} {
		p := forti(t)
		p.initiatesBack = true
		w := newWorld(t, fortiConn, p)
		w.delay = func(ike.Datagram) time.Duration { return delay }
		w.initiate("net")
		w.advance(30 * time.Second)
		w.delay = nil
		w.settled(1)
		if len(w.done) != 1 || w.done[0].Err != nil || !w.carries("10.1.0.9", "10.2.0.9") {
			t.Errorf("delay %v: done %v, notes %q, rejections %v", delay, w.done, w.notes, w.rejections)
		}
		w.advance(2 * fortiPhase2)
		w.settledSoon(1)
	}
}

// One pair of subnets a Child SA.
func TestFortiGateOnePair(t *testing.T) {
	p := forti(t)
	p.pairs = [][2]string{{"10.2.0.0/16", "10.1.0.0/16"}, {"10.2.0.0/16", "10.3.0.0/16"}}
	c := fortiConn
	c.children = []string{"net 10.1.0.0/16,10.3.0.0/16 === 10.2.0.0/16"}
	w := newWorld(t, c, p)
	w.initiate("net")
	w.settled(2)
	w.advance(2 * fortiPhase2)
	w.settledSoon(2)

	// As strongSwan wants it configured, a child each.
	p = forti(t)
	p.pairs = [][2]string{{"10.2.0.0/16", "10.1.0.0/16"}, {"10.2.0.0/16", "10.3.0.0/16"}}
	c.children = []string{"one 10.1.0.0/16 === 10.2.0.0/16", "two 10.3.0.0/16 === 10.2.0.0/16"}
	w = newWorld(t, c, p)
	w.initiate("one")
	w.initiate("two")
	w.settled(2)
	w.advance(2 * fortiPhase2)
	w.settledSoon(2)
}

// A bad hash: both sides have to come to the same form of ESP with `encap = yes`.
func TestFortiGateBadHash(t *testing.T) {
	for _, encap := range []ike.EncapPolicy{ike.EncapAuto, ike.EncapYes} {
		p := forti(t)
		p.badHash = true
		c := fortiConn
		c.change = func(p *ike.Peer) { p.Encap = encap }
		w := newWorld(t, c, p)
		w.initiate("net")
		w.settled(1)
		for ref, sa := range w.sas {
			if !sa.Encap {
				t.Errorf("%v: no UDP, though the hash tells of a NAT", encap)
			}
			// adit takes both forms in any case (RFC 7296 §2.23).
			if ref.Dir == ipsec.Out && encap == ike.EncapYes && !p.encap {
				t.Error("encap = yes: the FortiGate does not notice a NAT, and sends ESP without UDP")
			}
		}
	}
}

package vendors_test

import (
	"slices"
	"testing"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/ipsec"
	"adit/suite"
)

// Vendor IDs of Cisco (RFC 3706 §5.1; the others as strongSwan and Wireshark know them).
var (
	vidDPD       = []byte("\xaf\xca\xd7\x13\x68\xa1\xf1\xc9\x6b\x86\x96\xfc\x77\x57\x01\x00")
	vidUnity     = []byte("\x12\xf5\xf2\x8c\x45\x71\x68\xa9\x70\x2d\x9f\xe2\x74\xcc\x01\x00")
	vidXAuth     = []byte("\x09\x00\x26\x89\xdf\xd6\xb7\x12")
	vidAltiga    = []byte("\x1f\x07\xf7\x0e\xaa\x65\x14\xd3\xb0\xfa\x96\x54\x2a\x50\x01\x00")
	vidNATT02n   = []byte("\x90\xcb\x80\x91\x3e\xbb\x69\x6e\x08\x63\x81\xb5\xec\x42\x7b\x1f")
	vidRFC3947   = []byte("\x4a\x13\x1c\x81\x07\x03\x58\x45\x5c\x57\x28\xf2\x0e\x95\x45\x2f")
	vidFragment  = []byte("\x40\x48\xb7\xd5\x6e\xbc\xe8\x85\x25\xe7\xde\x7f\x00\xd6\xc2\xd3\xc0\x00\x00\x00")
	vidSonicWall = []byte("\x5b\x36\x2b\xc8\x20\xf6\x00\x07\x00\x00\x00\x00")
)

const (
	natDRFC   wire.PayloadType = 20
	natDDraft wire.PayloadType = 130
)

// oldASA is a Cisco ASA with IKEv1: NAT-T and FRAGMENTATION in message 2, Unity, XAUTH,
// and what it is in message 4 (the log in Azure/Azure-vpn-config-samples issue 25); both
// capabilities of fragmentation (strongSwan isakmp_vendor.c).
func oldASA() *oldPeer {
	return &oldPeer{group: suite.KEMODP1024, oldHabits: oldHabits{natD: natDRFC,
		first: [][]byte{vidRFC3947, vidFragment}, later: [][]byte{vidUnity, vidXAuth, random(16), vidAltiga, vidDPD}}}
}

// oldIOS is a Cisco router of before 12.4: NAT-T by the draft alone, RESPONDER-LIFETIME
// where its 3600 s and 4608000 kB (the defaults of its `crypto ipsec security-association
// lifetime`) are shorter, DPD in message 4. Of a router so old no log was found: that it
// knows the draft alone follows from when RFC 3947 came, that its vendor IDs come in
// message 4 is the ASA's way, and their order is a guess.
func oldIOS() *oldPeer {
	return &oldPeer{group: suite.KEMODP1024, oldHabits: oldHabits{natD: natDDraft, first: [][]byte{vidNATT02n},
		later: [][]byte{vidUnity, vidDPD, random(16), vidXAuth}, seconds: 3600, kilobytes: 4608000}}
}

// sonicWall is SonicOS: group 5 and 28800 s (SonicOS 7.1, "Establishing the IKE Phase 1
// Security Association"), aggressive mode with a name of its own where its address
// changes, the vendor ID that ike-scan and Nmap know it by. No log of a device was found:
// the commit bit with CONNECTED (RFC 2408 §3.1) and the early Delete are harder than
// what is known of it.
func sonicWall() *oldPeer {
	return &oldPeer{group: suite.KEMODP1536, oldHabits: oldHabits{natD: natDRFC, first: [][]byte{vidSonicWall, vidRFC3947, vidDPD}, commit: true, deletesOld: true,
		id: wire.V1ID{Type: wire.IDFQDN, Data: []byte(peerID)}}}
}

func oldConn() conn {
	return conn{ike: "aes128-sha1-modp1024", esp: "aes128-sha1", children: []string{"10.1.0.0/16 === 10.2.0.0/16"}, change: func(p *ike.Peer) {
		p.DPDDelay = 30 * time.Second
		p.Children[0].LifeTime = 8 * time.Hour
	}}
}

// Cisco ASA and IOS answer main mode and quick mode, check whether adit lives and are
// checked, rekey, and are told of the end.
func TestOldCisco(t *testing.T) {
	for name, make := range map[string]func() *oldPeer{"ASA": oldASA, "IOS": oldIOS} {
		t.Run(name, func(t *testing.T) {
			o := make()
			w := newOldWorld(t, oldConn(), o)
			w.initiate("net")
			o.settled(t, 1)
			sa := w.e.SAs()[0]
			if name == "IOS" {
				// The shorter lifetime counts, in seconds and in kilobytes.
				if d := sa.Children[0].ExpireAt.Sub(w.now); d > time.Hour {
					t.Errorf("adit keeps the SAs for %v", d)
				}
				for _, x := range w.sas {
					if x.Life.HardBytes != 4608000*1024 {
						t.Errorf("after %d bytes they end", x.Life.HardBytes)
					}
				}
			}
			// DPD is announced in message 4 (and in time).
			w.advance(2 * time.Minute)
			if !slices.Contains(o.notified, wire.V1RUThere) {
				t.Errorf("adit does not ask whether the peer lives: %v", o.notified)
			}
			o.inform(wire.V1Notify{Protocol: wire.ProtocolIKE, SPI: o.sa.cookies[:], Type: wire.V1RUThere, Data: []byte{0, 0, 0, 9}}.Payload())
			w.advance(time.Second)
			if !slices.Contains(o.notified, wire.V1RUThereAck) {
				t.Errorf("adit does not answer R-U-THERE: %v", o.notified)
			}
			// Rekeys by either side.
			w.do(ike.Rekey{Child: "net"})
			w.advance(20 * time.Second)
			o.settled(t, 1)
			o.beginQuick()
			w.advance(time.Second)
			if last := o.kids[len(o.kids)-1]; last.inKey == nil {
				t.Fatalf("adit does not answer quick mode: %v", w.rejections)
			}
			o.deleteChild(o.kids[0])
			w.advance(time.Second)
			o.settled(t, 1)
			w.do(ike.Terminate{IKE: "gw"})
			if len(o.deleted) == 0 || !slices.ContainsFunc(o.deleted, func(b []byte) bool { return len(b) == 16 }) || len(w.sas) != 0 {
				t.Errorf("the end was not told: %x", o.deleted)
			}
		})
	}
}

// A router deletes phase 1 alone; what is waited for by a trap starts anew.
func TestOldCiscoDeletesPhase1(t *testing.T) {
	o := oldIOS()
	w := newOldWorld(t, oldConn(), o)
	w.initiate("net")
	o.settled(t, 1)
	o.inform(wire.V1Delete{Protocol: wire.ProtocolIKE, SPIs: [][]byte{o.sa.cookies[:]}}.Payload())
	o.kids = nil
	w.advance(2 * time.Second)
	if len(w.sas) != 0 || len(w.e.SAs()) != 0 {
		t.Errorf("%d SAs are left", len(w.sas))
	}
	w.initiate("net")
	o.settled(t, 1)
}

// An ASA with another key can't read message 5 and says so in the clear, under message
// ID 0 (the same log): adit tells at once that the keys differ.
func TestOldCiscoWrongKey(t *testing.T) {
	o := oldASA()
	o.wrongKey = true
	w := newOldWorld(t, oldConn(), o)
	w.do(ike.Initiate{ID: 1, Peer: w.peer(), Child: "net"})
	w.advance(2 * time.Second)
	if len(w.rejections) != 1 || w.rejections[0].Reason != ike.ReasonAuthentication || len(w.e.SAs()) != 0 {
		t.Errorf("%v", w.rejections)
	}
}

// SonicWall: the commit bit and CONNECTED, the old SAs deleted with a rekey; and
// aggressive mode from an address that nobody knows, by its name.
func TestSonicWall(t *testing.T) {
	c := oldConn()
	c.ike = "aes128-sha1-modp1536"
	o := sonicWall()
	w := newOldWorld(t, c, o)
	w.initiate("net")
	o.settled(t, 1)
	if got := w.e.SAs()[0].PeerVendor; got != "SonicWall" {
		t.Errorf("the vendor is %q", got)
	}
	for range 3 {
		w.do(ike.Rekey{Child: "net"})
		w.advance(20 * time.Second)
		o.settled(t, 1)
	}
	if w.downs+w.childDowns != 0 {
		t.Errorf("%d SAs and %d children went down", w.downs, w.childDowns)
	}

	change := c.change
	c.change = func(p *ike.Peer) { change(p); p.Aggressive, p.RemoteAddrs = true, nil }
	o = sonicWall()
	w = newOldWorld(t, c, o)
	o.aggressive()
	w.advance(time.Second)
	o.beginQuick()
	w.advance(time.Second)
	o.settled(t, 1)
	for _, x := range w.sas {
		if x.Ref.Dir == ipsec.In && (x.Local.Addr() != aditAddr || x.Remote.Addr() != peerAddr) {
			t.Errorf("an SA between %v and %v", x.Local, x.Remote)
		}
	}
}

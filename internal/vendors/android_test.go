package vendors_test

import (
	"testing"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/suite"
)

// Android 12 and later, the built-in client (android.net.ipsec.ike). Sources:
// developer.android.com, android.net.ipsec.ike: ChildSessionParams (what was negotiated
// is offered again at a rekey; no group in IKE_AUTH; KE only where groups are
// configured) and IkeSessionParams (lifetimes); libreswan's test android-be-happy
// (issuetracker 203676760, 213617220, 213599617): it deletes an IKE SA that was refused
// with AUTHENTICATION_FAILED; the "IPSec identifier" is required and goes as its own
// identity and as IDr; GCM, ChaCha20 and x25519: shared notes, section 3.
const (
	androidIKE       = "aes256gcm16-aes128gcm16-chacha20poly1305-prfsha512-prfsha256-x25519-modp4096-modp2048,aes256-sha512-sha256-x25519-modp2048"
	androidESP       = "aes256gcm16-aes128gcm16-chacha20poly1305,aes256-sha512-sha256"
	androidChildSoft = time.Hour
	androidIKESoft   = 4 * time.Hour
)

func android(t *testing.T) *peer {
	p := plain(t, "aes128-sha256-x25519", "aes128gcm16", "10.9.0.1/32", "0.0.0.0/0")
	p.ike, p.esp = split(t, suite.IKE, androidIKE), split(t, suite.ESP, androidESP)
	p.id = ike.Identity{Type: uint8(wire.IDKeyID), Data: "phone"}
	p.deletesRefused, p.hashes = true, true
	return p
}

func androidConn(ikeText, espText string) conn {
	return conn{ike: ikeText, esp: espText, children: []string{"net 0.0.0.0/0 === 10.9.0.0/16"}, change: func(p *ike.Peer) {
		p.Remote[0].ID = ike.Identity{Type: uint8(wire.IDKeyID), Data: "phone"}
	}}
}

func TestAndroidCiphersAndRekeys(t *testing.T) {
	for _, tt := range [][3]string{
		{"aes256gcm16-prfsha512-x25519", "aes256gcm16", "ESP:AES_GCM_16_256/NO_EXT_SEQ"},
		{"chacha20poly1305-prfsha256-x25519", "chacha20poly1305", "ESP:CHACHA20_POLY1305/NO_EXT_SEQ"},
		{"aes256-sha512-modp2048", "aes256-sha512-modp2048-none", "ESP:AES_CBC_256/HMAC_SHA2_512_256/NO_EXT_SEQ"},
	} {
		t.Run(tt[1], func(t *testing.T) {
			p := android(t)
			w := newWorld(t, androidConn(tt[0], tt[1]), p)
			w.connect()
			w.settled(1)
			if got := p.children()[0].sel.String(); got != tt[2] {
				t.Errorf("agreed on %s", got)
			}
			for i := range 8 {
				w.advance(androidChildSoft)
				// What was negotiated is offered again.
				p.first().rekeyChild(p.children()[0], []suite.Proposal{p.children()[0].sel.Proposal()})
				w.advance(10 * time.Second)
				if i%4 == 3 {
					p.first().rekeyIKE([]suite.Proposal{p.first().sel.Proposal()})
					w.advance(10 * time.Second)
				}
				w.settled(1)
			}
			if p.rekeys != 10 || w.childDowns+w.downs != 0 {
				t.Errorf("%d rekeys, %d and %d downs", p.rekeys, w.downs, w.childDowns)
			}
		})
	}
}

// Refused, it deletes the IKE SA that adit has forgotten; that must not be answered
// nor leave anything.
func TestAndroidDeletesWhatWasRefused(t *testing.T) {
	p := android(t)
	p.id.Data = "another phone"
	w := newWorld(t, androidConn("aes256gcm16-prfsha512-x25519", "aes256gcm16"), p)
	w.connect()
	w.advance(time.Minute)
	if st := w.e.Stats(); st.SAs != 0 || len(w.sas) != 0 || len(w.rejections) != 1 || w.rejections[0].Detail != ike.DetailRemoteID && w.rejections[0].Reason != ike.ReasonIdentity {
		t.Errorf("%+v, rejections %v", st, w.rejections)
	}
}

// It does not believe us: AUTHENTICATION_FAILED and a Delete in an IKE SA that is up here.
func TestAndroidDoesNotBelieve(t *testing.T) {
	p := android(t)
	p.denies = true
	w := newWorld(t, androidConn("aes256gcm16-prfsha512-x25519", "aes256gcm16"), p)
	w.connect()
	w.advance(time.Minute)
	if st := w.e.Stats(); st.SAs != 0 || len(w.sas) != 0 || len(w.rejections) != 1 || w.rejections[0].Reason != ike.ReasonAuthentication || !w.rejections[0].ByPeer {
		t.Errorf("%+v, rejections %v", st, w.rejections)
	}
}

// The identifier is another one than local.id.
func TestAndroidWrongIdentifier(t *testing.T) {
	p := android(t)
	p.wantID = ike.Identity{Type: uint8(wire.IDFQDN), Data: "vpn.example.net"}
	w := newWorld(t, androidConn("aes256gcm16-prfsha512-x25519", "aes256gcm16"), p)
	w.connect()
	if len(w.rejections) != 1 || w.rejections[0].Detail != ike.DetailLocalID && len(w.rejections[0].Candidates) == 0 {
		t.Errorf("rejections %v", w.rejections)
	}
}

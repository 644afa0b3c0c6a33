package vendors_test

import (
	"strings"
	"testing"
	"time"

	"adit/ike"
	"adit/suite"
)

// iOS and macOS. Sources: strongSwan's documentation, interop/ios (proposals of iOS
// 16.5 and macOS 13.4, in IKE_AUTH and in rekeys: iOS offers one with the group of the
// IKE SA and one without, macOS only one without; no CERTREQ, so send_cert = always);
// github.com/libreswan/libreswan issue 1450 and github.com/hwdsl2/setup-ipsec-vpn issue
// 1486: macOS 14 rekeys the Child SA after 24 minutes and the IKE SA after 48, with the
// number 3 on its only proposal, as was chosen in IKE_SA_INIT.
const (
	iosIKE     = "aes256-sha256-modp2048,aes256-sha256-ecp256,aes256-sha256-modp1536,aes128-sha1-modp1024,3des-sha1-modp1024"
	iosESP     = "aes256-sha256,aes256-sha256,aes256-sha256,aes128-sha1,3des-sha1"
	iosRekey   = "aes256-sha256-modp2048,aes256-sha256"
	macIKE     = "aes256-sha256-modp2048"
	macESP     = "aes256-sha256"
	macRekey   = "aes256-sha256"
	appleChild = 24 * time.Minute
	appleIKE   = 48 * time.Minute
)

func always(p *ike.Peer) {
	p.SendCert, p.RekeyTime, p.Children[0].RekeyTime, p.Children[0].LifeTime = ike.SendAlways, 0, 0, 0
}

func TestAppleRekeys(t *testing.T) {
	for _, tt := range []struct {
		name, ike, esp, rekey string
		ours                  string // esp_proposals
		number                uint8
		good                  bool
		kes                   bool // PFS results
	}{
		{"iOS without PFS", iosIKE, iosESP, iosRekey, "aes256-sha256", 1, true, false},
		{"iOS with PFS", iosIKE, iosESP, iosRekey, "aes256-sha256-modp2048-none", 1, true, true},
		{"macOS", macIKE, macESP, macRekey, "aes256-sha256-modp2048-none", 1, true, false},
		{"macOS where PFS is a must", macIKE, macESP, macRekey, "aes256-sha256-modp2048", 1, false, false},
		{"macOS 14", macIKE, macESP, macRekey, "aes256-sha256", 3, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := client(t, tt.ike, tt.esp)
			p.firstNumber = tt.number
			w := newWorld(t, server("aes256-sha256-modp2048", tt.ours, always), p)
			w.connect()
			w.settled(1)
			rekey := split(t, suite.ESP, tt.rekey)
			for i := range 10 {
				w.advance(appleChild)
				p.first().rekeyChild(p.children()[0], rekey)
				w.advance(10 * time.Second)
				if !tt.good {
					break
				}
				if i%2 == 1 {
					p.first().rekeyIKE(split(t, suite.IKE, macIKE))
					w.advance(10 * time.Second)
				}
				w.settled(1)
				if got := p.children()[0].sel.KEPresent; got != tt.kes {
					t.Errorf("key exchange in the rekey: %v", got)
				}
			}
			switch {
			case tt.good && (p.rekeys != 15 || w.childDowns+w.downs+len(w.rejections) != 0):
				t.Errorf("%d rekeys, %d and %d downs, rejections %v", p.rekeys, w.downs, w.childDowns, w.rejections)
			case !tt.good && (len(w.rejections) != 1 || w.rejections[0].Detail != ike.DetailGroup):
				t.Errorf("rejections %v", w.rejections)
			}
		})
	}
}

// No CERTREQ: with send_cert = ifasked no certificate goes, the client refuses, and
// the record says what to change.
func TestAppleSendsNoCertRequest(t *testing.T) {
	p := client(t, iosIKE, iosESP)
	w := newWorld(t, server("aes256-sha256-modp2048", "aes256-sha256", nil), p)
	w.connect()
	w.advance(10 * time.Second)
	if len(p.live()) != 0 || w.e.Stats().SAs != 0 || len(w.sas) != 0 {
		t.Fatal("it came up without the server's certificate, or something is left")
	}
	if len(w.rejections) != 1 || !strings.Contains(w.rejections[0].Hint, "CERTREQ") || w.rejections[0].Options[0] != "connections.gw.send_cert" {
		t.Errorf("rejections %v", w.rejections)
	}
	if w.signed[0].Requested {
		t.Error("the gateway was told that a certificate was asked for")
	}
}

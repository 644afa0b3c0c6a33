package vendors_test

import (
	"strings"
	"testing"
	"time"

	"adit/ike"
	"adit/suite"
)

// Google Cloud VPN. Sources: cloud.google.com/network-connectivity/docs/vpn/concepts/
// choosing-networks-routing (all CIDRs of a tunnel are negotiated as one Child SA, and
// the peer must take it so) and supported-ike-ciphers (its own order; lifetimes 36000 s
// and 10800 s); shared notes, section 3.
const (
	googleIKE    = "aes256gcm16-aes128gcm16-prfsha256-modp2048,aes256-aes128-sha256-sha1-modp2048-modp1024"
	googleESP    = "aes256gcm16-aes128gcm16-modp2048,aes256-aes128-sha256-sha1-modp2048-modp1024"
	googlePhase1 = 36000 * time.Second
	googlePhase2 = 10800 * time.Second
)

func google(t *testing.T) *peer {
	p := &peer{ike: split(t, suite.IKE, googleIKE), esp: split(t, suite.ESP, googleESP), local: selectors(t, "10.128.0.0/20,10.132.0.0/20"), remote: selectors(t, "10.1.0.0/16,10.3.0.0/16")}
	p.whole = true
	return p
}

// All CIDRs in one Child SA, both ways, and its own order of ciphers at each rekey.
func TestGoogleAllInOneChild(t *testing.T) {
	for _, initiator := range []bool{true, false} {
		p := google(t)
		w := newWorld(t, conn{ike: "aes256gcm16-prfsha256-modp2048", esp: "aes128gcm16-modp2048,aes256gcm16-modp2048", children: []string{"net 10.1.0.0/16,10.3.0.0/16 === 10.128.0.0/20,10.132.0.0/20"},
			change: func(p *ike.Peer) {
				p.RekeyTime, p.Children[0].RekeyTime = googlePhase1, googlePhase2
			}}, p)
		if initiator {
			w.initiate("net")
		} else {
			p.initiate()
			w.advance(time.Second)
		}
		w.settled(1)
		for _, x := range [][2]string{{"10.1.0.9", "10.128.0.9"}, {"10.3.0.9", "10.132.0.9"}} {
			if !w.carries(x[0], x[1]) {
				t.Errorf("%v does not go through", x)
			}
		}
		w.advance(2*googlePhase1 + time.Minute)
		w.settled(1)
		if p.rekeys < 6 || w.childDowns != 0 {
			t.Errorf("%d rekeys, %d downs", p.rekeys, w.childDowns)
		}
	}
}

// Configured as for a FortiGate, a child each: neither way can it work, and adit says why.
func TestGoogleChildEach(t *testing.T) {
	c := conn{ike: "aes256gcm16-prfsha256-modp2048", esp: "aes128gcm16-modp2048", children: []string{"one 10.1.0.0/16 === 10.128.0.0/20", "two 10.3.0.0/16 === 10.132.0.0/20"}}
	p := google(t)
	w := newWorld(t, c, p)
	w.initiate("one")
	if len(w.rejections) != 1 || w.rejections[0].Reason != ike.ReasonSelectors || len(w.rejections[0].Options) == 0 {
		t.Errorf("rejections %v", w.rejections)
	}
	p = google(t)
	w = newWorld(t, c, p)
	p.initiate()
	w.advance(time.Second)
	if !w.noted("asks for the selectors of several children at once") {
		t.Errorf("nothing says that the children are to be one: %q %v", w.notes, w.rejections)
	}
}

// Azure VPN Gateway. Sources: learn.microsoft.com/azure/vpn-gateway/
// vpn-gateway-about-vpn-devices (default: group 2 alone; ESP AES256 and AES128 with
// SHA-256 and SHA-1, GCM; no PFS as initiator; IKE 28800 s, Child SA 27000 s and
// 102400000 KB) and vpn-gateway-about-compliance-crypto (a custom policy is one
// combination); github.com/Azure/Azure-vpn-config-samples issue 40 (modp1024 by name).
const (
	azureIKE    = "aes256-sha1-modp1024,aes256-sha256-modp1024,aes128-sha1-modp1024,aes128-sha256-modp1024"
	azureESP    = "aes256gcm16,aes256-sha1,aes256-sha256,aes128-sha1"
	azurePhase1 = 28800 * time.Second
	azurePhase2 = 27000 * time.Second
)

func azure(t *testing.T) *peer {
	return &peer{ike: split(t, suite.IKE, azureIKE), esp: split(t, suite.ESP, azureESP), local: selectors(t, "0.0.0.0/0"), remote: selectors(t, "0.0.0.0/0")}
}

var azureConn = conn{ike: "aes256-sha256-modp1024", esp: "aes256gcm16,aes256-sha256", children: []string{"net 0.0.0.0/0 === 0.0.0.0/0"}, change: func(p *ike.Peer) {
	p.RekeyTime, p.Children[0].RekeyTime, p.Children[0].LifeTime = azurePhase1, azurePhase2, azurePhase2+10*time.Minute
	p.Children[0].RekeyBytes = 102400000 * 1024
}}

func TestAzureDefaults(t *testing.T) {
	for _, initiator := range []bool{true, false} {
		p := azure(t)
		w := newWorld(t, azureConn, p)
		if initiator {
			w.initiate("net")
		} else {
			p.initiate()
			w.advance(time.Second)
		}
		w.settled(1)
		w.expire() // by volume
		w.settledSoon(1)
		w.advance(4 * azurePhase1)
		w.settledSoon(1)
		p.first().rekeyChild(p.children()[0], p.esp)
		w.advance(10 * time.Second)
		w.settled(1)
		if p.rekeys < 8 || w.childDowns+w.downs != 0 {
			t.Errorf("%d rekeys, %d and %d downs", p.rekeys, w.downs, w.childDowns)
		}
	}
}

// adit's own defaults have no group 2: the record says what Azure wants.
func TestAzureWantsGroup2(t *testing.T) {
	c := azureConn
	c.ike = "default"
	p := azure(t)
	w := newWorld(t, c, p)
	p.initiate()
	w.advance(time.Second)
	if len(w.rejections) != 1 || w.rejections[0].Reason != ike.ReasonProposal || !strings.Contains(w.rejections[0].Error(), "MODP_1024") {
		t.Errorf("rejections %v", w.rejections)
	}
}

// PFS configured here, none there: it comes up, and the first rekey fails. The record
// must say which option, long before the lifetime ends.
func TestAzureWithoutPFS(t *testing.T) {
	c := azureConn
	c.esp = "aes256gcm16-modp2048"
	p := azure(t)
	w := newWorld(t, c, p)
	w.initiate("net")
	w.settled(1)
	w.advance(azurePhase2 + time.Second)
	w.settled(1)
	if len(w.rejections) == 0 || w.rejections[0].Reason != ike.ReasonProposal || w.rejections[0].Detail != ike.DetailGroup {
		t.Errorf("rejections %v", w.rejections)
	}
	// With the group optional nothing fails.
	c.esp = "aes256gcm16-modp2048-none"
	p = azure(t)
	w = newWorld(t, c, p)
	w.initiate("net")
	w.advance(3 * azurePhase2)
	w.settledSoon(1)
	if p.rekeys < 3 || len(w.rejections) != 0 {
		t.Errorf("%d rekeys, rejections %v", p.rekeys, w.rejections)
	}
}

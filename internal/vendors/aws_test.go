package vendors_test

import (
	"testing"
	"time"

	"adit/ike"
	"adit/suite"
)

// AWS Site-to-Site VPN. Sources:
//   - docs.aws.amazon.com/vpn/latest/s2svpn/CGRequirements.html: one pair of SAs a
//     tunnel; rules have to be put together; a policy-based device is limited to one SA;
//   - docs.aws.amazon.com/vpn/latest/s2svpn/VPNTunnels.html: lifetimes 28800 s and
//     3600 s, PFS, the algorithms; it takes the lowest of its own (shared notes, section 3).
const (
	awsIKE    = "aes128-sha1-modp1024,aes128-sha256-modp2048,aes256-sha256-modp2048,aes256gcm16-prfsha384-ecp384"
	awsESP    = "aes128-sha1-modp1024,aes128-sha256-modp2048,aes256-sha256-modp2048,aes256gcm16-ecp384"
	awsPhase1 = 28800 * time.Second
	awsPhase2 = 3600 * time.Second
)

func aws(t *testing.T) *peer {
	p := plain(t, "aes128-sha256-modp2048", "aes128-sha256-modp2048", "0.0.0.0/0", "0.0.0.0/0")
	p.ike, p.esp = split(t, suite.IKE, awsIKE), split(t, suite.ESP, awsESP)
	p.oneChild = true
	return p
}

// It takes the weakest of what both have, whatever our order says: what we do not
// want must not be in our list.
func TestAWSIgnoresOrder(t *testing.T) {
	p := aws(t)
	w := newWorld(t, conn{ike: "aes256gcm16-prfsha384-ecp384,aes128-sha256-modp2048", esp: "aes256gcm16-ecp384,aes128-sha256-modp2048",
		children: []string{"net 0.0.0.0/0 === 0.0.0.0/0"}, change: func(p *ike.Peer) {
			p.RekeyTime = awsPhase1 - 10*time.Minute
			p.Children[0].RekeyTime = awsPhase2 - 10*time.Minute
		}}, p)
	w.initiate("net")
	w.settled(1)
	if got := p.first().sel.String(); got != "IKE:AES_CBC_128/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/MODP_2048" {
		t.Errorf("agreed on %s", got)
	}
	w.advance(3 * awsPhase1)
	w.settledSoon(1)
	if st := w.e.Stats(); st.RekeysIKE < 3 || st.RekeysChild < 24 || w.childDowns != 0 {
		t.Errorf("%+v, %d downs", st, w.childDowns)
	}
}

// Several children: each new one costs the one before. adit says so and does not
// fight for ever.
func TestAWSOneChild(t *testing.T) {
	for _, keep := range []string{"start", "keep_up"} {
		t.Run(keep, func(t *testing.T) {
			p := aws(t)
			w := newWorld(t, conn{ike: "aes128-sha256-modp2048", esp: "aes128-sha256-modp2048",
				children: []string{"one 10.1.0.0/16 === 10.2.0.0/16", "two 10.3.0.0/16 === 10.2.0.0/16"}, change: func(p *ike.Peer) {
					for _, c := range p.Children {
						c.StartAction, c.CloseAction, c.KeepUp = ike.ActionStart, ike.ActionStart, keep == "keep_up"
					}
				}}, p)
			w.initiate("one")
			w.initiate("two")
			before := p.received
			w.advance(10 * time.Minute)
			if n := p.received - before; n > 200 {
				t.Errorf("%d messages in ten minutes: the two children fight", n)
			}
			if !w.noted("keeps one Child SA") {
				t.Errorf("nothing says what is wrong: %q %v", w.notes, w.rejections)
			}
		})
	}
}

// One child with all selectors is what AWS wants, and is one pair of SAs.
func TestAWSAllInOneChild(t *testing.T) {
	p := aws(t)
	w := newWorld(t, conn{ike: "aes128-sha256-modp2048", esp: "aes128-sha256-modp2048", children: []string{"net 10.1.0.0/16,10.3.0.0/16 === 10.2.0.0/16"}}, p)
	w.initiate("net")
	w.settled(1)
	if !w.carries("10.1.0.9", "10.2.0.9") || !w.carries("10.3.0.9", "10.2.0.9") {
		t.Error("not all selectors are carried")
	}
	if w.noted("keeps one") {
		t.Errorf("notes %q", w.notes)
	}
}

package vendors_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"adit/ike"
)

// Palo Alto PAN-OS. Sources:
//   - github.com/strongswan/strongswan issue 1458: the DELETE of the old Child SA comes
//     less than half a millisecond behind the answer to our rekey, and may be seen first;
//   - docs.paloaltonetworks.com, "Define IKE Crypto Profiles", "Define IPSec Crypto
//     Profiles" and proxy IDs: one Child SA a proxy ID; IKE 8 h and IPsec 1 h; group 2,
//     AES and SHA-1 by default (shared notes, section 3).
const (
	panIKE    = "aes256-sha256-modp2048"
	panESP    = "aes256-sha256-modp2048"
	panDelete = 500 * time.Microsecond
	panIPsec  = time.Hour
	panCerts  = 5 // of a chain: shared notes, section 3
	panIKESA  = 8 * time.Hour
)

func pan(t *testing.T, pairs [][2]string) (*peer, conn) {
	p := plain(t, panIKE, panESP, "10.2.0.0/16", "10.1.0.0/16")
	p.deleteAfter = panDelete
	p.pairs = pairs
	c := conn{ike: panIKE, esp: panESP, children: []string{"net 10.1.0.0/16 === 10.2.0.0/16"}, change: func(p *ike.Peer) {
		p.RekeyTime = panIKESA
		p.Children[0].RekeyTime, p.Children[0].LifeTime = panIPsec, panIPsec+panIPsec/10
	}}
	return p, c
}

// The DELETE arrives behind the answer, together with it, or before it.
func TestPaloAltoDeletesAtOnce(t *testing.T) {
	for _, delay := range []time.Duration{0, panDelete, panDelete + time.Microsecond, 3 * time.Millisecond} {
		t.Run(fmt.Sprint(delay), func(t *testing.T) {
			p, c := pan(t, nil)
			w := newWorld(t, c, p)
			w.initiate("net")
			w.settled(1)
			late := 0
			w.delay = func(d ike.Datagram) time.Duration {
				if len(d.Data) > 300 { // an answer with KE
					late++
					return delay
				}
				return 0
			}
			for range 5 {
				w.do(ike.Rekey{Child: "net"})
				w.advance(10 * time.Second)
				w.settled(1)
			}
			if p.rekeys != 5 || late != 5 || w.childDowns != 0 || !w.carries("10.1.0.9", "10.2.0.9") {
				t.Errorf("%d rekeys, %d answers, %d downs, notes %q, rejections %v", p.rekeys, late, w.childDowns, w.notes, w.rejections)
			}
		})
	}
}

// Two days of lifetimes, with both sides at it.
func TestPaloAltoLifetimes(t *testing.T) {
	p, c := pan(t, nil)
	w := newWorld(t, c, p)
	w.initiate("net")
	for range 48 {
		w.advance(panIPsec - 5*time.Second)
		if kids := p.children(); len(kids) == 1 {
			p.first().rekeyChild(kids[0], p.esp) // the shorter lifetime rekeys
		}
		w.advance(5 * time.Second)
	}
	w.advance(10 * time.Second)
	w.settled(1)
	if st := w.e.Stats(); st.RekeysIKE < 5 || st.RekeysChild < 40 || w.downs+w.childDowns != 0 {
		t.Errorf("%+v, %d downs, %d of Child SAs", st, w.downs, w.childDowns)
	}
}

// A Child SA a proxy ID.
func TestPaloAltoProxyIDs(t *testing.T) {
	p, c := pan(t, [][2]string{{"10.2.0.0/16", "10.1.0.0/16"}, {"10.4.0.0/16", "10.1.0.0/16"}})
	c.children = []string{"net 10.1.0.0/16 === 10.2.0.0/16,10.4.0.0/16"}
	w := newWorld(t, c, p)
	w.initiate("net")
	w.settled(2)
	w.advance(3 * panIPsec)
	w.settledSoon(2)
	if p.rekeys < 4 || w.childDowns != 0 {
		t.Errorf("%d rekeys, %d downs, notes %q", p.rekeys, w.childDowns, w.notes)
	}
}

// Chains of at most five certificates: with one more it refuses, and the record names
// the certificates. All of them go, in one message or in fragments.
func TestPaloAltoChains(t *testing.T) {
	for n := 1; n <= panCerts+1; n++ {
		p, c := pan(t, nil)
		p.serverKey, p.maxCerts, p.chain, p.certRequest = serverKey(), panCerts, n, true
		change := c.change
		c.change = func(p *ike.Peer) {
			change(p)
			p.Local[0].Method, p.Local[0].Certs, p.SendCert, p.KeyingTries = ike.AuthPubkey, [][]byte{{1}}, ike.SendAlways, 1
		}
		w := newWorld(t, c, p)
		w.initiate("net")
		w.advance(2 * time.Second)
		if n <= panCerts {
			w.settled(1)
			continue
		}
		if len(p.children()) != 0 || len(w.rejections) != 1 || !strings.Contains(strings.Join(w.rejections[0].Options, " "), "local.certs") {
			t.Errorf("%d certificates: rejections %v", n, w.rejections)
		}
	}
}

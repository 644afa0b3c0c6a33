package vendors_test

import (
	"testing"
	"time"

	"adit/ike"
	"adit/ike/wire"
)

// Cisco ASA and FTD, crypto maps. Sources:
//   - github.com/strongswan/strongswan issue 1150: the maintainer on ASA: neither
//     multiple subnets in one Child SA nor proper narrowing;
//   - github.com/strongswan/strongswan issue 2477: its own rekeys have the specific
//     selectors, ours are refused by TS_UNACCEPTABLE, both at once;
//   - shared notes, section 3: AES-GCM or CBC, SHA-2, groups 14, 19 to 21; 86400 s,
//     28800 s and 4608000 KB (general knowledge, no page read).
const (
	asaIKE = "aes256-sha256-ecp256"
	asaESP = "aes256-sha256"
)

var asaPairs = [][2]string{{"10.2.0.0/16", "10.1.0.0/16"}, {"10.2.0.0/16", "10.3.0.0/16"}, {"10.4.0.0/16", "10.1.0.0/16"}, {"10.4.0.0/16", "10.3.0.0/16"}}

func asa(t *testing.T) *peer {
	p := plain(t, asaIKE, asaESP, "10.2.0.0/16", "10.1.0.0/16")
	p.pairs = asaPairs
	return p
}

var asaConn = conn{ike: asaIKE, esp: asaESP, children: []string{"net 10.1.0.0/16,10.3.0.0/16 === 10.2.0.0/16,10.4.0.0/16"}}

// One child with several subnets on both sides: adit sets up a Child SA for each
// pair, whether the ASA picks one pair or refuses the whole.
func TestASAOnePairAChild(t *testing.T) {
	for name, refuses := range map[string]bool{"narrows": false, "refuses": true} {
		t.Run(name, func(t *testing.T) {
			p := asa(t)
			p.onePairOnly = refuses
			w := newWorld(t, asaConn, p)
			w.initiate("net")
			w.settled(4)
			for _, x := range [][2]string{{"10.1.0.9", "10.2.0.9"}, {"10.3.0.9", "10.2.0.9"}, {"10.1.0.9", "10.4.0.9"}, {"10.3.0.9", "10.4.0.9"}} {
				if !w.carries(x[0], x[1]) {
					t.Errorf("%s to %s does not go through", x[0], x[1])
				}
			}
			if len(w.done) != 1 || w.done[0].Err != nil || !w.noted("one pair of selectors each") || len(w.rejections) != 0 {
				t.Errorf("done %v, notes %q, rejections %v", w.done, w.notes, w.rejections)
			}
			w.do(ike.Rekey{Child: "net"})
			w.advance(20 * time.Second)
			w.settled(4)
			w.do(ike.Rekey{IKE: "gw"})
			w.advance(20 * time.Second)
			w.settled(4)
			if p.rekeys != 5 {
				t.Errorf("%d rekeys", p.rekeys)
			}
		})
	}
}

// The ASA's crypto map has fewer pairs than our configuration: what is there comes
// up, and what is not is told with the options to change.
func TestASARefusesSomePairs(t *testing.T) {
	p := asa(t)
	p.pairs = asaPairs[:3]
	w := newWorld(t, asaConn, p)
	w.initiate("net")
	w.settled(3)
	if len(w.rejections) != 1 || w.rejections[0].Reason != ike.ReasonSelectors || w.rejections[0].Ours != "10.3.0.0/16 === 10.4.0.0/16" || len(w.rejections[0].Options) == 0 {
		t.Errorf("rejections %v", w.rejections)
	}
	if len(w.done) != 1 || w.done[0].Err != nil {
		t.Errorf("done %v", w.done)
	}
}

// Nothing fits: one record, not one for each pair.
func TestASARefusesEverything(t *testing.T) {
	p := asa(t)
	p.pairs = [][2]string{{"10.8.0.0/16", "10.9.0.0/16"}}
	w := newWorld(t, asaConn, p)
	w.initiate("net")
	w.settled(0)
	if len(w.rejections) != 1 || len(w.done) != 1 || w.done[0].Err == nil {
		t.Errorf("rejections %v, done %v", w.rejections, w.done)
	}
}

// strongSwan issue 2477: our rekey is refused by TS_UNACCEPTABLE while the ASA's own
// comes through. The outbound SA must pass to the new Child SA.
func TestASARekeyCollision(t *testing.T) {
	for _, first := range []string{"ours", "theirs"} {
		t.Run(first, func(t *testing.T) {
			p := asa(t)
			p.refuseRekey = func([]wire.Payload) *wire.Notify { return notify(wire.TSUnacceptable, nil) }
			w := newWorld(t, conn{ike: asaIKE, esp: asaESP, children: []string{"net 10.1.0.0/16 === 10.2.0.0/16"}}, p)
			w.initiate("net")
			w.settled(1)
			theirs := func() { p.first().rekeyChild(p.children()[0], p.esp) }
			if first == "ours" {
				w.after(oneWay/2, theirs)
			} else {
				theirs()
			}
			w.do(ike.Rekey{Child: "net"})
			w.advance(10 * time.Second)
			w.settled(1)
			if p.rekeys != 1 || !w.carries("10.1.0.9", "10.2.0.9") || w.childDowns != 0 {
				t.Errorf("%d rekeys, %d downs, notes %q, rejections %v", p.rekeys, w.childDowns, w.notes, w.rejections)
			}
		})
	}
}

package vendors_test

import (
	"net/netip"
	"testing"
	"time"

	"adit/ike"
	"adit/ipsec"
)

// A trap: each packet gets the Child SA of its pair, whether the ASA narrows to a
// pair of its own choice or refuses several selectors.
func TestASAPacketsAskForTheirPair(t *testing.T) {
	for name, refuses := range map[string]bool{"narrows": false, "refuses": true} {
		t.Run(name, func(t *testing.T) {
			p := asa(t)
			p.onePairOnly = refuses
			w := newWorld(t, asaConn, p)
			for _, x := range [][2]string{{"10.3.0.9", "10.4.0.9"}, {"10.1.0.9", "10.4.0.9"}, {"10.1.0.9", "10.2.0.9"}} {
				w.do(ike.Initiate{Peer: w.peer(), Child: "net", Acquired: &ipsec.Acquire{Name: "net", Proto: 17,
					Src: netip.MustParseAddr(x[0]), Dst: netip.MustParseAddr(x[1]), SrcPort: 1000, DstPort: 53}})
				w.advance(2 * time.Second)
				if !w.carries(x[0], x[1]) {
					t.Errorf("%v does not go through: %q %v", x, w.notes, w.rejections)
				}
			}
			n := len(p.children())
			if n > 4 || refuses && n != 3 {
				t.Errorf("%d Child SAs for three packets", n)
			}
			w.settled(n)
		})
	}
}

// A reauthentication takes all pairs along.
func TestASAReauthentication(t *testing.T) {
	p := asa(t)
	w := newWorld(t, asaConn, p)
	w.initiate("net")
	w.settled(4)
	w.do(ike.Rekey{IKE: "gw", Reauth: true})
	w.advance(20 * time.Second)
	w.settled(4)
}

// vpn-idle-timeout (30 minutes by default: Cisco's command reference, general
// knowledge) deletes one Child SA of several: with close_action = start or keep_up it
// comes back, without it does not.
func TestASADeletesIdleChild(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(c *ike.Child)
		after  time.Duration
		want   int
	}{
		{"close_action", func(c *ike.Child) { c.CloseAction = ike.ActionStart }, 30 * time.Minute, 4},
		{"keep_up", func(c *ike.Child) { c.KeepUp = true }, 30 * time.Minute, 4},
		{"nothing", func(*ike.Child) {}, 30 * time.Minute, 3},
		{"at once", func(c *ike.Child) { c.CloseAction = ike.ActionStart }, time.Second, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := asa(t)
			c := asaConn
			c.change = func(p *ike.Peer) { tt.change(p.Children[0]) }
			w := newWorld(t, c, p)
			w.initiate("net")
			w.settled(4)
			w.advance(tt.after)
			p.first().deleteChild(p.children()[2])
			w.advance(20 * time.Second)
			w.settled(tt.want)
		})
	}
}

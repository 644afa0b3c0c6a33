package ikev2_test

import (
	"strings"
	"testing"
	"time"

	"adit/ike"
)

// Without eap_id the user inside EAP is the one that remote.id is about: nobody comes
// in as somebody else by a password of its own.
func TestUserOfAnotherName(t *testing.T) {
	for _, tt := range []struct {
		name, remote string
		ask          bool
		up           bool
	}{
		{"the identity of IKE itself", "a.example.org", false, false},
		{"a pattern that the user does not fit", "*.example.org", false, false},
		{"anybody", "%any", false, true},
		{"asked for", "a.example.org", true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := eapPair(t, func(a, b *side) {
				a.peer.Local[0].EAPID = id("alice") // by MSCHAPv2, as a.example.org in IDi
				b.peer.Remote[0].ID, b.peer.Remote[0].EAPAsk = id(tt.remote), tt.ask
			})
			dump(t, p)
			p.a.initiate("net")
			p.run(60 * time.Second)
			up := eventsOf[ike.IKEUp](p.b)
			if tt.up {
				if len(up) != 1 || up[0].SA.RemoteEAPID != "alice" {
					t.Errorf("up %v, %v", up, p.b.reasons())
				}
				return
			}
			r := eventsOf[*ike.Rejection](p.b)
			if len(up) != 0 || len(r) != 1 || !strings.Contains(r[0].Error(), "alice is not") {
				t.Errorf("up %v, rejections %v", up, r)
			}
			p.run(200 * time.Second)
			p.down()
			for _, h := range []*host{p.a, p.b} {
				h.creds.balanced(t, h.name)
			}
		})
	}
}

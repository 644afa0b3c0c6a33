package interop_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"adit/interop/lab"
	"adit/interop/peer"
)

// A client that is killed and comes back from another port of its NAT gets its address
// again, though the gateway still has the old IKE SA and no other address: by
// INITIAL_CONTACT, which is what clients send, and without it by `unique = replace`, while
// the Delete of the old one is repeated. Leases outlive the gateway's restarts and kill -9.
func TestReturningClient(t *testing.T) {
	t.Parallel()
	among(t, []pair{{strongSwan, adit}, {adit, adit}}, settings{middle: lab.NAT}, func(t *testing.T, p *path) {
		const vip = "10.3.0.7"
		give := func(unique, ours string) {
			t.Helper()
			left, right := p.ends(false)
			left.localTS, right.remoteTS, right.remote = "dynamic", "dynamic", "%any"
			left.extra, right.extra = "vips = 0.0.0.0\nunique = "+unique+"\n", "pools = only\nunique = "+ours+"\n"
			if err := p.left.Load(left.text(leftID, rightID)); err != nil {
				t.Fatal(err)
			}
			if err := p.right.Load(right.text(rightID, leftID) + "pools {\nonly {\naddrs = " + vip + "-" + vip + "\n}\n}\n"); err != nil {
				t.Fatal(err)
			}
		}
		in := func(when string) {
			t.Helper()
			if err := p.left.Initiate("net"); err != nil {
				t.Fatalf("%s: %v\n%s", when, err, p.right.Log())
			}
			if s := peer.Established(p.sas(p.left), "gw"); len(s) != 1 || !slices.Equal(s[0].LocalVIPs, []string{vip}) {
				t.Fatalf("%s: the client has %+v", when, s)
			}
			if err := p.WaitPing(lab.Left, p.R.Host4, 5*time.Second); err != nil {
				t.Errorf("%s: %v", when, err)
			}
		}
		lease := func(when, state string) {
			t.Helper()
			var out string
			if err := lab.Poll(5*time.Second, func() (_ bool, err error) {
				out, err = p.right.Swanctl("--list-pools", "--leases")
				return strings.Contains(strings.Join(strings.Fields(out), " "), vip+" "+state+" '"+leftID+"'"), err
			}); err != nil {
				t.Errorf("%s: the lease is not %s: %v\n%s", when, state, err, out)
			}
		}
		port := 30000
		for _, c := range []struct{ client, gateway string }{{"no", "no"}, {"never", "replace"}} {
			give(c.client, c.gateway)
			in("at first")
			old := peer.Established(p.sas(p.right), "gw")[0]
			p.left.Kill9()
			if err := p.Rebind(port); err != nil {
				t.Fatal(err)
			}
			port += 2000
			if err := p.left.Start(); err != nil {
				t.Fatal(err)
			}
			give(c.client, c.gateway)
			in("come back with unique = " + c.gateway)
			s := p.sas(p.right)
			up := peer.Established(s, "gw")
			if len(up) != 1 || up[0].InitiatorSPI == old.InitiatorSPI || !slices.Equal(up[0].RemoteVIPs, []string{vip}) || up[0].RemotePort == old.RemotePort {
				t.Errorf("unique = %s: the gateway has %+v", c.gateway, s)
			}
			if deleting := len(s) > 1; deleting != (c.gateway == "replace") {
				t.Errorf("unique = %s: the gateway has %d IKE SAs", c.gateway, len(s))
			}
			p.left.Terminate("gw")
			p.right.Terminate("gw")
			p.gone(t)
		}
		lease("when it is gone", "offline")
		for _, how := range []string{"restart", "kill -9"} {
			give("no", "no")
			in("before a " + how)
			lease("before a "+how, "online")
			if how == "restart" {
				if err := p.right.Stop(); err != nil {
					t.Error(err)
				}
			} else {
				p.right.Kill9()
			}
			p.left.Terminate("gw")
			if err := p.right.Start(); err != nil {
				t.Fatal(err)
			}
			give("no", "no")
			lease("after a "+how, "offline")
		}
	})
}

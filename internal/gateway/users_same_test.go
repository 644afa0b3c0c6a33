package gateway_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// Two clients at home, each behind a router of its own, both with the inner address
// 192.168.1.23, which Windows says as its identity in IKE: the user inside EAP tells them
// apart. One that crashes and comes back, with INITIAL_CONTACT, gets its address again and
// ends nobody else's tunnel.
func TestSameInnerAddressBehindTwoRouters(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l := newLab(t)
		right := l.end("gateway", rightAddr)
		defer right.gw.Shutdown()
		clients, office := usersConf(2)
		if err := right.gw.Load(settings(t, office)); err != nil {
			t.Fatal(err)
		}
		come := func(user int, addr string) *end {
			e := l.end(fmt.Sprint("client ", user, " at ", addr), addr)
			text := strings.ReplaceAll(clients, fmt.Sprintf(" id = u%d\n eap_id", user), " id = 192.168.1.23\n eap_id")
			if err := e.gw.Load(settings(t, text)); err != nil {
				t.Fatal(err)
			}
			if err := e.gw.Initiate(within(time.Minute), fmt.Sprint("u", user), "net"); err != nil {
				t.Fatal(err)
			}
			e.settle()
			return e
		}
		has := func() map[string]netip.Addr {
			list, err := right.gw.SAs(within(time.Second))
			if err != nil {
				t.Fatal(err)
			}
			m := map[string]netip.Addr{}
			for _, sa := range list {
				if sa.RemoteID.String() != "192.168.1.23" || len(sa.RemoteVIPs) != 1 || m[sa.RemoteEAPID].IsValid() {
					t.Errorf("%+v", sa)
				}
				m[sa.RemoteEAPID] = sa.RemoteVIPs[0]
			}
			return m
		}
		one := come(0, leftAddr)
		defer one.gw.Shutdown()
		two := come(1, "192.0.2.3")
		before := has()
		if len(before) != 2 || before["u0"] == before["u1"] {
			t.Fatalf("%v", before)
		}
		two.mu.Lock()
		two.mute = true
		two.mu.Unlock()
		two.gw.Shutdown()
		again := come(1, "192.0.2.4")
		defer again.gw.Shutdown()
		if after := has(); len(after) != 2 || after["u0"] != before["u0"] || after["u1"] != before["u1"] {
			t.Errorf("%v, before it was %v", after, before)
		}
		if down := downs(right); !slices.Equal(down, []string{"replaced by a new IKE SA of the same peer"}) {
			t.Errorf("ended: %q", down)
		}
		if len(downs(one)) != 0 || len(right.children()) != 2 {
			t.Errorf("the other one lost %v; %d Child SAs", downs(one), len(right.children()))
		}
	})
}

package gateway_test

import (
	"net/netip"
	"testing"
	"time"

	"adit/internal/config"
	"adit/internal/hostnet"
)

// The site's rules for the addresses of pools reach the host with the connections'
// policies, follow every change, and never stand alone: an Apply without policies
// would take the guard of an instance that died away.
func TestRulesForClientsReachTheHost(t *testing.T) {
	bubble(t, func(t *testing.T) {
		left, right := pair(t)
		defer right.gw.Shutdown()
		defer left.gw.Shutdown()
		state := func() hostnet.State {
			t.Helper()
			time.Sleep(time.Second)
			right.mu.Lock()
			defer right.mu.Unlock()
			return right.state
		}
		pool := config.Pool{Name: "v4", From: netip.MustParseAddr("10.3.0.1"), To: netip.MustParseAddr("10.3.0.9"), Masquerade: true}
		if err := right.gw.LoadPool(pool); err != nil {
			t.Fatal(err)
		}
		if st := state(); len(st.Devices) != 0 {
			t.Fatalf("a pool alone changed the host: %+v", st)
		}
		right.load(connection("gw", rightAddr, leftAddr, "net:start_action=trap;"+rightNet))
		want := hostnet.Clients{From: pool.From, To: pool.To, Masquerade: true}
		if st := state(); len(st.Policies) == 0 || len(st.Clients) != 1 || st.Clients[0] != want {
			t.Fatalf("%d policies came with the rules %+v, want %+v", len(st.Policies), st.Clients, want)
		}
		pool.Masquerade = false
		if err := right.gw.LoadPool(pool); err != nil {
			t.Fatal(err)
		}
		if st := state(); len(st.Clients) != 0 || len(st.Policies) == 0 {
			t.Fatalf("after the option went: %+v", st)
		}
		pool.Masquerade = true
		if err := right.gw.LoadPool(pool); err != nil {
			t.Fatal(err)
		}
		pool.Apart = true
		if err := right.gw.LoadPool(pool); err != nil {
			t.Fatal(err)
		}
		if st := state(); len(st.Clients) != 1 || !st.Clients[0].Masquerade || !st.Clients[0].Apart {
			t.Fatalf("both options, and the rules are %+v", st.Clients)
		}
		if err := right.gw.UnloadPool("v4"); err != nil {
			t.Fatal(err)
		}
		if st := state(); len(st.Clients) != 0 {
			t.Fatalf("the pool is unloaded, the rules are %+v", st.Clients)
		}
	})
}

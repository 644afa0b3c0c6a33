package control_test

import (
	"testing"
	"time"

	"adit/conf"
	"adit/ike"
	"adit/internal/config"
)

// What a client is told of a redirection; that it works is shown with strongSwan in interop.
func TestRedirectTexts(t *testing.T) {
	left, right, _ := sides(t)
	if err := left.gw.Retune(t.Context(), config.Daemon{Habits: ike.Habits{NoRedirects: true}}); err != nil {
		t.Fatal(err)
	}
	right.refused("redirect", "ike = gw\n", "missing target gateway")
	for _, gw := range []string{"alice@example.org", `"C=CH, O=adit"`, "%any", "*.example.org", "10.0.0.0/8"} {
		right.refused("redirect", "ike = gw\ngateway = "+gw+"\n", "unsupported gateway identity")
	}
	right.refused("redirect", "gateway = gw2.example\n", "missing redirect selector")
	for _, ip := range []string{"somewhere", "10.0.0.0/99", "10.0.0.9-10.0.0.1", "10.0.0.1-2001:db8::1"} {
		right.refused("redirect", "gateway = gw2.example\npeer-ip = "+ip+"\n", "invalid peer IP selector")
	}
	right.refused("redirect", "gateway = gw2.example\nike = gw\n", "no matching SAs to redirect found")
	left.ok("initiate", "child = net\ntimeout = 10000\n")
	right.refused("redirect", "gateway = gw2.example\nike = other\n", "no matching SAs to redirect found")
	for _, by := range []string{"ike = gw\n", "ike-id = 1\n", "peer-ip = 192.0.2.1\n", "peer-ip = 192.0.2.0/30\n", "peer-ip = 192.0.2.0-192.0.2.1\n", "peer-id = 192.0.2.1\n", "peer-id = %any\n"} {
		m := right.refused("redirect", "gateway = 192.0.2.9\n"+by, "no matching SA can be redirected: the peer did not announce REDIRECT_SUPPORTED")
		if m.Text("matches") != "1" {
			t.Errorf("%s: matches = %s", by, m.Text("matches"))
		}
	}
	for _, by := range []string{"peer-ip = 192.0.2.4/30\n", "peer-ip = ::/0\n", "peer-id = 192.0.2.9\n"} {
		right.refused("redirect", "gateway = 192.0.2.9\n"+by, "no matching SAs to redirect found")
	}
	left.refused("redirect", "gateway = gw2.example\nike = gw\n", "no matching SA can be redirected: this gateway is its initiator")
}

// A gateway that is drained: its client moves to another one and a new client goes there
// at once; after undrain it takes clients again.
func TestDrain(t *testing.T) {
	left, right, wire := sides(t)
	third := newSide(t, wire, "192.0.2.3")
	third.ok("load-conn", "gw {\n version = 2\n local_addrs = 192.0.2.3\n remote_addrs = %any\n local {\n auth = psk\n id = 192.0.2.2\n }\n remote {\n auth = psk\n id = 192.0.2.1\n }\n children {\n net {\n local_ts = 10.2.0.0/24\n remote_ts = 10.1.0.0/24\n }\n }\n }\n")
	third.ok("load-shared", "id = ike-1\ntype = IKE\ndata = \"a secret that is long enough\"\nowners = 192.0.2.1, 192.0.2.2\n")
	for body, want := range map[string]string{"to = 10.0.0.0/8\n": "unsupported gateway identity", "to = 192.0.2.3\nrate = 0\n": "rate is no number of peers a second",
		"to = 192.0.2.3\nrate = 9999\n": "a rate of 9999 peers a second is not from 1 to 1000"} {
		right.refused("drain", body, want)
	}
	left.ok("initiate", "child = net\ntimeout = 10000\n")
	right.ok("drain", "to = 192.0.2.3\nrate = 100\n")
	until := func(what string, s *side, cond func(m *conf.Section) bool) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			m := s.ok("drain-state", "")
			if cond(m) {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%s: %s", what, text(m))
			}
		}
	}
	until("the client leaves", right, func(m *conf.Section) bool {
		return m.Text("draining") == "yes" && m.Text("to") == "192.0.2.3" && m.Text("found") == "1" && m.Text("told") == "1" && m.Text("left") == "0" && m.Text("waiting") == "0"
	})
	until("it is at the third", third, func(m *conf.Section) bool { return m.Text("draining") == "no" && m.Text("left") == "1" })
	left.ok("terminate", "ike = gw\ntimeout = 10000\n")
	left.ok("initiate", "child = net\ntimeout = 10000\n") // is sent on by IKE_SA_INIT
	until("it is at the third again", third, func(m *conf.Section) bool { return m.Text("left") == "1" })
	left.ok("terminate", "ike = gw\ntimeout = 10000\n")
	right.ok("undrain", "")
	left.ok("initiate", "child = net\ntimeout = 10000\n")
	until("the gateway takes it", right, func(m *conf.Section) bool { return m.Text("draining") == "no" && m.Text("left") == "1" })
	until("what is our own stays", left, func(m *conf.Section) bool { return m.Text("left") == "0" && m.Text("own") == "1" })

	// Who cannot be redirected: told apart, and deleted with close.
	right.ok("drain", "rate = 100\n")
	until("it stays", right, func(m *conf.Section) bool { return m.Text("stay") == "1" && m.Text("left") == "1" })
	right.ok("drain", "close = yes\nrate = 100\n")
	until("it is closed", right, func(m *conf.Section) bool { return m.Text("closed") == "1" && m.Text("left") == "0" })
}

package control_test

import "testing"

// What a client is told of a redirection; that it works is shown with strongSwan in interop.
func TestRedirectTexts(t *testing.T) {
	left, right, _ := sides(t)
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

package interop_test

import (
	"strings"
	"testing"

	"adit/interop/lab"
	"adit/interop/peer"
)

// A user of `adit user` comes in with the password that it printed, until it is
// another one or the user is deleted; who is deleted loses the tunnel.
func TestLocalUsers(t *testing.T) {
	t.Parallel()
	for _, ends := range pairs() {
		if ends.responder != adit || ends.initiator == adit {
			continue // it is about our files, and one client will do
		}
		t.Run(ends.String(), func(t *testing.T) {
			runOne(t, ends, settings{middle: lab.Bridge}, localUsers)
		})
	}
}

func localUsers(t *testing.T, p *path) {
	e := newEAPEnds(t)
	l, r := p.ends(false)
	gw := p.right.(*peer.AditGateway)
	user := func(args ...string) string {
		t.Helper()
		out, err := gw.Command(append([]string{"user"}, append(args, "--vici", gw.URI())...)...)
		if err != nil {
			t.Fatalf("adit user %q: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(out)
	}
	gateway := "auth = pubkey\nid = " + rightID
	server := func(group string) string {
		return "auth = eap-mschapv2\neap_id = %any\ngroups = " + group
	}
	p.give(setting{trusted(e.ca), l.with("")},
		setting{trusted(e.ca).and(owned("gateway", e.gateway)), r.with("",
			site{name: "guests", local: gateway, remote: server("guests")},
			site{name: "staff", local: gateway, remote: server("staff")})})
	// client gives the client this password.
	client := func(name, password string) {
		t.Helper()
		if err := p.left.Load(l.with("secrets {\n"+users(name, password)+"}",
			site{name: name, local: "auth = eap-mschapv2\nid = " + clientID(name) + "\neap_id = " + name, remote: gateway})); err != nil {
			t.Fatal(err)
		}
	}
	alice := user("add", "alice", "--group", "staff,admins")
	bob := user("add", "bob", "--group", "guests")
	for _, u := range []struct{ name, password, conn string }{{"alice", alice, "staff"}, {"bob", bob, "guests"}} {
		client(u.name, u.password)
		if _, right := p.reach(t, u.name); right.Name != u.conn || right.Fields["remote-eap-id"] != u.name {
			t.Errorf("%s came into %s as %q", u.name, right.Name, right.Fields["remote-eap-id"])
		}
	}
	client("alice", bob)
	p.says(t, p.right, p.refusedLogin(t, "alice"), "wrong password", "alice")

	again := user("passwd", "alice")
	client("alice", alice)
	p.says(t, p.right, p.refusedLogin(t, "alice"), "wrong password", "alice")
	client("alice", again)
	p.established(t, "alice")

	// Another user's change does not touch her tunnel, her own end does.
	user("del", "bob")
	if up := p.sas(p.right); len(up) != 1 {
		t.Errorf("after bob was deleted the gateway has %+v", up)
	}
	user("del", "alice")
	p.gone(t)
	p.says(t, p.right, p.refusedLogin(t, "alice"), "unknown identity", "alice")
	if out := user("list"); out != "" {
		t.Errorf("users are left: %s", out)
	}
	for _, secret := range []string{alice, bob, again} {
		if strings.Contains(p.right.Log(), secret) {
			t.Error("a password is in the log")
		}
	}
}

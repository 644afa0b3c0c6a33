package gateway

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"adit/eap"
	"adit/ike"
	"adit/internal/config"
	"adit/internal/users"
)

var attacker, office = netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("192.0.2.1")

// Failures lock an identity and a source, for as long as they need to decay; who is well
// known at an address comes in there all the same.
func TestLockoutDecays(t *testing.T) {
	l := &lockout{identity: 3, source: 5}
	now := time.Unix(1e9, 0)
	l.succeeded("alice", office, now)
	for i := range 3 {
		if why := l.refuses("alice", attacker, now); why != "" {
			t.Fatalf("after %d failures: %s", i, why)
		}
		l.failed("alice", attacker, now)
	}
	if why := l.refuses("alice", attacker, now); !strings.Contains(why, `too many failed logins of "alice"; the next is tried in 1m0s`) {
		t.Errorf("%q", why)
	}
	if why := l.refuses("alice", office, now); why != "" {
		t.Errorf("alice is kept out of her own office: %s", why)
	}
	if why := l.refuses("bob", attacker, now); why != "" {
		t.Errorf("bob: %s", why)
	}
	if why := l.refuses("alice", attacker, now.Add(lockoutIdentityDecay+time.Second)); why != "" {
		t.Errorf("after the time: %s", why)
	}
	for i := range 100 {
		l.failed(fmt.Sprint("user ", i), attacker, now)
	}
	if why := l.refuses("carol", attacker, now); !strings.Contains(why, "from 198.51.100.7/32; the next is tried in 10s") {
		t.Errorf("a source that failed 100 times: %q", why)
	}
	if why := l.refuses("carol", netip.MustParseAddr("198.51.100.8"), now); why != "" {
		t.Errorf("its neighbour: %s", why)
	}
	six := netip.MustParseAddr("2001:db8::1")
	for range 5 {
		l.failed("x", six, now)
	}
	if l.refuses("y", netip.MustParseAddr("2001:db8::ffff"), now) == "" || l.refuses("y", netip.MustParseAddr("2001:db8:0:1::1"), now) != "" {
		t.Error("an IPv6 source is not its /64")
	}
}

// Who makes up identities fills no memory.
func TestLockoutIsBounded(t *testing.T) {
	l := &lockout{identity: 3, source: 3}
	now := time.Unix(1e9, 0)
	for i := range limitStrikes + 1000 {
		l.failed(fmt.Sprint(i), attacker, now)
		l.succeeded(fmt.Sprint("g", i), attacker, now)
	}
	if len(l.counts) > limitStrikes || len(l.good) > limitStrikes {
		t.Errorf("%d and %d entries", len(l.counts), len(l.good))
	}
	l.failed("late", office, now.Add(time.Hour))
	if len(l.counts) != 2 {
		t.Errorf("%d entries after an hour", len(l.counts))
	}
}

// In a conversation: wrong passwords lock, then the right one is not even looked at; after
// a while it is. Nothing is locked where the options are 0.
func TestLockoutInEAP(t *testing.T) {
	client, server := schools(t)
	wrong := examinee(t)
	wrong.secret(t, config.SecretEAP, []byte("guessed"), "alice")
	d := func(c *Gateway) *dialogue {
		return &dialogue{client: c, server: server, local: ike.AuthRound{EAP: ike.EAPMSCHAPv2, EAPID: ident(t, "alice")}, remote: ike.AuthRound{EAP: ike.EAPMSCHAPv2, EAPAsk: true}}
	}
	fails := func(x *dialogue, why string) {
		t.Helper()
		x.fails(t, why, "alice")
		x.client.conversations.end(x.session)
		x.server.conversations.end(x.session)
	}
	for range 5 {
		fails(d(wrong), "wrong password")
	}
	d(client).agree(t, "EAP_MSCHAPV2", "alice", true)
	server.conversations.lockout.identity, server.conversations.lockout.good = 3, nil
	for range 3 {
		fails(d(wrong), "wrong password")
	}
	fails(d(client), "locked out")
	for _, s := range server.conversations.lockout.counts {
		s.at = s.at.Add(-lockoutIdentityDecay - time.Second)
	}
	d(client).agree(t, "EAP_MSCHAPV2", "alice", true)
	if len(server.conversations.lockout.counts) != 0 {
		t.Error("a success leaves failures behind")
	}
}

// The same for name and password of IKEv1, whose failures count with those of EAP: users
// of `adit user` and of `secrets` alike.
func TestLockoutInXAUTH(t *testing.T) {
	_, server := schools(t)
	server.conversations.lockout.identity, server.conversations.lockout.source = 3, 5
	if err := server.SetUsers([]users.User{{Name: "bob", NT: eap.NTHash([]byte("Tweedle dum")), Groups: []string{"staff"}}}); err != nil {
		t.Fatal(err)
	}
	peer := &ike.Peer{Remote: []ike.AuthRound{{Method: ike.AuthPSK}, {Method: ike.AuthXAuth}}}
	ask := func(user, password, from string) *ike.XAuthAnswer {
		t.Helper()
		a, err := server.conversations.xauth(t.Context(), ike.XAuth{Server: true, Peer: peer, Round: 1, User: user, Password: []byte(password), Remote: netip.MustParseAddrPort(from + ":500")})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	if a := ask("bob", "Tweedle dum", "192.0.2.1"); !a.Success || !slices.Equal(a.Groups, []string{"staff"}) {
		t.Errorf("bob: %+v", a)
	}
	if a := ask("alice", "swordfish", "192.0.2.1"); !a.Success {
		t.Errorf("alice: %+v", a)
	}
	for range 3 {
		if a := ask("bob", "guessed", "198.51.100.7"); a.Success || !strings.Contains(a.Why, "wrong") {
			t.Errorf("a guess: %+v", a)
		}
	}
	if a := ask("bob", "Tweedle dum", "198.51.100.7"); a.Success || !strings.Contains(a.Why, `too many failed logins of "bob"`) {
		t.Errorf("after three guesses: %+v", a)
	}
	if a := ask("bob", "Tweedle dum", "192.0.2.1"); !a.Success {
		t.Errorf("bob where he is known: %+v", a)
	}
	for i := range 2 {
		ask(fmt.Sprint("nobody", i), "guessed", "198.51.100.7")
	}
	if a := ask("alice", "swordfish", "198.51.100.7"); a.Success || !strings.Contains(a.Why, "too many failed logins from") {
		t.Errorf("from where five failed: %+v", a)
	}
	// A success that the server's EAP would give is refused by the same count.
	if why := server.conversations.lockout.refuses(claimed("mallory"), netip.MustParseAddr("198.51.100.7"), time.Now()); why == "" {
		t.Error("EAP knows nothing of it")
	}
}

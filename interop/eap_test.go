package interop_test

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"adit/interop/lab"
	"adit/interop/peer"
	"adit/pki/pkitest"
)

// eapEnds are the certificates of an EAP scenario: the gateway's and a client's, which
// is called NAME@left.example.org by any of these names.
type eapEnds struct {
	ca, gateway, client *pkitest.Entity
	forged              *pkitest.Entity // of a CA that nobody trusts
}

func newEAPEnds(t *testing.T, clients ...string) eapEnds {
	t.Helper()
	ca := pkitest.NewCA(t, pkitest.Spec{Name: "EAP CA"})
	var emails []string
	for _, c := range clients {
		emails = append(emails, clientID(c))
	}
	return eapEnds{
		ca:      ca,
		gateway: ca.Issue(pkitest.Spec{Name: rightID, DNS: []string{rightID}, EKU: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}),
		forged:  pkitest.NewCA(t, pkitest.Spec{Name: "other CA"}).Issue(pkitest.Spec{Name: "forged", Emails: []string{clientID("forged")}}),
		client:  ca.Issue(pkitest.Spec{Name: "client", Emails: emails, EKU: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}),
	}
}

func clientID(name string) string { return name + "@left.example.org" }

// login is one way of a client to prove itself to a gateway that has a certificate.
type login struct {
	name   string // of the connection, and of the identity before the @
	client string // lines of the client's local section after the id
	server string // lines of the gateway's remote section
	eapID  string // that list-sas shows for the client, "" if its IKE identity is that, too
	// only, if set, tells which pairs can do it, and why others can't.
	only func(ends pair) (why string)
	// gateway and ofGateway replace how the gateway proves itself, and what the client wants.
	gateway, ofGateway string
	rounds, ofRounds   string // further sections of the client and of the gateway
	extra, ofExtra     string // lines of the client's and of the gateway's connection
	ppk                string // that list-sas shows
}

// both are the two connections of a login.
func (g login) both() (left, right site) {
	if g.gateway == "" {
		g.gateway, g.ofGateway = "auth = pubkey", "auth = pubkey"
	}
	id := "\nid = " + clientID(g.name) + "\n"
	left = site{name: g.name, local: g.client + id, remote: g.ofGateway + "\nid = " + rightID, rounds: g.rounds, extra: g.extra}
	right = site{name: g.name, local: g.gateway + "\nid = " + rightID, remote: g.server + id, rounds: g.ofRounds, extra: g.ofExtra}
	return left, right
}

// logins gives both ends all connections of these.
func (p *path) logins(all []login, e eapEnds, clientSecrets, gatewaySecrets string) {
	p.t.Helper()
	l, r := p.ends(false)
	var ls, rs []site
	for _, g := range all {
		left, right := g.both()
		ls, rs = append(ls, left), append(rs, right)
	}
	p.give(
		setting{trusted(e.ca).and(owned("client", e.client)).and(owned("forged", e.forged)), l.with("secrets {\n"+clientSecrets+"}", ls...)},
		setting{trusted(e.ca).and(owned("gateway", e.gateway)), r.with("secrets {\n"+gatewaySecrets+"}", rs...)},
	)
}

// users are sections of `secrets` for EAP: names and passwords by turns.
func users(list ...string) string {
	var b strings.Builder
	for i := 0; i < len(list); i += 2 {
		fmt.Fprintf(&b, "eap-%d {\nid = %s\nsecret = \"%s\"\n}\n", i, list[i], list[i+1])
	}
	return b.String()
}

// ttlsInside has strongSwan use MSCHAPv2 inside TTLS.
const ttlsInside = "plugins {\neap-ttls {\nphase2_method = mschapv2\n}\n}\n"

// Peer quirk (Debian's strongSwan 5.9.8): its eap-gtc asks PAM for the password.
func gtcServer(ends pair) string {
	if ends.responder == strongSwan {
		return "strongSwan's GTC server needs PAM"
	}
	return ""
}

// Peer quirk (Debian's strongSwan 5.9.8): it comes without the plugin eap-dynamic.
func dynamicServer(ends pair) string {
	if ends.responder == strongSwan {
		return "Debian's strongSwan has no eap-dynamic"
	}
	return ""
}

// eapMethods are the methods of EAP, and the ways to choose one.
var eapMethods = []login{
	{name: "mschapv2", client: "auth = eap-mschapv2\neap_id = alice", server: "auth = eap-mschapv2\neap_id = %any", eapID: "alice"},
	{name: "bare", client: "auth = eap-mschapv2", server: "auth = eap-mschapv2"},
	{name: "any", client: "auth = eap\neap_id = alice", server: "auth = eap-mschapv2\neap_id = %any", eapID: "alice"},
	{name: "hash", client: "auth = eap-mschapv2\neap_id = carol", server: "auth = eap-mschapv2\neap_id = carol", eapID: "carol"},
	{name: "md5", client: "auth = eap-md5\neap_id = alice", server: "auth = eap-md5\neap_id = %any", eapID: "alice"},
	{name: "gtc", client: "auth = eap-gtc\neap_id = alice", server: "auth = eap-gtc\neap_id = %any", eapID: "alice", only: gtcServer},
	{name: "tls", client: "auth = eap-tls\ncerts = client.pem", server: "auth = eap-tls\neap_id = %any"},
	{name: "ttls", client: "auth = eap-ttls\neap_id = alice", server: "auth = eap-ttls\neap_id = %any", eapID: "alice"},
	{name: "dynmd5", client: "auth = eap-md5\neap_id = alice", server: "auth = eap-dynamic\neap_id = %any", eapID: "alice", only: dynamicServer},
	{name: "dyntls", client: "auth = eap-tls\ncerts = client.pem", server: "auth = eap-dynamic\neap_id = %any", only: dynamicServer},
	// RFC 5998: nothing but EAP-TLS proves the gateway.
	{name: "only", client: "auth = eap-tls\ncerts = client.pem", server: "auth = eap-tls\neap_id = %any",
		gateway: "auth = eap-tls\ncerts = gateway.pem", ofGateway: "auth = eap-tls"},
	{name: "onlyttls", client: "auth = eap-ttls\neap_id = alice", server: "auth = eap-ttls\neap_id = %any", eapID: "alice",
		gateway: "auth = eap-ttls\ncerts = gateway.pem", ofGateway: "auth = eap-ttls"},
	// RFC 4739: a certificate first, then EAP.
	{name: "two", client: "auth = pubkey\ncerts = client.pem", server: "auth = pubkey", eapID: "alice",
		rounds:   "local-2 {\nround = 2\nauth = eap-mschapv2\nid = " + clientID("two") + "\neap_id = alice\n}",
		ofRounds: "remote-2 {\nround = 2\nauth = eap-mschapv2\nid = " + clientID("two") + "\neap_id = %any\n}"},
	// RFC 8784: a PPK beside the AUTH of EAP, beside the first AUTH of two, and one that only the client has.
	{name: "ppk", client: "auth = eap-mschapv2\neap_id = alice", server: "auth = eap-mschapv2\neap_id = %any", eapID: "alice", extra: demandsPPK, ofExtra: demandsPPK, ppk: "yes"},
	{name: "ppktwo", client: "auth = pubkey\ncerts = client.pem", server: "auth = pubkey", eapID: "alice", extra: demandsPPK, ofExtra: demandsPPK, ppk: "yes",
		rounds:   "local-2 {\nround = 2\nauth = eap-mschapv2\nid = " + clientID("ppktwo") + "\neap_id = alice\n}",
		ofRounds: "remote-2 {\nround = 2\nauth = eap-mschapv2\nid = " + clientID("ppktwo") + "\neap_id = %any\n}"},
	{name: "noppk", client: "auth = eap-mschapv2\neap_id = alice", server: "auth = eap-mschapv2\neap_id = %any", eapID: "alice", extra: "ppk_id = dave\n"},
}

// demandsPPK is of a connection that takes nothing less than the PPK of ppkSecret.
const (
	demandsPPK = "ppk_id = carol\nppk_required = yes\n"
	ppkSecret  = "ppk-1 {\nid = carol\nsecret = 0x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n}\n"
)

// refusedLogins fail, each for the reason that adit as gateway must tell in its log.
var refusedLogins = []struct {
	login
	says []string
}{
	{login{name: "wrong", client: "auth = eap-mschapv2\neap_id = mallory", server: "auth = eap-mschapv2\neap_id = %any"}, []string{"wrong password", "mallory"}},
	{login{name: "guess", client: "auth = eap-mschapv2\neap_id = nobody1", server: "auth = eap-mschapv2\neap_id = %any"}, []string{"unknown identity", "nobody1"}},
	{login{name: "wrongmd5", client: "auth = eap-md5\neap_id = mallory", server: "auth = eap-md5\neap_id = %any"}, []string{"wrong password"}},
	{login{name: "inside", client: "auth = eap-ttls\neap_id = mallory", server: "auth = eap-ttls\neap_id = %any"}, []string{"wrong password", "mallory"}},
	{login{name: "forged", client: "auth = eap-tls\ncerts = forged.pem", server: "auth = eap-tls\neap_id = %any"}, []string{"forged"}},
	{login{name: "other", client: "auth = eap-md5\neap_id = alice", server: "auth = eap-tls\neap_id = %any"}, []string{"the peer wants"}},
}

// reauthLogins authenticate anew soon: by the client's reauth_time, and by the gateway's,
// of which AUTH_LIFETIME tells the client (RFC 4478). With EAP only the client can.
var reauthLogins = []login{
	{name: "again", client: "auth = eap-mschapv2\neap_id = alice", server: "auth = eap-mschapv2\neap_id = %any", eapID: "alice",
		extra: "reauth_time = 2s\nover_time = 60s\nrand_time = 0s\n"},
	{name: "lifetime", client: "auth = eap-mschapv2\neap_id = alice", server: "auth = eap-mschapv2\neap_id = %any", eapID: "alice",
		extra: "rekey_time = 1h\nover_time = 1s\nrand_time = 0s\n", ofExtra: "reauth_time = 3s\nrand_time = 0s\nover_time = 60s\n"},
}

// Each EAP method with a gateway that proves itself by its certificate, wrong
// secrets, rekeys and reauthentication afterwards.
func TestEAP(t *testing.T) {
	t.Parallel()
	for _, ends := range pairs() {
		t.Run(ends.String(), func(t *testing.T) {
			t.Parallel()
			runOne(t, ends, settings{middle: lab.Bridge, charon: ttlsInside}, func(t *testing.T, p *path) { p.eap(t, ends) })
		})
	}
}

func (p *path) eap(t *testing.T, ends pair) {
	var all []login
	for _, g := range eapMethods {
		if g.only == nil || g.only(ends) == "" {
			all = append(all, g)
		} else {
			t.Logf("without %s: %s", g.name, g.only(ends))
		}
	}
	for _, g := range refusedLogins {
		all = append(all, g.login)
	}
	all = append(all, reauthLogins...)
	e := newEAPEnds(t, "tls", "dyntls", "only", "two", "ppktwo")
	p.logins(all, e,
		users("alice", "Tweedle dee & dum", clientID("bare"), "another secret", "carol", "password", "mallory", "a wrong guess", "nobody1", "whatever")+
			ppkSecret+strings.NewReplacer("ppk-1", "ppk-2", "carol", "dave").Replace(ppkSecret),
		users("alice", "Tweedle dee & dum", "bob", "not alice's", clientID("bare"), "another secret", "mallory", "the real one")+
			ppkSecret+"ntlm-1 {\nid = carol\nsecret = 0x8846f7eaee8fb117ad06bdd830b7586c\n}\n")
	for _, g := range eapMethods {
		if g.only == nil || g.only(ends) == "" {
			t.Run(g.name, func(t *testing.T) { p.logsIn(t, g) })
		}
	}
	var sizes [][]int
	for _, g := range refusedLogins {
		t.Run(g.name, func(t *testing.T) {
			p.outside.Stop()
			p.freshCapture()
			p.says(t, p.right, p.refusedLogin(t, g.name), g.says...)
			sizes = append(sizes, p.ikeSizes())
		})
	}
	// ECDSA signatures differ in length: what follows the gateway's must be the same.
	if len(sizes) > 1 && (len(sizes[0]) < 9 || !slices.Equal(sizes[0][4:], sizes[1][4:])) {
		t.Errorf("a wrong password and an unknown user look different from outside: %v and %v", sizes[0], sizes[1])
	}
	t.Run("rekeys", func(t *testing.T) { p.rekeysAfterEAP(t, "mschapv2") })
	t.Run("again", func(t *testing.T) { p.reauthenticates(t, "again") })
	t.Run("lifetime", func(t *testing.T) {
		if ends.initiator == strongSwan {
			p.reauthenticates(t, "lifetime")
			return
		}
		// adit takes no gateway's word for less than half a minute.
		left, _ := p.established(t, "lifetime")
		if n, err := strconv.Atoi(left.Fields["reauth-time"]); err != nil || n < 20 || n > 30 {
			t.Errorf("reauthentication in %q s, want 30 s less a tenth", left.Fields["reauth-time"])
		}
		p.down(t, "lifetime")
	})
}

// refusedLogin tries what must fail and leave nothing; it returns the gateway's log.
func (p *path) refusedLogin(t *testing.T, name string) string {
	t.Helper()
	m := p.mark()
	if err := p.left.Initiate(name); err == nil {
		t.Fatalf("%s was set up", name)
	}
	if _, ours := p.right.(*peer.AditGateway); !ours {
		// Peer quirk (strongSwan 5.9.8): told AUTHENTICATION_FAILED in the middle, it
		// waits for its timeout of half-open IKE SAs.
		if up := peer.Established(p.sas(p.right), name); len(up) != 0 {
			t.Errorf("the gateway has %+v", up)
		}
		_ = p.right.Terminate(name) // it may be gone already
	}
	p.gone(t)
	_, right := m.since()
	return right
}

// ikeSizes are the sizes of the IKE messages outside in their order.
func (p *path) ikeSizes() (sizes []int) {
	packets, _ := p.outside.Packets()
	for _, k := range packets {
		if k.Class == lab.ClassIKE {
			sizes = append(sizes, len(k.Bytes))
		}
	}
	return sizes
}

// logsIn sets up and takes down the connection of a login.
func (p *path) logsIn(t *testing.T, g login) {
	t.Helper()
	left, right := p.reach(t, g.name)
	if left.Fields["ppk"] != g.ppk || right.Fields["ppk"] != g.ppk {
		t.Errorf("ppk = %q and %q, want %q", left.Fields["ppk"], right.Fields["ppk"], g.ppk)
	}
	if right.Name != g.name || right.RemoteID != clientID(g.name) {
		t.Errorf("the gateway chose %s for %s", right.Name, right.RemoteID)
	}
	if id := right.Fields["remote-eap-id"]; id != g.eapID && (g.eapID != "" || id != clientID(g.name)) {
		t.Errorf("remote-eap-id = %q, want %q", id, g.eapID)
	}
}

// rekeysAfterEAP rekeys the child and the IKE SA from both sides.
func (p *path) rekeysAfterEAP(t *testing.T, name string) {
	p.established(t, name)
	for _, g := range []peer.Gateway{p.left, p.right} {
		before := p.sas(g)
		if err := g.RekeyChild(name); err != nil {
			t.Fatal(err)
		}
		p.wait("a rekeyed child", g, func(s []peer.SA) bool {
			c := peer.Installed(s, name)
			return len(c) == 1 && c[0].SPIIn != before[0].Children[0].SPIIn
		})
		if err := g.RekeyIKE(name); err != nil {
			t.Fatal(err)
		}
		for _, end := range []peer.Gateway{p.left, p.right} {
			p.wait("a rekeyed IKE SA", end, func(s []peer.SA) bool {
				return len(s) == 1 && s[0].State == "ESTABLISHED" && s[0].InitiatorSPI != before[0].InitiatorSPI && len(peer.Installed(s, name)) == 1
			})
		}
	}
	s := p.sas(p.right)
	if id := s[0].Fields["remote-eap-id"]; id != "alice" {
		t.Errorf("remote-eap-id = %q after rekeys", id)
	}
	if err := p.WaitPing(lab.LeftHost, p.R.Host4, 5*time.Second); err != nil {
		t.Error(err)
	}
	p.down(t, name)
}

// reauthenticates waits until the client has authenticated anew.
func (p *path) reauthenticates(t *testing.T, name string) {
	old, _ := p.established(t, name)
	for _, end := range []peer.Gateway{p.left, p.right} {
		p.wait("a new IKE SA and the end of the old one", end, func(s []peer.SA) bool {
			return len(s) == 1 && s[0].State == "ESTABLISHED" && s[0].InitiatorSPI != old.InitiatorSPI && len(peer.Installed(s, name)) == 1
		})
	}
	if err := p.WaitPing(lab.LeftHost, p.R.Host4, 5*time.Second); err != nil {
		t.Error(err)
	}
	p.down(t, name)
}

package interop_test

import (
	"crypto/x509"
	"fmt"
	"strings"
	"testing"

	"adit/interop/lab"
	"adit/interop/peer"
	"adit/pki/pkitest"
)

// eapEnds are the certificates of an EAP scenario: the gateway's and a client's, which
// is called NAME@left.example.org by any of these names.
type eapEnds struct {
	ca, gateway, client *pkitest.Entity
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
		client:  ca.Issue(pkitest.Spec{Name: "client", Emails: emails, EKU: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}),
	}
}

func clientID(name string) string { return name + "@left.example.org" }

// login is one way of a client to prove itself to a gateway that has a certificate.
type login struct {
	name   string // of the connection, and of the identity before the @
	client string // lines of the client's local section after the id
	server string // lines of the gateway's remote section
	eapID  string // that list-sas shows for the client
	// only, if set, tells which pairs can do it, and why others can't.
	only func(ends pair) (why string)
	// gateway and ofGateway replace how the gateway proves itself, and what the client wants.
	gateway, ofGateway string
	rounds, ofRounds   string // further sections of the client and of the gateway
	extra              string // lines of both connections
}

// both are the two connections of a login.
func (g login) both() (left, right site) {
	if g.gateway == "" {
		g.gateway, g.ofGateway = "auth = pubkey", "auth = pubkey"
	}
	id := "\nid = " + clientID(g.name) + "\n"
	left = site{name: g.name, local: g.client + id, remote: g.ofGateway + "\nid = " + rightID, rounds: g.rounds, extra: g.extra}
	right = site{name: g.name, local: g.gateway + "\nid = " + rightID, remote: g.server + id, rounds: g.ofRounds, extra: g.extra}
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
		setting{trusted(e.ca).and(owned("client", e.client)), l.with("secrets {\n"+clientSecrets+"}", ls...)},
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

// Each EAP method with a gateway that proves itself by its certificate.
func TestEAP(t *testing.T) {
	among(t, pairs(), settings{middle: lab.Bridge, charon: ttlsInside}, func(t *testing.T, p *path) {
		all := []login{
			{name: "mschapv2", client: "auth = eap-mschapv2\neap_id = alice", server: "auth = eap-mschapv2\neap_id = %any", eapID: "alice"},
			{name: "bare", client: "auth = eap-mschapv2", server: "auth = eap-mschapv2", eapID: clientID("bare")},
			{name: "any", client: "auth = eap\neap_id = alice", server: "auth = eap-mschapv2\neap_id = %any", eapID: "alice"},
			{name: "md5", client: "auth = eap-md5\neap_id = alice", server: "auth = eap-md5\neap_id = %any", eapID: "alice"},
			{name: "tls", client: "auth = eap-tls\ncerts = client.pem", server: "auth = eap-tls\neap_id = %any", eapID: clientID("tls")},
			{name: "ttls", client: "auth = eap-ttls\neap_id = alice", server: "auth = eap-ttls\neap_id = %any", eapID: "alice"},
		}
		e := newEAPEnds(t, "tls", "ttls")
		p.logins(all, e, users("alice", "Tweedle dee & dum", clientID("bare"), "another secret"),
			users("alice", "Tweedle dee & dum", "bob", "not alice's", clientID("bare"), "another secret"))
		for _, g := range all {
			t.Run(g.name, func(t *testing.T) {
				_, right := p.reach(t, g.name)
				if right.Name != g.name || right.RemoteID != clientID(g.name) {
					t.Errorf("the gateway chose %s for %s", right.Name, right.RemoteID)
				}
				if id := right.Fields["remote-eap-id"]; id != g.eapID && id != "" {
					t.Errorf("remote-eap-id = %q, want %q", id, g.eapID)
				}
			})
		}
	})
}

// ttlsInside has strongSwan use MSCHAPv2 inside TTLS.
const ttlsInside = "plugins {\neap-ttls {\nphase2_method = mschapv2\n}\n}\n"

var _ = peer.Established

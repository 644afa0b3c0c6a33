package interop_test

import (
	"crypto/x509/pkix"
	"fmt"
	"strings"
	"testing"

	"adit/interop/lab"
	"adit/interop/peer"
	"adit/pki/pkitest"
)

// named are certificates that speak for identities of every type.
func named(t *testing.T) duo {
	ca := pkitest.NewCA(t, pkitest.Spec{Name: "CA of identities"})
	subject := func(cn string) pkix.Name {
		return pkix.Name{Country: []string{"CH"}, Organization: []string{"Adit"}, OrganizationalUnit: []string{"Lab"}, CommonName: cn}
	}
	return duo{ca,
		ca.Issue(pkitest.Spec{Subject: subject("left"), DNS: []string{"left.example.org"}, Emails: []string{"left@example.org"}, IPs: []string{"192.0.2.1", "2001:db8::1"}}),
		ca.Issue(pkitest.Spec{Subject: subject("right"), DNS: []string{"right.example.org"}, Emails: []string{"right@example.org"}, IPs: []string{"192.0.2.2", "2001:db8::2"}}),
	}
}

// ends gives both ends of a trial their own credentials and these lines.
func (d duo) ends(leftLocal, leftRemote, rightLocal, rightRemote string) (left, right end) {
	lines := func(s string) string {
		if !strings.Contains(s, "auth =") {
			s = "auth = pubkey\n" + s
		}
		return s
	}
	left = end{files: owned("left", d.left).and(trusted(d.ca)), local: lines(leftLocal + "\ncerts = left.pem"), remote: lines(leftRemote)}
	right = end{files: owned("right", d.right).and(trusted(d.ca)), local: lines(rightLocal + "\ncerts = right.pem"), remote: lines(rightRemote)}
	return left, right
}

// trial is a trial with these lines.
func (d duo) trial(name, leftLocal, leftRemote, rightLocal, rightRemote string) trial {
	l, r := d.ends(leftLocal, leftRemote, rightLocal, rightRemote)
	return trial{name: name, left: l, right: r}
}

// shows demands the identities that both ends list.
func shows(left, right string) func(*testing.T, peer.SA, peer.SA) {
	return func(t *testing.T, l, r peer.SA) {
		t.Helper()
		if l.LocalID != left || r.RemoteID != left || l.RemoteID != right || r.LocalID != right {
			t.Errorf("left has %s and %s, right %s and %s, want %s and %s", l.LocalID, l.RemoteID, r.LocalID, r.RemoteID, left, right)
		}
	}
}

// refusedAtRight makes a trial one that the responder refuses, with these words.
func (c trial) refusedAtRight(why ...string) trial {
	c.refused, c.whyRight = true, why
	return c
}

// refusedAtLeft makes a trial one that the initiator refuses, with these words.
func (c trial) refusedAtLeft(why ...string) trial {
	c.refused, c.whyLeft = true, why
	return c
}

func (c trial) checked(f func(*testing.T, peer.SA, peer.SA)) trial { c.check = f; return c }

// Identities of every type against the subject and the subjectAltNames, wildcards,
// and what stands for an identity that is not configured.
func TestCertIdentities(t *testing.T) {
	t.Parallel()
	d := named(t)
	const leftDN, rightDN = "C=CH, O=Adit, OU=Lab, CN=left", "C=CH, O=Adit, OU=Lab, CN=right"
	id := func(s string) string { return `id = "` + s + `"` }
	both := func(name, left, right string) trial {
		return d.trial(name, id(left), id(right), id(right), id(left)).checked(shows(left, right))
	}
	keyid := func(b [20]byte) string { return fmt.Sprintf("@#%x", b) }
	trials := []trial{
		both("dn", leftDN, rightDN),
		both("fqdn", "left.example.org", "right.example.org"),
		both("email", "left@example.org", "right@example.org"),
		both("ipv4", "192.0.2.1", "192.0.2.2"),
		both("ipv6", "2001:db8::1", "2001:db8::2"),
		d.trial("keyid", id(keyid(d.left.Cert.KeyID)), id(keyid(d.right.Cert.KeyID)), id(keyid(d.right.Cert.KeyID)), id(keyid(d.left.Cert.KeyID))),
		d.trial("default", "", "", "", "").checked(shows(leftDN, rightDN)),
		d.trial("default with IDr", "", id(rightDN), "", id(leftDN)).checked(shows(leftDN, rightDN)),
		d.trial("IDr chooses", id("left.example.org"), id("right.example.org"), "id = %any", "").checked(shows("left.example.org", "right.example.org")),
		d.trial("wildcard fqdn", id("left.example.org"), id("*.example.org"), id("right.example.org"), id("*.example.org")).checked(shows("left.example.org", "right.example.org")),
		d.trial("wildcard email", id("left@example.org"), id("*@example.org"), id("right@example.org"), id("*@example.org")).checked(shows("left@example.org", "right@example.org")),
		d.trial("wildcard dn", id(leftDN), id("C=CH, O=*, OU=Lab, CN=*"), id(rightDN), id("C=CH, O=Adit, OU=*, CN=*")).checked(shows(leftDN, rightDN)),
		d.trial("any", id(leftDN), "id = %any", id(rightDN), "id = %any").checked(shows(leftDN, rightDN)),

		d.trial("not in the certificate", id("other.example.org"), id("right.example.org"), id("right.example.org"), id("other.example.org")).
			refusedAtRight("other.example.org", "left.example.org"),
		d.trial("responder's not in the certificate", id("left.example.org"), id("other.example.org"), id("other.example.org"), id("left.example.org")).
			refusedAtLeft("other.example.org", "right.example.org"),
		d.trial("CN is no FQDN", id("left"), id("right.example.org"), id("right.example.org"), id("left")).refusedAtRight("not one of left"),
		d.trial("remote.id is another", id("left.example.org"), id("right.example.org"), id("right.example.org"), id("left@example.org")).
			refusedAtRight("does not match left.example.org"),
		d.trial("responder is another", id("left.example.org"), id("left.example.org"), id("right.example.org"), id("left.example.org")).
			refusedAtRight("left.example.org"),
		d.trial("wildcard does not reach", id("left.example.org"), id("right.example.org"), id("right.example.org"), id("*.example.com")).
			refusedAtRight("does not match left.example.org"),
		d.trial("dn differs", id(leftDN), id(rightDN), id(rightDN), id("C=CH, O=Other, OU=*, CN=*")).refusedAtRight("does not match"),
		d.trial("dn has fewer parts", id(leftDN), id(rightDN), id(rightDN), id("C=CH, O=Adit, CN=*")).refusedAtRight("does not match"),
		d.trial("IPv4 of another", id("192.0.2.9"), id("192.0.2.2"), id("192.0.2.2"), id("192.0.2.9")).refusedAtRight("192.0.2.9"),
	}
	across(t, settings{middle: lab.Bridge}, func(t *testing.T, p *path) { p.tries(trials) })
}

// Several connections between the same addresses: the responder takes the one that
// the identities, authorities, keys and methods fit, and lists its name; strongSwan
// is held to the same expectations.
func TestCertChoice(t *testing.T) {
	t.Parallel()
	one, two := pkitest.NewCA(t, pkitest.Spec{Name: "CA one"}), pkitest.NewCA(t, pkitest.Spec{Name: "CA two"})
	right := one.Issue(pkitest.Spec{Name: "right", DNS: []string{"right.example.org", "other.example.org"}})
	alice := one.Issue(pkitest.Spec{Name: "alice", DNS: []string{"alice.example.org"}})
	bob := two.Issue(pkitest.Spec{Name: "bob", DNS: []string{"bob.example.org"}})
	three := pkitest.NewCA(t, pkitest.Spec{Name: "CA three", Key: pkitest.RSA2048}) // strengths hold for its key, too
	carol := three.Issue(pkitest.Spec{Name: "carol", DNS: []string{"carol.example.com"}, Key: pkitest.RSA2048})
	key := func(ids ...string) string {
		var b strings.Builder
		for i, id := range ids {
			fmt.Fprintf(&b, "id-%d = %s\n", i, id)
		}
		return "secrets {\nike-x {\n" + b.String() + "secret = \"shared by two\"\n}\n}\n"
	}
	const pubkey, mine = "auth = pubkey\n", "auth = pubkey\ncerts = right.pem\nid = right.example.org"
	choices := []struct {
		name   string
		right  []site
		left   map[string]string // by the connection that is to be chosen: the local section
		remote string            // the left's remote section
	}{
		{"exact before wildcard", []site{
			{name: "wild", local: mine, remote: pubkey + "id = *.example.org"},
			{name: "exact", local: mine, remote: pubkey + "id = alice.example.org"},
		}, map[string]string{"exact": "alice", "wild": "bob"}, ""},
		{"by authority", []site{
			{name: "first", local: mine, remote: pubkey + "cacerts = one.pem"},
			{name: "second", local: mine, remote: pubkey + "cacerts = two.pem"},
		}, map[string]string{"first": "alice", "second": "bob"}, ""},
		{"by kind of key", []site{
			{name: "ec", local: mine, remote: "auth = ecdsa-256"},
			{name: "rsa", local: mine, remote: "auth = rsa-2048"},
		}, map[string]string{"ec": "alice", "rsa": "carol"}, ""},
		{"by method", []site{
			{name: "psk", local: mine, remote: "auth = psk"},
			{name: "cert", local: mine, remote: pubkey},
		}, map[string]string{"cert": "alice", "psk": "psk"}, ""},
		{"by certificate", []site{
			{name: "his", local: mine, remote: pubkey + "id = %any\ncerts = bob.pem"},
			{name: "hers", local: mine, remote: pubkey + "id = %any\ncerts = alice.pem"},
		}, map[string]string{"his": "bob", "hers": "alice"}, ""},
		{"by IDr", []site{
			{name: "usual", local: mine, remote: pubkey},
			{name: "other", local: "auth = pubkey\ncerts = right.pem\nid = other.example.org", remote: pubkey},
		}, map[string]string{"other": "alice"}, "id = other.example.org"},
	}
	people := map[string]*pkitest.Entity{"alice": alice, "bob": bob, "carol": carol}
	section := func(who string) string {
		if who == "psk" {
			return "auth = psk\nid = alice.example.org"
		}
		return fmt.Sprintf("auth = pubkey\ncerts = %s.pem\nid = %s", who, people[who].Cert.X509.DNSNames[0])
	}
	cas := files{"x509ca/one.pem": one.PEM(), "x509ca/two.pem": two.PEM(), "x509ca/three.pem": three.PEM()}
	leftFiles := cas.and(owned("alice", alice)).and(owned("bob", bob)).and(owned("carol", carol))
	rightFiles := cas.and(owned("right", right)).and(files{"x509/alice.pem": alice.PEM(), "x509/bob.pem": bob.PEM()})
	across(t, settings{middle: lab.Bridge}, func(t *testing.T, p *path) {
		l, r := p.ends(false)
		for _, c := range choices {
			remote := c.remote
			if remote == "" {
				remote = "id = right.example.org"
			}
			var sites []site
			for _, s := range c.right {
				if who, ok := c.left[s.name]; ok {
					sites = append(sites, site{name: s.name, local: section(who), remote: pubkey + remote})
				}
			}
			p.give(setting{leftFiles, l.with(key("alice.example.org", "right.example.org"), sites...)},
				setting{rightFiles, r.with(key("alice.example.org", "right.example.org"), c.right...)})
			for _, s := range sites {
				if _, got := p.reach(t, s.name); got.Name != s.name {
					t.Errorf("%s: %s was chosen for %s", c.name, got.Name, s.name)
				}
			}
		}
	})
}

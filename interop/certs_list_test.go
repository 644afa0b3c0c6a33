package interop_test

import (
	"slices"
	"strings"
	"testing"

	"adit/interop/peer"
	"adit/pki/pkitest"
)

// What swanctl lists of the same files and configuration is the same, whichever
// daemon it asks: certificates with their keys, authorities, connections.
func TestListings(t *testing.T) {
	t.Parallel()
	root := pkitest.NewCA(t, pkitest.Spec{Name: "root"})
	sub := root.IssueCA(pkitest.Spec{Name: "intermediate", Key: pkitest.RSA2048})
	mine := sub.Issue(pkitest.Spec{Name: "left", DNS: []string{leftID}, Emails: []string{"left@example.org"}, IPs: []string{"192.0.2.1", "2001:db8::1"}, CRL: []string{statusURL + "/crl"}})
	other := root.Issue(pkitest.Spec{Name: "right", DNS: []string{rightID}, Key: pkitest.RSA3072})
	raw := pkitest.NewSelfSigned(t, pkitest.Spec{Name: "raw", Key: pkitest.Ed25519})
	f := owned("mine", mine).and(files{"x509/other.pem": other.PEM(), "x509ca/root.pem": root.PEM(), "x509ca/sub.pem": sub.PEM(),
		"x509crl/root.crl": root.CRL(pkitest.List{}), "pubkey/raw.pem": raw.PublicPEM()})
	s := site{name: "net", local: "auth = pubkey\ncerts = mine.pem", remote: "auth = rsa-2048-sha256\ncerts = other.pem\ncacerts = root.pem\nrevocation = strict",
		rounds: "local-2 {\nauth = psk\nid = again\n}\nremote-2 {\nauth = psk\n}\n"}
	top := "authorities {\nroot {\ncacert = root.pem\ncrl_uris = http://192.0.2.2/a, http://192.0.2.2/b\nocsp_uris = http://192.0.2.2/c\ncert_uri_base = http://192.0.2.2/d/\n}\n}\n"
	for _, ends := range []pair{{adit, strongSwan}} {
		t.Run(ends.String(), func(t *testing.T) {
			t.Parallel()
			runOne(t, ends, settings{noAttach: true}, func(t *testing.T, p *path) {
				l, _ := p.ends(false)
				text := l.with(top, s)
				p.give(setting{f, text}, setting{f, text})
				p.sameListing("--list-certs")
				p.sameListing("--list-certs", "--subject", "CN=left")
				p.sameListing("--list-certs", "--type", "x509", "--flag", "ca")
				p.sameListing("--list-certs", "--pem")
				p.sameListing("--list-authorities")
				p.sameListing("--list-conns")
			})
		})
	}
}

// sameListing compares what swanctl prints about both daemons, line by line in any
// order.
func (p *path) sameListing(args ...string) {
	p.t.Helper()
	lines := func(g peer.Gateway) []string {
		out, err := g.Swanctl(args...)
		if err != nil {
			p.t.Fatal(err)
		}
		list := strings.Split(strings.TrimSpace(out), "\n")
		slices.Sort(list)
		return list
	}
	left, right := lines(p.left), lines(p.right)
	only := func(a, b []string) (list []string) {
		for _, line := range a {
			if !slices.Contains(b, line) {
				list = append(list, line)
			}
		}
		return list
	}
	if a, b := only(left, right), only(right, left); len(a)+len(b) > 0 || len(left) != len(right) {
		p.t.Errorf("swanctl %v:\nonly of %s:\n%s\nonly of %s:\n%s", args, p.left.Name(), strings.Join(a, "\n"), p.right.Name(), strings.Join(b, "\n"))
	}
	if len(left) < 3 {
		p.t.Errorf("swanctl %v printed only %q", args, left)
	}
}

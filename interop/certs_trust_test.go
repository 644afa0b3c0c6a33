package interop_test

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"adit/interop/lab"
	"adit/pki"
	"adit/pki/pkitest"
)

// usual is a trial with the usual identities, certificates of one authority or two,
// and further lines of the remote sections.
func usual(name string, left, right *pkitest.Entity, leftRemote, rightRemote string, anchors ...*pkitest.Entity) trial {
	side := func(e *pkitest.Entity, id, peerID, more string) end {
		if !strings.Contains(more, "auth =") {
			more += "\nauth = pubkey"
		}
		return end{files: owned("mine", e).and(trusted(anchors...)), local: "auth = pubkey\ncerts = mine.pem\nid = " + id, remote: "id = " + peerID + "\n" + more}
	}
	return trial{name: name, left: side(left, leftID, rightID, leftRemote), right: side(right, rightID, leftID, rightRemote)}
}

// leaf is a certificate for the left's identity, or the right's.
func leaf(ca *pkitest.Entity, id string, more pkitest.Spec) *pkitest.Entity {
	more.Name, more.DNS = strings.TrimSuffix(id, ".example.org"), []string{id}
	return ca.Issue(more)
}

// with adds credential files to the ends.
func (c trial) with(left, right files) trial {
	c.left.files, c.right.files = c.left.files.and(left), c.right.files.and(right)
	return c
}

// lines adds lines to the ends' connections.
func (c trial) lines(left, right string) trial {
	c.left.extra, c.right.extra = c.left.extra+left, c.right.extra+right
	return c
}

// What the remote section demands of the peer's certificate, key and signature, and
// what send_cert and send_certreq let the peer have.
func TestCertConstraints(t *testing.T) {
	t.Parallel()
	const policy, arc = "1.3.6.1.4.1.99999.1.2", "1.3.6.1.4.1.99999.1.3"
	ca := pkitest.NewCA(t, pkitest.Spec{Name: "CA one"})
	other := pkitest.NewCA(t, pkitest.Spec{Name: "CA two"})
	rsaCA := pkitest.NewCA(t, pkitest.Spec{Name: "CA RSA", Key: pkitest.RSA3072})
	left, right := leaf(ca, leftID, pkitest.Spec{}), leaf(ca, rightID, pkitest.Spec{})
	foreign := leaf(other, leftID, pkitest.Spec{})
	rsa2, rsa3 := leaf(rsaCA, leftID, pkitest.Spec{Key: pkitest.RSA2048}), leaf(rsaCA, leftID, pkitest.Spec{Key: pkitest.RSA3072})
	// Peer quirk (strongSwan 5.9): the root must have the policy, too; RFC 5280 §6.1.1
	// does not ask for it.
	policyCA := pkitest.NewCA(t, pkitest.Spec{Name: "CA with policies", Policies: []string{policy, arc}})
	withPolicy, withArc := leaf(policyCA, leftID, pkitest.Spec{Policies: []string{policy}}), leaf(policyCA, leftID, pkitest.Spec{Policies: []string{arc}})
	trials := []trial{
		usual("cacerts", left, right, "cacerts = ca0.pem", "cacerts = ca0.pem", ca, other),
		usual("cacerts of another", foreign, right, "", "cacerts = ca0.pem", ca, other).refusedAtRight("not issued by a CA that is asked for"),
		usual("initiator's cacerts", left, right, "cacerts = ca1.pem", "", ca, other).refusedAtLeft("not issued by a CA that is asked for"),
		usual("certs", left, right, "certs = right.pem", "certs = left.pem", ca).with(files{"x509/right.pem": right.PEM()}, files{"x509/left.pem": left.PEM()}),
		usual("certs of another", leaf(ca, leftID, pkitest.Spec{}), right, "", "certs = left.pem", ca).with(nil, files{"x509/left.pem": left.PEM()}).refusedAtRight("not a certificate that is asked for"),
		usual("cert_policy", withPolicy, right, "", "cert_policy = "+policy, ca, policyCA),
		usual("cert_policy is another", withArc, right, "", "cert_policy = "+policy, ca, policyCA).refusedAtRight("policy", policy),
		usual("cert_policy without policy", left, right, "", "cert_policy = "+policy, ca, policyCA).refusedAtRight("policy", policy),
		usual("key is strong enough", rsa3, right, "", "auth = rsa-3072", ca, rsaCA),
		usual("key is too weak", rsa2, right, "", "auth = rsa-3072", ca, rsaCA).refusedAtRight("2048", "3072"),
		usual("kind of key", left, right, "", "auth = rsa-2048", ca).refusedAtRight("ECDSA"),
		usual("hash", left, right, "", "auth = ecdsa-sha256", ca),
		usual("hash of the chain", left, right, "", "auth = ecdsa-sha384", ca).refusedAtRight("sha384"),
		usual("scheme of IKE", rsa2, right, "", "auth = pubkey-ike:rsa/pss-sha256", ca, rsaCA).refusedAtRight("rsa/pss-sha256"),
		usual("scheme of IKE, met", rsa2, right, "", "auth = pubkey-ike:rsa-sha256-sha384", ca, rsaCA),

		usual("send_cert never, loaded", left, right, "", "", ca).lines("send_cert = never\n", "").with(nil, files{"x509/left.pem": left.PEM()}),
		usual("send_cert never", left, right, "", "", ca).lines("send_cert = never\n", "").refusedAtRight("the peer sent no certificate"),
		usual("send_cert ifasked, not asked", left, right, "", "", ca).lines("send_cert = ifasked\n", "send_certreq = no\n").refusedAtRight("the peer sent no certificate"),
		usual("send_cert always, not asked", left, right, "", "", ca).lines("send_cert = always\n", "send_certreq = no\n"),
		usual("responder not asked", left, right, "", "", ca).lines("send_certreq = no\n", "send_cert = ifasked\n").refusedAtLeft("the peer sent no certificate"),
		usual("responder sends always", left, right, "", "", ca).lines("send_certreq = no\n", "send_cert = always\n"),
	}
	across(t, settings{middle: lab.Bridge}, func(t *testing.T, p *path) { p.tries(trials) })
}

// Certificates that nobody should believe, each with its reason in adit's log; where
// strongSwan is less strict, it may take them.
func TestCertRefusals(t *testing.T) {
	t.Parallel()
	ca, unknown := pkitest.NewCA(t, pkitest.Spec{Name: "CA"}), pkitest.NewCA(t, pkitest.Spec{Name: "CA that nobody knows"})
	impostor := pkitest.NewCA(t, pkitest.Spec{Name: "CA"})
	right := leaf(ca, rightID, pkitest.Spec{})
	short := ca.IssueCA(pkitest.Spec{Name: "short", MaxPathLen: -1})
	long := short.IssueCA(pkitest.Spec{Name: "too long"})
	narrow := ca.IssueCA(pkitest.Spec{Name: "narrow", PermittedDNS: []string{"example.com"}})
	now := time.Now()
	bad := func(name string, e *pkitest.Entity, why ...string) trial {
		c := usual(name, e, right, "", "", ca).refusedAtRight(why...)
		for i, sub := range e.Intermediates() {
			if sub.IsCA() { // else neither daemon loads it
				c.left.files[fmt.Sprintf("x509ca/sub%d.pem", i)] = sub.DER()
			}
		}
		return c
	}
	critical := pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 7}, Critical: true, Value: []byte{5, 0}}
	lax := func(c trial) trial { c.strongSwanTakes = true; return c }
	onlyAdit := func(c trial) trial { c.leftAdit = true; return c } // strongSwan does not load it
	trials := []trial{
		bad("expired", leaf(ca, leftID, pkitest.Spec{NotBefore: now.Add(-48 * time.Hour), NotAfter: now.Add(-24 * time.Hour)}), "expired"),
		bad("not yet valid", leaf(ca, leftID, pkitest.Spec{NotBefore: now.Add(24 * time.Hour), NotAfter: now.Add(48 * time.Hour)}), "not yet valid"),
		bad("unknown CA", leaf(unknown, leftID, pkitest.Spec{}), "no trusted issuer", "CA that nobody knows"),
		bad("CA of the same name", leaf(impostor, leftID, pkitest.Spec{}), "CN=left"),
		bad("self-signed", pkitest.NewSelfSigned(t, pkitest.Spec{Name: "left", DNS: []string{leftID}}), "no trusted issuer"),
		bad("issued by an end entity", right.Issue(pkitest.Spec{Name: "left", DNS: []string{leftID}})),
		bad("path length", leaf(long, leftID, pkitest.Spec{}), "chain too long"),
		bad("name constraints", leaf(narrow, leftID, pkitest.Spec{}), "name constraints"),
		onlyAdit(bad("critical extension", leaf(ca, leftID, pkitest.Spec{Extra: []pkix.Extension{critical}}), "unknown critical extension")),
		lax(bad("for mail alone", leaf(ca, leftID, pkitest.Spec{EKU: []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection}}), "key usage")),
		bad("for keys alone", leaf(ca, leftID, pkitest.Spec{KeyUsage: x509.KeyUsageKeyEncipherment}), "key usage"),
		lax(bad("signed with SHA-1", leaf(ca, leftID, pkitest.Spec{Hash: crypto.SHA1}), "signature not acceptable")),
		lax(bad("RSA of 1024 bits", leaf(ca, leftID, pkitest.Spec{Key: pkitest.RSA1024}), "1024")),
	}
	across(t, settings{middle: lab.Bridge}, func(t *testing.T, p *path) { p.tries(trials) })
}

// statusURL is where the right gateway's namespace serves CRLs and OCSP answers.
const statusURL = "http://192.0.2.2:8088"

// serve has the right gateway's namespace answer HTTP requests until the test ends.
func (p *path) serve(h http.Handler) {
	p.t.Helper()
	var ln net.Listener
	err := lab.InNS(p.NS(lab.Right), func() (err error) {
		ln, err = net.Listen("tcp", strings.TrimPrefix(statusURL, "http://"))
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ln) }()
	p.t.Cleanup(func() { srv.Close(); <-done })
}

// Revocation by files, by HTTP and by OCSP, under every policy, of certificates of
// either end. Each trial has an authority of its own: nothing is remembered from the
// one before.
func TestRevocation(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	var trials []trial
	var asked []*pkitest.Responder
	const closed = "http://192.0.2.2:8089/" // nobody listens
	n := 0
	// authority makes a CA and certificates of both ends; left says where the left
	// certificate's status is to be had.
	authority := func(left pkitest.Spec) (ca, l, r *pkitest.Entity) {
		n++
		ca = pkitest.NewCA(t, pkitest.Spec{Name: fmt.Sprint("CA ", n)})
		return ca, leaf(ca, leftID, left), leaf(ca, rightID, pkitest.Spec{})
	}
	crlAt := func(path string, ca *pkitest.Entity, revoked ...*pki.Certificate) {
		der := ca.CRL(pkitest.List{Revoked: revoked})
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(der) })
	}
	for _, revoked := range []bool{false, true} {
		verdict := func(c trial) trial {
			if revoked {
				return c.refusedAtRight("revoked")
			}
			return c
		}
		list := func(e *pkitest.Entity) []*pki.Certificate {
			if revoked {
				return []*pki.Certificate{e.Cert}
			}
			return nil
		}
		name := func(s string) string { return fmt.Sprintf("%s %v", s, revoked) }

		ca, l, r := authority(pkitest.Spec{})
		trials = append(trials, verdict(usual(name("CRL in a file"), l, r, "", "revocation = strict", ca).
			with(nil, files{"x509crl/ca.crl": ca.CRL(pkitest.List{Revoked: list(l)})})))

		uri := fmt.Sprintf("/crl%d", n)
		ca, l, r = authority(pkitest.Spec{CRL: []string{statusURL + uri}})
		crlAt(uri, ca, list(l)...)
		trials = append(trials, verdict(usual(name("CRL by HTTP"), l, r, "", "revocation = strict", ca)))

		uri = fmt.Sprintf("/ocsp%d", n)
		ca, l, r = authority(pkitest.Spec{OCSP: []string{statusURL + uri}})
		answers := &pkitest.Responder{CA: ca, ClaimCA: true}
		if revoked {
			answers.Status = func(serial *big.Int) int { return pkitest.Revoked }
		}
		mux.Handle(uri, answers)
		asked = append(asked, answers)
		trials = append(trials, verdict(usual(name("OCSP"), l, r, "", "revocation = strict", ca)))

		// The responder of the configured authority, with a certificate of its own.
		uri = fmt.Sprintf("/ocsp%d", n)
		ca, l, r = authority(pkitest.Spec{})
		answers = &pkitest.Responder{CA: ca, Status: answers.Status,
			Signer: ca.Issue(pkitest.Spec{Name: "responder", EKU: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}})}
		mux.Handle(uri, answers)
		asked = append(asked, answers)
		c := verdict(usual(name("OCSP of the authority"), l, r, "", "revocation = strict", ca))
		c.right.top = "authorities {\nmine {\ncacert = ca0.pem\nocsp_uris = " + statusURL + uri + "\n}\n}\n"
		trials = append(trials, c)

		uri = fmt.Sprintf("/crl%d", n)
		ca, l, _ = authority(pkitest.Spec{})
		r = leaf(ca, rightID, pkitest.Spec{CRL: []string{statusURL + uri}})
		crlAt(uri, ca, list(r)...)
		c = usual(name("responder's CRL"), l, r, "revocation = ifuri", "", ca)
		if revoked {
			c = c.refusedAtLeft("revoked")
		}
		trials = append(trials, c)
	}

	ca, _, r := authority(pkitest.Spec{})
	sub := ca.IssueCA(pkitest.Spec{Name: "intermediate"})
	below := usual("intermediate revoked", leaf(sub, leftID, pkitest.Spec{}), r, "", "", ca).
		with(files{"x509ca/sub.pem": sub.PEM()}, files{"x509crl/ca.crl": ca.CRL(pkitest.List{Revoked: []*pki.Certificate{sub.Cert}})})
	trials = append(trials, below.refusedAtRight("revoked", "CN=intermediate"))

	ca, l, r := authority(pkitest.Spec{})
	trials = append(trials, usual("strict, nothing known", l, r, "", "revocation = strict", ca).refusedAtRight("revocation status unknown"))
	trials = append(trials, usual("ifuri, no URI", l, r, "", "revocation = ifuri", ca))
	ca, l, r = authority(pkitest.Spec{CRL: []string{closed}, OCSP: []string{closed}})
	trials = append(trials, usual("ifuri, unreachable", l, r, "", "revocation = ifuri", ca).refusedAtRight("revocation status unknown"))
	trials = append(trials, usual("relaxed, unreachable", l, r, "", "revocation = relaxed", ca))
	trials = append(trials, usual("default, unreachable", l, r, "", "", ca))
	ca, l, r = authority(pkitest.Spec{})
	trials = append(trials, usual("strict, CRL too old", l, r, "", "revocation = strict", ca).
		with(nil, files{"x509crl/ca.crl": ca.CRL(pkitest.List{ThisUpdate: time.Now().Add(-48 * time.Hour), NextUpdate: time.Now().Add(-24 * time.Hour)})}).
		refusedAtRight("revocation status unknown"))
	forger := pkitest.NewCA(t, pkitest.Spec{Name: fmt.Sprint("CA ", n)})
	trials = append(trials, usual("strict, CRL of an impostor", l, r, "", "revocation = strict", ca).
		with(nil, files{"x509crl/ca.crl": forger.CRL(pkitest.List{})}).refusedAtRight("revocation status unknown"))
	ca, l, r = authority(pkitest.Spec{OCSP: []string{statusURL + "/replay"}})
	replay := &pkitest.Responder{CA: ca, ClaimCA: true, Nonce: pkitest.RandomNonce()}
	mux.Handle("/replay", replay)
	trials = append(trials, usual("strict, OCSP answers with another nonce", l, r, "", "revocation = strict", ca).refusedAtRight("nonce"))

	ca, l, r = authority(pkitest.Spec{CRL: []string{statusURL + "/cached"}})
	crlAt("/cached", ca)
	cached := usual("cached", l, r, "", "revocation = strict", ca)

	across(t, settings{middle: lab.Bridge}, func(t *testing.T, p *path) {
		var fetched atomic.Int64
		before := make([]int64, len(asked))
		for i, a := range asked {
			before[i] = a.Requests.Load()
		}
		p.serve(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			if q.URL.Path == "/cached" {
				fetched.Add(1)
			}
			mux.ServeHTTP(w, q)
		}))
		p.tries(trials)

		// A CRL is fetched once, listed, and fetched again after swanctl has had it
		// forgotten.
		p.tries([]trial{cached})
		p.reach(t, "net")
		out, err := p.right.Swanctl("--list-certs", "--type", "x509_crl")
		if err != nil || fetched.Load() != 1 || !strings.Contains(out, "CN="+ca.Cert.X509.Subject.CommonName) {
			t.Errorf("the CRL was fetched %d times; listed: %s %v", fetched.Load(), out, err)
		}
		if _, err := p.right.Swanctl("--flush-certs", "--type", "x509_crl"); err != nil {
			t.Error(err)
		}
		if p.reach(t, "net"); fetched.Load() != 2 {
			t.Errorf("after the flush: fetched %d times", fetched.Load())
		}
		for i, a := range asked {
			if a.Requests.Load() == before[i] {
				t.Errorf("responder %d was not asked", i)
			}
		}
	})
}

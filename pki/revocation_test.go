package pki_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"sync"
	"testing"
	"time"

	"adit/pki"
	"adit/pki/pkitest"
)

// network is a Fetcher of the test: answers by URL, and a record of what was asked.
type network struct {
	mu     sync.Mutex
	answer map[string]func(pki.FetchRequest) ([]byte, error)
	asked  []string
}

func newNetwork() *network {
	return &network{answer: map[string]func(pki.FetchRequest) ([]byte, error){}}
}

func (n *network) Fetch(_ context.Context, r pki.FetchRequest) ([]byte, error) {
	n.mu.Lock()
	n.asked = append(n.asked, r.URL)
	f := n.answer[r.URL]
	n.mu.Unlock()
	if f == nil {
		return nil, errors.New("no such host")
	}
	return f(r)
}

// fetches is how often a URL was asked.
func (n *network) fetches(url string) (count int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, u := range n.asked {
		if u == url {
			count++
		}
	}
	return count
}

// serve answers GETs of url with b.
func (n *network) serve(url string, b []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.answer[url] = func(pki.FetchRequest) ([]byte, error) { return b, nil }
}

// respond answers OCSP at url by r.
func (n *network) respond(t *testing.T, url string, r *pkitest.Responder) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.answer[url] = func(q pki.FetchRequest) ([]byte, error) {
		if q.Method != "POST" || q.ContentType != "application/ocsp-request" {
			t.Errorf("asked by %s with %q", q.Method, q.ContentType)
		}
		return r.Answer(q.Body)
	}
}

const (
	crlURL  = "http://crl.example/ca.crl"
	ocspURL = "http://ocsp.example/"
)

// scene is a CA with one leaf that names a CRL and an OCSP responder as asked.
type scene struct {
	net      *network
	store    *pki.Store
	ca, leaf *pkitest.Entity
}

func newScene(t *testing.T, kind pkitest.KeyKind, crls, ocsps []string) *scene {
	t.Helper()
	n := newNetwork()
	sc := &scene{net: n, store: pki.NewStore(n)}
	sc.ca = pkitest.NewCA(t, pkitest.Spec{Name: "root", Key: kind})
	sc.leaf = sc.ca.Issue(pkitest.Spec{Name: "leaf", Key: kind, CRL: crls, OCSP: ocsps})
	if err := sc.store.Add(pki.Anchor, sc.ca.Cert); err != nil {
		t.Fatal(err)
	}
	return sc
}

// request is for the leaf under a policy.
func (sc *scene) request(p pki.Policy) pki.VerifyRequest {
	r := request(sc.leaf)
	r.Revocation = p
	return r
}

// load stores a CRL.
func (sc *scene) load(t *testing.T, der []byte) {
	t.Helper()
	l, err := pki.ParseCRL(der)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sc.store.AddCRL(l); err != nil {
		t.Fatal(err)
	}
}

// TestRevocationPolicies is strict, ifuri and relaxed against what is known.
func TestRevocationPolicies(t *testing.T) {
	yes, no := true, false
	for name, tc := range map[string]struct {
		uri                     bool // the leaf names a CRL
		crl                     int  // 0: none to be had, 1: good, 2: revoked
		strict, ifuri, relaxing bool
	}{
		"no URI, nothing known":      {false, 0, no, yes, yes},
		"no URI, good by a file":     {false, 1, yes, yes, yes},
		"no URI, revoked by file":    {false, 2, no, no, no},
		"URI that doesn't answer":    {true, 0, no, no, yes},
		"URI that says good":         {true, 1, yes, yes, yes},
		"URI that says it's revoked": {true, 2, no, no, no},
	} {
		t.Run(name, func(t *testing.T) {
			for policy, good := range map[pki.Policy]bool{pki.Strict: tc.strict, pki.IfURI: tc.ifuri, pki.Relaxed: tc.relaxing} {
				var crls []string
				if tc.uri {
					crls = []string{crlURL}
				}
				sc := newScene(t, pkitest.P256, crls, nil)
				list := pkitest.List{Reason: 1}
				if tc.crl == 2 {
					list.Revoked = []*pki.Certificate{sc.leaf.Cert}
				}
				switch {
				case tc.crl > 0 && tc.uri:
					sc.net.serve(crlURL, sc.ca.CRL(list))
				case tc.crl > 0:
					sc.load(t, sc.ca.CRL(list))
				}
				switch {
				case good:
					accepted(t, sc.store, sc.request(policy), "leaf root")
				case tc.crl == 2:
					ve := refused(t, sc.store, sc.request(policy), pki.Revoked, "keyCompromise")
					if ve.RevokedAt.IsZero() || ve.RevokedFor != "keyCompromise" {
						t.Errorf("revoked %v for %q", ve.RevokedAt, ve.RevokedFor)
					}
				default:
					refused(t, sc.store, sc.request(policy), pki.RevocationUnknown, "")
				}
			}
		})
	}
}

// TestRFC5280_5_CRL refuses CRLs that say nothing about the certificate, whatever they
// look like.
func TestRFC5280_5_CRL(t *testing.T) {
	now := time.Now()
	other := pkitest.NewCA(t, pkitest.Spec{Name: "other"})
	twin := pkitest.NewCA(t, pkitest.Spec{Name: "root"})
	for name, tc := range map[string]struct {
		make func(*scene) []byte
		want string
	}{
		"of another issuer":        {func(sc *scene) []byte { return other.CRL(pkitest.List{}) }, "another issuer"},
		"of the issuer's namesake": {func(sc *scene) []byte { return twin.CRL(pkitest.List{}) }, "signature is wrong"},
		"in the issuer's name":     {func(sc *scene) []byte { return other.CRL(pkitest.List{Issuer: sc.ca.Cert}) }, "signature is wrong"},
		"stale":                    {func(sc *scene) []byte { return sc.ca.CRL(pkitest.List{ThisUpdate: now.AddDate(0, 0, -9)}) }, "stale"},
		"from the future":          {func(sc *scene) []byte { return sc.ca.CRL(pkitest.List{ThisUpdate: now.Add(time.Hour)}) }, "from the future"},
		"indirect": {func(sc *scene) []byte {
			return sc.ca.CRL(pkitest.List{Extra: []pkix.Extension{pkitest.DistributionPoint("", 4)}})
		}, "indirect"},
		"for attributes": {func(sc *scene) []byte {
			return sc.ca.CRL(pkitest.List{Extra: []pkix.Extension{pkitest.DistributionPoint("", 5)}})
		}, "attribute"},
		"for CAs": {func(sc *scene) []byte {
			return sc.ca.CRL(pkitest.List{Extra: []pkix.Extension{pkitest.DistributionPoint("", 2)}})
		}, "doesn't cover"},
		"of another point": {func(sc *scene) []byte {
			return sc.ca.CRL(pkitest.List{Extra: []pkix.Extension{pkitest.DistributionPoint("http://crl.example/2", 0)}})
		}, "doesn't cover"},
		"a delta": {func(sc *scene) []byte {
			return sc.ca.CRL(pkitest.List{Number: 3, Extra: []pkix.Extension{pkitest.DeltaOf(2)}})
		}, "delta"},
		"critical and unknown": {func(sc *scene) []byte {
			return sc.ca.CRL(pkitest.List{Extra: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}})
		}, "isn't known"},
		"not a CRL": {func(sc *scene) []byte { return sc.ca.PEM() }, "no CRL"},
		"empty":     {func(sc *scene) []byte { return nil }, "no CRL"},
	} {
		t.Run(name, func(t *testing.T) {
			sc := newScene(t, pkitest.P256, []string{crlURL}, nil)
			sc.net.serve(crlURL, tc.make(sc))
			refused(t, sc.store, sc.request(pki.Strict), pki.RevocationUnknown, tc.want)
			accepted(t, sc.store, sc.request(pki.Relaxed), "leaf root")
			// It isn't asked again at once.
			if n := sc.net.fetches(crlURL); n != 1 {
				t.Errorf("fetched %d times", n)
			}
			r := sc.request(pki.Strict)
			r.At = now.Add(2 * time.Minute)
			refused(t, sc.store, r, pki.RevocationUnknown, "")
			again := 2
			if tc.want == "doesn't cover" {
				again = 1 // a good list for others is cached
			}
			if n := sc.net.fetches(crlURL); n != again {
				t.Errorf("fetched %d times after the hold", n)
			}
		})
	}
	for name, ext := range map[string]pkix.Extension{"for users": pkitest.DistributionPoint("", 1), "of the point": pkitest.DistributionPoint(crlURL, 1)} {
		t.Run(name, func(t *testing.T) {
			sc := newScene(t, pkitest.P256, []string{crlURL}, nil)
			sc.net.serve(crlURL, sc.ca.CRL(pkitest.List{Extra: []pkix.Extension{ext}}))
			accepted(t, sc.store, sc.request(pki.Strict), "leaf root")
		})
	}
	noSign := pkitest.NewCA(t, pkitest.Spec{Name: "root", KeyUsage: x509.KeyUsageCertSign})
	leaf := noSign.Issue(pkitest.Spec{Name: "leaf"})
	sc := &scene{store: storeOf(t, noSign), leaf: leaf}
	sc.load(t, noSign.CRL(pkitest.List{}))
	refused(t, sc.store, sc.request(pki.Strict), pki.RevocationUnknown, "may not sign CRLs")
}

// TestRFC5280_5_2_4_DeltaCRL adds a stored delta to a stored base.
func TestRFC5280_5_2_4_DeltaCRL(t *testing.T) {
	sc := newScene(t, pkitest.P256, nil, nil)
	revoked := []*pki.Certificate{sc.leaf.Cert}
	delta := func(base byte, number int64, reason int) []byte {
		return sc.ca.CRL(pkitest.List{Revoked: revoked, Reason: reason, Number: number, Extra: []pkix.Extension{pkitest.DeltaOf(base)}})
	}
	sc.load(t, sc.ca.CRL(pkitest.List{Number: 5}))
	accepted(t, sc.store, sc.request(pki.Strict), "leaf root")
	sc.load(t, delta(6, 7, 1)) // builds on one that we don't have
	accepted(t, sc.store, sc.request(pki.Strict), "leaf root")
	sc.load(t, delta(5, 8, 6))
	refused(t, sc.store, sc.request(pki.Relaxed), pki.Revoked, "certificateHold")
	sc.load(t, delta(5, 9, 8)) // removeFromCRL
	accepted(t, sc.store, sc.request(pki.Strict), "leaf root")
}

// TestCRLNewestCounts keeps the newer of two CRLs, whichever comes first.
func TestCRLNewestCounts(t *testing.T) {
	sc := newScene(t, pkitest.P256, nil, nil)
	sc.load(t, sc.ca.CRL(pkitest.List{Number: 2, Revoked: []*pki.Certificate{sc.leaf.Cert}}))
	sc.load(t, sc.ca.CRL(pkitest.List{Number: 1}))
	refused(t, sc.store, sc.request(pki.Relaxed), pki.Revoked, "")
	if n := len(sc.store.CRLs()); n != 1 {
		t.Fatalf("%d CRLs are kept", n)
	}
	// A list of a CA of the same name doesn't displace it.
	sc.load(t, pkitest.NewCA(t, pkitest.Spec{Name: "root"}).CRL(pkitest.List{Number: 9}))
	refused(t, sc.store, sc.request(pki.Relaxed), pki.Revoked, "")
	sc.load(t, sc.ca.CRL(pkitest.List{Number: 3}))
	accepted(t, sc.store, sc.request(pki.Strict), "leaf root")
}

// TestCRLCached fetches once until the list is stale, and again after a flush; many at
// once share a fetch.
func TestCRLCached(t *testing.T) {
	for _, kind := range []pkitest.KeyKind{pkitest.P256, pkitest.Ed448} {
		sc := newScene(t, kind, []string{crlURL}, nil)
		der := sc.ca.CRL(pkitest.List{NextUpdate: time.Now().Add(time.Hour)})
		sc.net.answer[crlURL] = func(pki.FetchRequest) ([]byte, error) { time.Sleep(100 * time.Millisecond); return der, nil }
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if _, err := sc.store.Verify(context.Background(), sc.request(pki.Strict)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := sc.net.fetches(crlURL); n != 1 {
			t.Fatalf("fetched %d times", n)
		}
		if len(sc.store.CRLs()) != 1 {
			t.Fatal("not listed")
		}
		sc.store.FlushCache()
		accepted(t, sc.store, sc.request(pki.Strict), "leaf root")
		r := sc.request(pki.Strict)
		r.At = time.Now().Add(2 * time.Hour)
		refused(t, sc.store, r, pki.RevocationUnknown, "stale")
		if n := sc.net.fetches(crlURL); n != 3 {
			t.Fatalf("fetched %d times after flush and staleness", n)
		}
	}
}

// TestCVE2022_40617_UntrustedFetchesNothing asks no URI of a chain that isn't trusted,
// at no place of it.
func TestCVE2022_40617_UntrustedFetchesNothing(t *testing.T) {
	evil := pkitest.NewCA(t, pkitest.Spec{Name: "evil", CRL: []string{crlURL}, OCSP: []string{ocspURL}})
	sub := evil.IssueCA(pkitest.Spec{Name: "sub", CRL: []string{crlURL}, OCSP: []string{ocspURL}})
	leaf := sub.Issue(pkitest.Spec{Name: "leaf", CRL: []string{crlURL}, OCSP: []string{ocspURL}})
	sc := newScene(t, pkitest.P256, nil, nil)
	for _, p := range []pki.Policy{pki.Strict, pki.IfURI, pki.Relaxed} {
		r := request(leaf)
		r.Intermediates, r.Revocation = append(r.Intermediates, evil.Cert), p
		refused(t, sc.store, r, pki.Untrusted, "")
		r = request(pkitest.NewSelfSigned(t, pkitest.Spec{CRL: []string{crlURL}, OCSP: []string{ocspURL}}))
		refused(t, sc.store, r, pki.Untrusted, "")
	}
	// Neither one that fails a constraint, nor below a CA that is revoked.
	good := sc.ca.Issue(pkitest.Spec{Name: "leaf", CRL: []string{crlURL}, OCSP: []string{ocspURL}})
	r := request(good)
	r.Anchors = []*pki.Certificate{evil.Cert}
	refused(t, sc.store, r, pki.WrongCA, "")
	bad := sc.ca.IssueCA(pkitest.Spec{Name: "bad"})
	sc.load(t, sc.ca.CRL(pkitest.List{Revoked: []*pki.Certificate{bad.Cert}}))
	refused(t, sc.store, request(bad.Issue(pkitest.Spec{CRL: []string{crlURL}, OCSP: []string{ocspURL}})), pki.Revoked, `"CN=bad"`)
	if len(sc.net.asked) > 0 {
		t.Fatalf("asked %v", sc.net.asked)
	}
}

// TestAuthorityURIs asks the operator's URIs first, and says that they are.
func TestAuthorityURIs(t *testing.T) {
	sc := newScene(t, pkitest.P256, []string{crlURL}, nil)
	const local = "http://127.0.0.1/ca.crl"
	der := sc.ca.CRL(pkitest.List{})
	configured := false
	sc.net.answer[local] = func(r pki.FetchRequest) ([]byte, error) { configured = r.Configured; return der, nil }
	if err := sc.store.SetAuthority(pki.Authority{Name: "a", CA: sc.ca.Cert, CRLs: []string{local}, CertURIBase: "http://certs.example/"}); err != nil {
		t.Fatal(err)
	}
	accepted(t, sc.store, sc.request(pki.Strict), "leaf root")
	if !configured || sc.net.fetches(crlURL) != 0 {
		t.Fatalf("configured: %v, asked %v", configured, sc.net.asked)
	}
	if u := sc.store.CertURL(sc.leaf.Cert); len(u) != len("http://certs.example/")+40 {
		t.Fatalf("hash and URL: %q", u)
	}
	if !sc.store.RemoveAuthority("a") || sc.store.RemoveAuthority("a") || sc.store.CertURL(sc.leaf.Cert) != "" {
		t.Fatal("authority isn't removed")
	}
}

// TestRFC6960_OCSP accepts honest responses of every kind of key, by the CA or
// delegated, and says what is revoked.
func TestRFC6960_OCSP(t *testing.T) {
	for _, kind := range allKinds {
		t.Run(string(kind), func(t *testing.T) {
			sc := newScene(t, kind, nil, []string{ocspURL})
			delegate := sc.ca.Issue(pkitest.Spec{Name: "ocsp", Key: kind, EKU: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}})
			for _, signer := range []*pkitest.Entity{nil, delegate} {
				r := &pkitest.Responder{CA: sc.ca, Signer: signer}
				sc.net.respond(t, ocspURL, r)
				sc.store.FlushCache()
				accepted(t, sc.store, sc.request(pki.Strict), "leaf root")
				accepted(t, sc.store, sc.request(pki.Strict), "leaf root")
				if n := r.Requests.Load(); n != 1 {
					t.Errorf("asked %d times", n)
				}
				r.Status = func(*big.Int) int { return pkitest.Revoked }
				r.Reason = 4
				accepted(t, sc.store, sc.request(pki.Strict), "leaf root") // cached
				sc.store.FlushCache()
				refused(t, sc.store, sc.request(pki.Relaxed), pki.Revoked, "superseded")
			}
		})
	}
}

// TestRFC6960_OCSPRefused refuses forged, replayed and useless responses; a CRL is
// asked instead.
func TestRFC6960_OCSPRefused(t *testing.T) {
	now := time.Now()
	signing := []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}
	evil := pkitest.NewCA(t, pkitest.Spec{Name: "root"}) // of the same name
	for name, tc := range map[string]struct {
		make func(*scene) *pkitest.Responder
		want string
	}{
		"nonce of another": {func(sc *scene) *pkitest.Responder { return &pkitest.Responder{Nonce: pkitest.RandomNonce()} }, "nonce differs"},
		"empty nonce":      {func(sc *scene) *pkitest.Responder { return &pkitest.Responder{Nonce: []byte{}} }, "nonce differs"},
		"replayed without nonce": {func(sc *scene) *pkitest.Responder {
			return &pkitest.Responder{NoNonce: true, ThisUpdate: now.AddDate(0, 0, -3), NextUpdate: now.AddDate(0, 0, -2)}
		}, "stale"},
		"old without nextUpdate": {func(sc *scene) *pkitest.Responder {
			return &pkitest.Responder{NoNextUpdate: true, ThisUpdate: now.Add(-2 * time.Hour)}
		}, "stale"},
		"from the future": {func(sc *scene) *pkitest.Responder { return &pkitest.Responder{ThisUpdate: now.Add(time.Hour)} }, "from the future"},
		"unknown": {func(sc *scene) *pkitest.Responder {
			return &pkitest.Responder{Status: func(*big.Int) int { return pkitest.Unknown }}
		}, "doesn't know"},
		"about another":    {func(sc *scene) *pkitest.Responder { return &pkitest.Responder{Serial: big.NewInt(7)} }, "other certificates"},
		"try later":        {func(sc *scene) *pkitest.Responder { return &pkitest.Responder{Error: 3} }, "tryLater"},
		"signed by a leaf": {func(sc *scene) *pkitest.Responder { return &pkitest.Responder{Signer: sc.ca.Issue(pkitest.Spec{})} }, "isn't delegated"},
		"in the CA's name": {func(sc *scene) *pkitest.Responder {
			return &pkitest.Responder{Signer: sc.ca.Issue(pkitest.Spec{EKU: signing}), ClaimCA: true}
		}, "signature is wrong"},
		"by the CA's namesake": {func(sc *scene) *pkitest.Responder { return &pkitest.Responder{Signer: evil} }, "isn't delegated"},
		"delegated by the namesake": {func(sc *scene) *pkitest.Responder {
			return &pkitest.Responder{Signer: evil.Issue(pkitest.Spec{EKU: signing})}
		}, "is forged"},
		"delegated by another CA": {func(sc *scene) *pkitest.Responder {
			return &pkitest.Responder{Signer: pkitest.NewCA(t, pkitest.Spec{Name: "x"}).Issue(pkitest.Spec{EKU: signing})}
		}, "not by the CA"},
		"delegated below an intermediate": {func(sc *scene) *pkitest.Responder {
			return &pkitest.Responder{Signer: sc.ca.IssueCA(pkitest.Spec{Name: "sub"}).Issue(pkitest.Spec{EKU: signing})}
		}, "not by the CA"},
		"expired delegate": {func(sc *scene) *pkitest.Responder {
			return &pkitest.Responder{Signer: sc.ca.Issue(pkitest.Spec{EKU: signing, NotBefore: now.AddDate(-2, 0, 0)})}
		}, "not valid now"},
		"without its certificate": {func(sc *scene) *pkitest.Responder {
			return &pkitest.Responder{Signer: sc.ca.Issue(pkitest.Spec{EKU: signing}), WithoutKey: true}
		}, "somebody else"},
		"an intermediate's key": {func(sc *scene) *pkitest.Responder {
			return &pkitest.Responder{Signer: sc.ca.IssueCA(pkitest.Spec{Name: "sub"})}
		}, "isn't delegated"},
	} {
		t.Run(name, func(t *testing.T) {
			sc := newScene(t, pkitest.P256, []string{crlURL}, []string{ocspURL})
			r := tc.make(sc)
			r.CA = sc.ca
			sc.net.respond(t, ocspURL, r)
			refused(t, sc.store, sc.request(pki.Strict), pki.RevocationUnknown, tc.want)
			sc.net.serve(crlURL, sc.ca.CRL(pkitest.List{}))
			sc.store.FlushCache()
			accepted(t, sc.store, sc.request(pki.Strict), "leaf root")
			// Nor does a forged response revoke anything.
			if r.Status == nil && r.Error == 0 {
				r.Status = func(*big.Int) int { return pkitest.Revoked }
				sc.store.FlushCache()
				accepted(t, sc.store, sc.request(pki.Strict), "leaf root")
			}
		})
	}
	t.Run("no nonce", func(t *testing.T) { // signed in advance, within its times
		sc := newScene(t, pkitest.P256, nil, []string{ocspURL})
		sc.net.respond(t, ocspURL, &pkitest.Responder{CA: sc.ca, NoNonce: true})
		accepted(t, sc.store, sc.request(pki.Strict), "leaf root")
	})
	t.Run("garbage", func(t *testing.T) {
		sc := newScene(t, pkitest.P256, nil, []string{ocspURL})
		for _, b := range [][]byte{nil, {0x30, 0}, bytes.Repeat([]byte{0x30, 0x80}, 1000), make([]byte, 1<<17)} {
			sc.store.FlushCache()
			sc.net.serve(ocspURL, b)
			refused(t, sc.store, sc.request(pki.Strict), pki.RevocationUnknown, ocspURL)
		}
	})
}

// TestRFC8954_NoncesDiffer sends a fresh nonce of 32 octets with each request.
func TestRFC8954_NoncesDiffer(t *testing.T) {
	sc := newScene(t, pkitest.P256, nil, []string{ocspURL})
	var asked [][]byte
	r := &pkitest.Responder{CA: sc.ca}
	sc.net.answer[ocspURL] = func(q pki.FetchRequest) ([]byte, error) {
		asked = append(asked, bytes.Clone(q.Body))
		return r.Answer(q.Body)
	}
	for range 2 {
		sc.store.FlushCache()
		accepted(t, sc.store, sc.request(pki.Strict), "leaf root")
	}
	a, b := asked[0][len(asked[0])-32:], asked[1][len(asked[1])-32:]
	if bytes.Equal(a, b) || !bytes.Equal(asked[0][:40], asked[1][:40]) {
		t.Fatalf("nonces %x and %x", a, b)
	}
}

// TestRFC4806_Stapled takes responses that the peer sends along, and asks nobody then.
func TestRFC4806_Stapled(t *testing.T) {
	sc := newScene(t, pkitest.P256, []string{crlURL}, []string{ocspURL})
	r := &pkitest.Responder{CA: sc.ca}
	req := sc.request(pki.Strict)
	req.OCSP = [][]byte{{1, 2, 3}, (&pkitest.Responder{CA: sc.ca, Error: 3}).Staple(sc.leaf.Cert), r.Staple(sc.leaf.Cert)}
	accepted(t, sc.store, req, "leaf root")
	if len(sc.net.asked) > 0 {
		t.Fatalf("asked %v", sc.net.asked)
	}
	r.Status = func(*big.Int) int { return pkitest.Revoked }
	req.Revocation, req.OCSP = pki.Relaxed, append(req.OCSP, r.Staple(sc.leaf.Cert))
	refused(t, sc.store, req, pki.Revoked, "of the peer")
	// The peer's response doesn't outweigh a CRL that revokes it.
	r.Status = nil
	req.OCSP = [][]byte{r.Staple(sc.leaf.Cert)}
	sc.load(t, sc.ca.CRL(pkitest.List{Revoked: []*pki.Certificate{sc.leaf.Cert}}))
	refused(t, sc.store, req, pki.Revoked, "stored CRL")
}

// TestLargeCRL reads a list of 90,000 entries and finds each.
func TestLargeCRL(t *testing.T) {
	sc := newScene(t, pkitest.P256, []string{crlURL}, nil)
	var revoked []*pki.Certificate
	for i := range 90_000 {
		revoked = append(revoked, &pki.Certificate{X509: &x509.Certificate{SerialNumber: big.NewInt(int64(i) + 1)}})
	}
	last := sc.ca.Issue(pkitest.Spec{Name: "last", Serial: 90_000, CRL: []string{crlURL}})
	der := sc.ca.CRL(pkitest.List{Revoked: revoked, Reason: 5})
	sc.net.serve(crlURL, der)
	refused(t, sc.store, request(last), pki.Revoked, "cessationOfOperation")
	accepted(t, sc.store, sc.request(pki.Strict), "leaf root")
	if l := sc.store.CRLs(); len(l) != 1 || l[0].Len() != 90_000 {
		t.Fatalf("kept %v", l)
	}
	// The bound of all lists together holds: the next ones displace it.
	for i := range 4 {
		url := crlURL + string(rune('a'+i))
		sc.net.serve(url, der)
		refused(t, sc.store, request(sc.ca.Issue(pkitest.Spec{Serial: 7, CRL: []string{url}})), pki.Revoked, "")
	}
	if n := len(sc.store.CRLs()); n > 16<<20/len(der) || n == 0 {
		t.Fatalf("%d lists of %d bytes are kept", n, len(der))
	}
}

// TestStaleCRLStillRevokes doesn't believe a certificate again because the next list
// is kept away, or an older one replayed; a fresh list is what counts.
func TestStaleCRLStillRevokes(t *testing.T) {
	now := time.Now()
	sc := newScene(t, pkitest.P256, []string{crlURL}, nil)
	revoked := []*pki.Certificate{sc.leaf.Cert}
	at := func(p pki.Policy, d time.Duration) pki.VerifyRequest {
		r := sc.request(p)
		r.At = now.Add(d)
		return r
	}
	sc.net.serve(crlURL, sc.ca.CRL(pkitest.List{Number: 5, Revoked: revoked, NextUpdate: now.Add(time.Hour)}))
	refused(t, sc.store, at(pki.Relaxed, 0), pki.Revoked, "")
	sc.net.serve(crlURL, nil)
	refused(t, sc.store, at(pki.Relaxed, 2*time.Hour), pki.Revoked, "stale")
	sc.net.serve(crlURL, sc.ca.CRL(pkitest.List{Number: 4, NextUpdate: now.Add(30 * time.Minute)}))
	refused(t, sc.store, at(pki.Relaxed, 3*time.Hour), pki.Revoked, "stale")
	sc.net.serve(crlURL, sc.ca.CRL(pkitest.List{Number: 6, NextUpdate: now.Add(9 * time.Hour)}))
	accepted(t, sc.store, at(pki.Strict, 4*time.Hour), "leaf root")
	// One that is stale from the start, fetched or stored.
	stale := pkitest.List{Number: 1, Revoked: revoked, ThisUpdate: now.AddDate(0, -2, 0)}
	sc = newScene(t, pkitest.P256, []string{crlURL}, nil)
	sc.net.serve(crlURL, sc.ca.CRL(pkitest.List{Number: 1, Revoked: []*pki.Certificate{sc.leaf.Cert}, ThisUpdate: now.AddDate(0, -2, 0)}))
	for range 2 {
		refused(t, sc.store, sc.request(pki.Relaxed), pki.Revoked, "stale")
	}
	const second = "http://second.example/crl"
	twice := sc.ca.Issue(pkitest.Spec{Name: "twice", Serial: 77, CRL: []string{crlURL, second}})
	sc.store.FlushCache()
	stale.Revoked = []*pki.Certificate{twice.Cert}
	sc.net.serve(crlURL, sc.ca.CRL(stale))
	refused(t, sc.store, request(twice), pki.Revoked, "stale")
	sc.net.serve(second, sc.ca.CRL(pkitest.List{Number: 2}))
	sc.store.FlushCache()
	accepted(t, sc.store, request(twice), "twice root")
	sc = newScene(t, pkitest.P256, nil, nil)
	stale.Revoked = []*pki.Certificate{sc.leaf.Cert}
	sc.load(t, sc.ca.CRL(stale))
	refused(t, sc.store, sc.request(pki.Relaxed), pki.Revoked, "stale stored CRL")
	// A fresh answer from elsewhere outweighs it.
	r := sc.request(pki.Strict)
	r.OCSP = [][]byte{(&pkitest.Responder{CA: sc.ca}).Staple(sc.leaf.Cert)}
	accepted(t, sc.store, r, "leaf root")
	refused(t, sc.store, sc.request(pki.Relaxed), pki.Revoked, "stale stored CRL")
	sc.load(t, sc.ca.CRL(pkitest.List{Number: 2}))
	accepted(t, sc.store, sc.request(pki.Strict), "leaf root")
}

// What is left out is neither read nor asked (enable_crl = no, enable_ocsp = no).
func TestLeftOutRevocation(t *testing.T) {
	for _, leave := range []pki.Leave{{}, {CRL: true}, {OCSP: true}, {CRL: true, OCSP: true}} {
		sc := newScene(t, pkitest.P256, []string{crlURL}, []string{ocspURL})
		sc.store.Leave(leave)
		sc.load(t, sc.ca.CRL(pkitest.List{}))
		sc.net.serve(crlURL, sc.ca.CRL(pkitest.List{}))
		accepted(t, sc.store, sc.request(pki.Relaxed), "leaf root")
		if leave.CRL && leave.OCSP {
			if err := func() error { _, err := sc.store.Verify(context.Background(), sc.request(pki.Strict)); return err }(); err == nil {
				t.Error("strict without any way to know")
			}
		}
		if !leave.CRL {
			accepted(t, sc.store, sc.request(pki.Strict), "leaf root")
		}
		if asked := sc.net.fetches(ocspURL) > 0; asked == leave.OCSP {
			t.Errorf("%+v: OCSP asked %v", leave, asked)
		}
		if leave.CRL && sc.net.fetches(crlURL) > 0 {
			t.Errorf("%+v: a CRL was fetched", leave)
		}
	}
	// A stored CRL that revokes is not looked at either.
	for _, left := range []bool{false, true} {
		sc := newScene(t, pkitest.P256, nil, nil)
		sc.store.Leave(pki.Leave{CRL: left})
		sc.load(t, sc.ca.CRL(pkitest.List{Revoked: []*pki.Certificate{sc.leaf.Cert}}))
		_, err := sc.store.Verify(context.Background(), sc.request(pki.Relaxed))
		if left != (err == nil) {
			t.Errorf("left out %v: %v", left, err)
		}
	}
}

package pkitest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"adit/pki"

	"github.com/cloudflare/circl/sign/ed448"
)

// TB is the part of testing.TB that is needed; a failure to make something is fatal.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
}

// KeyKind is a kind of key to make.
type KeyKind string

// Kinds of keys; the zero KeyKind is P256. RSAPSS2048 is marked for RSASSA-PSS alone
// (RFC 4055).
const (
	P256       KeyKind = "ecdsa256"
	P384       KeyKind = "ecdsa384"
	P521       KeyKind = "ecdsa521"
	RSA1024    KeyKind = "rsa1024"
	RSA2048    KeyKind = "rsa2048"
	RSA3072    KeyKind = "rsa3072"
	RSAPSS2048 KeyKind = "rsapss2048"
	Ed25519    KeyKind = "ed25519"
	Ed448      KeyKind = "ed448"
)

// Spec says what to issue. The zero Spec is a P-256 certificate "CN=test", valid from
// an hour ago for a year (a CA: ten years).
type Spec struct {
	Name    string    // common name
	Subject pkix.Name // instead of Name

	Key    KeyKind
	Signer crypto.Signer // instead of a new key

	NotBefore, NotAfter time.Time
	Serial              int64

	DNS, Emails, URIs, IPs []string // subjectAltName

	KeyUsage   x509.KeyUsage // 0: digitalSignature, a CA: certSign and cRLSign
	NoKeyUsage bool          // without the extension
	EKU        []x509.ExtKeyUsage
	EKUOIDs    []asn1.ObjectIdentifier
	Policies   []string // dotted OIDs

	CRL, OCSP []string // URIs

	CA         bool // with basicConstraints for a CA; NewCA and IssueCA set it
	MaxPathLen int  // 0: none; -1: path length 0
	// Name constraints (RFC 5280 §4.2.1.10); IP ranges are CIDR.
	PermittedDNS, ExcludedDNS, PermittedIPs, ExcludedIPs, PermittedEmails, ExcludedEmails []string

	Hash crypto.Hash // of the signature; 0: what fits the issuer's key
	PSS  bool        // sign with RSASSA-PSS

	Extra []pkix.Extension
	// Edit changes the template last.
	Edit func(*x509.Certificate)
}

// Entity is a certificate with its private key, and its issuer (nil: itself).
type Entity struct {
	Cert   *pki.Certificate
	Key    crypto.Signer
	Issuer *Entity

	tb  TB
	pss bool // key marked for RSASSA-PSS
}

// NewCA makes a self-signed CA.
func NewCA(tb TB, spec Spec) *Entity {
	tb.Helper()
	spec.CA = true
	return issue(tb, spec, nil)
}

// NewSelfSigned makes a self-signed end entity.
func NewSelfSigned(tb TB, spec Spec) *Entity {
	tb.Helper()
	return issue(tb, spec, nil)
}

// Issue makes an end entity (or what spec says) signed by e.
func (e *Entity) Issue(spec Spec) *Entity {
	e.tb.Helper()
	return issue(e.tb, spec, e)
}

// IssueCA makes an intermediate CA signed by e.
func (e *Entity) IssueCA(spec Spec) *Entity {
	e.tb.Helper()
	spec.CA = true
	return issue(e.tb, spec, e)
}

// issue makes a certificate. crypto/x509 writes the fields, with placeholder keys
// (it writes neither Ed448 nor keys for RSASSA-PSS, nor signs with broken hashes);
// then key and signature are put in place.
func issue(tb TB, spec Spec, by *Entity) *Entity {
	tb.Helper()
	e := &Entity{Key: spec.Signer, Issuer: by, tb: tb, pss: spec.Key == RSAPSS2048}
	if e.Key == nil {
		e.Key = newKey(tb, spec.Key)
	}
	spki := encodeSPKI(tb, e.Key.Public(), e.pss)
	t := template(tb, spec)
	t.SubjectKeyId = keyID(tb, spki)
	parent, signer := t, e
	if by != nil {
		parent, signer = by.Cert.X509, by
		t.AuthorityKeyId = by.Cert.X509.SubjectKeyId
	}
	if spec.Edit != nil {
		spec.Edit(t)
	}
	// Only the names of the parent are taken: without a key it can't disagree with
	// the placeholder.
	names := &x509.Certificate{RawSubject: parent.RawSubject, Subject: parent.Subject, SubjectKeyId: parent.SubjectKeyId}
	der, err := x509.CreateCertificate(rand.Reader, t, names, placeholder.Public(), placeholder)
	if err != nil {
		tb.Fatalf("pkitest: %v", err)
	}
	// version, serial, signature, issuer, validity, subject, key
	der = signer.resign(der, 2, 6, spki, spec.Hash, spec.PSS)
	if e.Cert, err = pki.NewCertificate(der); err != nil {
		tb.Fatalf("pkitest: %v", err)
	}
	return e
}

var placeholder = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))

// template is the certificate that spec describes, without keys.
func template(tb TB, spec Spec) *x509.Certificate {
	tb.Helper()
	t := &x509.Certificate{
		Subject: spec.Subject, NotBefore: spec.NotBefore, NotAfter: spec.NotAfter,
		DNSNames: spec.DNS, EmailAddresses: spec.Emails,
		KeyUsage: spec.KeyUsage, ExtKeyUsage: spec.EKU, UnknownExtKeyUsage: spec.EKUOIDs,
		CRLDistributionPoints: spec.CRL, OCSPServer: spec.OCSP,
		BasicConstraintsValid: spec.CA, IsCA: spec.CA,
		PermittedDNSDomains: spec.PermittedDNS, ExcludedDNSDomains: spec.ExcludedDNS,
		PermittedEmailAddresses: spec.PermittedEmails, ExcludedEmailAddresses: spec.ExcludedEmails,
		PermittedIPRanges: cidrs(tb, spec.PermittedIPs), ExcludedIPRanges: cidrs(tb, spec.ExcludedIPs),
		ExtraExtensions:             spec.Extra,
		PermittedDNSDomainsCritical: true,
	}
	if len(t.Subject.ToRDNSequence()) == 0 {
		if spec.Name == "" {
			spec.Name = "test"
		}
		t.Subject.CommonName = spec.Name
	}
	if t.NotBefore.IsZero() {
		t.NotBefore = time.Now().Add(-time.Hour)
	}
	if t.NotAfter.IsZero() {
		years := 1
		if spec.CA {
			years = 10
		}
		t.NotAfter = t.NotBefore.AddDate(years, 0, 0)
	}
	if t.SerialNumber = big.NewInt(spec.Serial); spec.Serial == 0 {
		b := make([]byte, 12)
		rand.Read(b)
		b[0] = b[0]&0x7f | 0x40
		t.SerialNumber = new(big.Int).SetBytes(b)
	}
	if t.KeyUsage == 0 && !spec.NoKeyUsage {
		t.KeyUsage = x509.KeyUsageDigitalSignature
		if spec.CA {
			t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
		}
	}
	switch {
	case spec.MaxPathLen > 0:
		t.MaxPathLen = spec.MaxPathLen
	case spec.MaxPathLen < 0:
		t.MaxPathLenZero = true
	case spec.CA:
		t.MaxPathLen = -1
	}
	for _, s := range spec.IPs {
		t.IPAddresses = append(t.IPAddresses, net.ParseIP(s))
	}
	for _, s := range spec.URIs {
		u, err := url.Parse(s)
		if err != nil {
			tb.Fatalf("pkitest: %v", err)
		}
		t.URIs = append(t.URIs, u)
	}
	for _, s := range spec.Policies {
		oid, err := x509.ParseOID(s)
		if err != nil {
			tb.Fatalf("pkitest: %v", err)
		}
		t.Policies = append(t.Policies, oid)
	}
	return t
}

func cidrs(tb TB, list []string) (nets []*net.IPNet) {
	tb.Helper()
	for _, s := range list {
		_, n, err := net.ParseCIDR(s)
		if err != nil {
			tb.Fatalf("pkitest: %v", err)
		}
		nets = append(nets, n)
	}
	return nets
}

func newKey(tb TB, kind KeyKind) (key crypto.Signer) {
	tb.Helper()
	var err error
	switch kind {
	case P256, "":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case P384:
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case P521:
		key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case RSA1024:
		key, err = rsa.GenerateKey(rand.Reader, 1024)
	case RSA2048, RSAPSS2048:
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case RSA3072:
		key, err = rsa.GenerateKey(rand.Reader, 3072)
	case Ed25519:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case Ed448:
		_, key, err = ed448.GenerateKey(rand.Reader)
	default:
		tb.Fatalf("pkitest: no kind of key %q", kind)
	}
	if err != nil {
		tb.Fatalf("pkitest: %v", err)
	}
	return key
}

// PEM is the certificate.
func (e *Entity) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: e.Cert.DER()})
}

// ChainPEM is the certificate and its intermediates, without the root: a fullchain.pem.
func (e *Entity) ChainPEM() []byte {
	b := e.PEM()
	for _, c := range e.Intermediates() {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.DER()})...)
	}
	return b
}

// Intermediates are the certificates between e and its root, e's issuer first.
func (e *Entity) Intermediates() (certs []*pki.Certificate) {
	for i := e.Issuer; i != nil && i.Issuer != nil; i = i.Issuer {
		certs = append(certs, i.Cert)
	}
	return certs
}

// KeyDER is the private key as PKCS#8.
func (e *Entity) KeyDER() []byte {
	e.tb.Helper()
	if k, ok := e.Key.(ed448.PrivateKey); ok {
		// RFC 8410 §7
		return must(e.tb, struct {
			Version int
			Alg     pkix.AlgorithmIdentifier
			Key     []byte
		}{0, pkix.AlgorithmIdentifier{Algorithm: oidEd448}, must(e.tb, k.Seed())})
	}
	if k, ok := e.Key.(*rsa.PrivateKey); ok && e.pss {
		return must(e.tb, struct {
			Version int
			Alg     pkix.AlgorithmIdentifier
			Key     []byte
		}{0, pkix.AlgorithmIdentifier{Algorithm: oidRSAPSS}, x509.MarshalPKCS1PrivateKey(k)})
	}
	der, err := x509.MarshalPKCS8PrivateKey(e.Key)
	if err != nil {
		e.tb.Fatalf("pkitest: %v", err)
	}
	return der
}

// KeyPEM is the private key as PKCS#8.
func (e *Entity) KeyPEM() []byte {
	e.tb.Helper()
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: e.KeyDER()})
}

// PublicPEM is the raw public key (PUBLIC KEY).
func (e *Entity) PublicPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: e.Cert.X509.RawSubjectPublicKeyInfo})
}

// WriteFiles writes dir/name.crt (with intermediates) and dir/name.key, and returns
// their paths.
func (e *Entity) WriteFiles(dir, name string) (crt, key string) {
	e.tb.Helper()
	crt, key = filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	if err := os.WriteFile(crt, e.ChainPEM(), 0o644); err != nil {
		e.tb.Fatalf("pkitest: %v", err)
	}
	if err := os.WriteFile(key, e.KeyPEM(), 0o600); err != nil {
		e.tb.Fatalf("pkitest: %v", err)
	}
	return crt, key
}

// must is the DER of v.
func must(tb TB, v any) []byte {
	tb.Helper()
	der, err := asn1.Marshal(v)
	if err != nil {
		tb.Fatalf("pkitest: %v", err)
	}
	return der
}

// keyID is the key identifier of a subjectPublicKeyInfo (RFC 5280 §4.2.1.2 (1)).
func keyID(tb TB, spki []byte) []byte {
	tb.Helper()
	var s struct {
		Alg pkix.AlgorithmIdentifier
		Key asn1.BitString
	}
	if _, err := asn1.Unmarshal(spki, &s); err != nil {
		tb.Fatalf("pkitest: %v", err)
	}
	id := sha1.Sum(s.Key.Bytes)
	return id[:]
}

// Package ca is the certificate authority of `adit pki`: a key, what it has issued, and
// what it takes back, in a directory of its own.
//
// It owns the form of certificates that the clients of Windows, Apple and Android
// insist on, and the directory (see [Open]). It must not know VICI, connections or
// profiles. Whose certificates are believed is package pki's business.
//
// Start with [Init] and [CA.Gateway].
package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"net"
	"strings"
	"time"

	"adit/pki"
)

// Kinds of keys. RSA is what every client reads: Windows takes RSA, P-256 and P-384.
const (
	RSA2048 = "rsa2048"
	RSA3072 = "rsa3072"
	P256    = "ecdsa256"
	P384    = "ecdsa384"
)

// Kinds of certificates in the list.
const (
	KindGateway = "gateway"
	KindUser    = "user"
)

// Defaults of lifetimes in days. Apple takes no server's certificate of more than 825.
const (
	DaysCA      = 3650
	DaysGateway = 365
	DaysUser    = 365
	maxLeafDays = 825
)

// ipsecIKE is id-kp-ipsecIKE's forerunner iKEIntermediate, which macOS looks for and
// Windows, where several certificates fit, prefers.
var ipsecIKE = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 8, 2, 2}

// Identity is a certificate with its private key.
type Identity struct {
	Cert *pki.Certificate
	Key  crypto.Signer
}

// CertPEM is the certificate.
func (i Identity) CertPEM() []byte { return i.Cert.PEM() }

// KeyPEM is the private key as PKCS#8; the caller overwrites it.
func (i Identity) KeyPEM() ([]byte, error) { return pki.KeyPEM(i.Key) }

// NewKey makes a private key of a kind; the empty kind is RSA2048.
func NewKey(kind string) (crypto.Signer, error) {
	switch kind {
	case RSA2048, "":
		return rsa.GenerateKey(rand.Reader, 2048)
	case RSA3072:
		return rsa.GenerateKey(rand.Reader, 3072)
	case P256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case P384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	}
	return nil, fmt.Errorf("no kind of key %q: use %s, %s, %s or %s", kind, RSA2048, RSA3072, P256, P384)
}

// lifetime is the validity that begins now. A clock that is somewhat late must not
// refuse what was just made.
func lifetime(t *x509.Certificate, now time.Time, days int) {
	t.NotBefore = now.Add(-time.Hour).UTC().Truncate(time.Second)
	t.NotAfter = now.AddDate(0, 0, days).UTC().Truncate(time.Second)
}

func serial() *big.Int {
	var b [16]byte
	rand.Read(b[:])
	b[0] = b[0]&0x7f | 0x40 // positive, and of one length (RFC 5280 §4.1.2.2)
	return new(big.Int).SetBytes(b[:])
}

// selfSigned makes the CA's own certificate.
func selfSigned(name, kind string, days int, now time.Time) (Identity, error) {
	if strings.TrimSpace(name) == "" {
		return Identity{}, errors.New("the CA needs a name")
	}
	key, err := NewKey(kind)
	if err != nil {
		return Identity{}, err
	}
	t := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: name},
		BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	lifetime(t, now, days)
	return sign(t, t, key, key)
}

func sign(t, parent *x509.Certificate, key, by crypto.Signer) (Identity, error) {
	der, err := x509.CreateCertificate(rand.Reader, t, parent, key.Public(), by)
	if err != nil {
		return Identity{}, err
	}
	c, err := pki.NewCertificate(der)
	return Identity{c, key}, err
}

// gatewayTemplate is what clients insist on: the names that they connect to as dNSName
// (Windows looks there for addresses, too), serverAuth, and iKEIntermediate.
func gatewayTemplate(names []string) (*x509.Certificate, error) {
	if len(names) == 0 {
		return nil, errors.New("a gateway needs the name that clients connect to")
	}
	t := &x509.Certificate{
		Subject:  pkix.Name{CommonName: names[0]},
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, UnknownExtKeyUsage: []asn1.ObjectIdentifier{ipsecIKE},
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else if err := dnsName(n); err != nil {
			return nil, err
		}
		t.DNSNames = append(t.DNSNames, n)
	}
	return t, nil
}

func dnsName(n string) error {
	if len(n) > 253 || !strings.Contains(n, ".") {
		return fmt.Errorf("%q is no full name of a host, as vpn.example.org", n)
	}
	for _, label := range strings.Split(n, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") != "" || strings.Trim(label, "-") != label {
			return fmt.Errorf("%q is no name of a host: %q", n, label)
		}
	}
	return nil
}

// userTemplate names the user as rfc822Name or, without an @, as dNSName: what clients
// say they are by IKE must be in the certificate.
func userTemplate(name string) (*x509.Certificate, error) {
	if err := userName(name); err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		Subject:  pkix.Name{CommonName: name},
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if strings.Contains(name, "@") {
		t.EmailAddresses = []string{name}
	} else {
		t.DNSNames = []string{name}
	}
	return t, nil
}

func userName(name string) error {
	if name == "" || len(name) > 64 { // ub-common-name of RFC 5280
		return fmt.Errorf("a user's name in a certificate has 1 to 64 characters, this one %d", len(name))
	}
	for _, r := range name {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-._@+", r) {
			return fmt.Errorf("the user's name %q has %q: a certificate takes letters, digits and -._@+", name, r)
		}
	}
	return nil
}

package bench

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/suite/sig"
)

const (
	gatewayID = "gateway.bench.example"
	// innerNet has the initiators' inner addresses, each a /32; innerPrefix is how
	// they all begin in print.
	innerNet    = "10.100.0.0/15"
	innerPrefix = "10.10"
)

// credentials are what both sides know of each other: a shared key, or certificates
// (ECDSA on P-256) of one authority, of which every initiator has its own.
type credentials struct {
	psk       []byte
	ca        *x509.Certificate
	gateway   owner
	initiator []owner
}

// owner is a key with its certificate.
type owner struct {
	key  *ecdsa.PrivateKey
	cert []byte // DER
}

func newCredentials(auth string, n int) (*credentials, error) {
	c := &credentials{psk: make([]byte, 32)}
	rand.Read(c.psk)
	if auth == "eap" {
		auth, n = "ecdsa", 0
	}
	if auth != "ecdsa" { // psk, and mlkem, which is psk with an additional key exchange
		return c, nil
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
	der, err := x509.CreateCertificate(rand.Reader, root, root, caKey.Public(), caKey)
	if err != nil {
		return nil, err
	}
	if c.ca, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	issue := func(serial int, name string) (owner, error) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return owner{}, err
		}
		leaf := &x509.Certificate{SerialNumber: big.NewInt(int64(serial)), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
			NotBefore: root.NotBefore, NotAfter: root.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature}
		der, err := x509.CreateCertificate(rand.Reader, leaf, c.ca, key.Public(), caKey)
		return owner{key, der}, err
	}
	if c.gateway, err = issue(2, gatewayID); err != nil {
		return nil, err
	}
	for i := range n { // none of users with passwords
		o, err := issue(3+i, initiatorName(i))
		if err != nil {
			return nil, err
		}
		c.initiator = append(c.initiator, o)
	}
	return c, nil
}

// write puts the gateway's files into a swanctl directory.
func (c *credentials) write(dir string) error {
	if c.ca == nil {
		return nil
	}
	key, err := x509.MarshalECPrivateKey(c.gateway.key)
	if err != nil {
		return err
	}
	var errs []error
	for name, block := range map[string]*pem.Block{
		"x509ca/ca.pem":     {Type: "CERTIFICATE", Bytes: c.ca.Raw},
		"x509/gateway.pem":  {Type: "CERTIFICATE", Bytes: c.gateway.cert},
		"ecdsa/gateway.pem": {Type: "EC PRIVATE KEY", Bytes: key},
	} {
		path := filepath.Join(dir, name)
		errs = append(errs, os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, pem.EncodeToMemory(block), 0o600))
	}
	return errors.Join(errs...)
}

// authority is what a CERTREQ names the CA by (RFC 7296 §3.7).
func (c *credentials) authority() [20]byte { return sha1.Sum(c.ca.RawSubjectPublicKeyInfo) }

// sign makes the signature of an initiator.
func (c *credentials) sign(q ike.SignAuth) (*ike.Signature, error) {
	var i int
	if _, err := fmt.Sscanf(q.ID.String(), initiatorFormat, &i); err != nil || i < 0 || i >= len(c.initiator) {
		return nil, fmt.Errorf("no initiator is called %s", q.ID)
	}
	o := c.initiator[i]
	var hashes []sig.Hash
	for _, h := range q.Hashes {
		hashes = append(hashes, sig.Hash(h))
	}
	choices := sig.Choose(o.key.Public(), hashes, nil)
	if len(choices) == 0 {
		return nil, errors.New("the responder takes no ECDSA signature")
	}
	data, err := sig.Sign(o.key, choices[0], q.Octets)
	return &ike.Signature{Method: wire.AuthMethod(choices[0].Method), Data: data,
		Certs: []ike.CertPayload{{Encoding: wire.CertX509Signature, Data: o.cert}}}, err
}

// verify looks at the responder's signature: it has one key only.
func (c *credentials) verify(q ike.VerifyAuth) (*ike.Verdict, error) {
	scheme, err := sig.Verify(c.gateway.key.Public(), uint8(q.Method), q.Data, q.Octets, nil)
	return &ike.Verdict{Why: make([]string, len(q.Peers)), Subject: gatewayID, Scheme: scheme.String()}, err
}

const initiatorFormat = "peer-%05d.bench.example"

func initiatorName(i int) string { return fmt.Sprintf(initiatorFormat, i) }

// initiatorID is the identity of the i-th initiator: all are distinct.
func initiatorID(i int) (ike.Identity, error) { return ike.ParseIdentity(initiatorName(i)) }

// inner is the inner address of the i-th initiator.
func inner(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(100 + i>>16), byte(i >> 8), byte(i)})
}

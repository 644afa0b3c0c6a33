package pki

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"golang.org/x/crypto/ssh"
	"math/big"

	"github.com/cloudflare/circl/sign/ed448"
)

var (
	oidRSAPSS = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10} // RFC 4055 §3.1
	oidEd448  = asn1.ObjectIdentifier{1, 3, 101, 113}              // RFC 8410 §3
)

// spki is subjectPublicKeyInfo (RFC 5280 §4.1).
type spki struct {
	Algorithm pkix.AlgorithmIdentifier
	Key       asn1.BitString
}

// publicKey is a key of a subjectPublicKeyInfo.
type publicKey struct {
	key  crypto.PublicKey
	bits []byte
	pss  bool // marked for RSASSA-PSS alone
}

// parseSPKI reads a subjectPublicKeyInfo, with the kinds that crypto/x509 lacks, and
// checks the key's bounds.
func parseSPKI(der []byte) (publicKey, error) {
	var s spki
	if rest, err := asn1.Unmarshal(der, &s); err != nil {
		return publicKey{}, fmt.Errorf("subjectPublicKeyInfo: %w", err)
	} else if len(rest) > 0 {
		return publicKey{}, errors.New("subjectPublicKeyInfo: trailing bytes")
	}
	p := publicKey{bits: s.Key.RightAlign()}
	switch {
	case s.Algorithm.Algorithm.Equal(oidEd448):
		// RFC 8410 §3: the parameters are absent.
		if len(p.bits) != ed448.PublicKeySize || len(s.Algorithm.Parameters.FullBytes) > 0 {
			return publicKey{}, errors.New("subjectPublicKeyInfo: malformed Ed448 key")
		}
		p.key = ed448.PublicKey(p.bits)
	case s.Algorithm.Algorithm.Equal(oidRSAPSS):
		key, err := x509.ParsePKCS1PublicKey(p.bits)
		if err != nil {
			return publicKey{}, fmt.Errorf("RSASSA-PSS key: %w", err)
		}
		p.key, p.pss = key, true
	default:
		key, err := x509.ParsePKIXPublicKey(der)
		if err != nil {
			return publicKey{}, fmt.Errorf("public key: %w", err)
		}
		p.key = key
	}
	return p, checkBounds(p.key)
}

// PublicKey is a raw public key (RFC 7670).
type PublicKey struct {
	// Key is of one of the types of [Certificate.PublicKey].
	Key crypto.PublicKey
	// SPKI is its subjectPublicKeyInfo.
	SPKI []byte
	// KeyHash and KeyID are as in [Certificate].
	KeyHash, KeyID [20]byte
	// PSSOnly is as in [Certificate].
	PSSOnly bool
}

// NewPublicKey reads one DER subjectPublicKeyInfo (what CERT of encoding 15 carries,
// RFC 7670 §3).
func NewPublicKey(der []byte) (*PublicKey, error) {
	if len(der) > maxCertBytes {
		return nil, fmt.Errorf("pki: public key of %d bytes, at most %d are read", len(der), maxCertBytes)
	}
	p, err := parseSPKI(der)
	if err != nil {
		return nil, fmt.Errorf("pki: %w", err)
	}
	return &PublicKey{Key: p.key, SPKI: bytes.Clone(der), PSSOnly: p.pss,
		KeyHash: sha1.Sum(der), KeyID: sha1.Sum(p.bits)}, nil
}

// ParsePublicKey reads a raw public key in one of the forms that swanctl takes: PEM
// PUBLIC KEY or DER subjectPublicKeyInfo, PEM RSA PUBLIC KEY or DER RSAPublicKey
// (PKCS#1), the key of a certificate, ssh's one-line form ("ssh-ed25519 AAAA…"), or
// base64 alone or behind the prefix 0s, of DER, of ssh's blob (RFC 4253 §6.6) or of an
// RSA key for DNS (RFC 3110): what strongSwan's pki --pub writes.
func ParsePublicKey(b []byte) (*PublicKey, error) {
	if len(b) > maxCertBytes*2 {
		return nil, fmt.Errorf("pki: public key file of %d bytes", len(b))
	}
	if looksDER(b) {
		return publicDER(b)
	}
	text := bytes.TrimSpace(b)
	switch {
	case bytes.HasPrefix(text, []byte("ssh-")), bytes.HasPrefix(text, []byte("ecdsa-sha2-")):
		return publicSSH(text)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		text = bytes.TrimPrefix(text, []byte("0s"))
		blob, err := base64.StdEncoding.DecodeString(string(bytes.Join(bytes.Fields(text), nil)))
		if err != nil || len(blob) == 0 {
			return nil, errors.New("pki: no public key: neither PEM, DER, ssh nor base64")
		}
		return publicBlob(blob)
	}
	switch block.Type {
	case "PUBLIC KEY", "RSA PUBLIC KEY", "CERTIFICATE":
		return publicDER(block.Bytes)
	}
	return nil, fmt.Errorf("pki: no public key in the file, but %s", printable(block.Type))
}

// publicDER reads a subjectPublicKeyInfo, an RSAPublicKey or the key of a certificate.
func publicDER(der []byte) (*PublicKey, error) {
	p, err := NewPublicKey(der)
	if err == nil {
		return p, nil
	}
	if r, err := x509.ParsePKCS1PublicKey(der); err == nil {
		return publicRSA(r)
	}
	if c, err := NewCertificate(der); err == nil {
		return NewPublicKey(c.X509.RawSubjectPublicKeyInfo)
	}
	return nil, err
}

func publicRSA(r *rsa.PublicKey) (*PublicKey, error) {
	if err := checkBounds(r); err != nil {
		return nil, fmt.Errorf("pki: %w", err)
	}
	der, err := x509.MarshalPKIXPublicKey(r)
	if err != nil {
		return nil, fmt.Errorf("pki: %w", err)
	}
	return NewPublicKey(der)
}

// publicBlob reads DER, ssh's blob (which begins with a length below 256) or DNS's.
func publicBlob(b []byte) (*PublicKey, error) {
	switch {
	case looksDER(b):
		return publicDER(b)
	case bytes.HasPrefix(b, []byte{0, 0, 0}):
		key, err := ssh.ParsePublicKey(b)
		if err != nil {
			return nil, fmt.Errorf("pki: ssh public key: %w", err)
		}
		return publicSSHKey(key)
	}
	return publicDNS(b)
}

// publicSSH reads a line of an authorized_keys file.
func publicSSH(line []byte) (*PublicKey, error) {
	key, _, _, _, err := ssh.ParseAuthorizedKey(line)
	if err != nil {
		return nil, fmt.Errorf("pki: ssh public key: %w", err)
	}
	return publicSSHKey(key)
}

func publicSSHKey(key ssh.PublicKey) (*PublicKey, error) {
	ck, ok := key.(ssh.CryptoPublicKey)
	if !ok {
		return nil, fmt.Errorf("pki: ssh public key of type %s isn't for signatures", printable(key.Type()))
	}
	if r, ok := ck.CryptoPublicKey().(*rsa.PublicKey); ok {
		return publicRSA(r)
	}
	der, err := x509.MarshalPKIXPublicKey(ck.CryptoPublicKey())
	if err != nil {
		return nil, fmt.Errorf("pki: ssh public key of type %s: %w", printable(key.Type()), err)
	}
	return NewPublicKey(der)
}

// publicDNS reads the RSA key of RFC 3110 §2: length of the exponent in 1 octet, or 0
// and 2 octets; exponent; modulus.
func publicDNS(b []byte) (*PublicKey, error) {
	if len(b) < 3 {
		return nil, errShortDNS
	}
	n := int(b[0])
	b = b[1:]
	if n == 0 {
		n, b = int(b[0])<<8|int(b[1]), b[2:]
	}
	if n == 0 || n > 4 || len(b) <= n || len(b)-n > 1024 {
		return nil, errShortDNS
	}
	e := new(big.Int).SetBytes(b[:n])
	if e.BitLen() > 31 {
		return nil, errShortDNS
	}
	return publicRSA(&rsa.PublicKey{E: int(e.Int64()), N: new(big.Int).SetBytes(b[n:])})
}

var errShortDNS = errors.New("pki: DNS public key: malformed lengths (RFC 3110)")

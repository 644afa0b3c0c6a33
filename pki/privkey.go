package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/cloudflare/circl/sign/ed448"
	"software.sslmate.com/src/go-pkcs12"
)

// ErrPassphrase is wrapped by errors of encrypted keys that no or the wrong passphrase
// was given for.
var ErrPassphrase = errors.New("no passphrase, or the wrong one")

// ParsePrivateKey reads a private key: PEM or DER; PKCS#8 (RFC 5958), PKCS#1 of RSA,
// SEC 1 of ECDSA (RFC 5915); encrypted as PKCS#8 by PBES2 (RFC 8018: PBKDF2 or scrypt,
// AES or 3DES) or as OpenSSL's old PEM (DEK-Info). passphrase is asked only for an
// encrypted key; nil stands for none. The signer is *rsa.PrivateKey,
// *ecdsa.PrivateKey, ed25519.PrivateKey or Ed448's ed448.PrivateKey of circl. Of a PEM
// file with several blocks the first private key is taken.
func ParsePrivateKey(b []byte, passphrase func() string) (crypto.Signer, error) {
	if len(b) > maxFileBytes {
		return nil, fmt.Errorf("pki: file of %d bytes, at most %d are read", len(b), maxFileBytes)
	}
	if passphrase == nil {
		passphrase = func() string { return "" }
	}
	if looksDER(b) {
		return privateDER(b, passphrase)
	}
	other := ""
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			break
		}
		switch block.Type {
		case "PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "ANY PRIVATE KEY":
			return privateBlock(block, passphrase)
		case "EC PARAMETERS": // OpenSSL writes it before the key
		case "OPENSSH PRIVATE KEY":
			return nil, errors.New("pki: a private key of ssh isn't read: convert it to PKCS#8 (ssh-keygen -p -m PKCS8)")
		default:
			other = block.Type
		}
	}
	if other != "" {
		return nil, fmt.Errorf("pki: no private key in the file, but %s", printable(other))
	}
	return nil, errors.New("pki: no private key in the file: neither PEM nor DER")
}

func privateBlock(block *pem.Block, passphrase func() string) (crypto.Signer, error) {
	der := block.Bytes
	//lint:ignore SA1019 the encryption is weak, but OpenSSL's old files exist
	if x509.IsEncryptedPEMBlock(block) {
		pass := []byte(passphrase())
		var err error
		//lint:ignore SA1019 as above
		der, err = x509.DecryptPEMBlock(block, pass)
		clear(pass)
		if err != nil {
			return nil, fmt.Errorf("pki: encrypted private key: %w (%v)", ErrPassphrase, err)
		}
		defer clear(der)
		key, err := privateDER(der, nil)
		if err != nil { // its padding can be right by chance
			return nil, fmt.Errorf("pki: encrypted private key: %w", ErrPassphrase)
		}
		return key, nil
	}
	return privateDER(der, passphrase)
}

// privateDER reads one DER key of any form; passphrase is nil if der was encrypted
// already.
func privateDER(der []byte, passphrase func() string) (crypto.Signer, error) {
	if passphrase != nil && isEncryptedPKCS8(der) {
		plain, err := decryptPKCS8(der, passphrase())
		if err != nil {
			return nil, fmt.Errorf("pki: encrypted private key: %w", err)
		}
		defer clear(plain)
		key, err := privateDER(plain, nil)
		if err != nil { // its padding can be right by chance
			return nil, fmt.Errorf("pki: encrypted private key: %w", ErrPassphrase)
		}
		return key, nil
	}
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return checkedSigner(key)
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return checkedSigner(key)
	}
	key, err := parsePKCS8(der)
	if err != nil {
		return nil, fmt.Errorf("pki: private key: %w", err)
	}
	return checkedSigner(key)
}

// pkcs8 is OneAsymmetricKey (RFC 5958 §2) as far as we look.
type pkcs8 struct {
	Version   int
	Algorithm pkix.AlgorithmIdentifier
	Key       []byte
}

// parsePKCS8 adds to crypto/x509 the kinds that it lacks.
func parsePKCS8(der []byte) (any, error) {
	var p pkcs8
	if _, err := asn1.Unmarshal(der, &p); err != nil {
		return nil, fmt.Errorf("not PKCS#8, PKCS#1 or SEC 1: %w", err)
	}
	defer clear(p.Key)
	switch {
	case p.Algorithm.Algorithm.Equal(oidEd448):
		var seed []byte // RFC 8410 §7: CurvePrivateKey
		if rest, err := asn1.Unmarshal(p.Key, &seed); err != nil || len(rest) > 0 || len(seed) != ed448.SeedSize {
			return nil, errors.New("malformed Ed448 key")
		}
		defer clear(seed)
		return ed448.NewKeyFromSeed(seed), nil
	case p.Algorithm.Algorithm.Equal(oidRSAPSS):
		return x509.ParsePKCS1PrivateKey(p.Key)
	}
	return x509.ParsePKCS8PrivateKey(der)
}

// checkedSigner is key as a signer of a kind that IKE can use.
func checkedSigner(key any) (crypto.Signer, error) {
	switch k := key.(type) {
	case *rsa.PrivateKey:
		if err := checkBounds(&k.PublicKey); err != nil {
			return nil, fmt.Errorf("pki: private key: %w", err)
		}
		return k, nil
	case *ecdsa.PrivateKey:
		return k, nil
	case ed25519.PrivateKey:
		return k, nil
	case ed448.PrivateKey:
		return k, nil
	}
	return nil, fmt.Errorf("pki: a private key of type %T doesn't sign", key)
}

// KeyHash is the SHA-1 of key's subjectPublicKeyInfo, as [Certificate.KeyHash]: it
// finds the certificate of a private key.
func KeyHash(key crypto.PublicKey) ([20]byte, error) {
	p, err := publicOf(key)
	if err != nil {
		return [20]byte{}, err
	}
	return p.KeyHash, nil
}

// KeyID is the SHA-1 of the bits of key's subjectPublicKey, as [Certificate.KeyID]:
// swanctl names private keys by it.
func KeyID(key crypto.PublicKey) ([20]byte, error) {
	p, err := publicOf(key)
	if err != nil {
		return [20]byte{}, err
	}
	return p.KeyID, nil
}

// Matches says whether key is the private key of c, however either is marked.
func (c *Certificate) Matches(key crypto.Signer) bool {
	pub, ok := c.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	return ok && pub.Equal(key.Public())
}

// publicOf encodes key.
func publicOf(key crypto.PublicKey) (*PublicKey, error) {
	if k, ok := key.(ed448.PublicKey); ok {
		der, err := asn1.Marshal(spki{pkix.AlgorithmIdentifier{Algorithm: oidEd448}, asn1.BitString{Bytes: k, BitLength: 8 * len(k)}})
		if err != nil {
			return nil, fmt.Errorf("pki: %w", err)
		}
		return NewPublicKey(der)
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, fmt.Errorf("pki: %w", err)
	}
	return NewPublicKey(der)
}

// ParsePKCS12 reads a PKCS#12 file (RFC 7292) with one private key: the key, its
// certificate, and the further certificates of the file. It knows the encryptions of
// OpenSSL and Windows, old (RC2, 3DES) and new (PBES2).
func ParsePKCS12(b []byte, passphrase string) (crypto.Signer, *Certificate, []*Certificate, error) {
	if len(b) > maxFileBytes {
		return nil, nil, nil, fmt.Errorf("pki: file of %d bytes, at most %d are read", len(b), maxFileBytes)
	}
	if err := checkRounds(b, 0); err != nil {
		return nil, nil, nil, fmt.Errorf("pki: PKCS#12: %w", err)
	}
	key, leaf, rest, err := pkcs12.DecodeChain(b, passphrase)
	if errors.Is(err, pkcs12.ErrIncorrectPassword) {
		return nil, nil, nil, fmt.Errorf("pki: PKCS#12: %w", ErrPassphrase)
	}
	if err != nil {
		return nil, nil, nil, fmt.Errorf("pki: PKCS#12: %w", err)
	}
	signer, err := checkedSigner(key)
	if err != nil {
		return nil, nil, nil, err
	}
	if len(rest) > maxFileCerts {
		return nil, nil, nil, errTooManyCerts
	}
	c, err := wrap(leaf)
	if err != nil {
		return nil, nil, nil, err
	}
	more := make([]*Certificate, 0, len(rest))
	for _, x := range rest {
		w, err := wrap(x)
		if err != nil {
			return nil, nil, nil, err
		}
		more = append(more, w)
	}
	return signer, c, more, nil
}

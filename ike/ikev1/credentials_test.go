package ikev1_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"sync"
	"testing"

	"adit/ike"
	"adit/ike/wire"
	"adit/suite"
	"adit/suite/sig"
)

// credentials answer what a host asks about keys: with real signatures, but with bare
// keys instead of certificates.
type credentials struct {
	own     map[ike.Identity]crypto.Signer
	trusted map[ike.Identity]crypto.PublicKey
	// users are the passwords of XAUTH.
	users map[string]string
	// certs go with a signature.
	certs []ike.CertPayload
	// signed are the questions for a signature.
	signed []ike.SignAuth
}

func newCredentials() *credentials {
	return &credentials{own: map[ike.Identity]crypto.Signer{}, trusted: map[ike.Identity]crypto.PublicKey{}, users: map[string]string{}}
}

var rsaOnce = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

func newKey(t testing.TB, kind string) crypto.Signer {
	t.Helper()
	curve := elliptic.P256()
	switch kind {
	case "rsa":
		return rsaOnce()
	case "ecdsa384":
		curve = elliptic.P384()
	case "ecdsa521":
		curve = elliptic.P521()
	}
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// introduce gives a host a key and lets the other one trust it.
func introduce(owner, other *host, name string, key crypto.Signer) {
	owner.creds.own[id(name)] = key
	other.creds.trusted[id(name)] = key.Public()
}

func (c *credentials) end(uint64) {}

func (c *credentials) answer(q ike.Question) (v any, err error) {
	switch q := q.(type) {
	case ike.SignerKinds:
		if k := c.own[q.ID]; k != nil {
			return []wire.V1Auth{wire.V1Auth(sig.V1Method(k.Public()))}, nil
		}
		return []wire.V1Auth{}, nil
	case ike.XAuth:
		password, known := c.users[q.User]
		if !q.Server {
			return &ike.XAuthAnswer{Password: suite.Key(password)}, nil
		}
		return &ike.XAuthAnswer{Success: known && string(q.Password) == password, Why: "wrong"}, nil
	case ike.SignAuth:
		c.signed = append(c.signed, q)
		key := c.own[q.ID]
		if key == nil {
			return nil, errors.New("no private key for " + q.ID.String())
		}
		data, err := sig.SignV1(key, sig.V1Method(key.Public()), q.Octets)
		return &ike.Signature{Data: data, Certs: c.certs}, err
	case ike.VerifyAuth:
		key := c.trusted[q.ID]
		if key == nil {
			return nil, errors.New("no trusted key for " + q.ID.String())
		}
		if err := sig.VerifyV1(key, sig.V1Method(key), q.Data, q.Octets); err != nil {
			return nil, err
		}
		return &ike.Verdict{Why: make([]string, len(q.Peers)), Subject: "a bare key"}, nil
	}
	return nil, errors.New("unknown question")
}

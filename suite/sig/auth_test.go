package sig_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strings"
	"sync"
	"testing"

	"adit/suite/sig"

	"github.com/cloudflare/circl/sign/ed448"
)

var octets = []byte("InitiatorSignedOctets")

// keys are one of each kind, by name.
var keys = sync.OnceValue(func() map[string]crypto.Signer {
	m := map[string]crypto.Signer{}
	must := func(name string, k crypto.Signer, err error) {
		if err != nil {
			panic(err)
		}
		m[name] = k
	}
	for _, bits := range []int{1024, 2048} {
		k, err := rsa.GenerateKey(rand.Reader, bits)
		must(fmt.Sprintf("rsa-%d", bits), k, err)
	}
	for name, c := range map[string]elliptic.Curve{"p256": elliptic.P256(), "p384": elliptic.P384(), "p521": elliptic.P521(), "p224": elliptic.P224()} {
		k, err := ecdsa.GenerateKey(c, rand.Reader)
		must(name, k, err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	must("ed25519", ed, err)
	_, ed4, err := ed448.GenerateKey(rand.Reader)
	must("ed448", ed4, err)
	return m
})

func constraints(t testing.TB, text string) sig.Constraints {
	t.Helper()
	if text == "" {
		return sig.Constraints{}
	}
	c, err := sig.ParseConstraints(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Every scheme with every key: what fits signs and verifies, and nothing else.
func TestRFC7427_3_SignVerify(t *testing.T) {
	var choices []sig.Choice
	for _, h := range []sig.Hash{sig.SHA256, sig.SHA384, sig.SHA512} {
		for _, s := range []sig.Scheme{{Algorithm: sig.RSAPKCS1, Hash: h}, sig.PSS(h), {Algorithm: sig.RSAPSS, Hash: h, Salt: 5}, {Algorithm: sig.ECDSA, Hash: h}} {
			choices = append(choices, sig.Choice{Method: sig.MethodSignature, Scheme: s})
		}
	}
	for m, s := range map[uint8]sig.Scheme{sig.MethodRSA: {Algorithm: sig.RSAPKCS1, Hash: sig.SHA1}, sig.MethodECDSA256: {Algorithm: sig.ECDSARaw, Hash: sig.SHA256},
		sig.MethodECDSA384: {Algorithm: sig.ECDSARaw, Hash: sig.SHA384}, sig.MethodECDSA521: {Algorithm: sig.ECDSARaw, Hash: sig.SHA512}} {
		choices = append(choices, sig.Choice{Method: m, Scheme: s})
	}
	choices = append(choices, sig.Choice{Method: sig.MethodSignature, Scheme: sig.Scheme{Algorithm: sig.Ed25519, Hash: sig.Identity}},
		sig.Choice{Method: sig.MethodSignature, Scheme: sig.Scheme{Algorithm: sig.Ed448, Hash: sig.Identity}})
	signed := map[string]int{}
	for name, k := range keys() {
		for _, c := range choices {
			data, err := sig.Sign(k, c, octets)
			if err != nil {
				if !errors.Is(err, sig.ErrWrongKey) {
					t.Errorf("%s with %v: %v", name, c, err)
				}
				continue
			}
			if name == "p224" {
				if _, err := sig.Verify(k.Public(), c.Method, data, octets, nil); !errors.Is(err, sig.ErrKey) {
					t.Errorf("P-224: %v", err)
				}
				continue
			}
			signed[name]++
			if s, err := sig.Verify(k.Public(), c.Method, data, octets, nil); err != nil || s != c.Scheme {
				t.Errorf("%s with %v: %v %v", name, c, s, err)
			}
			if _, err := sig.Verify(k.Public(), c.Method, data, append([]byte("x"), octets...), nil); !errors.Is(err, sig.ErrSignature) {
				t.Errorf("%s with %v over other octets: %v", name, c, err)
			}
			for _, cut := range [][]byte{data[:len(data)-1], append(data[:len(data):len(data)], 0)} {
				if _, err := sig.Verify(k.Public(), c.Method, cut, octets, nil); !errors.Is(err, sig.ErrSignature) {
					t.Errorf("%s with %v of another length: %v", name, c, err)
				}
			}
			for other, k := range keys() {
				if _, err := sig.Verify(k.Public(), c.Method, data, octets, nil); other != name && err == nil {
					t.Errorf("%s verifies what %s signed with %v", other, name, c)
				}
			}
		}
	}
	for name, want := range map[string]int{"rsa-1024": 9, "rsa-2048": 10, "p256": 4, "p384": 4, "p521": 4, "ed25519": 1, "ed448": 1} {
		if signed[name] != want {
			t.Errorf("%s signs with %d schemes, want %d", name, signed[name], want)
		}
	}
}

// point is what no parser of keys returns.
func point(x, y *big.Int) *ecdsa.PublicKey {
	//lint:ignore SA1019 the fields are the only way to an invalid point
	return &ecdsa.PublicKey{Curve: elliptic.P256(), X: x, Y: y}
}

func TestVerify_Refusals(t *testing.T) {
	rsaKey, p256 := keys()["rsa-2048"], keys()["p256"]
	pkcs := sig.Choice{Method: sig.MethodSignature, Scheme: sig.Scheme{Algorithm: sig.RSAPKCS1, Hash: sig.SHA256}}
	good, err := sig.Sign(rsaKey, pkcs, octets)
	if err != nil {
		t.Fatal(err)
	}
	auth := func(s sig.Scheme, signature []byte) []byte {
		data, err := sig.AppendAuth(nil, s, signature)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	raw := func(r, s int64) []byte {
		b := make([]byte, 64)
		big.NewInt(r).FillBytes(b[:32])
		big.NewInt(s).FillBytes(b[32:])
		return b
	}
	other := new(ecdsa.PublicKey)
	*other = *keys()["p384"].Public().(*ecdsa.PublicKey)
	other.Curve = elliptic.P256()
	order := elliptic.P256().Params().N
	rIsN := append(order.FillBytes(make([]byte, 32)), raw(0, 1)[32:]...)
	der := sig.Scheme{Algorithm: sig.ECDSA, Hash: sig.SHA256}
	rsaPub, ecPub := rsaKey.Public(), p256.Public()
	n := rsaPub.(*rsa.PublicKey).N
	zeros := make([]byte, 256)
	for _, tt := range []struct {
		name   string
		pub    crypto.PublicKey
		method uint8
		data   []byte
		want   error
	}{
		{"good", rsaPub, 14, good, nil},
		{"CVE-2013-2944: empty fixed RSA", rsaPub, 1, nil, sig.ErrEmpty},
		{"CVE-2013-2944: empty fixed ECDSA", ecPub, 9, nil, sig.ErrEmpty},
		{"CVE-2013-2944: empty in method 14", ecPub, 14, auth(der, nil), sig.ErrEmpty},
		{"no data in method 14", ecPub, 14, nil, sig.ErrMalformed},
		{"method 0", rsaPub, 0, good, sig.ErrMethod},
		{"method 2, a shared key", rsaPub, 2, good, sig.ErrMethod},
		{"method 3, DSS", rsaPub, 3, good, sig.ErrMethod},
		{"method 13, a null authentication", rsaPub, 13, good, sig.ErrMethod},
		{"method 14's data under method 1", rsaPub, 1, good, sig.ErrSignature},
		{"RSA in ECDSA's method", rsaPub, 9, good, sig.ErrWrongKey},
		{"ECDSA key, RSA signature", ecPub, 14, good, sig.ErrWrongKey},
		{"ECDSA key, method 1", ecPub, 1, zeros, sig.ErrWrongKey},
		{"RFC 4754 §3: P-256 in P-384's method", ecPub, 10, make([]byte, 96), sig.ErrWrongKey},
		{"Ed25519 key, ECDSA", keys()["ed25519"].Public(), 14, auth(der, raw(1, 1)), sig.ErrWrongKey},
		{"Ed25519 key, Ed448", keys()["ed25519"].Public(), 14, auth(sig.Scheme{Algorithm: sig.Ed448, Hash: sig.Identity}, zeros[:114]), sig.ErrWrongKey},
		{"r is 0", ecPub, 9, raw(0, 1), sig.ErrSignature},
		{"s is 0", ecPub, 9, raw(1, 0), sig.ErrSignature},
		{"both are 0", ecPub, 9, raw(0, 0), sig.ErrSignature},
		{"r is the order", ecPub, 9, rIsN, sig.ErrSignature},
		{"r|s too short", ecPub, 9, raw(1, 1)[:63], sig.ErrSignature},
		{"DER in the fixed method", ecPub, 9, []byte{0x30, 6, 2, 1, 1, 2, 1, 1}, sig.ErrSignature},
		{"DER with zeros", ecPub, 14, auth(der, []byte{0x30, 6, 2, 1, 0, 2, 1, 0}), sig.ErrSignature},
		{"DER of nothing", ecPub, 14, auth(der, []byte{0x30, 0}), sig.ErrSignature},
		{"Ed25519 of zeros", keys()["ed25519"].Public(), 14, auth(sig.Scheme{Algorithm: sig.Ed25519, Hash: sig.Identity}, zeros[:64]), sig.ErrSignature},
		{"Ed448 too short", keys()["ed448"].Public(), 14, auth(sig.Scheme{Algorithm: sig.Ed448, Hash: sig.Identity}, zeros[:113]), sig.ErrSignature},
		{"RSA signature of 0", rsaPub, 14, auth(pkcs.Scheme, zeros), sig.ErrSignature},
		{"RSA signature of 1", rsaPub, 14, auth(pkcs.Scheme, append(zeros[:255:255], 1)), sig.ErrSignature},
		{"RSA signature of N", rsaPub, 14, auth(pkcs.Scheme, n.Bytes()), sig.ErrSignature},
		{"RSA-PSS signature of N", rsaPub, 14, auth(sig.PSS(sig.SHA256), n.Bytes()), sig.ErrSignature},
		{"RSA-PSS without salt, of N", rsaPub, 14, auth(sig.Scheme{Algorithm: sig.RSAPSS, Hash: sig.SHA256}, n.Bytes()), sig.ErrSignature},
		{"RSA-PSS without salt, short", rsaPub, 14, auth(sig.Scheme{Algorithm: sig.RSAPSS, Hash: sig.SHA256}, zeros[:255]), sig.ErrSignature},
		{"CVE-2021-41990: salt beyond the key", rsaPub, 14, auth(sig.Scheme{Algorithm: sig.RSAPSS, Hash: sig.SHA256, Salt: 223}, zeros), sig.ErrPSS},
		{"longest salt", rsaPub, 14, auth(sig.Scheme{Algorithm: sig.RSAPSS, Hash: sig.SHA256, Salt: 222}, zeros), sig.ErrSignature},
		{"RSA of 1016 bits", &rsa.PublicKey{N: new(big.Int).Rsh(n, 2048-1016), E: 65537}, 14, good, sig.ErrKey},
		{"RSA of 8200 bits", &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), 8199, 1), E: 65537}, 14, good, sig.ErrKey},
		{"RSA, even modulus", &rsa.PublicKey{N: new(big.Int).Sub(n, big.NewInt(1)), E: 65537}, 14, good, sig.ErrKey},
		{"RSA, negative modulus", &rsa.PublicKey{N: new(big.Int).Neg(n), E: 65537}, 14, good, sig.ErrKey},
		{"RSA, no modulus", &rsa.PublicKey{E: 65537}, 14, good, sig.ErrKey},
		{"RSA, exponent 1", &rsa.PublicKey{N: n, E: 1}, 14, good, sig.ErrKey},
		{"RSA, exponent 0", &rsa.PublicKey{N: n}, 14, good, sig.ErrKey},
		{"RSA, exponent 2", &rsa.PublicKey{N: n, E: 2}, 14, good, sig.ErrKey},
		{"RSA, exponent 65536", &rsa.PublicKey{N: n, E: 65536}, 14, good, sig.ErrKey},
		{"RSA, exponent -3", &rsa.PublicKey{N: n, E: -3}, 14, good, sig.ErrKey},
		{"RSA, exponent of 33 bits", &rsa.PublicKey{N: n, E: 1<<32 + 1}, 14, good, sig.ErrKey},
		{"point off the curve", point(big.NewInt(1), big.NewInt(1)), 9, raw(1, 1), sig.ErrKey},
		{"point at infinity", point(new(big.Int), new(big.Int)), 9, raw(1, 1), sig.ErrKey},
		{"point of another curve", other, 9, raw(1, 1), sig.ErrKey},
		{"coordinate beyond the field", point(order, new(big.Int).Lsh(order, 8)), 9, raw(1, 1), sig.ErrKey},
		{"negative coordinate", point(big.NewInt(-1), order), 9, raw(1, 1), sig.ErrKey},
		{"no curve", &ecdsa.PublicKey{}, 9, raw(1, 1), sig.ErrKey},
		{"short Ed25519 key", ed25519.PublicKey(zeros[:31]), 14, auth(sig.Scheme{Algorithm: sig.Ed25519, Hash: sig.Identity}, zeros[:64]), sig.ErrKey},
		{"short Ed448 key", ed448.PublicKey(zeros[:56]), 14, auth(sig.Scheme{Algorithm: sig.Ed448, Hash: sig.Identity}, zeros[:114]), sig.ErrKey},
		{"no key", nil, 14, good, sig.ErrKey},
		{"no RSA key", (*rsa.PublicKey)(nil), 14, good, sig.ErrKey},
		{"no ECDSA key", (*ecdsa.PublicKey)(nil), 9, raw(1, 1), sig.ErrKey},
	} {
		if _, err := sig.Verify(tt.pub, tt.method, tt.data, octets, nil); !errors.Is(err, tt.want) || tt.want == nil && err != nil {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

// A salt must have the announced length, with 0 as with any other.
func TestRFC8017_8_1_2_SaltLengthIsExact(t *testing.T) {
	k := keys()["rsa-2048"].(*rsa.PrivateKey)
	digest := sha256.Sum256(octets)
	// crypto/rsa can't sign without salt; Wycheproof has such signatures.
	for _, salt := range []int{1, 20, 32, 100, 222} {
		signature, err := rsa.SignPSS(rand.Reader, k, crypto.SHA256, digest[:], &rsa.PSSOptions{SaltLength: salt})
		if err != nil {
			t.Fatal(err)
		}
		for _, announced := range []int{0, 1, 20, 32, 100, 222} {
			data, err := sig.AppendAuth(nil, sig.Scheme{Algorithm: sig.RSAPSS, Hash: sig.SHA256, Salt: announced}, signature)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := sig.Verify(k.Public(), sig.MethodSignature, data, octets, nil); (err == nil) != (announced == salt) {
				t.Errorf("a salt of %d announced as %d: %v", salt, announced, err)
			}
		}
	}
}

func TestSign_Refusals(t *testing.T) {
	k := keys()["rsa-2048"]
	for _, tt := range []struct {
		name string
		key  crypto.Signer
		c    sig.Choice
		want error
	}{
		{"RFC 7427 §1: SHA-1 in method 14", k, sig.Choice{Method: 14, Scheme: sig.Scheme{Algorithm: sig.RSAPKCS1, Hash: sig.SHA1}}, sig.ErrAlgorithm},
		{"SHA-256 in method 1", k, sig.Choice{Method: 1, Scheme: sig.Scheme{Algorithm: sig.RSAPKCS1, Hash: sig.SHA256}}, sig.ErrMethod},
		{"method 2", k, sig.Choice{Method: 2, Scheme: sig.Scheme{Algorithm: sig.RSAPKCS1, Hash: sig.SHA256}}, sig.ErrMethod},
		{"r|s in method 14", keys()["p256"], sig.Choice{Method: 14, Scheme: sig.Scheme{Algorithm: sig.ECDSARaw, Hash: sig.SHA256}}, sig.ErrAlgorithm},
		{"PSS without salt", k, sig.Choice{Method: 14, Scheme: sig.Scheme{Algorithm: sig.RSAPSS, Hash: sig.SHA256}}, sig.ErrPSS},
		{"PSS, a salt beyond the key", k, sig.Choice{Method: 14, Scheme: sig.Scheme{Algorithm: sig.RSAPSS, Hash: sig.SHA256, Salt: 223}}, sig.ErrWrongKey},
		{"PSS without hash", k, sig.Choice{Method: 14, Scheme: sig.Scheme{Algorithm: sig.RSAPSS, Hash: sig.Identity, Salt: 20}}, sig.ErrWrongKey},
		{"nothing", k, sig.Choice{}, sig.ErrMethod},
		{"no scheme", k, sig.Choice{Method: 14}, sig.ErrWrongKey},
		{"a key that fails", broken{k}, sig.Choice{Method: 14, Scheme: sig.PSS(sig.SHA256)}, sig.ErrEmpty},
	} {
		if data, err := sig.Sign(tt.key, tt.c, octets); !errors.Is(err, tt.want) {
			t.Errorf("%s: %x %v", tt.name, data, err)
		}
	}
}

type broken struct{ crypto.Signer }

func (broken) Sign(_ io.Reader, _ []byte, _ crypto.SignerOpts) ([]byte, error) {
	return nil, nil
}

func TestRFC7427_4_Choose(t *testing.T) {
	all := sig.Offered()
	big3 := func(bits int) crypto.PublicKey {
		return &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), bits-1, 1), E: 65537}
	}
	pub := func(name string) crypto.PublicKey { return keys()[name].Public() }
	for _, tt := range []struct {
		name string
		pub  crypto.PublicKey
		peer []sig.Hash
		want string // constraints
		list string
	}{
		{"RSA by its size", pub("rsa-2048"), all, "", "14 RSA_EMSA_PKCS1_SHA2_256, 14 RSA_EMSA_PKCS1_SHA2_384, 14 RSA_EMSA_PKCS1_SHA2_512"},
		{"RSA-3072", big3(3072), all, "", "14 RSA_EMSA_PKCS1_SHA2_256, 14 RSA_EMSA_PKCS1_SHA2_384, 14 RSA_EMSA_PKCS1_SHA2_512"},
		{"RSA-4096", big3(4096), all, "", "14 RSA_EMSA_PKCS1_SHA2_384, 14 RSA_EMSA_PKCS1_SHA2_512, 14 RSA_EMSA_PKCS1_SHA2_256"},
		{"RSA-8192", big3(8192), all, "", "14 RSA_EMSA_PKCS1_SHA2_512, 14 RSA_EMSA_PKCS1_SHA2_384, 14 RSA_EMSA_PKCS1_SHA2_256"},
		{"RSA, the peer has one hash", big3(4096), []sig.Hash{sig.SHA1, sig.SHA256}, "", "14 RSA_EMSA_PKCS1_SHA2_256"},
		{"RSA, the peer has SHA-1 only", pub("rsa-2048"), []sig.Hash{sig.SHA1}, "", ""},
		{"RSA, SHA-1 is wanted and offered", pub("rsa-2048"), []sig.Hash{sig.SHA1}, "rsa-sha1", ""},
		{"RSA, an empty announcement", pub("rsa-2048"), []sig.Hash{}, "", ""},
		{"RSA, no RFC 7427", pub("rsa-2048"), nil, "", "1 RSA_EMSA_PKCS1_SHA1"},
		{"RSA, no RFC 7427, SHA-256 wanted", pub("rsa-2048"), nil, "rsa-sha256", ""},
		{"RSA, no RFC 7427, SHA-1 wanted", pub("rsa-2048"), nil, "rsa-sha1-sha256", "1 RSA_EMSA_PKCS1_SHA1"},
		{"RSA-PSS wanted", pub("rsa-2048"), all, "ike:rsa/pss-sha384-sha256", "14 RSA_EMSA_PSS_SHA2_384_SALT_48, 14 RSA_EMSA_PSS_SHA2_256_SALT_32"},
		{"RSA-PSS wanted, no RFC 7427", pub("rsa-2048"), nil, "rsa/pss-sha256", ""},
		{"RSA-PSS of any hash", pub("rsa-2048"), []sig.Hash{sig.SHA512}, "rsa/pss", "14 RSA_EMSA_PSS_SHA2_512_SALT_64"},
		{"RSA-1024 has no room for PSS with SHA-512", pub("rsa-1024"), all, "rsa/pss-sha512-sha256", "14 RSA_EMSA_PSS_SHA2_256_SALT_32"},
		{"wanted order", pub("rsa-2048"), all, "pubkey-sha512-sha256", "14 RSA_EMSA_PKCS1_SHA2_512, 14 RSA_EMSA_PKCS1_SHA2_256"},
		{"wanted twice", pub("rsa-2048"), all, "pubkey-sha512-rsa-sha512", "14 RSA_EMSA_PKCS1_SHA2_512"},
		{"another type is wanted", pub("rsa-2048"), all, "ecdsa-sha256", ""},
		{"P-256", pub("p256"), all, "", "14 ECDSA_WITH_SHA256_DER, 14 ECDSA_WITH_SHA384_DER, 14 ECDSA_WITH_SHA512_DER"},
		{"P-384", pub("p384"), all, "", "14 ECDSA_WITH_SHA384_DER, 14 ECDSA_WITH_SHA512_DER"},
		{"P-521", pub("p521"), all, "", "14 ECDSA_WITH_SHA512_DER"},
		{"P-521 with SHA-256 wanted", pub("p521"), all, "ecdsa-sha256", "14 ECDSA_WITH_SHA256_DER"},
		{"P-224", pub("p224"), all, "", ""},
		{"P-256, no RFC 7427", pub("p256"), nil, "", "9 ECDSA-256"},
		{"P-384, no RFC 7427", pub("p384"), nil, "", "10 ECDSA-384"},
		{"P-521, no RFC 7427", pub("p521"), nil, "", "11 ECDSA-521"},
		{"P-384, no RFC 7427, SHA-256 wanted", pub("p384"), nil, "ecdsa-sha256", ""},
		{"RFC 8420 §2: Ed25519", pub("ed25519"), all, "", "14 ED25519"},
		{"RFC 8420 §2: Ed25519 without Identity", pub("ed25519"), []sig.Hash{sig.SHA256, sig.SHA512}, "", ""},
		{"Ed25519, no RFC 7427", pub("ed25519"), nil, "", ""},
		{"Ed448", pub("ed448"), all, "", "14 ED448"},
		{"Ed448 where any key may use identity", pub("ed448"), all, "pubkey-identity", "14 ED448"},
		{"Ed448 beside RSA with hashes", pub("ed448"), all, "rsa-sha256-ed448", "14 ED448"},
		{"Ed448 where hashes are wanted", pub("ed448"), all, "pubkey-sha256", ""},
		{"no key", nil, all, "", ""},
	} {
		var text []string
		for _, c := range sig.Choose(tt.pub, tt.peer, constraints(t, tt.want).IKE()) {
			text = append(text, fmt.Sprint(c.Method, " ", c.Scheme))
		}
		if got := strings.Join(text, ", "); got != tt.list {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.list)
		}
	}
}

package sig_test

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"math/big"
	"strings"
	"testing"

	"adit/suite/sig"
)

// schemes by the names that logs have.
var schemes = []sig.Scheme{
	{Algorithm: sig.RSAPKCS1, Hash: sig.SHA1}, {Algorithm: sig.RSAPKCS1, Hash: sig.SHA256}, {Algorithm: sig.RSAPKCS1, Hash: sig.SHA384}, {Algorithm: sig.RSAPKCS1, Hash: sig.SHA512},
	sig.PSS(sig.SHA256), sig.PSS(sig.SHA384), {Algorithm: sig.RSAPSS, Hash: sig.SHA256, Salt: 20}, {Algorithm: sig.ECDSA, Hash: sig.SHA256}, {Algorithm: sig.ECDSA, Hash: sig.SHA384},
	{Algorithm: sig.ECDSARaw, Hash: sig.SHA256}, {Algorithm: sig.Ed25519, Hash: sig.Identity}, {Algorithm: sig.Ed448, Hash: sig.Identity},
}

func TestParseConstraints(t *testing.T) {
	const all = "RSA_EMSA_PKCS1_SHA1 RSA_EMSA_PKCS1_SHA2_256 RSA_EMSA_PKCS1_SHA2_384 RSA_EMSA_PKCS1_SHA2_512 RSA_EMSA_PSS_SHA2_256_SALT_32 RSA_EMSA_PSS_SHA2_384_SALT_48 " +
		"RSA_EMSA_PSS_SHA2_256_SALT_20 ECDSA_WITH_SHA256_DER ECDSA_WITH_SHA384_DER ECDSA-256 ED25519 ED448"
	const rsa256, ec256, pss256 = "RSA_EMSA_PKCS1_SHA2_256", "ECDSA_WITH_SHA256_DER ECDSA-256", "RSA_EMSA_PSS_SHA2_256_SALT_32 RSA_EMSA_PSS_SHA2_256_SALT_20"
	const keyNames = "rsa-1024 rsa-2048 p256 p384 p521 ed25519 ed448"
	for _, tt := range []struct{ text, ike, chain, keys, caKeys string }{
		{"", all, all, keyNames, keyNames},
		{"pubkey", all, all, keyNames, keyNames},
		{"rsa", all, all, "rsa-1024 rsa-2048", keyNames},
		{"rsa-2048", all, all, "rsa-2048", "rsa-2048 ed25519 ed448"},
		{"rsa-4096", all, all, "", "ed25519 ed448"},
		{"ecdsa", all, all, "p256 p384 p521", keyNames},
		{"ecdsa-384", all, all, "p384 p521", "p384 p521 ed25519 ed448"},
		{"rsa-2048-ecdsa-256", all, all, "rsa-2048 p256 p384 p521", "rsa-2048 p256 p384 p521 ed25519 ed448"},
		{"ed25519", all, all, "ed25519", keyNames},
		{"ed448", all, all, "ed448", keyNames},
		{"rsa-2048-sha256", rsa256, rsa256, "rsa-2048", "rsa-2048 ed25519 ed448"},
		{"pubkey-sha256", rsa256 + " " + ec256, rsa256 + " " + ec256, keyNames, keyNames},
		{"pubkey-identity", "ED25519 ED448", "ED25519 ED448", keyNames, keyNames},
		{"ecdsa-256-sha256", ec256, ec256, "p256 p384 p521", "p256 p384 p521 ed25519 ed448"},
		{"rsa/pss-sha256", pss256, pss256, "rsa-1024 rsa-2048", keyNames},
		{"ike:rsa/pss-sha256", pss256, all, "rsa-1024 rsa-2048", keyNames},
		{"rsa/pss", "RSA_EMSA_PSS_SHA2_256_SALT_32 RSA_EMSA_PSS_SHA2_384_SALT_48 RSA_EMSA_PSS_SHA2_256_SALT_20", all, "rsa-1024 rsa-2048", keyNames},
		{"rsa-2048-sha256-ike:rsa/pss-sha256", pss256, rsa256, "rsa-2048", "rsa-2048 ed25519 ed448"},
		{"ike:pubkey-sha256-rsa-2048-sha384", rsa256 + " " + ec256, "RSA_EMSA_PKCS1_SHA2_384", "rsa-2048 p256 p384 p521 ed25519 ed448", "rsa-2048 p256 p384 p521 ed25519 ed448"},
		{"rsa-sha256-ecdsa-sha256-ed25519", rsa256 + " " + ec256 + " ED25519", rsa256 + " " + ec256 + " ED25519", "rsa-1024 rsa-2048 p256 p384 p521 ed25519", keyNames},
		{"ed25519-identity", "ED25519", "ED25519", "ed25519", keyNames},
		{"rsa-sha1", "RSA_EMSA_PKCS1_SHA1", "RSA_EMSA_PKCS1_SHA1", "rsa-1024 rsa-2048", keyNames},
	} {
		c, err := sig.ParseConstraints(tt.text)
		if err != nil {
			t.Error(err)
			continue
		}
		filter := func(check func(sig.Scheme) error) string {
			var out []string
			for _, s := range schemes {
				if err := check(s); err == nil {
					out = append(out, s.String())
				} else if !errors.Is(err, sig.ErrConstraints) || !strings.Contains(err.Error(), s.String()) {
					t.Errorf("%s: %v", tt.text, err)
				}
			}
			return strings.Join(out, " ")
		}
		filterKeys := func(check func(crypto.PublicKey) error) string {
			var out []string
			for _, name := range strings.Fields(keyNames) {
				if err := check(keys()[name].Public()); err == nil {
					out = append(out, name)
				} else if !errors.Is(err, sig.ErrConstraints) || !strings.Contains(err.Error(), tt.text) {
					t.Errorf("%s: %v", tt.text, err)
				}
			}
			return strings.Join(out, " ")
		}
		same := func(what, got, want string) {
			w := map[string]bool{}
			for _, s := range strings.Fields(want) {
				w[s] = true
			}
			n := 0
			for _, s := range strings.Fields(got) {
				n++
				if !w[s] {
					t.Errorf("%s, %s: %s is permitted", tt.text, what, s)
				}
			}
			if n != len(w) {
				t.Errorf("%s, %s: %s, want %s", tt.text, what, got, want)
			}
		}
		same("IKE", filter(c.CheckIKE), tt.ike)
		same("chain", filter(c.CheckChain), tt.chain)
		same("keys", filterKeys(c.CheckKey), tt.keys)
		same("keys of CAs", filterKeys(c.CheckChainKey), tt.caKeys)
		if c.String() != tt.text {
			t.Errorf("%s is called %s", tt.text, c)
		}
	}
	for text, why := range map[string]string{
		"bliss": "side channels", "bliss-128": "bliss", "pubkey-bliss": "bliss", "sha256": "must begin", "2048": "must begin", "psk": "must begin", "rsa-": "empty",
		"rsa-2048-4096": "once", "rsa-sha256-2048": "first", "rsa-0": "0 bits", "rsa-99999": "unknown element", "rsa-20000": "20000 bits", "ecdsa-2048": "2048 bits", "pubkey-2048": "no strength",
		"ed25519-256": "no strength", "ed25519-sha256": "no hash but identity", "rsa-identity": "no hash of rsa", "rsa-md5": "too weak", "rsa-sha224": "too weak", "ecdsa-sha1": "too weak",
		"rsa/pss-sha1": "too weak", "rsa-sha3": "unknown", "rsa-SHA256": "unknown", "rsa-ike:sha256": "unknown", "ike:": "must begin", "dsa": "must begin",
		"pubkey" + strings.Repeat("-sha256", 64): "more than",
	} {
		if _, err := sig.ParseConstraints(text); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestVerify_Constraints(t *testing.T) {
	k := keys()["rsa-2048"]
	data, err := sig.Sign(k, sig.Choice{Method: sig.MethodSignature, Scheme: sig.PSS(sig.SHA256)}, octets)
	if err != nil {
		t.Fatal(err)
	}
	old, err := sig.Sign(k, sig.Choice{Method: sig.MethodRSA, Scheme: sig.Scheme{Algorithm: sig.RSAPKCS1, Hash: sig.SHA1}}, octets)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string][2]bool{"": {true, true}, "pubkey": {true, true}, "rsa-2048": {true, true}, "rsa-sha256": {false, false}, "rsa/pss-sha256": {true, false},
		"rsa/pss-sha384": {false, false}, "rsa-sha1": {false, true}, "rsa-sha256-ike:rsa/pss-sha256": {true, false}, "ike:ecdsa-sha256": {false, false}} {
		allow := constraints(t, text).IKE()
		_, err := sig.Verify(k.Public(), sig.MethodSignature, data, octets, allow)
		_, err2 := sig.Verify(k.Public(), sig.MethodRSA, old, octets, allow)
		if (err == nil) != want[0] || (err2 == nil) != want[1] || err != nil && !errors.Is(err, sig.ErrConstraints) {
			t.Errorf("%q: %v, %v", text, err, err2)
		}
	}
	_, err = sig.Verify(k.Public(), sig.MethodRSA, old, octets, constraints(t, "rsa/pss-sha256-sha384").IKE())
	if err == nil || !strings.Contains(err.Error(), "RSA_EMSA_PKCS1_SHA1, wanted is rsa/pss-sha256 or rsa/pss-sha384") {
		t.Errorf("an operator reads: %v", err)
	}
}

func TestKeyKind(t *testing.T) {
	for name, want := range map[string]struct {
		kind string
		bits int
	}{"rsa-2048": {"RSA", 2048}, "p521": {"ECDSA", 521}, "ed25519": {"ED25519", 256}, "ed448": {"ED448", 456}} {
		if kind, bits := sig.KeyKind(keys()[name].Public()); kind != want.kind || bits != want.bits {
			t.Errorf("%s: %s-%d", name, kind, bits)
		}
	}
	if kind, bits := sig.KeyKind("key"); kind != "unknown" || bits != 0 {
		t.Error(kind, bits)
	}
	if err := sig.CheckKey(&rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), 4095, 1), E: 3}); err != nil {
		t.Error(err)
	}
}

func TestCertificateScheme(t *testing.T) {
	s, err := sig.CertificateScheme(x509.SHA256WithRSAPSS)
	if err != nil || s != sig.PSS(sig.SHA256) {
		t.Error(s, err)
	}
	if _, err := sig.CertificateScheme(x509.MD5WithRSA); !errors.Is(err, sig.ErrAlgorithm) {
		t.Error(err)
	}
}

func FuzzParseConstraints(f *testing.F) {
	for _, s := range []string{"pubkey", "rsa-2048-sha256-ike:rsa/pss-sha384", "ecdsa-256-ed25519-identity", "bliss", "rsa--"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := sig.ParseConstraints(text)
		if err != nil {
			return
		}
		if c.CheckKey(keys()["p256"].Public()) == nil && c.CheckChainKey(keys()["p256"].Public()) != nil {
			t.Fatalf("%q demands more of a CA than of its subject", text)
		}
		for _, p := range c.IKE() {
			again, err := sig.ParseConstraints(p.String())
			if err != nil || len(again.IKE()) != 1 || again.IKE()[0] != p {
				t.Fatalf("%q has %v, which is read as %v, %v", text, p, again.IKE(), err)
			}
		}
		if c.CheckIKE(sig.PSS(sig.SHA256)) != nil && len(c.IKE()) == 0 {
			t.Fatalf("%q demands nothing and refuses", text)
		}
	})
}

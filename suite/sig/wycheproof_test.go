package sig_test

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"testing"

	"adit/suite/sig"
	vectors "adit/suite/wycheproof"

	"github.com/cloudflare/circl/sign/ed448"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

type wycheproofTest struct {
	TcID     int
	Comment  string
	Msg, Sig vectors.Hex
	Result   string
}

type wycheproofGroup struct {
	Sha, MgfSha  string
	SLen         int
	PublicKeyDer vectors.Hex
	PublicKeyPem string
	PublicKey    json.RawMessage
	Tests        []wycheproofTest
}

// wycheproof loads one file and calls check for every group in it.
func wycheproof(t *testing.T, file string, check func(t *testing.T, g wycheproofGroup)) {
	t.Helper()
	var doc struct {
		NumberOfTests int
		TestGroups    []wycheproofGroup
	}
	vectors.Load(t, file, &doc)
	n := 0
	for _, g := range doc.TestGroups {
		n += len(g.Tests)
		check(t, g)
	}
	if n != doc.NumberOfTests || n == 0 {
		t.Fatalf("%s: %d tests, the file says %d", file, n, doc.NumberOfTests)
	}
}

// spki splits a SubjectPublicKeyInfo and returns the key, as rsaEncryption where it
// was a key for RSASSA-PSS, and the AlgorithmIdentifier.
func spki(t *testing.T, g wycheproofGroup) (crypto.PublicKey, []byte) {
	t.Helper()
	der := []byte(g.PublicKeyDer)
	if len(der) == 0 {
		block, _ := pem.Decode([]byte(g.PublicKeyPem))
		der = block.Bytes
	}
	in := cryptobyte.String(der)
	var body, algorithm, bits cryptobyte.String
	if !in.ReadASN1(&body, cbasn1.SEQUENCE) || !body.ReadASN1Element(&algorithm, cbasn1.SEQUENCE) || !body.ReadASN1(&bits, cbasn1.BIT_STRING) {
		t.Fatal("a public key in the vectors is malformed")
	}
	if pub, err := x509.ParsePKIXPublicKey(der); err == nil {
		return pub, algorithm
	}
	pub, err := x509.ParsePKCS1PublicKey(bits[1:])
	if err != nil {
		t.Fatal(err)
	}
	return pub, algorithm
}

// judge verifies every test of a group by a method and scheme.
func judge(t *testing.T, file string, pub crypto.PublicKey, method uint8, algorithm []byte, tests []wycheproofTest) (valid int) {
	t.Helper()
	for _, v := range tests {
		data := []byte(v.Sig)
		if method == sig.MethodSignature {
			data = append(append([]byte{byte(len(algorithm))}, algorithm...), v.Sig...)
		}
		_, err := sig.Verify(pub, method, data, v.Msg, nil)
		if (err == nil) != (v.Result == "valid") {
			t.Errorf("%s %d (%s): %s, but %v", file, v.TcID, v.Comment, v.Result, err)
		}
		if err == nil {
			valid++
		}
		if err != nil && !errors.Is(err, sig.ErrSignature) && !errors.Is(err, sig.ErrEmpty) {
			t.Errorf("%s %d: refused for another reason: %v", file, v.TcID, err)
		}
	}
	return valid
}

func identifier(t *testing.T, s sig.Scheme) []byte {
	t.Helper()
	der, err := sig.AppendAlgorithm(nil, s)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestWycheproof_RSAPKCS1(t *testing.T) {
	t.Parallel()
	for file, h := range map[string]sig.Hash{
		"rsa_signature_2048_sha256_test.json": sig.SHA256, "rsa_signature_2048_sha384_test.json": sig.SHA384,
		"rsa_signature_2048_sha512_test.json": sig.SHA512, "rsa_signature_3072_sha256_test.json": sig.SHA256,
		"rsa_signature_4096_sha384_test.json": sig.SHA384, "rsa_signature_8192_sha512_test.json": sig.SHA512,
	} {
		algorithm, valid := identifier(t, sig.Scheme{Algorithm: sig.RSAPKCS1, Hash: h}), 0
		wycheproof(t, file, func(t *testing.T, g wycheproofGroup) {
			pub, _ := spki(t, g)
			if sig.CheckKey(pub) != nil {
				return // a modulus or exponent that is refused elsewhere
			}
			valid += judge(t, file, pub, sig.MethodSignature, algorithm, g.Tests)
		})
		if valid < 5 {
			t.Errorf("%s: only %d valid signatures", file, valid)
		}
	}
}

func TestWycheproof_RSAPSS(t *testing.T) {
	t.Parallel()
	for file, s := range map[string]sig.Scheme{
		"rsa_pss_2048_sha256_mgf1_0_test.json":  {Algorithm: sig.RSAPSS, Hash: sig.SHA256, Salt: 0},
		"rsa_pss_2048_sha256_mgf1_32_test.json": sig.PSS(sig.SHA256),
		"rsa_pss_2048_sha384_mgf1_48_test.json": sig.PSS(sig.SHA384),
		"rsa_pss_3072_sha256_mgf1_32_test.json": sig.PSS(sig.SHA256),
		"rsa_pss_4096_sha512_mgf1_32_test.json": {Algorithm: sig.RSAPSS, Hash: sig.SHA512, Salt: 32},
		"rsa_pss_4096_sha512_mgf1_64_test.json": sig.PSS(sig.SHA512),
	} {
		algorithm, valid := identifier(t, s), 0
		wycheproof(t, file, func(t *testing.T, g wycheproofGroup) {
			pub, _ := spki(t, g)
			valid += judge(t, file, pub, sig.MethodSignature, algorithm, g.Tests)
		})
		if valid < 5 {
			t.Errorf("%s: only %d valid signatures", file, valid)
		}
	}
}

// A signature plus the modulus has the same residue, and must not verify: the
// verification without salt is our own.
func TestRFC8017_8_1_2_SignatureBeyondTheModulus(t *testing.T) {
	t.Parallel()
	const file = "rsa_pss_2048_sha256_mgf1_0_test.json"
	algorithm, n := identifier(t, sig.Scheme{Algorithm: sig.RSAPSS, Hash: sig.SHA256}), 0
	wycheproof(t, file, func(t *testing.T, g wycheproofGroup) {
		pub, _ := spki(t, g)
		for i, v := range g.Tests {
			sum := new(big.Int).Add(new(big.Int).SetBytes(v.Sig), pub.(*rsa.PublicKey).N)
			if v.Result != "valid" || sum.BitLen() > 2048 {
				g.Tests[i].Sig, g.Tests[i].Result = make([]byte, 256), "invalid"
				continue
			}
			n++
			g.Tests[i].Sig, g.Tests[i].Result = sum.FillBytes(make([]byte, 256)), "invalid"
		}
		judge(t, file, pub, sig.MethodSignature, algorithm, g.Tests)
	})
	if n < 5 {
		t.Errorf("only %d signatures have room", n)
	}
}

// The parameters are those of the keys, odd ones among them: SHA-1, other hashes
// in MGF1 and hashes that IKEv2 does not know are refused by name.
func TestWycheproof_RSAPSSParameters(t *testing.T) {
	t.Parallel()
	known := map[string]bool{"SHA-256": true, "SHA-384": true, "SHA-512": true}
	valid, refused := 0, 0
	for _, file := range []string{"rsa_pss_misc_params_test.json", "rsa_pss_2048_sha1_mgf1_20_params_test.json",
		"rsa_pss_2048_sha256_mgf1_0_params_test.json", "rsa_pss_2048_sha256_mgf1_32_params_test.json",
		"rsa_pss_2048_sha512_mgf1sha256_32_params_test.json", "rsa_pss_4096_sha512_mgf1_32_params_test.json"} {
		wycheproof(t, file, func(t *testing.T, g wycheproofGroup) {
			pub, algorithm := spki(t, g)
			if known[g.Sha] && g.MgfSha == g.Sha {
				valid += judge(t, file, pub, sig.MethodSignature, algorithm, g.Tests)
				return
			}
			_, err := sig.ParseAlgorithm(algorithm)
			if g.Sha == "SHA-1" && !errors.Is(err, sig.ErrWeakHash) || g.Sha != "SHA-1" && !errors.Is(err, sig.ErrPSS) {
				t.Errorf("%s: %s with MGF1 %s: %v", file, g.Sha, g.MgfSha, err)
			}
			refused += len(g.Tests)
		})
	}
	if valid < 100 || refused < 100 {
		t.Errorf("only %d valid and %d refused ones", valid, refused)
	}
}

func TestWycheproof_ECDSA(t *testing.T) {
	t.Parallel()
	for file, h := range map[string]sig.Hash{
		"ecdsa_secp256r1_sha256_test.json": sig.SHA256, "ecdsa_secp256r1_sha512_test.json": sig.SHA512,
		"ecdsa_secp384r1_sha256_test.json": sig.SHA256, // and SHA-384 with the fixed methods
		"ecdsa_secp521r1_sha512_test.json": sig.SHA512,
	} {
		algorithm, valid := identifier(t, sig.Scheme{Algorithm: sig.ECDSA, Hash: h}), 0
		wycheproof(t, file, func(t *testing.T, g wycheproofGroup) {
			pub, _ := spki(t, g)
			valid += judge(t, file, pub, sig.MethodSignature, algorithm, g.Tests)
		})
		if valid < 50 {
			t.Errorf("%s: only %d valid signatures", file, valid)
		}
	}
}

// RFC 4754 §7: the fixed methods carry r|s.
func TestWycheproof_RFC4754_7_ECDSAFixedMethods(t *testing.T) {
	t.Parallel()
	for file, method := range map[string]uint8{
		"ecdsa_secp256r1_sha256_p1363_test.json": sig.MethodECDSA256,
		"ecdsa_secp384r1_sha384_p1363_test.json": sig.MethodECDSA384,
		"ecdsa_secp521r1_sha512_p1363_test.json": sig.MethodECDSA521,
	} {
		valid := 0
		wycheproof(t, file, func(t *testing.T, g wycheproofGroup) {
			pub, _ := spki(t, g)
			valid += judge(t, file, pub, method, nil, g.Tests)
		})
		if valid < 50 {
			t.Errorf("%s: only %d valid signatures", file, valid)
		}
	}
}

func TestWycheproof_EdDSA(t *testing.T) {
	t.Parallel()
	for file, a := range map[string]sig.Algorithm{"ed25519_test.json": sig.Ed25519, "ed448_test.json": sig.Ed448} {
		algorithm, valid := identifier(t, sig.Scheme{Algorithm: a, Hash: sig.Identity}), 0
		wycheproof(t, file, func(t *testing.T, g wycheproofGroup) {
			var pub crypto.PublicKey
			if a == sig.Ed448 {
				var k struct{ Pk vectors.Hex }
				if err := json.Unmarshal(g.PublicKey, &k); err != nil {
					t.Fatal(err)
				}
				pub = ed448.PublicKey(k.Pk)
			} else {
				pub, _ = spki(t, g)
			}
			valid += judge(t, file, pub, sig.MethodSignature, algorithm, g.Tests)
		})
		if valid < 10 {
			t.Errorf("%s: only %d valid signatures", file, valid)
		}
	}
}

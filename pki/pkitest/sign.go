package pkitest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	_ "crypto/md5" // refused signatures need making
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha1"
	_ "crypto/sha256"
	_ "crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"

	"github.com/cloudflare/circl/sign/ed448"
)

var (
	oidEd448  = asn1.ObjectIdentifier{1, 3, 101, 113}
	oidRSAPSS = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}
	oidMGF1   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 8}
	null      = asn1.RawValue{FullBytes: []byte{5, 0}}
)

var rsaOIDs = map[crypto.Hash]asn1.ObjectIdentifier{
	crypto.MD5:    {1, 2, 840, 113549, 1, 1, 4},
	crypto.SHA1:   {1, 2, 840, 113549, 1, 1, 5},
	crypto.SHA256: {1, 2, 840, 113549, 1, 1, 11},
	crypto.SHA384: {1, 2, 840, 113549, 1, 1, 12},
	crypto.SHA512: {1, 2, 840, 113549, 1, 1, 13},
}

var ecdsaOIDs = map[crypto.Hash]asn1.ObjectIdentifier{
	crypto.SHA1:   {1, 2, 840, 10045, 4, 1},
	crypto.SHA256: {1, 2, 840, 10045, 4, 3, 2},
	crypto.SHA384: {1, 2, 840, 10045, 4, 3, 3},
	crypto.SHA512: {1, 2, 840, 10045, 4, 3, 4},
}

var hashOIDs = map[crypto.Hash]asn1.ObjectIdentifier{
	crypto.SHA1:   {1, 3, 14, 3, 2, 26},
	crypto.SHA256: {2, 16, 840, 1, 101, 3, 4, 2, 1},
	crypto.SHA384: {2, 16, 840, 1, 101, 3, 4, 2, 2},
	crypto.SHA512: {2, 16, 840, 1, 101, 3, 4, 2, 3},
}

// encodeSPKI is the subjectPublicKeyInfo of pub.
func encodeSPKI(tb TB, pub crypto.PublicKey, pss bool) []byte {
	tb.Helper()
	type spki struct {
		Alg pkix.AlgorithmIdentifier
		Key asn1.BitString
	}
	switch k := pub.(type) {
	case ed448.PublicKey:
		return must(tb, spki{pkix.AlgorithmIdentifier{Algorithm: oidEd448}, asn1.BitString{Bytes: k, BitLength: 8 * len(k)}})
	case *rsa.PublicKey:
		if pss {
			b := x509.MarshalPKCS1PublicKey(k)
			return must(tb, spki{pkix.AlgorithmIdentifier{Algorithm: oidRSAPSS}, asn1.BitString{Bytes: b, BitLength: 8 * len(b)}})
		}
	}
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		tb.Fatalf("pkitest: %v", err)
	}
	return der
}

// sign signs tbs and says how. A hash of 0 stands for what fits the key.
func (e *Entity) sign(tbs []byte, hash crypto.Hash, pss bool) (pkix.AlgorithmIdentifier, []byte) {
	e.tb.Helper()
	var ai pkix.AlgorithmIdentifier
	if hash == 0 {
		hash = crypto.SHA256
		if k, ok := e.Key.(*ecdsa.PrivateKey); ok && k.Curve.Params().BitSize > 256 {
			hash = crypto.SHA384
		}
	}
	var opts crypto.SignerOpts = hash
	switch e.Key.(type) {
	case *rsa.PrivateKey:
		ai.Algorithm, ai.Parameters = rsaOIDs[hash], null
		if pss || e.pss {
			opts = &rsa.PSSOptions{SaltLength: hash.Size(), Hash: hash}
			h := pkix.AlgorithmIdentifier{Algorithm: hashOIDs[hash], Parameters: null}
			ai.Algorithm = oidRSAPSS
			ai.Parameters.FullBytes = must(e.tb, struct {
				Hash pkix.AlgorithmIdentifier `asn1:"explicit,tag:0"`
				MGF  pkix.AlgorithmIdentifier `asn1:"explicit,tag:1"`
				Salt int                      `asn1:"explicit,tag:2"`
			}{h, pkix.AlgorithmIdentifier{Algorithm: oidMGF1, Parameters: asn1.RawValue{FullBytes: must(e.tb, h)}}, hash.Size()})
		}
	case *ecdsa.PrivateKey:
		ai.Algorithm = ecdsaOIDs[hash]
	case ed25519.PrivateKey:
		ai.Algorithm, opts = asn1.ObjectIdentifier{1, 3, 101, 112}, crypto.Hash(0)
	case ed448.PrivateKey:
		ai.Algorithm, opts = oidEd448, crypto.Hash(0)
	default:
		e.tb.Fatalf("pkitest: can't sign with %T", e.Key)
	}
	digest := tbs
	if opts.HashFunc() != 0 {
		h := hash.New()
		h.Write(tbs)
		digest = h.Sum(nil)
	}
	sig, err := e.Key.Sign(rand.Reader, digest, opts)
	if err != nil {
		e.tb.Fatalf("pkitest: %v", err)
	}
	return ai, sig
}

// signedDER is a signed object (RFC 5280 §4.1): what is signed, how, the signature.
func signedDER(tb TB, tbs []byte, ai pkix.AlgorithmIdentifier, sig []byte) []byte {
	tb.Helper()
	return must(tb, struct {
		TBS asn1.RawValue
		Alg pkix.AlgorithmIdentifier
		Sig asn1.BitString
	}{asn1.RawValue{FullBytes: tbs}, ai, asn1.BitString{Bytes: sig, BitLength: 8 * len(sig)}})
}

// resign signs der again with e's key: the field at algAt of its content becomes the
// right algorithm, and the one at keyAt becomes spki (nil: stays).
func (e *Entity) resign(der []byte, algAt, keyAt int, spki []byte, hash crypto.Hash, pss bool) []byte {
	e.tb.Helper()
	var outer, tbs asn1.RawValue
	if _, err := asn1.Unmarshal(der, &outer); err != nil {
		e.tb.Fatalf("pkitest: %v", err)
	}
	if _, err := asn1.Unmarshal(outer.Bytes, &tbs); err != nil {
		e.tb.Fatalf("pkitest: %v", err)
	}
	ai, _ := e.sign(nil, hash, pss)
	var fields []asn1.RawValue
	for i, b := 0, tbs.Bytes; len(b) > 0; i++ {
		var f asn1.RawValue
		rest, err := asn1.Unmarshal(b, &f)
		if err != nil {
			e.tb.Fatalf("pkitest: %v", err)
		}
		switch {
		case i == algAt:
			f = asn1.RawValue{FullBytes: must(e.tb, ai)}
		case i == keyAt && spki != nil:
			f = asn1.RawValue{FullBytes: spki}
		}
		fields, b = append(fields, f), rest
	}
	body := must(e.tb, fields)
	ai, sig := e.sign(body, hash, pss)
	return signedDER(e.tb, body, ai, sig)
}

package sig_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"testing"

	"adit/suite/sig"
)

// smallExponentKey makes an RSA key with exponent 3, which crypto/rsa doesn't.
func smallExponentKey(t *testing.T, bits int) *rsa.PrivateKey {
	t.Helper()
	three, one := big.NewInt(3), big.NewInt(1)
	prime := func() *big.Int {
		for {
			p, err := rand.Prime(rand.Reader, bits/2)
			if err != nil {
				t.Fatal(err)
			}
			if new(big.Int).Mod(p, three).Int64() == 2 {
				return p
			}
		}
	}
	p, q := prime(), prime()
	phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
	k := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: new(big.Int).Mul(p, q), E: 3}, D: new(big.Int).ModInverse(three, phi), Primes: []*big.Int{p, q}}
	k.Precompute()
	if err := k.Validate(); err != nil {
		t.Fatal(err)
	}
	return k
}

// cubeForgery finds s with s³ = prefix | anything | suffix of size bytes, without a
// private key: the front comes from the real cube root, the end from the one
// modulo a power of two (for which the suffix must be odd).
func cubeForgery(t *testing.T, size int, prefix, suffix []byte) []byte {
	t.Helper()
	three := big.NewInt(3)
	low := uint(8 * len(suffix))
	tail := new(big.Int)
	if low > 0 {
		want := new(big.Int).SetBytes(suffix)
		if want.Bit(0) == 0 {
			t.Fatal("the suffix is even: it has no cube root modulo 2^n")
		}
		tail.SetInt64(1)
		for i := uint(1); i < low; i++ { // one bit a step: odd cubes are a bijection
			cube := new(big.Int).Exp(tail, three, nil)
			if cube.Bit(int(i)) != want.Bit(int(i)) {
				tail.SetBit(tail, int(i), 1)
			}
		}
	}
	target := new(big.Int).Lsh(new(big.Int).SetBytes(prefix), uint(8*(size-len(prefix))))
	lo, hi := new(big.Int), new(big.Int).Lsh(big.NewInt(1), uint(8*size/3+2))
	for one := big.NewInt(1); new(big.Int).Sub(hi, lo).Cmp(one) > 0; {
		mid := new(big.Int).Rsh(new(big.Int).Add(lo, hi), 1)
		if new(big.Int).Exp(mid, three, nil).Cmp(target) < 0 {
			lo = mid
		} else {
			hi = mid
		}
	}
	// hi is the least number whose cube has the prefix; round up to make place for the tail.
	s := new(big.Int).Lsh(new(big.Int).Add(new(big.Int).Rsh(hi, low), big.NewInt(1)), low)
	s.Or(s, tail)
	em := new(big.Int).Exp(s, three, nil).FillBytes(make([]byte, size))
	if !bytes.HasPrefix(em, prefix) || !bytes.HasSuffix(em, suffix) {
		t.Fatalf("the forgery is none: %x", em)
	}
	return s.FillBytes(make([]byte, size))
}

// The forgeries that deceived verifiers which parse the padding instead of
// comparing it; with a modulus of 2048 bits and exponent 3 each needs no key.
func TestRFC8017_8_2_2_PKCS1Forgeries(t *testing.T) {
	k := smallExponentKey(t, 2048)
	scheme := sig.Scheme{Algorithm: sig.RSAPKCS1, Hash: sig.SHA256}
	var message []byte
	var digest [32]byte
	for i := 0; ; i++ { // an odd digest, for the cube root at the end
		message = fmt.Appendf(nil, "octets %d", i)
		if digest = sha256.Sum256(message); digest[31]&1 == 1 {
			break
		}
	}
	verify := func(signature []byte) error {
		data, err := sig.AppendAuth(nil, scheme, signature)
		if err != nil {
			t.Fatal(err)
		}
		_, err = sig.Verify(k.Public(), sig.MethodSignature, data, message, nil)
		return err
	}
	signature, err := rsa.SignPKCS1v15(nil, k, crypto.SHA256, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	if err := verify(signature); err != nil {
		t.Fatalf("an honest signature with exponent 3: %v", err)
	}
	const size = 256
	cat := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	oid := unhex(t, "0609 6086 4801 6503 0402 01")
	info := cat(unhex(t, "3031 300d"), oid, unhex(t, "0500 0420"), digest[:])
	pad := func(n int) []byte { return cat([]byte{0, 1}, bytes.Repeat([]byte{0xff}, n), []byte{0}) }
	be16 := func(n int) []byte { return []byte{byte(n >> 8), byte(n)} }
	// bodies of the outer and the inner SEQUENCE when the digest ends the message
	outer := size - 11 - 4
	inner := outer - 4 - 34
	for _, tt := range []struct {
		name           string
		prefix, suffix []byte
	}{
		{"CVE-2006-4339: garbage after the digest", cat(pad(8), info), nil},
		{"CVE-2006-4339: garbage after the digest, no padding at all", cat(pad(0), info), nil},
		{"CVE-2018-16152: garbage in the parameters",
			cat(pad(8), []byte{0x30, 0x82}, be16(outer), []byte{0x30, 0x82}, be16(inner), oid, []byte{4, 0x82}, be16(inner-11-4)), cat([]byte{4, 0x20}, digest[:])},
		{"CVE-2018-16151: garbage after the object identifier",
			cat(pad(8), []byte{0x30, 0x82}, be16(outer), []byte{0x30, 0x82}, be16(inner), oid), cat([]byte{4, 0x20}, digest[:])},
		{"CVE-2018-16151: garbage in place of the object identifier",
			cat(pad(8), []byte{0x30, 0x82}, be16(outer), []byte{0x30, 0x82}, be16(inner)), cat([]byte{4, 0x20}, digest[:])},
		{"CVE-2026-50721: padding that isn't looked at", []byte{0, 1}, cat([]byte{0}, info)},
		{"CVE-2026-50721: padding begins well", pad(8)[:10], cat([]byte{0}, info)},
		{"DigestInfo at the end, block type not looked at", []byte{0, 2}, cat([]byte{0}, info)},
		{"the digest alone at the end", pad(8), digest[:]},
	} {
		forged := cubeForgery(t, size, tt.prefix, tt.suffix)
		if err := verify(forged); !errors.Is(err, sig.ErrSignature) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if _, err := sig.Verify(k.Public(), sig.MethodRSA, forged, message, nil); !errors.Is(err, sig.ErrSignature) {
			t.Errorf("%s, as method 1: %v", tt.name, err)
		}
	}
	// A correct block with anything left out or spelled otherwise, signed by the key's
	// owner: BER's freedom makes the gaps that forgeries live in.
	for name, t2 := range map[string][]byte{
		"NULL left out":             cat(unhex(t, "302f 300b"), oid, unhex(t, "0420"), digest[:]),
		"long form of a length":     cat(unhex(t, "3081 31 300d"), oid, unhex(t, "0500 0420"), digest[:]),
		"digest without DigestInfo": digest[:],
		"SHA-512's identifier":      cat(unhex(t, "3031 300d 0609 6086 4801 6503 0402 03 0500 0420"), digest[:]),
	} {
		em := cat(pad(size-3-len(t2)), t2)
		s := new(big.Int).Exp(new(big.Int).SetBytes(em), k.D, k.N).FillBytes(make([]byte, size))
		if err := verify(s); !errors.Is(err, sig.ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

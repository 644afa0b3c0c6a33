package suite_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"testing"

	"adit/suite"
)

var modpIDs = []suite.TransformID{
	suite.KEMODP1024, suite.KEMODP1536, suite.KEMODP2048, suite.KEMODP3072, suite.KEMODP4096, suite.KEMODP6144, suite.KEMODP8192,
}

// allKE are the methods that are symmetric: ML-KEM has tests of its own.
var allKE = append([]suite.TransformID{
	suite.KEECP256, suite.KEECP384, suite.KEECP521, suite.KECurve25519, suite.KECurve448,
}, modpIDs...)

func prime(t testing.TB, id suite.TransformID) *big.Int {
	t.Helper()
	p, ok := new(big.Int).SetString(suite.MODPPrime(id), 16)
	if !ok {
		t.Fatalf("prime of group %d is no number", id)
	}
	return p
}

// piTimes2 returns floor(pi * 2^n) by Machin's formula.
func piTimes2(n uint) *big.Int {
	const guard = 64
	one := new(big.Int).Lsh(big.NewInt(1), n+guard)
	arctan := func(x int64) *big.Int { // of 1/x
		term := new(big.Int).Div(one, big.NewInt(x))
		sum, square := new(big.Int).Set(term), big.NewInt(x*x)
		for k := int64(3); term.Sign() != 0; k += 2 {
			term.Div(term, square)
			part := new(big.Int).Div(term, big.NewInt(k))
			if k%4 == 3 {
				part.Neg(part)
			}
			sum.Add(sum, part)
		}
		return sum
	}
	pi := new(big.Int).Mul(arctan(5), big.NewInt(4))
	pi.Sub(pi, arctan(239))
	pi.Mul(pi, big.NewInt(4))
	return pi.Rsh(pi, guard)
}

// RFC 2409 §6.2 and RFC 3526 §2-7:
// p = 2^n - 2^(n-64) - 1 + 2^64 * (floor(2^(n-130) pi) + k).
func TestRFC3526_Primes(t *testing.T) {
	for i, k := range []int64{129093, 741804, 124476, 1690314, 240904, 929484, 4743158} {
		p := prime(t, modpIDs[i])
		n := uint(suite.PublicLen(modpIDs[i])) * 8
		two := func(e uint) *big.Int { return new(big.Int).Lsh(big.NewInt(1), e) }
		want := new(big.Int).Add(piTimes2(n-130), big.NewInt(k))
		want.Lsh(want, 64)
		want.Add(want, two(n))
		want.Sub(want, two(n-64))
		want.Sub(want, big.NewInt(1))
		if p.Cmp(want) != 0 {
			t.Errorf("MODP-%d is not the RFC's prime", n)
		}
		if n <= 2048 && !(p.ProbablyPrime(1) && new(big.Int).Rsh(p, 1).ProbablyPrime(1)) {
			t.Errorf("MODP-%d is not a safe prime", n)
		}
	}
}

func TestRFC5903_RFC7748_RFC8031_KnownAnswers(t *testing.T) {
	for _, v := range kexVectors {
		id := suite.TransformID(v.id)
		i, err := suite.NewKeyExchangeFrom(id, unhex(t, v.secretI))
		if err != nil {
			t.Fatalf("%s %d: %v", v.name, v.id, err)
		}
		r, err := suite.NewKeyExchangeFrom(id, unhex(t, v.secretR))
		if err != nil {
			t.Fatalf("%s %d: %v", v.name, v.id, err)
		}
		if hex.EncodeToString(i.Public()) != v.publicI || hex.EncodeToString(r.Public()) != v.publicR {
			t.Errorf("%s %d: public values differ", v.name, v.id)
		}
		a, errA := i.Shared(r.Public())
		b, errB := r.Shared(i.Public())
		if errA != nil || errB != nil || hex.EncodeToString(a) != v.shared || !a.Equal(b) {
			t.Errorf("%s %d: %x %x %v %v", v.name, v.id, []byte(a), []byte(b), errA, errB)
		}
	}
}

func TestMODP_AgainstMathBig(t *testing.T) {
	for _, id := range modpIDs {
		p := prime(t, id)
		secret := randomBytes(40)
		kx, err := suite.NewKeyExchangeFrom(id, secret)
		if err != nil {
			t.Fatal(err)
		}
		x := new(big.Int).SetBytes(secret)
		want := new(big.Int).Exp(big.NewInt(2), x, p)
		if new(big.Int).SetBytes(kx.Public()).Cmp(want) != 0 || len(kx.Public()) != suite.PublicLen(id) {
			t.Errorf("group %d: wrong public value", id)
		}
		y := new(big.Int).Mod(new(big.Int).SetBytes(randomBytes(suite.PublicLen(id))), p)
		shared, err := kx.Shared(y.FillBytes(make([]byte, suite.PublicLen(id))))
		if err != nil {
			t.Fatal(err)
		}
		want.Exp(y, x, p)
		if new(big.Int).SetBytes(shared).Cmp(want) != 0 || len(shared) != suite.PublicLen(id) {
			t.Errorf("group %d: wrong shared secret", id)
		}
	}
}

// RFC 7296 §2.14: g^ir has the length of the prime, leading zeros included.
func TestRFC7296_2_14_LeadingZeros(t *testing.T) {
	id := suite.KEMODP1024
	p := prime(t, id)
	for e := int64(1); ; e++ { // 2^e for e ≤ 1015 has a leading zero byte
		kx, err := suite.NewKeyExchangeFrom(id, []byte{1})
		if err != nil {
			t.Fatal(err)
		}
		y := new(big.Int).Exp(big.NewInt(3), big.NewInt(e), p)
		if e > 400 && y.BitLen() > 1016 {
			continue
		}
		shared, err := kx.Shared(y.FillBytes(make([]byte, 128)))
		if err != nil || len(shared) != 128 || new(big.Int).SetBytes(shared).Cmp(y) != 0 {
			t.Fatalf("3^%d: %d bytes, %v", e, len(shared), err)
		}
		if e > 400 {
			return
		}
	}
}

func TestRFC6989_PublicValueChecks(t *testing.T) {
	add := func(p *big.Int, d int64, n int) []byte {
		return new(big.Int).Add(p, big.NewInt(d)).FillBytes(make([]byte, n))
	}
	for _, id := range allKE {
		n := suite.PublicLen(id)
		bad := map[string][]byte{
			"empty": nil, "short": make([]byte, n-1), "long": make([]byte, n+1), "zero": make([]byte, n),
		}
		switch id {
		case suite.KECurve25519, suite.KECurve448:
			bad["one"] = append([]byte{1}, make([]byte, n-1)...) // small order
		case suite.KEECP256, suite.KEECP384, suite.KEECP521:
			bad["not on the curve"] = bytes.Repeat([]byte{1}, n)
			bad["not reduced"] = bytes.Repeat([]byte{0xFF}, n)
		default:
			p := prime(t, id)
			bad["one"] = add(new(big.Int), 1, n)
			bad["p-1"] = add(p, -1, n)
			bad["p"] = add(p, 0, n)
			bad["p+1"] = add(p, 1, n)
			bad["all ones"] = bytes.Repeat([]byte{0xFF}, n)
		}
		kx, err := suite.NewKeyExchange(id)
		if err != nil {
			t.Fatal(err)
		}
		for name, peer := range bad {
			if _, err := kx.Shared(peer); !errors.Is(err, suite.ErrPublicValue) {
				t.Errorf("group %d, %s: %v", id, name, err)
			}
			if id == suite.KEMODP8192 { // costly, and the same code
				continue
			}
			if _, _, err := suite.RespondKeyExchange(id, peer); !errors.Is(err, suite.ErrPublicValue) {
				t.Errorf("group %d, %s: responder: %v", id, name, err)
			}
		}
		// The failures spoil nothing, and a success ends it.
		public, shared, err := suite.RespondKeyExchange(id, kx.Public())
		if err != nil || len(public) != n {
			t.Fatalf("group %d: %v", id, err)
		}
		ours, err := kx.Shared(public)
		if err != nil || !ours.Equal(shared) || len(ours) == 0 {
			t.Errorf("group %d: secrets differ (%v)", id, err)
		}
		if _, err := kx.Shared(public); !errors.Is(err, suite.ErrKeyUsed) {
			t.Errorf("group %d: used twice: %v", id, err)
		}
	}
}

func TestKeyExchange_Unknown(t *testing.T) {
	for _, id := range []suite.TransformID{suite.KENone, 1, 22, 25, 38, 1024} {
		if _, err := suite.NewKeyExchange(id); !errors.Is(err, suite.ErrUnsupported) {
			t.Errorf("%d: %v", id, err)
		}
		if _, _, err := suite.RespondKeyExchange(id, make([]byte, 64)); !errors.Is(err, suite.ErrUnsupported) {
			t.Errorf("%d: responder: %v", id, err)
		}
		if suite.PublicLen(id) != 0 {
			t.Errorf("%d: length %d", id, suite.PublicLen(id))
		}
	}
}

// FuzzRespondKeyExchange gives any public value to the groups that are quick.
func FuzzRespondKeyExchange(f *testing.F) {
	quick := []suite.TransformID{suite.KEECP256, suite.KECurve25519, suite.KECurve448, suite.KEMODP1024, suite.KEECP384}
	for i, id := range quick {
		kx, err := suite.NewKeyExchange(id)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), kx.Public())
		f.Add(uint8(i), make([]byte, suite.PublicLen(id)))
	}
	f.Fuzz(func(t *testing.T, which uint8, peer []byte) {
		id := quick[int(which)%len(quick)]
		public, shared, err := suite.RespondKeyExchange(id, peer)
		switch {
		case err != nil && !errors.Is(err, suite.ErrPublicValue):
			t.Fatal(err)
		case err == nil && (len(peer) != suite.PublicLen(id) || len(public) != len(peer)):
			t.Fatalf("group %d: public values of %d and %d bytes", id, len(peer), len(public))
		case err == nil && len(bytes.Trim(shared, "\x00")) == 0:
			t.Fatalf("group %d: shared secret zero", id)
		}
	})
}

func BenchmarkKeyExchange(b *testing.B) {
	for _, id := range allKE {
		kx, err := suite.NewKeyExchange(id)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprint(suite.Transform{Type: suite.TypeKE, ID: id}), func(b *testing.B) {
			for b.Loop() {
				if _, _, err := suite.RespondKeyExchange(id, kx.Public()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Ours agrees with the standard library's X25519, either side made by either, also
// for public values that are not reduced or have their highest bit set (RFC 7748 §5).
func TestRFC7748_X25519AgainstCryptoECDH(t *testing.T) {
	for i := range 200 {
		var secret, odd [32]byte
		rand.Read(secret[:])
		rand.Read(odd[:])
		if i%2 == 0 {
			copy(odd[:], bytes.Repeat([]byte{0xff}, 32)) // above p
			odd[0] = byte(i)
		}
		theirs, err := ecdh.X25519().NewPrivateKey(secret[:])
		if err != nil {
			t.Fatal(err)
		}
		ours, err := suite.NewKeyExchangeFrom(suite.KECurve25519, secret[:])
		if err != nil || !bytes.Equal(ours.Public(), theirs.PublicKey().Bytes()) {
			t.Fatalf("public values of %x: %x and %x, %v", secret, ours.Public(), theirs.PublicKey().Bytes(), err)
		}
		point, err := ecdh.X25519().NewPublicKey(odd[:])
		if err != nil {
			t.Fatal(err)
		}
		want, err1 := theirs.ECDH(point)
		got, err2 := ours.Shared(odd[:])
		if (err1 == nil) != (err2 == nil) || !bytes.Equal(got, want) {
			t.Fatalf("shared secret of %x and %x: %x and %x, %v and %v", secret, odd, []byte(got), want, err2, err1)
		}
	}
}

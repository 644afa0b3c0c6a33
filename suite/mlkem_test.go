package suite_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"adit/suite"
	vectors "adit/suite/wycheproof"
)

var mlkemIDs = map[string]suite.TransformID{"ML-KEM-512": suite.KEMLKEM512, "ML-KEM-768": suite.KEMLKEM768, "ML-KEM-1024": suite.KEMLKEM1024}

func TestMLKEM(t *testing.T) {
	for name, id := range mlkemIDs {
		kx, err := suite.NewKeyExchange(id)
		if err != nil {
			t.Fatal(err)
		}
		if len(kx.Public()) != suite.PublicLen(id) || !id.PostQuantum() {
			t.Errorf("%s: a key of %d bytes", name, len(kx.Public()))
		}
		ct, shared, err := suite.RespondKeyExchange(id, kx.Public())
		if err != nil || len(shared) != 32 {
			t.Fatal(name, err)
		}
		for _, wrong := range [][]byte{nil, ct[:len(ct)-1], append(bytes.Clone(ct), 0), kx.Public()} {
			if _, err := kx.Shared(wrong); len(wrong) != len(ct) && !errors.Is(err, suite.ErrPublicValue) {
				t.Errorf("%s: a ciphertext of %d bytes: %v", name, len(wrong), err)
			}
		}
		if id == suite.KEMLKEM1024 { // there the key is as long as the ciphertext, and used up
			continue
		}
		ours, err := kx.Shared(ct)
		if err != nil || !ours.Equal(shared) {
			t.Errorf("%s: secrets differ (%v)", name, err)
		}
		if _, err := kx.Shared(ct); !errors.Is(err, suite.ErrKeyUsed) {
			t.Errorf("%s: used twice: %v", name, err)
		}
		// Another ciphertext gives another secret and no error (FIPS 203 §6.3).
		kx, _ = suite.NewKeyExchange(id)
		ct, shared, _ = suite.RespondKeyExchange(id, kx.Public())
		ct[7] ^= 1
		if ours, err := kx.Shared(ct); err != nil || ours.Equal(shared) {
			t.Errorf("%s: a changed ciphertext: %v", name, err)
		}
	}
}

// The checks of FIPS 203 §7.2 on encapsulation keys, and decapsulation.
func TestWycheproof_MLKEM(t *testing.T) {
	var doc struct {
		NumberOfTests int
		TestGroups    []struct {
			Type, ParameterSet string
			Tests              []struct {
				TcID           int
				Seed, Ek, C, K vectors.Hex
				Result         string
			}
		}
	}
	vectors.Load(t, "mlkem_test.json", &doc)
	checked, decapsulated := 0, 0
	for _, g := range doc.TestGroups {
		id := mlkemIDs[g.ParameterSet]
		for _, v := range g.Tests {
			at := fmt.Sprintf("%s tcId %d", g.ParameterSet, v.TcID)
			_, _, err := suite.RespondKeyExchange(id, v.Ek)
			if (err == nil) != (v.Result == "valid") || err != nil && !errors.Is(err, suite.ErrPublicValue) {
				t.Errorf("%s: encapsulation: %v, the file says %s", at, err, v.Result)
			}
			checked++
			if len(v.Seed) == 0 {
				continue
			}
			kx, err := suite.NewMLKEMFrom(id, v.Seed)
			if err != nil {
				t.Fatal(at, err)
			}
			if !bytes.Equal(kx.Public(), v.Ek) {
				t.Errorf("%s: another key", at)
			}
			if k, err := kx.Shared(v.C); err != nil || !bytes.Equal(k, v.K) {
				t.Errorf("%s: another secret (%v)", at, err)
			}
			decapsulated++
		}
	}
	if checked != doc.NumberOfTests || decapsulated < 3 {
		t.Errorf("%d of %d vectors, %d decapsulated", checked, doc.NumberOfTests, decapsulated)
	}
}

func TestProposal_PostQuantum(t *testing.T) {
	for _, v := range []struct {
		text             string
		pq, classic      bool
		with, without    string
		withOK, withouOK bool
	}{
		{"aes128-sha256-x25519", false, true, "aes128-sha256-prfsha256-curve25519-ke1_mlkem768", "aes128-sha256-prfsha256-curve25519", true, true},
		{"aes128-sha256-x25519-ke1_mlkem1024", true, true, "aes128-sha256-prfsha256-curve25519-ke1_mlkem1024", "aes128-sha256-prfsha256-curve25519", true, true},
		{"aes128-sha256-x25519-ke1_mlkem768-ke1_none", true, true, "aes128-sha256-prfsha256-curve25519-ke1_mlkem768", "aes128-sha256-prfsha256-curve25519", true, true},
		{"aes128-sha256-x25519-ke1_ecp384", false, true, "aes128-sha256-prfsha256-curve25519-ke1_ecp384-ke2_mlkem768", "aes128-sha256-prfsha256-curve25519-ke1_ecp384", true, true},
		{"aes128-sha256-mlkem768", true, false, "aes128-sha256-prfsha256-mlkem768", "", true, false},
		{"aes128-sha256-mlkem768-x25519", true, false, "aes128-sha256-prfsha256-mlkem768", "aes128-sha256-prfsha256-curve25519", true, true},
		{"aes128-sha256-mlkem768-ke1_x25519", true, true, "aes128-sha256-prfsha256-mlkem768-ke1_curve25519", "", true, false},
		{"aes128-sha256-mlkem768-ke1_x25519-ke1_none", true, false, "aes128-sha256-prfsha256-mlkem768-ke1_curve25519-ke1_none", "", true, false},
	} {
		p, err := suite.ParseProposal(suite.IKE, v.text)
		if err != nil {
			t.Fatal(err)
		}
		if p.PostQuantum() != v.pq || p.ClassicKE() != v.classic {
			t.Errorf("%s: post-quantum %v, classic %v", v.text, p.PostQuantum(), p.ClassicKE())
		}
		if q, ok := p.WithPostQuantum(); ok != v.withOK || q.Keywords() != v.with {
			t.Errorf("%s: with %s, %v", v.text, q.Keywords(), ok)
		}
		if q, ok := p.WithoutPostQuantum(); ok != v.withouOK || ok && q.Keywords() != v.without {
			t.Errorf("%s: without %s, %v", v.text, q.Keywords(), ok)
		}
	}
}

func BenchmarkMLKEM768(b *testing.B) {
	for b.Loop() {
		kx, _ := suite.NewKeyExchange(suite.KEMLKEM768)
		ct, _, _ := suite.RespondKeyExchange(suite.KEMLKEM768, kx.Public())
		kx.Shared(ct)
	}
}

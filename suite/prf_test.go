package suite_test

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"adit/suite"
)

func newPRF(t testing.TB, id int) suite.PRF {
	t.Helper()
	f, err := suite.NewPRF(suite.Transform{Type: suite.TypePRF, ID: suite.TransformID(id)})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestRFC2202_RFC4231_HMAC(t *testing.T) {
	for _, v := range []struct {
		id             int
		key, data, out string
	}{
		{1, strings.Repeat("\x0b", 16), "Hi There", "9294727a3638bb1c13f48ef8158bfc9d"},
		{1, "Jefe", "what do ya want for nothing?", "750c783e6ab0b503eaa86e310a5db738"},
		{2, strings.Repeat("\x0b", 20), "Hi There", "b617318655057264e28bc0b6fb378c8ef146be00"},
		{2, "Jefe", "what do ya want for nothing?", "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"},
		{5, strings.Repeat("\x0b", 20), "Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"},
		{5, "Jefe", "what do ya want for nothing?", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
		{6, "Jefe", "what do ya want for nothing?", "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649"},
		{7, "Jefe", "what do ya want for nothing?", "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737"},
	} {
		f := newPRF(t, v.id)
		got := f.Sum(suite.Key(v.key), []byte(v.data[:3]), nil, []byte(v.data[3:]))
		if hex.EncodeToString(got) != v.out || len(got) != f.OutLen() {
			t.Errorf("PRF %d: %x", v.id, []byte(got))
		}
	}
}

func TestRFC4434_RFC4615_AESPRF(t *testing.T) {
	for _, v := range aesPRFVectors {
		key, data := unhex(t, v.key), unhex(t, v.data)
		f := newPRF(t, v.id)
		for cut := 0; cut <= len(data); cut += 3 { // in two parts, at every third place
			if got := f.Sum(key, data[:cut], data[cut:]); hex.EncodeToString(got) != v.out {
				t.Errorf("%s, cut at %d: %x", v.name, cut, []byte(got))
			}
		}
		if len(key) != 16 {
			continue
		}
		integ := suite.Transform{Type: suite.TypeINTEG, ID: suite.IntegAESXCBC96}
		if v.id == 8 {
			integ.ID = suite.IntegAESCMAC96
		}
		c, err := suite.NewCipher(suite.Transform{}, integ, nil, key) // as in AH
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // the state must be reusable
			icv := make([]byte, 12)
			c.Seal(data, nil, nil, icv, nil)
			if hex.EncodeToString(icv) != v.out[:24] {
				t.Errorf("%s: ICV %x", v.name, icv)
			}
		}
	}
}

func TestRFC7296_2_13_PRFPlus(t *testing.T) {
	for _, v := range prfPlusVectors {
		f := newPRF(t, v.id)
		want := unhex(t, v.out)
		for _, n := range []int{0, 1, f.OutLen(), f.OutLen() + 1, len(want)} {
			if got := f.Plus(unhex(t, v.key), unhex(t, v.seed), n); !bytes.Equal(got, want[:n]) {
				t.Errorf("PRF %d, %d bytes: %x", v.id, n, []byte(got))
			}
		}
	}
	// The AES functions by the definition, T1 = prf(K, S | 1), T2 = prf(K, T1 | S | 2).
	for _, id := range []int{4, 8} {
		f := newPRF(t, id)
		key, seed := suite.Key(randomBytes(16)), randomBytes(40)
		t1 := f.Sum(key, seed, []byte{1})
		t2 := f.Sum(key, t1, seed, []byte{2})
		t3 := f.Sum(key, t2, seed, []byte{3})
		want := append(append(append([]byte{}, t1...), t2...), t3...)[:40]
		if got := f.Plus(key, seed, 40); !bytes.Equal(got, want) {
			t.Errorf("PRF %d: %x, want %x", id, []byte(got), want)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("more than 255 rounds given")
		}
	}()
	newPRF(t, 8).Plus(make(suite.Key, 16), nil, 255*16+1)
}

func TestRFC7296_2_14_NonceKey(t *testing.T) {
	ni, nr := []byte("0123456789abcdef"), []byte("ABCDEFGHIJKLMNOP")
	for id, want := range map[int]string{
		2: "0123456789abcdefABCDEFGHIJKLMNOP", 5: "0123456789abcdefABCDEFGHIJKLMNOP",
		4: "01234567ABCDEFGH", 8: "01234567ABCDEFGH",
	} {
		if got := newPRF(t, id).NonceKey(ni, nr); string(got) != want {
			t.Errorf("PRF %d: %q", id, string(got))
		}
	}
	if got := newPRF(t, 4).NonceKey([]byte("ab"), nil); string(got) != "ab" {
		t.Errorf("short nonce: %q", string(got))
	}
	if string(ni) != "0123456789abcdef" {
		t.Error("the nonce was overwritten")
	}
}

func TestNewPRF_Refuses(t *testing.T) {
	for _, tr := range []suite.Transform{
		{}, {Type: suite.TypePRF}, {Type: suite.TypePRF, ID: 3}, {Type: suite.TypePRF, ID: 5, KeyBits: 256},
		{Type: suite.TypeINTEG, ID: 5},
	} {
		if _, err := suite.NewPRF(tr); err == nil {
			t.Errorf("%s accepted", tr)
		}
	}
}

package suite_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"sort"
	"strings"
	"testing"

	"adit/suite"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var integSHA256 = suite.Transform{Type: suite.TypeINTEG, ID: suite.IntegHMACSHA2_256_128}

// protection is one pair of algorithms that a Cipher can be made of.
type protection struct{ encr, integ suite.Transform }

func (p protection) String() string {
	if p.integ == (suite.Transform{}) {
		return p.encr.String()
	}
	return p.encr.String() + "+" + p.integ.String()
}

// everyProtection lists every suite that the keywords can name.
func everyProtection() []protection {
	var all []protection
	seen := make(map[protection]bool)
	for _, encr := range suite.KnownKeywords() {
		if encr.Type != suite.TypeENCR {
			continue
		}
		for _, integ := range suite.KnownKeywords() {
			if integ.Type != suite.TypeINTEG {
				continue
			}
			p := protection{encr, integ}
			if encr.AEAD() {
				p.integ = suite.Transform{}
			}
			if !seen[p] {
				seen[p] = true
				all = append(all, p)
			}
		}
	}
	return all
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// pair makes two equal ciphers, one for each end.
func pair(t testing.TB, p protection) (seal, open suite.Cipher) {
	t.Helper()
	enc, ing, err := suite.KeyLengths(p.encr, p.integ)
	if err != nil {
		t.Fatal(err)
	}
	encKey, integKey := suite.Key(randomBytes(enc)), suite.Key(randomBytes(ing))
	if seal, err = suite.NewCipher(p.encr, p.integ, encKey, integKey); err != nil {
		t.Fatal(err)
	}
	if open, err = suite.NewCipher(p.encr, p.integ, encKey, integKey); err != nil {
		t.Fatal(err)
	}
	encKey.Zero() // the cipher must have its own copy
	integKey.Zero()
	return seal, open
}

func TestRFC3602_RFC3686_CBCAndCTR(t *testing.T) {
	for _, v := range cipherVectors {
		key, iv := unhex(t, v.key), unhex(t, v.iv)
		encr := suite.Transform{Type: suite.TypeENCR, ID: suite.EncrAESCBC, KeyBits: uint16(len(key) * 8)}
		var block cipher.Block
		switch v.name[:3] {
		case "CTR":
			encr.ID, encr.KeyBits = suite.EncrAESCTR, uint16(len(key)-4)*8
		case "3DE":
			encr.ID, encr.KeyBits = suite.Encr3DESCBC, 0
			block, _ = des.NewTripleDESCipher(key)
		default:
			block, _ = aes.NewCipher(key)
		}
		c, err := suite.NewCipher(encr, integSHA256, key, make(suite.Key, 32))
		if err != nil {
			t.Fatalf("%s: %v", v.name, err)
		}
		text, icv := unhex(t, v.plain), make([]byte, c.ICVLen())
		c.Seal(nil, iv, text, icv, nil)
		if hex.EncodeToString(text) != v.cipher {
			t.Errorf("%s: got %x", v.name, text)
		}
		if !c.Open(nil, iv, text, icv, nil) || hex.EncodeToString(text) != v.plain {
			t.Errorf("%s: does not open", v.name)
		}
		// The block-by-block CBC must agree with Go's.
		if block != nil {
			for _, decrypt := range []bool{false, true} {
				in, want := v.plain, v.cipher
				if decrypt {
					in, want = want, in
				}
				b := unhex(t, in)
				mode := suite.PlainCBC(block, decrypt)
				mode.SetIV(iv)
				mode.CryptBlocks(b, b)
				if hex.EncodeToString(b) != want {
					t.Errorf("%s: plain CBC, decrypt %v: %x", v.name, decrypt, b)
				}
			}
		}
	}
}

func TestRFC4309_RFC7634_AEAD(t *testing.T) {
	for _, v := range aeadVectors {
		key := unhex(t, v.key)
		encr := suite.Transform{Type: suite.TypeENCR, ID: suite.TransformID(v.id)}
		if encr.ID != suite.EncrChaCha20Poly1305 {
			encr.KeyBits = uint16(len(key)-3) * 8
		}
		sealed := unhex(t, v.cipher)
		n := len(v.plain) / 2
		w := wycheproofTest{Comment: v.name, Key: key, Msg: unhex(t, v.plain), AAD: unhex(t, v.aad), Ct: sealed[:n]}
		salt := len(key) - (len(key)-3)/8*8
		w.Key, w.IV = key[:len(key)-salt], append(bytes.Clone(key[len(key)-salt:]), unhex(t, v.iv)...)
		checkAEAD(t, encr, w, sealed[n:], true)
	}
}

// RFC 3610 §2.2: additional data of 0xFF00 bytes and more has a longer length
// field. Compared with a CCM written from the definition, over the whole input.
func TestRFC3610_2_2_LongAdditionalData(t *testing.T) {
	key := randomBytes(16 + 3)
	encr := suite.Transform{Type: suite.TypeENCR, ID: suite.EncrAESCCM16, KeyBits: 128}
	c, err := suite.NewCipher(encr, suite.Transform{}, key, nil)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := aes.NewCipher(key[:16])
	for _, n := range []int{0, 1, 13, 14, 15, 0xFEFF, 0xFF00, 0xFF01, 70000} {
		aad, iv, plain := randomBytes(n), randomBytes(8), randomBytes(37)
		nonce := append(bytes.Clone(key[16:]), iv...)
		flags := byte(7<<3 | 3) // M' = (16-2)/2, L' = 4-1
		var head []byte
		if n > 0 {
			flags |= 0x40
			if n < 0xFF00 {
				head = []byte{byte(n >> 8), byte(n)}
			} else {
				head = []byte{0xFF, 0xFE, 0, byte(n >> 16), byte(n >> 8), byte(n)}
			}
		}
		input := append(append([]byte{flags}, nonce...), 0, 0, 0, byte(len(plain)))
		for _, part := range [][]byte{append(head, aad...), plain} {
			input = append(input, part...)
			input = append(input, make([]byte, (16-len(input)%16)%16)...)
		}
		cipher.NewCBCEncrypter(block, make([]byte, 16)).CryptBlocks(input, input)
		want := append(append([]byte{}, input[len(input)-16:]...), plain...)
		// One CTR run: counter 0 masks the tag, 1 and up the text.
		cipher.NewCTR(block, append(append([]byte{3}, nonce...), 0, 0, 0, 0)).XORKeyStream(want, want)

		text, icv := bytes.Clone(plain), make([]byte, 16)
		c.Seal(aad, iv, text, icv, nil)
		if !bytes.Equal(icv, want[:16]) || !bytes.Equal(text, want[16:]) {
			t.Errorf("%d bytes of additional data: differs from the definition", n)
		}
		if !c.Open(aad, iv, text, icv, nil) || !bytes.Equal(text, plain) {
			t.Errorf("%d bytes of additional data: does not open", n)
		}
	}
}

// GMAC over aad, IV and text is GCM without text over their concatenation.
func TestRFC4543_3_3_GMACInput(t *testing.T) {
	for _, bits := range []uint16{128, 192, 256} {
		key := randomBytes(int(bits)/8 + 4)
		gmac, err := suite.NewCipher(suite.Transform{Type: suite.TypeENCR, ID: suite.EncrNULLAuthAESGMAC, KeyBits: bits}, suite.Transform{}, key, nil)
		if err != nil {
			t.Fatal(err)
		}
		gcm, err := suite.NewCipher(suite.Transform{Type: suite.TypeENCR, ID: suite.EncrAESGCM16, KeyBits: bits}, suite.Transform{}, key, nil)
		if err != nil {
			t.Fatal(err)
		}
		packet := randomBytes(12 + 8 + 64 + 16)
		aad, iv, text, icv := packet[:12], packet[12:20], packet[20:84], packet[84:]
		before := bytes.Clone(text)
		want := make([]byte, 16)
		gcm.Seal(bytes.Clone(packet[:84]), iv, nil, want, nil)
		gmac.Seal(aad, iv, text, icv, nil)
		if !bytes.Equal(icv, want) || !bytes.Equal(text, before) {
			t.Errorf("%d bits, one buffer: %x, want %x", bits, icv, want)
		}
		gmac.Seal(bytes.Clone(aad), bytes.Clone(iv), bytes.Clone(text), icv, nil)
		if !bytes.Equal(icv, want) {
			t.Errorf("%d bits, parts: %x, want %x", bits, icv, want)
		}
	}
}

// Every suite: what one end seals the other opens, whether in one buffer or in
// parts, and no bit can be changed.
func TestCipher_RoundTripAndForgery(t *testing.T) {
	for _, p := range everyProtection() {
		t.Run(p.String(), func(t *testing.T) {
			seal, open := pair(t, p)
			for size := 0; size < 200; size += 1 + size/7 {
				n := size / seal.Align() * seal.Align()
				packet := randomBytes(8 + seal.IVLen() + n + seal.ICVLen())
				cut := func(b []byte) (aad, iv, text, icv []byte) {
					i, j := 8+seal.IVLen(), 8+seal.IVLen()+n
					return b[:8], b[8:i], b[i:j], b[j:]
				}
				var trailer []byte
				if size%2 == 1 && !seal.AEAD() {
					trailer = randomBytes(4)
				}
				aad, iv, text, icv := cut(packet)
				plain := bytes.Clone(text)
				seal.PutIV(iv, uint64(size)+1)

				apart := bytes.Clone(text)
				apartICV := make([]byte, len(icv))
				seal.Seal(bytes.Clone(aad), bytes.Clone(iv), apart, apartICV, trailer)
				seal.Seal(aad, iv, text, icv, trailer)
				if !bytes.Equal(apart, text) || !bytes.Equal(apartICV, icv) {
					t.Fatalf("size %d: one buffer and parts differ", n)
				}
				hides := p.encr.ID != suite.EncrNULL && p.encr.ID != suite.EncrNULLAuthAESGMAC
				if hides && n >= 8 && bytes.Equal(text, plain) {
					t.Fatalf("size %d: not encrypted", n)
				}
				sealed := bytes.Clone(packet)

				for _, bit := range []int{0, 63, 64, 64 + 8*seal.IVLen(), len(packet)*8 - 8*seal.ICVLen() - 1, len(packet)*8 - 8*seal.ICVLen(), len(packet)*8 - 1} {
					bad := bytes.Clone(sealed)
					bad[bit/8] ^= 0x80 >> (bit % 8)
					a, i, x, c := cut(bad)
					if open.Open(a, i, x, c, trailer) {
						t.Fatalf("size %d: bit %d changed and accepted", n, bit)
					}
					if hides && n >= 8 && bytes.Equal(x, plain) {
						t.Fatalf("size %d: plaintext of a forged packet released", n)
					}
				}
				if trailer != nil {
					a, i, x, c := cut(bytes.Clone(sealed))
					if open.Open(a, i, x, c, []byte{trailer[0] ^ 1, trailer[1], trailer[2], trailer[3]}) {
						t.Fatal("another trailer accepted")
					}
				}
				a, i, x, c := cut(bytes.Clone(sealed))
				if !open.Open(bytes.Clone(a), bytes.Clone(i), x, bytes.Clone(c), trailer) || !bytes.Equal(x, plain) {
					t.Fatalf("size %d: parts do not open", n)
				}
				if !open.Open(aad, iv, text, icv, trailer) || !bytes.Equal(text, plain) {
					t.Fatalf("size %d: one buffer does not open", n)
				}
			}
		})
	}
}

// Lengths that a peer chooses must be refused, not panic.
func TestCipher_OpenRefusesLengths(t *testing.T) {
	for _, p := range everyProtection() {
		_, open := pair(t, p)
		for _, d := range []struct{ iv, icv int }{{-1, 0}, {1, 0}, {0, -1}, {0, 1}, {-open.IVLen(), 0}, {0, -open.ICVLen()}} {
			if open.IVLen()+d.iv < 0 || d.iv == 0 && d.icv == 0 {
				continue
			}
			if open.Open(nil, make([]byte, open.IVLen()+d.iv), make([]byte, 32), make([]byte, open.ICVLen()+d.icv), nil) {
				t.Errorf("%s: IV %+d, ICV %+d accepted", p, d.iv, d.icv)
			}
		}
		if open.Align() > 1 && open.Open(nil, make([]byte, open.IVLen()), make([]byte, 17), make([]byte, open.ICVLen()), nil) {
			t.Errorf("%s: unaligned text accepted", p)
		}
	}
}

func TestRFC4303_IVs(t *testing.T) {
	for _, p := range everyProtection() {
		c, _ := pair(t, p)
		one, two := make([]byte, c.IVLen()), make([]byte, c.IVLen())
		c.PutIV(one, 0x0102030405060708)
		c.PutIV(two, 0x0102030405060708)
		switch {
		case c.IVLen() == 16 || p.encr.ID == suite.Encr3DESCBC: // CBC: never predictable, even if the counter repeats
			if bytes.Equal(one, two) || bytes.Contains(one, []byte{1, 2, 3, 4}) {
				t.Errorf("%s: predictable IV", p)
			}
		case c.IVLen() == 8:
			if hex.EncodeToString(one) != "0102030405060708" {
				t.Errorf("%s: IV %x", p, one)
			}
		case p.encr.ID != suite.EncrNULL:
			t.Errorf("%s: no IV", p)
		}
	}
}

func TestCipher_NoAllocation(t *testing.T) {
	for _, p := range everyProtection() {
		c, _ := pair(t, p)
		packet := make([]byte, 12+c.IVLen()+1408+c.ICVLen())
		i, j := 12+c.IVLen(), 12+c.IVLen()+1408
		aad, iv, text, icv := packet[:12], packet[12:i], packet[i:j], packet[j:]
		apart, trailer := make([]byte, c.ICVLen()), make([]byte, 4)
		var counter uint64
		allocs := testing.AllocsPerRun(20, func() {
			counter++
			c.PutIV(iv, counter)
			c.Seal(aad, iv, text, icv, trailer)
			if !c.Open(aad, iv, text, icv, trailer) {
				t.Fatalf("%s: does not open", p)
			}
			c.Seal(aad, iv, text, apart, trailer)
			if !c.Open(aad, iv, text, apart, trailer) {
				t.Fatalf("%s: does not open", p)
			}
			apart[0] ^= 1
			c.Open(aad, iv, text, apart, trailer)
		})
		if allocs != 0 {
			t.Errorf("%s: %v allocations", p, allocs)
		}
	}
}

func TestRFC7296_2_17_KeyLengths(t *testing.T) {
	encr := func(id suite.TransformID, bits uint16) suite.Transform {
		return suite.Transform{Type: suite.TypeENCR, ID: id, KeyBits: bits}
	}
	integ := func(id suite.TransformID) suite.Transform {
		return suite.Transform{Type: suite.TypeINTEG, ID: id}
	}
	none := suite.Transform{}
	for _, v := range []struct {
		encr, integ suite.Transform
		enc, ing    int
		err         error
	}{
		{encr(suite.EncrAESGCM16, 256), none, 36, 0, nil},
		{encr(suite.EncrAESGCM8, 128), integ(suite.IntegNone), 20, 0, nil},
		{encr(suite.EncrAESGCM8, 128), integ(suite.IntegHMACSHA1_96), 20, 0, nil},
		{encr(suite.EncrAESCCM12, 192), none, 27, 0, nil},
		{encr(suite.EncrNULLAuthAESGMAC, 128), none, 20, 0, nil},
		{encr(suite.EncrChaCha20Poly1305, 0), none, 36, 0, nil},
		{encr(suite.EncrChaCha20Poly1305, 256), none, 36, 0, nil},
		{encr(suite.EncrChaCha20Poly1305, 128), none, 0, 0, suite.ErrUnsupported},
		{encr(suite.EncrAESCTR, 256), integ(suite.IntegHMACSHA2_384_192), 36, 48, nil},
		{encr(suite.EncrAESCBC, 192), integ(suite.IntegHMACSHA2_512_256), 24, 64, nil},
		{encr(suite.EncrAESCBC, 128), integ(suite.IntegAESXCBC96), 16, 16, nil},
		{encr(suite.EncrNULL, 0), integ(suite.IntegHMACSHA1_96), 0, 20, nil},
		{none, integ(suite.IntegAESCMAC96), 0, 16, nil}, // AH
		{encr(suite.EncrAESCBC, 128), none, 0, 0, suite.ErrNoIntegrity},
		{encr(suite.EncrAESCBC, 128), integ(suite.IntegNone), 0, 0, suite.ErrNoIntegrity},
		{encr(suite.EncrNULL, 0), none, 0, 0, suite.ErrNoIntegrity},
		{none, none, 0, 0, suite.ErrNoIntegrity},
		{encr(suite.EncrAESCBC, 0), integSHA256, 0, 0, suite.ErrUnsupported},
		{encr(suite.EncrAESCBC, 512), integSHA256, 0, 0, suite.ErrUnsupported},
		{encr(suite.EncrNULL, 128), integSHA256, 0, 0, suite.ErrUnsupported},
		{encr(suite.Encr3DESCBC, 0), integ(suite.IntegHMACMD5_96), 24, 16, nil},
		{encr(suite.Encr3DESCBC, 192), integSHA256, 0, 0, suite.ErrUnsupported},
		{encr(2, 0), integSHA256, 0, 0, suite.ErrUnsupported},
		{encr(suite.EncrAESCBC, 128), integ(3), 0, 0, suite.ErrUnsupported},
		{integ(suite.IntegHMACSHA1_96), integSHA256, 0, 0, suite.ErrUnsupported},
	} {
		enc, ing, err := suite.KeyLengths(v.encr, v.integ)
		if enc != v.enc && err == nil || ing != v.ing && err == nil || !errors.Is(err, v.err) {
			t.Errorf("%s, %s: %d %d %v", v.encr, v.integ, enc, ing, err)
		}
		if v.err != nil {
			if _, err := suite.NewCipher(v.encr, v.integ, nil, nil); !errors.Is(err, v.err) {
				t.Errorf("NewCipher(%s, %s): %v", v.encr, v.integ, err)
			}
		}
	}
	if _, err := suite.NewCipher(encr(suite.EncrAESGCM16, 256), none, make(suite.Key, 35), nil); !errors.Is(err, suite.ErrKeyLength) {
		t.Errorf("short key: %v", err)
	}
	if _, err := suite.NewCipher(encr(suite.EncrAESGCM16, 256), none, make(suite.Key, 36), make(suite.Key, 1)); !errors.Is(err, suite.ErrKeyLength) {
		t.Errorf("key for no integrity: %v", err)
	}
}

// FuzzCipherOpen cuts a hostile packet at any places. Nothing opens under a
// random key, and nothing panics.
func FuzzCipherOpen(f *testing.F) {
	all := everyProtection()
	sort.Slice(all, func(i, j int) bool { return all[i].String() < all[j].String() })
	ciphers := make([]suite.Cipher, len(all))
	for i, p := range all {
		_, ciphers[i] = pair(f, p)
		c := ciphers[i]
		f.Add(uint8(i), uint8(8), uint8(c.IVLen()), uint8(c.ICVLen()), make([]byte, 8+c.IVLen()+32+c.ICVLen()))
	}
	f.Fuzz(func(t *testing.T, which, aadLen, ivLen, icvLen uint8, packet []byte) {
		c := ciphers[int(which)%len(ciphers)]
		cut := func(n uint8) []byte {
			part := packet[:min(int(n), len(packet))]
			packet = packet[len(part):]
			return part
		}
		aad, iv := cut(aadLen), cut(ivLen)
		text := packet[:max(0, len(packet)-int(icvLen))]
		if c.Open(aad, iv, text, packet[len(text):], nil) {
			t.Fatalf("%s opened a forgery", all[int(which)%len(all)])
		}
	})
}

func BenchmarkCipher(b *testing.B) {
	for _, p := range []protection{
		{suite.Transform{Type: suite.TypeENCR, ID: suite.EncrAESGCM16, KeyBits: 128}, suite.Transform{}},
		{suite.Transform{Type: suite.TypeENCR, ID: suite.EncrAESGCM16, KeyBits: 256}, suite.Transform{}},
		{suite.Transform{Type: suite.TypeENCR, ID: suite.EncrAESGCM8, KeyBits: 128}, suite.Transform{}},
		{suite.Transform{Type: suite.TypeENCR, ID: suite.EncrAESCCM16, KeyBits: 128}, suite.Transform{}},
		{suite.Transform{Type: suite.TypeENCR, ID: suite.EncrChaCha20Poly1305}, suite.Transform{}},
		{suite.Transform{Type: suite.TypeENCR, ID: suite.EncrAESCBC, KeyBits: 128}, integSHA256},
		{suite.Transform{Type: suite.TypeENCR, ID: suite.EncrAESCTR, KeyBits: 128}, integSHA256},
		{suite.Transform{Type: suite.TypeENCR, ID: suite.EncrNULL}, suite.Transform{Type: suite.TypeINTEG, ID: suite.IntegAESXCBC96}},
		{suite.Transform{Type: suite.TypeENCR, ID: suite.EncrNULLAuthAESGMAC, KeyBits: 128}, suite.Transform{}},
	} {
		for _, size := range []int{64, 1408} {
			c, _ := pair(b, p)
			packet := make([]byte, 8+c.IVLen()+size+c.ICVLen())
			i, j := 8+c.IVLen(), 8+c.IVLen()+size
			aad, iv, text, icv := packet[:8], packet[8:i], packet[i:j], packet[j:]
			b.Run(fmt.Sprintf("Seal/%s/%d", p, size), func(b *testing.B) {
				b.SetBytes(int64(size))
				var n uint64
				for b.Loop() {
					n++
					c.PutIV(iv, n)
					c.Seal(aad, iv, text, icv, nil)
				}
			})
			c.Seal(aad, iv, text, icv, nil)
			saved := bytes.Clone(text)
			b.Run(fmt.Sprintf("Open/%s/%d", p, size), func(b *testing.B) {
				b.SetBytes(int64(size))
				for b.Loop() {
					copy(text, saved)
					if !c.Open(aad, iv, text, icv, nil) {
						b.Fatal("not authentic")
					}
				}
			})
		}
	}
}

// Every way to compute AES-GCM can be chosen, and the ways open each other's packets.
func TestSetAESGCM(t *testing.T) {
	best := suite.AESGCM()
	t.Cleanup(func() {
		if err := suite.SetAESGCM("auto"); err != nil || suite.AESGCM() != best {
			t.Errorf("auto: %s, %v", suite.AESGCM(), err)
		}
	})
	p := protection{encr: suite.Transform{Type: suite.TypeENCR, ID: suite.EncrAESGCM16, KeyBits: 256}}
	key := make(suite.Key, 36)
	var sealed []byte
	for _, name := range []string{"go", best} {
		if err := suite.SetAESGCM(name); err != nil || suite.AESGCM() != name {
			t.Fatalf("%s: %s, %v", name, suite.AESGCM(), err)
		}
		c, err := suite.NewCipher(p.encr, p.integ, key, nil)
		if err != nil {
			t.Fatal(err)
		}
		packet := make([]byte, 100)
		if sealed == nil {
			c.Seal(nil, packet[:8], packet[8:84], packet[84:], nil)
			sealed = packet
		} else if !c.Open(nil, sealed[:8], sealed[8:84], sealed[84:], nil) {
			t.Errorf("%s does not open what go sealed", name)
		}
	}
	if err := suite.SetAESGCM("fast"); err == nil || !strings.Contains(err.Error(), `"fast": this machine has auto, `) {
		t.Errorf("an unknown name: %v", err)
	}
}

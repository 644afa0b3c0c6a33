package gcm_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/hex"
	"math/rand/v2"
	"testing"

	"adit/suite/gcm"
	"adit/suite/wycheproof"
)

// eachOne runs a test for every implementation that this machine has.
func eachOne(t *testing.T, test func(t *testing.T, i gcm.Implementation)) {
	for _, i := range append(gcm.Implementations(), gcm.Alone()...) {
		t.Run(i.String(), func(t *testing.T) { test(t, i) })
	}
}

func newPair(t testing.TB, i gcm.Implementation, key []byte) (*gcm.AEAD, cipher.AEAD) {
	t.Helper()
	a, err := i.New(key)
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	oracle, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	return a, oracle
}

// random returns bytes that repeat from run to run.
type random struct{ *rand.ChaCha8 }

func newRandom(seed byte) random { return random{rand.NewChaCha8([32]byte{seed})} }

func (r random) bytes(n int) []byte {
	b := make([]byte, n)
	r.Read(b)
	return b
}

func (r random) below(n int) int { return int(r.Uint64() % uint64(n)) }

// checkBoth seals and opens one packet by itself and demands what the oracle makes.
func checkBoth(t *testing.T, a *gcm.AEAD, oracle cipher.AEAD, nonce, text, aad []byte) {
	t.Helper()
	want := oracle.Seal(nil, nonce, text, aad)
	buf := append(bytes.Clone(text), make([]byte, gcm.TagSize)...)
	a.Seal(buf, nonce, aad)
	if !bytes.Equal(buf, want) {
		t.Fatalf("text %d, aad %d: Seal gives\n%x, want\n%x", len(text), len(aad), buf, want)
	}
	if !a.Open(buf, nonce, aad) || !bytes.Equal(buf[:len(text)], text) {
		t.Fatalf("text %d, aad %d: does not open", len(text), len(aad))
	}
	if !bytes.Equal(buf[len(text):], want[len(text):]) {
		t.Fatalf("text %d, aad %d: Open changed the tag", len(text), len(aad))
	}
}

func TestEveryShortLength(t *testing.T) {
	eachOne(t, func(t *testing.T, i gcm.Implementation) {
		r := newRandom(1)
		for _, size := range []int{16, 24, 32} {
			a, oracle := newPair(t, i, r.bytes(size))
			for n := 0; n <= 1100; n++ {
				for _, aad := range []int{0, 8, 12} {
					checkBoth(t, a, oracle, r.bytes(12), r.bytes(n), r.bytes(aad))
				}
			}
			for n := 0; n <= 600; n++ {
				for _, text := range []int{0, 1, 16, 64, 250, 300} {
					checkBoth(t, a, oracle, r.bytes(12), r.bytes(text), r.bytes(n))
				}
			}
		}
	})
}

// Around the bound of one call, and far beyond it.
func TestLongTexts(t *testing.T) {
	eachOne(t, func(t *testing.T, i gcm.Implementation) {
		r := newRandom(2)
		for _, size := range []int{16, 32} {
			a, oracle := newPair(t, i, r.bytes(size))
			for _, n := range []int{65507, 65519, 65520, 65521, 65536, 70000, 200000} {
				checkBoth(t, a, oracle, r.bytes(12), r.bytes(n), r.bytes(8))
				checkBoth(t, a, oracle, r.bytes(12), r.bytes(8), r.bytes(n))
			}
		}
	})
}

// The counter has 32 bits in big-endian order: it carries through its bytes, and a
// nonce of ones must not be carried into.
func TestCounterCarries(t *testing.T) {
	eachOne(t, func(t *testing.T, i gcm.Implementation) {
		r := newRandom(3)
		a, oracle := newPair(t, i, r.bytes(16))
		checkBoth(t, a, oracle, bytes.Repeat([]byte{255}, 12), r.bytes(60000), r.bytes(12))
	})
}

func TestWycheproof(t *testing.T) {
	var doc struct {
		NumberOfTests int
		TestGroups    []struct {
			IvSize, TagSize int
			Tests           []struct {
				TcID                       int
				Key, IV, AAD, Msg, Ct, Tag wycheproof.Hex
				Result                     string
			}
		}
	}
	wycheproof.Load(t, "aes_gcm_test.json", &doc)
	eachOne(t, func(t *testing.T, i gcm.Implementation) {
		n := 0
		for _, g := range doc.TestGroups {
			if g.IvSize != 96 || g.TagSize != 128 {
				continue
			}
			for _, v := range g.Tests {
				n++
				a, _ := newPair(t, i, v.Key)
				buf := append(bytes.Clone(v.Ct), v.Tag...)
				valid := v.Result == "valid"
				if ok := a.Open(buf, v.IV, v.AAD); ok != valid {
					t.Errorf("tcId %d: Open says %v", v.TcID, ok)
				}
				if valid && !bytes.Equal(buf[:len(v.Msg)], v.Msg) {
					t.Errorf("tcId %d: plaintext %x", v.TcID, buf)
				}
				if !valid && !bytes.Equal(buf[:len(v.Ct)], make([]byte, len(v.Ct))) {
					t.Errorf("tcId %d: Open left %x", v.TcID, buf)
				}
				buf = append(bytes.Clone(v.Msg), make([]byte, gcm.TagSize)...)
				a.Seal(buf, v.IV, v.AAD)
				if !bytes.HasPrefix(buf, v.Ct) || bytes.HasSuffix(buf, v.Tag) != valid {
					t.Errorf("tcId %d: Seal gives %x", v.TcID, buf)
				}
			}
		}
		if n < 190 {
			t.Errorf("only %d vectors fit", n)
		}
	})
}

// Test cases 4 and 16 of the specification that NIST took over (McGrew and Viega, The
// Galois/Counter Mode of Operation, appendix B).
func TestSpecification(t *testing.T) {
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	const key = "feffe9928665731c6d6a8f9467308308"
	text := unhex("d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39")
	aad, nonce := unhex("feedfacedeadbeeffeedfacedeadbeefabaddad2"), unhex("cafebabefacedbaddecaf888")
	for _, v := range []struct{ key, want string }{
		{key, "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e0915bc94fbc3221a5db94fae95ae7121a47"},
		{key + key, "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b"},
	} {
		eachOne(t, func(t *testing.T, i gcm.Implementation) {
			a, _ := newPair(t, i, unhex(v.key))
			buf := append(bytes.Clone(text), make([]byte, gcm.TagSize)...)
			a.Seal(buf, nonce, aad)
			if hex.EncodeToString(buf) != v.want {
				t.Errorf("%x, want %s", buf, v.want)
			}
		})
	}
}

// Batches of random trains: lengths, offsets, nonces and additional data by chance,
// packets end to end in one arena so that a byte written beside them is seen.
func TestBatchAgainstOracle(t *testing.T) {
	eachOne(t, func(t *testing.T, i gcm.Implementation) {
		r := newRandom(4)
		for round := range 300 {
			a, oracle := newPair(t, i, r.bytes([]int{16, 32, 16, 32, 24}[round%5]))
			longest := []int{70, 300, 1500, 9000, 66000}[r.below(100)*r.below(100)/2000]
			n := 1 + r.below(min(70, 1+300000/longest))
			arena := r.bytes(n * (longest + 100))
			ps, texts := make([]gcm.Packet, n), make([][]byte, n)
			want, off := bytes.Clone(arena), 0
			for k := range ps {
				p := &ps[k]
				size := r.below(longest)
				if round%3 == 0 {
					size = longest - 1
				}
				off += r.below(2) * r.below(64)
				p.Buf = arena[off : off+size+gcm.TagSize]
				texts[k] = bytes.Clone(p.Buf[:size])
				p.AAD = r.bytes([]int{0, 8, 8, 8, 12, 12, 16, r.below(100)}[r.below(8)])
				r.Read(p.Nonce[:])
				oracle.Seal(want[off:off], p.Nonce[:], texts[k], p.AAD)
				off += len(p.Buf)
			}
			a.SealBatch(ps)
			if !bytes.Equal(arena, want) {
				t.Fatalf("round %d: %d packets up to %d: Seal differs", round, n, longest)
			}
			bad := map[int]bool{}
			for k := range ps {
				if p := &ps[k]; r.below(4) == 0 {
					bad[k] = true
					switch at := r.below(len(p.Buf)); {
					case r.below(8) == 0:
						p.Nonce[r.below(12)] ^= 1 << r.below(8)
					case r.below(4) == 0 && len(p.AAD) > 0:
						p.AAD[r.below(len(p.AAD))] ^= 1 << r.below(8)
					default:
						p.Buf[at] ^= 1 << r.below(8)
					}
				}
				ps[k].OK = r.below(2) == 0 // whatever was there before
			}
			if got := a.OpenBatch(ps); got != n-len(bad) {
				t.Fatalf("round %d: %d of %d open, %d are bad", round, got, n, len(bad))
			}
			for k := range ps {
				text := ps[k].Buf[:len(texts[k])]
				if bad[k] {
					clear(texts[k])
				}
				if ps[k].OK == bad[k] || !bytes.Equal(text, texts[k]) {
					t.Fatalf("round %d: packet %d: OK %v, bad %v, text right %v", round, k, ps[k].OK, bad[k], bytes.Equal(text, texts[k]))
				}
			}
		}
	})
}

// Every bit of a tag counts.
func TestEveryBitOfTheTag(t *testing.T) {
	eachOne(t, func(t *testing.T, i gcm.Implementation) {
		r := newRandom(5)
		for _, size := range []int{0, 1, 16, 40, 64, 100, 130, 250, 1400} {
			a, oracle := newPair(t, i, r.bytes(32))
			nonce, text, aad := r.bytes(12), r.bytes(size), r.bytes(8)
			sealed := oracle.Seal(nil, nonce, text, aad)
			for bit := range 8 * gcm.TagSize {
				buf := bytes.Clone(sealed)
				buf[size+bit/8] ^= 1 << (bit % 8)
				if a.Open(buf, nonce, aad) {
					t.Fatalf("%d bytes opened with bit %d of the tag wrong", size, bit)
				}
				if !bytes.Equal(buf[:size], make([]byte, size)) {
					t.Fatalf("%d bytes: Open left %x", size, buf[:size])
				}
			}
		}
	})
}

func TestWrongLengths(t *testing.T) {
	eachOne(t, func(t *testing.T, i gcm.Implementation) {
		for _, n := range []int{0, 8, 15, 17, 31, 33} {
			if _, err := i.New(make([]byte, n)); err == nil {
				t.Errorf("a key of %d bytes is taken", n)
			}
		}
		a, oracle := newPair(t, i, make([]byte, 16))
		ps := make([]gcm.Packet, 5)
		for k := range ps {
			ps[k].Buf = oracle.Seal(nil, ps[k].Nonce[:], make([]byte, 20*k), nil)
			ps[k].OK = true
		}
		ps[2].Buf = ps[2].Buf[:15]
		if n := a.OpenBatch(ps); n != 4 || ps[2].OK {
			t.Errorf("%d open", n)
		}
		if a.Open(make([]byte, 40), make([]byte, 11), nil) || a.Open(nil, make([]byte, 12), nil) {
			t.Error("wrong lengths opened")
		}
		for _, f := range []func(){
			func() { a.Seal(make([]byte, 15), make([]byte, 12), nil) },
			func() { a.Seal(make([]byte, 40), make([]byte, 13), nil) },
			func() { a.SealBatch(ps) },
		} {
			func() {
				defer func() {
					if recover() == nil {
						t.Error("no panic")
					}
				}()
				f()
			}()
		}
		a.SealBatch(nil)
		if a.OpenBatch(nil) != 0 {
			t.Error("nothing opened")
		}
	})
}

func TestNoAllocation(t *testing.T) {
	eachOne(t, func(t *testing.T, i gcm.Implementation) {
		a, _ := newPair(t, i, make([]byte, 32))
		ps := make([]gcm.Packet, 8)
		for k := range ps {
			ps[k].Buf, ps[k].AAD = make([]byte, 500), make([]byte, 8)
		}
		nonce := make([]byte, 12)
		n := testing.AllocsPerRun(20, func() {
			a.SealBatch(ps)
			a.OpenBatch(ps)
			a.Seal(ps[0].Buf, nonce, ps[0].AAD)
			a.Open(ps[0].Buf, nonce, ps[0].AAD)
		})
		if n != 0 {
			t.Errorf("%v allocations", n)
		}
	})
}

// FuzzGCM holds every implementation against Go's, in a batch of three.
func FuzzGCM(f *testing.F) {
	f.Add(make([]byte, 32), make([]byte, 12), make([]byte, 100), make([]byte, 8), uint(3))
	f.Add(make([]byte, 16), make([]byte, 12), make([]byte, 1400), make([]byte, 12), uint(900))
	f.Add(make([]byte, 16), make([]byte, 12), make([]byte, 0), make([]byte, 33), uint(0))
	f.Fuzz(func(t *testing.T, key, nonce, text, aad []byte, flip uint) {
		if len(key) != 16 && len(key) != 32 || len(nonce) != 12 {
			return
		}
		for _, i := range append(gcm.Implementations(), gcm.Alone()...) {
			a, oracle := newPair(t, i, key)
			checkBoth(t, a, oracle, nonce, text, aad)
			ps := make([]gcm.Packet, 3)
			for k := range ps {
				p := &ps[k]
				copy(p.Nonce[:], nonce)
				p.Nonce[11] ^= byte(k)
				p.AAD = aad
				p.Buf = oracle.Seal(nil, p.Nonce[:], text[:len(text)*(k+1)/3], aad)
			}
			at := flip % uint(8*len(ps[1].Buf))
			ps[1].Buf[at/8] ^= 1 << (at % 8)
			if a.OpenBatch(ps) != 2 || ps[1].OK {
				t.Fatalf("%s: %v %v %v", i, ps[0].OK, ps[1].OK, ps[2].OK)
			}
		}
	})
}

package esp_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"adit/esp"
	"adit/ipsec"
	"adit/suite"
)

// Batches do what one call a packet does: the same bytes, errors and counters, over
// trains with packets that are damaged, repeated, too old or malformed.
func TestBatchEqualsOneByOne(t *testing.T) {
	r := rand.New(rand.NewPCG(4303, 1))
	for _, s := range suites {
		for _, esn := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/esn=%v", s.name, esn), func(t *testing.T) {
				p := params(s, ipsec.ModeTunnel, false, true, esn)
				p.ReplayWindow = 64
				enc, ing := s.keys(t)
				// Two of each direction, with the same keys.
				var sa [4]*esp.SA
				for i := range sa {
					q := p
					if i >= 2 {
						q = mirror(p)
					}
					q.EncKey, q.IntegKey = clone(enc), clone(ing)
					var err error
					if sa[i], err = esp.New(q); err != nil {
						t.Fatal(err)
					}
				}
				c, _ := suite.NewCipher(s.encr, s.integ, clone(enc), clone(ing))
				_, isBatch := c.(suite.Batch)
				if want := s.encr.ID == suite.EncrAESGCM16; isBatch != want {
					t.Fatalf("batch %v", isBatch)
				}
				random := s.encr.ID == suite.EncrAESCBC // its IVs are
				sealed := 0
				for range 4 {
					batch, ones := sealTrain(r)
					n := sa[0].SealBatch(batch)
					for i := range ones {
						err := sa[1].Seal(&ones[i])
						if err == nil {
							sealed++
							n--
						}
						a, b := &batch[i], &ones[i]
						if a.Err != err || err == nil && (a.Off != b.Off || a.Len != b.Len || a.Seq != b.Seq || !random && !bytes.Equal(a.Bytes(), b.Bytes())) {
							t.Fatalf("packet %d: %v and %v, seq %d and %d", i, a.Err, err, a.Seq, b.Seq)
						}
					}
					if n != 0 {
						t.Fatalf("%d too many sealed", n)
					}
					batch, ones = openTrain(r, batch)
					n = sa[2].OpenBatch(batch)
					for i := range ones {
						err := sa[3].Open(&ones[i])
						if err == nil {
							n--
						}
						a, b := &batch[i], &ones[i]
						// Which of the two it is of a packet behind the window depends, with
						// ESN, on whether the window has moved on.
						same := a.Err == err || esn && a.Err == esp.ErrReplay && err == esp.ErrAuth
						if !same || err == nil && !bytes.Equal(a.Bytes(), b.Bytes()) {
							t.Fatalf("packet %d of %d: %v and %v", i, len(ones), a.Err, err)
						}
					}
					if n != 0 {
						t.Fatalf("%d too many open", n)
					}
				}
				if a, b := sa[0].Stats(), sa[1].Stats(); a != b || a.Packets != uint64(sealed) {
					t.Errorf("sealed: %+v and %+v", a, b)
				}
				a, b := sa[2].Stats(), sa[3].Stats()
				if esn {
					a.Replayed, b.Replayed = a.Replayed+a.AuthFailed, b.Replayed+b.AuthFailed
					b.AuthFailed = a.AuthFailed
				}
				if a != b || a.AuthFailed == 0 || a.Replayed == 0 || a.Malformed == 0 || a.Packets == 0 {
					t.Errorf("opened: %+v and %+v", a, b)
				}
			})
		}
	}
}

// sealTrain makes up to 100 packets twice, a few of which cannot be sealed.
func sealTrain(r *rand.Rand) (batch, ones []esp.Packet) {
	for range 50 + r.IntN(50) {
		b := innerPacket(r.IntN(2) == 0, 0, r.IntN(1400))
		if r.IntN(12) == 0 {
			b[0] = 0x20 // no IP
		}
		batch, ones = append(batch, *packet(b)), append(ones, *packet(b))
	}
	return batch, ones
}

// openTrain makes the train that arrives of what was sealed, twice.
func openTrain(r *rand.Rand, sealed []esp.Packet) (batch, ones []esp.Packet) {
	add := func(p *esp.Packet) {
		for _, to := range []*[]esp.Packet{&batch, &ones} {
			*to = append(*to, esp.Packet{Buf: bytes.Clone(p.Buf), Off: p.Off, Len: p.Len})
		}
	}
	for i := range sealed {
		p := sealed[i]
		if p.Err != nil {
			continue
		}
		add(&p)
		last := func(change func(p *esp.Packet)) {
			change(&batch[len(batch)-1])
			change(&ones[len(ones)-1])
		}
		at, old := r.IntN(p.Len), sealed[r.IntN(i+1)]
		switch r.IntN(8) {
		case 0:
			last(func(p *esp.Packet) { p.Bytes()[at] ^= 1 })
		case 1:
			last(func(p *esp.Packet) { p.Len = at })
		case 2:
			add(&p) // again
		case 3:
			if old.Err == nil {
				add(&old)
			}
		}
	}
	return batch, ones
}

func BenchmarkBatch(b *testing.B) {
	for _, s := range []testSuite{suites[0], suites[2]} {
		for _, size := range []int{64, 1400} {
			for _, batch := range []bool{false, true} {
				out, _ := newPair(b, s, params(s, ipsec.ModeTunnel, false, true, true))
				inner := innerPacket(false, 0, size-28)
				ps := make([]esp.Packet, 32)
				for i := range ps {
					ps[i] = *packet(inner)
				}
				off := ps[0].Off
				b.Run(fmt.Sprintf("Seal/%s/%d/batch=%v", s.name, size, batch), func(b *testing.B) {
					for left := b.N; left > 0; left -= len(ps) {
						for i := range ps {
							ps[i].Off, ps[i].Len = off, len(inner)
							copy(ps[i].Bytes()[:20], inner)
						}
						if batch {
							out.SealBatch(ps)
							continue
						}
						for i := range ps {
							out.Seal(&ps[i])
						}
					}
				})
			}
		}
	}
}

// TestHardBoundsInBatches: a hard bound is crossed by the same packet, and passed by
// none behind it, whether packets are sealed and opened one by one or in batches.
func TestHardBoundsInBatches(t *testing.T) {
	r := rand.New(rand.NewPCG(4301, 2))
	for range 60 {
		s := suites[r.IntN(len(suites))]
		p := params(s, ipsec.ModeTunnel, false, true, r.IntN(2) == 0)
		if r.IntN(2) == 0 {
			p.Life.HardPackets = uint64(1 + r.IntN(100))
		} else {
			p.Life.HardBytes = uint64(1 + r.IntN(50_000))
		}
		var sa [4]*esp.SA
		enc, ing := s.keys(t)
		for i := range sa {
			q := p
			if i >= 2 {
				q = mirror(p)
			}
			q.EncKey, q.IntegKey = clone(enc), clone(ing)
			var err error
			if sa[i], err = esp.New(q); err != nil {
				t.Fatal(err)
			}
		}
		for range 3 {
			batch, ones := sealTrain(r)
			sa[0].SealBatch(batch)
			for i := range ones {
				if err := sa[1].Seal(&ones[i]); batch[i].Err != err || err == nil && batch[i].Seq != ones[i].Seq {
					t.Fatalf("%s, %+v, sealed packet %d: %v in a batch, %v alone", s.name, p.Life, i, batch[i].Err, err)
				}
			}
			batch, ones = openTrain(r, batch)
			sa[2].OpenBatch(batch)
			for i := range ones {
				if err := sa[3].Open(&ones[i]); batch[i].Err != err {
					t.Fatalf("%s, %+v, opened packet %d: %v in a batch, %v alone", s.name, p.Life, i, batch[i].Err, err)
				}
			}
		}
		if a, b := sa[0].Stats(), sa[1].Stats(); a != b || !sa[0].Expired() {
			t.Fatalf("%+v and %+v, expired %v", a, b, sa[0].Expired())
		}
	}
}

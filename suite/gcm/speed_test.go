package gcm_test

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"adit/suite/gcm"
)

// Benchmark measures all implementations in turns, so that what else the machine does
// meets them alike, and reports the medians of nanoseconds a packet. Run it with a
// number of rounds (-benchtime 200x). To open, a packet is copied first, which counts.
func Benchmark(b *testing.B) {
	for _, size := range []int{16, 32} {
		for _, n := range []int{64, 256, 512, 1400, 8192} {
			for _, form := range []string{"seal/one", "seal/batch", "open/one", "open/batch"} {
				b.Run(fmt.Sprintf("aes%d/%d/%s", 8*size, n, form), func(b *testing.B) {
					all := gcm.Implementations()
					rounds, times := make([]func(), len(all)), make([][]float64, len(all))
					for k, i := range all {
						a, err := i.New(make([]byte, size))
						if err != nil {
							b.Fatal(err)
						}
						rounds[k] = round(a, n, form)
					}
					for range b.N {
						for k, f := range rounds {
							f() // what the one before it has left in caches and predictors
							begin := time.Now()
							for range 10 {
								f()
							}
							times[k] = append(times[k], float64(time.Since(begin).Nanoseconds())/10/perRound)
						}
					}
					b.ReportMetric(0, "ns/op")
					for k, i := range all {
						slices.Sort(times[k])
						b.ReportMetric(times[k][b.N/2], i.String()+"-ns")
					}
				})
			}
		}
	}
}

const perRound = 32

// round returns what seals or opens perRound packets of n bytes with 8 of AAD.
func round(a *gcm.AEAD, n int, form string) func() {
	ps, sealed := make([]gcm.Packet, perRound), make([][]byte, perRound)
	nonce := make([]byte, gcm.NonceSize)
	for k := range ps {
		packet := make([]byte, 16+n+gcm.TagSize)
		ps[k].Buf, ps[k].AAD = packet[16:], packet[:8]
		a.Seal(ps[k].Buf, nonce, ps[k].AAD)
		sealed[k] = bytes.Clone(ps[k].Buf)
	}
	count := byte(0)
	switch form {
	case "seal/one":
		return func() {
			for k := range ps {
				count++
				nonce[11] = count
				a.Seal(ps[k].Buf, nonce, ps[k].AAD)
			}
		}
	case "seal/batch":
		return func() {
			for k := range ps {
				count++
				ps[k].Nonce[11] = count
			}
			a.SealBatch(ps)
		}
	case "open/one":
		return func() {
			for k := range ps {
				copy(ps[k].Buf, sealed[k])
				if !a.Open(ps[k].Buf, nonce, ps[k].AAD) {
					panic("does not open")
				}
			}
		}
	}
	return func() {
		for k := range ps {
			copy(ps[k].Buf, sealed[k])
		}
		if a.OpenBatch(ps) != perRound {
			panic("does not open")
		}
	}
}

package esp_test

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"adit/esp"
)

// TestRFC4303_3_4_3_WindowAgainstSet compares the window with a plain set of all
// numbers seen, over random walks with jumps, repeats and stragglers.
func TestRFC4303_3_4_3_WindowAgainstSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.SampledFrom([]uint32{1, 2, 31, 32, 33, 63, 64, 65, 128, 1000, 4096, 5000}).Draw(t, "size")
		w := esp.NewWindow(size)
		seen := map[uint64]bool{}
		top := rapid.SampledFrom([]uint64{0, 0, 1<<32 - 70, 1<<34 + 5}).Draw(t, "start")
		if top > 0 {
			if !w.Commit(top) {
				t.Fatal("a jump was refused")
			}
			seen[top] = true
		}
		for range rapid.IntRange(1, 200).Draw(t, "packets") {
			var seq uint64
			switch rapid.IntRange(0, 3).Draw(t, "kind") {
			case 0:
				seq = top + 1
			case 1:
				seq = top + rapid.Uint64Range(1, uint64(size)*3).Draw(t, "jump")
			default:
				back := rapid.Uint64Range(0, uint64(size)+2).Draw(t, "back")
				if seq = top - back; back > top {
					seq = 0
				}
			}
			want := seq != 0 && !seen[seq] && seq+uint64(size) > top
			if got := w.Check(seq); got != want {
				t.Fatalf("window %d, top %d: check(%d) = %v, want %v", size, top, seq, got, want)
			}
			if got := w.Commit(seq); got != want {
				t.Fatalf("window %d, top %d: commit(%d) = %v, want %v", size, top, seq, got, want)
			}
			if want {
				seen[seq] = true
				top = max(top, seq)
			}
		}
	})
}

// TestWindowConcurrent: of many goroutines that commit the same numbers, one wins each.
func TestWindowConcurrent(t *testing.T) {
	const numbers, workers = 20000, 4
	w := esp.NewWindow(256)
	var taken [numbers + 1]atomic.Int32
	var wg sync.WaitGroup
	for k := range workers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(k)))
			for n := uint64(1); n <= numbers; n++ {
				seq := n - min(n-1, rng.Uint64N(20))
				if w.Check(seq) && w.Commit(seq) {
					taken[seq].Add(1)
				}
			}
		})
	}
	wg.Wait()
	some := 0
	for n := range taken {
		if c := taken[n].Load(); c > 1 {
			t.Fatalf("%d was taken %d times", n, c)
		} else if c == 1 {
			some++
		}
	}
	if some < numbers/2 {
		t.Fatalf("only %d of %d numbers were taken", some, numbers)
	}
}

// TestRFC4303_A2_HighBits walks the guess over the wrap of the low half.
func TestRFC4303_A2_HighBits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.SampledFrom([]uint32{0, 32, 64, 4096}).Draw(t, "size")
		eff := uint64(size)
		if size == 0 {
			eff = 4096
		}
		w := esp.NewWindow(size)
		top := rapid.OneOf(rapid.Uint64Range(1, 1<<34), rapid.Map(rapid.Int64Range(-10000, 10000), func(d int64) uint64 {
			return uint64(3<<32 + d)
		})).Draw(t, "top")
		if !w.Commit(top) {
			t.Fatal("commit")
		}
		// Whatever is inside the window, or less than 2^32 minus the window ahead, is guessed right.
		ahead := rapid.Uint64Range(0, 1<<32-eff).Draw(t, "ahead")
		behind := rapid.Uint64Range(0, min(eff, top)-1).Draw(t, "behind")
		for _, seq := range []uint64{top + ahead, top - behind} {
			if got, ok := w.Extend(uint32(seq)); !ok || got != seq {
				t.Fatalf("top %#x, window %d: %#x extended to %#x, %v", top, size, seq, got, ok)
			}
		}
	})
	if _, ok := esp.NewWindow(64).Extend(1<<32 - 1); ok {
		t.Fatal("a number from before the first was accepted")
	}
}

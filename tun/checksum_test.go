//go:build linux

package tun_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"

	"adit/tun"
)

// plainSum is RFC 1071 word by word.
func plainSum(b []byte) uint16 {
	var acc uint64
	for i, x := range b {
		acc += uint64(x) << (8 * (1 - i%2))
	}
	for acc > 0xffff {
		acc = acc>>16 + acc&0xffff
	}
	return ^uint16(acc)
}

// Both ways to sum, against the plain one: every length, every offset within two
// vectors, at both ends of a page beside which a byte read kills the process.
func TestChecksumOfEveryLength(t *testing.T) {
	page := unix.Getpagesize()
	m, err := unix.Mmap(-1, 0, 3*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(m) })
	for _, at := range []int{0, 2 * page} {
		if err := unix.Mprotect(m[at:at+page], unix.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	mem := m[page : 2*page]
	rng := rand.NewChaCha8([32]byte{1})
	check := func(t *testing.T) {
		for _, fill := range []string{"random", "ones", "carries"} {
			switch fill {
			case "random":
				rng.Read(mem)
			case "ones":
				copy(mem, bytes.Repeat([]byte{0xff}, page))
			case "carries": // the most that a high half can be, beside next to nothing
				copy(mem, bytes.Repeat([]byte{1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}, page/8))
			}
			for n := range 2101 {
				for _, at := range []int{0, page - n, 1 + n%63, page - n - 1 - n%63} {
					b := mem[at : at+n]
					if got, want := tun.Checksum(b), plainSum(b); got != want {
						t.Fatalf("%s, %d bytes at %d: %#04x, want %#04x", fill, n, at, got, want)
					}
				}
			}
		}
		long := bytes.Repeat([]byte{0xff, 0xfe, 0xff, 0xff}, 50_000) // more than a call takes
		rng.Read(long[70_000:])
		for _, n := range []int{1<<16 - 1, 1 << 16, 1<<16 + 1, 1<<17 + 95, len(long)} {
			if got, want := tun.Checksum(long[1:n]), plainSum(long[1:n]); got != want {
				t.Fatalf("%d bytes: %#04x, want %#04x", n-1, got, want)
			}
		}
	}
	t.Run("portable", func(t *testing.T) { tun.WithoutVectors(func() { check(t) }) })
	t.Run("vectors", func(t *testing.T) {
		if !tun.HaveVectors() {
			t.Skip("the machine has no AVX2")
		}
		check(t)
	})
}

func BenchmarkChecksum(b *testing.B) {
	mem := make([]byte, 1<<16)
	for _, n := range []int{64, 96, 128, 256, 512, 1400, 1 << 16} {
		run := func(b *testing.B) {
			b.SetBytes(int64(n))
			for b.Loop() {
				tun.Checksum(mem[:n])
			}
		}
		b.Run(fmt.Sprintf("vectors/%d", n), run)
		b.Run(fmt.Sprintf("portable/%d", n), func(b *testing.B) { tun.WithoutVectors(func() { run(b) }) })
	}
}

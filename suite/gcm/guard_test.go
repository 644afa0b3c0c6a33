//go:build linux

package gcm_test

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"

	"adit/suite/gcm"
)

// guarded returns a buffer between two pages that cannot be touched.
func guarded(t *testing.T, pages int) []byte {
	t.Helper()
	page := unix.Getpagesize()
	m, err := unix.Mmap(-1, 0, (pages+2)*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(m) })
	for _, at := range []int{0, (pages + 1) * page} {
		if err := unix.Mprotect(m[at:at+page], unix.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	return m[page : (pages+1)*page]
}

// Packets and additional data that end, or begin, where memory does: a byte read or
// written beside them kills the process.
func TestGuardPages(t *testing.T) {
	eachOne(t, func(t *testing.T, i gcm.Implementation) {
		r := newRandom(6)
		a, oracle := newPair(t, i, r.bytes(32))
		mem, aadMem := guarded(t, 1), guarded(t, 1)
		for n := 0; n <= 600; n++ {
			for _, end := range []bool{true, false} {
				for _, aadLen := range []int{8, 12, n % 100, n} {
					buf, aad := mem[:n+gcm.TagSize], aadMem[:aadLen]
					if end {
						buf, aad = mem[len(mem)-len(buf):], aadMem[len(aadMem)-aadLen:]
					}
					r.Read(buf)
					r.Read(aad)
					var nonce [12]byte
					want := oracle.Seal(nil, nonce[:], buf[:n], aad)
					ps := []gcm.Packet{{Buf: buf, AAD: aad}}
					a.SealBatch(ps)
					if !bytes.Equal(buf, want) {
						t.Fatalf("text %d, aad %d, at the end %v: Seal differs", n, aadLen, end)
					}
					if a.OpenBatch(ps) != 1 {
						t.Fatalf("text %d, aad %d, at the end %v: does not open", n, aadLen, end)
					}
				}
			}
		}
	})
}

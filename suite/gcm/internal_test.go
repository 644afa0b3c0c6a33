package gcm

import (
	"bytes"
	"os"
	"os/exec"
	"testing"
	"unsafe"
)

// The assembler's idea of a Packet, from _asm/main.go.
func TestLayout(t *testing.T) {
	var p Packet
	for _, v := range []struct {
		name      string
		got, want uintptr
	}{
		{"size", unsafe.Sizeof(p), 64},
		{"Buf", unsafe.Offsetof(p.Buf), 0},
		{"AAD", unsafe.Offsetof(p.AAD), 24},
		{"Nonce", unsafe.Offsetof(p.Nonce), 48},
		{"OK", unsafe.Offsetof(p.OK), 60},
	} {
		if v.got != v.want && unsafe.Sizeof(uintptr(0)) == 8 {
			t.Errorf("%s: %d, want %d", v.name, v.got, v.want)
		}
	}
}

// What is on the heap for a key is overwritten.
func TestZero(t *testing.T) {
	for _, i := range Implementations() {
		key := []byte("0123456789abcdef0123456789abcdef")
		a, err := i.New(key)
		if err != nil {
			t.Fatal(err)
		}
		ks := a.ks
		if ks != nil && !bytes.HasPrefix(ks[:], key) {
			t.Errorf("%s: the round keys do not begin with the key", i)
		}
		a.Zero()
		if a.slow != nil || ks != nil && !bytes.Equal(ks[:], make([]byte, len(ks))) {
			t.Errorf("%s: something is left", i)
		}
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: sealed without a key", i)
				}
			}()
			a.Seal(make([]byte, 40), make([]byte, NonceSize), nil)
		}()
	}
}

// No call into assembler is longer than maxCall says, whatever a batch holds.
func TestRun(t *testing.T) {
	a, err := New(make([]byte, 16))
	if err != nil || a.ks == nil {
		t.Skip("no assembler here")
	}
	ps := make([]Packet, 3000)
	for i := range ps {
		ps[i].Buf = make([]byte, TagSize+i)
	}
	for at := 0; at < len(ps); {
		n, said := a.run(ps[at:])
		work := 0
		for _, p := range ps[at : at+n] {
			work += p.work()
		}
		if n == 0 || work != said || work > maxCall || at+n < len(ps) && work+ps[at+n].work() <= maxCall {
			t.Fatalf("at %d: %d packets of %d", at, n, work)
		}
		at += n
	}
}

// The assembler is what its generator writes. It takes half a minute to build that.
func TestGenerated(t *testing.T) {
	if os.Getenv("ADIT_LONG") == "" {
		t.Skip("ADIT_LONG is not set")
	}
	cmd := exec.Command("go", "run", ".")
	cmd.Dir = "_asm"
	if out, err := exec.Command("go", "-C", "_asm", "mod", "download").CombinedOutput(); err != nil {
		t.Skipf("avo can't be had: %v: %s", err, out)
	}
	got, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("gcm_amd64.s")
	if err != nil {
		t.Fatal(err)
	}
	// The first line names the command's arguments.
	_, got, _ = bytes.Cut(got, []byte("\n"))
	_, want, _ = bytes.Cut(want, []byte("\n"))
	if !bytes.Equal(got, want) {
		t.Error("gcm_amd64.s is not what _asm writes: run go generate")
	}
}

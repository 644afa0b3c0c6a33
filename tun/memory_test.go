package tun_test

import (
	"errors"
	"testing"
	"time"

	"adit/tun"
)

func buffers(n, size int) ([][]byte, []int) {
	b := make([][]byte, n)
	for i := range b {
		b[i] = make([]byte, size)
	}
	return b, make([]int, n)
}

func TestPipe(t *testing.T) {
	a, b := tun.Pipe(1400)
	defer a.Close()
	defer b.Close()
	small := flow{payload: payload(100)}.build(t)
	big := flow{payload: payload(1500)}.build(t)
	out := [][]byte{append([]byte("head"), small...), append([]byte("head"), "junk"...), append([]byte("head"), big...), append([]byte("head"), small...)}
	n, err := a.Write(out, 4)
	if n != 3 || !errors.Is(err, tun.ErrNotIP) {
		t.Fatalf("Write: %d, %v", n, err)
	}
	bufs, sizes := buffers(8, 2048)
	n, err = b.Read(bufs, sizes, 16)
	if n != 2 || err != nil {
		t.Fatalf("Read: %d, %v: the packet above the MTU goes nowhere", n, err)
	}
	for i := range n {
		if string(bufs[i][16:16+sizes[i]]) != string(small) {
			t.Errorf("packet %d differs", i)
		}
	}
	if err := b.SetMTU(20); !errors.Is(err, tun.ErrMTU) {
		t.Errorf("SetMTU(20): %v", err)
	}
}

func TestPipeOverflowIsBounded(t *testing.T) {
	a, _ := tun.Pipe(1400)
	p := flow{payload: payload(10)}.build(t)
	var n int
	var err error
	for range 3000 {
		k, e := a.Write([][]byte{p}, 0)
		n += k
		if e != nil {
			err = e
		}
	}
	if n != 1024 || !errors.Is(err, tun.ErrFull) {
		t.Errorf("took %d packets, %v", n, err)
	}
}

func TestPipeCloseUnblocksRead(t *testing.T) {
	a, b := tun.Pipe(1400)
	done := make(chan error, 1)
	go func() {
		bufs, sizes := buffers(1, 2048)
		_, err := a.Read(bufs, sizes, 0)
		done <- err
	}()
	time.Sleep(10 * time.Millisecond)
	a.Close()
	a.Close()
	select {
	case err := <-done:
		if !errors.Is(err, tun.ErrClosed) {
			t.Errorf("Read: %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("Read still waits")
	}
	if n, err := b.Write([][]byte{flow{payload: payload(1)}.build(t)}, 0); n != 1 || err != nil {
		t.Errorf("the other end: %d, %v", n, err)
	}
}

func TestPipeDoesNotAllocate(t *testing.T) {
	a, b := tun.Pipe(1400)
	out := [][]byte{flow{payload: payload(1000)}.build(t)}
	bufs, sizes := buffers(4, 2048)
	turn := func() {
		if _, err := a.Write(out, 0); err != nil {
			t.Fatal(err)
		}
		if n, err := b.Read(bufs, sizes, 0); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}
	for range 1024 {
		turn() // every slot gets its buffer
	}
	if n := testing.AllocsPerRun(2000, turn); n > 0 {
		t.Errorf("%v allocations a packet", n)
	}
}

func TestOffloadMissing(t *testing.T) {
	for want, o := range map[string]tun.Offload{
		"": {Header: true, TSO4: true, TSO6: true, ECN: true, USO4: true, USO6: true, Coalesce: true, CoalesceUDP: true},
		// Linux before 6.2
		"USO4, USO6, UDP coalescing": {Header: true, TSO4: true, TSO6: true, ECN: true, Coalesce: true},
		"virtio header, TSO4, TSO6, TSO with ECN, USO4, USO6, TCP coalescing, UDP coalescing": {},
	} {
		if got := o.Missing(); got != want {
			t.Errorf("%+v: %q, want %q", o, got, want)
		}
	}
}

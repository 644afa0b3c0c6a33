package netstack_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"adit/tun"
	"adit/tun/netstack"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	leftAddrs  = []netip.Addr{netip.MustParseAddr("10.1.0.10"), netip.MustParseAddr("2001:db8:1::10")}
	rightAddrs = []netip.Addr{netip.MustParseAddr("10.2.0.10"), netip.MustParseAddr("2001:db8:2::10")}
)

// hosts makes two hosts whose devices are joined by copying packets, as two
// gateways without encryption would.
func hosts(t *testing.T, mtu int) (a, b *netstack.Stack) {
	t.Helper()
	a, err := netstack.New(leftAddrs, mtu)
	if err != nil {
		t.Fatal(err)
	}
	b, err = netstack.New(rightAddrs, mtu)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	carry := func(from, to tun.Device) {
		defer wg.Done()
		const headroom = 40
		bufs, sizes := make([][]byte, from.BatchSize()), make([]int, from.BatchSize())
		for i := range bufs {
			bufs[i] = make([]byte, headroom+mtu)
		}
		out := make([][]byte, 0, len(bufs))
		for {
			n, err := from.Read(bufs, sizes, headroom)
			if err != nil {
				if !errors.Is(err, tun.ErrClosed) {
					t.Errorf("Read: %v", err)
				}
				return
			}
			out = out[:0]
			for i := range n {
				out = append(out, bufs[i][:headroom+sizes[i]])
			}
			if _, err := to.Write(out, headroom); err != nil && !errors.Is(err, tun.ErrClosed) {
				t.Errorf("Write: %v", err)
			}
		}
	}
	wg.Add(2)
	go carry(a, b)
	go carry(b, a)
	t.Cleanup(func() {
		a.Close()
		b.Close()
		wg.Wait()
	})
	return a, b
}

func limit(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestPing(t *testing.T) {
	a, _ := hosts(t, 1400)
	for _, to := range rightAddrs {
		for _, size := range []int{0, 56, 1300, 5000} {
			rtt, err := a.Ping(limit(t, 5*time.Second), to, size)
			if err != nil || rtt <= 0 {
				t.Errorf("%s, %d bytes: %v, %v", to, size, rtt, err)
			}
		}
	}
	// Nobody answers for an address that the far host doesn't have.
	_, err := a.Ping(limit(t, 50*time.Millisecond), netip.MustParseAddr("10.2.0.99"), 8)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nobody there: %v", err)
	}
	if _, err := a.Ping(limit(t, time.Second), rightAddrs[0], -1); err == nil {
		t.Error("negative size accepted")
	}
}

func TestTCP(t *testing.T) {
	a, b := hosts(t, 1400)
	data := bytes.Repeat([]byte("all of it, in order. "), 100_000)
	for i, addr := range rightAddrs {
		l, err := b.Listen(netip.AddrPortFrom(addr, 80))
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan []byte, 1)
		go func() {
			c, err := l.Accept()
			if err != nil {
				t.Error(err)
				got <- nil
				return
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(20 * time.Second))
			if host, _, _ := net.SplitHostPort(c.RemoteAddr().String()); host != leftAddrs[i].String() {
				t.Errorf("from %s", c.RemoteAddr())
			}
			all, _ := io.ReadAll(c)
			got <- all
		}()
		c, err := a.Dial(limit(t, 5*time.Second), "tcp", netip.AddrPortFrom(addr, 80))
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := c.Write(data); err != nil {
			t.Error(err)
		}
		c.Close()
		if all := <-got; !bytes.Equal(all, data) {
			t.Errorf("%s: %d bytes of %d", addr, len(all), len(data))
		}
		l.Close()
		if _, err := a.Dial(limit(t, 5*time.Second), "tcp", netip.AddrPortFrom(addr, 81)); err == nil {
			t.Error("connected to a port where nobody listens")
		}
	}
}

func TestUDP(t *testing.T) {
	a, b := hosts(t, 1400)
	for _, addr := range rightAddrs {
		pc, err := b.ListenUDP(netip.AddrPortFrom(addr, 53))
		if err != nil {
			t.Fatal(err)
		}
		c, err := a.Dial(limit(t, time.Second), "udp", netip.AddrPortFrom(addr, 53))
		if err != nil {
			t.Fatal(err)
		}
		pc.SetDeadline(time.Now().Add(5 * time.Second))
		c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Write([]byte("question")); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 100)
		n, from, err := pc.ReadFrom(buf)
		if err != nil || string(buf[:n]) != "question" {
			t.Fatalf("%q, %v", buf[:n], err)
		}
		if _, err := pc.WriteTo([]byte("answer"), from); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(buf); err != nil || string(buf[:n]) != "answer" {
			t.Fatalf("%q, %v", buf[:n], err)
		}
		c.Close()
		pc.Close()
	}
	if _, err := a.Dial(limit(t, time.Second), "sctp", netip.AddrPortFrom(rightAddrs[0], 1)); err == nil {
		t.Error("sctp accepted")
	}
}

func TestDeviceKeepsMTUAndRefusesJunk(t *testing.T) {
	if _, err := netstack.New(leftAddrs, 1200); !errors.Is(err, tun.ErrMTU) {
		t.Errorf("MTU below that of IPv6: %v", err)
	}
	if _, err := netstack.New(nil, 1400); err == nil {
		t.Error("no address accepted")
	}
	a, b := hosts(t, 1400)
	if err := errors.Join(a.SetMTU(1280), b.SetMTU(1280)); err != nil || a.MTU() != 1280 {
		t.Errorf("SetMTU: %v", err)
	}
	if err := a.SetMTU(1279); !errors.Is(err, tun.ErrMTU) {
		t.Errorf("SetMTU(1279): %v", err)
	}
	for _, junk := range [][]byte{{}, {0x00}, {0x45}, {0x60, 0}, bytes.Repeat([]byte{0x45}, 40), bytes.Repeat([]byte{0x60}, 100), bytes.Repeat([]byte{0xff}, 1400)} {
		a.Write([][]byte{junk}, 0)
	}
	if n, err := a.Write([][]byte{{}, {0x10, 0}}, 0); n != 0 || !errors.Is(err, tun.ErrNotIP) {
		t.Errorf("junk: %d, %v", n, err)
	}
	if _, err := a.Ping(limit(t, 5*time.Second), rightAddrs[0], 1252); err != nil {
		t.Errorf("after junk: %v", err)
	}
}

func TestCloseUnblocks(t *testing.T) {
	s, err := netstack.New(leftAddrs, 1400)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 2)
	go func() {
		_, err := s.Ping(context.Background(), rightAddrs[0], 8)
		done <- err
	}()
	go func() {
		bufs, sizes := [][]byte{make([]byte, 2000)}, make([]int, 1)
		for {
			if _, err := s.Read(bufs, sizes, 0); err != nil {
				done <- err
				return
			}
		}
	}()
	time.Sleep(20 * time.Millisecond)
	s.Close()
	s.Close()
	for range 2 {
		select {
		case err := <-done:
			if err == nil {
				t.Error("ended without an error")
			}
		case <-time.After(5 * time.Second):
			t.Fatal("still waiting")
		}
	}
	if _, err := s.Write([][]byte{{0x45}}, 0); !errors.Is(err, tun.ErrClosed) {
		t.Errorf("Write after Close: %v", err)
	}
	if _, err := s.Dial(context.Background(), "tcp", netip.AddrPortFrom(rightAddrs[0], 80)); err == nil {
		t.Error("Dial after Close")
	}
}

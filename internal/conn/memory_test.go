package conn_test

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"
	"time"

	"adit/internal/conn"
)

var (
	left   = netip.MustParseAddr("192.0.2.1")
	right  = netip.MustParseAddr("192.0.2.2")
	left6  = netip.MustParseAddr("2001:db8::1")
	right6 = netip.MustParseAddr("2001:db8::2")
)

func memoryPair(t *testing.T) (n *conn.Network, a, b conn.Conn) {
	t.Helper()
	n = conn.NewNetwork()
	open := func(addrs ...netip.Addr) conn.Conn {
		h, err := n.Host(addrs...)
		if err != nil {
			t.Fatal(err)
		}
		c, err := h.Listen(conn.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	return n, open(left, left6), open(right, right6)
}

func TestMemoryKinds(t *testing.T) {
	n, a, b := memoryPair(t)
	var seen []conn.Datagram
	n.SetTap(func(d conn.Datagram) {
		d.Payload = bytes.Clone(d.Payload)
		seen = append(seen, d)
	})
	esp := []byte{1, 2, 3, 4, 0, 0, 0, 1, 5}
	for _, to := range []netip.Addr{right, right6} {
		from := left
		if to == right6 {
			from = left6
		}
		out := []conn.Packet{
			{Kind: conn.IKE, Remote: netip.AddrPortFrom(to, 500), Buf: []byte("hello")},
			{Kind: conn.IKE, Encap: true, Remote: netip.AddrPortFrom(to, 4500), Buf: []byte("hello again"), Local: netip.AddrPortFrom(from, 4500)},
			{Kind: conn.ESP, Encap: true, Remote: netip.AddrPortFrom(to, 4500), Buf: esp, TOS: 0xb9},
			{Kind: conn.ESP, Remote: netip.AddrPortFrom(to, 0), Buf: esp, DF: true},
			{Kind: conn.Keepalive, Encap: true, Remote: netip.AddrPortFrom(to, 4500)},
		}
		seen = nil
		if k, err := a.WriteBatch(out); k != len(out) || err != nil {
			t.Fatalf("WriteBatch: %d, %v", k, err)
		}
		in := make([]conn.Packet, 16)
		k, err := b.Readers()[0].ReadBatch(in)
		if k != len(out) || err != nil {
			t.Fatalf("ReadBatch: %d, %v", k, err)
		}
		for i, p := range in[:k] {
			want := out[i]
			if want.Kind == conn.Keepalive {
				want.Buf = []byte{0xff}
			}
			port := uint16(500)
			if want.Encap {
				port = 4500
			} else if want.Kind == conn.ESP {
				port = 0
			}
			if p.Kind != want.Kind || p.Encap != want.Encap || p.TOS != want.TOS || !bytes.Equal(p.Buf, want.Buf) ||
				p.Remote != netip.AddrPortFrom(from, port) || p.Local != netip.AddrPortFrom(to, port) {
				t.Errorf("%d: %+v, sent %+v", i, p, want)
			}
		}
		if len(seen) != 5 || !bytes.Equal(seen[1].Payload, []byte("\x00\x00\x00\x00hello again")) || !seen[3].Raw || !seen[3].DF {
			t.Errorf("tap: %+v", seen)
		}
	}
}

func TestMemoryFilterAndErrors(t *testing.T) {
	n, a, b := memoryPair(t)
	n.SetFilter(func(d *conn.Datagram) bool {
		d.Payload[0] ^= 0x80
		return d.Dst.Port() != 500
	})
	to := netip.AddrPortFrom(right, 4500)
	esp := []byte{1, 2, 3, 4, 0, 0, 0, 1}
	out := []conn.Packet{
		{Kind: conn.IKE, Remote: netip.AddrPortFrom(right, 500), Buf: []byte("dropped")},
		{Kind: conn.ESP, Encap: true, Remote: to, Local: netip.AddrPortFrom(right, 0), Buf: esp}, // not our address
		{Kind: 0, Remote: to, Buf: esp},
		{Kind: conn.ESP, Encap: true, Remote: to, Buf: make([]byte, 70000)},
		{Kind: conn.ESP, Encap: true, Remote: to, Buf: esp},
	}
	if k, err := a.WriteBatch(out); k != 2 || !errors.Is(err, conn.ErrTooBig) {
		t.Errorf("WriteBatch: %d, %v", k, err)
	}
	in := make([]conn.Packet, 4)
	k, err := b.Readers()[0].ReadBatch(in)
	if k != 1 || err != nil || in[0].Buf[0] != 0x81 {
		t.Errorf("ReadBatch: %d %v %x", k, err, in[0].Buf)
	}
	if esp[0] != 1 {
		t.Error("the filter changed the sender's buffer")
	}
	if src, err := a.SourceFor(right6); src != left6 || err != nil {
		t.Errorf("SourceFor: %v, %v", src, err)
	}
	h, err := n.Host(netip.MustParseAddr("192.0.2.9"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := h.Listen(conn.Options{NoRaw: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := h.Listen(conn.Options{Ports: conn.Ports{IKE: 500, NATT: 4501}}); !errors.Is(err, conn.ErrPortInUse) {
		t.Errorf("second on port 500: %v", err)
	}
	if _, err := c.SourceFor(right6); !errors.Is(err, conn.ErrNoRoute) {
		t.Errorf("SourceFor without IPv6: %v", err)
	}
	if n.Inject(conn.Datagram{Src: to, Dst: netip.MustParseAddrPort("192.0.2.9:0"), Raw: true, Payload: esp}) {
		t.Error("raw ESP reached a Conn without raw sockets")
	}
}

func TestMemoryCloseUnblocksAndQueueIsBounded(t *testing.T) {
	_, a, b := memoryPair(t)
	p := []conn.Packet{{Kind: conn.IKE, Remote: netip.AddrPortFrom(right, 500), Buf: []byte("x")}}
	for range 5000 {
		if _, err := a.WriteBatch(p); err != nil {
			t.Fatal(err)
		}
	}
	if full := b.Stats().QueueFull; full != 5000-4096 {
		t.Errorf("%d dropped", full)
	}
	done := make(chan error, 1)
	go func() {
		_, err := a.Readers()[0].ReadBatch(make([]conn.Packet, 1))
		done <- err
	}()
	time.Sleep(10 * time.Millisecond)
	a.Close()
	a.Close()
	select {
	case err := <-done:
		if !errors.Is(err, conn.ErrClosed) {
			t.Errorf("ReadBatch: %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("ReadBatch still waits")
	}
	if _, err := a.WriteBatch(p); !errors.Is(err, conn.ErrClosed) {
		t.Errorf("WriteBatch after Close: %v", err)
	}
}

func TestMemoryDoesNotAllocate(t *testing.T) {
	_, a, b := memoryPair(t)
	out := []conn.Packet{{Kind: conn.ESP, Encap: true, Remote: netip.AddrPortFrom(right, 4500), Buf: make([]byte, 1400)}}
	out[0].Buf[0] = 1
	in := make([]conn.Packet, 4)
	r := b.Readers()[0]
	turn := func() {
		if _, err := a.WriteBatch(out); err != nil {
			t.Fatal(err)
		}
		if k, err := r.ReadBatch(in); k != 1 || err != nil {
			t.Fatal(k, err)
		}
	}
	for range 5000 {
		turn()
	}
	if n := testing.AllocsPerRun(1000, turn); n > 0 {
		t.Errorf("%v allocations a datagram", n)
	}
}

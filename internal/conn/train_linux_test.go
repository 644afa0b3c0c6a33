//go:build linux

package conn_test

import (
	"bytes"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"adit/internal/conn"
)

// TestTrains sends trains of every length and shape and takes them again without
// waiting: whole where the kernel kept them whole, in order and unchanged, and IKE
// between them apart.
func TestTrains(t *testing.T) {
	p := newPath(t)
	for name, opts := range map[string]conn.Options{"offload": {}, "noGSO": {NoGSO: true}, "noGRO": {NoGRO: true}} {
		t.Run(name, func(t *testing.T) {
			a, b := p.listen(0, opts), p.listen(1, opts)
			for _, to := range []netip.Addr{right, right6} {
				trains(t, a, b, to, opts)
			}
			a.Close()
			b.Close()
		})
	}
}

func trains(t *testing.T, a, b conn.Conn, to netip.Addr, opts conn.Options) {
	var r conn.Polled
	for _, x := range b.Readers() {
		q := x.(conn.Polled)
		if name, err := unix.Getsockname(q.FD()); err == nil {
			switch n := name.(type) {
			case *unix.SockaddrInet4:
				if to.Is4() && n.Port == 4500 {
					r = q
				}
			case *unix.SockaddrInet6:
				if to.Is6() && n.Port == 4500 {
					r = q
				}
			}
		}
	}
	in := make([]conn.Packet, 8)
	if n, err := r.Take(in); n != 0 || err != nil {
		t.Fatalf("took %d of nothing: %v", n, err)
	}
	for _, c := range []struct{ size, n, last int }{{1000, 1, 1000}, {1000, 2, 1000}, {1000, 45, 9}, {40, 64, 40}, {1448, 45, 1448}, {8, 3, 8}} {
		var whole []byte
		for i := range c.n {
			size := c.size
			if i == c.n-1 {
				size = c.last
			}
			whole = append(whole, espPacket(uint32(i), size)...)
		}
		out := []conn.Packet{
			{Kind: conn.ESP, Encap: true, DF: true, Remote: netip.AddrPortFrom(to, 4500), Buf: whole, Segment: c.size},
			{Kind: conn.IKE, Encap: true, Remote: netip.AddrPortFrom(to, 4500), Buf: make([]byte, 28)},
		}
		if n, err := a.WriteBatch(out); n != c.n+1 || err != nil {
			t.Fatalf("%+v: %d %v", c, n, err)
		}
		var got []byte
		datagrams, packets, ike := 0, 0, 0
		for ike == 0 {
			n, err := r.Take(in)
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				if _, err := unix.Poll([]unix.PollFd{{Fd: int32(r.FD()), Events: unix.POLLIN}}, 2000); err != nil && err != unix.EINTR {
					t.Fatal(err)
				}
			}
			for _, g := range in[:n] {
				if g.Kind == conn.IKE {
					ike++
					continue
				}
				packets++
				if datagrams++; g.Segment > 0 {
					datagrams += (len(g.Buf) - 1) / g.Segment
				}
				got = append(got, g.Buf...)
			}
		}
		if !bytes.Equal(got, whole) || datagrams != c.n {
			t.Errorf("%+v: %d bytes in %d datagrams came, not %d", c, len(got), datagrams, len(whole))
		}
		if !opts.NoGSO && !opts.NoGRO && packets != 1 {
			t.Errorf("%+v: came in %d pieces", c, packets)
		}
	}
}

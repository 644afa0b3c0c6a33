//go:build linux

package conn_test

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
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

// TestTrainFallsApart: a train that the kernel refuses, with a packet behind it that was
// to travel with it, leaves as its packets, and nothing else does.
func TestTrainFallsApart(t *testing.T) {
	p := newPath(t)
	a, b := p.listen(0, conn.Options{}), p.listen(1, conn.Options{NoGRO: true})
	in := collect(t, b)
	for _, to := range []netip.Addr{right, right6} {
		remote := netip.AddrPortFrom(to, 4500)
		before := a.Stats()
		for round := range 2 {
			const size, n = 2000, 5 // above the MTU
			var whole []byte
			for i := range n {
				whole = append(whole, espPacket(uint32(i), size)...)
			}
			out := []conn.Packet{
				{Kind: conn.IKE, Encap: true, Remote: remote, Buf: []byte("the neighbour's address")},
				{Kind: conn.ESP, Encap: true, Remote: remote, Buf: whole, Segment: size},
				{Kind: conn.ESP, Encap: true, Remote: remote, Buf: espPacket(n, size)},
				{Kind: conn.ESP, Encap: true, Remote: remote, Buf: espPacket(n+1, 700)},
				{Kind: conn.IKE, Encap: true, Remote: remote, Buf: []byte("an IKE message")},
			}
			if round == 0 {
				if k, err := a.WriteBatch(out[:1]); k != 1 || err != nil {
					t.Fatal(k, err)
				}
				in.wait(t, 1)
			}
			if k, err := a.WriteBatch(out[1:]); k != n+3 || err != nil {
				t.Fatalf("%s: %d, %v", to, k, err)
			}
			got := in.wait(t, n+3)
			for i := range got {
				want := out[4].Buf
				switch {
				case i < n:
					want = espPacket(uint32(i), size)
				case i < n+2:
					want = out[i-n+2].Buf
				}
				if !bytes.Equal(got[i].Buf, want) {
					t.Errorf("%s: datagram %d has %d bytes, not %d", to, i, len(got[i].Buf), len(want))
				}
			}
		}
		if st := a.Stats(); st.SegmentFallback-before.SegmentFallback != 1 {
			t.Errorf("%s: given up %d times, want once", to, st.SegmentFallback-before.SegmentFallback)
		}
	}
}

// TestFullBufferHoldsUpOnce: behind a link that takes next to nothing, a batch waits for
// room once, not once a message: both directions share the thread that waits.
func TestFullBufferHoldsUpOnce(t *testing.T) {
	p := newPath(t)
	a := p.listen(0, conn.Options{})
	p.in(0, func() {
		l, err := netlink.LinkByName("out")
		if err == nil {
			err = netlink.QdiscReplace(&netlink.Tbf{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: l.Attrs().Index,
				Parent: netlink.HANDLE_ROOT, Handle: netlink.MakeHandle(1, 0)}, Rate: 1000, Limit: 256 << 20, Buffer: 31_250_000})
		}
		if err != nil {
			t.Error(err)
		}
	})
	for _, c := range []struct {
		what string
		p    conn.Packet
		most time.Duration
	}{
		// For each of them it would be 7.5 s.
		{"IKE", conn.Packet{Kind: conn.IKE, Remote: netip.AddrPortFrom(right, 500)}, 4 * time.Second},
		// Once 1 ms, and what the machine adds to it, where IKE waits for 50.
		{"ESP", conn.Packet{Kind: conn.ESP, Encap: true, Remote: netip.AddrPortFrom(right, 4500)}, 40 * time.Millisecond},
	} {
		var out []conn.Packet
		for i := range 150 { // of different sizes: a message each
			c.p.Buf = espPacket(uint32(i), 1200+i)
			out = append(out, c.p)
		}
		fastest := time.Hour
		for n, full := 0, 0; full < 5 || fastest > c.most && full < 50; n++ {
			if n == 400 {
				t.Skip("the buffer never fills")
			}
			start := time.Now()
			if _, err := a.WriteBatch(out); err == nil {
				continue
			}
			full++
			fastest = min(fastest, time.Since(start))
		}
		if fastest > c.most {
			t.Errorf("%s: held up for %v", c.what, fastest)
		}
	}
	if st := a.Stats(); st.SendNoBuffer == 0 {
		t.Errorf("%+v", st)
	}
}

//go:build linux

package conn_test

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"
	"time"

	"adit/internal/conn"
)

// TestWorkers: each worker's reader gets the packets of its SPIs, and no others, from
// the common port as from ports of the senders' own; IKE is the first one's.
func TestWorkers(t *testing.T) {
	const workers = 3
	p := newPath(t)
	opts := conn.Options{Workers: workers}
	a, b := p.listen(0, opts), p.listen(1, opts)
	var second error
	p.in(1, func() { _, second = conn.Listen(opts) })
	if !errors.Is(second, conn.ErrPortInUse) {
		t.Errorf("a second instance: %v", second)
	}
	for _, to := range []netip.Addr{right, right6} {
		got := map[int]map[uint32]conn.Packet{}
		ike := 0
		var out []conn.Packet
		for spi := uint32(300); spi < 300+4*workers; spi++ {
			buf := make([]byte, 64)
			binary.BigEndian.PutUint32(buf, spi)
			out = append(out, conn.Packet{Kind: conn.ESP, Encap: true, DF: spi%2 == 0, Remote: netip.AddrPortFrom(to, 4500), Buf: buf,
				Worker: uint8(spi % workers), Own: spi >= 300+2*workers})
		}
		out = append(out, conn.Packet{Kind: conn.IKE, Encap: true, Remote: netip.AddrPortFrom(to, 4500), Buf: make([]byte, 28)},
			conn.Packet{Kind: conn.Keepalive, Encap: true, Remote: netip.AddrPortFrom(to, 4500)})
		if n, err := a.WriteBatch(out); n != len(out) || err != nil {
			t.Fatalf("%d %v", n, err)
		}
		in := make([]conn.Packet, 64)
		for end := time.Now().Add(2 * time.Second); time.Now().Before(end) && (len(got[0])+len(got[1])+len(got[2]) < 4*workers || ike < 2); {
			for _, x := range b.Readers() {
				r := x.(conn.Polled)
				n, err := r.Take(in)
				if err != nil {
					t.Fatal(err)
				}
				for _, q := range in[:n] {
					if q.Kind != conn.ESP {
						if ike++; r.Worker() != 0 {
							t.Errorf("%v: %v came to worker %d", to, q.Kind, r.Worker())
						}
						continue
					}
					if got[r.Worker()] == nil {
						got[r.Worker()] = map[uint32]conn.Packet{}
					}
					got[r.Worker()][binary.BigEndian.Uint32(q.Buf)] = q
				}
			}
			time.Sleep(time.Millisecond)
		}
		ports := map[uint16]bool{}
		for w := range workers {
			if len(got[w]) != 4 {
				t.Errorf("%v: worker %d got %d packets, want 4", to, w, len(got[w]))
			}
			for spi, q := range got[w] {
				if conn.WorkerOf(spi, workers) != w {
					t.Errorf("%v: SPI %d came to worker %d", to, spi, w)
				}
				if own := spi >= 300+2*workers; own == (q.Remote.Port() == 4500) {
					t.Errorf("%v: SPI %d came from port %d", to, spi, q.Remote.Port())
				} else if own {
					ports[q.Remote.Port()] = true
				}
			}
		}
		if len(ports) != workers || ike != 2 {
			t.Errorf("%v: %d ports of their own, %d others", to, len(ports), ike)
		}
		// Nobody reads what comes to a port that only sends: it must not gather.
		for port := range ports {
			b.WriteBatch([]conn.Packet{{Kind: conn.ESP, Encap: true, Remote: netip.AddrPortFrom(map[bool]netip.Addr{true: left, false: left6}[to.Is4()], port), Buf: make([]byte, 64)}})
		}
		for _, x := range a.Readers() {
			if n, err := x.(conn.Polled).Take(in); n != 0 || err != nil {
				t.Errorf("%v: %d packets came to the sender: %v", to, n, err)
			}
		}
	}
	if _, err := conn.Listen(conn.Options{AnyPort: true, Workers: conn.MaxWorkers + 1}); !errors.Is(err, conn.ErrWorkers) {
		t.Errorf("too many workers: %v", err)
	}
}

// TestRawWorkers: raw ESP comes to the worker of its SPI once, and to nobody else, or to the
// first where that one has no raw socket; what is too short for an SPI comes to nobody.
func TestRawWorkers(t *testing.T) {
	const workers = conn.MaxRaw + 2
	p := newPath(t)
	a, b := p.listen(0, conn.Options{}), p.listen(1, conn.Options{Workers: workers})
	for _, to := range []netip.Addr{right, right6} {
		var out []conn.Packet
		want := map[uint32]int{}
		for spi := uint32(600); spi < 600+3*workers; spi++ {
			buf := make([]byte, 8+spi%64)
			binary.BigEndian.PutUint32(buf, spi)
			out = append(out, conn.Packet{Kind: conn.ESP, DF: spi%4 < 2, Remote: netip.AddrPortFrom(to, 0), Buf: buf})
			if want[spi] = conn.WorkerOf(spi, workers); want[spi] >= conn.MaxRaw {
				want[spi] = 0
			}
		}
		out = append(out, conn.Packet{Kind: conn.ESP, DF: true, Remote: netip.AddrPortFrom(to, 0), Buf: []byte{0, 0, 2}}, out[0])
		if n, err := a.WriteBatch(out); n != len(out) || err != nil {
			t.Fatalf("%d %v", n, err)
		}
		in := make([]conn.Packet, 64)
		got := 0
		// The last of them comes last: they are in order.
		for end := time.Now().Add(5 * time.Second); time.Now().Before(end) && got < 3*workers+1; {
			for _, x := range b.Readers() {
				r := x.(conn.Polled)
				n, err := r.Take(in)
				if err != nil {
					t.Fatal(err)
				}
				for _, q := range in[:n] {
					spi := binary.BigEndian.Uint32(q.Buf)
					if q.Encap || q.Kind != conn.ESP || len(q.Buf) != int(8+spi%64) || r.Worker() != want[spi] {
						t.Errorf("%v: SPI %d came to worker %d, want %d: %+v", to, spi, r.Worker(), want[spi], q)
					}
					got++
				}
			}
		}
		if got != 3*workers+1 {
			t.Errorf("%v: %d packets", to, got)
		}
	}
	if s := b.Stats(); s.Malformed != 0 {
		t.Errorf("%+v", s)
	}
}

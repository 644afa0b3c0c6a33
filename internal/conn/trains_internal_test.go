//go:build linux

package conn

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"
)

// TestHandOutEqualsDatagrams: however the kernel joined datagrams and however few of them
// are taken at a time, trains are the same ESP packets as they are one by one, in order,
// with IKE, keepalives and what is malformed between them.
func TestHandOutEqualsDatagrams(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 5))
	c := &linuxConn{}
	reader := newReader(&socket{conn: c, role: roleEncap, port: PortNATT})
	for range 300 {
		type datagram struct {
			kind Kind
			body string
			tos  uint8
		}
		var want, got []datagram
		malformed := uint64(0)
		reader.got, reader.cur, reader.pos = 1+r.IntN(6), 0, 0
		for i := range reader.got {
			size, n, tos := 1+r.IntN(1500), 1+r.IntN(20), uint8(r.IntN(256))
			if r.IntN(3) == 0 {
				size = 1 + r.IntN(12) // about the least that anything may have
			}
			var buf []byte
			for k := range n {
				d := make([]byte, size)
				if k == n-1 {
					d = d[:r.IntN(size+1)]
				}
				for i := range d {
					d[i] = byte(1 + r.IntN(255))
				}
				switch r.IntN(6) {
				case 0:
					clear(d[:min(4, len(d))]) // IKE
				case 1:
					if size == 1 && len(d) == 1 {
						d[0] = 0xff // a keepalive
					}
				}
				buf = append(buf, d...)
				if len(d) == 0 {
					continue // the kernel joins none that is empty
				}
				if kind, body, ok := Demux(d, true); ok {
					want = append(want, datagram{kind, string(body), tos})
				} else {
					malformed++
				}
			}
			if len(buf) == 0 {
				malformed++
			}
			reader.fake(i, buf, size, tos)
		}
		before := c.stats.malformed.Load()
		pkts := make([]Packet, 1+r.IntN(9))
		for reader.cur < reader.got {
			for _, p := range pkts[:reader.handOut(pkts, r.IntN(3) > 0)] {
				step := len(p.Buf)
				if p.Segment > 0 {
					step = p.Segment
				}
				for at := 0; at == 0 || at < len(p.Buf); at += max(step, 1) {
					got = append(got, datagram{p.Kind, string(p.Buf[at:min(at+step, len(p.Buf))]), p.TOS})
				}
				if cap(p.Buf) != len(p.Buf) {
					t.Fatalf("seed %d: the next datagram is within reach", seed)
				}
			}
		}
		if len(got) != len(want) || c.stats.malformed.Load()-before != malformed {
			t.Fatalf("seed %d: %d datagrams and %d malformed, want %d and %d", seed, len(got), c.stats.malformed.Load()-before, len(want), malformed)
		}
		for i := range want {
			if got[i] != want[i] {
				t.Fatalf("seed %d, datagram %d: %v of %d bytes, want %v of %d", seed, i, got[i].kind, len(got[i].body), want[i].kind, len(want[i].body))
			}
		}
	}
}

// fake makes message i what the kernel would give.
func (r *socketReader) fake(i int, buf []byte, segment int, tos uint8) {
	m := &r.msgs[i]
	m.n = uint32(copy(r.arena[i*slotLen:(i+1)*slotLen], buf))
	r.names[i] = unix.RawSockaddrInet6{Family: unix.AF_INET}
	c := r.ctrl[i][:0]
	c = appendControl(c, unix.SOL_IP, unix.IP_PKTINFO, 12)
	copy(c[unix.SizeofCmsghdr+8:], []byte{192, 0, 2, 2})
	at := len(c)
	c = appendControl(c, unix.SOL_IP, unix.IP_TOS, 1)
	c[at+unix.SizeofCmsghdr] = tos
	if at = len(c); len(buf) > segment {
		c = appendControl(c, unix.SOL_UDP, unix.UDP_GRO, 4)
		binary.NativeEndian.PutUint32(c[at+unix.SizeofCmsghdr:], uint32(segment))
	}
	m.hdr.Flags = 0
	m.hdr.SetControllen(len(c))
}

package userspace_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"

	"adit/dataplane/userspace"
	"adit/internal/conn"
	"adit/ipsec"
	"adit/tun"
)

// traffic is one train of a flow as the kernel would give it, and the packets that
// it stands for, each built on its own.
type traffic struct {
	super   []byte // with its virtio header
	packets [][]byte
}

// random makes any train: both families, TCP with options, UDP, extension headers,
// every traffic class and flag, sizes down to one byte.
func random(r *rand.Rand) traffic {
	if r.IntN(2) == 0 {
		return randomBetween(r, hostA6, hostB6)
	}
	return randomBetween(r, netip.AddrFrom4([4]byte{10, 1, 0, byte(r.IntN(4))}), netip.AddrFrom4([4]byte{10, 2, 0, byte(r.IntN(4))}))
}

func randomBetween(r *rand.Rand, src, dst netip.Addr) traffic {
	v6, isUDP, tos := src.Is6(), r.IntN(3) == 0, uint8(r.IntN(256))
	var l4 []byte // header of the transport, checksum left out
	proto := uint8(6)
	ports := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, uint16(1000+r.IntN(3))), 443)
	if isUDP {
		proto = 17
		l4 = append(ports, 0, 0, 0, 0)
	} else {
		options := make([]byte, 4*r.IntN(11))
		for i := range options {
			options[i] = byte(8 + r.IntN(200)) // none that is an MSS
		}
		if len(options) > 0 {
			options[0], options[1] = 8, byte(len(options)) // one option of that length
		}
		l4 = binary.BigEndian.AppendUint32(ports, r.Uint32())
		l4 = binary.BigEndian.AppendUint32(l4, r.Uint32())
		flags := uint8(r.IntN(256)) &^ 2 // no SYN: its MSS would be clamped
		l4 = append(l4, byte(5+len(options)/4)<<4|byte(r.IntN(2)), flags)
		l4 = append(binary.BigEndian.AppendUint16(l4, uint16(r.IntN(65536))), 0, 0, byte(r.IntN(256)), byte(r.IntN(256)))
		l4 = append(l4, options...)
	}
	var ext []byte
	next := proto
	for range r.IntN(3) {
		if !v6 {
			break
		}
		ext = append([]byte{next, 0, 1, 4, 0, 0, 0, 0}, ext...) // destination options
		next = 60
	}
	build := func(id uint16, head, payload []byte, complete bool) []byte {
		body := append(bytes.Clone(head), payload...)
		at := 16
		if isUDP {
			at = 6
			binary.BigEndian.PutUint16(body[4:], uint16(len(body)))
		}
		acc := pseudo(src, dst, proto, len(body))
		sum := onesum(body, acc)
		if !complete {
			sum = ^onesum(nil, acc) // the pseudo header's part alone
		} else if isUDP && sum == 0 {
			sum = 0xffff
		}
		binary.BigEndian.PutUint16(body[at:], sum)
		p := ip(src, dst, next, append(bytes.Clone(ext), body...))
		if v6 {
			p[0], p[1] = 0x60|tos>>4, tos<<4
			return p
		}
		p[1] = tos
		binary.BigEndian.PutUint16(p[4:], id)
		p[10], p[11] = 0, 0
		binary.BigEndian.PutUint16(p[10:], onesum(p[:20], 0))
		return p
	}
	hdr := len(build(0, l4, nil, true))
	mss := 1 + r.IntN(1400-hdr)
	if r.IntN(2) == 0 {
		mss = 1400 - hdr
	}
	n := 1 + r.IntN(min(60000/mss, 90))
	payload := make([]byte, (n-1)*mss+1+r.IntN(mss))
	for i := range payload {
		payload[i] = byte(r.Uint32())
	}
	id := uint16(r.IntN(65536))
	var t traffic
	for i := range n {
		head := bytes.Clone(l4)
		if !isUDP {
			binary.BigEndian.PutUint32(head[4:], binary.BigEndian.Uint32(l4[4:])+uint32(i*mss))
			if i > 0 {
				head[13] &^= 0x80 // CWR
			}
			if i < n-1 {
				head[13] &^= 0x09 // FIN, PSH
			}
		}
		t.packets = append(t.packets, build(id+uint16(i), head, payload[i*mss:min((i+1)*mss, len(payload))], true))
	}
	gso := map[bool]byte{false: 1, true: 4}[v6]
	at := 16
	if isUDP {
		gso, at = 5, 6
	}
	if n == 1 {
		gso = 0
	}
	vnet := []byte{1, gso}
	for _, v := range []int{hdr, mss, hdr - len(l4), at} {
		vnet = binary.NativeEndian.AppendUint16(vnet, uint16(v))
	}
	t.super = append(vnet, build(id, l4, payload, false)...)
	return t
}

// recorder is a device that keeps what is written to it.
type recorder struct {
	*hole
	got [][]byte
}

func (r *recorder) Write(bufs [][]byte, offset int) (int, error) {
	for _, b := range bufs {
		r.got = append(r.got, bytes.Clone(b[offset:]))
	}
	return len(bufs), nil
}

func recording(t testing.TB, c child) (*bench, *recorder) {
	b := newBench(t, child{noPolicy: true, n: 99})
	rec := &recorder{hole: newHole()}
	p, err := userspace.New(userspace.Config{Tun: rec, Conn: b.wire, IKE: func(*conn.Packet) {}, Clock: b.l.now.Now})
	must(t, err)
	t.Cleanup(func() { must(t, p.Close()) })
	b.l.b.plane = p
	b.l.install(c)
	b.in = p.NewInbound(benchBatch)
	return b, rec
}

// TestTrainsEqualPackets: what goes through in trains, of mixed flows, flags,
// classes, options and extension headers, comes out as the packets that they stand
// for, built one by one; and as the same packets sent singly do. In transport mode the IP
// header is the receiver's, but for addresses, protocol and class.
func TestTrainsEqualPackets(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	for _, c := range []child{{}, {outer6: true, raw: true}, {change: func(p *ipsec.SAParams) { p.TFC = 300 }},
		{mode: ipsec.ModeTransport}, {mode: ipsec.ModeTransport, raw: true}, {mode: ipsec.ModeTransport, outer6: true}} {
		fast, got := recording(t, c)
		plain, single := recording(t, c)
		for range 60 {
			got.got, single.got = nil, nil
			var want [][]byte
			var list []tun.Super
			for range 1 + r.IntN(4) {
				var x traffic
				switch {
				case c.mode == ipsec.ModeTunnel:
					x = random(r)
				case c.outer6:
					x = randomBetween(r, addrA6, addrB6)
				default:
					x = randomBetween(r, addrA4, addrB4)
				}
				s, err := tun.ParseSuper(x.super)
				must(t, err)
				list, want = append(list, s), append(want, x.packets...)
			}
			fast.wire.clear()
			fast.out.Trains(list)
			fast.arrive()
			for _, p := range want {
				plain.through([][]byte{bytes.Clone(p)})
			}
			for name, g := range map[string][][]byte{"trains": got.got, "singly": single.got} {
				w := want
				if c.mode == ipsec.ModeTransport {
					g, w = carried(t, g), carried(t, w)
				}
				if err := equal(g, w); err != nil {
					t.Fatalf("seed %d, %+v, %s: %v; drops %v %v", seed, c, name, err, dropsOf(fast.l.a.plane), dropsOf(fast.l.b.plane))
				}
			}
		}
	}
}

// carried is what transport mode carries of packets: class, protocol, addresses, payload.
// Lengths and header checksums must be right.
func carried(t *testing.T, packets [][]byte) (out [][]byte) {
	t.Helper()
	for _, b := range packets {
		if b[0]>>4 == 4 {
			if int(binary.BigEndian.Uint16(b[2:])) != len(b) || onesum(b[:20], 0) != 0 || b[0] != 0x45 {
				t.Fatalf("header %x of %d bytes", b[:20], len(b))
			}
			out = append(out, append([]byte{b[1], b[9]}, b[12:]...))
			continue
		}
		if int(binary.BigEndian.Uint16(b[4:]))+40 != len(b) {
			t.Fatalf("header %x of %d bytes", b[:40], len(b))
		}
		out = append(out, append([]byte{b[0]<<4 | b[1]>>4, b[6]}, b[8:]...))
	}
	return out
}

func equal(got, want [][]byte) error {
	if len(got) != len(want) {
		return fmt.Errorf("%d packets, want %d", len(got), len(want))
	}
	for i := range want {
		if !bytes.Equal(got[i], want[i]) {
			return fmt.Errorf("packet %d of %d:\n got %x\nwant %x", i, len(want), got[i], want[i])
		}
	}
	return nil
}

// TestRFC4303_ChecksInTrains: each packet of a received train is checked on its own.
func TestRFC4303_ChecksInTrains(t *testing.T) {
	b, rec := recording(t, child{})
	var packets [][]byte
	for i := range 40 {
		dst := hostB4
		if i == 30 {
			dst = netip.MustParseAddr("10.9.0.1") // outside the far end's selectors
		}
		packets = append(packets, numbered(hostA4, dst, i))
	}
	p := b.l.peer(nil)
	var train []byte
	size := 0
	for i, x := range packets {
		e := p.seal(x, 4)
		switch i {
		case 7:
			e[len(e)-20] ^= 1 // broken
		case 9:
			binary.BigEndian.PutUint32(e, 0x0bad_0bad) // of no SA
		case 20:
			copy(e, train[19*size:20*size]) // the one before it again
		}
		size = len(e)
		train = append(train, e...)
	}
	b.in.Batch([]conn.Packet{{Kind: conn.ESP, Encap: true, Buf: append(train, 1, 2, 3), Segment: size}})
	c := b.l.b.plane.Counters()
	for reason, n := range map[userspace.Reason]uint64{userspace.InAuth: 1, userspace.InNoSA: 1, userspace.InReplay: 1, userspace.InSelector: 1, userspace.InShort: 1} {
		if c.Drops(reason) != n {
			t.Errorf("%s: %d, want %d", reason, c.Drops(reason), n)
		}
	}
	var want [][]byte
	for i, x := range packets {
		if i != 7 && i != 9 && i != 20 && i != 30 {
			want = append(want, x)
		}
	}
	if err := equal(rec.got, want); err != nil {
		t.Error(err)
	}
}

// TestGarbageNeedsNoMemory: whatever comes in or out, in whatever number, a worker
// keeps no more than it has.
func TestGarbageNeedsNoMemory(t *testing.T) {
	b, _ := recording(t, child{})
	r := rand.New(rand.NewPCG(rand.Uint64(), 3))
	mem := make([]byte, 64<<10)
	for i := range mem {
		mem[i] = byte(r.Uint32())
	}
	known := b.l.peer(nil)
	turn := func() {
		var in []conn.Packet
		var out [][]byte
		for range benchBatch {
			at, n := r.IntN(len(mem)/2), 1+r.IntN(1500)
			p := conn.Packet{Kind: conn.ESP, Encap: r.IntN(2) == 0, Buf: bytes.Clone(mem[at : at+n*(1+r.IntN(8))]), Segment: n}
			if r.IntN(2) == 0 {
				binary.BigEndian.PutUint32(append(p.Buf, 0, 0, 0, 0)[:4], uint32(known.spi))
			}
			in = append(in, p)
			inner := bytes.Clone(mem[at : at+n])
			if n > 40 {
				switch r.IntN(3) {
				case 0: // a fragment of anything
					inner = ip(hostA4, hostB4, 17, inner[:n-20])
					binary.BigEndian.PutUint16(inner[4:], uint16(r.Uint32()))
					inner[6] = 0x20
				case 1:
					inner = ip(hostA6, hostB6, uint8(r.IntN(256)), inner[:n-40])
				}
			}
			out = append(out, inner)
		}
		b.wire.clear()
		b.out.Batch(out)
		b.in.Batch(in)
	}
	turn()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range 300 {
		turn()
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 1<<20 {
		t.Errorf("%d bytes kept", grown)
	}
	for _, p := range []*userspace.Plane{b.l.a.plane, b.l.b.plane} {
		if c := p.Counters(); c.Drops(userspace.BatchPanic) != 0 {
			t.Error("a batch panicked")
		}
	}
	runtime.KeepAlive(b)
}

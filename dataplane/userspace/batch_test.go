package userspace_test

import (
	"bytes"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"adit/dataplane/userspace"
	"adit/internal/conn"
	"adit/ipsec"
	"adit/tun"
)

// bench is two planes whose workers the test runs itself, batch by batch, over
// devices and sockets that only keep what they were given.
type bench struct {
	l    *lab
	out  *userspace.Outbound
	in   *userspace.Inbound
	wire *sink
	host *hole
}

// sink is a Conn that keeps what is sent until it is cleared.
type sink struct {
	pkts []conn.Packet
	mem  []byte
}

func (s *sink) Readers() []conn.Reader { return nil }
func (s *sink) WriteBatch(ps []conn.Packet) (int, error) {
	n := 0
	for _, p := range ps {
		at := len(s.mem)
		s.mem = append(s.mem, p.Buf...)
		n++
		if p.Segment > 0 {
			n += (len(p.Buf) - 1) / p.Segment
		}
		p.Buf = s.mem[at:len(s.mem):len(s.mem)]
		s.pkts = append(s.pkts, p)
	}
	return n, nil
}
func (s *sink) clear()                                   { s.pkts, s.mem = s.pkts[:0], s.mem[:0] }
func (s *sink) SourceFor(netip.Addr) (netip.Addr, error) { return addrA4, nil }
func (s *sink) Ports() conn.Ports                        { return conn.Ports{IKE: 500, NATT: 4500} }
func (s *sink) Stats() conn.Stats                        { return conn.Stats{} }
func (s *sink) Close() error                             { return nil }

// hole is a device that counts what is written to it.
type hole struct {
	stop  chan struct{}
	once  sync.Once
	count atomic.Int64
	last  []byte
}

func newHole() *hole { return &hole{stop: make(chan struct{}), last: make([]byte, 0, 65536)} }

func (h *hole) Read([][]byte, []int, int) (int, error) { <-h.stop; return 0, tun.ErrClosed }
func (h *hole) Write(bufs [][]byte, offset int) (int, error) {
	h.count.Add(int64(len(bufs)))
	h.last = append(h.last[:0], bufs[len(bufs)-1][offset:]...)
	return len(bufs), nil
}
func (h *hole) Name() string     { return "hole" }
func (h *hole) MTU() int         { return 1500 }
func (h *hole) SetMTU(int) error { return nil }
func (h *hole) BatchSize() int   { return 64 }
func (h *hole) Close() error     { h.once.Do(func() { close(h.stop) }); return nil }

const benchBatch = 64

func newBench(t testing.TB, c child) *bench {
	b := &bench{wire: &sink{mem: make([]byte, 0, 1<<20)}, host: newHole()}
	l := &lab{t: t, net: conn.NewNetwork(), now: &clock{}}
	planes := [2]*userspace.Plane{}
	for i := range planes {
		var err error
		planes[i], err = userspace.New(userspace.Config{Tun: []*hole{newHole(), b.host}[i], Conn: b.wire, IKE: func(*conn.Packet) {}, Clock: l.now.Now})
		must(t, err)
		t.Cleanup(func() { must(t, planes[i].Close()) })
	}
	l.a, l.b = &side{t: t, plane: planes[0]}, &side{t: t, plane: planes[1]}
	l.install(c)
	b.l, b.out, b.in = l, planes[0].NewOutbound(), planes[1].NewInbound(benchBatch)
	return b
}

// through runs packets through both planes and returns how many came out.
func (b *bench) through(packets [][]byte) int {
	before := b.host.count.Load()
	b.wire.clear()
	b.out.Batch(packets)
	b.arrive()
	return int(b.host.count.Load() - before)
}

// arrive hands the far plane what was sent.
func (b *bench) arrive() {
	for i := range b.wire.pkts {
		p := &b.wire.pkts[i]
		p.Local, p.Remote = p.Remote, p.Local
	}
	for list := range slices.Chunk(b.wire.pkts, benchBatch) {
		b.in.Batch(list)
	}
}

// TestNoAllocation: nothing is allocated a packet, in either direction and mode.
func TestNoAllocation(t *testing.T) {
	for _, c := range []child{{}, {outer6: true, raw: true}, {mode: ipsec.ModeTransport}} {
		b := newBench(t, c)
		var packets [][]byte
		for i := range benchBatch {
			switch {
			case c.mode == ipsec.ModeTransport:
				packets = append(packets, udp(addrA4, addrB4, uint16(i), 2, make([]byte, 1000)))
			case i%2 == 0:
				packets = append(packets, udp(hostA6, hostB6, uint16(i), 2, make([]byte, 1000)))
			default:
				packets = append(packets, udp(hostA4, hostB4, uint16(i), 2, make([]byte, 1000)))
			}
		}
		bad := 0
		n := testing.AllocsPerRun(100, func() {
			if b.through(packets) != len(packets) {
				bad++
			}
		})
		if n != 0 || bad != 0 {
			t.Errorf("%+v: %v allocations a batch, %d batches incomplete: %v %v", c, n, bad, dropsOf(b.l.a.plane), dropsOf(b.l.b.plane))
		}
	}
}

// panicking is a Tap that fails at the packet of a number, inside or outside.
type panicking struct{ at, outer int }

func (p *panicking) Inner(ipsec.Direction, []byte) {
	if p.at--; p.at == 0 {
		panic("a bug")
	}
}
func (p *panicking) Outer(ipsec.Direction, netip.AddrPort, netip.AddrPort, bool, uint8, []byte) {
	if p.outer--; p.outer == 0 {
		panic("a bug")
	}
}

// TestPanicCostsABatch: a failed assertion is counted, and the next batch passes.
func TestPanicCostsABatch(t *testing.T) {
	for _, tap := range []*panicking{{at: 3}, {outer: 3}} {
		panicCostsABatch(t, tap)
	}
}

func panicCostsABatch(t *testing.T, tap *panicking) {
	b := newBench(t, child{})
	p, err := userspace.New(userspace.Config{Tun: newHole(), Conn: b.wire, IKE: func(*conn.Packet) {}, Tap: tap})
	must(t, err)
	t.Cleanup(func() { must(t, p.Close()) })
	b.l.a.plane = p
	l := &lab{t: t, a: &side{t: t, plane: p}, b: &side{t: t, plane: b.l.b.plane}}
	l.install(child{n: 5})
	b.out = p.NewOutbound()
	packets := [][]byte{numbered(hostA4, hostB4, 1), numbered(hostA4, hostB4, 2), numbered(hostA4, hostB4, 3), numbered(hostA4, hostB4, 4)}
	if n := b.through(packets); n != 0 {
		t.Fatalf("%d of a batch that panicked", n)
	}
	if n := b.through(packets); n != 4 || len(b.wire.pkts) != 1 { // one train
		t.Fatalf("%d after the panic, %d sent; %v", n, len(b.wire.pkts), dropsOf(p))
	}
	if c := p.Counters(); c.Drops(userspace.BatchPanic) != 1 {
		t.Fatalf("%d panics counted", c.Drops(userspace.BatchPanic))
	}
}

// TestDeleteUnderLoad adds and deletes SAs and policies while batches run.
func TestDeleteUnderLoad(t *testing.T) {
	b := newBench(t, child{n: 1})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		packets := [][]byte{numbered(hostA4, hostB4, 1), numbered(hostA6, hostB6, 1), numbered(hostA4, hostB4, 2)}
		for {
			select {
			case <-stop:
				return
			default:
				b.through(packets)
			}
		}
	})
	for n := uint32(2); n < 400; n++ {
		b.l.install(child{n: n})
		for _, s := range []*side{b.l.a, b.l.b} {
			must(t, s.plane.DeleteSA(ipsec.SARef{Child: n - 1, Dir: ipsec.Out}))
			must(t, s.plane.DeleteSA(ipsec.SARef{Child: n - 1, Dir: ipsec.In}))
			must(t, s.plane.DeletePolicy(ipsec.PolicyID(n-1)))
			s.plane.Counters()
			s.plane.Query(ipsec.SARef{Child: n, Dir: ipsec.In})
		}
	}
	close(stop)
	wg.Wait()
	for _, p := range []*userspace.Plane{b.l.a.plane, b.l.b.plane} {
		if c := p.Counters(); c.SAs != 2 || c.Policies != 1 || c.Drops(userspace.BatchPanic) != 0 {
			t.Fatalf("%d SAs and %d policies are left, %v", c.SAs, c.Policies, dropsOf(p))
		}
	}
	if n := b.through([][]byte{numbered(hostA4, hostB4, 1)}); n != 1 {
		t.Fatal("nothing passes at the end")
	}
}

// FuzzInner sends any bytes as an inner packet, out of the device and out of an
// authentic ESP packet: neither may panic, and what passes is what the selectors cover.
func FuzzInner(f *testing.F) {
	for _, b := range [][]byte{numbered(hostA4, hostB4, 1), numbered(hostA6, hostB6, 1), {}, {0x45},
		ip(hostA6, hostB6, 44, append([]byte{17, 0, 0, 1, 0, 0, 0, 9}, make([]byte, 16)...)),
		ip(hostA4, hostB4, 1, append([]byte{3, 1, 0, 0, 0, 0, 0, 0}, numbered(hostB4, hostA4, 1)...)),
		ip(hostA4, hostB4, 6, append(append(make([]byte, 12), 0x60, 2, 0, 0, 0, 0, 0, 0), 2, 4, 5, 0xb4))} {
		f.Add(b, uint16(1400))
	}
	f.Fuzz(func(t *testing.T, b []byte, mtu uint16) {
		if len(b) > 4000 {
			return
		}
		x := newBench(t, child{change: func(p *ipsec.SAParams) { p.MTU = int(mtu) }})
		b = bytes.Clone(b)
		passed := x.through([][]byte{b})
		p := x.l.peer(nil)
		for _, next := range []uint8{4, 41} {
			x.wire.pkts = append(x.wire.pkts[:0], conn.Packet{Buf: p.seal(b, next), Kind: conn.ESP, Encap: true})
			x.in.Batch(x.wire.pkts)
		}
		for _, plane := range []*userspace.Plane{x.l.a.plane, x.l.b.plane} {
			if c := plane.Counters(); c.Drops(userspace.BatchPanic) != 0 {
				t.Fatal("a batch panicked")
			}
		}
		if passed == 0 {
			return
		}
		if got := x.host.last; len(got) < 20 {
			t.Fatalf("passed: %x", got)
		}
	})
}

func BenchmarkThrough(b *testing.B) {
	for _, size := range []int{64, 1300} {
		b.Run(map[int]string{64: "64", 1300: "1300"}[size], func(b *testing.B) {
			x := newBench(b, child{})
			var packets [][]byte
			for i := range benchBatch {
				packets = append(packets, udp(hostA4, hostB4, uint16(i), 2, make([]byte, size-28)))
			}
			b.SetBytes(int64(size * benchBatch))
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				n += x.through(packets)
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "packets/s")
		})
	}
}

// BenchmarkEndToEnd runs the goroutines too, over pipes and network in memory.
func BenchmarkEndToEnd(b *testing.B) {
	l := newLab(b, nil)
	l.install(child{})
	var packets [][]byte
	for i := range benchBatch {
		packets = append(packets, udp(hostA4, hostB4, uint16(i), 2, make([]byte, 1272)))
	}
	bufs, sizes := make([][]byte, 256), make([]int, 256)
	for i := range bufs {
		bufs[i] = make([]byte, 2048)
	}
	b.SetBytes(1300 * benchBatch)
	n := 0
	for b.Loop() {
		l.a.send(packets...)
		for got := 0; got < len(packets); {
			k, err := l.b.host.Read(bufs, sizes, 0)
			must(b, err)
			got += k
			n += k
		}
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "packets/s")
}

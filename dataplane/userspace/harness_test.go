package userspace_test

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"net/netip"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"adit/dataplane/userspace"
	"adit/internal/conn"
	"adit/ipsec"
	"adit/suite"
	"adit/tun"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	addrA4, addrB4 = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.2")
	addrA6, addrB6 = netip.MustParseAddr("2001:db8:a::1"), netip.MustParseAddr("2001:db8:b::2")
	netA4, netB4   = netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("10.2.0.0/16")
	netA6, netB6   = netip.MustParsePrefix("fd01::/16"), netip.MustParsePrefix("fd02::/16")
	hostA4, hostB4 = netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.2.0.2")
	hostA6, hostB6 = netip.MustParseAddr("fd01::1"), netip.MustParseAddr("fd02::2")
)

// side is one gateway with the far end of its packet device.
type side struct {
	t     testing.TB
	plane *userspace.Plane
	host  *tun.Memory // the network behind the gateway

	mu     sync.Mutex
	events []ipsec.Event
	ike    []conn.Packet
}

func (s *side) event(e ipsec.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, e)
}

func (s *side) seen() []ipsec.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]ipsec.Event(nil), s.events...)
}

func (s *side) datagram(p *conn.Packet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := *p
	q.Buf = bytes.Clone(p.Buf)
	s.ike = append(s.ike, q)
}

// lab is two gateways on a network in memory.
type lab struct {
	t    testing.TB
	net  *conn.Network
	a, b *side
	now  *clock
}

// clock is a clock that stands still unless it is moved.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

func newLab(t testing.TB, change func(*userspace.Config)) *lab {
	l := &lab{t: t, net: conn.NewNetwork(), now: &clock{t: time.Unix(1_800_000_000, 0)}}
	l.a = l.side(change, addrA4, addrA6)
	l.b = l.side(change, addrB4, addrB6)
	return l
}

func (l *lab) side(change func(*userspace.Config), addrs ...netip.Addr) *side {
	l.t.Helper()
	h, err := l.net.Host(addrs...)
	must(l.t, err)
	c, err := h.Listen(conn.Options{})
	must(l.t, err)
	s := &side{t: l.t}
	inner, outer := tun.Pipe(9000)
	s.host = outer
	cfg := userspace.Config{Tun: inner, Conn: c, IKE: s.datagram, Clock: l.now.Now}
	if change != nil {
		change(&cfg)
	}
	s.plane, err = userspace.New(cfg)
	must(l.t, err)
	s.plane.Events(s.event)
	must(l.t, s.plane.Start())
	l.t.Cleanup(func() {
		must(l.t, s.plane.Close())
		must(l.t, s.host.Close())
		if n := s.plane.Counters(); n.Drops(userspace.BatchPanic) != 0 {
			l.t.Errorf("%d batches panicked", n.Drops(userspace.BatchPanic))
		}
	})
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// child describes a Child SA; the zero value is an IPv4 tunnel in UDP.
type child struct {
	n        uint32 // number, also the policy's
	outer6   bool
	raw      bool
	mode     ipsec.Mode
	a, b     []ipsec.Selector // networks; nil: netA4/netA6 and netB4/netB6
	priority uint32
	noPolicy bool
	change   func(*ipsec.SAParams)
}

func selectors(ps ...netip.Prefix) (out []ipsec.Selector) {
	for _, p := range ps {
		out = append(out, ipsec.FromPrefix(p))
	}
	return out
}

// install makes both SAs of a child at both sides, and the policies.
func (l *lab) install(c child) {
	l.t.Helper()
	aAddr, bAddr := addrA4, addrB4
	if c.outer6 {
		aAddr, bAddr = addrA6, addrB6
	}
	if c.a == nil && c.mode == ipsec.ModeTransport {
		c.a, c.b = selectors(netip.PrefixFrom(aAddr, aAddr.BitLen())), selectors(netip.PrefixFrom(bAddr, bAddr.BitLen()))
	} else if c.a == nil {
		c.a, c.b = selectors(netA4, netA6), selectors(netB4, netB6)
	}
	if c.n == 0 {
		c.n = 1
	}
	a, b := netip.AddrPortFrom(aAddr, 4500), netip.AddrPortFrom(bAddr, 4500)
	l.direction(c, l.a, l.b, a, b, ipsec.SPI(0x1000_0000+c.n), c.a, c.b)
	l.direction(c, l.b, l.a, b, a, ipsec.SPI(0x2000_0000+c.n), c.b, c.a)
	if !c.noPolicy {
		must(l.t, l.a.plane.AddPolicy(policy(c, c.a, c.b)))
		must(l.t, l.b.plane.AddPolicy(policy(c, c.b, c.a)))
	}
}

func policy(c child, local, remote []ipsec.Selector) ipsec.Policy {
	return ipsec.Policy{ID: ipsec.PolicyID(max(c.n, 1)), Name: "net", Action: ipsec.Protect, Local: local, Remote: remote,
		Priority: c.priority, Mode: c.mode, Out: ipsec.SARef{Child: max(c.n, 1), Dir: ipsec.Out}}
}

// direction installs one SA at its two ends, the receiver first.
func (l *lab) direction(c child, from, to *side, local, remote netip.AddrPort, spi ipsec.SPI, lts, rts []ipsec.Selector) {
	l.t.Helper()
	key := make(suite.Key, 36)
	rand.Read(key)
	p := ipsec.SAParams{Ref: ipsec.SARef{Child: c.n, Dir: ipsec.In}, SPI: spi, Name: "net", Local: remote, Remote: local,
		Encap: !c.raw, Mode: c.mode, Encr: suite.Transform{Type: suite.TypeENCR, ID: suite.EncrAESGCM16, KeyBits: 256},
		EncKey: bytes.Clone(key), ESN: true, ReplayWindow: 4096, LocalTS: rts, RemoteTS: lts, CopyECN: true, MSSClamp: true}
	if c.change != nil {
		c.change(&p)
	}
	must(l.t, to.plane.AddSA(p))
	p.Ref.Dir, p.EncKey = ipsec.Out, key
	p.Local, p.Remote, p.LocalTS, p.RemoteTS = local, remote, lts, rts
	if c.change != nil {
		c.change(&p)
	}
	must(l.t, from.plane.AddSA(p))
}

// send puts packets into the gateway from its network.
func (s *side) send(packets ...[]byte) {
	s.t.Helper()
	if n, err := s.host.Write(packets, 0); n != len(packets) {
		s.t.Fatalf("device took %d of %d: %v", n, len(packets), err)
	}
}

// receive waits for n packets at the network behind the gateway.
func (s *side) receive(n int) [][]byte {
	s.t.Helper()
	got := make(chan [][]byte, 1)
	go func() {
		var all [][]byte
		for len(all) < n {
			bufs, sizes := [][]byte{make([]byte, 65536)}, []int{0}
			if _, err := s.host.Read(bufs, sizes, 0); err != nil {
				break
			}
			all = append(all, bufs[0][:sizes[0]])
		}
		got <- all
	}()
	select {
	case all := <-got:
		return all
	case <-time.After(5 * time.Second):
		s.host.Close()
		<-got
		s.t.Fatalf("%d packets did not arrive; drops: %v", n, dropsOf(s.plane))
		return nil
	}
}

func dropsOf(p *userspace.Plane) map[string]uint64 {
	c, m := p.Counters(), map[string]uint64{}
	for _, r := range userspace.Reasons() {
		if n := c.Drops(r); n > 0 {
			m[r.String()] = n
		}
	}
	return m
}

// dropped waits until the counter of a reason has a value, and demands that no other reason shows.
func (s *side) dropped(r userspace.Reason, n uint64) {
	s.t.Helper()
	s.until(func() bool { c := s.plane.Counters(); return c.Drops(r) >= n })
	if got := dropsOf(s.plane); got[r.String()] != n || len(got) != 1 {
		s.t.Fatalf("drops %v, want %d of %s alone", got, n, r)
	}
}

func (s *side) until(ok func() bool) {
	s.t.Helper()
	for end := time.Now().Add(5 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("did not happen; drops %v, events %v", dropsOf(s.plane), s.seen())
		}
	}
}

func onesum(b []byte, acc uint32) uint16 {
	for i := 0; i+1 < len(b); i += 2 {
		acc += uint32(b[i])<<8 | uint32(b[i+1])
	}
	if len(b)%2 == 1 {
		acc += uint32(b[len(b)-1]) << 8
	}
	for acc > 0xffff {
		acc = acc>>16 + acc&0xffff
	}
	return ^uint16(acc)
}

func pseudo(src, dst netip.Addr, proto uint8, n int) uint32 {
	acc := uint32(proto) + uint32(n)
	for _, a := range [][]byte{src.AsSlice(), dst.AsSlice()} {
		for i := 0; i < len(a); i += 2 {
			acc += uint32(a[i])<<8 | uint32(a[i+1])
		}
	}
	return acc
}

// ip puts an IP header before an upper layer packet. DF is set on IPv4.
func ip(src, dst netip.Addr, proto uint8, body []byte) []byte {
	if src.Is4() {
		h := make([]byte, 20, 20+len(body))
		h[0], h[6], h[8], h[9] = 0x45, 0x40, 64, proto
		binary.BigEndian.PutUint16(h[2:], uint16(20+len(body)))
		copy(h[12:], src.AsSlice())
		copy(h[16:], dst.AsSlice())
		binary.BigEndian.PutUint16(h[10:], onesum(h, 0))
		return append(h, body...)
	}
	h := make([]byte, 40, 40+len(body))
	h[0], h[6], h[7] = 0x60, proto, 64
	binary.BigEndian.PutUint16(h[4:], uint16(len(body)))
	copy(h[8:], src.AsSlice())
	copy(h[24:], dst.AsSlice())
	return append(h, body...)
}

func udp(src, dst netip.Addr, sport, dport uint16, payload []byte) []byte {
	b := make([]byte, 8, 8+len(payload))
	binary.BigEndian.PutUint16(b, sport)
	binary.BigEndian.PutUint16(b[2:], dport)
	binary.BigEndian.PutUint16(b[4:], uint16(8+len(payload)))
	b = append(b, payload...)
	binary.BigEndian.PutUint16(b[6:], onesum(b, pseudo(src, dst, 17, len(b))))
	return ip(src, dst, 17, b)
}

// numbered is a UDP packet that carries a number.
func numbered(src, dst netip.Addr, n int) []byte {
	return udp(src, dst, 7000, 7001, binary.BigEndian.AppendUint64(nil, uint64(n)))
}

func noDF(b []byte) []byte {
	b[6] &^= 0x40
	b[10], b[11] = 0, 0
	binary.BigEndian.PutUint16(b[10:], onesum(b[:20], 0))
	return b
}

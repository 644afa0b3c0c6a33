package userspace_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"adit/dataplane/userspace"
	"adit/internal/conn"
	"adit/ipsec"
)

// TestHostileOutbound: what the inner network sends and must not leave.
func TestHostileOutbound(t *testing.T) {
	edit := func(b []byte, at int, v ...byte) []byte {
		b = bytes.Clone(b)
		copy(b[at:], v)
		return b
	}
	good := numbered(hostA4, hostB4, 1)
	for _, c := range []struct {
		name   string
		packet []byte
		want   userspace.Reason
	}{
		{"IHL", edit(good, 0, 0x44), userspace.OutMalformed},
		{"IHL beyond", edit(good, 0, 0x4f), userspace.OutMalformed},
		{"total length short", edit(good, 3, 30), userspace.OutMalformed},
		{"total length long", edit(good, 3, 99), userspace.OutMalformed},
		{"v6 length", edit(numbered(hostA6, hostB6, 1), 5, 99), userspace.OutMalformed},
		{"v6 chain", ip(hostA6, hostB6, 0, bytes.Repeat([]byte{60, 0, 1, 4, 0, 0, 0, 0}, 30)), userspace.OutExtensions},
		{"no policy", numbered(hostA4, addrB4, 1), userspace.OutNoPolicy},
		{"discard", numbered(hostA4, netip.MustParseAddr("10.66.0.1"), 1), userspace.OutDiscard},
		{"bypass", numbered(hostA4, netip.MustParseAddr("10.77.0.1"), 1), userspace.OutBypass},
		{"no SA", numbered(hostA4, netip.MustParseAddr("10.88.0.1"), 1), userspace.OutNoSA},
		{"dead SA", numbered(hostA4, netip.MustParseAddr("10.99.0.1"), 1), userspace.OutNoSA},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t, nil)
			l.install(child{})
			for i, action := range []ipsec.Action{ipsec.Discard, ipsec.Bypass, ipsec.Protect, ipsec.Protect} {
				pol := ipsec.Policy{ID: ipsec.PolicyID(50 + i), Action: action, Local: selectors(netA4),
					Remote: selectors(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(66 + 11*i), 0, 0}), 16))}
				if i == 3 {
					l.install(child{n: 9, noPolicy: true, a: selectors(netA4), b: pol.Remote})
					pol.Out = ipsec.SARef{Child: 9, Dir: ipsec.Out}
				}
				must(t, l.a.plane.AddPolicy(pol))
			}
			must(t, l.a.plane.DeleteSA(ipsec.SARef{Child: 9, Dir: ipsec.Out}))
			l.a.send(c.packet)
			l.a.dropped(c.want, 1)
			l.a.send(good)
			same(t, ipsec.ModeTunnel, l.b.receive(1)[0], good)
		})
	}
}

// TestRFC4301_8_2_TooBig answers what must not be fragmented with the right MTU,
// at a limited rate, and never an ICMP error with another.
func TestRFC4301_8_2_TooBig(t *testing.T) {
	l := newLab(t, nil)
	l.install(child{change: func(p *ipsec.SAParams) { p.MTU = 1400 }})
	ref := ipsec.SARef{Child: 1, Dir: ipsec.Out}
	st, _ := l.a.plane.Query(ref)
	// 1400 - 20 - 8 - 8 - 8 - 16 = 1340, which is a multiple of 4; less 2 of trailer.
	if st.MTU != 1338 {
		t.Fatalf("inner MTU %d", st.MTU)
	}
	exact := udp(hostA4, hostB4, 1, 2, make([]byte, 1338-28))
	l.a.send(exact)
	same(t, ipsec.ModeTunnel, l.b.receive(1)[0], exact)

	big := udp(hostA4, hostB4, 1, 2, make([]byte, 1339-28))
	l.a.send(big)
	e := l.a.receive(1)[0]
	src, dst := netip.AddrFrom4([4]byte(e[12:16])), netip.AddrFrom4([4]byte(e[16:20]))
	if e[9] != 1 || e[20] != 3 || e[21] != 4 || binary.BigEndian.Uint16(e[26:]) != 1338 || src != hostB4 || dst != hostA4 {
		t.Fatalf("answer % x", e)
	}
	if onesum(e[:20], 0) != 0 || onesum(e[20:], 0) != 0 || len(e) != 576 || !bytes.Equal(e[28:], big[:548]) {
		t.Fatalf("answer of %d bytes with wrong checksum or quote", len(e))
	}
	big6 := udp(hostA6, hostB6, 1, 2, make([]byte, 1339-48))
	l.a.send(big6)
	e = l.a.receive(1)[0]
	if e[6] != 58 || e[40] != 2 || binary.BigEndian.Uint32(e[44:]) != 1338 || !bytes.Equal(e[48:], big6[:1232]) ||
		onesum(e[40:], pseudo(hostB6, hostA6, 58, len(e)-40)) != 0 {
		t.Fatalf("answer % x", e)
	}
	// No error about an error.
	l.a.send(ip(hostA4, hostB4, 1, append([]byte{3, 1, 0, 0, 0, 0, 0, 0}, udp(hostB4, hostA4, 1, 2, make([]byte, 1400))...)))
	l.a.until(func() bool { c := l.a.plane.Counters(); return c.Drops(userspace.OutTooBigSilent) == 1 })
	for range 3 * userspace.LimitICMP {
		l.a.send(big)
	}
	l.a.until(func() bool {
		c := l.a.plane.Counters()
		return c.Drops(userspace.OutTooBig)+c.Drops(userspace.OutTooBigSilent) == 3*userspace.LimitICMP+3
	})
	if c := l.a.plane.Counters(); c.Drops(userspace.OutTooBig) != userspace.LimitICMP {
		t.Fatalf("%d answers in a second", c.Drops(userspace.OutTooBig))
	}
}

// TestRFC8200_5_Minimum: IPv6 packets of 1280 bytes pass over any path.
func TestRFC8200_5_Minimum(t *testing.T) {
	l := newLab(t, nil)
	l.install(child{change: func(p *ipsec.SAParams) { p.MTU = 1280 }})
	var df atomic.Bool
	l.net.SetTap(func(d conn.Datagram) { df.Store(d.DF) })
	b := udp(hostA6, hostB6, 1, 2, make([]byte, 1280-48))
	l.a.send(b)
	same(t, ipsec.ModeTunnel, l.b.receive(1)[0], b)
	if df.Load() {
		t.Fatal("sent with DF, although larger than the path MTU")
	}
}

// TestRFC4301_D_Fragments: inner IPv4 without DF leaves in fragments, and the far
// host can put it together again.
func TestRFC4301_D_Fragments(t *testing.T) {
	for _, after := range []bool{false, true} {
		l := newLab(t, func(c *userspace.Config) { c.FragmentAfter = after })
		l.install(child{change: func(p *ipsec.SAParams) { p.MTU = 1000 }})
		payload := make([]byte, 8900)
		for i := range payload {
			payload[i] = byte(i * 7 / 3)
		}
		if after {
			payload = payload[:5000]
		}
		whole := noDF(udp(hostA4, hostB4, 1, 2, payload))
		small := numbered(hostA4, hostB4, 5)
		l.a.send(small, whole, small)
		same(t, ipsec.ModeTunnel, l.b.receive(1)[0], small)
		if after {
			same(t, ipsec.ModeTunnel, l.b.receive(1)[0], whole)
			continue
		}
		got := make([]byte, len(whole)-20)
		for at := 0; at < len(got); {
			f := l.b.receive(1)[0]
			field := binary.BigEndian.Uint16(f[6:])
			off := int(field&0x1fff) * 8
			if off != at || onesum(f[:20], 0) != 0 || len(f) > 1000 || (field&0x2000 != 0) != (off+len(f)-20 < len(got)) {
				t.Fatalf("fragment at %d: % x", at, f[:20])
			}
			at += copy(got[off:], f[20:])
		}
		if !bytes.Equal(got, whole[20:]) {
			t.Fatal("the fragments do not make the packet")
		}
		same(t, ipsec.ModeTunnel, l.b.receive(1)[0], small)
	}
}

// TestRFC791_3_2_FragmentOfFragment: a fragment that is cut again keeps its place
// and its more-fragments flag.
func TestRFC791_3_2_FragmentOfFragment(t *testing.T) {
	l := newLab(t, nil)
	l.install(child{change: func(p *ipsec.SAParams) { p.MTU = 600 }})
	b := ip(hostA4, hostB4, 200, make([]byte, 1200))
	b[6], b[7] = 0x20, 10 // more to follow, from byte 80 on
	l.a.send(noDF(b))
	for at := 0; at < 1200; {
		f := l.b.receive(1)[0]
		field := binary.BigEndian.Uint16(f[6:])
		if int(field&0x1fff)*8 != 80+at || field&0x2000 == 0 {
			t.Fatalf("fragment at %d: % x", at, f[:20])
		}
		at += len(f) - 20
	}
}

// TestMSSClamp in both directions, from the real overhead, checksum included.
func TestMSSClamp(t *testing.T) {
	l := newLab(t, nil)
	l.install(child{change: func(p *ipsec.SAParams) { p.MTU = 1400 }})
	syn := func(src, dst netip.Addr, flags byte, options ...byte) []byte {
		b := make([]byte, 20+len(options))
		binary.BigEndian.PutUint16(b, 1)
		binary.BigEndian.PutUint16(b[2:], 2)
		b[12], b[13] = byte(len(b)/4)<<4, flags
		copy(b[20:], options)
		binary.BigEndian.PutUint16(b[16:], onesum(b, pseudo(src, dst, 6, len(b))))
		return ip(src, dst, 6, b)
	}
	for _, c := range []struct {
		name           string
		flags          byte
		options        []byte
		at             int // of the MSS value in the options
		clamp4, clamp6 uint16
	}{
		{"SYN", 2, []byte{2, 4, 0x05, 0xb4}, 2, 1298, 1278},
		{"SYN-ACK", 0x12, []byte{1, 1, 1, 1, 2, 4, 0x05, 0xb4}, 6, 1298, 1278},
		{"odd place", 2, []byte{1, 2, 4, 0x05, 0xb4, 1, 1, 0}, 3, 1298, 1278},
		{"small already", 2, []byte{2, 4, 0x02, 0x18}, 2, 536, 536},
		{"no SYN", 0x10, []byte{2, 4, 0x05, 0xb4}, 2, 1460, 1460},
		{"behind the end", 2, []byte{0, 2, 4, 0x05, 0xb4, 0, 0, 0}, 3, 1460, 1460},
		{"broken option", 2, []byte{3, 1, 2, 4, 0x05, 0xb4, 0, 0}, 4, 1460, 1460},
	} {
		for _, v6 := range []bool{false, true} {
			a, b, header, want := hostA4, hostB4, 20, c.clamp4
			if v6 {
				a, b, header, want = hostA6, hostB6, 40, c.clamp6
			}
			l.a.send(syn(a, b, c.flags, c.options...))
			l.b.send(syn(b, a, c.flags, c.options...))
			for i, got := range [][]byte{l.b.receive(1)[0], l.a.receive(1)[0]} {
				src, dst := a, b
				if i == 1 {
					src, dst = b, a
				}
				tcp := got[header:]
				if mss := binary.BigEndian.Uint16(tcp[20+c.at:]); mss != want {
					t.Errorf("%s v6=%v: MSS %d, want %d", c.name, v6, mss, want)
				}
				if onesum(tcp, pseudo(src, dst, 6, len(tcp))) != 0 {
					t.Errorf("%s v6=%v: wrong checksum", c.name, v6)
				}
			}
		}
	}
	// The receiving side clamps as well: a peer may not.
	p := l.peer(func(s *ipsec.SAParams) { s.MSSClamp, s.MTU = true, 1400 })
	p.inject(p.seal(syn(hostA4, hostB4, 2, 2, 4, 0x05, 0xb4), 4))
	if got := l.b.receive(1)[0]; binary.BigEndian.Uint16(got[42:]) != 1298 {
		t.Errorf("inbound: MSS %d", binary.BigEndian.Uint16(got[42:]))
	}
}

// TestReport believes outer "too big" for a live SPI only, and not below the minimum.
func TestReport(t *testing.T) {
	l := newLab(t, nil)
	l.install(child{})
	mtu := func() int {
		st, _ := l.a.plane.Query(ipsec.SARef{Child: 1, Dir: ipsec.Out})
		return st.MTU
	}
	before := mtu()
	r := conn.Report{Remote: netip.AddrPortFrom(addrB4, 4500), Encap: true, MTU: 1300, Type: 3, Code: 4, Quote: []byte{0x10, 0, 0, 1, 0, 0, 0, 1}}
	for name, change := range map[string]func(*conn.Report){
		"unknown SPI":   func(r *conn.Report) { r.Quote = []byte{0x10, 0, 0, 9, 0, 0, 0, 1} },
		"our own SPI":   func(r *conn.Report) { r.Quote = []byte{0x20, 0, 0, 1, 0, 0, 0, 1} },
		"no quote":      func(r *conn.Report) { r.Quote = nil },
		"another peer":  func(r *conn.Report) { r.Remote = netip.MustParseAddrPort("203.0.113.1:4500") },
		"no MTU":        func(r *conn.Report) { r.MTU = 0 },
		"raw, not UDP":  func(r *conn.Report) { r.Raw, r.Encap = true, false },
		"larger as now": func(r *conn.Report) { r.MTU = 9000 },
	} {
		q := r
		change(&q)
		l.a.plane.Report(q)
		if mtu() != before {
			t.Errorf("%s: believed", name)
		}
	}
	l.a.plane.Report(r)
	if got := mtu(); got != 1300-20-8-8-8-16-2 {
		t.Fatalf("inner MTU %d after a report of 1300", got)
	}
	r.MTU = 68
	l.a.plane.Report(r)
	if got := mtu(); got != 576-62 {
		t.Fatalf("inner MTU %d after a report of 68", got)
	}
	l.now.add(11 * time.Minute)
	l.a.plane.DropAged(l.now.Now())
	if mtu() != before {
		t.Fatal("an old report is believed for ever")
	}
}

// TestTrapLimits: bounded in number and age, Acquire again after some seconds.
func TestTrapLimits(t *testing.T) {
	l := newLab(t, nil)
	pol := ipsec.Policy{ID: 1, Name: "trap", Local: selectors(netA4), Remote: selectors(netB4), Trap: true}
	must(t, l.a.plane.AddPolicy(pol))
	const extra = 7
	for n := range userspace.LimitWaitPackets + extra {
		l.a.send(numbered(hostA4, hostB4, n))
	}
	l.a.dropped(userspace.OutWaitFull, extra)
	if c := l.a.plane.Counters(); c.Waiting != userspace.LimitWaitPackets || len(l.a.seen()) != 1 {
		t.Fatalf("%d wait, %d events", c.Waiting, len(l.a.seen()))
	}
	l.now.add(userspace.AcquireAgain)
	l.a.send(numbered(hostA4, hostB4, 0))
	l.a.until(func() bool { return len(l.a.seen()) == 2 })
	l.now.add(userspace.LimitWaitAge - userspace.AcquireAgain)
	l.a.plane.DropAged(l.now.Now())
	if c := l.a.plane.Counters(); c.Waiting != 0 || c.Drops(userspace.OutWaitExpired) != userspace.LimitWaitPackets {
		t.Fatalf("%d wait still, %d expired", c.Waiting, c.Drops(userspace.OutWaitExpired))
	}
	l.a.send(numbered(hostA4, hostB4, 1))
	l.a.until(func() bool { return l.a.plane.Counters().Waiting == 1 })
	must(t, l.a.plane.DeletePolicy(1))
	if c := l.a.plane.Counters(); c.Waiting != 0 || c.Drops(userspace.OutWaitExpired) != userspace.LimitWaitPackets+1 {
		t.Fatalf("after the policy is gone: %+v", c)
	}
}

// TestTrapAsksAgain: an SA that came with a policy of its own answers the trap; when
// it is gone, the next packet asks at once.
func TestTrapAsksAgain(t *testing.T) {
	l := newLab(t, nil)
	must(t, l.a.plane.AddPolicy(ipsec.Policy{ID: 9, Name: "trap", Priority: 600_000, Local: selectors(netA4), Remote: selectors(netB4), Trap: true}))
	l.a.send(numbered(hostA4, hostB4, 0))
	l.a.until(func() bool { return len(l.a.seen()) == 1 })
	l.install(child{priority: 1})
	l.b.receive(1)
	must(t, l.a.plane.DeletePolicy(1))
	must(t, l.a.plane.DeleteSA(ipsec.SARef{Child: 1, Dir: ipsec.Out}))
	l.a.send(numbered(hostA4, hostB4, 1))
	l.a.until(func() bool { return len(l.a.seen()) == 2 })
}

// TestTrapBytes: large packets are bounded by their bytes.
func TestTrapBytes(t *testing.T) {
	l := newLab(t, nil)
	must(t, l.a.plane.AddPolicy(ipsec.Policy{ID: 1, Local: selectors(netA4), Remote: selectors(netB4), Trap: true}))
	const size = 8000
	for range 40 {
		l.a.send(udp(hostA4, hostB4, 1, 2, make([]byte, size-28)))
	}
	fit := userspace.LimitWaitBytes / size
	l.a.dropped(userspace.OutWaitFull, uint64(40-fit))
	if n := l.a.plane.Counters().Waiting; n != fit {
		t.Fatalf("%d wait, not %d", n, fit)
	}
}

// TestRekeyUnderLoad switches SAs under traffic in both directions: nothing is
// lost, doubled or reordered, and deletion under running batches is safe.
func TestRekeyUnderLoad(t *testing.T) {
	l := newLab(t, nil)
	l.install(child{})
	const total, generations = 20000, 30
	var sent, received atomic.Int64
	var failed atomic.Bool
	var wg sync.WaitGroup
	defer wg.Wait()
	defer func() { failed.Store(t.Failed()) }()
	wg.Go(func() {
		for n := 0; n < total; n++ {
			for int64(n)-received.Load() > 500 { // the pipes hold 1024
				time.Sleep(50 * time.Microsecond)
				if failed.Load() {
					return
				}
			}
			l.a.send(numbered(hostA4, hostB4, n))
			sent.Store(int64(n))
		}
	})
	wg.Go(func() {
		for g := uint32(2); g <= generations; g++ {
			for sent.Load() < int64(g)*total/(generations+1) {
				if failed.Load() {
					return
				}
				time.Sleep(100 * time.Microsecond)
			}
			c := child{n: g, noPolicy: true}
			l.install(c)
			c.a, c.b = selectors(netA4, netA6), selectors(netB4, netB6)
			for _, s := range []*side{l.a, l.b} {
				pol := policy(c, c.a, c.b)
				if s == l.b {
					pol = policy(c, c.b, c.a)
				}
				pol.ID = 1
				must(t, s.plane.AddPolicy(pol))
			}
			// The outbound half of the old pair goes first; what is under way needs the inbound.
			must(t, l.a.plane.DeleteSA(ipsec.SARef{Child: g - 1, Dir: ipsec.Out}))
			must(t, l.b.plane.DeleteSA(ipsec.SARef{Child: g - 1, Dir: ipsec.Out}))
		}
	})
	for n := range total {
		b := l.b.receive(1)[0]
		if got := binary.BigEndian.Uint64(b[28:]); got != uint64(n) {
			t.Fatalf("packet %d arrived in place of %d; drops %v and %v", got, n, dropsOf(l.a.plane), dropsOf(l.b.plane))
		}
		received.Store(int64(n))
	}
	wg.Wait()
	if d := dropsOf(l.a.plane); len(d) != 0 {
		t.Fatalf("drops %v", d)
	}
	if st, _ := l.a.plane.Query(ipsec.SARef{Child: generations, Dir: ipsec.Out}); st.Packets == 0 {
		t.Fatal("the last SA was never used")
	}
}

// TestTransportChecks: transport mode carries what runs between the gateways only.
func TestTransportChecks(t *testing.T) {
	l := newLab(t, nil)
	l.install(child{mode: ipsec.ModeTransport, a: selectors(netip.MustParsePrefix("192.0.2.0/24")), b: selectors(netip.MustParsePrefix("198.51.100.0/24"))})
	l.a.send(numbered(addrA4, netip.MustParseAddr("198.51.100.77"), 1))
	l.a.dropped(userspace.OutNotPeer, 1)
	l.a.send(numbered(addrA4, addrB4, 2))
	l.b.receive(1)
}

// tap records what it sees.
type tap struct {
	mu           sync.Mutex
	inner, outer []string
}

func (c *tap) Inner(dir ipsec.Direction, b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inner = append(c.inner, fmt.Sprintf("%s %x", dir, b))
}

func (c *tap) Outer(dir ipsec.Direction, local, remote netip.AddrPort, encap bool, tos uint8, esp []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.outer = append(c.outer, fmt.Sprintf("%s %s %s %v %08x", dir, local, remote, encap, esp[:8]))
}

func TestTap(t *testing.T) {
	seen := &tap{}
	l := newLab(t, func(c *userspace.Config) { c.Tap = seen })
	l.install(child{})
	b := numbered(hostA4, hostB4, 1)
	l.a.send(b)
	l.b.receive(1)
	seen.mu.Lock()
	defer seen.mu.Unlock()
	wantInner := []string{fmt.Sprintf("out %x", b), fmt.Sprintf("in %x", b)}
	if fmt.Sprint(seen.inner) != fmt.Sprint(wantInner) || len(seen.outer) != 2 {
		t.Fatalf("inner %v outer %v", seen.inner, seen.outer)
	}
}

// TestManyPolicies: with 5,000 policies each still finds its own, and a wide one behind them the rest.
func TestManyPolicies(t *testing.T) {
	l := newLab(t, nil)
	l.install(child{n: 1, a: selectors(netA4), b: selectors(netip.MustParsePrefix("10.0.0.0/8")), priority: 1000})
	for i := range 5000 {
		must(t, l.a.plane.AddPolicy(ipsec.Policy{ID: ipsec.PolicyID(100 + i), Action: ipsec.Discard, Local: selectors(netA4),
			Remote: selectors(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 50, byte(i >> 8), byte(i)}), 32))}))
	}
	for i := range 100 {
		l.a.send(numbered(hostA4, netip.AddrFrom4([4]byte{10, 50, byte(i * 37 >> 8), byte(i * 37)}), i))
	}
	l.a.dropped(userspace.OutDiscard, 100)
	l.a.send(numbered(hostA4, netip.MustParseAddr("10.51.0.1"), 1))
	l.b.receive(1)
	for i := range 5000 {
		must(t, l.a.plane.DeletePolicy(ipsec.PolicyID(100+i)))
	}
	l.a.send(numbered(hostA4, netip.MustParseAddr("10.50.0.1"), 1))
	l.b.receive(1)
}

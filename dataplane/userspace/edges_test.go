package userspace_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"

	"adit/dataplane/userspace"
	"adit/internal/conn"
	"adit/ipsec"
	"adit/tun"
)

// TestDevices: SAs and policies of an interface ID use the device of that ID alone.
func TestDevices(t *testing.T) {
	l := newLab(t, nil)
	inner, outer := tun.Pipe(1500)
	t.Cleanup(func() { must(t, outer.Close()) })
	must(t, l.b.plane.AddDevice(7, inner))
	if err := l.b.plane.AddDevice(7, inner); !errors.Is(err, userspace.ErrIfID) {
		t.Fatal(err)
	}
	l.direction(child{n: 1}, l.a, l.b, netip.AddrPortFrom(addrA4, 4500), netip.AddrPortFrom(addrB4, 4500), 0x1000_0001, selectors(netA4), selectors(netB4))
	must(t, l.a.plane.AddPolicy(policy(child{}, selectors(netA4), selectors(netB4))))
	p := l.peer(func(s *ipsec.SAParams) { s.IfID = 7 })
	second := &side{t: t, plane: l.b.plane, host: outer}
	// One batch with packets for both devices.
	packet := numbered(hostA4, hostB4, 1)
	p.inject(p.seal(packet, 4))
	l.a.send(packet)
	p.inject(p.seal(packet, 4))
	second.receive(2)
	l.b.receive(1)
	// Outbound: the device's packets meet its policies only.
	pol := ipsec.Policy{ID: 9, Action: ipsec.Discard, Local: selectors(netB4), Remote: selectors(netA4), IfID: 7}
	must(t, l.b.plane.AddPolicy(pol))
	l.b.send(numbered(hostB4, hostA4, 1))
	l.b.dropped(userspace.OutNoPolicy, 1)
	second.send(numbered(hostB4, hostA4, 1))
	l.b.until(func() bool { c := l.b.plane.Counters(); return c.Drops(userspace.OutDiscard) == 1 })
	pol.IfID = 8
	if err := l.b.plane.AddPolicy(pol); !errors.Is(err, userspace.ErrNoDevice) {
		t.Fatal(err)
	}
}

// counting is a device whose ring was full.
type counting struct {
	*hole
	full uint64
}

func (c counting) Stats() tun.Stats { return tun.Stats{RingFull: c.full, ReadRing: 9, ReadPackets: 9} }

// TestRingFullIsADrop: what had no room in the rings of devices is counted with the other drops.
func TestRingFullIsADrop(t *testing.T) {
	p, err := userspace.New(userspace.Config{Tun: counting{newHole(), 3}, Conn: &sink{}, IKE: func(*conn.Packet) {}})
	must(t, err)
	must(t, p.AddDevice(7, counting{newHole(), 4}))
	must(t, p.AddDevice(8, newHole()))
	for r, n := range dropsOf(p) {
		if r != "out-ring-full" || n != 7 {
			t.Errorf("%d of %s", n, r)
		}
	}
	if c := p.Counters(); c.Drops(userspace.OutRing) != 7 {
		t.Errorf("drops %v", dropsOf(p))
	}
	must(t, p.Close())
}

// TestDone tells when a device fails, and nothing of it after Close.
func TestDone(t *testing.T) {
	l := newLab(t, nil)
	select {
	case <-l.a.plane.Done():
		t.Fatal("done at the start")
	default:
	}
	must(t, l.b.plane.Close())
	<-l.b.plane.Done()
	if err := l.b.plane.Err(); err != nil {
		t.Fatal(err)
	}
	if err := l.b.plane.Start(); !errors.Is(err, userspace.ErrClosed) {
		t.Fatal(err)
	}
	h := &failing{hole: newHole()}
	p, err := userspace.New(userspace.Config{Tun: h, Conn: &sink{}, IKE: func(*conn.Packet) {}})
	must(t, err)
	must(t, p.Start())
	<-p.Done()
	if err := p.Err(); !errors.Is(err, errBroken) {
		t.Fatal(err)
	}
	must(t, p.Close())
	if _, err := userspace.New(userspace.Config{}); err == nil {
		t.Fatal("made of nothing")
	}
}

var errBroken = errors.New("broken")

type failing struct{ *hole }

func (failing) Read([][]byte, []int, int) (int, error) { return 0, errBroken }
func (failing) Write(b [][]byte, _ int) (int, error)   { return len(b) - 1, errBroken }

// TestRefusedOutside: what socket and device do not take is counted.
func TestRefusedOutside(t *testing.T) {
	l := newLab(t, nil)
	l.install(child{change: func(p *ipsec.SAParams) {
		if p.Ref.Dir == ipsec.Out && p.Local.Addr() == addrA4 {
			p.Local = netip.MustParseAddrPort("192.0.2.99:4500") // not an address of ours
		}
	}})
	l.a.send(numbered(hostA4, hostB4, 1))
	l.a.dropped(userspace.OutSend, 1)

	b := newBench(t, child{})
	p, err := userspace.New(userspace.Config{Tun: failing{newHole()}, Conn: b.wire, IKE: func(*conn.Packet) {}})
	must(t, err)
	t.Cleanup(func() { must(t, p.Close()) })
	(&lab{t: t, a: b.l.a, b: &side{t: t, plane: p}}).install(child{n: 2})
	must(t, b.l.a.plane.DeletePolicy(1))
	b.in = p.NewInbound(benchBatch)
	b.through([][]byte{numbered(hostA4, hostB4, 1), numbered(hostA4, hostB4, 2)})
	if c := p.Counters(); c.Drops(userspace.InDevice) != 1 {
		t.Fatalf("drops %v", dropsOf(p))
	}
}

// TestRFC791_3_1_OptionsInFragments: only options with the copy bit go into later fragments.
func TestRFC791_3_1_OptionsInFragments(t *testing.T) {
	l := newLab(t, nil)
	l.install(child{change: func(p *ipsec.SAParams) { p.MTU = 700 }})
	body := make([]byte, 1500)
	options := []byte{7, 7, 4, 1, 2, 3, 4, 1, 0x94, 4, 0, 0} // record route, no-op, router alert (copied)
	b := ip(hostA4, hostB4, 200, body)
	b = append(append(append([]byte(nil), b[:20]...), options...), body...)
	b[0] = 0x48
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	b[6], b[10], b[11] = 0, 0, 0
	binary.BigEndian.PutUint16(b[10:], onesum(b[:32], 0))
	l.a.send(b)
	got := 0
	for got < len(body) {
		f := l.b.receive(1)[0]
		hdr := int(f[0]&15) * 4
		if onesum(f[:hdr], 0) != 0 {
			t.Fatalf("checksum of % x", f[:hdr])
		}
		want := options
		if got > 0 {
			want = []byte{0x94, 4, 0, 0}
		}
		if !bytes.Equal(f[20:hdr], want) {
			t.Fatalf("fragment at %d has options % x", got, f[20:hdr])
		}
		got += len(f) - hdr
	}
}

// TestWaitingTooBig: a packet that waited is cut or answered like any other.
func TestWaitingTooBig(t *testing.T) {
	l := newLab(t, nil)
	must(t, l.a.plane.AddPolicy(ipsec.Policy{ID: 1, Name: "net", Local: selectors(netA4, netA6), Remote: selectors(netB4, netB6), Trap: true}))
	l.a.send(udp(hostA4, hostB4, 1, 2, make([]byte, 1400)), noDF(udp(hostA4, hostB4, 1, 2, make([]byte, 1600))), numbered(hostA4, hostB4, 7))
	l.a.until(func() bool { return l.a.plane.Counters().Waiting == 3 })
	l.install(child{change: func(p *ipsec.SAParams) { p.MTU = 1300 }})
	if e := l.a.receive(1)[0]; e[9] != 1 || e[20] != 3 {
		t.Fatalf("answer % x", e)
	}
	got := l.b.receive(3)
	if len(got[0])+len(got[1])-20 != 1628 {
		t.Fatalf("fragments of %d and %d", len(got[0]), len(got[1]))
	}
	same(t, ipsec.ModeTunnel, got[2], numbered(hostA4, hostB4, 7))
}

// TestProtocols: selectors of protocols other than the usual, also behind extension headers.
func TestProtocols(t *testing.T) {
	l := newLab(t, nil)
	ts := func(p netip.Prefix, proto uint8, from, to uint16) []ipsec.Selector {
		s := ipsec.FromPrefix(p)
		s.Proto, s.PortFrom, s.PortTo = proto, from, to
		return []ipsec.Selector{s}
	}
	n := uint32(0)
	with := func(proto uint8, from, to uint16) {
		n++
		must(t, l.a.plane.AddPolicy(ipsec.Policy{ID: 500, Action: ipsec.Discard, Local: ts(netA6, proto, from, to), Remote: selectors(netB6)}))
	}
	sctp := []byte{0x13, 0x88, 0x13, 0x89, 0, 0, 0, 0, 0, 0, 0, 0}
	ah := append([]byte{132, 4, 0, 0}, make([]byte, 20)...)
	for _, c := range []struct {
		name     string
		proto    uint8
		from, to uint16
		packet   []byte
		matches  bool
	}{
		{"SCTP", 132, 5000, 5000, ip(hostA6, hostB6, 132, sctp), true},
		{"SCTP other port", 132, 5001, 5001, ip(hostA6, hostB6, 132, sctp), false},
		{"SCTP behind AH", 132, 5000, 5000, ip(hostA6, hostB6, 51, append(ah, sctp...)), true},
		{"SCTP behind routing", 132, 5000, 5000, ip(hostA6, hostB6, 43, append([]byte{132, 0, 0, 0, 0, 0, 0, 0}, sctp...)), true},
		{"SCTP cut short", 132, 5000, 5000, ip(hostA6, hostB6, 132, sctp[:3]), false},
		{"mobility type 5", 135, 0x0500, 0x05ff, ip(hostA6, hostB6, 135, []byte{59, 0, 5, 0, 0, 0, 0, 0}), true},
		{"mobility type 6", 135, 0x0500, 0x05ff, ip(hostA6, hostB6, 135, []byte{59, 0, 6, 0, 0, 0, 0, 0}), false},
		{"echo request", 58, 0x8000, 0x80ff, ip(hostA6, hostB6, 58, []byte{128, 0, 0, 0, 0, 0, 0, 0}), true},
		{"echo reply", 58, 0x8000, 0x80ff, ip(hostA6, hostB6, 58, []byte{129, 0, 0, 0, 0, 0, 0, 0}), false},
		{"no ports at all", 200, 0, 65535, ip(hostA6, hostB6, 200, []byte{1, 2, 3, 4}), true},
		{"opaque", 17, 65535, 0, ip(hostA6, hostB6, 17, []byte{1, 2, 3}), true},
	} {
		with(c.proto, c.from, c.to)
		before := l.a.plane.Counters()
		l.a.send(c.packet)
		want := userspace.OutNoPolicy
		if c.matches {
			want = userspace.OutDiscard
		}
		l.a.until(func() bool {
			now := l.a.plane.Counters()
			return now.Drops(userspace.OutDiscard)+now.Drops(userspace.OutNoPolicy) > before.Drops(userspace.OutDiscard)+before.Drops(userspace.OutNoPolicy)
		})
		if now := l.a.plane.Counters(); now.Drops(want) != before.Drops(want)+1 {
			t.Errorf("%s: matches is not %v", c.name, c.matches)
		}
	}
}

// TestDeletedBetween: an SA that goes between routing and sealing leaves its
// packets to the policy's trap.
func TestDeletedBetween(t *testing.T) {
	b := newBench(t, child{noPolicy: true})
	pol := policy(child{}, selectors(netA4), selectors(netB4))
	pol.Trap = true
	must(t, b.l.a.plane.AddPolicy(pol))
	cut := &deleting{}
	p, err := userspace.New(userspace.Config{Tun: newHole(), Conn: b.wire, IKE: func(*conn.Packet) {}, Tap: cut})
	must(t, err)
	t.Cleanup(func() { must(t, p.Close()) })
	cut.plane = p
	l := &lab{t: t, a: &side{t: t, plane: p}, b: &side{t: t, plane: b.l.b.plane}}
	l.install(child{n: 4, noPolicy: true})
	pol.Out = ipsec.SARef{Child: 4, Dir: ipsec.Out}
	must(t, p.AddPolicy(pol))
	var events []ipsec.Event
	p.Events(func(e ipsec.Event) { events = append(events, e) })
	p.NewOutbound().Batch([][]byte{numbered(hostA4, hostB4, 1), numbered(hostA4, hostB4, 2)})
	if c := p.Counters(); c.Waiting != 2 || len(events) != 1 || c.OutPackets != 0 {
		t.Fatalf("%d wait, %d sent, events %v, drops %v", c.Waiting, c.OutPackets, events, dropsOf(p))
	}
	l.install(child{n: 5, noPolicy: true})
	pol.Out.Child = 5
	must(t, p.AddPolicy(pol))
	if c := p.Counters(); c.Waiting != 0 || c.OutPackets != 2 {
		t.Fatalf("%d wait, %d sent", c.Waiting, c.OutPackets)
	}
}

// deleting is a Tap that deletes the SA when it sees the second inner packet.
type deleting struct {
	plane *userspace.Plane
	seen  int
}

func (d *deleting) Inner(dir ipsec.Direction, _ []byte) {
	if d.seen++; d.seen == 2 {
		d.plane.DeleteSA(ipsec.SARef{Child: 4, Dir: ipsec.Out})
	}
}
func (d *deleting) Outer(ipsec.Direction, netip.AddrPort, netip.AddrPort, bool, uint8, []byte) {}

// TestLifetimeStops: after the hard bound packets are dropped under their name.
func TestLifetimeStops(t *testing.T) {
	l := newLab(t, nil)
	l.install(child{change: func(p *ipsec.SAParams) { p.Life.HardPackets = 2 }})
	for n := range 2 {
		l.a.send(numbered(hostA4, hostB4, n))
	}
	l.b.receive(2)
	for n := range 3 {
		l.a.send(numbered(hostA4, hostB4, n))
	}
	l.a.dropped(userspace.OutExpired, 3)
}

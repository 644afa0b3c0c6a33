package userspace_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"adit/dataplane/userspace"
	"adit/internal/conn"
	"adit/ipsec"
	"adit/suite"
)

// peer is a forger: it has the keys of an inbound SA of side b and seals what it likes.
type peer struct {
	l   *lab
	c   suite.Cipher
	spi ipsec.SPI
	seq uint32
}

func (l *lab) peer(change func(*ipsec.SAParams)) *peer {
	l.t.Helper()
	key := make(suite.Key, 36)
	for i := range key {
		key[i] = byte(i)
	}
	encr := suite.Transform{Type: suite.TypeENCR, ID: suite.EncrAESGCM16, KeyBits: 256}
	c, err := suite.NewCipher(encr, suite.Transform{}, key, nil)
	must(l.t, err)
	p := ipsec.SAParams{Ref: ipsec.SARef{Child: 77, Dir: ipsec.In}, SPI: 0x7777_0001, Encr: encr, EncKey: key, ReplayWindow: 64,
		Local: netip.AddrPortFrom(addrB4, 4500), Remote: netip.AddrPortFrom(addrA4, 4500), Encap: true, CopyECN: true,
		LocalTS: selectors(netB4, netB6), RemoteTS: selectors(netA4, netA6)}
	if change != nil {
		change(&p)
	}
	must(l.t, l.b.plane.AddSA(p))
	return &peer{l: l, c: c, spi: p.SPI}
}

// seal makes an ESP packet of any plaintext.
func (p *peer) seal(text []byte, next uint8) []byte {
	p.seq++
	text = bytes.Clone(text)
	n := byte(0)
	for ; (len(text)+2)%4 != 0; n++ {
		text = append(text, n+1)
	}
	text = append(text, n, next)
	b := make([]byte, 16+len(text)+16)
	binary.BigEndian.PutUint32(b, uint32(p.spi))
	binary.BigEndian.PutUint32(b[4:], p.seq)
	copy(b[16:], text)
	p.c.PutIV(b[8:16], uint64(p.seq))
	p.c.Seal(b[:8], b[8:16], b[16:16+len(text)], b[16+len(text):], nil)
	return b
}

// from injects an ESP packet in UDP as if the peer had sent it from an address.
func (p *peer) from(src netip.AddrPort, tos uint8, b []byte) {
	p.l.net.Inject(conn.Datagram{Src: src, Dst: netip.AddrPortFrom(addrB4, 4500), TOS: tos, Payload: b})
}

func (p *peer) inject(b []byte) { p.from(netip.AddrPortFrom(addrA4, 4500), 0, b) }

// TestHostileInbound injects what must not pass, each counted under its own
// name, and checks afterwards that an honest packet still does.
func TestHostileInbound(t *testing.T) {
	honest := numbered(hostA4, hostB4, 1)
	icmp := func(src, dst netip.Addr, typ byte, quoted []byte) []byte {
		proto := byte(1)
		if src.Is6() {
			proto = 58
		}
		return ip(src, dst, proto, append([]byte{typ, 0, 0, 0, 0, 0, 0, 0}, quoted...))
	}
	chain := func(n int) []byte { // n destination options headers, then UDP
		var b []byte
		for i := range n {
			next := byte(60)
			if i == n-1 {
				next = 17
			}
			b = append(b, next, 0, 1, 4, 0, 0, 0, 0)
		}
		return ip(hostA6, hostB6, 60, append(b, numbered(hostA6, hostB6, 1)[40:]...))
	}
	other := netip.MustParseAddr("203.0.113.9")
	for _, c := range []struct {
		name string
		want userspace.Reason
		send func(p *peer)
	}{
		{"unknown SPI", userspace.InNoSA, func(p *peer) { b := p.seal(honest, 4); b[0] ^= 1; p.inject(b) }},
		{"cut to the header", userspace.InShort, func(p *peer) { p.inject(p.seal(honest, 4)[:8]) }},
		{"cut inside", userspace.InAuth, func(p *peer) { b := p.seal(honest, 4); p.inject(b[:len(b)-4]) }},
		{"cut unaligned", userspace.InMalformed, func(p *peer) { b := p.seal(honest, 4); p.inject(b[:len(b)-1]) }},
		{"flipped bit", userspace.InAuth, func(p *peer) { b := p.seal(honest, 4); b[20] ^= 4; p.inject(b) }},
		{"next header UDP", userspace.InNextHeader, func(p *peer) { p.inject(p.seal(honest, 17)) }},
		{"dummy", userspace.InDummy, func(p *peer) { p.inject(p.seal(make([]byte, 50), 59)) }},
		{"inner length", userspace.InMalformed, func(p *peer) { b := bytes.Clone(honest); b[3] = 200; p.inject(p.seal(b, 4)) }},
		{"congestion mark on Not-ECT", userspace.InECN, func(p *peer) { p.from(netip.AddrPortFrom(addrA4, 4500), 3, p.seal(honest, 4)) }},
		{"source outside selectors", userspace.InSelector, func(p *peer) { p.inject(p.seal(numbered(other, hostB4, 1), 4)) }},
		{"destination outside selectors", userspace.InSelector, func(p *peer) { p.inject(p.seal(numbered(hostA4, other, 1), 4)) }},
		{"reflected", userspace.InSelector, func(p *peer) { p.inject(p.seal(numbered(hostB4, hostA4, 1), 4)) }},
		{"families mixed", userspace.InSelector, func(p *peer) { p.inject(p.seal(numbered(hostA6, netip.MustParseAddr("fd09::1"), 1), 41)) }},
		{"extension chain", userspace.InExtensions, func(p *peer) { p.inject(p.seal(chain(20), 41)) }},
		{"extension beyond packet", userspace.InMalformed, func(p *peer) { p.inject(p.seal(ip(hostA6, hostB6, 60, []byte{17, 9, 0, 0, 0, 0, 0, 0}), 41)) }},
		{"ICMP error about others", userspace.InSelector, func(p *peer) { p.inject(p.seal(icmp(hostA4, hostB4, 3, numbered(hostB4, other, 1)), 4)) }},
		{"ICMP error to another", userspace.InSelector, func(p *peer) {
			p.inject(p.seal(icmp(hostA4, netip.MustParseAddr("10.2.0.3"), 3, numbered(hostB4, hostA4, 1)), 4))
		}},
		{"ICMP error from everybody", userspace.InSelector, func(p *peer) {
			p.inject(p.seal(icmp(netip.MustParseAddr("224.0.0.1"), hostB4, 3, numbered(hostB4, hostA4, 1)), 4))
		}},
		{"ICMP error without quote", userspace.InSelector, func(p *peer) { p.inject(p.seal(icmp(hostA4, hostB4, 3, nil), 4)) }},
		{"ICMPv6 error about others", userspace.InSelector, func(p *peer) {
			p.inject(p.seal(icmp(hostA6, hostB6, 2, numbered(hostB6, netip.MustParseAddr("fd09::1"), 1)), 41))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t, nil)
			p := l.peer(nil)
			c.send(p)
			l.b.dropped(c.want, 1)
			p.inject(p.seal(honest, 4))
			same(t, ipsec.ModeTunnel, l.b.receive(1)[0], honest)
			st, _ := l.b.plane.Query(ipsec.SARef{Child: 77, Dir: ipsec.In})
			switch c.want {
			case userspace.InSelector:
				if st.SelectorMismatch != 1 {
					t.Errorf("SA counted %+v", st)
				}
			case userspace.InAuth:
				if st.AuthFailed != 1 {
					t.Errorf("SA counted %+v", st)
				}
			}
		})
	}
}

func TestReplayInbound(t *testing.T) {
	l := newLab(t, nil)
	p := l.peer(nil)
	b := p.seal(numbered(hostA4, hostB4, 1), 4)
	for range 3 {
		p.inject(bytes.Clone(b))
	}
	l.b.receive(1)
	l.b.dropped(userspace.InReplay, 2)
	old := p.seal(numbered(hostA4, hostB4, 2), 4)
	p.seq += 64
	p.inject(p.seal(numbered(hostA4, hostB4, 3), 4))
	l.b.receive(1)
	p.inject(old)
	l.b.dropped(userspace.InReplay, 3)
}

// TestRFC4301_6_ICMPErrors: reports about the SA's own traffic pass, also from
// routers that the selectors do not cover, and ESP's other direction likewise.
func TestRFC4301_6_ICMPErrors(t *testing.T) {
	l := newLab(t, nil)
	p := l.peer(nil)
	router := netip.MustParseAddr("172.16.0.1")
	quoted := numbered(hostB4, hostA4, 1)
	unreachable := ip(router, hostB4, 1, append([]byte{3, 1, 0, 0, 0, 0, 0, 0}, quoted[:28]...))
	p.inject(p.seal(unreachable, 4))
	same(t, ipsec.ModeTunnel, l.b.receive(1)[0], unreachable)
	// Echo is no error: it is judged by its own addresses.
	p.inject(p.seal(ip(router, hostB4, 1, []byte{8, 0, 0, 0, 0, 0, 0, 0}), 4))
	l.b.dropped(userspace.InSelector, 1)

	l.install(child{})
	l.a.send(ip(netip.MustParseAddr("192.168.7.1"), hostB4, 1, append([]byte{11, 0, 0, 0, 0, 0, 0, 0}, numbered(hostB4, hostA4, 1)[:28]...)))
	l.b.receive(1)
	l.a.send(ip(netip.MustParseAddr("192.168.7.1"), hostB4, 1, append([]byte{11, 0, 0, 0, 0, 0, 0, 0}, numbered(hostB4, addrA4, 1)[:28]...)))
	l.a.dropped(userspace.OutNoPolicy, 1)
}

// TestRFC4301_7_Fragments: later fragments have no ports; a selector with ports
// does not cover them, one without does.
func TestRFC4301_7_Fragments(t *testing.T) {
	ports := selectors(netA4)
	ports[0].Proto, ports[0].PortFrom, ports[0].PortTo = 17, 7000, 7000
	later := numbered(hostA4, hostB4, 1)
	later[6], later[7] = 0, 5
	later = noDF(later)
	later6 := ip(hostA6, hostB6, 44, append([]byte{17, 0, 0, 0x18, 0, 0, 0, 9}, make([]byte, 16)...))
	for _, withPorts := range []bool{true, false} {
		l := newLab(t, nil)
		p := l.peer(func(s *ipsec.SAParams) {
			if withPorts {
				s.RemoteTS = ports
			}
		})
		p.inject(p.seal(numbered(hostA4, hostB4, 1), 4))
		l.b.receive(1)
		p.inject(p.seal(later, 4))
		p.inject(p.seal(later6, 41))
		if withPorts {
			l.b.dropped(userspace.InSelector, 2)
			continue
		}
		got := l.b.receive(2)
		same(t, ipsec.ModeTunnel, got[0], later)
		same(t, ipsec.ModeTunnel, got[1], later6)
	}
}

// TestRFC7296_2_23_MappingChange is told for a fresh authentic packet from a new
// address behind a NAT, not for replays, forgeries or where no NAT was found.
func TestRFC7296_2_23_MappingChange(t *testing.T) {
	changes := func(s *side) (n int, last ipsec.MappingChange) {
		for _, e := range s.seen() {
			if m, ok := e.(ipsec.MappingChange); ok {
				n, last = n+1, m
			}
		}
		return n, last
	}
	moved := netip.MustParseAddrPort("192.0.2.1:61234")
	for _, track := range []bool{true, false} {
		l := newLab(t, nil)
		p := l.peer(func(s *ipsec.SAParams) { s.TrackNAT = track })
		home := netip.AddrPortFrom(addrA4, 4500)
		first := p.seal(numbered(hostA4, hostB4, 1), 4)
		second := p.seal(numbered(hostA4, hostB4, 2), 4)
		p.from(home, 0, bytes.Clone(second))
		l.b.receive(1)
		p.from(moved, 0, bytes.Clone(second)) // a replay
		p.from(moved, 0, bytes.Clone(first))  // genuine, held back by somebody
		l.b.receive(1)
		forged := p.seal(numbered(hostA4, hostB4, 3), 4)
		forged[30] ^= 1
		p.from(moved, 0, forged)
		l.b.until(func() bool { c := l.b.plane.Counters(); return c.Drops(userspace.InAuth) == 1 })
		if n, _ := changes(l.b); n != 0 {
			t.Fatalf("%d changes from replays and forgeries", n)
		}
		for range 3 {
			p.from(moved, 0, p.seal(numbered(hostA4, hostB4, 4), 4))
		}
		l.b.receive(3)
		n, m := changes(l.b)
		if !track {
			if n != 0 {
				t.Fatal("told where no NAT was found")
			}
			continue
		}
		if n != 1 || m.Remote != moved || m.Ref.Child != 77 {
			t.Fatalf("%d changes, %+v", n, m)
		}
		// Unanswered, it is told again, but not with every packet.
		l.now.add(3 * time.Second)
		for range 3 {
			p.from(moved, 0, p.seal(numbered(hostA4, hostB4, 4), 4))
		}
		l.b.receive(3)
		if n, _ := changes(l.b); n != 2 {
			t.Fatalf("%d changes after an unanswered one", n)
		}
		must(t, l.b.plane.UpdateSA(m.Ref, ipsec.SAUpdate{Local: netip.AddrPortFrom(addrB4, 4500), Remote: moved, Encap: true}))
		l.now.add(time.Minute)
		p.from(moved, 0, p.seal(numbered(hostA4, hostB4, 5), 4))
		l.b.receive(1)
		if n, _ := changes(l.b); n != 2 {
			t.Fatal("told again after the update")
		}
	}
}

func TestOrphansAreRateLimited(t *testing.T) {
	l := newLab(t, nil)
	p := l.peer(nil)
	b := p.seal(numbered(hostA4, hostB4, 1), 4)
	b[0] ^= 0x40
	for range 50 {
		p.inject(bytes.Clone(b))
	}
	l.b.dropped(userspace.InNoSA, 50)
	if n := len(l.b.seen()); n != userspace.LimitOrphans {
		t.Fatalf("%d orphans told", n)
	}
	l.now.add(time.Second)
	p.inject(b)
	l.b.until(func() bool { return len(l.b.seen()) == userspace.LimitOrphans+1 })
	o := l.b.seen()[0].(ipsec.Orphan)
	if o.SPI != p.spi^0x4000_0000 || o.Remote != netip.AddrPortFrom(addrA4, 4500) || o.Local.Addr() != addrB4 {
		t.Fatalf("%+v", o)
	}
}

func TestIKEAndKeepalivesPass(t *testing.T) {
	l := newLab(t, nil)
	at := func(port uint16, payload ...byte) conn.Datagram {
		return conn.Datagram{Src: netip.AddrPortFrom(addrA4, port), Dst: netip.AddrPortFrom(addrB4, port), Payload: payload}
	}
	l.net.Inject(at(500, 1, 2, 3))
	l.net.Inject(at(4500, 0, 0, 0, 0, 9, 9, 9, 9, 9))
	l.net.Inject(at(4500, 0xff))
	l.b.until(func() bool { l.b.mu.Lock(); defer l.b.mu.Unlock(); return len(l.b.ike) == 3 })
	c := l.b.plane.Counters()
	if c.IKE != 2 || c.Keepalives != 1 || !bytes.Equal(l.b.ike[1].Buf, []byte{9, 9, 9, 9, 9}) {
		t.Fatalf("%+v, %+v", c, l.b.ike)
	}
}

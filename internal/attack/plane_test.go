package attack_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"adit/dataplane/userspace"
	"adit/internal/conn"
	"adit/ipsec"
	"adit/suite"
	"adit/tun"
)

// field is a userspace data plane with the SAs of an honest and of a hostile peer,
// whose keys a test has.
type field struct {
	t      *testing.T
	net    *conn.Network
	plane  *userspace.Plane
	conn   conn.Conn
	inside *tun.Memory
	mu     sync.Mutex
	ike    int
	events []ipsec.Event
	got    chan []byte // what reached the network behind
}

// sealer makes the ESP packets of one peer.
type sealer struct {
	f    *field
	spi  uint32
	c    suite.Cipher
	from netip.AddrPort
	iv   uint64
}

var (
	honestNet  = netip.MustParseAddr("10.2.0.1")
	insideHost = netip.MustParseAddr("10.1.0.1")
	guestNet   = netip.MustParseAddr("10.9.0.1")
)

func newField(t *testing.T, change func(*ipsec.SAParams)) (f *field, honest, guest *sealer) {
	f = &field{t: t, net: conn.NewNetwork(), got: make(chan []byte, 4096)}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	h, err := f.net.Host(victimAddr)
	check(err)
	c, err := h.Listen(conn.Options{})
	check(err)
	inner, outer := tun.Pipe(9000)
	f.inside, f.conn = outer, c
	f.plane, err = userspace.New(userspace.Config{Tun: inner, Conn: c, IKE: func(*conn.Packet) { f.mu.Lock(); f.ike++; f.mu.Unlock() }})
	check(err)
	f.plane.Events(func(e ipsec.Event) { f.mu.Lock(); f.events = append(f.events, e); f.mu.Unlock() })
	make1 := func(n uint32, peer netip.Addr, remote string) *sealer {
		key := suite.Key(random(36))
		p := ipsec.SAParams{Ref: ipsec.SARef{Child: n, Dir: ipsec.In}, SPI: ipsec.SPI(0x1000 + n), Name: "net", Encap: true, ReplayWindow: 64,
			Local: netip.AddrPortFrom(victimAddr, 4500), Remote: netip.AddrPortFrom(peer, 4500),
			Encr: suite.Transform{Type: suite.TypeENCR, ID: suite.EncrAESGCM16, KeyBits: 256}, EncKey: bytes.Clone(key),
			LocalTS: selectors(t, "10.1.0.0/16"), RemoteTS: selectors(t, remote)}
		if change != nil {
			change(&p)
		}
		cipher, err := suite.NewCipher(p.Encr, suite.Transform{}, key, nil)
		check(err)
		check(f.plane.AddSA(p))
		return &sealer{f: f, spi: uint32(p.SPI), c: cipher, from: p.Remote}
	}
	honest, guest = make1(1, honestAddr, "10.2.0.0/16"), make1(2, hostileAddr, "10.9.0.0/16")
	check(f.plane.Start())
	read := make(chan struct{})
	go func() {
		defer close(read)
		for {
			bufs, sizes := [][]byte{make([]byte, 65536)}, []int{0}
			n, err := outer.Read(bufs, sizes, 0)
			if err != nil {
				return
			}
			if n > 0 {
				f.got <- bufs[0][:sizes[0]]
			}
		}
	}()
	t.Cleanup(func() {
		check(f.plane.Close())
		check(outer.Close())
		<-read
		if n := f.plane.Counters(); n.Drops(userspace.BatchPanic) != 0 {
			t.Errorf("%d batches panicked", n.Drops(userspace.BatchPanic))
		}
	})
	return f, honest, guest
}

// seal makes an ESP packet under any sequence number. high is the upper half of an
// extended one, authenticated but not sent; nil: the SA has none.
func (s *sealer) seal(seq uint32, high *uint32, text []byte, next byte) []byte {
	s.iv++
	text = bytes.Clone(text)
	n := byte(0)
	for ; (len(text)+2)%4 != 0; n++ {
		text = append(text, n+1)
	}
	text = append(text, n, next)
	b := make([]byte, 16+len(text)+16)
	binary.BigEndian.PutUint32(b, s.spi)
	binary.BigEndian.PutUint32(b[4:], seq)
	aad := b[:8]
	if high != nil {
		aad = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(bytes.Clone(b[:4]), *high), seq)
	}
	copy(b[16:], text)
	s.c.PutIV(b[8:16], s.iv)
	s.c.Seal(aad, b[8:16], b[16:16+len(text)], b[16+len(text):], nil)
	return b
}

func (f *field) inject(from netip.AddrPort, to uint16, b []byte) {
	f.net.Inject(conn.Datagram{Src: from, Dst: netip.AddrPortFrom(victimAddr, to), Payload: b})
}

// ipv4 is a UDP packet of any addresses.
func ipv4(src, dst netip.Addr, n byte) []byte {
	b := make([]byte, 32)
	b[0], b[3], b[8], b[9] = 0x45, 32, 64, 17
	copy(b[12:], src.AsSlice())
	copy(b[16:], dst.AsSlice())
	sum := uint32(0)
	for i := 0; i < 20; i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(b[10:], ^uint16(sum+sum>>16))
	b[21], b[23], b[25], b[31] = 7, 7, 12, n
	return b
}

func (f *field) drops(r userspace.Reason) uint64 { c := f.plane.Counters(); return c.Drops(r) }

// until waits for what other goroutines bring about.
func (f *field) until(what string, ok func() bool) {
	f.t.Helper()
	for end := time.Now().Add(5 * time.Second); !ok(); time.Sleep(200 * time.Microsecond) {
		if time.Now().After(end) {
			f.t.Fatalf("does not happen: %s; %s", what, f.all())
		}
	}
}

// arrives demands that the packet with this number is the next one inside.
func (f *field) arrives(n byte) {
	f.t.Helper()
	select {
	case b := <-f.got:
		if b[31] != n {
			f.t.Fatalf("packet %d arrived, want %d", b[31], n)
		}
	case <-time.After(5 * time.Second):
		f.t.Fatalf("packet %d does not arrive", n)
	}
}

// refused demands that a packet is dropped for a reason.
func (f *field) refused(r userspace.Reason, from netip.AddrPort, b []byte) {
	f.t.Helper()
	before := f.drops(r)
	f.inject(from, 4500, b)
	f.until("a drop counted as "+r.String(), func() bool { return f.drops(r) == before+1 })
}

// Datagrams of every length and content on both ports, floods of keepalives, of
// unknown and reserved SPIs: all counted, few events, and the honest peer's packets pass.
func TestRFC3948_2_HostileDatagrams(t *testing.T) {
	f, honest, _ := newField(t, nil)
	stranger := netip.AddrPortFrom(hostileAddr, 31337)
	sent := 0
	throw := func(to uint16, b []byte) {
		f.inject(stranger, to, b)
		if sent++; sent%200 == 0 { // the memory network's queue is bounded
			time.Sleep(2 * time.Millisecond)
		}
	}
	for _, port := range []uint16{500, 4500} {
		for n := range 70 {
			for _, fill := range []byte{0, 1, 0xff} {
				throw(port, bytes.Repeat([]byte{fill}, n))
			}
		}
		for _, n := range []int{1500, 9000, 65_000, 65_507} {
			throw(port, random(n))
			throw(port, make([]byte, n))
		}
	}
	for range 3000 {
		throw(4500, []byte{0xff})
	}
	for spi := range uint32(256) { // reserved (RFC 4303 §2.1); 0 is the marker of IKE
		throw(4500, append(binary.BigEndian.AppendUint32(nil, spi), random(60)...))
	}
	for range 3000 {
		throw(4500, append([]byte{1}, random(100)...))
	}
	f.until("everything is counted", func() bool {
		c := f.plane.Counters()
		return c.Keepalives >= 2500 && c.IKE > 100 && f.conn.Stats().Malformed > 10 && c.Drops(userspace.InNoSA) > 2500
	})
	f.mu.Lock()
	if len(f.events) > 200 {
		t.Errorf("%d events, which might each be answered", len(f.events))
	}
	f.mu.Unlock()
	if c := f.plane.Counters(); c.InPackets != 0 || c.SAs != 2 || c.Waiting != 0 {
		t.Errorf("%+v", c)
	}
	f.inject(honest.from, 4500, honest.seal(1, nil, ipv4(honestNet, insideHost, 1), 4))
	f.arrives(1)
}

// A guest with an SA of its own stays within its selectors, and nobody else gets in.
func TestRFC4301_5_2_NobodySpeaksForTheHonestPeer(t *testing.T) {
	f, honest, guest := newField(t, nil)
	other := netip.MustParseAddr("8.8.8.8")
	for i, c := range []struct {
		want userspace.Reason
		text []byte
		next byte
	}{
		{userspace.InSelector, ipv4(honestNet, insideHost, 1), 4},
		{userspace.InSelector, ipv4(insideHost, insideHost, 1), 4},
		{userspace.InSelector, ipv4(guestNet, other, 1), 4},
		{userspace.InSelector, ipv4(guestNet, honestNet, 1), 4},
		{userspace.InSelector, ipv4(victimAddr, insideHost, 1), 4},
		{userspace.InNextHeader, ipv4(guestNet, insideHost, 1), 17},
		{userspace.InNextHeader, ipv4(guestNet, insideHost, 1), 50},
		{userspace.InNextHeader, ipv4(guestNet, insideHost, 1), 0},
		{userspace.InMalformed, ipv4(guestNet, insideHost, 1), 41},
		{userspace.InMalformed, ipv4(guestNet, insideHost, 1)[:19], 4},
		{userspace.InMalformed, nil, 4},
		{userspace.InDummy, nil, 59},
	} {
		f.refused(c.want, guest.from, guest.seal(uint32(i+1), nil, c.text, c.next))
	}
	// A later fragment without its first one says nothing about ports, but its
	// addresses must fit as well.
	frag := ipv4(honestNet, insideHost, 1)
	frag[7] = 100
	f.refused(userspace.InSelector, guest.from, guest.seal(40, nil, fixSum(frag), 4))
	// The guest's key under the honest peer's SPI, and the other way round.
	mixed := guest.seal(41, nil, ipv4(honestNet, insideHost, 1), 4)
	binary.BigEndian.PutUint32(mixed, honest.spi)
	f.refused(userspace.InAuth, honest.from, mixed)
	if f.plane.Counters().InPackets != 0 {
		t.Error("a packet passed")
	}
	f.inject(honest.from, 4500, honest.seal(1, nil, ipv4(honestNet, insideHost, 2), 4))
	f.arrives(2)
	f.inject(guest.from, 4500, guest.seal(42, nil, ipv4(guestNet, insideHost, 3), 4))
	f.arrives(3)
	// An SA that is gone takes nothing.
	if err := f.plane.DeleteSA(ipsec.SARef{Child: 2, Dir: ipsec.In}); err != nil {
		t.Fatal(err)
	}
	f.refused(userspace.InNoSA, guest.from, guest.seal(43, nil, ipv4(guestNet, insideHost, 4), 4))
	f.inject(honest.from, 4500, honest.seal(2, nil, ipv4(honestNet, insideHost, 5), 4))
	f.arrives(5)
}

func fixSum(b []byte) []byte {
	b[10], b[11] = 0, 0
	sum := uint32(0)
	for i := 0; i < 20; i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(b[10:], ^uint16(sum+sum>>16))
	return b
}

// Replays at every edge of the window, sequence number 0, forgeries far ahead that
// would move the window if they were believed.
func TestRFC4303_3_4_3_ReplaysFromOutside(t *testing.T) {
	f, honest, _ := newField(t, nil)
	packet := func(seq uint32, n byte) []byte { return honest.seal(seq, nil, ipv4(honestNet, insideHost, n), 4) }
	f.refused(userspace.InReplay, honest.from, packet(0, 0)) // never sent (RFC 4303 §3.3.3)
	first := packet(1, 1)
	f.inject(honest.from, 4500, first)
	f.arrives(1)
	f.refused(userspace.InReplay, honest.from, first)
	far := packet(1<<31, 9)
	far[len(far)-1] ^= 1
	f.refused(userspace.InAuth, honest.from, far)
	f.inject(honest.from, 4500, packet(2, 2))
	f.arrives(2) // the forgery did not move the window
	f.inject(honest.from, 4500, packet(1000, 3))
	f.arrives(3)
	f.inject(honest.from, 4500, packet(1000-63, 4)) // the last one inside a window of 64
	f.arrives(4)
	f.refused(userspace.InReplay, honest.from, packet(1000-64, 5))
	f.refused(userspace.InReplay, honest.from, packet(1000-63, 6))
	f.refused(userspace.InReplay, honest.from, packet(1000, 7))
	f.inject(honest.from, 4500, packet(1<<32-1, 8))
	f.arrives(8)
	for _, seq := range []uint32{0, 1, 2, 1 << 31, 1000} { // without ESN nothing begins again: the SA is used up
		f.refused(userspace.InExpired, honest.from, packet(seq, 9))
	}
	if n := f.plane.Counters().InPackets; n != 5 {
		t.Errorf("%d packets passed, want 5", n)
	}
}

// With extended sequence numbers the high half is not sent: whoever guesses it, or
// replays what was sent under another one, is refused.
func TestRFC4304_A2_GuessedHighBits(t *testing.T) {
	f, honest, _ := newField(t, func(p *ipsec.SAParams) { p.ESN = true })
	packet := func(high, seq uint32, n byte) []byte {
		return honest.seal(seq, &high, ipv4(honestNet, insideHost, n), 4)
	}
	f.inject(honest.from, 4500, packet(0, 5000, 1))
	f.arrives(1)
	for _, high := range []uint32{1, 2, 1 << 31, 1<<32 - 1} {
		f.refused(userspace.InAuth, honest.from, packet(high, 5001, 2)) // taken for 0, so its checksum is wrong
	}
	f.refused(userspace.InAuth, honest.from, packet(0, 3000, 3)) // behind the window: taken for the next 2^32
	f.inject(honest.from, 4500, packet(0, 5001, 4))
	f.arrives(4)
	f.inject(honest.from, 4500, packet(1, 10, 5)) // the true next one
	f.arrives(5)
	f.refused(userspace.InAuth, honest.from, packet(0, 5002, 6))
	f.inject(honest.from, 4500, packet(1, 11, 7))
	f.arrives(7)
}

// The address of a peer follows authenticated packets that are new, where a NAT was
// found, and nothing else.
func TestRFC7296_2_23_NobodyMovesThePeer(t *testing.T) {
	f, honest, guest := newField(t, func(p *ipsec.SAParams) { p.TrackNAT = p.Ref.Child == 1 })
	away := netip.AddrPortFrom(hostileAddr, 7777)
	moves := func() (n int) {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, e := range f.events {
			if _, ok := e.(ipsec.MappingChange); ok {
				n++
			}
		}
		return n
	}
	first := honest.seal(1, nil, ipv4(honestNet, insideHost, 1), 4)
	f.inject(honest.from, 4500, first)
	f.arrives(1)
	f.refused(userspace.InReplay, away, first)
	forged := honest.seal(2, nil, ipv4(honestNet, insideHost, 2), 4)
	forged[30] ^= 1
	f.refused(userspace.InAuth, away, forged)
	f.refused(userspace.InAuth, away, append(binary.BigEndian.AppendUint32(nil, honest.spi), bytes.Repeat([]byte{9}, 64)...))
	f.inject(away, 4500, guest.seal(1, nil, ipv4(guestNet, insideHost, 3), 4)) // no NAT was found there
	f.arrives(3)
	if moves() != 0 {
		t.Errorf("moved: %v", f.events)
	}
	f.inject(away, 4500, honest.seal(3, nil, ipv4(honestNet, insideHost, 4), 4))
	f.arrives(4)
	f.until("the mapping follows", func() bool { return moves() == 1 })
}

// all is every counter that is not zero, for failures.
func (f *field) all() string {
	c := f.plane.Counters()
	text := fmt.Sprintf("%+v", c)
	for _, r := range userspace.Reasons() {
		if n := c.Drops(r); n > 0 {
			text += fmt.Sprintf(" %s=%d", r, n)
		}
	}
	return text
}

package userspace_test

import (
	"net/netip"
	"testing"
	"time"

	"adit/dataplane/userspace"
	"adit/ipsec"
)

// A client's DHCPINFORM to everybody is handed up, whatever the selectors; that of a
// sender who has not this address, of a site, or to another port is not. Floods are
// bounded. The answer goes out through the client's SA.
func TestInformOfAClient(t *testing.T) {
	l := newLab(t, nil)
	everybody := netip.MustParseAddr("255.255.255.255")
	one := func(p *ipsec.SAParams) { p.RemoteTS = selectors(netip.PrefixFrom(hostA4, 32)) }
	p := l.peer(one)
	p.inject(p.seal(udp(hostA4, everybody, 68, 67, []byte("where?")), 4))
	l.b.until(func() bool { return len(l.b.seen()) == 1 })
	x, ok := l.b.seen()[0].(ipsec.Inform)
	if !ok || x.Ref != (ipsec.SARef{Child: 77, Dir: ipsec.In}) || len(x.Packet) != 20+8+6 {
		t.Fatalf("%+v", l.b.seen()[0])
	}
	for _, b := range [][]byte{
		udp(hostA4.Next(), everybody, 68, 67, nil), // somebody else's address
		udp(hostA4, everybody, 68, 69, nil),
		udp(hostA4, everybody, 67, 67, nil),
		udp(hostA4, netip.MustParseAddr("224.0.0.1"), 68, 67, nil),
	} {
		p.inject(p.seal(b, 4))
	}
	l.b.dropped(userspace.InSelector, 4)
	for range 200 {
		p.inject(p.seal(udp(hostA4, everybody, 68, 67, nil), 4))
	}
	p.inject(p.seal(numbered(hostA4, hostB4, 1), 4))
	if got := l.b.receive(1); len(got) != 1 {
		t.Fatal("an honest packet does not pass")
	}
	if n := len(l.b.seen()); n != userspace.LimitInforms {
		t.Errorf("%d informs told", n)
	}
	if err := l.b.plane.Inject(ipsec.SARef{Child: 78, Dir: ipsec.Out}, numbered(hostB4, hostA4, 1)); err == nil {
		t.Error("a packet went into an SA that is none")
	}
}

// What is injected arrives at the other end, as far as that end's selectors let it.
func TestInject(t *testing.T) {
	l := newLab(t, nil)
	l.install(child{})
	l.now.add(time.Second)
	packet := numbered(hostB4, hostA4, 7)
	refs := 0
	for id := range uint32(16) {
		if l.b.plane.Inject(ipsec.SARef{Child: id, Dir: ipsec.Out}, packet) == nil {
			refs++
		}
	}
	if got := l.a.receive(1); refs != 1 || len(got) != 1 || string(got[0]) != string(packet) {
		t.Fatalf("%d SAs, got %x", refs, got)
	}
}

package ikev2_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/ipsec"
)

// roaming is a pair whose hosts have several addresses that come and go. A datagram
// arrives if its sender has the source, or its NAT, and the other host the destination.
type roaming struct {
	*mitm
	at      map[*host][]netip.Addr
	nat     map[netip.Addr]func(netip.AddrPort) netip.AddrPort // by the address behind it
	in      map[netip.AddrPort]netip.AddrPort                  // from outside to behind it
	cut     map[netip.Addr]bool                                // addresses that nothing reaches
	through func(*host, ike.Datagram) bool                     // the man in the middle
}

var (
	addrA2  = netip.MustParseAddr("198.51.100.7")
	addrB2  = netip.MustParseAddr("203.0.113.9")
	addrA6  = netip.MustParseAddr("2001:db8:a::1")
	addrB6  = netip.MustParseAddr("2001:db8:b::2")
	nobody  = netip.MustParseAddr("203.0.113.200")
	natOut  = netip.MustParseAddr("192.0.2.99")
	mobikes = func(a, b *side) {
		a.peer.MOBIKE, b.peer.MOBIKE = true, true
		a.peer.LocalAddrs, b.peer.LocalAddrs = nil, nil
		b.peer.RemoteAddrs = nil
	}
)

func newRoaming(t *testing.T, a, b []netip.Addr, tweak func(a, b *side)) *roaming {
	t.Helper()
	r := &roaming{mitm: newMITM(t, func(sa, sb *side) {
		mobikes(sa, sb)
		if tweak != nil {
			tweak(sa, sb)
		}
	}), nat: map[netip.Addr]func(netip.AddrPort) netip.AddrPort{}, in: map[netip.AddrPort]netip.AddrPort{}, cut: map[netip.Addr]bool{}}
	dump(t, r.pair)
	r.at = map[*host][]netip.Addr{r.a: a, r.b: b}
	for _, h := range []*host{r.a, r.b} {
		h.source = func(to netip.Addr) netip.Addr {
			for _, x := range r.at[h] {
				if x.Is4() == to.Is4() {
					return x
				}
			}
			return netip.Addr{}
		}
		h.do(ike.AddressesChanged{Own: r.at[h]})
	}
	r.through = r.filter
	r.filter = func(from *host, d ike.Datagram) bool {
		if !slices.Contains(r.at[from], d.Local.Addr()) || r.cut[d.Local.Addr()] || r.cut[d.Remote.Addr()] {
			return false
		}
		if !r.through(from, d) {
			return false
		}
		out := ike.Datagram{Local: d.Remote, Remote: d.Local, Data: slices.Clone(d.Data)}
		if f := r.nat[d.Local.Addr()]; f != nil {
			out.Remote = f(d.Local)
			r.in[out.Remote] = d.Local
		}
		if in, ok := r.in[d.Remote]; ok {
			out.Local = in
		}
		if slices.Contains(r.at[r.other(from)], out.Local.Addr()) {
			r.seq++
			r.queue = append(r.queue, packet{r.now.Add(10 * time.Millisecond), r.seq, r.other(from), out})
		}
		return false
	}
	return r
}

func (r *roaming) start() *roaming {
	r.t.Helper()
	r.a.initiate("net")
	r.run(2 * time.Second)
	r.up()
	return r
}

// moved gives a host other addresses.
func (r *roaming) moved(h *host, now ...netip.Addr) {
	r.at[h] = now
	h.do(ike.AddressesChanged{Own: now, Links: true})
}

// joined checks that both data planes send to each other's present addresses.
func (r *roaming) joined(a, b netip.Addr) {
	r.t.Helper()
	r.up()
	for _, x := range []struct {
		h             *host
		local, remote netip.Addr
	}{{r.a, a, b}, {r.b, b, a}} {
		i := x.h.e.SAs()[0]
		if i.Local.Addr() != x.local || i.Remote.Addr() != x.remote {
			r.t.Errorf("%s: the IKE SA is at %v to %v, want %v to %v", x.h.name, i.Local, i.Remote, x.local, x.remote)
		}
		for ref, sa := range x.h.plane.sas {
			if sa.Local.Addr() != x.local || sa.Remote.Addr() != x.remote {
				r.t.Errorf("%s: SA %v is at %v to %v, want %v to %v", x.h.name, ref, sa.Local, sa.Remote, x.local, x.remote)
			}
		}
	}
}

func count(h *host, part string) (n int) {
	for _, m := range eventsOf[ike.Message](h) {
		if m.Out && strings.Contains(m.Summary, part) {
			n++
		}
	}
	return n
}

// MOBIKE is agreed on in IKE_AUTH by both or not at all; with it both are at port 4500
// though no NAT is there.
func TestRFC4555_3_2_BothSidesAnnounce(t *testing.T) {
	for name, on := range map[string][2]bool{"both": {true, true}, "initiator": {true, false}, "responder": {false, true}, "none": {}} {
		t.Run(name, func(t *testing.T) {
			r := newRoaming(t, []netip.Addr{addrA, addrA6}, []netip.Addr{addrB, addrB2}, func(a, b *side) { a.peer.MOBIKE, b.peer.MOBIKE = on[0], on[1] }).start()
			port := uint16(500)
			if on[0] {
				port = 4500 // RFC 4555 §3.3: it cannot know yet whether the peer agrees
			}
			if i := r.b.e.SAs()[0]; i.Local.Port() != port || i.Remote.Port() != port || i.Encap {
				t.Errorf("%+v", i)
			}
			for i, h := range []*host{r.a, r.b} {
				want := 0
				if on[0] && (i == 0 || on[1]) {
					want = 1
				}
				if n := count(h, "MOBIKE_SUPPORTED"); n != want {
					t.Errorf("%s says MOBIKE_SUPPORTED %d times, want %d", h.name, n, want)
				}
			}
			if n := count(r.a, "ADDITIONAL_IP6_ADDRESS"); n != map[bool]int{true: 1}[on[0]] {
				t.Errorf("%d times ADDITIONAL_IP6_ADDRESS", n)
			}
			r.moved(r.a, addrA2)
			r.run(3 * time.Second)
			if on[0] && on[1] {
				r.joined(addrA2, addrB)
			} else if i := r.b.e.SAs()[0]; i.Remote.Addr() != addrA {
				t.Errorf("moved without MOBIKE: %v", i.Remote)
			}
		})
	}
}

// The initiator's address changes: one UPDATE_SA_ADDRESSES, the responder's check, and
// only then the responder's data goes to the new address.
func TestRFC4555_3_5_InitiatorMoves(t *testing.T) {
	r := newRoaming(t, []netip.Addr{addrA}, []netip.Addr{addrB}, nil).start()
	checked := false
	r.b.onEach = func(f ike.Effect) {
		switch f := f.(type) {
		case ike.Emit:
			if m, ok := f.Event.(ike.Message); ok && !m.Out && m.Response && strings.Contains(m.Summary, "COOKIE2") {
				checked = true
			}
		case ike.UpdateChild:
			if f.Update.Remote.Addr() == addrA2 && !checked {
				t.Error("data goes to the new address before the peer has shown that it is there")
			}
		}
	}
	r.moved(r.a, addrA2)
	r.run(time.Second)
	r.joined(addrA2, addrB)
	if n := count(r.a, "UPDATE_SA_ADDRESSES"); n != 1 || !checked {
		t.Errorf("%d updates, checked %v", n, checked)
	}
	for _, h := range []*host{r.a, r.b} {
		if m := eventsOf[ike.Moved](h); len(m) != 1 || m[0].SA.Remote == m[0].Old && m[0].SA.Local == m[0].OldLocal {
			t.Errorf("%s: Moved %+v", h.name, m)
		}
	}
	// Rekeys of either kind, by either side, keep it; the responder's makes it the initiator.
	r.b.onEach = nil
	for i, h := range []*host{r.a, r.b, r.a} {
		h.do(ike.Rekey{IKE: h.name})
		h.do(ike.Rekey{Child: "net"})
		r.run(20 * time.Second)
		to := []netip.Addr{addrA, addrA2, addrA}[i]
		r.moved(r.a, to)
		r.run(2 * time.Second)
		r.joined(to, addrB)
	}
}

// From IPv4 to IPv6 and back, as addresses of either family go.
func TestRFC4555_3_5_BothFamilies(t *testing.T) {
	r := newRoaming(t, []netip.Addr{addrA, addrA6}, []netip.Addr{addrB, addrB6}, nil).start()
	r.moved(r.a, addrA6)
	r.run(2 * time.Second)
	r.joined(addrA6, addrB6)
	r.moved(r.a, addrA2)
	r.run(2 * time.Second)
	r.joined(addrA2, addrB)
}

// An address changes while a request is in flight: it is repeated at once over the new
// path, and the update follows it, in the new IKE SA if that was rekeyed.
func TestRFC4555_3_5_ChangeInMidExchange(t *testing.T) {
	for name, c := range map[string]ike.Rekey{"IKE SA": {IKE: "a"}, "Child SA": {Child: "net"}} {
		for _, lost := range []string{"request", "answer"} {
			t.Run(name+", "+lost, func(t *testing.T) {
				r := newRoaming(t, []netip.Addr{addrA}, []netip.Addr{addrB}, nil).start()
				if lost == "request" {
					r.at[r.a] = []netip.Addr{addrA2} // nothing leaves any more
				}
				r.a.do(c)
				r.run(15 * time.Millisecond)
				r.moved(r.a, addrA2)
				r.run(10 * time.Second) // the replaced Child SA is kept for a while
				r.joined(addrA2, addrB)
				if r.a.e.Stats().RekeysIKE+r.a.e.Stats().RekeysChild != 1 {
					t.Error("not rekeyed")
				}
			})
		}
	}
}

// Addresses that change faster than they can be told: only the last one counts.
func TestRFC4555_3_5_ChangesOverChanges(t *testing.T) {
	r := newRoaming(t, []netip.Addr{addrA}, []netip.Addr{addrB}, nil).start()
	for range 20 {
		for _, a := range []netip.Addr{addrA2, addrA} {
			r.moved(r.a, a)
			r.run(7 * time.Millisecond)
		}
	}
	r.moved(r.a, addrA2)
	r.run(3 * time.Second)
	r.joined(addrA2, addrB)
}

// The responder's address changes: it tells, and the initiator moves.
func TestRFC4555_3_6_ResponderMoves(t *testing.T) {
	for name, to := range map[string]netip.Addr{"known": addrB2, "unknown": nobody} {
		t.Run(name, func(t *testing.T) {
			r := newRoaming(t, []netip.Addr{addrA}, []netip.Addr{addrB, addrB2}, nil).start()
			r.moved(r.b, to)
			r.run(2 * time.Second)
			r.joined(addrA, to)
			if count(r.a, "UPDATE_SA_ADDRESSES") == 0 {
				t.Error("the initiator did not decide")
			}
		})
	}
	t.Run("more addresses", func(t *testing.T) {
		r := newRoaming(t, []netip.Addr{addrA}, []netip.Addr{addrB}, nil).start()
		r.moved(r.b, addrB, addrB2)
		r.run(time.Second)
		r.moved(r.b, addrB)
		r.run(time.Second)
		if count(r.b, "ADDITIONAL_IP4_ADDRESS") != 1 || count(r.b, "NO_ADDITIONAL_ADDRESSES") != 1 {
			t.Error("the list was not told anew")
		}
		r.joined(addrA, addrB)
	})
}

// The responder's address is replaced: for a moment it is gone, and what is left leads
// nowhere. An address that only the tunnel leads to is no way out, and with the new address
// the responder is back at the peer.
func TestRFC4555_3_6_ResponderMovesTwice(t *testing.T) {
	inside, ours := netip.MustParseAddr("fd01::1"), netip.MustParseAddr("fd02::1")
	for name, way := range map[string]func(to netip.Addr) netip.Addr{
		"a dead path": func(to netip.Addr) netip.Addr { return map[bool]netip.Addr{false: addrB6}[to.Is4()] },
		"no path":     func(to netip.Addr) netip.Addr { return map[netip.Addr]netip.Addr{inside: ours}[to] },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoaming(t, []netip.Addr{addrA, addrA6}, []netip.Addr{addrB, addrB6}, func(a, b *side) {
				left, right := sel("fd01::/64"), sel("fd02::/64")
				a.child.Local, a.child.Remote = append(a.child.Local, left), append(a.child.Remote, right)
				b.child.Local, b.child.Remote = append(b.child.Local, right), append(b.child.Remote, left)
			})
			r.change = func(from *host, h *wire.Header, list []wire.Payload) []wire.Payload {
				if from == r.a && h.Exchange == wire.ExchangeIKEAuth {
					list = append(list, &wire.Notify{NotifyType: wire.AdditionalIP6Address, Data: inside.AsSlice()})
				}
				return list
			}
			through := r.through
			r.through = func(from *host, d ike.Datagram) bool {
				if d.Remote.Addr() == inside {
					t.Errorf("%s sends to an inside address: %v to %v", from.name, d.Local, d.Remote)
				}
				return through(from, d)
			}
			r.start()
			r.cut[addrA6] = true
			usual := r.b.source
			r.b.source = way
			r.moved(r.b, addrB6)
			r.run(time.Second)
			r.b.source = usual
			r.moved(r.b, addrB2, addrB6)
			r.run(5 * time.Second)
			r.joined(addrA, addrB2)
		})
	}
}

// A path fails without a word of the host: a check of liveness goes over all others.
func TestRFC4555_3_10_DeadPath(t *testing.T) {
	r := newRoaming(t, []netip.Addr{addrA, addrA6}, []netip.Addr{addrB, addrB2, addrB6}, func(a, b *side) { a.peer.DPDDelay = 5 * time.Second }).start()
	r.cut[addrB] = true
	r.run(12 * time.Second)
	r.joined(addrA, addrB2)
	r.cut[addrA] = true
	r.run(15 * time.Second)
	r.joined(addrA6, addrB6)
}

// Both ends change at once, the responder to an address that the initiator knows of.
func TestRFC4555_3_5_BothMove(t *testing.T) {
	r := newRoaming(t, []netip.Addr{addrA}, []netip.Addr{addrB, addrB2}, nil).start()
	r.at[r.a], r.at[r.b] = []netip.Addr{addrA2}, []netip.Addr{addrB2}
	r.a.do(ike.AddressesChanged{Own: r.at[r.a], Links: true})
	r.b.do(ike.AddressesChanged{Own: r.at[r.b], Links: true})
	r.run(10 * time.Second)
	r.joined(addrA2, addrB2)
}

// Without any path the IKE SA waits, however long, and goes on where the host comes back.
func TestRFC4555_3_11_NoPathForLong(t *testing.T) {
	r := newRoaming(t, []netip.Addr{addrA}, []netip.Addr{addrB}, func(a, b *side) { a.peer.DPDDelay = 10 * time.Second }).start()
	r.moved(r.a)
	r.a.source = func(netip.Addr) netip.Addr { return netip.Addr{} }
	r.run(20 * time.Minute)
	if n := count(r.a, "INFORMATIONAL"); n > 3 {
		t.Errorf("%d messages into nothing", n)
	}
	r.at[r.a] = []netip.Addr{addrA2}
	r.a.source = func(netip.Addr) netip.Addr { return addrA2 }
	r.moved(r.a, addrA2)
	r.run(2 * time.Second)
	r.joined(addrA2, addrB)
}

// A NAT appears, forgets its mapping, and vanishes, always with the initiator's address
// as it was: a check of liveness notices.
func TestRFC4555_3_8_NAT(t *testing.T) {
	r := newRoaming(t, []netip.Addr{addrA}, []netip.Addr{addrB}, func(a, b *side) {
		a.peer.DPDDelay, a.config.KeepAlive = 5*time.Second, 2*time.Second
	}).start()
	port := uint16(20000)
	box := func(d netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(natOut, port+d.Port()) }
	state := func(nat bool, remote netip.AddrPort) {
		t.Helper()
		r.run(12 * time.Second)
		r.up()
		a, b := r.a.e.SAs()[0], r.b.e.SAs()[0]
		if a.NATLocal != nat || b.NATRemote != nat || a.Encap != nat || b.Encap != nat || b.Remote != remote {
			t.Errorf("a %+v\nb %+v\nwant a NAT %v at %v", a, b, nat, remote)
		}
		for ref, sa := range r.b.plane.sas {
			if sa.Remote != remote || sa.Encap != nat || sa.TrackNAT != nat {
				t.Errorf("b: %v to %v, UDP %v, tracks %v", ref, sa.Remote, sa.Encap, sa.TrackNAT)
			}
		}
	}
	state(false, netip.AddrPortFrom(addrA, 4500))
	r.nat[addrA] = box
	state(true, netip.AddrPortFrom(natOut, 24500))
	before := len(r.a.sent)
	r.run(time.Minute)
	if !slices.ContainsFunc(r.a.sent[before:], func(d ike.Datagram) bool { return len(d.Data) == 1 }) {
		t.Error("no keepalives behind a NAT that has appeared")
	}
	port = 30000
	state(true, netip.AddrPortFrom(natOut, 34500))
	delete(r.nat, addrA)
	clear(r.in)
	state(false, netip.AddrPortFrom(addrA, 4500))
}

// ESP from another port of the same address moves the peer at once; from another address
// it is a reason to ask there, and no more if nobody answers.
func TestRFC4555_3_8_MappingOfESP(t *testing.T) {
	r := newRoaming(t, []netip.Addr{addrA}, []netip.Addr{addrB}, nil)
	port, out := uint16(20000), natOut
	r.nat[addrA] = func(d netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(out, port+d.Port()) }
	r.start()
	esp := func(from netip.AddrPort) {
		r.b.e.Dataplane(r.now, ipsec.MappingChange{Ref: ipsec.SARef{Child: r.b.e.SAs()[0].Children[0].ID, Dir: ipsec.In}, Remote: from})
		r.b.drain()
	}
	is := func(want netip.AddrPort) {
		t.Helper()
		if got := r.b.e.SAs()[0].Remote; got != want {
			t.Errorf("b is at %v, want %v", got, want)
		}
		for ref, sa := range r.b.plane.sas {
			if sa.Remote != want {
				t.Errorf("%v goes to %v, want %v", ref, sa.Remote, want)
			}
		}
	}
	port = 30000
	r.in[netip.AddrPortFrom(out, 34500)] = netip.AddrPortFrom(addrA, 4500)
	esp(netip.AddrPortFrom(out, 34500))
	is(netip.AddrPortFrom(out, 34500))
	esp(netip.AddrPortFrom(nobody, 4500))
	r.run(time.Minute)
	is(netip.AddrPortFrom(out, 34500))
	out = addrA2
	r.in[netip.AddrPortFrom(out, 34500)] = netip.AddrPortFrom(addrA, 4500)
	esp(netip.AddrPortFrom(out, 34500))
	r.run(time.Second)
	is(netip.AddrPortFrom(out, 34500))
}

// After a sleep every peer is asked at once, with MOBIKE or without, by either side.
func TestAskedAfterSleep(t *testing.T) {
	for _, on := range []bool{true, false} {
		r := newRoaming(t, []netip.Addr{addrA}, []netip.Addr{addrB}, func(a, b *side) { a.peer.MOBIKE, b.peer.MOBIKE = on, on }).start()
		for _, h := range []*host{r.a, r.b} {
			had := count(h, "INFORMATIONAL request")
			h.do(ike.AddressesChanged{Own: r.at[h], Slept: true})
			if n := count(h, "INFORMATIONAL request") - had; n != 1 {
				t.Errorf("MOBIKE %v, %s: %d checks after a sleep", on, h.name, n)
			}
			r.run(time.Second)
		}
	}
}

// Transport mode's selectors are the addresses: such a Child SA is made anew.
func TestTransportModeIsMadeAnew(t *testing.T) {
	r := newRoaming(t, []netip.Addr{addrA}, []netip.Addr{addrB}, func(a, b *side) {
		for _, c := range []*ike.Child{a.child, b.child} {
			c.Mode, c.Local, c.Remote = ipsec.ModeTransport, []ipsec.Selector{ipsec.Dynamic()}, []ipsec.Selector{ipsec.Dynamic()}
		}
	}).start()
	r.moved(r.a, addrA2)
	r.run(5 * time.Second)
	r.joined(addrA2, addrB)
	if ts := r.b.e.SAs()[0].Children[0].RemoteTS; len(ts) != 1 || ts[0].From != addrA2 {
		t.Errorf("selectors %v", ts)
	}
}

// What a peer says is bounded; nonsense in it is left out.
func TestRFC4555_3_4_FloodOfAddresses(t *testing.T) {
	r := newRoaming(t, []netip.Addr{addrA}, []netip.Addr{addrB}, nil).start()
	var list []wire.Payload
	for i := range 45 { // with what follows as many notifies as a message may have
		list = append(list, &wire.Notify{NotifyType: wire.AdditionalIP4Address, Data: []byte{203, 0, byte(i >> 8), byte(i)}})
	}
	for _, data := range [][]byte{nil, {1}, {0, 0, 0, 0}, {224, 0, 0, 1}, {255, 255, 255, 255}, {127, 0, 0, 1}, make([]byte, 16)} {
		list = append([]wire.Payload{&wire.Notify{NotifyType: wire.AdditionalIP4Address, Data: data}, &wire.Notify{NotifyType: wire.AdditionalIP6Address, Data: data}}, list...)
	}
	s := r.b.e.SAs()[0]
	h := wire.Header{SPIi: s.SPIi, SPIr: s.SPIr, Version: wire.IKEv2, Exchange: wire.ExchangeInformational}
	r.a.e.Datagram(r.now, ike.Datagram{Local: netip.AddrPortFrom(addrA, 4500), Remote: netip.AddrPortFrom(addrB, 4500), Data: r.seal(h, list)})
	r.a.drain()
	r.cut[addrB] = true
	asked, sent := 0, len(r.a.sent)
	r.a.onEach = func(f ike.Effect) {
		if q, ok := f.(ike.Ask); ok {
			if p, ok := q.Question.(ike.Paths); ok {
				asked = max(asked, len(p.Remotes))
				for _, x := range p.Remotes {
					if x.IsMulticast() || x.IsUnspecified() || x.IsLoopback() {
						t.Errorf("asks for a path to %v", x)
					}
				}
			}
		}
	}
	r.a.do(ike.Rekey{Child: "net"})
	r.run(5 * time.Minute)
	if n := len(r.a.sent) - sent; asked == 0 || asked > 17 || n > 60 {
		t.Errorf("%d addresses asked for, %d datagrams sent", asked, n)
	}
}

// Both sides rekey the IKE SA at once, the answer to the responder's rekey is lost, and
// the initiator moves: it is told in the IKE SA that the responder still knows.
func TestRFC4555_3_5_MoveAfterALostAnswer(t *testing.T) {
	for range 6 { // either nonce may be the lower one
		r := newRoaming(t, []netip.Addr{addrA}, []netip.Addr{addrB}, nil).start()
		through, lost := r.filter, false
		r.filter = func(from *host, d ike.Datagram) bool {
			if h := header(t, d); from == r.a && h.Exchange == wire.ExchangeCreateChildSA && h.Response() && !lost {
				lost = true
				return false
			}
			return through(from, d)
		}
		r.b.do(ike.Rekey{IKE: "b"})
		r.a.do(ike.Rekey{IKE: "a"})
		r.run(15 * time.Millisecond)
		r.moved(r.a, addrA2)
		r.run(3 * time.Second)
		for ref, sa := range r.b.plane.sas {
			if sa.Remote.Addr() != addrA2 {
				t.Errorf("b: %v goes to %v", ref, sa.Remote)
			}
		}
		r.run(70 * time.Second) // a redundant IKE SA is kept for a minute
		r.joined(addrA2, addrB)
		if !lost {
			t.Fatal("no answer was lost")
		}
	}
}

package ikev2_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/ipsec"
)

// says has one host's key holder send an INFORMATIONAL request by hand, from any address.
func (r *roaming) says(from *host, src netip.AddrPort, id uint32, list ...wire.Payload) {
	to := r.other(from)
	s := to.e.SAs()[0]
	h := wire.Header{SPIi: s.SPIi, SPIr: s.SPIr, Version: wire.IKEv2, Exchange: wire.ExchangeInformational, MessageID: id}
	if !s.Initiator {
		h.Flags = wire.FlagInitiator
	}
	to.e.Datagram(r.now, ike.Datagram{Local: s.Local, Remote: src, Data: r.seal(h, list)})
	to.drain()
}

func note(t wire.NotifyType, data []byte) *wire.Notify {
	return &wire.Notify{NotifyType: t, Data: data}
}

// never fails the test if data of h is ever sent to the address.
func (r *roaming) never(h *host, victim netip.Addr) {
	h.onEach = func(f ike.Effect) {
		if u, ok := f.(ike.UpdateChild); ok && u.Update.Remote.Addr() == victim {
			r.t.Errorf("%s turns its data on %v", h.name, victim)
		}
		if u, ok := f.(ike.InstallChild); ok && u.Out.Remote.Addr() == victim {
			r.t.Errorf("%s makes a Child SA towards %v", h.name, victim)
		}
	}
}

// A peer with good keys turns the gateway's data on a victim: the victim gets a few
// checks, and not one packet of data, Child SAs of that time included.
func TestRFC4555_5_3_ThirdPartyBombing(t *testing.T) {
	victim := netip.AddrPortFrom(nobody, 4500)
	r := newRoaming(t, []netip.Addr{addrA}, []netip.Addr{addrB}, nil).start()
	r.never(r.b, nobody)
	sent := len(r.b.sent)
	r.says(r.a, victim, 2, note(wire.UpdateSAAddresses, nil))
	r.says(r.a, victim, 3, note(wire.UpdateSAAddresses, nil))
	r.b.do(ike.Rekey{Child: "net"})
	r.run(10 * time.Minute)
	to := 0
	for _, d := range r.b.sent[sent:] {
		if d.Remote == victim {
			to++
		}
	}
	if to == 0 || to > 12 {
		t.Errorf("%d messages to the victim", to)
	}
	if n := len(r.b.e.SAs()); n != 0 {
		t.Errorf("%d IKE SAs with a peer that answers no check", n)
	}
}

// The answer to the check is not to be guessed: one with another cookie, or none, ends it.
func TestRFC4555_3_7_WrongCookie(t *testing.T) {
	for name, data := range map[string][]byte{"other": make([]byte, 32), "shorter": make([]byte, 31), "none": nil} {
		t.Run(name, func(t *testing.T) {
			r := newRoaming(t, []netip.Addr{addrA}, []netip.Addr{addrB}, nil).start()
			r.never(r.b, addrA2)
			r.change = func(from *host, h *wire.Header, p []wire.Payload) []wire.Payload {
				if from == r.a && h.Response() {
					p = slices.DeleteFunc(p, func(x wire.Payload) bool { n, ok := x.(*wire.Notify); return ok && n.NotifyType == wire.Cookie2 })
					if data != nil {
						p = append(p, note(wire.Cookie2, data))
					}
				}
				return append([]wire.Payload{}, p...)
			}
			r.filter = r.through
			r.moved(r.a, addrA2)
			r.run(5 * time.Second)
			if down := eventsOf[ike.IKEDown](r.b); len(down) != 1 || down[0].Reason != "return routability check failed" {
				t.Errorf("%+v", down)
			}
		})
	}
}

// The responder announces a victim: the initiator's data stays away until the address
// has answered with the cookie.
func TestRFC4555_3_7_ResponderAnnouncesAVictim(t *testing.T) {
	r := newRoaming(t, []netip.Addr{addrA}, []netip.Addr{addrB}, nil).start()
	r.never(r.a, nobody)
	r.says(r.b, netip.AddrPortFrom(nobody, 4500), 0, note(wire.NoAdditionalAddresses, nil))
	r.a.do(ike.Rekey{Child: "net"})
	r.run(20 * time.Second)
	for ref, sa := range r.a.plane.sas {
		if sa.Remote.Addr() == nobody {
			t.Errorf("%v goes to %v", ref, sa.Remote)
		}
	}
}

// Whoever has no keys moves nothing; nor does a genuine update that is repeated from
// elsewhere, or whose bytes are changed.
func TestRFC4555_5_1_ForgedUpdates(t *testing.T) {
	r := newRoaming(t, []netip.Addr{addrA}, []netip.Addr{addrB}, nil).start()
	var update []byte
	r.a.onEach = func(f ike.Effect) {
		if s, ok := f.(ike.Send); ok && update == nil {
			update = slices.Clone(s.Data)
		}
	}
	r.moved(r.a, addrA2)
	r.run(time.Second)
	r.joined(addrA2, addrB)
	r.never(r.b, nobody)
	for i := range len(update) + 1 {
		b := slices.Clone(update)
		if i < len(b) {
			b[i] ^= 0x40
		}
		r.b.e.Datagram(r.now, ike.Datagram{Local: netip.AddrPortFrom(addrB, 4500), Remote: netip.AddrPortFrom(nobody, 4500), Data: b})
		r.b.drain()
	}
	r.run(time.Minute)
	r.joined(addrA2, addrB)
}

// Only the initiator of the first IKE SA moves it; its messages that are no update move
// nothing either; nor does it go to addresses that are nobody's or the gateway's own.
func TestRFC4555_3_5_WhoMayMove(t *testing.T) {
	r := newRoaming(t, []netip.Addr{addrA}, []netip.Addr{addrB, addrB2}, nil).start()
	r.never(r.a, nobody)
	r.says(r.b, netip.AddrPortFrom(nobody, 4500), 0, note(wire.UpdateSAAddresses, nil))
	r.run(time.Second)
	r.joined(addrA, addrB)
	r.says(r.a, netip.AddrPortFrom(nobody, 4500), 2)
	if s := r.b.e.SAs()[0]; s.Remote.Addr() != addrA {
		t.Errorf("an empty request moved the peer to %v", s.Remote)
	}
	for i, victim := range []netip.Addr{addrB2, addrB, netip.MustParseAddr("224.0.0.5"), netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("255.255.255.255")} {
		r.says(r.a, netip.AddrPortFrom(victim, 4500), uint32(3+i), note(wire.UpdateSAAddresses, nil))
		if s := r.b.e.SAs()[0]; s.Remote.Addr() != addrA {
			t.Errorf("moved to %v", s.Remote)
		}
		if n := count(r.b, "UNACCEPTABLE_ADDRESSES"); n != i+1 {
			t.Errorf("%v: %d times UNACCEPTABLE_ADDRESSES", victim, n)
		}
	}
}

// NO_NATS_ALLOWED that does not fit the packet moves nothing; one that fits does.
func TestRFC4555_3_9_NATProhibition(t *testing.T) {
	r := newRoaming(t, []netip.Addr{addrA}, []netip.Addr{addrB}, nil).start()
	src, dst := netip.AddrPortFrom(addrA2, 4500), netip.AddrPortFrom(addrB, 4500)
	fits := append(append(src.Addr().AsSlice(), dst.Addr().AsSlice()...), 4500>>8, 4500&255, 4500>>8, 4500&255)
	for i, data := range [][]byte{nil, fits[:11], make([]byte, 12), append(slices.Clone(fits), 0)} {
		r.says(r.a, src, uint32(2+i), note(wire.UpdateSAAddresses, nil), note(wire.NoNATsAllowed, data))
		if n := count(r.b, "UNEXPECTED_NAT_DETECTED"); n != i+1 || r.b.e.SAs()[0].Remote.Addr() != addrA {
			t.Errorf("%x: %d times UNEXPECTED_NAT_DETECTED", data, n)
		}
	}
	r.says(r.a, src, 6, note(wire.UpdateSAAddresses, nil), note(wire.NoNATsAllowed, fits))
	if s := r.b.e.SAs()[0]; s.Remote != src {
		t.Errorf("not moved: %v", s.Remote)
	}
}

// The initiator's answer to refusals: another path, a few repetitions, an end.
func TestRFC4555_3_5_Refused(t *testing.T) {
	answer := func(r *roaming, n wire.NotifyType, when func(h *wire.Header) bool) {
		r.change = func(from *host, h *wire.Header, p []wire.Payload) []wire.Payload {
			if from == r.b && h.Response() && wire.FindNotify(p, wire.Cookie2) != nil && when(h) {
				return []wire.Payload{p[0], note(n, nil)}
			}
			return append([]wire.Payload{}, p...)
		}
	}
	t.Run("unacceptable, once", func(t *testing.T) {
		r := newRoaming(t, []netip.Addr{addrA}, []netip.Addr{addrB, addrB2}, nil).start()
		done := false
		answer(r, wire.UnacceptableAddresses, func(*wire.Header) bool { was := done; done = true; return !was })
		r.filter = r.through
		r.moved(r.a, addrA2)
		r.run(5 * time.Second)
		if s := r.a.e.SAs(); len(s) != 1 || s[0].Remote.Addr() != addrB2 || s[0].Local.Addr() != addrA2 {
			t.Errorf("%+v", s)
		}
	})
	t.Run("unacceptable, always", func(t *testing.T) {
		r := newRoaming(t, []netip.Addr{addrA}, []netip.Addr{addrB, addrB2}, nil).start()
		answer(r, wire.UnacceptableAddresses, func(*wire.Header) bool { return true })
		r.filter = r.through
		r.moved(r.a, addrA2)
		r.run(20 * time.Second)
		if down := eventsOf[ike.IKEDown](r.a); len(down) != 1 || count(r.a, "UPDATE_SA_ADDRESSES") > 8 {
			t.Errorf("%d updates, %+v", count(r.a, "UPDATE_SA_ADDRESSES"), down)
		}
	})
	t.Run("NAT", func(t *testing.T) {
		r := newRoaming(t, []netip.Addr{addrA}, []netip.Addr{addrB}, nil).start()
		answer(r, wire.UnexpectedNATDetected, func(*wire.Header) bool { return true })
		r.filter = r.through
		r.moved(r.a, addrA2)
		r.run(20 * time.Second)
		if n := count(r.a, "UPDATE_SA_ADDRESSES"); n != 6 || len(eventsOf[ike.IKEDown](r.a)) != 1 {
			t.Errorf("%d updates, down %+v", n, eventsOf[ike.IKEDown](r.a))
		}
	})
}

// A NAT's new mapping that ESP tells of at the initiator is no reason to go elsewhere.
func TestMappingAtTheInitiator(t *testing.T) {
	r := newRoaming(t, []netip.Addr{addrA}, []netip.Addr{addrB}, func(a, b *side) { b.config.ForceEncap = true }).start()
	r.never(r.a, nobody)
	r.a.e.Dataplane(r.now, ipsec.MappingChange{Ref: ipsec.SARef{Child: r.a.e.SAs()[0].Children[0].ID, Dir: ipsec.In}, Remote: netip.AddrPortFrom(nobody, 4500)})
	r.a.drain()
	r.run(time.Minute)
	r.joined(addrA, addrB)
}

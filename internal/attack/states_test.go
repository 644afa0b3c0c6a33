package attack_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"adit/ike"
	"adit/ike/wire"
)

// Every exchange, request and response, of either role, under the message IDs that
// could matter, in the clear and with a checksum that is wrong, against an IKE SA in
// every state: nothing moves, everything is counted, hardly anything is answered.
func TestEveryForgedMessageInEveryState(t *testing.T) {
	type stage struct {
		name string
		// make brings an IKE SA of the victim into the state, and says where its
		// peer is, and what goes on afterwards.
		make func(w *world) (p *hostile, after func())
	}
	fails := func(w *world, what string) {
		w.t.Errorf("%s does not go on after the forgeries: %v", what, w.v.rejections)
	}
	for _, c := range []stage{
		{"init received", func(w *world) (*hostile, func()) {
			p := w.guest()
			p.init()
			return p, func() {
				if _, ok := wire.First[*wire.Auth](p.ask(wire.ExchangeIKEAuth, p.authPayloads()...)); !ok {
					fails(w, "IKE_AUTH")
				}
			}
		}},
		{"established", func(w *world) (*hostile, func()) {
			p := w.guest().established()
			return p, func() {
				if p.ask(wire.ExchangeInformational) == nil {
					fails(w, "INFORMATIONAL")
				}
			}
		}},
		{"auth sent", func(w *world) (*hostile, func()) {
			p, first := w.outgoing("x25519")
			auth := p.answer(first, p.honestReply(first))
			return p, func() {
				p.answer(auth[0], p.honestAuth(auth[0]))
				if over, err := w.over(); !over || err != nil {
					fails(w, fmt.Sprint("the attempt ", err))
				}
			}
		}},
		{"closing", func(w *world) (*hostile, func()) {
			p := w.guest().established()
			w.v.do(ike.Terminate{ID: 9, IKE: "guest"})
			return p, func() {
				w.inject(p.at, p.to, p.seal(p.header(wire.ExchangeInformational, 0, true)))
				if len(w.v.done) == 0 {
					fails(w, "the Delete")
				}
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, nil)
			p, after := c.make(w)
			before, sent := w.v.e.Stats(), len(w.out)
			n := uint64(0)
			for x := wire.ExchangeType(0); x < 64; x++ {
				for flags := range wire.Flags(8) {
					for _, id := range []uint32{0, 1, 2, 1<<32 - 1} {
						h := wire.Header{SPIi: p.spiI, SPIr: p.spiR, Version: wire.IKEv2, Exchange: x, MessageID: id, Flags: flags << 3}
						for _, b := range [][]byte{
							wire.AppendMessage(nil, h, []wire.Payload{&wire.Delete{Protocol: wire.ProtocolIKE}, notify(wire.AuthenticationFailed, nil)}),
							append(wire.AppendEncrypted(nil, h, nil, wire.Encrypted{Type: wire.PayloadSK, FirstInner: wire.PayloadDelete}, 64), make([]byte, 64)...),
							append(wire.AppendEncrypted(nil, h, []wire.Payload{notify(wire.InvalidSyntax, nil)}, wire.Encrypted{Type: wire.PayloadSK, FirstInner: wire.PayloadDelete}, 64), make([]byte, 64)...),
							append(wire.AppendEncrypted(nil, h, nil, wire.Encrypted{Type: wire.PayloadSKF, FirstInner: wire.PayloadDelete, FragmentNumber: 1, TotalFragments: 65535}, 64), make([]byte, 64)...),
						} {
							n++
							w.inject(p.at, p.to, b)
						}
					}
				}
			}
			st := w.v.e.Stats()
			total := uint64(0)
			for r, k := range st.Dropped {
				total += k - before.Dropped[r]
			}
			if total != n {
				t.Errorf("%d of %d forgeries were counted: %v", total, n, st.Dropped)
			}
			if len(w.out)-sent != 0 {
				t.Errorf("%d answers to %d forgeries", len(w.out)-sent, n)
			}
			if st.SAs != before.SAs || st.Established != before.Established || st.Children != before.Children {
				t.Errorf("%+v became %+v", before, st)
			}
			after()
			w.honest()
		})
	}
}

// The IKE SA of the honest peer under the forgeries of somebody who has seen its
// SPIs, from the peer's address and from elsewhere, while it rekeys.
func TestForgeriesAgainstTheHonestPeer(t *testing.T) {
	w := newWorld(t, nil)
	for round := range 5 {
		s := w.v.e.SAs()[0]
		for x := wire.ExchangeType(34); x < 45; x++ {
			for flags := range wire.Flags(8) {
				for id := range uint32(6) {
					h := wire.Header{SPIi: s.SPIi, SPIr: s.SPIr, Version: wire.IKEv2, Exchange: x, MessageID: id, Flags: flags << 3}
					b := wire.AppendMessage(nil, h, []wire.Payload{&wire.Delete{Protocol: wire.ProtocolIKE}, notify(wire.InvalidSyntax, nil)})
					for _, to := range []netip.Addr{victimAddr, honestAddr} {
						from := netip.AddrPortFrom(honestAddr, 500)
						if to == honestAddr {
							from = netip.AddrPortFrom(victimAddr, 500)
						}
						w.inject(from, netip.AddrPortFrom(to, 500), b)
						w.inject(addr(round), netip.AddrPortFrom(to, 500), b)
					}
				}
			}
		}
		w.honest()
	}
	if w.v.ups != 1 || w.v.downs != 0 {
		t.Errorf("%d up, %d down", w.v.ups, w.v.downs)
	}
	w.rest(0)
}

// CREATE_CHILD_SA, INFORMATIONAL and others under valid protection before anybody is
// authenticated (the class of CVE-2014-2338): dropped, and nobody is up.
func TestNothingBeforeAUTH(t *testing.T) {
	for x := wire.ExchangeType(33); x < 46; x++ {
		w := newWorld(t, nil)
		p := w.stranger()
		p.init()
		for id := range uint32(3) {
			for _, list := range [][]wire.Payload{
				nil, {&wire.Delete{Protocol: wire.ProtocolIKE}}, {notify(wire.InitialContact, nil)},
				append([]wire.Payload{espProposal(0x4444444), &wire.Nonce{Data: random(32)}}, selectorPayloads()...),
				{ikeProposal(31, random(8)), &wire.Nonce{Data: random(32)}, &wire.KE{Group: 31, Data: random(32)}},
			} {
				if x == wire.ExchangeIKEAuth && id == 1 {
					continue
				}
				back := p.send(p.seal(p.header(x, id, false), list...))
				if len(back) > 0 && x != wire.ExchangeIKESAInit {
					t.Errorf("exchange %d, ID %d was answered", x, id)
				}
				p.send(p.seal(p.header(x, id, true), list...))
			}
		}
		if w.v.ups != 1 || w.v.mostPlane > 2 {
			t.Errorf("exchange %d: %d up, %d SAs", x, w.v.ups, w.v.mostPlane)
		}
		if w.dropped(ike.DropUnexpected)+w.dropped(ike.DropMessageID)+w.dropped(ike.DropUnprotected) == 0 {
			t.Errorf("exchange %d: %v", x, w.v.e.Stats().Dropped)
		}
		w.honest()
		w.rest(0)
	}
}

// Random changes of every message of a set-up while it goes on, before the true one
// comes: the set-up comes through.
func TestMutationsRaceTheTruth(t *testing.T) {
	for round := range 20 {
		w := newWorld(t, nil)
		busy := false
		w.tap = func(d ike.Datagram) bool {
			if busy || d.Remote.Addr() != victimAddr || binary.BigEndian.Uint64(d.Data[8:]) == 0 {
				return true // first messages are everybody's
			}
			busy = true
			for range 30 {
				b := bytes.Clone(d.Data)
				at := random64() % uint64(len(b))
				if at < 8 || at >= 16 && at < 28 {
					at = 28 // SPIs lead elsewhere
				}
				b[at] ^= byte(1 + random64()%255)
				w.v.e.Datagram(w.now, ike.Datagram{Local: d.Remote, Remote: d.Local, Data: b})
			}
			busy = false
			return true
		}
		p := w.guest().established()
		if p.ask(wire.ExchangeInformational) == nil || !p.rekeyIKE() {
			t.Errorf("round %d: no answer", round)
		}
		w.advance(time.Second)
		w.honest()
	}
}

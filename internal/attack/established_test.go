package attack_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/ipsec"
	"adit/suite"
)

func TestHonestGuest(t *testing.T) {
	w := newWorld(t, nil)
	p := w.guest().established()
	if p.ask(wire.ExchangeInformational) == nil {
		t.Error("an empty INFORMATIONAL was not answered")
	}
	w.honest()
	w.rest(1)
}

// Message IDs outside the window, repeated requests with other content, responses
// that nobody asked for.
func TestRFC7296_2_3_MessageIDGames(t *testing.T) {
	w := newWorld(t, nil)
	p := w.guest().established()
	for _, id := range []uint32{0, 1, p.next + 1, p.next + 2, p.next + 1000, 1<<31 - 1, 1 << 31, 1<<32 - 1} {
		before := w.v.e.Stats()
		if back := p.send(p.seal(p.header(wire.ExchangeInformational, id, false), &wire.Delete{Protocol: wire.ProtocolIKE})); len(back) > 1 {
			t.Errorf("ID %d: %d answers", id, len(back))
		}
		after := w.v.e.Stats()
		if id != p.next-1 && after.Dropped[ike.DropMessageID] == before.Dropped[ike.DropMessageID] {
			t.Errorf("ID %d was not dropped by its ID", id)
		}
		if after.SAs != before.SAs {
			t.Fatalf("ID %d deleted the IKE SA", id)
		}
	}
	// The last request again, with other content under its ID: the stored answer.
	if p.ask(wire.ExchangeInformational) == nil {
		t.Fatal("no answer")
	}
	first := p.send(p.seal(p.header(wire.ExchangeInformational, p.next-1, false)))
	again := p.send(p.seal(p.header(wire.ExchangeInformational, p.next-1, false), &wire.Delete{Protocol: wire.ProtocolIKE}))
	if len(first) != 1 || len(again) != 1 || !bytes.Equal(first[0].Data, again[0].Data) {
		t.Error("a repeated request is not answered by the stored bytes")
	}
	// Responses without requests, of every exchange.
	for x := wire.ExchangeType(0); x < 60; x++ {
		for _, id := range []uint32{0, 1, 2, 1<<32 - 1} {
			if back := p.send(p.seal(p.header(x, id, true), &wire.Delete{Protocol: wire.ProtocolIKE})); len(back) != 0 {
				t.Errorf("a response of exchange %d was answered", x)
			}
		}
	}
	if p.ask(wire.ExchangeInformational) == nil {
		t.Error("the IKE SA does not go on")
	}
	w.honest()
	w.rest(1)
}

// Under valid protection, but with something in the clear beside it, or with the
// flag of the other role: dropped.
func TestRFC7296_3_14_HalfProtected(t *testing.T) {
	w := newWorld(t, nil)
	p := w.guest().established()
	h := p.header(wire.ExchangeInformational, p.next, false)
	first, text := wire.AppendPayloads(nil, []wire.Payload{notify(wire.InitialContact, nil)})
	c := p.cipher(true)
	pad := c.Align() - 1 - len(text)%c.Align()
	text = append(append(text, make([]byte, pad)...), byte(pad))
	iv, icv := c.IVLen(), c.ICVLen()
	b := wire.AppendEncrypted(nil, h, []wire.Payload{&wire.Delete{Protocol: wire.ProtocolIKE}}, wire.Encrypted{Type: wire.PayloadSK, FirstInner: first}, iv+len(text)+icv)
	at := len(b)
	b = append(append(append(b, make([]byte, iv)...), text...), make([]byte, icv)...)
	c.PutIV(b[at:at+iv], 1<<40)
	c.Seal(b[:at], b[at:at+iv], b[at+iv:at+iv+len(text)], b[at+iv+len(text):], nil)
	w.counted(ike.DropUnprotected, func() {
		if len(p.send(b)) != 0 {
			t.Error("a message with payloads in the clear was answered")
		}
	})
	flip := h
	flip.Flags ^= wire.FlagInitiator
	w.counted(ike.DropUnknownSPI, func() {
		if len(p.send(p.seal(flip))) != 0 {
			t.Error("a message under the other role's flag was answered")
		}
	})
	// The SPIs the other way round, too: it looks as if we had sent it.
	flip.SPIi, flip.SPIr = flip.SPIr, flip.SPIi
	w.counted(ike.DropUnexpected, func() {
		if len(p.send(p.seal(flip))) != 0 {
			t.Error("a message with exchanged SPIs was answered")
		}
	})
	if p.ask(wire.ExchangeInformational) == nil {
		t.Error("the IKE SA does not go on")
	}
	w.honest()
	w.rest(1)
}

// Exchanges that are unknown, or out of place, under valid protection.
func TestUnknownExchanges(t *testing.T) {
	w := newWorld(t, nil)
	p := w.guest().established()
	for x := wire.ExchangeType(0); x < 255; x++ {
		if x == wire.ExchangeCreateChildSA || x == wire.ExchangeInformational || x == wire.ExchangeIKEFollowupKE {
			continue
		}
		before := w.v.e.Stats().Dropped
		p.send(p.seal(p.header(x, p.next, false), p.authPayloads()...))
		after := w.v.e.Stats()
		if after.Dropped[ike.DropUnexpected]+after.Dropped[ike.DropMalformed] == before[ike.DropUnexpected]+before[ike.DropMalformed] {
			t.Errorf("exchange %d is counted under no name", x)
		}
		if after.Established != 2 {
			t.Fatalf("exchange %d: %+v", x, after)
		}
	}
	// An IKE_FOLLOWUP_KE that belongs to nothing is refused, and that is all.
	p.ask(wire.ExchangeIKEFollowupKE, p.authPayloads()...)
	if after := w.v.e.Stats(); after.Established != 2 || after.Rejections == 0 {
		t.Fatalf("%+v", after)
	}
	w.honest()
	w.rest(1)
}

// A peer that rekeys its Child SA, or makes new ones, without end and never
// deletes any.
func TestChildSAStorm(t *testing.T) {
	for _, rekey := range []bool{false, true} {
		w := newWorld(t, nil)
		p := w.guest().established()
		refused := 0
		spi := uint32(0x40000000)
		old := w.v.e.SAs()[1].Children[0].SPIOut
		for range 1000 {
			spi++
			list := append([]wire.Payload{espProposal(spi), &wire.Nonce{Data: random(32)}}, selectorPayloads()...)
			if rekey {
				list = append(list, &wire.Notify{Protocol: wire.ProtocolESP, SPI: binary.BigEndian.AppendUint32(nil, uint32(old)), NotifyType: wire.RekeySA})
			}
			answer := p.ask(wire.ExchangeCreateChildSA, list...)
			if answer == nil {
				t.Fatal("no answer")
			}
			if errorIn(answer) != 0 {
				refused++
			} else {
				old = w.childOut(spi)
				if old == 0 {
					t.Fatal("the answer grants a Child SA that is not there")
				}
			}
		}
		if refused < 700 || w.v.mostPlane > 2*257+4 {
			t.Errorf("%d were refused, %d SAs in the data plane", refused, w.v.mostPlane)
		}
		if !rekey && !w.v.rejected(ike.ReasonLimit) {
			t.Error("no rejection names the limit")
		}
		w.honest()
		p.ask(wire.ExchangeInformational, &wire.Delete{Protocol: wire.ProtocolIKE})
		w.rest(0)
		if len(w.v.sas) != 2 {
			t.Errorf("%d SAs are left in the data plane", len(w.v.sas))
		}
	}
}

// A peer that deletes and makes Child SAs as fast as it can.
func TestChildSAChurn(t *testing.T) {
	w := newWorld(t, nil)
	p := w.guest().established()
	before := heap()
	for i := range uint32(500) {
		spi := 0x50000000 + i
		p.ask(wire.ExchangeCreateChildSA, append([]wire.Payload{espProposal(spi), &wire.Nonce{Data: random(32)}}, selectorPayloads()...)...)
		p.ask(wire.ExchangeInformational, &wire.Delete{Protocol: wire.ProtocolESP, SPIs: []uint32{spi}})
	}
	if w.v.mostPlane > 8 {
		t.Errorf("%d SAs in the data plane", w.v.mostPlane)
	}
	w.out = nil
	if grown := int64(heap()) - int64(before); grown > 2<<20 {
		t.Errorf("%d bytes", grown)
	}
	w.honest()
	w.rest(1)
}

func (w *world) childOut(spi uint32) (out ipsec.SPI) {
	for _, s := range w.v.e.SAs() {
		for _, c := range s.Children {
			if uint32(c.SPIOut) == spi {
				return c.SPIOut
			}
		}
	}
	return 0
}

// rekeyIKE replaces the peer's IKE SA; false: refused.
func (p *hostile) rekeyIKE() bool {
	kx, err := suite.NewKeyExchange(p.group)
	if err != nil {
		p.w.t.Fatal(err)
	}
	spi, ni := random64(), random(32)
	answer := p.ask(wire.ExchangeCreateChildSA, ikeProposal(p.group, binary.BigEndian.AppendUint64(nil, spi)), &wire.Nonce{Data: ni}, &wire.KE{Group: uint16(p.group), Data: kx.Public()})
	sa, ok1 := wire.First[*wire.SA](answer)
	ke, ok2 := wire.First[*wire.KE](answer)
	nr, ok3 := wire.First[*wire.Nonce](answer)
	if !ok1 || !ok2 || !ok3 {
		return false
	}
	shared, err := kx.Shared(ke.Data)
	if err != nil {
		p.w.t.Fatal(err)
	}
	p.ni, p.nr, p.spiI, p.spiR, p.initiator, p.next = ni, nr.Data, spi, binary.BigEndian.Uint64(sa.Proposals[0].SPI), true, 0
	p.arm(p.prf.Sum(p.d, shared, p.ni, p.nr))
	return true
}

// A peer that rekeys its IKE SA without end and never deletes an old one.
func TestIKESAStorm(t *testing.T) {
	w := newWorld(t, nil)
	p := w.guest().established()
	for i := range 300 {
		if !p.rekeyIKE() {
			t.Fatalf("rekey %d was refused", i)
		}
	}
	if w.v.mostSAs > 32 {
		t.Errorf("one peer holds %d IKE SAs", w.v.mostSAs)
	}
	if p.ask(wire.ExchangeInformational) == nil {
		t.Error("the last IKE SA does not answer")
	}
	w.honest()
	w.rest(1)
}

// A guest that sets IKE SAs up without end.
func TestInitialContactStorm(t *testing.T) {
	w := newWorld(t, nil)
	for i := range 50 {
		p := w.guest()
		p.init()
		if _, ok := wire.First[*wire.Auth](p.ask(wire.ExchangeIKEAuth, append(p.authPayloads(), notify(wire.InitialContact, nil))...)); !ok {
			t.Fatalf("%d was refused", i)
		}
		w.advance(time.Second)
	}
	if st := w.v.e.Stats(); st.SAs != 2 || len(w.v.sas) != 4 {
		t.Errorf("%+v, %d SAs in the data plane", st, len(w.v.sas))
	}
	w.honest()
	w.rest(1)
}

// Deletes of SPIs that are not the peer's.
func TestForeignDeletes(t *testing.T) {
	w := newWorld(t, nil)
	p := w.guest().established()
	honest := w.v.e.SAs()[0].Children[0]
	mine := w.v.e.SAs()[1].Children[0]
	spis := []uint32{uint32(honest.SPIIn), uint32(honest.SPIOut), uint32(mine.SPIIn), 0, 1, 255, 1<<32 - 1}
	for range 4000 {
		spis = append(spis, binary.BigEndian.Uint32(random(4)))
	}
	answer := p.ask(wire.ExchangeInformational, &wire.Delete{Protocol: wire.ProtocolESP, SPIs: spis[:wire.MaxDeleteSPIs-100]})
	if d, ok := wire.First[*wire.Delete](answer); ok && len(d.SPIs) > 0 {
		t.Errorf("deleted %v", d.SPIs)
	}
	spis[3] = uint32(mine.SPIOut) // is the peer's own, but not of these protocols
	p.ask(wire.ExchangeInformational, &wire.Delete{Protocol: wire.ProtocolAH, SPIs: spis[:4]})
	p.ask(wire.ExchangeInformational, &wire.Delete{Protocol: 77, SPIs: spis[:4]})
	if st := w.v.e.Stats(); st.Children != 2 || st.Established != 2 {
		t.Errorf("%+v", st)
	}
	w.honest()
	w.rest(1)
}

// Selectors of all shapes from an authenticated peer: narrowed or refused, never
// wider than the configuration.
func TestRFC7296_2_9_HostileSelectors(t *testing.T) {
	w := newWorld(t, nil)
	p := w.guest().established()
	allowed := selectors(t, "10.9.0.0/16")[0]
	v4 := func(from, to string) wire.TrafficSelector {
		return ts(wire.PayloadTSi, from, to).Selectors[0]
	}
	v6 := wire.TrafficSelector{Type: wire.TSIPv6AddrRange, EndPort: 65535, Start: netip.MustParseAddr("::"), End: netip.MustParseAddr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")}
	var many []wire.TrafficSelector
	for i := range 255 {
		a := netip.AddrFrom4([4]byte{10, 9, byte(i), 1})
		many = append(many, wire.TrafficSelector{Type: wire.TSIPv4AddrRange, Protocol: byte(i), EndPort: 65535, Start: a, End: a})
	}
	backPorts := v4("10.9.0.0", "10.9.0.255")
	backPorts.StartPort, backPorts.EndPort = 500, 20
	opaque := v4("10.9.0.0", "10.9.0.255")
	opaque.StartPort, opaque.EndPort = 65535, 0
	for name, list := range map[string][]wire.TrafficSelector{
		"none": {}, "255": many, "backwards": {v4("10.9.255.255", "10.9.0.0")}, "backward ports": {backPorts}, "opaque": {opaque},
		"everything": {v4("0.0.0.0", "255.255.255.255")}, "everything IPv6": {v6}, "mixed": {v6, v4("10.9.0.0", "10.9.255.255"), v4("172.16.0.0", "172.16.0.255")},
		"unknown type": {{Type: 10, Raw: make([]byte, 2000)}}, "the honest peer's": {v4("10.2.0.0", "10.2.255.255")}, "ours": {v4("10.1.0.0", "10.1.255.255")},
		"255 unknown":    slices.Repeat([]wire.TrafficSelector{{Type: 200, Raw: make([]byte, 100)}}, 255),
		"255 everything": slices.Repeat([]wire.TrafficSelector{v4("0.0.0.0", "255.255.255.255")}, 255),
	} {
		before := w.v.e.SAs()[1].Children
		spi := binary.BigEndian.Uint32(random(4)) | 1<<30
		answer := p.ask(wire.ExchangeCreateChildSA, espProposal(spi), &wire.Nonce{Data: random(32)},
			&wire.TS{Kind: wire.PayloadTSi, Selectors: list}, &wire.TS{Kind: wire.PayloadTSr, Selectors: list})
		if answer == nil && w.v.e.Stats().Established != 2 {
			t.Fatalf("%s ended the IKE SA", name)
		}
		// The same as TSi alone, with a true TSr.
		p.ask(wire.ExchangeCreateChildSA, espProposal(spi+1), &wire.Nonce{Data: random(32)},
			&wire.TS{Kind: wire.PayloadTSi, Selectors: list}, ts(wire.PayloadTSr, "0.0.0.0", "255.255.255.255"))
		if w.v.e.Stats().Established != 2 {
			// INVALID_SYNTAX is fatal (RFC 7296 §2.21.3): an empty list does not parse.
			if name != "none" {
				t.Errorf("%s ended the IKE SA", name)
			}
			p = w.guest().established()
			continue
		}
		for _, c := range w.v.e.SAs()[1].Children[len(before):] {
			for _, s := range c.RemoteTS {
				if !allowed.Contains(s) {
					t.Errorf("%s: %v was granted", name, s)
				}
			}
			for _, s := range c.LocalTS {
				if !selectors(t, "10.1.0.0/16")[0].Contains(s) {
					t.Errorf("%s: %v was granted on our side", name, s)
				}
			}
		}
	}
	w.honest()
	w.rest(1)
}

// SPIs that are reserved, of a wrong length, or those of others, in proposals.
func TestRFC4303_2_1_HostileSPIs(t *testing.T) {
	w := newWorld(t, nil)
	p := w.guest().established()
	honest := w.v.e.SAs()[0].Children[0]
	for _, spi := range [][]byte{nil, {}, {1}, make([]byte, 4), {0, 0, 0, 255}, make([]byte, 8), make([]byte, 255)} {
		sa := espProposal(1)
		sa.Proposals[0].SPI = spi
		answer := p.ask(wire.ExchangeCreateChildSA, append([]wire.Payload{sa, &wire.Nonce{Data: random(32)}}, selectorPayloads()...)...)
		if errorIn(answer) == 0 {
			t.Errorf("SPI %x was taken", spi)
		}
	}
	// The honest peer's SPI as the guest's own outbound one harms nobody: it is the peer's choice.
	for _, spi := range []uint32{uint32(honest.SPIOut), uint32(honest.SPIIn)} {
		p.ask(wire.ExchangeCreateChildSA, append([]wire.Payload{espProposal(spi), &wire.Nonce{Data: random(32)}}, selectorPayloads()...)...)
		p.ask(wire.ExchangeInformational, &wire.Delete{Protocol: wire.ProtocolESP, SPIs: []uint32{spi}})
	}
	w.honest()
	w.rest(1)
}

// Every message of a guest's life, both directions, again: in its life and after it.
func TestReplayOfEverything(t *testing.T) {
	w := newWorld(t, nil)
	var all []ike.Datagram
	w.tap = func(d ike.Datagram) bool { all = append(all, d); return true }
	p := w.guest().established()
	p.ask(wire.ExchangeInformational)
	p.rekeyIKE()
	p.ask(wire.ExchangeCreateChildSA, append([]wire.Payload{espProposal(0x12345678), &wire.Nonce{Data: random(32)}}, selectorPayloads()...)...)
	w.tap = nil
	replay := func() {
		for _, d := range all {
			for _, from := range []netip.AddrPort{d.Local, addr(3)} {
				w.inject(from, netip.AddrPortFrom(victimAddr, d.Remote.Port()), d.Data)
				w.inject(from, netip.AddrPortFrom(honestAddr, d.Remote.Port()), d.Data)
			}
		}
	}
	state := func() (ups, children int) { st := w.v.e.Stats(); return w.v.ups, st.Children }
	ups, children := state()
	replay()
	if u, c := state(); u != ups || c != children {
		t.Errorf("replays changed the state: %d %d, then %d %d", ups, children, u, c)
	}
	w.honest()
	p.ask(wire.ExchangeInformational, &wire.Delete{Protocol: wire.ProtocolIKE})
	w.advance(3 * time.Minute)
	replay()
	w.advance(5 * time.Minute)
	replay()
	if w.v.ups != ups {
		t.Error("a replay brought an IKE SA up")
	}
	w.honest()
	w.rest(0)
}

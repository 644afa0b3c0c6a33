package ikev2_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"adit/ike"
	"adit/ike/ikev2"
	"adit/ike/wire"
	"adit/ipsec"
	"adit/suite"
)

// crashing is a pair whose hosts make tokens, and how to restart one after kill -9.
func crashing(t *testing.T, tweak func(a, b *side)) (p *pair, restart func(h *host)) {
	configs := map[string]*ike.Config{}
	p = newPair(t, func(a, b *side) {
		a.config.CrashSecret, b.config.CrashSecret = suite.Key("secret of a"), suite.Key("secret of b")
		configs["a"], configs["b"] = a.config, b.config
		if tweak != nil {
			tweak(a, b)
		}
	})
	return p, func(h *host) {
		h.e = ike.New(*configs[h.name], ikev2.Version)
		h.plane = newModel(t, h.name)
	}
}

// orphaned has the restarted host see ESP of the other one.
func (p *pair) orphaned(h *host) {
	sa := p.other(h).e.SAs()[0]
	h.e.Dataplane(p.now, ipsec.Orphan{SPI: sa.Children[0].SPIOut, Local: sa.Remote, Remote: sa.Local})
	h.drain()
}

// A gateway that was killed and restarted: the client notices by its next packet, one
// round trip for the check, and is back with a new IKE SA, whatever its dpd_action is.
func TestRFC6290_Restart(t *testing.T) {
	for _, rekey := range []string{"", "a", "b"} {
		p, restart := crashing(t, nil)
		p.a.initiate("net")
		p.run(time.Second)
		p.up()
		if rekey != "" { // the token is that of the new IKE SA
			map[string]*host{"a": p.a, "b": p.b}[rekey].do(ike.Rekey{IKE: rekey})
			p.run(10 * time.Second)
			p.up()
		}
		before := p.a.e.SAs()[0].SPIi
		restart(p.b)
		p.orphaned(p.b)
		// INVALID_SPI, the check, the answer, then the set-up: six messages of 10 ms.
		p.run(80 * time.Millisecond)
		p.up()
		if p.a.e.SAs()[0].SPIi == before {
			t.Errorf("rekey by %q: still the same IKE SA", rekey)
		}
	}
}

// The responder, too, drops what a restarted initiator has lost; its dpd_action says
// what follows.
func TestRFC6290_RestartedInitiator(t *testing.T) {
	p, restart := crashing(t, func(_, b *side) { b.peer.DPDDelay = 5 * time.Second })
	p.a.initiate("net")
	p.run(time.Second)
	p.up()
	restart(p.a)
	p.run(5 * time.Second)
	p.down()
	if d := eventsOf[ike.IKEDown](p.b); len(d) != 1 || d[0].Reason != "the peer has lost it, and proved so (RFC 6290)" {
		t.Errorf("%+v", d)
	}
}

// Without a secret, or with crash_detection = no on either side, nothing of it is sent.
func TestRFC6290_Off(t *testing.T) {
	for _, off := range []func(a, b *side){
		func(_, b *side) { b.config.CrashSecret = nil },
		func(_, b *side) { b.config.NoCrashDetection = true },
		func(a, _ *side) { a.config.NoCrashDetection = true },
	} {
		p, restart := crashing(t, off)
		p.a.initiate("net")
		p.run(time.Second)
		restart(p.b)
		p.orphaned(p.b)
		p.run(time.Second)
		if sas := p.a.e.SAs(); len(sas) != 1 || sas[0].State != "ESTABLISHED" || len(p.b.e.SAs()) != 0 {
			t.Errorf("%v %v", brief(sas), brief(p.b.e.SAs()))
		}
	}
}

// What an attacker says who does not know the token: nothing of it ends the IKE SA.
func TestRFC6290_ForgedLoss(t *testing.T) {
	p, _ := crashing(t, nil)
	p.a.initiate("net")
	p.run(time.Second)
	sa := p.a.e.SAs()[0]
	invalid := &wire.Notify{NotifyType: wire.InvalidIKESPI}
	token := func(b []byte) *wire.Notify {
		return &wire.Notify{Protocol: wire.ProtocolIKE, NotifyType: wire.QuickCrashDetection, Data: b}
	}
	for i, list := range [][]wire.Payload{
		{invalid}, {invalid, token(nil)}, {invalid, token(make([]byte, 16))}, {token(make([]byte, 16))},
		{invalid, token(bytes.Repeat([]byte{7}, 16)), token(bytes.Repeat([]byte{8}, 16)), token(make([]byte, 128))},
	} {
		for _, flags := range []wire.Flags{wire.FlagResponse, 0} {
			before := p.a.e.Stats().Dropped[ike.DropUnprotected]
			h := wire.Header{SPIi: sa.SPIi, SPIr: sa.SPIr, Version: wire.IKEv2, Exchange: wire.ExchangeInformational, Flags: flags, MessageID: 2}
			p.a.e.Datagram(p.now, ike.Datagram{Local: sa.Local, Remote: sa.Remote, Data: wire.AppendMessage(nil, h, list)})
			if n := p.a.e.Stats().Dropped[ike.DropUnprotected]; n != before+1 {
				t.Errorf("%d: not dropped as unprotected", i)
			}
		}
	}
	p.run(time.Second)
	p.up()
}

// Whoever sees the SPIs of a living IKE SA must not get its token (RFC 6290 §9): not
// with the flags turned round, not with one SPI changed, not by garbage in it.
func TestRFC6290_NoTokenOfTheLiving(t *testing.T) {
	p, restart := crashing(t, nil)
	p.a.initiate("net")
	p.run(time.Second)
	p.up()
	sa := p.b.e.SAs()[0]
	ask := func(spiI, spiR uint64, flags wire.Flags, x wire.ExchangeType, next wire.PayloadType, size int) int {
		h := wire.Header{SPIi: spiI, SPIr: spiR, Version: wire.IKEv2, Exchange: x, Flags: flags, MessageID: 2}
		b := wire.AppendEncrypted(nil, h, nil, wire.Encrypted{Type: wire.PayloadSK}, size)
		b = append(b, make([]byte, size)...)
		b[16] = byte(next)
		before := len(p.b.sent)
		p.b.e.Datagram(p.now, ike.Datagram{Local: sa.Local, Remote: sa.Remote, Data: b})
		p.b.drain()
		return len(p.b.sent) - before
	}
	info := wire.ExchangeInformational
	for _, flags := range []wire.Flags{0, wire.FlagInitiator, wire.FlagResponse, wire.FlagInitiator | wire.FlagResponse} {
		for _, spis := range [][2]uint64{{sa.SPIi, sa.SPIr}, {sa.SPIr, sa.SPIi}, {sa.SPIi ^ 1, sa.SPIr}, {sa.SPIr, 7}} {
			if n := ask(spis[0], spis[1], flags, info, wire.PayloadSK, 80); n != 0 {
				t.Errorf("SPIs %x, flags %v: %d answers", spis, flags, n)
			}
		}
	}
	restart(p.b)
	i := wire.FlagInitiator
	for name, c := range map[string]struct{ got, want int }{
		"lost":             {ask(sa.SPIi, sa.SPIr, i, info, wire.PayloadSK, 80), 1},
		"lost, fragment":   {ask(sa.SPIi, sa.SPIr, i, info, wire.PayloadSKF, 80), 1},
		"by a responder":   {ask(sa.SPIi, sa.SPIr, 0, info, wire.PayloadSK, 80), 1},
		"a response":       {ask(sa.SPIi, sa.SPIr, i|wire.FlagResponse, info, wire.PayloadSK, 80), 0},
		"unprotected":      {ask(sa.SPIi, sa.SPIr, i, info, wire.PayloadNotify, 80), 0},
		"IKE_AUTH":         {ask(sa.SPIi, sa.SPIr, i, wire.ExchangeIKEAuth, wire.PayloadSK, 80), 0},
		"amplification":    {ask(sa.SPIi, sa.SPIr, i, info, wire.PayloadSK, 2), 0},
		"no responder SPI": {ask(sa.SPIi, 0, i, info, wire.PayloadSK, 80), 0},
	} {
		if c.got != c.want {
			t.Errorf("%s: %d answers, want %d", name, c.got, c.want)
		}
	}
	total := 0
	for k := range 2000 {
		total += ask(sa.SPIi, uint64(k)+1, i, info, wire.PayloadSK, 80)
	}
	if total > 500 {
		t.Errorf("%d answers in a second", total)
	}
}

// INVALID_SPI in the clear is a hint: the peer is asked once, no more, and only the
// peer who has that SPI.
func TestRFC7296_1_5_InvalidSPIIsAHint(t *testing.T) {
	p, _ := crashing(t, nil)
	p.a.initiate("net")
	p.run(time.Second)
	sa := p.a.e.SAs()[0]
	spi := sa.Children[0].SPIOut
	hint := func(spi ipsec.SPI, from *host) int {
		before := len(p.a.sent)
		h := wire.Header{Version: wire.IKEv2, Exchange: wire.ExchangeInformational, Flags: wire.FlagInitiator}
		d := []byte{byte(spi >> 24), byte(spi >> 16), byte(spi >> 8), byte(spi)}
		remote := sa.Remote
		if from == p.a {
			remote = sa.Local
		}
		for range 50 {
			p.a.e.Datagram(p.now, ike.Datagram{Local: sa.Local, Remote: remote, Data: wire.AppendMessage(nil, h, []wire.Payload{&wire.Notify{NotifyType: wire.InvalidSPI, Data: d}})})
		}
		p.a.drain()
		n := len(p.a.sent) - before
		p.run(2 * time.Second)
		return n
	}
	if n := hint(spi, p.b); n != 1 {
		t.Errorf("%d checks", n)
	}
	if n := hint(spi+1, p.b) + hint(spi, p.a); n != 0 {
		t.Errorf("%d checks by a wrong SPI or address", n)
	}
	p.up()
}

// The peer may know the IKE SA that our rekey is about to make before we do: no token of it either.
func TestRFC6290_NoTokenOfTheUnborn(t *testing.T) {
	p, _ := crashing(t, nil)
	p.a.initiate("net")
	p.run(time.Second)
	p.a.do(ike.Rekey{IKE: "a"})
	p.run(15 * time.Millisecond) // b has answered, its answer is on the way
	sas := p.b.e.SAs()
	if len(sas) != 2 || len(p.a.e.SAs()) != 1 {
		t.Fatalf("a %v, b %v", brief(p.a.e.SAs()), brief(sas))
	}
	sa := sas[1]
	h := wire.Header{SPIi: sa.SPIi, SPIr: sa.SPIr, Version: wire.IKEv2, Exchange: wire.ExchangeInformational}
	before := len(p.a.sent)
	p.a.e.Datagram(p.now, ike.Datagram{Local: sa.Remote, Remote: sa.Local, Data: append(wire.AppendEncrypted(nil, h, nil, wire.Encrypted{Type: wire.PayloadSK}, 80), make([]byte, 80)...)})
	p.a.drain()
	if n := len(p.a.sent) - before; n != 0 {
		t.Errorf("%d answers", n)
	}
	p.run(5 * time.Second)
	p.up()
}

// That a peer makes no tokens says nothing about whether it takes ours (RFC 6290 §4.2): it gets
// one with IKE_AUTH, before all that belongs to the Child SA, and one with each rekey of the IKE SA.
func TestRFC6290_4_2_TokensForWhoMakesNone(t *testing.T) {
	for _, rekey := range []string{"a", "b"} {
		m := newMITM(t, func(a, b *side) { a.config.CrashSecret = suite.Key("secret of a") })
		var seen []string
		m.change = func(from *host, h *wire.Header, list []wire.Payload) []wire.Payload {
			if n := wire.FindNotify(list, wire.QuickCrashDetection); n != nil {
				before := slices.IndexFunc(list, func(x wire.Payload) bool { return x.Type() == wire.PayloadSA }) > slices.Index(list, wire.Payload(n))
				seen = append(seen, fmt.Sprint(from.name, " ", h.Exchange, " ", before))
			}
			return append([]wire.Payload{}, list...)
		}
		m.a.initiate("net")
		m.run(time.Second)
		map[string]*host{"a": m.a, "b": m.b}[rekey].do(ike.Rekey{IKE: rekey})
		m.run(10 * time.Second)
		m.up()
		want := []string{"a IKE_AUTH true", map[string]string{"a": "a INFORMATIONAL false", "b": "a CREATE_CHILD_SA false"}[rekey]}
		if !slices.Equal(seen, want) {
			t.Errorf("rekey by %s: %q, want %q", rekey, seen, want)
		}
	}
}

// A token in any protected message replaces the one before (RFC 6290 §4.4), also in an answer;
// it counts in the clear with INVALID_IKE_SPI, and after ESP with INVALID_SPI, whatever the SPIs
// of that header are (§4.5, §8.2). Four of one message are looked at.
func TestRFC6290_4_4_TokenReplaced(t *testing.T) {
	token := func(b byte) *wire.Notify {
		return &wire.Notify{Protocol: wire.ProtocolIKE, NotifyType: wire.QuickCrashDetection, Data: bytes.Repeat([]byte{b}, 16)}
	}
	for _, answer := range []bool{false, true} {
		for _, spis := range []string{"its own", "none", "random"} {
			m := newMITM(t, func(a, b *side) {
				b.config.CrashSecret = suite.Key("secret of b")
				map[bool]*side{true: a, false: b}[answer].peer.DPDDelay = 2 * time.Second
			})
			m.change = func(from *host, h *wire.Header, list []wire.Payload) []wire.Payload {
				if from == m.b && h.Exchange == wire.ExchangeInformational && h.Response() == answer {
					return append(list, token(7))
				}
				return append([]wire.Payload{}, list...)
			}
			m.a.initiate("net")
			m.run(time.Second)
			m.up()
			m.run(2 * time.Second)
			sa := m.a.e.SAs()[0]
			spi := sa.Children[0].SPIOut
			h := wire.Header{SPIi: sa.SPIi, SPIr: sa.SPIr, Version: wire.IKEv2, Exchange: wire.ExchangeInformational, Flags: wire.FlagResponse, MessageID: 1}
			lost := []wire.Payload{&wire.Notify{NotifyType: wire.InvalidIKESPI}}
			if spis != "its own" {
				h.Flags, h.SPIi, h.SPIr = wire.FlagInitiator, 0, 0
				lost[0] = &wire.Notify{NotifyType: wire.InvalidSPI, Data: []byte{byte(spi >> 24), byte(spi >> 16), byte(spi >> 8), byte(spi)}}
			}
			if spis == "random" {
				h.SPIi, h.SPIr = 0x1234567890, 0x2345678901
			}
			say := func(more ...wire.Payload) {
				m.a.e.Datagram(m.now, ike.Datagram{Local: sa.Local, Remote: sa.Remote, Data: wire.AppendMessage(nil, h, append(lost, more...))})
			}
			say(token(1), token(2), token(3), token(4), token(7))
			m.a.drain()
			if n := len(eventsOf[ike.IKEDown](m.a)); n != 0 {
				t.Fatalf("%v, SPIs %s: by the fifth token", answer, spis)
			}
			say(token(1), token(2), token(3), token(7))
			m.a.drain()
			if d := eventsOf[ike.IKEDown](m.a); len(d) != 1 || !strings.Contains(d[0].Reason, "RFC 6290") {
				t.Errorf("%v, SPIs %s: %+v", answer, spis, d)
			}
		}
	}
}

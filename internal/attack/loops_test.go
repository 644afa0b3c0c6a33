package attack_test

import (
	"encoding/binary"
	"testing"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/suite"
)

// connected is a hostile responder with an established IKE SA that the victim made.
func (w *world) connected() *hostile {
	w.t.Helper()
	p, first := w.outgoing("x25519-ecp256-ecp384")
	auth := p.answer(first, p.honestReply(first))
	p.answer(auth[0], p.honestAuth(auth[0]))
	if over, err := w.over(); !over || err != nil {
		w.t.Fatal(over, err)
	}
	p.next = 0
	return p
}

// serve answers the victim's requests by what list makes of them, for a time, and
// returns how many of the exchange came.
func (p *hostile) serve(d time.Duration, x wire.ExchangeType, list func(asked []wire.Payload) []wire.Payload) (n int) {
	p.w.t.Helper()
	at, seen := len(p.w.out), map[uint32]bool{}
	for end := p.w.now.Add(d); p.w.now.Before(end); p.w.advance(500 * time.Millisecond) {
		for rounds := 0; at < len(p.w.out); rounds++ {
			if rounds > 1000 {
				p.w.t.Fatal("a loop without end in no time")
			}
			m := p.w.out[at]
			at++
			h := parse(p.w.t, m.Data).Header
			if m.Remote.Addr() != hostileAddr || h.Response() || h.SPIi != p.spiI || seen[h.MessageID] {
				continue
			}
			seen[h.MessageID] = true
			var answer []wire.Payload
			if h.Exchange == x {
				n++
				answer = list(p.open(m.Data))
			}
			p.w.inject(m.Remote, m.Local, p.seal(p.header(h.Exchange, h.MessageID, true), answer...))
		}
	}
	return n
}

// A peer that answers CREATE_CHILD_SA by what never ends, or by nonsense: bounded
// tries, no orphans in the data plane, the Child SA in use stays.
func TestLoopsAndNonsenseInCREATE_CHILD_SA(t *testing.T) {
	flip := false
	nonce := func() wire.Payload { return &wire.Nonce{Data: random(32)} }
	for name, c := range map[string]struct {
		most int
		list func(asked []wire.Payload) []wire.Payload
	}{
		"INVALID_KE_PAYLOAD without end": {40, func([]wire.Payload) []wire.Payload {
			flip = !flip
			return []wire.Payload{notify(wire.InvalidKEPayload, []byte{0, map[bool]byte{true: 19, false: 31}[flip]})}
		}},
		"INVALID_KE_PAYLOAD of 60 KB": {12, func([]wire.Payload) []wire.Payload {
			return []wire.Payload{notify(wire.InvalidKEPayload, make([]byte, 60_000))}
		}},
		"TEMPORARY_FAILURE without end": {80, func([]wire.Payload) []wire.Payload { return []wire.Payload{notify(wire.TemporaryFailure, nil)} }},
		"SINGLE_PAIR_REQUIRED":          {12, func([]wire.Payload) []wire.Payload { return []wire.Payload{notify(wire.SinglePairRequired, nil)} }},
		"an unknown error":              {12, func([]wire.Payload) []wire.Payload { return []wire.Payload{notify(9999, nil)} }},
		"reserved SPI": {12, func([]wire.Payload) []wire.Payload {
			return append([]wire.Payload{espProposal(255), nonce()}, selectorPayloads()...)
		}},
		"what was asked for, mirrored": {12, func(asked []wire.Payload) []wire.Payload { return asked }},
		"wider selectors": {12, func(asked []wire.Payload) []wire.Payload {
			return []wire.Payload{espProposal(0x7777777), nonce(), ts(wire.PayloadTSi, "0.0.0.0", "255.255.255.255"), ts(wire.PayloadTSr, "0.0.0.0", "255.255.255.255")}
		}},
		"a KE of zeros": {12, func(asked []wire.Payload) []wire.Payload {
			sa := espProposal(0x7777777)
			sa.Proposals[0].Transforms = append(sa.Proposals[0].Transforms, wire.Transform{Type: wire.TransformTypeKE, ID: 31})
			return append([]wire.Payload{sa, nonce(), &wire.KE{Group: 31, Data: make([]byte, 32)}}, ts(wire.PayloadTSi, "10.1.0.0", "10.1.255.255"), ts(wire.PayloadTSr, "10.9.0.0", "10.9.255.255"))
		}},
		"an IKE SA with SPI zero": {12, func([]wire.Payload) []wire.Payload {
			return []wire.Payload{ikeProposal(31, make([]byte, 8)), nonce(), &wire.KE{Group: 31, Data: random(32)}}
		}},
	} {
		for _, what := range []string{"child", "ike"} {
			t.Run(name+", "+what, func(t *testing.T) {
				w := newWorld(t, nil)
				p := w.connected()
				if what == "child" {
					w.v.do(ike.Rekey{Child: "guest"})
				} else {
					w.v.do(ike.Rekey{IKE: "outgoing"})
				}
				if n := p.serve(4*time.Minute, wire.ExchangeCreateChildSA, c.list); n == 0 || n > c.most {
					t.Errorf("%d requests in four minutes", n)
				}
				if st := w.v.e.Stats(); st.SAs > 3 || w.v.mostPlane > 6 {
					t.Errorf("%+v, %d SAs in the data plane", st, w.v.mostPlane)
				}
				w.honest()
			})
		}
	}
}

// A peer that asks for something expensive and floods meanwhile: what waits is bounded.
func TestFloodOfABusyIKESA(t *testing.T) {
	w := newWorld(t, nil)
	p := w.guest().established()
	w.hold = true
	kx, _ := suite.NewKeyExchange(suite.KEECP384)
	if back := p.send(p.seal(p.header(wire.ExchangeCreateChildSA, p.next, false), ikeProposal(suite.KEECP384, binary.BigEndian.AppendUint64(nil, random64())),
		&wire.Nonce{Data: random(32)}, &wire.KE{Group: uint16(suite.KEECP384), Data: kx.Public()})); len(back) != 0 || len(w.held) != 1 {
		t.Fatalf("%d answers, %d jobs", len(back), len(w.held))
	}
	before := heap()
	w.counted(ike.DropBusy, func() {
		for range 300 {
			p.send(p.seal(p.header(wire.ExchangeInformational, p.next+1, false), &wire.VendorID{Data: random(50_000)}))
		}
	})
	if grown := int64(heap()) - int64(before); grown > 1<<20 {
		t.Errorf("%d bytes wait", grown)
	}
	if len(w.held) != 1 {
		t.Errorf("%d jobs", len(w.held))
	}
	w.hold = false
	for _, f := range w.held {
		f()
	}
	w.pump()
	w.honest()
}

// Strangers do not write our log: what is recorded of first messages is bounded in time.
func TestRejectionsOfStrangersAreBounded(t *testing.T) {
	w := newWorld(t, nil)
	before := len(w.v.rejections)
	for i := range 3000 {
		p := w.stranger()
		p.at = addr(i)
		p.send(p.first(ikeProposal(1025, nil), &wire.KE{Group: 1025, Data: random(32)}, &wire.Nonce{Data: p.ni}))
		w.out = nil
	}
	if n := len(w.v.rejections) - before; n == 0 || n > 40 {
		t.Errorf("%d rejections recorded", n)
	}
	w.honest()
	w.rest(0)
}

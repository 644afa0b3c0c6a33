package ikev2_test

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"adit/ike"
	"adit/ike/wire"
)

// fuzzStages are how far the pair has come when the fuzzed message arrives.
var fuzzStages = []time.Duration{0, 5 * time.Millisecond, 15 * time.Millisecond, 25 * time.Millisecond, 35 * time.Millisecond, time.Second, time.Second}

// stagePair brings a pair to a stage. The last one has a rekey of a's in flight.
// Stages beyond are the same with other ways to authenticate.
func stagePair(t testing.TB, stage uint8) *mitm {
	m := newMITM(t, ways[int(stage)/len(fuzzStages)%len(ways)])
	credentialsFor(t, m.pair)
	n := int(stage) % len(fuzzStages)
	m.a.initiate("net")
	m.run(fuzzStages[n])
	if n == len(fuzzStages)-1 {
		m.a.do(ike.Rekey{Child: "net"})
		m.run(time.Millisecond)
	}
	return m
}

// settleFuzz lets things go on after a fuzzed message and checks that the
// engines are sane: no bug, no endless loop, nothing left once all is closed.
func settleFuzz(t testing.TB, m *mitm) {
	m.run(time.Second)
	for _, h := range []*host{m.a, m.b} {
		if h.e.Stats().Bugs != 0 {
			t.Fatalf("%s: an invariant failed", h.name)
		}
		h.do(ike.Shutdown{Grace: time.Second})
	}
	m.run(400 * time.Second)
	m.down()
}

func FuzzDatagram(f *testing.F) {
	p := newPair(f, nil)
	p.filter = func(from *host, d ike.Datagram) bool {
		for stage := range fuzzStages {
			f.Add(uint8(stage), from == p.a, bytes.Clone(d.Data))
		}
		return true
	}
	p.a.initiate("net")
	p.run(2 * time.Second)
	f.Fuzz(func(t *testing.T, stage uint8, fromA bool, data []byte) {
		m := stagePair(t, stage)
		from, to := m.b, m.a
		if fromA {
			from, to = m.a, m.b
		}
		// A message of a running IKE SA carries its SPIs; the fuzzer cannot guess them.
		if list := to.e.SAs(); len(list) > 0 && len(data) >= wire.HeaderLen && data[0]&1 == 0 {
			h := wire.Header{SPIi: list[0].SPIi, SPIr: list[0].SPIr}
			copy(data[:16], h.Append(nil)[:16])
		}
		to.e.Datagram(m.now, ike.Datagram{Local: netip.AddrPortFrom(to.addr, 500), Remote: netip.AddrPortFrom(from.addr, 500), Data: data})
		to.drain()
		settleFuzz(t, m)
	})
}

// FuzzProtected puts any plaintext under valid protection: what only a peer with
// the keys, or a stolen key, can send.
func FuzzProtected(f *testing.F) {
	seed := newMITM(f, nil)
	seed.change = func(from *host, h *wire.Header, p []wire.Payload) []wire.Payload {
		first, text := wire.AppendPayloads(nil, p)
		for _, stage := range []uint8{3, 4, 5, 6} {
			f.Add(stage, from == seed.a, uint8(h.Exchange), uint8(h.Flags)&32 != 0, uint8(0), uint8(first), text)
		}
		return p
	}
	seed.a.initiate("net")
	for i, list := range [][]wire.Payload{{&wire.EAP{Raw: []byte{3, 1, 0, 4}}}, {&wire.Auth{Method: wire.AuthSharedKey, Data: make([]byte, 32)}}, {&wire.Notify{NotifyType: wire.AnotherAuthFollows}}} {
		first, text := wire.AppendPayloads(nil, list)
		for way := range ways {
			f.Add(uint8(way*len(fuzzStages)+3+i%2), i%2 == 0, uint8(wire.ExchangeIKEAuth), i%2 == 1, uint8(64), uint8(first), text)
		}
	}
	seed.run(time.Second)
	seed.a.do(ike.Rekey{Child: "net"})
	seed.run(time.Second)
	seed.b.do(ike.Rekey{IKE: "b"})
	seed.run(time.Second)
	seed.a.do(ike.Terminate{IKE: "a"})
	seed.run(time.Second)
	f.Fuzz(func(t *testing.T, stage uint8, fromA bool, exchange uint8, response bool, idOffset, first uint8, text []byte) {
		if len(text) > 8192 {
			return
		}
		m := stagePair(t, stage)
		from, to := m.b, m.a
		if fromA {
			from, to = m.a, m.b
		}
		list := to.e.SAs()
		if len(list) == 0 {
			return
		}
		if len(m.keysOf(&wire.Header{SPIi: list[0].SPIi, SPIr: list[0].SPIr})) == 0 {
			return
		}
		// The next message IDs of either direction, or one off.
		id := map[bool]uint32{true: 2, false: 0}[fromA]
		if response {
			id = map[bool]uint32{true: 0, false: 2}[fromA]
		}
		if stage%7 < 5 && !response {
			id = 1
		}
		h := wire.Header{SPIi: list[0].SPIi, SPIr: list[0].SPIr, Version: wire.IKEv2, Exchange: wire.ExchangeType(exchange), MessageID: id + uint32(int8(idOffset)/64)}
		if fromA {
			h.Flags |= wire.FlagInitiator
		}
		if response {
			h.Flags |= wire.FlagResponse
		}
		to.e.Datagram(m.now, ike.Datagram{Local: netip.AddrPortFrom(to.addr, 500), Remote: netip.AddrPortFrom(from.addr, 500), Data: m.sealRaw(h, wire.PayloadType(first), bytes.Clone(text))})
		to.drain()
		if len(to.plane.sas) > 8 {
			t.Fatalf("%d SAs after one message", len(to.plane.sas))
		}
		settleFuzz(t, m)
	})
}

package ikev2_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"adit/ike"
	"adit/ike/ikev2"
	"adit/ike/wire"
	"adit/suite"
)

// manySelectors makes IKE_AUTH and CREATE_CHILD_SA larger than a small packet.
func manySelectors(a, b *side) {
	a.child.Local, a.child.Remote = nil, nil
	for i := range 40 {
		a.child.Local = append(a.child.Local, sel(fmt.Sprintf("10.1.%d.0/24", 2*i)))
		a.child.Remote = append(a.child.Remote, sel(fmt.Sprintf("10.2.%d.0/24", 2*i)))
	}
	b.child.Local, b.child.Remote = a.child.Remote, a.child.Local
	a.config.FragmentSize, b.config.FragmentSize = 576, 576
}

// fragmentPair is a mitm with small packets; large tells whether messages exceed them.
func fragmentPair(t testing.TB, large bool, tweak func(a, b *side)) *mitm {
	return newMITM(t, func(a, b *side) {
		if large {
			manySelectors(a, b)
		}
		if tweak != nil {
			tweak(a, b)
		}
	})
}

// skf seals one fragment with any numbers.
func (m *mitm) skf(h wire.Header, first wire.PayloadType, number, total uint16, text []byte) []byte {
	c := m.cipherOf(&h)
	pad := 0
	for (len(text)+pad+1)%c.Align() != 0 {
		pad++
	}
	text = append(append(bytes.Clone(text), make([]byte, pad)...), byte(pad))
	iv, icv := c.IVLen(), c.ICVLen()
	msg := wire.AppendEncrypted(nil, h, nil, wire.Encrypted{Type: wire.PayloadSKF, FirstInner: first, FragmentNumber: number, TotalFragments: total}, iv+len(text)+icv)
	at := len(msg)
	msg = append(append(append(msg, make([]byte, iv)...), text...), make([]byte, icv)...)
	m.sealed++
	c.PutIV(msg[at:at+iv], 1<<40+m.sealed)
	c.Seal(msg[:at], msg[at:at+iv], msg[at+iv:at+iv+len(text)], msg[at+iv+len(text):], nil)
	return msg
}

// request is the header of a's next request to b after the set-up, plus ahead.
func (m *mitm) request(x wire.ExchangeType, id uint32) wire.Header {
	s := m.a.e.SAs()[0]
	return wire.Header{SPIi: s.SPIi, SPIr: s.SPIr, Version: wire.IKEv2, Exchange: x, Flags: wire.FlagInitiator, MessageID: id}
}

// deliver hands datagrams from a to b at once and returns what b answers.
func (m *mitm) deliver(list ...[]byte) (answers [][]byte) {
	n := len(m.b.sent)
	for _, data := range list {
		m.b.e.Datagram(m.now, ike.Datagram{Local: netip.AddrPortFrom(m.b.addr, 500), Remote: netip.AddrPortFrom(m.a.addr, 500), Data: data})
		m.b.drain()
	}
	for _, d := range m.b.sent[n:] {
		answers = append(answers, d.Data)
	}
	return answers
}

// pieces cuts the chain of a request into fragments of at most n bytes.
func (m *mitm) pieces(h wire.Header, payloads []wire.Payload, n int) (out [][]byte) {
	first, text := wire.AppendPayloads(nil, payloads)
	total := (len(text) + n - 1) / n
	for i := range total {
		next := wire.PayloadNone
		if i == 0 {
			next = first
		}
		out = append(out, m.skf(h, next, uint16(i+1), uint16(total), text[i*n:min((i+1)*n, len(text))]))
	}
	return out
}

// filler is an INFORMATIONAL that is skipped and answered, of about n bytes.
func filler(n int) []wire.Payload {
	return []wire.Payload{&wire.VendorID{Data: bytes.Repeat([]byte{0x5a}, n)}}
}

func encrypted(t testing.TB, data []byte) *wire.Encrypted {
	t.Helper()
	msg, err := wire.ParseMessage(data)
	if err != nil {
		t.Fatal(err)
	}
	return msg.Encrypted
}

func TestRFC7383_2_3_BothSidesAnnounce(t *testing.T) {
	for _, c := range []struct {
		a, b         ike.FragmentPolicy
		saysA, saysB bool
		sendA, sendB bool
	}{
		{ike.FragmentYes, ike.FragmentYes, true, true, true, true},
		{ike.FragmentForce, ike.FragmentYes, true, true, true, true},
		{ike.FragmentAccept, ike.FragmentYes, true, true, false, true},
		{ike.FragmentYes, ike.FragmentAccept, true, true, true, false},
		{ike.FragmentNo, ike.FragmentYes, false, false, false, false},
		{ike.FragmentYes, ike.FragmentNo, true, false, false, false},
	} {
		t.Run(fmt.Sprint(c.a, c.b), func(t *testing.T) {
			m := fragmentPair(t, true, func(a, b *side) { a.peer.Fragmentation, b.peer.Fragmentation = c.a, c.b })
			m.a.initiate("net")
			m.run(time.Second)
			m.up()
			for _, x := range []struct {
				h          *host
				says, send bool
			}{{m.a, c.saysA, c.sendA}, {m.b, c.saysB, c.sendB}} {
				says, send := false, false
				for _, d := range x.h.sent {
					msg, err := wire.ParseMessage(d.Data)
					if err != nil {
						t.Fatal(err)
					}
					says = says || wire.FindNotify(msg.Payloads, wire.FragmentationSupported) != nil
					send = send || msg.Encrypted != nil && msg.Encrypted.Type == wire.PayloadSKF
				}
				if says != x.says || send != x.send {
					t.Errorf("%s: announces %v, sends fragments %v; want %v, %v", x.h.name, says, send, x.says, x.send)
				}
			}
		})
	}
}

// A responder that has several connections for the address announces unless all say no.
func TestRFC7383_2_3_ResponderWithSeveralConnections(t *testing.T) {
	for _, both := range []bool{false, true} {
		m := fragmentPair(t, true, func(a, b *side) {
			b.peer.Fragmentation = ike.FragmentNo
			other := *b.peer
			other.Name, other.Remote = "other", []ike.AuthRound{{ID: id("c.example.org")}}
			if !both {
				other.Fragmentation = ike.FragmentYes
			}
			b.config.Peers = append(b.config.Peers, &other)
		})
		m.b.do(ike.Reload{Peers: append([]*ike.Peer{m.b.peer}, otherPeers(m.b.peer, both)...)})
		m.a.initiate("net")
		m.run(time.Second)
		m.up()
		for _, d := range m.b.sent {
			if e := encrypted(t, d.Data); e != nil && e.Type == wire.PayloadSKF {
				t.Error("fragments are sent though the connection that was chosen says no")
			}
		}
		msg, _ := wire.ParseMessage(m.b.sent[0].Data)
		if got := wire.FindNotify(msg.Payloads, wire.FragmentationSupported) != nil; got == both {
			t.Errorf("announced: %v; all connections say no: %v", got, both)
		}
	}
}

func otherPeers(p *ike.Peer, no bool) []*ike.Peer {
	o := *p
	o.Name, o.Remote, o.Fragmentation = "other", []ike.AuthRound{{ID: id("c.example.org")}}, ike.FragmentYes
	if no {
		o.Fragmentation = ike.FragmentNo
	}
	return []*ike.Peer{&o}
}

func TestRFC7383_2_5_PacketSizes(t *testing.T) {
	for _, six := range []bool{false, true} {
		for _, size := range []int{576, 600, 1000, 1280, 1500} {
			t.Run(fmt.Sprint(six, size), func(t *testing.T) {
				header := 28
				m := fragmentPair(t, true, func(a, b *side) {
					a.config.FragmentSize, b.config.FragmentSize = size, size
				})
				if six {
					header = 48
					toIPv6(m)
				}
				m.a.initiate("net")
				m.run(time.Second)
				m.a.do(ike.Rekey{Child: "net"})
				m.run(10 * time.Second)
				m.up()
				ivs := map[string]bool{}
				split := 0
				for _, h := range []*host{m.a, m.b} {
					var inits int
					for _, d := range h.sent {
						if n := len(d.Data) + header + 4; n > size {
							t.Errorf("%s sends a packet of %d bytes", h.name, n)
						}
						e := encrypted(t, d.Data)
						if e == nil {
							inits++
							continue
						}
						iv := h.name + string(e.Body[:8])
						if ivs[iv] {
							t.Errorf("%s uses an IV twice", h.name)
						}
						ivs[iv] = true
						if e.Type == wire.PayloadSK {
							continue
						}
						split++
						if e.TotalFragments < 2 {
							t.Error("a message that fits into one packet goes as a fragment")
						}
						if (e.FragmentNumber == 1) != (e.FirstInner != wire.PayloadNone) {
							t.Errorf("fragment %d has next payload %v", e.FragmentNumber, e.FirstInner)
						}
					}
					if inits != 1 {
						t.Errorf("%s sends %d messages of IKE_SA_INIT", h.name, inits)
					}
				}
				if split == 0 && size <= 1000 {
					t.Error("nothing was sent in fragments")
				}
			})
		}
	}
}

// What was announced holds in the IKE SAs that come by rekey, of either side.
func TestRFC7383_2_3_HoldsThroughRekeys(t *testing.T) {
	m := fragmentPair(t, true, nil)
	m.a.initiate("net")
	m.run(time.Second)
	m.a.do(ike.Rekey{IKE: "a"})
	m.run(10 * time.Second)
	m.b.do(ike.Rekey{IKE: "b"})
	m.run(10 * time.Second)
	sent := [2]int{len(m.a.sent), len(m.b.sent)}
	m.b.do(ike.Rekey{Child: "net"})
	m.run(10 * time.Second)
	m.up()
	for i, h := range []*host{m.a, m.b} {
		n := 0
		for _, d := range h.sent[sent[i]:] {
			if e := encrypted(t, d.Data); len(d.Data) > 576-32 || e.Type == wire.PayloadSKF {
				n++
			}
			if len(d.Data) > 576-32 {
				t.Errorf("%s sends %d bytes", h.name, len(d.Data))
			}
		}
		if n < 2 {
			t.Errorf("%s sent %d fragments", h.name, n)
		}
	}
}

// toIPv6 lets the pair talk over IPv6.
func toIPv6(m *mitm) {
	a, b := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	for _, x := range []struct {
		h            *host
		ours, theirs netip.Addr
	}{{m.a, a, b}, {m.b, b, a}} {
		p := *x.h.peer
		p.LocalAddrs, p.RemoteAddrs = []ike.AddrSpec{{From: x.ours, To: x.ours}}, []ike.AddrSpec{{From: x.theirs, To: x.theirs}}
		x.h.addr, x.h.peer = x.ours, &p
		x.h.do(ike.Reload{Peers: []*ike.Peer{&p}})
	}
}

// All algorithms cut to their alignment; 64 fragments are the most, and come back whole.
func TestRFC7383_2_5_UpTo64Fragments(t *testing.T) {
	for _, alg := range []string{"aes128gcm16-prfsha256-x25519", "aes128-sha256-x25519", "aes256ctr-sha512-x25519", "chacha20poly1305-prfsha256-x25519"} {
		sel := mustProposals(t, suite.IKE, alg)[0]
		for _, c := range []struct{ size, room, want int }{
			{100, 544, 1}, {3000, 544, 7}, {29_500, 544, 0}, {31_000, 544, -1}, {60_000, 1248, 0}, {40_000, 544, -1}, {65_600, 1248, -1},
		} {
			sizes, back, err := ikev2.SealAndOpenFragments(sel, c.size, c.room)
			switch {
			case c.want < 0:
				if err == nil {
					t.Errorf("%s: %d bytes in packets of %d: %d fragments are sent", alg, c.size, c.room, len(sizes))
				}
				continue
			case err != nil:
				t.Errorf("%s: %d bytes in packets of %d: %v", alg, c.size, c.room, err)
				continue
			}
			if c.want > 0 && len(sizes) != c.want {
				t.Errorf("%s: %d bytes in packets of %d: %d fragments", alg, c.size, c.room, len(sizes))
			}
			if len(sizes) > 64 || slices.Max(sizes) > c.room || !back {
				t.Errorf("%s: %d bytes in packets of %d: %d fragments, the largest of %d, whole: %v", alg, c.size, c.room, len(sizes), slices.Max(sizes), back)
			}
		}
	}
}

func TestRFC7383_2_5_LargeMessageComesThrough(t *testing.T) {
	m := fragmentPair(t, false, func(a, b *side) { b.config.MaxPacket = 32_000 })
	m.a.initiate("net")
	m.run(time.Second)
	list := m.pieces(m.request(wire.ExchangeInformational, 2), filler(31_000), 31_004/64+1)
	if len(list) != 64 {
		t.Fatalf("%d pieces", len(list))
	}
	slices.Reverse(list)
	if got := m.deliver(list...); len(got) != 1 {
		t.Fatalf("%d answers", len(got))
	}
	if n := m.b.e.Stats().FragmentBytes; n != 0 {
		t.Errorf("%d bytes are still held", n)
	}
}

func TestRFC7383_2_6_Reassembly(t *testing.T) {
	chain := filler(900)
	for _, c := range []struct {
		name string
		send func(m *mitm, h wire.Header) [][]byte
		want int // answers
		held bool
	}{
		{"in order", func(m *mitm, h wire.Header) [][]byte { return m.pieces(h, chain, 300) }, 1, false},
		{"backwards", func(m *mitm, h wire.Header) [][]byte {
			l := m.pieces(h, chain, 300)
			slices.Reverse(l)
			return l
		}, 1, false},
		{"one alone", func(m *mitm, h wire.Header) [][]byte { return m.pieces(h, chain, 2000) }, 1, false},
		{"doubled", func(m *mitm, h wire.Header) [][]byte {
			l := m.pieces(h, chain, 300)
			return [][]byte{l[1], l[1], l[0], l[0], l[3], l[3], l[2]}
		}, 1, false},
		{"one missing", func(m *mitm, h wire.Header) [][]byte { return m.pieces(h, chain, 300)[1:] }, 0, true},
		{"begun anew in smaller ones", func(m *mitm, h wire.Header) [][]byte {
			return append(m.pieces(h, chain, 300)[:2], m.pieces(h, chain, 100)...)
		}, 1, false},
		{"larger ones afterwards are late", func(m *mitm, h wire.Header) [][]byte {
			return append(m.pieces(h, chain, 100)[:5], m.pieces(h, chain, 300)...)
		}, 0, true},
		{"smaller ones finish in spite of late larger ones", func(m *mitm, h wire.Header) [][]byte {
			small, large := m.pieces(h, chain, 100), m.pieces(h, chain, 300)
			return slices.Concat(small[:4], large[:2], small[4:], nil)
		}, 1, false},
		{"whole after some fragments", func(m *mitm, h wire.Header) [][]byte {
			return append(m.pieces(h, chain, 300)[:2], m.seal(h, chain))
		}, 1, false},
		{"fragments of a message that came whole", func(m *mitm, h wire.Header) [][]byte {
			return append([][]byte{m.seal(h, chain)}, m.pieces(h, chain, 300)[1:]...)
		}, 1, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := fragmentPair(t, false, nil)
			m.a.initiate("net")
			m.run(time.Second)
			got := m.deliver(c.send(m, m.request(wire.ExchangeInformational, 2))...)
			if len(got) != c.want {
				t.Errorf("%d answers, want %d", len(got), c.want)
			}
			if held := m.b.e.Stats().FragmentBytes > 0; held != c.held {
				t.Errorf("fragments are held: %v, want %v", held, c.held)
			}
			m.run(31 * time.Second)
			if n := m.b.e.Stats().FragmentBytes; n != 0 {
				t.Errorf("%d bytes are held for ever", n)
			}
			if m.b.e.Stats().Bugs != 0 || len(m.b.e.SAs()) != 1 {
				t.Error("the IKE SA is gone")
			}
		})
	}
}

// Of a repeated request only fragment 1 is answered, by the same bytes.
func TestRFC7383_2_6_1_RepetitionIsAnsweredOnce(t *testing.T) {
	m := fragmentPair(t, false, nil)
	m.a.initiate("net")
	m.run(time.Second)
	list := m.pieces(m.request(wire.ExchangeInformational, 2), filler(900), 100)
	first := m.deliver(list...)
	again := m.deliver(list...)
	if len(first) != 1 || len(again) != 1 || !bytes.Equal(first[0], again[0]) {
		t.Errorf("%d answers, then %d", len(first), len(again))
	}
	if got := m.deliver(list[1:]...); len(got) != 0 {
		t.Errorf("%d answers to fragments behind the first", len(got))
	}
	if n := m.b.e.Stats().FragmentBytes; n != 0 {
		t.Errorf("%d bytes of the repetition are kept", n)
	}
}

// Retransmission repeats the bytes of all fragments, of requests and of responses.
func TestRFC7383_2_6_1_RetransmissionIsBitIdentical(t *testing.T) {
	m := fragmentPair(t, true, nil)
	lose := true
	var lost, seen [2][][]byte
	m.filter = func(from *host, d ike.Datagram) bool {
		e := encrypted(t, d.Data)
		if e == nil || e.Type != wire.PayloadSKF {
			return true
		}
		i := 0
		if from == m.b {
			i = 1
		}
		if !lose {
			seen[i] = append(seen[i], bytes.Clone(d.Data))
			return true
		}
		lost[i] = append(lost[i], bytes.Clone(d.Data))
		return i == 0 // the answer is lost
	}
	m.a.initiate("net")
	m.run(time.Second)
	lose = false
	m.run(10 * time.Second)
	m.up()
	for i := range lost {
		if len(lost[i]) < 2 || !slices.EqualFunc(lost[i], seen[i], bytes.Equal) {
			t.Errorf("%s: %d fragments first, %d afterwards, or other bytes", []string{"requests", "responses"}[i], len(lost[i]), len(seen[i]))
		}
	}
}

func TestRFC7383_2_6_HostileFragments(t *testing.T) {
	chain := filler(900)
	raw := func(edit func(b []byte)) func(m *mitm, h wire.Header) [][]byte {
		return func(m *mitm, h wire.Header) [][]byte {
			l := m.pieces(h, chain, 300)
			edit(l[1])
			return l
		}
	}
	one := func(first wire.PayloadType, number, total uint16, text []byte) func(m *mitm, h wire.Header) [][]byte {
		return func(m *mitm, h wire.Header) [][]byte { return [][]byte{m.skf(h, first, number, total, text)} }
	}
	text := bytes.Repeat([]byte{1}, 100)
	for _, c := range []struct {
		name string
		send func(m *mitm, h wire.Header) [][]byte
		why  ike.DropReason
		held bool
	}{
		{"number 0", one(wire.PayloadVendorID, 0, 2, text), ike.DropMalformed, false},
		{"total 0", one(wire.PayloadVendorID, 0, 0, text), ike.DropMalformed, false},
		{"number beyond the total", one(wire.PayloadNone, 3, 2, text), ike.DropMalformed, false},
		{"next payload in the second", one(wire.PayloadVendorID, 2, 2, text), ike.DropMalformed, false},
		{"too many", one(wire.PayloadVendorID, 1, 65, text), ike.DropFragment, false},
		{"as many as there can be", one(wire.PayloadNone, 65535, 65535, text), ike.DropFragment, false},
		{"empty", one(wire.PayloadVendorID, 1, 2, nil), ike.DropFragment, false},
		{"changed number", raw(func(b []byte) { b[33]++ }), ike.DropIntegrity, true},
		{"changed total", raw(func(b []byte) { b[35]++ }), ike.DropIntegrity, true},
		{"changed text", raw(func(b []byte) { b[50] ^= 1 }), ike.DropIntegrity, true},
		{"changed checksum", raw(func(b []byte) { b[len(b)-1] ^= 1 }), ike.DropIntegrity, true},
		{"other exchange of the same ID", func(m *mitm, h wire.Header) [][]byte {
			l := m.pieces(h, chain, 300)
			h.Exchange = wire.ExchangeCreateChildSA
			l[1] = m.pieces(h, chain, 300)[1]
			return l
		}, ike.DropFragment, true},
		{"exchange that is not due", func(m *mitm, h wire.Header) [][]byte {
			h.Exchange = wire.ExchangeIKEAuth
			return m.pieces(h, chain, 300)
		}, ike.DropFragment, false},
		{"ID outside of the window", func(m *mitm, h wire.Header) [][]byte {
			h.MessageID++
			return m.pieces(h, chain, 300)
		}, ike.DropMessageID, false},
		{"response that nobody waits for", func(m *mitm, h wire.Header) [][]byte {
			h.Flags |= wire.FlagResponse
			return m.pieces(h, chain, 300)
		}, ike.DropMessageID, false},
		{"smaller total", func(m *mitm, h wire.Header) [][]byte {
			l := m.pieces(h, chain, 300)
			return append(l[:2], m.skf(h, wire.PayloadNone, 2, 3, text))
		}, ike.DropFragment, true},
		{"more than max_packet", func(m *mitm, h wire.Header) [][]byte {
			return m.pieces(h, filler(10_001), 1000)
		}, ike.DropFragment, false},
		{"unknown payload in front of the first (CVE-2026-12413)", func(m *mitm, h wire.Header) [][]byte {
			l := m.pieces(h, chain, 300)
			l[0] = withPayloadInFront(l[0], 200)
			return l
		}, ike.DropUnprotected, true},
		{"known payload in front of the second", func(m *mitm, h wire.Header) [][]byte {
			l := m.pieces(h, chain, 300)
			l[1] = withPayloadInFront(l[1], uint8(wire.PayloadVendorID))
			return l
		}, ike.DropUnprotected, true},
		{"fragment in a fragment", func(m *mitm, h wire.Header) [][]byte {
			inner := m.skf(h, wire.PayloadVendorID, 1, 2, text)
			return [][]byte{m.skf(h, wire.PayloadSKF, 1, 2, inner[28:60])}
		}, dropNone, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := fragmentPair(t, false, nil)
			m.a.initiate("net")
			m.run(time.Second)
			before := m.b.e.Stats().Dropped[c.why]
			if got := m.deliver(c.send(m, m.request(wire.ExchangeInformational, 2))...); len(got) != 0 {
				t.Errorf("%d answers", len(got))
			}
			if c.why != dropNone && m.b.e.Stats().Dropped[c.why] == before {
				t.Errorf("nothing was dropped as %v: %v", c.why, m.b.e.Stats().Dropped)
			}
			if held := m.b.e.Stats().FragmentBytes > 0; held != c.held {
				t.Errorf("fragments are held: %v, want %v", held, c.held)
			}
			// The honest message comes through afterwards.
			if got := m.deliver(m.seal(m.request(wire.ExchangeInformational, 2), nil)); len(got) != 1 {
				t.Errorf("%d answers to the true message", len(got))
			}
			if m.b.e.Stats().Bugs != 0 || m.b.e.Stats().FragmentBytes != 0 {
				t.Errorf("%+v", m.b.e.Stats())
			}
			m.up()
		})
	}
}

// dropNone is no reason: nothing is counted.
const dropNone = ike.DropReason(255)

// withPayloadInFront puts a payload in the clear before the fragment's.
func withPayloadInFront(b []byte, kind uint8) []byte {
	out := append(bytes.Clone(b[:28]), b[16], 0, 0, 8, 1, 2, 3, 4)
	out[16] = kind
	out = append(out, b[28:]...)
	n := len(out)
	out[24], out[25], out[26], out[27] = byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
	return out
}

// What is wrong inside a message that came whole is INVALID_SYNTAX as ever.
func TestRFC7383_2_6_MalformedWhole(t *testing.T) {
	m := fragmentPair(t, false, nil)
	m.a.initiate("net")
	m.run(time.Second)
	h := m.request(wire.ExchangeInformational, 2)
	text := bytes.Repeat([]byte{0xff}, 100)
	got := m.deliver(m.skf(h, wire.PayloadSA, 1, 2, text), m.skf(h, wire.PayloadNone, 2, 2, text))
	if len(got) != 1 || len(m.b.e.SAs()) != 0 {
		t.Errorf("%d answers, %v", len(got), brief(m.b.e.SAs()))
	}
}

// A message that 64 fragments do not hold, or one without fragments 64 KiB, is not
// sent: the IKE SA ends by that name, and at a responder the peer is told.
func TestRFC7383_2_5_TooLargeToSend(t *testing.T) {
	for _, c := range []struct {
		name      string
		responder bool
		policy    ike.FragmentPolicy
		size      int
	}{
		{"initiator, fragments", false, ike.FragmentYes, 33_000},
		{"initiator, whole", false, ike.FragmentNo, 65_480},
		{"responder, fragments", true, ike.FragmentYes, 33_000},
		{"responder, whole", true, ike.FragmentNo, 65_480},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPair(t, func(a, b *side) {
				a.config.FragmentSize, b.config.FragmentSize = 576, 576
				a.config.MaxPacket, b.config.MaxPacket = 65_535, 65_535
				a.peer.Fragmentation, b.peer.Fragmentation = c.policy, c.policy
				a.peer.Remote[0].ID, b.peer.Remote[0].ID = ike.Identity{}, ike.Identity{}
				large := ike.Identity{Type: ike.IDFQDN, Data: strings.Repeat("x", c.size)}
				if c.responder {
					b.peer.Local[0].ID = large
				} else {
					a.peer.Local[0].ID = large
				}
			})
			dump(t, p)
			p.a.initiate("net")
			p.run(2 * time.Second)
			guilty := p.a
			if c.responder {
				guilty = p.b
			}
			if !slices.Contains(guilty.reasons(), ike.ReasonLimit) {
				t.Errorf("reasons %v", guilty.reasons())
			}
			if c.responder && !slices.Contains(p.a.reasons(), ike.ReasonAuthentication) {
				t.Errorf("the initiator was told %v", p.a.reasons())
			}
			if d := eventsOf[ike.CommandDone](p.a); len(d) != 1 || d[0].Err == nil {
				t.Errorf("%+v", d)
			}
			p.run(60 * time.Second)
			p.down()
		})
	}
}

// A peer that was told of no support gets no fragment accepted.
func TestRFC7383_2_3_FragmentsThatNobodyAnnounced(t *testing.T) {
	m := fragmentPair(t, false, func(a, b *side) { b.peer.Fragmentation = ike.FragmentNo })
	m.a.initiate("net")
	m.run(time.Second)
	if got := m.deliver(m.pieces(m.request(wire.ExchangeInformational, 2), filler(900), 300)...); len(got) != 0 || m.b.e.Stats().Dropped[ike.DropFragment] != 4 {
		t.Errorf("%d answers, %v", len(got), m.b.e.Stats().Dropped)
	}
}

// Fragments of one message come while the responder computes.
func TestRFC7383_2_6_FragmentsWhileBusy(t *testing.T) {
	m := fragmentPair(t, true, func(a, b *side) {
		a.child.Proposals = mustProposals(t, suite.ESP, "aes128gcm16-ecp384")
		b.child.Proposals = a.child.Proposals
	})
	m.a.initiate("net")
	m.run(time.Second)
	m.b.hold = true
	m.a.do(ike.Rekey{Child: "net"})
	m.run(100 * time.Millisecond) // b works at it
	for range 3 {
		m.run(5 * time.Second) // repetitions come meanwhile
	}
	m.b.release()
	m.run(20 * time.Second)
	m.up()
}

// While an IKE SA works at something of its own a whole message in fragments waits.
func TestRFC7383_2_6_FragmentsWaitWhileBusy(t *testing.T) {
	m := fragmentPair(t, false, func(a, b *side) {
		a.child.Proposals = mustProposals(t, suite.ESP, "aes128gcm16-ecp384")
		b.child.Proposals = a.child.Proposals
	})
	m.a.initiate("net")
	m.run(time.Second)
	m.b.hold = true
	m.b.do(ike.Rekey{Child: "net"})
	list := m.pieces(m.request(wire.ExchangeInformational, 2), filler(1900), 30)
	if got := m.deliver(list...); len(got) != 0 || len(list) != 64 {
		t.Errorf("%d answers to %d fragments while busy", len(got), len(list))
	}
	n := len(m.b.sent)
	m.b.release()
	answers := 0
	for _, d := range m.b.sent[n:] {
		if h := header(t, d); h.Response() {
			answers++
		}
	}
	if answers != 1 {
		t.Errorf("%d answers afterwards", answers)
	}
}

// Fragments of a response that then comes whole are not kept.
func TestRFC7383_2_6_WholeResponseAfterFragments(t *testing.T) {
	m := fragmentPair(t, false, nil)
	m.a.initiate("net")
	m.run(time.Second)
	seen := false
	m.filter = func(from *host, d ike.Datagram) bool {
		if h := header(t, d); from == m.b && h.Response() {
			seen = true
			h.NextPayload, h.Length = 0, 0
			m.a.e.Datagram(m.now, ike.Datagram{Local: d.Remote, Remote: d.Local, Data: m.skf(h, wire.PayloadVendorID, 1, 2, []byte("xyz"))})
			if m.a.e.Stats().FragmentBytes == 0 {
				t.Error("the fragment is not held")
			}
		}
		return true
	}
	m.a.do(ike.Terminate{Child: "net"})
	m.run(time.Second)
	if n := m.a.e.Stats().FragmentBytes; n != 0 || !seen {
		t.Errorf("%d bytes are held (a response was seen: %v)", n, seen)
	}
}

// Many half-open IKE SAs that hold the first fragments of a message never hold
// more together than is allowed, and leave room for those that are up.
func TestRFC7383_2_6_FloodOfFirstFragments(t *testing.T) {
	const most = 16 << 20 // ike.limitFragmentBytes / 2
	m := fragmentPair(t, false, func(a, b *side) {
		b.config.MaxPacket = 65_535
		b.config.CookieThreshold, b.config.CookieThresholdIP, b.config.BlockThreshold = 1_000_000, 1_000_000, 1_000_000
		b.peer.RemoteAddrs = []ike.AddrSpec{{Any: true}}
	})
	m.a.initiate("net")
	m.run(time.Second)
	held, refused := ikev2.FloodFragments(t, m.b.e, m.now, 400, 63, 1000)
	if held > most || held < most/2 {
		t.Errorf("%d bytes are held", held)
	}
	if refused == 0 {
		t.Error("nothing was refused")
	}
	m.b.drain()
	// The established IKE SA still gets its fragments through.
	if got := m.deliver(m.pieces(m.request(wire.ExchangeInformational, 2), filler(20_000), 1000)...); len(got) != 1 {
		t.Errorf("%d answers to the established peer", len(got))
	}
	m.run(40 * time.Second)
	if n := m.b.e.Stats().FragmentBytes; n != 0 {
		t.Errorf("%d bytes are held after the half-open IKE SAs are gone", n)
	}
}

// FuzzFragments puts any fragments under valid protection, in any order.
func FuzzFragments(f *testing.F) {
	f.Add(uint8(0), []byte{1, 2, 43, 8, 2, 2, 0, 8, 0, 0, 0, 12})
	f.Add(uint8(1), []byte{2, 3, 0, 30, 1, 3, 41, 9, 3, 3, 0, 9, 1, 4, 41, 9})
	f.Add(uint8(0), []byte{1, 1, 0, 1, 1, 64, 43, 200, 65, 65, 0, 3})
	f.Fuzz(func(t *testing.T, where uint8, script []byte) {
		if len(script) > 512 {
			return
		}
		m := fragmentPair(t, false, nil)
		m.a.initiate("net")
		if where&1 == 0 {
			m.run(time.Second)
		} else {
			m.run(15 * time.Millisecond) // IKE_AUTH is on its way
		}
		h := wire.Header{}
		if list := m.b.e.SAs(); len(list) != 1 {
			t.Fatal("no IKE SA")
		} else {
			h = wire.Header{SPIi: list[0].SPIi, SPIr: list[0].SPIr, Version: wire.IKEv2, Exchange: wire.ExchangeInformational, Flags: wire.FlagInitiator, MessageID: 2}
		}
		if where&1 != 0 {
			h.Exchange, h.MessageID = wire.ExchangeIKEAuth, 1
		}
		if len(m.keysOf(&h)) == 0 {
			return
		}
		for i := 0; i+4 <= len(script); i += 4 {
			text := script[i:min(i+int(script[i+3]), len(script))]
			m.deliver(m.skf(h, wire.PayloadType(script[i+2]), uint16(script[i]), uint16(script[i+1]), text))
			if n := m.b.e.Stats().FragmentBytes; n > 64*(24+600) {
				t.Fatalf("%d bytes are held", n)
			}
		}
		settleFuzz(t, m)
	})
}

package ikev1_test

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/suite"
)

var vidFragment = []byte("\x40\x48\xb7\xd5\x6e\xbc\xe8\x85\x25\xe7\xde\x7f\x00\xd6\xc2\xd3")

// fragmentPair sends certificates that make messages 5 and 6 larger than a packet.
func fragmentPair(t testing.TB, aggressive bool, tweak func(a, b *side)) *pair {
	p := newPair(t, func(a, b *side) {
		for _, s := range []*side{a, b} {
			s.peer.Local[0].Method, s.peer.Remote[0].Method = ike.AuthPubkey, ike.AuthPubkey
			s.config.FragmentSize, s.peer.Aggressive = 576, aggressive
		}
		if tweak != nil {
			tweak(a, b)
		}
	})
	cert := make([]byte, 2500)
	rand.Read(cert)
	for i, h := range []*host{p.a, p.b} {
		introduce(h, p.other(h), []string{"a.example.org", "b.example.org"}[i], newKey(t, "rsa"))
		h.creds.certs = []ike.CertPayload{{Encoding: wire.CertX509Signature, Data: cert}}
	}
	return p
}

// fragmentOf reads a datagram that is a fragment; false: it is something else.
func fragmentOf(t testing.TB, d []byte) (wire.V1Fragment, bool) {
	h, err := wire.ParseHeader(d)
	if err != nil || h.NextPayload != wire.PayloadV1Fragment {
		return wire.V1Fragment{}, false
	}
	list, _, err := wire.ParseV1Chain(h.NextPayload, d[wire.HeaderLen:])
	if err != nil || len(list) != 1 || h.MessageID != 0 {
		t.Fatalf("a fragment that is none: %v, %v", h, err)
	}
	f, err := wire.ParseV1Fragment(list[0].Body)
	if err != nil {
		t.Fatal(err)
	}
	return f, true
}

// TestMSIKEE_Fragments sends what is too large in fragments, as `fragmentation` and what
// the peer announces say, in no packet longer than fragment_size.
func TestMSIKEE_Fragments(t *testing.T) {
	for _, c := range []struct {
		a, b         ike.FragmentPolicy
		saysA, saysB bool
		sendA, sendB bool
	}{
		{ike.FragmentYes, ike.FragmentYes, true, true, true, true},
		{ike.FragmentForce, ike.FragmentYes, true, true, true, true},
		{ike.FragmentAccept, ike.FragmentYes, true, true, false, true},
		{ike.FragmentYes, ike.FragmentAccept, true, true, true, false},
		{ike.FragmentYes, ike.FragmentNo, true, false, false, false},
		{ike.FragmentNo, ike.FragmentYes, false, false, false, false},
		{ike.FragmentNo, ike.FragmentForce, false, false, false, true},
	} {
		for _, aggressive := range []bool{false, true} {
			t.Run(fmt.Sprint(c.a, c.b, aggressive), func(t *testing.T) {
				p := fragmentPair(t, aggressive, func(a, b *side) { a.peer.Fragmentation, b.peer.Fragmentation = c.a, c.b })
				p.a.initiate("net")
				p.run(time.Second)
				for _, x := range []struct {
					h          *host
					says, send bool
				}{{p.a, c.saysA, c.sendA}, {p.b, c.saysB, c.sendB}} {
					says, send := false, 0
					for _, d := range x.h.sent {
						says = says || bytes.Contains(d.Data, vidFragment)
						if f, ok := fragmentOf(t, d.Data); ok {
							send++
							if len(d.Data) > 576-20-8-4 || int(f.Number) > 12 {
								t.Errorf("fragment %d of %d octets", f.Number, len(d.Data))
							}
						}
					}
					if says != x.says || (send > 3) != x.send {
						t.Errorf("%s: announces %v, sent %d fragments; want %v, %v", x.h.name, says, send, x.says, x.send)
					}
				}
				if c.a == ike.FragmentNo && c.b == ike.FragmentForce {
					return // who says no takes none
				}
				p.up()
			})
		}
	}
}

// TestFragmentsOnBadWays loses, doubles and turns fragments round: phase 1 comes up by
// repetition, and nothing is left of what did not come whole.
func TestFragmentsOnBadWays(t *testing.T) {
	p := fragmentPair(t, false, nil)
	n := 0
	p.filter = func(from *host, d ike.Datagram) bool { n++; return n%11 != 9 }
	p.delay = func(from *host, d ike.Datagram) time.Duration {
		if n%3 == 0 {
			p.transmitAgain(from, d)
		}
		return time.Duration(40-n%30) * time.Millisecond
	}
	p.a.initiate("net")
	p.run(2 * time.Minute)
	p.up()
	for _, h := range []*host{p.a, p.b} {
		if n := h.e.Stats().FragmentBytes; n != 0 {
			t.Errorf("%s keeps %d bytes of fragments", h.name, n)
		}
	}
}

// TestFirstMessageInFragments: with force nobody waits for an announcement. Aggressive mode
// in a large group begins with more than a packet holds.
func TestFirstMessageInFragments(t *testing.T) {
	for _, c := range []struct {
		name string
		b    ike.FragmentPolicy
		lose bool // the second fragment of each message, once
		up   bool
	}{{"good way", ike.FragmentYes, false, true}, {"bad way", ike.FragmentYes, true, true}, {"not wanted", ike.FragmentNo, false, false}} {
		t.Run(c.name, func(t *testing.T) {
			p := fragmentPair(t, true, func(a, b *side) {
				a.peer.Proposals, b.peer.Proposals = mustProposals(t, suite.IKE, "aes128-sha256-modp4096"), mustProposals(t, suite.IKE, "aes128-sha256-modp4096")
				a.peer.Fragmentation, b.peer.Fragmentation = ike.FragmentForce, c.b
			})
			first, lost := 0, map[string]bool{}
			p.filter = func(from *host, d ike.Datagram) bool {
				f, ok := fragmentOf(t, d.Data)
				if h, err := wire.ParseHeader(d.Data); ok && err == nil && h.SPIr == 0 {
					first++
				}
				if key := fmt.Sprint(from.name, f.ID); c.lose && f.Number == 2 && !lost[key] {
					lost[key] = true
					return false
				}
				return true
			}
			p.a.initiate("net")
			p.run(time.Minute)
			if first < 2 {
				t.Errorf("%d fragments of the first message", first)
			}
			if c.up {
				p.up()
			} else if n := len(p.b.e.SAs()); n != 0 {
				t.Errorf("%d SAs", n)
			}
			if n := p.b.e.Stats().FragmentBytes; n != 0 {
				t.Errorf("%d bytes of fragments are kept", n)
			}
		})
	}
}

// TestFirstFragmentFlood: fragments of first messages that never come whole are answered by
// nothing, count as half-open and go in time; nonsense that is whole leaves nothing at once.
func TestFirstFragmentFlood(t *testing.T) {
	p := fragmentPair(t, false, nil)
	send := func(i int, f wire.V1Fragment) {
		h := wire.Header{SPIi: uint64(i + 1), Version: wire.IKEv1, Exchange: wire.ExchangeV1IdentityProtection}
		from := netip.AddrFrom4([4]byte{192, 0, 2, byte(i % 200)})
		p.b.e.Datagram(p.now, ike.Datagram{Local: netip.AddrPortFrom(addrB, 500), Remote: netip.AddrPortFrom(from, 500), Data: wire.AppendV1Message(nil, h, []wire.V1Payload{f.Payload()})})
		p.b.drain()
	}
	for i := range 100 {
		send(i, wire.V1Fragment{ID: 1, Number: 1, Last: true, Data: []byte("no message at all, but a whole one")})
		send(i, wire.V1Fragment{ID: 1, Number: 0, Data: []byte("no number")})
	}
	if n := len(p.b.e.SAs()); n != 0 {
		t.Errorf("%d SAs of nonsense", n)
	}
	for i := range 20_000 {
		send(i, wire.V1Fragment{ID: 1, Number: uint8(1 + i%250), Data: make([]byte, 1000)})
	}
	if n, b := len(p.b.e.SAs()), p.b.e.Stats().FragmentBytes; n == 0 || n > 1000 || b > 16<<20 {
		t.Errorf("%d SAs with %d bytes", n, b)
	}
	p.run(31 * time.Second)
	if n, b := len(p.b.e.SAs()), p.b.e.Stats().FragmentBytes; n != 0 || b != 0 || len(p.b.sent) != 0 || len(eventsOf[*ike.Rejection](p.b)) != 0 {
		t.Errorf("%d SAs with %d bytes, %d packets, %d rejections", n, b, len(p.b.sent), len(eventsOf[*ike.Rejection](p.b)))
	}
}

// transmitAgain delivers a datagram once more, somewhat later.
func (p *pair) transmitAgain(from *host, d ike.Datagram) {
	p.seq++
	p.queue = append(p.queue, packet{p.now.Add(70 * time.Millisecond), p.seq, p.other(from), ike.Datagram{Local: d.Remote, Remote: d.Local, Data: bytes.Clone(d.Data)}})
}

// TestFragmentHoard: what a stranger who sees the cookies sends in fragments is bounded,
// forgotten, and does not keep the true ones from coming.
func TestFragmentHoard(t *testing.T) {
	p := fragmentPair(t, false, nil)
	var last []byte
	p.filter = func(from *host, d ike.Datagram) bool {
		if _, ok := fragmentOf(t, d.Data); ok && from == p.a {
			last = d.Data
			return false
		}
		return true
	}
	p.a.initiate("net")
	p.run(200 * time.Millisecond)
	if last == nil {
		t.Fatal("no fragment was sent")
	}
	send := func(f wire.V1Fragment, port uint16) {
		h, _ := wire.ParseHeader(last)
		d := wire.AppendV1Message(nil, h, []wire.V1Payload{f.Payload()})
		p.b.e.Datagram(p.now, ike.Datagram{Local: netip.AddrPortFrom(addrB, 500), Remote: netip.AddrPortFrom(addrA, port), Data: d})
		p.b.drain()
	}
	most := 0
	for i := range 3000 {
		send(wire.V1Fragment{ID: uint16(i), Number: uint8(1 + i%255), Last: i%7 == 0, Data: make([]byte, 1+i%1200)}, uint16(i%3))
		most = max(most, p.b.e.Stats().FragmentBytes)
	}
	for i := range 255 { // one message that grows without end
		send(wire.V1Fragment{ID: 9, Number: uint8(i + 1), Data: make([]byte, 1200)}, 7)
		most = max(most, p.b.e.Stats().FragmentBytes)
	}
	if most == 0 || most > 32<<10 {
		t.Errorf("up to %d bytes of fragments are kept", most)
	}
	// A whole message of nonsense under the true ID and from the true port.
	send(wire.V1Fragment{ID: 1, Number: 1, Data: []byte("noth")}, 500)
	send(wire.V1Fragment{ID: 1, Number: 2, Last: true, Data: []byte("ing")}, 500)
	// A fragment of a fragment.
	send(wire.V1Fragment{ID: 1, Number: 1, Last: true, Data: last}, 500)
	p.filter = nil
	p.run(30 * time.Second)
	p.up()
	p.run(31 * time.Second)
	if n := p.b.e.Stats().FragmentBytes; n != 0 {
		t.Errorf("%d bytes of fragments are kept for ever", n)
	}
	if p.b.e.Stats().Dropped[ike.DropFragment] == 0 {
		t.Error("nothing was dropped")
	}
}

// FuzzFragments has any fragments arrive at any time.
func FuzzFragments(f *testing.F) {
	p := fragmentPair(f, false, nil)
	p.filter = func(from *host, d ike.Datagram) bool {
		if _, ok := fragmentOf(f, d.Data); ok {
			for stage := range uint8(7) {
				f.Add(stage, from == p.a, bytes.Clone(d.Data[wire.HeaderLen:]), []byte{0, 0, 0, 12, 0, 1, 2, 1, 1, 2, 3, 4})
			}
		}
		return true
	}
	p.a.initiate("net")
	p.run(time.Second)
	f.Fuzz(func(t *testing.T, stage uint8, fromA bool, first, second []byte) {
		p := fuzzed(t, stage)
		from, to := p.b, p.a
		if fromA {
			from, to = p.a, p.b
		}
		for _, body := range [][]byte{first, second, first} {
			h := wire.Header{Version: wire.IKEv1, Exchange: wire.ExchangeV1IdentityProtection, NextPayload: wire.PayloadV1Fragment, Length: uint32(wire.HeaderLen + len(body))}
			if list := to.e.SAs(); len(list) > 0 {
				h.SPIi, h.SPIr = list[0].SPIi, list[0].SPIr
			}
			to.e.Datagram(p.now, ike.Datagram{Local: netip.AddrPortFrom(to.addr, 500), Remote: netip.AddrPortFrom(from.addr, 500), Data: append(h.Append(nil), body...)})
			to.drain()
		}
		settleFuzz(t, p)
		if to.e.Stats().FragmentBytes != 0 {
			t.Fatal("fragments are left")
		}
	})
}

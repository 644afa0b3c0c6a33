package attack_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/big"
	"net/netip"
	"strings"
	"testing"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/suite"
)

// generic is one payload with a header of our own making.
func generic(next wire.PayloadType, body []byte) []byte {
	b := []byte{byte(next), 0, 0, 0}
	binary.BigEndian.PutUint16(b[2:], uint16(4+len(body)))
	return append(b, body...)
}

// rawInit is an IKE_SA_INIT of any bytes.
func rawInit(first wire.PayloadType, body []byte) []byte {
	h := wire.Header{SPIi: random64(), NextPayload: first, Version: wire.IKEv2, Exchange: wire.ExchangeIKESAInit, Flags: wire.FlagInitiator, Length: uint32(wire.HeaderLen + len(body))}
	return append(h.Append(nil), body...)
}

// First messages of all shapes: each is answered within the bound or dropped under
// a name, quickly, and leaves nothing behind.
func TestHostileFirstMessages(t *testing.T) {
	w := newWorld(t, nil)
	p := w.stranger()
	good := p.initPayloads()
	many := func(n int, x wire.Payload) []wire.Payload {
		list := append([]wire.Payload(nil), good...)
		for range n {
			list = append(list, x)
		}
		return list
	}
	wide := &wire.SA{} // the largest proposal list that parses
	for i := range 40 {
		q := wire.Proposal{Number: uint8(i + 1), Protocol: wire.ProtocolIKE}
		for k := range wire.MaxTransforms {
			q.Transforms = append(q.Transforms, wire.Transform{Type: uint8(1 + k%4), ID: uint16(1000 + k), KeyLength: 128})
		}
		wide.Proposals = append(wide.Proposals, q)
	}
	wider := &wire.SA{}
	for i := range 200 {
		wider.Proposals = append(wider.Proposals, wire.Proposal{Number: uint8(i + 1), Protocol: wire.ProtocolIKE, Transforms: wide.Proposals[0].Transforms[:4]})
	}
	chain := bytes.Repeat(generic(wire.PayloadNotify, []byte{0, 0, 0x40, 0}), 8000)
	chain[len(chain)-8] = 0
	transforms := []byte{0, 0, 0xff, 0xf0, 1, 1, 0, 255}
	for i := range 8000 {
		transforms = append(transforms, 3, 0, 0, 8, byte(1+i%4), 0, byte(i>>8), byte(i))
	}
	transforms[len(transforms)-8] = 0
	loop := append(generic(wire.PayloadNotify, []byte{0, 0, 0x40, 0}), byte(wire.PayloadNotify), 0, 0, 0)
	for _, c := range []struct {
		name string
		b    []byte
	}{
		{"64 KiB of vendor IDs", p.first(many(20, &wire.VendorID{Data: make([]byte, 3000)})...)},
		{"64 KiB of junk", rawInit(wire.PayloadSA, bytes.Repeat([]byte{0xff}, 65_000))},
		{"64 KiB of zeros", rawInit(wire.PayloadSA, make([]byte, 65_000))},
		{"thousands of payloads", rawInit(wire.PayloadNotify, chain)},
		{"thousands of transforms", rawInit(wire.PayloadSA, generic(0, transforms))},
		{"proposals without end", p.first(append([]wire.Payload{wide}, good[1:]...)...)},
		{"more proposals than are read", p.first(append([]wire.Payload{wider}, good[1:]...)...)},
		{"a payload of length 0", rawInit(wire.PayloadNotify, loop)},
		{"no payloads", p.first()},
		{"only a nonce", p.first(good[2])},
		{"SA twice", p.first(append(many(0, nil), good[0])...)},
		{"KE twice", p.first(append(many(0, nil), good[1])...)},
		{"an empty SA", p.first(&wire.SA{}, good[1], good[2])},
		{"no KE", p.first(good[0], good[2])},
		{"no nonce", p.first(good[0], good[1])},
		{"an ESP proposal", p.first(espProposal(0x1000), good[1], good[2])},
		{"a proposal with an SPI", p.first(ikeProposal(p.group, random(8)), good[1], good[2])},
		{"a critical unknown payload", p.first(append(many(0, nil), &wire.Unknown{Critical: true, PayloadType: 200})...)},
		{"an Encrypted payload", wire.AppendEncrypted(nil, wire.Header{SPIi: random64(), Version: wire.IKEv2, Exchange: wire.ExchangeIKESAInit, Flags: wire.FlagInitiator}, good, wire.Encrypted{Type: wire.PayloadSK, FirstInner: wire.PayloadSA}, 0)},
		{"error notifies", p.first(many(50, notify(wire.InvalidSyntax, nil))...)},
		{"60 cookies", p.first(many(60, notify(wire.Cookie, make([]byte, 900)))...)},
		{"60 NAT detection hashes", p.first(many(60, notify(wire.NATDetectionSourceIP, make([]byte, 900)))...)},
		{"an AUTH payload in the clear", p.first(append(many(0, nil), &wire.Auth{Method: wire.AuthSharedKey, Data: make([]byte, 32)})...)},
		{"a Delete in the clear", p.first(append(many(0, nil), &wire.Delete{Protocol: wire.ProtocolIKE})...)},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.t = t
			b := bytes.Clone(c.b)
			copy(b, random(8)) // another SPI each time
			before := w.v.e.Stats()
			began := time.Now()
			q := w.stranger()
			q.at = addr(int(random64() & 0x1ffff))
			back := q.send(b)
			if took := time.Since(began); took > time.Second {
				t.Errorf("took %v", took)
			}
			if len(back) > 1 || len(back) == 1 && len(back[0].Data) > 2*len(b) {
				t.Errorf("%d answers", len(back))
			}
			after := w.v.e.Stats()
			counted := after.Rejections > before.Rejections || after.Accepted > before.Accepted || after.Cookies > before.Cookies
			for r, n := range after.Dropped {
				counted = counted || n > before.Dropped[r]
			}
			if !counted {
				t.Error("counted under no name")
			}
		})
	}
	w.t = t
	w.honest()
	w.rest(0)
}

// prime2048 is group 14's (RFC 3526 §3).
const prime2048 = `ffffffffffffffffc90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74020bbea63b139b22514a08798e3404dd
ef9519b3cd3a431b302b0a6df25f14374fe1356d6d51c245e485b576625e7ec6f44c42e9a637ed6b0bff5cb6f406b7ed
ee386bfb5a899fa5ae9f24117c4b1fe649286651ece45b3dc2007cb8a163bf0598da48361c55d39a69163fa8fd24cf5f
83655d23dca3ad961c62f356208552bb9ed529077096966d670c354e4abc9804f1746c08ca18217c32905e462e36ce3b
e39e772c180e86039b2783a2ec07a28fb5c55df06f4c52c9de2bcbf6955817183995497cea956ae515d2261898fa0510
15728e5a8aacaa68ffffffffffffffff`

// publicValues are those that must not be taken, for a group (RFC 6989, RFC 7748).
func publicValues(t *testing.T, g suite.TransformID) map[string][]byte {
	n := suite.PublicLen(g)
	num := func(last byte) []byte { b := make([]byte, n); b[n-1] = last; return b }
	ones := bytes.Repeat([]byte{0xff}, n)
	good := func() []byte {
		kx, err := suite.NewKeyExchange(g)
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Clone(kx.Public())
	}()
	m := map[string][]byte{"zero": num(0), "short": good[:n-1], "long": append(bytes.Clone(good), 0), "empty": {}, "all ones": ones, "60 KB": make([]byte, 60_000)}
	switch g {
	case suite.KECurve25519, suite.KECurve448:
		one := make([]byte, n)
		one[0] = 1
		m["one"] = one
		delete(m, "all ones") // reduced, by RFC 7748
	case suite.KEECP256, suite.KEECP384:
		m["off the curve"] = append(bytes.Clone(good[:n-1]), good[n-1]^1)
		m["x of another point"] = append(num(5)[n/2:], good[n/2:]...)
		m["compressed"] = append([]byte{2}, good[:n/2]...)
	case suite.KEMODP2048:
		m["one"] = num(1)
		p, ok := new(big.Int).SetString(strings.ReplaceAll(prime2048, "\n", ""), 16)
		if !ok {
			t.Fatal("the prime does not parse")
		}
		m["the prime"], m["two beyond the prime"] = p.FillBytes(make([]byte, n)), new(big.Int).Add(p, big.NewInt(2)).FillBytes(make([]byte, n))
		m["one below the prime"] = new(big.Int).Sub(p, big.NewInt(1)).FillBytes(make([]byte, n))
	}
	return m
}

func TestRFC6989_HostilePublicValues(t *testing.T) {
	w := newWorld(t, nil)
	i := 0
	for _, g := range []suite.TransformID{suite.KECurve25519, suite.KECurve448, suite.KEECP256, suite.KEECP384, suite.KEMODP2048} {
		for name, v := range publicValues(t, g) {
			p := w.stranger()
			p.group = g
			i++
			p.at = addr(i)
			before := len(w.v.rejections)
			back := p.send(p.first(ikeProposal(g, nil), &wire.KE{Group: uint16(g), Data: v}, &wire.Nonce{Data: p.ni}))
			for _, d := range back {
				if _, taken := wire.First[*wire.KE](parse(t, d.Data).Payloads); taken {
					t.Errorf("group %d: %s was taken", g, name)
				}
			}
			if st := w.v.e.Stats(); st.HalfOpen != 0 || st.Bugs != 0 {
				t.Fatalf("group %d, %s: %+v %v", g, name, st, w.v.bugs)
			}
			if len(w.v.rejections) == before && !(len(v) > 8192 && w.dropped(ike.DropTooLarge) > 0) {
				t.Errorf("group %d, %s: no rejection", g, name)
			}
			w.advance(time.Second) // the rate of rejections is bounded
		}
	}
	w.honest()
	w.rest(0)
}

// Unknown groups, KE and SA that contradict each other.
func TestRFC7296_1_2_GroupGames(t *testing.T) {
	w := newWorld(t, nil)
	for i, c := range []struct {
		inSA, inKE uint16
		want       wire.NotifyType
	}{
		{1025, 1025, wire.NoProposalChosen}, {0, 0, wire.NoProposalChosen}, {65535, 65535, wire.NoProposalChosen},
		{31, 1025, wire.InvalidKEPayload}, {31, 0, wire.InvalidKEPayload}, {31, 14, wire.InvalidKEPayload}, {14, 31, wire.InvalidKEPayload}, {1, 1, wire.NoProposalChosen},
	} {
		p := w.stranger()
		p.at = addr(i)
		list := p.initPayloads()
		back := p.send(p.first(ikeProposal(suite.TransformID(c.inSA), nil), &wire.KE{Group: c.inKE, Data: list[1].(*wire.KE).Data}, list[2]))
		if len(back) != 1 {
			t.Errorf("%+v: %d answers", c, len(back))
			continue
		}
		if got := errorIn(parse(t, back[0].Data).Payloads); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
	if st := w.v.e.Stats(); st.HalfOpen != 0 {
		t.Errorf("%+v", st)
	}
	w.honest()
	w.rest(0)
}

// SPI zero, both SPIs equal, our own SPIs, and the SPIs of the honest peer.
func TestSPIGames(t *testing.T) {
	w := newWorld(t, nil)
	honest := w.v.e.SAs()[0]
	p := w.stranger()
	list := p.initPayloads()
	b := p.first(list...)
	// SPIi zero is no IKE SA.
	zero := bytes.Clone(b)
	clear(zero[:8])
	w.counted(ike.DropMalformed, func() { p.send(zero) })
	// A first message that knows an SPI of ours already.
	for _, spi := range []uint64{honest.SPIi, honest.SPIr, random64()} {
		c := bytes.Clone(b)
		binary.BigEndian.PutUint64(c[8:], spi)
		p.send(c)
	}
	// A first message under the honest peer's SPI, from elsewhere: another IKE SA,
	// nothing that touches the first one.
	p.spiI = honest.SPIi
	p.send(p.first(list...))
	// Both SPIs equal in what follows.
	q := w.guest()
	if !q.init() {
		t.Fatal("no answer")
	}
	equal := q.header(wire.ExchangeIKEAuth, 1, false)
	equal.SPIi = equal.SPIr
	w.counted(ike.DropUnknownSPI, func() { q.send(q.seal(equal, q.authPayloads()...)) })
	none := q.header(wire.ExchangeIKEAuth, 1, false)
	none.SPIr = 0
	q.send(q.seal(none, q.authPayloads()...))
	if _, ok := wire.First[*wire.Auth](q.ask(wire.ExchangeIKEAuth, q.authPayloads()...)); !ok {
		t.Error("the games broke an honest set-up")
	}
	w.honest()
	w.rest(1)
}

// Hashes of NAT detection that lie move no tunnel but the liar's own.
func TestRFC7296_2_23_LiesAboutNAT(t *testing.T) {
	for i, list := range [][]wire.Payload{
		{notify(wire.NATDetectionSourceIP, nil), notify(wire.NATDetectionDestinationIP, nil)},
		{notify(wire.NATDetectionSourceIP, make([]byte, 20)), notify(wire.NATDetectionDestinationIP, make([]byte, 20))},
		{notify(wire.NATDetectionSourceIP, make([]byte, 2000)), notify(wire.NATDetectionSourceIP, make([]byte, 20)), notify(wire.NATDetectionDestinationIP, make([]byte, 19))},
		{notify(wire.NATDetectionDestinationIP, make([]byte, 20))},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			w := newWorld(t, nil)
			p := w.guest()
			p.request = p.first(append(p.initPayloads(), list...)...)
			if !p.take(parse(t, p.send(p.request)[0].Data)) {
				t.Fatal("no answer")
			}
			p.at, p.to = netip.AddrPortFrom(hostileAddr, 4500), netip.AddrPortFrom(victimAddr, 4500)
			if _, ok := wire.First[*wire.Auth](p.ask(wire.ExchangeIKEAuth, p.authPayloads()...)); !ok {
				t.Fatal("refused")
			}
			// A replayed request from elsewhere: nothing moves, whatever the NAT.
			h := p.header(wire.ExchangeInformational, p.next, false)
			p.next++
			b := p.seal(h)
			p.send(b)
			moved := w.v.moved
			w.inject(addr(9), p.to, b)
			bad := bytes.Clone(b)
			binary.BigEndian.PutUint32(bad[20:], p.next)
			w.counted(ike.DropIntegrity, func() { w.inject(addr(9), p.to, bad) })
			if w.v.moved != moved {
				t.Error("a replayed or forged packet moved the SA")
			}
			w.honest()
			w.rest(1)
		})
	}
}

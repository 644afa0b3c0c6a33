package ikev2_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/suite"
)

const (
	hybrid = "aes256gcm16-prfsha384-x25519-ke1_mlkem768"
	triple = "aes256gcm16-prfsha384-x25519-ke1_mlkem768-ke2_ecp384"
	seven  = "aes128-sha256-x25519-ke1_mlkem768-ke2_mlkem512-ke3_mlkem1024-ke4_ecp256-ke5_ecp384-ke6_x448-ke7_ecp521"
)

// with gives both sides the same IKE and ESP proposals; esp may be "".
func with(ikeText, esp string) func(a, b *side) {
	return func(a, b *side) {
		for _, s := range []*side{a, b} {
			s.peer.Proposals = nil
			for _, text := range strings.Split(ikeText, ",") {
				p, err := suite.ParseProposal(suite.IKE, text)
				if err != nil {
					panic(err)
				}
				s.peer.Proposals = append(s.peer.Proposals, p)
			}
			if esp != "" {
				p, err := suite.ParseProposal(suite.ESP, esp)
				if err != nil {
					panic(err)
				}
				s.child.Proposals = []suite.Proposal{p}
			}
		}
	}
}

// whole is with, and no message goes in fragments.
func whole(ikeText, esp string) func(a, b *side) {
	return func(a, b *side) {
		with(ikeText, esp)(a, b)
		a.config.FragmentSize, b.config.FragmentSize = 4000, 4000
	}
}

// exchanges counts the messages that a sent, by exchange.
func exchanges(t testing.TB, h *host, x wire.ExchangeType) (n int) {
	for _, d := range h.sent {
		if header(t, d).Exchange == x {
			n++
		}
	}
	return n
}

func TestRFC9370_2_2_2_SetUp(t *testing.T) {
	for _, c := range []struct {
		ike    string
		rounds int
		want   string
	}{
		{hybrid, 1, "IKE:AES_GCM_16_256/PRF_HMAC_SHA2_384/CURVE_25519/KE1_ML_KEM_768"},
		{triple, 2, "IKE:AES_GCM_16_256/PRF_HMAC_SHA2_384/CURVE_25519/KE1_ML_KEM_768/KE2_ECP_384"},
		{seven, 7, "IKE:AES_CBC_128/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/CURVE_25519/KE1_ML_KEM_768/KE2_ML_KEM_512/KE3_ML_KEM_1024/KE4_ECP_256/KE5_ECP_384/KE6_CURVE_448/KE7_ECP_521"},
		{"aes128-sha256-mlkem768", 0, "IKE:AES_CBC_128/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/ML_KEM_768"},
	} {
		for _, auth := range []string{"psk", "signature"} {
			p := newPair(t, with(c.ike, ""))
			if auth == "signature" {
				p = signed(t, "ed25519", with(c.ike, ""))
			}
			dump(t, p)
			p.a.initiate("net")
			p.run(2 * time.Second)
			p.up()
			if got := p.a.e.SAs()[0].Suite.String(); got != c.want {
				t.Errorf("%s: %s", c.ike, got)
			}
			if n, m := exchanges(t, p.a, wire.ExchangeIKEIntermediate), exchanges(t, p.b, wire.ExchangeIKEIntermediate); n < c.rounds || m < c.rounds || c.rounds == 0 && n+m != 0 {
				t.Errorf("%s: %d and %d messages of IKE_INTERMEDIATE", c.ike, n, m)
			}
			p.a.do(ike.Terminate{IKE: "a"})
			p.run(time.Second)
			p.down()
		}
	}
}

// Each message of the set-up is lost, doubled or late in turn, in fragments and whole.
func TestRFC9242_3_2_LossAndReorder(t *testing.T) {
	for _, size := range []int{0, 576} {
		for n := range 12 {
			for _, fault := range []string{"lost", "doubled", "late"} {
				p := newPair(t, func(a, b *side) {
					with(triple, "")(a, b)
					a.config.FragmentSize, b.config.FragmentSize = size, size
				})
				count := 0
				hit := func() bool { count++; return count == n+1 }
				switch fault {
				case "lost":
					p.filter = func(*host, ike.Datagram) bool { return !hit() }
				case "doubled":
					p.filter = func(from *host, d ike.Datagram) bool {
						if hit() {
							p.seq++
							p.queue = append(p.queue, packet{p.now.Add(35 * time.Millisecond), p.seq, p.other(from), ike.Datagram{Local: d.Remote, Remote: d.Local, Data: bytes.Clone(d.Data)}})
						}
						return true
					}
				case "late":
					p.delay = func(*host, ike.Datagram) time.Duration {
						if hit() {
							return 70 * time.Millisecond
						}
						return 10 * time.Millisecond
					}
				}
				p.a.initiate("net")
				p.run(20 * time.Second)
				p.up()
				if len(p.a.reasons())+len(p.b.reasons()) != 0 {
					t.Errorf("%s %d: %v %v", fault, n, p.a.trace(), p.b.trace())
				}
				if t.Failed() {
					t.Fatalf("message %d %s, packets of %d", n, fault, size)
				}
			}
		}
	}
}

// IntAuth is the same in fragments and whole (RFC 9242 §3.3.2): the two ends differ.
func TestRFC9242_3_3_2_IntAuthOfFragments(t *testing.T) {
	for _, sizes := range [][2]int{{576, 1400}, {1400, 576}, {576, 576}} {
		p := newPair(t, func(a, b *side) {
			with("aes128-sha256-x25519-ke1_mlkem1024", "")(a, b)
			a.config.FragmentSize, b.config.FragmentSize = sizes[0], sizes[1]
		})
		p.a.initiate("net")
		p.run(2 * time.Second)
		p.up()
		if n, m := exchanges(t, p.a, wire.ExchangeIKEIntermediate), exchanges(t, p.b, wire.ExchangeIKEIntermediate); n < 2 || m < 2 {
			t.Errorf("%d and %d fragments", n, m)
		}
	}
}

// A man in the middle who has all keys of IKE_SA_INIT (a quantum computer) can't change
// an IKE_INTERMEDIATE unseen: AUTH covers it (RFC 9242 §3.3.2).
func TestRFC9242_3_3_2_AUTHCoversIntermediate(t *testing.T) {
	for _, direction := range []string{"request", "response"} {
		m := newMITM(t, whole(hybrid, ""))
		m.change = func(from *host, h *wire.Header, payloads []wire.Payload) []wire.Payload {
			if h.Exchange == wire.ExchangeIKEIntermediate && h.Response() == (direction == "response") {
				return append(payloads, &wire.VendorID{Data: []byte("slipped in")})
			}
			return payloads
		}
		m.a.initiate("net")
		m.run(2 * time.Second)
		if !slices.Contains(append(m.a.reasons(), m.b.reasons()...), ike.ReasonAuthentication) {
			t.Errorf("%s: not caught: %v %v", direction, m.a.trace(), m.b.trace())
		}
		m.run(2 * time.Minute)
		m.down()
	}
}

// Additional key exchanges need IKE_INTERMEDIATE at both ends (RFC 9370 §2.2.1).
func TestRFC9370_2_2_1_Negotiation(t *testing.T) {
	for _, c := range []struct{ a, b, want string }{
		{hybrid + ",aes128-sha256-x25519", "aes128-sha256-x25519", "IKE:AES_CBC_128/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/CURVE_25519"},
		{"aes128-sha256-x25519", hybrid + ",aes128-sha256-x25519", "IKE:AES_CBC_128/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/CURVE_25519"},
		{"aes128-sha256-x25519", "aes128-sha256-x25519-ke1_mlkem768-ke1_none", "IKE:AES_CBC_128/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/CURVE_25519"},
		{"aes128-sha256-x25519-ke1_none-ke1_mlkem768", hybrid + "," + "aes128-sha256-x25519-ke1_mlkem768-ke1_none", "IKE:AES_CBC_128/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/CURVE_25519/KE1_ML_KEM_768"},
		{"aes128-sha256-x25519-ke3_mlkem512", "aes128-sha256-x25519-ke3_mlkem512", "IKE:AES_CBC_128/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/CURVE_25519/KE3_ML_KEM_512"},
		{"aes128-sha256-x25519", hybrid, ""},
		{hybrid, "aes256gcm16-prfsha384-x25519", ""},
		{hybrid, "aes256gcm16-prfsha384-x25519-ke1_mlkem1024", ""},
		{hybrid, "aes256gcm16-prfsha384-x25519-ke2_mlkem768", ""},
	} {
		p := newPair(t, func(a, b *side) {
			with(c.a, "")(a, b)
			ours := a.peer.Proposals
			with(c.b, "")(a, b)
			a.peer.Proposals = ours
		})
		p.a.initiate("net")
		p.run(5 * time.Second)
		if c.want == "" {
			if !slices.Contains(p.b.reasons(), ike.ReasonProposal) || len(p.a.e.SAs()) != 0 {
				t.Errorf("%s and %s: %v", c.a, c.b, p.b.trace())
			}
			continue
		}
		p.up()
		if got := p.b.e.SAs()[0].Suite.String(); got != c.want {
			t.Errorf("%s and %s: %s", c.a, c.b, got)
		}
	}
}

// The notify is stripped: no additional key exchange is possible, and a side that
// insists on one says so.
func TestRFC9370_2_2_1_WithoutIntermediate(t *testing.T) {
	for _, from := range []string{"a", "b"} {
		p := newPair(t, with(hybrid, ""))
		p.filter = func(h *host, d ike.Datagram) bool {
			if header(t, d).Exchange == wire.ExchangeIKESAInit && h.name == from {
				strip(t, d.Data, wire.IntermediateExchangeSupported)
			}
			return true
		}
		p.a.initiate("net")
		p.run(10 * time.Second)
		if !slices.Contains(append(p.a.reasons(), p.b.reasons()...), ike.ReasonProposal) || len(p.a.e.SAs()) != 0 {
			t.Errorf("%v %v", p.a.trace(), p.b.trace())
		}
	}
}

// strip makes a notify of a message in the clear one that means nothing.
func strip(t testing.TB, b []byte, n wire.NotifyType) {
	t.Helper()
	at := bytes.Index(b, []byte{0, 0, byte(n >> 8), byte(n)})
	if at < 0 {
		t.Fatalf("the message has no %s", n)
	}
	b[at+2], b[at+3] = 0xff, 0xfe
}

// What is wrong with an additional key exchange ends the set-up with a named reason.
func TestRFC9370_2_2_2_BadRounds(t *testing.T) {
	ke := func(list []wire.Payload) *wire.KE { k, _ := wire.First[*wire.KE](list); return k }
	for name, c := range map[string]struct {
		response bool
		change   func(h *wire.Header, list []wire.Payload) []wire.Payload
		says     string
	}{
		"short key":     {false, func(h *wire.Header, l []wire.Payload) []wire.Payload { ke(l).Data = ke(l).Data[:1183]; return l }, "additional key exchange 1 (KE1_ML_KEM_768)"},
		"empty key":     {false, func(h *wire.Header, l []wire.Payload) []wire.Payload { ke(l).Data = nil; return l }, "additional key exchange 1 (KE1_ML_KEM_768)"},
		"long key":      {false, func(h *wire.Header, l []wire.Payload) []wire.Payload { ke(l).Data = append(ke(l).Data, 0); return l }, "additional key exchange 1 (KE1_ML_KEM_768)"},
		"oversized key": {false, func(h *wire.Header, l []wire.Payload) []wire.Payload { ke(l).Data = make([]byte, 8000); return l }, "additional key exchange 1 (KE1_ML_KEM_768)"},
		"above the modulus": {false, func(h *wire.Header, l []wire.Payload) []wire.Payload {
			ke(l).Data[0], ke(l).Data[1] = 0xff, 0xff
			return l
		}, "invalid public value"},
		"round out of order": {false, func(h *wire.Header, l []wire.Payload) []wire.Payload { ke(l).Group = uint16(suite.KEECP384); return l }, "agreed on is KE1_ML_KEM_768"},
		"no KE":              {false, func(h *wire.Header, l []wire.Payload) []wire.Payload { return []wire.Payload{} }, "has no KE payload"},
		"round left out": {false, func(h *wire.Header, l []wire.Payload) []wire.Payload {
			h.Exchange = wire.ExchangeIKEAuth
			return []wire.Payload{&wire.ID{Kind: wire.PayloadIDi, IDType: 2, Data: []byte("a")}}
		}, "IKE_AUTH before additional key exchange 1"},
		"wrong group back": {true, func(h *wire.Header, l []wire.Payload) []wire.Payload { ke(l).Group = uint16(suite.KEECP384); return l }, "agreed on is KE1_ML_KEM_768"},
		"short answer":     {true, func(h *wire.Header, l []wire.Payload) []wire.Payload { ke(l).Data = ke(l).Data[:1087]; return l }, "invalid public value"},
		"no KE back":       {true, func(h *wire.Header, l []wire.Payload) []wire.Payload { return []wire.Payload{} }, "has no KE payload"},
		"refused by the peer": {true, func(h *wire.Header, l []wire.Payload) []wire.Payload {
			return []wire.Payload{&wire.Notify{NotifyType: wire.InvalidSyntax}}
		}, "INVALID_SYNTAX"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMITM(t, whole(triple, ""))
			done := false
			m.change = func(from *host, h *wire.Header, payloads []wire.Payload) []wire.Payload {
				if !done && h.Exchange == wire.ExchangeIKEIntermediate && h.Response() == c.response {
					done = true
					return c.change(h, payloads)
				}
				return payloads
			}
			m.a.initiate("net")
			m.run(5 * time.Second)
			said := fmt.Sprint(m.a.trace(), m.b.trace())
			if !strings.Contains(said, c.says) {
				t.Errorf("no reason %q in %s", c.says, said)
			}
			if len(eventsOf[*ike.Rejection](m.a))+len(eventsOf[*ike.Rejection](m.b)) == 0 {
				t.Error("no rejection")
			}
			m.run(3 * time.Minute)
			m.down()
		})
	}
}

// A round more than was agreed on, in place of IKE_AUTH, is dropped and counted.
func TestRFC9370_2_2_2_RoundTooMuch(t *testing.T) {
	for _, text := range []string{"aes128-sha256-x25519", hybrid} {
		m := newMITM(t, whole(text, ""))
		m.change = func(from *host, h *wire.Header, payloads []wire.Payload) []wire.Payload {
			if h.Exchange == wire.ExchangeIKEAuth && !h.Response() {
				h.Exchange = wire.ExchangeIKEIntermediate
				return []wire.Payload{&wire.KE{Group: uint16(suite.KEMLKEM768), Data: make([]byte, 1184)}}
			}
			return payloads
		}
		m.a.initiate("net")
		m.run(time.Second)
		if m.b.e.Stats().Dropped[ike.DropUnexpected] == 0 || len(eventsOf[ike.IKEUp](m.b)) != 0 {
			t.Errorf("%s: %v", text, m.b.trace())
		}
		m.run(3 * time.Minute)
		m.down()
	}
}

// Oversized IKE_INTERMEDIATE messages are dropped and counted, whole and in fragments, and the
// set-up goes on with the one that was meant.
func TestRFC9242_OversizedMessages(t *testing.T) {
	for _, kind := range []string{"whole", "fragments"} {
		m := newMITM(t, whole(hybrid, ""))
		done := false
		var held uint64
		m.change = func(from *host, h *wire.Header, payloads []wire.Payload) []wire.Payload {
			if done || from != m.a || h.Exchange != wire.ExchangeIKEIntermediate {
				return payloads
			}
			done = true
			send := func(b []byte) {
				m.b.e.Datagram(m.now, ike.Datagram{Local: from.sent[len(from.sent)-1].Remote, Remote: from.sent[len(from.sent)-1].Local, Data: b})
				m.b.drain()
			}
			if kind == "whole" {
				send(append(m.seal(*h, payloads), make([]byte, 70_000)...))
			}
			for n := range 200 {
				if kind == "fragments" {
					send(m.skf(*h, map[bool]wire.PayloadType{true: wire.PayloadKE}[n == 0], uint16(n+1), 200, make([]byte, 1000)))
				}
			}
			st := m.b.e.Stats()
			held = uint64(st.FragmentBytes)
			if st.Dropped[ike.DropFragment]+st.Dropped[ike.DropMalformed]+st.Dropped[ike.DropTooLarge] == 0 {
				t.Errorf("%s: nothing is counted: %+v", kind, st.Dropped)
			}
			return payloads
		}
		m.a.initiate("net")
		m.run(40 * time.Second)
		if held > 64<<10 || !done {
			t.Errorf("%s: %d bytes are held", kind, held)
		}
		m.up()
	}
}

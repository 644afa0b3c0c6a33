package ikev2_test

import (
	"bytes"
	"math/rand"
	"net/netip"
	"slices"
	"testing"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/ipsec"
	"adit/suite"
)

func mustUpMITM(t *testing.T, tweak func(a, b *side)) *mitm {
	t.Helper()
	m := newMITM(t, tweak)
	dump(t, m.pair)
	m.a.initiate("net")
	m.run(2 * time.Second)
	m.up()
	return m
}

func TestRFC7296_2_5_UnknownCriticalPayload(t *testing.T) {
	m := mustUpMITM(t, nil)
	m.change = func(from *host, h *wire.Header, p []wire.Payload) []wire.Payload {
		if from == m.a && h.Exchange == wire.ExchangeCreateChildSA {
			p = append(p, &wire.Unknown{Critical: true, PayloadType: 200, Body: []byte{1}})
		}
		return p
	}
	m.a.do(ike.Rekey{Child: "net"})
	m.run(3 * time.Second)
	m.up()
	if !slices.Contains(m.b.reasons(), ike.ReasonCritical) || !slices.Contains(m.a.reasons(), ike.ReasonCritical) {
		t.Errorf("%v %v", m.a.reasons(), m.b.reasons())
	}
	m.change = nil
	m.run(50 * time.Second) // tried again
	m.up()
	if len(eventsOf[ike.ChildRekeyed](m.a)) != 1 {
		t.Error("the refused rekey was not tried again")
	}
	// An unknown payload without the bit is skipped.
	m.change = func(from *host, h *wire.Header, p []wire.Payload) []wire.Payload {
		return append(p, &wire.Unknown{PayloadType: 200, Body: []byte{1}})
	}
	m.b.do(ike.Rekey{Child: "net"})
	m.run(10 * time.Second)
	m.up()
	if len(eventsOf[ike.ChildRekeyed](m.a)) != 2 {
		t.Error("not rekeyed")
	}
}

func TestRFC7296_2_5_UnknownCriticalPayloadInAuth(t *testing.T) {
	m := newMITM(t, nil)
	m.change = func(from *host, h *wire.Header, p []wire.Payload) []wire.Payload {
		if from == m.a {
			p = append(p, &wire.Unknown{Critical: true, PayloadType: 200})
		}
		return p
	}
	m.a.initiate("net")
	m.run(5 * time.Second)
	m.down()
	if !slices.Contains(m.a.reasons(), ike.ReasonCritical) {
		t.Errorf("%v", m.a.reasons())
	}
}

func TestRFC7296_2_21_3_InvalidSyntaxIsFatal(t *testing.T) {
	m := mustUpMITM(t, nil)
	m.change = func(from *host, h *wire.Header, p []wire.Payload) []wire.Payload {
		if from == m.a {
			p = slices.DeleteFunc(p, func(x wire.Payload) bool { return x.Type() == wire.PayloadNonce })
		}
		return p
	}
	m.a.do(ike.Rekey{Child: "net"})
	m.run(time.Second)
	if len(m.b.e.SAs()) != 0 || !slices.Contains(m.b.reasons(), ike.ReasonSyntax) {
		t.Error("b keeps the IKE SA after a malformed authentic message")
	}
}

func TestRFC7296_2_9_AnswerOutsideOfTheOffer(t *testing.T) {
	for name, change := range map[string]func(p wire.Payload){
		"selectors": func(p wire.Payload) {
			if ts, ok := p.(*wire.TS); ok && ts.Kind == wire.PayloadTSr {
				ts.Selectors[0].Start = netip.MustParseAddr("10.0.0.0")
			}
		},
		"algorithm": func(p wire.Payload) {
			if sa, ok := p.(*wire.SA); ok {
				sa.Proposals[0].Transforms[0].KeyLength = 256
			}
		},
		"reserved SPI": func(p wire.Payload) {
			if sa, ok := p.(*wire.SA); ok {
				sa.Proposals[0].SPI = []byte{0, 0, 0, 255}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMITM(t, nil)
			dump(t, m.pair)
			m.change = func(from *host, h *wire.Header, p []wire.Payload) []wire.Payload {
				if from == m.b && h.Exchange == wire.ExchangeIKEAuth {
					for _, x := range p {
						change(x)
					}
				}
				return p
			}
			m.a.initiate("net")
			m.run(3 * time.Second)
			if len(m.a.plane.sas) != 0 || len(m.b.plane.sas) != 0 {
				t.Errorf("a Child SA is installed: %d at a, %d at b", len(m.a.plane.sas), len(m.b.plane.sas))
			}
			if d := eventsOf[ike.CommandDone](m.a); len(d) != 1 || d[0].Err == nil {
				t.Errorf("%+v", d)
			}
		})
	}
}

// answerWith makes b answer a's first requests of an exchange by one notify.
func answerWith(m *mitm, x wire.ExchangeType, times int, n *wire.Notify) *int {
	count := new(int)
	m.change = func(from *host, h *wire.Header, p []wire.Payload) []wire.Payload {
		if from == m.b && h.Exchange == x && h.Response() && *count < times {
			*count++
			return []wire.Payload{n}
		}
		return p
	}
	return count
}

func TestRFC7296_2_9_SinglePairRequired(t *testing.T) {
	m := newMITM(t, func(a, b *side) {
		a.child.Local = []ipsec.Selector{sel("10.1.0.0/16"), sel("10.11.0.0/16")}
		b.child.Remote = a.child.Local
	})
	dump(t, m.pair)
	m.change = func(from *host, h *wire.Header, p []wire.Payload) []wire.Payload {
		if from != m.b || !h.Response() {
			return p
		}
		if ts := wire.FindTS(p, wire.PayloadTSi); ts != nil && (len(ts.Selectors) > 1 || ts.Selectors[0].Start != ts.Selectors[0].End) {
			out := slices.DeleteFunc(p, func(x wire.Payload) bool {
				switch x.Type() {
				case wire.PayloadSA, wire.PayloadTSi, wire.PayloadTSr, wire.PayloadNonce, wire.PayloadKE:
					return true
				}
				return false
			})
			return append(out, &wire.Notify{NotifyType: wire.SinglePairRequired})
		}
		return p
	}
	m.a.e.Do(m.now, ike.Initiate{ID: 1, Peer: m.a.peer, Child: "net", Acquired: &ipsec.Acquire{Src: netip.MustParseAddr("10.11.3.4"), Dst: netip.MustParseAddr("10.2.3.4"), Proto: 6, SrcPort: 1000, DstPort: 80}})
	m.run(3 * time.Second)
	l := m.a.e.SAs()
	if len(l) != 1 || len(l[0].Children) != 1 {
		t.Fatalf("%v", brief(l))
	}
	c := l[0].Children[0]
	if c.LocalTS[0] != sel("10.11.3.4/32[tcp/1000]") || c.RemoteTS[0] != sel("10.2.3.4/32[tcp/80]") {
		t.Errorf("%v === %v", c.LocalTS, c.RemoteTS)
	}
}

func TestRFC7296_2_25_TemporaryFailure(t *testing.T) {
	for _, what := range []string{"child", "ike"} {
		m := mustUpMITM(t, nil)
		n := answerWith(m, wire.ExchangeCreateChildSA, 3, &wire.Notify{NotifyType: wire.TemporaryFailure})
		if what == "ike" {
			m.a.do(ike.Rekey{IKE: "a"})
		} else {
			m.a.do(ike.Rekey{Child: "net"})
		}
		m.run(9 * time.Second)
		if *n != 3 && *n != 2 {
			t.Errorf("%s: %d tries in 9 s", what, *n)
		}
		if l := m.a.e.SAs(); len(l) != 1 || l[0].State != "ESTABLISHED" && l[0].State != "REKEYING" {
			t.Errorf("%v", brief(l))
		}
		if slices.Contains(m.a.reasons(), ike.ReasonPeer) {
			t.Error("a temporary failure is no rejection")
		}
	}
}

func TestRFC7296_1_3_NoAdditionalSAs(t *testing.T) {
	m := mustUpMITM(t, nil)
	answerWith(m, wire.ExchangeCreateChildSA, 1, &wire.Notify{NotifyType: wire.NoAdditionalSAs})
	m.a.do(ike.Rekey{Child: "net"})
	m.run(time.Second)
	if r := eventsOf[*ike.Rejection](m.a); len(r) != 1 || r[0].Notify != "NO_ADDITIONAL_SAS" || !r[0].ByPeer {
		t.Errorf("%+v", r)
	}
	if l := m.a.e.SAs(); len(l) != 1 || l[0].Children[0].State != "INSTALLED" {
		t.Errorf("%v", brief(l))
	}
}

// The responder's identity and AUTH are checked before anything is installed.
func TestResponderMustProveItself(t *testing.T) {
	for name, change := range map[string]func(p wire.Payload){
		"identity": func(p wire.Payload) {
			if id, ok := p.(*wire.ID); ok {
				id.Data = []byte("evil.example.org")
			}
		},
		"auth": func(p wire.Payload) {
			if a, ok := p.(*wire.Auth); ok {
				a.Data[3] ^= 1
			}
		},
		"method": func(p wire.Payload) {
			if a, ok := p.(*wire.Auth); ok {
				a.Method = wire.AuthNull
			}
		},
		"empty": func(p wire.Payload) {
			if a, ok := p.(*wire.Auth); ok {
				a.Data = nil
			}
		},
	} {
		for _, role := range []string{"responder", "initiator"} {
			t.Run(name+" of the "+role, func(t *testing.T) {
				m := newMITM(t, nil)
				dump(t, m.pair)
				m.change = func(from *host, h *wire.Header, p []wire.Payload) []wire.Payload {
					if (from == m.b) == (role == "responder") && h.Exchange == wire.ExchangeIKEAuth && h.Response() == (from == m.b) {
						for _, x := range p {
							change(x)
						}
					}
					return p
				}
				m.a.initiate("net")
				m.run(3 * time.Second)
				if len(eventsOf[ike.IKEUp](m.a)) != 0 || len(m.a.plane.sas) != 0 {
					t.Error("a took a peer that did not prove itself")
				}
				if role == "initiator" && len(eventsOf[ike.IKEUp](m.b)) != 0 {
					t.Error("b took a peer that did not prove itself")
				}
				m.run(time.Second)
				m.down()
			})
		}
	}
}

// Every message of a whole life is repeated, also much later: nothing changes.
func TestReplays(t *testing.T) {
	p := newPair(t, nil)
	var all []packet
	p.filter = func(from *host, d ike.Datagram) bool {
		all = append(all, packet{to: p.other(from), d: ike.Datagram{Local: d.Remote, Remote: d.Local, Data: bytes.Clone(d.Data)}})
		return true
	}
	replay := func() {
		p.filter = func(*host, ike.Datagram) bool { return false }
		for _, k := range slices.Clone(all) {
			k.to.e.Datagram(p.now, k.d)
			k.to.drain()
		}
		p.filter = nil
	}
	p.a.initiate("net")
	p.run(2 * time.Second)
	p.a.do(ike.Rekey{Child: "net"})
	p.run(10 * time.Second)
	before := brief(p.a.e.SAs())
	replay()
	if after := brief(p.a.e.SAs()); !slices.Equal(before, after) {
		t.Errorf("%v became %v", before, after)
	}
	p.up()
	p.a.do(ike.Terminate{IKE: "a"})
	p.run(time.Second)
	replay()
	p.run(40 * time.Second)
	p.down()
}

// Messages in the clear, of every exchange and ID, in every state: nothing moves.
func TestHostileClearMessages(t *testing.T) {
	rnd := rand.New(rand.NewSource(1))
	for _, stage := range []time.Duration{0, 5 * time.Millisecond, 15 * time.Millisecond, 25 * time.Millisecond, 35 * time.Millisecond, time.Second} {
		p := newPair(t, nil)
		var seen []ike.Datagram
		p.filter = func(from *host, d ike.Datagram) bool { seen = append(seen, d); return true }
		p.a.initiate("net")
		p.run(stage)
		p.filter = nil
		before := [2][]string{brief(p.a.e.SAs()), brief(p.b.e.SAs())}
		for range 3000 {
			for i, h := range []*host{p.a, p.b} {
				d := seen[rnd.Intn(len(seen))]
				b := bytes.Clone(d.Data)
				switch rnd.Intn(5) {
				case 0:
					b[18] = byte(34 + rnd.Intn(12))
				case 1:
					b[19] ^= 1 << rnd.Intn(8)
				case 2:
					b[20+rnd.Intn(4)] ^= byte(1 + rnd.Intn(255))
				case 3:
					if len(b) > 28 {
						b[28+rnd.Intn(len(b)-28)] ^= byte(1 + rnd.Intn(255))
					}
				case 4:
					b = b[:28]
					b[16], b[27], b[26] = 0, 28, 0
					b[18] = byte(34 + rnd.Intn(12))
				}
				if b[18] == byte(wire.ExchangeIKESAInit) {
					continue // may begin something; that is the cookie test's matter
				}
				from := p.other(h)
				h.e.Datagram(p.now, ike.Datagram{Local: netip.AddrPortFrom(h.addr, 500), Remote: netip.AddrPortFrom(from.addr, 500), Data: b})
				h.e.Take()
				_ = i
			}
		}
		after := [2][]string{brief(p.a.e.SAs()), brief(p.b.e.SAs())}
		if !slices.Equal(before[0], after[0]) || !slices.Equal(before[1], after[1]) {
			t.Errorf("after %v: %v became %v", stage, before, after)
		}
		if p.a.e.Stats().Bugs+p.b.e.Stats().Bugs != 0 {
			t.Error("bugs")
		}
	}
}

// A flood of first messages costs bounded state, and one address cannot take all of it.
func TestRFC7296_2_6_Flood(t *testing.T) {
	p := newPair(t, func(a, b *side) { b.peer.RemoteAddrs = nil })
	dump(t, p)
	var first ike.Datagram
	p.filter = func(from *host, d ike.Datagram) bool { first = d; return false }
	p.a.initiate("net")
	p.run(time.Millisecond)
	sent := 0
	for i := range 20_000 {
		b := bytes.Clone(first.Data)
		b[0], b[1], b[2] = byte(i>>16)|1, byte(i>>8), byte(i)
		addr := netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)})
		p.b.e.Datagram(p.now, ike.Datagram{Local: netip.AddrPortFrom(addrB, 500), Remote: netip.AddrPortFrom(addr, 500), Data: b})
		for _, f := range p.b.e.Take() {
			if s, ok := f.(ike.Send); ok {
				if header(t, s.Datagram).SPIr == 0 && len(s.Data) > len(b) {
					t.Fatal("the cookie is longer than the question")
				}
				sent++
			}
		}
	}
	st := p.b.e.Stats()
	if st.HalfOpen != 30 || st.Cookies < 19_000 {
		t.Errorf("%+v", st)
	}
	// Who has a cookie comes through all the same.
	p.filter = nil
	p.run(10 * time.Second)
	if len(eventsOf[ike.ChildUp](p.b)) != 1 {
		t.Error("the honest peer does not come through")
	}
	p.run(60 * time.Second)
	p.up()
	if n := p.b.e.Stats().HalfOpen; n != 0 {
		t.Errorf("%d half-open IKE SAs are left", n)
	}
}

func TestRFC7296_2_6_OneAddress(t *testing.T) {
	p := newPair(t, func(a, b *side) { b.config.CookieThreshold, b.config.CookieThresholdIP = 1000, 1000 })
	var first ike.Datagram
	p.filter = func(from *host, d ike.Datagram) bool { first = d; return false }
	p.a.initiate("net")
	p.run(time.Millisecond)
	for i := range 20 {
		b := bytes.Clone(first.Data)
		b[0] = byte(i + 1)
		p.b.e.Datagram(p.now, ike.Datagram{Local: netip.AddrPortFrom(addrB, 500), Remote: netip.AddrPortFrom(addrA, 500), Data: b})
	}
	st := p.b.e.Stats()
	if st.HalfOpen != 5 || st.Dropped[ike.DropHalfOpenAddress] != 15 {
		t.Errorf("%+v", st)
	}
	// Counted drops are emitted in bulk.
	p.b.drain()
	p.run(5 * time.Second)
	var n uint64
	events := eventsOf[ike.Dropped](p.b)
	for _, d := range events {
		if d.Reason == ike.DropHalfOpenAddress {
			n += d.Count
		}
	}
	if n < 15 || len(events) > 4 {
		t.Errorf("%d drops in %d events", n, len(events))
	}
}

func TestRFC7296_2_5_HigherMajorVersion(t *testing.T) {
	p := newPair(t, nil)
	var first ike.Datagram
	p.filter = func(from *host, d ike.Datagram) bool { first = d; return false }
	p.a.initiate("net")
	p.run(time.Millisecond)
	b := bytes.Clone(first.Data)
	b[17] = 0x30
	p.b.e.Datagram(p.now, ike.Datagram{Local: netip.AddrPortFrom(addrB, 500), Remote: netip.AddrPortFrom(addrA, 500), Data: b})
	var answer *wire.Message
	for _, f := range p.b.e.Take() {
		if s, ok := f.(ike.Send); ok {
			answer, _ = wire.ParseMessage(s.Data)
		}
	}
	if answer == nil || wire.FindNotify(answer.Payloads, wire.InvalidMajorVersion) == nil || !answer.Header.Response() {
		t.Errorf("%+v", answer)
	}
	if st := p.b.e.Stats(); st.SAs != 0 || st.Dropped[ike.DropVersion] != 1 {
		t.Errorf("%+v", st)
	}
}

func TestRFC7296_1_5_InvalidSPIOutside(t *testing.T) {
	p := newPair(t, nil)
	p.a.e.Dataplane(p.now, ipsec.Orphan{SPI: 0xabcdef01, Local: netip.AddrPortFrom(addrA, 500), Remote: netip.AddrPortFrom(addrB, 500)})
	var got *wire.Message
	for range 3 {
		for _, f := range p.a.e.Take() {
			if s, ok := f.(ike.Send); ok {
				if got != nil {
					t.Error("not rate limited")
				}
				got, _ = wire.ParseMessage(s.Data)
			}
		}
		p.a.e.Dataplane(p.now, ipsec.Orphan{SPI: 0xabcdef01, Local: netip.AddrPortFrom(addrA, 500), Remote: netip.AddrPortFrom(addrB, 500)})
	}
	n := wire.FindNotify(got.Payloads, wire.InvalidSPI)
	if n == nil || !bytes.Equal(n.Data, []byte{0xab, 0xcd, 0xef, 1}) || got.Header.SPIi|got.Header.SPIr != 0 || !got.Header.FromInitiator() || got.Header.Response() {
		t.Errorf("%+v", got)
	}
}

// While a job runs, repetitions are dropped and what is new waits.
func TestBusy(t *testing.T) {
	p := newPair(t, func(a, b *side) {
		a.peer.Proposals = mustProposals(t, suite.IKE, "aes128-sha256-modp2048")
		b.peer.Proposals = a.peer.Proposals
	})
	dump(t, p)
	p.b.hold = true
	p.a.initiate("net")
	p.run(20 * time.Second) // a repeats IKE_SA_INIT; b works at it
	if st := p.b.e.Stats(); st.SAs != 1 || st.Dropped[ike.DropBusy] == 0 || len(p.b.sent) != 0 {
		t.Errorf("%+v", st)
	}
	p.b.release()
	p.run(time.Second)
	p.up()
	if len(p.b.sent) != 2 {
		t.Errorf("%d answers, want 2", len(p.b.sent))
	}
	// A job whose IKE SA is gone changes nothing.
	p.b.hold = true
	p.a.do(ike.Rekey{IKE: "a"})
	p.run(time.Second)
	p.b.do(ike.Terminate{IKE: "b", Force: true})
	p.b.release()
	p.run(time.Second)
	p.down()
}

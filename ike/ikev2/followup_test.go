package ikev2_test

import (
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
	espHybrid = "aes256gcm16-x25519-ke1_mlkem768"
	espTriple = "aes256gcm16-x25519-ke1_mlkem768-ke2_ecp384"
)

// rekeyOf begins a rekey of either kind at one side.
func rekeyOf(what string, h *host) {
	if what == "ike" {
		h.do(ike.Rekey{IKE: h.name})
		return
	}
	h.do(ike.Rekey{Child: "net"})
}

func TestRFC9370_2_2_4_Rekeys(t *testing.T) {
	for _, c := range []struct {
		ike, esp string
		rounds   int
	}{{hybrid, espHybrid, 1}, {triple, espTriple, 2}, {seven, "aes256gcm16-x25519-ke1_mlkem768-ke2_mlkem512-ke3_mlkem1024-ke4_ecp256-ke5_ecp384-ke6_x448-ke7_ecp521", 7}} {
		for _, what := range []string{"ike", "child"} {
			for _, by := range []string{"a", "b"} {
				t.Run(fmt.Sprint(what, " ", c.rounds, " by ", by), func(t *testing.T) {
					p := mustUp(t, with(c.ike, c.esp))
					h := p.a
					if by == "b" {
						h = p.b
					}
					before := p.a.e.SAs()[0]
					rekeyOf(what, h)
					p.run(80 * time.Second)
					p.up()
					after := p.a.e.SAs()[0]
					if st := p.a.e.Stats(); what == "ike" && (before.SPIi == after.SPIi || st.RekeysIKE != 1) || what == "child" && st.RekeysChild != 1 {
						t.Errorf("not rekeyed: %+v", st)
					}
					if what == "ike" && len(after.Suite.AdditionalKE()) != c.rounds || what == "child" && len(after.Children[0].Suite.AdditionalKE()) != c.rounds {
						t.Errorf("%v %v", after.Suite, after.Children[0].Suite)
					}
					if n := exchanges(t, h, wire.ExchangeIKEFollowupKE); n < c.rounds {
						t.Errorf("%d messages of IKE_FOLLOWUP_KE", n)
					}
					// It goes on from there.
					p.b.do(ike.Rekey{Child: "net"})
					p.run(80 * time.Second)
					p.up()
					p.a.do(ike.Terminate{IKE: "a"})
					p.run(time.Second)
					p.down()
				})
			}
		}
	}
}

// A new Child SA in CREATE_CHILD_SA has its additional key exchanges, too.
func TestRFC9370_2_2_4_NewChild(t *testing.T) {
	p := newPair(t, func(a, b *side) {
		with(hybrid, espTriple)(a, b)
		a.peer.Childless, b.peer.Childless = ike.ChildlessForce, ike.ChildlessForce
	})
	p.a.initiate("net")
	p.run(2 * time.Second)
	p.up()
	if got := p.a.e.SAs()[0].Children[0].Suite.String(); !strings.HasSuffix(got, "/KE1_ML_KEM_768/KE2_ECP_384") {
		t.Error(got)
	}
}

// Every single message of a rekey, and of two at once, is lost in turn.
func TestRFC9370_2_2_4_LostMessages(t *testing.T) {
	for _, what := range []string{"child", "ike"} {
		for _, both := range []bool{false, true} {
			for n := range 22 {
				t.Run(fmt.Sprint(what, both, n), func(t *testing.T) {
					p := mustUp(t, with("aes128-sha256-x25519-ke1_mlkem512", "aes128gcm16-x25519-ke1_mlkem512"))
					count := 0
					p.filter = func(from *host, d ike.Datagram) bool {
						count++
						return count != n // 0: none
					}
					rekeyOf(what, p.a)
					if both {
						rekeyOf(what, p.b)
					}
					for range 150 {
						p.run(200 * time.Millisecond)
						p.flows()
					}
					p.run(100 * time.Second)
					p.up()
					for _, h := range []*host{p.a, p.b} {
						if len(eventsOf[ike.ChildDown](h))+len(eventsOf[ike.IKEDown](h)) != 0 {
							t.Errorf("%s went down", h.name)
						}
					}
				})
			}
		}
	}
}

// One side rekeys what the other deletes or rekeys a moment later, in between the
// additional key exchanges.
func TestRFC9370_2_2_4_Between(t *testing.T) {
	for name, c := range map[string]struct {
		what  string
		other func(p *pair)
		gone  int // 1: the Child SA, 2: the IKE SA
	}{
		"child deleted":              {"child", func(p *pair) { p.b.do(ike.Terminate{Child: "net"}) }, 1},
		"ike closed":                 {"child", func(p *pair) { p.b.do(ike.Terminate{IKE: "b"}) }, 2},
		"ike rekey, child deleted":   {"ike", func(p *pair) { p.b.do(ike.Terminate{Child: "net"}) }, 1},
		"ike rekey, ike closed":      {"ike", func(p *pair) { p.b.do(ike.Terminate{IKE: "b"}) }, 2},
		"ike rekey, child rekey":     {"ike", func(p *pair) { p.b.do(ike.Rekey{Child: "net"}) }, 0},
		"ike rekey, late ike rekey":  {"ike", func(p *pair) { p.b.do(ike.Rekey{IKE: "b"}) }, 0},
		"child rekey, ike rekey":     {"child", func(p *pair) { p.b.do(ike.Rekey{IKE: "b"}) }, 0},
		"child rekey, late the same": {"child", func(p *pair) { p.b.do(ike.Rekey{Child: "net"}) }, 0},
	} {
		for after := 5 * time.Millisecond; after < 80*time.Millisecond; after += 10 * time.Millisecond {
			t.Run(fmt.Sprint(name, after), func(t *testing.T) {
				p := mustUp(t, with(triple, espTriple))
				rekeyOf(c.what, p.a)
				p.run(after)
				c.other(p)
				p.run(150 * time.Second)
				switch c.gone {
				case 0:
					p.up()
				case 1:
					if len(p.a.plane.sas)+len(p.b.plane.sas) != 0 || len(p.a.e.SAs()) != 1 || len(p.b.e.SAs()) != 1 {
						t.Errorf("%v %v", brief(p.a.e.SAs()), brief(p.b.e.SAs()))
					}
				case 2:
					p.down()
				}
			})
		}
	}
}

// What is wrong with IKE_FOLLOWUP_KE fails that exchange, with a named reason, and
// what was there stays.
func TestRFC9370_2_2_4_BadFollowups(t *testing.T) {
	ke := func(list []wire.Payload) *wire.KE { k, _ := wire.First[*wire.KE](list); return k }
	without := func(list []wire.Payload) []wire.Payload {
		return slices.DeleteFunc(slices.Clone(list), func(p wire.Payload) bool {
			n, ok := p.(*wire.Notify)
			return ok && n.NotifyType == wire.AdditionalKeyExchange
		})
	}
	link := func(list []wire.Payload) *wire.Notify { return wire.FindNotify(list, wire.AdditionalKeyExchange) }
	for name, c := range map[string]struct {
		exchange wire.ExchangeType
		response bool
		change   func(list []wire.Payload) []wire.Payload
		says     string
	}{
		"no link":       {wire.ExchangeIKEFollowupKE, false, without, "IKE_FOLLOWUP_KE without ADDITIONAL_KEY_EXCHANGE"},
		"another link":  {wire.ExchangeIKEFollowupKE, false, func(l []wire.Payload) []wire.Payload { link(l).Data = []byte("other"); return l }, "STATE_NOT_FOUND"},
		"another group": {wire.ExchangeIKEFollowupKE, false, func(l []wire.Payload) []wire.Payload { ke(l).Group = 31; return l }, "agreed on is KE1_ML_KEM_768"},
		"short key":     {wire.ExchangeIKEFollowupKE, false, func(l []wire.Payload) []wire.Payload { ke(l).Data = ke(l).Data[:9]; return l }, "invalid public value"},
		"above the modulus": {wire.ExchangeIKEFollowupKE, false, func(l []wire.Payload) []wire.Payload {
			ke(l).Data[3], ke(l).Data[4], ke(l).Data[5] = 255, 255, 255
			return l
		}, "invalid public value"},
		"no link back":       {wire.ExchangeCreateChildSA, true, without, "although additional key exchange 1 is to come"},
		"empty link back":    {wire.ExchangeCreateChildSA, true, func(l []wire.Payload) []wire.Payload { link(l).Data = nil; return l }, "although additional key exchange 1 is to come"},
		"huge link back":     {wire.ExchangeCreateChildSA, true, func(l []wire.Payload) []wire.Payload { link(l).Data = make([]byte, 1025); return l }, "although additional key exchange 1 is to come"},
		"group back":         {wire.ExchangeIKEFollowupKE, true, func(l []wire.Payload) []wire.Payload { ke(l).Group = 31; return l }, "agreed on is KE1_ML_KEM_768"},
		"short ciphertext":   {wire.ExchangeIKEFollowupKE, true, func(l []wire.Payload) []wire.Payload { ke(l).Data = ke(l).Data[:9]; return l }, "invalid public value"},
		"no link in between": {wire.ExchangeIKEFollowupKE, true, without, "although additional key exchange 2 is to come"},
		"temporary failure": {wire.ExchangeIKEFollowupKE, true, func([]wire.Payload) []wire.Payload {
			return []wire.Payload{&wire.Notify{NotifyType: wire.TemporaryFailure}}
		}, ""},
		"state not found": {wire.ExchangeIKEFollowupKE, true, func([]wire.Payload) []wire.Payload {
			return []wire.Payload{&wire.Notify{NotifyType: wire.StateNotFound}}
		}, ""},
	} {
		for _, what := range []string{"child", "ike"} {
			t.Run(name+" "+what, func(t *testing.T) {
				m := newMITM(t, whole(triple, espTriple))
				dump(t, m.pair)
				m.a.initiate("net")
				m.run(2 * time.Second)
				m.up()
				done := false
				m.change = func(from *host, h *wire.Header, payloads []wire.Payload) []wire.Payload {
					if !done && h.Exchange == c.exchange && h.Response() == c.response {
						done = true
						return c.change(payloads)
					}
					return append([]wire.Payload{}, payloads...)
				}
				rekeyOf(what, m.a)
				m.run(time.Second)
				m.flows()
				if said := fmt.Sprint(m.a.trace(), m.b.trace()); !strings.Contains(said, c.says) || !done {
					t.Errorf("no reason %q in %s", c.says, said)
				}
				if c.says != "" && len(eventsOf[*ike.Rejection](m.a))+len(eventsOf[*ike.Rejection](m.b)) == 0 {
					t.Error("no rejection")
				}
				m.run(100 * time.Second) // it is tried again, and works
				m.up()
				if st := m.a.e.Stats(); st.RekeysIKE+st.RekeysChild == 0 {
					t.Error("not rekeyed in the end")
				}
			})
		}
	}
}

// IKE_FOLLOWUP_KE that belongs to nothing, and exchanges that never go on: bounded.
func TestRFC9370_2_2_4_Unbound(t *testing.T) {
	m := newMITM(t, whole(hybrid, espHybrid))
	m.a.initiate("net")
	m.run(2 * time.Second)
	m.up()
	id := uint32(3)
	ask := func(x wire.ExchangeType, list ...wire.Payload) []wire.Payload {
		answers := m.deliver(m.seal(m.request(x, id), list))
		id++
		if len(answers) != 1 {
			t.Fatalf("%d answers", len(answers))
		}
		msg, _ := wire.ParseMessage(answers[0])
		got, ok := m.open(msg)
		m.changing = nil
		if !ok {
			t.Fatal("the answer does not open")
		}
		return got
	}
	key := func() *wire.KE {
		k, _ := suite.NewKeyExchange(suite.KEMLKEM768)
		return &wire.KE{Group: 36, Data: k.Public()}
	}
	got := ask(wire.ExchangeIKEFollowupKE, key(), &wire.Notify{NotifyType: wire.AdditionalKeyExchange, Data: []byte("x")})
	if wire.FindNotify(got, wire.StateNotFound) == nil {
		t.Errorf("%v", got)
	}
	create := func() []wire.Payload {
		kx, _ := suite.NewKeyExchange(suite.KECurve25519)
		var sa wire.SA
		p := wire.Proposal{Number: 1, Protocol: wire.ProtocolESP, SPI: []byte{9, 9, 9, byte(id)}}
		for _, x := range m.a.peer.Children[0].Proposals[0].Transforms {
			p.Transforms = append(p.Transforms, wire.Transform{Type: uint8(x.Type), ID: uint16(x.ID), KeyLength: x.KeyBits})
		}
		sa.Proposals = append(sa.Proposals, p)
		ts := func(k wire.PayloadType, text string) *wire.TS {
			s := sel(text)
			return &wire.TS{Kind: k, Selectors: []wire.TrafficSelector{{Type: wire.TSIPv4AddrRange, StartPort: 0, EndPort: 65535, Start: s.From, End: s.To}}}
		}
		return ask(wire.ExchangeCreateChildSA, &sa, &wire.Nonce{Data: make([]byte, 32)}, &wire.KE{Group: 31, Data: kx.Public()}, ts(wire.PayloadTSi, "10.1.0.0/16"), ts(wire.PayloadTSr, "10.2.0.0/16"))
	}
	var first []byte
	for i := range 12 {
		n := wire.FindNotify(create(), wire.AdditionalKeyExchange)
		if n == nil {
			t.Fatal("no link")
		}
		if i == 0 {
			first = n.Data
		}
	}
	if got := ask(wire.ExchangeIKEFollowupKE, key(), &wire.Notify{NotifyType: wire.AdditionalKeyExchange, Data: first}); wire.FindNotify(got, wire.StateNotFound) == nil {
		t.Errorf("the oldest of too many still waits: %v", got)
	}
	last := wire.FindNotify(create(), wire.AdditionalKeyExchange).Data
	if n := m.b.e.Stats().Children; n > 1+4 {
		t.Errorf("%d Child SAs are kept", n)
	}
	m.run(25 * time.Second)
	if n := m.b.e.Stats().Children; n != 1 {
		t.Errorf("%d Child SAs are left", n)
	}
	if got := ask(wire.ExchangeIKEFollowupKE, key(), &wire.Notify{NotifyType: wire.AdditionalKeyExchange, Data: last}); wire.FindNotify(got, wire.StateNotFound) == nil {
		t.Errorf("after its time: %v", got)
	}
}

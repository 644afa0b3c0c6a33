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

// ppkEnd is what one side has of PPKs.
type ppkEnd struct {
	id       string // ppk_id
	required bool
	mode     ike.PPKIntermediate
	secrets  map[string]string
}

func ppkPair(t testing.TB, signatures bool, proposals string, a, b ppkEnd) *pair {
	tweak := func(sa, sb *side) {
		with(proposals, "")(sa, sb)
		for s, e := range map[*side]ppkEnd{sa: a, sb: b} {
			s.peer.PPKID, s.peer.PPKRequired, s.peer.PPKIntermediate = e.id, e.required, e.mode
		}
	}
	p := newPair(t, tweak)
	if signatures {
		p = signed(t, "ed25519", tweak)
	}
	for h, e := range map[*host]ppkEnd{p.a: a, p.b: b} {
		h.ppks = map[string]suite.Key{}
		for id, k := range e.secrets {
			h.ppks[id] = suite.Key(k)
		}
	}
	return p
}

// What comes of it when the two have PPKs, insist on them, or have others.
func TestRFC8784_3_PPK(t *testing.T) {
	k, other := map[string]string{"carol": "the one"}, map[string]string{"carol": "another"}
	for name, c := range map[string]struct {
		a, b ppkEnd
		used bool
		says string // of a refusal
	}{
		"both":                        {ppkEnd{"carol", false, 0, k}, ppkEnd{"", false, 0, k}, true, ""},
		"both, named by both":         {ppkEnd{"carol", false, 0, k}, ppkEnd{"carol", false, 0, k}, true, ""},
		"both insist":                 {ppkEnd{"carol", true, 0, k}, ppkEnd{"carol", true, 0, k}, true, ""},
		"the responder has none":      {ppkEnd{"carol", false, 0, k}, ppkEnd{}, false, ""},
		"the initiator has none":      {ppkEnd{"carol", false, 0, nil}, ppkEnd{"", false, 0, k}, false, ""},
		"nobody asks":                 {ppkEnd{"", false, 0, k}, ppkEnd{"carol", false, 0, k}, false, ""},
		"the initiator insists":       {ppkEnd{"carol", true, 0, k}, ppkEnd{}, false, "on which the peer insists"},
		"the responder insists":       {ppkEnd{"", false, 0, k}, ppkEnd{"carol", true, 0, k}, false, "the peer uses no PPK"},
		"it insists, the other lacks": {ppkEnd{"carol", false, 0, nil}, ppkEnd{"", true, 0, k}, false, "the peer uses no PPK"},
		"it insists on another":       {ppkEnd{"carol", false, 0, k}, ppkEnd{"dave", false, 0, k}, false, "is not the carol that the peer uses"},
		"insists and has none":        {ppkEnd{"carol", true, 0, nil}, ppkEnd{"", false, 0, k}, false, "there is no secret for ppk_id carol"},
		"insists and names none":      {ppkEnd{"", true, 0, k}, ppkEnd{"", false, 0, k}, false, "does not know PPKs"},
		"other secrets":               {ppkEnd{"carol", false, 0, k}, ppkEnd{"", false, 0, other}, false, "authentication"},
	} {
		for _, signatures := range []bool{false, true} {
			for _, proposals := range []string{"aes128-sha256-x25519", hybrid} {
				t.Run(fmt.Sprint(name, signatures, proposals), func(t *testing.T) {
					c.a.mode = ike.PPKIntermediateOff
					p := ppkPair(t, signatures, proposals, c.a, c.b)
					dump(t, p)
					p.a.initiate("net")
					p.run(3 * time.Second)
					if c.says != "" {
						if said := fmt.Sprint(p.a.trace(), p.b.trace()); !strings.Contains(said, c.says) || len(eventsOf[ike.IKEUp](p.a))+len(eventsOf[ike.IKEUp](p.b)) != 0 {
							t.Errorf("want %q", c.says)
						}
						p.run(3 * time.Minute)
						p.down()
						return
					}
					p.up()
					for _, h := range []*host{p.a, p.b} {
						if got := h.e.SAs()[0].PPK; got != c.used {
							t.Errorf("%s: PPK %v", h.name, got)
						}
					}
					p.b.do(ike.Rekey{IKE: "b"})
					p.run(80 * time.Second)
					p.up()
					if p.a.e.SAs()[0].PPK != c.used {
						t.Error("the rekeyed IKE SA lists something else")
					}
				})
			}
		}
	}
}

// Who strips USE_PPK does not get either side that insists to go on without; between
// sides that do not he does, which full transcript authentication catches.
func TestRFC8784_3_Stripped(t *testing.T) {
	k := map[string]string{"carol": "the one"}
	for _, from := range []string{"a", "b"} {
		p := ppkPair(t, false, "aes128-sha256-x25519", ppkEnd{id: "carol", required: true, mode: ike.PPKIntermediateOff, secrets: k}, ppkEnd{required: true, secrets: k})
		p.filter = func(h *host, d ike.Datagram) bool {
			if header(t, d).Exchange == wire.ExchangeIKESAInit && h.name == from {
				strip(t, d.Data, wire.UsePPK)
			}
			return true
		}
		p.a.initiate("net")
		p.run(5 * time.Second)
		if len(eventsOf[ike.IKEUp](p.a))+len(eventsOf[ike.IKEUp](p.b)) != 0 || !slices.Contains(append(p.a.reasons(), p.b.reasons()...), ike.ReasonAuthentication) {
			t.Errorf("%s: %v %v", from, p.a.trace(), p.b.trace())
		}
	}
}

// NO_PPK_AUTH and PPK_IDENTITY that make no sense are refused like a wrong AUTH.
func TestRFC8784_3_Hostile(t *testing.T) {
	for name, change := range map[string]func(list []wire.Payload){
		"empty identity":   func(l []wire.Payload) { wire.FindNotify(l, wire.PPKIdentity).Data = nil },
		"identity of 2 kB": func(l []wire.Payload) { wire.FindNotify(l, wire.PPKIdentity).Data = make([]byte, 2000) },
		"identity, type 9": func(l []wire.Payload) { wire.FindNotify(l, wire.PPKIdentity).Data[0] = 9 },
		"another identity": func(l []wire.Payload) { wire.FindNotify(l, wire.PPKIdentity).Data[3] ^= 1 },
		"wrong NO_PPK_AUTH": func(l []wire.Payload) {
			wire.FindNotify(l, wire.PPKIdentity).Data[3] ^= 1
			wire.FindNotify(l, wire.NoPPKAuth).Data[3] ^= 1
		},
		"empty NO_PPK_AUTH": func(l []wire.Payload) {
			wire.FindNotify(l, wire.PPKIdentity).Data[3] ^= 1
			wire.FindNotify(l, wire.NoPPKAuth).Data = nil
		},
	} {
		m := newMITM(t, func(a, b *side) {
			a.peer.PPKID, b.peer.PPKID, a.peer.PPKIntermediate = "carol", "carol", ike.PPKIntermediateOff
			b.peer.PPKRequired = !strings.Contains(name, "NO_PPK")
		})
		m.a.ppks = map[string]suite.Key{"carol": suite.Key("the one")}
		m.b.ppks = map[string]suite.Key{"carol": suite.Key("the one")}
		m.change = func(from *host, h *wire.Header, payloads []wire.Payload) []wire.Payload {
			if from == m.a && h.Exchange == wire.ExchangeIKEAuth {
				change(payloads)
			}
			return append([]wire.Payload{}, payloads...)
		}
		m.a.initiate("net")
		m.run(3 * time.Second)
		if len(eventsOf[ike.IKEUp](m.b)) != 0 || len(eventsOf[*ike.Rejection](m.b)) == 0 {
			t.Errorf("%s: %v", name, m.b.trace())
		}
		m.run(3 * time.Minute)
		m.down()
	}
}

// With EAP the PPK goes with the initiator's AUTH, the last one; in several rounds with the
// first one (RFC 8784 §3).
func TestRFC8784_3_EAPAndRounds(t *testing.T) {
	k, other := map[string]string{"carol": "the one"}, map[string]string{"carol": "another"}
	for name, c := range map[string]struct {
		a, b     map[string]string
		required bool
		used     bool
		says     string
	}{
		"both":                      {k, k, true, true, ""},
		"both, optional":            {k, k, false, true, ""},
		"the responder has none":    {k, nil, false, false, ""},
		"the initiator has none":    {nil, k, false, false, ""},
		"on which the other relies": {k, nil, true, false, "on which the peer insists"},
		"other secrets":             {k, other, true, false, "authentication failed"},
	} {
		for how, make := range map[string]func(tweak func(a, b *side)) *pair{
			"eap": func(tweak func(a, b *side)) *pair { return eapPair(t, tweak) },
			"psk, then eap": func(tweak func(a, b *side)) *pair {
				return rounds(t, tweak, ike.AuthPSK, ike.AuthEAP)
			},
			"eap, then signature": func(tweak func(a, b *side)) *pair {
				return rounds(t, tweak, ike.AuthEAP, ike.AuthPubkey)
			},
			"signature, then psk": func(tweak func(a, b *side)) *pair {
				return rounds(t, tweak, ike.AuthPubkey, ike.AuthPSK)
			},
		} {
			t.Run(how+" "+name, func(t *testing.T) {
				p := make(func(a, b *side) {
					a.peer.PPKID, a.peer.PPKRequired, a.peer.PPKIntermediate, b.peer.PPKRequired = "carol", c.required, ike.PPKIntermediateOff, c.required && c.used
				})
				p.ppks(c.a, c.b)
				dump(t, p)
				p.a.initiate("net")
				p.run(5 * time.Second)
				if c.says != "" {
					if !strings.Contains(p.said(), c.says) || len(eventsOf[ike.IKEUp](p.a))+len(eventsOf[ike.IKEUp](p.b)) != 0 {
						t.Errorf("want %q", c.says)
					}
					return
				}
				p.up()
				if p.a.e.SAs()[0].PPK != c.used || p.b.e.SAs()[0].PPK != c.used {
					t.Error("the two list something else")
				}
				p.b.do(ike.Rekey{IKE: "b"})
				p.run(80 * time.Second)
				p.up()
			})
		}
	}
}

// rounds is a pair whose initiator proves itself twice.
func rounds(t testing.TB, tweak func(a, b *side), m1, m2 ike.AuthMethod) *pair {
	p := newPair(t, func(a, b *side) {
		by(a, b, m1, ike.AuthPubkey)
		a.peer.Local = append(a.peer.Local, ike.AuthRound{Method: m2, ID: id("user@example.org")})
		b.peer.Remote = append(b.peer.Remote, ike.AuthRound{Method: m2, ID: id("*@example.org")})
		tweak(a, b)
	})
	credentialsFor(t, p)
	return p
}

// Who announces a PPK and then names none is refused (RFC 8784 §3).
func TestRFC8784_3_NamesNone(t *testing.T) {
	m := newMITM(t, func(a, b *side) { a.peer.PPKID, a.peer.PPKIntermediate = "carol", ike.PPKIntermediateOff })
	m.ppks(map[string]string{"carol": "the one"}, map[string]string{"carol": "the one"})
	m.change = func(from *host, h *wire.Header, payloads []wire.Payload) []wire.Payload {
		if from == m.a && h.Exchange == wire.ExchangeIKEAuth {
			payloads = slices.DeleteFunc(slices.Clone(payloads), func(p wire.Payload) bool {
				n, ok := p.(*wire.Notify)
				return ok && n.NotifyType == wire.PPKIdentity
			})
		}
		return payloads
	}
	m.a.initiate("net")
	m.run(3 * time.Second)
	if len(eventsOf[ike.IKEUp](m.b)) != 0 || !strings.Contains(m.said(), "announced a PPK and names none") {
		t.Error(m.said())
	}
}

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

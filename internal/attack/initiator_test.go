package attack_test

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/suite"
)

// outgoing lets the victim initiate to a hostile responder and returns it, with
// the first message that the victim sent.
func (w *world) outgoing(groups string) (*hostile, ike.Datagram) {
	w.t.Helper()
	guest := w.v.peers[1]
	to := *guest
	to.Name, to.RemoteAddrs = "outgoing", exactly(hostileAddr)
	to.Proposals = proposals(w.t, suite.IKE, "aes128-sha256-"+groups)
	n := len(w.out)
	w.v.do(ike.Initiate{ID: 7, Peer: &to, Child: "guest"})
	if len(w.out) != n+1 {
		w.t.Fatalf("%d first messages", len(w.out)-n)
	}
	p := w.guest()
	p.initiator = false
	return p, w.out[n]
}

// answer sends a response to a message of the victim and returns what the victim
// then sends.
func (p *hostile) answer(to ike.Datagram, data []byte) []ike.Datagram {
	n := len(p.w.out)
	p.w.inject(to.Remote, to.Local, data)
	return slices.Clone(p.w.out[n:])
}

func (p *hostile) reply(to ike.Datagram, spiR uint64, list ...wire.Payload) []byte {
	h := parse(p.w.t, to.Data).Header
	return wire.AppendMessage(nil, wire.Header{SPIi: h.SPIi, SPIr: spiR, Version: wire.IKEv2, Exchange: wire.ExchangeIKESAInit, Flags: wire.FlagResponse}, list)
}

// honestReply answers IKE_SA_INIT as it should be and derives the keys.
func (p *hostile) honestReply(to ike.Datagram) []byte {
	msg := parse(p.w.t, to.Data)
	ke, _ := wire.First[*wire.KE](msg.Payloads)
	ni, _ := wire.First[*wire.Nonce](msg.Payloads)
	public, shared, err := suite.RespondKeyExchange(suite.TransformID(ke.Group), ke.Data)
	if err != nil {
		p.w.t.Fatal(err)
	}
	p.group = suite.TransformID(ke.Group)
	p.spiI, p.spiR, p.nr, p.ni = msg.Header.SPIi, random64(), random(32), ni.Data
	p.request = to.Data
	p.response = p.reply(to, p.spiR, ikeProposal(p.group, nil), &wire.KE{Group: ke.Group, Data: public}, &wire.Nonce{Data: p.nr})
	p.derive(shared)
	return p.response
}

// honestAuth is the responder's IKE_AUTH, with a Child SA.
func (p *hostile) honestAuth(to ike.Datagram) []byte {
	id := &wire.ID{Kind: wire.PayloadIDr, IDType: wire.IDFQDN, Data: []byte(p.id)}
	maced := p.prf.Sum(p.pr, id.AppendSigned(nil))
	auth := &wire.Auth{Method: wire.AuthSharedKey, Data: p.prf.Sum(p.prf.Sum(p.psk, []byte("Key Pad for IKEv2")), p.response, p.ni, maced)}
	asked := p.open(to.Data)
	return p.seal(p.header(wire.ExchangeIKEAuth, 1, true), id, auth, espProposal(0x66666666), wire.FindTS(asked, wire.PayloadTSi), wire.FindTS(asked, wire.PayloadTSr))
}

// over tells whether the attempt has ended, and how.
func (w *world) over() (bool, error) {
	for _, d := range w.v.done {
		if d.ID == 7 {
			return true, d.Err
		}
	}
	return false, nil
}

func TestHonestResponder(t *testing.T) {
	w := newWorld(t, nil)
	p, first := w.outgoing("x25519")
	auth := p.answer(first, p.honestReply(first))
	if len(auth) != 1 {
		t.Fatal("no IKE_AUTH")
	}
	p.answer(auth[0], p.honestAuth(auth[0]))
	if over, err := w.over(); !over || err != nil {
		t.Errorf("%v %v", over, err)
	}
	w.honest()
	w.rest(1)
}

// A responder that asks for cookies, or for another group, for ever.
func TestRFC7296_2_6_1_LoopsOfTheResponder(t *testing.T) {
	for name, ask := range map[string]func(i int, group uint16) wire.Payload{
		"cookie": func(i int, _ uint16) wire.Payload { return notify(wire.Cookie, random(32)) },
		"group": func(i int, g uint16) wire.Payload {
			if g == 31 {
				return notify(wire.InvalidKEPayload, []byte{0, 19})
			}
			return notify(wire.InvalidKEPayload, []byte{0, 31})
		},
		"both": func(i int, g uint16) wire.Payload {
			if i%2 == 0 {
				return notify(wire.Cookie, random(60))
			}
			return notify(wire.InvalidKEPayload, []byte{0, byte(19 + 12*(i/2%2))})
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			p, last := w.outgoing("x25519-ecp256")
			sent := 1
			for i := range 100 {
				ke, _ := wire.First[*wire.KE](parse(t, last.Data).Payloads)
				next := p.answer(last, p.reply(last, 0, ask(i, ke.Group)))
				if len(next) > 1 {
					t.Fatalf("%d messages for one", len(next))
				}
				if len(next) == 1 {
					last = next[0]
					sent++
				}
			}
			if sent > 8 {
				t.Errorf("the initiator sent IKE_SA_INIT %d times", sent)
			}
			w.advance(3 * time.Minute)
			if over, err := w.over(); !over || err == nil {
				t.Errorf("%v %v", over, err)
			}
			w.honest()
			w.rest(0)
		})
	}
}

// Cookies and groups that make no sense are not followed.
func TestNonsenseOfTheResponder(t *testing.T) {
	kx, err := suite.NewKeyExchange(suite.KECurve25519)
	if err != nil {
		t.Fatal(err)
	}
	// other is a good answer with one transform that was not offered.
	other := func(change func(list []wire.Transform) []wire.Transform) []wire.Payload {
		sa := ikeProposal(31, nil)
		sa.Proposals[0].Transforms = change(sa.Proposals[0].Transforms)
		return []wire.Payload{sa, &wire.KE{Group: 31, Data: kx.Public()}, &wire.Nonce{Data: random(32)}}
	}
	for name, list := range map[string][]wire.Payload{
		"empty cookie":         {notify(wire.Cookie, nil)},
		"cookie of 60 KB":      {notify(wire.Cookie, make([]byte, 60_000))},
		"group that we lack":   {notify(wire.InvalidKEPayload, []byte{4, 1})},
		"group not offered":    {notify(wire.InvalidKEPayload, []byte{0, 2})},
		"group of one byte":    {notify(wire.InvalidKEPayload, []byte{31})},
		"group of 60 KB":       {notify(wire.InvalidKEPayload, make([]byte, 60_000))},
		"the same group":       {notify(wire.InvalidKEPayload, []byte{0, 31})},
		"nothing":              {},
		"two proposals":        {&wire.SA{Proposals: append(ikeProposal(31, nil).Proposals, ikeProposal(31, nil).Proposals...)}, &wire.KE{Group: 31, Data: make([]byte, 32)}, &wire.Nonce{Data: random(32)}},
		"not what was offered": {ikeProposal(2, nil), &wire.KE{Group: 2, Data: make([]byte, 128)}, &wire.Nonce{Data: random(32)}},
		"KE of another group":  {ikeProposal(31, nil), &wire.KE{Group: 19, Data: make([]byte, 64)}, &wire.Nonce{Data: random(32)}},
		"KE of zeros":          {ikeProposal(31, nil), &wire.KE{Group: 31, Data: make([]byte, 32)}, &wire.Nonce{Data: random(32)}},
		"short KE":             {ikeProposal(31, nil), &wire.KE{Group: 31, Data: make([]byte, 5)}, &wire.Nonce{Data: random(32)}},
		"another key length":   other(func(l []wire.Transform) []wire.Transform { l[0].KeyLength = 256; return l }),
		"another cipher":       other(func(l []wire.Transform) []wire.Transform { l[0].ID = 3; return l }),
		"no integrity":         other(func(l []wire.Transform) []wire.Transform { return append(l[:1:1], l[2:]...) }),
		"integrity NONE":       other(func(l []wire.Transform) []wire.Transform { l[1].ID = 0; return l }),
		"a weaker PRF":         other(func(l []wire.Transform) []wire.Transform { l[2].ID = 2; return l }),
		"two ciphers":          other(func(l []wire.Transform) []wire.Transform { return append(l, l[0]) }),
		"redirect":             {notify(wire.Redirect, make([]byte, 40))},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			p, first := w.outgoing("x25519")
			for range 20 {
				for _, d := range p.answer(first, p.reply(first, random64(), list...)) {
					if d.Remote.Addr() != hostileAddr || parse(t, d.Data).Header.Exchange != wire.ExchangeIKESAInit {
						t.Errorf("the initiator goes on: %v to %v", parse(t, d.Data).Summary(), d.Remote)
					}
				}
			}
			if n := w.v.e.Stats().SAs; n > 2 {
				t.Errorf("%d IKE SAs", n)
			}
			w.advance(3 * time.Minute)
			if over, err := w.over(); !over || err == nil {
				t.Errorf("%v %v", over, err)
			}
			w.honest()
			w.rest(0)
		})
	}
}

// What is said without protection proves nothing: the attempt goes on, and the true
// answer, if it comes soon, wins.
func TestRFC7296_2_21_1_ForgedRefusals(t *testing.T) {
	for _, n := range []wire.NotifyType{wire.NoProposalChosen, wire.InvalidSyntax, wire.AuthenticationFailed, wire.InvalidMajorVersion, wire.InvalidIKESPI,
		wire.UnsupportedCriticalPayload, wire.TemporaryFailure, wire.NotifyType(9999)} {
		t.Run(n.String(), func(t *testing.T) {
			w := newWorld(t, nil)
			p, first := w.outgoing("x25519")
			true1 := p.honestReply(first)
			for range 5 {
				p.answer(first, p.reply(first, 0, notify(n, nil)))
				p.answer(first, p.reply(first, random64(), notify(n, nil)))
			}
			if over, err := w.over(); over {
				t.Fatalf("a forged notify ended the attempt at once: %v", err)
			}
			auth := p.answer(first, true1)
			if len(auth) != 1 {
				t.Fatal("the true answer is not taken any more")
			}
			p.answer(auth[0], p.honestAuth(auth[0]))
			if over, err := w.over(); !over || err != nil {
				t.Errorf("%v %v", over, err)
			}
			w.honest()
			w.rest(1)
			// Where nothing better comes, it is the reason that is told, and soon.
			w = newWorld(t, nil)
			p, first = w.outgoing("x25519")
			p.answer(first, p.reply(first, 0, notify(n, nil)))
			w.advance(5 * time.Second)
			if over, err := w.over(); !over || err == nil {
				t.Errorf("%v %v", over, err)
			}
			w.honest()
			w.rest(0)
		})
	}
}

// Forged and hostile answers to IKE_AUTH: in the clear, with a wrong key, of another
// method, a wider Child SA than was asked for.
func TestHostileAuthResponses(t *testing.T) {
	for name, make := range map[string]func(p *hostile, to ike.Datagram) []byte{
		"in the clear": func(p *hostile, _ ike.Datagram) []byte {
			return wire.AppendMessage(nil, p.header(wire.ExchangeIKEAuth, 1, true), []wire.Payload{notify(wire.AuthenticationFailed, nil)})
		},
		"an IKE_SA_INIT refusal": func(p *hostile, _ ike.Datagram) []byte {
			return wire.AppendMessage(nil, p.header(wire.ExchangeIKESAInit, 0, true), []wire.Payload{notify(wire.NoProposalChosen, nil)})
		},
		"another IKE_SA_INIT": func(p *hostile, _ ike.Datagram) []byte {
			return wire.AppendMessage(nil, p.header(wire.ExchangeIKESAInit, 0, true), []wire.Payload{ikeProposal(31, nil), &wire.KE{Group: 31, Data: random(32)}, &wire.Nonce{Data: random(32)}})
		},
		"under message ID 0": func(p *hostile, _ ike.Datagram) []byte { return p.seal(p.header(wire.ExchangeIKEAuth, 0, true)) },
		"an INFORMATIONAL":   func(p *hostile, _ ike.Datagram) []byte { return p.seal(p.header(wire.ExchangeInformational, 1, true)) },
		"a request of INFORMATIONAL": func(p *hostile, _ ike.Datagram) []byte {
			return p.seal(p.header(wire.ExchangeInformational, 0, false), &wire.Delete{Protocol: wire.ProtocolIKE})
		},
		"a request of CREATE_CHILD_SA": func(p *hostile, _ ike.Datagram) []byte {
			return p.seal(p.header(wire.ExchangeCreateChildSA, 0, false), append([]wire.Payload{espProposal(0x1234567), &wire.Nonce{Data: random(32)}}, selectorPayloads()...)...)
		},
		"its own request reflected": func(p *hostile, to ike.Datagram) []byte { return to.Data },
		"reflected as a response": func(p *hostile, to ike.Datagram) []byte {
			b := bytes.Clone(to.Data)
			b[19] |= byte(wire.FlagResponse)
			return b
		},
		"reflected with both flags changed": func(p *hostile, to ike.Datagram) []byte {
			b := bytes.Clone(to.Data)
			b[19] = byte(wire.FlagResponse)
			return b
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			p, first := w.outgoing("x25519")
			auth := p.answer(first, p.honestReply(first))
			if len(auth) != 1 {
				t.Fatal("no IKE_AUTH")
			}
			before := w.v.e.Stats().Dropped
			for range 5 {
				p.answer(auth[0], make(p, auth[0]))
			}
			counted := uint64(0)
			for r, n := range w.v.e.Stats().Dropped {
				counted += n - before[r]
			}
			if counted < 5 {
				t.Errorf("%d of 5 were counted", counted)
			}
			if over, err := w.over(); over || w.v.ups != 1 {
				t.Fatalf("over: %v, %d up", err, w.v.ups)
			}
			p.answer(auth[0], p.honestAuth(auth[0]))
			if over, err := w.over(); !over || err != nil {
				t.Errorf("%v %v", over, err)
			}
			w.honest()
			w.rest(1)
		})
	}
}

// A responder that has no key gets nothing but one AUTH of ours.
func TestResponderWithoutKey(t *testing.T) {
	w := newWorld(t, nil)
	p, first := w.outgoing("x25519")
	auth := p.answer(first, p.honestReply(first))
	p.psk = suite.Key("a guess")
	p.answer(auth[0], p.honestAuth(auth[0]))
	if over, err := w.over(); !over || err == nil || !w.v.rejected(ike.ReasonAuthentication) {
		t.Errorf("%v %v", over, err)
	}
	if w.v.ups != 1 || w.v.mostPlane > 2 {
		t.Error("something came up")
	}
	w.honest()
	w.rest(0)
}

// Our own messages come back to us: we never talk to ourselves.
func TestReflection(t *testing.T) {
	w := newWorld(t, func(_ *ike.Config, guest *ike.Peer) {
		guest.Remote[0].ID = ike.Identity{} // takes anybody, thus ourselves
	})
	p, first := w.outgoing("x25519")
	seen := []ike.Datagram{first}
	began := w.v.e.Stats().Accepted
	for i := 0; i < len(seen) && i < 50; i++ {
		seen = append(seen, p.answer(seen[i], seen[i].Data)...)
	}
	if n := w.v.e.Stats().Accepted - began; n != 0 {
		t.Errorf("the victim accepted %d IKE SAs from itself", n)
	}
	if w.v.ups != 1 {
		t.Error("the victim is connected with itself")
	}
	if w.dropped(ike.DropUnexpected)+w.dropped(ike.DropUnknownSPI) == 0 {
		t.Error("counted under no name")
	}
	w.honest()
	w.rest(0)
}

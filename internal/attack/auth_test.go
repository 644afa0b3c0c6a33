package attack_test

import (
	"bytes"
	"maps"
	"testing"

	"adit/ike/wire"
	"adit/suite"
)

// IKE_AUTH of a peer that has no key, or plays with what it sends: nobody is
// established without a verified AUTH.
func TestNobodyUpWithoutAUTH(t *testing.T) {
	auth := func(m wire.AuthMethod, data []byte) *wire.Auth { return &wire.Auth{Method: m, Data: data} }
	for _, c := range []struct {
		name string
		make func(p *hostile) []wire.Payload
	}{
		{"wrong key", func(p *hostile) []wire.Payload { p.psk = suite.Key("wrong"); return p.authPayloads() }},
		{"empty key", func(p *hostile) []wire.Payload { p.psk = nil; return p.authPayloads() }},
		{"no AUTH", func(p *hostile) []wire.Payload { l := p.authPayloads(); return append(l[:1:1], l[2:]...) }},
		{"only IDi", func(p *hostile) []wire.Payload { return p.authPayloads()[:1] }},
		{"nothing", func(p *hostile) []wire.Payload { return nil }},
		{"empty AUTH", func(p *hostile) []wire.Payload {
			l := p.authPayloads()
			l[1] = auth(wire.AuthSharedKey, nil)
			return l
		}},
		{"AUTH cut to one byte", func(p *hostile) []wire.Payload {
			l := p.authPayloads()
			l[1] = auth(wire.AuthSharedKey, p.auth(p.idi()).Data[:1])
			return l
		}},
		{"AUTH cut by one byte", func(p *hostile) []wire.Payload {
			l := p.authPayloads()
			l[1] = auth(wire.AuthSharedKey, p.auth(p.idi()).Data[:31])
			return l
		}},
		{"AUTH with a byte more", func(p *hostile) []wire.Payload {
			l := p.authPayloads()
			l[1] = auth(wire.AuthSharedKey, append(p.auth(p.idi()).Data, 0))
			return l
		}},
		{"zeros", func(p *hostile) []wire.Payload {
			l := p.authPayloads()
			l[1] = auth(wire.AuthSharedKey, make([]byte, 32))
			return l
		}},
		{"60 KB of AUTH", func(p *hostile) []wire.Payload {
			l := p.authPayloads()
			l[1] = auth(wire.AuthSharedKey, make([]byte, 60_000))
			return l
		}},
		{"method NULL", func(p *hostile) []wire.Payload {
			l := p.authPayloads()
			l[1] = auth(wire.AuthNull, p.auth(p.idi()).Data)
			return l
		}},
		{"method digital signature", func(p *hostile) []wire.Payload {
			l := p.authPayloads()
			l[1] = auth(wire.AuthDigitalSignature, p.auth(p.idi()).Data)
			return l
		}},
		{"method 0", func(p *hostile) []wire.Payload { l := p.authPayloads(); l[1] = auth(0, p.auth(p.idi()).Data); return l }},
		{"wrong AUTH, then the right one", func(p *hostile) []wire.Payload {
			l := p.authPayloads()
			return append([]wire.Payload{l[0], auth(wire.AuthSharedKey, make([]byte, 32))}, l[1:]...)
		}},
		{"AUTH of the responder's key", func(p *hostile) []wire.Payload {
			l := p.authPayloads()
			id := p.idi()
			l[1] = auth(wire.AuthSharedKey, p.prf.Sum(p.prf.Sum(p.psk, []byte("Key Pad for IKEv2")), p.request, p.nr, p.prf.Sum(p.pr, id.AppendSigned(nil))))
			return l
		}},
		{"AUTH over another message", func(p *hostile) []wire.Payload {
			p.request = bytes.Clone(p.request)
			p.request[40] ^= 1
			return p.authPayloads()
		}},
		{"AUTH over another nonce", func(p *hostile) []wire.Payload { p.nr = random(32); return p.authPayloads() }},
		{"ID changed under AUTH", func(p *hostile) []wire.Payload {
			l := p.authPayloads()
			l[1] = p.auth(&wire.ID{Kind: wire.PayloadIDi, IDType: wire.IDFQDN, Data: []byte("x.example.org")})
			return l
		}},
		{"reserved bytes of ID changed under AUTH", func(p *hostile) []wire.Payload {
			l := p.authPayloads()
			l[0].(*wire.ID).Reserved[0] = 1
			return l
		}},
		{"the honest peer's ID with the guest's key", func(p *hostile) []wire.Payload { p.id = honestID; return p.authPayloads() }},
		{"INITIAL_CONTACT as the honest peer", func(p *hostile) []wire.Payload {
			p.id = honestID
			return append(p.authPayloads(), notify(wire.InitialContact, nil))
		}},
		{"our own ID", func(p *hostile) []wire.Payload { p.id = victimID; return p.authPayloads() }},
		{"empty ID", func(p *hostile) []wire.Payload { p.id = ""; return p.authPayloads() }},
		{"ID with a NUL", func(p *hostile) []wire.Payload { p.id = guestID + "\x00"; return p.authPayloads() }},
		{"ID of 60 KB", func(p *hostile) []wire.Payload { p.id = string(make([]byte, 60_000)); return p.authPayloads() }},
		{"ID that begins as the right one", func(p *hostile) []wire.Payload {
			p.id = guestID + string(make([]byte, 30_000))
			return p.authPayloads()
		}},
		{"unknown type of ID", func(p *hostile) []wire.Payload {
			l := p.authPayloads()
			id := l[0].(*wire.ID)
			id.IDType = 200
			l[1] = p.auth(id)
			return l
		}},
		{"the right ID as a key ID", func(p *hostile) []wire.Payload {
			l := p.authPayloads()
			id := l[0].(*wire.ID)
			id.IDType = wire.IDKeyID
			l[1] = p.auth(id)
			return l
		}},
		{"ID type NULL", func(p *hostile) []wire.Payload {
			l := p.authPayloads()
			id := &wire.ID{Kind: wire.PayloadIDi, IDType: wire.IDNull}
			l[0], l[1] = id, p.auth(id)
			return l
		}},
		{"an IPv4 address of 3 bytes", func(p *hostile) []wire.Payload {
			l := p.authPayloads()
			id := &wire.ID{Kind: wire.PayloadIDi, IDType: wire.IDIPv4Addr, Data: []byte{1, 2, 3}}
			l[0], l[1] = id, p.auth(id)
			return l
		}},
		{"two IDs, the second one is the right one", func(p *hostile) []wire.Payload {
			return append([]wire.Payload{&wire.ID{Kind: wire.PayloadIDi, IDType: wire.IDFQDN, Data: []byte("x.example.org")}}, p.authPayloads()...)
		}},
		{"an IDr that is not ours", func(p *hostile) []wire.Payload {
			return append(p.authPayloads(), &wire.ID{Kind: wire.PayloadIDr, IDType: wire.IDFQDN, Data: []byte("x.example.org")})
		}},
		{"an EAP payload", func(p *hostile) []wire.Payload {
			l := p.authPayloads()
			l[1] = &wire.EAP{Raw: []byte{1, 1, 0, 4}}
			return l
		}},
		{"a critical unknown payload", func(p *hostile) []wire.Payload {
			return append(p.authPayloads(), &wire.Unknown{Critical: true, PayloadType: 200})
		}},
		{"CERT instead of AUTH", func(p *hostile) []wire.Payload {
			l := p.authPayloads()
			l[1] = &wire.Cert{Encoding: wire.CertX509Signature, Data: make([]byte, 40_000)}
			return l
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, nil)
			p := w.guest()
			if !p.init() {
				t.Fatal("no answer")
			}
			before := len(w.v.rejections)
			answer := p.ask(wire.ExchangeIKEAuth, c.make(p)...)
			if _, ok := wire.First[*wire.Auth](answer); ok {
				t.Error("AUTH of the victim was given away")
			}
			if w.v.ups != 1 || w.v.mostPlane > 2 {
				t.Errorf("%d IKE SAs came up, %d SAs in the data plane", w.v.ups, w.v.mostPlane)
			}
			if errorIn(answer) == 0 || len(w.v.rejections) != before+1 {
				t.Errorf("answer %v, rejections %v", errorIn(answer), w.v.rejections[before:])
			}
			// It is over: nothing more is taken in this IKE SA.
			p.psk, p.id = guestKey, guestID
			if p.ask(wire.ExchangeIKEAuth, p.authPayloads()...) != nil || w.v.ups != 1 {
				t.Error("a second IKE_AUTH was taken")
			}
			w.honest()
			w.rest(0)
		})
	}
}

// Order and unknown payloads do not matter (RFC 7296 §2.5); duplicates do no harm.
func TestRFC7296_2_5_ReorderedAUTH(t *testing.T) {
	w := newWorld(t, nil)
	p := w.guest()
	p.init()
	l := p.authPayloads()
	for i, k := 0, len(l)-1; i < k; i, k = i+1, k-1 {
		l[i], l[k] = l[k], l[i]
	}
	l = append(l, &wire.Unknown{PayloadType: 201, Body: make([]byte, 10_000)}, notify(wire.NotifyType(50_000), nil), &wire.CP{CFGType: wire.CFGRequest})
	if _, ok := wire.First[*wire.Auth](p.ask(wire.ExchangeIKEAuth, l...)); !ok {
		t.Errorf("refused: %v", w.v.rejections)
	}
	w.honest()
	w.rest(1)
}

// An unknown identity and a wrong key cannot be told apart: the same rounds, the
// same sizes, the same questions and computations.
func TestUnknownIdentityCostsWhatAWrongKeyCosts(t *testing.T) {
	type cost struct {
		sizes  []int
		counts map[string]int
	}
	measure := func(id string, group suite.TransformID) cost {
		w := newWorld(t, nil)
		p := w.stranger()
		p.id, p.group = id, group
		p.init()
		clear(w.counts)
		var c cost
		for _, d := range p.send(p.seal(p.header(wire.ExchangeIKEAuth, 1, false), p.authPayloads()...)) {
			c.sizes = append(c.sizes, len(d.Data))
		}
		if errs := w.v.rejections; len(errs) != 1 || errs[0].Notify != "AUTHENTICATION_FAILED" {
			t.Errorf("%s: %v", id, errs)
		}
		c.counts = maps.Clone(w.counts)
		w.honest()
		w.rest(0)
		return c
	}
	known := measure(guestID, suite.KECurve25519)
	for _, id := range []string{"nobo.example.org", "aaaaa.example.org"} {
		unknown := measure(id, suite.KECurve25519)
		if len(known.sizes) != 1 || len(unknown.sizes) != 1 || known.sizes[0] != unknown.sizes[0] || !maps.Equal(known.counts, unknown.counts) {
			t.Errorf("%s: %+v, a wrong key: %+v", id, unknown, known)
		}
	}
	if known.counts["lookup"] != 1 {
		t.Errorf("%+v", known)
	}
}

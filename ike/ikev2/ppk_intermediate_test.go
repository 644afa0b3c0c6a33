package ikev2_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"adit/ike"
	"adit/ike/ikev2"
	"adit/ike/wire"
	"adit/suite"
)

// prfPlus is prf+ with HMAC-SHA-256, written down again (RFC 7296 §2.13).
func prfPlus(key, seed []byte, n int) (out []byte) {
	var t []byte
	for i := byte(1); len(out) < n; i++ {
		t = hmac256(key, t, seed, []byte{i})
		out = append(out, t...)
	}
	return out[:n]
}

func hmac256(key []byte, data ...[]byte) []byte {
	h := hmac.New(sha256.New, key)
	for _, d := range data {
		h.Write(d)
	}
	return h.Sum(nil)
}

// The formulas of RFC 9867, computed a second time: SKEYSEED' = prf+ (PPK, SK_d) and the keys
// that follow, the PPK Confirmation, and SK_d' = prf+ (PPK, SK_d) in CREATE_CHILD_SA.
func TestRFC9867_3_KeyMaterial(t *testing.T) {
	sel := suite.Selected{Protocol: suite.IKE,
		Encr:  suite.Transform{Type: suite.TypeENCR, ID: suite.EncrAESCBC, KeyBits: 128},
		Integ: suite.Transform{Type: suite.TypeINTEG, ID: suite.IntegHMACSHA2_256_128},
		PRF:   suite.Transform{Type: suite.TypePRF, ID: suite.PRFHMACSHA2_256}}
	d, ppk, shared := bytes.Repeat([]byte{0xd1}, 32), bytes.Repeat([]byte{0x99}, 40), bytes.Repeat([]byte{0x55}, 32)
	ni, nr := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	context := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(slices.Concat(ni, nr), 0x0102030405060708), 0x1112131415161718)
	gotIKE, confirm, child, rekey, err := ikev2.PPKKeys(sel, slices.Clone(d), slices.Clone(ppk), slices.Clone(shared), ni, nr, 0x0102030405060708, 0x1112131415161718)
	if err != nil {
		t.Fatal(err)
	}
	fresh := prfPlus(ppk, d, 32)
	for _, tt := range []struct {
		name      string
		got, want []byte
	}{
		{"keys of the IKE SA", gotIKE, prfPlus(prfPlus(ppk, d, 32), context, 32+2*32+2*16+2*32)},
		{"PPK Confirmation", confirm[:8], hmac256(ppk, context)[:8]},
		{"PPK Confirmation in CREATE_CHILD_SA", confirm[8:], hmac256(ppk, ni, context[64:])[:8]},
		{"KEYMAT", child, prfPlus(fresh, slices.Concat(shared, ni, nr), 2*(16+32))},
		{"SKEYSEED", rekey, hmac256(fresh, shared, ni, nr)},
	} {
		if !bytes.Equal(tt.got, tt.want) {
			t.Errorf("%s: %x, want %x", tt.name, tt.got, tt.want)
		}
	}
}

// said is all that both hosts have logged.
func (p *pair) said() string { return fmt.Sprint(p.a.trace(), p.b.trace()) }

func (p *pair) ppks(a, b map[string]string) {
	for h, m := range map[*host]map[string]string{p.a: a, p.b: b} {
		h.ppks = map[string]suite.Key{}
		for id, k := range m {
			h.ppks[id] = suite.Key(k)
		}
	}
}

// What comes of it when the two have PPKs, insist on them, have others, or know RFC 8784 only.
func TestRFC9867_3_1_PPK(t *testing.T) {
	k, other := map[string]string{"carol": "the one"}, map[string]string{"carol": "another"}
	const prefer, require, off = ike.PPKIntermediatePrefer, ike.PPKIntermediateRequire, ike.PPKIntermediateOff
	for name, c := range map[string]struct {
		a, b ppkEnd
		used string // by which exchange; "": none
		says string
	}{
		"both":                          {ppkEnd{"carol", false, prefer, k}, ppkEnd{"", false, prefer, k}, "INTERMEDIATE", ""},
		"both insist":                   {ppkEnd{"carol", true, require, k}, ppkEnd{"carol", true, require, k}, "INTERMEDIATE", ""},
		"the responder has none":        {ppkEnd{"carol", false, prefer, k}, ppkEnd{}, "", ""},
		"the responder has another":     {ppkEnd{"carol", false, prefer, k}, ppkEnd{"", false, prefer, other}, "", ""},
		"the initiator has none":        {ppkEnd{"carol", false, prefer, nil}, ppkEnd{"", false, prefer, k}, "", ""},
		"the initiator insists":         {ppkEnd{"carol", true, prefer, k}, ppkEnd{"", false, prefer, other}, "", "has not the same secret for carol"},
		"the initiator lacks its own":   {ppkEnd{"carol", true, prefer, nil}, ppkEnd{"", false, prefer, k}, "", "there is no secret for ppk_id carol"},
		"the responder insists":         {ppkEnd{"carol", false, prefer, k}, ppkEnd{"", true, prefer, other}, "", "the peer's secret for carol is another one than ours"},
		"it insists, none is named":     {ppkEnd{"carol", false, prefer, nil}, ppkEnd{"", true, prefer, k}, "", "the peer uses no PPK"},
		"it insists on another":         {ppkEnd{"carol", false, prefer, k}, ppkEnd{"dave", false, prefer, k}, "", "is not the carol that the peer uses"},
		"the responder has it off":      {ppkEnd{"carol", true, prefer, k}, ppkEnd{"", true, off, k}, "AUTH", ""},
		"the initiator has it off":      {ppkEnd{"carol", true, off, k}, ppkEnd{"", true, prefer, k}, "AUTH", ""},
		"required here, off there":      {ppkEnd{"carol", true, require, k}, ppkEnd{"", false, off, k}, "", "does not know PPKs"},
		"preferred here, off there":     {ppkEnd{"carol", false, require, k}, ppkEnd{"", false, off, k}, "", ""},
		"off here, required there":      {ppkEnd{"carol", true, off, k}, ppkEnd{"", false, require, k}, "", "its ppk_intermediate = require"},
		"off here, insisted on there":   {ppkEnd{"carol", true, off, k}, ppkEnd{"", true, require, k}, "", "the peer does not offer a PPK before IKE_AUTH"},
		"neither asks, nobody is asked": {ppkEnd{"", false, prefer, k}, ppkEnd{"carol", false, prefer, k}, "", ""},
	} {
		for _, proposals := range []string{"aes128-sha256-x25519", hybrid, triple} {
			t.Run(name+" "+proposals, func(t *testing.T) {
				p := ppkPair(t, proposals == hybrid, proposals, c.a, c.b)
				dump(t, p)
				p.a.initiate("net")
				p.run(3 * time.Second)
				if c.says != "" {
					if !strings.Contains(p.said(), c.says) || len(eventsOf[ike.IKEUp](p.a))+len(eventsOf[ike.IKEUp](p.b)) != 0 || len(eventsOf[*ike.Rejection](p.a))+len(eventsOf[*ike.Rejection](p.b)) == 0 {
						t.Errorf("want %q", c.says)
					}
					p.run(3 * time.Minute)
					p.down()
					return
				}
				p.up()
				for _, h := range []*host{p.a, p.b} {
					if got := h.e.SAs()[0].PPK; got != (c.used != "") {
						t.Errorf("%s: PPK %v", h.name, got)
					}
				}
				inAuth, before := false, false
				for _, m := range eventsOf[ike.Message](p.a) {
					inAuth = inAuth || m.Out && strings.Contains(m.Summary, "IKE_AUTH") && strings.Contains(m.Summary, "N(PPK_IDENTITY)")
					before = before || m.Out && strings.Contains(m.Summary, "N(PPK_IDENTITY_KEY)")
				}
				if inAuth != (c.used == "AUTH") || c.used == "INTERMEDIATE" && !before {
					t.Error("not as it was to be named")
				}
				p.b.do(ike.Rekey{IKE: "b"})
				p.run(80 * time.Second)
				p.up()
				if p.a.e.SAs()[0].PPK != (c.used != "") {
					t.Error("the rekeyed IKE SA lists something else")
				}
			})
		}
	}
}

// However the two prove themselves: by EAP, by EAP alone, in several rounds.
func TestRFC9867_3_1_AnyAuthentication(t *testing.T) {
	ask := func(a, b *side) {
		a.peer.PPKID, a.peer.PPKRequired, b.peer.PPKRequired = "carol", true, true
	}
	k := map[string]string{"carol": "the one"}
	for name, make := range map[string]func() *pair{
		"eap": func() *pair { return eapPair(t, ask) },
		"two rounds": func() *pair {
			p := newPair(t, func(a, b *side) {
				by(a, b, ike.AuthPSK, ike.AuthPubkey)
				a.peer.Local = append(a.peer.Local, ike.AuthRound{Method: ike.AuthEAP, ID: id("user@example.org")})
				b.peer.Remote = append(b.peer.Remote, ike.AuthRound{Method: ike.AuthEAP, ID: id("*@example.org")})
				ask(a, b)
			})
			credentialsFor(t, p)
			return p
		},
	} {
		p := make()
		p.ppks(k, k)
		p.a.initiate("net")
		p.run(5 * time.Second)
		p.up()
		if !p.a.e.SAs()[0].PPK || !p.b.e.SAs()[0].PPK {
			t.Errorf("%s: no PPK", name)
		}
	}
}

// Each message is lost, doubled or late in turn: the keys change under repetitions.
func TestRFC9867_3_1_LossAndReorder(t *testing.T) {
	for _, proposals := range []string{"aes128-sha256-x25519", triple} {
		for n := range 10 {
			for _, fault := range []string{"lost", "late"} {
				k := map[string]string{"carol": "the one"}
				p := ppkPair(t, false, proposals, ppkEnd{id: "carol", required: true, secrets: k}, ppkEnd{secrets: k})
				count := 0
				hit := func() bool { count++; return count == n+1 }
				if fault == "lost" {
					p.filter = func(*host, ike.Datagram) bool { return !hit() }
				} else {
					p.delay = func(*host, ike.Datagram) time.Duration {
						if hit() {
							return 5 * time.Second
						}
						return 10 * time.Millisecond
					}
				}
				p.a.initiate("net")
				p.run(30 * time.Second)
				p.up()
				if !p.a.e.SAs()[0].PPK {
					t.Errorf("%s, message %d %s: no PPK", proposals, n, fault)
				}
			}
		}
	}
}

// A new secret goes into new Child SAs and into rekeys of either kind by either end; while
// only one end has it, they go on without, and say so (RFC 9867 §3.2).
func TestRFC9867_3_2_FreshPPK(t *testing.T) {
	for _, esp := range []string{"aes128gcm16", "aes128gcm16-x25519", "aes256gcm16-x25519-ke1_mlkem768"} {
		k := map[string]string{"carol": "the one"}
		p := ppkPair(t, false, hybrid, ppkEnd{id: "carol", required: true, secrets: k}, ppkEnd{required: true, secrets: k})
		list, err := suite.ParseProposal(suite.ESP, esp)
		if err != nil {
			t.Fatal(err)
		}
		p.a.peer.Children[0].Proposals, p.b.peer.Children[0].Proposals = []suite.Proposal{list}, []suite.Proposal{list}
		dump(t, p)
		p.a.initiate("net")
		p.run(3 * time.Second)
		p.up()
		step := func(what string, h *host, c ike.Command, mixed bool) {
			t.Helper()
			p.a.events, p.b.events = nil, nil
			h.do(c)
			p.run(80 * time.Second)
			p.up()
			said := p.said()
			asked, granted := strings.Contains(said, "N(PPK_IDENTITY_KEY)"), strings.Contains(said, "N(PPK_IDENTITY) ")
			if !asked || granted != mixed || strings.Contains(said, "no fresh PPK goes into the new keys") == mixed {
				t.Errorf("%s: asked %v, granted %v, want %v", what, asked, granted, mixed)
			}
			if !p.a.e.SAs()[0].PPK || len(eventsOf[*ike.Rejection](p.a))+len(eventsOf[*ike.Rejection](p.b)) != 0 {
				t.Errorf("%s: %s", what, said)
			}
		}
		step("rekey of the Child SA", p.a, ike.Rekey{Child: "net"}, true)
		p.ppks(map[string]string{"carol": "second"}, k)
		step("only a has the new secret", p.a, ike.Rekey{Child: "net"}, false)
		step("only a has it, b asks", p.b, ike.Rekey{IKE: "b"}, false)
		p.ppks(map[string]string{"carol": "second"}, map[string]string{"carol": "second"})
		step("both have it, b asks", p.b, ike.Rekey{Child: "net"}, true)
		step("rekey of the IKE SA", p.a, ike.Rekey{IKE: "a"}, true)
		step("rekey of the IKE SA by b", p.b, ike.Rekey{IKE: "b"}, true)
		step("Child SA in the IKE SA of a rekey", p.b, ike.Rekey{Child: "net"}, true)
		p.ppks(nil, nil)
		p.a.events, p.b.events = nil, nil
		p.a.do(ike.Rekey{Child: "net"})
		p.run(80 * time.Second)
		p.up()
		if !strings.Contains(p.said(), "there is no secret for carol") {
			t.Error("nobody misses the secret")
		}
	}
}

// What makes no sense is refused by name, or is as if it was not there.
func TestRFC9867_3_Hostile(t *testing.T) {
	find := func(l []wire.Payload) *wire.Notify { return wire.FindNotify(l, wire.PPKIdentityKey) }
	for name, c := range map[string]struct {
		exchange wire.ExchangeType
		response bool
		change   func(l []wire.Payload) []wire.Payload
		says     string
	}{
		"empty":            {wire.ExchangeIKEIntermediate, false, func(l []wire.Payload) []wire.Payload { find(l).Data = nil; return l }, "a malformed PPK_IDENTITY_KEY"},
		"no identity":      {wire.ExchangeIKEIntermediate, false, func(l []wire.Payload) []wire.Payload { find(l).Data = make([]byte, 9); return l }, "a malformed PPK_IDENTITY_KEY"},
		"type 9":           {wire.ExchangeIKEIntermediate, false, func(l []wire.Payload) []wire.Payload { find(l).Data[0] = 9; return l }, "a malformed PPK_IDENTITY_KEY"},
		"identity of 2 kB": {wire.ExchangeIKEIntermediate, false, func(l []wire.Payload) []wire.Payload { find(l).Data = bytes.Repeat([]byte{2}, 2000); return l }, "a malformed PPK_IDENTITY_KEY"},
		"nine of them": {wire.ExchangeIKEIntermediate, false, func(l []wire.Payload) []wire.Payload {
			for range 8 {
				l = append(l, find(l))
			}
			return l
		}, "or too many"},
		"wrong confirmation":     {wire.ExchangeIKEIntermediate, false, func(l []wire.Payload) []wire.Payload { d := find(l).Data; d[len(d)-1] ^= 1; return l }, "is another one than ours"},
		"another identity":       {wire.ExchangeIKEIntermediate, false, func(l []wire.Payload) []wire.Payload { find(l).Data[2] ^= 1; return l }, "there is no secret for the"},
		"left out":               {wire.ExchangeIKEIntermediate, false, func(l []wire.Payload) []wire.Payload { return l[:1] }, "has not the same secret"},
		"answer taken out":       {wire.ExchangeIKEIntermediate, true, func(l []wire.Payload) []wire.Payload { return l[:1] }, "has not the same secret"},
		"answer of another name": {wire.ExchangeIKEIntermediate, true, func(l []wire.Payload) []wire.Payload { wire.FindNotify(l, wire.PPKIdentity).Data[1] ^= 1; return l }, "takes a PPK that was not offered"},
		"the same in a rekey":    {wire.ExchangeCreateChildSA, true, func(l []wire.Payload) []wire.Payload { wire.FindNotify(l, wire.PPKIdentity).Data[1] ^= 1; return l }, "takes a PPK that was not offered"},
		"in CREATE_CHILD_SA":     {wire.ExchangeCreateChildSA, false, func(l []wire.Payload) []wire.Payload { find(l).Data = nil; return l }, "a malformed PPK_IDENTITY_KEY"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMITM(t, func(a, b *side) {
				whole(hybrid, "")(a, b)
				a.peer.PPKID, a.peer.PPKRequired, b.peer.PPKRequired = "carol", true, true
			})
			m.ppks(map[string]string{"carol": "the one"}, map[string]string{"carol": "the one"})
			m.change = func(from *host, h *wire.Header, payloads []wire.Payload) []wire.Payload {
				if h.Exchange == c.exchange && h.Response() == c.response {
					return c.change(payloads)
				}
				return payloads
			}
			m.a.initiate("net")
			m.run(3 * time.Second)
			if c.exchange == wire.ExchangeCreateChildSA {
				m.up()
				m.a.do(ike.Rekey{Child: "net"})
				m.run(3 * time.Second)
				m.up()
				m.change = nil
				m.run(80 * time.Second)
				m.up()
			} else if len(eventsOf[ike.IKEUp](m.a))+len(eventsOf[ike.IKEUp](m.b)) != 0 {
				t.Error("up")
			}
			if !strings.Contains(m.said(), c.says) || len(eventsOf[*ike.Rejection](m.a))+len(eventsOf[*ike.Rejection](m.b)) == 0 {
				t.Errorf("no reason %q in %s", c.says, m.said())
			}
		})
	}
}

// The PPK is named in the last exchange, not before; one of its own after the last additional
// key exchange is as good.
func TestRFC9867_3_1_WhichExchange(t *testing.T) {
	k := map[string]string{"carol": "the one"}
	for _, early := range []bool{true, false} {
		m := newMITM(t, func(a, b *side) {
			whole(triple, "")(a, b)
			a.peer.PPKID, b.peer.PPKRequired = "carol", early
		})
		m.ppks(k, k)
		n := 0
		m.change = func(from *host, h *wire.Header, payloads []wire.Payload) []wire.Payload {
			if from == m.a && h.Exchange == wire.ExchangeIKEIntermediate {
				if n++; early && n == 1 {
					return append(payloads, &wire.Notify{NotifyType: wire.PPKIdentityKey, Data: []byte("\x02carol12345678")})
				}
			}
			return payloads
		}
		m.a.initiate("net")
		m.run(3 * time.Second)
		if early != strings.Contains(m.said(), "PPK_IDENTITY_KEY before the last IKE_INTERMEDIATE") || early == (len(eventsOf[ike.IKEUp](m.b)) == 1) {
			t.Errorf("early %v: %s", early, m.said())
		}
	}
}

// Who strips USE_PPK_INT gets the ends to go on with RFC 8784 at most: where that is not
// enough the set-up fails, and full transcript authentication notices it anyway.
func TestRFC9867_3_1_Stripped(t *testing.T) {
	k := map[string]string{"carol": "the one"}
	for _, transcript := range []bool{true, false} {
		for _, from := range []string{"a", "b"} {
			mode := ike.PPKIntermediateRequire
			if transcript {
				mode = ike.PPKIntermediatePrefer
			}
			p := newPair(t, func(a, b *side) {
				for _, s := range []*side{a, b} {
					s.peer.PPKID, s.peer.PPKRequired, s.peer.PPKIntermediate, s.config.FullTranscript = "carol", true, mode, transcript
				}
			})
			p.ppks(k, k)
			p.filter = func(h *host, d ike.Datagram) bool {
				if header(t, d).Exchange != wire.ExchangeIKESAInit || h.name != from {
					return true
				}
				b := bytes.Clone(d.Data) // not what the sender keeps
				strip(t, b, wire.UsePPKInt)
				p.seq++
				p.queue = append(p.queue, packet{p.now.Add(10 * time.Millisecond), p.seq, p.other(h), ike.Datagram{Local: d.Remote, Remote: d.Local, Data: b}})
				return false
			}
			p.a.initiate("net")
			p.run(5 * time.Second)
			if len(eventsOf[ike.IKEUp](p.a))+len(eventsOf[ike.IKEUp](p.b)) != 0 || len(p.a.reasons())+len(p.b.reasons()) == 0 {
				t.Errorf("transcript %v, %s: %s", transcript, from, p.said())
			}
		}
	}
}

package ikev2_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha1"
	"crypto/x509"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"adit/ike"
	"adit/ike/wire"
)

func sha1Sum(b []byte) [20]byte { return sha1.Sum(b) }

func selfSigned(t testing.TB) *x509.Certificate {
	pub, key, _ := ed25519.GenerateKey(rand.Reader)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: start, NotAfter: start.AddDate(1, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, pub, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// twoRounds makes a pair in which a proves itself twice and b by one method.
func twoRounds(t testing.TB, a1, a2, b1 ike.AuthMethod) *pair {
	p := newPair(t, func(a, b *side) {
		by(a, b, a1, b1)
		a.peer.Local = append(a.peer.Local, ike.AuthRound{Method: a2, ID: id("user@example.org")})
		b.peer.Remote = append(b.peer.Remote, ike.AuthRound{Method: a2, ID: id("*@example.org")})
	})
	credentialsFor(t, p)
	return p
}

// credentialsFor gives both hosts keys and passwords for all their identities.
func credentialsFor(t testing.TB, p *pair) {
	introduce(p.a, p.b, "a.example.org", newKey(t, "ed25519"))
	introduce(p.a, p.b, "user@example.org", newKey(t, "ed25519"))
	introduce(p.b, p.a, "b.example.org", newKey(t, "ed25519"))
	introduce(p.b, p.a, "b2.example.org", newKey(t, "ed25519"))
	for _, h := range []*host{p.a, p.b} {
		for _, u := range []string{"a.example.org", "user@example.org", "alice"} {
			h.creds.passwords[u] = "secret of " + u
		}
	}
}

func TestRFC4739_RoundsOfTheInitiator(t *testing.T) {
	methods := []ike.AuthMethod{ike.AuthPSK, ike.AuthPubkey, ike.AuthEAP}
	for _, m1 := range methods {
		for _, m2 := range methods {
			for _, b := range []ike.AuthMethod{ike.AuthPSK, ike.AuthPubkey} {
				t.Run(m1.String()+", "+m2.String()+" against "+b.String(), func(t *testing.T) {
					p := twoRounds(t, m1, m2, b)
					dump(t, p)
					p.a.initiate("net")
					p.run(3 * time.Second)
					p.up()
					for _, h := range []*host{p.a, p.b} {
						h.creds.balanced(t, h.name)
					}
					if sa := p.b.e.SAs()[0]; sa.RemoteID != id("user@example.org") || (m2 == ike.AuthEAP) != (sa.RemoteEAPID == "user@example.org") {
						t.Errorf("%v, EAP identity %q", sa.RemoteID, sa.RemoteEAPID)
					}
					// The Child SA is answered at the very end.
					answers := p.b.messages()
					for i, m := range answers {
						if strings.Contains(m, " SA TSi TSr") != (i == len(answers)-1) {
							t.Errorf("answer %d: %s", i, m)
						}
					}
				})
			}
		}
	}
}

func TestRFC4739_RoundsOfTheResponder(t *testing.T) {
	for _, m := range []ike.AuthMethod{ike.AuthPSK, ike.AuthPubkey} {
		for _, both := range []bool{false, true} {
			p := newPair(t, func(a, b *side) {
				by(a, b, ike.AuthPubkey, ike.AuthPubkey)
				b.peer.Local = append(b.peer.Local, ike.AuthRound{Method: m, ID: id("b2.example.org")})
				a.peer.Remote = append(a.peer.Remote, ike.AuthRound{Method: m, ID: id("b2.example.org")})
				if both {
					a.peer.Local = append(a.peer.Local, ike.AuthRound{Method: m, ID: id("user@example.org")})
					b.peer.Remote = append(b.peer.Remote, ike.AuthRound{Method: m})
				}
			})
			credentialsFor(t, p)
			dump(t, p)
			p.a.initiate("net")
			p.run(3 * time.Second)
			p.up()
			if sa := p.a.e.SAs()[0]; sa.RemoteID != id("b2.example.org") {
				t.Errorf("%v", sa.RemoteID)
			}
		}
	}
}

// Who does fewer rounds than are demanded, or more, is refused, on either side.
func TestRFC4739_MissingRounds(t *testing.T) {
	for name, tweak := range map[string]func(a, b *side){
		"initiator one too few":  func(a, b *side) { a.peer.Local = a.peer.Local[:1] },
		"initiator one too many": func(a, b *side) { b.peer.Remote = b.peer.Remote[:1] },
		"second identity":        func(a, b *side) { b.peer.Remote[1].ID = id("*@example.net") },
		"second method":          func(a, b *side) { b.peer.Remote[1].Method = ike.AuthPSK },
		"responder one too few": func(a, b *side) {
			a.peer.Remote = append(a.peer.Remote, ike.AuthRound{Method: ike.AuthPubkey})
		},
		"responder one too many": func(a, b *side) {
			b.peer.Local = append(b.peer.Local, ike.AuthRound{Method: ike.AuthPubkey, ID: id("b2.example.org")})
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, func(a, b *side) {
				by(a, b, ike.AuthPubkey, ike.AuthPubkey)
				a.peer.Local = append(a.peer.Local, ike.AuthRound{Method: ike.AuthPubkey, ID: id("user@example.org")})
				b.peer.Remote = append(b.peer.Remote, ike.AuthRound{Method: ike.AuthPubkey, ID: id("*@example.org")})
				tweak(a, b)
			})
			credentialsFor(t, p)
			dump(t, p)
			p.a.initiate("net")
			p.run(100 * time.Second)
			if len(eventsOf[ike.IKEUp](p.a)) != 0 {
				t.Error("a is up")
			}
			if !slices.Contains(append(p.a.reasons(), p.b.reasons()...), ike.ReasonAuthentication) {
				t.Errorf("%v %v", p.a.reasons(), p.b.reasons())
			}
			p.run(200 * time.Second)
			p.down()
		})
	}
}

// eapPair is a client by EAP before a gateway with a key.
func eapPair(t testing.TB, tweak func(a, b *side)) *pair {
	p := newPair(t, func(a, b *side) {
		by(a, b, ike.AuthEAP, ike.AuthPubkey)
		if tweak != nil {
			tweak(a, b)
		}
	})
	credentialsFor(t, p)
	return p
}

func TestRFC7296_2_16_EAP(t *testing.T) {
	for _, tt := range []struct {
		name  string
		tweak func(a, b *side)
		eapID string
	}{
		{"mschapv2", nil, "a.example.org"},
		{"md5, which makes no key", func(a, b *side) { b.peer.Remote[0].EAP = ike.EAPMD5 }, "a.example.org"},
		{"with an identity of its own", func(a, b *side) {
			a.peer.Local[0].EAPID = id("alice")
			b.peer.Remote[0].EAPAsk = true
		}, "alice"},
		{"responder by a shared key", func(a, b *side) { by(a, b, ike.AuthEAP, ike.AuthPSK) }, "a.example.org"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := eapPair(t, tt.tweak)
			dump(t, p)
			p.a.initiate("net")
			p.run(3 * time.Second)
			p.up()
			if sa := p.b.e.SAs()[0]; sa.RemoteEAPID != tt.eapID || sa.RemoteID != id("a.example.org") {
				t.Errorf("%q %v", sa.RemoteEAPID, sa.RemoteID)
			}
			for _, h := range []*host{p.a, p.b} {
				h.creds.balanced(t, h.name)
			}
			p.a.do(ike.Rekey{IKE: "a"})
			p.run(10 * time.Second)
			p.up()
			if sa := p.b.e.SAs()[0]; sa.RemoteEAPID != tt.eapID {
				t.Errorf("after the rekey: %q", sa.RemoteEAPID)
			}
		})
	}
}

func TestRFC7296_2_16_EAPFailures(t *testing.T) {
	for name, tweak := range map[string]func(p *pair, a, b *side){
		"wrong password": func(p *pair, a, b *side) { p.a.creds.passwords["a.example.org"] = "guess" },
		"unknown user":   func(p *pair, a, b *side) { delete(p.b.creds.passwords, "a.example.org") },
		"eap identity": func(p *pair, a, b *side) {
			a.peer.Local[0].EAPID, b.peer.Remote[0].EAPAsk, b.peer.Remote[0].EAPID = id("alice"), true, id("bob")
		},
		"nobody": func(p *pair, a, b *side) {
			b.peer.Remote[0].EAPID = id("a.example.org")
			p.b.creds.change = func(q ike.Question, v any, err error) (any, error) {
				if x, ok := v.(*ike.EAPAnswer); ok && x.Success {
					x.Identity = ""
				}
				return v, err
			}
		},
		"somebody else": func(p *pair, a, b *side) {
			b.peer.Remote[0].EAPID = id("a.example.org")
			p.b.creds.change = func(q ike.Question, v any, err error) (any, error) {
				if x, ok := v.(*ike.EAPAnswer); ok && x.Success {
					x.Identity = "root"
				}
				return v, err
			}
		},
		"groups":         func(p *pair, a, b *side) { b.peer.Remote[0].Groups = []string{"staff"} },
		"no EAP here":    func(p *pair, a, b *side) { b.peer.Remote[0].Method = ike.AuthPubkey },
		"any is not EAP": func(p *pair, a, b *side) { b.peer.Remote[0].Method = ike.AuthAny },
	} {
		t.Run(name, func(t *testing.T) {
			var ta, tb *side
			p := eapPair(t, func(a, b *side) { ta, tb = a, b })
			tweak(p, ta, tb)
			dump(t, p)
			p.a.initiate("net")
			p.run(100 * time.Second)
			for _, h := range []*host{p.a, p.b} {
				if len(eventsOf[ike.IKEUp](h)) != 0 || len(eventsOf[*ike.Rejection](h)) != 1 {
					t.Errorf("%s: %v", h.name, h.trace())
				}
				h.creds.balanced(t, h.name)
			}
			p.down()
		})
	}
}

// Several users of one connection by their EAP identity: each gets its own.
func TestConnectionByEAPIdentity(t *testing.T) {
	p := eapPair(t, func(a, b *side) { a.peer.Local[0].EAPID = id("alice") })
	dump(t, p)
	ask := func(name string) func(*ike.Peer) {
		return func(p *ike.Peer) { p.Remote[0].EAPAsk, p.Remote[0].EAPID = true, id(name) }
	}
	variants(t, p, ask("bob"), ask("alice"))
	p.a.initiate("net")
	p.run(3 * time.Second)
	if up := eventsOf[ike.IKEUp](p.b); len(up) != 1 || up[0].SA.Name != "v2" {
		t.Errorf("%+v", up)
	}
	if len(p.b.creds.begun) != 1 {
		t.Errorf("%d conversations for connections with the same method", len(p.b.creds.begun))
	}
}

// The identity chooses the connection, and with it the method: nobody gets into
// one by the easier method of another.
func TestMethodByEAPIdentity(t *testing.T) {
	for _, tt := range []struct{ name, want string }{{"alice", "v2"}, {"bob", "v1"}, {"carol", "v3"}} {
		p := eapPair(t, func(a, b *side) { a.peer.Local[0].EAPID = id(tt.name) })
		dump(t, p)
		for _, h := range []*host{p.a, p.b} {
			h.creds.passwords["bob"], h.creds.passwords["carol"] = "b", "c"
		}
		conn := func(m ike.EAPMethod, who string) func(*ike.Peer) {
			return func(p *ike.Peer) {
				p.Remote[0].EAPAsk, p.Remote[0].EAP = true, m
				if who != "" {
					p.Remote[0].EAPID = id(who)
				}
			}
		}
		variants(t, p, conn(ike.EAPMD5, "bob"), conn(ike.EAPMSCHAPv2, "alice"), conn(ike.EAPMSCHAPv2, ""))
		methods := map[string]bool{}
		p.b.creds.change = func(q ike.Question, v any, err error) (any, error) {
			if a, ok := v.(*ike.EAPAnswer); ok && a.Success {
				methods[q.(ike.EAPRound).Peer.Name+" "+a.Method] = true
			}
			return v, err
		}
		p.a.initiate("net")
		p.run(3 * time.Second)
		want := map[string]string{"v1": "v1 EAP_MD5", "v2": "v2 EAP_MSCHAPv2", "v3": "v3 EAP_MSCHAPv2"}[tt.want]
		if up := eventsOf[ike.IKEUp](p.b); len(up) != 1 || up[0].SA.Name != tt.want || len(methods) != 1 || !methods[want] {
			t.Errorf("%s: %+v by %v", tt.name, up, methods)
		}
		p.b.creds.balanced(t, "b")
	}
}

// RFC 5998: EAP alone proves the responder, if both want that and the method does.
func TestRFC5998_EAPOnly(t *testing.T) {
	for _, tt := range []struct {
		name  string
		tweak func(a, b *side)
		up    bool
	}{
		{"mutual", nil, true},
		{"a takes anything", func(a, b *side) { a.peer.Remote[0].Method = ike.AuthAny }, true},
		{"a method that is not mutual", func(a, b *side) { b.peer.Remote[0].EAP = ike.EAPMD5 }, false},
		{"a wants a signature", func(a, b *side) { a.peer.Remote[0].Method = ike.AuthPubkey }, false},
		{"other identity", func(a, b *side) {
			b.peer.Local[0].ID = id("b2.example.org")
			a.peer.Remote[0].ID = id("*b.example.org")
		}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := eapPair(t, func(a, b *side) {
				by(a, b, ike.AuthEAP, ike.AuthEAP)
				if tt.tweak != nil {
					tt.tweak(a, b)
				}
			})
			dump(t, p)
			p.a.initiate("net")
			p.run(100 * time.Second)
			if tt.up {
				p.up()
				if m := p.b.messages()[1]; strings.Contains(m, " AUTH ") || strings.Contains(m, "CERT") {
					t.Errorf("the responder proves itself otherwise as well: %s", m)
				}
			} else {
				if len(eventsOf[ike.IKEUp](p.a)) != 0 {
					t.Error("up")
				}
				p.run(200 * time.Second)
				p.down()
			}
			for _, h := range []*host{p.a, p.b} {
				h.creds.balanced(t, h.name)
			}
		})
	}
}

// CVE-2015-4171: the responder proves itself and meets all constraints before the
// client says a word of EAP.
func TestConstraintsBeforeEAP(t *testing.T) {
	for name, tweak := range map[string]func(m *mitm, a, b *side){
		"wrong key":  func(m *mitm, a, b *side) { m.a.creds.trusted[id("b.example.org")] = nil },
		"pinned":     func(m *mitm, a, b *side) { a.peer.Remote[0].Pubkeys = [][]byte{{1}} },
		"constraint": func(m *mitm, a, b *side) { a.peer.Remote[0].Constraints = []string{"ecdsa"} },
		"second round": func(m *mitm, a, b *side) {
			a.peer.Remote = append(a.peer.Remote, ike.AuthRound{Method: ike.AuthPubkey})
		},
		"no AUTH": func(m *mitm, a, b *side) {
			m.change = func(from *host, h *wire.Header, p []wire.Payload) []wire.Payload {
				return slices.DeleteFunc(p, func(x wire.Payload) bool { return from == m.b && x.Type() == wire.PayloadAUTH })
			}
		},
		"second round announced": func(m *mitm, a, b *side) {
			a.peer.Remote = append(a.peer.Remote, ike.AuthRound{Method: ike.AuthPubkey, ID: id("b2.example.org")})
			b.peer.Local = append(b.peer.Local, ike.AuthRound{Method: ike.AuthPubkey, ID: id("b2.example.org")})
		},
	} {
		t.Run(name, func(t *testing.T) {
			var ta, tb *side
			m := newMITM(t, func(a, b *side) { by(a, b, ike.AuthEAP, ike.AuthPubkey); ta, tb = a, b })
			credentialsFor(t, m.pair)
			dump(t, m.pair)
			tweak(m, ta, tb)
			m.a.initiate("net")
			m.run(60 * time.Second)
			if n := m.a.creds.asked["eap"]; n != 0 {
				t.Errorf("EAP ran %d times before the responder had proved itself", n)
			}
			if len(eventsOf[ike.IKEUp](m.a))+len(eventsOf[ike.IKEUp](m.b)) != 0 {
				t.Error("up")
			}
			m.run(200 * time.Second)
			m.down()
		})
	}
}

// CVE-2021-45079: a Success before its time ends nothing well, nor does EAP where
// none is due.
func TestEarlyEAPSuccess(t *testing.T) {
	success := &wire.EAP{Raw: []byte{3, 1, 0, 4}}
	for name, change := range map[string]func(h *wire.Header, p []wire.Payload) []wire.Payload{
		"at once": func(h *wire.Header, p []wire.Payload) []wire.Payload {
			for i, x := range p {
				if _, ok := x.(*wire.EAP); ok {
					p[i] = success
				}
			}
			return p
		},
		"instead of AUTH": func(h *wire.Header, p []wire.Payload) []wire.Payload {
			if h.MessageID < 2 {
				return p
			}
			return []wire.Payload{success}
		},
		"with the last AUTH": func(h *wire.Header, p []wire.Payload) []wire.Payload {
			if slices.ContainsFunc(p, func(x wire.Payload) bool { return x.Type() == wire.PayloadTSi }) {
				p = append(p, success)
			}
			return p
		},
	} {
		for _, only := range []bool{false, true} {
			m := newMITM(t, func(a, b *side) {
				by(a, b, ike.AuthEAP, ike.AuthPubkey)
				if only {
					by(a, b, ike.AuthEAP, ike.AuthEAP)
				}
			})
			credentialsFor(t, m.pair)
			m.change = func(from *host, h *wire.Header, p []wire.Payload) []wire.Payload {
				if from == m.b && h.Exchange == wire.ExchangeIKEAuth {
					return change(h, p)
				}
				return p
			}
			m.a.initiate("net")
			m.run(60 * time.Second)
			if len(eventsOf[ike.IKEUp](m.a)) != 0 {
				t.Errorf("%s, only=%v: up", name, only)
			}
			m.a.creds.balanced(t, "a")
		}
	}
}

// CVE-2014-2338: an IKE SA that is not established cannot be rekeyed, nor used.
func TestRekeyOfUnestablished(t *testing.T) {
	for _, stage := range []time.Duration{25 * time.Millisecond, 45 * time.Millisecond, 65 * time.Millisecond} {
		for _, x := range []wire.ExchangeType{wire.ExchangeCreateChildSA, wire.ExchangeInformational} {
			for _, toA := range []bool{false, true} {
				m := newMITM(t, func(a, b *side) { by(a, b, ike.AuthEAP, ike.AuthPubkey) })
				credentialsFor(t, m.pair)
				m.a.initiate("net")
				m.run(stage)
				sa := m.a.e.SAs()[0]
				h := wire.Header{SPIi: sa.SPIi, SPIr: sa.SPIr, Version: wire.IKEv2, Exchange: x, Flags: wire.FlagInitiator}
				to, from := m.b, m.a
				if toA {
					to, from, h.Flags = m.a, m.b, 0
				}
				for i := range uint32(4) {
					h.MessageID = i
					list := []wire.Payload{&wire.SA{Proposals: []wire.Proposal{{Number: 1, Protocol: wire.ProtocolIKE, SPI: []byte("12345678")}}}, &wire.Nonce{Data: make([]byte, 32)}}
					if len(m.keysOf(&wire.Header{SPIi: sa.SPIi, SPIr: sa.SPIr})) == 0 {
						t.Fatal("no keys yet")
					}
					to.e.Datagram(m.now, ike.Datagram{Local: from.sent[0].Remote, Remote: from.sent[0].Local, Data: m.seal(h, list)})
					to.drain()
				}
				if len(eventsOf[ike.IKEUp](to)) != 0 || len(to.plane.sas) != 0 || to.e.Stats().Established != 0 {
					t.Errorf("%v, %v to a=%v: up", stage, x, toA)
				}
			}
		}
	}
}

// RFC 4478: who can only authenticate itself is told when it has to do so again.
func TestRFC4478_AuthLifetime(t *testing.T) {
	for _, tt := range []struct {
		name     string
		reauth   time.Duration
		aaa      time.Duration
		atMost   time.Duration
		announce bool
	}{
		{"none", 0, 0, 0, false},
		{"reauth_time", time.Hour, 0, time.Hour, true},
		{"of the AAA server", time.Hour, 10 * time.Minute, 10 * time.Minute, true},
		{"no storm", 0, time.Second, 30 * time.Second, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := eapPair(t, func(a, b *side) { b.peer.ReauthTime = tt.reauth })
			dump(t, p)
			p.b.creds.lifetime = tt.aaa
			p.a.initiate("net")
			p.run(3 * time.Second)
			p.up()
			last := p.b.messages()[len(p.b.messages())-1]
			if strings.Contains(last, "AUTH_LIFETIME") != tt.announce {
				t.Error(last)
			}
			at := p.a.e.SAs()[0].ReauthAt
			if at.IsZero() == tt.announce || tt.announce && (at.After(p.now.Add(tt.atMost)) || at.Before(p.now.Add(20*time.Second))) {
				t.Errorf("reauthentication at %v", at)
			}
			if !tt.announce {
				return
			}
			p.run(tt.atMost + 10*time.Second)
			p.up()
			if n := len(eventsOf[ike.IKEUp](p.b)); n < 2 {
				t.Errorf("%d IKE SAs came up: not authenticated again", n)
			}
			// A client that does not is closed.
			p.a.do(ike.Reload{})
			p.filter = func(from *host, d ike.Datagram) bool { return header(t, d).Exchange != wire.ExchangeIKESAInit }
			p.run(tt.atMost + 3*time.Minute)
			if n := len(p.b.e.SAs()); n != 0 {
				t.Errorf("%d IKE SAs left with an authentication that is over", n)
			}
		})
	}
	// Whom we can ask to authenticate again is not told.
	p := signed(t, "ed25519", func(a, b *side) { b.peer.ReauthTime = time.Hour })
	p.a.initiate("net")
	p.run(3 * time.Second)
	p.up()
	if m := strings.Join(p.b.messages(), " "); strings.Contains(m, "AUTH_LIFETIME") {
		t.Error(m)
	}
}

// People type: a conversation may take longer than a half-open IKE SA lives, but
// not for ever, and every step has an end.
func TestSlowEAP(t *testing.T) {
	p := eapPair(t, nil)
	dump(t, p)
	p.a.initiate("net")
	p.run(25 * time.Millisecond)
	p.b.hold = false
	p.a.hold = true // the user looks for the password
	p.run(25 * time.Second)
	p.a.release()
	p.run(2 * time.Second)
	p.up()
	p = eapPair(t, nil)
	p.b.hold = true // the RADIUS server does not answer
	p.a.initiate("net")
	p.run(400 * time.Second)
	p.b.release()
	p.run(time.Second)
	p.down()
	p.b.creds.balanced(t, "b")
}

// AUTH_LIFETIME may come later, too; it only ever shortens, and only for who began.
func TestRFC4478_3_LifetimeInInformational(t *testing.T) {
	for _, from := range []string{"b", "a"} {
		m := newMITM(t, func(a, b *side) { a.peer.ReauthTime, b.peer.ReauthTime = 2*time.Hour, 0 })
		m.a.initiate("net")
		m.run(2 * time.Second)
		m.up()
		before := m.a.e.SAs()[0]
		if d := before.ReauthAt.Sub(m.now); d < time.Hour {
			t.Fatalf("reauthentication in %v", d)
		}
		h := wire.Header{SPIi: before.SPIi, SPIr: before.SPIr, Version: wire.IKEv2, Exchange: wire.ExchangeInformational}
		to, sender := m.a, m.b
		if from == "a" {
			to, sender, h.Flags, h.MessageID = m.b, m.a, wire.FlagInitiator, 2
		}
		to.e.Datagram(m.now, ike.Datagram{Local: sender.sent[0].Remote, Remote: sender.sent[0].Local, Data: m.seal(h, []wire.Payload{&wire.Notify{NotifyType: wire.AuthLifetime, Data: []byte{0, 0, 1, 0}}})})
		to.drain()
		at := to.e.SAs()[0].ReauthAt
		if from == "b" && (at.Before(m.now.Add(200*time.Second)) || at.After(m.now.Add(256*time.Second))) || from == "a" && !at.IsZero() {
			t.Errorf("told by %s: %v", from, at.Sub(m.now))
		}
	}
}

// Rekeys do not prolong an authentication.
func TestRekeyKeepsTheAuthenticationsAge(t *testing.T) {
	p := signed(t, "ed25519", func(a, b *side) { a.peer.ReauthTime = time.Hour })
	dump(t, p)
	p.a.initiate("net")
	p.run(2 * time.Second)
	p.up()
	want := p.a.e.SAs()[0].ReauthAt
	for _, h := range []*host{p.a, p.b, p.a} {
		p.run(10 * time.Minute)
		h.do(ike.Rekey{IKE: h.name})
		p.run(10 * time.Second)
		p.up()
		if got := p.a.e.SAs()[0].ReauthAt; !got.Equal(want) {
			t.Errorf("reauthentication at %v, want %v", got, want)
		}
	}
}

// The last IKE_AUTH and its answer, with the certificates, are kept for repetitions
// and no longer.
func TestAuthMessagesAreForgotten(t *testing.T) {
	for _, wait := range []time.Duration{time.Minute, 5 * time.Minute} {
		p := signed(t, "ed25519", nil)
		var last ike.Datagram
		p.filter = func(from *host, d ike.Datagram) bool {
			if from == p.a {
				last = ike.Datagram{Local: d.Remote, Remote: d.Local, Data: slices.Clone(d.Data)}
			}
			return true
		}
		p.a.initiate("net")
		p.run(2 * time.Second)
		p.up()
		p.run(wait)
		n := len(p.b.sent)
		p.b.e.Datagram(p.now, last)
		p.b.drain()
		if answered := len(p.b.sent) > n; answered != (wait < 4*time.Minute) {
			t.Errorf("after %v: answered %v", wait, answered)
		}
		p.a.do(ike.Rekey{Child: "net"})
		p.run(10 * time.Second)
		p.up()
	}
}

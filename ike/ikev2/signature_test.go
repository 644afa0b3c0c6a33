package ikev2_test

import (
	"bytes"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"adit/ike"
	"adit/ike/wire"
)

// by sets the methods of the first rounds: a's own, b's own.
func by(a, b *side, am, bm ike.AuthMethod) {
	a.peer.Local[0].Method, b.peer.Remote[0].Method = am, am
	b.peer.Local[0].Method, a.peer.Remote[0].Method = bm, bm
	a.peer.SendCertReq, b.peer.SendCertReq = true, true
}

// signed makes a pair with keys of a kind on both sides.
func signed(t testing.TB, kind string, tweak func(a, b *side)) *pair {
	p := newPair(t, func(a, b *side) {
		by(a, b, ike.AuthPubkey, ike.AuthPubkey)
		if tweak != nil {
			tweak(a, b)
		}
	})
	introduce(p.a, p.b, "a.example.org", newKey(t, kind))
	introduce(p.b, p.a, "b.example.org", newKey(t, kind))
	return p
}

// messages lists the summaries of what a host sent.
func (h *host) messages() (out []string) {
	for _, m := range eventsOf[ike.Message](h) {
		if m.Out {
			out = append(out, m.Summary)
		}
	}
	return out
}

func TestRFC7427_3_Signatures(t *testing.T) {
	for _, kind := range []string{"ed25519", "ecdsa", "ecdsa384", "rsa"} {
		t.Run(kind, func(t *testing.T) {
			p := signed(t, kind, nil)
			dump(t, p)
			p.a.initiate("net")
			p.run(2 * time.Second)
			p.up()
			for _, h := range []*host{p.a, p.b} {
				q := h.creds.authReqs[0]
				if len(h.creds.authReqs) != 1 || !slices.Equal(q.Hashes, []uint16{2, 3, 4, 5}) {
					t.Errorf("%s: asked to sign: %+v", h.name, q)
				}
				if h.creds.asked["verify"] != 1 {
					t.Errorf("%s verified %d times", h.name, h.creds.asked["verify"])
				}
			}
		})
	}
}

// Without SIGNATURE_HASH_ALGORITHMS of both only the methods of before remain.
func TestRFC7427_4_OldMethodsWithoutHashes(t *testing.T) {
	for _, who := range []string{"a", "b"} {
		p := signed(t, "ecdsa", func(a, b *side) {
			map[string]*side{"a": a, "b": b}[who].config.NoSignatureAuth = true
		})
		dump(t, p)
		p.a.initiate("net")
		p.run(2 * time.Second)
		p.up()
		for _, h := range []*host{p.a, p.b} {
			if h.creds.authReqs[0].Hashes != nil {
				t.Errorf("%s: hashes although %s announces none", h.name, who)
			}
		}
		for _, m := range append(p.b.messages(), p.a.messages()...) {
			if strings.Contains(m, "response") && strings.Contains(m, "SIGNATURE_HASH_ALGORITHMS") {
				t.Errorf("sent unasked: %s", m)
			}
		}
	}
}

// SHA-1 is never offered, and never taken from a peer's list.
func TestRFC7427_4_NoSHA1(t *testing.T) {
	m := newMITM(t, func(a, b *side) { by(a, b, ike.AuthPubkey, ike.AuthPubkey) })
	introduce(m.a, m.b, "a.example.org", newKey(t, "ecdsa"))
	introduce(m.b, m.a, "b.example.org", newKey(t, "ecdsa"))
	m.a.initiate("net")
	m.run(2 * time.Second)
	m.up()
	msg, err := wire.ParseMessage(m.a.sent[0].Data)
	if err != nil {
		t.Fatal(err)
	}
	if n := wire.FindNotify(msg.Payloads, wire.SignatureHashAlgorithms); n == nil || !bytes.Equal(n.Data, []byte{0, 2, 0, 3, 0, 4, 0, 5}) {
		t.Errorf("offered %+v", n)
	}
	n := &wire.Notify{NotifyType: wire.SignatureHashAlgorithms, Data: []byte{0, 1, 0, 2, 0, 2, 0}}
	p := signed(t, "ecdsa", nil)
	p.filter = changeInit(p, func(from *host, list []wire.Payload) []wire.Payload {
		return append(slices.DeleteFunc(list, func(x wire.Payload) bool {
			y, ok := x.(*wire.Notify)
			return ok && y.NotifyType == n.NotifyType
		}), n)
	})
	p.a.initiate("net")
	p.run(50 * time.Millisecond)
	if len(p.a.creds.authReqs) == 0 || !slices.Equal(p.a.creds.authReqs[0].Hashes, []uint16{2}) {
		t.Errorf("%+v", p.a.creds.authReqs)
	}
}

// changeInit lets a test change IKE_SA_INIT on its way, which nothing protects yet.
func changeInit(p *pair, change func(from *host, list []wire.Payload) []wire.Payload) func(*host, ike.Datagram) bool {
	return func(from *host, d ike.Datagram) bool {
		m, err := wire.ParseMessage(d.Data)
		if err != nil || m.Header.Exchange != wire.ExchangeIKESAInit {
			return true
		}
		list := change(from, slices.Clone(m.Payloads))
		p.seq++
		p.queue = append(p.queue, packet{p.now.Add(10 * time.Millisecond), p.seq, p.other(from), ike.Datagram{Local: d.Remote, Remote: d.Local, Data: wire.AppendMessage(nil, m.Header, list)}})
		return false
	}
}

// Downgrade: what is stripped from or added to IKE_SA_INIT is covered by AUTH.
func TestDowngradeStrippedNotifies(t *testing.T) {
	for _, strip := range []wire.NotifyType{wire.SignatureHashAlgorithms, wire.MultipleAuthSupported, wire.FragmentationSupported, wire.ChildlessIKEv2Supported} {
		for _, dir := range []string{"request", "response"} {
			if dir == "request" && (strip == wire.MultipleAuthSupported || strip == wire.ChildlessIKEv2Supported) {
				continue // only responders send them
			}
			t.Run(strip.String()+" of the "+dir, func(t *testing.T) {
				p := signed(t, "ecdsa", nil)
				dump(t, p)
				found := false
				p.filter = changeInit(p, func(from *host, list []wire.Payload) []wire.Payload {
					return slices.DeleteFunc(list, func(x wire.Payload) bool {
						n, ok := x.(*wire.Notify)
						gone := ok && n.NotifyType == strip && (from == p.a) == (dir == "request")
						found = found || gone
						return gone
					})
				})
				p.a.initiate("net")
				p.run(40 * time.Second)
				if !found {
					t.Fatal("was never sent")
				}
				if len(eventsOf[ike.IKEUp](p.a)) != 0 || !slices.Contains(append(p.a.reasons(), p.b.reasons()...), ike.ReasonAuthentication) {
					t.Error("not noticed")
				}
				p.down()
			})
		}
	}
}

// Both know RFC 7427: RSA with SHA-1 (method 1) is a step back that is refused.
func TestDowngradeToSHA1(t *testing.T) {
	p := signed(t, "rsa", nil)
	dump(t, p)
	p.b.creds.change = func(q ike.Question, v any, err error) (any, error) {
		if s, ok := q.(ike.SignAuth); ok {
			s.Hashes = nil
			return p.b.creds.sign(s)
		}
		return v, err
	}
	p.a.initiate("net")
	p.run(40 * time.Second)
	if r := eventsOf[*ike.Rejection](p.a); len(r) != 1 || !strings.Contains(r[0].Difference, "SHA-1") || p.a.creds.asked["verify"] != 0 {
		t.Errorf("%v", r)
	}
	p.down()
	// A peer that does not know RFC 7427 is taken, with a note.
	p = signed(t, "rsa", func(a, b *side) { b.config.NoSignatureAuth = true })
	dump(t, p)
	p.a.initiate("net")
	p.run(2 * time.Second)
	p.up()
	if !slices.ContainsFunc(eventsOf[ike.Note](p.a), func(n ike.Note) bool { return strings.Contains(n.Text, "SHA-1") }) {
		t.Error("no note")
	}
}

// One side by a shared key, the other by a signature.
func TestRFC7296_2_15_MixedMethods(t *testing.T) {
	for _, psk := range []string{"initiator", "responder"} {
		p := newPair(t, func(a, b *side) {
			if psk == "initiator" {
				by(a, b, ike.AuthPSK, ike.AuthPubkey)
			} else {
				by(a, b, ike.AuthPubkey, ike.AuthPSK)
			}
		})
		introduce(p.a, p.b, "a.example.org", newKey(t, "ed25519"))
		introduce(p.b, p.a, "b.example.org", newKey(t, "ed25519"))
		dump(t, p)
		p.a.initiate("net")
		p.run(2 * time.Second)
		p.up()
	}
}

// CERT goes out where the peer asks, and it asks only where certificates serve.
func TestRFC7296_3_7_CertificateRequests(t *testing.T) {
	for _, asks := range []bool{true, false} {
		p := signed(t, "ed25519", func(a, b *side) { a.peer.SendCertReq, b.peer.SendCertReq = asks, asks })
		dump(t, p)
		hash := [20]byte{1, 2, 3}
		p.a.do(ike.Trust{Authorities: [][20]byte{hash, {4}}})
		p.b.do(ike.Trust{Authorities: [][20]byte{hash, hash}})
		p.a.initiate("net")
		p.run(2 * time.Second)
		p.up()
		all := strings.Join(append(p.a.messages(), p.b.messages()...), "\n")
		if strings.Contains(all, "CERTREQ") != asks || strings.Contains(all, " CERT ") != asks {
			t.Errorf("asks=%v: %s", asks, all)
		}
		if q := p.a.creds.authReqs[0]; q.Requested != asks || asks && !bytes.Equal(q.Authorities, hash[:]) {
			t.Errorf("a was told %+v", q)
		}
	}
	// With shared keys nobody asks.
	p := mustUp(t, func(a, b *side) { a.peer.SendCertReq, b.peer.SendCertReq = true, true })
	if all := strings.Join(append(p.a.messages(), p.b.messages()...), "\n"); strings.Contains(all, "CERT") {
		t.Error(all)
	}
}

// A connection that names authorities asks for certificates of those alone.
func TestRFC7296_3_7_NamedAuthorities(t *testing.T) {
	ca := selfSigned(t)
	p := signed(t, "ed25519", func(a, b *side) { a.peer.Remote[0].CACerts = [][]byte{ca.Raw} })
	p.a.do(ike.Trust{Authorities: [][20]byte{{9}}})
	p.a.initiate("net")
	p.run(2 * time.Second)
	p.up()
	want := sha1Sum(ca.RawSubjectPublicKeyInfo)
	if q := p.b.creds.authReqs[0]; !bytes.Equal(q.Authorities, want[:]) {
		t.Errorf("asked for %x, want %x", q.Authorities, want)
	}
}

// variants makes b load several connections; a has one.
func variants(t testing.TB, p *pair, list ...func(*ike.Peer)) {
	var peers []*ike.Peer
	for i, f := range list {
		x := *p.b.peer
		x.Name = "v" + string(rune('1'+i))
		x.Local, x.Remote = slices.Clone(x.Local), slices.Clone(x.Remote)
		f(&x)
		peers = append(peers, &x)
	}
	p.b.do(ike.Reload{Peers: peers})
}

// The responder goes by addresses and identities, then by what the peer showed.
func TestConnectionSwitch(t *testing.T) {
	other := newKey(t, "ed25519")
	wrongKey, _ := x509.MarshalPKIXPublicKey(other.Public())
	for _, tt := range []struct {
		name string
		list []func(*ike.Peer)
		want string // "": refused
	}{
		{"the better identity first", []func(*ike.Peer){func(p *ike.Peer) { p.Remote[0].ID = id("*.example.org") }, func(p *ike.Peer) {}}, "v2"},
		{"key pinned elsewhere", []func(*ike.Peer){func(p *ike.Peer) { p.Remote[0].Pubkeys = [][]byte{wrongKey} }, func(p *ike.Peer) {}}, "v2"},
		{"constraint", []func(*ike.Peer){func(p *ike.Peer) { p.Remote[0].Constraints = []string{"rsa", "4096"} }, func(p *ike.Peer) { p.Remote[0].ID = id("%any") }}, "v2"},
		{"method", []func(*ike.Peer){func(p *ike.Peer) { p.Remote[0].Method = ike.AuthPSK }, func(p *ike.Peer) { p.Remote[0].Method = ike.AuthAny }}, "v2"},
		{"rounds", []func(*ike.Peer){func(p *ike.Peer) { p.Remote = append(p.Remote, ike.AuthRound{Method: ike.AuthPubkey}) }, func(p *ike.Peer) {}}, "v2"},
		{"none", []func(*ike.Peer){func(p *ike.Peer) { p.Remote[0].Pubkeys = [][]byte{wrongKey} }, func(p *ike.Peer) { p.Remote[0].Constraints = []string{"ecdsa"} },
			func(p *ike.Peer) { p.Remote[0].ID = id("c.example.org") }}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := signed(t, "ed25519", nil)
			dump(t, p)
			variants(t, p, tt.list...)
			p.a.initiate("net")
			p.run(40 * time.Second)
			up := eventsOf[ike.IKEUp](p.b)
			if tt.want != "" {
				if len(up) != 1 || up[0].SA.Name != tt.want {
					t.Errorf("up: %+v", up)
				}
				return
			}
			r := eventsOf[*ike.Rejection](p.b)
			if len(up) != 0 || len(r) != 1 || len(r[0].Candidates) != len(tt.list) {
				t.Fatalf("up %v, rejections %v", up, r)
			}
			for _, c := range r[0].Candidates {
				if c.Why == "" {
					t.Errorf("%s: no reason", c.Name)
				}
			}
			p.down()
		})
	}
}

// Libreswan #3035: no switch to a connection whose own proof would be another one
// than was shown.
func TestSwitchDoesNotWeaken(t *testing.T) {
	p := twoRounds(t, ike.AuthPubkey, ike.AuthPubkey, ike.AuthPubkey)
	dump(t, p)
	other, _ := x509.MarshalPKIXPublicKey(newKey(t, "ed25519").Public())
	variants(t, p, func(x *ike.Peer) { x.Remote[1].Pubkeys = [][]byte{other} }, func(x *ike.Peer) { x.Local[0].Method = ike.AuthPSK })
	p.a.initiate("net")
	p.run(60 * time.Second)
	r := eventsOf[*ike.Rejection](p.b)
	if len(eventsOf[ike.IKEUp](p.b)) != 0 || len(r) != 1 || !strings.Contains(r[0].Error(), "shown to the peer") {
		t.Errorf("%v", r)
	}
	p.down()
}

// What goes wrong with a signature looks the same to the peer, and costs the same
// questions, as an identity that nobody knows.
func TestEveryFailureLooksTheSame(t *testing.T) {
	shape := func(tweak func(p *pair, b *side)) (out []string, why string) {
		var tb *side
		p := signed(t, "ed25519", func(a, b *side) { tb = b })
		tweak(p, tb)
		p.b.onEach = func(f ike.Effect) {
			switch f := f.(type) {
			case ike.Ask:
				switch f.Question.(type) {
				case ike.VerifyAuth:
					out = append(out, "verify")
				default:
					out = append(out, "other question")
				}
			case ike.Send:
				out = append(out, "send "+string(rune('0'+len(f.Data)/100))+"xx", string(rune(len(f.Data))))
			}
		}
		p.a.initiate("net")
		p.run(5 * time.Second)
		if len(eventsOf[ike.IKEUp](p.b)) != 0 {
			t.Error("up")
		}
		for _, r := range eventsOf[*ike.Rejection](p.b) {
			why += r.Error()
		}
		for _, r := range eventsOf[*ike.Rejection](p.a) {
			if !r.ByPeer || r.Notify != "AUTHENTICATION_FAILED" {
				t.Errorf("a was told %v", r)
			}
		}
		return out, why
	}
	want, _ := shape(func(_ *pair, b *side) { b.peer.Remote[0].ID = id("somebody.example.org") })
	seen := map[string]bool{}
	for name, tweak := range map[string]func(p *pair, b *side){
		"key": func(p *pair, b *side) { p.b.creds.trusted = nil },
		"revoked": func(p *pair, b *side) {
			p.b.creds.change = spoil(nil, &ike.Rejection{Difference: "the certificate is revoked"})
		},
		"no answer":    func(p *pair, b *side) { p.b.creds.change = spoil(nil, errors.New("no answer in time")) },
		"short":        func(p *pair, b *side) { p.b.creds.change = spoil(&ike.Verdict{}, nil) },
		"pinned":       func(p *pair, b *side) { b.peer.Remote[0].Pubkeys = [][]byte{{1}} },
		"wrong method": func(p *pair, b *side) { b.peer.Remote[0].Method = ike.AuthPSK },
	} {
		got, why := shape(tweak)
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, unknown identity %q", name, got, want)
		}
		if seen[why] || why == "" {
			t.Errorf("%s: the local reason is no other than for something else: %q", name, why)
		}
		seen[why] = true
	}
}

func spoil(v any, err error) func(ike.Question, any, error) (any, error) {
	return func(q ike.Question, was any, e error) (any, error) {
		if _, ok := q.(ike.VerifyAuth); ok {
			return v, err
		}
		return was, e
	}
}

// A verdict that is not about the connections asked for, or about nothing, is none.
func TestInitiatorFailures(t *testing.T) {
	for name, tweak := range map[string]func(p *pair, a *side){
		"no key":   func(p *pair, a *side) { p.a.creds.own = nil },
		"trust":    func(p *pair, a *side) { p.a.creds.trusted = nil },
		"pinned":   func(p *pair, a *side) { a.peer.Remote[0].Pubkeys = [][]byte{{1}} },
		"method":   func(p *pair, a *side) { a.peer.Remote[0].Method = ike.AuthPSK },
		"eap":      func(p *pair, a *side) { a.peer.Remote[0].Method = ike.AuthEAP },
		"identity": func(p *pair, a *side) { a.peer.Remote[0].ID = id("*.example.net") },
		"rounds":   func(p *pair, a *side) { a.peer.Remote = append(a.peer.Remote, ike.AuthRound{Method: ike.AuthPubkey}) },
	} {
		t.Run(name, func(t *testing.T) {
			var ta *side
			p := signed(t, "ed25519", func(a, b *side) { ta = a })
			dump(t, p)
			tweak(p, ta)
			p.a.initiate("net")
			p.run(60 * time.Second)
			if len(eventsOf[ike.IKEUp](p.a)) != 0 || len(p.a.plane.sas) != 0 {
				t.Error("up")
			}
			if r := eventsOf[*ike.Rejection](p.a); len(r) != 1 || r[0].ByPeer {
				t.Errorf("%v", r)
			}
			p.run(200 * time.Second)
			p.down()
		})
	}
}

// CERT payloads are bounded; kinds that nobody announced are left out.
func TestTooManyCertificates(t *testing.T) {
	for _, n := range []int{20, 21} {
		m := newMITM(t, func(a, b *side) { by(a, b, ike.AuthPubkey, ike.AuthPubkey) })
		dump(t, m.pair)
		introduce(m.a, m.b, "a.example.org", newKey(t, "ed25519"))
		introduce(m.b, m.a, "b.example.org", newKey(t, "ed25519"))
		got := -1
		m.b.creds.change = func(q ike.Question, v any, err error) (any, error) {
			if q, ok := q.(ike.VerifyAuth); ok {
				got = len(q.Certs)
			}
			return v, err
		}
		m.change = func(from *host, h *wire.Header, p []wire.Payload) []wire.Payload {
			if from == m.a && h.Exchange == wire.ExchangeIKEAuth {
				for range n {
					p = append(p, &wire.Cert{Encoding: wire.CertX509Signature, Data: []byte{0x30, 0}})
				}
				p = append(p, &wire.Cert{Encoding: wire.CertHashURLX509, Data: []byte("http://127.0.0.1/")}, &wire.Cert{Encoding: 200})
			}
			return p
		}
		m.a.initiate("net")
		m.run(3 * time.Second)
		if up := len(eventsOf[ike.IKEUp](m.b)) == 1; up != (n == 20) || up && got != n {
			t.Errorf("%d certificates: up %v, handed on %d", n, up, got)
		}
	}
}

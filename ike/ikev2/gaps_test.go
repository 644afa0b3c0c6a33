package ikev2_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"adit/ike"
	"adit/ike/wire"
)

// Without eap_id the user inside EAP is the one that remote.id is about: nobody comes
// in as somebody else by a password of its own.
func TestUserOfAnotherName(t *testing.T) {
	for _, tt := range []struct {
		name, remote string
		ask          bool
		up           bool
	}{
		{"the identity of IKE itself", "a.example.org", false, false},
		{"a pattern that the user does not fit", "*.example.org", false, false},
		{"anybody", "%any", false, true},
		{"asked for", "a.example.org", true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := eapPair(t, func(a, b *side) {
				a.peer.Local[0].EAPID = id("alice") // by MSCHAPv2, as a.example.org in IDi
				b.peer.Remote[0].ID, b.peer.Remote[0].EAPAsk = id(tt.remote), tt.ask
			})
			dump(t, p)
			p.a.initiate("net")
			p.run(60 * time.Second)
			up := eventsOf[ike.IKEUp](p.b)
			if tt.up {
				if len(up) != 1 || up[0].SA.RemoteEAPID != "alice" {
					t.Errorf("up %v, %v", up, p.b.reasons())
				}
				return
			}
			r := eventsOf[*ike.Rejection](p.b)
			if len(up) != 0 || len(r) != 1 || !strings.Contains(r[0].Error(), "alice is not") {
				t.Errorf("up %v, rejections %v", up, r)
			}
			p.run(200 * time.Second)
			p.down()
			for _, h := range []*host{p.a, p.b} {
				h.creds.balanced(t, h.name)
			}
		})
	}
}

// RFC 7296 §2.16: at least ten exchanges of IKE_AUTH are possible, and there is an end.
func TestRFC7296_2_16_LongConversations(t *testing.T) {
	for rounds, good := range map[int]bool{12: true, 60: true, 1000: false} {
		p := eapPair(t, nil)
		n := 0
		p.b.creds.change = func(q ike.Question, v any, err error) (any, error) {
			if _, ok := q.(ike.EAPRound); !ok {
				return v, err
			}
			if n++; n <= rounds {
				return &ike.EAPAnswer{Message: []byte{1, byte(n), 0, 6, 4, 0}}, nil
			}
			return &ike.EAPAnswer{Done: true, Success: true, MSK: make([]byte, 64), Identity: "a.example.org", Mutual: true}, nil
		}
		p.a.creds.change = func(q ike.Question, v any, err error) (any, error) {
			x, ok := q.(ike.EAPRound)
			switch {
			case !ok:
				return v, err
			case x.Message[0] == 3:
				return &ike.EAPAnswer{Done: true, Success: true, MSK: make([]byte, 64), Mutual: true}, nil
			}
			return &ike.EAPAnswer{Message: []byte{2, x.Message[1], 0, 6, 4, 0}}, nil
		}
		p.a.initiate("net")
		p.run(100 * time.Second)
		if good {
			p.up()
			continue
		}
		if len(eventsOf[ike.IKEUp](p.a))+len(eventsOf[ike.IKEUp](p.b)) != 0 || n > 200 {
			t.Errorf("%d rounds: up, or %d packets were taken", rounds, n)
		}
		if r := eventsOf[*ike.Rejection](p.b); len(r) != 1 || !strings.Contains(r[0].Error(), "too many exchanges") {
			t.Errorf("%v", r)
		}
		p.run(200 * time.Second)
		p.down()
	}
}

// A wrong password and a user whom nobody knows get the same messages of the same
// length, and the log of the gateway alone tells them apart.
func TestPasswordOfNobody(t *testing.T) {
	shape := func(tweak func(p *pair)) (sizes []int, why string) {
		p := eapPair(t, nil)
		tweak(p)
		p.a.initiate("net")
		p.run(30 * time.Second)
		for _, d := range p.b.sent {
			sizes = append(sizes, len(d.Data))
		}
		if len(eventsOf[ike.IKEUp](p.b)) != 0 {
			t.Error("up")
		}
		for _, r := range eventsOf[*ike.Rejection](p.b) {
			why += r.Error()
		}
		return sizes, why
	}
	wrong, why1 := shape(func(p *pair) { p.a.creds.passwords["a.example.org"] = "guess" })
	unknown, why2 := shape(func(p *pair) { delete(p.b.creds.passwords, "a.example.org") })
	if !slices.Equal(wrong, unknown) || len(wrong) < 4 {
		t.Errorf("wrong password: %v, unknown user: %v", wrong, unknown)
	}
	if why1 == "" || why1 == why2 {
		t.Errorf("the log has %q for both", why1)
	}
}

// Fragments of one byte make a message as others do, up to as many as are taken; and
// without the first one nothing is taken.
func TestFragmentsOfOneByte(t *testing.T) {
	for _, c := range []struct {
		bytes   int // of the payload, 4 of them its header
		without int
		answers int
		held    bool
	}{{64, -1, 1, false}, {64, 0, 0, true}, {64, 63, 0, true}, {65, -1, 0, false}} {
		m := fragmentPair(t, false, nil)
		m.a.initiate("net")
		m.run(time.Second)
		list := m.pieces(m.request(wire.ExchangeInformational, 2), filler(c.bytes-4), 1)
		if len(list) != c.bytes {
			t.Fatalf("%d fragments", len(list))
		}
		if c.without >= 0 {
			list = slices.Delete(list, c.without, c.without+1)
		}
		if got := m.deliver(list...); len(got) != c.answers {
			t.Errorf("%+v: %d answers", c, len(got))
		}
		if held := m.b.e.Stats().FragmentBytes; held > 0 != c.held || held > 20_000 {
			t.Errorf("%+v: %d bytes are held", c, held)
		}
		m.run(31 * time.Second)
		if s := m.b.e.Stats(); s.FragmentBytes != 0 || s.Bugs != 0 || len(m.b.e.SAs()) != 1 {
			t.Errorf("%+v: afterwards %+v", c, s)
		}
	}
}

// RFC 7296 §2.10: our nonces have at least half the key of every PRF, and differ. A
// peer's have 16 to 256 bytes.
func TestRFC7296_2_10_Nonces(t *testing.T) {
	nonce := func(data []byte) *wire.Nonce {
		msg, err := wire.ParseMessage(data)
		if err != nil {
			t.Fatal(err)
		}
		n, ok := wire.First[*wire.Nonce](msg.Payloads)
		if !ok {
			t.Fatal("no nonce")
		}
		return n
	}
	seen := map[string]bool{}
	for range 2 {
		p := mustUp(t, nil)
		for _, h := range []*host{p.a, p.b} {
			n := nonce(h.sent[0].Data)
			if len(n.Data) < 64/2 || seen[string(n.Data)] {
				t.Errorf("nonce of %d bytes, or seen before", len(n.Data))
			}
			seen[string(n.Data)] = true
		}
	}
	p := newPair(t, nil)
	p.a.initiate("net")
	p.run(time.Millisecond)
	msg, err := wire.ParseMessage(p.a.sent[0].Data)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{15, 16, 256, 257, 0} {
		p.queue = nil // only what is sent here
		for i, x := range msg.Payloads {
			if x.Type() == wire.PayloadNonce {
				msg.Payloads[i] = &wire.Unknown{PayloadType: wire.PayloadNonce, Body: make([]byte, n)}
			}
		}
		h := msg.Header
		h.SPIi++
		data := wire.AppendMessage(nil, h, msg.Payloads)
		before := len(p.b.sent)
		p.b.e.Datagram(p.now, ike.Datagram{Local: p.a.sent[0].Remote, Remote: p.a.sent[0].Local, Data: data})
		p.b.drain()
		p.run(50 * time.Millisecond)
		answered := false
		for _, d := range p.b.sent[before:] {
			if m, err := wire.ParseMessage(d.Data); err == nil {
				_, ok := wire.First[*wire.KE](m.Payloads)
				answered = answered || ok
			}
		}
		if answered != (n >= 16 && n <= 256) {
			t.Errorf("a nonce of %d bytes: taken %v", n, answered)
		}
		msg.Header.SPIi++
	}
}

// RFC 7296 §2.19: CP goes before SA, in the message of SA, and CFG_REPLY only to who
// asked. §2.20: no version is told, whoever asks for it.
func TestRFC7296_2_19_PlaceOfCP(t *testing.T) {
	for _, asks := range []bool{true, false} {
		m := roadPair(t, list(any4), list(vip4), func(a, b *side) {
			if !asks {
				b.peer.Pools = nil
			}
		})
		asked, answered := 0, 0
		m.change = func(from *host, h *wire.Header, p []wire.Payload) []wire.Payload {
			cp := slices.IndexFunc(p, func(x wire.Payload) bool { return x.Type() == wire.PayloadCP })
			sa := slices.IndexFunc(p, func(x wire.Payload) bool { return x.Type() == wire.PayloadSA })
			switch {
			case cp < 0:
				return p
			case from == m.b:
				answered++
				for _, a := range p[cp].(*wire.CP).Attributes {
					if a.Type == wire.ApplicationVersion {
						t.Errorf("our version is told: %q", a.Value)
					}
				}
			case asks:
				asked++
				q := p[cp].(*wire.CP)
				q.Attributes = append(q.Attributes, wire.Attribute{Type: wire.ApplicationVersion})
			default:
				return slices.Delete(p, cp, cp+1)
			}
			if sa < cp {
				t.Errorf("SA at %d, CP at %d", sa, cp)
			}
			return p
		}
		m.a.initiate("net")
		m.run(time.Second)
		if want := map[bool]int{true: 1}[asks]; asked != want || answered != want {
			t.Errorf("asks %v: %d CFG_REQUEST, %d CFG_REPLY", asks, asked, answered)
		}
	}
}

// `auth = any` with something demanded of a certificate or key: a shared key does not
// fulfil it, at either side, nor does EAP alone (RFC 5998).
func TestSharedKeyFulfilsNoCertificateConstraint(t *testing.T) {
	demands := map[string]func(r *ike.AuthRound){
		"none":        func(*ike.AuthRound) {},
		"cacerts":     func(r *ike.AuthRound) { r.CACerts = [][]byte{selfSigned(t).Raw} },
		"certs":       func(r *ike.AuthRound) { r.Certs = [][]byte{selfSigned(t).Raw} },
		"pubkeys":     func(r *ike.AuthRound) { r.Pubkeys = [][]byte{{1}} },
		"cert_policy": func(r *ike.AuthRound) { r.CertPolicies = []string{"1.2.3"} },
		"auth":        func(r *ike.AuthRound) { r.Constraints = []string{"rsa", "4096"} },
	}
	for name, demand := range demands {
		for _, of := range []string{"the initiator", "the responder", "EAP alone"} {
			p := newPair(t, func(a, b *side) {
				by(a, b, ike.AuthPSK, ike.AuthPSK)
				r := &b.peer.Remote[0]
				switch of {
				case "the responder":
					r = &a.peer.Remote[0]
				case "EAP alone":
					by(a, b, ike.AuthEAP, ike.AuthEAP)
					r = &a.peer.Remote[0]
				}
				r.Method = ike.AuthAny
				demand(r)
			})
			credentialsFor(t, p)
			p.a.initiate("net")
			p.run(60 * time.Second)
			side := p.a
			if of == "the initiator" {
				side = p.b
			}
			if up := len(eventsOf[ike.IKEUp](side)) == 1; up != (name == "none") {
				t.Errorf("%s of %s: up %v, %v", name, of, up, side.reasons())
			}
		}
	}
}

package ikev2_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/suite/sig"
)

// announced is what a host was told when it had to sign.
func announced(h *host) []ike.AuthAnnouncement {
	if len(h.creds.authReqs) == 0 {
		return nil
	}
	return h.creds.authReqs[0].Announced
}

// A responder that restricts signatures says so; the initiator does, too, then.
func TestRFC9593_3_AnnouncedMethods(t *testing.T) {
	for _, tt := range []struct {
		a, b         []string
		toldA, toldB []string // schemes
	}{
		{nil, nil, nil, nil},
		{nil, []string{"ecdsa", "sha256"}, []string{"ECDSA_WITH_SHA256_DER"}, nil},
		{[]string{"ecdsa", "sha256"}, nil, nil, nil}, // nobody asked
		{[]string{"ecdsa", "sha512", "sha384"}, []string{"ecdsa", "sha256", "sha384"}, []string{"ECDSA_WITH_SHA256_DER", "ECDSA_WITH_SHA384_DER"}, []string{"ECDSA_WITH_SHA384_DER", "ECDSA_WITH_SHA512_DER"}},
	} {
		p := signed(t, "ecdsa", func(a, b *side) {
			a.peer.Remote[0].Constraints, b.peer.Remote[0].Constraints = tt.a, tt.b
		})
		dump(t, p)
		p.a.initiate("net")
		p.run(2 * time.Second)
		p.up()
		for _, x := range []struct {
			h    *host
			want []string
		}{{p.a, tt.toldA}, {p.b, tt.toldB}} {
			var got []string
			for _, a := range announced(x.h) {
				if a.Method != wire.AuthDigitalSignature {
					continue
				}
				s, err := sig.ParseAlgorithm(a.Algorithm)
				if err != nil || a.CertLink != 0 {
					t.Errorf("%+v: %v", a, err)
				}
				got = append(got, s.String())
			}
			if !slices.Equal(got, x.want) {
				t.Errorf("%v %v: %s was told %q, want %q", tt.a, tt.b, x.h.name, got, x.want)
			}
		}
	}
}

// What is malformed, or empty, announces nothing.
func TestRFC9593_3_2_HostileAnnouncements(t *testing.T) {
	for _, data := range [][]byte{{}, {0}, {1}, {2}, {3, 14}, {5, 14, 0, 1}, {2, 14, 200}, bytes.Repeat([]byte{2, 2}, 65)} {
		p := signed(t, "ecdsa", nil)
		p.filter = changeInit(p, func(from *host, list []wire.Payload) []wire.Payload {
			return append(list, &wire.Notify{NotifyType: wire.SupportedAuthMethods, Data: data})
		})
		p.a.initiate("net")
		p.run(50 * time.Millisecond)
		if len(p.a.creds.authReqs) != 1 || announced(p.a) != nil {
			t.Errorf("%x: %v", data, announced(p.a))
		}
	}
}

// An initiator that refuses the responder says so, and the half-open IKE SA goes at once.
func TestRFC7296_2_21_2_RefusedResponder(t *testing.T) {
	p := eapPair(t, nil)
	dump(t, p)
	p.a.creds.trusted = nil
	p.a.initiate("net")
	p.run(time.Second)
	p.down()
	r := eventsOf[*ike.Rejection](p.b)
	if len(r) != 1 || !r[0].ByPeer || r[0].Notify != "AUTHENTICATION_FAILED" {
		t.Errorf("%v", r)
	}
	p.b.creds.balanced(t, "b")
}

// The key of EAP is what AUTH is checked with, on both sides.
func TestRFC7296_2_16_AUTHByTheKeyOfEAP(t *testing.T) {
	for _, way := range []struct {
		b    ike.AuthMethod
		from string
	}{{ike.AuthPubkey, "a"}, {ike.AuthPubkey, "b"}, {ike.AuthEAP, "a"}, {ike.AuthEAP, "b"}} {
		for _, wrong := range []string{"bit", "empty", "key", "method", "no AUTH", "EAP beside"} {
			m := newMITM(t, func(a, b *side) { by(a, b, ike.AuthEAP, way.b) })
			credentialsFor(t, m.pair)
			h := m.a
			if way.from == "b" {
				h = m.b
			}
			if wrong == "key" { // the method gives another one than the peer's
				h.creds.change = func(q ike.Question, v any, err error) (any, error) {
					if a, ok := v.(*ike.EAPAnswer); ok && a.Success {
						a.MSK[0] ^= 1
					}
					return v, err
				}
			}
			m.change = func(from *host, hd *wire.Header, p []wire.Payload) []wire.Payload {
				i := slices.IndexFunc(p, func(x wire.Payload) bool { return x.Type() == wire.PayloadAUTH })
				if from != h || i < 0 || hd.MessageID < 2 {
					return p
				}
				a := p[i].(*wire.Auth)
				switch wrong {
				case "bit":
					a.Data[5] ^= 8
				case "empty":
					a.Data = nil
				case "method":
					a.Method = wire.AuthNull
				case "no AUTH":
					return append(slices.Delete(p, i, i+1), &wire.Notify{NotifyType: 40000})
				case "EAP beside":
					return append(p, &wire.EAP{Raw: []byte{1, 1, 0, 5, 1}})
				}
				return p
			}
			m.a.initiate("net")
			m.run(60 * time.Second)
			if len(eventsOf[ike.IKEUp](m.a)) != 0 || way.from == "a" && len(eventsOf[ike.IKEUp](m.b)) != 0 {
				t.Errorf("b by %v, %s of %s: up", way.b, wrong, way.from)
			}
			m.a.creds.balanced(t, "a")
			m.b.creds.balanced(t, "b")
		}
	}
}

// Whatever comes from the method outside, the engine stays sane.
func TestHostileAnswersOfEAP(t *testing.T) {
	for name, answer := range map[string]*ike.EAPAnswer{
		"nothing":         nil,
		"no packet":       {},
		"short packet":    {Message: []byte{1, 2, 0}},
		"wrong length":    {Message: []byte{1, 2, 0, 9, 1}},
		"giant":           {Message: append([]byte{1, 2, 0xff, 0xff}, make([]byte, 0xffff-4)...)},
		"success at once": {Message: []byte{3, 1, 0, 4}, Done: true, Success: true, Identity: strings.Repeat("x", 5000)},
		"failure":         {Message: []byte{4, 1, 0, 4}, Done: true},
	} {
		for _, who := range []string{"a", "b"} {
			p := eapPair(t, nil)
			h := map[string]*host{"a": p.a, "b": p.b}[who]
			h.creds.change = func(q ike.Question, v any, err error) (any, error) {
				if _, ok := q.(ike.EAPRound); ok {
					return answer, nil
				}
				return v, err
			}
			p.a.initiate("net")
			p.run(60 * time.Second)
			if len(eventsOf[ike.IKEUp](p.a))+len(eventsOf[ike.IKEUp](p.b)) != 0 {
				t.Errorf("%s at %s: up", name, who)
			}
			p.run(200 * time.Second)
			p.down()
			p.a.creds.balanced(t, "a")
			p.b.creds.balanced(t, "b")
		}
	}
}

// A user is known by the identity inside EAP: the same IDi of many clients is no
// reason to end the IKE SA of another one.
func TestUniqueByEAPIdentity(t *testing.T) {
	for _, same := range []bool{true, false} {
		p := eapPair(t, func(a, b *side) {
			b.peer.Remote[0].EAPAsk = true
			b.peer.Unique = ike.UniqueReplace
			a.peer.Local[0].EAPID = id("alice")
		})
		p.a.creds.passwords["bob"], p.b.creds.passwords["bob"] = "b", "b"
		p.a.initiate("net")
		p.run(2 * time.Second)
		second := *p.a.peer
		second.Name, second.Unique = "second", ike.UniqueNever
		second.Local = slices.Clone(second.Local)
		if !same {
			second.Local[0].EAPID = id("bob")
		}
		p.a.do(ike.Initiate{Peer: &second})
		p.run(2 * time.Second)
		want := 2
		if same {
			want = 1
		}
		if got := len(p.b.e.SAs()); got != want {
			t.Errorf("same user %v: %d IKE SAs, want %d: %v", same, got, want, p.b.trace())
		}
	}
}

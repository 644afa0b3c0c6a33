package ikev2_test

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"adit/ike"
	"adit/ike/wire"
)

func transcriptPair(t testing.TB, a, b bool, signatures bool, proposals string) *pair {
	tweak := func(sa, sb *side) {
		with(proposals, "")(sa, sb)
		sa.config.FullTranscript, sb.config.FullTranscript = a, b
	}
	if signatures {
		return signed(t, "ed25519", tweak)
	}
	return newPair(t, tweak)
}

// draft-ietf-ipsecme-ikev2-downgrade-prevention: with both sides AUTH covers both
// messages, with one of them nothing changes.
func TestFullTranscript(t *testing.T) {
	for _, signatures := range []bool{false, true} {
		for _, proposals := range []string{"aes128-sha256-x25519", hybrid} {
			for _, c := range [][2]bool{{true, true}, {true, false}, {false, true}, {false, false}} {
				p := transcriptPair(t, c[0], c[1], signatures, proposals)
				p.a.initiate("net")
				p.run(2 * time.Second)
				p.up()
				for i, h := range []*host{p.a, p.b} {
					if got := bytes.Contains(h.sent[0].Data, []byte{0, 0, 0x40, 0x3f}); got != c[i] {
						t.Errorf("%s announces it: %v", h.name, got)
					}
				}
				if !signatures {
					continue
				}
				// What a signs begins with zeros, b's message and a's own.
				octets := p.a.creds.authReqs[0].Octets
				whole := slices.Concat(make([]byte, 8), p.b.sent[0].Data, p.a.sent[0].Data)
				if got := bytes.HasPrefix(octets, whole); got != (c[0] && c[1]) {
					t.Errorf("%v: the full transcript is signed: %v", c, got)
				}
			}
		}
	}
}

// Attacks by who can break the classic exchange and read, but not forge a signature: he
// changes one message of IKE_SA_INIT and what the two sides see of it.
func TestFullTranscript_Downgrades(t *testing.T) {
	const both = hybrid + "," + "aes256gcm16-prfsha384-x25519"
	for name, c := range map[string]struct {
		ppk    bool
		change func(from *host, p *pair, b []byte)
	}{
		"the notify of the request":     {false, func(from *host, p *pair, b []byte) { onlyIn(from == p.a, t, b, wire.IKESAInitFullTranscriptAuth) }},
		"the notify of the response":    {false, func(from *host, p *pair, b []byte) { onlyIn(from == p.b, t, b, wire.IKESAInitFullTranscriptAuth) }},
		"IKE_INTERMEDIATE of request":   {false, func(from *host, p *pair, b []byte) { onlyIn(from == p.a, t, b, wire.IntermediateExchangeSupported) }},
		"USE_PPK of the request":        {true, func(from *host, p *pair, b []byte) { onlyIn(from == p.a, t, b, wire.UsePPK) }},
		"USE_PPK of the response":       {true, func(from *host, p *pair, b []byte) { onlyIn(from == p.b, t, b, wire.UsePPK) }},
		"fragmentation of the response": {false, func(from *host, p *pair, b []byte) { onlyIn(from == p.b, t, b, wire.FragmentationSupported) }},
		"signatures of the request":     {false, func(from *host, p *pair, b []byte) { onlyIn(from == p.a, t, b, wire.SignatureHashAlgorithms) }},
	} {
		for _, signatures := range []bool{false, true} {
			if signatures && name == "signatures of the request" {
				continue // without it there is no Ed25519 to sign with
			}
			p := transcriptPair(t, true, true, signatures, both)
			if c.ppk {
				p = ppkPair(t, signatures, "aes128-sha256-x25519", ppkEnd{"carol", false, ike.PPKIntermediateOff, map[string]string{"carol": "k"}}, ppkEnd{"", false, ike.PPKIntermediateOff, map[string]string{"carol": "k"}})
				for _, h := range []*host{p.a, p.b} {
					h.e.Retune(ike.Config{FullTranscript: true})
				}
			}
			p.filter = func(from *host, d ike.Datagram) bool {
				if header(t, d).Exchange != wire.ExchangeIKESAInit {
					return true
				}
				b := bytes.Clone(d.Data) // not what the sender keeps
				c.change(from, p, b)
				p.seq++
				p.queue = append(p.queue, packet{p.now.Add(10 * time.Millisecond), p.seq, p.other(from), ike.Datagram{Local: d.Remote, Remote: d.Local, Data: b}})
				return false
			}
			p.a.initiate("net")
			p.run(5 * time.Second)
			if !slices.Contains(append(p.a.reasons(), p.b.reasons()...), ike.ReasonAuthentication) || len(eventsOf[ike.IKEUp](p.a))+len(eventsOf[ike.IKEUp](p.b)) != 0 {
				t.Errorf("%s (signatures %v): not caught\n%v\n%v", name, signatures, p.a.trace(), p.b.trace())
			}
			p.run(3 * time.Minute)
			p.down()
		}
	}
}

// onlyIn strips a notify of one side's message.
func onlyIn(this bool, t testing.TB, b []byte, n wire.NotifyType) {
	if this {
		strip(t, b, n)
	}
}

package ikev1_test

import (
	"slices"
	"testing"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/suite"
)

// TestAggressiveRefused: with a shared key it is answered only where the switch is set,
// and never where the connection doesn't ask for it; a wrong key is found by the initiator.
func TestAggressiveRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		tweak  func(a, b *side)
		key    string
		reason ike.Reason
	}{
		{"no switch", func(a, b *side) { b.config.AggressivePSK = false }, "", ike.ReasonProposal},
		{"not configured", func(a, b *side) { b.peer.Aggressive = false }, "", ike.ReasonProposal},
		{"unknown identity", func(a, b *side) { b.peer.Remote[0].ID = id("c.example.org") }, "", ike.ReasonProposal},
		{"wrong key", func(a, b *side) {}, "another", ike.ReasonAuthentication},
	} {
		p := newPair(t, func(a, b *side) {
			a.peer.Aggressive, b.peer.Aggressive, b.config.AggressivePSK = true, true, true
			c.tweak(a, b)
		})
		if c.key != "" {
			p.b.psk = suite.Key(c.key)
		}
		p.a.initiate("net")
		p.run(3 * time.Second)
		if !slices.Contains(p.a.reasons(), c.reason) && !slices.Contains(p.a.reasons(), ike.ReasonAuthentication) {
			t.Errorf("%s: %v", c.name, p.a.trace())
		}
		p.run(2 * time.Minute)
		p.down()
	}
}

// TestLastMessageOfAggressiveModeLost: nobody answers message 3, so it is repeated until
// something authentic comes, and no longer.
func TestLastMessageOfAggressiveModeLost(t *testing.T) {
	for _, child := range []string{"net", ""} {
		p := newPair(t, func(a, b *side) {
			a.peer.Aggressive, b.peer.Aggressive, b.config.AggressivePSK = true, true, true
		})
		n := 0
		p.filter = func(from *host, d ike.Datagram) bool {
			h, err := wire.ParseHeader(d.Data)
			if err != nil || from != p.a || h.Exchange != wire.ExchangeV1Aggressive || h.Flags&wire.FlagV1Encryption == 0 {
				return true
			}
			n++
			return n > 1
		}
		p.a.initiate(child)
		p.run(4 * time.Minute)
		for _, h := range []*host{p.a, p.b} {
			if sas := h.e.SAs(); len(sas) != 1 || sas[0].State != "ESTABLISHED" || len(sas[0].Children) != len(child)/3 {
				t.Errorf("child %q: %s has %+v", child, h.name, sas)
			}
		}
		if want := map[string]int{"net": 2, "": 6}[child]; n != want {
			t.Errorf("child %q: message 3 was sent %d times, want %d", child, n, want)
		}
	}
}

package ikev2_test

import (
	"testing"
	"time"

	"adit/ike"
	"adit/ike/ikev2"
	"adit/ike/wire"
)

// The table below is written from RFC 7296 and not from the code: which messages
// are taken in which phase. Everything else must be refused.
func TestRulesCoverEveryStateExchangeAndDirection(t *testing.T) {
	type key struct {
		phase    string
		exchange wire.ExchangeType
		response bool
	}
	taken := map[key]bool{
		{"initSent", wire.ExchangeIKESAInit, true}:               true, // §1.2
		{"initReceived", wire.ExchangeIKESAInit, false}:          true, // §2.1, repeated
		{"initSent", wire.ExchangeIKESessionResume, true}:        true, // RFC 5723 §4.3
		{"initReceived", wire.ExchangeIKESessionResume, false}:   true, // repeated
		{"intermediateSent", wire.ExchangeIKEIntermediate, true}: true, // RFC 9242 §3.2
		{"initReceived", wire.ExchangeIKEIntermediate, false}:    true,
		{"initReceived", wire.ExchangeIKEAuth, false}:            true, // §1.2
		{"authReceived", wire.ExchangeIKEAuth, false}:            true, // §2.16, RFC 4739
		{"authReceived", wire.ExchangeInformational, false}:      true, // §2.21.2
		{"authSent", wire.ExchangeIKEAuth, true}:                 true,
		{"established", wire.ExchangeCreateChildSA, false}:       true, // §1.3
		{"established", wire.ExchangeCreateChildSA, true}:        true,
		{"established", wire.ExchangeInformational, false}:       true, // §1.4
		{"established", wire.ExchangeInformational, true}:        true,
		{"established", wire.ExchangeIKEFollowupKE, false}:       true, // RFC 9370 §2.2.4
		{"established", wire.ExchangeIKEFollowupKE, true}:        true,
		{"closing", wire.ExchangeIKEFollowupKE, false}:           true,
		{"closing", wire.ExchangeCreateChildSA, false}:           true, // §2.25
		{"closing", wire.ExchangeInformational, false}:           true,
		{"closing", wire.ExchangeInformational, true}:            true,
	}
	n := 0
	for i, phase := range ikev2.Phases() {
		for x := range 256 {
			for _, response := range []bool{false, true} {
				k := key{phase, wire.ExchangeType(x), response}
				if got := ikev2.RuleFor(i, k.exchange, response); got != taken[k] {
					t.Errorf("%+v: taken %v, want %v", k, got, taken[k])
				} else if got {
					n++
				}
			}
		}
	}
	if n != len(taken) || n != ikev2.RuleCount() {
		t.Errorf("%d rules found, %d wanted, %d in the table", n, len(taken), ikev2.RuleCount())
	}
}

// captured is IKEv2 with a look at the IKE SAs that it makes.
func captured(into *[]ike.SA) ike.Version {
	v := ikev2.Version
	accept, initiate := v.Accept, v.Initiate
	v.Accept = func(env *ike.Env, now time.Time, d ike.Datagram, h wire.Header) ike.SA {
		s := accept(env, now, d, h)
		if s != nil {
			*into = append(*into, s)
		}
		return s
	}
	v.Initiate = func(env *ike.Env, now time.Time, r ike.InitiateRequest) ike.SA {
		s := initiate(env, now, r)
		*into = append(*into, s)
		return s
	}
	return v
}

func TestRFC7296_2_2_MessageIDsNeverWrap(t *testing.T) {
	var ta, tb *side
	p := newPair(t, func(a, b *side) { ta, tb = a, b })
	dump(t, p)
	var sa, sb []ike.SA
	p.a.e, p.b.e = ike.New(*ta.config, captured(&sa)), ike.New(*tb.config, captured(&sb))
	p.a.initiate("net")
	p.run(2 * time.Second)
	p.up()
	if !ikev2.SetupKeysSpent(sa[0]) || !ikev2.SetupKeysSpent(sb[0]) {
		t.Error("keys of the set-up are left in an established IKE SA")
	}
	ikev2.SkipMessageIDs(sa[0], ikev2.LimitMessageID-1, 0)
	ikev2.SkipMessageIDs(sb[0], 0, ikev2.LimitMessageID-1)
	p.a.do(ike.Rekey{Child: "net"})
	p.run(100 * time.Second)
	p.up()
	if p.a.e.Stats().RekeysIKE != 1 || p.b.e.Stats().RekeysIKE != 1 {
		t.Error("the IKE SA was not rekeyed before its message IDs ended")
	}
	if !ikev2.KeysSpent(sa[0]) || !ikev2.KeysSpent(sb[0]) {
		t.Error("the keys of the replaced IKE SA are left")
	}
}

package ikev1

import (
	"time"

	"adit/ike/wire"
)

// rule says which message of phase 1 is taken in which phase, and what it must hold
// exactly once.
type rule struct {
	from     phase
	exchange wire.ExchangeType
	// encrypted says how the message comes; either is for aggressive mode's last one.
	encrypted, either bool
	need              []wire.PayloadType
	take              func(s *sa, now time.Time, in *inbound)
}

// rules holds every message of phase 1 that is taken. Quick mode, informational and
// transaction exchanges, which need keys, are taken by receivePhase2.
var rules []rule

func init() {
	const main, aggressive = wire.ExchangeV1IdentityProtection, wire.ExchangeV1Aggressive
	proposals, ke, nonce, id := wire.PayloadV1SA, wire.PayloadV1KE, wire.PayloadV1Nonce, wire.PayloadV1ID
	type need = []wire.PayloadType
	rules = []rule{
		{phaseSASent, main, false, false, need{proposals}, (*sa).mainChosen},
		{phaseSAReceived, main, false, false, need{ke, nonce}, (*sa).mainKE},
		{phaseKESent, main, false, false, need{ke, nonce}, (*sa).mainKEAnswer},
		{phaseKEReceived, main, true, false, need{id}, (*sa).mainAuth},
		{phaseAuthSent, main, true, false, need{id}, (*sa).mainAuthAnswer},
		{phaseAggrSent, aggressive, false, false, need{proposals, ke, nonce, id}, (*sa).aggressiveAnswer},
		{phaseAggrReceived, aggressive, true, true, nil, (*sa).aggressiveAuth},
	}
}

func findRule(p phase, x wire.ExchangeType, encrypted bool) *rule {
	for i := range rules {
		r := &rules[i]
		if r.from == p && r.exchange == x && (r.either || r.encrypted == encrypted) {
			return r
		}
	}
	return nil
}

// misses names what of the rule's needs is not there exactly once.
func (r *rule) misses(list []wire.V1Payload) string {
	for _, t := range r.need {
		n := 0
		for _, p := range list {
			if p.Type == t {
				n++
			}
		}
		if n != 1 {
			return t.String()
		}
	}
	return ""
}

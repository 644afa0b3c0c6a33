package ikev2

import (
	"adit/ike"
	"adit/ike/wire"
	"adit/suite"
)

// Phases lists the names of all phases, in order.
func Phases() (out []string) {
	for p := range phases {
		out = append(out, p.String())
	}
	return out
}

// RuleFor reports whether a message is taken in the phase of that number.
func RuleFor(p int, x wire.ExchangeType, response bool) bool {
	return findRule(phase(p), x, response) != nil
}

// RuleCount is the length of the rule table.
func RuleCount() int { return len(rules) }

// SkipMessageIDs moves both windows of an IKE SA on.
func SkipMessageIDs(x ike.SA, send, recv uint32) {
	s := x.(*sa)
	s.win.sendID, s.win.recvID, s.win.response = send, recv, nil
}

// LimitMessageID is where an IKE SA is rekeyed.
const LimitMessageID = limitMessageID

// KeysSpent reports whether the keys of an IKE SA are gone.
func KeysSpent(x ike.SA) bool {
	k := x.(*sa).keys
	return k == nil || k.d == nil && k.pi == nil && k.pr == nil && k.in == nil && k.out == nil
}

// Derive derives the keys of an IKE SA as IKE_SA_INIT does, in the order of RFC
// 7296 §2.14; then a Child SA's without and with key exchange (§2.17), and the
// SKEYSEED of a rekey (§2.18).
func Derive(sel suite.Selected, shared, sharedNew suite.Key, ni, nr []byte, spiI, spiR uint64) (ike, child, childKE, rekey []byte, err error) {
	prf, err := suite.NewPRF(sel.PRF)
	if err != nil {
		return
	}
	k, err := deriveIKE(sel, prf.Sum(prf.NonceKey(ni, nr), shared), ni, nr, spiI, spiR)
	if err != nil {
		return
	}
	for _, part := range []suite.Key{k.d, k.ai, k.ar, k.ei, k.er, k.pi, k.pr} {
		ike = append(ike, part...)
	}
	for i, with := range []suite.Key{nil, sharedNew} {
		c, err := k.deriveChild(sel, with, ni, nr)
		if err != nil {
			return nil, nil, nil, nil, err
		}
		for _, part := range []suite.Key{c.encI, c.intI, c.encR, c.intR} {
			if i == 0 {
				child = append(child, part...)
			} else {
				childKE = append(childKE, part...)
			}
		}
	}
	return ike, child, childKE, k.rekeySeed(sharedNew, ni, nr), nil
}

package ikev2

import (
	"crypto/subtle"
	"net/netip"
	"slices"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/ipsec"
)

// minCrashToken and maxCrashToken are the lengths of RFC 6290 §4.1; limitCrashTokens
// bounds how many of one message are compared.
const (
	minCrashToken    = 16
	maxCrashToken    = 128
	limitCrashTokens = 4
)

// crashNotify is our token of this IKE SA for the peer, none if we make none (RFC 6290 §4.1).
func (s *sa) crashNotify() []wire.Payload {
	token := s.env.CrashToken(s.spiI, s.spiR)
	if token == nil {
		return nil
	}
	return []wire.Payload{&wire.Notify{Protocol: wire.ProtocolIKE, NotifyType: wire.QuickCrashDetection, Data: token}}
}

// takeCrashToken keeps the token of a peer, out of any protected message: a later one
// replaces the one before (RFC 6290 §4.4).
func (s *sa) takeCrashToken(payloads []wire.Payload) {
	if token := s.crashTokenIn(payloads); token != nil {
		s.crashToken = token
	}
}

func (s *sa) crashTokenIn(payloads []wire.Payload) []byte {
	n := wire.FindNotify(payloads, wire.QuickCrashDetection)
	if n == nil || s.config().NoCrashDetection || len(n.Data) < minCrashToken || len(n.Data) > maxCrashToken {
		return nil
	}
	return slices.Clone(n.Data)
}

// peerCrashed ends an IKE SA that the peer proves to have lost, in the clear: by INVALID_IKE_SPI,
// or INVALID_SPI after ESP, with the token that it once gave us (RFC 6290 §4.5). It reports
// whether it was so.
func (s *sa) peerCrashed(now time.Time, payloads []wire.Payload) bool {
	p := s.state.phase()
	if len(s.crashToken) == 0 || p != phaseEstablished && p != phaseClosing || wire.FindNotify(payloads, wire.InvalidIKESPI) == nil && wire.FindNotify(payloads, wire.InvalidSPI) == nil {
		return false
	}
	seen, same := 0, 0
	for _, x := range payloads {
		if n, ok := x.(*wire.Notify); ok && n.NotifyType == wire.QuickCrashDetection && seen < limitCrashTokens {
			seen++
			same |= subtle.ConstantTimeCompare(n.Data, s.crashToken)
		}
	}
	if same == 0 {
		return false
	}
	c := ike.Closed{Cause: ike.CauseCrashed, Reason: "the peer has lost it, and proved so (RFC 6290)"}
	if s.closing != nil {
		c = *s.closing
	} else if s.replacedBy != nil {
		c = ike.Closed{Cause: ike.CauseReplaced, Reason: "replaced"}
	}
	s.end(now, c)
	return true
}

// Probe implements ike.Prober.
func (s *sa) Probe(now time.Time, remote netip.Addr, spi ipsec.SPI, hint []wire.Payload) {
	if s.remote.Addr().Unmap() == remote.Unmap() && s.childByOut(spi) != nil && !s.peerCrashed(now, hint) {
		s.sendCheck(now)
	}
}

// tellToken gives the peer our token of an IKE SA that our rekey has made: only now are
// both SPIs known (RFC 6290 §4.3). That the peer makes none itself says nothing about
// whether it takes ours (§4.2).
type tellToken struct{}

func (tellToken) name() string { return "IKE_QCD" }
func (tellToken) begin(s *sa, now time.Time) {
	list := s.crashNotify()
	if list == nil || !s.Usable() {
		s.finish()
		return
	}
	s.request(now, wire.ExchangeInformational, list)
}
func (tellToken) answered(s *sa, now time.Time, in *inbound) { s.finish() }
func (tellToken) cancel(*sa, time.Time)                      {}

package ikev2

import (
	"encoding/binary"
	"math"
	"time"

	"adit/ike"
	"adit/ike/wire"
)

// authLife is how long the authentication of an IKE SA is good for; rekeys do not
// prolong it.
type authLife struct {
	// asked is what the peer's AUTH_LIFETIME wants of us as initiator (RFC 4478), or
	// what an AAA server lets the peer have; 0: nothing.
	asked time.Duration
	// end is when the peer must have authenticated again, where only it can.
	end time.Time
}

// lifetimeNotify is the AUTH_LIFETIME for a peer that only itself can
// authenticate again (RFC 4478 §3); others we ask when it is time.
func (s *sa) lifetimeNotify(p *proof) []wire.Payload {
	d, byEAP := p.peer.ReauthTime, false
	for _, v := range p.rounds {
		byEAP = byEAP || v.method == ike.AuthEAP
		if v.lifetime > 0 && (d == 0 || v.lifetime < d) {
			d = v.lifetime
		}
	}
	if !byEAP || d <= 0 {
		return nil
	}
	s.auth.asked = d
	seconds := min(uint64(max(d/time.Second, 1)), math.MaxUint32)
	return []wire.Payload{notify(wire.AuthLifetime, binary.BigEndian.AppendUint32(nil, uint32(seconds)))}
}

// takeLifetime takes the responder's AUTH_LIFETIME. One that is too short to be
// meant does not make us authenticate without an end.
func (s *sa) takeLifetime(payloads []wire.Payload) {
	n := wire.FindNotify(payloads, wire.AuthLifetime)
	if n == nil || len(n.Data) != 4 {
		return
	}
	d := time.Duration(binary.BigEndian.Uint32(n.Data)) * time.Second
	s.auth.asked = max(d, minAuthLifetime)
}

// setAuthLife starts the time of an authentication, after the other timers.
func (s *sa) setAuthLife(now time.Time) {
	l := &s.life
	if d := s.auth.asked; d > 0 && s.initiator {
		if at := now.Add(d - d/10); l.reauthAt.IsZero() || at.Before(l.reauthAt) {
			l.reauthAt = at
		}
	} else if d > 0 {
		l.reauthAt = time.Time{} // it is the peer's to do
		s.auth.end = now.Add(d + max(s.peer.OverTime, minAuthLifetime))
	}
	s.boundByAuth()
}

// boundByAuth ends the IKE SA when its authentication does.
func (s *sa) boundByAuth() {
	if end := s.auth.end; !end.IsZero() && (s.life.endAt.IsZero() || end.Before(s.life.endAt)) {
		s.life.endAt = end
	}
}

// inheritAuth carries the authentication over to the IKE SA that replaces this one by rekey.
func (s *sa) inheritAuth(old *sa, reauthAt time.Time) {
	s.auth, s.eapID, s.byEAP = old.auth, old.eapID, old.byEAP
	if !reauthAt.IsZero() {
		s.life.reauthAt = reauthAt
	} else if old.byEAP && !old.initiator {
		s.life.reauthAt = time.Time{}
	}
	s.boundByAuth()
}

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
	// ours: we began it, and can begin a new one. theirs: only the peer can, since it
	// proved itself by EAP or holds addresses of ours.
	ours, theirs bool
	// end is when it is over whatever was tried.
	end time.Time
}

// lifetimeNotify is the AUTH_LIFETIME for a peer that only itself can
// authenticate again (RFC 4478 §3); others we ask when it is time.
func (s *sa) lifetimeNotify(p *proof) []wire.Payload {
	d, only := p.peer.ReauthTime, len(s.cp().given) > 0
	for _, v := range p.rounds {
		only = only || v.method == ike.AuthEAP
		if v.lifetime > 0 && (d == 0 || v.lifetime < d) {
			d = v.lifetime
		}
	}
	if s.auth.theirs = only; !only || d <= 0 {
		return nil
	}
	s.auth.asked = d
	seconds := min(uint64(max(d/time.Second, 1)), math.MaxUint32)
	return []wire.Payload{notify(wire.AuthLifetime, binary.BigEndian.AppendUint32(nil, uint32(seconds)))}
}

// takeLifetime takes the responder's AUTH_LIFETIME; false: there is none. One that
// is too short to be meant does not make us authenticate without an end.
func (s *sa) takeLifetime(payloads []wire.Payload) bool {
	n := wire.FindNotify(payloads, wire.AuthLifetime)
	if n == nil || len(n.Data) != 4 {
		return false
	}
	d := time.Duration(binary.BigEndian.Uint32(n.Data)) * time.Second
	s.auth.asked = max(d, minAuthLifetime)
	return true
}

// setAuthLife starts the time of an authentication, after the other timers.
func (s *sa) setAuthLife(now time.Time) {
	s.auth.ours = s.initiator
	if p := s.peer; p.ReauthTime > 0 && p.OverTime > 0 {
		s.auth.end = now.Add(p.ReauthTime + p.OverTime)
	}
	if s.auth.theirs {
		s.life.reauthAt = time.Time{}
		if d := s.auth.asked; d > 0 {
			s.auth.end = now.Add(d + max(s.peer.OverTime, minAuthLifetime))
		}
	}
	s.reauthSooner(now)
	s.boundByAuth()
}

// reauthSooner lets the responder's AUTH_LIFETIME bring our time forward.
func (s *sa) reauthSooner(now time.Time) {
	d := s.auth.asked
	if !s.auth.ours || d == 0 {
		return
	}
	if at := now.Add(d - d/10); s.life.reauthAt.IsZero() || at.Before(s.life.reauthAt) {
		s.life.reauthAt = at
	}
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
	if s.auth.theirs {
		s.life.reauthAt = time.Time{}
	} else if !reauthAt.IsZero() {
		s.life.reauthAt = reauthAt
	}
	s.boundByAuth()
}

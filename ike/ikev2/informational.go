package ikev2

import (
	"time"

	"adit/ike"
	"adit/ike/wire"
)

// informationalRequest answers INFORMATIONAL: Deletes, error notifies of a
// peer, and the empty one that asks whether we live (RFC 7296 §1.4).
func (s *sa) informationalRequest(now time.Time, in *inbound) {
	answer, all := s.deleteRequest(now, in.payloads)
	fatal := wire.FindNotify(in.payloads, wire.AuthenticationFailed)
	if fatal == nil {
		fatal = wire.FindNotify(in.payloads, wire.InvalidSyntax)
	}
	if n := wire.FindNotify(in.payloads, wire.MSStatus); n != nil && fatal == nil {
		r := peerRefused(n, "", "")
		s.blameCertificate(r)
		s.reject(r)
	}
	s.takeCrashToken(in.payloads)
	if s.replacedBy == nil && s.takeLifetime(in.payloads) { // RFC 4478 §3
		s.reauthSooner(now)
	}
	moved, act := s.mobikeRequest(in)
	s.respond(now, in, append(append(answer, cpInformational(in.payloads)...), moved...))
	if n := wire.FindNotify(in.payloads, wire.Redirect); n != nil && !all && fatal == nil {
		s.redirectedUp(now, n)
	}
	switch {
	case all && fatal == nil:
		s.endByPeer(now)
	case fatal != nil:
		r := peerRefused(fatal, s.ids[0].String(), "")
		r.PointTo(s.peer)
		s.blameCertificate(r)
		s.reject(r)
		s.end(now, ike.Closed{Cause: ike.CauseDead, Reason: "refused by the peer: " + fatal.NotifyType.String(), Rejection: r})
	case act != nil:
		act(now)
	}
}

// endByPeer ends the IKE SA that the peer has deleted.
func (s *sa) endByPeer(now time.Time) {
	if t, ok := s.sched.current.(*rekeyIKE); ok && t.theirs != nil && s.replacedBy == nil {
		// Our own rekey of the same IKE SA never got through; the peer's did (RFC 7296 §2.8.2).
		s.succeedBy(now, t.theirs)
	}
	switch {
	case s.closing != nil:
		s.end(now, *s.closing)
	case s.replacedBy != nil:
		s.end(now, ike.Closed{Cause: ike.CauseReplaced, Reason: "replaced"})
	default:
		s.end(now, ike.Closed{Cause: ike.CausePeer, Reason: "deleted by the peer"})
	}
}

// dpd asks whether the peer lives (RFC 7296 §2.4).
type dpd struct{}

func (dpd) name() string { return "IKE_DPD" }
func (dpd) begin(s *sa, now time.Time) {
	s.request(now, wire.ExchangeInformational, s.natCheck())
}
func (dpd) answered(s *sa, now time.Time, in *inbound) {
	s.finish()
	s.natChecked(now, in)
}
func (dpd) cancel(*sa, time.Time) {}

// checkPeer sends a check if nothing came from the peer for dpd_delay, neither
// IKE nor ESP.
func (s *sa) checkPeer(now time.Time) {
	delay := s.peer.DPDDelay
	if at := s.life.lastIn.Add(delay); now.Before(at) {
		s.life.dpdAt = at
		return
	}
	s.life.dpdAt = now.Add(delay)
	if !s.Usable() || s.win.out != nil || s.sched.current != nil {
		return // what is in flight asks the same
	}
	for _, c := range s.children {
		if c.dataplane && !c.deleted {
			c := c
			job := s.env.NewJob()
			s.background(job, func(now time.Time, r ike.Result) {
				if st, ok := r.Value.(ike.ChildStats); ok && st.In.LastUse.Add(delay).After(now) {
					s.life.dpdAt = st.In.LastUse.Add(delay)
					return
				}
				s.sendCheck(now)
			})
			s.env.Effect(ike.QueryChild{Job: job, Child: c.id})
			return
		}
	}
	s.sendCheck(now)
}

func (s *sa) sendCheck(now time.Time) {
	if s.Usable() && s.win.out == nil && s.sched.current == nil {
		s.enqueue(dpd{})
		s.run(now)
	}
}

// expired acts on the hard end of an IKE SA.
func (s *sa) expired(now time.Time) {
	s.life.endAt = time.Time{}
	switch {
	case s.state.phase() == phaseClosing:
	case s.replacedBy != nil || s.redundant:
		s.end(now, ike.Closed{Cause: ike.CauseReplaced, Reason: "replaced, and not deleted by the peer"})
	default:
		s.Close(now, ike.Closed{Cause: ike.CauseExpired, Reason: "lifetime expired"}, false)
	}
}

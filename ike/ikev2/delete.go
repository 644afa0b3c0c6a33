package ikev2

import (
	"slices"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/ipsec"
)

// deleteChildTask deletes one Child SA (RFC 7296 §1.4.1).
type deleteChildTask struct {
	c      *child
	waited int // for the peer's proof that it knows the Child SA
}

func (t *deleteChildTask) name() string { return "CHILD_DELETE " + t.c.cfg.Name }

// deleteChild asks the peer to delete a Child SA; it is removed when the answer
// comes, or with the IKE SA.
func (s *sa) deleteChild(now time.Time, c *child, cause ike.Cause, reason string) {
	if c.state == childDeleting {
		return
	}
	c.state, c.cause, c.reason = childDeleting, cause, reason
	c.rekeyAt, c.endAt, c.inactiveAt, c.activateAt = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	s.enqueueFirst(&deleteChildTask{c: c})
	s.run(now)
}

// DeleteChild deletes a Child SA for an operator.
func (s *sa) DeleteChild(now time.Time, id uint32, reason string) {
	if c := s.child(id); c != nil {
		s.deleteChild(now, c, ike.CauseLocal, reason)
	} else {
		s.env.ChildGone(id)
	}
}

func (t *deleteChildTask) begin(s *sa, now time.Time) {
	if s.child(t.c.id) == nil {
		s.finish()
		return
	}
	if s.unproven(t.c) && t.waited < limitUnproven {
		t.waited++
		s.finish()
		s.later(now.Add(retryUnproven), t)
		return
	}
	t.c.deleteSent = true
	s.request(now, wire.ExchangeInformational, []wire.Payload{deletePayload(t.c.spiIn)})
}

func (t *deleteChildTask) answered(s *sa, now time.Time, in *inbound) {
	s.finish()
	c := t.c
	if s.child(c.id) == nil {
		return
	}
	if c.replacement != nil {
		s.retire(now, c)
		return
	}
	s.dropChild(now, c, c.cause, c.reason)
}

func (t *deleteChildTask) cancel(*sa, time.Time) {}

// deleteOrphan tells the peer that a Child SA that it made is not there.
type deleteOrphan struct{ spi ipsec.SPI }

func (t *deleteOrphan) name() string { return "CHILD_DELETE" }
func (t *deleteOrphan) begin(s *sa, now time.Time) {
	s.request(now, wire.ExchangeInformational, []wire.Payload{deletePayload(t.spi)})
}
func (t *deleteOrphan) answered(s *sa, now time.Time, in *inbound) { s.finish() }
func (t *deleteOrphan) cancel(*sa, time.Time)                      {}

// deleteIKE deletes the IKE SA, with all its Child SAs.
type deleteIKE struct {
	why   ike.Closed
	force bool
}

func (t *deleteIKE) name() string { return "IKE_DELETE" }
func (t *deleteIKE) begin(s *sa, now time.Time) {
	s.enter(closing{})
	s.request(now, wire.ExchangeInformational, []wire.Payload{&wire.Delete{Protocol: wire.ProtocolIKE}})
}
func (t *deleteIKE) answered(s *sa, now time.Time, in *inbound) {
	s.finish()
	s.end(now, t.why)
}
func (t *deleteIKE) cancel(*sa, time.Time) {}

// sendDeleteNow tells the peer without waiting, for a forced close.
func (s *sa) sendDeleteNow(now time.Time) {
	h := s.header(wire.ExchangeInformational, s.win.sendID, false)
	list := []wire.Payload{&wire.Delete{Protocol: wire.ProtocolIKE}}
	s.win.sendID++
	s.send(now, s.local2remote(s.keys.seal(h, list)), summary(h, list), 0)
}

// deleteRequest carries out the peer's Deletes; it returns what goes into the
// answer, and whether the IKE SA goes.
func (s *sa) deleteRequest(now time.Time, payloads []wire.Payload) (answer []wire.Payload, all bool) {
	var gone []ipsec.SPI
	for _, p := range payloads {
		d, ok := p.(*wire.Delete)
		if !ok {
			continue
		}
		if d.Protocol == wire.ProtocolIKE {
			all = true
			continue
		}
		if d.Protocol != wire.ProtocolESP {
			continue
		}
		for _, spi := range d.SPIs {
			c := s.childByOut(ipsec.SPI(spi))
			if c == nil && s.creating() && len(s.earlyDeletes) < limitChildren {
				s.earlyDeletes = append(s.earlyDeletes, ipsec.SPI(spi))
			}
			if c == nil || c.deleted {
				continue
			}
			if !c.deleteSent {
				// If both delete at once, neither answer names it (RFC 7296 §1.4.1).
				gone = append(gone, c.spiIn)
			}
			s.deletedByPeer(now, c)
		}
	}
	if len(gone) > 0 {
		answer = []wire.Payload{deletePayload(gone...)}
	}
	return answer, all
}

// deletedByPeer removes a Child SA that the peer has deleted. If it was
// replaced, this is the proof that the peer uses the replacement.
func (s *sa) deletedByPeer(now time.Time, c *child) {
	if s.deletedEarly(c) {
		return
	}
	if c.replacement == nil {
		s.oneAtATime(now, c)
		cause, reason := ike.CausePeer, "deleted by the peer"
		if c.state == childDeleting {
			cause, reason = c.cause, c.reason
		}
		s.restorePredecessor(now, c)
		s.dropChild(now, c, cause, reason)
		s.askAgain(now, c)
		return
	}
	next := c.replacement
	if t, ok := s.sched.current.(*rekeyChild); ok && t.old == c && t.theirs == next {
		// Our own rekey is still in flight and will fail or be redundant.
		s.replace(now, c, next)
	}
	if next.dataplane && next.state != childDeleting && !next.overtaken() {
		s.activate(next)
	}
	s.retire(now, c)
}

// timeoutOneChild is how soon after it has granted a Child SA a peer deletes the one
// before if it keeps no more than one.
const timeoutOneChild = 5 * time.Second

// oneAtATime says so where the peer deletes a Child SA because it has granted another
// one. Peer quirk (AWS): one pair of SAs a tunnel, the newest stays.
func (s *sa) oneAtATime(now time.Time, c *child) {
	for _, o := range s.children {
		if o == c || !o.initiator || o.state != childInstalled || now.Sub(o.born) > timeoutOneChild || now.Sub(c.born) < now.Sub(o.born) || c.state != childInstalled ||
			slices.ContainsFunc(s.children, func(x *child) bool { return x.replacement == o }) {
			continue
		}
		s.reject(&ike.Rejection{SAKey: ike.SAKey{Child: c.cfg.Name}, Reason: ike.ReasonPeer, ByPeer: true,
			Difference: "the peer deleted Child SA " + c.cfg.Name + " when it had granted " + o.cfg.Name + ": it keeps one Child SA at a time",
			Hint:       "the selectors of all children belong into one child, as local_ts and remote_ts",
			Options:    []string{s.peer.Option("children." + c.cfg.Name + ".local_ts"), s.peer.Option("children." + c.cfg.Name + ".remote_ts")}})
		return
	}
}

// overtaken reports whether outbound traffic has already passed on to a Child SA
// that replaced this one: a late Delete must not bring it back.
func (c *child) overtaken() bool {
	for n := c.replacement; n != nil; n = n.replacement {
		if n.activated {
			return true
		}
	}
	return false
}

// activate sends outbound traffic through the Child SA.
func (s *sa) activate(c *child) {
	c.activated, c.activateAt = true, time.Time{}
	s.env.ActivateChild(c.id)
}

// peerInstalls is how long the initiator of an IKE_AUTH exchange gets to install the Child
// SA before packets come by it, where another one carries them meanwhile.
const peerInstalls = 50 * time.Millisecond

// activateGranted sends outbound traffic through the Child SA that an IKE_AUTH response
// grants. Where another one serves the same (a reauthentication, mostly), that goes on for a
// moment: what overtakes the response, or comes before the peer has installed what it
// grants, is lost. If the other one goes first, the policies pass at once.
func (s *sa) activateGranted(now time.Time, c *child) {
	if s.env.Served(c.id) {
		c.activateAt = now.Add(peerInstalls)
		return
	}
	s.activate(c)
}

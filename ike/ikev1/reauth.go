package ikev1

import (
	"slices"
	"time"

	"adit/ike"
	"adit/ipsec"
)

// IPsec SAs of IKEv1 don't belong to the ISAKMP SA that they were made under (RFC 2409
// §5.5): when phase 1 is made anew they pass to the new one as they are, as strongSwan
// has it. Both sides do so by themselves.

// adopt takes over the IPsec SAs of the older ISAKMP SAs with the same peer. As responder
// only of one at the same address: somebody may have several devices. If the address of
// the one has changed, handOver comes to it.
func (s *sa) adopt(now time.Time) {
	for _, o := range s.env.Siblings(s.ids[0], s.uniqueID()) {
		if old, ok := o.(*sa); ok && old.phase == phaseEstablished && old.peer.Name == s.peer.Name && (s.initiator || old.remote == s.remote) {
			old.handTo(now, s)
		}
	}
}

// handTo passes the IPsec SAs to another ISAKMP SA. Those that a quick mode is about
// to make stay.
func (s *sa) handTo(now time.Time, next *sa) {
	for _, c := range slices.Clone(s.children) {
		if !c.dataplane || c.state == childPending {
			continue
		}
		if c.state == childRekeying {
			c.state, c.rekeyAt = childInstalled, now.Add(retryRekey)
		}
		s.children = slices.DeleteFunc(s.children, func(x *child) bool { return x == c })
		next.children = append(next.children, c)
		next.env.TakeChild(c.id)
		next.env.Emit(ike.ChildPassed{SA: next.Info(), Child: c.info(next)})
		if !c.announced && c.state == childInstalled {
			c.announced = true
			next.env.ChildUp(now, c.info(next))
		}
	}
	if s.local != next.local || s.remote != next.remote || s.nat.encap() != next.nat.encap() {
		for _, c := range next.children {
			next.env.Effect(ike.UpdateChild{Child: c.id, Update: ipsec.SAUpdate{Local: next.local, Remote: next.remote, Encap: next.nat.encap(), TrackNAT: next.nat.remote}})
		}
	}
	s.remade, s.goes = true, s.initiator == next.initiator
	s.life.reauthAt, s.life.dpdAt = time.Time{}, time.Time{}
	if s.initiator {
		s.life.emptyAt = now.Add(emptyGrace)
	}
	s.env.Touch()
}

// handRest passes on what a quick mode still made here after the rest had gone to a newer
// ISAKMP SA, so that this one can go, too.
func (s *sa) handRest(now time.Time) {
	for _, o := range s.env.Siblings(s.ids[0], s.uniqueID()) {
		if next, ok := o.(*sa); ok && next.Usable() && next.peer.Name == s.peer.Name {
			s.handTo(now, next)
			s.life.emptyAt = now.Add(emptyGrace)
			return
		}
	}
}

// handOver passes the IPsec SAs on when the peer deletes this ISAKMP SA and another one
// with it is up: a peer that made both at once may have kept the other one.
func (s *sa) handOver(now time.Time) {
	for _, o := range s.env.Siblings(s.ids[0], s.uniqueID()) {
		if next, ok := o.(*sa); ok && next.phase == phaseEstablished && next.peer.Name == s.peer.Name {
			s.handTo(now, next)
			next.remade, next.life.emptyAt = false, time.Time{}
			next.env.Touch()
			return
		}
	}
}

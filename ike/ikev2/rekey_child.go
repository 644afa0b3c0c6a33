package ikev2

import (
	"encoding/binary"
	"slices"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/internal/simbug"
	"adit/ipsec"
	"adit/suite"
)

// rekeyChild replaces a Child SA by our request (RFC 7296 §1.3.3, §2.8).
type rekeyChild struct {
	childExchange
	old *child
	// theirs is what the peer's own rekey of old made while our request was in
	// flight (§2.8.1). Which one stays is decided when our answer comes.
	theirs *child
}

func (t *rekeyChild) name() string { return "CHILD_REKEY " + t.old.cfg.Name }

// RekeyChild replaces a Child SA, unless that is under way.
func (s *sa) RekeyChild(now time.Time, id uint32) {
	c := s.child(id)
	if c == nil || c.state != childInstalled || c.replacement != nil || !s.Usable() {
		return
	}
	if s.unproven(c) {
		c.rekeyAt = now.Add(retryTemporary)
		return
	}
	for _, t := range s.sched.queue {
		if x, ok := t.(*rekeyChild); ok && x.old == c {
			return
		}
	}
	if !s.enqueue(&rekeyChild{old: c}) {
		c.rekeyAt = now.Add(retryRekey)
	}
	s.run(now)
}

// currentChild is the newest configuration of a Child SA, as reloads change it.
func (s *sa) currentChild(c *child) *ike.Child {
	if cfg := s.env.CurrentPeer(s.peer).Child(c.cfg.Name); cfg != nil && cfg.Action == ipsec.Protect {
		return cfg
	}
	return c.cfg
}

func (t *rekeyChild) begin(s *sa, now time.Time) {
	old := t.old
	if s.child(old.id) == nil || old.state != childInstalled || old.replacement != nil {
		s.finish() // closed or replaced meanwhile
		return
	}
	old.state = childRekeying
	cfg := s.currentChild(old)
	if t.group == suite.KENone && old.suite.KEPresent && offersKE(cfg.Proposals, old.suite.KE.ID) {
		t.group = old.suite.KE.ID // what both agreed on before saves a round
	}
	t.offer = s.offer(now, cfg, nil, true, false, old)
	// The same selectors: what is in use must not shrink (§2.9.2).
	t.offer.local, t.offer.remote = old.localTS, old.remoteTS
	t.offer.c.mode = old.mode
	if plain := withoutKE(t.offer.proposals); s.peerCaps.noChildKE && len(plain) > 0 {
		t.offer.proposals, t.group = plain, suite.KENone
	}
	rekeySA := &wire.Notify{Protocol: wire.ProtocolESP, SPI: spiBytes(old.spiIn), NotifyType: wire.RekeySA}
	t.prepare(s, now, func(now time.Time) {
		s.request(now, wire.ExchangeCreateChildSA, t.request(rekeySA))
	})
}

func (t *rekeyChild) cancel(*sa, time.Time) {}

// over puts the old Child SA back into use after a rekey that failed; true: it
// still needs one.
func (t *rekeyChild) over(s *sa, now time.Time) bool {
	switch old := t.old; {
	case s.child(old.id) == nil || old.state != childRekeying || t.theirs != nil:
		return false
	case old.deleted:
		s.dropChild(now, old, ike.CausePeer, "deleted by the peer")
		return false
	default:
		old.state = childInstalled
		return true
	}
}

// deletedEarly keeps a Child SA that the peer deletes while our rekey of it is in
// flight until that is answered. Peer quirk (Palo Alto): the Delete follows its
// answer within half a millisecond, and may come before it. A peer that means to
// close the Child SA refuses the rekey (RFC 7296 §2.25.1).
func (s *sa) deletedEarly(c *child) bool {
	t, ok := s.sched.current.(*rekeyChild)
	if !ok || t.old != c || t.theirs != nil || c.state != childRekeying {
		return false
	}
	c.deleted = true
	return true
}

func (t *rekeyChild) answered(s *sa, now time.Time, in *inbound) {
	n := errorNotify(in.payloads)
	if n == nil {
		t.complete(s, now, in, func(now time.Time, shared secrets, nr []byte, r *ike.Rejection) {
			t.made(s, now, shared, nr, r)
		})
		return
	}
	o := t.offer
	s.forgetChild(o.c)
	s.finish()
	if t.theirs != nil {
		// The peer's rekey came through instead of ours.
		t.yield(s, now)
		return
	}
	needed := t.over(s, now)
	switch g := t.wantsGroup(n); {
	case !needed:
	case g != suite.KENone:
		t.group = g
		s.enqueueFirst(&rekeyChild{childExchange: childExchange{group: g, tries: t.tries}, old: t.old})
	case n.NotifyType == wire.ChildSANotFound:
		// The peer has lost it: start anew (§2.25.1).
		s.note(1, "the peer does not know Child SA "+t.old.cfg.Name+" any more: made anew")
		cfg := s.currentChild(t.old)
		s.dropChild(now, t.old, ike.CauseReplaced, "unknown to the peer")
		s.enqueueFirst(&createChild{cfg: cfg})
	case n.NotifyType == wire.TemporaryFailure && t.tries <= limitTemporary:
		s.later(now.Add(retryTemporary+ike.RandomSpan(retryTemporary)), &rekeyChild{childExchange: childExchange{tries: t.tries}, old: t.old})
	case t.microsoftRefused(s, now, n):
	default:
		s.childRefused(t.old.cfg, o, n)
		t.old.rekeyAt = now.Add(retryRekey + ike.RandomSpan(retryRekey/2))
	}
}

// made goes on after the answer: install, then settle which Child SA stays.
func (t *rekeyChild) made(s *sa, now time.Time, shared secrets, nr []byte, r *ike.Rejection) {
	c, old := t.offer.c, t.old
	if r != nil {
		s.enqueueFirst(&deleteOrphan{spi: c.spiIn})
		s.forgetChild(c)
		s.finish()
		if t.theirs != nil {
			t.yield(s, now)
		} else if t.over(s, now) {
			old.rekeyAt = now.Add(retryRekey)
		}
		return
	}
	nonce := lowerNonce(t.offer.nonce, nr)
	lost := t.theirs != nil && (s.child(old.id) == nil || old.deleted || slices.Compare(nonce, t.theirs.nonce) < 0)
	if simbug.Chosen == simbug.NonceCompare && s.initiator && t.theirs != nil {
		lost = !lost
	}
	gone := s.child(old.id) == nil && t.theirs == nil
	s.installChild(now, c, true, shared, t.offer.nonce, nr, !lost, func(now time.Time, r *ike.Rejection) {
		s.finish()
		switch {
		case r != nil:
			s.enqueueFirst(&deleteOrphan{spi: c.spiIn})
			if t.theirs != nil {
				t.yield(s, now)
			} else if t.over(s, now) {
				old.rekeyAt = now.Add(retryRekey)
			}
		case lost:
			// Ours has the lowest nonce: each side deletes what it made (§2.8.1).
			s.note(2, "both sides rekeyed "+old.cfg.Name+" at once: the peer's stays")
			c.replacement = t.theirs
			t.yield(s, now)
			s.deleteChild(now, c, ike.CauseReplaced, "redundant")
		case gone:
			s.deleteChild(now, c, ike.CauseReplaced, "the Child SA was deleted while it was rekeyed")
		default:
			if t.theirs != nil {
				s.note(2, "both sides rekeyed "+old.cfg.Name+" at once: ours stays")
				t.theirs.replacement = c
				t.theirs.state = childRekeyed
				t.theirs.rekeyAt, t.theirs.endAt = time.Time{}, now.Add(timeoutReplaced)
			}
			s.replace(now, old, c)
			if simbug.Chosen == simbug.LostDelete {
				s.retire(now, old)
				return
			}
			if old.deleted {
				s.retire(now, old)
				return
			}
			s.deleteChild(now, old, ike.CauseReplaced, "replaced")
		}
	})
}

// yield lets the peer's rekey be the one that counts.
func (t *rekeyChild) yield(s *sa, now time.Time) {
	old := t.old
	if s.child(t.theirs.id) == nil || old.replacement != nil && old.replacement != t.theirs {
		return
	}
	if s.child(old.id) == nil || old.deleted {
		if !t.theirs.announced {
			s.announce(now, t.theirs)
		}
		return
	}
	s.replace(now, old, t.theirs)
	old.state = childRekeyed
	old.endAt = now.Add(timeoutReplaced)
}

// rekeyChildRequest answers the peer's rekey of a Child SA.
func (s *sa) rekeyChildRequest(now time.Time, in *inbound, n *wire.Notify) {
	var old *child
	if len(n.SPI) == 4 && n.Protocol == wire.ProtocolESP {
		old = s.childByOut(ipsec.SPI(binary.BigEndian.Uint32(n.SPI)))
	}
	switch {
	case old == nil && s.creating():
		// It may be the one that our own request in flight has made there.
		s.respondNotify(now, in, wire.TemporaryFailure, nil)
		return
	case old == nil || old.deleted:
		s.respond(now, in, []wire.Payload{&wire.Notify{Protocol: n.Protocol, SPI: n.SPI, NotifyType: wire.ChildSANotFound}})
		return
	case old.state == childDeleting || old.state == childRekeyed || old.replacement != nil:
		s.respondNotify(now, in, wire.TemporaryFailure, nil) // §2.25.1
		return
	}
	still := func() (wire.NotifyType, string) {
		switch {
		case s.child(old.id) == nil || old.deleted:
			return wire.ChildSANotFound, "the Child SA went during additional key exchanges"
		case old.state == childDeleting || old.state == childRekeyed || old.replacement != nil:
			return wire.TemporaryFailure, "the Child SA was replaced during additional key exchanges"
		}
		return s.stillMakes()
	}
	s.grantChild(now, in, old, still, func(now time.Time, c *child) {
		if t, _ := s.sched.current.(*rekeyChild); t != nil && t.old == old {
			t.theirs = c
			old.replacement = c
			return
		}
		s.replace(now, old, c)
		old.state = childRekeyed
		old.endAt = now.Add(timeoutReplaced)
	})
}

// unproven reports whether the peer may not know the Child SA yet: it came of
// the peer's rekey, and the Delete of the old one has not come.
func (s *sa) unproven(c *child) bool {
	return slices.ContainsFunc(s.children, func(x *child) bool {
		return x.replacement == c && x.dataplane && !x.deleted && !c.initiator
	})
}

// creating reports whether a Child SA of ours is asked for and not answered.
func (s *sa) creating() bool {
	switch s.sched.current.(type) {
	case *createChild, *rekeyChild:
		return true
	}
	return false
}

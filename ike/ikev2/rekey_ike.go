package ikev2

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/suite"
)

// rekeyIKE replaces the IKE SA by our request (RFC 7296 §1.3.2, §2.18).
type rekeyIKE struct {
	spi     uint64
	offered []suite.Proposal
	group   suite.TransformID
	tries   int
	ke      suite.KeyExchange
	nonce   []byte
	// theirs is the IKE SA that the peer's own rekey made while our request was in
	// flight (§2.8.2). Which one stays is decided when our answer comes.
	theirs *sa
}

func (t *rekeyIKE) name() string { return "IKE_REKEY" }

// RekeyIKE replaces the IKE SA, unless that is under way.
func (s *sa) RekeyIKE(now time.Time) {
	if !s.Usable() {
		return
	}
	for _, t := range s.sched.all() {
		if _, ok := t.(*rekeyIKE); ok {
			return
		}
	}
	s.enqueue(&rekeyIKE{})
	s.run(now)
}

func (t *rekeyIKE) begin(s *sa, now time.Time) {
	if !s.Usable() {
		s.finish()
		return
	}
	peer := s.env.CurrentPeer(s.peer)
	t.spi, t.nonce, t.offered = s.env.ReserveSPI(), newNonce(), peer.Proposals
	if t.group == suite.KENone {
		if t.group = s.selected.KE.ID; !offersKE(t.offered, t.group) {
			t.group = firstKE(t.offered)
		}
	}
	t.offered = make([]suite.Proposal, len(peer.Proposals))
	for i, p := range peer.Proposals {
		t.offered[i], _ = p.WithKEFirst(t.group)
	}
	makeKE(s, now, t.group, func(now time.Time, ke suite.KeyExchange, err error) {
		if err != nil {
			s.reject(&ike.Rejection{Reason: ike.ReasonInternal, Difference: "key exchange: " + err.Error()})
			s.finish()
			s.life.rekeyAt = now.Add(retryRekey)
			return
		}
		t.ke = ke
		spi := binary.BigEndian.AppendUint64(nil, t.spi)
		s.offerFresh(now, t.nonce, func(now time.Time, ppk []wire.Payload) {
			list := []wire.Payload{toWire(t.offered, spi), &wire.Nonce{Data: t.nonce}, &wire.KE{Group: uint16(t.group), Data: ke.Public()}}
			s.request(now, wire.ExchangeCreateChildSA, append(list, ppk...))
		})
	})
}

func (t *rekeyIKE) cancel(*sa, time.Time) {}

func (t *rekeyIKE) answered(s *sa, now time.Time, in *inbound) {
	if n := errorNotify(in.payloads); n != nil {
		t.refused(s, now, n)
		return
	}
	ppk, wrong := s.freshAnswered(in.payloads)
	fail := func(why string) {
		ppk.Zero()
		s.reject(&ike.Rejection{Reason: ike.ReasonSyntax, Difference: "answer to the IKE SA rekey: " + why})
		s.finish()
		if t.theirs != nil {
			s.succeedBy(now, t.theirs)
			return
		}
		s.life.rekeyAt = now.Add(retryRekey)
	}
	if wrong != "" {
		fail(wrong)
		return
	}
	saP, _ := wire.First[*wire.SA](in.payloads)
	nr, _ := wire.First[*wire.Nonce](in.payloads)
	ke, _ := wire.First[*wire.KE](in.payloads)
	if saP == nil || nr == nil || ke == nil || len(saP.Proposals) != 1 || len(saP.Proposals[0].SPI) != 8 || suite.TransformID(ke.Group) != t.group {
		fail("SA, Nr, KE or the SPI is missing or wrong")
		return
	}
	spi := binary.BigEndian.Uint64(saP.Proposals[0].SPI)
	sel, err := suite.Accept(t.offered, fromWire(saP)[0], suite.SelectOptions{KE: t.group})
	if err != nil || sel.KE.ID != t.group || spi == 0 {
		fail(fmt.Sprint("not what was offered: ", err))
		return
	}
	type made struct {
		shared suite.Key
		err    error
	}
	public, nonce := slices.Clone(ke.Data), slices.Clone(nr.Data)
	compute(s, now, "shared secret "+sel.KE.Name(), slowGroup(t.group), func() made {
		k, err := t.ke.Shared(public)
		return made{k, err}
	}, func(now time.Time, m made, err error) {
		if err == nil {
			err = m.err
		}
		if err != nil {
			fail(err.Error())
			return
		}
		s.followUp(now, in, sel, secrets{first: m.shared, ppk: ppk}, func(now time.Time, x secrets, f *followFailure) {
			if f != nil && f.notify != nil {
				t.refused(s, now, f.notify)
				return
			}
			if f != nil {
				fail(f.why)
				return
			}
			next, err := s.successor(now, true, t.spi, spi, sel, x, t.nonce, nonce)
			if err != nil {
				fail(err.Error())
				return
			}
			s.finish()
			next.crashToken, s.nextToken = s.nextToken, nil
			next.enqueue(tellToken{})
			t.settle(s, now, next)
		})
	})
}

// settle decides which new IKE SA stays if both sides made one.
func (t *rekeyIKE) settle(s *sa, now time.Time, ours *sa) {
	switch {
	case t.theirs != nil && (s.replacedBy != nil || slices.Compare(ours.tieBreak, t.theirs.tieBreak) < 0):
		s.note(2, "both sides rekeyed the IKE SA at once: the peer's stays")
		s.succeedBy(now, t.theirs)
		ours.Close(now, ike.Closed{Cause: ike.CauseReplaced, Reason: "redundant"}, false)
		// The peer deletes the old IKE SA.
		return
	case t.theirs != nil:
		s.note(2, "both sides rekeyed the IKE SA at once: ours stays")
		t.theirs.redundant, t.theirs.undecided = true, nil
		t.theirs.life.endAt = now.Add(timeoutReplaced)
		t.theirs.env.Touch()
	}
	s.succeedBy(now, ours)
	s.closeReplaced(now)
}

// closeReplaced deletes the old IKE SA after our rekey.
func (s *sa) closeReplaced(now time.Time) {
	c := ike.Closed{Cause: ike.CauseReplaced, Reason: "replaced"}
	s.closing = &c
	s.enqueueFirst(&deleteIKE{why: c})
	s.run(now)
}

func (t *rekeyIKE) refused(s *sa, now time.Time, n *wire.Notify) {
	s.finish()
	if t.theirs != nil {
		s.succeedBy(now, t.theirs) // the peer's rekey came through instead
		return
	}
	t.tries++
	if n.NotifyType == wire.InvalidKEPayload && len(n.Data) == 2 && t.tries <= limitKERetries {
		g := suite.TransformID(binary.BigEndian.Uint16(n.Data))
		if g != t.group && offersKE(t.offered, g) {
			s.enqueueFirst(&rekeyIKE{group: g, tries: t.tries})
			return
		}
	}
	if (n.NotifyType == wire.TemporaryFailure || n.NotifyType == wire.StateNotFound) && t.tries <= limitTemporary {
		s.later(now.Add(retryTemporary+ike.RandomSpan(retryTemporary)), &rekeyIKE{tries: t.tries})
		return
	}
	s.reject(peerRefused(n, proposalText(t.offered), ""))
	s.life.rekeyAt = now.Add(retryRekey + ike.RandomSpan(retryRekey/2))
}

// successor makes the IKE SA that a rekey agreed on.
func (s *sa) successor(now time.Time, initiator bool, ours, peers uint64, sel suite.Selected, x secrets, ni, nr []byte) (*sa, error) {
	n := &sa{peer: s.env.CurrentPeer(s.peer), initiator: initiator, local: s.local, remote: s.remote, nat: s.nat, ids: s.ids, vendor: s.vendor, ppk: s.ppk, ppkID: s.ppkID, peerCaps: s.peerCaps,
		tieBreak: slices.Clone(lowerNonce(ni, nr)), state: established{}}
	n.spiI, n.spiR = ours, peers
	if !initiator {
		n.spiI, n.spiR = peers, ours
	}
	n.env = s.env
	skeyseed := s.keys.rekeySeed(x, ni, nr)
	x.zero()
	if err := n.armKeys(sel, skeyseed, ni, nr); err != nil {
		return nil, err
	}
	n.keys.proved() // by the IKE SA that is replaced
	s.env.Adopt(now, initiator, func(env *ike.Env) ike.SA {
		n.env = env
		env.Register(ours, peers)
		return n
	})
	return n, nil
}

// decidedByUse settles a collision of IKE SA rekeys early: a peer that makes
// requests in the IKE SA of its rekey, other than to delete it, has decided for it.
func (s *sa) decidedByUse(now time.Time, in *inbound) {
	if s.undecided == nil {
		return
	}
	for _, p := range in.payloads {
		if d, ok := p.(*wire.Delete); ok && d.Protocol == wire.ProtocolIKE {
			return
		}
	}
	s.undecided.succeedBy(now, s)
}

// succeedBy hands everything over to the new IKE SA, once.
func (s *sa) succeedBy(now time.Time, n *sa) {
	n.redundant, n.undecided = false, nil
	if s.replacedBy != nil || s.state.phase() == phaseDead {
		return
	}
	old := s.Info()
	s.replacedBy = n
	s.forgetAwaiting()
	n.local, n.remote, n.nat = s.local, s.remote, s.nat
	n.vips, s.vips = s.vips, nil
	s.handMobike(now, n)
	n.children, s.children = append(n.children, s.children...), nil
	move := func(t task) bool {
		switch t.(type) {
		case *rekeyIKE, *deleteIKE, dpd:
			return false
		}
		return true
	}
	for _, t := range s.sched.queue {
		if move(t) {
			n.sched.queue = append(n.sched.queue, t)
		}
	}
	for _, d := range s.sched.delayed {
		if move(d.t) {
			n.sched.delayed = append(n.sched.delayed, d)
		}
	}
	s.sched.queue, s.sched.delayed = nil, nil
	n.inherit(now, s)
	n.setTimers(now)
	n.inheritAuth(s, s.life.reauthAt)
	s.life.rekeyAt, s.life.reauthAt, s.life.dpdAt, s.life.keepAliveAt = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	s.life.endAt = now.Add(timeoutReplaced)
	s.env.CountRekeyIKE()
	s.env.Succeed(now, n.env)
	s.env.Emit(ike.IKERekeyed{Old: old, New: n.Info()})
	n.run(now)
}

// inherit takes over the list of replaced IKE SAs, with the one that was replaced
// now. A peer that rekeys and never deletes does not keep them all.
func (s *sa) inherit(now time.Time, old *sa) {
	s.previous = append(slices.DeleteFunc(old.previous, func(x *sa) bool { return x.state.phase() == phaseDead }), old)
	old.previous = nil
	for len(s.previous) > limitReplaced {
		oldest := s.previous[0]
		s.previous = slices.Delete(s.previous, 0, 1)
		oldest.end(now, ike.Closed{Cause: ike.CauseReplaced, Reason: "replaced, and not deleted by the peer"})
	}
}

// rekeyIKERequest answers the peer's rekey of the IKE SA.
func (s *sa) rekeyIKERequest(now time.Time, in *inbound, saP *wire.SA) {
	t, colliding := s.sched.current.(*rekeyIKE)
	if s.sched.current != nil && !colliding || colliding && t.theirs != nil {
		if _, check := s.sched.current.(dpd); !check {
			s.respondNotify(now, in, wire.TemporaryFailure, nil) // §2.25.2
			return
		}
	}
	ke, _ := wire.First[*wire.KE](in.payloads)
	ni, _ := wire.First[*wire.Nonce](in.payloads)
	if ke == nil {
		s.respondNotify(now, in, wire.InvalidSyntax, nil)
		return
	}
	peer, theirs := s.env.CurrentPeer(s.peer), fromWire(saP)
	sel, i, err := suite.Select(peer.Proposals, theirs, suite.SelectOptions{PreferPeer: peer.PreferPeer, KE: suite.TransformID(ke.Group)})
	if err != nil {
		s.reject(noProposal(err, peer.Proposals, theirs))
		s.respondNotify(now, in, wire.NoProposalChosen, nil)
		return
	}
	if sel.KE.ID != suite.TransformID(ke.Group) {
		s.respondNotify(now, in, wire.InvalidKEPayload, binary.BigEndian.AppendUint16(nil, uint16(sel.KE.ID)))
		return
	}
	spiB := saP.Proposals[i].SPI
	if len(spiB) != 8 || binary.BigEndian.Uint64(spiB) == 0 {
		s.respondNotify(now, in, wire.InvalidSyntax, nil)
		return
	}
	spi, ours, nr := binary.BigEndian.Uint64(spiB), s.env.NewSPI(), newNonce()
	number, nonce := saP.Proposals[i].Number, slices.Clone(ni.Data)
	named, ppk := in.freshPayload(), in.fresh.take()
	made := func(now time.Time, in *inbound, x secrets, answer []wire.Payload) {
		if t, _ := s.sched.current.(*rekeyIKE); s.closing != nil || s.replacedBy != nil || t != nil && t.theirs != nil {
			x.zero() // meanwhile another rekey came through
			s.respondNotify(now, in, wire.TemporaryFailure, nil)
			return
		}
		n, err := s.successor(now, false, ours, spi, sel, x, nonce, nr)
		if err != nil {
			s.reject(&ike.Rejection{Reason: ike.ReasonInternal, Difference: "key exchange: " + err.Error()})
			s.respondNotify(now, in, wire.TemporaryFailure, nil)
			return
		}
		s.respond(now, in, append(answer, n.crashNotify()...))
		if t, _ := s.sched.current.(*rekeyIKE); t != nil {
			t.theirs = n
			n.redundant, n.undecided = true, s // until decided
			return
		}
		s.succeedBy(now, n)
	}
	respondKE(s, now, sel.KE, ke.Data, func(now time.Time, public []byte, shared suite.Key, err error) {
		if err != nil {
			ppk.Zero()
			s.reject(&ike.Rejection{Reason: ike.ReasonSyntax, Notify: wire.InvalidSyntax.String(), Difference: "key exchange: " + err.Error()})
			s.respondNotify(now, in, wire.InvalidSyntax, nil)
			return
		}
		saR := toWire([]suite.Proposal{sel.Proposal()}, binary.BigEndian.AppendUint64(nil, ours))
		saR.Proposals[0].Number = number
		answer := append([]wire.Payload{saR, &wire.Nonce{Data: nr}, &wire.KE{Group: uint16(sel.KE.ID), Data: public}}, named...)
		if more := sel.AdditionalKE(); len(more) > 0 {
			s.awaitFollowups(now, in, answer, &awaited{ike: true, left: more, x: secrets{first: shared, ppk: ppk}, drop: func() {},
				last: func(now time.Time, in *inbound, x secrets, ke *wire.KE) { made(now, in, x, []wire.Payload{ke}) }})
			return
		}
		made(now, in, secrets{first: shared, ppk: ppk}, answer)
	})
}

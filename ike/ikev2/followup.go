package ikev2

import (
	"bytes"
	"crypto/rand"
	"slices"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/suite"
)

// The additional key exchanges of CREATE_CHILD_SA (RFC 9370 §2.2.4): after its answer
// there is one IKE_FOLLOWUP_KE for each of them. ADDITIONAL_KEY_EXCHANGE links them: the
// responder puts something into each answer but the last, and the initiator gives it back.
// The new SA comes into being with the last answer.

// following is the initiator's side, of the task in flight.
type following struct {
	left []suite.Transform
	link []byte
	ke   suite.KeyExchange
	x    secrets
	then func(time.Time, secrets, *followFailure)
}

// followFailure is why additional key exchanges came to nothing: what the peer says, or
// what we found.
type followFailure struct {
	notify *wire.Notify
	why    string
}

func (f *following) wipe() {
	if f != nil {
		f.x.zero()
		f.ke = nil
	}
}

// followUp does the additional key exchanges of the task in flight, whose answer was in.
// then gets all shared secrets.
func (s *sa) followUp(now time.Time, in *inbound, sel suite.Selected, x secrets, then func(time.Time, secrets, *followFailure)) {
	f := &following{left: sel.AdditionalKE(), x: x, then: then}
	if len(f.left) == 0 {
		then(now, f.x, nil)
		return
	}
	s.sched.follow = f
	s.followOn(now, f, in)
}

// followFailed ends the additional key exchanges of the task in flight.
func (s *sa) followFailed(now time.Time, f *following, n *wire.Notify, why string) {
	f.wipe()
	s.sched.follow = nil
	f.then(now, secrets{}, &followFailure{n, why})
}

// followOn asks for the next additional key exchange after the answer in.
func (s *sa) followOn(now time.Time, f *following, in *inbound) {
	n := wire.FindNotify(in.payloads, wire.AdditionalKeyExchange)
	if n == nil || len(n.Data) == 0 || len(n.Data) > limitLink {
		s.followFailed(now, f, nil, "the answer has no "+wire.AdditionalKeyExchange.String()+" although "+f.left[0].Type.String()+" is to come")
		return
	}
	f.link = slices.Clone(n.Data)
	makeKE(s, now, f.left[0].ID, func(now time.Time, ke suite.KeyExchange, err error) {
		if err != nil {
			s.followFailed(now, f, nil, f.left[0].Type.String()+": "+err.Error())
			return
		}
		f.ke = ke
		s.request(now, wire.ExchangeIKEFollowupKE, []wire.Payload{&wire.KE{Group: uint16(f.left[0].ID), Data: ke.Public()}, notify(wire.AdditionalKeyExchange, f.link)})
	})
}

// followupResponse takes the responder's half of an additional key exchange.
func (s *sa) followupResponse(now time.Time, in *inbound) {
	f := s.sched.follow
	if f == nil {
		return
	}
	if n := errorNotify(in.payloads); n != nil {
		s.followFailed(now, f, n, n.NotifyType.String())
		return
	}
	method := f.left[0]
	ke, _ := wire.First[*wire.KE](in.payloads)
	if why := wrongKE(method, ke); why != "" {
		s.followFailed(now, f, nil, why)
		return
	}
	type made struct {
		shared suite.Key
		err    error
	}
	kx, public := f.ke, slices.Clone(ke.Data)
	compute(s, now, "shared secret "+method.Name(), slowGroup(method.ID), func() made {
		k, err := kx.Shared(public)
		return made{k, err}
	}, func(now time.Time, m made, err error) {
		if err == nil {
			err = m.err
		}
		if err != nil {
			s.followFailed(now, f, nil, method.Type.String()+" ("+method.Name()+"): "+err.Error())
			return
		}
		f.x.more = appendSecret(f.x.more, m.shared)
		if f.left = f.left[1:]; len(f.left) > 0 {
			s.followOn(now, f, in)
			return
		}
		s.sched.follow = nil
		f.then(now, f.x, nil)
	})
}

// appendSecret makes SK(1) | … | SK(n), and leaves no copy of its parts.
func appendSecret(all, next suite.Key) suite.Key {
	out := slices.Concat(all, next)
	all.Zero()
	next.Zero()
	return out
}

// awaited is the responder's side: an exchange of the peer's that is not done before its
// additional key exchanges are.
type awaited struct {
	link  []byte
	left  []suite.Transform
	x     secrets
	until time.Time
	ike   bool // it replaces the IKE SA
	// last makes the SA and answers the last exchange, in, with ke and what else there is.
	last func(now time.Time, in *inbound, x secrets, ke *wire.KE)
	drop func() // instead, if it does not come to that
}

// awaitFollowups answers the peer's exchange with its first key exchange, and expects the
// additional ones.
func (s *sa) awaitFollowups(now time.Time, in *inbound, answer []wire.Payload, w *awaited) {
	if len(s.awaiting) >= limitAwaiting { // the oldest: the peer has given it up
		s.dropAwaited(s.awaiting[0])
	}
	s.awaiting = append(s.awaiting, w)
	s.respond(now, in, append(answer, w.next(now)))
}

// next is the notify by which the next exchange is known.
func (w *awaited) next(now time.Time) *wire.Notify {
	w.link, w.until = make([]byte, 8), now.Add(timeoutAwaiting)
	rand.Read(w.link)
	return notify(wire.AdditionalKeyExchange, w.link)
}

// followupRequest answers an additional key exchange of the peer's.
func (s *sa) followupRequest(now time.Time, in *inbound) {
	n := wire.FindNotify(in.payloads, wire.AdditionalKeyExchange)
	var w *awaited
	for _, x := range s.awaiting {
		if n != nil && bytes.Equal(x.link, n.Data) {
			w = x
		}
	}
	refuse := func(now time.Time, t wire.NotifyType, why string) {
		if w != nil {
			s.dropAwaited(w)
		}
		s.reject(&ike.Rejection{Reason: ike.ReasonSyntax, Notify: t.String(), Difference: why})
		s.respondNotify(now, in, t, nil)
	}
	switch {
	case n == nil:
		refuse(now, wire.InvalidSyntax, "IKE_FOLLOWUP_KE without "+wire.AdditionalKeyExchange.String())
		return
	case w == nil:
		refuse(now, wire.StateNotFound, "IKE_FOLLOWUP_KE, but nothing that it belongs to waits")
		return
	}
	method := w.left[0]
	ke, _ := wire.First[*wire.KE](in.payloads)
	if why := wrongKE(method, ke); why != "" {
		refuse(now, wire.InvalidSyntax, why)
		return
	}
	respondKE(s, now, method, ke.Data, func(now time.Time, public []byte, shared suite.Key, err error) {
		if err != nil {
			refuse(now, wire.InvalidSyntax, method.Type.String()+" ("+method.Name()+"): "+err.Error())
			return
		}
		answer := &wire.KE{Group: uint16(method.ID), Data: public}
		w.x.more = appendSecret(w.x.more, shared)
		if w.left = w.left[1:]; len(w.left) > 0 {
			s.respond(now, in, []wire.Payload{answer, w.next(now)})
			return
		}
		s.awaiting = slices.DeleteFunc(s.awaiting, func(x *awaited) bool { return x == w })
		w.last(now, in, w.x, answer)
	})
}

// rekeyAwaited reports whether the peer is about to replace the IKE SA: what we have to
// do waits for the new one.
func (s *sa) rekeyAwaited() bool {
	return s.closing == nil && slices.ContainsFunc(s.awaiting, func(w *awaited) bool { return w.ike })
}

// dropAwaited gives up an exchange whose additional key exchanges do not come.
func (s *sa) dropAwaited(w *awaited) {
	s.awaiting = slices.DeleteFunc(s.awaiting, func(x *awaited) bool { return x == w })
	w.x.zero()
	w.drop()
}

func (s *sa) forgetAwaiting() {
	for len(s.awaiting) > 0 {
		s.dropAwaited(s.awaiting[0])
	}
	s.awaiting = nil
}

// wakeAwaiting gives up what has waited long enough.
func (s *sa) wakeAwaiting(now time.Time) {
	if s.sched.busy != 0 {
		return // it may be at one of them
	}
	for _, w := range slices.Clone(s.awaiting) {
		if !now.Before(w.until) {
			s.dropAwaited(w)
		}
	}
}

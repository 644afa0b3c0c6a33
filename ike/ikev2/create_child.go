package ikev2

import (
	"encoding/binary"
	"slices"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/ipsec"
	"adit/suite"
)

// childExchange is what CREATE_CHILD_SA for a new Child SA and for a rekey have
// in common (RFC 7296 §1.3.1, §1.3.3).
type childExchange struct {
	offer *childOffer
	group suite.TransformID // asked for by INVALID_KE_PAYLOAD; KENone: our first
	tries int               // INVALID_KE_PAYLOAD and TEMPORARY_FAILURE
}

// prepare makes nonce and key pair of an offer, then sends the request.
func (x *childExchange) prepare(s *sa, now time.Time, send func(time.Time)) {
	o := x.offer
	o.nonce = newNonce()
	with := send
	send = func(now time.Time) {
		s.offerFresh(now, o.nonce, func(now time.Time, list []wire.Payload) {
			o.ppk = list
			with(now)
		})
	}
	if o.group = x.group; o.group == suite.KENone {
		o.group = firstKE(o.proposals)
	}
	if o.group == suite.KENone {
		send(now)
		return
	}
	for i, p := range o.proposals {
		if q, ok := p.WithKEFirst(o.group); ok {
			if i == 0 || x.group != suite.KENone {
				o.proposals = slices.Clone(o.proposals)
				o.proposals[i] = q
			}
		}
	}
	makeKE(s, now, o.group, func(now time.Time, ke suite.KeyExchange, err error) {
		if err != nil {
			s.reject(&ike.Rejection{SAKey: ike.SAKey{Child: o.c.cfg.Name}, Reason: ike.ReasonInternal, Difference: "key exchange: " + err.Error()})
			s.forgetChild(o.c)
			s.finish()
			return
		}
		o.ke = ke
		send(now)
	})
}

// makeKE makes a key pair, elsewhere if that is slow.
func makeKE(s *sa, now time.Time, g suite.TransformID, then func(time.Time, suite.KeyExchange, error)) {
	type made struct {
		ke  suite.KeyExchange
		err error
	}
	compute(s, now, "key exchange "+suite.Transform{Type: suite.TypeKE, ID: g}.Name(), slowGroup(g), func() made {
		ke, err := suite.NewKeyExchange(g)
		return made{ke, err}
	}, func(now time.Time, m made, err error) {
		if err == nil {
			err = m.err
		}
		if err == nil && m.ke == nil {
			err = errNoAnswerInTime
		}
		then(now, m.ke, err)
	})
}

// request is SA, Ni, KE, TSi, TSr and notifies.
func (x *childExchange) request(front ...wire.Payload) []wire.Payload {
	o := x.offer
	mid := []wire.Payload{&wire.Nonce{Data: o.nonce}}
	if o.ke != nil {
		mid = append(mid, &wire.KE{Group: uint16(o.group), Data: o.ke.Public()})
	}
	return append(append(front, o.payloads(mid...)...), o.ppk...)
}

// wantsGroup reads INVALID_KE_PAYLOAD; KENone: nothing that we offered, or too often.
func (x *childExchange) wantsGroup(n *wire.Notify) suite.TransformID {
	if x.tries++; n.NotifyType != wire.InvalidKEPayload || len(n.Data) != 2 || x.tries > limitKERetries {
		return suite.KENone
	}
	g := suite.TransformID(binary.BigEndian.Uint16(n.Data))
	if !offersKE(x.offer.proposals, g) || g == x.offer.group {
		return suite.KENone
	}
	return g
}

// complete checks the answer and computes the shared secret.
func (x *childExchange) complete(s *sa, now time.Time, in *inbound, then func(now time.Time, x secrets, nr []byte, r *ike.Rejection)) {
	o := x.offer
	if r := s.accepted(o, in.payloads, false); r != nil {
		then(now, secrets{}, nil, s.reject(r))
		return
	}
	if slices.Contains(s.earlyDeletes, o.c.spiOut) {
		then(now, secrets{}, nil, s.reject(&ike.Rejection{SAKey: ike.SAKey{Child: o.c.cfg.Name}, Reason: ike.ReasonPeer, ByPeer: true, Difference: "the peer deleted the Child SA at once"}))
		return
	}
	nr, _ := wire.First[*wire.Nonce](in.payloads)
	ke, _ := wire.First[*wire.KE](in.payloads)
	ppk, wrongPPK := s.freshAnswered(in.payloads)
	wrong := func(why string) {
		ppk.Zero() // if it is still here
		then(now, secrets{}, nil, s.reject(&ike.Rejection{SAKey: ike.SAKey{Child: o.c.cfg.Name}, Reason: ike.ReasonSyntax, Difference: why}))
	}
	switch {
	case wrongPPK != "":
		wrong(wrongPPK)
		return
	case nr == nil:
		wrong("the answer has no nonce")
		return
	case !o.c.suite.KEPresent:
		then(now, secrets{ppk: ppk}, nr.Data, nil)
		return
	case ke == nil || o.ke == nil || suite.TransformID(ke.Group) != o.group || o.c.suite.KE.ID != o.group:
		wrong("the answer's key exchange is of another group than ours")
		return
	}
	type made struct {
		shared suite.Key
		err    error
	}
	public := slices.Clone(ke.Data)
	compute(s, now, "shared secret "+o.c.suite.KE.Name(), slowGroup(o.group), func() made {
		k, err := o.ke.Shared(public)
		return made{k, err}
	}, func(now time.Time, m made, err error) {
		if err == nil {
			err = m.err
		}
		if err != nil {
			wrong("key exchange: " + err.Error())
			return
		}
		s.followUp(now, in, o.c.suite, secrets{first: m.shared, ppk: ppk}, func(now time.Time, all secrets, f *followFailure) {
			switch {
			case f == nil:
				then(now, all, nr.Data, nil)
			case f.notify != nil:
				then(now, secrets{}, nil, s.childRefused(o.c.cfg, o, f.notify))
			default:
				wrong(f.why)
			}
		})
	})
}

// createChild is our request for a further Child SA.
type createChild struct {
	childExchange
	cfg    *ike.Child
	req    *ike.ChildRequest   // nil: nobody waits
	more   []*ike.ChildRequest // others that wait for the same Child SA
	single bool
	// pairs has selectors asked for one pair a Child SA; pair is the one in flight.
	pairs *pairing
	pair  pair
}

func (t *createChild) name() string { return "CHILD_CREATE " + t.cfg.Name }

// CreateChild makes a Child SA.
func (s *sa) CreateChild(now time.Time, r *ike.ChildRequest) {
	if r.Child == nil {
		s.env.ChildDone(now, r, nil)
		return
	}
	for _, q := range s.sched.all() {
		if t, ok := q.(*createChild); ok && t.cfg.Name == r.Child.Name && t.resource() == resourceOf(r.Acquired) && (t.pairs == nil || t.req != nil) && (r.Acquired == nil || t != s.sched.current && t.req == nil) && len(t.more) < limitTasks {
			t.more = append(t.more, r)
			return
		}
	}
	if !s.enqueue(&createChild{cfg: r.Child, req: r}) {
		s.env.ChildDone(now, r, &ike.Rejection{SAKey: ike.SAKey{Name: s.peer.Name, Child: r.Child.Name}, Reason: ike.ReasonLimit, Difference: "too many exchanges wait"})
		return
	}
	s.run(now)
}

func (t *createChild) begin(s *sa, now time.Time) {
	if len(s.children) >= limitChildren {
		t.failed(s, now, s.reject(&ike.Rejection{SAKey: ike.SAKey{Child: t.cfg.Name}, Reason: ike.ReasonLimit, Difference: "too many Child SAs in one IKE SA"}))
		return
	}
	if no := s.cp().refused; no != nil {
		r := *no.record
		r.Child = t.cfg.Name
		t.failed(s, now, s.reject(&r))
		if again := s.cp().again; !again {
			s.holding().again = true
		} else if len(s.cp().asked) > 0 && len(s.children) == 0 {
			// Addresses are asked for in IKE_AUTH alone: whoever goes on trying needs a new IKE SA.
			s.Close(now, ike.Closed{Cause: ike.CauseFailed, Reason: "the peer gave it no virtual address"}, false)
		}
		return
	}
	var like *child
	if t.resource() > 0 {
		if like = s.wantsResource(t); like == nil {
			t.ended(s, now, nil)
			return
		}
	}
	if t.pairs != nil {
		var ok bool
		if t.pair, ok = t.pairs.next(s, t.cfg); !ok {
			t.nextPair(s, now)
			return
		}
	} else if slices.ContainsFunc(s.children, func(c *child) bool {
		return c.cfg.Name == t.cfg.Name && (c.state == childInstalled || c.state == childRekeying) && t.req != nil && c.info(s).Covers(t.req.Acquired)
	}) {
		t.ended(s, now, nil) // the peer was faster
		return
	}
	var acquired *ipsec.Acquire
	if t.req != nil {
		acquired = t.req.Acquired
	}
	t.offer = s.offer(now, t.cfg, acquired, true, t.single, nil)
	if like != nil {
		s.offerLike(t.offer, like, acquired)
	}
	if t.pairs != nil {
		t.offer.local, t.offer.remote = []ipsec.Selector{t.pair.local}, []ipsec.Selector{t.pair.remote}
	}
	t.prepare(s, now, func(now time.Time) { s.request(now, wire.ExchangeCreateChildSA, t.request()) })
}

func (t *createChild) answered(s *sa, now time.Time, in *inbound) {
	if n := errorNotify(in.payloads); n != nil {
		o := t.offer
		s.forgetChild(o.c)
		switch g := t.wantsGroup(n); {
		case g != suite.KENone:
			t.group = g
			t.again()
			t.begin(s, now)
		case n.NotifyType == wire.SinglePairRequired && !t.single && t.pairs == nil:
			t.single = true
			t.begin(s, now)
		case n.NotifyType == wire.TemporaryFailure && t.tries <= limitTemporary:
			t.again()
			s.finish()
			s.later(now.Add(retryTemporary+ike.RandomSpan(retryTemporary)), t)
		case t.resource() > 0:
			s.resourceRefused(now, t, n.NotifyType.String())
		case t.pairs != nil:
			t.pairRefused(s, now, n, t.pair)
		case s.askForPairs(o, n, t.req, t.more):
			s.finish()
		default:
			t.failed(s, now, s.childRefused(t.cfg, o, n))
		}
		return
	}
	t.complete(s, now, in, func(now time.Time, shared secrets, nr []byte, r *ike.Rejection) {
		c := t.offer.c
		if r != nil {
			s.enqueueFirst(&deleteOrphan{spi: c.spiIn})
			s.forgetChild(c)
			if t.resource() > 0 {
				s.resourceRefused(now, t, r.Difference)
				return
			}
			t.failed(s, now, r)
			return
		}
		s.installChild(now, c, true, shared, t.offer.nonce, nr, false, func(now time.Time, r *ike.Rejection) {
			if r != nil {
				s.enqueueFirst(&deleteOrphan{spi: c.spiIn})
				t.failed(s, now, r)
				return
			}
			s.activate(c)
			s.announce(now, c)
			s.settleTwins(now, c)
			if t.pairs == nil {
				t.ended(s, now, nil)
				s.askForRest(now, t.offer, t.req)
				return
			}
			t.pairs.granted = true
			t.tell(s, now, nil)
			t.nextPair(s, now)
		})
	})
}

func (t *createChild) failed(s *sa, now time.Time, r *ike.Rejection) { t.ended(s, now, r) }

// ended tells all who wait.
func (t *createChild) ended(s *sa, now time.Time, r *ike.Rejection) {
	s.finish()
	t.tell(s, now, r)
}

// tell answers those who wait, once.
func (t *createChild) tell(s *sa, now time.Time, r *ike.Rejection) {
	if t.req != nil {
		s.env.ChildDone(now, t.req, r)
	}
	for _, req := range t.more {
		s.env.ChildDone(now, req, r)
	}
	t.req, t.more = nil, nil
}

func (t *createChild) cancel(*sa, time.Time) {}

// settleTwins deletes a Child SA of ours whose twin the peer asked for at the
// same moment: of the two the one with the lower nonce goes, deleted by who made
// it, as for rekeys (RFC 7296 §2.8.1). A peer without this rule keeps both.
func (s *sa) settleTwins(now time.Time, ours *child) {
	for _, o := range slices.Clone(s.children) {
		twin := o != ours && o.cfg == ours.cfg && o.resource+ours.resource == 0 && o.state == childInstalled && !o.initiator && o.replacement == nil &&
			!o.born.Before(ours.requested) && slices.Equal(o.localTS, ours.localTS) && slices.Equal(o.remoteTS, ours.remoteTS)
		if twin && slices.Compare(ours.nonce, o.nonce) < 0 {
			s.activate(o)
			s.deleteChild(now, ours, ike.CauseReplaced, "the peer asked for the same Child SA at once")
			return
		}
	}
}

// createRequest answers CREATE_CHILD_SA: an IKE SA rekey, a Child SA rekey or a
// new Child SA, told apart by proposal and REKEY_SA.
func (s *sa) createRequest(now time.Time, in *inbound) {
	saP, _ := wire.First[*wire.SA](in.payloads)
	if len(saP.Proposals) == 0 {
		s.respondNotify(now, in, wire.NoProposalChosen, nil)
		return
	}
	s.takeFresh(now, in, func(now time.Time) { s.createRequested(now, in, saP) })
}

func (s *sa) createRequested(now time.Time, in *inbound, saP *wire.SA) {
	if s.closing != nil || s.replacedBy != nil {
		s.respondNotify(now, in, wire.TemporaryFailure, nil)
		return
	}
	if saP.Proposals[0].Protocol == wire.ProtocolIKE {
		s.rekeyIKERequest(now, in, saP)
		return
	}
	if _, rekeying := s.sched.current.(*rekeyIKE); rekeying {
		s.respondNotify(now, in, wire.TemporaryFailure, nil) // RFC 7296 §2.25.2
		return
	}
	if n := wire.FindNotify(in.payloads, wire.RekeySA); n != nil {
		s.rekeyChildRequest(now, in, n)
		return
	}
	s.grantChild(now, in, nil, s.stillMakes, func(now time.Time, c *child) {
		s.activate(c)
		s.announce(now, c)
		s.yieldTwin(now, c)
	})
}

// yieldTwin is settleTwins where the peer's request came only after ours was
// answered: it was on its way then, and the peer compares when our answer comes.
func (s *sa) yieldTwin(now time.Time, theirs *child) {
	for _, o := range slices.Clone(s.children) {
		twin := o != theirs && o.cfg == theirs.cfg && o.resource+theirs.resource == 0 && o.state == childInstalled && o.initiator && o.replacement == nil && now.Sub(o.born) < timeoutReplaced &&
			slices.Equal(o.localTS, theirs.localTS) && slices.Equal(o.remoteTS, theirs.remoteTS)
		if twin && slices.Compare(o.nonce, theirs.nonce) < 0 {
			s.deleteChild(now, o, ike.CauseReplaced, "the peer asked for the same Child SA at once")
			return
		}
	}
}

// grantChild negotiates a Child SA as responder, installs and answers; done is
// called after a success. With additional key exchanges that is after the last of
// them: still then tells whether it may be, or what the peer is answered.
func (s *sa) grantChild(now time.Time, in *inbound, old *child, still func() (wire.NotifyType, string), done func(time.Time, *child)) {
	ch, refused := s.choose(now, in.payloads, old, true)
	if refused != nil {
		if refused.record != nil {
			refused.record.Notify = refused.notify.String()
			s.reject(refused.record)
		}
		s.respondNotify(now, in, refused.notify, refused.data)
		return
	}
	ni, _ := wire.First[*wire.Nonce](in.payloads)
	nr := newNonce()
	front := append([]wire.Payload{&wire.Nonce{Data: nr}}, in.freshPayload()...)
	ppk := in.fresh.take()
	install := func(now time.Time, in *inbound, x secrets, answer []wire.Payload) {
		s.installChild(now, ch.c, false, x, ni.Data, nr, false, func(now time.Time, r *ike.Rejection) {
			if r != nil {
				s.respondNotify(now, in, wire.TemporaryFailure, nil)
				return
			}
			s.respond(now, in, answer)
			done(now, ch.c)
		})
	}
	if ch.group == suite.KENone {
		install(now, in, secrets{ppk: ppk}, s.grant(ch, front...))
		return
	}
	ke, _ := wire.First[*wire.KE](in.payloads)
	respondKE(s, now, ch.c.suite.KE, ke.Data, func(now time.Time, public []byte, shared suite.Key, err error) {
		if err != nil {
			ppk.Zero()
			s.forgetChild(ch.c)
			s.reject(&ike.Rejection{SAKey: ike.SAKey{Child: ch.c.cfg.Name}, Reason: ike.ReasonSyntax, Notify: wire.InvalidSyntax.String(), Difference: "key exchange: " + err.Error()})
			s.respondNotify(now, in, wire.InvalidSyntax, nil)
			return
		}
		grant := s.grant(ch, append(front, &wire.KE{Group: uint16(ch.group), Data: public})...)
		more := ch.c.suite.AdditionalKE()
		if len(more) == 0 {
			install(now, in, secrets{first: shared, ppk: ppk}, grant)
			return
		}
		s.awaitFollowups(now, in, grant, &awaited{left: more, x: secrets{first: shared, ppk: ppk}, drop: func() { s.forgetChild(ch.c) },
			last: func(now time.Time, in *inbound, x secrets, ke *wire.KE) {
				if t, why := still(); t != 0 {
					x.zero()
					s.note(2, why)
					s.forgetChild(ch.c)
					s.respondNotify(now, in, t, nil)
					return
				}
				install(now, in, x, []wire.Payload{ke})
			}})
	})
}

// stillMakes tells whether a Child SA may still be made after additional key
// exchanges, during which other exchanges can have come.
func (s *sa) stillMakes() (wire.NotifyType, string) {
	if !s.Usable() {
		return wire.TemporaryFailure, "the IKE SA was replaced, or is being closed, during additional key exchanges"
	}
	return 0, ""
}

// refuseWhileClosing answers a CREATE_CHILD_SA or IKE_FOLLOWUP_KE that crosses our Delete.
func (s *sa) refuseWhileClosing(now time.Time, in *inbound) {
	s.respondNotify(now, in, wire.TemporaryFailure, nil)
}

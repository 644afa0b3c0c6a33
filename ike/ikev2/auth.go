package ikev2

import (
	"crypto/rand"
	"slices"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/internal/simbug"
	"adit/ipsec"
	"adit/suite"
)

// beginAuth looks up the shared key, then sends IKE_AUTH (RFC 7296 §1.2, §2.15).
func (s *sa) beginAuth(now time.Time) {
	st := s.state.(*authSent)
	s.askPSK(now, s.ids[0], s.peer.Remote[0].ID, s.peer, func(now time.Time, psks []suite.Key) {
		if len(psks) == 0 {
			s.fail(now, &ike.Rejection{Reason: ike.ReasonAuthentication, Ours: s.ids[0].String(), Theirs: s.peer.Remote[0].ID.String(),
				Difference: "no shared key for these identities", Hint: "secrets.ike*"})
			return
		}
		st.psks = psks
		s.sendAuth(now, st)
	})
}

// askPSK asks for the shared keys of two identities.
func (s *sa) askPSK(now time.Time, local, remote ike.Identity, p *ike.Peer, then func(time.Time, []suite.Key)) {
	job := s.env.NewJob()
	s.await(job, func(now time.Time, r ike.Result) {
		var own []suite.Key
		if list, ok := r.Value.([]suite.Key); ok && r.Err == nil {
			for _, k := range list[:min(len(list), limitPSKs)] {
				own = append(own, slices.Clone(k)) // the giver keeps its own, we zero ours
			}
		}
		then(now, own)
	})
	s.sched.busyUntil = now.Add(timeoutAsk)
	s.env.Effect(ike.Ask{Job: job, Deadline: s.sched.busyUntil, Question: ike.PSKLookup{Peer: p, LocalID: local, RemoteID: remote, Local: s.local.Addr(), Remote: s.remote.Addr()}})
}

// sendAuth builds IKE_AUTH as initiator.
func (s *sa) sendAuth(now time.Time, st *authSent) {
	idi := idPayload(wire.PayloadIDi, s.ids[0])
	list := []wire.Payload{idi}
	if want := s.peer.Remote[0].ID; !want.IsPattern() {
		list = append(list, idPayload(wire.PayloadIDr, want))
	}
	auth := s.keys.pskAuth(st.psks[0], st.request, st.nr, idi, true)
	list = append(list, &wire.Auth{Method: wire.AuthSharedKey, Data: auth})
	if !st.reauth && s.peer.Unique != ike.UniqueNever && !s.env.HasContact(s.ids[0], s.peer.Remote[0].ID, s.remote.Addr()) {
		st.initialContact = true
		list = append(list, notify(wire.InitialContact, nil))
	}
	child, req := s.firstChild(st)
	if child != nil {
		st.offer = s.offer(now, child, req.Acquired, false, false)
		list = append(list, st.offer.payloads()...)
	}
	s.win.sendID = 1
	s.request(now, wire.ExchangeIKEAuth, list)
}

// firstChild is the Child SA that IKE_AUTH asks for. A peer that does not know
// RFC 6023 needs one even if none is wanted.
func (s *sa) firstChild(st *authSent) (*ike.Child, *ike.ChildRequest) {
	if st.child != nil {
		return st.child.Child, st.child
	}
	if !s.peerCaps.childless {
		for _, c := range s.peer.Children {
			if c.Action == ipsec.Protect {
				return c, &ike.ChildRequest{Child: c}
			}
		}
	}
	return nil, nil
}

// authRequest answers IKE_AUTH: who is it, does the key fit, then the first Child SA.
func (s *sa) authRequest(now time.Time, in *inbound) {
	st := s.state.(*initReceived)
	idi, idr := wire.FindID(in.payloads, wire.PayloadIDi), wire.FindID(in.payloads, wire.PayloadIDr)
	auth, _ := wire.First[*wire.Auth](in.payloads)
	remote := identity(idi)
	s.ids[1] = remote
	peers, not := s.candidates(st, remote, idr)
	// An unknown identity takes the same way as a known one with a wrong key: the
	// question is asked, the keys are random, the answer is the same.
	asked, known := st.candidates[0], len(peers) > 0
	if known {
		asked = peers[0]
	}
	ours := localID(asked, s.local.Addr())
	s.askPSK(now, ours, remote, asked, func(now time.Time, psks []suite.Key) {
		s.checkAuth(now, st, in, idi, auth, asked, ours, psks, known, not)
	})
}

// candidates are the connections that the identities fit, best first.
func (s *sa) candidates(st *initReceived, remote ike.Identity, idr *wire.ID) (fit []*ike.Peer, not []ike.Candidate) {
	type scored struct {
		p     *ike.Peer
		score int
	}
	var list []scored
	not = slices.Clone(st.passed)
	for _, p := range st.candidates {
		why, score := "", 0
		if m := remote.Match(p.Remote[0].ID); m == ike.MatchNone || len(remote.Data) > limitIdentity {
			why = "remote.id " + p.Remote[0].ID.String() + " does not match " + remote.String()
		} else {
			score = m * 100
		}
		if idr != nil && why == "" {
			want := identity(idr)
			if m := localID(p, s.local.Addr()).Match(want); m == ike.MatchNone {
				why = "local.id " + localID(p, s.local.Addr()).String() + " is not the " + want.String() + " that the peer wants"
			} else {
				score += m
			}
		}
		if _, _, err := suite.Select(p.Proposals, []suite.Proposal{s.selected.Proposal()}, suite.SelectOptions{}); err != nil && why == "" {
			why = "its proposals do not contain what IKE_SA_INIT agreed on"
		}
		if p.Remote[0].Method != ike.AuthPSK && why == "" {
			why = "it does not authenticate by a shared key"
		}
		if why != "" {
			if len(not) < 16 {
				not = append(not, ike.Candidate{Name: p.Name, Why: why})
			}
			continue
		}
		list = append(list, scored{p, score})
	}
	slices.SortStableFunc(list, func(a, b scored) int { return b.score - a.score })
	for _, x := range list {
		fit = append(fit, x.p)
	}
	return fit, not
}

// checkAuth verifies the initiator and goes on to the Child SA.
func (s *sa) checkAuth(now time.Time, st *initReceived, in *inbound, idi *wire.ID, auth *wire.Auth, p *ike.Peer, ours ike.Identity, psks []suite.Key, known bool, not []ike.Candidate) {
	lookedUp := len(psks) > 0
	if !lookedUp || !known {
		zeroAll(psks)
		random := make(suite.Key, 32)
		rand.Read(random)
		psks = []suite.Key{random}
	}
	defer zeroAll(psks)
	var sent []byte
	shared := auth != nil && auth.Method == wire.AuthSharedKey
	if shared {
		sent = auth.Data
	}
	psk := s.keys.pskMatches(psks, sent, st.request, st.nr, idi, true)
	if simbug.Chosen == simbug.AuthUnchecked && len(psks) > 0 {
		psk = psks[0]
	}
	if psk == nil || !known || !lookedUp {
		r := &ike.Rejection{Reason: ike.ReasonAuthentication, Notify: wire.AuthenticationFailed.String(), Theirs: s.ids[1].String()}
		switch {
		case !known:
			r.Reason, r.Difference, r.Candidates = ike.ReasonIdentity, "no connection for this identity", not
		case !shared:
			s.peer = p
			r.Difference = "the peer does not authenticate by a shared key (EAP or certificates are not supported yet)"
		case !lookedUp:
			s.peer = p
			r.Ours, r.Difference, r.Hint = ours.String(), "no shared key for these identities", "secrets.ike*"
		default:
			s.peer = p
			r.Ours, r.Difference, r.Hint = ours.String(), "the shared keys differ", "secrets.ike*"
		}
		s.refuseAuth(now, in, r)
		return
	}
	s.peer = p
	s.ids[0] = ours
	if r := s.env.CheckUnique(p, ours, s.ids[1]); r != nil {
		r.Notify = wire.AuthenticationFailed.String()
		s.refuseAuth(now, in, r)
		return
	}
	idr := idPayload(wire.PayloadIDr, ours)
	list := []wire.Payload{idr, &wire.Auth{Method: wire.AuthSharedKey, Data: s.keys.pskAuth(psk, st.response, st.ni, idr, false)}}
	contact := wire.FindNotify(in.payloads, wire.InitialContact) != nil
	ni, nr := st.ni, st.nr
	finish := func(now time.Time, list []wire.Payload, c *child) {
		s.respond(now, in, list)
		if c != nil {
			s.activate(c) // not before: the peer would not know the SPI of what overtakes the answer
		}
		s.up(now, contact)
		if c != nil {
			s.announce(now, c)
		}
	}
	if saP, _ := wire.First[*wire.SA](in.payloads); saP == nil {
		finish(now, list, nil) // RFC 6023
		return
	}
	ch, refused := s.choose(now, in.payloads, nil, false)
	if refused != nil {
		// The IKE SA stays up without a Child SA (RFC 7296 §1.2).
		refused.record.Notify = refused.notify.String()
		s.reject(refused.record)
		finish(now, append(list, notify(refused.notify, refused.data)), nil)
		return
	}
	grant := s.grant(ch)
	s.installChild(now, ch.c, false, nil, ni, nr, false, func(now time.Time, rej *ike.Rejection) {
		if rej != nil {
			finish(now, append(list, notify(wire.TemporaryFailure, nil)), nil)
			return
		}
		finish(now, append(list, grant...), ch.c)
	})
}

// refuseAuth says AUTHENTICATION_FAILED and forgets the IKE SA (RFC 7296 §2.21.2).
func (s *sa) refuseAuth(now time.Time, in *inbound, r *ike.Rejection) {
	s.respondNotify(now, in, wire.AuthenticationFailed, nil)
	s.fail(now, r)
}

// authResponse takes the responder's IKE_AUTH.
func (s *sa) authResponse(now time.Time, in *inbound) {
	st := s.state.(*authSent)
	idr := wire.FindID(in.payloads, wire.PayloadIDr)
	auth, _ := wire.First[*wire.Auth](in.payloads)
	if idr == nil || auth == nil {
		n := errorNotify(in.payloads)
		if n == nil {
			n = notify(wire.InvalidSyntax, nil)
		}
		r := peerRefused(n, s.ids[0].String(), "")
		if n.NotifyType == wire.AuthenticationFailed {
			r.Theirs, r.Hint = s.peer.Remote[0].ID.String(), "the shared key or an identity differs, or the peer's unique policy keeps another IKE SA"
		}
		s.fail(now, r)
		return
	}
	remote := identity(idr)
	want := s.peer.Remote[0].ID
	verify := func(now time.Time, psks []suite.Key) {
		found := auth.Method == wire.AuthSharedKey && s.keys.pskMatches(psks, auth.Data, st.response, st.ni, idr, false) != nil
		if !found {
			s.abortAuth(now, &ike.Rejection{Reason: ike.ReasonAuthentication, Theirs: remote.String(), Ours: s.ids[0].String(), Notify: wire.AuthenticationFailed.String(),
				Difference: "the peer's AUTH does not fit the shared key", Hint: "secrets.ike*"})
			return
		}
		s.ids[1] = remote
		s.authenticated(now, st, in)
	}
	if len(idr.Data) > limitIdentity || remote.Match(want) == ike.MatchNone {
		s.abortAuth(now, &ike.Rejection{Reason: ike.ReasonIdentity, Ours: want.String(), Theirs: remote.String(), Notify: wire.AuthenticationFailed.String(),
			Difference: "the peer's identity is not the configured one", Hint: "connections." + s.peer.Name + ".remote.id"})
		return
	}
	if remote == want {
		verify(now, st.psks)
		return
	}
	s.askPSK(now, s.ids[0], remote, s.peer, func(now time.Time, psks []suite.Key) {
		if len(psks) == 0 {
			psks = st.psks
		}
		verify(now, psks)
		zeroAll(psks)
	})
}

// abortAuth refuses a responder that has not proved who it is. It may hold the
// IKE SA as established, so it is told (RFC 7296 §2.21.2: an INFORMATIONAL
// request with AUTHENTICATION_FAILED), once and without waiting.
func (s *sa) abortAuth(now time.Time, r *ike.Rejection) {
	h := s.header(wire.ExchangeInformational, s.win.sendID, false)
	list := []wire.Payload{notify(wire.AuthenticationFailed, nil)}
	s.win.sendID++
	s.send(now, s.local2remote(s.keys.seal(h, list)), summary(h, list), 0)
	s.fail(now, r)
}

// authenticated goes on with the Child SA after the responder has proved itself.
func (s *sa) authenticated(now time.Time, st *authSent, in *inbound) {
	offer, req := st.offer, st.child
	ni, nr := st.ni, st.nr
	fail := func(now time.Time, r *ike.Rejection) {
		if req != nil {
			s.env.ChildDone(now, req, r)
		}
	}
	if offer == nil {
		s.up(now, false)
		return
	}
	if saP, _ := wire.First[*wire.SA](in.payloads); saP == nil {
		// The IKE SA is up, the Child SA is refused.
		n := errorNotify(in.payloads)
		if n == nil {
			n = notify(wire.NoProposalChosen, nil)
		}
		c := offer.c
		s.forgetChild(c)
		s.up(now, false)
		if n.NotifyType == wire.SinglePairRequired && !offer.single {
			s.enqueue(&createChild{cfg: c.cfg, req: req, single: true})
			return
		}
		fail(now, s.childRefused(c.cfg, offer, n))
		return
	}
	if r := s.accepted(offer, in.payloads, true); r != nil {
		// The peer has it installed: it is deleted there.
		spi := offer.c.spiIn
		s.forgetChild(offer.c)
		s.up(now, false)
		s.enqueue(&deleteOrphan{spi: spi})
		fail(now, s.reject(r))
		return
	}
	s.installChild(now, offer.c, true, nil, ni, nr, false, func(now time.Time, r *ike.Rejection) {
		spi := offer.c.spiIn
		if r == nil {
			s.activate(offer.c) // the host is ready for the answers to what waits
		}
		s.up(now, false)
		if r != nil {
			s.enqueue(&deleteOrphan{spi: spi})
			fail(now, r)
			return
		}
		s.announce(now, offer.c)
		if req != nil {
			s.env.ChildDone(now, req, nil)
		}
	})
}

// childRefused is the record of a Child SA that the peer refused.
func (s *sa) childRefused(cfg *ike.Child, o *childOffer, n *wire.Notify) *ike.Rejection {
	hint, ours := "", ""
	switch n.NotifyType {
	case wire.TSUnacceptable:
		hint, ours = "connections."+s.peer.Name+".children."+cfg.Name+".local_ts, remote_ts", selectorText(o.local, o.remote)
	case wire.NoProposalChosen:
		hint, ours = "connections."+s.peer.Name+".children."+cfg.Name+".esp_proposals", proposalText(o.proposals)
	}
	r := peerRefused(n, ours, hint)
	r.Child = cfg.Name
	return s.reject(r)
}

// up makes the IKE SA established.
func (s *sa) up(now time.Time, initialContact bool) {
	s.enter(established{})
	s.life.setupEnd = time.Time{}
	s.setTimers(now)
	s.env.Established(now, s.peer, s.ids[0], s.ids[1], initialContact)
}

// setTimers starts the lifetimes of an IKE SA that has just come up.
func (s *sa) setTimers(now time.Time) {
	p := s.peer
	l := &s.life
	l.established, l.lastIn = now, now
	jitter := func(d time.Duration) time.Duration { return d - ike.RandomSpan(min(p.RandTime, d)) }
	hard := time.Duration(0)
	if p.RekeyTime > 0 {
		l.rekeyAt = now.Add(jitter(p.RekeyTime))
		hard = p.RekeyTime
	}
	if p.ReauthTime > 0 {
		l.reauthAt = now.Add(jitter(p.ReauthTime))
		if hard == 0 || p.ReauthTime < hard {
			hard = p.ReauthTime
		}
	}
	if hard > 0 && p.OverTime > 0 {
		l.endAt = now.Add(hard + p.OverTime)
	}
	if p.DPDDelay > 0 {
		l.dpdAt = now.Add(p.DPDDelay)
	}
	s.startKeepAlive(now)
}

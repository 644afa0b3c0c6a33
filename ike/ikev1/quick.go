package ikev1

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/ipsec"
	"adit/suite"
)

// quick is one quick mode (RFC 2409 §5.5) until it is done.
type quick struct {
	c       *child
	task    *quickTask // ours; nil: the peer began it
	ni, nr  []byte
	group   suite.TransformID
	ke      suite.KeyExchange
	offered []suite.Proposal
	offers  []wire.V1Transform
	// local and remote are the selectors offered.
	local, remote ipsec.Selector
	// waits tells that message 2 is out and message 3 due.
	waits bool
}

// quickTask is a quick mode of ours that waits or is under way.
type quickTask struct {
	cfg  *ike.Child
	req  *ike.ChildRequest // nil: nobody waits
	more []*ike.ChildRequest
	old  uint32 // the Child SA that it rekeys, 0: none
	x    *exchange
}

func (t *quickTask) name() string { return "QUICK_MODE" }

func (t *quickTask) cancel(s *sa, now time.Time) {
	if t.req != nil {
		s.env.ChildDone(now, t.req, &ike.Rejection{SAKey: ike.SAKey{Name: s.key().Name, Child: t.cfg.Name}, Reason: ike.ReasonInternal, Detail: ike.DetailTerminated, Difference: "the IKE SA ended"})
	}
	for _, r := range t.more {
		s.env.ChildDone(now, r, &ike.Rejection{SAKey: ike.SAKey{Name: s.key().Name, Child: t.cfg.Name}, Reason: ike.ReasonInternal, Detail: ike.DetailTerminated, Difference: "the IKE SA ended"})
	}
}

// CreateChild makes an IPsec SA pair.
func (s *sa) CreateChild(now time.Time, r *ike.ChildRequest) {
	if r.Child == nil {
		s.env.ChildDone(now, r, nil)
		return
	}
	waiting := s.sched.all()
	if s.sched.current != nil {
		waiting = append(waiting, s.sched.current)
	}
	for _, q := range waiting {
		if t, ok := q.(*quickTask); ok && t.cfg.Name == r.Child.Name && r.Acquired == nil && t.old == 0 && len(t.more) < limitTasks {
			t.more = append(t.more, r)
			return
		}
	}
	if !s.enqueue(&quickTask{cfg: r.Child, req: r}) {
		s.env.ChildDone(now, r, &ike.Rejection{SAKey: ike.SAKey{Name: s.peer.Name, Child: r.Child.Name}, Reason: ike.ReasonLimit, Difference: "too many exchanges wait"})
		return
	}
	s.run(now)
}

// RekeyChild makes a pair that takes the place of another one.
func (s *sa) RekeyChild(now time.Time, id uint32) {
	c := s.child(id)
	if c == nil || c.state != childInstalled || !s.Usable() {
		return
	}
	cfg := c.cfg
	if p := s.env.CurrentPeer(s.peer); p != nil {
		if n := p.Child(cfg.Name); n != nil {
			cfg = n
		}
	}
	if s.enqueue(&quickTask{cfg: cfg, old: id}) {
		c.state = childRekeying
		s.run(now)
	}
}

// ended tells all who wait, and lets the next task begin.
func (t *quickTask) ended(s *sa, now time.Time, r *ike.Rejection) {
	if s.sched.current == task(t) {
		s.sched.current = nil
	}
	if t.x != nil {
		t.x.out = nil
		s.forgetExchange(t.x)
	}
	if c := s.child(t.old); t.old != 0 && c != nil && c.state == childRekeying {
		c.state = childInstalled
		if r != nil {
			c.rekeyAt = now.Add(retryRekey)
		}
	}
	if t.req != nil {
		s.env.ChildDone(now, t.req, r)
	}
	for _, req := range t.more {
		s.env.ChildDone(now, req, r)
	}
	s.run(now)
}

// refused ends a quick mode of ours that failed.
func (t *quickTask) refused(s *sa, now time.Time, r *ike.Rejection) {
	if t.x != nil && t.x.quick != nil && s.child(t.x.quick.c.id) != nil && !t.x.quick.c.dataplane {
		s.forgetChild(t.x.quick.c)
	}
	r.Child = t.cfg.Name
	t.ended(s, now, s.reject(r))
}

// begin sends message 1 of quick mode.
func (t *quickTask) begin(s *sa, now time.Time) {
	old := s.child(t.old)
	switch {
	case t.old != 0 && (old == nil || old.state != childRekeying):
		t.ended(s, now, nil) // it is gone, or the peer was faster
		return
	case len(s.children) >= limitChildren:
		t.refused(s, now, &ike.Rejection{Reason: ike.ReasonLimit, Difference: "too many Child SAs in one IKE SA"})
		return
	case t.req != nil && slices.ContainsFunc(s.children, func(c *child) bool {
		return c.cfg.Name == t.cfg.Name && (c.state == childInstalled || c.state == childRekeying) && c.info(s).Covers(t.req.Acquired)
	}):
		t.ended(s, now, nil) // the peer was faster
		return
	}
	q := &quick{task: t, ni: s.quickNonce(), group: firstGroup(t.cfg.Proposals)}
	list := t.cfg.Proposals
	var ok bool
	if old != nil {
		// What is in force, as long as it is configured: some take nothing else (vpnc).
		if now := old.suite.Proposal(); contains(list, now) {
			list, q.group = []suite.Proposal{now}, old.suite.KE.ID
		}
		q.local, q.remote, ok = old.localTS[0], old.remoteTS[0], true
	} else {
		q.local, q.remote, ok = s.pairOf(t)
	}
	if !ok {
		t.refused(s, now, &ike.Rejection{Reason: ike.ReasonSelectors, Difference: "IKEv1 can say one range of addresses a side, with one port or all, and no pair of local_ts and remote_ts fits"})
		return
	}
	v := phase2{mode: s.modeNumber(t.cfg.Mode), group: q.group, life: t.cfg.LifeTime, lifeBytes: t.cfg.LifeBytes}
	q.offers, q.offered = v.offers(list)
	if len(q.offers) == 0 {
		t.refused(s, now, &ike.Rejection{Reason: ike.ReasonProposal, Detail: ike.DetailTransform, Ours: proposalText(t.cfg.Proposals), Difference: "none of the esp_proposals can be said in IKEv1"})
		return
	}
	q.c = s.newChild(t.cfg, true)
	q.c.requested, q.c.mode = now, t.cfg.Mode
	t.x = s.newExchange(now, wire.ExchangeV1QuickMode)
	t.x.quick = q
	s.exchanges = append(s.exchanges, t.x)
	if q.group == suite.KENone {
		s.sendQuick(now, t.x)
		return
	}
	compute(s, now, "key exchange "+groupName(q.group), slowGroup(q.group), func() (suite.KeyExchange, error) { return suite.NewKeyExchange(q.group) },
		func(now time.Time, ke suite.KeyExchange, err error) {
			if err != nil {
				t.refused(s, now, &ike.Rejection{Reason: ike.ReasonInternal, Difference: "key exchange: " + err.Error()})
				return
			}
			q.ke = ke
			s.sendQuick(now, t.x)
		})
}

// quickNonce is a nonce of quick mode. Cisco's clients and vpnc answer ours in its own
// length by 20 octets of theirs (peer quirk), so that with them ours has that length.
func (s *sa) quickNonce() []byte {
	n := newNonce()
	if s.caps.unity {
		n = n[:20]
	}
	return n
}

// firstGroup is the group that a quick mode of ours offers: one for all transforms,
// since there is one KE payload. None where PFS is optional, which most peers take.
func firstGroup(list []suite.Proposal) suite.TransformID {
	group := suite.KENone
	for _, p := range list {
		groups := p.ByType(suite.TypeKE)
		if len(groups) == 0 || p.Has(suite.Transform{Type: suite.TypeKE}) {
			return suite.KENone
		}
		for _, g := range groups {
			if group == suite.KENone && !g.ID.PostQuantum() {
				group = g.ID
			}
		}
	}
	return group
}

// pairOf is the pair of selectors that a quick mode offers: that which the packet fits
// that asked for it, else the first of one family that has no pair yet.
func (s *sa) pairOf(t *quickTask) (l, r ipsec.Selector, ok bool) {
	local, remote := s.selectorsOf(t.cfg)
	for _, x := range local {
		for _, y := range remote {
			if x.From.Is4() != y.From.Is4() || !sayable(x) || !sayable(y) {
				continue
			}
			if t.req == nil || t.req.Acquired == nil || (ike.ChildInfo{LocalTS: []ipsec.Selector{x}, RemoteTS: []ipsec.Selector{y}}).Covers(t.req.Acquired) {
				return x, y, true
			}
		}
	}
	return l, r, false
}

// sayable reports whether an ID payload can hold the selector.
func sayable(t ipsec.Selector) bool {
	return t.AnyPort() || t.PortFrom == t.PortTo && t.PortFrom != 0
}

func (s *sa) sendQuick(now time.Time, x *exchange) {
	q := x.quick
	p := wire.V1SA{Situation: wire.V1SituationIdentityOnly, Proposals: []wire.V1Proposal{{Number: 1, Protocol: wire.ProtocolESP, SPI: spiBytes(q.c.spiIn), Transforms: q.offers}}}
	list := []wire.V1Payload{p.Payload(), {Type: wire.PayloadV1Nonce, Body: q.ni}}
	if q.ke != nil {
		list = append(list, wire.V1Payload{Type: wire.PayloadV1KE, Body: q.ke.Public()})
	}
	list = append(list, selectorID(q.local).Payload(), selectorID(q.remote).Payload())
	list = append(list, s.originalAddresses(q.c.mode)...)
	packets, summary := s.hashed(x, func(rest []byte) []byte { return s.keys.hash1(x.id, rest) }, list)
	s.request(now, x, packets, summary)
}

// originalAddresses are the NAT-OA payloads of transport mode through a NAT: the
// initiator's address and the responder's, as the sender sees them (RFC 3947 §5.2).
func (s *sa) originalAddresses(m ipsec.Mode) []wire.V1Payload {
	if m != ipsec.ModeTransport || !s.nat.encap() {
		return nil
	}
	t := wire.PayloadV1NATOA
	if s.caps.natT == natDraft {
		t = payloadNATOADraft
	}
	make := func(sel ipsec.Selector) wire.V1Payload {
		return wire.V1Payload{Type: t, Body: selectorID(sel).Payload().Body}
	}
	return []wire.V1Payload{make(ipsec.Dynamic().Resolve(s.local.Addr())), make(ipsec.Dynamic().Resolve(s.remote.Addr()))}
}

// receiveQuick tells the three messages of quick mode apart and checks their hashes.
func (s *sa) receiveQuick(now time.Time, in *inbound, hash []byte) {
	id := in.header.MessageID
	drop := func(r ike.DropReason) { s.env.Drop(now, r, in.datagram.Remote) }
	switch {
	case in.x == nil:
		if !equal(hash, s.keys.hash1(id, in.rest)) {
			drop(ike.DropIntegrity)
			return
		}
		if len(s.exchanges) >= limitExchanges || !s.Usable() && !s.remade {
			drop(ike.DropBusy)
			return
		}
		s.accepted(now, in)
		s.quickRequest(now, in)
	case in.x.quick == nil:
		drop(ike.DropUnexpected)
	case in.x.quick.task != nil && in.x.out != nil:
		if !equal(hash, s.keys.hash2(id, in.x.quick.ni, in.rest)) {
			drop(ike.DropIntegrity)
			return
		}
		s.accepted(now, in)
		s.quickAnswer(now, in)
	case in.x.quick.waits:
		if !equal(hash, s.keys.hash3(id, in.x.quick.ni, in.x.quick.nr)) {
			drop(ike.DropIntegrity)
			return
		}
		s.accepted(now, in)
		s.quickConfirmed(now, in.x)
	default:
		drop(ike.DropUnexpected)
	}
}

// quickRequest takes message 1 and answers by message 2, or by a notification.
func (s *sa) quickRequest(now time.Time, in *inbound) {
	x := &exchange{id: in.header.MessageID, kind: wire.ExchangeV1QuickMode, iv: in.iv, began: now}
	q, answer, refused := s.choose(now, in)
	if refused != nil {
		refused.record.Notify = refused.notify.String()
		s.reject(refused.record)
		s.inform(now, wire.V1Notify{Protocol: wire.ProtocolESP, SPI: refused.spi, Type: refused.notify}.Payload())
		return
	}
	x.quick = q
	s.exchanges = append(s.exchanges, x)
	finish := func(now time.Time, public []byte, shared suite.Key) {
		list := []wire.V1Payload{answer.Payload(), {Type: wire.PayloadV1Nonce, Body: q.nr}}
		if public != nil {
			list = append(list, wire.V1Payload{Type: wire.PayloadV1KE, Body: public})
		}
		list = append(list, selectorID(q.remote).Payload(), selectorID(q.local).Payload())
		if m := q.c.mode; len(in.all(wire.PayloadV1NATOA, payloadNATOADraft)) > 0 {
			list = append(list, s.originalAddresses(m)...)
		}
		if n := s.responderLifetime(q.c); n != nil {
			list = append(list, n.Payload())
		}
		s.install(now, q.c, shared, q.ni, q.nr, false, func(now time.Time, r *ike.Rejection) {
			if r != nil {
				s.forgetExchange(x)
				s.inform(now, wire.V1Notify{Protocol: wire.ProtocolESP, SPI: spiBytes(q.c.spiIn), Type: wire.V1NoProposalChosen}.Payload())
				return
			}
			packets, summary := s.hashed(x, func(rest []byte) []byte { return s.keys.hash2(x.id, q.ni, rest) }, list)
			q.waits = true
			s.answered(in.datagram, packets)
			s.request(now, x, packets, summary)
		})
	}
	if q.group == suite.KENone {
		finish(now, nil, nil)
		return
	}
	type made struct {
		public []byte
		shared suite.Key
	}
	data := slices.Clone(in.get(wire.PayloadV1KE))
	compute(s, now, "key exchange "+groupName(q.group), slowGroup(q.group), func() (made, error) {
		p, k, err := suite.RespondKeyExchange(q.group, data)
		return made{p, k}, err
	}, func(now time.Time, m made, err error) {
		if err != nil {
			s.forgetChild(q.c)
			s.forgetExchange(x)
			s.reject(&ike.Rejection{SAKey: ike.SAKey{Child: q.c.cfg.Name}, Reason: ike.ReasonSyntax, Notify: wire.V1InvalidKeyInformation.String(), Difference: "key exchange: " + err.Error()})
			s.inform(now, wire.V1Notify{Protocol: wire.ProtocolESP, SPI: spiBytes(q.c.spiOut), Type: wire.V1InvalidKeyInformation}.Payload())
			return
		}
		finish(now, m.public, m.shared)
	})
}

// refusal is a quick mode that fails with a notification.
type refusal struct {
	notify wire.V1NotifyType
	spi    []byte
	record *ike.Rejection
}

// choose grants what the peer asks for, or says why not.
func (s *sa) choose(now time.Time, in *inbound) (*quick, *wire.V1SA, *refusal) {
	malformed := func(why string) (*quick, *wire.V1SA, *refusal) {
		return nil, nil, &refusal{wire.V1PayloadMalformed, nil, &ike.Rejection{Reason: ike.ReasonSyntax, Difference: why}}
	}
	body, ni := in.get(wire.PayloadV1SA), slices.Clone(in.get(wire.PayloadV1Nonce))
	if body == nil || len(ni) < minNonce || len(ni) > maxNonce {
		return malformed("SA or Ni is missing in quick mode")
	}
	proposals, err := wire.ParseV1SA(body)
	if err != nil {
		return malformed(err.Error())
	}
	remote, local, ok := s.quickSelectors(in)
	if !ok {
		return nil, nil, &refusal{wire.V1InvalidIDInformation, nil, &ike.Rejection{Reason: ike.ReasonSelectors, Difference: "the ID payloads of quick mode name no addresses"}}
	}
	var theirs []suite.Proposal
	var from []*wire.V1Transform
	var owner []*wire.V1Proposal
	for i := range proposals.Proposals {
		x := &proposals.Proposals[i]
		alone := true // a proposal of the same number belongs to it: a bundle with AH or IPCOMP
		for j := range proposals.Proposals {
			alone = alone && (j == i || proposals.Proposals[j].Number != x.Number)
		}
		if x.Protocol != wire.ProtocolESP || len(x.SPI) != 4 || binary.BigEndian.Uint32(x.SPI) < uint32(ipsec.MinSPI) || !alone {
			continue
		}
		for j := range x.Transforms {
			if len(theirs) < limitLooked {
				theirs, from, owner = append(theirs, phase2Suite(&x.Transforms[j])), append(from, &x.Transforms[j]), append(owner, x)
			}
		}
	}
	if len(theirs) == 0 {
		return nil, nil, &refusal{wire.V1NoProposalChosen, nil, &ike.Rejection{Reason: ike.ReasonProposal, Difference: "the peer offers nothing but AH, IPCOMP or bundles"}}
	}
	mode, known := modeOf(from[0])
	if !known {
		return nil, nil, &refusal{wire.V1NoProposalChosen, nil, &ike.Rejection{Reason: ike.ReasonProposal, Detail: ike.DetailMode, Difference: "encapsulation mode unknown"}}
	}
	cfg, l, r, refused := s.matchChild(local, remote, mode)
	if refused != nil {
		return nil, nil, refused
	}
	sel, i, err := suite.Select(cfg.Proposals, theirs, suite.SelectOptions{PreferPeer: cfg.PreferPeer})
	if err != nil {
		x := noProposal(err, cfg.Proposals, theirs)
		x.Child = cfg.Name
		return nil, nil, &refusal{wire.V1NoProposalChosen, nil, x}
	}
	if len(s.children) >= limitChildren {
		return nil, nil, &refusal{wire.V1NoProposalChosen, nil, &ike.Rejection{SAKey: ike.SAKey{Child: cfg.Name}, Reason: ike.ReasonLimit, Difference: "too many Child SAs in one IKE SA"}}
	}
	q := &quick{ni: ni, nr: s.quickNonce(), local: l, remote: r, group: suite.KENone}
	if sel.KEPresent && sel.KE.ID != suite.KENone {
		q.group = sel.KE.ID
		if n := suite.PublicLen(q.group); in.get(wire.PayloadV1KE) == nil || n != 0 && len(in.get(wire.PayloadV1KE)) != n {
			return malformed("the KE payload is missing or of another group than the transform's")
		}
	}
	c := s.newChild(cfg, false)
	q.c = c
	c.requested, c.suite, c.mode, c.localTS, c.remoteTS = now, sel, mode, []ipsec.Selector{l}, []ipsec.Selector{r}
	c.spiOut = ipsec.SPI(binary.BigEndian.Uint32(owner[i].SPI))
	c.life, c.lifeBytes = lifeOf(from[i], wire.V1AttrESPLifeType, wire.V1AttrESPLife)
	answer := &wire.V1SA{Situation: wire.V1SituationIdentityOnly, Proposals: []wire.V1Proposal{{Number: owner[i].Number, Protocol: wire.ProtocolESP, SPI: spiBytes(c.spiIn), Transforms: []wire.V1Transform{*from[i]}}}}
	return q, answer, nil
}

// quickSelectors reads IDci and IDcr of a message, the initiator's first; without them
// the endpoints' addresses are meant (RFC 2409 §5.5).
func (s *sa) quickSelectors(in *inbound) (ci, cr ipsec.Selector, ok bool) {
	ids := in.all(wire.PayloadV1ID)
	remote, local := ipsec.Dynamic().Resolve(s.remote.Addr()), ipsec.Dynamic().Resolve(s.local.Addr())
	switch len(ids) {
	case 0:
		return remote, local, true
	case 2:
	default:
		return ci, cr, false
	}
	a, errA := wire.ParseV1ID(ids[0])
	b, errB := wire.ParseV1ID(ids[1])
	ci, okA := selectorOf(a)
	cr, okB := selectorOf(b)
	return ci, cr, errA == nil && errB == nil && okA && okB
}

// matchChild picks the child for the peer's selectors: the first that can grant them
// whole, else the first that can grant a part. Narrowing is not in RFC 2409, but
// strongSwan does it and its clients count on it.
func (s *sa) matchChild(local, remote ipsec.Selector, mode ipsec.Mode) (cfg *ike.Child, l, r ipsec.Selector, _ *refusal) {
	var not []ike.Candidate
	ours, modeOnly := "", false
	for _, c := range s.peer.Children {
		if c.Action != ipsec.Protect {
			continue
		}
		pl, pr := s.selectorsOf(c)
		tl, tr := local, remote
		if mode == ipsec.ModeTransport && s.nat.encap() {
			// Through a NAT the peer writes addresses that are not those seen here
			// (RFC 3947 §5.2).
			tl, tr = seenAs(tl, s.nat.local, s.local.Addr()), seenAs(tr, s.nat.remote, s.remote.Addr())
		}
		nl, nr := ipsec.Narrow(pl, []ipsec.Selector{tl}), ipsec.Narrow(pr, []ipsec.Selector{tr})
		if ours == "" {
			ours = selectorList(pl) + " === " + selectorList(pr)
		}
		switch {
		case len(nl) == 0:
			not = append(not, ike.Candidate{Name: c.Name, Why: "its local_ts " + selectorList(pl) + " share nothing with the peer's " + local.String(), Detail: ike.DetailLocalTS})
		case len(nr) == 0:
			not = append(not, ike.Candidate{Name: c.Name, Why: "its remote_ts " + selectorList(pr) + " share nothing with the peer's " + remote.String(), Detail: ike.DetailRemoteTS})
		case c.Mode != mode:
			modeOnly = true
			not = append(not, ike.Candidate{Name: c.Name, Why: fmt.Sprintf("it wants %v mode, the peer %v", c.Mode, mode), Detail: ike.DetailMode})
		default:
			whole := nl[0] == tl && nr[0] == tr
			if cfg == nil || whole {
				cfg, l, r = c, nl[0], nr[0]
			}
			if whole {
				return cfg, l, r, nil
			}
		}
	}
	if cfg != nil {
		return cfg, l, r, nil
	}
	rec := &ike.Rejection{Reason: ike.ReasonSelectors, Ours: ours, Theirs: local.String() + " === " + remote.String(), Difference: "no child grants the peer's traffic selectors", Candidates: not[:min(len(not), 16)]}
	if len(not) == 1 {
		rec.Child, rec.Detail = not[0].Name, not[0].Detail
	}
	if modeOnly {
		rec.Reason, rec.Detail, rec.Difference = ike.ReasonProposal, ike.DetailMode, "mode"
		return nil, l, r, &refusal{wire.V1NoProposalChosen, nil, rec}
	}
	return nil, l, r, &refusal{wire.V1InvalidIDInformation, nil, rec}
}

// seenAs puts the address that is seen here in the place of the one behind a NAT.
func seenAs(t ipsec.Selector, nat bool, seen netip.Addr) ipsec.Selector {
	if nat && t.From == t.To {
		t.From, t.To = seen, seen
	}
	return t
}

// responderLifetime tells the initiator of a lifetime of ours that is shorter than
// what it offered (RFC 2407 §4.6.3.1); nil: there is none.
func (s *sa) responderLifetime(c *child) *wire.V1Notify {
	if c.cfg.LifeTime == 0 || c.life != 0 && c.life <= c.cfg.LifeTime {
		return nil
	}
	var b []byte
	n := uint32(min(c.cfg.LifeTime/time.Second, 1<<32-1))
	b = binary.BigEndian.AppendUint16(b, 0x8000|wire.V1AttrESPLifeType)
	b = binary.BigEndian.AppendUint16(b, lifeSeconds)
	b = binary.BigEndian.AppendUint16(b, wire.V1AttrESPLife)
	b = binary.BigEndian.AppendUint16(b, 4)
	b = binary.BigEndian.AppendUint32(b, n)
	return &wire.V1Notify{Protocol: wire.ProtocolESP, SPI: spiBytes(c.spiIn), Type: wire.V1ResponderLifetime, Data: b}
}

// quickAnswer takes message 2, installs, and sends message 3.
func (s *sa) quickAnswer(now time.Time, in *inbound) {
	x, q := in.x, in.x.quick
	t := q.task
	x.out = nil
	chosen, r := s.quickChosen(in, q)
	if r != nil {
		s.sendDelete(now, q.c.spiIn)
		t.refused(s, now, r)
		return
	}
	q.nr = slices.Clone(in.get(wire.PayloadV1Nonce))
	q.c.life, q.c.lifeBytes = lifeOf(chosen, wire.V1AttrESPLifeType, wire.V1AttrESPLife)
	s.readResponderLifetime(in, q.c)
	finish := func(now time.Time, shared suite.Key) {
		s.install(now, q.c, shared, q.ni, q.nr, false, func(now time.Time, r *ike.Rejection) {
			if r != nil {
				s.sendDelete(now, q.c.spiIn)
				t.ended(s, now, r)
				return
			}
			packets, summary := s.hashed3(x, q)
			s.respond(now, in, packets, summary)
			s.env.ActivateChild(q.c.id)
			s.settle(now, q.c)
			t.ended(s, now, nil)
		})
	}
	if q.ke == nil {
		finish(now, nil)
		return
	}
	data := slices.Clone(in.get(wire.PayloadV1KE))
	compute(s, now, "shared secret "+groupName(q.group), slowGroup(q.group), func() (suite.Key, error) { return q.ke.Shared(data) },
		func(now time.Time, shared suite.Key, err error) {
			if err != nil {
				s.sendDelete(now, q.c.spiIn)
				t.refused(s, now, &ike.Rejection{Reason: ike.ReasonSyntax, Difference: "key exchange: " + err.Error()})
				return
			}
			finish(now, shared)
		})
}

// hashed3 builds message 3, which holds HASH(3) alone.
func (s *sa) hashed3(x *exchange, q *quick) ([][]byte, string) {
	return s.sealed(x, []wire.V1Payload{{Type: wire.PayloadV1Hash, Body: s.keys.hash3(x.id, q.ni, q.nr)}})
}

// quickChosen checks the answer to our offer: the choice must lie inside it.
func (s *sa) quickChosen(in *inbound, q *quick) (*wire.V1Transform, *ike.Rejection) {
	syntax := func(why string) (*wire.V1Transform, *ike.Rejection) {
		return nil, &ike.Rejection{Reason: ike.ReasonSyntax, Difference: why}
	}
	nr := in.get(wire.PayloadV1Nonce)
	answer, err := wire.ParseV1SA(in.get(wire.PayloadV1SA))
	switch {
	case err != nil || len(answer.Proposals) != 1 || len(answer.Proposals[0].Transforms) != 1 || answer.Proposals[0].Protocol != wire.ProtocolESP:
		return syntax("the answer does not hold exactly one transform of ESP")
	case len(nr) < minNonce || len(nr) > maxNonce:
		return syntax("the answer has no nonce")
	case q.ke != nil && in.get(wire.PayloadV1KE) == nil:
		return syntax("the answer has no KE payload")
	}
	p := &answer.Proposals[0]
	if len(p.SPI) != 4 || binary.BigEndian.Uint32(p.SPI) < uint32(ipsec.MinSPI) {
		return syntax("the answer's SPI is not valid")
	}
	t := &p.Transforms[0]
	chosen := phase2Suite(t)
	sel, err := suite.Accept(q.offered, chosen, suite.SelectOptions{})
	if err != nil {
		return nil, noProposal(err, q.offered, []suite.Proposal{chosen})
	}
	if group := sel.KEPresent && sel.KE.ID != suite.KENone; group != (q.group != suite.KENone) {
		return syntax("the answer's key exchange is of another group than ours")
	}
	if mode, ok := modeOf(t); !ok || mode != q.c.mode {
		return nil, &ike.Rejection{Reason: ike.ReasonProposal, Detail: ike.DetailMode, Difference: "mode: the peer answers with another one", Ours: q.c.mode.String()}
	}
	l, r, ok := q.local, q.remote, true
	if len(in.all(wire.PayloadV1ID)) > 0 {
		l, r, ok = s.quickSelectors(in)
	}
	if q.c.mode == ipsec.ModeTransport && s.nat.encap() {
		l, r = q.local, q.remote
	}
	if !ok || !q.local.Contains(l) || !q.remote.Contains(r) {
		return nil, &ike.Rejection{Reason: ike.ReasonSelectors, Difference: "the peer's selectors lie outside of what was offered",
			Ours: q.local.String() + " === " + q.remote.String(), Theirs: l.String() + " === " + r.String()}
	}
	c := q.c
	c.suite, c.spiOut, c.localTS, c.remoteTS = sel, ipsec.SPI(binary.BigEndian.Uint32(p.SPI)), []ipsec.Selector{l}, []ipsec.Selector{r}
	return t, nil
}

// readResponderLifetime takes the responder's shorter lifetime.
func (s *sa) readResponderLifetime(in *inbound, c *child) {
	n := in.notify(wire.V1ResponderLifetime)
	if n == nil {
		return
	}
	// The data are attributes as in a transform.
	p := wire.V1Attributes{}
	if a, err := wire.ParseV1Attributes(append([]byte{0, 0, 0, 0}, n.Data...)); err == nil {
		p = *a
	}
	d, b := lifeOf(&wire.V1Transform{Attributes: p.Attributes}, wire.V1AttrESPLifeType, wire.V1AttrESPLife)
	if d > 0 && (c.life == 0 || d < c.life) {
		c.life = d
	}
	if b > 0 && (c.lifeBytes == 0 || b < c.lifeBytes) {
		c.lifeBytes = b
	}
}

// quickConfirmed takes message 3: the initiator has the SAs, and ours carry traffic.
func (s *sa) quickConfirmed(now time.Time, x *exchange) {
	x.out = nil
	s.forgetExchange(x)
	if s.child(x.quick.c.id) == nil {
		return
	}
	s.env.ActivateChild(x.quick.c.id)
	s.settle(now, x.quick.c)
}

// abandonQuick gives up a quick mode of the peer.
func (s *sa) abandonQuick(now time.Time, x *exchange, why string) {
	s.forgetExchange(x)
	if c := x.quick.c; s.child(c.id) != nil && !c.announced {
		s.note(1, why)
		s.sendDelete(now, c.spiIn)
		s.dropChild(now, c, ike.CauseFailed, why)
	}
}

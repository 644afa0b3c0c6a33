package ikev2

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/ipsec"
	"adit/suite"
)

// childState is where a Child SA stands.
type childState uint8

const (
	childPending   childState = iota // being negotiated; not listed
	childInstalled                   // carries traffic
	childRekeying                    // our rekey of it is in flight
	childRekeyed                     // replaced; waits for packets on the way, or for the peer's Delete
	childDeleting                    // our Delete is on its way
)

func (c childState) String() string {
	return [...]string{"INSTALLING", "INSTALLED", "REKEYING", "REKEYED", "DELETING"}[c]
}

// child is one Child SA: a pair of ESP SAs.
type child struct {
	cfg           *ike.Child
	id, reqid     uint32
	spiIn, spiOut ipsec.SPI
	suite         suite.Selected
	mode          ipsec.Mode
	state         childState
	cause         ike.Cause
	initiator     bool // we asked for it
	announced     bool // ChildUp was emitted
	bound         bool // has policies
	dataplane     bool // is installed
	deleted       bool // the peer has deleted it, or knows that it is
	deleteSent    bool // our Delete went out
	// many: there may be one of its kind for each resource, of which this one serves
	// resource, or all if that is 0 (RFC 9611).
	many              bool
	resource          uint16
	activated         bool // carries, or has carried, outbound traffic
	localTS, remoteTS []ipsec.Selector
	nonce             []byte // the lower one of those that made it
	requested, born   time.Time
	rekeyAt, endAt    time.Time
	inactiveAt        time.Time
	activateAt        time.Time // when outbound traffic passes to it; zero: not by time
	// replacement is the Child SA that took over; the policies follow when the
	// peer's Delete shows that it uses it (RFC 7296 §2.8).
	replacement *child
	reason      string
}

func (c *child) installed() bool { return c.dataplane }

func (c *child) wipe() {}

func (c *child) info(s *sa) ike.ChildInfo {
	return ike.ChildInfo{Name: c.cfg.Name, ID: c.id, ReqID: c.reqid, State: c.state.String(), Mode: c.mode, Encap: s.nat.encap(),
		SPIIn: c.spiIn, SPIOut: c.spiOut, Suite: c.suite, LocalTS: c.localTS, RemoteTS: c.remoteTS,
		Installed: c.born, RekeyAt: c.rekeyAt, ExpireAt: c.endAt, IfID: c.cfg.IfID,
		Updown: c.cfg.Updown, HostAccess: c.cfg.HostAccess, PerCPU: c.many, Resource: c.resource}
}

// child finds a Child SA by its number.
func (s *sa) child(id uint32) *child {
	for _, c := range s.children {
		if c.id == id {
			return c
		}
	}
	return nil
}

// childBySPI finds a Child SA by the SPI that the peer receives under.
func (s *sa) childByOut(spi ipsec.SPI) *child {
	for _, c := range s.children {
		if c.spiOut == spi && c.state != childPending {
			return c
		}
	}
	return nil
}

// newChild numbers a Child SA and chooses our SPI for it. It serves a resource, or 0 for
// all, and replaces old if there is one.
func (s *sa) newChild(cfg *ike.Child, initiator bool, resource uint16, old *child) *child {
	c := &child{cfg: cfg, initiator: initiator, id: s.env.NewChildID(), resource: resource}
	if old != nil {
		c.many, c.resource = old.many, old.resource
		c.spiIn = s.env.NewESPSPI(c.resource, old.spiIn)
	} else {
		c.spiIn = s.env.NewESPSPI(c.resource, 0)
	}
	s.children = append(s.children, c)
	return c
}

// forgetChild takes a Child SA that was never installed out of all tables.
func (s *sa) forgetChild(c *child) {
	if c.bound {
		s.env.UnbindPolicy(c.id)
		c.bound = false
	}
	s.env.ForgetChild(c.id)
	s.children = slices.DeleteFunc(s.children, func(x *child) bool { return x == c })
	s.env.ChildGone(c.id)
}

// dropChild removes a Child SA, installed or not, and reports it if it was up
// and is not replaced.
func (s *sa) dropChild(now time.Time, c *child, cause ike.Cause, reason string) {
	if !c.dataplane {
		s.forgetChild(c)
		return
	}
	s.env.RemoveChild(c.id)
	c.dataplane, c.bound = false, false
	info := c.info(s)
	s.forgetChild(c)
	if c.resource > 0 {
		s.noMore = slices.DeleteFunc(s.noMore, func(x *ike.Child) bool { return x.Name == c.cfg.Name })
	}
	if c.announced {
		if (cause == ike.CauseDead || cause == ike.CauseCrashed) && c.deleted {
			cause = ike.CausePeer
		}
		s.env.ChildDown(now, info, c.cfg, cause, reason)
	}
	// Whoever was replaced by it is now replaced by what replaced it, if anything.
	for _, x := range s.children {
		if x.replacement == c {
			x.replacement = c.replacement
		}
	}
}

func spiBytes(spi ipsec.SPI) []byte { return binary.BigEndian.AppendUint32(nil, uint32(spi)) }

// childProposals are the configured proposals; without key exchange in IKE_AUTH.
func childProposals(cfg *ike.Child, ke bool) []suite.Proposal {
	if ke {
		return cfg.Proposals
	}
	out := make([]suite.Proposal, 0, len(cfg.Proposals))
	for _, p := range cfg.Proposals {
		out = append(out, p.WithoutKE())
	}
	return out
}

// selectorsOf are a configuration's selectors, dynamic ones resolved.
func (s *sa) selectorsOf(cfg *ike.Child) (local, remote []ipsec.Selector) {
	return resolved(cfg.Local, s.localSpans()), resolved(cfg.Remote, s.remoteSpans())
}

// childOffer is a Child SA that we ask for, until it is answered.
type childOffer struct {
	c         *child
	proposals []suite.Proposal
	local     []ipsec.Selector // offered for us and for the peer, from our side
	remote    []ipsec.Selector
	ke        suite.KeyExchange
	group     suite.TransformID
	nonce     []byte
	ppk       []wire.Payload // names a fresh PPK (RFC 9867)
	single    bool           // only one pair of addresses, after SINGLE_PAIR_REQUIRED
	rekey     bool
	like      *child // it is to be like this one in all but the keys (RFC 9611)
	// unresolved: our dynamic selectors stand for whatever addresses the peer gives.
	unresolved bool
}

// offer prepares what we ask for. acquired goes first into the selectors (RFC 7296 §2.9);
// old is what it is to replace.
func (s *sa) offer(now time.Time, cfg *ike.Child, acquired *ipsec.Acquire, ke, single bool, old *child) *childOffer {
	o := &childOffer{c: s.newChild(cfg, true, resourceOf(acquired), old), proposals: childProposals(cfg, ke), single: single, rekey: old != nil}
	if old == nil {
		o.c.many = cfg.PerCPU != ike.PerCPUNo
	}
	o.c.requested = now
	o.c.mode = cfg.Mode
	o.local, o.remote = s.selectorsOf(cfg)
	o.unresolved = s.wantsAddresses()
	if acquired != nil && !s.config().IgnoreAcquire {
		if l, r, ok := packetSelectors(acquired, o.local, o.remote); ok {
			if single {
				o.local, o.remote = []ipsec.Selector{l}, []ipsec.Selector{r}
			} else {
				o.local, o.remote = prepend(l, o.local), prepend(r, o.remote)
			}
			return o
		}
	}
	if single {
		o.local, o.remote = onePair(o.local, s.local.Addr()), onePair(o.remote, s.remote.Addr())
	}
	return o
}

func prepend(first ipsec.Selector, list []ipsec.Selector) []ipsec.Selector {
	if len(list) > 0 && list[0] == first {
		return list
	}
	return append([]ipsec.Selector{first}, list...)
}

// packetSelectors are those of the packet that asked for the Child SA, if they
// lie inside the configured ones.
func packetSelectors(a *ipsec.Acquire, local, remote []ipsec.Selector) (l, r ipsec.Selector, ok bool) {
	src, dst := a.Src.Unmap().WithZone(""), a.Dst.Unmap().WithZone("")
	l = ipsec.Selector{Proto: a.Proto, From: src, To: src, PortFrom: a.SrcPort, PortTo: a.SrcPort}
	r = ipsec.Selector{Proto: a.Proto, From: dst, To: dst, PortFrom: a.DstPort, PortTo: a.DstPort}
	switch a.Proto {
	case ipsec.ProtoICMP, ipsec.ProtoICMPv6, ipsec.ProtoMH:
		// Both sides name the type and code that went out (RFC 7296 §3.13.1).
		r.PortFrom, r.PortTo = l.PortFrom, l.PortTo
	case ipsec.ProtoTCP, ipsec.ProtoUDP, ipsec.ProtoSCTP, 136:
	default:
		l.PortFrom, l.PortTo, r.PortFrom, r.PortTo = 0, 65535, 0, 65535
	}
	return l, r, src.IsValid() && dst.IsValid() && ipsec.ContainsAll(local, []ipsec.Selector{l}) && ipsec.ContainsAll(remote, []ipsec.Selector{r})
}

// onePair narrows a list to one address: the endpoint's if it lies inside, else the first one.
func onePair(list []ipsec.Selector, endpoint netip.Addr) []ipsec.Selector {
	for _, t := range list {
		if t.MatchAddr(endpoint) {
			t.From, t.To = endpoint, endpoint
			return []ipsec.Selector{t}
		}
	}
	if len(list) == 0 {
		return nil
	}
	t := list[0]
	t.To = t.From
	return []ipsec.Selector{t}
}

// payloads are SA, TSi, TSr and the notifies of a request; KE and nonce are the
// caller's, since IKE_AUTH has neither.
func (o *childOffer) payloads(front ...wire.Payload) []wire.Payload {
	list := append([]wire.Payload{toWire(o.proposals, spiBytes(o.c.spiIn))}, front...)
	list = append(list, tsPayload(wire.PayloadTSi, o.local), tsPayload(wire.PayloadTSr, o.remote))
	if o.c.mode == ipsec.ModeTransport {
		list = append(list, notify(wire.UseTransportMode, nil))
	}
	if o.c.many && !o.rekey {
		list = append(list, o.c.resourceInfo())
	}
	return list
}

// accepted checks the answer to an offer: the choice must lie inside it, in
// algorithms and in selectors (RFC 7296 §2.7, §2.9).
func (s *sa) accepted(o *childOffer, payloads []wire.Payload, ignoreKE bool) *ike.Rejection {
	saP, _ := wire.First[*wire.SA](payloads)
	refuse := func(reason ike.Reason, why string) *ike.Rejection {
		return &ike.Rejection{SAKey: ike.SAKey{Child: o.c.cfg.Name}, Reason: reason, Difference: why}
	}
	if saP == nil || len(saP.Proposals) != 1 {
		return refuse(ike.ReasonSyntax, "the answer does not hold exactly one proposal")
	}
	answer := fromWire(saP)[0]
	sel, err := suite.Accept(o.proposals, answer, suite.SelectOptions{IgnoreKE: ignoreKE})
	if err != nil {
		r := noProposal(err, o.proposals, []suite.Proposal{answer})
		r.Child = o.c.cfg.Name
		return r
	}
	spi := saP.Proposals[0].SPI
	if len(spi) != 4 || binary.BigEndian.Uint32(spi) < uint32(ipsec.MinSPI) {
		return refuse(ike.ReasonSyntax, "the answer's SPI is not valid")
	}
	if s.cp().refused != nil {
		x := *s.cp().refused.record
		x.Child = o.c.cfg.Name
		return &x
	}
	if r := s.acceptedSelectors(o, payloads, refuse); r != nil {
		return r
	}
	if o.like != nil {
		if r := o.acceptedLike(); r != nil {
			return r
		}
	}
	if wire.FindNotify(payloads, wire.ESPTFCPaddingNotSupported) != nil {
		s.peerCaps.noTFC = true
	}
	o.c.suite, o.c.spiOut = sel, ipsec.SPI(binary.BigEndian.Uint32(spi))
	if !o.rekey && wire.FindNotify(payloads, wire.SAResourceInfo) == nil {
		o.c.many = false // the peer makes but one
	}
	return nil
}

// acceptedSelectors checks mode and selectors of an answer and takes them over.
func (s *sa) acceptedSelectors(o *childOffer, payloads []wire.Payload, refuse func(ike.Reason, string) *ike.Rejection) *ike.Rejection {
	l, r := selectors(wire.FindTS(payloads, wire.PayloadTSi)), selectors(wire.FindTS(payloads, wire.PayloadTSr))
	theirs := selectorText(l, r)
	outside := func(why string) *ike.Rejection {
		x := refuse(ike.ReasonSelectors, why)
		x.Ours, x.Theirs = selectorText(o.local, o.remote), theirs
		return x
	}
	transport := o.c.mode == ipsec.ModeTransport
	if transport && wire.FindNotify(payloads, wire.UseTransportMode) == nil {
		x := refuse(ike.ReasonProposal, "mode: the peer insists on tunnel mode")
		x.Detail = ike.DetailMode
		x.Ours, x.Theirs = "TRANSPORT", "TUNNEL"
		return x
	}
	if transport {
		l, r = s.translate(l, r)
	}
	if len(l) == 0 || len(r) == 0 || !ipsec.ContainsAll(o.local, l) || !ipsec.ContainsAll(o.remote, r) {
		return outside("the peer's selectors lie outside of what was offered")
	}
	if o.unresolved {
		// Now that the addresses are there our part is narrower than what was offered.
		if l = ipsec.Narrow(resolved(o.c.cfg.Local, s.localSpans()), l); len(l) == 0 {
			return outside("the peer's selectors do not hold the address that it gave")
		}
	}
	if transport && s.translated(l, r) {
		return refuse(ike.ReasonProposal, "mode: transport mode through a NAT needs the endpoints' own addresses as selectors")
	}
	o.c.localTS, o.c.remoteTS = ipsec.Narrow(l, l), ipsec.Narrow(r, r)
	return nil
}

// choice is what a responder grants.
type choice struct {
	c        *child
	rekey    bool
	proposal int // index of the peer's proposal
	number   uint8
	group    suite.TransformID // of the key exchange, KENone: none
	// answerLocal and answerRemote are the selectors as the peer is told them: with
	// the addresses that it wrote (RFC 7296 §2.23.1).
	answerLocal, answerRemote []ipsec.Selector
}

// refusal is a negotiation that fails with a notify.
type refusal struct {
	notify wire.NotifyType
	data   []byte
	record *ike.Rejection
}

// choose grants what the peer asks for, or says why not. old is what a rekey
// replaces: it restricts the choice to that configuration.
func (s *sa) choose(now time.Time, payloads []wire.Payload, old *child, withKE bool) (*choice, *refusal) {
	saP, _ := wire.First[*wire.SA](payloads)
	tsi, tsr := wire.FindTS(payloads, wire.PayloadTSi), wire.FindTS(payloads, wire.PayloadTSr)
	if saP == nil || tsi == nil || tsr == nil {
		return nil, &refusal{wire.InvalidSyntax, nil, &ike.Rejection{Reason: ike.ReasonSyntax, Difference: "SA, TSi or TSr is missing"}}
	}
	theirs := fromWire(saP)
	remote, local := selectors(tsi), selectors(tsr)
	transport := wire.FindNotify(payloads, wire.UseTransportMode) != nil
	if s.cp().refused != nil && s.cp().refused.notify != 0 {
		x := *s.cp().refused.record
		return nil, &refusal{s.cp().refused.notify, nil, &x}
	}
	list := s.peer.Children
	if old != nil {
		list = []*ike.Child{s.currentChild(old)}
	}
	cfg, l, r, mode, refused := s.matchChild(list, local, remote, transport)
	if refused != nil {
		return nil, refused
	}
	var groupSent suite.TransformID
	if ke, ok := wire.First[*wire.KE](payloads); ok && withKE {
		groupSent = suite.TransformID(ke.Group)
	}
	ours, one := childProposals(cfg, withKE), oneOfMany{}
	if old == nil {
		if one, refused = s.chooseResource(cfg, payloads, l, r, mode); refused != nil {
			return nil, refused
		}
		if one.like != nil {
			ours = onlySuite(ours, one.like.suite)
		}
	}
	sel, i, err := suite.Select(ours, theirs, suite.SelectOptions{PreferPeer: cfg.PreferPeer, IgnoreKE: !withKE, KE: groupSent})
	if err != nil {
		x := noProposal(err, ours, theirs)
		x.Child = cfg.Name
		return nil, &refusal{wire.NoProposalChosen, nil, x}
	}
	spi := saP.Proposals[i].SPI
	if len(spi) != 4 || binary.BigEndian.Uint32(spi) < uint32(ipsec.MinSPI) {
		return nil, &refusal{wire.InvalidSyntax, nil, &ike.Rejection{SAKey: ike.SAKey{Child: cfg.Name}, Reason: ike.ReasonSyntax, Difference: "the SPI of the proposal is not valid"}}
	}
	if sel.KEPresent && sel.KE.ID != groupSent {
		return nil, &refusal{wire.InvalidKEPayload, binary.BigEndian.AppendUint16(nil, uint16(sel.KE.ID)), nil}
	}
	if len(s.children) >= limitChildren {
		return nil, &refusal{wire.NoAdditionalSAs, nil, &ike.Rejection{SAKey: ike.SAKey{Child: cfg.Name}, Reason: ike.ReasonLimit, Difference: "too many Child SAs in one IKE SA"}}
	}
	ch := &choice{c: s.newChild(cfg, false, one.resource, old), rekey: old != nil, proposal: i, number: saP.Proposals[i].Number}
	ch.c.many = ch.c.many || one.many
	if sel.KEPresent {
		ch.group = sel.KE.ID
	}
	if wire.FindNotify(payloads, wire.ESPTFCPaddingNotSupported) != nil {
		s.peerCaps.noTFC = true
	}
	c := ch.c
	c.requested, c.suite, c.mode, c.localTS, c.remoteTS = now, sel, mode, l, r
	c.spiOut = ipsec.SPI(binary.BigEndian.Uint32(spi))
	ch.answerLocal, ch.answerRemote = l, r
	if mode == ipsec.ModeTransport {
		ch.answerLocal, ch.answerRemote = untranslate(l, local, s.nat.local), untranslate(r, remote, s.nat.remote)
	}
	return ch, nil
}

// matchChild picks the child configuration for the peer's selectors: the first
// that can grant them whole, else the first that can grant a part.
func (s *sa) matchChild(list []*ike.Child, local, remote []ipsec.Selector, transport bool) (cfg *ike.Child, l, r []ipsec.Selector, mode ipsec.Mode, _ *refusal) {
	var not []ike.Candidate
	var ours string
	tried, parts := 0, 0
	modeOnly := false
	for _, c := range list {
		if c.Action != ipsec.Protect {
			continue
		}
		pl, pr := s.selectorsOf(c)
		tl, tr := local, remote
		if c.Mode == ipsec.ModeTransport && transport {
			tl, tr = s.translate(local, remote)
		}
		nl, nr := ipsec.Narrow(pl, tl), ipsec.Narrow(pr, tr)
		if ours == "" {
			ours = selectorText(pl, pr)
		}
		tried++
		why, detail := "", ike.DetailMode
		switch {
		case len(nl) == 0:
			why, detail = "its local_ts "+selectorList(pl)+" share nothing with the peer's "+selectorList(tl), ike.DetailLocalTS
		case len(nr) == 0:
			why, detail = "its remote_ts "+selectorList(pr)+" share nothing with the peer's "+selectorList(tr), ike.DetailRemoteTS
		case c.Mode == ipsec.ModeTransport && !transport:
			why, modeOnly = "it wants transport mode", true
		case c.Mode == ipsec.ModeTransport && s.translated(nl, nr):
			why, modeOnly = "transport mode through a NAT needs the endpoints' own addresses as selectors", true
		}
		if why != "" {
			not = append(not, ike.Candidate{Name: c.Name, Why: why, Detail: detail})
			continue
		}
		if cfg == nil || !ipsec.ContainsAll(l, nl) || !ipsec.ContainsAll(r, nr) {
			parts++ // Peer quirk (Google): all selectors of a tunnel in one Child SA
		}
		if whole := ipsec.ContainsAll(pl, tl) && ipsec.ContainsAll(pr, tr); cfg == nil || whole {
			cfg, l, r, mode = c, nl, nr, c.Mode
			if whole {
				return cfg, l, r, mode, nil
			}
		}
	}
	if cfg != nil {
		if parts > 1 {
			s.note(1, "the peer asks for the selectors of several children at once, "+selectorText(local, remote)+": it is granted those of "+cfg.Name+
				"; all belong into "+s.peer.Option("children."+cfg.Name+".local_ts")+" and .remote_ts if it wants one Child SA")
		}
		return cfg, l, r, mode, nil
	}
	rec := &ike.Rejection{Reason: ike.ReasonSelectors, Notify: wire.TSUnacceptable.String(), Ours: ours, Theirs: selectorText(local, remote), Difference: "no child grants the peer's traffic selectors", Candidates: not[:min(len(not), 16)]}
	if tried == 1 {
		rec.Child, rec.Detail = not[0].Name, not[0].Detail
	}
	if modeOnly {
		rec.Reason, rec.Detail, rec.Notify, rec.Difference = ike.ReasonProposal, ike.DetailMode, wire.NoProposalChosen.String(), "mode"
		return nil, nil, nil, 0, &refusal{wire.NoProposalChosen, nil, rec}
	}
	return nil, nil, nil, 0, &refusal{wire.TSUnacceptable, nil, rec}
}

// grant is the answer's SA, TSi, TSr and notifies.
func (s *sa) grant(ch *choice, front ...wire.Payload) []wire.Payload {
	c := ch.c
	saP := toWire([]suite.Proposal{c.suite.Proposal()}, spiBytes(c.spiIn))
	saP.Proposals[0].Number = ch.number
	list := append([]wire.Payload{saP}, front...)
	list = append(list, tsPayload(wire.PayloadTSi, ch.answerRemote), tsPayload(wire.PayloadTSr, ch.answerLocal))
	if c.mode == ipsec.ModeTransport {
		list = append(list, notify(wire.UseTransportMode, nil))
	}
	if c.many && !ch.rekey {
		list = append(list, c.resourceInfo())
	}
	return list
}

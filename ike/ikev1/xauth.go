package ikev1

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/suite"
)

// XAUTH (draft-beaulieu-ike-xauth-02): after phase 1 one side, as a rule the responder,
// asks the other one for a name and a password, in transaction exchanges.

// Attributes of XAUTH (§6.1).
const (
	xauthType     uint16 = 16520
	xauthUser     uint16 = 16521
	xauthPassword uint16 = 16522
	xauthPasscode uint16 = 16523
	xauthStatus   uint16 = 16527
)

// extended is what the time between phase 1 and the end of XAUTH needs.
type extended struct {
	server  bool
	contact bool
	user    string
	done    bool // the client: it has answered
}

// asksPassword and givesPassword tell what a connection's rounds say of XAUTH: the peer
// proves itself by it, or we do.
func asksPassword(p *ike.Peer) bool { return p.Remote[len(p.Remote)-1].Method == ike.AuthXAuth }
func givesPassword(p *ike.Peer) bool {
	return p.Local[len(p.Local)-1].Method == ike.AuthXAuth
}

// byXAuth reports whether the method has XAUTH after phase 1.
func byXAuth(a wire.V1Auth) bool {
	switch a {
	case wire.V1AuthXAuthInitPSK, wire.V1AuthXAuthRespPSK, wire.V1AuthXAuthInitRSA, wire.V1AuthXAuthRespRSA, wire.V1AuthHybridInitRSA, wire.V1AuthHybridRespRSA:
		return true
	}
	return false
}

// proved goes on when phase 1 is done: with XAUTH, if the method has it.
func (s *sa) proved(now time.Time, contact bool) {
	if !byXAuth(s.setup.auth) {
		s.established(now, contact)
		return
	}
	s.phase, s.first = phaseExtended, nil
	s.ext = &extended{server: asksPassword(s.peer), contact: contact}
	s.life.setupEnd = now.Add(timeoutXAuth)
	if s.ext.server {
		s.transact(now, wire.V1Attributes{CFGType: wire.CFGRequest, Attributes: []wire.V1Attribute{{Type: xauthUser}, {Type: xauthPassword}}}, (*sa).xauthReply)
	}
}

// transact begins a transaction exchange of ours; take gets the answer.
func (s *sa) transact(now time.Time, p wire.V1Attributes, take func(*sa, time.Time, *wire.V1Attributes)) {
	x := s.newExchange(now, wire.ExchangeV1Transaction)
	x.take = take
	s.exchanges = append(s.exchanges, x)
	p.Identifier = uint16(ike.RandomUint64())
	packets, summary := s.hashed(x, func(rest []byte) []byte { return s.keys.hash1(x.id, rest) }, []wire.V1Payload{p.Payload()})
	s.request(now, x, packets, summary)
}

// receiveTransaction takes a message of a transaction exchange.
func (s *sa) receiveTransaction(now time.Time, in *inbound, hash []byte) {
	body := in.get(wire.PayloadV1Attributes)
	p, err := wire.ParseV1Attributes(body)
	if !equal(hash, s.keys.hash1(in.header.MessageID, in.rest)) || body == nil || err != nil {
		s.env.Drop(now, ike.DropIntegrity, in.datagram.Remote)
		return
	}
	answers := p.CFGType == wire.CFGReply || p.CFGType == wire.CFGAck
	if x := in.x; x != nil && x.take != nil && answers {
		s.accepted(now, in)
		x.out = nil
		s.forgetExchange(x)
		x.take(s, now, p)
		return
	}
	if answers || s.phase == phaseExtended && s.ext.server {
		s.env.Drop(now, ike.DropUnexpected, in.datagram.Remote)
		return
	}
	s.accepted(now, in)
	x := &exchange{id: in.header.MessageID, kind: wire.ExchangeV1Transaction, iv: in.iv, began: now}
	reply := func(now time.Time, t wire.CFGType, list []wire.V1Attribute) {
		q := wire.V1Attributes{CFGType: t, Identifier: p.Identifier, Attributes: list}
		packets, summary := s.hashed(x, func(rest []byte) []byte { return s.keys.hash1(x.id, rest) }, []wire.V1Payload{q.Payload()})
		s.respond(now, in, packets, summary)
		s.lastConfig = x // some go on under the same message ID
	}
	switch {
	case s.phase == phaseExtended && p.CFGType == wire.CFGRequest:
		s.xauthRequest(now, p, reply)
	case s.phase == phaseExtended:
		s.xauthOutcome(now, p, reply)
	case p.CFGType == wire.CFGRequest:
		s.configRequest(now, p, reply)
	default:
		s.configSet(now, p, reply)
	}
}

func attributeOf(p *wire.V1Attributes, t uint16) *wire.V1Attribute {
	for i := range p.Attributes {
		if p.Attributes[i].Type == t {
			return &p.Attributes[i]
		}
	}
	return nil
}

// xauthRequest answers the server's question for name and password.
func (s *sa) xauthRequest(now time.Time, p *wire.V1Attributes, reply func(time.Time, wire.CFGType, []wire.V1Attribute)) {
	user := s.xauthName()
	if t := attributeOf(p, xauthType); t != nil {
		if n, ok := t.Uint(); !ok || n != 0 {
			s.note(1, "the peer asks for a kind of XAUTH other than name and password")
		}
	}
	round := len(s.peer.Local) - 1
	s.ask(now, timeoutAsk, ike.XAuth{Peer: s.peer, Round: round, User: user}, func(now time.Time, r ike.Result) {
		a, ok := r.Value.(*ike.XAuthAnswer)
		if r.Err != nil || !ok || a == nil || len(a.Password) == 0 {
			why := "no secret for the XAUTH name " + shortText(user) + " (secrets.eap*, secrets.xauth*)"
			if r.Err != nil {
				why = r.Err.Error()
			}
			reply(now, wire.CFGReply, []wire.V1Attribute{wire.Basic16(xauthStatus, 0)})
			s.refuseProof(now, &ike.Rejection{Reason: ike.ReasonAuthentication, Detail: ike.DetailEAP, Ours: shortText(user), Difference: why})
			return
		}
		var list []wire.V1Attribute
		for _, q := range p.Attributes {
			switch q.Type {
			case xauthUser:
				list = append(list, wire.V1Attribute{Type: xauthUser, Value: []byte(user)})
			case xauthPassword, xauthPasscode:
				list = append(list, wire.V1Attribute{Type: q.Type, Value: slices.Clone(a.Password)})
			case xauthType:
				list = append(list, wire.Basic16(xauthType, 0))
			}
		}
		a.Password.Zero()
		s.ext.user, s.ext.done = user, true
		reply(now, wire.CFGReply, list)
	})
}

// xauthName is our name in XAUTH.
func (s *sa) xauthName() string {
	r := s.peer.Local[len(s.peer.Local)-1]
	switch {
	case !r.EAPID.IsAny():
		return r.EAPID.String()
	case !r.ID.IsAny():
		return r.ID.String()
	}
	return s.ids[0].String()
}

// xauthOutcome takes the server's verdict.
func (s *sa) xauthOutcome(now time.Time, p *wire.V1Attributes, reply func(time.Time, wire.CFGType, []wire.V1Attribute)) {
	status := attributeOf(p, xauthStatus)
	if status == nil {
		reply(now, wire.CFGAck, nil)
		return
	}
	n, _ := status.Uint()
	reply(now, wire.CFGAck, []wire.V1Attribute{{Type: xauthStatus, Basic: true, Value: []byte{0, byte(n)}}})
	if n != 1 || !s.ext.done {
		s.fail(now, &ike.Rejection{Reason: ike.ReasonAuthentication, Detail: ike.DetailEAP, ByPeer: true, Ours: shortText(s.ext.user), Difference: "the peer refuses name and password (XAUTH)"})
		return
	}
	s.established(now, s.ext.contact)
}

// xauthReply takes name and password of the client.
func (s *sa) xauthReply(now time.Time, p *wire.V1Attributes) {
	user, password := attributeOf(p, xauthUser), attributeOf(p, xauthPassword)
	if password == nil {
		password = attributeOf(p, xauthPasscode)
	}
	q := ike.XAuth{Server: true, SA: s.env.Instance(), Peer: s.peer, Round: len(s.peer.Remote) - 1, Local: s.local, Remote: s.remote}
	if user != nil && password != nil && len(user.Value) <= limitUser && len(password.Value) <= limitUser {
		// peer quirk: Android ends the password with a zero.
		q.User, q.Password = string(user.Value), suite.Key(bytes.TrimRight(slices.Clone(password.Value), "\x00"))
	}
	s.ask(now, timeoutXAuthAnswer, q, func(now time.Time, r ike.Result) {
		a, ok := r.Value.(*ike.XAuthAnswer)
		good := r.Err == nil && ok && a != nil && a.Success && q.User != ""
		if groups := s.peer.Remote[q.Round].Groups; good && len(groups) > 0 && !slices.ContainsFunc(groups, func(g string) bool { return slices.Contains(a.Groups, g) }) {
			good, a.Why = false, "the user "+shortText(q.User)+" is in none of its groups (XAUTH)"
		}
		status := uint16(0)
		if good {
			status = 1
		}
		s.ext.user = q.User
		s.transact(now, wire.V1Attributes{CFGType: wire.CFGSet, Attributes: []wire.V1Attribute{wire.Basic16(xauthStatus, status)}}, func(s *sa, now time.Time, _ *wire.V1Attributes) {
			if good {
				s.eapID, s.life.session = cmp.Or(a.Identity, q.User), a.Lifetime
				if r := s.checkUnique(); r != nil {
					s.refuseProof(now, r)
					return
				}
				s.established(now, s.ext.contact)
				return
			}
			s.refuseXAuth(now, a, r.Err, q.User)
		})
	})
}

func (s *sa) refuseXAuth(now time.Time, a *ike.XAuthAnswer, err error, user string) {
	why := "name or password is wrong (XAUTH)"
	switch {
	case err != nil:
		why = err.Error()
	case a != nil && a.Why != "":
		why = a.Why
	}
	c := cookiePair(s.spiI, s.spiR)
	s.inform(now, wire.V1Delete{Protocol: wire.ProtocolIKE, SPIs: [][]byte{c[:]}}.Payload())
	s.fail(now, &ike.Rejection{Reason: ike.ReasonAuthentication, Detail: ike.DetailEAP, Theirs: shortText(user), Difference: why})
}

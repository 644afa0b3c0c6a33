package ikev2

import (
	"crypto/hmac"
	"encoding/binary"
	"slices"
	"strings"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/internal/simbug"
	"adit/suite"
)

// conversation is one authentication by EAP (RFC 7296 §2.16). The method itself
// runs outside: in a machine of the host's, or behind RADIUS.
type conversation struct {
	env     *ike.Env
	session uint64
	server  bool // we are the authenticator
	peer    *ike.Peer
	round   int
	// only: nothing else proves the responder (RFC 5998).
	only bool
	// begun: the peer's first packet was taken.
	begun bool
	// proving: the method has succeeded; AUTH with its key is due.
	proving bool
	msk     suite.Key
	answer  ike.EAPAnswer
	// failing is why the method fails, while the peer is still being told.
	failing string
}

func newConversation(env *ike.Env, p *ike.Peer, round int, server bool) *conversation {
	return &conversation{env: env, session: ike.RandomUint64(), server: server, peer: p, round: round}
}

// end forgets the conversation, here and outside.
func (c *conversation) end() {
	if c == nil || c.env == nil {
		return
	}
	c.msk.Zero()
	c.env.Effect(ike.EndEAP{Session: c.session})
	*c = conversation{}
}

// endEAP forgets the conversation under way.
func (a *authentication) endEAP() {
	a.eap.end()
	a.eap = nil
}

// eapOnly reports whether the connection lets EAP alone prove the responder: not with
// `any`, if something is demanded of its key or certificate.
func eapOnly(p *ike.Peer) bool {
	return p.Local[0].Method == ike.AuthEAP && len(p.Remote) == 1 && (p.Remote[0].Method == ike.AuthEAP || p.Remote[0].Method == ike.AuthAny && !wantsKey(&p.Remote[0]))
}

// askEAP hands a packet of the peer's to the method; nil begins as authenticator.
// then gets the answer; whatever goes wrong outside is a failure of EAP.
func (s *sa) askEAP(now time.Time, a *authentication, packet []byte, then func(time.Time, *ike.EAPAnswer)) {
	c := a.eap
	q := ike.EAPRound{Session: c.session, SA: s.env.Instance(), Server: c.server, Peer: c.peer, Round: c.round, LocalID: s.ids[0], RemoteID: s.ids[1],
		Local: s.local, Remote: s.remote, Message: slices.Clone(packet), MutualOnly: c.only}
	s.ask(now, timeoutEAP, q, func(now time.Time, r ike.Result) {
		answer, ok := r.Value.(*ike.EAPAnswer)
		if r.Err != nil || !ok || answer == nil {
			answer = &ike.EAPAnswer{Done: true, Why: "no answer of the EAP method"}
			if r.Err != nil {
				answer.Why = r.Err.Error()
			}
		}
		if answer.Message != nil && !soundEAP(answer.Message) || answer.Message == nil && !answer.Done {
			answer = &ike.EAPAnswer{Done: true, Why: "the EAP method made no packet"}
		}
		if answer.Done && answer.Success {
			c.answer = *answer
			c.msk, c.answer.MSK = answer.MSK, nil
			if len(c.answer.Identity) > limitEAPIdentity {
				answer = &ike.EAPAnswer{Done: true, Why: "the identity inside EAP is too long"}
			} else if c.only && (!answer.Mutual || len(c.msk) == 0) {
				answer = &ike.EAPAnswer{Done: true, Why: "the method " + answer.Method + " does not prove both sides, as EAP alone must (RFC 5998)"}
			}
		}
		c.proving = answer.Done && answer.Success
		if !answer.Done {
			c.failing = answer.Why
		}
		then(now, answer)
	})
}

// soundEAP checks the head of a packet that goes out: code, identifier, length.
func soundEAP(b []byte) bool {
	return len(b) >= 4 && len(b) <= limitEAPPacket && int(binary.BigEndian.Uint16(b[2:])) == len(b)
}

// The codes of EAP packets (RFC 3748 §4).
const (
	codeRequest  = 1
	codeResponse = 2
	codeSuccess  = 3
	codeFailure  = 4
)

// eapFailure is an EAP-Failure in answer to a packet (RFC 3748 §4.2).
func eapFailure(to []byte) []byte {
	id := byte(0)
	if len(to) >= 2 {
		id = to[1]
	}
	return []byte{codeFailure, id, 0, 4}
}

// eapBegin begins as authenticator: the initiator left AUTH out.
func (s *sa) eapBegin(now time.Time, st *authReceived, in *inbound) {
	a := &st.authentication
	a.keepMethod(ike.AuthEAP)
	p := a.best()
	if p == nil {
		r := a.noCandidate(ike.ReasonAuthentication, "the peer asks for EAP, and no connection of its identity has it")
		r.Notify, r.Theirs = wire.AuthenticationFailed.String(), idText(a.peerID)
		if len(a.first) > 0 && !slices.ContainsFunc(a.first, func(p *ike.Peer) bool { return s.ids[1].Match(p.Remote[0].ID) != ike.MatchNone }) {
			r.Reason, r.Difference = ike.ReasonIdentity, "no connection for this identity"
		}
		s.refuseAuth(now, in, r)
		return
	}
	s.peer = p
	if a.ours < len(p.Local) {
		s.ids[0], _ = s.answerID(p, a.ours, a.wanted)
	}
	a.eap = newConversation(s.env, p, len(a.theirs), true)
	a.eap.only = a.ours < len(p.Local) && p.Local[a.ours].Method == ike.AuthEAP
	s.askEAP(now, a, nil, func(now time.Time, answer *ike.EAPAnswer) {
		if answer.Done {
			s.refuseAuth(now, in, s.eapFailed(a, answer))
			return
		}
		s.ownRound(now, st, in, []wire.Payload{&wire.EAP{Raw: answer.Message}})
	})
}

func (s *sa) eapFailed(a *authentication, answer *ike.EAPAnswer) *ike.Rejection {
	why := answer.Why
	if why == "" {
		why = "the method failed"
	}
	if answer.Method != "" {
		why = answer.Method + ": " + why
	}
	r := s.authFailed(a, "EAP: "+strings.TrimPrefix(why, "eap: "))
	if r.Detail = answer.Detail; r.Detail == "" {
		r.Detail = ike.DetailEAP
	}
	if s.initiator {
		r.Options = []string{"secrets.eap*.secret", s.peer.Option("local.eap_id")}
	}
	if answer.Identity != "" {
		r.Theirs += ", EAP identity " + shortText(answer.Identity)
	}
	return r
}

// eapAborted adds why EAP was failing to the record of a peer that ends the set-up
// instead of answering the method's last word.
func (s *sa) eapAborted(r *ike.Rejection) *ike.Rejection {
	if st, ok := s.state.(*authReceived); ok && st.eap != nil && st.eap.failing != "" && r.Difference == "" {
		r.Detail, r.Difference = ike.DetailEAP, "EAP: "+st.eap.failing
	}
	return r
}

// eapAnswered takes the initiator's next EAP packet.
func (s *sa) eapAnswered(now time.Time, st *authReceived, in *inbound) {
	a := &st.authentication
	eap, _ := wire.First[*wire.EAP](in.payloads)
	auth, _ := wire.First[*wire.Auth](in.payloads)
	if eap == nil || auth != nil {
		s.refuseAuth(now, in, s.authFailed(a, "an EAP payload is due, and nothing else proves the peer"))
		return
	}
	r := s.eapNamed(a, eap.Raw)
	if r != nil {
		s.respond(now, in, []wire.Payload{&wire.EAP{Raw: eapFailure(eap.Raw)}})
		s.fail(now, r)
		return
	}
	goOn := func(now time.Time, answer *ike.EAPAnswer) { s.eapReply(now, st, in, eap.Raw, answer) }
	if c := a.eap; !sameEAP(&c.peer.Remote[c.round], &a.best().Remote[c.round]) {
		s.eapAnew(now, a, eap.Raw, goOn)
		return
	}
	a.eap.begun = true
	s.askEAP(now, a, eap.Raw, goOn)
}

// eapReply sends the method's answer to a packet of the initiator's.
func (s *sa) eapReply(now time.Time, st *authReceived, in *inbound, to []byte, answer *ike.EAPAnswer) {
	switch {
	case answer.Done && !answer.Success:
		packet := answer.Message
		if packet == nil {
			packet = eapFailure(to)
		}
		s.respond(now, in, []wire.Payload{&wire.EAP{Raw: packet}})
		s.fail(now, s.eapFailed(&st.authentication, answer))
	case answer.Message == nil: // RFC 3748 wants a Success
		s.ownRound(now, st, in, []wire.Payload{&wire.EAP{Raw: []byte{codeSuccess, to[1], 0, 4}}})
	default:
		s.ownRound(now, st, in, []wire.Payload{&wire.EAP{Raw: answer.Message}})
	}
}

// isIdentity tells a request or response for the EAP identity (RFC 3748 §5.1).
func isIdentity(packet []byte, code byte) bool {
	const typeIdentity = 1
	return len(packet) >= 5 && packet[0] == code && packet[4] == typeIdentity
}

// eapNamed looks at an EAP-Response/Identity, which comes first or not at all: of
// several connections the one whose eap_id fits goes on.
func (s *sa) eapNamed(a *authentication, raw []byte) *ike.Rejection {
	c := a.eap
	if c.begun || !isIdentity(raw, codeResponse) {
		return nil
	}
	text := string(raw[5:])
	before, k := a.best(), c.round
	a.keep(func(p *ike.Peer) (ike.Detail, string) {
		if len(text) > limitEAPIdentity {
			return ike.DetailEAPID, "the EAP identity is too long"
		}
		return ike.DetailEAPID, eapIdentityFits(&p.Remote[k], text)
	})
	if a.keepShown(s); a.best() == nil {
		r := a.noCandidate(ike.ReasonIdentity, "no connection for the EAP identity "+shortText(text))
		r.Notify, r.Theirs = "EAP-Failure", idText(a.peerID)
		return r
	}
	s.switched(a, before)
	s.peer = a.best()
	return nil
}

// eapAnew begins the conversation again by the rules of the connection that the
// identity chose. It is told the identity at once, so that the peer is not asked twice.
func (s *sa) eapAnew(now time.Time, a *authentication, identity []byte, then func(time.Time, *ike.EAPAnswer)) {
	old := *a.eap
	a.endEAP()
	a.eap = newConversation(s.env, a.best(), old.round, true)
	a.eap.only, a.eap.begun = old.only, true
	s.askEAP(now, a, nil, func(now time.Time, answer *ike.EAPAnswer) {
		if answer.Done || !isIdentity(answer.Message, codeRequest) {
			then(now, answer)
			return
		}
		told := slices.Clone(identity)
		told[1] = answer.Message[1]
		s.askEAP(now, a, told, then)
	})
}

// eapIdentityFits compares an identity inside EAP with what a round demands.
func eapIdentityFits(r *ike.AuthRound, text string) string {
	if r.EAPID.IsAny() || text != "" && eapIdentity(text).Match(r.EAPID) != ike.MatchNone {
		return ""
	}
	return "its eap_id " + r.EAPID.String() + " does not match " + shortText(text)
}

// isClaimed reports whether the user that EAP has proved is the one that the round is
// about. Without eap_id that is its id: a user with a password of its own does not come
// in as the user whom remote.id names. Who uses a RADIUS server believes in its names.
// Deviates: strongSwan takes any user there.
func isClaimed(r *ike.AuthRound, v *verified) bool {
	return r.EAPAsk || !r.EAPID.IsAny() || r.EAP == ike.EAPRadius || v.eapID == "" || v.eapID == v.id.String() ||
		eapIdentity(v.eapID).Match(r.ID) != ike.MatchNone
}

// eapProved takes the initiator's AUTH with the key of the method that has
// succeeded, and answers by ours.
func (s *sa) eapProved(now time.Time, st *authReceived, in *inbound) {
	a := &st.authentication
	c := a.eap
	auth, _ := wire.First[*wire.Auth](in.payloads)
	if _, more := wire.First[*wire.EAP](in.payloads); more || !s.eapAuthFits(a, auth) {
		s.refuseAuth(now, in, s.authFailed(a, "the peer's AUTH does not fit the key of EAP"))
		return
	}
	v := &verified{method: ike.AuthEAP, id: identity(a.peerID), eapID: c.answer.Identity, groups: c.answer.Groups, lifetime: c.answer.Lifetime}
	octets := a.covered(false)
	reply := []wire.Payload{&wire.Auth{Method: wire.AuthSharedKey, Data: s.keys.eapAuth(c.msk, octets, a.ourID, false)}}
	before, k := a.best(), c.round
	began := c.peer
	a.keep(func(p *ike.Peer) (ike.Detail, string) {
		r := &p.Remote[k]
		switch {
		case p != began && !sameEAP(r, &began.Remote[k]):
			return ike.DetailMethod, "it wants another way of EAP than was used"
		case !groupsOverlap(r.Groups, v.groups):
			return ike.DetailGroups, "the peer is in none of its groups"
		case !isClaimed(r, v):
			return ike.DetailEAPID, "the user " + shortText(v.eapID) + " is not " + r.ID.String() + ", and it has no eap_id"
		}
		return ike.DetailEAPID, eapIdentityFits(r, v.eapID)
	})
	a.endEAP()
	s.switched(a, before)
	s.peerProved(now, st, in, v, reply)
}

// eapAuthFits checks the peer's AUTH against the key of EAP.
func (s *sa) eapAuthFits(a *authentication, auth *wire.Auth) bool {
	if simbug.Chosen == simbug.AuthUnchecked {
		return true
	}
	if auth == nil || auth.Method != wire.AuthSharedKey || a.eap == nil || !a.eap.proving || a.peerID == nil {
		return false
	}
	octets := a.covered(!s.initiator)
	return hmac.Equal(s.keys.eapAuth(a.eap.msk, octets, a.peerID, !s.initiator), auth.Data)
}

// eapProgress goes on with EAP as initiator. The responder has proved itself and
// fulfils all that the connection demands before the first packet of EAP is
// answered, unless EAP itself is to prove it (RFC 5998).
func (s *sa) eapProgress(now time.Time, st *authSent, in *inbound, auth *wire.Auth, eap *wire.EAP) {
	a := &st.authentication
	c := a.eap
	if c.proving {
		s.eapConfirmed(now, st, in, auth, eap)
		return
	}
	switch {
	case eap == nil || auth != nil:
		s.abortAuth(now, s.authFailed(a, "the peer does not go on with EAP"))
		return
	case c.only && len(s.peer.Remote) != 1, !c.only && (a.expects || len(a.theirs) == 0 || len(a.theirs) != len(s.peer.Remote)):
		s.abortAuth(now, s.authFailed(a, "the peer begins EAP before it has proved all that the connection demands"))
		return
	}
	c.begun = true
	s.askEAP(now, a, eap.Raw, func(now time.Time, answer *ike.EAPAnswer) {
		switch {
		case answer.Done && !answer.Success && eap.Raw[0] == codeFailure:
			s.fail(now, s.eapFailed(a, answer)) // it knows
		case answer.Done && !answer.Success:
			s.abortAuth(now, s.eapFailed(a, answer))
		case answer.Done && !st.ppkDone:
			s.offerPPK(now, st, func(now time.Time) { s.proveByEAP(now, st) })
		case answer.Done:
			s.proveByEAP(now, st)
		default:
			s.continueAuth(now, st, []wire.Payload{&wire.EAP{Raw: answer.Message}})
		}
	})
}

// proveByEAP sends our AUTH with the key of EAP.
func (s *sa) proveByEAP(now time.Time, st *authSent) {
	a := &st.authentication
	octets := a.covered(true)
	list := []wire.Payload{&wire.Auth{Method: wire.AuthSharedKey, Data: s.keys.eapAuth(a.eap.msk, octets, a.ourID, true)}}
	if st.ppk != nil {
		var second *wire.Auth
		if s.secondAuth(st) {
			second = &wire.Auth{Data: s.keys.plain(st.ppk).eapAuth(a.eap.msk, octets, a.ourID, true)}
		}
		list = append(list, ppkNotifies(s.peer, second)...)
	}
	if a.ours+1 < len(s.peer.Local) && a.multiple {
		list = append(list, notify(wire.AnotherAuthFollows, nil))
	}
	s.continueAuth(now, st, list)
}

// continueAuth sends a further request of the set-up.
func (s *sa) continueAuth(now time.Time, st *authSent, list []wire.Payload) {
	st.exchanges++
	s.request(now, wire.ExchangeIKEAuth, list)
}

// eapConfirmed takes the responder's AUTH with the key of EAP.
func (s *sa) eapConfirmed(now time.Time, st *authSent, in *inbound, auth *wire.Auth, eap *wire.EAP) {
	a := &st.authentication
	c := a.eap
	if eap != nil || !s.eapAuthFits(a, auth) {
		s.abortAuth(now, s.authFailed(a, "the peer's AUTH does not fit the key of EAP"))
		return
	}
	if c.only {
		a.theirs = append(a.theirs, verified{method: ike.AuthEAP, id: identity(a.peerID)})
		a.expects = wire.FindNotify(in.payloads, wire.AnotherAuthFollows) != nil
	}
	a.endEAP()
	st.unanswered = true // and this is the answer
	s.ownProgress(now, st, in, nil, nil)
}

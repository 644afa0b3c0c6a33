package ikev2

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/suite"
)

// session is what a ticket of ours holds (RFC 5723 §6.2). Nobody else can read or make it.
type session struct {
	Expires       int64 // Unix time
	Authenticated int64 // when the peer last proved itself in full
	Peer          string
	// Demands is the fingerprint of what the connection demands of the peer: another one
	// needs a full authentication.
	Demands []byte
	SKd     []byte
	PPK     bool // one is in SKd
	Suite   suite.Selected
	IDs     [2]sessionID // ours, the peer's
	Methods []ike.AuthMethod
	Proved  []sessionID
	Certs   [][][]byte // by round
}

type sessionID struct {
	Type uint8
	Data []byte
}

func sessionIDOf(id ike.Identity) sessionID { return sessionID{id.Type, []byte(id.Data)} }
func (s sessionID) identity() ike.Identity  { return ike.Identity{Type: s.Type, Data: string(s.Data)} }

// limitSessionBytes bounds what is sealed into a ticket (ike.limitTicket).
const limitSessionBytes = 4000

// limitSession is the longest time without a full authentication.
const limitSession = 24 * time.Hour

// demands is the fingerprint of what a connection demands of its peer, and of how we
// prove ourselves.
func demands(p *ike.Peer) []byte {
	b, err := json.Marshal([2][]ike.AuthRound{p.Remote, p.Local})
	if err != nil {
		return nil
	}
	h := sha256.Sum256(b)
	return h[:]
}

// resumption is what an IKE SA keeps that is made of a ticket, until IKE_AUTH.
type resumption struct {
	id            ike.TicketID // responder
	session       *session     // responder
	ticket        *ike.Ticket  // initiator
	authenticated time.Time
}

// resumeSeed is SKEYSEED of a resumed IKE SA: prf(SK_d (old), "Resumption" | Ni | Nr)
// (RFC 5723 §5.1).
func resumeSeed(sel suite.Selected, d suite.Key, ni, nr []byte) (suite.Key, error) {
	prf, err := suite.NewPRF(sel.PRF)
	if err != nil {
		return nil, err
	}
	return prf.Sum(d, []byte("Resumption"), ni, nr), nil
}

// resumeAuth is one side's AUTH in a resumed IKE SA: prf(SK_px, its octets) (RFC 5723 §4.3.3).
func (k *ikeKeys) resumeAuth(message, nonce []byte, id *wire.ID, initiator bool) []byte {
	p := k.pi
	if !initiator {
		p = k.pr
	}
	return k.prf.Sum(p, message, nonce, k.prf.Sum(p, id.AppendSigned(nil)))
}

// asksTicket reports whether an initiator wants a ticket of the peer.
func (s *sa) asksTicket() bool {
	return s.config().ResumeSessions && !slices.ContainsFunc(slices.Concat(s.peer.Local, s.peer.Remote), func(r ike.AuthRound) bool { return r.Method == ike.AuthEAP })
}

// giveTicket answers TICKET_REQUEST: by a ticket, or TICKET_NACK (RFC 5723 §4.2). Who
// proves himself by EAP gets none: an AAA server decides about each of his sessions. The
// certificates are in it, so that a revocation is noticed when it comes back.
func (s *sa) giveTicket(now time.Time, first []wire.Payload, p *proof) []wire.Payload {
	if wire.FindNotify(first, wire.TicketRequest) == nil {
		return nil
	}
	since := now
	if s.resumed != nil {
		since = s.resumed.authenticated
	}
	life := min(ike.TicketLifetime, limitSession-now.Sub(since))
	if p.peer.ReauthTime > 0 {
		life = min(life, p.peer.ReauthTime-now.Sub(since))
	}
	refuse := []wire.Payload{notify(wire.TicketNack, nil)}
	if !s.env.Resumes() || life < time.Minute {
		return refuse
	}
	x := session{Expires: now.Add(life).Unix(), Authenticated: since.Unix(), Peer: p.peer.Name, Demands: demands(p.peer), SKd: s.keys.d, PPK: s.ppk, Suite: s.selected,
		IDs: [2]sessionID{sessionIDOf(s.ids[0]), sessionIDOf(p.rounds[len(p.rounds)-1].id)}}
	for _, v := range p.rounds {
		if v.method == ike.AuthEAP || v.eapID != "" || x.Demands == nil {
			return refuse
		}
		x.Methods, x.Proved, x.Certs = append(x.Methods, v.method), append(x.Proved, sessionIDOf(v.id)), append(x.Certs, v.certs)
	}
	text, err := json.Marshal(x)
	if err == nil && len(text) > limitSessionBytes {
		for i, list := range x.Certs { // intermediates are known here, as a rule
			x.Certs[i] = list[:min(len(list), 1)]
		}
		clear(text)
		text, err = json.Marshal(x)
	}
	defer clear(text)
	if err != nil || len(text) > limitSessionBytes {
		return refuse
	}
	ticket, err := s.env.SealTicket(now, text)
	if err != nil {
		return refuse
	}
	return []wire.Payload{notify(wire.TicketLTOpaque, append(binary.BigEndian.AppendUint32(nil, uint32(life/time.Second)), ticket...))}
}

// takeTicket keeps the ticket that the responder has given.
func (s *sa) takeTicket(now time.Time, payloads []wire.Payload, rounds []verified) {
	n := wire.FindNotify(payloads, wire.TicketLTOpaque)
	if n == nil || len(n.Data) <= 4 || !s.asksTicket() {
		return
	}
	life := min(time.Duration(binary.BigEndian.Uint32(n.Data))*time.Second, limitSession)
	s.env.KeepTicket(&ike.Ticket{Opaque: slices.Clone(n.Data[4:]), Expires: now.Add(life), SKd: slices.Clone(s.keys.d), PPK: s.ppk, Suite: s.selected,
		IDs: s.ids, Peer: s.peer, Proof: slices.Clone(rounds)})
}

// sendResume sends IKE_SESSION_RESUME in place of IKE_SA_INIT (RFC 5723 §4.3.1).
func (s *sa) sendResume(now time.Time, st *initSent) {
	var list []wire.Payload
	if st.cookie != nil {
		list = append(list, notify(wire.Cookie, st.cookie))
	}
	list = append(list, &wire.Nonce{Data: st.ni}, notify(wire.TicketOpaque, st.ticket.Opaque))
	list = append(list, natPayloads(s.spiI, 0, s.local, s.remote, st.fakeHash)...)
	if announcesFragments(s.peer) {
		list = append(list, notify(wire.FragmentationSupported, nil))
	}
	if !s.config().NoRedirects {
		list = append(list, redirectNotify(st.from))
	}
	s.win.sendID = 0
	s.request(now, wire.ExchangeIKESessionResume, list)
}

// resumeResponse takes the answer to IKE_SESSION_RESUME. Whatever refuses the ticket
// leads to IKE_SA_INIT: nobody vouches for it, and it costs no more than that.
func (s *sa) resumeResponse(now time.Time, in *inbound) {
	st := s.state.(*initSent)
	if s.win.out == nil || st.ticket == nil {
		s.env.Drop(now, ike.DropMessageID, in.datagram.Remote)
		return
	}
	s.received(in.datagram, summary(in.header, in.payloads))
	if n := wire.FindNotify(in.payloads, wire.Cookie); n != nil && len(n.Data) > 0 && len(n.Data) <= 64 {
		if bytes.Equal(st.cookie, n.Data) {
			s.env.Drop(now, ike.DropRepeated, in.datagram.Remote)
		} else if s.retryInit(now, st) {
			st.cookie = slices.Clone(n.Data)
			s.sendInit(now, st)
		}
		return
	}
	if n := wire.FindNotify(in.payloads, wire.Redirect); n != nil {
		s.redirectedInit(now, st, in, n)
		return
	}
	nr, ok := wire.First[*wire.Nonce](in.payloads)
	if wire.FindNotify(in.payloads, wire.TicketNack) != nil || errorNotify(in.payloads) != nil || !ok || in.header.SPIr == 0 {
		s.note(1, "the ticket was refused: the IKE SA is set up in full")
		st.forgetTicket()
		if st.ni, st.cookie = newNonce(), nil; s.retryInit(now, st) {
			s.sendInit(now, st)
		}
		return
	}
	t, out, response, nonce := st.ticket, s.win.out, slices.Clone(in.datagram.Data), slices.Clone(nr.Data)
	st.ticket = nil // goes on in the next state
	s.win.out, s.life.setupEnd = nil, time.Time{}
	s.spiR = in.header.SPIr
	s.env.Register(s.spiI, s.spiR)
	seed, err := resumeSeed(t.Suite, t.SKd, st.ni, nonce)
	t.SKd.Zero()
	if err == nil {
		err = s.armKeys(t.Suite, seed, st.ni, nonce)
	}
	if err != nil {
		s.fail(now, &ike.Rejection{Reason: ike.ReasonInternal, Difference: "resuming: " + err.Error()})
		return
	}
	s.tieBreak = slices.Clone(lowerNonce(st.ni, nonce))
	s.peerCaps.fragments = announcesFragments(s.peer) && wire.FindNotify(in.payloads, wire.FragmentationSupported) != nil
	s.peerCaps.childless = wire.FindNotify(in.payloads, wire.ChildlessIKEv2Supported) != nil
	s.nat = detectNAT(in.payloads, s.spiI, s.spiR, s.local, s.remote)
	s.nat.fake = s.nat.supported && st.fakeHash
	s.floatPorts()
	s.ids, s.ppk = t.IDs, t.PPK
	s.resumed = &resumption{ticket: t}
	next := &authSent{child: st.child, reauth: st.reauth}
	idi := idPayload(wire.PayloadIDi, t.IDs[0])
	next.authentication = authentication{request: out.packets[0], response: response, ni: st.ni, nr: nonce, candidates: []*ike.Peer{s.peer}, expects: true, first: []*ike.Peer{s.peer}, ourID: idi}
	s.enter(next)
	s.sendAuth(now, next, nil, &wire.Auth{Method: wire.AuthSharedKey, Data: s.keys.resumeAuth(next.request, nonce, idi, true)})
}

// resumedResponse takes the responder's IKE_AUTH in a resumed IKE SA: it must be who
// he was, and have the old keys.
func (s *sa) resumedResponse(now time.Time, st *authSent, in *inbound) {
	a, t := &st.authentication, s.resumed.ticket
	if n := fatal(in.payloads); n != nil {
		s.refusedByPeer(now, n)
		return
	}
	idr := wire.FindID(in.payloads, wire.PayloadIDr)
	auth, _ := wire.First[*wire.Auth](in.payloads)
	rounds, _ := t.Proof.([]verified)
	if idr == nil || auth == nil || auth.Method != wire.AuthSharedKey || identity(idr) != t.IDs[1] ||
		!hmac.Equal(auth.Data, s.keys.resumeAuth(a.response, a.ni, idr, false)) {
		s.abortAuth(now, s.authFailed(a, "the resumed IKE SA is not of the peer that gave the ticket"))
		return
	}
	a.peerID, a.theirs, a.expects = idr, rounds, false
	s.completeAuth(now, st, in)
}

// acceptResume begins an IKE SA out of a ticket as responder (RFC 5723 §4.3.2). What is
// not good enough is refused by TICKET_NACK, and nothing is kept.
func acceptResume(env *ike.Env, now time.Time, d ike.Datagram, h wire.Header) ike.SA {
	msg, err := wire.ParseMessage(d.Data)
	if err != nil || msg.Encrypted != nil {
		env.Drop(now, ike.DropMalformed, d.Remote)
		return nil
	}
	ni, ok := wire.First[*wire.Nonce](msg.Payloads)
	n := wire.FindNotify(msg.Payloads, wire.TicketOpaque)
	if !ok || n == nil {
		env.Drop(now, ike.DropMalformed, d.Remote)
		return nil
	}
	if sentAway(env, now, d, &h, msg.Payloads, ni.Data) {
		return nil
	}
	x, peer, id := openSession(env, now, d, n.Data)
	if x == nil {
		env.Drop(now, ike.DropTicket, d.Remote)
		initAnswer(env, d, &h, wire.TicketNack, nil)
		return nil
	}
	s := &sa{env: env, local: d.Local, remote: d.Remote, spiI: h.SPIi, selected: x.Suite, vendor: vendor(msg.Payloads), ppk: x.PPK}
	s.life.setupEnd = now.Add(env.Config().HalfOpenTimeout)
	s.spiR = env.NewSPI()
	env.Register(s.spiR, s.spiI)
	st := &initReceived{request: slices.Clone(d.Data), ni: slices.Clone(ni.Data), nr: newNonce(), candidates: []*ike.Peer{peer}}
	s.state = st
	seed, err := resumeSeed(x.Suite, x.SKd, st.ni, st.nr)
	clear(x.SKd)
	if err == nil {
		err = s.armKeys(x.Suite, seed, st.ni, st.nr)
	}
	if err != nil {
		initAnswer(env, d, &h, wire.TicketNack, nil)
		return nil
	}
	s.resumed = &resumption{id: id, session: x, authenticated: time.Unix(x.Authenticated, 0)}
	s.tieBreak = slices.Clone(lowerNonce(st.ni, st.nr))
	s.nat = detectNAT(msg.Payloads, s.spiI, 0, d.Local, d.Remote)
	s.nat.fake = s.nat.supported && wantFake(env.Config(), peer)
	s.peerCaps.fragments = announcesFragments(peer) && wire.FindNotify(msg.Payloads, wire.FragmentationSupported) != nil
	s.peerCaps.redirect = takesRedirect(msg.Payloads)
	s.received(d, summary(h, msg.Payloads))
	list := []wire.Payload{&wire.Nonce{Data: st.nr}}
	if s.nat.supported {
		list = append(list, natPayloads(s.spiI, s.spiR, s.local, s.remote, s.nat.fake)...)
	}
	if s.peerCaps.fragments {
		list = append(list, notify(wire.FragmentationSupported, nil))
	}
	if announcesChildless(st.candidates) {
		list = append(list, notify(wire.ChildlessIKEv2Supported, nil))
	}
	answer := s.header(wire.ExchangeIKESessionResume, 0, true)
	st.response = wire.AppendMessage(nil, answer, list)
	s.win.recvID, s.win.sendID = 1, 0
	s.send(now, s.local2remote(st.response), summary(answer, list), 0)
	return s
}

// openSession reads a ticket, and finds the connection that it was given under; nil: it
// is not taken.
func openSession(env *ike.Env, now time.Time, d ike.Datagram, ticket []byte) (*session, *ike.Peer, ike.TicketID) {
	var id ike.TicketID
	if !env.Resumes() {
		return nil, nil, id
	}
	text, id, err := env.OpenTicket(now, ticket)
	if err != nil {
		return nil, nil, id
	}
	defer clear(text)
	x := &session{}
	if json.Unmarshal(text, x) != nil || len(x.SKd) == 0 || now.Unix() >= x.Expires || now.Sub(time.Unix(x.Authenticated, 0)) > limitSession {
		return nil, nil, id
	}
	peers, _ := ike.MatchPeers(env.Peers(), 2, d.Local.Addr(), d.Remote.Addr())
	for _, p := range peers {
		if p.Name != x.Peer || !bytes.Equal(demands(p), x.Demands) || len(x.Demands) == 0 || p.ReauthTime > 0 && now.Sub(time.Unix(x.Authenticated, 0)) >= p.ReauthTime || p.PPKRequired && !x.PPK {
			continue
		}
		if _, _, err := suite.Select(p.Proposals, []suite.Proposal{x.Suite.Proposal()}, suite.SelectOptions{KE: x.Suite.KE.ID}); err != nil {
			continue // these algorithms are not wanted any more
		}
		return x, p, id
	}
	return nil, nil, id
}

// resumeAuthRequest takes the initiator's IKE_AUTH in a resumed IKE SA: only who has the old
// IKE SA's keys can make it. The ticket is used up then.
func (s *sa) resumeAuthRequest(now time.Time, st *authReceived, in *inbound) {
	a, x := &st.authentication, s.resumed.session
	idi := wire.FindID(in.payloads, wire.PayloadIDi)
	auth, _ := wire.First[*wire.Auth](in.payloads)
	s.ids[0] = x.IDs[0].identity()
	if idi == nil || auth == nil || auth.Method != wire.AuthSharedKey || identity(idi) != x.IDs[1].identity() ||
		!hmac.Equal(auth.Data, s.keys.resumeAuth(a.request, a.nr, idi, true)) {
		s.refuseAuth(now, in, s.authFailed(a, "the peer is not the one that the ticket was given to"))
		return
	}
	if !s.env.SpendTicket(now, s.resumed.id) {
		s.refuseAuth(now, in, s.authFailed(a, "the ticket was used already"))
		return
	}
	a.peerID, a.expects = idi, false
	s.ids[1] = identity(idi)
	q := ike.StillTrusted{SA: s.env.Instance(), LocalID: s.ids[0], RemoteID: s.ids[1], Local: s.local.Addr(), Remote: s.remote.Addr()}
	for i, m := range x.Methods {
		v := verified{method: m, id: x.Proved[i].identity()}
		if i < len(x.Certs) {
			v.certs = x.Certs[i]
		}
		a.theirs = append(a.theirs, v)
		q.Rounds = append(q.Rounds, ike.ProvedRound{Method: m, ID: v.id, Certs: v.certs})
	}
	p := a.proof()
	if p == nil {
		s.refuseAuth(now, in, s.authFailed(a, "what the ticket proves is not what the connection demands"))
		return
	}
	s.peer, q.Peer = p.peer, p.peer
	s.ask(now, timeoutVerify, q, func(now time.Time, r ike.Result) {
		if r.Err != nil {
			s.refuseAuth(now, in, s.notTrusted(a, r.Err))
			return
		}
		s.finishResume(now, st, in, p)
	})
}

// notTrusted is the record of a peer whose ticket is good, and who would not be let in today.
func (s *sa) notTrusted(a *authentication, err error) *ike.Rejection {
	r := s.authFailed(a, "the peer of the ticket would not be let in today: "+err.Error())
	var rej *ike.Rejection
	if errors.As(err, &rej) {
		r.Detail, r.Difference = rej.Detail, "the peer of the ticket would not be let in today: "+rej.Difference
	}
	return r
}

// finishResume ends the set-up of a resumed IKE SA.
func (s *sa) finishResume(now time.Time, st *authReceived, in *inbound, p *proof) {
	a := &st.authentication
	if r := s.env.CheckUnique(p.peer, s.ids[0], a.unique()); r != nil {
		r.Notify = wire.AuthenticationFailed.String()
		s.refuseAuth(now, in, r)
		return
	}
	idr := idPayload(wire.PayloadIDr, s.ids[0])
	list := []wire.Payload{idr, &wire.Auth{Method: wire.AuthSharedKey, Data: s.keys.resumeAuth(a.response, a.ni, idr, false)}}
	s.note(1, "the peer resumes its session")
	s.grantAuth(now, st, in, p, list)
}

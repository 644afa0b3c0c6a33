package ikev2

import (
	"errors"
	"net/netip"

	"adit/ike"
	"adit/ike/wire"
	"adit/suite"
)

// phase is where an IKE SA stands; the rule table is written in phases.
type phase uint8

const (
	phaseInitSent         phase = iota // initiator, IKE_SA_INIT is out
	phaseIntermediateSent              // initiator, an IKE_INTERMEDIATE is out or about to be
	phaseInitReceived                  // responder, IKE_SA_INIT is answered or about to be
	phaseAuthReceived                  // responder, from the first IKE_AUTH on
	phaseAuthSent                      // initiator, from the answer to IKE_SA_INIT on
	phaseEstablished
	phaseClosing // our Delete is out
	phaseDead
	phases
)

func (p phase) String() string {
	return [...]string{"initSent", "intermediateSent", "initReceived", "authReceived", "authSent", "established", "closing", "dead"}[p]
}

// state is one of the types below. What exists only in a state lives in its
// type and goes when the state is left.
type state interface {
	phase() phase
	leave()
}

// initSent is the initiator's state until the responder's IKE_SA_INIT.
type initSent struct {
	ke       suite.KeyExchange
	group    suite.TransformID
	offered  []suite.Proposal
	ni       []byte
	cookie   []byte
	retries  int
	child    *ike.ChildRequest
	reauth   bool
	from     netip.Addr // the gateway that redirected us here, invalid: none
	fakeHash bool
	ticket   *ike.Ticket // IKE_SESSION_RESUME is out in place of IKE_SA_INIT
	// sought: we know whether ppk_id has a secret, which havePPK says.
	sought, havePPK bool
	// transcript: we announced IKE_SA_INIT_FULL_TRANSCRIPT_AUTH.
	transcript bool
	// refused is the first refusal that came; it counts if no true answer comes soon.
	refused *ike.Rejection
}

// intermediateSent is the initiator's state from the answer to IKE_SA_INIT to the last
// IKE_INTERMEDIATE.
type intermediateSent struct {
	next *authSent
	ke   suite.KeyExchange
	ppk  *namedPPK // ours, until the last exchange is answered
	intermediate
}

// initReceived is the responder's state until IKE_AUTH.
type initReceived struct {
	request    []byte // the first message as received, for its repetitions and AUTH
	response   []byte
	ni, nr     []byte
	candidates []*ike.Peer
	passed     []ike.Candidate // connections that were not considered, for rejections
	announced  authWishes
	transcript bool // both sides announced IKE_SA_INIT_FULL_TRANSCRIPT_AUTH, as far as we see
	intermediate
}

// authReceived is the responder's state from the first IKE_AUTH to the last.
type authReceived struct {
	authentication
	first   []wire.Payload // of the first request: what the Child SA is made of
	from    ike.Datagram   // where it came from and went to, without its data
	contact bool           // INITIAL_CONTACT came
	eapOnly bool           // the initiator takes EAP alone for our proof (RFC 5998)
	ppkDone bool           // the PPK had its turn
	ppkTell bool           // the next answer says that it is used
}

// authSent is the initiator's state from the answer to IKE_SA_INIT on.
type authSent struct {
	authentication
	offer      *childOffer // the first Child SA, nil: childless
	child      *ike.ChildRequest
	reauth     bool
	unanswered bool        // our AUTH went out, and the peer has not gone on yet
	second     *wire.Auth  // our AUTH without the PPK
	havePPK    bool        // we announced it
	ppkDone    bool        // it had its turn
	ppk        *withoutPPK // our PPK is mixed in, and the peer has not said that its is
}

type established struct{}
type closing struct{}
type dead struct{}

func (*initSent) phase() phase         { return phaseInitSent }
func (*intermediateSent) phase() phase { return phaseIntermediateSent }
func (*initReceived) phase() phase     { return phaseInitReceived }
func (*authReceived) phase() phase     { return phaseAuthReceived }
func (*authSent) phase() phase         { return phaseAuthSent }
func (established) phase() phase       { return phaseEstablished }
func (closing) phase() phase           { return phaseClosing }
func (dead) phase() phase              { return phaseDead }

func (st *initSent) leave()  { st.ke = nil; st.forgetTicket() }
func (*initReceived) leave() {}
func (st *intermediateSent) leave() {
	st.ke = nil
	st.ppk.wipe()
	if st.next != nil { // it goes on to nowhere
		st.next.leave()
	}
}
func (st *authReceived) leave() { st.wipe(); st.first = nil }
func (st *authSent) leave()     { st.wipe(); st.ppk.wipe() }
func (established) leave()      {}
func (closing) leave()          {}
func (dead) leave()             {}

func (st *initSent) forgetTicket() {
	if st.ticket != nil {
		st.ticket.SKd.Zero()
	}
	st.ticket = nil
}

func zeroAll(keys []suite.Key) {
	for _, k := range keys {
		k.Zero()
	}
}

func (s *sa) enter(next state) {
	if s.state != nil {
		s.state.leave()
	}
	s.state = next
}

var errNoAnswerInTime = errors.New("no answer in time")

package ikev2

import (
	"errors"

	"adit/ike"
	"adit/suite"
)

// phase is where an IKE SA stands; the rule table is written in phases.
type phase uint8

const (
	phaseInitSent     phase = iota // initiator, IKE_SA_INIT is out
	phaseInitReceived              // responder, IKE_SA_INIT is answered or about to be
	phaseAuthSent                  // initiator, from the answer to IKE_SA_INIT on
	phaseEstablished
	phaseClosing // our Delete is out
	phaseDead
	phases
)

func (p phase) String() string {
	return [...]string{"initSent", "initReceived", "authSent", "established", "closing", "dead"}[p]
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
	fakeHash bool
	// refused is the first refusal that came; it counts if no true answer comes soon.
	refused *ike.Rejection
}

// initReceived is the responder's state until IKE_AUTH.
type initReceived struct {
	request    []byte // the first message as received, for its repetitions and AUTH
	response   []byte
	ni, nr     []byte
	candidates []*ike.Peer
	passed     []ike.Candidate // connections that were not considered, for rejections
}

// authSent is the initiator's state from the answer to IKE_SA_INIT on.
type authSent struct {
	request, response []byte // the messages of IKE_SA_INIT, for AUTH
	ni, nr            []byte
	psks              []suite.Key
	offer             *childOffer // the first Child SA, nil: childless
	child             *ike.ChildRequest
	reauth            bool
	initialContact    bool
}

type established struct{}
type closing struct{}
type dead struct{}

func (*initSent) phase() phase     { return phaseInitSent }
func (*initReceived) phase() phase { return phaseInitReceived }
func (*authSent) phase() phase     { return phaseAuthSent }
func (established) phase() phase   { return phaseEstablished }
func (closing) phase() phase       { return phaseClosing }
func (dead) phase() phase          { return phaseDead }

func (st *initSent) leave()  { st.ke = nil }
func (*initReceived) leave() {}
func (st *authSent) leave()  { zeroAll(st.psks); st.psks = nil }
func (established) leave()   {}
func (closing) leave()       {}
func (dead) leave()          {}

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

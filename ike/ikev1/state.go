package ikev1

import (
	"errors"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/suite"
)

// phase is where an ISAKMP SA stands; the rule table is written in phases.
type phase uint8

const (
	phaseSASent       phase = iota // initiator of main mode, message 1 is out
	phaseKESent                    // initiator, message 3 is out
	phaseAuthSent                  // initiator, message 5 is out
	phaseSAReceived                // responder of main mode, message 2 is out or about to be
	phaseKEReceived                // responder, message 4 is out or about to be
	phaseAggrSent                  // initiator of aggressive mode, message 1 is out
	phaseAggrReceived              // responder of aggressive mode, message 2 is out or about to be
	phasePieces                    // responder, message 1 comes in fragments
	phaseExtended                  // phase 1 is done, XAUTH under way
	phaseEstablished
	phaseDead
	phases
)

func (p phase) String() string {
	return [...]string{"saSent", "keSent", "authSent", "saReceived", "keReceived", "aggrSent", "aggrReceived", "pieces", "extended", "established", "dead"}[p]
}

// setup is what phase 1 needs and nothing after it.
type setup struct {
	exchanged
	auth       wire.V1Auth
	saBody     []byte // SAi_b
	offered    []suite.Proposal
	offers     []wire.V1Transform
	ke         suite.KeyExchange
	group      suite.TransformID
	shared     suite.Key // g^xy
	candidates []*ike.Peer
	passed     []ike.Candidate
	// keyring are, in a responder with shared keys, the keys of each that it may be.
	keyring []*keys
	// asked are the authorities that the peer's CERTREQs name, requested whether one came.
	asked      [][]byte
	requested  bool
	child      *ike.ChildRequest
	reauth     bool
	fakeHash   bool
	aggressive bool
	// peerID is the identity that the peer has told in aggressive mode, peerIDBody its
	// payload.
	peerID     *ike.Identity
	peerIDBody []byte
	life       time.Duration
	// refused is what the peer said against it, without proof.
	refused *ike.Rejection
	// told: the peer has been told once that we can't read it.
	told bool
}

var errNoAnswerInTime = errors.New("no answer in time")

// leaveSetup drops what exists only in phase 1.
func (s *sa) leaveSetup() {
	if s.setup == nil {
		return
	}
	s.setup.shared.Zero()
	for _, k := range s.setup.keyring {
		if k != s.keys {
			k.wipe()
		}
	}
	s.setup = nil
}

// setupTimeout closes an ISAKMP SA that was not established in time, or was refused.
func (s *sa) setupTimeout(now time.Time) {
	if s.phase == phasePieces { // nobody can say what it would have been
		s.end(now, ike.Closed{Cause: ike.CauseFailed})
		return
	}
	if s.setup != nil && s.setup.refused != nil {
		s.fail(now, s.setup.refused)
		return
	}
	s.fail(now, &ike.Rejection{Reason: ike.ReasonNoAnswer, Detail: ike.DetailHalfOpen, Difference: "not established in time (half-open)"})
}

package ikev2

import (
	"time"

	"adit/ike/wire"
)

// cpRequest is the CP payload of our first IKE_AUTH request, nil if we want no
// addresses (RFC 7296 §2.19).
func (s *sa) cpRequest() []wire.Payload { return nil }

// cpGrant answers the initiator's CFG_REQUEST before its Child SA is chosen: then
// gets the payloads to put before SA into the last IKE_AUTH response.
func (s *sa) cpGrant(now time.Time, payloads []wire.Payload, then func(time.Time, []wire.Payload)) {
	then(now, nil)
}

// cpTake takes over what the responder's CFG_REPLY gives, before the Child SA that
// came with it is installed.
func (s *sa) cpTake(now time.Time, payloads []wire.Payload, then func(time.Time)) { then(now) }

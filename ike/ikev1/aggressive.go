package ikev1

import (
	"time"

	"adit/ike/wire"
)

func (s *sa) aggressiveRequest(now time.Time, in *inbound, list []wire.V1Payload) {}
func (s *sa) aggressiveAnswer(now time.Time, in *inbound)                         {}
func (s *sa) aggressiveAuth(now time.Time, in *inbound)                           {}

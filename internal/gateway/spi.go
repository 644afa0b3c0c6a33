package gateway

import (
	"encoding/binary"
	"sync"
)

// spiSet remembers the IKE SPIs of ours that messages were lately sent with, in two
// generations: when the younger is full the older is forgotten. It only decides
// which queue a message waits in, so forgetting an idle IKE SA costs it nothing but
// its precedence in a flood.
type spiSet struct {
	mu         sync.Mutex
	young, old map[uint64]struct{}
}

func (s *spiSet) add(spi uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.young[spi]; ok {
		return
	}
	if s.young == nil || len(s.young) >= limitSPIs {
		s.young, s.old = map[uint64]struct{}{}, s.young
	}
	s.young[spi] = struct{}{}
}

func (s *spiSet) has(spi uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.young[spi]; ok {
		return true
	}
	_, ok := s.old[spi]
	return ok
}

// ourSPI is the SPI of an IKE message that is ours: the initiator's where the flag
// of RFC 7296 §3.1 says that the original initiator is us. False where there is none.
func ourSPI(b []byte, received bool) (uint64, bool) {
	const headerBytes, versionAt, flagsAt, fromInitiator = 28, 17, 19, 0x08
	if len(b) < headerBytes {
		return 0, false
	}
	at := 8
	if b[versionAt]>>4 == 1 {
		// IKEv1 doesn't say whose is which, and the responder's does for both.
	} else if (b[flagsAt]&fromInitiator != 0) != received {
		at = 0
	}
	spi := binary.BigEndian.Uint64(b[at:])
	return spi, spi != 0
}

package ike

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"math/bits"

	"adit/ipsec"
)

// espSPIs hands out the SPIs of our inbound ESP SAs. Chosen at random, two of ten
// thousand would be alike once in a hundred starts of a gateway, and of sixty thousand
// in every other one. So they are a counter, encrypted: unlike each other for 2^32 of
// them, and not to be guessed by who does not know the key.
type espSPIs struct {
	key  [32]byte
	next uint32
	// half is the number of bits of each half of what is permuted: together they are the
	// fewest that the SPIs' range needs.
	half     uint
	from, to uint32
	turn     uint32 // whose the next one is that is nobody's in particular
}

// feistelRounds make a permutation of 32 bits of a function of 16.
const feistelRounds = 4

// take hands out one whose remainder by workers is worker: that says which of the data
// plane's threads takes the packets.
func (s *espSPIs) take(workers, worker uint32) ipsec.SPI {
	if s.half == 0 {
		s.bound(0, 0)
	}
	if s.next == 0 {
		rand.Read(s.key[:])
	}
	for {
		s.next++
		// Walking on until the range is met is a permutation of the range.
		if n := s.permute(s.next & (1<<(2*s.half) - 1)); n <= s.to-s.from && (s.from+n)%workers == worker {
			return ipsec.SPI(s.from + n)
		}
	}
}

// bound sets the range of what is handed out from now on; 0: as far as it goes.
func (s *espSPIs) bound(least, most ipsec.SPI) {
	s.from, s.to = uint32(max(least, ipsec.MinSPI)), uint32(most)
	if most < max(least, ipsec.MinSPI) {
		s.to = math.MaxUint32
	}
	s.half = max(1, uint(bits.Len32(s.to-s.from)+1)/2)
}

func (s *espSPIs) permute(n uint32) uint32 {
	mask := uint16(1<<s.half - 1)
	left, right := uint16(n>>s.half)&mask, uint16(n)&mask
	var in [35]byte
	copy(in[:], s.key[:])
	for round := range byte(feistelRounds) {
		in[32] = round
		binary.BigEndian.PutUint16(in[33:], right)
		sum := sha256.Sum256(in[:])
		left, right = right, left^binary.BigEndian.Uint16(sum[:])&mask
	}
	return uint32(left)<<s.half | uint32(right)
}

// NewESPSPI is an SPI for an inbound SA that no other SA of this engine has. The worker
// that it names is the one of the resource (RFC 9611) if there is one, else that of the
// SPI which it takes over from, so that packets keep their order, else each in turn.
func (v *Env) NewESPSPI(resource uint16, from ipsec.SPI) ipsec.SPI {
	n := uint32(max(v.e.cfg.Workers, 1))
	worker := v.e.espSPIs.turn % n
	switch {
	case resource > 0:
		worker = uint32(resource-1) % n
	case from != 0:
		worker = uint32(from) % n
	default:
		v.e.espSPIs.turn++
	}
	return v.e.espSPIs.take(n, worker)
}

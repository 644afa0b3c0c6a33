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
}

// feistelRounds make a permutation of 32 bits of a function of 16.
const feistelRounds = 4

func (s *espSPIs) take() ipsec.SPI {
	if s.half == 0 {
		s.bound(0, 0)
	}
	if s.next == 0 {
		rand.Read(s.key[:])
	}
	for {
		s.next++
		// Walking on until the range is met is a permutation of the range.
		if n := s.permute(s.next & (1<<(2*s.half) - 1)); n <= s.to-s.from {
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

// NewESPSPI is an SPI for an inbound SA that no other SA of this engine has.
func (v *Env) NewESPSPI() ipsec.SPI { return v.e.espSPIs.take() }

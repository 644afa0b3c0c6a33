package ike

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"

	"adit/ipsec"
)

// espSPIs hands out the SPIs of our inbound ESP SAs. Chosen at random, two of ten
// thousand would be alike once in a hundred starts of a gateway, and of sixty thousand
// in every other one. So they are a counter, encrypted: unlike each other for 2^32 of
// them, and not to be guessed by who does not know the key.
type espSPIs struct {
	key  [32]byte
	next uint32
}

// feistelRounds make a permutation of 32 bits of a function of 16.
const feistelRounds = 4

func (s *espSPIs) take() ipsec.SPI {
	if s.next == 0 {
		rand.Read(s.key[:])
	}
	for {
		s.next++
		if spi := s.permute(s.next); spi >= ipsec.MinSPI {
			return spi
		}
	}
}

func (s *espSPIs) permute(n uint32) ipsec.SPI {
	left, right := uint16(n>>16), uint16(n)
	var in [35]byte
	copy(in[:], s.key[:])
	for round := range byte(feistelRounds) {
		in[32] = round
		binary.BigEndian.PutUint16(in[33:], right)
		sum := sha256.Sum256(in[:])
		left, right = right, left^binary.BigEndian.Uint16(sum[:])
	}
	return ipsec.SPI(uint32(left)<<16 | uint32(right))
}

// NewESPSPI is an SPI for an inbound SA that no other SA of this engine has.
func (v *Env) NewESPSPI() ipsec.SPI { return v.e.espSPIs.take() }

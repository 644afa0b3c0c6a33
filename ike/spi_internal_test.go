package ike

import (
	"testing"

	"adit/ipsec"
)

// RFC 4301 §4.1: inbound SAs are told apart by their SPIs, so none comes twice, and
// none is of the reserved ones.
func TestRFC4301_4_1_SPIsDiffer(t *testing.T) {
	var s, other espSPIs
	seen := map[ipsec.SPI]bool{}
	same := 0
	for range 300_000 {
		spi := s.take(1, 0)
		if seen[spi] || spi < ipsec.MinSPI {
			t.Fatalf("%v after %d", spi, len(seen))
		}
		seen[spi] = true
		if spi == other.take(1, 0) {
			same++
		}
	}
	if same > 10 {
		t.Errorf("two engines chose %d times alike", same)
	}
	// Neighbours are spread over all of the range.
	var quarter [4]int
	for spi := range seen {
		quarter[spi>>30]++
	}
	for _, n := range quarter {
		if n < 70_000 || n > 80_000 {
			t.Errorf("by quarters of the range: %v", quarter)
		}
	}
}

// spi_min and spi_max hold, and within them none comes twice before all came.
func TestSPIsStayWithinTheirRange(t *testing.T) {
	for _, r := range [][2]ipsec.SPI{{0xc0000000, 0xc00003e7}, {256, 1255}, {0xfffffc18, 0xffffffff}} {
		var s espSPIs
		s.bound(r[0], r[1])
		seen := map[ipsec.SPI]bool{}
		for range 1000 {
			spi := s.take(1, 0)
			if spi < r[0] || spi > r[1] || seen[spi] {
				t.Fatalf("%v of %v after %d", spi, r, len(seen))
			}
			seen[spi] = true
		}
	}
}

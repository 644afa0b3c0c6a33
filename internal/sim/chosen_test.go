//go:build simbug

package sim_test

import (
	"flag"
	"os"
	"testing"

	"adit/internal/simbug"
)

// TestMain chooses the seeded bug that this program has.
func TestMain(m *testing.M) {
	n := flag.Int("bug", 0, "number of the seeded bug (internal/simbug)")
	flag.Parse()
	simbug.Chosen = simbug.Bug(*n)
	os.Exit(m.Run())
}

package sim_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"adit/internal/sim"
)

// TestSwarmV1 plays the scripts of IKEv1 of many seeds: the invariants hold, and all comes
// to rest with the SAs that are configured.
func TestSwarmV1(t *testing.T) {
	n, limit := *seeds, time.Duration(0)
	if n == 0 {
		n, limit = 20, 6*time.Second
		if os.Getenv("ADIT_LONG") != "" {
			n, limit = 1000, 0
		}
	}
	began := time.Now()
	for seed := *first; seed < *first+n && (limit == 0 || time.Since(began) < limit); seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			script := sim.ScenarioV1(uint64(seed))
			report(t, "TestSwarmV1", seed, script, swarm(t, uint64(seed), script))
		})
	}
}

package sim_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/cryptotest"
	"time"

	"adit/internal/sim"
)

var (
	seeds  = flag.Int("seeds", 0, "how many seeds TestSwarm plays (0: a few, more if ADIT_LONG is set)")
	first  = flag.Int("seed", 1, "the first seed of TestSwarm")
	budget = flag.Duration("budget", 25*time.Second, "when TestSwarm without -seeds begins no further seed")
)

// swarm plays one seed and returns the world.
func swarm(t *testing.T, seed uint64, script string) *sim.World {
	cryptotest.SetGlobalRandom(t, seed)
	w := sim.New(seed)
	for _, line := range strings.Split(script, "\n") {
		if err := w.Exec(line); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if len(w.Violations()) > 0 {
			return w
		}
	}
	w.Finish()
	return w
}

// TestSwarm plays the scripts of many seeds, each twice: the invariants hold, and
// both runs are the same to the last byte.
func TestSwarm(t *testing.T) {
	n, limit := *seeds, time.Duration(0)
	if n == 0 {
		n, limit = 60, *budget
		if os.Getenv("ADIT_LONG") != "" {
			n, limit = 3000, 0
		}
	}
	began := time.Now()
	played := 0
	for seed := *first; seed < *first+n && (limit == 0 || time.Since(began) < limit); seed++ {
		played++
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			var hashes [2]string
			script := sim.Scenario(uint64(seed))
			for i := range hashes {
				t.Run([]string{"first", "again"}[i], func(t *testing.T) {
					w := swarm(t, uint64(seed), script)
					hashes[i] = w.TraceHash()
					if i == 0 {
						report(t, "TestSwarm", seed, script, w)
					}
				})
				if t.Failed() {
					return
				}
			}
			if hashes[0] != hashes[1] {
				t.Errorf("seed %d went differently the second time: something depends on the order of a map or on the clock\n%s", seed, sim.Scenario(uint64(seed)))
			}
		})
	}
	if played < 10 && *seeds == 0 {
		t.Errorf("only %d seeds in %v", played, limit)
	}
	t.Logf("%d seeds in %v", played, time.Since(began).Round(time.Millisecond))
}

func report(t *testing.T, test string, seed int, script string, w *sim.World) {
	t.Helper()
	if len(w.Violations()) == 0 {
		return
	}
	for _, v := range w.Violations() {
		t.Errorf("%v", v)
	}
	history := w.History()
	if !testing.Verbose() {
		lines := strings.Split(history, "\n")
		history = strings.Join(lines[max(0, len(lines)-60):], "\n")
	}
	t.Errorf("rerun with: go test ./internal/sim -run %s -seeds=1 -seed=%d -v\nscript:\n%s\nlast part of the trace:\n%s", test, seed, script, history)
}

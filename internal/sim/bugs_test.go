//go:build !simbug

package sim_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"adit/internal/simbug"
)

// Without the tag the choice is a constant, so that the compiler leaves the hooks out.
const _ = simbug.Chosen

// bites are the invariants that must catch each seeded bug; any one of them will do.
var bites = map[simbug.Bug]string{
	simbug.ReplayWindow:    "replay window",
	simbug.EarlyOutbound:   "black hole|lossless",
	simbug.AuthUnchecked:   "authentication",
	simbug.ReusedIV:        "IV reuse",
	simbug.LostDelete:      "black hole|match|quiescence",
	simbug.RebuiltResponse: "same response|IV reuse",
	simbug.NonceCompare:    "black hole|quiescence|match|balance",
	simbug.SwappedKeys:     "key reuse|equal keys",
	simbug.NoWindow:        "window",
	simbug.CookieUnchecked: "cookies",
	simbug.StalePolicy:     "black hole",
	simbug.HalfOpenForever: "quiescence|limits",
}

// TestSeededBugs builds this package's tests with each seeded bug: the invariants
// of the swarm and the scripts must catch every one, and nothing without.
func TestSeededBugs(t *testing.T) {
	program := filepath.Join(t.TempDir(), "sim.test")
	build := exec.Command("go", "test", "-c", "-tags", "simbug", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // of packages that make check has built
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	run := func(b simbug.Bug, seeds int) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		out, err := exec.CommandContext(ctx, program, fmt.Sprintf("-bug=%d", b), "-test.run=^(TestScripts|TestSwarm)$", fmt.Sprintf("-seeds=%d", seeds), "-test.failfast").CombinedOutput()
		return string(out), err
	}
	violation := regexp.MustCompile(`(?m)_test\.go:\d+: ([A-Za-z -]+) at \d+\.\d+s: .*$`)
	for b := simbug.None; b < simbug.Last; b++ {
		t.Run(strings.ReplaceAll(b.String(), " ", "_"), func(t *testing.T) {
			if b == simbug.None {
				if out, err := run(b, 20); err != nil {
					t.Errorf("fails without a bug: %v\n%s", err, out)
				}
				return
			}
			out, err := run(b, 150)
			if err == nil {
				t.Fatal("not caught")
			}
			found := violation.FindStringSubmatch(out)
			if found == nil {
				t.Fatalf("no invariant caught it:\n%s", out)
			}
			if !regexp.MustCompile("^(" + bites[b] + ")$").MatchString(found[1]) {
				t.Errorf("caught by %q, expected %q: %s", found[1], bites[b], found[0])
			}
			t.Log(strings.TrimSpace(found[0]))
		})
	}
}

package sim_test

import (
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/cryptotest"

	"adit/internal/sim"
	"adit/internal/simbug"
)

var rewrite = flag.Bool("rewrite", false, "write what happens into testdata/*.txt")

// play runs the text of a script. The output of each block of commands comes
// behind its ---- line in the text that is returned.
func play(t *testing.T, text string) (out string, w *sim.World) {
	t.Helper()
	seed := uint64(1)
	lines := strings.Split(text, "\n")
	if s, ok := strings.CutPrefix(lines[0], "seed "); ok {
		n, err := strconv.ParseUint(strings.TrimSpace(s), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seed = n
	}
	cryptotest.SetGlobalRandom(t, seed)
	w = sim.New(seed)
	var b strings.Builder
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		switch {
		case line == "----":
			b.WriteString("----\n" + w.TakeTrace())
			for i+1 < len(lines) && lines[i+1] != "" {
				i++
			}
			continue
		case i == 0 && strings.HasPrefix(line, "seed "):
		default:
			if err := w.Exec(line); err != nil {
				t.Fatalf("line %d: %v", i+1, err)
			}
		}
		if i < len(lines)-1 || line != "" {
			b.WriteString(line + "\n")
		}
	}
	w.Finish()
	return b.String(), w
}

// TestScripts plays every script of testdata and compares what happens with what
// is written there; -rewrite writes it anew.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 18 {
		t.Fatalf("%d scripts, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got, w := play(t, string(text))
			for _, v := range w.Violations() {
				t.Errorf("%v", v)
			}
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			// A seeded bug must be caught by the invariants, not by a changed trace.
			if got != string(text) && simbug.Chosen == simbug.None {
				t.Errorf("the trace has changed (go test ./internal/sim -run TestScripts -rewrite, then look at the difference):\n%s", difference(string(text), got))
			}
		})
	}
}

// difference shows the first lines that differ.
func difference(want, got string) string {
	a, b := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return "line " + strconv.Itoa(i+1) + "\nwant: " + strings.Join(a[i:min(i+4, len(a))], "\n      ") + "\ngot:  " + strings.Join(b[i:min(i+4, len(b))], "\n      ")
		}
	}
	return "one is longer"
}

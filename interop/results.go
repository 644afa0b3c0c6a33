package interop

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
)

// Result is one scenario with one pair of daemons.
type Result struct {
	Scenario  string            `json:"scenario"`
	Initiator string            `json:"initiator"` // name and version
	Responder string            `json:"responder"`
	Passed    bool              `json:"passed"`
	Seconds   float64           `json:"seconds"`
	Facts     map[string]string `json:"facts,omitempty"` // what was negotiated, counted or measured
}

// Table collects results; its methods may be called from several goroutines.
type Table struct {
	mu   sync.Mutex
	rows []Result
}

// Add adds one result.
func (t *Table) Add(r Result) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rows = append(t.rows, r)
}

// Write writes the table into a directory: interop.txt for people, interop.json
// for machines, sorted by scenario. Without rows it writes nothing.
func (t *Table) Write(dir string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.rows) == 0 {
		return nil
	}
	slices.SortFunc(t.rows, func(a, b Result) int {
		return cmp.Or(cmp.Compare(a.Scenario, b.Scenario), cmp.Compare(a.Initiator, b.Initiator), cmp.Compare(a.Responder, b.Responder))
	})
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	js, err := json.MarshalIndent(t.rows, "", "\t")
	if err != nil {
		return err
	}
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "SCENARIO\tINITIATOR\tRESPONDER\tRESULT\tSECONDS\tFACTS")
	for _, r := range t.rows {
		verdict := "FAILED"
		if r.Passed {
			verdict = "ok"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%.1f\t%s\n", r.Scenario, r.Initiator, r.Responder, verdict, r.Seconds, facts(r.Facts))
	}
	w.Flush()
	if err := os.WriteFile(filepath.Join(dir, "interop.txt"), []byte(text.String()), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "interop.json"), append(js, '\n'), 0o644)
}

func facts(m map[string]string) string {
	var s []string
	for k, v := range m {
		s = append(s, k+"="+v)
	}
	slices.Sort(s)
	return strings.Join(s, " ")
}

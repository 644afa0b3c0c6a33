package docs_test

import (
	"fmt"
	"strings"
	"testing"

	"adit/internal/ipsecconf"
)

// importTables are the tables of docs/import.md, made of the program's.
func importTables() string {
	var b strings.Builder
	place := ipsecconf.Place("")
	for _, k := range ipsecconf.Keywords() {
		if k.Place != place {
			place = k.Place
			fmt.Fprintf(&b, "\n### `%s`\n\n| keyword | of | state | in swanctl.conf | |\n|---|---|---|---|---|\n", strings.ReplaceAll(string(place), "|", ", "))
		}
		of := "both"
		switch {
		case !k.Libreswan:
			of = "strongSwan"
		case !k.StrongSwan:
			of = "Libreswan"
		}
		to := ""
		for part := range strings.SplitSeq(k.To, ", ") {
			if part != "" {
				to += ", `" + part + "`"
			}
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", k.Name, of, k.Fate, strings.TrimPrefix(to, ", "), k.Note)
	}
	return b.String()
}

// The page has every keyword of both dialects as the program has it.
func TestImportPage(t *testing.T) {
	_, got, ok := strings.Cut(read(t, "import.md"), "\n## Every keyword\n")
	if !ok {
		t.Fatal("import.md has no heading Every keyword")
	}
	want := importTables()
	_, table, ok := strings.Cut(got, "\n### ")
	if table = "\n### " + table; !ok || table != want {
		g, w := strings.Split(table, "\n"), strings.Split(want, "\n")
		for i := range min(len(g), len(w)) {
			if g[i] != w[i] {
				t.Errorf("import.md says\n%s\nthe program\n%s", g[i], w[i])
				break
			}
		}
		t.Errorf("the tables are not those of the program, which are:\n%s", want)
	}
}

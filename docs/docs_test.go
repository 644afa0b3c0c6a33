package docs_test

import (
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"adit/dataplane/userspace"
	"adit/ike"
	"adit/internal/config"
	"adit/pki/pkitest"
)

var update = flag.Bool("update", false, "write the tables of options anew")

// section returns the part of a page below a heading, up to the next one.
func section(t *testing.T, page, heading string) string {
	t.Helper()
	_, rest, ok := strings.Cut(read(t, page), "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("%s has no heading %q", page, heading)
	}
	rest, _, _ = strings.Cut(rest, "\n## ")
	return rest
}

func read(t *testing.T, page string) string {
	t.Helper()
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var (
	reason = regexp.MustCompile("(?m)^\\| `([^`]+)` \\| [^| ]")
	marked = regexp.MustCompile("(?s)<!-- options of ([^\n]*) -->\n.*?<!-- end -->")
)

// cells is a table of options as the page has it.
func cells(table config.Table) string {
	escape := strings.NewReplacer("|", "\\|", "\n", " ").Replace
	code := func(text string) string {
		if text == "" {
			return ""
		}
		return "`" + escape(text) + "`"
	}
	var b strings.Builder
	b.WriteString("| option | state | default | |\n|---|---|---|---|\n")
	for _, r := range table.Rows {
		note := escape(r.Note)
		if len(r.Takes) > 0 {
			var takes []string
			for _, t := range r.Takes {
				takes = append(takes, code(t))
			}
			note += "; accepted: " + strings.Join(takes, ", ")
		}
		b.WriteString("| " + code(r.Name) + " | " + r.State.String() + " | " + code(r.Default) + " | " + note + " |\n")
	}
	return b.String()
}

// The page has every option of the program with its state, default and note, cell by
// cell as the program's tables have them: `go test ./docs -run ConfigurationPage -update` writes them.
func TestConfigurationPage(t *testing.T) {
	page := read(t, "configuration.md")
	tables := map[string]config.Table{}
	for _, table := range config.Tables() {
		if len(table.Rows) < 2 {
			t.Fatalf("%s: only %d options", table.Section, len(table.Rows))
		}
		tables[table.Section] = table
	}
	written := map[string]bool{}
	want := marked.ReplaceAllStringFunc(page, func(was string) string {
		name := marked.FindStringSubmatch(was)[1]
		table, ok := tables[name]
		if !ok || written[name] {
			t.Errorf("the program has no table %q, or it stands there twice", name)
			return was
		}
		written[name] = true
		return "<!-- options of " + name + " -->\n" + cells(table) + "<!-- end -->"
	})
	for name := range tables {
		if !written[name] {
			t.Errorf("configuration.md has no table <!-- options of %s --> … <!-- end -->", name)
		}
	}
	if want == page {
		return
	}
	if *update {
		if err := os.WriteFile("configuration.md", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	have := strings.Split(page, "\n")
	for _, line := range strings.Split(want, "\n") {
		if !slices.Contains(have, line) {
			t.Errorf("configuration.md lacks the line\n\t%s", line)
		}
	}
	t.Error("the tables of configuration.md are not the program's: go test ./docs -run ConfigurationPage -update")
}

// Every reason that a log or a counter can show is explained, and no others are.
func TestTroubleshootingPage(t *testing.T) {
	reasons := constants(t, "../ike/reject.go", "Reason")
	var drops, planes []string
	for _, r := range ike.DropReasons() {
		drops = append(drops, r.String())
	}
	for _, r := range userspace.Reasons() {
		planes = append(planes, r.String())
	}
	for heading, want := range map[string][]string{
		"Refused negotiations": reasons, "Dropped IKE datagrams": drops, "Dropped packets": planes,
	} {
		if len(want) < 10 {
			t.Fatalf("%s: only %d reasons were found", heading, len(want))
		}
		var got []string
		for _, m := range reason.FindAllStringSubmatch(section(t, "troubleshooting.md", heading), -1) {
			got = append(got, m[1])
		}
		for _, w := range want {
			if !slices.Contains(got, w) {
				t.Errorf("%s: %s is not explained", heading, w)
			}
		}
		for _, g := range got {
			if !slices.Contains(want, g) && g != "mailbox-full" {
				t.Errorf("%s: there is no %s", heading, g)
			}
		}
	}
}

// constants are the texts of the constants of a type in a file.
func constants(t *testing.T, name, typ string) (texts []string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok {
			if id, ok := spec.Type.(*ast.Ident); ok && id.Name == typ && len(spec.Values) == 1 {
				s, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
				if err != nil {
					t.Fatal(err)
				}
				texts = append(texts, s)
			}
		}
		return true
	})
	return texts
}

var link = regexp.MustCompile(`\]\(([^)#]+)(#[^)]*)?\)`)

// Links between pages lead somewhere.
func TestLinks(t *testing.T) {
	pages, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob("rfc/*.md")
	if err != nil {
		t.Fatal(err)
	}
	pages = append(append(pages, more...), "../README.md")
	if len(pages) < 8 {
		t.Fatalf("only these pages: %q", pages)
	}
	for _, p := range pages {
		for _, m := range link.FindAllStringSubmatch(read(t, p), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(p), m[1])); err != nil {
				t.Errorf("%s: %v", p, err)
			}
		}
	}
}

var block = regexp.MustCompile("(?s)```\n(connections \\{\n.*?)```")

// The configurations in the pages load, without warnings.
func TestExamplesLoad(t *testing.T) {
	n := 0
	for _, page := range []string{"../README.md", "site-to-site.md"} {
		for _, m := range block.FindAllStringSubmatch(read(t, page), -1) {
			n++
			path := filepath.Join(t.TempDir(), "swanctl.conf")
			if err := os.WriteFile(path, []byte(m[1]), 0o600); err != nil {
				t.Fatal(err)
			}
			d, err := config.LoadDaemon("")
			if err != nil {
				t.Fatal(err)
			}
			model, err := config.Load(path, d)
			if err != nil {
				t.Errorf("%s: %v", page, err)
				continue
			}
			if len(model.Peers) != 1 || len(model.Peers[0].Children) != 1 || len(model.Secrets) != 1 || len(model.Warnings) != 0 {
				t.Errorf("%s: %d connections, %d secrets, warnings %v", page, len(model.Peers), len(model.Secrets), model.Warnings)
			}
		}
	}
	if n != 2 {
		t.Errorf("%d examples were found, want 2", n)
	}
}

// The configurations with certificates load without warnings where the files that
// their pages speak of lie beside them.
func TestExamplesWithCertificatesLoad(t *testing.T) {
	root := pkitest.NewCA(t, pkitest.Spec{Name: "Lab Root"})
	ca := root.IssueCA(pkitest.Spec{Name: "Lab Gateways"})
	for _, c := range []struct {
		page, local string
		examples    int
	}{{"certificates.md", "left.example", 1}, {"eap.md", "right.example", 2}} {
		dir := t.TempDir()
		gw := ca.Issue(pkitest.Spec{Name: c.local, DNS: []string{c.local}})
		for name, b := range map[string][]byte{"x509/fullchain.pem": append(gw.PEM(), ca.PEM()...), "private/gw.key": gw.KeyPEM(), "x509ca/root.pem": root.PEM()} {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		examples := block.FindAllStringSubmatch(read(t, c.page), -1)
		if len(examples) != c.examples {
			t.Errorf("%s: %d examples were found, want %d", c.page, len(examples), c.examples)
		}
		for _, m := range examples {
			path := filepath.Join(dir, "swanctl.conf")
			if err := os.WriteFile(path, []byte(m[1]), 0o600); err != nil {
				t.Fatal(err)
			}
			d, err := config.LoadDaemon("")
			if err != nil {
				t.Fatal(err)
			}
			model, err := config.Load(path, d)
			if err != nil {
				t.Errorf("%s: %v", c.page, err)
			} else if len(model.Peers) != 1 || len(model.Warnings) != 0 {
				t.Errorf("%s: %d connections, warnings %v", c.page, len(model.Peers), model.Warnings)
			}
		}
	}
}

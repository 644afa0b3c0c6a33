package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
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

// option is a row of a table in internal/config.
type option struct {
	name string
	set  bool
	off  []string
}

// tables reads the tables of options out of a source file of internal/config.
func tables(t *testing.T, name string) map[string][]option {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), filepath.Join("../internal/config", name), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]option{}
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 {
			return true
		}
		list, ok := spec.Values[0].(*ast.CompositeLit)
		if !ok || !isTable(list.Type) {
			return true
		}
		for _, e := range list.Elts {
			found[spec.Names[0].Name] = append(found[spec.Names[0].Name], parseOption(t, e.(*ast.CompositeLit)))
		}
		return false
	})
	return found
}

// isTable reports whether a type is []option[…].
func isTable(e ast.Expr) bool {
	list, ok := e.(*ast.ArrayType)
	if !ok {
		return false
	}
	generic, ok := list.Elt.(*ast.IndexExpr)
	if !ok {
		return false
	}
	id, ok := generic.X.(*ast.Ident)
	return ok && id.Name == "option"
}

func parseOption(t *testing.T, lit *ast.CompositeLit) (o option) {
	t.Helper()
	text := func(e ast.Expr) string {
		s, err := strconv.Unquote(e.(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, e := range lit.Elts {
		kv := e.(*ast.KeyValueExpr)
		switch kv.Key.(*ast.Ident).Name {
		case "name":
			o.name = text(kv.Value)
		case "set":
			o.set = true
		case "off":
			for _, v := range kv.Value.(*ast.CompositeLit).Elts {
				o.off = append(o.off, text(v))
			}
		}
	}
	return o
}

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
	row    = regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ([^|]+) \\| (.*) \\|$")
	reason = regexp.MustCompile("(?m)^\\| `([^`]+)` \\| [^| ]")
	word   = regexp.MustCompile("`([^`]*)`")
)

// The page has every option of the program with its state, and no others.
func TestConfigurationPage(t *testing.T) {
	all := tables(t, "options.go")
	for _, file := range []string{"auth.go", "daemon.go", "radius.go"} {
		maps.Copy(all, tables(t, file))
	}
	headings := map[string]string{
		"peerOptions":   "`connections.<name>`",
		"authOptions":   "`connections.<name>.local*` and `remote*`",
		"childOptions":  "`connections.<name>.children.<name>`",
		"daemonOptions": "`strongswan.conf`",
		"radiusOptions": "`plugins.eap-radius`",
	}
	if len(all) != len(headings) {
		t.Errorf("internal/config has %d tables, the page %d", len(all), len(headings))
	}
	for table, heading := range headings {
		options := all[table]
		if len(options) < 10 {
			t.Fatalf("%s: only %d options were found", table, len(options))
		}
		rows := map[string][]string{}
		for _, m := range row.FindAllStringSubmatch(section(t, "configuration.md", heading), -1) {
			if rows[m[1]] != nil {
				t.Errorf("%s: %s stands there twice", heading, m[1])
			}
			rows[m[1]] = m[2:]
		}
		for _, o := range options {
			r := rows[o.name]
			delete(rows, o.name)
			if r == nil {
				t.Errorf("%s: %s is missing", heading, o.name)
				continue
			}
			if known := r[0] == "supported" || r[0] == "adit’s own"; known != o.set || !known && r[0] != "refused" {
				t.Errorf("%s: %s is said to be %q, but the program supports it: %v", heading, o.name, r[0], o.set)
			}
			if o.set {
				continue
			}
			var off []string
			if _, list, ok := strings.Cut(r[1], "accepted: "); ok {
				for _, m := range word.FindAllStringSubmatch(list, -1) {
					off = append(off, m[1])
				}
			}
			if !slices.Equal(off, o.off) {
				t.Errorf("%s: %s: accepted values %q, but the program accepts %q", heading, o.name, off, o.off)
			}
		}
		for name := range rows {
			t.Errorf("%s: the program knows no %s", heading, name)
		}
	}
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

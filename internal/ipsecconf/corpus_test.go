package ipsecconf_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"adit/conf"
	"adit/internal/config"
	"adit/internal/ipsecconf"
)

// corpus is the directory with what strongSwan and Libreswan publish, fetched once
// by scripts/corpus.sh and kept in the user's cache.
func corpus(t *testing.T, name string) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Skip("there is no directory for caches: ", err)
	}
	dir := filepath.Join(cache, "adit-corpus")
	if _, err := os.Stat(filepath.Join(dir, name, ".complete")); err != nil {
		ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, "../../scripts/corpus.sh", dir)
		cmd.WaitDelay = time.Second
		out, err := cmd.CombinedOutput()
		if _, e := os.Stat(filepath.Join(dir, name, ".complete")); e != nil {
			t.Skipf("the source package of %s cannot be fetched (offline?): %v\n%s", name, err, out)
		}
	}
	return filepath.Join(dir, name)
}

// elsewhere is the file system with the paths that Libreswan's tests have on their
// machines.
type elsewhere struct{ root string }

func (e elsewhere) at(name string) string {
	if rest, ok := strings.CutPrefix(name, "/testing/"); ok {
		return filepath.Join(e.root, "testing", rest)
	}
	if rest, ok := strings.CutPrefix(name, "/etc/ipsec.d/"); ok {
		return filepath.Join(e.root, "testing/baseconfigs/all/etc/ipsec.d", rest)
	}
	return name
}

func (e elsewhere) Open(name string) (io.ReadCloser, error) { return conf.OS.Open(e.at(name)) }
func (e elsewhere) Glob(p string) ([]string, error)         { return conf.OS.Glob(e.at(p)) }

// tally is what became of the lines of a corpus.
type tally struct {
	files, broken int
	count         ipsecconf.Count
	reasons       map[string]int
}

func (n *tally) add(c ipsecconf.Count) {
	n.count.Translated += c.Translated
	n.count.LeftOut += c.LeftOut
	n.count.Changed += c.Changed
	n.count.Refused += c.Refused
}

func (n *tally) report(t *testing.T, what string) {
	t.Helper()
	total := max(1, n.count.Total())
	share := func(x int) string { return fmt.Sprintf("%d (%.1f %%)", x, 100*float64(x)/float64(total)) }
	t.Logf("%s: %d files, %d refused with a position; %d lines: translated %s, left out %s, changed %s, not translated %s",
		what, n.files, n.broken, n.count.Total(), share(n.count.Translated), share(n.count.LeftOut), share(n.count.Changed), share(n.count.Refused))
	var list []string
	for r := range n.reasons {
		list = append(list, r)
	}
	sort.Slice(list, func(i, j int) bool { return n.reasons[list[i]] > n.reasons[list[j]] })
	for _, r := range list[:min(len(list), 12)] {
		t.Logf("  %5d %s", n.reasons[r], r)
	}
}

// sound imports one file and checks what must hold for any.
func sound(t *testing.T, name string, o ipsecconf.Options, n *tally) *ipsecconf.Result {
	t.Helper()
	n.files++
	r, err := ipsecconf.Import(name, o)
	if err != nil {
		var at *conf.Error
		if !errors.As(err, &at) || at.Pos.File == "" {
			t.Errorf("%s: error without a position: %v", name, err)
		}
		n.broken++
		n.reasons["file refused: "+at.Msg]++
		return nil
	}
	n.add(r.Count)
	for _, m := range r.Remarks {
		if m.Word == "NOT TRANSLATED" {
			n.reasons[clip(m.Text)]++
		}
		if m.Text == "" {
			t.Errorf("%s: %s %s without a reason", m.Pos, m.Word, m.Line)
		}
		if place := fmt.Sprintf("%s:%d: ", filepath.Base(m.Pos.File), m.Pos.Line); !m.Of && !strings.Contains(r.Config+r.Secrets, place) {
			t.Errorf("%s: %s %s is not marked in the output", m.Pos, m.Word, m.Line)
		}
	}
	raw, err := o.Files.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	b, err := io.ReadAll(raw)
	if err != nil {
		t.Fatal(err)
	}
	statements := 0
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "#"):
			if !strings.Contains(r.Config, line) {
				t.Errorf("%s: the comment %q is lost", name, line)
			}
		case line != "":
			statements++
		}
	}
	if !strings.Contains(string(b), "include") && statements != r.Count.Total() {
		t.Errorf("%s: %d statements, but %d are accounted for", name, statements, r.Count.Total())
	}
	decodes(t, name, r)
	return r
}

func clip(s string) string { return s[:min(len(s), 110)] }

// decodes checks that adit's own decoder takes the output, but for the files that
// must still be copied.
func decodes(t *testing.T, name string, r *ipsecconf.Result) *config.Model {
	t.Helper()
	root, err := conf.ParseBytes("swanctl.conf", []byte(r.Config+"\n"+r.Secrets))
	if err != nil {
		t.Errorf("%s: the output does not parse: %v\n%s", name, err, r.Config)
		return nil
	}
	m, err := config.Decode(withoutFiles(root), config.Daemon{})
	if err != nil {
		t.Errorf("%s: the output does not load: %v\n%s", name, err, r.Config)
	}
	return m
}

// withoutFiles is the tree without the options that name files.
func withoutFiles(s *conf.Section) *conf.Section {
	out := conf.New(s.Name)
	for e := range s.All() {
		switch {
		case e.Section != nil && e.Section.Name != "authorities":
			out.Attach(withoutFiles(e.Section))
		case e.Section == nil && e.Value.Key != "certs" && e.Value.Key != "pubkeys" && e.Value.Key != "cacerts":
			out.SetValue(e.Value)
		}
	}
	return out
}

// strongSwan's stroke scenarios: every file becomes something that loads, and of the
// lines of IKEv2 scenarios 95 % have a counterpart.
func TestStrongSwanCorpus(t *testing.T) {
	root := corpus(t, "strongswan")
	files, err := filepath.Glob(root + "/testing/tests/*/*/hosts/*/etc/ipsec.conf")
	if err != nil || len(files) < 200 {
		t.Fatalf("only %d files: %v", len(files), err)
	}
	all, v2 := tally{reasons: map[string]int{}}, tally{reasons: map[string]int{}}
	for _, f := range files {
		o := ipsecconf.Options{Files: conf.OS, Dialect: ipsecconf.StrongSwan}
		if s := strings.TrimSuffix(f, "conf") + "secrets"; exists(s) {
			o.Secrets = s
		}
		if r := sound(t, f, o, &all); r != nil && !strings.Contains(r.Config, "IKEv1") {
			v2.files++
			v2.add(r.Count)
		}
		if r, err := ipsecconf.Import(f, ipsecconf.Options{Files: conf.OS}); err == nil && r.Dialect != ipsecconf.StrongSwan && r.Count.Total() > 2 {
			t.Errorf("%s: taken for %s", f, r.Dialect)
		}
	}
	all.report(t, "all")
	v2.report(t, "IKEv2")
	if c := v2.count; (c.Translated+c.LeftOut+c.Changed)*100 < 95*c.Total() || v2.files < 100 {
		t.Errorf("of %d lines %d are not translated", c.Total(), c.Refused)
	}
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// Libreswan's scenarios, with connections that only its commands would load.
func TestLibreswanCorpus(t *testing.T) {
	root := corpus(t, "libreswan")
	files, err := filepath.Glob(root + "/testing/pluto/*/*.conf")
	if err != nil {
		t.Fatal(err)
	}
	n, lost := tally{reasons: map[string]int{}}, 0
	own := []netip.Addr{}
	for _, f := range files {
		base := filepath.Base(f)
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Count(base, ".") > 1 || !strings.Contains("\n"+string(b), "\nconn ") && !strings.Contains("\n"+string(b), "\nconfig setup") {
			continue // of strongSwan, or of another daemon
		}
		o := ipsecconf.Options{Files: elsewhere{root}, Dialect: ipsecconf.Libreswan, Own: own, All: true}
		if s := strings.TrimSuffix(f, "conf") + "secrets"; exists(s) {
			o.Secrets = s
		}
		sound(t, f, o, &n)
		if r, err := ipsecconf.Import(f, ipsecconf.Options{Files: elsewhere{root}}); err == nil && r.Dialect != ipsecconf.Libreswan {
			lost++
		}
	}
	n.report(t, "all")
	t.Logf("of %d files %d are taken for strongSwan's with --dialect auto", n.files, lost)
	if n.files < 1000 || lost*20 > n.files {
		t.Errorf("%d files, %d not recognised", n.files, lost)
	}
}

package archtest_test

import (
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"adit/internal/archtest"
)

func TestArchitecture(t *testing.T) {
	s, err := archtest.Load(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	for name, check := range map[string]func() []archtest.Problem{
		"imports":    s.CheckImports,
		"protocol":   s.CheckProtocol,
		"docs":       s.CheckDocs,
		"exported":   s.CheckExported,
		"fuzz":       s.CheckFuzz,
		"names":      s.CheckNames,
		"unfinished": s.CheckUnfinished,
		"ledger":     s.CheckLedger,
	} {
		t.Run(name, func(t *testing.T) {
			for _, p := range check() {
				t.Error(p)
			}
		})
	}
	t.Run("sizes", func(t *testing.T) {
		errs, warnings := s.CheckSizes()
		for _, p := range warnings {
			t.Logf("long: %v", p)
		}
		for _, p := range errs {
			t.Error(p)
		}
	})
}

// Each check must find what it is for, and only that.
func TestChecksBite(t *testing.T) {
	doc := "// Package x is a test.\n"
	unfinished := "TO" + "DO"
	for name, c := range map[string]struct {
		files map[string]string
		check func(*archtest.Source) []archtest.Problem
		want  []string // parts of the problems, in order; none: clean
	}{
		"upward import": {
			files: map[string]string{"esp/a.go": `package esp; import _ "adit/ike"`, "suite/a.go": `package suite`},
			check: (*archtest.Source).CheckImports, want: []string{"esp must not import ike"}},
		"downward import": {
			files: map[string]string{"esp/a.go": `package esp; import (_ "adit/ipsec"; _ "fmt")`},
			check: (*archtest.Source).CheckImports},
		"versions apart": {
			files: map[string]string{"ike/ikev2/a.go": `package ikev2; import _ "adit/ike/ikev1"`},
			check: (*archtest.Source).CheckImports, want: []string{"must not import ike/ikev1"}},
		"tests may": {
			files: map[string]string{"esp/a_test.go": `package esp_test; import (_ "adit/ike"; _ "pgregory.net/rapid")`},
			check: (*archtest.Source).CheckImports},
		"new package": {
			files: map[string]string{"misc/a.go": `package misc`},
			check: (*archtest.Source).CheckImports, want: []string{"not in the import table"}},
		"library elsewhere": {
			files: map[string]string{"tun/a.go": `package tun; import _ "gvisor.dev/gvisor/pkg/tcpip"`, "tun/netstack/a.go": `package netstack; import _ "gvisor.dev/gvisor/pkg/tcpip"`},
			check: (*archtest.Source).CheckImports, want: []string{"must not import the library gvisor"}},
		"unknown library": {
			files: map[string]string{"tun/a.go": `package tun; import _ "example.org/x"`},
			check: (*archtest.Source).CheckImports, want: []string{"library example.org/x"}},
		"forbidden packages": {
			files: map[string]string{"ike/a.go": "package ike\nimport _ \"net\"\nimport _ \"net/netip\"\nimport _ \"sync/atomic\"\nimport _ \"math/rand/v2\"", "esp/a.go": `package esp; import _ "sync/atomic"`},
			check: (*archtest.Source).CheckProtocol, want: []string{"import net ", "sync/atomic", "math/rand/v2"}},
		"clock under another name": {
			files: map[string]string{"ike/a.go": "package ike\nimport t \"time\"\nvar _ = t.Now\nvar _ t.Time\nvar _ = t.Second"},
			check: (*archtest.Source).CheckProtocol, want: []string{"ike/a.go:3: time.Now"}},
		"goroutine and channel": {
			files: map[string]string{"suite/a.go": "package suite\nfunc f() { go f() }\nvar c chan int", "conf/a.go": "package conf\nvar c chan int"},
			check: (*archtest.Source).CheckProtocol, want: []string{":2: go statement", ":3: channel type"}},
		"no package comment": {
			files: map[string]string{"conf/a.go": "package conf", "conf/a_test.go": "// Package conf is here.\npackage conf"},
			check: (*archtest.Source).CheckDocs, want: []string{"conf: has no package comment"}},
		"package comments": {
			files: map[string]string{"conf/a.go": doc + "package x", "conf/b.go": doc + "package x", "vici/a.go": doc + "package vici", "cmd/adit/m.go": "// Command adit\n// is a gateway.\npackage main"},
			check: (*archtest.Source).CheckDocs, want: []string{"conf: has 2", "does not begin"}},
		"uncommented": {
			files: map[string]string{"conf/a.go": "package conf\n\nfunc A() {}\n\n// B is.\nfunc B() {}\n\ntype C int\n\nfunc (C) String() string { return \"\" }\n\n// Group.\nconst (\n\tD = 1\n)\n\nvar E int\n\nvar f int\n"},
			check: (*archtest.Source).CheckExported, want: []string{":3: exported A", ":8: exported C", ":17: exported E"}},
		"unfuzzed": {
			files: map[string]string{"conf/a.go": "package conf\nfunc Parse(b []byte) {}\nfunc ParseInt(n int) {}\ntype T int\nfunc (*T) UnmarshalText(b []byte) error { return nil }\nfunc parse(s string) {}"},
			check: (*archtest.Source).CheckFuzz, want: []string{"conf.Parse ", "conf.UnmarshalText"}},
		"fuzzed through another": {
			files: map[string]string{"conf/a.go": "package conf\nfunc Parse(b []byte) { decode(b) }\nfunc decode(b []byte) { DecodeItem(b) }\nfunc DecodeItem(b []byte) {}",
				"conf/a_test.go": "package conf_test\nfunc FuzzParse() { conf.Parse(nil) }"},
			check: (*archtest.Source).CheckFuzz},
		"too long": {
			files: map[string]string{"conf/a.go": "package conf" + strings.Repeat("\n", 801), "conf/b.go": "package conf" + strings.Repeat("\n", 700)},
			check: func(s *archtest.Source) []archtest.Problem { e, _ := s.CheckSizes(); return e }, want: []string{"conf/a.go: has 801"}},
		"empty names": {
			files: map[string]string{"conf/str_util.go": "package conf", "internal/commons/a.go": "package commons"},
			check: (*archtest.Source).CheckNames, want: []string{"str_util.go", "internal/commons"}},
		"unfinished": {
			files: map[string]string{"conf/a.go": "package conf\n// " + unfinished + " later\nvar s = \"" + unfinished + "\"", "x.sh": "# " + unfinished},
			check: (*archtest.Source).CheckUnfinished, want: []string{"conf/a.go:2", "x.sh:1"}},
		"ledger": {
			files: map[string]string{"conf/a_test.go": "package conf\nfunc TestA() {}", "docs/rfc/7296.md": "| 2.1 | TestA, TestB |"},
			check: (*archtest.Source).CheckLedger, want: []string{"TestB does not exist"}},
		"attacks": {
			files: map[string]string{"conf/a_test.go": "package conf\nfunc TestA() {}", "docs/attacks.md": "| hole | tests |\n|---|---|\n| a | TestA, TestC |\n| b | none |"},
			check: (*archtest.Source).CheckLedger, want: []string{"TestC does not exist", "docs/attacks.md:4"}},
	} {
		t.Run(name, func(t *testing.T) {
			fsys := fstest.MapFS{}
			for p, text := range c.files {
				fsys[p] = &fstest.MapFile{Data: []byte(text)}
			}
			s, err := archtest.Load(fsys)
			if err != nil {
				t.Fatal(err)
			}
			// The real table's exemptions have no parser in these little modules.
			got := slices.DeleteFunc(c.check(s), func(p archtest.Problem) bool { return strings.Contains(p.What, "but no parser") })
			if len(got) != len(c.want) {
				t.Fatalf("got %v, want %d", got, len(c.want))
			}
			for i, w := range c.want {
				if !strings.Contains(got[i].String(), w) {
					t.Errorf("got %v, want %q", got[i], w)
				}
			}
		})
	}
}

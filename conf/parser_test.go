package conf_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"adit/conf"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// parse parses text that may include the other files.
func parse(t testing.TB, text string, more conf.MapFiles) (*conf.Section, error) {
	t.Helper()
	files := conf.MapFiles{"/etc/main.conf": text}
	for name, text := range more {
		files[name] = text
	}
	return conf.Parse(files, "/etc/main.conf")
}

// TestGrammar has, a case a row, what strongSwan makes of a text: its lexer and parser rules and
// the behaviour that its own test suite of the settings pins down, written out by hand.
func TestGrammar(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", ""},
		{"one value", "single = value", "single = value\n"},
		{"no blanks", "a=b", "a = b\n"},
		{"one line", "s { single = value }", "s {\n  single = value\n}\n"},
		{"one line, nested", "s { sub { k = v } single = value }", "s {\n  sub {\n    k = v\n  }\n  single = value\n}\n"},
		{"a value runs to the end of the line", "s { a = 1 b = 2 }", "s {\n  a = 1 b = 2\n}\n"},
		{"name and brace on two lines", "newline\n { single = value }", "newline {\n  single = value\n}\n"},
		{"name and equals sign on two lines", "key\n = value", "key = value\n"},
		{"value must begin on the line", "key =\nother = x", "other = x\n"},
		{"equals sign and brace in a value", "k = a = and { brace", "k = a = and { brace\n"},
		{"blanks collapse", "k =   a \t b  ", "k = a b\n"},
		{"comment after a value", "k = a b # c", "k = a b\n"},
		{"comment glued to a value", "k = a#c", "k = a\n"},
		{"comment lines", "# x { = \n  # y\nk = v\n#", "k = v\n"},
		{"comment after brace", "s { # x\n k = v } # y", "s {\n  k = v\n}\n"},
		{"brace ends a value", "s { k = a}", "s {\n  k = a\n}\n"},
		{"quotes keep everything", `k = "  with    accurate	white\tspace"`, `k = "  with    accurate\twhite\tspace"` + "\n"},
		{"quotes keep special bytes", `k = "all { special } # ."`, `k = "all { special } # ."` + "\n"},
		{"quotes span lines", "k = \"one\ntwo \\\nthree\\nfour\"", `k = "one\ntwo three\nfour"` + "\n"},
		{"quotes escape", `k = "\"and\" slashes \\ can \\ be" # too`, `k = "\"and\" slashes \\ can \\ be"` + "\n"},
		{"unknown escapes are the byte", `k = "\a\#\ "`, `k = "a# "` + "\n"},
		{"backslash outside quotes is a byte", `k = a\nb\`, `k = a\nb\` + "\n"},
		{"parts are joined", `k = "strings" are "combined"`, "k = strings are combined\n"},
		{"parts that touch are joined by a blank too", `k = a"b"c`, "k = a b c\n"},
		{"empty string is a value", `k = ""`, `k = ""` + "\n"},
		{"unset", "k = a\nk =", ""},
		{"unset, then set", "k = a\nk =\nk = b", "k = b\n"},
		{"later value, former place", "a = 1\nb = 2\na = 3", "a = 3\nb = 2\n"},
		{"section again extends", "s { a = 1\nb = 2 }\nt { }\ns { c = 3\na = 4 }", "s {\n  a = 4\n  b = 2\n  c = 3\n}\nt {\n}\n"},
		{"section again and empty clears nothing", "s { a = 1 }\ns { }", "s {\n  a = 1\n}\n"},
		{"key and section of one name", "s = 1\ns { s = 2 }", "s = 1\ns {\n  s = 2\n}\n"},
		{"order is kept", "z = 1\nb { }\na = 2\nc { }\nb { x = 1 }", "z = 1\nb {\n  x = 1\n}\na = 2\nc {\n}\n"},
		{"many in order", many(40, "k%d = %d\n"), many(40, "k%d = %d\n")},
		{"bytes in names", "a-b_c/d\\e*f+@[]' { ;k = v }", "a-b_c/d\\e*f+@[]' {\n  ;k = v\n}\n"},
		{"not ASCII", "schlüssel = größe", "schlüssel = größe\n"},
		{"CR LF", "s {\r\n  a = 1\r\n  b =\r\n  # c\r\n  t {\r\n d = 2\r\n }\r\n}\r\n", "s {\n  a = 1\n  t {\n    d = 2\n  }\n}\n"},
		{"CR LF in quotes", "a = \"new\r\nline\"\r\nb = \"joi\\\r\nned\"\r\n", "a = \"new\\nline\"\nb = joined\n"},
		{"byte order mark", "\xef\xbb\xbfa = b", "a = b\n"},
		{"a key called include", "include = value\ns { include\t= x }", "include = value\ns {\n  include = x\n}\n"},
		{"a key that begins with include", "includes = value", "includes = value\n"},
		{"include without a name", "s {\n include # nothing\n}", "s {\n}\n"},

		{"reference", "base { a = 1 }\ns : base { b = 2 }", "base {\n  a = 1\n}\ns {\n  b = 2\n  a = 1\n}\n"},
		{"reference without blanks", "ref { key = value }\nvalid:ref {}", "ref {\n  key = value\n}\nvalid {\n  key = value\n}\n"},
		{"reference over lines", "r { k = v }\no { l = w }\nv\n:\nr\n\t, # c\no {}", "r {\n  k = v\n}\no {\n  l = w\n}\nv {\n  k = v\n  l = w\n}\n"},
		{"reference to later", "s : base { }\nbase { a = 1 }", "s {\n  a = 1\n}\nbase {\n  a = 1\n}\n"},
		{"left wins, own first", "x { a = 1\n b = 1 }\ny { b = 2\n c = 2 }\ns : x, y { c = 3 }\nt : y, x { }",
			"x {\n  a = 1\n  b = 1\n}\ny {\n  b = 2\n  c = 2\n}\ns {\n  c = 3\n  a = 1\n  b = 1\n}\nt {\n  b = 2\n  c = 2\n  a = 1\n}\n"},
		{"unset stops inheritance", "x { a = 1\n b = 2 }\ns : x { a = }", "x {\n  a = 1\n  b = 2\n}\ns {\n  b = 2\n}\n"},
		{"unset in the middle", "x { a = 1 }\ny : x { a = }\ns : y { }", "x {\n  a = 1\n}\ny {\n}\ns {\n}\n"},
		{"references written again add up", "x { a = 1 }\ny { b = 2 }\ns : x { }\ns : y, x { }", "x {\n  a = 1\n}\ny {\n  b = 2\n}\ns {\n  a = 1\n  b = 2\n}\n"},
		{"template whose child refers to it", "t { k = 1 }\nn : t { sub : t { } }", "t {\n  k = 1\n}\nn {\n  sub {\n    k = 1\n  }\n  k = 1\n}\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := parse(t, c.text, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := s.Format(nil); got != c.want {
				t.Errorf("parsed as\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

func many(n int, format string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i, i)
	}
	return b.String()
}

// TestGolden parses the configurations of testdata and compares with what they mean.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.conf")
	if err != nil || len(files) == 0 {
		t.Fatal("no test data", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			s, err := conf.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := dump(s, "")
			golden := strings.TrimSuffix(file, ".conf") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("%s means\n%s\nwant\n%s", file, got, want)
			}
		})
	}
}

// dump writes a tree with positions, a line an entry.
func dump(s *conf.Section, indent string) string {
	var b strings.Builder
	for e := range s.All() {
		if e.Section != nil {
			note := ""
			if e.Section.Referenced {
				note = " (referenced)"
			}
			fmt.Fprintf(&b, "%s%s:%d %s%s\n", indent, e.Section.Pos, e.Section.Pos.Col, e.Section.Name, note)
			b.WriteString(dump(e.Section, indent+"  "))
			continue
		}
		fmt.Fprintf(&b, "%s%s:%d %s = %q\n", indent, e.Value.Pos, e.Value.Pos.Col, e.Value.Key, e.Value.Text)
	}
	return b.String()
}

func TestRefused(t *testing.T) {
	for _, c := range []struct {
		name, text string
		reason     error
		want       string
	}{
		{"brace without a name", "{\n no = name\n}", conf.ErrSyntax, "/etc/main.conf:1: expected the name of a key or section, found '{'"},
		{"equals sign without a key", "no {\n = key\n}", conf.ErrSyntax, "/etc/main.conf:2: expected the name of a key or section, found '='"},
		{"open section", "a = 1\nopen {\n not = closed\n", conf.ErrSyntax, `/etc/main.conf:4: end of file, but section "open" of line 2 is still open`},
		{"open string", "s {\n k = \"no end\n}", conf.ErrSyntax, "/etc/main.conf:2: string is not closed: no '\"' up to the end of the file"},
		{"open string after backslash", "k = \"a\\", conf.ErrSyntax, "/etc/main.conf:1: string is not closed: no '\"' up to the end of the file"},
		{"blank in a name", "spaces in name {}", conf.ErrSyntax, `/etc/main.conf:1: expected '=' or '{' after "spaces", found another word, beginning with 'i'`},
		{"quoted name", `"unexpected" = string`, conf.ErrSyntax, "/etc/main.conf:1: expected the name of a key or section, found a quoted string, which only values can be"},
		{"two colons", "incorrect :: ref {}", conf.ErrSyntax, "/etc/main.conf:1: expected the name of a section that section incorrect refers to, found ':'"},
		{"dot in a section name", "/var/log/daemon.log { dmn = 1 }", conf.ErrSyntax, `/etc/main.conf:1: a name cannot contain '.': open section "/var/log/daemon" and put the rest into it`},
		{"dot in a key", "filelog { /var/log/daemon.log = 1 }", conf.ErrSyntax, `/etc/main.conf:1: a name cannot contain '.': open section "/var/log/daemon" and put the rest into it`},
		{"name at the end", "name", conf.ErrSyntax, `/etc/main.conf:1: expected '=' or '{' after "name", found the end of the file`},
		{"brace too many", "s { }\n}", conf.ErrSyntax, "/etc/main.conf:2: '}' without a section to close"},
		{"reference without a section", "a : b = c", conf.ErrSyntax, `/etc/main.conf:1: expected '{' after the references of section "a", found '='`},
		{"comma too many", "a : b, {}", conf.ErrSyntax, "/etc/main.conf:1: expected the name of a section that section a refers to, found '{'"},
		{"NUL in a value", "k = a\x00b", conf.ErrSyntax, "/etc/main.conf:1: NUL byte: this is no text file"},
		{"NUL in quotes", "k = \"a\x00b\"", conf.ErrSyntax, "/etc/main.conf:1: NUL byte: this is no text file"},
		{"NUL in a name", "k\x00 = a", conf.ErrSyntax, `/etc/main.conf:1: expected '=' or '{' after "k", found a NUL byte: this is no text file`},
		{"unknown reference", "conn-defaults { }\ns : con-defaults { }", conf.ErrReference, "/etc/main.conf:2: there is no section con-defaults to inherit from: did you mean conn-defaults?"},
		{"unknown sub-section", "base { child { } }\ns : base.kind { }", conf.ErrReference, "/etc/main.conf:2: there is no section base.kind to inherit from"},
		{"loop of two", "a : b { }\nb : a { }", conf.ErrReference, "/etc/main.conf:1: references in a loop: b, then a, then b"},
		{"loop of one", "a : a { }", conf.ErrReference, "/etc/main.conf:1: section a refers to a, which contains it"},
		{"loop through the parent", "a { b : a { } }", conf.ErrReference, "/etc/main.conf:1: section a.b refers to a, which contains it"},
		{"loop through a child", "a : a.b { b { } }", conf.ErrReference, "/etc/main.conf:1: references in a loop: a.b, then a.b"},
		{"endless nesting", "a { x : b { } }\nb { y : a { } }", conf.ErrLimit, "/etc/main.conf:2: sections nest more than 32 deep through references: is a section's parent among them?"},
		{"nested too deep", strings.Repeat("a {", 40), conf.ErrLimit, "/etc/main.conf:1: sections nest more than 32 deep"},
		{"long name", strings.Repeat("n", 256) + " = 1", conf.ErrLimit, "/etc/main.conf:1: name longer than 255 bytes"},
		{"long value", "k = \"" + strings.Repeat("n", conf.MaxValue+1) + "\"", conf.ErrLimit, ""},
		{"long value of short parts", "k = " + strings.Repeat("n ", conf.MaxValue), conf.ErrLimit, ""},
		{"many references", "s : " + strings.Repeat("a,", conf.MaxReferences) + "b {}", conf.ErrLimit, "/etc/main.conf:1: more than 64 references"},
		{"long chain", chained(conf.MaxReferenceDepth + 2), conf.ErrLimit, "/etc/main.conf:65: chain of more than 64 references"},
		{"inheritance explodes", explode(), conf.ErrLimit, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := parse(t, c.text, nil)
			if err == nil {
				t.Fatalf("accepted as\n%.500s", s.Format(nil))
			}
			var e *conf.Error
			if !errors.As(err, &e) || !errors.Is(err, c.reason) {
				t.Errorf("error %v is not an *Error for %v", err, c.reason)
			}
			if c.want != "" && err.Error() != c.want {
				t.Errorf("error is\n%s\nwant\n%s", err, c.want)
			}
		})
	}
}

// chained is a text of sections that each refer to the next.
func chained(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "c%d : c%d { }\n", i, i+1)
	}
	return b.String() + fmt.Sprintf("c%d { }", n)
}

// explode is a text of a few hundred bytes that would unroll into 2^30 sections.
func explode() string {
	var b strings.Builder
	b.WriteString("l0 { k = v }\n")
	for i := 1; i < 30; i++ {
		fmt.Fprintf(&b, "l%d { a : l%d { }\nb : l%[2]d { } }\n", i, i-1)
	}
	return b.String()
}

func TestInclude(t *testing.T) {
	text := "a = 1\ns {\n  before = 1\n  include sub/*.conf # c\n  after = 1\n}\ninclude \"with blank.conf\"\ninclude /abs/x\\ y.conf\ninclude none/*.conf\n"
	more := conf.MapFiles{
		"/etc/sub/20.conf":     "order = 20\ninclude deeper/*\n",
		"/etc/sub/10.conf":     "order = 10\nbefore = 2 # changed",
		"/etc/sub/.#10.conf":   "order = lock file of an editor",
		"/etc/sub/deeper/file": "deep { x = \"y\" }",
		"/etc/with blank.conf": "a = 2\n",
		"/abs/x y.conf":        "z = 3\n",
	}
	s, err := parse(t, text, more)
	if err != nil {
		t.Fatal(err)
	}
	want := `/etc/with blank.conf:1:1 a = "2"
/etc/main.conf:2:1 s
  /etc/sub/10.conf:2:1 before = "2"
  /etc/sub/20.conf:1:1 order = "20"
  /etc/sub/deeper/file:1:1 deep
    /etc/sub/deeper/file:1:8 x = "y"
  /etc/main.conf:5:3 after = "1"
/abs/x y.conf:1:1 z = "3"
`
	if got := dump(s, ""); got != want {
		t.Errorf("parsed as\n%s\nwant\n%s", got, want)
	}
}

func TestIncludeRefused(t *testing.T) {
	for _, c := range []struct {
		name, text string
		more       conf.MapFiles
		reason     error
		want       string
	}{
		{"itself", "include main.conf", nil, conf.ErrInclude, "/etc/main.conf:1: /etc/main.conf includes itself"},
		{"each other", "include b.conf", conf.MapFiles{"/etc/b.conf": "\ninclude main.*"}, conf.ErrInclude, "/etc/b.conf:2: /etc/main.conf includes itself"},
		{"error inside", "s { include b.conf\n }", conf.MapFiles{"/etc/b.conf": "\n k"}, conf.ErrSyntax, `/etc/b.conf:2: expected '=' or '{' after "k", found the end of the file`},
		{"brace that the file did not open", "s { include b.conf\n }", conf.MapFiles{"/etc/b.conf": "}"}, conf.ErrSyntax, "/etc/b.conf:1: '}' without a section to close"},
		{"section that the file leaves open", "include b.conf\n}", conf.MapFiles{"/etc/b.conf": "s {"}, conf.ErrSyntax, `/etc/b.conf:1: end of file, but section "s" of line 1 is still open`},
		{"bad pattern", "include [a", nil, conf.ErrInclude, `/etc/main.conf:1: bad include pattern "/etc/[a": syntax error in pattern`},
		{"too deep", "include d/a0", chain(20), conf.ErrLimit, "/etc/d/a14:1: files include one another more than 16 deep"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := parse(t, c.text, c.more)
			if err == nil || !errors.Is(err, c.reason) || err.Error() != c.want {
				t.Errorf("error is\n%v\nwant\n%s", err, c.want)
			}
		})
	}
	if _, err := conf.ParseBytes("x", []byte("include /etc/passwd")); !errors.Is(err, conf.ErrInclude) {
		t.Errorf("ParseBytes included a file: %v", err)
	}
}

func chain(n int) conf.MapFiles {
	files := conf.MapFiles{}
	for i := range n {
		files[fmt.Sprintf("/etc/d/a%d", i)] = fmt.Sprintf("include a%d", i+1)
	}
	return files
}

func TestWarnings(t *testing.T) {
	var got []string
	p := conf.Parser{Files: conf.MapFiles{}, Warn: func(pos conf.Pos, msg string) {
		got = append(got, pos.String()+": "+msg)
	}}
	_, err := p.ParseBytes("f", []byte("secret = pass#word\nfine = a # b\nalso = \"a#b\"\nnone =# c\ninclude gone.conf\ninclude \n"))
	want := []string{
		"f:1: the value of secret ends at '#'; put it in quotes if that belongs to it",
		"f:5: included file gone.conf does not exist",
		"f:6: include without a file name",
	}
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("warnings %q, want %q (%v)", got, want, err)
	}
}

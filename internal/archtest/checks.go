package archtest

import (
	"fmt"
	"go/ast"
	"path"
	"regexp"
	"slices"
	"strings"
)

// CheckImports holds the module to [Imports] and [Libraries].
func (s *Source) CheckImports() []Problem {
	var ps []Problem
	for _, r := range s.sorted() {
		may, listed := Imports[r.dir]
		if !listed {
			ps = append(ps, Problem{r.dir, "is not in the import table (internal/archtest/rules.go)"})
			continue
		}
		for _, f := range r.code() {
			for i, imp := range f.imports {
				where := s.at(f.ast.Imports[i])
				if to, ours := own(imp); ours && to != r.dir && !slices.Contains(may, "*") && !slices.Contains(may, to) {
					ps = append(ps, Problem{where, fmt.Sprintf("%s must not import %s", r.dir, to)})
				}
				if foreign(imp) && !libraryAllowed(imp, r.dir) {
					ps = append(ps, Problem{where, fmt.Sprintf("%s must not import the library %s", r.dir, imp)})
				}
			}
		}
	}
	return ps
}

func libraryAllowed(imp, dir string) bool {
	for lib, rooms := range Libraries {
		if imp != lib && !strings.HasPrefix(imp, lib+"/") {
			continue
		}
		if slices.Contains(rooms, dir) || slices.Contains(rooms, "*") && !slices.Contains(Protocol, dir) {
			return true
		}
	}
	return false
}

// CheckProtocol keeps I/O, clocks, goroutines, channels and locks out of the
// protocol rooms.
func (s *Source) CheckProtocol() []Problem {
	var ps []Problem
	for _, dir := range Protocol {
		r := s.rooms[dir]
		if r == nil {
			continue
		}
		for _, f := range r.code() {
			if dir == "eap" && strings.HasPrefix(path.Base(f.path), "tls") {
				continue
			}
			for i, imp := range f.imports {
				if why, bad := forbidden(dir, imp); bad {
					ps = append(ps, Problem{s.at(f.ast.Imports[i]), fmt.Sprintf("a protocol package must not import %s (%s)", imp, why)})
				}
			}
			ps = append(ps, s.forbiddenSyntax(f)...)
		}
	}
	return ps
}

func forbidden(dir, imp string) (why string, bad bool) {
	if slices.Contains(permittedImports[""], imp) || slices.Contains(permittedImports[dir], imp) {
		return "", false
	}
	for f, why := range forbiddenImports {
		if imp == f || strings.HasSuffix(f, "/") && strings.HasPrefix(imp, f) {
			return why, true
		}
	}
	return "", false
}

// forbiddenSyntax finds go statements, channels and the clock.
func (s *Source) forbiddenSyntax(f *file) []Problem {
	var ps []Problem
	say := func(n ast.Node, what string) { ps = append(ps, Problem{s.at(n), what + " in a protocol package"}) }
	timeName := importName(f, "time")
	ast.Inspect(f.ast, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			say(n, "go statement")
		case *ast.ChanType:
			say(n, "channel type")
		case *ast.SendStmt, *ast.SelectStmt:
			say(n, "channel operation")
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && timeName != "" && x.Name == timeName && slices.Contains(forbiddenTime, n.Sel.Name) {
				say(n, "time."+n.Sel.Name)
			}
		}
		return true
	})
	if timeName == "." {
		ps = append(ps, Problem{f.path, "package time imported with a dot hides its clock"})
	}
	return ps
}

// importName is the name by which a file knows a package of the standard library,
// empty if it doesn't import it.
func importName(f *file, imp string) string {
	for i, p := range f.imports {
		if p == imp {
			if n := f.ast.Imports[i].Name; n != nil {
				return n.Name
			}
			return path.Base(imp)
		}
	}
	return ""
}

// CheckDocs wants a package comment in every package, in one file of it.
func (s *Source) CheckDocs() []Problem {
	var ps []Problem
	for _, r := range s.sorted() {
		var docs []*ast.CommentGroup
		name := ""
		for _, f := range r.code() {
			name = f.ast.Name.Name
			if f.ast.Doc != nil {
				docs = append(docs, f.ast.Doc)
			}
		}
		if name == "" {
			continue // tests alone
		}
		want := "Package " + name + " "
		if name == "main" {
			want = "Command " + path.Base(r.dir) + " "
		}
		switch {
		case len(docs) == 0:
			ps = append(ps, Problem{r.dir, "has no package comment"})
		case len(docs) > 1:
			ps = append(ps, Problem{r.dir, fmt.Sprintf("has %d package comments; one file should have it", len(docs))})
		case !strings.HasPrefix(strings.ReplaceAll(docs[0].Text(), "\n", " "), want):
			ps = append(ps, Problem{s.at(docs[0]), fmt.Sprintf("package comment does not begin with %q", want)})
		}
	}
	return ps
}

// CheckFuzz wants every exported parser of bytes or text to be reached from a fuzz
// target of its own package, through the functions of that package. Names stand
// for functions: what has the name of a reached one counts as reached.
func (s *Source) CheckFuzz() []Problem {
	var ps []Problem
	found := map[string]bool{}
	for _, r := range s.sorted() {
		if slices.Contains(unparsed, r.dir) {
			continue
		}
		reached := r.reachedByFuzzing()
		for _, f := range r.code() {
			for _, d := range f.ast.Decls {
				fn, ok := d.(*ast.FuncDecl)
				if !ok || !isParser(fn) {
					continue
				}
				key := r.dir + "." + fn.Name.Name
				found[key] = true
				if _, exempt := Unfuzzed[key]; exempt == reached[fn.Name.Name] {
					what := key + " is reached by no fuzz target of its package"
					if exempt {
						what = key + " is exempt from fuzzing, but fuzzed: remove the exemption"
					}
					ps = append(ps, Problem{s.at(fn), what})
				}
			}
		}
	}
	for key := range Unfuzzed {
		if !found[key] {
			ps = append(ps, Problem{key, "is exempt from fuzzing, but no parser"})
		}
	}
	return ps
}

// plainMethods are methods whose name says all that a comment would.
var plainMethods = []string{"String", "GoString", "Error", "Unwrap", "Is", "Len", "Less", "Swap", "Push", "Pop"}

// CheckExported wants a doc comment on every exported type, function and method,
// and on every exported constant and variable or its group.
func (s *Source) CheckExported() []Problem {
	var ps []Problem
	say := func(n ast.Node, name string) {
		ps = append(ps, Problem{s.at(n), "exported " + name + " has no comment"})
	}
	for _, r := range s.sorted() {
		for _, f := range r.code() {
			for _, d := range f.ast.Decls {
				switch d := d.(type) {
				case *ast.FuncDecl:
					method := d.Recv != nil
					if !d.Name.IsExported() || d.Doc != nil || method && (!ast.IsExported(receiver(d.Recv.List[0].Type)) || slices.Contains(plainMethods, d.Name.Name)) {
						continue
					}
					say(d, d.Name.Name)
				case *ast.GenDecl:
					for _, spec := range d.Specs {
						switch v := spec.(type) {
						case *ast.TypeSpec:
							if v.Name.IsExported() && d.Doc == nil && v.Doc == nil {
								say(v, v.Name.Name)
							}
						case *ast.ValueSpec:
							if v.Names[0].IsExported() && d.Doc == nil && v.Doc == nil && v.Comment == nil {
								say(v, v.Names[0].Name)
							}
						}
					}
				}
			}
		}
	}
	return ps
}

var parserName = regexp.MustCompile(`^(Parse|Unmarshal|Decode)`)

// isParser reports whether a function is exported, called like a parser and takes
// []byte or string.
func isParser(fn *ast.FuncDecl) bool {
	if !parserName.MatchString(fn.Name.Name) {
		return false
	}
	if fn.Recv != nil && !ast.IsExported(receiver(fn.Recv.List[0].Type)) {
		return false
	}
	for _, p := range fn.Type.Params.List {
		switch t := p.Type.(type) {
		case *ast.Ident:
			if t.Name == "string" {
				return true
			}
		case *ast.ArrayType:
			if e, ok := t.Elt.(*ast.Ident); ok && t.Len == nil && e.Name == "byte" {
				return true
			}
		}
	}
	return false
}

func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return ""
}

// reachedByFuzzing are the names that fuzz targets use, directly or through
// functions of the package and its tests.
func (r *room) reachedByFuzzing() map[string]bool {
	uses := map[string][]string{}
	var todo []string
	for _, f := range r.files {
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Body == nil {
				continue
			}
			ast.Inspect(fn.Body, func(n ast.Node) bool {
				if id, ok := n.(*ast.Ident); ok {
					uses[fn.Name.Name] = append(uses[fn.Name.Name], id.Name)
				}
				return true
			})
			if f.test && fn.Recv == nil && strings.HasPrefix(fn.Name.Name, "Fuzz") {
				todo = append(todo, fn.Name.Name)
			}
		}
	}
	reached := map[string]bool{}
	for len(todo) > 0 {
		name := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if reached[name] {
			continue
		}
		reached[name] = true
		todo = append(todo, uses[name]...)
	}
	return reached
}

// CheckSizes finds Go files that are too long (errors) and long (warnings).
func (s *Source) CheckSizes() (errors, warnings []Problem) {
	for _, r := range s.sorted() {
		for _, f := range r.files {
			p := Problem{f.path, fmt.Sprintf("has %d lines", f.lines)}
			if f.lines > maxLines {
				errors = append(errors, p)
			} else if f.lines > warnLines {
				warnings = append(warnings, p)
			}
		}
	}
	return errors, warnings
}

// CheckNames finds package and file names with a part that says nothing.
func (s *Source) CheckNames() []Problem {
	var ps []Problem
	empty := func(where, name string) {
		for _, w := range emptyWords {
			if strings.Contains(strings.ToLower(name), w) {
				ps = append(ps, Problem{where, fmt.Sprintf("%q in a name says nothing", w)})
			}
		}
	}
	for _, r := range s.sorted() {
		empty(r.dir, r.dir)
		for _, f := range r.files {
			empty(f.path, path.Base(f.path))
			if f.ast.Name.Name != path.Base(r.dir) {
				empty(f.path, f.ast.Name.Name)
			}
		}
	}
	return ps
}

// unfinished matches the marks of unfinished work.
var unfinished = regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|X` + `XX)\b`)

// CheckUnfinished finds marks of unfinished work in comments and texts.
func (s *Source) CheckUnfinished() []Problem {
	var ps []Problem
	for _, r := range s.sorted() {
		for _, f := range r.files {
			for _, g := range f.ast.Comments {
				for _, c := range g.List {
					if m := unfinished.FindString(c.Text); m != "" {
						ps = append(ps, Problem{s.at(c), m})
					}
				}
			}
		}
	}
	for p, text := range s.texts {
		for i, line := range strings.Split(string(text), "\n") {
			if m := unfinished.FindString(line); m != "" {
				ps = append(ps, Problem{fmt.Sprintf("%s:%d", p, i+1), m})
			}
		}
	}
	return ps
}

var testName = regexp.MustCompile(`\b(Test|Fuzz|Benchmark|Example)[A-Z]\w*`)

// CheckLedger wants every test that docs/rfc/*.md and docs/attacks.md name to exist,
// and one in each row of the latter.
func (s *Source) CheckLedger() []Problem {
	have := map[string]bool{}
	for _, r := range s.rooms {
		for _, f := range r.tests() {
			for _, d := range f.ast.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok {
					have[fn.Name.Name] = true
				}
			}
		}
	}
	var ps []Problem
	for p, text := range s.texts {
		attacks := p == "docs/attacks.md"
		if !attacks && !strings.HasPrefix(p, "docs/rfc/") {
			continue
		}
		header := true
		for i, line := range strings.Split(string(text), "\n") {
			names := testName.FindAllString(line, -1)
			row := strings.HasPrefix(line, "| ")
			if attacks && row && !header && len(names) == 0 {
				ps = append(ps, Problem{fmt.Sprintf("%s:%d", p, i+1), "an attack without a test"})
			}
			header = !row && !strings.HasPrefix(line, "|---")
			for _, name := range names {
				if !have[name] {
					ps = append(ps, Problem{fmt.Sprintf("%s:%d", p, i+1), name + " does not exist"})
				}
			}
		}
	}
	return ps
}

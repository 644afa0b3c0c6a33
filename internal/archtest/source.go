package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// module is the module's path: imports that begin with it are its own rooms.
const module = "adit"

// Source is the module's Go source as syntax.
type Source struct {
	fset  *token.FileSet
	rooms map[string]*room
	texts map[string][]byte // files that aren't Go but are looked at: path to content
}

// room is one directory with Go files.
type room struct {
	dir   string
	files []*file
}

type file struct {
	path    string
	test    bool
	lines   int
	imports []string
	ast     *ast.File
}

// Problem is one breach of a rule.
type Problem struct {
	Where string // file:line, or a directory
	What  string
}

func (p Problem) String() string { return p.Where + ": " + p.What }

// Load reads the Go files and scripts of a module. Directories called testdata and
// those that begin with a dot or an underscore are left out.
func Load(fsys fs.FS) (*Source, error) {
	s := &Source{fset: token.NewFileSet(), rooms: map[string]*room{}, texts: map[string][]byte{}}
	err := fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := path.Base(p)
		if d.IsDir() {
			if p != "." && (base == "testdata" || base == "out" || base == "bin" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_")) {
				return fs.SkipDir
			}
			return nil
		}
		switch {
		case strings.HasSuffix(p, ".go"):
			return s.add(fsys, p)
		case base == "Makefile", strings.HasSuffix(p, ".sh"), strings.HasSuffix(p, ".md"):
			b, err := fs.ReadFile(fsys, p)
			s.texts[p] = b
			return err
		}
		return nil
	})
	return s, err
}

func (s *Source) add(fsys fs.FS, p string) error {
	b, err := fs.ReadFile(fsys, p)
	if err != nil {
		return err
	}
	tree, err := parser.ParseFile(s.fset, p, b, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return fmt.Errorf("archtest: %w", err)
	}
	f := &file{path: p, test: strings.HasSuffix(p, "_test.go"), ast: tree, lines: strings.Count(string(b), "\n")}
	for _, i := range tree.Imports {
		v, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			return err
		}
		f.imports = append(f.imports, v)
	}
	dir := path.Dir(p)
	if s.rooms[dir] == nil {
		s.rooms[dir] = &room{dir: dir}
	}
	s.rooms[dir].files = append(s.rooms[dir].files, f)
	return nil
}

// sorted are the rooms in order.
func (s *Source) sorted() []*room {
	var rs []*room
	for _, r := range s.rooms {
		rs = append(rs, r)
	}
	sort.Slice(rs, func(i, j int) bool { return rs[i].dir < rs[j].dir })
	return rs
}

// code are a room's files but the tests.
func (r *room) code() []*file {
	return slices.DeleteFunc(slices.Clone(r.files), func(f *file) bool { return f.test })
}

func (r *room) tests() []*file {
	return slices.DeleteFunc(slices.Clone(r.files), func(f *file) bool { return !f.test })
}

func (s *Source) at(n ast.Node) string {
	p := s.fset.Position(n.Pos())
	return fmt.Sprintf("%s:%d", p.Filename, p.Line)
}

// own returns the room that an import path names, if it is one of the module.
func own(imp string) (string, bool) {
	if imp == module {
		return ".", true
	}
	return strings.CutPrefix(imp, module+"/")
}

// foreign reports whether an import path is neither the module's nor the standard
// library's.
func foreign(imp string) bool {
	first, _, _ := strings.Cut(imp, "/")
	_, ours := own(imp)
	return !ours && strings.Contains(first, ".")
}

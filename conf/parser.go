package conf

import (
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
)

// Parser parses files; the zero Parser refuses includes.
type Parser struct {
	// Files opens the file to parse and those it includes.
	Files Files
	// Warn, if set, is told of what is allowed and yet probably not meant.
	Warn func(pos Pos, msg string)
}

// Parse parses the file at path and everything it includes, and resolves references. The error
// is an [*Error].
func Parse(files Files, path string) (*Section, error) {
	return (&Parser{Files: files}).Parse(path)
}

// ParseFile is [Parse] on the file system of the operating system.
func ParseFile(path string) (*Section, error) { return Parse(OS, path) }

// ParseBytes parses data, which may not include files; name is used in positions.
func ParseBytes(name string, data []byte) (*Section, error) {
	return (&Parser{}).ParseBytes(name, data)
}

// Parse is the function [Parse] with the options of p.
func (p *Parser) Parse(path string) (*Section, error) {
	r := &reader{Parser: p, root: New("")}
	if p.Files == nil {
		return nil, fail(ErrInclude, Pos{File: path}, "no access to files")
	}
	text, err := r.load(path, Pos{File: path})
	if err != nil {
		return nil, err
	}
	return r.run(path, text)
}

// ParseBytes parses data; relative includes are relative to the directory of name.
func (p *Parser) ParseBytes(name string, data []byte) (*Section, error) {
	r := &reader{Parser: p, root: New(""), size: len(data)}
	if len(data) > MaxFileSize {
		return nil, fail(ErrLimit, Pos{File: name}, "larger than %d bytes", MaxFileSize)
	}
	return r.run(name, string(data))
}

// reader is one parse: the tree so far and the limits used up.
type reader struct {
	*Parser
	root  *Section
	stack []string // files being read, outermost first
	files int
	size  int
	nodes int
}

func (r *reader) run(name, text string) (*Section, error) {
	if err := r.file(name, text, r.root, 0); err != nil {
		return nil, err
	}
	return resolve(r.root)
}

func (r *reader) warn(pos Pos, msg string) {
	if r.Warn != nil {
		r.Warn(pos, msg)
	}
}

// load reads a whole file within the limits; at is where it was asked for.
func (r *reader) load(path string, at Pos) (string, error) {
	if r.files++; r.files > MaxFiles {
		return "", fail(ErrLimit, at, "more than %d files", MaxFiles)
	}
	f, err := r.Files.Open(path)
	if err != nil {
		return "", r.ioError(path, at, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxFileSize+1))
	if err != nil {
		return "", r.ioError(path, at, err)
	}
	if len(data) > MaxFileSize {
		return "", fail(ErrLimit, Pos{File: path}, "larger than %d bytes", MaxFileSize)
	}
	if r.size += len(data); r.size > MaxTotalSize {
		return "", fail(ErrLimit, at, "included files are together larger than %d bytes", MaxTotalSize)
	}
	return string(data), nil
}

func (r *reader) ioError(path string, at Pos, err error) *Error {
	reason := err
	if pe := (*fs.PathError)(nil); errors.As(err, &pe) {
		reason = pe.Err
	}
	e := fail(errors.Join(ErrInclude, err), at, "cannot read %s: %v", path, reason)
	if !at.IsValid() {
		e.Msg = "cannot read: " + reason.Error()
	}
	return e
}

// file parses the text of one file into section, which is depth levels below the root.
func (r *reader) file(name, text string, section *Section, depth int) error {
	r.stack = append(r.stack, name)
	p := &parser{reader: r, lexer: lexer{file: name, text: text, line: 1}}
	p.skipBOM()
	err := p.statements(section, depth, Pos{})
	r.stack = r.stack[:len(r.stack)-1]
	return err
}

// include parses the files that match pattern into section.
func (r *reader) include(pattern string, at Pos, section *Section, depth int) error {
	if pattern == "" {
		r.warn(at, "include without a file name")
		return nil
	}
	if r.Files == nil {
		return fail(ErrInclude, at, "include is not possible here")
	}
	if len(r.stack) >= MaxIncludeDepth {
		return fail(ErrLimit, at, "files include one another more than %d deep", MaxIncludeDepth)
	}
	if !filepath.IsAbs(pattern) {
		pattern = filepath.Join(filepath.Dir(at.File), pattern)
	}
	names, err := r.Files.Glob(pattern)
	if err != nil {
		return fail(errors.Join(ErrInclude, err), at, "bad include pattern %q: %v", pattern, err)
	}
	if len(names) == 0 && !isGlob(pattern) {
		return r.includeMissing(pattern, at)
	}
	for _, name := range names {
		if slices.Contains(r.stack, name) {
			return fail(ErrInclude, at, "%s includes itself", name)
		}
		text, err := r.load(name, at)
		if err != nil {
			return err
		}
		if err := r.file(name, text, section, depth); err != nil {
			return err
		}
	}
	return nil
}

// includeMissing is for a plain name that matched nothing: a file that does not exist is left
// out, as strongSwan does, but not without a word; one that is no file is an error.
func (r *reader) includeMissing(name string, at Pos) error {
	f, err := r.Files.Open(name)
	if err == nil {
		f.Close()
		return fail(ErrInclude, at, "cannot include %s", name)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return r.ioError(name, at, err)
	}
	r.warn(at, "included file "+name+" does not exist")
	return nil
}

// node counts one more value or section.
func (r *reader) node(pos Pos) error {
	if r.nodes++; r.nodes > MaxNodes {
		return fail(ErrLimit, pos, "more than %d sections and values", MaxNodes)
	}
	return nil
}

// parser parses one file.
type parser struct {
	*reader
	lexer
}

// statements parses up to the closing brace of section, or to the end of the file if open is
// the zero Pos. open is where the section's name stands.
func (p *parser) statements(section *Section, depth int, open Pos) error {
	for {
		p.space()
		pos := p.pos()
		switch c, ok := p.peek(); {
		case !ok && open.IsValid():
			return fail(ErrSyntax, pos, "end of file, but section %q of line %d is still open", section.Name, open.Line)
		case !ok:
			return nil
		case c == '}' && open.IsValid():
			p.take()
			return nil
		case c == '}':
			return fail(ErrSyntax, pos, "'}' without a section to close")
		}
		if p.atInclude() {
			pattern, err := p.pattern()
			if err != nil {
				return err
			}
			if err := p.include(pattern, pos, section, depth); err != nil {
				return err
			}
			continue
		}
		if err := p.statement(section, depth); err != nil {
			return err
		}
	}
}

// statement parses a key or a section.
func (p *parser) statement(section *Section, depth int) error {
	name, pos, err := p.name("the name of a key or section")
	if err != nil {
		return err
	}
	if err := p.node(pos); err != nil {
		return err
	}
	p.space()
	var refs []ref
	c, ok := p.peek()
	switch {
	case c == '=':
		p.take()
		return p.value(section, name, pos)
	case c == ':':
		p.take()
		if refs, err = p.references(name); err != nil {
			return err
		}
		c, ok = p.peek()
		if c != '{' {
			return fail(ErrSyntax, p.pos(), "expected '{' after the references of section %q, found %s", name, describe(c, ok))
		}
	case c == '.':
		return fail(ErrSyntax, p.pos(), "a name cannot contain '.': open section %q and put the rest into it", name)
	case c != '{':
		return fail(ErrSyntax, p.pos(), "expected '=' or '{' after %q, found %s", name, describe(c, ok))
	}
	p.take()
	if depth+1 > MaxDepth {
		return fail(ErrLimit, pos, "sections nest more than %d deep", MaxDepth)
	}
	// A section written again extends the former. Its content goes straight into it: strongSwan
	// merges after the closing brace, with the same result.
	sub := section.Add(name)
	if !sub.Pos.IsValid() {
		sub.Pos = pos
	}
	for _, r := range refs {
		if !slices.ContainsFunc(sub.refs, func(o ref) bool { return o.path == r.path }) {
			sub.refs = append(sub.refs, r)
		}
	}
	if len(sub.refs) > MaxReferences {
		return fail(ErrLimit, pos, "more than %d references", MaxReferences)
	}
	return p.statements(sub, depth+1, pos)
}

// references parses "a, b.c".
func (p *parser) references(of string) ([]ref, error) {
	var refs []ref
	for {
		p.space()
		path, pos, err := p.path("the name of a section that " + strings.TrimSpace("section "+of) + " refers to")
		if err != nil {
			return nil, err
		}
		if refs = append(refs, ref{path, pos}); len(refs) > MaxReferences {
			return nil, fail(ErrLimit, pos, "more than %d references", MaxReferences)
		}
		p.space()
		if c, _ := p.peek(); c != ',' {
			return refs, nil
		}
		p.take()
	}
}

// value parses the rest of "key = value" and stores it.
func (p *parser) value(section *Section, key string, pos Pos) error {
	text, found, err := p.words()
	if err != nil {
		return err
	}
	if len(text) > MaxValue {
		return fail(ErrLimit, pos, "value of %q is longer than %d bytes", key, MaxValue)
	}
	// A '#' or '}' that touches the text cuts passwords short without a word.
	if c, _ := p.peek(); found && c == '#' && !p.afterBlank() {
		p.warn(p.pos(), "the value of "+key+" ends at '#'; put it in quotes if that belongs to it")
	}
	section.SetValue(Value{Key: key, Pos: pos, Text: text, unset: !found})
	return nil
}

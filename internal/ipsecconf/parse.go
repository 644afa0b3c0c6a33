package ipsecconf

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	"adit/conf"
)

// Dialect is whose ipsec.conf it is.
type Dialect int

// The dialects; Auto looks at the keywords.
const (
	Auto Dialect = iota
	StrongSwan
	Libreswan
)

// String is the name of the dialect, as --dialect has it.
func (d Dialect) String() string {
	return [...]string{"auto", "strongswan", "libreswan"}[d]
}

// DialectOf reads the name of a dialect.
func DialectOf(text string) (Dialect, error) {
	for d := Auto; d <= Libreswan; d++ {
		if text == d.String() {
			return d, nil
		}
	}
	return Auto, fmt.Errorf("%q is no dialect: strongswan, libreswan or auto", text)
}

// kind is what a line is.
type kind int

const (
	isSection kind = iota // config setup, conn NAME, ca NAME
	isSetting             // key = value
	isInclude
	isVersion
	isEnd // the end of a file: comments that nothing follows
)

// Line is one statement of a file, with the comments before it and behind it.
type Line struct {
	Pos     conf.Pos
	Kind    kind
	Type    string // of a section: setup, conn, ca
	Key     string // of a setting in lower case; name of a section
	Value   string
	Quoted  bool     // the value stood in quotes
	Before  []string // comments before, with their #
	Comment string   // behind it on the same line, with its #
	account
}

// File is what was read: all statements in their order, included ones where the
// include stands.
type File struct {
	Name  string
	Lines []*Line
}

// Parse reads an ipsec.conf and all that it includes. Errors are *conf.Error and
// have a position.
func Parse(files conf.Files, name string, d Dialect) (*File, error) {
	p := parser{files: files, dialect: d, out: &File{Name: name}}
	text, err := p.read(name, conf.Pos{File: name})
	if err != nil {
		return nil, err
	}
	if err := p.file(name, text, 0); err != nil {
		return nil, err
	}
	p.add(&Line{Pos: conf.Pos{File: name, Line: 1 + strings.Count(text, "\n")}, Kind: isEnd})
	return p.out, nil
}

type parser struct {
	files   conf.Files
	dialect Dialect
	out     *File
	before  []string
	section *Line
	opened  int
	size    int
	lines   int
}

func failf(reason error, pos conf.Pos, format string, args ...any) error {
	return &conf.Error{Pos: pos, Msg: fmt.Sprintf(format, args...), Err: reason}
}

// read reads a file within the limits.
func (p *parser) read(name string, at conf.Pos) (string, error) {
	if p.opened++; p.opened > limitFiles {
		return "", failf(conf.ErrLimit, at, "more than %d files", limitFiles)
	}
	f, err := p.files.Open(name)
	if err != nil {
		return "", failf(err, at, "cannot read %s: %v", name, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limitFileSize+1))
	p.size += len(b)
	switch {
	case err != nil:
		return "", failf(err, at, "cannot read %s: %v", name, err)
	case len(b) > limitFileSize:
		return "", failf(conf.ErrLimit, at, "%s is larger than %d bytes", name, limitFileSize)
	case p.size > limitTotalSize:
		return "", failf(conf.ErrLimit, at, "more than %d bytes in all", limitTotalSize)
	case strings.IndexByte(string(b), 0) >= 0:
		return "", failf(conf.ErrSyntax, at, "%s is no text file: it has a NUL byte", name)
	}
	return strings.TrimPrefix(string(b), "\xef\xbb\xbf"), nil
}

func (p *parser) add(l *Line) {
	l.Before, p.before = p.before, nil
	p.out.Lines = append(p.out.Lines, l)
}

// file reads the statements of one file.
func (p *parser) file(name, text string, depth int) error {
	pos := conf.Pos{File: name, Col: 1}
	for text != "" {
		pos.Line++
		start := pos
		line, rest, _ := strings.Cut(text, "\n")
		// A string in quotes may go on over several lines.
		for openQuote(line) && rest != "" && len(line) <= limitValue {
			more, after, _ := strings.Cut(rest, "\n")
			line, rest = line+"\n"+more, after
			pos.Line++
		}
		text = rest
		if p.lines++; p.lines > limitLines {
			return failf(conf.ErrLimit, start, "more than %d lines", limitLines)
		}
		if len(line) > limitValue {
			return failf(conf.ErrLimit, start, "a line of more than %d bytes", limitValue)
		}
		if err := p.statement(strings.TrimRight(line, " \t\r"), start, depth); err != nil {
			return err
		}
	}
	return nil
}

// openQuote reports whether a line ends inside of a string in quotes.
func openQuote(line string) bool {
	if strings.HasPrefix(strings.TrimLeft(line, " \t"), "#") {
		return false
	}
	body, _ := cutComment(line)
	return quoteEnd(body) < 0
}

// quoteEnd is the length of the text, or -1 if a string in it isn't closed.
func quoteEnd(s string) int {
	in := false
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && in:
			i++
		case s[i] == '"':
			in = !in
		}
	}
	if in {
		return -1
	}
	return len(s)
}

// cutComment cuts a comment from a line: from a # that is not in quotes, and does
// not follow the @ that begins an identity of hexadecimal digits.
func cutComment(line string) (body, comment string) {
	in := false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '\\' && in:
			i++
		case c == '"':
			in = !in
		case c == '#' && !in && (i == 0 || line[i-1] != '@'):
			return strings.TrimRight(line[:i], " \t"), strings.TrimSpace(line[i:])
		}
	}
	return line, ""
}

// statement reads one line.
func (p *parser) statement(line string, pos conf.Pos, depth int) error {
	body, comment := cutComment(line)
	words := strings.Fields(body)
	if len(words) == 0 {
		if comment != "" {
			p.before = append(p.before, comment)
		} else if n := len(p.before); n > 0 && p.before[n-1] != "" {
			p.before = append(p.before, "") // a gap between comments
		}
		return nil
	}
	indented := line[0] == ' ' || line[0] == '\t'
	key, value, isPair := strings.Cut(body, "=")
	key = strings.TrimSpace(key)
	switch {
	case words[0] == "include" && !(isPair && key == "include"):
		return p.include(body, comment, pos, depth)
	case words[0] == "version" && !indented && !(isPair && key == "version"):
		p.add(&Line{Pos: pos, Kind: isVersion, Key: "version", Value: strings.Join(words[1:], " "), Comment: comment})
		return nil
	case !indented && (words[0] == "config" || words[0] == "conn" || words[0] == "ca") && !(isPair && key == words[0]):
		return p.open(words, strings.TrimSpace(body[len(words[0]):]), comment, pos)
	}
	switch {
	case !isPair || key == "" || strings.ContainsAny(key, " \t\""):
		return failf(conf.ErrSyntax, pos, "expected a section (config setup, conn NAME, ca NAME), include, or KEY=VALUE, found %q", clip(strings.TrimSpace(body)))
	case p.section == nil:
		return failf(conf.ErrSyntax, pos, "%s stands outside of any section", clip(key))
	}
	l := &Line{Pos: pos, Kind: isSetting, Key: strings.ToLower(key), Comment: comment}
	var err error
	if l.Value, l.Quoted, err = p.value(value, pos); err != nil {
		return err
	}
	p.add(l)
	return nil
}

func clip(s string) string {
	if len(s) > 80 {
		return strings.ToValidUTF8(s[:77], "") + "..."
	}
	return s
}

// open begins a section.
func (p *parser) open(words []string, name, comment string, pos conf.Pos) error {
	l := &Line{Pos: pos, Kind: isSection, Type: words[0], Key: name, Comment: comment}
	switch {
	case l.Type == "config" && name == "setup":
		l.Type = "setup"
	case l.Type == "config":
		return failf(conf.ErrSyntax, pos, "expected config setup, found config %s", clip(name))
	case name == "" || len(words) > 2 && !strings.HasPrefix(name, `"`):
		return failf(conf.ErrSyntax, pos, "expected one name after %s, found %q", l.Type, clip(name))
	case len(name) > limitName:
		return failf(conf.ErrLimit, pos, "a name of more than %d bytes", limitName)
	}
	l.Key = strings.Trim(l.Key, `"`)
	p.section = l
	p.add(l)
	return nil
}

// value takes quotes and escapes off.
func (p *parser) value(text string, pos conf.Pos) (string, bool, error) {
	text = strings.TrimSpace(text)
	if quoteEnd(text) < 0 {
		return "", false, failf(conf.ErrSyntax, pos, "a string in quotes is not closed")
	}
	if strings.IndexByte(text, '"') < 0 {
		return strings.Join(strings.Fields(text), " "), false, nil
	}
	var b strings.Builder
	in := false
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '"':
			in = !in
		case c == '\\' && in && p.dialect != Libreswan && i+1 < len(text):
			i++
			p.escape(&b, text[i])
		case (c == '\n' || c == '\r') && in:
			b.WriteByte(' ')
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), true, nil
}

func (p *parser) escape(b *strings.Builder, c byte) {
	switch c {
	case 'n', 'r', 't':
		b.WriteByte(' ') // no value of a keyword has a meaning for them
	case '\r', '\n':
	default:
		b.WriteByte(c)
	}
}

// include reads the files that a pattern names.
func (p *parser) include(body, comment string, pos conf.Pos, depth int) error {
	pattern := strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(body), "include"))
	pattern = strings.Trim(pattern, `"`)
	l := &Line{Pos: pos, Kind: isInclude, Key: "include", Value: pattern, Comment: comment}
	p.add(l)
	if depth >= limitIncludeDepth {
		return failf(conf.ErrLimit, pos, "files include one another more than %d deep", limitIncludeDepth)
	}
	names, err := included(p.files, pattern, pos)
	if err != nil {
		return err
	}
	if len(names) == 0 && !strings.ContainsAny(pattern, "*?[{") {
		l.mark(refused, "there is no such file")
	}
	for _, name := range names {
		text, err := p.read(name, pos)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			l.mark(refused, "there is no such file")
			continue
		case err != nil:
			return err
		}
		if err := p.file(name, text, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// included are the files that a pattern of include names, relative to the file in
// which it stands.
func included(files conf.Files, pattern string, pos conf.Pos) ([]string, error) {
	if pattern == "" {
		return nil, failf(conf.ErrSyntax, pos, "include without a file")
	}
	if !filepath.IsAbs(pattern) {
		pattern = filepath.Join(filepath.Dir(pos.File), pattern)
	}
	if !strings.ContainsAny(pattern, "*?[") {
		return []string{pattern}, nil
	}
	names, err := files.Glob(pattern)
	if err != nil {
		return nil, failf(conf.ErrSyntax, pos, "%q is no pattern: %v", clip(pattern), err)
	}
	return names, nil
}

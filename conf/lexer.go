package conf

import (
	"fmt"
	"strings"
)

// lexer reads the tokens of one file; which are possible depends on where the parser is.
type lexer struct {
	file  string
	text  string
	off   int
	line  int
	start int // offset of the line's first byte
}

func (l *lexer) pos() Pos { return Pos{l.file, l.line, l.off - l.start + 1} }

// peek returns the next byte; false at the end.
func (l *lexer) peek() (byte, bool) {
	if l.off >= len(l.text) {
		return 0, false
	}
	return l.text[l.off], true
}

// take consumes the next byte.
func (l *lexer) take() {
	if l.text[l.off] == '\n' {
		l.line++
		l.start = l.off + 1
	}
	l.off++
}

func (l *lexer) skipBOM() {
	if strings.HasPrefix(l.text, "\xef\xbb\xbf") {
		l.off, l.start = 3, 3
	}
}

// space skips blanks, newlines and comments.
func (l *lexer) space() {
	for {
		switch c, ok := l.peek(); {
		case ok && (c == ' ' || c == '\t' || c == '\r' || c == '\n'):
			l.take()
		case c == '#':
			for c, ok := l.peek(); ok && c != '\n'; c, ok = l.peek() {
				l.off++
			}
		default:
			return
		}
	}
}

// nameByte holds the bytes that names may consist of.
var nameByte = func() (t [256]bool) {
	for i := range t {
		t[i] = i != 0 && !strings.ContainsRune("#{}:.,=\"\r\n\t ", rune(i))
	}
	return t
}()

func isName(s string) bool {
	for i := range len(s) {
		if !nameByte[s[i]] {
			return false
		}
	}
	return s != ""
}

// name reads a name; want says what it is for.
func (l *lexer) name(want string) (string, Pos, error) {
	pos, from := l.pos(), l.off
	for l.off < len(l.text) && nameByte[l.text[l.off]] {
		l.off++
	}
	name := l.text[from:l.off]
	if name == "" {
		c, ok := l.peek()
		return "", pos, fail(ErrSyntax, pos, "expected %s, found %s", want, describe(c, ok))
	}
	if len(name) > MaxName {
		return "", pos, fail(ErrLimit, pos, "name longer than %d bytes", MaxName)
	}
	return name, pos, nil
}

// path reads names joined by dots.
func (l *lexer) path(want string) (string, Pos, error) {
	first, pos, err := l.name(want)
	if err != nil {
		return "", pos, err
	}
	names := []string{first}
	for {
		if c, _ := l.peek(); c != '.' {
			return strings.Join(names, "."), pos, nil
		}
		l.take()
		name, at, err := l.name(want)
		if err != nil {
			return "", pos, err
		}
		if names = append(names, name); len(names) > MaxDepth {
			return "", pos, fail(ErrLimit, at, "path of more than %d sections", MaxDepth)
		}
	}
}

// words reads a value up to the end of the line, a '#' or a '}'. Parts are joined by one blank.
// It reports whether there was any part: a quoted empty string counts as one.
func (l *lexer) words() (string, bool, error) {
	var parts []string
	size := 0
	for {
		c, ok := l.peek()
		var part string
		switch {
		case !ok || c == '\n' || c == '#' || c == '}':
			return strings.Join(parts, " "), parts != nil, nil
		case c == ' ' || c == '\t' || c == '\r':
			l.off++
			continue
		case c == '"':
			var err error
			if part, err = l.quoted(); err != nil {
				return "", false, err
			}
		default:
			from := l.off
			if n := strings.IndexAny(l.text[from:], "#}\"\r\n\t \x00"); n >= 0 {
				l.off += n
			} else {
				l.off = len(l.text)
			}
			if part = l.text[from:l.off]; part == "" {
				return "", false, fail(ErrSyntax, l.pos(), "NUL byte: this is no text file")
			}
		}
		parts = append(parts, part)
		if size += len(part) + 1; size > MaxValue+1 {
			return "", false, fail(ErrLimit, l.pos(), "value longer than %d bytes", MaxValue)
		}
	}
}

// quoted reads a string in quotes.
func (l *lexer) quoted() (string, error) {
	open := l.pos()
	l.take()
	var b strings.Builder
	for {
		c, ok := l.peek()
		switch {
		case !ok:
			return "", fail(ErrSyntax, open, "string is not closed: no '\"' up to the end of the file")
		case c == '"':
			l.take()
			return b.String(), nil
		case c == '\r':
			l.take()
		case c == 0:
			return "", fail(ErrSyntax, l.pos(), "NUL byte: this is no text file")
		case c == '\\':
			l.take()
			if err := l.escape(&b, open); err != nil {
				return "", err
			}
		default:
			l.take()
			b.WriteByte(c)
		}
	}
}

// escape reads what follows a backslash in quotes.
func (l *lexer) escape(b *strings.Builder, open Pos) error {
	c, ok := l.peek()
	switch {
	case !ok:
		return fail(ErrSyntax, open, "string is not closed: no '\"' up to the end of the file")
	case c == 'n':
		b.WriteByte('\n')
	case c == 'r':
		b.WriteByte('\r')
	case c == 't':
		b.WriteByte('\t')
	case c == '\n': // joins two lines
	case c == '\r' && strings.HasPrefix(l.text[l.off:], "\r\n"):
		l.take()
	case c == 0:
		return fail(ErrSyntax, l.pos(), "NUL byte: this is no text file")
	default:
		b.WriteByte(c)
	}
	l.take()
	return nil
}

// atInclude reports whether an include statement follows, and not a key of that name.
func (l *lexer) atInclude() bool {
	rest, ok := strings.CutPrefix(l.text[l.off:], "include")
	if !ok || rest == "" || rest[0] != ' ' && rest[0] != '\t' {
		return false
	}
	rest = strings.TrimLeft(rest, " \t")
	return rest != "" && rest[0] != '='
}

// pattern reads an include statement and returns its pattern. A backslash makes " # } and a
// blank ordinary and is kept before everything else, where it quotes wildcards.
func (l *lexer) pattern() (string, error) {
	l.off += len("include")
	for c, _ := l.peek(); c == ' ' || c == '\t'; c, _ = l.peek() {
		l.off++
	}
	var b strings.Builder
	for {
		c, ok := l.peek()
		switch {
		case !ok || strings.IndexByte("#}\n\t ", c) >= 0:
			return b.String(), nil
		case c == 0:
			return "", fail(ErrSyntax, l.pos(), "NUL byte: this is no text file")
		case c == '"':
			s, err := l.quoted()
			b.WriteString(s)
			return b.String(), err
		case c == '\\' && l.off+1 < len(l.text) && strings.IndexByte("\"#} ", l.text[l.off+1]) >= 0:
			l.off++
			b.WriteByte(l.text[l.off])
		case c != '\r':
			b.WriteByte(c)
		}
		l.take()
	}
}

// afterBlank reports whether the byte before the next one is a blank.
func (l *lexer) afterBlank() bool {
	return l.off == 0 || strings.IndexByte(" \t\r\n", l.text[l.off-1]) >= 0
}

// describe names a byte for an error message.
func describe(c byte, ok bool) string {
	switch {
	case !ok:
		return "the end of the file"
	case c == '\n':
		return "the end of the line"
	case c == 0:
		return "a NUL byte: this is no text file"
	case c == '"':
		return "a quoted string, which only values can be"
	case nameByte[c] && c > ' ' && c < 0x7f:
		return fmt.Sprintf("another word, beginning with '%c'", c)
	case c >= ' ' && c < 0x7f:
		return fmt.Sprintf("'%c'", c)
	}
	return fmt.Sprintf("byte %#02x", c)
}

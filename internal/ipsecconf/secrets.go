package ipsecconf

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"adit/conf"
)

// entry is one secret: whose it is, what it is, and what follows.
type entry struct {
	Line
	owners []string
	typ    string
	args   []argument
	broken string // why it cannot be read
}

type argument struct {
	text   string
	quoted bool
}

// secretFile is ipsec.secrets with all that it includes.
type secretFile struct {
	name    string
	entries []*entry
	tail    []string // comments at the end
}

// ParseSecrets reads an ipsec.secrets, for its errors; what is in it stays inside.
func ParseSecrets(files conf.Files, name string) error {
	_, err := parseSecrets(files, name)
	return err
}

type secretParser struct {
	parser
	list *secretFile
}

func parseSecrets(files conf.Files, name string) (*secretFile, error) {
	p := &secretParser{parser: parser{files: files}, list: &secretFile{name: name}}
	text, err := p.read(name, conf.Pos{File: name})
	if err == nil {
		err = p.file(name, text, 0)
	}
	p.list.tail = p.before
	return p.list, err
}

// file reads the entries of one file: an entry begins at the left margin, indented
// lines continue it.
func (p *secretParser) file(name, text string, depth int) error {
	pos := conf.Pos{File: name, Col: 1}
	for text != "" {
		line, rest, _ := strings.Cut(text, "\n")
		pos.Line++
		start := pos
		line = strings.TrimRight(line, " \t\r")
		text = rest
		if p.lines++; p.lines > limitLines {
			return failf(conf.ErrLimit, start, "more than %d lines", limitLines)
		}
		switch {
		case strings.TrimSpace(line) == "":
			if n := len(p.before); n > 0 && p.before[n-1] != "" {
				p.before = append(p.before, "")
			}
			continue
		case strings.HasPrefix(strings.TrimSpace(line), "#"):
			p.before = append(p.before, strings.TrimSpace(line))
			continue
		}
		var comments []string
		for text != "" {
			more, after, _ := strings.Cut(text, "\n")
			more = strings.TrimRight(more, " \t\r")
			if more == "" || more[0] != ' ' && more[0] != '\t' && more[0] != '}' {
				break
			}
			if len(line)+len(more) > limitValue {
				return failf(conf.ErrLimit, start, "an entry of more than %d bytes", limitValue)
			}
			pos.Line++
			text = after
			if strings.HasPrefix(strings.TrimSpace(more), "#") {
				comments = append(comments, strings.TrimSpace(more))
				continue
			}
			line += " " + strings.TrimSpace(more)
		}
		if len(line) > limitValue {
			return failf(conf.ErrLimit, start, "an entry of more than %d bytes", limitValue)
		}
		if err := p.entry(line, start, comments, depth); err != nil {
			return err
		}
	}
	return nil
}

func (p *secretParser) entry(line string, pos conf.Pos, comments []string, depth int) error {
	args, comment, err := secretWords(line)
	e := &entry{Line: Line{Pos: pos, Comment: comment, Before: append(p.before, comments...)}}
	p.before = nil
	p.list.entries = append(p.list.entries, e)
	if err != nil {
		e.broken = err.Error()
		return nil
	}
	if len(args) == 2 && args[0].text == "include" && !args[0].quoted {
		e.typ, e.args = "include", args[1:]
		return p.include(e, depth)
	}
	colon := -1
	for i, a := range args {
		if a.text == ":" && !a.quoted {
			colon = i
			break
		}
	}
	if colon < 0 || colon+1 >= len(args) {
		e.broken = "expected OWNERS : TYPE SECRET"
		return nil
	}
	if colon > limitList {
		e.broken = fmt.Sprintf("more than %d owners", limitList)
		return nil
	}
	for _, a := range args[:colon] {
		e.owners = append(e.owners, a.text)
	}
	e.typ, e.args = strings.ToUpper(args[colon+1].text), args[colon+2:]
	if args[colon+1].quoted { // FreeS/WAN: a secret without a type is a PSK
		e.typ, e.args = "PSK", args[colon+1:]
	}
	return nil
}

func (p *secretParser) include(e *entry, depth int) error {
	if depth >= limitIncludeDepth {
		return failf(conf.ErrLimit, e.Pos, "files include one another more than %d deep", limitIncludeDepth)
	}
	pattern := e.args[0].text
	names, err := included(p.files, pattern, e.Pos)
	if err != nil {
		return err
	}
	for _, name := range names {
		text, err := p.read(name, e.Pos)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			e.mark(refused, "there is no such file")
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

// secretWords splits an entry at blanks; strings in double or single quotes have no
// escapes. A colon between blanks, at the beginning or before a quote is a word.
func secretWords(line string) (out []argument, comment string, err error) {
	colon := false
	for rest := line; ; {
		rest = strings.TrimLeft(rest, " \t")
		switch {
		case rest == "":
			return out, "", nil
		case rest[0] == '#' && len(out) > 0:
			return out, rest, nil
		case rest[0] == '"' || rest[0] == '\'':
			end := strings.IndexByte(rest[1:], rest[0])
			if end < 0 {
				return nil, "", errors.New("a string in quotes is not closed")
			}
			out = append(out, argument{rest[1 : end+1], true})
			rest = rest[end+2:]
		case rest[0] == ':' && !colon && (len(rest) == 1 || rest[1] != ':'):
			colon = true
			out, rest = append(out, argument{":", false}), rest[1:]
		default:
			end := strings.IndexAny(rest, " \t")
			if end < 0 {
				end = len(rest)
			}
			word := rest[:end]
			rest = rest[end:]
			if w, ok := strings.CutSuffix(word, ":"); ok && !colon && w != "" && !strings.HasSuffix(w, ":") { // NAME: PSK …
				colon = true
				out = append(out, argument{w, false}, argument{":", false})
				continue
			}
			out = append(out, argument{word, false})
		}
		if len(out) > 4*limitList {
			return nil, "", fmt.Errorf("more than %d words", 4*limitList)
		}
	}
}

// secrets writes the section secrets.
func (im *importer) secrets(f *secretFile) string {
	w := &writer{}
	w.line("# Made by adit import of " + oneLine(f.name) + ".")
	w.line("")
	w.line("secrets {")
	w.depth = 1
	number := map[string]int{}
	for i, e := range f.entries {
		if i > 0 {
			w.line("")
		}
		w.comments(e.Before)
		n := im.secret(e)
		w.secretMark(e)
		if e.Comment != "" {
			w.comment(e.Comment)
		}
		if n == nil {
			continue
		}
		number[n.name]++
		n.name = fmt.Sprintf("%s-%d", n.name, number[n.name])
		w.off = e.State == refused
		w.node(n)
		w.off = false
	}
	w.comments(f.tail)
	w.depth = 0
	w.line("}")
	return w.String()
}

// secretMark is mark for an entry, without what is secret in it.
func (w *writer) secretMark(e *entry) {
	if word := markWords[e.State]; word != "" {
		w.comment(word + " " + place(e.Pos) + ": " + e.title() + ": " + oneLine(why(e.Reasons)))
	}
}

// title is an entry without its secret.
func (e *entry) title() string {
	if e.broken != "" || e.typ == "" {
		return "entry"
	}
	if e.typ == "INCLUDE" || e.typ == "include" {
		return "include " + clip(e.args[0].text)
	}
	return oneLine(clip(strings.Join(e.owners, " ")) + " : " + clip(e.typ))
}

// secret translates an entry; nil for one that becomes no section.
func (im *importer) secret(e *entry) *node {
	if e.broken != "" {
		e.mark(refused, e.broken)
		return nil
	}
	switch e.typ {
	case "include":
		return nil
	case "PSK":
		return im.shared(e, "ike")
	case "EAP", "XAUTH":
		return im.shared(e, strings.ToLower(e.typ))
	case "NTLM":
		return im.shared(e, "ntlm")
	case "PPK", "PPKS":
		n := im.shared(e, "ppk")
		e.mark(refused, "write it by hand: a section ppk* of secrets with its id and secret")
		return n
	case "RSA", "ECDSA", "PKCS8", "BLISS", "PRIV", "EDDSA":
		return im.private(e, "private")
	case "P12":
		return im.private(e, "pkcs12")
	case "PIN":
		e.mark(refused, "adit does not support tokens")
	default:
		e.mark(refused, fmt.Sprintf("%q is no type of secret", clip(e.typ)))
	}
	return nil
}

// shared translates a secret that two share.
func (im *importer) shared(e *entry, section string) *node {
	if len(e.args) == 0 {
		e.mark(refused, "there is no secret")
		return nil
	}
	if e.args[0].text == "%prompt" && !e.args[0].quoted {
		e.mark(refused, "adit asks nobody: write the secret")
		return nil
	}
	n := &node{name: section}
	for i, o := range e.owners {
		if im.dialect == Libreswan {
			o = secretID(o)
		}
		if o == "%any" && len(e.owners) == 1 {
			break
		}
		n.add(&item{key: fmt.Sprintf("id-%d", i+1), value: o})
	}
	n.add(&item{key: "secret", value: secretText(e.args[0])})
	if why := secretRefusal(n); why != "" && section != "ppk" {
		e.mark(refused, why)
	}
	if len(e.args) > 1 {
		e.mark(changed, "what follows the secret is left out")
	}
	return n
}

// secretID writes an owner of Libreswan's as an identity of swanctl.conf.
func secretID(o string) string {
	switch {
	case strings.HasPrefix(o, "@["):
		return "keyid:" + strings.TrimSuffix(o[2:], "]")
	case strings.HasPrefix(o, "@~"):
		return "asn1dn:#" + o[2:]
	}
	return o
}

// secretText writes a secret: one in quotes is text even if it begins as a number
// would.
func secretText(a argument) string {
	if a.quoted && (strings.HasPrefix(a.text, "0x") || strings.HasPrefix(a.text, "0s")) {
		return "0x" + hex.EncodeToString([]byte(a.text))
	}
	return a.text
}

// private notes a file with a private key, and translates its passphrase.
func (im *importer) private(e *entry, section string) *node {
	if len(e.args) == 0 || strings.HasPrefix(e.args[0].text, "{") || strings.HasPrefix(e.args[0].text, "0s") {
		e.mark(refused, "the key stands in the entry itself, or in NSS: put it into a file in private")
		return nil
	}
	from := e.args[0].text
	if strings.HasPrefix(from, "%") {
		e.mark(refused, "adit does not support tokens")
		return nil
	}
	if !filepath.IsAbs(from) {
		from = filepath.Join(im.dir, "private", from)
	}
	name := im.copies.file(from, section, true)
	if len(e.args) == 1 {
		return nil // a file without a passphrase needs no entry
	}
	n := &node{name: section}
	n.add(&item{key: "file", value: name})
	switch a := e.args[1]; {
	case a.text == "%prompt" && !a.quoted:
		e.mark(refused, "adit asks nobody: write the passphrase, or take it off the file")
		n.add(&item{key: "secret", value: ""})
	default:
		n.add(&item{key: "secret", value: a.text})
	}
	return n
}

func (f *secretFile) remarks(n *Count) (out []Remark) {
	for _, e := range f.entries {
		n.add(e.State)
		if e.State != translated {
			out = append(out, Remark{Pos: e.Pos, Line: e.title(), Word: markWords[e.State], Text: oneLine(why(e.Reasons))})
		}
	}
	return out
}

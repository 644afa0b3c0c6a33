package ipsecconf

import (
	"fmt"
	"path/filepath"
	"strings"
)

// render writes swanctl.conf in the order of the source.
func (im *importer) render() string {
	w := &writer{}
	w.line("# Made by adit import of " + title(im.dialect) + "'s " + filepath.Base(oneLine(im.file.Name)) + ".")
	w.line("# Lines that mean something else here are marked CHANGED, those that have no")
	w.line("# counterpart NOT TRANSLATED; LEFT OUT is what is not needed.")
	r := &renderer{im: im, w: w}
	authorities := im.authorities()
	for _, l := range im.file.Lines {
		switch {
		case l.Kind == isSection && im.sections.of[l].head == l:
			r.section(im.sections.of[l], authorities)
		case l.Kind == isSection: // its settings stand with the first of that name
			r.apart(l, "more of "+l.statement()+", see above")
		case l.Kind == isInclude:
			r.apart(l, "include "+l.Value+": what is in it follows")
		case l.Kind == isVersion:
			r.apart(l, "")
		case l.Kind == isEnd:
			w.depth = 0
			r.enter("")
			if len(l.Before) > 0 {
				w.line("")
			}
			w.comments(l.Before)
		}
	}
	r.enter("")
	if len(im.pools) > 0 {
		r.enter("pools")
		for i, p := range im.pools {
			if i > 0 {
				w.line("")
			}
			w.node(p)
		}
		r.enter("")
	}
	return w.String()
}

// renderer keeps which section is open.
type renderer struct {
	im   *importer
	w    *writer
	open string
}

// enter opens a section at the top, and closes the one that is open.
func (r *renderer) enter(name string) {
	if r.open == name {
		if name != "" {
			r.w.line("")
		}
		return
	}
	if r.open != "" {
		r.w.depth = 0
		r.w.line("}")
	}
	if name != "" {
		r.w.line("")
		r.w.line(name + " {")
		r.w.depth = 1
	}
	r.open = name
}

// apart writes the comments of a line that becomes nothing itself.
func (r *renderer) apart(l *Line, text string) {
	if len(l.Before) > 0 || text != "" {
		r.w.line("")
	}
	r.w.comments(l.Before)
	r.w.mark(l)
	if text != "" {
		r.w.comment(oneLine(text))
	}
	if l.Comment != "" {
		r.w.comment(l.Comment)
	}
}

func (r *renderer) section(s *section, authorities map[*section]*node) {
	switch s.typ {
	case "setup":
		r.enter("")
		if len(s.settings) == 0 && len(s.head.Before) == 0 && s.head.Comment == "" {
			return
		}
		r.source(s, "config setup:")
	case "ca":
		if n := authorities[s]; n != nil {
			r.enter("authorities")
			r.authority(s, n)
			return
		}
		r.source(s, "ca "+s.name+": what it says is repeated where it is used")
	default:
		c := r.im.conns[s]
		if c == nil {
			r.enter("connections")
			r.source(s, "conn "+s.name+": what it says is repeated in the connections that use it")
			return
		}
		r.enter("connections")
		r.conn(c)
	}
}

// source writes a section as it stood, as a comment: a template, or config setup.
func (r *renderer) source(s *section, title string) {
	w := r.w
	if r.open == "" {
		w.line("")
	}
	w.comments(s.head.Before)
	w.comment(title)
	if s.head.Comment != "" {
		w.comment(s.head.Comment)
	}
	r.unused(s)
	for _, l := range r.im.order(s) {
		w.comments(l.Before)
		w.mark(l)
		if _, reasons, whole := l.final(); whole && s.typ != "setup" {
			w.comment("NOT TRANSLATED " + place(l.Pos) + ": " + why(reasons))
		}
		text := "#   " + oneLine(l.statement())
		if l.Comment != "" {
			text += " " + l.Comment
		}
		w.line(text)
	}
}

// unused marks the settings of a section that no connection uses.
func (r *renderer) unused(s *section) {
	if s.typ == "setup" {
		return
	}
	for _, l := range s.settings {
		if l.uses == 0 && l.State == translated {
			l.mark(moot, "nothing uses it")
		}
	}
}

// conn writes a connection: with its children, or as a comment, or only that it is a
// child of another.
func (r *renderer) conn(c *conn) {
	w := r.w
	head := c.sec.head
	w.comments(head.Before)
	w.mark(head)
	if head.Comment != "" {
		w.comment(head.Comment)
	}
	if c.mergedIn != nil {
		w.comment(fmt.Sprintf("conn %s: child %s of connection %s above, which is the same but for that", c.sec.name, c.name, c.mergedIn.name))
		r.left(c)
		return
	}
	if len(c.lost) > 0 {
		w.comment(fmt.Sprintf("NOT TRANSLATED %s: conn %s: %s", place(head.Pos), c.sec.name, oneLine(why(c.lost))))
		w.off = true
	} else if !c.loaded && !r.im.All {
		w.comment(fmt.Sprintf("conn %s is not loaded by %s either (auto=ignore)", c.sec.name, title(r.im.dialect)))
		w.off = true
	}
	n := &node{name: c.name, items: c.top.items}
	kids := &node{name: "children"}
	for _, child := range c.children {
		kids.add(&item{sub: child})
	}
	if len(kids.items) > 0 {
		n.items = append(n.items[:len(n.items):len(n.items)], &item{sub: kids})
	}
	w.node(n)
	w.off = false
	r.left(c)
}

// left writes comments and marks that found no place in what was written: those of a
// connection that became a child of another.
func (r *renderer) left(c *conn) {
	for _, l := range r.im.order(c.sec) {
		if c.mergedIn == nil && c.placed[l] {
			continue
		}
		if c.mergedIn != nil && inChild(c, l) {
			continue
		}
		r.w.comments(l.Before)
		r.w.mark(l)
		if l.Comment != "" {
			r.w.comment(l.Comment)
		}
	}
}

// inChild reports whether a line has its place in a child of a connection.
func inChild(c *conn, l *Line) bool {
	for _, child := range c.children {
		for _, it := range child.items {
			if it.line == l {
				return true
			}
		}
	}
	return false
}

func title(d Dialect) string {
	if d == StrongSwan {
		return "strongSwan"
	}
	return "Libreswan"
}

// remarks counts all lines, and tells of those that were not simply translated.
func (im *importer) remarks(n *Count) (out []Remark) {
	for _, l := range im.file.Lines {
		if l.Kind == isEnd {
			continue
		}
		s, reasons, whole := l.final()
		n.add(s)
		if s != translated {
			out = append(out, Remark{l.Pos, oneLine(l.statement()), markWords[s], oneLine(why(reasons)), whole})
		}
	}
	return out
}

// authorities are the ca sections that become something.
func (im *importer) authorities() map[*section]*node {
	out := map[*section]*node{}
	for _, s := range im.sections.list {
		if s.typ != "ca" || s.name == "%default" {
			continue
		}
		set, err := im.sections.resolve(s, im.dialect)
		if err != nil {
			s.head.mark(refused, err.Error())
			continue
		}
		auto := set["auto"]
		load := auto != nil && !strings.EqualFold(auto.Value, "ignore")
		if !load && s.referred {
			continue
		}
		out[s] = im.authority(s, set, load)
	}
	return out
}

func (im *importer) authority(s *section, set map[string]*Line, load bool) *node {
	n := &node{name: cleanName(s.name)}
	own := map[*Line]bool{}
	for _, l := range s.settings {
		own[l] = true
	}
	put := func(key, value string, l *Line) {
		it := n.add(&item{key: key, value: value, off: !load})
		if own[l] {
			it.line = l
		}
	}
	uris := map[string][]string{}
	first := map[string]*Line{}
	for _, u := range []struct{ key, option string }{{"crluri", "crl_uris"}, {"crluri2", "crl_uris"}, {"ocspuri", "ocsp_uris"}, {"ocspuri2", "ocsp_uris"}} {
		if l := set[u.key]; l != nil {
			uris[u.option] = append(uris[u.option], l.Value)
			if first[u.option] == nil {
				first[u.option] = l
			} else if own[l] {
				n.add(&item{line: l})
			}
			if strings.Contains(l.Value, ",") {
				l.mark(changed, "the comma in it divides it in two")
			}
		}
	}
	if l := set["cacert"]; l != nil {
		if strings.HasPrefix(l.Value, "%") {
			l.mark(refused, "adit does not support tokens")
			load = false
		} else {
			put("cacert", im.caFile(l.Value), l)
		}
	} else {
		s.head.mark(refused, "an authority needs its cacert")
		load = false
	}
	for _, option := range []string{"crl_uris", "ocsp_uris"} {
		if len(uris[option]) > 0 {
			put(option, strings.Join(uris[option], ", "), first[option])
		}
	}
	if l := set["certuribase"]; l != nil {
		put("cert_uri_base", l.Value, l)
	}
	for _, l := range set {
		l.uses++
		k, ok := lookup("ca", l.Key)
		switch {
		case !ok:
			l.mark(refused, unknown("ca", l.Key))
		case k.Fate != FateTranslated:
			l.mark(fates[k.Fate], k.Note)
		}
	}
	for _, l := range im.order(s) {
		if !placed(n, l) {
			n.items = append([]*item{{line: l}}, n.items...)
		}
	}
	if !load {
		n.name = "# " + n.name // the writer makes a comment of it
	}
	return n
}

func placed(n *node, l *Line) bool {
	for _, it := range n.items {
		if it.line == l {
			return true
		}
	}
	return false
}

// authority writes an authority, as a comment if the other daemon doesn't load it.
func (r *renderer) authority(s *section, n *node) {
	w := r.w
	w.comments(s.head.Before)
	w.mark(s.head)
	if s.head.Comment != "" {
		w.comment(s.head.Comment)
	}
	if name, off := strings.CutPrefix(n.name, "# "); off {
		w.comment("not loaded (auto=ignore, or without cacert)")
		n.name = name
		w.off = true
	}
	w.node(n)
	w.off = false
}

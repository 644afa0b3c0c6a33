package ipsecconf

import (
	"slices"
	"strings"
)

// node is a section of the output.
type node struct {
	name  string
	items []*item
}

// item is one thing in a section: an option, another section, or only the place of a
// line that became nothing.
type item struct {
	line  *Line    // whose comments and mark stand here; nil for others
	notes []string // explanations above, without #
	key   string
	value string
	off   bool // as a comment: refused
	sub   *node
}

func (n *node) add(it *item) *item {
	n.items = append(n.items, it)
	return it
}

// section is the sub-section of that name, made if there is none.
func (n *node) section(name string) *node {
	for _, it := range n.items {
		if it.sub != nil && it.sub.name == name {
			return it.sub
		}
	}
	sub := &node{name: name}
	n.add(&item{sub: sub})
	return sub
}

// value of an option that is on.
func (n *node) value(key string) (string, bool) {
	for _, it := range n.items {
		if it.sub == nil && it.key == key && !it.off {
			return it.value, true
		}
	}
	return "", false
}

// quote writes a value so that it is read back as it is.
func quote(s string) string {
	if s == "" || strings.ContainsAny(s, "#}\"\r\n\t\x00\\") || strings.Join(strings.Fields(s), " ") != s {
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`, "\t", `\t`, "\x00", "").Replace(s) + `"`
	}
	return s
}

// writer writes the output with its indentation.
type writer struct {
	strings.Builder
	depth int
	off   bool // everything is a comment
}

func (w *writer) line(text string) {
	if text == "" {
		w.WriteString("\n")
		return
	}
	w.WriteString(strings.Repeat("\t", w.depth))
	if w.off {
		w.WriteString("# ")
	}
	w.WriteString(text)
	w.WriteString("\n")
}

// comment writes a comment of the source or of ours; a value may span lines.
func (w *writer) comment(text string) {
	for part := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		part = strings.TrimRight(part, " \t\r")
		if !strings.HasPrefix(part, "#") && !w.off {
			part = "# " + part
		}
		w.line(part)
	}
}

func (w *writer) comments(list []string) {
	for i, c := range list {
		switch {
		case c != "":
			w.comment(c)
		case i > 0 && i < len(list)-1:
			w.line("")
		}
	}
}

// mark writes what became of a line, once.
func (w *writer) mark(l *Line) {
	if l.told {
		return
	}
	l.told = true
	s, reasons, whole := l.final()
	if word := markWords[s]; word != "" && !whole {
		w.comment(word + " " + place(l.Pos) + ": " + oneLine(l.statement()) + ": " + oneLine(why(reasons)))
	}
}

var markWords = map[state]string{moot: "LEFT OUT", changed: "CHANGED", refused: "NOT TRANSLATED"}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

func (w *writer) node(n *node) {
	w.line(n.name + " {")
	w.depth++
	w.items(n)
	w.depth--
	w.line("}")
}

func (w *writer) items(n *node) {
	for _, it := range n.items {
		tail := ""
		if it.line != nil {
			w.comments(it.line.Before)
			w.mark(it.line)
			tail = it.line.Comment
		}
		for _, note := range it.notes {
			w.comment(note)
		}
		switch {
		case it.sub != nil:
			w.node(it.sub)
			continue
		case it.key == "":
			if tail != "" {
				w.comment(tail)
			}
			continue
		}
		text := it.key + " = " + quote(it.value)
		if tail != "" {
			text += " " + tail
		}
		if it.off && !w.off {
			text = "# " + text
		}
		w.line(text)
	}
}

// plain is a section without comments and in no order, to compare sections by.
func (n *node) plain(skip string) string {
	var parts []string
	for _, it := range n.items {
		switch {
		case it.sub != nil && it.sub.name != skip:
			parts = append(parts, it.sub.name+" {\n"+it.sub.plain(skip)+"}\n")
		case it.sub == nil && it.key != "" && !it.off:
			parts = append(parts, it.key+" = "+it.value+"\n")
		}
	}
	slices.Sort(parts)
	return strings.Join(parts, "")
}

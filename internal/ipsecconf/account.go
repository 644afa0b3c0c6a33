package ipsecconf

import (
	"path/filepath"
	"slices"
	"strings"

	"adit/conf"
)

// state is what became of a line, from best to worst.
type state int

const (
	translated state = iota
	moot             // left out, and nothing is lost by it
	changed          // translated, and means something else, or must be finished by hand
	refused          // not translated
)

// account is what became of a line, over all connections that use it.
type account struct {
	State   state
	Reasons []string
	told    bool // the mark is in the output
	uses    int  // connections that were made of it
	lost    int  // those of them that could not be translated as a whole
	whole   string
	idle    int // those of them to which it says nothing
	idleWhy string
}

// mark makes a line's state worse, and keeps the reasons of the worst.
func (a *account) mark(s state, why string) {
	if s > a.State {
		a.State, a.Reasons = s, nil
	}
	if s == a.State && why != "" && !slices.Contains(a.Reasons, why) && len(a.Reasons) < limitReasons {
		a.Reasons = append(a.Reasons, why)
	}
}

// final is the state with what became of the connections that use the line: one that
// only connections use that are not translated is not, either. Then whole is true: the
// mark stands at the connection.
func (a *account) final() (s state, reasons []string, whole bool) {
	if a.uses > 0 && a.lost == a.uses && a.State != refused {
		return refused, []string{a.whole}, true
	}
	if a.State == translated && a.uses > 0 && a.idle == a.uses {
		return moot, []string{a.idleWhy}, false
	}
	return a.State, a.Reasons, false
}

// statement is the line as it stood.
func (l *Line) statement() string {
	switch l.Kind {
	case isSection:
		if l.Type == "setup" {
			return "config setup"
		}
		return l.Type + " " + l.Key
	case isInclude, isVersion:
		return l.Key + " " + l.Value
	}
	return l.Key + "=" + clip(l.Value)
}

// why joins the reasons.
func why(reasons []string) string { return strings.Join(reasons, "; ") }

// place is where a line stands, with the file's name alone: the reader knows the
// directory.
func place(pos conf.Pos) string {
	pos.File = filepath.Base(pos.File)
	return pos.String()
}

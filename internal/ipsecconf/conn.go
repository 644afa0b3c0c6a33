package ipsecconf

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
)

// conn is one connection while it is translated.
type conn struct {
	im            *importer
	sec           *section
	name          string // in swanctl.conf
	set           map[string]*Line
	used          map[*Line]bool
	placed        map[*Line]bool
	own           map[*Line]bool
	idle          map[*Line]bool
	local, remote string // left or right
	version       string
	lost          []string // why it cannot be translated as a whole

	top      *node
	children []*node
	loaded   bool // by the other daemon
	action   string
	mergedIn *conn
}

// line is the setting of a keyword, which is looked at with that.
func (c *conn) line(key string) *Line {
	l := c.set[key]
	if l != nil {
		c.used[l] = true
	}
	return l
}

// text is its value, or empty.
func (c *conn) text(key string) (string, *Line) {
	if l := c.line(key); l != nil {
		return l.Value, l
	}
	return "", nil
}

// word is its value in lower case.
func (c *conn) word(key string) (string, *Line) {
	s, l := c.text(key)
	return strings.ToLower(s), l
}

// put writes an option that comes of a line (nil: of a default) into a section of
// the connection. What adit refuses becomes a comment.
func (c *conn) put(at *node, path []string, key, value string, l *Line) bool {
	it := at.add(&item{key: key, value: value})
	c.place(it, l)
	why := c.im.probe.refusal(path, key, value)
	if why == "" {
		return true
	}
	it.off = true
	switch {
	case l != nil:
		l.mark(refused, why)
	default:
		it.notes = append(it.notes, "not written: "+why)
	}
	return false
}

// must is put for an option without which the connection would protect something
// else, or let in somebody else.
func (c *conn) must(at *node, path []string, key, value string, l *Line) {
	if !c.put(at, path, key, value, l) {
		what := key + " = " + clip(value)
		if l != nil {
			what = oneLine(l.statement())
		}
		c.fail(what + ": " + c.im.probe.refusal(path, key, value))
	}
}

// fail says that the connection as a whole cannot be translated.
func (c *conn) fail(why string) {
	if !slices.Contains(c.lost, why) && len(c.lost) < limitReasons {
		c.lost = append(c.lost, why)
	}
}

// bad marks a line that cannot be read; the connection is lost with it.
func (c *conn) bad(l *Line, why string) {
	l.mark(refused, why)
	c.fail(l.Key + ": " + why)
}

// place puts the comments and the mark of a line to an item, once.
func (c *conn) place(it *item, l *Line) {
	if l != nil && c.own[l] && !c.placed[l] {
		c.placed[l] = true
		it.line = l
	}
}

// drop marks a line that becomes nothing; its place is in the connection.
func (c *conn) drop(l *Line, s state, why string) {
	switch {
	case l == nil:
	case s != moot:
		l.mark(s, why)
	case !c.idle[l]: // another connection that inherits it may need it
		c.idle[l] = true
		l.idle++
		if l.idleWhy == "" {
			l.idleWhy = why
		}
	}
}

var (
	pathConn  []string
	pathChild = []string{"children", "c"}
)

// flag copies a boolean.
func (c *conn) flag(key string, at *node, path []string, option string) {
	v, l := c.text(key)
	if l == nil {
		return
	}
	b, err := yes(v)
	if err != nil {
		c.drop(l, refused, err.Error())
		return
	}
	c.put(at, path, option, yesNo(b), l)
}

// copied copies a value as it is.
func (c *conn) copied(key string, at *node, path []string, option string) {
	if v, l := c.text(key); l != nil {
		c.put(at, path, option, v, l)
	}
}

// translate makes a connection of a section.
func (im *importer) translate(sec *section, set map[string]*Line) *conn {
	c := &conn{im: im, sec: sec, set: set, used: map[*Line]bool{}, placed: map[*Line]bool{}, own: map[*Line]bool{}, idle: map[*Line]bool{}, top: &node{}}
	c.name = im.connName(sec)
	for _, l := range sec.settings {
		c.own[l] = true
	}
	for _, l := range sec.also {
		c.own[l] = true
	}
	c.orient()
	c.auto()
	if c.shunt() {
		c.rest()
		return c
	}
	c.ike()
	c.addresses()
	c.pools()
	c.liveness()
	c.lifetimes()
	c.certificates()
	c.authenticate()
	c.childs()
	c.rest()
	return c
}

// orient finds which side is local: the one that has an own address, otherwise left.
func (c *conn) orient() {
	c.local, c.remote = "left", "right"
	own := func(side string) bool {
		text := ""
		if l := c.set[side]; l != nil {
			text = l.Value
		}
		if c.im.dialect == Libreswan && (text == "%defaultroute" || strings.HasPrefix(text, "%") && !strings.HasPrefix(text, "%any") && !strings.HasPrefix(text, "%group") && !strings.HasPrefix(text, "%opp")) {
			return true
		}
		for _, part := range splitList(text) {
			a, err := netip.ParseAddr(part)
			if err == nil && slices.Contains(c.im.own, a.Unmap()) {
				return true
			}
			if slices.Contains(c.im.ownNames, part) {
				return true
			}
		}
		return false
	}
	if own("right") && !own("left") {
		c.local, c.remote = "right", "left"
	}
}

// auto reads when the connection is loaded and started.
func (c *conn) auto() {
	v, l := c.word("auto")
	switch v {
	case "ignore", "":
		return
	case "add":
	case "route", "ondemand":
		c.action = "trap"
	case "start", "up":
		c.action = "start"
	case "keep":
		c.drop(l, changed, "the connection is added; keep_up = yes in a child keeps it up from here")
	default:
		c.drop(l, refused, fmt.Sprintf("%q is none of add, route, start and ignore", clip(v)))
		return
	}
	c.loaded = true
}

// ike translates what belongs to the IKE SA alone.
func (c *conn) ike() {
	c.versions()
	c.ikeProposals()
	c.flag("aggressive", c.top, pathConn, "aggressive")
	if v, l := c.word("modeconfig"); l != nil {
		c.put(c.top, pathConn, "pull", yesNo(v != "push"), l)
	}
	c.flag("modecfgpull", c.top, pathConn, "pull")
	if v, l := c.word("mobike"); l != nil {
		if b, err := yes(v); err != nil {
			c.drop(l, refused, err.Error())
		} else {
			c.put(c.top, pathConn, "mobike", yesNo(b), l)
		}
	}
	if v, l := c.word("fragmentation"); l != nil {
		if v == "insist" {
			v = "force"
		}
		c.put(c.top, pathConn, "fragmentation", v, l)
	}
	c.flag("forceencaps", c.top, pathConn, "encap")
	c.copied("encapsulation", c.top, pathConn, "encap")
	c.copied("ikedscp", c.top, pathConn, "dscp")
	for _, m := range []struct{ key, option string }{{"mediation", "mediation"}, {"mediated_by", "mediated_by"}, {"me_peerid", "mediation_peer"}} {
		if v, l := c.text(m.key); l != nil {
			c.must(c.top, pathConn, m.option, v, l)
		}
	}
	if v, l := c.text("ppk-ids"); l != nil {
		if list := splitList(v); len(list) > 0 {
			c.put(c.top, pathConn, "ppk_id", list[0], l)
		}
	}
	if v, l := c.word("ppk"); l != nil {
		c.must(c.top, pathConn, "ppk_required", yesNo(v == "insist"), l)
	}
	if v, l := c.text("keyingtries"); l != nil {
		if v == "%forever" {
			v = "0"
		}
		c.put(c.top, pathConn, "keyingtries", v, l)
	} else {
		c.put(c.top, pathConn, "keyingtries", map[Dialect]string{StrongSwan: "3", Libreswan: "0"}[c.im.dialect], nil)
	}
	c.unique()
}

func (c *conn) versions() {
	v, l := c.word("keyexchange")
	old, oldLine := c.word("ikev2")
	version := ""
	switch v {
	case "ikev1":
		version = "1"
	case "ikev2":
		version = "2"
	case "", "ike":
		if l != nil && c.im.dialect == StrongSwan {
			version = "0"
		}
	default:
		c.bad(l, fmt.Sprintf("%q is none of ike, ikev1 and ikev2", clip(v)))
		return
	}
	switch old {
	case "":
	case "insist", "yes", "y", "propose":
		if version == "" {
			version = "2"
		}
	case "no", "n", "never", "permit":
		if version == "" {
			version = "1"
		}
	default:
		c.drop(oldLine, refused, fmt.Sprintf("%q is none of yes, no, insist, never and permit", clip(old)))
	}
	at := l
	if l == nil || v == "ike" && oldLine != nil {
		at = oldLine
	}
	if c.im.dialect == Libreswan && version == "" {
		version = "2"
	}
	if c.version = version; version != "" {
		c.must(c.top, pathConn, "version", version, at)
	}
}

// unique translates uniqueids of config setup, whose default is yes.
func (c *conn) unique() {
	value := "replace"
	if l := c.im.setup["uniqueids"]; l != nil {
		l.uses++
		switch v := strings.ToLower(l.Value); v {
		case "yes", "y", "replace", "true", "1", "on":
		case "no", "n", "false", "0", "off":
			value = "no"
		case "never", "keep":
			value = v
		default:
			l.mark(refused, fmt.Sprintf("%q is none of yes, no, never, replace and keep", clip(v)))
		}
	}
	c.put(c.top, pathConn, "unique", value, nil)
}

// rest goes through the settings that nothing has looked at, and gives a place to
// those that became no option.
func (c *conn) rest() {
	for _, key := range slices.Sorted(maps.Keys(c.set)) {
		l := c.set[key]
		l.uses++
		if c.used[l] {
			continue
		}
		k, ok := lookup("conn", l.Key)
		of := ok && (k.StrongSwan && c.im.dialect == StrongSwan || k.Libreswan && c.im.dialect == Libreswan)
		switch {
		case strings.HasPrefix(key, "x-") || strings.HasPrefix(key, "x_"):
			c.drop(l, moot, "settings that begin with x- are comments")
		case !ok:
			if l.State != refused {
				l.mark(refused, unknown("conn", l.Key))
			}
		case k.Fate == FateTranslated && !of:
			l.mark(refused, "only "+other(c.im.dialect)+" knows it")
		case k.Fate == FateTranslated:
			c.drop(l, moot, "it has no effect in this connection")
		case k.Fate == FateRefused && asksNothing(l.Value):
			c.drop(l, moot, "it asks for nothing")
		default:
			c.drop(l, fates[k.Fate], k.Note)
			if slices.Contains(needed, k.Name) {
				c.fail(oneLine(l.statement()) + ": " + k.Note)
			}
		}
	}
	for _, l := range append(slices.Clone(c.sec.settings), c.sec.also...) {
		if !c.placed[l] {
			c.place(c.top.add(&item{}), l)
		}
	}
	c.sort()
}

// needed are keywords without whose effect a connection would let in somebody else, or
// other packets through: whoever may come in is asked there, or a policy for all
// packets is narrowed by the routes into an interface.
var needed = []string{"pam-authorize", "vti-interface", "ipsec-interface", "cat"}

// asksNothing reports whether a value turns off what adit hasn't got.
func asksNothing(value string) bool {
	b, err := yes(value)
	return err == nil && !b || value == "none"
}

func other(d Dialect) string {
	if d == StrongSwan {
		return "Libreswan"
	}
	return "strongSwan"
}

// sort brings what stands in the connection itself into the order of the lines; what
// is inherited or a default comes first, sections last.
func (c *conn) sort() {
	at := map[*Line]int{}
	for i, l := range c.im.order(c.sec) {
		at[l] = i
	}
	// What belongs to no line of the section stays behind what it was written after.
	rank, last := map[*item]int{}, -1
	for _, it := range c.top.items {
		switch {
		case it.sub != nil:
			rank[it] = math.MaxInt
			continue
		case it.line != nil:
			last = at[it.line]
		}
		rank[it] = last
	}
	slices.SortStableFunc(c.top.items, func(a, b *item) int { return cmp.Compare(rank[a], rank[b]) })
}

package ipsecconf

import (
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"adit/conf"
)

// Options say what is imported and how.
type Options struct {
	Files    conf.Files   // where everything is read; nil: conf.OS
	Dialect  Dialect      // Auto: by the keywords
	Own      []netip.Addr // addresses of the host that the configuration is for
	OwnNames []string     // its names, as left or right may have them
	Secrets  string       // ipsec.secrets; empty: none
	Dir      string       // ipsec.d; empty: beside ipsec.conf
	All      bool         // load also the connections that the other daemon doesn't

	refuse func(key, value string) string // tests: what adit is said to refuse
}

// Count is how many lines became what. Comments and empty lines are not counted.
type Count struct{ Translated, LeftOut, Changed, Refused int }

// Total is the number of all lines.
func (c Count) Total() int { return c.Translated + c.LeftOut + c.Changed + c.Refused }

func (c *Count) add(s state) {
	switch s {
	case translated:
		c.Translated++
	case moot:
		c.LeftOut++
	case changed:
		c.Changed++
	case refused:
		c.Refused++
	}
}

// Remark is a line that was not simply translated.
type Remark struct {
	Pos  conf.Pos
	Line string // the statement, without secrets
	Word string // LEFT OUT, CHANGED or NOT TRANSLATED
	Text string
	Of   bool // it is told with its connection, which is not translated as a whole
}

// Result is what came out.
type Result struct {
	Dialect     Dialect
	Config      string // swanctl.conf, without secrets
	Secrets     string // the section secrets; empty if no file was read
	Files       map[string]string
	Copies      []Copy
	Count       Count
	SecretCount Count
	Remarks     []Remark
	Connections int // that are loaded
}

// Import reads an ipsec.conf, and ipsec.secrets, and translates them.
func Import(name string, o Options) (*Result, error) {
	if o.Files == nil {
		o.Files = conf.OS
	}
	f, err := Parse(o.Files, name, o.Dialect)
	if err != nil {
		return nil, err
	}
	d := o.Dialect
	if d == Auto {
		if d = detect(f); d == Libreswan { // whose strings in quotes have no escapes
			if f, err = Parse(o.Files, name, d); err != nil {
				return nil, err
			}
		}
	}
	im := &importer{Options: o, dialect: d, file: f, own: o.Own, ownNames: o.OwnNames, dir: o.Dir, setup: map[string]*Line{},
		names: map[string]bool{}, files: map[string]string{}, byPool: map[string]string{}, byPeer: map[string]*conn{}}
	if im.dir == "" {
		im.dir = filepath.Join(filepath.Dir(name), "ipsec.d")
	}
	im.copies.importer, im.probe.stub = im, o.refuse
	im.sections = collect(f)
	if err := im.convert(); err != nil {
		return nil, err
	}
	out := &Result{Dialect: d, Files: im.files, Config: im.render(), Connections: im.loaded}
	if o.Secrets != "" {
		s, err := parseSecrets(o.Files, o.Secrets)
		if err != nil {
			return nil, err
		}
		out.Secrets = im.secrets(s)
		out.Remarks = s.remarks(&out.SecretCount)
	}
	out.Copies = im.copies.all()
	out.Remarks = append(im.remarks(&out.Count), out.Remarks...)
	return out, nil
}

type importer struct {
	Options
	dialect  Dialect
	file     *File
	sections *sections
	own      []netip.Addr
	ownNames []string
	dir      string
	setup    map[string]*Line // settings of config setup
	names    map[string]bool  // of connections
	probe    probe
	copies   copies
	files    map[string]string // to be written beside, by name
	conns    map[*section]*conn
	byPeer   map[string]*conn // the first connection with an IKE part
	pools    []*node
	byPool   map[string]string // name of a pool, by what is in it
	loaded   int
	children int
}

// convert translates all connections, before anything is written: what becomes of a
// line of a template is known only then.
func (im *importer) convert() error {
	if s := im.sections.index["setup setup"]; s != nil {
		for _, l := range s.settings {
			if before := im.setup[canonical(l.Key)]; before != nil {
				before.mark(moot, "a later line of the section replaces it")
			}
			im.setup[canonical(l.Key)] = l
		}
		for key, l := range im.setup {
			im.setupLine(key, l)
		}
	}
	im.conns = map[*section]*conn{}
	for _, s := range im.sections.list {
		if s.typ != "conn" || s.name == "%default" {
			continue
		}
		set, err := im.sections.resolve(s, im.dialect)
		if err != nil {
			return err
		}
		if auto := set["auto"]; s.referred && (auto == nil || auto.Value == "ignore") {
			continue // a template
		}
		c := im.translate(s, set)
		im.conns[s] = c
		im.finish(c)
	}
	return nil
}

// finish counts the lines that a connection is made of, and joins it to another with
// the same IKE part.
func (im *importer) finish(c *conn) {
	lines := append(slices.Collect(maps.Values(c.set)), c.sec.heads...)
	lines = append(lines, c.sec.also...)
	for _, l := range append(slices.Clone(c.sec.heads), c.sec.also...) {
		l.uses++
	}
	if len(c.lost) > 0 {
		c.sec.head.mark(refused, why(c.lost))
		c.sec.head.told = true // by the renderer
		for _, l := range lines {
			l.lost++
			l.whole = "conn " + c.sec.name + " is not translated"
		}
		return
	}
	if !c.loaded && !im.All {
		return
	}
	im.loaded++
	if c.isShunt() {
		return
	}
	key := c.top.plain("children")
	if first := im.byPeer[key]; first != nil {
		c.mergedIn = first
		for _, child := range c.children {
			notes := []string{fmt.Sprintf("conn %s: like conn %s but for its child", c.sec.name, first.sec.name)}
			first.children = append(first.children, &node{name: child.name, items: append([]*item{{notes: notes}}, child.items...)})
		}
		return
	}
	im.byPeer[key] = c
}

// connName is the name of a connection in swanctl.conf.
func (im *importer) connName(s *section) string {
	name := cleanName(s.name)
	if name != s.name {
		s.head.mark(changed, "its name is "+name+" here: swanctl.conf has no other characters")
	}
	for n := 2; im.names[name]; n++ {
		name = fmt.Sprintf("%s-%d", cleanName(s.name), n)
	}
	im.names[name] = true
	return name
}

// cleanName makes a name that swanctl.conf can have, and a file.
func cleanName(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r <= ' ' || r == 0x7f || strings.ContainsRune(`#{}:.,="/\`, r):
			return '_'
		}
		return r
	}, s)
	if s == "" || s == "include" {
		return "_" + s
	}
	if len(s) > limitName {
		s = strings.ToValidUTF8(s[:limitName], "")
	}
	return s
}

// order are the lines of a section in the order in which they stand.
func (im *importer) order(s *section) []*Line {
	list := append(slices.Clone(s.settings), s.also...)
	slices.SortFunc(list, func(a, b *Line) int {
		if a.Pos.File != b.Pos.File {
			return strings.Compare(a.Pos.File, b.Pos.File)
		}
		return a.Pos.Line - b.Pos.Line
	})
	return list
}

// setupLine finds out what becomes of a setting of config setup.
func (im *importer) setupLine(key string, l *Line) {
	k, ok := lookup("setup", l.Key)
	switch {
	case !ok:
		l.mark(refused, unknown("setup", l.Key))
	case k.Fate == FateTranslated && (k.StrongSwan && im.dialect == StrongSwan || k.Libreswan && im.dialect == Libreswan):
		if key == "strictcrlpolicy" || key == "crl-strict" || key == "ocsp-strict" {
			if _, err := yes(l.Value); err != nil && l.Value != "ifuri" {
				l.mark(refused, err.Error())
			}
		}
	case k.Fate == FateTranslated:
		l.mark(refused, "only "+other(im.dialect)+" knows it")
	case l.Value == "" || k.Fate == FateRefused && asksNothing(l.Value):
		l.mark(moot, "it asks for nothing")
	default:
		l.mark(fates[k.Fate], k.Note)
	}
}

// unknown says that there is no such keyword.
func unknown(typ, key string) string {
	text := "unknown keyword"
	if near := conf.Nearest(key, knownKeys[typ]); near != "" {
		text += "; did you mean " + near + "?"
	}
	return text
}

// revocation is how strict the check of CRLs is, from config setup.
func (im *importer) revocation() (string, bool) {
	for _, key := range []string{"strictcrlpolicy", "crl-strict", "ocsp-strict"} {
		l := im.setup[key]
		if l == nil {
			continue
		}
		if l.Value == "ifuri" {
			return "ifuri", true
		}
		if b, err := yes(l.Value); err == nil && b {
			return "strict", true
		}
	}
	return "", false
}

// attribute is an option of a pool.
type attribute struct{ key, value string }

// pool makes a pool of these options, or finds the one that has them.
func (im *importer) pool(c *conn, i int, attrs []attribute, l *Line) string {
	if why := poolRefusal(attrs[0]); why != "" {
		l.mark(refused, why)
		return ""
	}
	id := fmt.Sprint(attrs)
	if name, ok := im.byPool[id]; ok {
		return name
	}
	name := c.name
	if i > 0 {
		name = fmt.Sprintf("%s-%d", c.name, i+1)
	}
	n := &node{name: name}
	for _, a := range attrs {
		it := n.add(&item{key: a.key, value: a.value})
		if why := poolRefusal(a); why != "" {
			l.mark(refused, why)
			it.off = true
		}
		if a.key == "addrs" {
			it.notes = []string{l.Pos.String() + ": " + l.statement()}
		}
	}
	im.pools = append(im.pools, n)
	im.byPool[id] = name
	return name
}

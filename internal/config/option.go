package config

import (
	"slices"
	"strings"

	"adit/conf"
)

// State is what adit makes of an option.
type State uint8

// The states.
const (
	Built    State = iota // does what it does in strongSwan, or what its note says
	Own                   // adit's own: strongSwan has no such option
	Accepted              // read and checked; there is nothing that it could change here
	Idle                  // has no effect, and a warning says so
	Refused               // an error, except for values that ask for nothing
)

func (s State) String() string {
	return [...]string{"built", "adit’s own", "accepted", "no effect", "refused"}[s]
}

// option is one key of a section. set checks a value and stores it into T. An option
// with neither set nor a state is one that adit has not built: it is refused. Values
// in off ask for what adit does anyhow: they are taken without a word.
type option[T any] struct {
	name  string // ending in *: whatever begins like that
	set   func(d *decoder, t *T, v conf.Value) error
	state State
	off   []string
	def   string // what counts if the option is not there
	note  string // one line for people: what it does, or why it does nothing
}

// standing is the option's state.
func (o *option[T]) standing() State {
	if o.state == Built && o.set == nil {
		return Refused
	}
	return o.state
}

// reason is why an option is refused or has no effect.
func (o *option[T]) reason() string {
	if o.note == "" {
		return "adit does not support it yet"
	}
	return strings.ReplaceAll(o.note, "’", "'") // a terminal is no page
}

// isOff reports whether the value asks only for what adit does anyhow. A word of
// the list that is a boolean stands for all spellings of it.
func (o *option[T]) isOff(v conf.Value) bool {
	if v.IsList {
		return false
	}
	yes, err := v.Bool()
	return slices.Contains(o.off, strings.ToLower(v.Text)) ||
		err == nil && slices.Contains(o.off, map[bool]string{true: "yes", false: "no"}[yes])
}

// lookup finds an option by its name, or by what its name begins with; nil: there is none.
func lookup[T any](table []option[T], name string) *option[T] {
	for i := range table {
		if table[i].name == name {
			return &table[i]
		}
	}
	for i := range table {
		if prefix, ok := strings.CutSuffix(table[i].name, "*"); ok && strings.HasPrefix(name, prefix) {
			return &table[i]
		}
	}
	return nil
}

// checked is for options that are read and checked, and change nothing.
func checked[T, V any](parse func(conf.Value) (V, error)) func(*decoder, *T, conf.Value) error {
	return func(_ *decoder, _ *T, v conf.Value) error {
		_, err := parse(v)
		return err
	}
}

// Table lists the options of one section for documents.
type Table struct {
	Section string // its path in the file, with <name> and * where names are free
	Rows    []Row
}

// Row is one option of a Table.
type Row struct {
	Name    string
	State   State
	Default string
	Note    string
	// Takes are values of a Refused or Idle option that are accepted silently.
	Takes []string
}

func rows[T any](section string, table []option[T]) Table {
	out := Table{Section: section}
	for i := range table {
		o := &table[i]
		note := o.note
		if o.standing() == Refused {
			note = o.reason()
		}
		out.Rows = append(out.Rows, Row{Name: o.name, State: o.standing(), Default: o.def, Note: note, Takes: o.off})
	}
	return out
}

// Tables lists every option that the program knows of, as it decodes them.
func Tables() []Table {
	return []Table{
		rows("connections.<name>", peerOptions),
		rows("connections.<name>.local*, remote*", authOptions),
		rows("connections.<name>.local*.cert*, remote*.cert*, remote*.cacert*", certOptions),
		rows("connections.<name>.children.<name>", childOptions),
		rows("secrets", secretSections),
		rows("secrets.ike*, eap*, xauth*, ntlm*", sharedOptions),
		rows("secrets.private*, rsa*, ecdsa*, pkcs8*, pkcs12*", phraseOptions),
		rows("pools.<name>", poolOptions),
		rows("authorities.<name>", authorityOptions),
		rows("charon", daemonOptions),
		rows("charon.filelog.<name>, syslog.<facility>, journal", logOptions),
		rows("adit.acme.<name>", acmeOptions),
		rows("charon.plugins", pluginOptions),
		both(rows("charon.plugins.eap-radius, eap-radius.servers.<name>", radiusOptions), rows("", accountingOptions)),
	}
}

// both is a table with the rows of another one behind its own.
func both(a, b Table) Table {
	a.Rows = append(a.Rows, b.Rows...)
	return a
}

package config

import (
	"errors"
	"slices"
	"strings"

	"adit/conf"
)

// limitErrors and limitWarnings bound how many of one configuration are collected.
const (
	limitErrors   = 50
	limitWarnings = 1000
)

// decoder collects errors and warnings while one tree is decoded.
type decoder struct {
	daemon   Daemon
	files    conf.Files // opens certificates and keys; nil: conf.OS
	dir      string     // of swanctl.conf, where relative names begin; empty: there is none
	phrases  []passphrase
	places   map[string]conf.Pos // of connections and their rounds, by path
	blobs    bool                // certs, cacerts and pubkeys are the bytes themselves, as in VICI
	errs     []error
	warnings []Warning
}

func (d *decoder) fail(err error) {
	if err != nil && len(d.errs) < limitErrors {
		d.errs = append(d.errs, err)
	}
}

func (d *decoder) failf(pos conf.Pos, format string, args ...any) {
	d.fail(conf.Errorf(pos, format, args...))
}

func (d *decoder) warn(pos conf.Pos, text string) {
	if len(d.warnings) < limitWarnings {
		d.warnings = append(d.warnings, Warning{Pos: pos, Text: text})
	}
}

// place notes where a section stands, for warnings about the whole.
func (d *decoder) place(s *conf.Section) {
	if d.places == nil {
		d.places = map[string]conf.Pos{}
	}
	d.places[s.Path()] = s.Pos
}

func (d *decoder) err() error { return errors.Join(d.errs...) }

// option is one key of a section. Set stores it into T. An option without Set is
// one that adit has not built: it is refused, except for the values in Off, which
// ask for nothing.
type option[T any] struct {
	name string
	set  func(d *decoder, t *T, v conf.Value) error
	off  []string
	why  string // for refused options: what to know beyond "not yet"
}

// values decodes all values of a section by its table.
func values[T any](d *decoder, s *conf.Section, t *T, table []option[T]) {
	for v := range s.Values() {
		i := slices.IndexFunc(table, func(o option[T]) bool { return o.name == v.Key })
		switch {
		case i < 0:
			d.failf(v.Pos, "%s: unknown option%s", v.Path(), didYouMean(v.Key, names(table)))
		case table[i].set != nil:
			d.fail(table[i].set(d, t, v))
		case !table[i].isOff(v):
			why := table[i].why
			if why == "" {
				why = "adit does not support it yet"
			}
			d.fail(v.Errorf("%s", why))
		}
	}
}

// isOff reports whether the value asks only for what adit does anyhow. A word of
// the list that is a boolean stands for all spellings of it.
func (o option[T]) isOff(v conf.Value) bool {
	if v.IsList {
		return false
	}
	yes, err := v.Bool()
	return slices.Contains(o.off, strings.ToLower(v.Text)) ||
		err == nil && slices.Contains(o.off, map[bool]string{true: "yes", false: "no"}[yes])
}

func names[T any](table []option[T]) []string {
	out := make([]string, len(table))
	for i, o := range table {
		out[i] = o.name
	}
	return out
}

func didYouMean(word string, known []string) string {
	if near := conf.Nearest(word, known); near != "" {
		return "; did you mean " + near + "?"
	}
	return ""
}

// sections decodes the sub-sections that f knows; f returns false for names that it does not.
func sections(d *decoder, s *conf.Section, known []string, f func(*conf.Section) bool) {
	for sub := range s.Sections() {
		if !f(sub) && !sub.Referenced {
			d.failf(sub.Pos, "%s: unknown section%s", sub.Path(), didYouMean(sub.Name, known))
		}
	}
}

package config

import (
	"errors"
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

// values decodes all values of a section by its table.
func values[T any](d *decoder, s *conf.Section, t *T, table []option[T]) {
	for v := range s.Values() {
		o := lookup(table, v.Key)
		if o == nil {
			d.failf(v.Pos, "%s: unknown option%s", v.Path(), didYouMean(v.Key, names(table)))
			continue
		}
		apply(d, t, o, v)
	}
}

// apply does with one value what its option says.
func apply[T any](d *decoder, t *T, o *option[T], v conf.Value) {
	if o.set != nil {
		if err := o.set(d, t, v); err != nil {
			d.fail(err)
			return
		}
	}
	switch {
	case o.isOff(v):
	case o.standing() == Refused:
		d.fail(v.Errorf("%s", o.reason()))
	case o.standing() == Idle:
		d.warn(v.Pos, v.Path()+" has no effect: "+o.reason())
	}
}

func names[T any](table []option[T]) []string {
	out := make([]string, len(table))
	for i, o := range table {
		out[i] = strings.TrimSuffix(o.name, "*")
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

package config

import (
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"time"

	"adit/conf"
	"adit/ike"
	"adit/internal/users"
)

// Load reads a swanctl.conf with all that it includes, and the certificates and
// keys in the directories beside it, as `swanctl --load-all` does. All errors that it finds
// are in the error, each with file and line. Files with secrets that others may
// read give a warning.
func Load(path string, daemon Daemon) (*Model, error) {
	_, _, m, err := load(path, daemon)
	return m, err
}

// load is Load for those who need the tree and what decoded it, too.
func load(path string, daemon Daemon) (*conf.Section, *decoder, *Model, error) {
	files := &recorder{Files: conf.OS}
	var warnings []Warning
	p := conf.Parser{Files: files, Warn: func(pos conf.Pos, msg string) { warnings = append(warnings, Warning{pos, msg}) }}
	root, err := p.Parse(path)
	if err != nil {
		return nil, nil, nil, err
	}
	d := &decoder{daemon: daemon, files: files, dir: filepath.Dir(path)}
	m, err := d.decode(root)
	if err != nil {
		return nil, nil, nil, err
	}
	m.Warnings = append(warnings, m.Warnings...)
	holders := map[string]bool{}
	for _, s := range m.Secrets {
		holders[s.Pos.File] = true
	}
	for _, p := range d.phrases {
		holders[p.pos.File] = true
	}
	if len(m.Users) > 0 {
		if w, open := readable(filepath.Join(d.dir, users.File)); open {
			m.Warnings = append(m.Warnings, w)
		}
	}
	for _, name := range files.opened {
		if slices.Contains(keyDirs, filepath.Base(filepath.Dir(name))) && filepath.Dir(filepath.Dir(name)) == filepath.Dir(path) {
			holders[name] = true
		}
	}
	for _, name := range files.opened {
		if w, open := readable(name); open && holders[name] {
			m.Warnings = append(m.Warnings, w)
		}
	}
	return root, d, m, nil
}

// readable reports whether others may read a file with secrets, with the warning to give.
func readable(name string) (Warning, bool) {
	fi, err := os.Stat(name)
	if err != nil || fi.Mode().Perm()&0o077 == 0 {
		return Warning{}, false
	}
	return Warning{Pos: conf.Pos{File: name, Line: 1}, Text: "this file has secrets and others may read it (mode " + fi.Mode().Perm().String() + "): chmod 600 it"}, true
}

// recorder notes which files were read.
type recorder struct {
	conf.Files
	opened []string
}

func (r *recorder) Open(name string) (io.ReadCloser, error) {
	f, err := r.Files.Open(name)
	if err == nil {
		r.opened = append(r.opened, name)
	}
	return f, err
}

// Decode decodes a whole tree that belongs to no directory: files in it have
// absolute names, and no directories of credentials are read.
func Decode(root *conf.Section, daemon Daemon) (*Model, error) {
	d := &decoder{daemon: daemon}
	return d.decode(root)
}

func (d *decoder) decode(root *conf.Section) (*Model, error) {
	m := &Model{}
	top := []string{"connections", "secrets", "pools", "authorities"}
	for v := range root.Values() {
		d.failf(v.Pos, "%s: unknown option%s", v.Path(), didYouMean(v.Key, top))
	}
	sections(d, root, top, func(s *conf.Section) bool {
		switch s.Name {
		case "connections":
			for c := range d.only(s, "connection") {
				m.Peers = append(m.Peers, d.decodePeer(c.Name, c))
			}
		case "secrets":
			d.only(s, "secret")
			sections(d, s, names(secretSections), func(sub *conf.Section) bool { return d.decodeSecret(m, sub) })
		case "pools":
			for sub := range d.only(s, "pool") {
				m.Pools = append(m.Pools, d.decodePool(sub))
			}
			d.overlaps(m.Pools)
		case "authorities":
			for sub := range d.only(s, "authority") {
				m.Authorities = append(m.Authorities, d.decodeAuthority(sub))
			}
		default:
			return false
		}
		return true
	})
	if d.dir != "" {
		d.users(m)
		d.credentials(m)
		d.advise(m, time.Now())
	}
	m.Warnings = d.warnings
	if err := d.err(); err != nil {
		return nil, err
	}
	return m, nil
}

// DecodeBeside is Decode for a tree that belongs into a directory: files in it may have
// names that are relative, and the directories of credentials are read as Load does.
func DecodeBeside(root *conf.Section, dir string, daemon Daemon) (*Model, error) {
	d := &decoder{daemon: daemon, files: conf.OS, dir: dir}
	return d.decode(root)
}

// only yields the sections of a section that holds nothing else.
func (d *decoder) only(s *conf.Section, what string) iter.Seq[*conf.Section] {
	for v := range s.Values() {
		d.fail(v.Errorf("a %s is a section: write %s { … }", what, v.Key))
	}
	return s.Sections()
}

// DecodeConn decodes the body of VICI's load-conn.
func DecodeConn(name string, body *conf.Section, daemon Daemon) (*ike.Peer, error) {
	d := &decoder{daemon: daemon, blobs: true}
	p := d.decodePeer(name, body)
	if err := d.err(); err != nil {
		return nil, err
	}
	return p, nil
}

package config

import (
	"strings"

	"adit/conf"
)

// Places says where in a configuration file options are written, as it is now.
type Places struct{ root *conf.Section }

// LocateIn reads a file and what it includes, for Find.
func LocateIn(file string) (*Places, error) {
	root, err := conf.ParseFile(file)
	if err != nil {
		return nil, err
	}
	return &Places{root}, nil
}

// Find is where the option of a path stands; not given: where the innermost section
// of the path begins that there is. An invalid position: not even its connection,
// secret, pool or authority is in the file. Names may have dots in them.
func (p *Places) Find(path string) (pos conf.Pos, given bool) {
	section, rest := p.root, path
	depth := 0
	for rest != "" {
		if v, ok := section.Get(rest); ok {
			return v.Pos, true
		}
		sub, left := longest(section, rest)
		if sub == nil {
			break
		}
		section, rest = sub, left
		depth++
		pos = section.Pos
	}
	if depth < 2 && (rest != "" || depth == 0) {
		return conf.Pos{}, false
	}
	return pos, rest == ""
}

// longest is the section whose name is the longest head of a path.
func longest(s *conf.Section, path string) (best *conf.Section, rest string) {
	for sub := range s.Sections() {
		left, ok := strings.CutPrefix(path, sub.Name)
		if !ok || left != "" && left[0] != '.' || best != nil && len(sub.Name) <= len(best.Name) {
			continue
		}
		best, rest = sub, strings.TrimPrefix(left, ".")
	}
	return best, rest
}

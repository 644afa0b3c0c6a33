package conf

import (
	"slices"
	"strings"
)

// ref is "other.section" after a section's colon.
type ref struct {
	path string
	pos  Pos
}

// resolver turns the tree as written into the tree as meant. What strongSwan evaluates at each
// look-up is unrolled once. A section seen through its references is a list of layers: itself,
// then what it inherits from, nearest first; the layers of a sub-section are the sub-sections
// of that name of all layers, each followed by the layers of its own references.
type resolver struct {
	root   *Section
	views  map[string][]*Section // layers by absolute path
	active []string              // paths being evaluated, to find loops
	work   int
}

func resolve(root *Section) (*Section, error) {
	r := &resolver{root: root, views: map[string][]*Section{}}
	if err := r.check(root, ""); err != nil {
		return nil, err
	}
	dst := New("")
	if err := r.fill(dst, []*Section{root}, 0); err != nil {
		return nil, err
	}
	return dst, nil
}

// check evaluates every reference once, used or not, so that mistakes show and Referenced is
// set before anything is copied.
func (r *resolver) check(s *Section, path string) error {
	for _, f := range s.refs {
		if path == f.path || strings.HasPrefix(path, f.path+".") {
			return fail(ErrReference, f.pos, "section %s refers to %s, which contains it", path, f.path)
		}
		if _, err := r.view(f); err != nil {
			return err
		}
	}
	for sub := range s.Sections() {
		name := sub.Name
		if path != "" {
			name = path + "." + name
		}
		if err := r.check(sub, name); err != nil {
			return err
		}
	}
	return nil
}

// view returns the layers of the section that f names.
func (r *resolver) view(f ref) ([]*Section, error) {
	if layers, ok := r.views[f.path]; ok {
		return layers, nil
	}
	if i := slices.Index(r.active, f.path); i >= 0 {
		loop := append(slices.Clone(r.active[i:]), f.path)
		return nil, fail(ErrReference, f.pos, "references in a loop: %s", strings.Join(loop, ", then "))
	}
	if len(r.active) >= MaxReferenceDepth {
		return nil, fail(ErrLimit, f.pos, "chain of more than %d references", MaxReferenceDepth)
	}
	r.active = append(r.active, f.path)
	layers := []*Section{r.root}
	for name := range strings.SplitSeq(f.path, ".") {
		next, err := r.below(layers, name)
		if err != nil {
			return nil, err
		}
		if len(next) == 0 {
			return nil, r.unknown(f, name, layers)
		}
		layers = next
		for _, l := range layers {
			l.Referenced = true
		}
	}
	r.active = r.active[:len(r.active)-1]
	r.views[f.path] = layers
	return layers, nil
}

func (r *resolver) unknown(f ref, name string, layers []*Section) error {
	var known []string
	for _, l := range layers {
		for sub := range l.Sections() {
			known = append(known, sub.Name)
		}
	}
	msg := "there is no section " + f.path + " to inherit from"
	if near := Nearest(name, known); near != "" {
		msg += ": did you mean " + near + "?"
	}
	return fail(ErrReference, f.pos, "%s", msg)
}

// below returns the layers of the sub-section of that name.
func (r *resolver) below(layers []*Section, name string) ([]*Section, error) {
	var out []*Section
	for _, l := range layers {
		sub := l.Sub(name)
		if sub == nil || slices.Contains(out, sub) {
			continue
		}
		out = append(out, sub)
		for _, f := range sub.refs {
			inherited, err := r.view(f)
			if err != nil {
				return nil, err
			}
			if r.work += len(inherited); r.work > MaxNodes {
				return nil, fail(ErrLimit, f.pos, "more than %d sections and values through references", MaxNodes)
			}
			for _, in := range inherited {
				if !slices.Contains(out, in) {
					out = append(out, in)
				}
			}
		}
		if len(out) > MaxInherited {
			return nil, fail(ErrLimit, sub.Pos, "section %s inherits from more than %d sections", name, MaxInherited)
		}
	}
	return out, nil
}

// fill copies into dst what the layers hold, the first to know a name winning.
func (r *resolver) fill(dst *Section, layers []*Section, depth int) error {
	if depth > MaxDepth {
		return fail(ErrLimit, dst.Pos, "sections nest more than %d deep through references: is a section's parent among them?", MaxDepth)
	}
	var unset map[string]bool
	for _, l := range layers {
		for _, e := range l.entries {
			if r.work++; r.work > MaxNodes {
				return fail(ErrLimit, l.Pos, "more than %d sections and values through references", MaxNodes)
			}
			if e.Section == nil {
				v := e.Value
				switch _, ok := dst.Get(v.Key); {
				case ok || unset[v.Key]:
				case v.unset:
					if unset == nil {
						unset = map[string]bool{}
					}
					unset[v.Key] = true
				default:
					dst.SetValue(v)
				}
				continue
			}
			if dst.Sub(e.Section.Name) != nil {
				continue
			}
			below, err := r.below(layers, e.Section.Name)
			if err != nil {
				return err
			}
			sub := dst.Add(e.Section.Name)
			sub.Pos, sub.Referenced = e.Section.Pos, e.Section.Referenced
			if err := r.fill(sub, below, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

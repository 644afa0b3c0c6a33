package conf

import (
	"fmt"
	"iter"
	"slices"
	"strings"
)

// Section is a node of the tree: a name, and in order values, lists and sections. Values and
// lists share one name space, sections have another, as in strongSwan. A nil *Section reads
// like an empty one, so that lookups can be chained. It is not safe for concurrent writing.
type Section struct {
	Name string // "" for the root
	Pos  Pos    // of the name, where the section is first opened
	// Referenced is set if another section inherits from this one or from one inside it. A
	// section that is unknown and not referenced either is most likely misspelt.
	Referenced bool

	parent  *Section
	entries []Entry
	values  map[string]int // index into entries, once there are enough to be worth it
	subs    map[string]int
	refs    []ref      // while parsing
	spare   []*Section // emptied sections, to be used again
}

// Entry is one thing in a section: a sub-section if Section is not nil, otherwise a value.
type Entry struct {
	Value   Value
	Section *Section
}

// Value is one key with its value or list. Text and items are arbitrary bytes.
type Value struct {
	Key    string
	Pos    Pos      // of the key
	Text   string   // the value, if IsList is false
	List   []string // the items, if IsList is true
	IsList bool     // a list of a VICI message; files hold comma-separated text instead

	unset bool // written as "key ="
	owner *Section
}

// indexFrom is the number of entries from which on a section is looked up by map. Below
// it, making the maps costs more than comparing short names: a gateway makes a section
// of 30 for every SA that it lists.
const indexFrom = 48

// New returns an empty section that belongs to no file.
func New(name string) *Section { return &Section{Name: name} }

// Grow makes room for n further entries.
func (s *Section) Grow(n int) { s.entries = slices.Grow(s.entries, n) }

// Empty removes everything from the section, and keeps the memory for what is put in
// next: who makes thousands of alike trees, one after the other, makes them in one. The
// sub-sections that it had must not be used any more.
func (s *Section) Empty() {
	for i := range s.entries {
		if sub := s.entries[i].Section; sub != nil && sub.parent == s {
			sub.Empty()
			s.spare = append(s.spare, sub)
		}
	}
	clear(s.entries)
	s.entries, s.values, s.subs, s.refs = s.entries[:0], nil, nil, nil
}

// Path returns the names from the root to s joined by dots, as errors quote it.
func (s *Section) Path() string {
	var names []string
	for ; s != nil; s = s.parent {
		if s.Name != "" {
			names = append(names, s.Name)
		}
	}
	for i, j := 0, len(names)-1; i < j; i, j = i+1, j-1 {
		names[i], names[j] = names[j], names[i]
	}
	return strings.Join(names, ".")
}

// Len returns the number of values and sub-sections.
func (s *Section) Len() int {
	if s == nil {
		return 0
	}
	return len(s.entries)
}

// All yields values and sub-sections in order.
func (s *Section) All() iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		if s == nil {
			return
		}
		for _, e := range s.entries {
			if !yield(e) {
				return
			}
		}
	}
}

// Values yields the values and lists in order.
func (s *Section) Values() iter.Seq[Value] {
	return func(yield func(Value) bool) {
		for e := range s.All() {
			if e.Section == nil && !yield(e.Value) {
				return
			}
		}
	}
}

// Sections yields the sub-sections in order.
func (s *Section) Sections() iter.Seq[*Section] {
	return func(yield func(*Section) bool) {
		for e := range s.All() {
			if e.Section != nil && !yield(e.Section) {
				return
			}
		}
	}
}

// Get returns the value or list of a key.
func (s *Section) Get(key string) (Value, bool) {
	if i := s.find(key, false); i >= 0 {
		return s.entries[i].Value, true
	}
	return Value{}, false
}

// Text returns the text of a key, or "" if there is none or it is a list.
func (s *Section) Text(key string) string {
	v, _ := s.Get(key)
	return v.Text
}

// Sub returns a sub-section, or nil.
func (s *Section) Sub(name string) *Section {
	if i := s.find(name, true); i >= 0 {
		return s.entries[i].Section
	}
	return nil
}

// Set gives a key a text; a key that exists keeps its place.
func (s *Section) Set(key, text string) {
	s.SetValue(Value{Key: key, Text: text})
}

// Setf is Set with a format.
func (s *Section) Setf(key, format string, args ...any) {
	s.Set(key, fmt.Sprintf(format, args...))
}

// SetList makes a key a list of these items; a key that exists keeps its place.
func (s *Section) SetList(key string, items ...string) {
	s.SetValue(Value{Key: key, List: items, IsList: true})
}

// SetValue stores v under v.Key; a key that exists keeps its place.
func (s *Section) SetValue(v Value) {
	v.owner = s
	if i := s.find(v.Key, false); i >= 0 {
		s.entries[i].Value = v
		return
	}
	s.append(Entry{Value: v})
}

// Add returns the sub-section of that name and makes it if there is none.
func (s *Section) Add(name string) *Section {
	if sub := s.Sub(name); sub != nil {
		return sub
	}
	sub := New(name)
	if n := len(s.spare); n > 0 {
		sub, s.spare = s.spare[n-1], s.spare[:n-1]
		sub.Name, sub.Pos, sub.Referenced = name, Pos{}, false
	}
	s.Attach(sub)
	return sub
}

// Attach makes sub, with everything in it, a sub-section of s. One of the same name is replaced
// and its place taken.
func (s *Section) Attach(sub *Section) {
	sub.parent = s
	if i := s.find(sub.Name, true); i >= 0 {
		s.entries[i].Section = sub
		return
	}
	s.append(Entry{Section: sub})
}

// String tells the section's name and size, never a value: trees hold secrets. See [Section.Format].
func (s *Section) String() string {
	if s == nil {
		return "no section"
	}
	return fmt.Sprintf("section %q of %d entries", s.Path(), len(s.entries))
}

func (s *Section) append(e Entry) {
	s.entries = append(s.entries, e)
	switch {
	case s.values != nil:
		s.index(len(s.entries) - 1)
	case len(s.entries) >= indexFrom:
		s.values, s.subs = map[string]int{}, map[string]int{}
		for i := range s.entries {
			s.index(i)
		}
	}
}

func (s *Section) index(i int) {
	if e := &s.entries[i]; e.Section != nil {
		s.subs[e.Section.Name] = i
	} else {
		s.values[e.Value.Key] = i
	}
}

// find returns the index of the entry of that name, or -1.
func (s *Section) find(name string, sub bool) int {
	if s == nil {
		return -1
	}
	if s.values != nil {
		m := s.values
		if sub {
			m = s.subs
		}
		if i, ok := m[name]; ok {
			return i
		}
		return -1
	}
	for i := range s.entries {
		e := &s.entries[i]
		if sub && e.Section != nil && e.Section.Name == name || !sub && e.Section == nil && e.Value.Key == name {
			return i
		}
	}
	return -1
}

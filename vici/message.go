package vici

import (
	"encoding/binary"
	"fmt"
	"strings"

	"adit/conf"
)

// Element types of a message.
const (
	sectionStart = 1
	sectionEnd   = 2
	keyValue     = 3
	listStart    = 4
	listItem     = 5
	listEnd      = 6
)

// Marshal encodes a tree as a message; nil is an empty one. The section's own name is not part
// of it. It fails with [ErrTooLong] beyond the protocol's limits and with [ErrMalformed] for
// names that it cannot carry.
func Marshal(s *conf.Section) ([]byte, error) {
	var b []byte
	if s.Len() > 0 {
		b = make([]byte, 0, 1<<10)
	}
	return appendSection(b, s, 0)
}

func appendSection(b []byte, s *conf.Section, depth int) ([]byte, error) {
	if depth > MaxDepth {
		return nil, fmt.Errorf("%w: sections nest more than %d deep", ErrTooLong, MaxDepth)
	}
	for e := range s.All() {
		var err error
		switch v := e.Value; {
		case e.Section != nil:
			if b, err = appendName(b, sectionStart, e.Section.Name); err == nil {
				b, err = appendSection(b, e.Section, depth+1)
			}
			b = append(b, sectionEnd)
		case v.IsList:
			b, err = appendName(b, listStart, v.Key)
			for _, item := range v.List {
				if err == nil {
					b, err = appendValue(append(b, listItem), v.Key, item)
				}
			}
			b = append(b, listEnd)
		default:
			if b, err = appendName(b, keyValue, v.Key); err == nil {
				b, err = appendValue(b, v.Key, v.Text)
			}
		}
		if err != nil {
			return nil, err
		}
		if len(b) > MaxPacket {
			return nil, fmt.Errorf("%w: message of more than %d bytes", ErrTooLong, MaxPacket)
		}
	}
	return b, nil
}

func appendName(b []byte, element byte, name string) ([]byte, error) {
	if !validName(name) && (element != sectionStart || name != "") {
		return nil, malformed("name %q", name)
	}
	if len(name) > MaxName {
		return nil, fmt.Errorf("%w: name of %d bytes", ErrTooLong, len(name))
	}
	return append(append(b, element, byte(len(name))), name...), nil
}

func appendValue(b []byte, key, text string) ([]byte, error) {
	if len(text) > MaxValue || len(b)+len(text) > MaxPacket {
		return nil, fmt.Errorf("%w: value of %s has %d bytes", ErrTooLong, key, len(text))
	}
	return append(binary.BigEndian.AppendUint16(b, uint16(len(text))), text...), nil
}

// validName refuses what no section, key or list can be called. Only an answer has a
// section without a name: the global counters of get-counters.
func validName(name string) bool { return name != "" && strings.IndexByte(name, 0) < 0 }

// Unmarshal decodes a message. Names must be unique in their section and lists may hold items
// only, as the protocol says; anything else is [ErrMalformed], too many or too deep elements
// [ErrTooLong].
func Unmarshal(b []byte) (*conf.Section, error) { return unmarshal(b, true) }

// unmarshal decodes a message; a request has no section without a name.
func unmarshal(b []byte, nameless bool) (*conf.Section, error) {
	if len(b) > MaxPacket {
		return nil, fmt.Errorf("%w: message of %d bytes", ErrTooLong, len(b))
	}
	d := decoder{rest: b, nameless: nameless}
	root := conf.New("")
	if err := d.section(root, 0); err != nil {
		return nil, err
	}
	return root, nil
}

type decoder struct {
	rest     []byte
	elements int
	nameless bool // sections may have no name
}

// section decodes up to the end of s, which is the end of the message at depth 0.
func (d *decoder) section(s *conf.Section, depth int) error {
	for len(d.rest) > 0 {
		element, err := d.element()
		if err != nil {
			return err
		}
		switch element {
		case sectionStart:
			err = d.subsection(s, depth+1)
		case sectionEnd:
			if depth == 0 {
				return malformed("end of a section that never began")
			}
			return nil
		case keyValue:
			err = d.keyValue(s)
		case listStart:
			err = d.list(s)
		default:
			err = malformed("element type %d in a section", element)
		}
		if err != nil {
			return err
		}
	}
	if depth > 0 {
		return malformed("section %s does not end", s.Path())
	}
	return nil
}

func (d *decoder) subsection(s *conf.Section, depth int) error {
	name, err := d.text()
	if err == nil && !validName(name) && (name != "" || !d.nameless) {
		err = malformed("name %q", name)
	}
	if err != nil {
		return err
	}
	if depth > MaxDepth {
		return fmt.Errorf("%w: sections nest more than %d deep", ErrTooLong, MaxDepth)
	}
	if s.Sub(name) != nil {
		return malformed("section %q twice", name)
	}
	return d.section(s.Add(name), depth)
}

func (d *decoder) keyValue(s *conf.Section) error {
	key, err := d.key(s)
	if err != nil {
		return err
	}
	text, err := d.value()
	if err != nil {
		return err
	}
	s.Set(key, text)
	return nil
}

func (d *decoder) list(s *conf.Section) error {
	key, err := d.key(s)
	if err != nil {
		return err
	}
	var items []string
	for len(d.rest) > 0 {
		element, err := d.element()
		if err != nil {
			return err
		}
		switch element {
		case listItem:
			item, err := d.value()
			if err != nil {
				return err
			}
			items = append(items, item)
		case listEnd:
			s.SetList(key, items...)
			return nil
		default:
			return malformed("element type %d in a list", element)
		}
	}
	return malformed("list %q does not end", key)
}

func (d *decoder) element() (byte, error) {
	if d.elements++; d.elements > MaxElements {
		return 0, fmt.Errorf("%w: message of more than %d elements", ErrTooLong, MaxElements)
	}
	e := d.rest[0]
	d.rest = d.rest[1:]
	return e, nil
}

// key reads the name of a value or list and refuses one that s has already.
func (d *decoder) key(s *conf.Section) (string, error) {
	key, err := d.name()
	if err != nil {
		return "", err
	}
	if _, ok := s.Get(key); ok {
		return "", malformed("key %q twice", key)
	}
	return key, nil
}

// name reads the name of a value or list.
func (d *decoder) name() (string, error) {
	name, err := d.text()
	if err == nil && !validName(name) {
		return "", malformed("name %q", name)
	}
	return name, err
}

// text reads what has one byte of length before it.
func (d *decoder) text() (string, error) {
	if len(d.rest) == 0 || int(d.rest[0]) > len(d.rest)-1 {
		return "", malformed("name is cut off")
	}
	end := 1 + int(d.rest[0])
	text := string(d.rest[1:end])
	d.rest = d.rest[end:]
	return text, nil
}

func (d *decoder) value() (string, error) {
	if len(d.rest) < 2 {
		return "", malformed("length of a value is cut off")
	}
	end := 2 + int(binary.BigEndian.Uint16(d.rest))
	if end > len(d.rest) {
		return "", malformed("value is cut off")
	}
	text := string(d.rest[2:end])
	d.rest = d.rest[end:]
	return text, nil
}

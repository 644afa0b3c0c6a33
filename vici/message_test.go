package vici_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"adit/conf"
	"adit/vici"
)

// example is the message that the protocol's description spells out byte by byte.
var example = cat(
	[]byte{3, 4}, "key1", []byte{0, 6}, "value1",
	[]byte{1, 8}, "section1",
	[]byte{1, 11}, "sub-section",
	[]byte{3, 4}, "key2", []byte{0, 6}, "value2",
	[]byte{2},
	[]byte{4, 5}, "list1", []byte{5, 0, 5}, "item1", []byte{5, 0, 5}, "item2", []byte{6},
	[]byte{2},
)

func cat(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			b = append(b, p...)
		case []byte:
			b = append(b, p...)
		}
	}
	return b
}

func exampleTree() *conf.Section {
	root := conf.New("")
	root.Set("key1", "value1")
	s := root.Add("section1")
	s.Add("sub-section").Set("key2", "value2")
	s.SetList("list1", "item1", "item2")
	return root
}

func TestMessageExample(t *testing.T) {
	got, err := vici.Marshal(exampleTree())
	if err != nil || !bytes.Equal(got, example) {
		t.Errorf("encoded as %q (%v), want %q", got, err, example)
	}
	s, err := vici.Unmarshal(example)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := s.Format(nil), exampleTree().Format(nil); got != want {
		t.Errorf("decoded as\n%s\nwant\n%s", got, want)
	}
	if v, _ := s.Sub("section1").Get("list1"); !v.IsList || len(v.List) != 2 {
		t.Errorf("list1 is %+v", v.List)
	}
}

func TestMessageContents(t *testing.T) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	root := conf.New("")
	root.Set("binary", string(all))
	root.Set("empty", "")
	root.SetList("no items")
	root.SetList("binary items", string(all), "", "\x00")
	root.Add("empty section")
	root.Set("long", strings.Repeat("x", vici.MaxValue))
	root.Set(strings.Repeat("n", vici.MaxName), "long name")
	root.Add("binary").Set("key", "a section and a key may have one name")
	b, err := vici.Marshal(root)
	if err != nil {
		t.Fatal(err)
	}
	s, err := vici.Unmarshal(b)
	if err != nil {
		t.Fatal(err)
	}
	again, err := vici.Marshal(s)
	if err != nil || !bytes.Equal(b, again) {
		t.Errorf("encoded again it differs (%v)", err)
	}
	if v, ok := s.Get("no items"); !ok || !v.IsList || len(v.List) != 0 {
		t.Error("empty list is lost")
	}
	if v, _ := s.Get("binary items"); v.List[0] != string(all) || s.Text("binary") != string(all) {
		t.Error("bytes changed")
	}
	if b, err := vici.Marshal(nil); err != nil || len(b) != 0 {
		t.Errorf("nil is encoded as %q, %v", b, err)
	}
}

func TestMarshalRefused(t *testing.T) {
	for name, c := range map[string]struct {
		build func(s *conf.Section)
		want  error
	}{
		"value":         {func(s *conf.Section) { s.Set("k", strings.Repeat("x", vici.MaxValue+1)) }, vici.ErrTooLong},
		"item":          {func(s *conf.Section) { s.SetList("k", "a", strings.Repeat("x", vici.MaxValue+1)) }, vici.ErrTooLong},
		"name":          {func(s *conf.Section) { s.Set(strings.Repeat("k", vici.MaxName+1), "") }, vici.ErrTooLong},
		"empty name":    {func(s *conf.Section) { s.Set("", "x") }, vici.ErrMalformed},
		"NUL's section": {func(s *conf.Section) { s.Attach(conf.New("a\x00b")) }, vici.ErrMalformed},
		"list's name":   {func(s *conf.Section) { s.SetList("a\x00b") }, vici.ErrMalformed},
		"depth": {func(s *conf.Section) {
			for range vici.MaxDepth + 1 {
				s = s.Add("s")
			}
		}, vici.ErrTooLong},
		"all": {func(s *conf.Section) {
			for i := range 9 {
				s.Set(fmt.Sprint(i), strings.Repeat("x", vici.MaxValue))
			}
		}, vici.ErrTooLong},
	} {
		t.Run(name, func(t *testing.T) {
			s := conf.New("")
			c.build(s)
			if _, err := vici.Marshal(s); !errors.Is(err, c.want) {
				t.Errorf("error is %v, want %v", err, c.want)
			}
		})
	}
}

func TestUnmarshalRefused(t *testing.T) {
	for name, c := range map[string]struct {
		msg  []byte
		want error
	}{
		"unknown element":       {[]byte{7}, vici.ErrMalformed},
		"element zero":          {[]byte{0}, vici.ErrMalformed},
		"end without start":     {[]byte{2}, vici.ErrMalformed},
		"start without end":     {cat([]byte{1, 1}, "s"), vici.ErrMalformed},
		"name cut off":          {cat([]byte{1, 9}, "s"), vici.ErrMalformed},
		"name missing":          {[]byte{3}, vici.ErrMalformed},
		"empty name":            {[]byte{3, 0, 0, 0}, vici.ErrMalformed},
		"NUL in name":           {[]byte{3, 1, 0, 0, 0}, vici.ErrMalformed},
		"value missing":         {cat([]byte{3, 1}, "k"), vici.ErrMalformed},
		"value's length cut":    {cat([]byte{3, 1}, "k", []byte{0}), vici.ErrMalformed},
		"value cut off":         {cat([]byte{3, 1}, "k", []byte{0, 2}, "v"), vici.ErrMalformed},
		"item outside list":     {cat([]byte{5, 0, 1}, "i"), vici.ErrMalformed},
		"list end outside list": {[]byte{6}, vici.ErrMalformed},
		"list without end":      {cat([]byte{4, 1}, "l", []byte{5, 0, 1}, "i"), vici.ErrMalformed},
		"key in list":           {cat([]byte{4, 1}, "l", []byte{3, 1}, "k", []byte{0, 0, 6}), vici.ErrMalformed},
		"list in list":          {cat([]byte{4, 1}, "l", []byte{4, 1}, "m", []byte{6, 6}), vici.ErrMalformed},
		"section in list":       {cat([]byte{4, 1}, "l", []byte{1, 1}, "m", []byte{2, 6}), vici.ErrMalformed},
		"section end in list":   {cat([]byte{1, 1}, "s", []byte{4, 1}, "l", []byte{2}), vici.ErrMalformed},
		"key twice":             {cat([]byte{3, 1}, "k", []byte{0, 0}, []byte{3, 1}, "k", []byte{0, 0}), vici.ErrMalformed},
		"key and list":          {cat([]byte{3, 1}, "k", []byte{0, 0}, []byte{4, 1}, "k", []byte{6}), vici.ErrMalformed},
		"section twice":         {cat([]byte{1, 1}, "k", []byte{2}, []byte{1, 1}, "k", []byte{2}), vici.ErrMalformed},
		"too deep":              {bytes.Repeat([]byte{1, 1, 's'}, vici.MaxDepth+1), vici.ErrTooLong},
		"too many":              {cat([]byte{4, 1}, "l", bytes.Repeat([]byte{5, 0, 0}, vici.MaxElements)), vici.ErrTooLong},
		"too long":              {make([]byte, vici.MaxPacket+1), vici.ErrTooLong},
	} {
		t.Run(name, func(t *testing.T) {
			if s, err := vici.Unmarshal(c.msg); !errors.Is(err, c.want) || s != nil {
				t.Errorf("error is %v, want %v", err, c.want)
			}
		})
	}
	for n := range example { // every cut of a valid message is refused, or is one that ends at a whole element
		if s, err := vici.Unmarshal(example[:n]); err == nil && n != 0 && n != 14 {
			t.Errorf("message cut to %d bytes is accepted as\n%s", n, s.Format(nil))
		}
	}
}

func TestPacket(t *testing.T) {
	for _, c := range []struct {
		p    vici.Packet
		wire []byte
	}{
		{vici.Packet{Type: vici.CmdRequest, Name: "version", Body: []byte{}}, cat([]byte{0, 0, 0, 9, 0, 7}, "version")},
		{vici.Packet{Type: vici.CmdResponse, Body: example}, cat([]byte{0, 0, 0, byte(1 + len(example)), 1}, example)},
		{vici.Packet{Type: vici.CmdUnknown}, []byte{0, 0, 0, 1, 2}},
		{vici.Packet{Type: vici.EventRegister, Name: "log"}, cat([]byte{0, 0, 0, 5, 3, 3}, "log")},
		{vici.Packet{Type: vici.EventUnregister, Name: "log"}, cat([]byte{0, 0, 0, 5, 4, 3}, "log")},
		{vici.Packet{Type: vici.EventConfirm}, []byte{0, 0, 0, 1, 5}},
		{vici.Packet{Type: vici.EventUnknown}, []byte{0, 0, 0, 1, 6}},
		{vici.Packet{Type: vici.EventNotify, Name: "log", Body: []byte{2}}, cat([]byte{0, 0, 0, 6, 7, 3}, "log", []byte{2})},
	} {
		got, err := c.p.AppendFrame(nil)
		if err != nil || !bytes.Equal(got, c.wire) {
			t.Errorf("%v is framed as %q (%v), want %q", c.p.Type, got, err, c.wire)
		}
		p, err := vici.ReadPacket(bytes.NewReader(c.wire))
		if err != nil || p.Type != c.p.Type || p.Name != c.p.Name || !bytes.Equal(p.Body, c.p.Body) {
			t.Errorf("%q is read as %+v (%v)", c.wire, p, err)
		}
		for n := 1; n < len(c.wire); n++ {
			if _, err := vici.ReadPacket(bytes.NewReader(c.wire[:n])); !errors.Is(err, vici.ErrMalformed) {
				t.Errorf("%v cut to %d bytes: %v", c.p.Type, n, err)
			}
		}
	}
	for name, c := range map[string]struct {
		wire []byte
		want error
	}{
		"too long":       {[]byte{0, 8, 0, 1, 0}, vici.ErrTooLong},
		"huge":           {[]byte{255, 255, 255, 255}, vici.ErrTooLong},
		"empty":          {[]byte{0, 0, 0, 0}, vici.ErrMalformed},
		"type 8":         {[]byte{0, 0, 0, 1, 8}, vici.ErrMalformed},
		"no name":        {[]byte{0, 0, 0, 1, 0}, vici.ErrMalformed},
		"empty name":     {[]byte{0, 0, 0, 2, 0, 0}, vici.ErrMalformed},
		"name cut off":   {[]byte{0, 0, 0, 3, 3, 2, 'a'}, vici.ErrMalformed},
		"name with NUL":  {[]byte{0, 0, 0, 3, 3, 1, 0}, vici.ErrMalformed},
		"rest after it":  {[]byte{0, 0, 0, 2, 5, 0}, vici.ErrMalformed},
		"rest after reg": {[]byte{0, 0, 0, 4, 3, 1, 'a', 0}, vici.ErrMalformed},
	} {
		if _, err := vici.ReadPacket(bytes.NewReader(c.wire)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if _, err := (vici.Packet{Type: vici.CmdResponse, Body: make([]byte, vici.MaxPacket)}).AppendFrame(nil); !errors.Is(err, vici.ErrTooLong) {
		t.Errorf("too long a packet is framed: %v", err)
	}
}

// FuzzMessage: any bytes are decoded or refused, and what was decoded is encoded as the same bytes.
func FuzzMessage(f *testing.F) {
	f.Add(example)
	f.Add([]byte{4, 1, 'l', 5, 0, 0, 6})
	f.Add([]byte{1, 1, 's', 2, 3, 1, 's', 0, 1, 0})
	f.Add([]byte{1, 0, 3, 1, 's', 0, 1, 0, 2})
	f.Fuzz(func(t *testing.T, msg []byte) {
		s, err := vici.Unmarshal(msg)
		if err != nil {
			if !errors.Is(err, vici.ErrMalformed) && !errors.Is(err, vici.ErrTooLong) {
				t.Fatalf("error without a reason: %v", err)
			}
			return
		}
		again, err := vici.Marshal(s)
		if err != nil || !bytes.Equal(msg, again) {
			t.Errorf("%q is encoded as %q (%v)", msg, again, err)
		}
	})
}

// FuzzPacket: a stream of any bytes is read as packets until it is refused; each packet is framed
// as the bytes that it was read from.
func FuzzPacket(f *testing.F) {
	f.Add(cat([]byte{0, 0, 0, 9, 0, 7}, "version", []byte{0, 0, 0, 1, 5}))
	f.Add([]byte{0, 8, 0, 0, 7, 1})
	f.Fuzz(func(t *testing.T, stream []byte) {
		r := bytes.NewReader(stream)
		for {
			at := len(stream) - r.Len()
			p, err := vici.ReadPacket(r)
			if err != nil {
				return
			}
			again, err := p.AppendFrame(nil)
			if err != nil || !bytes.Equal(again, stream[at:len(stream)-r.Len()]) {
				t.Fatalf("%+v is framed as %q (%v)", p, again, err)
			}
			if q, err := vici.ParsePacket(again[4:]); err != nil || q.Name != p.Name {
				t.Fatalf("%q is not parsed: %v", again[4:], err)
			}
		}
	})
}

package ipsecconf

import (
	"slices"

	"adit/conf"
)

// section is a section of the file, all parts of that name together.
type section struct {
	typ, name string
	head      *Line
	heads     []*Line
	settings  []*Line
	also      []*Line
	referred  bool // by another section's also
}

// sections are all of a file, in order.
type sections struct {
	list  []*section
	index map[string]*section
	of    map[*Line]*section // of settings and heads
	spent int
}

func collect(f *File) *sections {
	s := &sections{index: map[string]*section{}, of: map[*Line]*section{}}
	var in *section
	for _, l := range f.Lines {
		switch l.Kind {
		case isSection:
			id := l.Type + " " + l.Key
			if in = s.index[id]; in == nil {
				in = &section{typ: l.Type, name: l.Key, head: l}
				s.index[id] = in
				s.list = append(s.list, in)
			}
			in.heads = append(in.heads, l)
			s.of[l] = in
		case isSetting:
			s.of[l] = in
			if l.Key == "also" {
				in.also = append(in.also, l)
			} else {
				in.settings = append(in.settings, l)
			}
		}
	}
	for _, sec := range s.list {
		for _, l := range sec.also {
			switch other := s.index[sec.typ+" "+l.Value]; {
			case other == nil:
				l.mark(refused, "there is no "+sec.typ+" "+clip(l.Value))
			case other == sec:
				l.mark(moot, "it names itself")
			default:
				other.referred = true
			}
		}
	}
	return s
}

// aliases are keywords that mean the same as another.
var aliases = map[string]string{
	"keylife": "lifetime", "salifetime": "lifetime", "ipsec-lifetime": "lifetime", "margintime": "rekeymargin",
	"aggrmode": "aggressive", "virtual_private": "virtual-private", "phase2alg": "esp", "sec-label": "policy-label", "mark-in": "mark_in", "mark-out": "mark_out",
	"ikev1-dpdtimeout": "dpdtimeout", "replay-window": "replay_window",
	"leftrsasigkey": "leftsigkey", "rightrsasigkey": "rightsigkey", "leftsubnetwithin": "leftsubnet", "rightsubnetwithin": "rightsubnet",
	"leftxauthusername": "leftusername", "rightxauthusername": "rightusername",
	"crluri1": "crluri", "ocspuri1": "ocspuri",
}

func canonical(key string) string {
	if a, ok := aliases[key]; ok {
		return a
	}
	return key
}

// parents are the sections whose settings a section inherits, the most important
// first. In strongSwan the last also is, in Libreswan the first; %default is the
// least in both.
func (s *sections) parents(sec *section, d Dialect) []*section {
	var out []*section
	seen := map[*section]bool{sec: true}
	var visit func(*section, int)
	visit = func(of *section, depth int) {
		also := slices.Clone(of.also)
		if d == StrongSwan {
			slices.Reverse(also)
		}
		for _, l := range also {
			p := s.index[sec.typ+" "+l.Value]
			if p == nil || seen[p] || p.name == "%default" || depth > limitIncludeDepth*4 {
				continue
			}
			seen[p] = true
			out = append(out, p)
			visit(p, depth+1)
		}
	}
	visit(sec, 0)
	if def := s.index[sec.typ+" %default"]; def != nil && def != sec {
		out = append(out, def)
	}
	return out
}

// resolve is what a section says, with what it inherits, by keyword.
func (s *sections) resolve(sec *section, d Dialect) (map[string]*Line, error) {
	out := map[string]*Line{}
	for _, p := range append([]*section{sec}, s.parents(sec, d)...) {
		own := map[string]*Line{}
		for _, l := range p.settings {
			key := canonical(l.Key)
			if before := own[key]; before != nil && (key != "connalias" && key != "leftsubnets" && key != "rightsubnets") {
				before.mark(moot, "a later line of the section replaces it")
			}
			own[key] = l
			if s.spent++; s.spent > limitInherited {
				return nil, failf(conf.ErrLimit, sec.head.Pos, "more than %d settings with all that is inherited", limitInherited)
			}
		}
		for key, l := range own {
			if out[key] == nil {
				out[key] = l
			}
		}
	}
	for key, l := range out {
		if l.Value == "" { // takes back what would be inherited
			l.uses++
			delete(out, key)
		}
	}
	return out, nil
}

package ipsec_test

import (
	"math/big"
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"adit/ipsec"
)

// Small spaces of values make selectors overlap often: addresses 10.0.0.0 to
// 10.0.0.31 and fd00:: to fd00::1f, few protocols, and ports around edges.
func genAddr(v6 bool) *rapid.Generator[netip.Addr] {
	return rapid.Custom(func(t *rapid.T) netip.Addr {
		n := rapid.Uint8Max(31).Draw(t, "host")
		if v6 {
			return netip.AddrFrom16([16]byte{0xfd, 15: n})
		}
		return netip.AddrFrom4([4]byte{10, 0, 0, n})
	})
}

func genPort() *rapid.Generator[uint16] {
	return rapid.SampledFrom([]uint16{0, 1, 80, 81, 443, 0x0800, 0x0801, 0x08ff, 0x0b00, 65534, 65535})
}

func genSelector() *rapid.Generator[ipsec.Selector] {
	return rapid.Custom(func(t *rapid.T) ipsec.Selector {
		v6 := rapid.Bool().Draw(t, "v6")
		a, b := genAddr(v6).Draw(t, "a"), genAddr(v6).Draw(t, "b")
		if b.Less(a) {
			a, b = b, a
		}
		s := ipsec.Selector{From: a, To: b, PortTo: 65535}
		s.Proto = rapid.SampledFrom([]uint8{0, 0, 1, 6, 17, 58, 135, 4, 200}).Draw(t, "proto")
		if s.Proto != 0 {
			switch rapid.IntRange(0, 3).Draw(t, "ports") {
			case 0:
				s.PortFrom, s.PortTo = 65535, 0
			case 1:
				x, y := genPort().Draw(t, "x"), genPort().Draw(t, "y")
				s.PortFrom, s.PortTo = min(x, y), max(x, y)
			}
		}
		return s
	})
}

// point is what a packet shows of one of its ends.
type point struct {
	a     netip.Addr
	proto uint8
	port  uint16
	known bool
}

func genPoint() *rapid.Generator[point] {
	return rapid.Custom(func(t *rapid.T) point {
		return point{genAddr(rapid.Bool().Draw(t, "v6")).Draw(t, "addr"),
			rapid.SampledFrom([]uint8{1, 6, 17, 58, 135, 4, 200, 50}).Draw(t, "proto"),
			genPort().Draw(t, "port"), rapid.Bool().Draw(t, "known")}
	})
}

func (p point) in(s ipsec.Selector) bool { return s.Match(p.a, p.proto, p.port, p.known) }

func inAny(p point, list []ipsec.Selector) bool {
	for _, s := range list {
		if p.in(s) {
			return true
		}
	}
	return false
}

// TestIntersect: what both match, neither more nor less.
func TestIntersect(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := genSelector().Draw(t, "a"), genSelector().Draw(t, "b")
		r, ok := a.Intersect(b)
		q, ok2 := b.Intersect(a)
		if ok != ok2 || r != q {
			t.Fatalf("not commutative: %v and %v", r, q)
		}
		if ok && (!r.Valid() || !a.Contains(r) || !b.Contains(r)) {
			t.Fatalf("%v is not inside both", r)
		}
		for range 20 {
			p := genPoint().Draw(t, "point")
			if both := p.in(a) && p.in(b); both != (ok && p.in(r)) {
				t.Fatalf("%+v: in both %v, in the intersection %v (%v)", p, both, r, ok)
			}
		}
	})
}

// TestContains agrees with Match, is reflexive, transitive and antisymmetric.
func TestContains(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := genSelector().Draw(t, "a"), genSelector().Draw(t, "b"), genSelector().Draw(t, "c")
		if !a.Contains(a) {
			t.Fatal("not reflexive")
		}
		if a.Contains(b) && b.Contains(a) && a != b {
			t.Fatal("two selectors contain each other")
		}
		if a.Contains(b) && b.Contains(c) && !a.Contains(c) {
			t.Fatal("not transitive")
		}
		for range 20 {
			if p := genPoint().Draw(t, "point"); a.Contains(b) && p.in(b) && !p.in(a) {
				t.Fatalf("%v contains %v, but not %+v", a, b, p)
			}
		}
	})
}

// TestRFC7296_2_9_Narrow: all that both sides allow and nothing else, without repetition.
func TestRFC7296_2_9_Narrow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		policy := rapid.SliceOfN(genSelector(), 0, 5).Draw(t, "policy")
		proposed := rapid.SliceOfN(genSelector(), 0, 5).Draw(t, "proposed")
		got := ipsec.Narrow(policy, proposed)
		if !ipsec.ContainsAll(policy, got) || !ipsec.ContainsAll(proposed, got) {
			t.Fatalf("%v exceeds %v or %v", got, policy, proposed)
		}
		for i, s := range got {
			for j, o := range got {
				if i != j && s.Contains(o) {
					t.Fatalf("%v contains %v", s, o)
				}
			}
		}
		for range 20 {
			p := genPoint().Draw(t, "point")
			if want := inAny(p, policy) && inAny(p, proposed); want != inAny(p, got) {
				t.Fatalf("%+v: %v in both, narrowed to %v", p, want, got)
			}
		}
		again := ipsec.Narrow(policy, got)
		if len(again) != len(got) || !ipsec.ContainsAll(again, got) {
			t.Fatalf("narrowing %v again gives %v", got, again)
		}
	})
}

func TestNarrowBounded(t *testing.T) {
	var policy, proposed []ipsec.Selector
	for i := range 255 {
		a := netip.AddrFrom4([4]byte{10, 0, byte(i), 0})
		policy = append(policy, ipsec.FromPrefix(netip.PrefixFrom(a, 24)))
		proposed = append(proposed, ipsec.Selector{From: a, To: netip.AddrFrom4([4]byte{10, 0, 255, byte(i)}), PortTo: 65535})
	}
	if n := len(ipsec.Narrow(policy, proposed)); n == 0 || n > 255 {
		t.Fatalf("%d selectors", n)
	}
	if n := len(ipsec.Narrow([]ipsec.Selector{policy[0]}, nil)); n != 0 {
		t.Fatalf("%d selectors of no proposal", n)
	}
}

// TestPrefixes cover a range exactly, in order and without overlap.
func TestPrefixes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s ipsec.Selector
		if rapid.Bool().Draw(t, "v6") {
			a, b := netip.AddrFrom16([16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "a"))), netip.AddrFrom16([16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "b")))
			if b.Less(a) {
				a, b = b, a
			}
			s = ipsec.Selector{From: a, To: b, PortTo: 65535}
		} else {
			a, b := rapid.Uint32().Draw(t, "a"), rapid.Uint32().Draw(t, "b")
			a, b = min(a, b), max(a, b)
			s = ipsec.Selector{From: addr4(a), To: addr4(b), PortTo: 65535}
		}
		at, size := s.From, new(big.Int)
		list := s.Prefixes()
		for _, p := range list {
			r := ipsec.FromPrefix(p)
			if r.From != at {
				t.Fatalf("%v: %v does not begin at %v", s, p, at)
			}
			size.Add(size, r.Size())
			at = r.To.Next()
		}
		if last := ipsec.FromPrefix(list[len(list)-1]).To; last != s.To || size.Cmp(s.Size()) != 0 {
			t.Fatalf("%v: ends at %v", s, last)
		}
		if p, ok := s.Prefix(); ok != (len(list) == 1) || ok && p != list[0] {
			t.Fatalf("%v: Prefix %v %v, Prefixes %v", s, p, ok, list)
		}
	})
}

func addr4(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

// TestStringParses: what String prints, ParseSelector reads as the same. (Ranges
// are printed with "..", as strongSwan does, and read with "-".)
func TestStringParses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := genSelector().Draw(t, "selector")
		if _, ok := s.Prefix(); !ok {
			s.To = s.From
		}
		got, err := ipsec.ParseSelector(s.String())
		if err != nil || got != s {
			t.Fatalf("%v printed as %q is read as %v: %v", s, s.String(), got, err)
		}
	})
}

func TestParseSelector(t *testing.T) {
	for text, want := range map[string]string{
		"10.1.0.0/16":                     "10.1.0.0/16",
		" 10.1.2.3 ":                      "10.1.2.3/32",
		"10.1.2.3/16":                     "10.1.0.0/16",
		"0.0.0.0/0":                       "0.0.0.0/0",
		"::/0":                            "::/0",
		"fd00::1":                         "fd00::1/128",
		"10.0.0.0-10.0.0.255":             "10.0.0.0/24",
		"10.0.0.1-10.0.0.9":               "10.0.0.1..10.0.0.9",
		"10.0.0.0/8[tcp/http]":            "10.0.0.0/8[tcp/80]",
		"10.0.0.0/8[TCP/1000-2000]":       "10.0.0.0/8[tcp/1000-2000]",
		"10.0.0.0/8[17]":                  "10.0.0.0/8[udp]",
		"10.0.0.0/8[gre]":                 "10.0.0.0/8[gre]",
		"10.0.0.0/8[%any/%any]":           "10.0.0.0/8",
		"dynamic[tcp/22]":                 "dynamic[tcp/22]",
		"dynamic":                         "dynamic",
		"10.0.0.0/8[tcp/opaque]":          "10.0.0.0/8[tcp/OPAQUE]",
		"10.0.0.0/8[icmp/8]":              "10.0.0.0/8[icmp/8]",
		"10.0.0.0/8[icmp/8(0)]":           "10.0.0.0/8[icmp/8(0)]",
		"10.0.0.0/8[icmp/3(1)-3(4)]":      "10.0.0.0/8[icmp/3(1)-3(4)]",
		"10.0.0.0/8[icmp/3-11]":           "10.0.0.0/8[icmp/3-11]",
		"fd00::/8[ipv6-icmp/128]":         "fd00::/8[ipv6-icmp/128]",
		"10.0.0.0/8[99]":                  "10.0.0.0/8[99]",
		"10.0.0.0/8[sctp/5060-sip]":       "10.0.0.0/8[sctp/5060]",
		"255.255.255.255-255.255.255.255": "255.255.255.255/32",
	} {
		s, err := ipsec.ParseSelector(text)
		if err != nil || s.String() != want || !s.Valid() {
			t.Errorf("%q: %v, %v, want %s", text, s, err, want)
		}
	}
	for _, text := range []string{"", "[tcp]", "10.0.0.0/33", "10.0.0.300", "10.0.0.9-10.0.0.1", "10.0.0.1-fd00::1", "fd00::1%eth0",
		"fe80::1%a-fe80::2%a", "10.0.0.0/8[tcp", "10.0.0.0/8]tcp[", "10.0.0.0/8[nosuch]", "10.0.0.0/8[256]", "10.0.0.0/8[/80]",
		"10.0.0.0/8[tcp/70000]", "10.0.0.0/8[tcp/90-80]", "10.0.0.0/8[tcp/nosuch]", "10.0.0.0/8[icmp/8(0]", "10.0.0.0/8[icmp/8(0))]",
		"10.0.0.0/8[icmp/300]", "10.0.0.0/8[icmp/8(300)]", "::ffff:10.0.0.1", "::ffff:10.0.0.0/104", "dynamic2", "%dynamic", "10.0.0.0/8 tcp"} {
		if s, err := ipsec.ParseSelector(text); err == nil {
			t.Errorf("%q was read as %v", text, s)
		}
	}
}

func TestDynamic(t *testing.T) {
	d := ipsec.Dynamic()
	any4 := ipsec.FromPrefix(netip.MustParsePrefix("0.0.0.0/0"))
	if _, ok := d.Intersect(any4); ok || !d.IsDynamic() || d.Prefixes() != nil {
		t.Fatal("an unresolved selector covers something")
	}
	if d.Match(netip.MustParseAddr("10.0.0.1"), 6, 80, true) {
		t.Fatal("an unresolved selector matches a packet")
	}
	r := d.Resolve(netip.MustParseAddr("::ffff:10.0.0.1"))
	if r.String() != "10.0.0.1/32" || r.Resolve(netip.MustParseAddr("10.0.0.2")) != r {
		t.Fatalf("resolved to %v", r)
	}
}

func TestValid(t *testing.T) {
	a, b, c := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::1")
	for _, s := range []ipsec.Selector{{From: b, To: a, PortTo: 65535}, {From: a, To: c, PortTo: 65535}, {From: c, To: a, PortTo: 65535},
		{From: a}, {From: a, To: b, PortFrom: 5, PortTo: 4}, {From: c, PortTo: 65535}} {
		if s.Valid() {
			t.Errorf("%+v is called valid", s)
		}
	}
}

// FuzzParseSelector: what is read is valid, and reads the same when printed.
func FuzzParseSelector(f *testing.F) {
	for _, s := range []string{"10.0.0.0/8[tcp/80]", "dynamic", "fd00::/8[ipv6-icmp/1(2)-3(4)]", "1.2.3.4-1.2.3.9[udp/opaque]", "[", "::ffff:1.2.3.4"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ipsec.ParseSelector(text)
		if err != nil {
			return
		}
		if !s.Valid() {
			t.Fatalf("%q gives the invalid %+v", text, s)
		}
		if _, ok := s.Prefix(); !ok && !s.IsDynamic() {
			s.To = s.From
		}
		if again, err := ipsec.ParseSelector(s.String()); err != nil || again != s {
			t.Fatalf("%q is printed as %q and read as %+v, %v", text, s, again, err)
		}
		s.Prefixes()
	})
}

package ipsec

import (
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Selector is one traffic selector of RFC 7296 §3.13.1: a range of addresses, an
// IP protocol (0: any) and a range of ports. For ICMP and ICMPv6 (and Mobile
// IPv6, 135) a port holds the type in its high and the code in its low byte (RFC
// 4301 §4.4.1.1). PortFrom 65535 with PortTo 0 is OPAQUE. Selectors are
// comparable. One whose addresses are invalid is *dynamic*: it stands for the
// address of the endpoint and must be resolved before use.
type Selector struct {
	Proto            uint8
	From, To         netip.Addr
	PortFrom, PortTo uint16
}

// Protocol numbers that selectors treat specially.
const (
	ProtoICMP   = 1
	ProtoTCP    = 6
	ProtoUDP    = 17
	ProtoESP    = 50
	ProtoICMPv6 = 58
	ProtoSCTP   = 132
	ProtoMH     = 135
)

// Dynamic is the selector that strongSwan writes as `dynamic`.
func Dynamic() Selector { return Selector{PortTo: 65535} }

// FromPrefix is the selector of every packet to or from a prefix.
func FromPrefix(p netip.Prefix) Selector {
	p = p.Masked()
	return Selector{From: p.Addr(), To: lastAddr(p), PortTo: 65535}
}

// IsDynamic reports whether the addresses are still to be resolved.
func (s Selector) IsDynamic() bool { return !s.From.IsValid() }

// Resolve puts the endpoint's address into a dynamic selector; others it leaves.
func (s Selector) Resolve(a netip.Addr) Selector {
	if s.IsDynamic() {
		s.From, s.To = a.Unmap().WithZone(""), a.Unmap().WithZone("")
	}
	return s
}

// Opaque reports whether the selector matches only packets whose ports cannot be seen.
func (s Selector) Opaque() bool { return s.PortFrom > s.PortTo }

// AnyPort reports whether every port, and every packet without ports, matches.
func (s Selector) AnyPort() bool { return s.PortFrom == 0 && s.PortTo == 65535 }

// Valid reports whether the ranges are in order and of one family.
func (s Selector) Valid() bool {
	if s.IsDynamic() {
		return true
	}
	if s.From.Is4() != s.To.Is4() || s.To.Compare(s.From) < 0 {
		return false
	}
	return !s.Opaque() || (s.PortFrom == 65535 && s.PortTo == 0)
}

// MatchAddr reports whether the address lies in the range.
func (s Selector) MatchAddr(a netip.Addr) bool {
	return s.From.Is4() == a.Is4() && s.From.Compare(a) <= 0 && a.Compare(s.To) <= 0
}

// Match reports whether a packet's address, protocol and port lie inside.
// portKnown is false for fragments without ports and for protocols without any:
// those match only where the selector leaves the port open or is OPAQUE.
func (s Selector) Match(a netip.Addr, proto uint8, port uint16, portKnown bool) bool {
	if s.Proto != 0 && s.Proto != proto || !s.MatchAddr(a) {
		return false
	}
	switch {
	case s.AnyPort():
		return true
	case s.Opaque():
		return !portKnown
	default:
		return portKnown && s.PortFrom <= port && port <= s.PortTo
	}
}

// Intersect is what both selectors match; false if nothing.
func (s Selector) Intersect(t Selector) (Selector, bool) {
	if s.IsDynamic() || t.IsDynamic() || s.From.Is4() != t.From.Is4() {
		return Selector{}, false
	}
	r := s
	if t.From.Compare(r.From) > 0 {
		r.From = t.From
	}
	if t.To.Compare(r.To) < 0 {
		r.To = t.To
	}
	if r.To.Compare(r.From) < 0 {
		return Selector{}, false
	}
	if s.Proto != 0 && t.Proto != 0 && s.Proto != t.Proto {
		return Selector{}, false
	}
	r.Proto = max(s.Proto, t.Proto)
	switch {
	case s.AnyPort():
		r.PortFrom, r.PortTo = t.PortFrom, t.PortTo
	case t.AnyPort():
	case s.Opaque() || t.Opaque():
		if s.Opaque() != t.Opaque() {
			return Selector{}, false
		}
	default:
		r.PortFrom, r.PortTo = max(s.PortFrom, t.PortFrom), min(s.PortTo, t.PortTo)
		if r.PortFrom > r.PortTo {
			return Selector{}, false
		}
	}
	return r, true
}

// Contains reports whether everything that t matches is matched by s.
func (s Selector) Contains(t Selector) bool {
	r, ok := s.Intersect(t)
	return ok && r == t
}

// limitNarrowed bounds what Narrow returns: a TS payload counts its selectors in
// one byte (RFC 7296 §3.13). It also bounds the work that a proposal can cause.
const limitNarrowed = 255

// Narrow is the responder's choice of RFC 7296 §2.9: the intersections of what
// the peer proposed with what the policy allows, without what others among them
// contain, in the policy's order, at most 255. Empty: TS_UNACCEPTABLE.
func Narrow(policy, proposed []Selector) []Selector {
	var out []Selector
	for _, p := range policy {
		for _, q := range proposed {
			r, ok := p.Intersect(q)
			if !ok || slices.ContainsFunc(out, func(s Selector) bool { return s.Contains(r) }) {
				continue
			}
			out = slices.DeleteFunc(out, r.Contains)
			if len(out) < limitNarrowed {
				out = append(out, r)
			}
		}
	}
	return out
}

// ContainsAll reports whether each of inner lies in one of outer.
func ContainsAll(outer, inner []Selector) bool {
	for _, t := range inner {
		ok := false
		for _, s := range outer {
			if s.Contains(t) {
				ok = true
				break
			}
		}
		if !ok {
			return false
		}
	}
	return true
}

// Prefix returns the range as one prefix, if it is one.
func (s Selector) Prefix() (netip.Prefix, bool) {
	if s.IsDynamic() {
		return netip.Prefix{}, false
	}
	for bits := 0; bits <= s.From.BitLen(); bits++ {
		p := netip.PrefixFrom(s.From, bits)
		if p.Masked().Addr() == s.From && lastAddr(p) == s.To {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// Prefixes covers the range exactly with the fewest prefixes (for routes).
func (s Selector) Prefixes() []netip.Prefix {
	if s.IsDynamic() {
		return nil
	}
	var out []netip.Prefix
	at := s.From
	for {
		bits := at.BitLen()
		for bits > 0 {
			p := netip.PrefixFrom(at, bits-1)
			if p.Masked().Addr() != at || lastAddr(p).Compare(s.To) > 0 {
				break
			}
			bits--
		}
		p := netip.PrefixFrom(at, bits)
		out = append(out, p)
		last := lastAddr(p)
		if last.Compare(s.To) >= 0 {
			return out
		}
		at = last.Next()
	}
}

// Size is the number of addresses in the range.
func (s Selector) Size() *big.Int {
	f, t := new(big.Int).SetBytes(s.From.AsSlice()), new(big.Int).SetBytes(s.To.AsSlice())
	return t.Sub(t, f).Add(t, big.NewInt(1))
}

// String prints the selector as strongSwan does: 10.1.0.0/16[tcp/80], a.b.c.d..e.f.g.h,
// or `dynamic`.
func (s Selector) String() string {
	var b strings.Builder
	if s.IsDynamic() {
		b.WriteString("dynamic")
	} else if p, ok := s.Prefix(); ok {
		b.WriteString(p.String())
	} else {
		b.WriteString(s.From.String() + ".." + s.To.String())
	}
	if s.Proto == 0 && s.AnyPort() {
		return b.String()
	}
	b.WriteByte('[')
	if s.Proto != 0 {
		b.WriteString(protoName(s.Proto))
	}
	switch {
	case s.AnyPort():
	case s.Opaque():
		b.WriteString("/OPAQUE")
	case s.icmp():
		allCodes := s.PortFrom&0xff == 0 && s.PortTo&0xff == 0xff
		fmt.Fprintf(&b, "/%d", s.PortFrom>>8)
		if !allCodes {
			fmt.Fprintf(&b, "(%d)", s.PortFrom&0xff)
		}
		if s.PortFrom>>8 != s.PortTo>>8 || !allCodes && s.PortFrom != s.PortTo {
			fmt.Fprintf(&b, "-%d", s.PortTo>>8)
			if !allCodes {
				fmt.Fprintf(&b, "(%d)", s.PortTo&0xff)
			}
		}
	case s.PortFrom == s.PortTo:
		fmt.Fprintf(&b, "/%d", s.PortFrom)
	default:
		fmt.Fprintf(&b, "/%d-%d", s.PortFrom, s.PortTo)
	}
	b.WriteByte(']')
	return b.String()
}

func (s Selector) icmp() bool {
	return s.Proto == ProtoICMP || s.Proto == ProtoICMPv6 || s.Proto == ProtoMH
}

// limitSelectorText bounds the text given to ParseSelector.
const limitSelectorText = 256

// ParseSelector reads one selector in swanctl.conf's form: `dynamic`, an address,
// a prefix or a range `from-to`, and optionally `[protocol/port]`, where the
// protocol is a name or number or `any`, and the port a number, a service name,
// a range, `opaque` or `any`; for ICMP the port is `type`, `type(code)` or a range of those.
func ParseSelector(text string) (Selector, error) {
	if len(text) > limitSelectorText {
		return Selector{}, fmt.Errorf("traffic selector longer than %d characters", limitSelectorText)
	}
	s := Dynamic()
	text = strings.TrimSpace(text)
	addr := text
	if i := strings.IndexByte(text, '['); i >= 0 {
		if !strings.HasSuffix(text, "]") {
			return s, fmt.Errorf("traffic selector %q: no closing ]", text)
		}
		addr = strings.TrimSpace(text[:i])
		if err := s.parseProtoPort(text[i+1 : len(text)-1]); err != nil {
			return s, fmt.Errorf("traffic selector %q: %w", text, err)
		}
	}
	if addr == "dynamic" {
		return s, nil
	}
	var err error
	if s.From, s.To, err = parseRange(addr); err == nil && (s.From.Is4In6() || s.To.Is4In6()) {
		err = fmt.Errorf("an IPv4 address in IPv6 form never occurs in a packet")
	}
	if err != nil {
		return s, fmt.Errorf("traffic selector %q: %w", text, err)
	}
	return s, nil
}

func parseRange(text string) (from, to netip.Addr, err error) {
	if a, b, ok := strings.Cut(text, "-"); ok {
		if from, err = netip.ParseAddr(strings.TrimSpace(a)); err != nil {
			return
		}
		if to, err = netip.ParseAddr(strings.TrimSpace(b)); err != nil {
			return
		}
		if from.Is4() != to.Is4() || to.Less(from) || from.Zone()+to.Zone() != "" {
			err = fmt.Errorf("%s to %s is not a range", from, to)
		}
		return
	}
	if strings.IndexByte(text, '/') < 0 {
		if from, err = netip.ParseAddr(text); err == nil && from.Zone() != "" {
			err = fmt.Errorf("an address with a zone cannot be a selector")
		}
		return from, from, err
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return
	}
	p = p.Masked()
	return p.Addr(), lastAddr(p), nil
}

func (s *Selector) parseProtoPort(text string) error {
	proto, port, hasPort := strings.Cut(strings.TrimSpace(text), "/")
	if proto = strings.ToLower(strings.TrimSpace(proto)); proto != "" && proto != "any" && proto != "%any" {
		n, ok := protoNumbers[proto]
		if !ok {
			v, err := strconv.ParseUint(proto, 10, 8)
			if err != nil {
				return fmt.Errorf("unknown protocol %q", proto)
			}
			n = uint8(v)
		}
		s.Proto = n
	}
	port = strings.ToLower(strings.TrimSpace(port))
	switch {
	case !hasPort || port == "" || port == "any" || port == "%any":
		return nil
	case port == "opaque":
		s.PortFrom, s.PortTo = 65535, 0
		return nil
	}
	if s.Proto == 0 {
		return fmt.Errorf("a port needs a protocol")
	}
	lo, hi, isRange := strings.Cut(port, "-")
	a, aEnd, err := s.parsePort(lo)
	if err != nil {
		return err
	}
	s.PortFrom, s.PortTo = a, aEnd
	if isRange {
		if _, s.PortTo, err = s.parsePort(hi); err != nil {
			return err
		}
		if s.PortTo < s.PortFrom {
			return fmt.Errorf("port range %q runs backwards", port)
		}
	}
	return nil
}

func (s *Selector) parsePort(text string) (from, to uint16, err error) {
	text = strings.TrimSpace(text)
	if s.icmp() {
		typ, code, hasCode := strings.Cut(text, "(")
		t, err := strconv.ParseUint(typ, 10, 8)
		if err != nil {
			return 0, 0, fmt.Errorf("bad ICMP type %q", typ)
		}
		if !hasCode {
			return uint16(t) << 8, uint16(t)<<8 | 0xff, nil
		}
		number, closed := strings.CutSuffix(code, ")")
		c, err := strconv.ParseUint(number, 10, 8)
		if err != nil || !closed {
			return 0, 0, fmt.Errorf("bad ICMP code %q", code)
		}
		v := uint16(t)<<8 | uint16(c)
		return v, v, nil
	}
	if n, ok := services[text]; ok {
		return n, n, nil
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return 0, 0, fmt.Errorf("bad port %q", text)
	}
	return uint16(n), uint16(n), nil
}

var protoNumbers = map[string]uint8{"icmp": 1, "igmp": 2, "ipip": 4, "ipencap": 4, "tcp": 6, "udp": 17, "ipv6": 41,
	"gre": 47, "esp": 50, "ah": 51, "ipv6-icmp": 58, "icmpv6": 58, "ospf": 89, "pim": 103, "vrrp": 112, "l2tp": 115,
	"sctp": 132, "udplite": 136}

var services = map[string]uint16{"ftp": 21, "ssh": 22, "smtp": 25, "domain": 53, "http": 80, "ntp": 123, "https": 443,
	"bgp": 179, "isakmp": 500, "ipsec-nat-t": 4500, "l2tp": 1701, "radius": 1812, "sip": 5060}

func protoName(p uint8) string {
	switch p {
	case ProtoICMPv6:
		return "ipv6-icmp"
	case 4:
		return "ipencap"
	}
	for name, n := range protoNumbers {
		if n == p { // the other names are unique
			return name
		}
	}
	return strconv.Itoa(int(p))
}

func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

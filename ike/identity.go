package ike

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// The identification types of RFC 7296 §3.5; the subnets and ranges of IKEv1
// (RFC 2407 §4.6.2.1) occur as patterns only. IDAny is no type on the wire: it
// is the pattern that everything matches.
const (
	IDAny        uint8 = 0
	IDIPv4Addr   uint8 = 1
	IDFQDN       uint8 = 2
	IDRFC822Addr uint8 = 3
	IDIPv4Subnet uint8 = 4
	IDIPv6Addr   uint8 = 5
	IDIPv6Subnet uint8 = 6
	IDIPv4Range  uint8 = 7
	IDIPv6Range  uint8 = 8
	IDDERASN1DN  uint8 = 9
	IDDERASN1GN  uint8 = 10
	IDKeyID      uint8 = 11
)

// limitIdentityText bounds the text given to ParseIdentity.
const limitIdentityText = 1024

// Identity is who an endpoint says that it is (RFC 7296 §3.5): the type and the
// data as they stand in the ID payload. The zero Identity is %any. Identities
// are comparable; names and mail addresses that differ only in case are not ==
// but match.
type Identity struct {
	Type uint8
	Data string
}

// IdentityFromAddr is the identity of an endpoint that goes by its address.
func IdentityFromAddr(a netip.Addr) Identity {
	a = a.Unmap().WithZone("")
	switch {
	case !a.IsValid():
		return Identity{}
	case a.Is4():
		return Identity{IDIPv4Addr, string(a.AsSlice())}
	}
	return Identity{IDIPv6Addr, string(a.AsSlice())}
}

var identityPrefixes = []struct {
	prefix string
	typ    uint8
}{
	{"ipv4:", IDIPv4Addr}, {"ipv6:", IDIPv6Addr}, {"ipv4net:", IDIPv4Subnet}, {"ipv6net:", IDIPv6Subnet},
	{"ipv4range:", IDIPv4Range}, {"ipv6range:", IDIPv6Range}, {"rfc822:", IDRFC822Addr}, {"email:", IDRFC822Addr},
	{"userfqdn:", IDRFC822Addr}, {"fqdn:", IDFQDN}, {"dns:", IDFQDN}, {"asn1dn:", IDDERASN1DN},
	{"asn1gn:", IDDERASN1GN}, {"keyid:", IDKeyID},
}

// ParseIdentity reads an identity in strongSwan's syntax: an address, prefix or
// address range; a name, with or without a leading @; a mail address; @#hex for
// a key identifier; one of the prefixes ipv4: ipv6: ipv4net: ipv6net: ipv4range:
// ipv6range: email: rfc822: userfqdn: fqdn: dns: keyid: before a value (hex after
// #), {number}: for any type; %any, 0.0.0.0, :: and * for every identity.
// What contains = is a distinguished name, "C=CH, O=strongSwan, CN=moon" or
// "/C=CH/O=strongSwan/CN=moon", also after asn1dn: (DER in hex after #); types are
// names or dotted numbers, a value * matches all, and one with separators stands in
// double quotes. asn1gn: takes DER in hex after # only.
func ParseIdentity(text string) (Identity, error) {
	text = strings.TrimSpace(text)
	if len(text) > limitIdentityText {
		return Identity{}, fmt.Errorf("identity longer than %d characters", limitIdentityText)
	}
	switch text {
	case "", "%any", "%any6", "0.0.0.0", "*", "::", "0::0":
		return Identity{}, nil
	}
	lower := strings.ToLower(text)
	for _, p := range identityPrefixes {
		if value, ok := strings.CutPrefix(lower, p.prefix); ok {
			if p.typ != IDKeyID && strings.HasPrefix(value, "^") && strings.HasSuffix(value, "$") {
				return Identity{}, fmt.Errorf("identity %q: regular expressions are not supported; a name may begin with *, a value of a distinguished name may be *", text)
			}
			return identityOf(p.typ, text[len(p.prefix):])
		}
	}
	if strings.HasPrefix(text, "{") {
		if num, value, ok := strings.Cut(text[1:], "}:"); ok {
			n, err := strconv.ParseUint(num, 0, 8)
			if err != nil || n == 0 {
				return Identity{}, fmt.Errorf("identity %q: bad type number %q", text, num)
			}
			return identityOf(uint8(n), value)
		}
	}
	switch {
	case strings.HasPrefix(text, "@#"):
		return identityOf(IDKeyID, text[1:])
	case strings.HasPrefix(text, "@@"):
		return Identity{IDRFC822Addr, text[2:]}, nil
	case strings.HasPrefix(text, "@"):
		return Identity{IDFQDN, text[1:]}, nil
	case strings.Contains(text, "="):
		return dnFromText(text)
	case strings.Contains(text, "@"):
		return Identity{IDRFC822Addr, text}, nil
	}
	v6 := strings.Contains(text, ":")
	typ := map[bool][3]uint8{false: {IDIPv4Addr, IDIPv4Subnet, IDIPv4Range}, true: {IDIPv6Addr, IDIPv6Subnet, IDIPv6Range}}[v6]
	for _, t := range typ {
		if id, err := identityOf(t, text); err == nil {
			return id, nil
		}
	}
	if v6 {
		return Identity{IDKeyID, text}, nil
	}
	return Identity{IDFQDN, text}, nil
}

func identityOf(typ uint8, value string) (Identity, error) {
	if strings.HasPrefix(value, "#") {
		b, err := hex.DecodeString(strings.ReplaceAll(value[1:], ":", ""))
		if err != nil {
			return Identity{}, fmt.Errorf("identity %q: bad hexadecimal value", value)
		}
		if typ == IDDERASN1DN {
			id, err := DNIdentity(b)
			if err != nil {
				return Identity{}, fmt.Errorf("identity %q: %w", value, err)
			}
			return id, nil
		}
		return Identity{typ, string(b)}, nil
	}
	switch typ {
	case IDIPv4Addr, IDIPv6Addr:
		a, err := netip.ParseAddr(value)
		if err != nil || a.Zone() != "" || a.Is4() != (typ == IDIPv4Addr) {
			return Identity{}, fmt.Errorf("identity %q is not an address of this family", value)
		}
		return Identity{typ, string(a.AsSlice())}, nil
	case IDIPv4Subnet, IDIPv6Subnet:
		p, err := netip.ParsePrefix(value)
		if err != nil || p.Addr().Is4() != (typ == IDIPv4Subnet) {
			return Identity{}, fmt.Errorf("identity %q is not a prefix of this family", value)
		}
		mask := make([]byte, p.Addr().BitLen()/8)
		for i := range p.Bits() {
			mask[i/8] |= 0x80 >> (i % 8)
		}
		return Identity{typ, string(p.Masked().Addr().AsSlice()) + string(mask)}, nil
	case IDIPv4Range, IDIPv6Range:
		lo, hi, ok := strings.Cut(value, "-")
		a, err := netip.ParseAddr(strings.TrimSpace(lo))
		b, err2 := netip.ParseAddr(strings.TrimSpace(hi))
		if !ok || err != nil || err2 != nil || a.Is4() != b.Is4() || a.Is4() != (typ == IDIPv4Range) || b.Less(a) || a.Zone()+b.Zone() != "" {
			return Identity{}, fmt.Errorf("identity %q is not an address range of this family", value)
		}
		return Identity{typ, string(a.AsSlice()) + string(b.AsSlice())}, nil
	case IDDERASN1DN:
		return dnFromText(value)
	case IDDERASN1GN:
		return Identity{}, fmt.Errorf("identity %q: a general name must be DER in hexadecimal after #", value)
	}
	if value == "" {
		return Identity{}, fmt.Errorf("empty identity")
	}
	return Identity{typ, value}, nil
}

// Qualities of Identity.Match.
const (
	MatchNone     = 0
	MatchAny      = 1  // the pattern is %any
	MatchWildcard = 10 // a wildcard, prefix or range; longer ones match better, up to MatchPerfect-1
	MatchPerfect  = 20
)

// IsAny reports whether the identity is the pattern %any.
func (id Identity) IsAny() bool { return id.Type == IDAny }

// Match says how well the identity fits a pattern, from MatchNone to
// MatchPerfect. A pattern is an identity, or %any, or a name or mail address
// with a leading *, or an address prefix or range, or a distinguished name with
// values of *. Names compare without case, distinguished names as strongSwan has
// it: in order, PrintableStrings without case, all else byte by byte.
func (id Identity) Match(pattern Identity) int {
	switch {
	case pattern.IsAny():
		return MatchAny
	case id.IsAny():
		return MatchNone
	case id == pattern:
		return MatchPerfect
	}
	switch pattern.Type {
	case IDFQDN, IDRFC822Addr:
		return id.matchText(pattern)
	case IDIPv4Subnet, IDIPv6Subnet, IDIPv4Range, IDIPv6Range:
		return id.matchRange(pattern)
	case IDDERASN1DN:
		return id.matchDN(pattern)
	}
	return MatchNone
}

// equalFold compares without the case of ASCII letters; strings.EqualFold would
// also take the Kelvin sign for a K, and make two names of one.
func equalFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

func (id Identity) matchText(pattern Identity) int {
	if id.Type != pattern.Type {
		return MatchNone
	}
	if equalFold(id.Data, pattern.Data) {
		return MatchPerfect
	}
	suffix, ok := strings.CutPrefix(pattern.Data, "*")
	if !ok || len(id.Data) < len(suffix) || !equalFold(id.Data[len(id.Data)-len(suffix):], suffix) {
		return MatchNone
	}
	return min(MatchWildcard+strings.Count(suffix, "."), MatchPerfect-1)
}

func (id Identity) matchRange(pattern Identity) int {
	n := 4
	if pattern.Type == IDIPv6Subnet || pattern.Type == IDIPv6Range {
		n = 16
	}
	if len(id.Data) != n || len(pattern.Data) != 2*n || (id.Type != IDIPv4Addr && id.Type != IDIPv6Addr) {
		return MatchNone
	}
	lo, hi := pattern.Data[:n], pattern.Data[n:]
	if pattern.Type == IDIPv4Range || pattern.Type == IDIPv6Range {
		if id.Data < lo || id.Data > hi {
			return MatchNone
		}
		return MatchWildcard
	}
	bits := 0
	for i := range n {
		if (id.Data[i]^lo[i])&hi[i] != 0 {
			return MatchNone
		}
		for b := hi[i]; b != 0; b <<= 1 {
			bits++
		}
	}
	return MatchWildcard + bits*(MatchPerfect-1-MatchWildcard)/(8*n)
}

// IsPattern reports whether the identity can stand for several ones, so that it
// cannot be sent.
func (id Identity) IsPattern() bool {
	switch id.Type {
	case IDAny, IDIPv4Subnet, IDIPv6Subnet, IDIPv4Range, IDIPv6Range:
		return true
	case IDFQDN, IDRFC822Addr:
		return strings.HasPrefix(id.Data, "*")
	case IDDERASN1DN:
		return dnIsPattern(id.Data)
	}
	return false
}

// String prints the identity as strongSwan does: %any, the address, the name,
// hexadecimal for key identifiers that are not text, "C=CH, O=strongSwan" for
// distinguished names. What is not printable ASCII is shown as ?.
func (id Identity) String() string {
	switch id.Type {
	case IDAny:
		return "%any"
	case IDIPv4Addr, IDIPv6Addr:
		if a, ok := netip.AddrFromSlice([]byte(id.Data)); ok {
			return a.String()
		}
		return "(invalid address)"
	case IDIPv4Subnet, IDIPv6Subnet, IDIPv4Range, IDIPv6Range:
		return id.rangeString()
	case IDFQDN, IDRFC822Addr:
		return printable(id.Data)
	case IDDERASN1DN:
		return dnString(id.Data)
	case IDDERASN1GN:
		return "(ASN.1 general name)"
	case IDKeyID:
		if p := printable(id.Data); p == id.Data {
			return p
		}
		return hex.EncodeToString([]byte(id.Data))
	}
	return fmt.Sprintf("{%d}:#%x", id.Type, id.Data)
}

func (id Identity) rangeString() string {
	half := len(id.Data) / 2
	a, ok := netip.AddrFromSlice([]byte(id.Data[:half]))
	b, ok2 := netip.AddrFromSlice([]byte(id.Data[half:]))
	if !ok || !ok2 {
		return "(invalid range)"
	}
	if id.Type == IDIPv4Range || id.Type == IDIPv6Range {
		return a.String() + "-" + b.String()
	}
	bits := 0
	for _, c := range []byte(id.Data[half:]) {
		for ; c&0x80 != 0; c <<= 1 {
			bits++
		}
	}
	return a.String() + "/" + strconv.Itoa(bits)
}

// printable shows each byte that is no printable ASCII as ?, as strongSwan does.
func printable(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c < 0x20 || c > 0x7e {
			b[i] = '?'
		}
	}
	return string(b)
}

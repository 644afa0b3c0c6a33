package ike

import (
	"encoding/asn1"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Bounds of distinguished names: in configured text (strongSwan's own limit), in
// DER from peers and certificates, and of what is printed.
const (
	limitTextRDNs   = 20
	limitRDNs       = 64
	limitDN         = 8192
	limitDNPrinted  = 1024
	limitOIDNumbers = 20
)

// rdnTypes are the attributes that strongSwan knows, the name that is printed
// first. E-mail addresses and unstructured names are IA5Strings, all others
// PrintableStrings where their characters allow it and UTF8Strings otherwise.
var rdnTypes = []struct {
	name string
	oid  asn1.ObjectIdentifier
	ia5  bool
}{
	{"CN", asn1.ObjectIdentifier{2, 5, 4, 3}, false}, {"SN", asn1.ObjectIdentifier{2, 5, 4, 4}, false},
	{"serialNumber", asn1.ObjectIdentifier{2, 5, 4, 5}, false}, {"C", asn1.ObjectIdentifier{2, 5, 4, 6}, false},
	{"L", asn1.ObjectIdentifier{2, 5, 4, 7}, false}, {"ST", asn1.ObjectIdentifier{2, 5, 4, 8}, false},
	{"STREET", asn1.ObjectIdentifier{2, 5, 4, 9}, false}, {"O", asn1.ObjectIdentifier{2, 5, 4, 10}, false},
	{"OU", asn1.ObjectIdentifier{2, 5, 4, 11}, false}, {"T", asn1.ObjectIdentifier{2, 5, 4, 12}, false},
	{"D", asn1.ObjectIdentifier{2, 5, 4, 13}, false}, {"postalAddress", asn1.ObjectIdentifier{2, 5, 4, 16}, false},
	{"postalCode", asn1.ObjectIdentifier{2, 5, 4, 17}, false}, {"N", asn1.ObjectIdentifier{2, 5, 4, 41}, false},
	{"G", asn1.ObjectIdentifier{2, 5, 4, 42}, false}, {"I", asn1.ObjectIdentifier{2, 5, 4, 43}, false},
	{"ID", asn1.ObjectIdentifier{2, 5, 4, 45}, false}, {"dnQualifier", asn1.ObjectIdentifier{2, 5, 4, 46}, false},
	{"dmdName", asn1.ObjectIdentifier{2, 5, 4, 54}, false}, {"pseudonym", asn1.ObjectIdentifier{2, 5, 4, 65}, false},
	{"role", asn1.ObjectIdentifier{2, 5, 4, 72}, false}, {"organizationIdentifier", asn1.ObjectIdentifier{2, 5, 4, 97}, false},
	{"UID", asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 1}, false},
	{"DC", asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 25}, false},
	{"E", oidEmail, true}, {"Email", oidEmail, true}, {"emailAddress", oidEmail, true},
	{"unstructuredName", asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 2}, true}, {"UN", asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 2}, true},
	{"unstructuredAddress", asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 8}, false}, {"UA", asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 8}, false},
	{"employeeNumber", asn1.ObjectIdentifier{2, 16, 840, 1, 113730, 3, 1, 3}, false}, {"EN", asn1.ObjectIdentifier{2, 16, 840, 1, 113730, 3, 1, 3}, false},
	{"ND", asn1.ObjectIdentifier{0, 2, 262, 1, 10, 7, 20}, false},
	{"TCGID", asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 1201, 1, 1, 2, 2, 75}, false},
}

var oidEmail = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}

var errDN = errors.New("not the DER of a distinguished name")

// rdn is one attribute of a name. Attributes that share a SET (multi-valued RDNs)
// stand one after the other, so that text without "+" can name them.
type rdn struct {
	oid   asn1.ObjectIdentifier
	tag   cbasn1.Tag
	value []byte
}

func (r rdn) wildcard() bool { return len(r.value) == 1 && r.value[0] == '*' }

// equal compares as strongSwan does: the bytes, without case in PrintableStrings
// and e-mail addresses.
func (r rdn) equal(o rdn) bool {
	if r.tag == o.tag && (r.tag == cbasn1.PrintableString || r.tag == cbasn1.IA5String && r.oid.Equal(oidEmail)) {
		return equalFold(string(r.value), string(o.value))
	}
	return string(r.value) == string(o.value)
}

// parseDN takes a name apart (RFC 5280 §4.1.2.4). It wants every byte accounted
// for and at least one attribute.
func parseDN(der []byte) ([]rdn, error) {
	in := cryptobyte.String(der)
	var sets, set, seq cryptobyte.String
	if len(der) > limitDN || !in.ReadASN1(&sets, cbasn1.SEQUENCE) || !in.Empty() || sets.Empty() {
		return nil, errDN
	}
	var list []rdn
	for !sets.Empty() {
		if !sets.ReadASN1(&set, cbasn1.SET) || set.Empty() {
			return nil, errDN
		}
		for !set.Empty() {
			var r rdn
			var value cryptobyte.String
			if !set.ReadASN1(&seq, cbasn1.SEQUENCE) || !seq.ReadASN1ObjectIdentifier(&r.oid) ||
				!seq.ReadAnyASN1(&value, &r.tag) || !seq.Empty() || len(list) == limitRDNs {
				return nil, errDN
			}
			r.value = value
			list = append(list, r)
		}
	}
	return list, nil
}

// DNIdentity is the identity of a distinguished name in DER, such as a
// certificate's subject. The empty name is none: who has it goes by a
// subjectAltName.
func DNIdentity(der []byte) (Identity, error) {
	if _, err := parseDN(der); err != nil {
		return Identity{}, err
	}
	return Identity{IDDERASN1DN, string(der)}, nil
}

// matchDN compares RDN by RDN, in order, as strongSwan does by default; a value "*"
// of the pattern stands for every value and costs one.
func (id Identity) matchDN(pattern Identity) int {
	if id.Type != pattern.Type {
		return MatchNone
	}
	have, err := parseDN([]byte(id.Data))
	want, err2 := parseDN([]byte(pattern.Data))
	if err != nil || err2 != nil || len(have) != len(want) {
		return MatchNone
	}
	quality := MatchPerfect
	for i, w := range want {
		switch {
		case !have[i].oid.Equal(w.oid):
			return MatchNone
		case w.wildcard():
			quality--
		case !have[i].equal(w):
			return MatchNone
		}
	}
	return max(quality, MatchAny+1)
}

// dnIsPattern reports whether a value of the name is "*".
func dnIsPattern(der string) bool {
	list, err := parseDN([]byte(der))
	return err == nil && slices.ContainsFunc(list, rdn.wildcard)
}

// dnString prints a name on one line, bounded. Deviates: where strongSwan prints
// values as they are, those with commas or quotes stand in quotes, so that no
// value looks like two; unknown attributes are dotted numbers, not hexadecimal.
// Both are read again by ParseIdentity.
func dnString(der string) string {
	if der == "\x30\x00" {
		return ""
	}
	list, err := parseDN([]byte(der))
	if err != nil {
		return "(invalid ID_DER_ASN1_DN)"
	}
	var b strings.Builder
	for i, r := range list {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(rdnName(r.oid))
		b.WriteByte('=')
		b.WriteString(quoted(printable(string(r.value))))
		if b.Len() > limitDNPrinted {
			return b.String()[:limitDNPrinted] + "..."
		}
	}
	return b.String()
}

func rdnName(oid asn1.ObjectIdentifier) string {
	for _, t := range rdnTypes {
		if t.oid.Equal(oid) {
			return t.name
		}
	}
	return oid.String()
}

func quoted(s string) string {
	if s == "" || !strings.ContainsAny(s, `,"`) && s[0] != '=' && s == strings.Trim(s, " ") {
		return s
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// dnFromText reads "C=CH, O=strongSwan, CN=moon" or "/C=CH/O=strongSwan/CN=moon".
// A value in quotes may contain the separator; \ before " and \ inside quotes.
// Deviates: strongSwan takes what it can't read for a key identifier.
func dnFromText(text string) (Identity, error) {
	fail := func(format string, args ...any) (Identity, error) {
		return Identity{}, fmt.Errorf("identity %q: %s", text, fmt.Sprintf(format, args...))
	}
	sep, rest := ",", strings.Trim(text, " ")
	if after, ok := strings.CutPrefix(rest, "/"); ok {
		sep, rest = "/", after
	}
	b := cryptobyte.NewBuilder(nil)
	var failure error
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for n := 0; rest != "" && failure == nil; n++ {
			var name, value string
			if name, value, rest, failure = cutRDN(rest, sep); failure != nil {
				return
			}
			if n == limitTextRDNs {
				failure = fmt.Errorf("more than %d elements", limitTextRDNs)
				return
			}
			failure = addRDN(b, name, value)
		}
	})
	if failure != nil {
		return fail("%v", failure)
	}
	der, err := b.Bytes()
	if err != nil {
		return fail("%v", err)
	}
	id, err := DNIdentity(der)
	if err != nil {
		return fail("%v", err)
	}
	return id, nil
}

// cutRDN takes one name=value from the front of text.
func cutRDN(text, sep string) (name, value, rest string, err error) {
	name, rest, ok := strings.Cut(text, "=")
	name = strings.Trim(name, " ")
	if !ok || name == "" || strings.Contains(name, sep) {
		return "", "", "", fmt.Errorf("%q is not of the form name=value (keyid: before it if it is no distinguished name)", name)
	}
	rest = strings.TrimLeft(rest, " =")
	if !strings.HasPrefix(rest, `"`) {
		value, rest, _ = strings.Cut(rest, sep)
		return name, strings.TrimRight(value, " "), strings.TrimLeft(rest, " "), nil
	}
	var v strings.Builder
	for i := 1; i < len(rest); i++ {
		switch c := rest[i]; {
		case c == '\\' && i+1 < len(rest) && (rest[i+1] == '"' || rest[i+1] == '\\'):
			i++
			v.WriteByte(rest[i])
		case c == '"':
			after := strings.TrimLeft(rest[i+1:], " ")
			if after != "" && !strings.HasPrefix(after, sep) {
				return "", "", "", fmt.Errorf("%q stands after the quoted value of %s", after, name)
			}
			return name, v.String(), strings.TrimLeft(strings.TrimPrefix(after, sep), " "), nil
		default:
			v.WriteByte(c)
		}
	}
	return "", "", "", fmt.Errorf("the quotes of %s are not closed", name)
}

func addRDN(b *cryptobyte.Builder, name, value string) error {
	oid, tag := asn1.ObjectIdentifier(nil), cbasn1.PrintableString
	for _, t := range rdnTypes {
		if strings.EqualFold(t.name, name) {
			oid = t.oid
			if t.ia5 {
				tag = cbasn1.IA5String
			}
			break
		}
	}
	if oid == nil {
		var ok bool
		if oid, ok = oidFromText(name); !ok {
			return fmt.Errorf("unknown attribute %q (keyid: before it if it is no distinguished name)", name)
		}
	}
	if tag == cbasn1.PrintableString && strings.ContainsFunc(value, unprintableString) {
		tag = cbasn1.UTF8String
	}
	b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oid)
			b.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddBytes([]byte(value)) })
		})
	})
	return nil
}

// unprintableString reports characters that a PrintableString can't hold. The "*"
// is one, so that wildcards are UTF8Strings, in strongSwan as well.
func unprintableString(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(" '()+,-./:=?", r))
}

func oidFromText(s string) (asn1.ObjectIdentifier, bool) {
	parts := strings.Split(s, ".")
	if len(parts) < 2 || len(parts) > limitOIDNumbers {
		return nil, false
	}
	var oid asn1.ObjectIdentifier
	for _, p := range parts {
		n, err := strconv.ParseUint(p, 10, 31)
		if err != nil || p != strconv.FormatUint(n, 10) {
			return nil, false
		}
		oid = append(oid, int(n))
	}
	// 2.n must fit 31 bits with 80 added, as it is coded.
	return oid, oid[0] < 2 && oid[1] < 40 || oid[0] == 2 && oid[1] <= 1<<31-1-80
}

// CertificateIdentities are all identities that a certificate confirms, for
// Identity.ConfirmedBy: the subject in DER, the subjectAltNames, and under
// ID_KEY_ID the key identifiers that the caller wants to count (strongSwan: the
// subjectKeyIdentifier, SHA-1 of subjectPublicKey, of SubjectPublicKeyInfo and of
// the certificate). userPrincipalName and xmppAddr belong among the emails, as in
// strongSwan; URIs match no identification type of IKE. The CN never counts as a
// name or address (RFC 4945 §3.1). What is empty or malformed is left out.
func CertificateIdentities(subjectDER []byte, dns, emails []string, ips []netip.Addr, keyIDs ...[]byte) []Identity {
	var list []Identity
	if id, err := DNIdentity(subjectDER); err == nil {
		list = append(list, id)
	}
	text := func(typ uint8, names []string) {
		for _, n := range names {
			if n != "" {
				list = append(list, Identity{typ, n})
			}
		}
	}
	text(IDFQDN, dns)
	text(IDRFC822Addr, emails)
	for _, a := range ips {
		if a.IsValid() {
			list = append(list, IdentityFromAddr(a))
		}
	}
	for _, k := range keyIDs {
		if len(k) > 0 {
			list = append(list, Identity{IDKeyID, string(k)})
		}
	}
	return list
}

// ConfirmedBy reports whether a certificate with these identities is one of id's,
// which a peer claimed. The identity must be among them: a claimed pattern ("*")
// is confirmed by none, and a wildcard in the certificate stands for itself.
func (id Identity) ConfirmedBy(certificate []Identity) bool {
	return !id.IsPattern() && slices.ContainsFunc(certificate, func(c Identity) bool {
		return c.Match(id) == MatchPerfect
	})
}

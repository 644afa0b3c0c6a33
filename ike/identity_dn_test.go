package ike_test

import (
	"encoding/asn1"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"adit/ike"
)

const (
	tagUTF8      = 12
	tagPrintable = 19
	tagIA5       = 22
	tagBMP       = 30
)

// attribute and name build DER with encoding/asn1, which the code does not use.
type attribute struct {
	oid   asn1.ObjectIdentifier
	tag   int
	value string
}

func name(t testing.TB, list ...attribute) ike.Identity {
	t.Helper()
	type pair struct {
		Type  asn1.ObjectIdentifier
		Value asn1.RawValue
	}
	var sets []asn1.RawValue
	for _, a := range list {
		der, err := asn1.MarshalWithParams([]pair{{a.oid, asn1.RawValue{Tag: a.tag, Bytes: []byte(a.value)}}}, "set")
		if err != nil {
			t.Fatal(err)
		}
		sets = append(sets, asn1.RawValue{FullBytes: der})
	}
	der, err := asn1.Marshal(sets)
	if err != nil {
		t.Fatal(err)
	}
	return ike.Identity{Type: ike.IDDERASN1DN, Data: string(der)}
}

var (
	oidC  = asn1.ObjectIdentifier{2, 5, 4, 6}
	oidO  = asn1.ObjectIdentifier{2, 5, 4, 10}
	oidCN = asn1.ObjectIdentifier{2, 5, 4, 3}
	oidE  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}
)

func TestParseIdentity_DistinguishedNames(t *testing.T) {
	moon := []attribute{{oidC, tagPrintable, "CH"}, {oidO, tagPrintable, "strongSwan"}, {oidCN, tagPrintable, "moon.strongswan.org"}}
	for _, tt := range []struct {
		text string
		want []attribute
		show string
	}{
		{"C=CH, O=strongSwan, CN=moon.strongswan.org", moon, "C=CH, O=strongSwan, CN=moon.strongswan.org"},
		{"/C=CH/O=strongSwan/CN=moon.strongswan.org", moon, "C=CH, O=strongSwan, CN=moon.strongswan.org"},
		{"asn1dn:c=CH,o=strongSwan,cn=moon.strongswan.org", moon, "C=CH, O=strongSwan, CN=moon.strongswan.org"},
		{"  C = CH ,  O= strongSwan  , CN=moon.strongswan.org, ", moon, "C=CH, O=strongSwan, CN=moon.strongswan.org"},
		{"2.5.4.6=CH, 2.5.4.10=strongSwan, CN=moon.strongswan.org", moon, "C=CH, O=strongSwan, CN=moon.strongswan.org"},
		{"/C=CH/CN=a, b", []attribute{{oidC, tagPrintable, "CH"}, {oidCN, tagPrintable, "a, b"}}, `C=CH, CN="a, b"`},
		{`CN="a, \"b\\", C=CH`, []attribute{{oidCN, tagUTF8, `a, "b\`}, {oidC, tagPrintable, "CH"}}, `CN="a, \"b\\", C=CH`},
		{`CN=""`, []attribute{{oidCN, tagPrintable, ""}}, "CN="},
		{"CN=", []attribute{{oidCN, tagPrintable, ""}}, "CN="},
		{"CN=*", []attribute{{oidCN, tagUTF8, "*"}}, "CN=*"},
		{"CN=a=b", []attribute{{oidCN, tagPrintable, "a=b"}}, "CN=a=b"},
		{"CN=Zürich", []attribute{{oidCN, tagUTF8, "Zürich"}}, "CN=Z??rich"},
		{"emailAddress=a@b", []attribute{{oidE, tagIA5, "a@b"}}, "E=a@b"},
		{"1.2.3=x", []attribute{{asn1.ObjectIdentifier{1, 2, 3}, tagPrintable, "x"}}, "1.2.3=x"},
		{"asn1dn:#300c310a300806035504031301" + "78", []attribute{{oidCN, tagPrintable, "x"}}, "CN=x"},
		{"CN=x\ny", []attribute{{oidCN, tagUTF8, "x\ny"}}, "CN=x?y"},
	} {
		id, err := ike.ParseIdentity(tt.text)
		if err != nil || id != name(t, tt.want...) || id.String() != tt.show {
			t.Errorf("%q: %d %x %s %v", tt.text, id.Type, id.Data, id, err)
		}
	}
	for _, bad := range []string{"CN=x, O", "CN=x,,O=y", "=x", "foo=bar", "CN=x, foo=bar", `CN="x`, `CN="x" y`, "1=x", "3.1=x", "1.40=x", "1.02=x", "1.-2=x",
		"2.99999999999=x", strings.Repeat("1.", 30) + "1=x", strings.Repeat("O=x,", 21), "asn1dn:moon", "asn1dn:#30", "asn1dn:#", "/=x", "asn1dn:"} {
		if id, err := ike.ParseIdentity(bad); err == nil {
			t.Errorf("%q is taken as %v", bad, id)
		}
	}
	if id, err := ike.ParseIdentity("keyid:group=foo"); err != nil || id.Type != ike.IDKeyID {
		t.Error(id, err)
	}
	if id, err := ike.ParseIdentity("asn1gn:#8201" + "78"); err != nil || id.Type != ike.IDDERASN1GN || id.String() != "(ASN.1 general name)" {
		t.Error(id, err)
	}
}

// The DER is what strongSwan's pki --self --dn made of the same text.
func TestParseIdentity_AsStrongSwanEncodes(t *testing.T) {
	const want = "3081e3310b300906035504061302434831133011060355040a130a7374726f6e675377616e3110300e060355040b0c075ac3bc72696368311c301a06035504031313" +
		"6d6f6f6e2e7374726f6e677377616e2e6f72673114301206092a864886f70d01090116056140622e633111300f060a0992268993f22c64011913017831133011060c2b0601040189" +
		"31010102024b1301313111300f060a6086480186f842030103130137310e300c0607028206010a07141301613110300e06092a864886f70d0109021601753110300e06092a864886" +
		"f70d010908130176310a300806035504030c012a"
	id, err := ike.ParseIdentity("C=CH, O=strongSwan, OU=Zürich, CN=moon.strongswan.org, E=a@b.c, DC=x, TCGID=1, EN=7, ND=a,UN=u, UA=v, CN=*")
	if err != nil || hex.EncodeToString([]byte(id.Data)) != want {
		t.Errorf("%x %v", id.Data, err)
	}
	if s := id.String(); s != "C=CH, O=strongSwan, OU=Z??rich, CN=moon.strongswan.org, E=a@b.c, DC=x, TCGID=1, employeeNumber=7, ND=a, unstructuredName=u, unstructuredAddress=v, CN=*" {
		t.Error(s)
	}
}

func TestIdentityMatch_DistinguishedNames(t *testing.T) {
	// OpenSSL writes UTF8Strings where strongSwan writes PrintableStrings.
	openssl := name(t, attribute{oidC, tagPrintable, "CH"}, attribute{oidO, tagUTF8, "strongSwan"}, attribute{oidCN, tagUTF8, "moon.strongswan.org"})
	printed := name(t, attribute{oidC, tagPrintable, "CH"}, attribute{oidO, tagPrintable, "strongSwan"}, attribute{oidCN, tagPrintable, "moon.strongswan.org"})
	bmp := name(t, attribute{oidC, tagPrintable, "CH"}, attribute{oidO, tagBMP, "\x00s"}, attribute{oidCN, tagUTF8, "moon.strongswan.org"})
	mail := name(t, attribute{oidE, tagIA5, "Carol@Example.org"})
	star := name(t, attribute{oidCN, tagUTF8, "*"})
	for _, tt := range []struct {
		id      ike.Identity
		pattern string
		want    int
	}{
		{openssl, "C=CH, O=strongSwan, CN=moon.strongswan.org", ike.MatchPerfect},
		{printed, "C=CH, O=strongSwan, CN=moon.strongswan.org", ike.MatchPerfect},
		{printed, "C=ch, O=STRONGSWAN, CN=moon.strongSwan.org", ike.MatchPerfect},
		{openssl, "C=CH, O=STRONGSWAN, CN=moon.strongswan.org", ike.MatchNone},
		{openssl, "C=CH, O=strongSwan, CN=*", ike.MatchPerfect - 1},
		{openssl, "C=CH, O=*, CN=*", ike.MatchPerfect - 2},
		{openssl, "C=*, O=*, CN=*", ike.MatchPerfect - 3},
		{bmp, "C=CH, O=*, CN=*", ike.MatchPerfect - 2},
		{bmp, "C=CH, O=s, CN=*", ike.MatchNone},
		{openssl, "C=CH, O=*", ike.MatchNone},
		{openssl, "C=CH, O=*, CN=*, OU=*", ike.MatchNone},
		{openssl, "CN=*, O=*, C=*", ike.MatchNone},
		{openssl, "C=CH, OU=strongSwan, CN=moon.strongswan.org", ike.MatchNone},
		{openssl, "C=CH, O=strongSwan, CN=*.strongswan.org", ike.MatchNone},
		{openssl, "C=CH, O=strongSwan, CN=sun.strongswan.org", ike.MatchNone},
		{openssl, "%any", ike.MatchAny},
		{openssl, "moon.strongswan.org", ike.MatchNone},
		{mail, "E=carol@example.org", ike.MatchPerfect},
		{star, "CN=moon", ike.MatchNone},
		{ike.Identity{Type: ike.IDFQDN, Data: openssl.Data}, "C=CH, O=strongSwan, CN=*", ike.MatchNone},
		{ike.Identity{Type: ike.IDDERASN1DN, Data: openssl.Data + "\x00"}, "C=CH, O=strongSwan, CN=*", ike.MatchNone},
	} {
		pattern, err := ike.ParseIdentity(tt.pattern)
		if err != nil {
			t.Fatal(err)
		}
		if got := tt.id.Match(pattern); got != tt.want {
			t.Errorf("%s against %s: %d, want %d", tt.id, tt.pattern, got, tt.want)
		}
	}
	if m := printed.Match(name(t, attribute{oidC, tagPrintable, "CH"}, attribute{oidO, tagUTF8, "STRONGSWAN"}, attribute{oidCN, tagUTF8, "*"})); m != ike.MatchNone {
		t.Errorf("a UTF8String is compared without case: %d", m)
	}
	if openssl.IsPattern() || !star.IsPattern() {
		t.Error("a wildcard makes the pattern")
	}
	long, pattern := []attribute{}, []attribute{}
	for range 30 {
		long, pattern = append(long, attribute{oidO, tagUTF8, "x"}), append(pattern, attribute{oidO, tagUTF8, "*"})
	}
	if m := name(t, long...).Match(name(t, pattern...)); m <= ike.MatchAny {
		t.Errorf("30 wildcards match with %d, no better than %%any", m)
	}
}

// Names without letters of their own case, and letters that fold to ASCII.
func TestIdentityMatch_KelvinSign(t *testing.T) {
	a, b := ike.Identity{Type: ike.IDFQDN, Data: "moon-\u212a"}, ike.Identity{Type: ike.IDFQDN, Data: "moon-k"}
	if a.Match(b) != ike.MatchNone {
		t.Error("the Kelvin sign is taken for a k")
	}
}

// A multi-valued RDN is named by its attributes in order, as in strongSwan.
func TestIdentityMatch_MultiValuedRDN(t *testing.T) {
	der, err := hex.DecodeString("3016" + "3114" + "3008" + "06035504031301" + "61" + "3008" + "060355040b1301" + "62")
	if err != nil {
		t.Fatal(err)
	}
	id, err := ike.DNIdentity(der)
	if err != nil || id.Match(dn(t, "CN=a, OU=b")) != ike.MatchPerfect || id.String() != "CN=a, OU=b" {
		t.Error(id, err)
	}
}

func dn(t testing.TB, text string) ike.Identity {
	t.Helper()
	id, err := ike.ParseIdentity(text)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestDNIdentity_HostileDER(t *testing.T) {
	attr := func(n int) string { return strings.Repeat("310a300806035504031301"+"78", n) }
	seq := func(body string) string {
		n := len(body) / 2
		if n < 128 {
			return "30" + hex.EncodeToString([]byte{byte(n)}) + body
		}
		return "3082" + hex.EncodeToString([]byte{byte(n >> 8), byte(n)}) + body
	}
	for what, text := range map[string]string{
		"nothing": "", "empty name": "3000", "no sequence": "310a300806035504031301" + "78", "byte after the end": seq(attr(1)) + "00",
		"empty set": seq("3100"), "attribute without value": seq("310730050603550403"), "length beyond the end": "30ff", "indefinite length": "3080" + attr(1) + "0000",
		"something after the value": seq("310c300a0603550403130178" + "0500"), "value beyond its attribute": seq("310a300806035504031302" + "78"),
		"empty object identifier": seq("31073005060013" + "0178"), "65 attributes": seq(attr(65)), "padded length": "30810c" + attr(1),
		"9 kB": seq("31822300" + "308222fc" + "0603550403" + "138222f3" + strings.Repeat("78", 0x22f3)), "nested sets": seq(strings.Repeat("3102", 60) + "3100"),
	} {
		der, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(what, err)
		}
		if id, err := ike.DNIdentity(der); err == nil {
			t.Errorf("%s is taken as %s", what, id)
		}
		id := ike.Identity{Type: ike.IDDERASN1DN, Data: string(der)}
		if s := id.String(); s != "(invalid ID_DER_ASN1_DN)" && s != "" {
			t.Errorf("%s prints as %q", what, s)
		}
	}
	full, _ := hex.DecodeString(seq(attr(64)))
	if _, err := ike.DNIdentity(full); err != nil {
		t.Error(err)
	}
	if s := name(t, attribute{oidCN, tagUTF8, strings.Repeat("\x1b", 5000)}).String(); len(s) > 1100 || strings.Contains(s, "\x1b") {
		t.Errorf("a long name prints as %d characters", len(s))
	}
	if s := name(t, attribute{oidCN, tagUTF8, "eve, CN=admin"}).String(); s != `CN="eve, CN=admin"` {
		t.Errorf("one value prints as two: %s", s)
	}
}

// RFC 4945 §3.1: what is claimed must be in the certificate, type for type.
func TestRFC4945_3_1_CertificateIdentities(t *testing.T) {
	subject := dn(t, "C=CH, O=strongSwan, CN=moon.strongswan.org")
	list := ike.CertificateIdentities([]byte(subject.Data), []string{"gw.example.org", "*.wild.example.org", ""}, []string{"carol@example.org"},
		[]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"), {}}, []byte{1, 2, 3, 4}, nil)
	if len(list) != 7 {
		t.Errorf("%v", list)
	}
	for text, want := range map[string]bool{
		"C=CH, O=strongSwan, CN=moon.strongswan.org": true, "C=CH, O=strongSwan, CN=sun.strongswan.org": false, "C=CH, O=strongSwan, CN=*": false,
		"moon.strongswan.org": false, "gw.example.org": true, "GW.example.org": true, "*.example.org": false, "a.wild.example.org": false,
		"*.wild.example.org": false, "@*": false, "%any": false, "carol@example.org": true, "email:gw.example.org": false, "*@example.org": false,
		"192.0.2.1": true, "192.0.2.2": false, "192.0.2.0/24": false, "fqdn:192.0.2.1": false, "2001:db8::1": true, "@#01020304": true, "@#0102": false,
		"keyid:gw.example.org": false, "asn1gn:#820178": false,
	} {
		if got := dn(t, text).ConfirmedBy(list); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
	if list := ike.CertificateIdentities([]byte{0x30, 0}, []string{"a"}, nil, nil); len(list) != 1 {
		t.Errorf("an empty subject counts: %v", list)
	}
	if (ike.Identity{Type: ike.IDDERASN1DN, Data: "0\x00"}).ConfirmedBy(ike.CertificateIdentities([]byte{0x30, 0}, nil, nil, nil)) {
		t.Error("the empty name is confirmed")
	}
}

func FuzzDNIdentity(f *testing.F) {
	for _, s := range []string{"C=CH, O=strongSwan, CN=*", "E=a@b", `CN="a, \"b"`, "1.2.3=x"} {
		f.Add([]byte(dn(f, s).Data), []byte(dn(f, "C=CH, O=*, CN=*").Data))
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		x, err := ike.DNIdentity(a)
		y, err2 := ike.DNIdentity(b)
		if s := (ike.Identity{Type: ike.IDDERASN1DN, Data: string(a)}).String(); len(s) > 1100 {
			t.Fatalf("%x prints as %d characters", a, len(s))
		}
		if err != nil || err2 != nil {
			return
		}
		if x.Match(x) != ike.MatchPerfect {
			t.Fatalf("%x does not match itself", a)
		}
		if m := x.Match(y); m != ike.MatchNone && (m <= ike.MatchAny || m > ike.MatchPerfect || m < ike.MatchPerfect && !y.IsPattern()) {
			t.Fatalf("%x against %x: %d", a, b, m)
		}
		// What is plain text comes back from its printed form.
		if again, err := ike.ParseIdentity(x.String()); err == nil && again.Type == ike.IDDERASN1DN {
			if s := again.String(); s != x.String() {
				t.Fatalf("%x prints as %q, and that as %q", a, x, s)
			}
		}
	})
}

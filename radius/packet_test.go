package radius_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"adit/radius"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The header of the packets below, with a length to be put between.
const zeros16 = "00000000000000000000000000000000"

func TestRFC2865_3_ParseStrict(t *testing.T) {
	many := "0101" + "%%%%" + zeros16 + strings.Repeat("0102", radius.MaxAttributes+1)
	many = strings.Replace(many, "%%%%", "0416", 1) // 20 + 513*2
	for _, c := range []struct {
		name, in string
		err      error
		attrs    int
	}{
		{"empty", "", radius.ErrShort, 0},
		{"header cut", "01010014" + zeros16[2:], radius.ErrShort, 0},
		{"no attributes", "01010014" + zeros16, nil, 0},
		{"length below header", "01010013" + zeros16, radius.ErrLength, 0},
		{"length 0", "01010000" + zeros16, radius.ErrLength, 0},
		{"length beyond 4096", "01011001" + zeros16 + strings.Repeat("00", 5000), radius.ErrLength, 0},
		{"length beyond datagram", "01010017" + zeros16 + "0102", radius.ErrShort, 0},
		{"padding ignored", "01010016" + zeros16 + "0102" + "ffff", nil, 1},
		{"attribute of length 0", "01010016" + zeros16 + "0100", radius.ErrAttribute, 0},
		{"attribute of length 1", "01010016" + zeros16 + "0101", radius.ErrAttribute, 0},
		{"attribute beyond the end", "01010017" + zeros16 + "010461", radius.ErrAttribute, 0},
		{"half an attribute", "01010015" + zeros16 + "01", radius.ErrAttribute, 0},
		{"attribute reaching into padding", "01010016" + zeros16 + "0103" + "61", radius.ErrAttribute, 0},
		{"too many", many, radius.ErrTooMany, 0},
		{"RFC 6929 opaque", "0101001c" + zeros16 + "f108010203040506"[:16], nil, 1},
	} {
		p, err := radius.Parse(unhex(t, c.in))
		if !errors.Is(err, c.err) {
			t.Errorf("%s: %v, want %v", c.name, err, c.err)
		}
		if err == nil && len(p.Attributes) != c.attrs {
			t.Errorf("%s: %d attributes, want %d", c.name, len(p.Attributes), c.attrs)
		}
	}
}

func TestRFC2865_3_AppendRefusesTooLong(t *testing.T) {
	p := &radius.Packet{Code: radius.AccessRequest}
	p.Add(radius.TypeUserName, make([]byte, 254))
	if _, err := p.Append(nil); err != radius.ErrTooLong {
		t.Error("a value of 254 octets:", err)
	}
	p.Attributes = nil
	p.AddEAP(make([]byte, 4096))
	if _, err := p.Append(nil); err != radius.ErrTooLong {
		t.Error("a packet over 4096 octets:", err)
	}
	p.Attributes = make([]radius.Attribute, radius.MaxAttributes+1)
	if _, err := p.Append(nil); err != radius.ErrTooMany {
		t.Error("too many attributes:", err)
	}
}

// The packets of RFC 2865 §7.1.
const (
	nemoSecret   = "xyzzy5461"
	nemoRequest  = "01000038 0f403f9473978057bd83d5cb98f4227a 01066e656d6f 02120dbe708d93d413ce3196e43f782a0aee 0406c0a80110 050600000003"
	nemoResponse = "02000026 86fe220e7624ba2a1005f6bf9b55e0b2 060600000001 0f0600000000 0e06c0a80103"
)

func TestRFC2865_7_1_Telnet(t *testing.T) {
	b := unhex(t, nemoRequest)
	p, err := radius.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if p.Code != radius.AccessRequest || p.Identifier != 0 || len(p.Attributes) != 4 {
		t.Errorf("%+v", p)
	}
	if again, err := p.Append(nil); err != nil || !bytes.Equal(again, b) {
		t.Errorf("%x %v", again, err)
	}
	hidden, _ := p.Get(radius.TypeUserPassword)
	got, err := radius.HidePassword([]byte("arctangent"), &p.Authenticator, []byte(nemoSecret))
	if err != nil || !bytes.Equal(got, hidden) {
		t.Errorf("User-Password %x %v, want %x", got, err, hidden)
	}
	// The response is right but has no Message-Authenticator: not for us.
	if _, err = radius.OpenResponse(unhex(t, nemoResponse), 0, &p.Authenticator, []byte(nemoSecret)); err != radius.ErrNoMessageAuth {
		t.Errorf("response: %v", err)
	}
	wrong := unhex(t, nemoResponse)
	wrong[25]++
	if _, err = radius.OpenResponse(wrong, 0, &p.Authenticator, []byte(nemoSecret)); err != radius.ErrAuthenticator {
		t.Errorf("changed response: %v", err)
	}
}

func TestRFC2865_5_2_PasswordLengths(t *testing.T) {
	var ra [16]byte
	for n, want := range map[int]int{0: 16, 1: 16, 16: 16, 17: 32, 128: 128} {
		if b, err := radius.HidePassword(make([]byte, n), &ra, []byte("s")); err != nil || len(b) != want {
			t.Errorf("%d: %d octets, %v", n, len(b), err)
		}
	}
	if _, err := radius.HidePassword(make([]byte, 129), &ra, []byte("s")); err != radius.ErrPassword {
		t.Error(err)
	}
}

// The request of RFC 5997 §6.1 has the Message-Authenticator that RFC 3579 defines.
func TestRFC3579_3_2_MessageAuthenticatorVector(t *testing.T) {
	b := unhex(t, "0cda0026 8a54f4686fb394c52866e302185d0623 50125a665e2e1e8411f3e243822097c84fa3")
	if err := radius.VerifyRequest(b, []byte(nemoSecret)); err != nil {
		t.Error(err)
	}
	for i := range b {
		wrong := bytes.Clone(b)
		wrong[i] ^= 1
		if radius.VerifyRequest(wrong, []byte(nemoSecret)) == nil {
			t.Errorf("octet %d changed and verified", i)
		}
	}
	if radius.VerifyRequest(b, []byte("xyzzy5462")) != radius.ErrMessageAuth {
		t.Error("another secret verified")
	}
}

func TestRFC3579_3_1_EAPMessageSplit(t *testing.T) {
	for n, attrs := range map[int]int{0: 1, 1: 1, 253: 1, 254: 2, 506: 2, 507: 3, 3000: 12} {
		eap := bytes.Repeat([]byte{0xa5, 1, 2}, n)[:n]
		p := &radius.Packet{Code: radius.AccessRequest}
		p.AddEAP(eap)
		if len(p.Attributes) != attrs {
			t.Errorf("%d octets: %d attributes, want %d", n, len(p.Attributes), attrs)
		}
		b, err := p.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		q, err := radius.Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := q.EAP(); !ok || !bytes.Equal(got, eap) {
			t.Errorf("%d octets: joined to %d, %v", n, len(got), ok)
		}
	}
	if _, ok := new(radius.Packet).EAP(); ok {
		t.Error("an EAP-Message out of nothing")
	}
}

func TestCVE2024_3596_MessageAuthenticatorIsFirst(t *testing.T) {
	secret := []byte("s3cret")
	p := &radius.Packet{Code: radius.AccessRequest, Identifier: 7}
	p.AddString(radius.TypeUserName, "carol")
	p.Add(radius.TypeMessageAuthenticator, make([]byte, 16)) // the caller's is not ours
	p.AddString(radius.TypeUserPassword, "secret")
	b, err := radius.SealRequest(p, secret)
	if err != nil {
		t.Fatal(err)
	}
	q, err := radius.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if q.Attributes[0].Type != radius.TypeMessageAuthenticator || len(q.All(radius.TypeMessageAuthenticator)) != 1 {
		t.Errorf("%v", q.Attributes)
	}
	if err := radius.VerifyRequest(b, secret); err != nil {
		t.Error(err)
	}
	if bytes.Contains(b, []byte("secret")) {
		t.Error("the password is in clear")
	}
}

func response(t testing.TB, code radius.Code, id uint8, ra *[16]byte, secret string, attrs ...radius.Attribute) []byte {
	t.Helper()
	b, err := radius.SealResponse(&radius.Packet{Code: code, Identifier: id, Attributes: attrs}, ra, []byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRFC2865_3_ResponseVerified(t *testing.T) {
	ra := [16]byte{1, 2, 3}
	secret := []byte("s3cret")
	good := response(t, radius.AccessAccept, 9, &ra, "s3cret", radius.Attribute{Type: radius.TypeClass, Value: []byte("staff")})
	if p, err := radius.OpenResponse(append(bytes.Clone(good), 0, 0), 9, &ra, secret); err != nil || p.Code != radius.AccessAccept {
		t.Fatal(err)
	}
	if _, err := radius.OpenResponse(good, 8, &ra, secret); err != radius.ErrIdentifier {
		t.Error("wrong identifier:", err)
	}
	if _, err := radius.OpenResponse(good, 9, &[16]byte{}, secret); err != radius.ErrAuthenticator {
		t.Error("another request:", err)
	}
	if _, err := radius.OpenResponse(good, 9, &ra, []byte("other")); err != radius.ErrAuthenticator {
		t.Error("another secret:", err)
	}
	for i := range good {
		wrong := bytes.Clone(good)
		wrong[i] ^= 4
		if _, err := radius.OpenResponse(wrong, 9, &ra, secret); err == nil {
			t.Errorf("octet %d changed and verified", i)
		}
	}
	for _, code := range []radius.Code{radius.AccessRequest, radius.AccountingResponse, radius.CoAACK, radius.ProtocolError} {
		if _, err := radius.OpenResponse(response(t, code, 9, &ra, "s3cret"), 9, &ra, secret); err != radius.ErrCode {
			t.Errorf("%v: %v", code, err)
		}
	}
}

func TestFramedAddresses(t *testing.T) {
	for in, want := range map[string]string{
		"0a000001": "10.0.0.1", "ffffffff": "", "fffffffe": "", "00000000": "", "7f000001": "", "e0000001": "",
		"0a0000": "", "0a00000100": "",
	} {
		p := &radius.Packet{}
		p.Add(radius.TypeFramedIPAddress, unhex(t, in))
		a, ok := p.Framed4()
		if ok != (want != "") || ok && a.String() != want {
			t.Errorf("%s: %v %v", in, a, ok)
		}
	}
	p := &radius.Packet{}
	p.Add(radius.TypeFramedIPv6Address, unhex(t, "fd000000000000000000000000000007"))
	if a, ok := p.Framed6(); !ok || a != netip.MustParseAddr("fd00::7") {
		t.Error(a, ok)
	}
	p = &radius.Packet{}
	for _, s := range []string{"0040fd00000100020003", "0081", "00", "0040fd00", "0040fd00000100020003ffff"} {
		p.Add(radius.TypeFramedIPv6Prefix, unhex(t, s))
	}
	want := []netip.Prefix{netip.MustParsePrefix("fd00:1:2:3::/64"), netip.MustParsePrefix("fd00:1:2:3::/64")}
	if got := p.FramedPrefixes(); !reflect.DeepEqual(got, want) {
		t.Error(got)
	}
}

func TestRFC2865_5_26_VendorForms(t *testing.T) {
	p := &radius.Packet{}
	p.AddVendor(radius.VendorMicrosoft, 16, []byte("a"))
	p.AddVendor(9, 16, []byte("other vendor"))
	p.Add(radius.TypeVendorSpecific, unhex(t, "000001371003621104636411"))    // two and a rest
	p.Add(radius.TypeVendorSpecific, unhex(t, "00000137"))                    // none
	p.Add(radius.TypeVendorSpecific, unhex(t, "0000"))                        // no vendor
	p.Add(radius.TypeVendorSpecific, unhex(t, "000001371000"))                // length 0
	p.Add(radius.TypeVendorSpecific, unhex(t, "00000137100a"+"616263646566")) // beyond the end
	if got := p.Vendor(radius.VendorMicrosoft, 16); !reflect.DeepEqual(got, [][]byte{[]byte("a"), []byte("b")}) {
		t.Errorf("%q", got)
	}
	if got := p.Vendor(radius.VendorMicrosoft, 17); !reflect.DeepEqual(got, [][]byte{[]byte("cd")}) {
		t.Errorf("%q", got)
	}
}

func TestNames(t *testing.T) {
	if s := radius.AccessChallenge.String() + radius.Code(200).String(); s != "Access-ChallengeCode-200" {
		t.Error(s)
	}
	if s := radius.TypeFramedIPv6Prefix.String() + radius.Type(222).String(); s != "Framed-IPv6-PrefixAttr-222" {
		t.Error(s)
	}
}

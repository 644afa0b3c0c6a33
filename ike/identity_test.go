package ike_test

import (
	"net/netip"
	"testing"

	"adit/ike"
)

func TestParseIdentity(t *testing.T) {
	for _, tt := range []struct {
		text string
		typ  uint8
		data string
		show string
	}{
		{"%any", ike.IDAny, "", "%any"},
		{"", ike.IDAny, "", "%any"},
		{"0.0.0.0", ike.IDAny, "", "%any"},
		{"*", ike.IDAny, "", "%any"},
		{"192.0.2.1", ike.IDIPv4Addr, "\xc0\x00\x02\x01", "192.0.2.1"},
		{"2001:db8::1", ike.IDIPv6Addr, "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01", "2001:db8::1"},
		{"10.0.0.0/8", ike.IDIPv4Subnet, "\x0a\x00\x00\x00\xff\x00\x00\x00", "10.0.0.0/8"},
		{"10.0.0.1-10.0.0.9", ike.IDIPv4Range, "\x0a\x00\x00\x01\x0a\x00\x00\x09", "10.0.0.1-10.0.0.9"},
		{"moon.strongswan.org", ike.IDFQDN, "moon.strongswan.org", "moon.strongswan.org"},
		{"@moon", ike.IDFQDN, "moon", "moon"},
		{"fqdn:192.0.2.1", ike.IDFQDN, "192.0.2.1", "192.0.2.1"},
		{"carol@strongswan.org", ike.IDRFC822Addr, "carol@strongswan.org", "carol@strongswan.org"},
		{"@@carol", ike.IDRFC822Addr, "carol", "carol"},
		{"email:*@strongswan.org", ike.IDRFC822Addr, "*@strongswan.org", "*@strongswan.org"},
		{"@#0aff", ike.IDKeyID, "\x0a\xff", "0aff"},
		{"keyid:group", ike.IDKeyID, "group", "group"},
		{"keyid:#30:31", ike.IDKeyID, "01", "01"},
		{"ipv4:192.0.2.1", ike.IDIPv4Addr, "\xc0\x00\x02\x01", "192.0.2.1"},
		{"{11}:x", ike.IDKeyID, "x", "x"},
		{"a:b:zz", ike.IDKeyID, "a:b:zz", "a:b:zz"},
		{"evil\nname", ike.IDFQDN, "evil\nname", "evil?name"},
	} {
		id, err := ike.ParseIdentity(tt.text)
		if err != nil || id.Type != tt.typ || id.Data != tt.data || id.String() != tt.show {
			t.Errorf("%q: %d %q %q %v", tt.text, id.Type, id.Data, id, err)
		}
	}
	for _, bad := range []string{"fqdn:^.*\\.example$", "asn1dn:^C=CH, CN=.*$", "asn1gn:C=CH", "asn1dn:#3000", "ipv4:x", "keyid:#0", "{0}:x", "{x}:y", "ipv6:192.0.2.1", "keyid:", string(make([]byte, 2000))} {
		if id, err := ike.ParseIdentity(bad); err == nil {
			t.Errorf("%q is taken as %v", bad, id)
		}
	}
}

func TestIdentityMatch(t *testing.T) {
	for _, tt := range []struct {
		id, pattern string
		want        int
	}{
		{"moon.example", "moon.example", ike.MatchPerfect},
		{"Moon.Example", "moon.example", ike.MatchPerfect},
		{"moon.example", "%any", ike.MatchAny},
		{"moon.example", "*.example", 11},
		{"a.b.example", "*.b.example", 12},
		{"moon.example", "*", ike.MatchAny},
		{"moon.example", "@*", 10},
		{"moon.example", "sun.example", 0},
		{"moon.example", "email:*.example", 0},
		{"carol@example", "*@example", 10},
		{"192.0.2.9", "192.0.2.0/24", 16},
		{"192.0.3.9", "192.0.2.0/24", 0},
		{"192.0.2.9", "192.0.2.1-192.0.2.9", 10},
		{"2001:db8::9", "2001:db8::/32", 12},
		{"2001:db8::9", "192.0.2.0/24", 0},
		{"%any", "moon.example", 0},
		{"fqdn:192.0.2.1", "192.0.2.1", 0},
	} {
		id, err := ike.ParseIdentity(tt.id)
		pattern, err2 := ike.ParseIdentity(tt.pattern)
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		if got := id.Match(pattern); got != tt.want {
			t.Errorf("%s against %s: %d, want %d", tt.id, tt.pattern, got, tt.want)
		}
	}
	if id := ike.IdentityFromAddr(netip.MustParseAddr("::ffff:192.0.2.1")); id.String() != "192.0.2.1" {
		t.Error(id)
	}
}

func FuzzParseRedirectTarget(f *testing.F) {
	for _, s := range []string{"192.0.2.1", "2001:db8::1", "gw2.example", "*.example", "a@b", "-x", "", "10.0.0.0/8", "gw 2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		to, err := ike.ParseRedirectTarget(text)
		if (err == nil) != to.Valid() && err == nil {
			t.Fatalf("%q: %+v is not valid", text, to)
		}
		if err != nil {
			return
		}
		if again, err := ike.ParseRedirectTarget(to.String()); err != nil || again != to {
			t.Fatalf("%q: %+v becomes %+v %v", text, to, again, err)
		}
	})
}

func FuzzParseIdentity(f *testing.F) {
	for _, s := range []string{"%any", "192.0.2.1", "10.0.0.0/8", "10.0.0.1-10.0.0.9", "@#0aff", "a@b", "{11}:x", "2001:db8::/32", "keyid:#30:31"} {
		f.Add(s, "192.0.2.9")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		x, err := ike.ParseIdentity(a)
		y, err2 := ike.ParseIdentity(b)
		if err != nil || err2 != nil {
			return
		}
		for _, r := range x.String() {
			if r < 0x20 || r > 0x7e {
				t.Fatalf("%q prints as %q", a, x)
			}
		}
		if x.Match(x) == ike.MatchNone && !x.IsAny() {
			t.Fatalf("%q does not match itself", a)
		}
		if m := x.Match(y); m < 0 || m > ike.MatchPerfect {
			t.Fatalf("%q against %q: %d", a, b, m)
		}
	})
}

// Identities as peers send them: any type, any bytes.
func FuzzIdentityData(f *testing.F) {
	f.Add(uint8(1), "\x01", uint8(4), "\x01\x02\x03\x04\xff\xff\xff\xff")
	f.Add(uint8(5), "0123456789abcdef", uint8(6), "0123456789abcdef0123456789abcdef")
	f.Fuzz(func(t *testing.T, at uint8, a string, bt uint8, b string) {
		x, y := ike.Identity{Type: at, Data: a}, ike.Identity{Type: bt, Data: b}
		_, _ = x.Match(y), x.IsPattern()
		for _, r := range x.String() + y.String() {
			if r < 0x20 || r > 0x7e {
				t.Fatalf("%v %v prints control characters", x, y)
			}
		}
	})
}

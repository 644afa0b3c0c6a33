package dhcp

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"
)

// request is a DHCPINFORM as Windows 10 sends it: to the broadcast address, without a
// server, asking for 249 among others.
func request(options string) []byte {
	m := make([]byte, lenBOOTP)
	m[0], m[1], m[2] = 1, 8, 16 // a PPP-like link
	copy(m[4:], "\x12\x34\x56\x78")
	copy(m[12:], "\x0a\x63\x63\x63") // a client that lies about its address
	copy(m[236:], cookie[:])
	o, err := hex.DecodeString(strings.ReplaceAll(options, " ", ""))
	if err != nil {
		panic(err)
	}
	m = append(m, o...)
	b := append(make([]byte, lenIP+lenUDP), m...)
	b[0], b[8], b[9] = 0x45, 128, 17
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	copy(b[12:], "\x0a\x03\x00\x01\xff\xff\xff\xff")
	binary.BigEndian.PutUint16(b[20:], 68)
	binary.BigEndian.PutUint16(b[22:], 67)
	binary.BigEndian.PutUint16(b[24:], uint16(len(b)-lenIP))
	return b
}

const windows = "350108 3c084d53465420352e30 370606 2c 2b 0f f9 79 ff"

var office = Settings{Server: netip.MustParseAddr("10.2.0.1"), DNS: []netip.Addr{netip.MustParseAddr("10.2.0.53"), netip.MustParseAddr("fd02::53")}, Domains: []string{"corp.example"},
	Routes: []netip.Prefix{netip.MustParsePrefix("10.2.0.0/15"), netip.MustParsePrefix("192.0.2.128/25"), netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("fd02::/64")}}

func TestRFC3442_RoutesForWindows(t *testing.T) {
	q, err := ParseInform(request(windows))
	if err != nil {
		t.Fatal(err)
	}
	a := q.Answer(office)
	if sum(a[:lenIP], 0) != 0xffff || sum(a[lenIP:], uint32(sum(a[12:20], 17+uint32(len(a)-lenIP)))) != 0xffff {
		t.Error("a checksum is wrong")
	}
	if !bytes.Equal(a[12:20], []byte{10, 2, 0, 1, 10, 3, 0, 1}) || binary.BigEndian.Uint16(a[20:]) != 67 || binary.BigEndian.Uint16(a[22:]) != 68 {
		t.Errorf("headers %x", a[:28])
	}
	m := a[28:]
	if m[0] != 2 || string(m[4:8]) != "\x12\x34\x56\x78" || !bytes.Equal(m[12:20], []byte{10, 3, 0, 1, 0, 0, 0, 0}) {
		t.Errorf("BOOTP %x", m[:44])
	}
	want := "350105" + "36040a020001" + "06040a020035" + "0f0c" + hex.EncodeToString([]byte("corp.example")) +
		"7910" + "0f0a020a020001" + "19c00002800a020001" + "f910" + "0f0a020a020001" + "19c00002800a020001" + "ff"
	if got := hex.EncodeToString(m[lenBOOTP:]); !strings.HasPrefix(got, want) || strings.Trim(got[len(want):], "0") != "" {
		t.Errorf("options\n%s, want\n%s", got, want)
	}
}

// A client gets what it asks for and no more; long lists are cut into pieces of one option.
func TestRFC3396_LongOptions(t *testing.T) {
	q, err := ParseInform(request("350108 3701f9 ff"))
	if err != nil {
		t.Fatal(err)
	}
	s := office
	s.Routes = nil
	for i := range 200 {
		s.Routes = append(s.Routes, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 9, byte(i), 0}), 24))
	}
	a := q.Answer(s)
	var routes []byte
	for o := a[28+lenBOOTP:]; o[0] != optionEnd; o = o[2+int(o[1]):] {
		switch o[0] {
		case optionMSRoutes:
			routes = append(routes, o[2:2+int(o[1])]...)
		case optionType, optionServer:
		default:
			t.Errorf("option %d was not asked for", o[0])
		}
	}
	if len(routes) != maxRoutes*8 || len(a) > MaxPacket {
		t.Errorf("%d bytes of routes in %d", len(routes), len(a))
	}
}

func TestParseInformRefuses(t *testing.T) {
	good := request(windows)
	for what, f := range map[string]func(b []byte) []byte{
		"a DHCPDISCOVER":     func([]byte) []byte { return request("350101 ff") },
		"no type":            func([]byte) []byte { return request("ff") },
		"an answer":          func(b []byte) []byte { b[28] = 2; return b },
		"an option too long": func([]byte) []byte { return request("350108 37ff06") },
		"no cookie":          func(b []byte) []byte { b[28+236]++; return b },
		"a fragment":         func(b []byte) []byte { b[6] = 0x20; return b },
		"TCP":                func(b []byte) []byte { b[9] = 6; return b },
		"a cut packet":       func(b []byte) []byte { return b[:len(b)-1] },
		"options of IP":      func(b []byte) []byte { b[0] = 0x4f; return b },
		"another port":       func(b []byte) []byte { b[23]++; return b },
		"too many options":   func([]byte) []byte { return request(strings.Repeat("0c00", maxOptions+1) + "350108 ff") },
		"too long":           func(b []byte) []byte { return append(b, make([]byte, MaxPacket)...) },
	} {
		if _, err := ParseInform(f(bytes.Clone(good))); err == nil {
			t.Errorf("%s is taken for a DHCPINFORM", what)
		}
	}
}

func FuzzParseInform(f *testing.F) {
	f.Add(request(windows))
	f.Add(request("350108 0000 3701f9 ff"))
	f.Add(request("350108 37ff" + strings.Repeat("f9", 255) + "ff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := ParseInform(b)
		if err != nil {
			return
		}
		if a := q.Answer(office); len(a) > MaxPacket || a[28] != 2 || !bytes.Equal(a[16:20], b[12:16]) {
			t.Fatalf("%x answered by %x", b, a)
		}
	})
}

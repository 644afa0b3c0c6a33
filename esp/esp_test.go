package esp_test

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"adit/esp"
	"adit/ipsec"
	"adit/suite"
)

const (
	testSPI = ipsec.SPI(0xc0ffee01)
	room    = 512
)

// testSuite is one pair of algorithms, and what foreign code calls them.
type testSuite struct {
	name        string
	encr, integ suite.Transform
}

func encr(id suite.TransformID, bits uint16) suite.Transform {
	return suite.Transform{Type: suite.TypeENCR, ID: id, KeyBits: bits}
}

func integ(id suite.TransformID) suite.Transform {
	return suite.Transform{Type: suite.TypeINTEG, ID: id}
}

var suites = []testSuite{
	{"aes128gcm16", encr(suite.EncrAESGCM16, 128), suite.Transform{}},
	{"aes192gcm16", encr(suite.EncrAESGCM16, 192), suite.Transform{}},
	{"aes256gcm16", encr(suite.EncrAESGCM16, 256), suite.Transform{}},
	{"aes256gcm12", encr(suite.EncrAESGCM12, 256), suite.Transform{}},
	{"aes128gcm8", encr(suite.EncrAESGCM8, 128), suite.Transform{}},
	{"aes128ccm16", encr(suite.EncrAESCCM16, 128), suite.Transform{}},
	{"aes192ccm12", encr(suite.EncrAESCCM12, 192), suite.Transform{}},
	{"aes256ccm8", encr(suite.EncrAESCCM8, 256), suite.Transform{}},
	{"chacha20poly1305", encr(suite.EncrChaCha20Poly1305, 0), suite.Transform{}},
	{"aes128gmac", encr(suite.EncrNULLAuthAESGMAC, 128), suite.Transform{}},
	{"aes256gmac", encr(suite.EncrNULLAuthAESGMAC, 256), suite.Transform{}},
	{"aes128-sha1", encr(suite.EncrAESCBC, 128), integ(suite.IntegHMACSHA1_96)},
	{"aes128-sha256", encr(suite.EncrAESCBC, 128), integ(suite.IntegHMACSHA2_256_128)},
	{"aes192-sha384", encr(suite.EncrAESCBC, 192), integ(suite.IntegHMACSHA2_384_192)},
	{"aes256-sha512", encr(suite.EncrAESCBC, 256), integ(suite.IntegHMACSHA2_512_256)},
	{"aes128-aesxcbc", encr(suite.EncrAESCBC, 128), integ(suite.IntegAESXCBC96)},
	{"aes128-aescmac", encr(suite.EncrAESCBC, 128), integ(suite.IntegAESCMAC96)},
	{"aes128ctr-sha256", encr(suite.EncrAESCTR, 128), integ(suite.IntegHMACSHA2_256_128)},
	{"aes256ctr-sha1", encr(suite.EncrAESCTR, 256), integ(suite.IntegHMACSHA1_96)},
	{"null-sha256", encr(suite.EncrNULL, 0), integ(suite.IntegHMACSHA2_256_128)},
	{"null-aescmac", encr(suite.EncrNULL, 0), integ(suite.IntegAESCMAC96)},
}

func (s testSuite) keys(t testing.TB) (enc, ing suite.Key) {
	t.Helper()
	n, m, err := suite.KeyLengths(s.encr, s.integ)
	if err != nil {
		t.Fatal(err)
	}
	enc, ing = make(suite.Key, n), make(suite.Key, m)
	rand.Read(enc)
	rand.Read(ing)
	return enc, ing
}

var (
	gwA4, gwB4 = netip.MustParseAddrPort("192.0.2.1:4500"), netip.MustParseAddrPort("198.51.100.2:4500")
	gwA6, gwB6 = netip.MustParseAddrPort("[2001:db8:a::1]:4500"), netip.MustParseAddrPort("[2001:db8:b::2]:4500")
)

// params are those of the sealing side; mirror makes the receiving side's.
func params(s testSuite, mode ipsec.Mode, v6, encap, esn bool) ipsec.SAParams {
	p := ipsec.SAParams{Ref: ipsec.SARef{Child: 1, Dir: ipsec.Out}, SPI: testSPI, Mode: mode, Encr: s.encr, Integ: s.integ,
		Local: gwA4, Remote: gwB4, Encap: encap, ESN: esn, ReplayWindow: 4096, CopyECN: true}
	if v6 {
		p.Local, p.Remote = gwA6, gwB6
	}
	return p
}

func mirror(p ipsec.SAParams) ipsec.SAParams {
	p.Ref.Dir = ipsec.In
	p.Local, p.Remote = p.Remote, p.Local
	return p
}

func clone(k suite.Key) suite.Key { return append(suite.Key(nil), k...) }

func newPair(t testing.TB, s testSuite, p ipsec.SAParams) (out, in *esp.SA) {
	t.Helper()
	enc, ing := s.keys(t)
	p.EncKey, p.IntegKey = clone(enc), clone(ing)
	out, err := esp.New(p)
	if err != nil {
		t.Fatal(err)
	}
	q := mirror(p)
	q.EncKey, q.IntegKey = enc, ing
	if in, err = esp.New(q); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(enc, make([]byte, len(enc))) || !bytes.Equal(ing, make([]byte, len(ing))) {
		t.Fatal("New left keys in its parameters")
	}
	return out, in
}

func onesum(b []byte, acc uint32) uint16 {
	for i := 0; i+1 < len(b); i += 2 {
		acc += uint32(b[i])<<8 | uint32(b[i+1])
	}
	if len(b)%2 == 1 {
		acc += uint32(b[len(b)-1]) << 8
	}
	for acc > 0xffff {
		acc = acc>>16 + acc&0xffff
	}
	return ^uint16(acc)
}

// udpPacket is an IP packet with UDP inside and right checksums.
func udpPacket(src, dst netip.Addr, tos uint8, payload []byte) []byte {
	udp := make([]byte, 8+len(payload))
	binary.BigEndian.PutUint16(udp, 7777)
	binary.BigEndian.PutUint16(udp[2:], 9)
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	copy(udp[8:], payload)
	var acc uint32
	for _, a := range [][]byte{src.AsSlice(), dst.AsSlice()} {
		for i := 0; i < len(a); i += 2 {
			acc += uint32(a[i])<<8 | uint32(a[i+1])
		}
	}
	sum := onesum(udp, acc+17+uint32(len(udp)))
	if sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(udp[6:], sum)
	var ip []byte
	if src.Is4() {
		ip = make([]byte, 20)
		ip[0], ip[1], ip[6], ip[8], ip[9] = 0x45, tos, 0x40, 64, 17
		binary.BigEndian.PutUint16(ip[2:], uint16(20+len(udp)))
		copy(ip[12:], src.AsSlice())
		copy(ip[16:], dst.AsSlice())
		binary.BigEndian.PutUint16(ip[10:], onesum(ip, 0))
	} else {
		ip = make([]byte, 40)
		ip[0], ip[1], ip[6], ip[7] = 0x60|tos>>4, tos<<4, 17, 64
		binary.BigEndian.PutUint16(ip[4:], uint16(len(udp)))
		copy(ip[8:], src.AsSlice())
		copy(ip[24:], dst.AsSlice())
	}
	return append(ip, udp...)
}

func innerPacket(v6 bool, tos uint8, n int) []byte {
	payload := make([]byte, n)
	rand.Read(payload)
	if v6 {
		return udpPacket(netip.MustParseAddr("fd01::1"), netip.MustParseAddr("fd02::2"), tos, payload)
	}
	return udpPacket(netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.2.0.2"), tos, payload)
}

// outerPacket is what transport mode takes: addressed between the gateways themselves.
func outerPacket(v6 bool, tos uint8, n int) []byte {
	payload := make([]byte, n)
	rand.Read(payload)
	if v6 {
		return udpPacket(gwA6.Addr(), gwB6.Addr(), tos, payload)
	}
	return udpPacket(gwA4.Addr(), gwB4.Addr(), tos, payload)
}

// packet puts bytes into a buffer with room on both sides.
func packet(b []byte) *esp.Packet {
	buf := make([]byte, room+len(b)+2048)
	copy(buf[room:], b)
	return &esp.Packet{Buf: buf, Off: room, Len: len(b)}
}

func mustSeal(t testing.TB, sa *esp.SA, b []byte) *esp.Packet {
	t.Helper()
	p := packet(b)
	if err := sa.Seal(p); err != nil {
		t.Fatalf("seal: %v", err)
	}
	return p
}

// TestRFC4303_RoundTrip seals and opens with every suite, mode and family.
func TestRFC4303_RoundTrip(t *testing.T) {
	for _, s := range suites {
		for _, mode := range []ipsec.Mode{ipsec.ModeTunnel, ipsec.ModeTransport} {
			for bits := range 16 {
				outer6, inner6, encap, esn := bits&1 != 0, bits&2 != 0, bits&4 != 0, bits&8 != 0
				if mode == ipsec.ModeTransport && outer6 != inner6 {
					continue
				}
				name := fmt.Sprintf("%s/%s/outer6=%v/inner6=%v/encap=%v/esn=%v", s.name, mode, outer6, inner6, encap, esn)
				t.Run(name, func(t *testing.T) {
					out, in := newPair(t, s, params(s, mode, outer6, encap, esn))
					for n := range 40 {
						want := innerPacket(inner6, 0, n)
						if mode == ipsec.ModeTransport {
							want = outerPacket(inner6, 0, n)
						}
						p := mustSeal(t, out, want)
						if bytes.Contains(p.Bytes(), want[len(want)-8:]) && s.encr.Weakness() == "" {
							t.Fatal("the payload is readable on the wire")
						}
						if got := len(p.Bytes()); got%4 != 0 || got > len(want)+out.Overhead() {
							t.Fatalf("ESP packet of %d bytes of one of %d, overhead %d", got, len(want), out.Overhead())
						}
						if err := in.Open(p); err != nil {
							t.Fatalf("open: %v", err)
						}
						compare(t, mode, p.Bytes(), want)
						if p.Seq != uint64(n+1) {
							t.Fatalf("sequence number %d", p.Seq)
						}
					}
				})
			}
		}
	}
}

// compare knows that transport mode makes the IPv4 identification and TTL anew.
func compare(t testing.TB, mode ipsec.Mode, got, want []byte) {
	t.Helper()
	if mode == ipsec.ModeTransport {
		want = append([]byte(nil), want...)
		if want[0]>>4 == 4 {
			copy(want[4:6], got[4:6])
			want[8] = got[8]
			want[10], want[11] = 0, 0
			binary.BigEndian.PutUint16(want[10:], onesum(want[:20], 0))
		}
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("came out\n%x, went in\n%x", got, want)
	}
}

// TestRFC4303_BitFlip flips every bit of a packet: none may open but the bits of
// a sequence number that leads to the same authentication failure.
func TestRFC4303_BitFlip(t *testing.T) {
	for _, s := range suites {
		for _, esn := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/esn=%v", s.name, esn), func(t *testing.T) {
				out, in := newPair(t, s, params(s, ipsec.ModeTunnel, false, false, esn))
				orig := mustSeal(t, out, innerPacket(false, 0, 11)).Bytes()
				for bit := range len(orig) * 8 {
					b := append([]byte(nil), orig...)
					b[bit/8] ^= 1 << (bit % 8)
					p := packet(b)
					switch err := in.Open(p); {
					case err == nil:
						t.Fatalf("opened with bit %d flipped", bit)
					case !errors.Is(err, esp.ErrAuth) && !errors.Is(err, esp.ErrSPI) && !errors.Is(err, esp.ErrReplay):
						t.Fatalf("bit %d: %v", bit, err)
					}
				}
				for n := range len(orig) {
					if err := in.Open(packet(orig[:n])); err == nil {
						t.Fatalf("opened when cut to %d bytes", n)
					}
				}
				if err := in.Open(packet(orig)); err != nil {
					t.Fatalf("the packet itself: %v", err)
				}
			})
		}
	}
}

func TestNewRefuses(t *testing.T) {
	s := suites[0]
	good := params(s, ipsec.ModeTunnel, false, false, false)
	for name, change := range map[string]func(*ipsec.SAParams){
		"reserved SPI":      func(p *ipsec.SAParams) { p.SPI = 255 },
		"BEET":              func(p *ipsec.SAParams) { p.Mode = ipsec.ModeBEET },
		"window":            func(p *ipsec.SAParams) { p.ReplayWindow = esp.MaxReplayWindow + 1 },
		"no endpoint":       func(p *ipsec.SAParams) { p.Remote = netip.AddrPort{} },
		"mixed families":    func(p *ipsec.SAParams) { p.Remote = gwB6 },
		"short key":         func(p *ipsec.SAParams) { p.EncKey = p.EncKey[1:] },
		"no integrity":      func(p *ipsec.SAParams) { p.Encr = encr(suite.EncrAESCBC, 128) },
		"unknown algorithm": func(p *ipsec.SAParams) { p.Encr.ID = 999 },
	} {
		p := good
		p.EncKey, p.IntegKey = s.keys(t)
		key := p.EncKey
		change(&p)
		if sa, err := esp.New(p); err == nil || sa != nil {
			t.Errorf("%s: accepted", name)
		}
		if !bytes.Equal(key[1:], make([]byte, len(key)-1)) {
			t.Errorf("%s: key not zeroed", name)
		}
	}
}

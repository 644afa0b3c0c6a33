package esp_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"adit/esp"
	"adit/ipsec"
	"adit/suite"
)

// foreignName says how foreign code calls the algorithms of a suite, and with
// that what covers it:
//
//	suite                scapy itself     tshark
//	AES-GCM-16           all              decrypts
//	AES-GCM-8/12         scapy's class over OpenSSL's older interface; decrypts
//	AES-CCM-8/12/16      all              -
//	ChaCha20-Poly1305    all              -
//	AES-GMAC             - (OpenSSL's GCM, put together in foreign.py)
//	AES-CBC, CTR, NULL   all              decrypts
//	HMAC-SHA1, SHA-2     without ESN; with it foreign.py adds the high half to OpenSSL's HMAC
//	                                      checks the ICV, without ESN
//	AES-CMAC             as HMAC          no check
//	AES-XCBC             - (foreign.py, over OpenSSL's AES)
type foreignName struct {
	encr, integ   string // scapy
	icv           int    // AEAD only
	shark, sharkI string // tshark; "" where it lacks the algorithm
	checks        bool   // tshark checks the ICV
}

func (s testSuite) foreign() (f foreignName) {
	switch s.encr.ID {
	case suite.EncrAESGCM16:
		f.encr, f.shark = "AES-GCM", "AES-GCM with 16 octet ICV [RFC4106]"
	case suite.EncrAESGCM12:
		f.encr, f.icv, f.shark = "AES-GCM-SHORT", 12, "AES-GCM with 12 octet ICV [RFC4106]"
	case suite.EncrAESGCM8:
		f.encr, f.icv, f.shark = "AES-GCM-SHORT", 8, "AES-GCM with 8 octet ICV [RFC4106]"
	case suite.EncrAESCCM8, suite.EncrAESCCM12, suite.EncrAESCCM16:
		f.encr, f.icv = "AES-CCM", 8+4*int(s.encr.ID-suite.EncrAESCCM8)
	case suite.EncrChaCha20Poly1305:
		f.encr = "CHACHA20-POLY1305"
	case suite.EncrNULLAuthAESGMAC:
		f.encr = "AES-GMAC"
	case suite.EncrAESCBC:
		f.encr, f.shark = "AES-CBC", "AES-CBC [RFC3602]"
	case suite.EncrAESCTR:
		f.encr, f.shark = "AES-CTR", "AES-CTR [RFC3686]"
	case suite.EncrNULL:
		f.encr, f.shark = "NULL", "NULL"
	}
	f.sharkI, f.checks = "NULL", false
	switch s.integ.ID {
	case suite.IntegHMACSHA1_96:
		f.integ, f.sharkI, f.checks = "HMAC-SHA1-96", "HMAC-SHA-1-96 [RFC2404]", true
	case suite.IntegHMACSHA2_256_128:
		f.integ, f.sharkI, f.checks = "SHA2-256-128", "HMAC-SHA-256-128 [RFC4868]", true
	case suite.IntegHMACSHA2_384_192:
		f.integ, f.sharkI, f.checks = "SHA2-384-192", "HMAC-SHA-384-192 [RFC4868]", true
	case suite.IntegHMACSHA2_512_256:
		f.integ, f.sharkI, f.checks = "SHA2-512-256", "HMAC-SHA-512-256 [RFC4868]", true
	case suite.IntegAESCMAC96:
		f.integ, f.sharkI = "AES-CMAC-96", "ANY 96 bit authentication [no checking]"
	case suite.IntegAESXCBC96:
		f.integ, f.sharkI = "AES-XCBC-96", "ANY 96 bit authentication [no checking]"
	}
	return f
}

// needs fails where root has not what a test needs, and skips for others.
func needs(t *testing.T, present bool, what string) {
	t.Helper()
	if present {
		return
	}
	if os.Geteuid() == 0 {
		t.Fatalf("%s is not installed", what)
	}
	t.Skipf("%s is not installed, and only root can install it", what)
}

// scapy is the foreign implementation, in one process for the whole test.
type scapy struct {
	t   *testing.T
	in  io.Writer
	out *bufio.Scanner
}

func startScapy(t *testing.T) *scapy {
	t.Helper()
	const python = "/usr/bin/python3" // Debian's, which has python3-scapy
	needs(t, exec.Command(python, "-c", "import scapy.layers.ipsec, cryptography").Run() == nil, "python3-scapy")
	cmd := exec.Command(python, "testdata/foreign.py")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error("foreign.py:", err)
		}
	})
	return &scapy{t, in, bufio.NewScanner(out)}
}

type scapyRequest struct {
	Op       string `json:"op"`
	SPI      uint32 `json:"spi"`
	Encr     string `json:"encr"`
	EncKey   string `json:"enckey"`
	Integ    string `json:"integ"`
	IntegKey string `json:"integkey"`
	ICV      int    `json:"icv"`
	Tunnel   bool   `json:"tunnel"`
	Outer6   bool   `json:"outer6"`
	Encap    bool   `json:"encap"`
	ESN      bool   `json:"esn"`
	Seq      uint64 `json:"seq"`
	Src      string `json:"src"`
	Dst      string `json:"dst"`
	Packet   string `json:"packet"`
}

func (s *scapy) ask(q scapyRequest, op string, packet []byte) ([]byte, error) {
	q.Op, q.Packet = op, hex.EncodeToString(packet)
	line, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	if _, err := s.in.Write(append(line, '\n')); err != nil {
		return nil, err
	}
	if !s.out.Scan() {
		return nil, fmt.Errorf("foreign.py ended: %w", io.ErrUnexpectedEOF)
	}
	var reply struct{ Packet, Error string }
	if err := json.Unmarshal(s.out.Bytes(), &reply); err != nil {
		return nil, err
	}
	if reply.Error != "" {
		return nil, fmt.Errorf("scapy: %s", reply.Error)
	}
	return hex.DecodeString(reply.Packet)
}

// variant is one way to use a suite.
type variant struct {
	s                          testSuite
	mode                       ipsec.Mode
	outer6, inner6, encap, esn bool
}

func (v variant) String() string {
	return fmt.Sprintf("%s/%s/outer6=%v/inner6=%v/encap=%v/esn=%v", v.s.name, v.mode, v.outer6, v.inner6, v.encap, v.esn)
}

func variants() (all []variant) {
	for _, s := range suites {
		for bits := range 16 {
			v := variant{s, ipsec.ModeTunnel, bits&1 != 0, bits&2 != 0, bits&4 != 0, bits&8 != 0}
			all = append(all, v)
			if v.outer6 == v.inner6 {
				v.mode = ipsec.ModeTransport
				all = append(all, v)
			}
		}
	}
	return all
}

// text is a packet whose payload no dissector takes for a protocol of its own.
func (v variant) text(payload string) []byte {
	b := v.packet(len(payload))
	header := append([]byte(nil), b[:len(b)-len(payload)-8]...)
	src, dst := netip.Addr{}, netip.Addr{}
	if header[0]>>4 == 4 {
		src, _ = netip.AddrFromSlice(header[12:16])
		dst, _ = netip.AddrFromSlice(header[16:20])
	} else {
		src, _ = netip.AddrFromSlice(header[8:24])
		dst, _ = netip.AddrFromSlice(header[24:40])
	}
	return udpPacket(src, dst, 0, []byte(payload))
}

func (v variant) packet(n int) []byte {
	if v.mode == ipsec.ModeTransport {
		return outerPacket(v.outer6, 0, n)
	}
	return innerPacket(v.inner6, 0, n)
}

// wire puts the outer headers before an ESP packet, as the kernel's sockets do.
func (v variant) wire(b []byte) []byte {
	src, dst := gwA4.Addr(), gwB4.Addr()
	if v.outer6 {
		src, dst = gwA6.Addr(), gwB6.Addr()
	}
	proto := byte(50)
	if v.encap {
		proto = 17
		udp := make([]byte, 8)
		binary.BigEndian.PutUint16(udp, 4500)
		binary.BigEndian.PutUint16(udp[2:], 4500)
		binary.BigEndian.PutUint16(udp[4:], uint16(8+len(b)))
		b = append(udp, b...)
	}
	return append(ipHeader(src, dst, proto, len(b)), b...)
}

func ipHeader(src, dst netip.Addr, proto byte, n int) []byte {
	p := udpPacket(src, dst, 0, nil)
	if src.Is4() {
		p = p[:20]
		p[9] = proto
		binary.BigEndian.PutUint16(p[2:], uint16(20+n))
		p[10], p[11] = 0, 0
		binary.BigEndian.PutUint16(p[10:], onesum(p, 0))
		return p
	}
	p = p[:40]
	p[6] = proto
	binary.BigEndian.PutUint16(p[4:], uint16(n))
	return p
}

// unwire takes the outer headers off.
func (v variant) unwire(b []byte) []byte {
	n := 20
	if v.outer6 {
		n = 40
	}
	if v.encap {
		n += 8
	}
	return b[n:]
}

// setup makes both ends of an SA and what foreign code must know of it.
func (v variant) setup(t testing.TB, spi ipsec.SPI) (out, in *esp.SA, enc, ing suite.Key) {
	t.Helper()
	enc, ing = v.s.keys(t)
	p := params(v.s, v.mode, v.outer6, v.encap, v.esn)
	p.SPI, p.EncKey, p.IntegKey = spi, clone(enc), clone(ing)
	out, err := esp.New(p)
	if err != nil {
		t.Fatal(err)
	}
	q := mirror(p)
	q.EncKey, q.IntegKey = clone(enc), clone(ing)
	if in, err = esp.New(q); err != nil {
		t.Fatal(err)
	}
	return out, in, enc, ing
}

// TestForeignScapy seals what scapy opens and opens what scapy seals, in every variant.
func TestForeignScapy(t *testing.T) {
	sc := startScapy(t)
	for _, v := range variants() {
		out, in, enc, ing := v.setup(t, testSPI)
		f := v.s.foreign()
		q := scapyRequest{SPI: uint32(testSPI), Encr: f.encr, EncKey: hex.EncodeToString(enc), Integ: f.integ,
			IntegKey: hex.EncodeToString(ing), ICV: f.icv, Tunnel: v.mode == ipsec.ModeTunnel, Outer6: v.outer6,
			Encap: v.encap, ESN: v.esn, Src: gwA4.Addr().String(), Dst: gwB4.Addr().String()}
		if v.outer6 {
			q.Src, q.Dst = gwA6.Addr().String(), gwB6.Addr().String()
		}
		starts := []uint64{0}
		if v.esn {
			// The receiver must have seen a number of the first subspace to believe in the second.
			starts = append(starts, 1<<32-5000, 1<<32+7)
		}
		for _, start := range starts {
			out.SetSeq(start)
			want := v.packet(33)
			p := mustSeal(t, out, want)
			q.Seq = p.Seq
			w := v
			if v.mode == ipsec.ModeTransport && v.outer6 {
				w.encap = false // scapy 2.5 leaves the UDP header in an IPv6 transport packet that it opened
			}
			got, err := sc.ask(q, "open", w.wire(p.Bytes()))
			if err != nil {
				t.Fatalf("%s, number %#x: %v", v, q.Seq, err)
			}
			sameInner(t, v, got, want)

			want = v.packet(21)
			sealed, err := sc.ask(q, "seal", want)
			if err != nil {
				t.Fatalf("%s, number %#x: %v", v, q.Seq, err)
			}
			o := packet(v.unwire(sealed))
			o.Encap = v.encap
			if err := in.Open(o); err != nil {
				t.Fatalf("%s: scapy's packet %#x: %v", v, q.Seq, err)
			}
			if o.Seq != q.Seq {
				t.Fatalf("%s: opened as %#x, is %#x", v, o.Seq, q.Seq)
			}
			sameInner(t, v, o.Bytes(), want)
		}
		// Foreign code must refuse what is changed: else it proves nothing.
		p := mustSealAt(t, out, q.Seq-1, v.packet(5))
		p.Bytes()[p.Len-1] ^= 1
		if _, err := sc.ask(q, "open", v.wire(p.Bytes())); err == nil {
			t.Fatalf("%s: scapy opened a changed packet", v)
		}
	}
}

func mustSealAt(t testing.TB, sa *esp.SA, last uint64, b []byte) *esp.Packet {
	t.Helper()
	sa.SetSeq(last)
	return mustSeal(t, sa, b)
}

// sameInner compares what both ways of transport mode leave alone: all but the
// IPv4 header's TTL, identification and checksum.
func sameInner(t testing.TB, v variant, got, want []byte) {
	t.Helper()
	if v.mode == ipsec.ModeTransport && !v.outer6 && len(got) > 20 && onesum(got[:20], 0) == 0 {
		got = append(append([]byte(nil), want[:20]...), got[20:]...)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("%s: came out\n%x, went in\n%x", v, got, want)
	}
}

// TestForeignTshark has tshark decrypt one packet of every variant that it knows.
func TestForeignTshark(t *testing.T) {
	tshark, err := exec.LookPath("tshark")
	needs(t, err == nil, "tshark")
	dir := t.TempDir()
	var sas, pcap bytes.Buffer
	// Capture file header: magic, version 2.4, snap length, link type 101 (raw IP).
	for _, v := range []uint32{0xa1b2c3d4, 2 | 4<<16, 0, 0, 65535, 101} {
		binary.Write(&pcap, binary.LittleEndian, v)
	}
	type expectation struct {
		v       variant
		payload string
		checked bool
	}
	want := map[string]expectation{}
	spi := ipsec.SPI(0x5000_0000)
	for _, v := range variants() {
		f := v.s.foreign()
		if f.shark == "" {
			continue
		}
		spi++
		out, _, enc, ing := v.setup(t, spi)
		b := v.text("behind the tunnel all is")
		sealed := v.wire(mustSeal(t, out, b).Bytes())
		checked := f.checks && !v.esn
		if v.esn && f.checks { // tshark 4.0 knows no ESN: decryption alone
			f.sharkI = fmt.Sprintf("ANY %d bit authentication [no checking]", icvBits(f.integ))
		}
		family := "IPv4"
		if v.outer6 {
			family = "IPv6"
		}
		key := func(k []byte) string {
			if len(k) == 0 {
				return ""
			}
			return "0x" + hex.EncodeToString(k)
		}
		fmt.Fprintf(&sas, "\"%s\",\"*\",\"*\",\"0x%08x\",\"%s\",\"%s\",\"%s\",\"%s\"\n", family, uint32(spi), f.shark, key(enc), f.sharkI, key(ing))
		for _, n := range []uint32{0, 0, uint32(len(sealed)), uint32(len(sealed))} {
			binary.Write(&pcap, binary.LittleEndian, n)
		}
		pcap.Write(sealed)
		want[fmt.Sprintf("0x%08x", uint32(spi))] = expectation{v, hex.EncodeToString(b[len(b)-24:]), checked}
	}
	for name, content := range map[string][]byte{"esp_sa": sas.Bytes(), "a.pcap": pcap.Bytes()} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(tshark, "-n", "-r", filepath.Join(dir, "a.pcap"), "-o", "esp.enable_encryption_decode:TRUE",
		"-o", "esp.enable_authentication_check:TRUE", "-o", "ip.defragment:FALSE", "-T", "fields", "-E", "separator=;",
		"-e", "esp.spi", "-e", "esp.icv_good", "-e", "udp.payload", "-e", "data.data")
	cmd.Env = append(os.Environ(), "WIRESHARK_CONFIG_DIR="+dir)
	text, err := cmd.Output()
	if err != nil {
		t.Fatalf("tshark: %v", err)
	}
	seen := 0
	for line := range strings.Lines(string(text)) {
		field := strings.Split(strings.TrimSpace(line), ";")
		w, ok := want[field[0]]
		if !ok {
			t.Fatalf("unknown SPI in %q", line)
		}
		seen++
		if !strings.HasSuffix(field[2], w.payload) && !strings.HasSuffix(field[3], w.payload) {
			t.Errorf("%s: tshark does not see the payload: %q", w.v, line)
		}
		if w.checked && field[1] != "1" && field[1] != "True" {
			t.Errorf("%s: tshark finds the ICV wrong: %q", w.v, line)
		}
	}
	if seen != len(want) || seen < 200 {
		t.Fatalf("tshark showed %d of %d packets", seen, len(want))
	}
}

func icvBits(integ string) int {
	switch integ {
	case "SHA2-256-128":
		return 128
	case "SHA2-384-192":
		return 192
	case "SHA2-512-256":
		return 256
	}
	return 96
}

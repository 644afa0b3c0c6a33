package capture_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"adit/ike"
	"adit/internal/capture"
	"adit/ipsec"
	"adit/suite"
)

// trace returns a directory with one packet of every sort in it, both families.
func trace(t *testing.T) (dir string, inner [][]byte) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "trace")
	d, err := capture.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	esp := append(binary.BigEndian.AppendUint64(nil, 0x00001001_00000001), bytes.Repeat([]byte{0xaa}, 40)...)
	// A header alone: IKE_SA_INIT of version 2, 28 bytes.
	msg := append(bytes.Repeat([]byte{1}, 8), make([]byte, 20)...)
	msg[17], msg[18], msg[19], msg[27] = 0x20, 34, 0x08, 28
	for _, a := range [][2]string{{"192.0.2.1", "192.0.2.2"}, {"2001:db8::1", "2001:db8::2"}} {
		l, r := netip.MustParseAddr(a[0]), netip.MustParseAddr(a[1])
		for _, dir := range []ipsec.Direction{ipsec.In, ipsec.Out} {
			d.IKE(dir, netip.AddrPortFrom(l, 500), netip.AddrPortFrom(r, 500), false, msg)
			d.IKE(dir, netip.AddrPortFrom(l, 4500), netip.AddrPortFrom(r, 4501), true, msg)
			d.Outer(dir, netip.AddrPortFrom(l, 4500), netip.AddrPortFrom(r, 4501), true, 0x28, esp)
			d.Outer(dir, netip.AddrPortFrom(l, 0), netip.AddrPortFrom(r, 0), false, 0x28, append(esp, 1, 2, 3)) // an odd length
		}
	}
	p := make([]byte, 20+8)
	p[0], p[3], p[8], p[9] = 0x45, 28, 64, 17
	copy(p[12:], []byte{10, 1, 0, 2, 10, 2, 0, 2})
	d.Inner(ipsec.Out, p)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, [][]byte{p}
}

// Every packet of the capture is whole to a foreign parser: lengths, checksums, ports.
func TestPcapParses(t *testing.T) {
	dir, inner := trace(t)
	if got := read(t, filepath.Join(dir, "inner.pcap")); len(got) != 1 || !bytes.Equal(got[0], inner[0]) {
		t.Errorf("inner packets: %x, want %x", got, inner)
	}
	outer := read(t, filepath.Join(dir, "outer.pcap"))
	if len(outer) != 16 {
		t.Fatalf("%d outer packets, want 16", len(outer))
	}
	for i, b := range outer {
		first := gopacket.Decoder(layers.LayerTypeIPv4)
		if i >= 8 {
			first = layers.LayerTypeIPv6
		}
		p := gopacket.NewPacket(b, first, gopacket.Default)
		if p.ErrorLayer() != nil && i%4 == 3 {
			t.Errorf("packet %d: %v", i, p.ErrorLayer().Error())
		}
		if u, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP); ok {
			if err := u.SetNetworkLayerForChecksum(p.NetworkLayer()); err != nil {
				t.Fatal(err)
			}
			if i >= 8 && u.Checksum == 0 {
				t.Errorf("packet %d: no UDP checksum, which IPv6 demands", i)
			}
		}
		if err, bad := p.VerifyChecksums(); err != nil || len(bad) != 0 {
			t.Errorf("packet %d: checksums: %v %v", i, bad, err)
		}
		src, tos := "192.0.2.1", uint8(0)
		if i >= 8 {
			src = "2001:db8::1"
		}
		if i%8 < 4 {
			src = strings.TrimSuffix(src, "1") + "2" // inbound: from the remote end
		}
		if got := p.NetworkLayer().NetworkFlow().Src().String(); got != src {
			t.Errorf("packet %d is from %s, want %s", i, got, src)
		}
		switch l := p.NetworkLayer().(type) {
		case *layers.IPv4:
			tos = l.TOS
		case *layers.IPv6:
			tos = l.TrafficClass
		}
		if want := map[bool]uint8{true: 0x28}[i%4 >= 2]; tos != want {
			t.Errorf("packet %d: TOS %#x, want %#x", i, tos, want)
		}
		if esp := p.Layer(layers.LayerTypeIPSecESP); (esp != nil) != (i%4 == 3) {
			t.Errorf("packet %d: ESP layer %v", i, esp)
		}
	}
}

func read(t *testing.T, path string) (packets [][]byte) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := pcapgo.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	if r.LinkType() != layers.LinkTypeRaw {
		t.Errorf("link type %v", r.LinkType())
	}
	for {
		b, ci, err := r.ReadPacketData()
		if err != nil {
			return packets
		}
		if ci.CaptureLength != ci.Length || ci.Timestamp.IsZero() {
			t.Errorf("record: %+v", ci)
		}
		packets = append(packets, b)
	}
}

// Only the owner reads the keys, whatever stood in their place before.
func TestModes(t *testing.T) {
	dir, _ := trace(t)
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	if err := os.WriteFile(elsewhere, []byte("kept"), 0o644); err != nil {
		t.Fatal(err)
	}
	sa := filepath.Join(dir, "esp_sa")
	if err := os.Remove(sa); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(elsewhere, sa); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "inner.pcap"), 0o666); err != nil {
		t.Fatal(err)
	}
	d, err := capture.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(dir); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v %v", fi.Mode(), err)
	}
	for _, name := range []string{"inner.pcap", "outer.pcap", "ikev2_decryption_table", "esp_sa", "preferences"} {
		fi, err := os.Lstat(filepath.Join(dir, name))
		if err != nil || fi.Mode() != 0o600 {
			t.Errorf("%s: %v, error %v", name, fi.Mode(), err)
		}
	}
	if b, _ := os.ReadFile(elsewhere); string(b) != "kept" {
		t.Errorf("what the link pointed to was written: %q", b)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := capture.Open(dir); err == nil || !strings.Contains(err.Error(), "chmod 700") {
		t.Errorf("a directory that others may write to: %v", err)
	}
}

// A file stops growing at its limit, at the end of a whole record.
func TestLimits(t *testing.T) {
	defer capture.SetLimits(1000, 500)()
	dir := filepath.Join(t.TempDir(), "trace")
	d, err := capture.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		d.Inner(ipsec.Out, append([]byte{0x45}, make([]byte, 99)...))
		d.Keys(childKeys(suite.Transform{Type: suite.TypeENCR, ID: suite.EncrAESGCM16, KeyBits: 128}, suite.Transform{}))
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if n := len(read(t, filepath.Join(dir, "inner.pcap"))); n != (1000-24)/116 {
		t.Errorf("%d packets", n)
	}
	b, err := os.ReadFile(filepath.Join(dir, "esp_sa"))
	if err != nil || len(b) > 500 || len(b) < 200 || !bytes.HasSuffix(b, []byte("\n")) {
		t.Errorf("keys: %d bytes, %v", len(b), err)
	}
}

func childKeys(encr, integ suite.Transform) ike.ExportKeys {
	return ike.ExportKeys{Child: &ike.ChildKeys{Src: netip.MustParseAddr("192.0.2.1"), Dst: netip.MustParseAddr("192.0.2.2"), SPI: 0x1001,
		Encr: encr, Integ: integ, EncKey: bytes.Repeat([]byte{1}, 36), IntegKey: bytes.Repeat([]byte{2}, 32)}}
}

// integKey is the length in bytes of an integrity algorithm's key.
var integKey = map[suite.TransformID]int{suite.IntegHMACSHA1_96: 20, suite.IntegHMACSHA2_256_128: 32, suite.IntegHMACSHA2_384_192: 48,
	suite.IntegHMACSHA2_512_256: 64, suite.IntegAESXCBC96: 16, suite.IntegAESCMAC96: 16}

// tshark takes the tables of every suite that we have: it refuses a whole file for
// one name that it does not know.
func TestKeyTablesLoad(t *testing.T) {
	tshark := needTshark(t)
	list, err := suite.ParseProposals(suite.IKE, []string{
		"aes128gcm16-aes192gcm12-aes256gcm8-aes128ccm16-aes192ccm12-aes256ccm8-chacha20poly1305-prfsha256-x25519",
		"aes128-aes192-aes256-aes128ctr-sha1-sha256-sha384-sha512-aesxcbc-aescmac-prfsha256-x25519"})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "trace")
	d, err := capture.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, p := range list {
		integs := []suite.Transform{{}}
		for _, tr := range p.Transforms {
			if tr.Type == suite.TypeINTEG {
				integs = append(integs, tr)
			}
		}
		if len(integs) > 1 {
			integs = integs[1:]
		}
		for _, encr := range p.Transforms {
			if encr.Type != suite.TypeENCR {
				continue
			}
			for _, integ := range integs {
				n++
				salt := 4
				if integ != (suite.Transform{}) {
					salt = 0
				} else if encr.ID >= suite.EncrAESCCM8 && encr.ID <= suite.EncrAESCCM16 {
					salt = 3
				}
				key := bytes.Repeat([]byte{byte(n)}, int(encr.KeyBits)/8+salt)
				auth := bytes.Repeat([]byte{byte(n)}, integKey[integ.ID])
				d.Keys(ike.ExportKeys{IKE: &ike.IKEKeys{SPIi: uint64(n), SPIr: 2, Encr: encr, Integ: integ, SKei: key, SKer: key, SKai: auth, SKar: auth}})
				d.Keys(childKeys(encr, integ))
			}
		}
	}
	d.Keys(childKeys(suite.Transform{Type: suite.TypeENCR, ID: suite.EncrNULLAuthAESGMAC, KeyBits: 128}, suite.Transform{}))
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if n < 30 {
		t.Fatalf("only %d suites", n)
	}
	_, complaints := tshark(dir, "-r", filepath.Join(dir, "outer.pcap"))
	if complaints != "" {
		t.Errorf("tshark complains:\n%s", complaints)
	}
	b, err := os.ReadFile(filepath.Join(dir, "ikev2_decryption_table"))
	if err != nil || bytes.Count(b, []byte("\n")) != n {
		t.Errorf("%d lines for %d suites (%v)", bytes.Count(b, []byte("\n")), n, err)
	}
}

// needTshark returns a function that runs tshark with a directory as its
// configuration and returns output and complaints. Root without tshark fails.
func needTshark(t *testing.T) func(dir string, args ...string) (out, complaints string) {
	t.Helper()
	path, err := exec.LookPath("tshark")
	if err != nil {
		if os.Geteuid() == 0 {
			t.Fatalf("tshark is missing (run scripts/setup.sh): %v", err)
		}
		t.Skip("tshark is missing: " + err.Error())
	}
	return func(dir string, args ...string) (string, string) {
		t.Helper()
		cmd := exec.Command(path, args...)
		cmd.Env = append(os.Environ(), "WIRESHARK_CONFIG_DIR="+dir)
		var out, complaints bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &complaints
		if err := cmd.Run(); err != nil {
			t.Fatalf("tshark %s: %v\n%s", args, err, &complaints)
		}
		var rest []string
		for line := range strings.Lines(complaints.String()) {
			if !strings.HasPrefix(line, "Running as user") && strings.TrimSpace(line) != "" {
				rest = append(rest, line)
			}
		}
		return out.String(), strings.Join(rest, "")
	}
}

// tshark sees the same packets and finds nothing wrong in their headers.
func TestPcapForTshark(t *testing.T) {
	tshark := needTshark(t)
	dir, _ := trace(t)
	out, complaints := tshark(dir, "-r", filepath.Join(dir, "outer.pcap"), "-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE",
		"-T", "fields", "-e", "frame.protocols", "-e", "ip.checksum.status", "-e", "udp.checksum.status", "-e", "_ws.malformed")
	if complaints != "" {
		t.Errorf("tshark complains: %s", complaints)
	}
	lines := strings.Split(strings.TrimRight(out, "\n"), "\n")
	if len(lines) != 16 {
		t.Fatalf("%d packets:\n%s", len(lines), out)
	}
	for i, line := range lines {
		f := strings.Split(line, "\t")
		want := []string{"isakmp", "isakmp", "esp", "esp"}[i%4]
		if !strings.Contains(f[0]+":", ":"+want+":") || f[3] != "" {
			t.Errorf("packet %d is %s", i, line)
		}
		if i < 8 && f[1] != "1" || i >= 8 && i%4 != 3 && f[2] != "1" {
			t.Errorf("packet %d: checksums: %q", i, fmt.Sprint(f[1:]))
		}
	}
}

package capture_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"adit/interop/lab"
	"adit/interop/peer"
)

func TestMain(m *testing.M) {
	code := m.Run()
	peer.RemoveBuilds()
	os.Exit(code)
}

// Two gateways in namespaces, one with --unsafe-debug-dir: tshark reads IKE_AUTH and
// the pings out of what it wrote, and every packet that was sent is there.
func TestTsharkDecryptsATunnel(t *testing.T) {
	for i, c := range []struct{ name, ike, esp, encap, protocols string }{
		{"gcm_udp", "aes256gcm16-prfsha384-x25519", "aes256gcm16", "auto", "raw:ip:udp:udpencap:esp"},
		{"cbc_udp", "aes128-sha256-x25519", "aes128-sha256", "auto", "raw:ip:udp:udpencap:esp"},
		{"gcm_raw", "aes128gcm16-prfsha256-x25519", "aes128gcm16", "no", "raw:ip:esp"},
		{"cbc_raw", "aes256-sha512-x25519", "aes256-sha512", "no", "raw:ip:esp"},
		{"gcm_udp_v6", "aes256gcm16-prfsha384-x25519", "aes256gcm16", "auto", "raw:ipv6:udp:udpencap:esp"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tshark := needTshark(t)
			dir, pings := tunnel(t, fmt.Sprintf("docp%d", i), c.ike, c.esp, "encap = "+c.encap)

			out, complaints := tshark(dir, "-r", filepath.Join(dir, "outer.pcap"), "-Y", "icmp", "-T", "fields",
				"-e", "frame.protocols", "-e", "ip.src", "-e", "icmp.type", "-e", "icmp.seq", "-e", "esp.icv_good")
			if complaints != "" {
				t.Errorf("tshark complains: %s", complaints)
			}
			lines := strings.Split(strings.TrimSpace(out), "\n")
			if len(lines) != 2*pings {
				t.Errorf("%d decrypted pings and answers, want %d:\n%s", len(lines), 2*pings, out)
			}
			for _, l := range lines {
				f := strings.Split(l, "\t")
				if !strings.HasPrefix(f[0], c.protocols+":ip:icmp") {
					t.Errorf("packet is %s, want %s", f[0], c.protocols)
				}
				if strings.HasPrefix(c.name, "cbc") && f[4] != "1" && f[4] != "True" {
					t.Errorf("tshark finds the check value wrong: %s", l)
				}
			}
			out, _ = tshark(dir, "-r", filepath.Join(dir, "outer.pcap"), "-Y", "isakmp.exchangetype == 35", "-T", "fields",
				"-e", "isakmp.id.data.fqdn", "-e", "isakmp.ts.start_ipv4")
			for _, want := range []string{"left.example.org", "right.example.org", "10.1.0.0,10.2.0.0"} {
				if !strings.Contains(out, want) {
					t.Errorf("IKE_AUTH as tshark reads it has no %s:\n%s", want, out)
				}
			}
			n := 0 // the device's own link-local IPv6 packets are there, too
			for _, p := range read(t, filepath.Join(dir, "inner.pcap")) {
				if p[0]>>4 == 4 && p[9] == 1 {
					n++
				}
			}
			if n != 2*pings {
				t.Errorf("%d inner pings and answers, want %d", n, 2*pings)
			}
		})
	}
}

// ends are two gateways with a tunnel; the left one writes its debug directory.
type ends struct {
	*lab.Lab
	left, right *peer.AditGateway
	dir         string
}

// open brings the tunnel up between addresses of one family.
func open(t *testing.T, prefix, ikeProposal, espProposal, extra string, v6 bool) *ends {
	t.Helper()
	l := lab.ForTest(t, prefix, lab.Options{Logf: func(string, ...any) {}})
	e := &ends{Lab: l, dir: filepath.Join(t.TempDir(), "trace")}
	config := func(a, b lab.Addresses, me, other string) string {
		from, to := a.Wan4, b.Wan4
		if v6 {
			from, to = a.Wan6, b.Wan6
		}
		return fmt.Sprintf(`connections {
	gw {
		local_addrs = %s
		remote_addrs = %s
		proposals = %s
		%s
		local {
			auth = psk
			id = %s.example.org
		}
		remote {
			auth = psk
			id = %s.example.org
		}
		children {
			net {
				local_ts = %s
				remote_ts = %s
				esp_proposals = %s
			}
		}
	}
}
secrets {
	ike {
		secret = a key that both ends share
	}
}
`, from, to, ikeProposal, extra, me, other, a.Inner4, b.Inner4, espProposal)
	}
	start := func(node string, o peer.AditOptions) *peer.AditGateway {
		g, err := peer.Adit(l, node, o)
		if err == nil {
			err = g.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	e.right = start(lab.Right, peer.AditOptions{Config: config(l.R, l.L, "right", "left")})
	e.left = start(lab.Left, peer.AditOptions{Config: config(l.L, l.R, "left", "right"), Args: []string{"--unsafe-debug-dir", e.dir}})
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("left:\n%s\nright:\n%s", e.left.Log(), e.right.Log())
		}
	})
	if err := e.left.Initiate("net"); err != nil {
		t.Fatal(err)
	}
	return e
}

// tunnel brings a tunnel up, pings through it, ends it, and returns the left
// gateway's debug directory and how many pings there were.
func tunnel(t *testing.T, prefix, ikeProposal, espProposal, extra string) (dir string, pings int) {
	t.Helper()
	e := open(t, prefix, ikeProposal, espProposal, extra, strings.HasSuffix(t.Name(), "_v6"))
	res, err := e.Ping(lab.LeftHost, e.R.Host4, lab.PingOptions{Count: 5})
	if err != nil || res.Received != res.Sent {
		t.Fatalf("ping: %+v %v", res, err)
	}
	if err := e.left.Stop(); err != nil {
		t.Fatal(err)
	}
	if log := e.left.Log(); !strings.Contains(log, "UNSAFE") {
		t.Errorf("no warning in the log:\n%s", log)
	}
	return e.dir, res.Sent
}

// Under load, too, every ESP packet is in the capture: as many as the SA counts,
// over a rekey, in both directions, though the kernel hands them over in trains.
func TestNothingIsMissing(t *testing.T) {
	e := open(t, "docp9", "aes256gcm16-prfsha384-x25519", "aes256gcm16", "", false)
	counts := map[string]uint64{}
	note := func() {
		t.Helper()
		sas, err := e.left.SAs()
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range peer.Installed(sas, "net") {
			counts[c.SPIIn], counts[c.SPIOut] = c.PacketsIn, c.PacketsOut
		}
	}
	for range 2 {
		if _, err := e.Iperf(lab.LeftHost, lab.RightHost, e.R.Host4, lab.IperfOptions{Bytes: 4 << 20}); err != nil {
			t.Fatal(err)
		}
		note()
		if len(counts) == 2 {
			if err := e.left.RekeyChild("net"); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := e.left.Stop(); err != nil {
		t.Fatal(err)
	}
	if len(counts) != 4 {
		t.Fatalf("there were %d SAs, want 4: %v", len(counts), counts)
	}
	seen := map[string]uint64{}
	for _, p := range read(t, filepath.Join(e.dir, "outer.pcap")) {
		if len(p) > 32 && p[9] == 17 {
			seen[fmt.Sprintf("%x", p[28:32])]++ // after the headers of IPv4 and UDP
		}
	}
	for spi, n := range counts {
		if n < 10 || seen[spi] < n {
			t.Errorf("SA %s counts %d packets, the capture has %d", spi, n, seen[spi])
		}
	}
}

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

// tunnel brings a tunnel up, pings through it, ends it, and returns the left
// gateway's debug directory and how many pings there were.
func tunnel(t *testing.T, prefix, ikeProposal, espProposal, extra string) (dir string, pings int) {
	t.Helper()
	l := lab.ForTest(t, prefix, lab.Options{Logf: func(string, ...any) {}})
	dir = filepath.Join(t.TempDir(), "trace")
	config := func(a, b lab.Addresses, me, other string) string {
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
`, a.Wan4, b.Wan4, ikeProposal, extra, me, other, a.Inner4, b.Inner4, espProposal)
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
	right := start(lab.Right, peer.AditOptions{Config: config(l.R, l.L, "right", "left")})
	left := start(lab.Left, peer.AditOptions{Config: config(l.L, l.R, "left", "right"), Args: []string{"--unsafe-debug-dir", dir}})
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("left:\n%s\nright:\n%s", left.Log(), right.Log())
		}
	})
	if err := left.Initiate("net"); err != nil {
		t.Fatal(err)
	}
	res, err := l.Ping(lab.LeftHost, l.R.Host4, lab.PingOptions{Count: 5})
	if err != nil || res.Received != res.Sent {
		t.Fatalf("ping: %+v %v", res, err)
	}
	if err := left.Stop(); err != nil {
		t.Fatal(err)
	}
	if log := left.Log(); !strings.Contains(log, "UNSAFE") {
		t.Errorf("no warning in the log:\n%s", log)
	}
	return dir, res.Sent
}

package control_test

import (
	"strings"
	"testing"

	"adit/internal/conn"
)

func (s *side) policies(filter string) string {
	s.t.Helper()
	_, list := s.call("list-policies", filter, "list-policy")
	out := ""
	for _, e := range list {
		out += text(e)
	}
	return out
}

// install does what start_action = trap does, uninstall takes it back, both whatever
// the configuration says, and a reload without changes leaves it so.
func TestInstall(t *testing.T) {
	s := newSide(t, conn.NewNetwork(), "192.0.2.1")
	body := connBody("192.0.2.1", "192.0.2.2", "10.1.0.0/24", "10.2.0.0/24")
	s.ok("load-conn", body)
	if got := s.policies("trap = yes\n"); got != "" {
		t.Errorf("a trap without any action:\n%s", got)
	}
	lan := "gw/lan.child = lan\ngw/lan.ike = gw\ngw/lan.mode = PASS\ngw/lan.local-ts = [10.1.0.0/16]\ngw/lan.remote-ts = [10.1.0.0/16]\n"
	if got := s.policies("trap = yes\npass = yes\ndrop = yes\n"); got != lan {
		t.Errorf("policies:\n%s", got)
	}
	s.refused("install", "", "missing configuration name")
	s.refused("install", "child = other\n", "configuration name not found")
	s.refused("install", "child = net\nike = other\n", "configuration name not found")
	s.refused("uninstall", "", "missing configuration name")
	s.refused("uninstall", "child = net\n", "policy 'net' not found")
	s.ok("install", "child = net\nike = gw\n")
	s.ok("install", "child = net\n") // stands already
	net := "gw/net.child = net\ngw/net.reqid = 0\ngw/net.ike = gw\ngw/net.mode = TUNNEL\ngw/net.local-ts = [10.1.0.0/24]\ngw/net.remote-ts = [10.2.0.0/24]\n"
	for filter, want := range map[string]string{"trap = yes\n": net, "trap = yes\npass = yes\n": net + lan, "pass = yes\ntrap = yes\nchild = net\n": net,
		"trap = yes\nike = other\n": "", "drop = yes\n": "", "": ""} {
		if got := s.policies(filter); got != want {
			t.Errorf("with %q:\n%s", filter, got)
		}
	}
	s.ok("load-conn", body)
	s.ok("uninstall", "child = lan\n")
	s.ok("load-conn", body)
	if got := s.policies("trap = yes\npass = yes\n"); got != net {
		t.Errorf("policies:\n%s", got)
	}
	s.ok("uninstall", "child = net\nike = gw\n")
	s.refused("uninstall", "child = net\nike = gw\n", "policy 'net' not found")
	s.ok("install", "child = lan\n")
	// A trap of the configuration, too, goes and comes back; new settings start anew.
	trap := strings.Replace(body, "dpd_action = trap", "start_action = trap", 1)
	s.ok("load-conn", trap)
	s.ok("uninstall", "child = net\n")
	s.ok("load-conn", trap)
	if got := s.policies("trap = yes\npass = yes\n"); got != lan {
		t.Errorf("policies:\n%s", got)
	}
	s.ok("load-conn", strings.Replace(trap, "10.2.0.0/24", "10.3.0.0/24", 1))
	if got := s.policies("trap = yes\n"); !strings.Contains(got, "[10.3.0.0/24]") {
		t.Errorf("policies:\n%s", got)
	}
	s.ok("unload-conn", "name = gw\n")
	if got := s.policies("trap = yes\npass = yes\n"); got != "" {
		t.Errorf("policies:\n%s", got)
	}
	s.ok("load-conn", strings.Replace(body, "10.2.0.0/24", "dynamic", 1)+strings.Replace(strings.Replace(body, "gw {", "any {", 1), "remote_addrs = 192.0.2.2", "", 1))
	s.ok("install", "child = net\nike = gw\n")
	if got := s.policies("trap = yes\n"); !strings.Contains(got, "remote-ts = [192.0.2.2/32]") {
		t.Errorf("policies:\n%s", got)
	}
}

// A packet that finds an installed policy brings the tunnel up.
func TestInstalledTrap(t *testing.T) {
	left, right, _ := sides(t)
	left.ok("install", "child = net\n")
	packet := []byte{0x45, 0, 0, 28, 0, 1, 0x40, 0, 64, 253, 0, 0, 10, 1, 0, 2, 10, 2, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8}
	checksum(packet[:20])
	if _, err := left.inner.Write([][]byte{append(make([]byte, 64), packet...)}, 64); err != nil {
		t.Fatal(err)
	}
	if n, err := right.inner.Read([][]byte{make([]byte, 2048)}, []int{0}, 0); err != nil || n != 1 {
		t.Fatal(n, err)
	}
}

func TestAlgorithms(t *testing.T) {
	s := newSide(t, conn.NewNetwork(), "192.0.2.1")
	m, _ := s.call("get-algorithms", "", "")
	got := text(m)
	contains(t, got, "encryption.AES_CBC = adit\n", "integrity.HMAC_SHA2_256_128 = adit\n", "aead.AES_GCM_16 = adit\n", "aead.CHACHA20_POLY1305 = adit\n", "hasher.HASH_SHA2_256 = adit\n",
		"prf.PRF_HMAC_SHA2_256 = adit\n", "kdf.KDF_PRF_PLUS = adit\n", "ke.CURVE_25519 = adit\n", "ke.MODP_2048 = adit\n", "rng.RNG_STRONG = adit\n", "nonce-gen.NONCE_GEN = adit\n")
	for _, no := range []string{"KE_NONE", "encryption.AES_GCM", "EXT_SEQ", "("} {
		if strings.Contains(got, no) {
			t.Errorf("%s is listed:\n%s", no, got)
		}
	}
}

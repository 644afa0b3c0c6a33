package peer_test

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"adit/interop/lab"
	"adit/interop/peer"
)

func TestMain(m *testing.M) {
	code := m.Run()
	peer.RemoveBuilds()
	os.Exit(code)
}

// siteToSite is a connection of one end with shared keys and AES-GCM.
func siteToSite(local, remote netip.Addr, localTS, remoteTS netip.Prefix, key string) string {
	return fmt.Sprintf(`connections {
	gw {
		version = 2
		local_addrs = %[1]v
		remote_addrs = %[2]v
		proposals = aes256gcm16-prfsha384-x25519
		local {
			auth = psk
			id = %[1]v
		}
		remote {
			auth = psk
			id = %[2]v
		}
		children {
			net {
				local_ts = %[3]v
				remote_ts = %[4]v
				esp_proposals = aes256gcm16-x25519
			}
		}
	}
}
secrets {
	ike-1 {
		secret = "%[5]s"
	}
}
`, local, remote, localTS, remoteTS, key)
}

// Two strongSwans prove the lab: nothing passes before the tunnel, a ping passes
// through it, and outside no inner address and no cleartext is to be seen.
func TestStrongSwanWithStrongSwan(t *testing.T) {
	l := lab.ForTest(t, "psw", lab.Options{Middle: lab.Bridge})
	left, right := strongSwans(t, l)
	load(t, left, siteToSite(l.L.Wan4, l.R.Wan4, l.L.Inner4, l.R.Inner4, "a shared key"))
	load(t, right, siteToSite(l.R.Wan4, l.L.Wan4, l.R.Inner4, l.L.Inner4, "a shared key"))
	if r, err := l.Ping(lab.LeftHost, l.R.Host4, lab.PingOptions{Count: 3, Timeout: 200 * time.Millisecond}); err != nil || r.Received != 0 {
		t.Fatalf("ping passes before the tunnel is up: %+v %v", r, err)
	}

	outside, err := l.CaptureOutside()
	if err != nil {
		t.Fatal(err)
	}
	if err := left.Initiate("net"); err != nil {
		t.Fatal(err)
	}
	if err := l.WaitPing(lab.LeftHost, l.R.Host4, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	marker := []byte("adit-marker-1234")
	r, err := l.Ping(lab.LeftHost, l.R.Host4, lab.PingOptions{Count: 10, Pattern: marker})
	if err != nil || r.Received != 10 {
		t.Errorf("ping through the tunnel: %+v %v", r, err)
	}
	before := sas(t, left)
	cs := peer.Installed(before, "net")
	if len(cs) != 1 || cs[0].PacketsOut < 10 || cs[0].PacketsIn < 10 || cs[0].Encryption != "AES_GCM_16-256" || !cs[0].Encap {
		t.Fatalf("children: %+v", cs)
	}
	if len(cs[0].LocalTS) != 1 || cs[0].LocalTS[0] != l.L.Inner4.String() {
		t.Errorf("selectors: %v", cs[0].LocalTS)
	}

	// Rekeys of either kind change the SPIs.
	if err := right.RekeyChild("net"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "a rekeyed child", left, func(s []peer.SA) bool {
		n := peer.Installed(s, "net")
		return len(n) == 1 && n[0].SPIIn != cs[0].SPIIn && n[0].SPIOut != cs[0].SPIOut
	})
	if err := left.RekeyIKE("gw"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "a rekeyed IKE SA", right, func(s []peer.SA) bool {
		e := peer.Established(s, "gw")
		return len(e) == 1 && e[0].InitiatorSPI != before[0].InitiatorSPI
	})
	if err := l.WaitPing(lab.RightHost, l.L.Host4, 5*time.Second); err != nil {
		t.Error(err)
	}

	got := outside.Stop()
	if got.Clear != 0 || got.Missed != 0 || got.ESP() < 20 || got.By[lab.ClassIKE] < 4 {
		t.Errorf("outside: %+v", got)
	}
	if n := outside.Contains(marker); n != 0 {
		t.Errorf("%d packets outside hold the cleartext", n)
	}

	if err := left.Terminate("gw"); err != nil {
		t.Error(err)
	}
	waitFor(t, "no SA", right, func(s []peer.SA) bool { return len(s) == 0 })
	if r, err := l.Ping(lab.LeftHost, l.R.Host4, lab.PingOptions{Timeout: 200 * time.Millisecond}); err != nil || r.Received != 0 {
		t.Errorf("ping passes after the tunnel is down: %+v %v", r, err)
	}

	if err := left.Stop(); err != nil {
		t.Error(err)
	}
	if left.PID() != 0 {
		t.Error("still running after Stop")
	}
	right.Kill9()
	if err := left.Start(); err != nil {
		t.Errorf("second start: %v", err)
	}
	if !strings.Contains(left.Log(), "IKE_SA gw[1] established") || !strings.HasPrefix(left.Name(), "strongSwan 5.9") {
		t.Errorf("log or name (%s)", left.Name())
	}
}

func TestStrongSwanWrongKey(t *testing.T) {
	l := lab.ForTest(t, "pwk", lab.Options{})
	left, right := strongSwans(t, l)
	load(t, left, siteToSite(l.L.Wan6, l.R.Wan6, l.L.Inner6, l.R.Inner6, "left's key"))
	load(t, right, siteToSite(l.R.Wan6, l.L.Wan6, l.R.Inner6, l.L.Inner6, "right's key"))
	err := left.Initiate("net")
	if err == nil || !strings.Contains(err.Error(), "AUTHENTICATION_FAILED") {
		t.Errorf("initiating with a wrong key: %v", err)
	}
	if err := left.Load("connections {\n gw {\n"); err == nil {
		t.Error("a broken configuration was loaded")
	}
}

// strongSwans starts one at either end; their logs are printed if the test fails.
func strongSwans(t *testing.T, l *lab.Lab) (left, right peer.Gateway) {
	t.Helper()
	var gs [2]peer.Gateway
	for i, node := range []string{lab.Left, lab.Right} {
		g, err := peer.StrongSwan(l, node, peer.StrongSwanOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("%s:\n%s", node, g.Log())
			}
		})
		if err := g.Start(); err != nil {
			t.Fatal(err)
		}
		gs[i] = g
	}
	return gs[0], gs[1]
}

func load(t *testing.T, g peer.Gateway, conf string) {
	t.Helper()
	if err := g.Load(conf); err != nil {
		t.Fatal(err)
	}
}

func sas(t *testing.T, g peer.Gateway) []peer.SA {
	t.Helper()
	s, err := g.SAs()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func waitFor(t *testing.T, what string, g peer.Gateway, cond func([]peer.SA) bool) {
	t.Helper()
	var last []peer.SA
	err := lab.Poll(5*time.Second, func() (bool, error) {
		s, err := g.SAs()
		last = s
		return err == nil && cond(s), err
	})
	if err != nil {
		t.Fatalf("waiting for %s: %v\n%+v", what, err, last)
	}
}

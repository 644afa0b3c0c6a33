package main

import (
	"os"
	"strings"
	"testing"
)

// Users come by EAP with leases on the disk, two hundred within two seconds, and packets
// go to them and from them. The figures of so short a run mean nothing.
func TestBenchUsers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces")
	}
	out, code := program(nil, "bench", "users", "--users", "20,200", "--within", "2s", "--settle", "100ms", "--packets", "100ms")
	if code != 0 {
		t.Fatalf("code %d\n%s", code, out)
	}
	for _, w := range []string{"20 users within 200ms: all came in", "200 users within 2s: all came in", "packets to 1 of them", "packets from 1 of them", "from 20 to 200 users"} {
		if !strings.Contains(out, w) {
			t.Errorf("no %q in:\n%s", w, out)
		}
	}
	if left := shell(t, "ip", "netns"); strings.Contains(left, "buser") {
		t.Errorf("namespaces are left:\n%s", left)
	}
	if out, code := program(nil, "bench", "users", "--users", "0"); code == 0 || !strings.Contains(out, "from 1 to") {
		t.Errorf("%d %s", code, out)
	}
}

// The benchmark meets both responders, and finds every SA and route in them.
func TestBenchIKE(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces")
	}
	out, code := program(nil, "bench", "ike", "--sas", "100", "--rounds", "1", "--auth", "psk,ecdsa", "--settle", "100ms")
	if code != 0 {
		t.Fatalf("code %d\n%s", code, out)
	}
	for _, w := range []string{"round 1: adit psk, 100 SAs", "round 1: charon psk, 100 SAs", "round 1: adit ecdsa, 100 SAs", "round 1: charon ecdsa, 100 SAs", "100 routes", "times charon's set-ups a second and core"} {
		if !strings.Contains(out, w) {
			t.Errorf("no %q in:\n%s", w, out)
		}
	}
	if left := shell(t, "ip", "netns"); strings.Contains(left, "bike") {
		t.Errorf("namespaces are left:\n%s", left)
	}
	if out, code := program(nil, "bench", "ike", "--auth", "none"); code == 0 || !strings.Contains(out, "use psk, ecdsa or mlkem") {
		t.Errorf("%d %s", code, out)
	}
}

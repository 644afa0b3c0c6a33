package interop_test

import (
	"testing"

	"adit/interop/lab"
)

// Certificate chains of 6 kB in main mode, through a path that drops long packets and IP
// fragments, with losses, and with each setting of `fragmentation`.
func TestV1Fragmentation(t *testing.T) {
	t.Parallel()
	across(t, settings{middle: lab.Impaired, charon: "fragment_size = 1280\nretransmit_timeout = 0.4\nretransmit_base = 1.1\nretransmit_tries = 12\n"}, func(t *testing.T, p *path) {
		p.giveLongChains(t, p.v1)
		p.impair(t, lab.Impairment{Filter: narrowPath})
		p.v1Fragments(t, "yes", true, true)
		p.v1Fragments(t, "force", true, true)
		p.impair(t, lab.Impairment{Filter: narrowPath, Seed: 11, Loss: 0.1, Duplicate: 0.1, Reorder: 0.3})
		if err := p.left.Initiate("yes"); err != nil {
			t.Errorf("with losses: %v", err)
		}
		p.impair(t, lab.Impairment{})
		p.down(t, "yes")
		p.v1Fragments(t, "accept", false, true)
		p.v1Fragments(t, "no", false, false)
	})
}

// v1Fragments sets a connection up and takes it down, and looks who sent fragments of
// ISAKMP and who left it to IP.
func (p *path) v1Fragments(t *testing.T, name string, byLeft, byRight bool) {
	t.Helper()
	p.fragmentsOf(t, "ISAKMP", isakmpFragment, name, byLeft, byRight)
}

// isakmpFragment reports whether an IPv4 packet of UDP is an ISAKMP message that begins
// with a Fragment payload, with or without the marker of port 4500.
func isakmpFragment(b []byte) bool {
	const ip, udp, marker, next, version, frag = 20, 8, 4, 16, 17, 132
	for _, at := range []int{ip + udp, ip + udp + marker} {
		if len(b) > at+version && b[0] == 0x45 && b[at+next] == frag && b[at+version] == 0x10 {
			return true
		}
	}
	return false
}

// Aggressive mode in a large group begins with more than a packet holds; with `force` its
// first message goes in fragments before anybody has announced anything.
func TestV1FirstMessageInFragments(t *testing.T) {
	t.Parallel()
	aggressive := "fragment_size = 576\ni_dont_care_about_security_and_use_aggressive_mode_psk = yes\n"
	across(t, settings{middle: lab.Bridge, charon: aggressive}, func(t *testing.T, p *path) {
		left, right := p.v1(false)
		for _, c := range []*conn{&left, &right} {
			c.ike, c.extra = "aes256-sha256-modp4096", "aggressive = yes\nfragmentation = force\n"
		}
		p.load(left, right)
		p.freshCapture()
		p.up()
		p.quickPing()
		first := 0
		p.outside.Count(func(k *lab.Packet) bool {
			const responderSPI = 20 + 8 + 8
			if k.Src == p.L.Wan4 && isakmpFragment(k.Bytes) && [8]byte(k.Bytes[responderSPI:]) == [8]byte{} {
				first++
			}
			return false
		})
		if first < 2 {
			t.Errorf("the first message came in %d fragments", first)
		}
	})
}

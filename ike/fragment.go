package ike

import "net/netip"

// MessageRoom is the greatest message to the peer that makes a packet of FragmentSize:
// without the headers of IP and UDP and the non-ESP marker, which port 4500 adds.
func (c *Config) MessageRoom(remote netip.Addr) int {
	const udp, marker = 8, 4
	ip, size := 20, c.FragmentSize4
	if remote.Unmap().Is6() {
		ip, size = 40, c.FragmentSize6
	}
	return size - ip - udp - marker
}

// HoldFragments tells how many bytes of messages that have not come whole the
// IKE SA keeps (RFC 7383 §2.6); false: the engine keeps too much already, and
// what was held before counts on. Whoever has proved nothing yet gets at most
// half of the room, so that a flood leaves some to established IKE SAs.
func (v *Env) HoldFragments(bytes int) bool {
	limit := limitFragmentBytes
	if v.upSince.IsZero() {
		limit /= 2
	}
	total := v.e.fragmentBytes - v.fragmentBytes + bytes
	if bytes > v.fragmentBytes && total > limit {
		return false
	}
	v.e.fragmentBytes, v.fragmentBytes = total, bytes
	return true
}

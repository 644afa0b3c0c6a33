package tun_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"adit/tun/ring"
)

// TestRingConntracked: a fragmented packet, which connection tracking puts together and
// the kernel cuts again, comes behind the single packets of its flow that were before it. That
// is also so when a capture at the other interface has the kernel copy each.
func TestRingConntracked(t *testing.T) {
	nft, err := exec.LookPath("nft")
	if err != nil {
		t.Skip(err)
	}
	withRing(t, func(l *ringLab) {
		out, err := exec.Command(nft, "add table inet t; add chain inet t c { type filter hook forward priority 0; }; add rule inet t c ct state new accept").CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		for n := range 12 {
			v6, captured := n%2 == 1, n/2%2 == 1
			what := fmt.Sprintf("v6 %v, captured %v", v6, captured)
			if n == 2 {
				fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
				l.must(err)
				defer unix.Close(fd)
				l.must(unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: tunHtons(unix.ETH_P_ALL), Ifindex: l.link("gw").Attrs().Index}))
			}
			if n >= 2 && !captured {
				continue
			}
			l.warm(ring.UDP)
			whole := l.packet(v6, ring.UDP, 2000, nil)
			start, _ := sumOf(whole)
			const cut = 1000
			single := l.packet(v6, ring.UDP, 500, nil)
			l.put(single)
			for _, part := range [][2]int{{0, cut}, {cut, len(whole) - start}} {
				p := bytes.Clone(whole[:start])
				more := uint16(0)
				if part[0] == 0 {
					more = 1
				}
				if v6 {
					p[6] = 44
					p = append(p, 17, 0, 0, 0, 0, 0, 0, byte(n))
					binary.BigEndian.PutUint16(p[start+2:], uint16(part[0])|more)
					p = append(p, whole[start+part[0]:start+part[1]]...)
					binary.BigEndian.PutUint16(p[4:], uint16(len(p)-40))
				} else {
					binary.BigEndian.PutUint16(p[6:], uint16(part[0]/8)|more<<13)
					p = append(p, whole[start+part[0]:start+part[1]]...)
					binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
					headerSummed(p)
				}
				l.put(p)
			}
			l.expect(what, forwarded(single))
			for range 2 {
				if p := l.take(1e9); p == nil || len(p) == len(single) {
					t.Errorf("%s: %d bytes of a fragment", what, len(p))
				}
			}
			l.empty()
			l.put(single)
			if l.expect(what, forwarded(single)) {
				t.Errorf("%s: the ring is still on behind fragments", what)
			}
			l.empty()
		}
	})
}

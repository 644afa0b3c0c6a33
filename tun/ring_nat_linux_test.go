package tun_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"adit/tun"
	"adit/tun/ring"
)

// TestRingTranslated has nftables translate both addresses and a port in front of the device.
// The lengths are such that sums go through zero, of which there are two.
func TestRingTranslated(t *testing.T) {
	nft, err := exec.LookPath("nft")
	if err != nil {
		t.Skip(err)
	}
	withRing(t, func(l *ringLab) {
		to4, to6 := netip.MustParseAddr("10.9.0.7"), netip.MustParseAddr("fd09::7")
		as4, as6 := netip.MustParseAddr("10.7.0.0").As4(), netip.MustParseAddr("fd07::").As16()
		// The sum over a UDP packet's pseudo header is 0xffff at a length of 500.
		lack := func(v6 bool, as []byte) {
			p := l.packet(v6, ring.UDP, 500, nil)
			copy(p[map[bool]int{false: 12, true: 8}[v6]:], as)
			copy(p[map[bool]int{false: 16, true: 24}[v6]:], map[bool][]byte{false: to4.AsSlice(), true: to6.AsSlice()}[v6])
			// The complement of a sum is what it lacks.
			binary.BigEndian.PutUint16(as[len(as)-2:], tun.Checksum(pseudoHeader(p)))
		}
		lack(false, as4[:])
		lack(true, as6[:])
		from := map[bool]netip.Addr{false: netip.AddrFrom4(as4), true: netip.AddrFrom16(as6)}
		rules := ""
		for _, f := range []struct {
			family, to string
			v6         bool
		}{{"ip", "10.9.0.7:3000", false}, {"ip6", "[fd09::7]:3000", true}} {
			rules += fmt.Sprintf(`table %s t {
				chain pre { type nat hook prerouting priority -100; meta l4proto { tcp, udp } th dport 2000 dnat to %s; }
				chain post { type nat hook postrouting priority 100; oifname "adit0" meta l4proto { tcp, udp } snat to %s; }
			}
			`, f.family, f.to, from[f.v6])
		}
		command := exec.Command(nft, "-f", "-")
		command.Stdin = strings.NewReader(rules)
		if out, err := command.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		l.must(os.WriteFile("/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal", []byte("1"), 0o644))
		expected := func(p []byte) []byte {
			p = forwarded(p)
			start, offset := sumOf(p)
			none := binary.BigEndian.Uint16(p[start+offset:]) == 0
			if p[0]>>4 == 6 {
				copy(p[8:], from[true].AsSlice())
				copy(p[24:], to6.AsSlice())
			} else {
				copy(p[12:], from[false].AsSlice())
				copy(p[16:], to4.AsSlice())
			}
			binary.BigEndian.PutUint16(p[start+2:], 3000)
			if summed(p); none {
				p[start+offset], p[start+offset+1] = 0, 0
			}
			return p
		}
		for n := range 6000 {
			v6, c := n%2 == 1, []ring.Class{ring.UDP, ring.TCP}[n/2%2]
			p := l.packet(v6, c, 120+n/4, nil)
			if n < 2000 { // as many of a length as switch the ring on
				p = l.packet(v6, c, 300, nil)
			}
			start, offset := sumOf(p)
			binary.BigEndian.PutUint16(p[start:], uint16(1000+n%700))
			if c == ring.TCP {
				copy(p[start+4:], []byte{1, 2, 3, 4, 5, 6, 7, 8})
			}
			summed(p)
			switch n / 4 % 3 {
			case 0:
				if c == ring.UDP && !v6 {
					p[start+offset], p[start+offset+1] = 0, 0
				}
				l.put(p)
			case 1:
				l.put(p)
			default:
				l.putPartial(p)
			}
			l.expect(fmt.Sprintf("packet %d", n), expected(p))
			if l.empty(); t.Failed() {
				return
			}
		}
		if n := l.dev.Stats().ReadRing; n < 4000 {
			t.Errorf("%d packets came by the ring", n)
		}
	})
}

// TestRingSockets: what sockets of the host and of the gateway itself send arrives, the
// latter by the queue.
func TestRingSockets(t *testing.T) {
	withRing(t, func(l *ringLab) {
		l.warm(ring.UDP)
		l.warm(ring.TCP)
		send := func(v6 bool, kind int) {
			family := unix.AF_INET
			var to unix.Sockaddr = &unix.SockaddrInet4{Port: 2000, Addr: far4.As4()}
			if v6 {
				family, to = unix.AF_INET6, &unix.SockaddrInet6{Port: 2000, Addr: far6.As16()}
			}
			fd, err := unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			l.must(err)
			defer unix.Close(fd)
			if err := unix.Connect(fd, to); err != nil && err != unix.EINPROGRESS {
				t.Fatal(err)
			}
			if kind == unix.SOCK_DGRAM {
				_, err = unix.Write(fd, payload(1000))
				l.must(err)
			}
		}
		for _, local := range []bool{false, true} {
			for n := range 8 {
				v6, kind := n%2 == 1, []int{unix.SOCK_DGRAM, unix.SOCK_STREAM}[n/2%2]
				if local {
					send(v6, kind)
				} else {
					l.inHost(func() { send(v6, kind) })
				}
				before := l.dev.Stats().ReadRing
				got := l.take(2e9)
				if got == nil || !bytes.Equal(summed(bytes.Clone(got)), got) {
					t.Fatalf("local %v, v6 %v, kind %d: %x", local, v6, kind, got)
				}
				if kind == unix.SOCK_DGRAM && !bytes.Equal(got[stamped(got):], payload(1000)) {
					t.Errorf("another payload: %x", got)
				}
				if byRing := l.dev.Stats().ReadRing != before; byRing == local {
					t.Errorf("local %v, v6 %v, kind %d: by the ring %v", local, v6, kind, byRing)
				}
			}
		}
	})
}

// TestRingTunnel: a packet within VXLAN of a host on the same machine has its checksum.
func TestRingTunnel(t *testing.T) {
	withRing(t, func(l *ringLab) {
		inside := 0
		l.inHost(func() {
			err := netlink.LinkAdd(&netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "vx"}, VxlanId: 5, Group: far4.AsSlice(), SrcAddr: near4.AsSlice(), Port: 4789})
			if err == unix.EOPNOTSUPP {
				t.Skip("the kernel has no VXLAN")
			}
			l.must(err)
			l.must(os.WriteFile("/proc/sys/net/ipv6/conf/vx/disable_ipv6", []byte("1"), 0o644))
			l.up("vx", "10.5.0.1/24")
			l.must(netlink.NeighAdd(&netlink.Neigh{LinkIndex: l.link("vx").Attrs().Index, State: unix.NUD_PERMANENT, IP: netip.MustParseAddr("10.5.0.2").AsSlice(), HardwareAddr: []byte{2, 0, 0, 0, 0, 1}}))
			inside, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			l.must(err)
		})
		defer unix.Close(inside)
		for range 3 {
			l.warm(ring.UDP)
			for n := range 600 {
				l.must(unix.Sendto(inside, payload(300), 0, &unix.SockaddrInet4{Port: 9, Addr: [4]byte{10, 5, 0, 2}}))
				got := l.take(1e9)
				const within = 20 + 8 + 8 + 14
				if len(got) < within+20 {
					t.Fatalf("packet %d: %x", n, got)
				}
				if in := got[within:]; in[0] == 0x45 && !bytes.Equal(in, summed(bytes.Clone(in))) {
					t.Fatalf("packet %d within: %x", n, in)
				}
			}
		}
	})
}

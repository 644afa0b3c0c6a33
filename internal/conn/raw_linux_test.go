//go:build linux

package conn_test

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"adit/internal/conn"
)

// Raw ESP has the same IP header whoever makes it, but for DF; and rules look at its
// source and traffic class in both cases.
func TestRawHeaders(t *testing.T) {
	p := newPath(t)
	a := p.listen(0, conn.Options{})
	fd := -1
	p.in(1, func() { // it sees the headers, and no other program of the machine is in there
		fd, _ = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(binary.NativeEndian.Uint16([]byte{0, 3})))
	})
	if fd < 0 {
		t.Fatal("no packet socket")
	}
	defer unix.Close(fd)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}))
	next := func() []byte {
		b := make([]byte, 2000)
		for {
			n, _, err := unix.Recvfrom(fd, b, 0)
			must(err)
			if b[0]>>4 == 4 && b[9] == 50 || b[0]>>4 == 6 && b[6] == 50 {
				return b[:n]
			}
		}
	}
	for _, way := range [][2]netip.Addr{{{}, right}, {left, right}, {netip.MustParseAddr("192.0.2.11"), right}, {{}, right6}, {netip.MustParseAddr("2001:db8::11"), right6}} {
		var heads [2][]byte
		for i, df := range []bool{false, true} {
			out := conn.Packet{Kind: conn.ESP, DF: df, TOS: 0xb9, Local: netip.AddrPortFrom(way[0], 0), Remote: netip.AddrPortFrom(way[1], 0), Buf: espPacket(9, 100)}
			if n, err := a.WriteBatch([]conn.Packet{out}); n != 1 {
				t.Fatal(way, err)
			}
			b := next()
			if way[1].Is4() {
				if got := b[6]&0x40 != 0; got != df {
					t.Errorf("%v: DF is %v", way, got)
				}
				if sum := onesum(b[:20]); sum != 0xffff {
					t.Errorf("%v: header checksum: %x", way, sum)
				}
				b[4], b[5], b[6], b[10], b[11] = 0, 0, 0, 0, 0
			} else {
				b[1] &= 0xf0 // the flow label is the kernel's, or zero
				b[2], b[3] = 0, 0
			}
			heads[i] = b
		}
		if !bytes.Equal(heads[0], heads[1]) {
			t.Errorf("%v:\n%x\n%x", way, heads[0], heads[1])
		}
	}
	// A rule for a source, and one for a traffic class, lead nowhere.
	p.in(0, func() {
		for _, r := range []netlink.Rule{{Src: subnet("192.0.2.11/32")}, {Tos: 0x10}} {
			rule := netlink.NewRule()
			rule.Src, rule.Tos, rule.Family, rule.Table, rule.Priority = r.Src, r.Tos, unix.AF_INET, 77, 77
			must(netlink.RuleAdd(rule))
		}
		must(netlink.RouteAdd(&netlink.Route{Table: 77, Type: unix.RTN_UNREACHABLE, Dst: subnet("0.0.0.0/0")}))
	})
	for _, df := range []bool{false, true} {
		for _, c := range []struct {
			from string
			tos  uint8
			sent int
		}{{"192.0.2.1", 0, 1}, {"192.0.2.11", 0, 0}, {"192.0.2.1", 0x10, 0}} {
			out := conn.Packet{Kind: conn.ESP, DF: df, TOS: c.tos, Local: netip.AddrPortFrom(netip.MustParseAddr(c.from), 0), Remote: netip.AddrPortFrom(right, 0), Buf: espPacket(9, 100)}
			if n, err := a.WriteBatch([]conn.Packet{out}); n != c.sent {
				t.Errorf("DF %v, %+v: %d sent, %v", df, c, n, err)
			}
		}
	}
}

func subnet(s string) *net.IPNet {
	_, n, err := net.ParseCIDR(s)
	if err != nil {
		panic(err)
	}
	return n
}

// onesum is the sum of RFC 1071.
func onesum(b []byte) (sum uint32) {
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	return sum>>16 + sum&0xffff
}

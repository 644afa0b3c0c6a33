package interop_test

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"adit/interop/lab"
	"adit/interop/peer"
)

// inform is the DHCPINFORM of a Windows client as it sends it when its tunnel is up:
// from its inner address to 255.255.255.255, with the options that it wants to know
// (RFC 2131 §4.3.5; MS-DHCPE, option 249).
func inform(vip netip.Addr) []byte {
	b := make([]byte, 236)
	b[0], b[1], b[2] = 1, 8, 6 // BOOTREQUEST
	binary.BigEndian.PutUint32(b[4:], 0x1a2b3c4d)
	copy(b[12:], vip.AsSlice())
	b = append(b, 99, 130, 83, 99, 53, 1, 8, 61, 7, 8, 1, 2, 3, 4, 5, 6, 12, 2, 'p', 'c', 60, 8)
	b = append(b, "MSFT 5.0"...)
	return append(b, 55, 4, 6, 15, 121, 249, 255)
}

// option is the value of an option of a DHCP answer.
func option(b []byte, code byte) (v []byte) {
	for b = b[240:]; len(b) > 2 && b[0] != 255; b = b[2+int(b[1]):] {
		if b[0] == code && len(b) >= 2+int(b[1]) {
			v = append(v, b[2:2+int(b[1])]...)
		}
	}
	return v
}

// A DHCPINFORM through the tunnel is answered through the tunnel, with the networks
// behind the gateway as routes (249 and 121), name servers and the domain.
func TestInformThroughTheTunnel(t *testing.T) {
	among(t, []pair{{strongSwan, adit}, {adit, adit}}, settings{middle: lab.Bridge}, func(t *testing.T, p *path) {
		left, right := p.ends(false)
		left.localTS, right.remoteTS = "dynamic", "dynamic"
		left.remoteTS, right.localTS = "10.2.0.0/24,255.255.255.255/32", "10.2.0.0/24,255.255.255.255/32"
		left.extra, right.extra = "vips = 0.0.0.0\n", "pools = pool\n"
		if err := p.left.Load(left.text(leftID, rightID)); err != nil {
			t.Fatal(err)
		}
		if err := p.right.Load(right.text(rightID, leftID) + "pools {\npool {\naddrs = 10.3.0.0/28\ndns = 10.2.0.53\n25 = corp.example\n}\n}\n"); err != nil {
			t.Fatal(err)
		}
		p.up()
		vip := netip.MustParseAddr(p.sas(p.left)[0].LocalVIPs[0])
		device := "ipsec0"
		if _, ours := p.left.(*peer.AditGateway); ours {
			device = "adit0"
		}
		var c *net.UDPConn
		if err := lab.InNS(p.NS(lab.Left), func() (err error) {
			lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
				if e := raw.Control(func(fd uintptr) {
					if err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1); err == nil {
						err = unix.SetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE, device)
					}
				}); e != nil {
					return e
				}
				return err
			}}
			pc, err := lc.ListenPacket(t.Context(), "udp4", netip.AddrPortFrom(vip, 68).String())
			if err == nil {
				c = pc.(*net.UDPConn)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		answer := make([]byte, 1500)
		var n int
		if err := lab.Poll(8*time.Second, func() (bool, error) {
			if _, err := c.WriteToUDPAddrPort(inform(vip), netip.MustParseAddrPort("255.255.255.255:67")); err != nil {
				return false, err
			}
			c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
			var err error
			n, err = c.Read(answer)
			return err == nil, nil
		}); err != nil {
			t.Fatalf("no answer: %v", err)
		}
		if answer = answer[:n]; n < 240 || answer[0] != 2 || !bytes.Equal(answer[4:8], []byte{0x1a, 0x2b, 0x3c, 0x4d}) || !bytes.Equal(option(answer, 53), []byte{5}) {
			t.Fatalf("no DHCPACK: %x", answer)
		}
		for _, code := range []byte{249, 121} {
			if r := option(answer, code); !bytes.HasPrefix(r, []byte{24, 10, 2, 0}) || len(r) < 8 {
				t.Errorf("option %d is %v", code, r)
			}
		}
		if dns := option(answer, 6); !bytes.Equal(dns, []byte{10, 2, 0, 53}) || strings.TrimRight(string(option(answer, 15)), "\x00") != "corp.example" {
			t.Errorf("name servers %v, domain %q", dns, option(answer, 15))
		}
	})
}

package userspace_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"adit/dataplane/userspace"
	"adit/internal/kernel"
)

// behind makes a host's namespace behind a gateway's and returns a packet socket at its
// interface, whose packets have a virtio header, and what is to precede IPv4.
func behind(t *testing.T, gateway string) (fd int, ether []byte) {
	t.Helper()
	ns := fmt.Sprintf("adp%dh%d", namespaces.Add(1), os.Getpid())
	ipCommand(t, "netns add "+ns)
	t.Cleanup(func() { ipCommand(t, "netns del "+ns) })
	ipCommand(t, fmt.Sprintf("link add host netns %s type veth peer name in netns %s", ns, gateway))
	ipCommand(t, "-n "+ns+" link set host up")
	for _, c := range []string{"link set in up", "addr add 172.31.0.254/24 dev in", "route add 10.1.0.0/16 dev in", "route add 10.2.0.0/16 dev adit0"} {
		ipCommand(t, "-n "+gateway+" "+c)
	}
	inNamespace(t, gateway, func() error {
		in, err := net.InterfaceByName("in")
		if err == nil {
			ether = append(ether, in.HardwareAddr...)
			err = os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644)
		}
		return err
	})
	inNamespace(t, ns, func() error {
		host, err := net.InterfaceByName("host")
		if err != nil {
			return err
		}
		ether = append(append(ether, host.HardwareAddr...), 8, 0)
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: host.Index})
	})
	t.Cleanup(func() { unix.Close(fd) })
	return fd, ether
}

// framed is what a device would give as the host sends it.
func framed(super, ether []byte) []byte {
	const header = 10
	h := bytes.Clone(super[:header])
	p := super[header:]
	if h[0] != 0 {
		start := binary.NativeEndian.Uint16(h[6:])
		size := start + 8
		if p[9] == 6 {
			size = start + uint16(p[start+12]>>4)*4
		}
		binary.NativeEndian.PutUint16(h[2:], size+uint16(len(ether)))
		binary.NativeEndian.PutUint16(h[6:], start+uint16(len(ether)))
	}
	return append(append(h, ether...), p...)
}

// TestRingEqualPackets: single packets of many flows, at times trains among them, which a
// host has forwarded into a device with a ring, come out at the other gateway as they were
// sent, each flow's in their order, whether the worker sleeps, lingers or is busy.
func TestRingEqualPackets(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	if !kernel.AtLeast(6, 6) {
		t.Skip("the kernel has no tcx")
	}
	l, dev, ns := linuxLinkOf(t, 1, true)
	must(t, dev.RingError())
	l.A.Outer4, l.B.Outer4 = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	between(t, l, 1, 1000, 2000, netB4, nil)
	use(t, l, 1, 1, netB4)
	host, ether := behind(t, ns)
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 7))
	address := func(net byte) netip.Addr { return netip.AddrFrom4([4]byte{10, net, 0, byte(1 + r.IntN(4))}) }
	send := func(b []byte) {
		_, err := unix.Write(host, b)
		must(t, err)
	}
	for round := range 24 {
		want, came, total := map[string][][]byte{}, map[string][][]byte{}, 0
		expect := func(packets ...[]byte) {
			for _, p := range packets {
				p = bytes.Clone(p)
				p[8]--
				p[10], p[11] = 0, 0
				binary.BigEndian.PutUint16(p[10:], onesum(p[:20], 0))
				flow := flowOf(t, p)
				want[flow] = append(want[flow], p)
				total++
			}
		}
		for n := range 400 {
			if round%3 == 2 && total < 600 && r.IntN(100) == 0 {
				x := randomBetween(r, address(1), address(2))
				expect(x.packets...)
				send(framed(x.super, ether))
				continue
			}
			body := make([]byte, 20+r.IntN(1200))
			binary.BigEndian.PutUint32(body[16:], uint32(n))
			p := udp(address(1), address(2), uint16(1000+r.IntN(3)), 443, body)
			if r.IntN(2) == 0 {
				p[9], p[20+12], p[20+13] = 6, 5<<4, 0x10
				p[10], p[11] = 0, 0
				binary.BigEndian.PutUint16(p[10:], onesum(p[:20], 0))
			}
			expect(p)
			send(framed(append(make([]byte, 10), p...), ether))
			if r.IntN(20) == 0 {
				time.Sleep(time.Duration(r.IntN(300)) * time.Microsecond)
			}
		}
		for got := 0; got < total; got++ {
			b := l.B.Receive(5 * time.Second)
			if b == nil {
				break
			}
			flow := flowOf(t, b)
			came[flow] = append(came[flow], b[:len(b):len(b)])
		}
		for flow, w := range want {
			if err := equal(came[flow], w); err != nil {
				t.Fatalf("seed %d, round %d, flow %x: %v; %v, %v, %+v", seed, round, flow, err,
					dropsOf(l.A.Plane.(*userspace.Plane)), dropsOf(l.B.Plane.(*userspace.Plane)), dev.Stats())
			}
		}
	}
	if s := dev.Stats(); s.RingFull != 0 || s.ReadRing < 2000 || s.ReadSuper == 0 {
		t.Errorf("%+v", s)
	}
	t.Logf("%+v", dev.Stats())
}

package tun_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"adit/internal/kernel"
	"adit/tun"
	"adit/tun/ring"
)

// ringLab is a namespace with a device that has a ring, and one of a host whose packets are
// forwarded into it. Both MTUs are larger than what the ring takes.
type ringLab struct {
	t        testing.TB
	dev      *tun.Linux
	gw, host int // namespaces
	raw      int // a packet socket at the host's interface, with virtio header
	ether    []byte
	mem      []byte
	rng      *rand.Rand
}

// The host's addresses, and those behind the device.
var (
	near4, near6 = netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("fd01::2")
	far4, far6   = netip.MustParseAddr("10.9.0.2"), netip.MustParseAddr("fd09::2")
)

const ringMTU = 9000

// withRing runs f in the gateway's namespace.
func withRing(t *testing.T, f func(l *ringLab)) {
	t.Helper()
	if !kernel.AtLeast(6, 6) {
		t.Skip("the kernel has no tcx")
	}
	inNamespace(t, func() {
		l := &ringLab{t: t, mem: make([]byte, tun.TakeSize), rng: rand.New(rand.NewPCG(rand.Uint64(), 0))}
		defer l.close()
		l.build()
		dev, err := tun.CreateTUN("adit0", tun.Options{MTU: ringMTU, Ring: true})
		if err != nil {
			t.Fatal(err)
		}
		defer dev.Close()
		if err := dev.RingError(); err != nil {
			t.Fatal(err)
		}
		l.dev = dev
		address(t, "adit0", "10.9.0.1/24", "fd09::1/64")
		for probe := l.packet(true, 0, 48, nil); ; { // IPv6 takes its time
			if l.put(probe); l.take(5*time.Millisecond) != nil {
				break
			}
		}
		for l.take(5*time.Millisecond) != nil {
		}
		f(l)
	})
}

func (l *ringLab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l *ringLab) close() {
	for _, fd := range []int{l.gw, l.host, l.raw} {
		if fd > 0 {
			unix.Close(fd)
		}
	}
}

// build makes the host's namespace, and the gateway a router.
func (l *ringLab) build() {
	own := func() int {
		fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		l.must(err)
		return fd
	}
	l.gw = own()
	l.must(unix.Unshare(unix.CLONE_NEWNET))
	l.host = own()
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "host", MTU: ringMTU}, PeerName: "gw", PeerMTU: ringMTU, PeerNamespace: netlink.NsFd(l.gw)}
	l.must(netlink.LinkAdd(pair))
	l.up("host", "10.1.0.2/24", "fd01::2/64")
	var err error
	l.raw, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	l.must(err)
	l.must(unix.SetsockoptInt(l.raw, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1))
	ours := l.link("host").Attrs()
	l.must(unix.Bind(l.raw, &unix.SockaddrLinklayer{Ifindex: ours.Index}))
	l.must(unix.Setns(l.gw, unix.CLONE_NEWNET))
	for _, name := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		l.must(os.WriteFile("/proc/sys/net/"+name, []byte("1"), 0o644))
	}
	l.up("gw", "10.1.0.1/24", "fd01::1/64")
	l.ether = append(bytes.Clone(l.link("gw").Attrs().HardwareAddr), ours.HardwareAddr...)
	l.inHost(func() {
		for _, r := range []struct{ dst, via string }{{"10.9.0.0/24", "10.1.0.1"}, {"fd09::/64", "fd01::1"}, {"198.18.0.0/16", "10.1.0.1"}} {
			dst, err := netlink.ParseIPNet(r.dst)
			l.must(err)
			l.must(netlink.RouteAdd(&netlink.Route{Dst: dst, Gw: netip.MustParseAddr(r.via).AsSlice()}))
		}
	})
}

func (l *ringLab) link(name string) netlink.Link {
	link, err := netlink.LinkByName(name)
	l.must(err)
	return link
}

func (l *ringLab) up(name string, prefixes ...string) {
	address(l.t, name, prefixes...)
	l.must(netlink.LinkSetUp(l.link(name)))
}

// inHost runs f in the host's namespace.
func (l *ringLab) inHost(f func()) {
	l.must(unix.Setns(l.host, unix.CLONE_NEWNET))
	defer func() { l.must(unix.Setns(l.gw, unix.CLONE_NEWNET)) }()
	f()
}

// header is what a packet socket of the host gets before the packet. super is the kind of a
// superpacket, of so many bytes a packet; start and offset say where a checksum is to be
// completed.
func (l *ringLab) header(super uint8, size int, start, offset int, v6 bool) []byte {
	b := make([]byte, 10, 24)
	if start > 0 {
		b = tun.VnetHeader(1, super, uint16(start+8), uint16(size), uint16(14+start), uint16(offset))
		if super == 1 || super == 4 {
			binary.NativeEndian.PutUint16(b[2:], uint16(14+start+20))
		} else if super != 0 {
			binary.NativeEndian.PutUint16(b[2:], uint16(14+start+8))
		}
	}
	b = append(b, l.ether...)
	if v6 {
		return append(b, 0x86, 0xdd)
	}
	return append(b, 8, 0)
}

// put sends a packet as it is from the host's interface.
func (l *ringLab) put(p []byte) {
	l.write(append(l.header(0, 0, 0, 0, p[0]>>4 == 6), p...))
}

// write sends what has its headers already.
func (l *ringLab) write(frame []byte) {
	l.t.Helper()
	_, err := unix.Write(l.raw, frame)
	l.must(err)
}

// putPartial sends a packet whose checksum is left to be completed.
func (l *ringLab) putPartial(p []byte) {
	start, offset := sumOf(p)
	l.write(append(l.header(0, 0, start, offset, p[0]>>4 == 6), partial(p)...))
}

// take takes a packet, for which it sleeps if it has to; nil: there is none for so long.
func (l *ringLab) take(wait time.Duration) []byte {
	l.t.Helper()
	var s tun.Super
	for end := time.Now().Add(wait); ; {
		if l.next(&s) {
			return bytes.Clone(s.Packet)
		}
		if !l.dev.Rest() {
			continue
		}
		left := time.Until(end)
		if left <= 0 {
			return nil
		}
		l.poll(left)
	}
}

// next is Take but for what the kernel sends by itself.
func (l *ringLab) next(s *tun.Super) bool {
	l.t.Helper()
	for {
		ok, err := l.dev.Take(s, l.mem)
		l.must(err)
		if !ok || !ofKernel(s.Packet) {
			return ok
		}
	}
}

// ofKernel says that the kernel sends this by itself: multicast of IPv6.
func ofKernel(p []byte) bool { return p[0]>>4 == 6 && p[24] == 0xff }

// poll waits for both descriptors; false: nothing comes.
func (l *ringLab) poll(wait time.Duration) bool {
	fds := []unix.PollFd{{Fd: int32(l.dev.FD()), Events: unix.POLLIN}, {Fd: int32(l.dev.RestFD()), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, int(wait.Milliseconds())+1)
	if err != unix.EINTR {
		l.must(err)
	}
	return n > 0 || err == unix.EINTR
}

// empty says that there is nothing to take. It is also the look at the empty queue at which
// a reader switches the ring on.
func (l *ringLab) empty() {
	l.t.Helper()
	var s tun.Super
	if l.next(&s) {
		l.t.Fatalf("there is more: %x", s.Packet)
	}
}

// expect takes a packet and compares it; the return value is whether it came by the ring.
func (l *ringLab) expect(what string, want []byte) (byRing bool) {
	l.t.Helper()
	before := l.dev.Stats().ReadRing
	got := l.take(time.Second)
	if !bytes.Equal(got, want) {
		l.t.Errorf("%s: %d bytes came of %d:\n%x\n%x", what, len(got), len(want), got[:min(len(got), 120)], want[:min(len(want), 120)])
	}
	return l.dev.Stats().ReadRing != before
}

// warm sends single packets of a class until one comes by the ring, and returns how many
// came by the queue before.
func (l *ringLab) warm(c ring.Class) (queued int) {
	l.t.Helper()
	for {
		p := l.packet(false, c, 100, nil)
		l.put(p)
		if l.expect("warming", forwarded(p)) {
			return queued
		}
		if l.empty(); queued == 2000 {
			l.t.Fatal("the ring is never used")
		}
		queued++
	}
}

// packet makes a whole packet of a length in bytes, with what comes before the transport
// header (options of IPv4, extension headers of IPv6, the first of type ext[0]).
func (l *ringLab) packet(v6 bool, c ring.Class, size int, ext []byte) []byte {
	return packetFrom(l.rng, v6, c, size, ext)
}

func packetFrom(rng *rand.Rand, v6 bool, c ring.Class, size int, ext []byte) []byte {
	p := make([]byte, size)
	for i := 0; i < size; i += 8 {
		var b [8]byte
		binary.NativeEndian.PutUint64(b[:], rng.Uint64())
		copy(p[i:], b[:])
	}
	proto := map[ring.Class]byte{ring.UDP: 17, ring.TCP: 6, 0: 132}[c]
	start := 40
	if v6 {
		copy(p, []byte{0x60, 0, 0, 0, byte((size - 40) >> 8), byte(size - 40), proto, 64})
		copy(p[8:], near6.AsSlice())
		copy(p[24:], far6.AsSlice())
		if len(ext) > 0 {
			p[6] = ext[0]
			start += copy(p[40:], ext[1:])
		}
	} else {
		start = 20 + len(ext)
		copy(p, []byte{0x40 | byte(start/4), 0, byte(size >> 8), byte(size), p[4], p[5], 0, 0, 64, proto, 0, 0})
		copy(p[12:], near4.AsSlice())
		copy(p[16:], far4.AsSlice())
		copy(p[20:], ext)
	}
	t := p[start:]
	if len(t) >= 4 {
		copy(t, []byte{1000 >> 8, 1000 & 255, 2000 >> 8, 2000 & 255})
	}
	if c == ring.UDP && len(t) >= 8 {
		binary.BigEndian.PutUint16(t[4:], uint16(len(t)))
	}
	if c == ring.TCP && len(t) >= 20 {
		t[12], t[13] = 0x50, 0x10
	}
	return summed(p)
}

// lengthened writes a packet's length into its headers.
func lengthened(p []byte) []byte {
	start, offset := sumOf(p)
	if p[0]>>4 == 6 {
		binary.BigEndian.PutUint16(p[4:], uint16(len(p)-40))
	} else {
		binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	}
	if offset == 6 {
		binary.BigEndian.PutUint16(p[start+4:], uint16(len(p)-start))
	}
	return summed(p)
}

// sumOf is where the transport checksum of a packet without extension headers is.
func sumOf(p []byte) (start, offset int) {
	start, proto := 40, p[6]
	if p[0]>>4 == 4 {
		start, proto = int(p[0]&15)*4, p[9]
	}
	if proto == 6 {
		return start, 16
	}
	return start, 6
}

func pseudoHeader(p []byte) []byte {
	start, offset := sumOf(p)
	addrs := p[12:20]
	if p[0]>>4 == 6 {
		addrs = p[8:40]
	}
	proto := byte(17)
	if offset == 16 {
		proto = 6
	}
	return append(bytes.Clone(addrs), 0, proto, byte((len(p)-start)>>8), byte(len(p)-start))
}

// headerSummed gives an IPv4 header its checksum.
func headerSummed(p []byte) []byte {
	if p[0]>>4 == 4 {
		p[10], p[11] = 0, 0
		binary.BigEndian.PutUint16(p[10:], tun.Checksum(p[:int(p[0]&15)*4]))
	}
	return p
}

// summed gives a packet of TCP or UDP its checksums, if there is room for them.
func summed(p []byte) []byte {
	headerSummed(p)
	start, offset := sumOf(p)
	if p[0]>>4 == 6 && p[6] != 17 && p[6] != 6 || len(p) < start+offset+2 {
		return p
	}
	at := start + offset
	p[at], p[at+1] = 0, 0
	c := tun.Checksum(append(pseudoHeader(p), p[start:]...))
	if c == 0 {
		c = 0xffff
	}
	binary.BigEndian.PutUint16(p[at:], c)
	return p
}

// partial is the packet as a host leaves it to its interface.
func partial(p []byte) []byte {
	p = bytes.Clone(p)
	start, offset := sumOf(p)
	binary.BigEndian.PutUint16(p[start+offset:], ^tun.Checksum(pseudoHeader(p)))
	return p
}

// forwarded is the packet behind a router.
func forwarded(p []byte) []byte {
	p = bytes.Clone(p)
	if p[0]>>4 == 6 {
		p[7]--
		return p
	}
	p[8]--
	return headerSummed(p)
}

// onCPU keeps the calling goroutine's thread on a processor. It must be locked to it.
func onCPU(n int) {
	var set unix.CPUSet
	set.Set(n % runtime.NumCPU())
	_ = unix.SchedSetaffinity(0, &set)
}

func tunHtons(n uint16) uint16 { return binary.NativeEndian.Uint16([]byte{byte(n >> 8), byte(n)}) }

//go:build linux

package userspace_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"adit/dataplane/userspace"
	"adit/internal/conn"
	"adit/ipsec"
	"adit/ipsec/dptest"
	"adit/suite"
	"adit/tun"
)

var namespaces atomic.Int32

// TestConformanceLinux runs the suite over kernel TUN devices, UDP and raw
// sockets, between two network namespaces joined by a veth pair. (Coalescing is
// off, as the test sees packets where the kernel has not yet split them again.)
func TestConformanceLinux(t *testing.T) { conformanceLinux(t, 1) }

// TestConformanceWorkers is the same with several threads.
func TestConformanceWorkers(t *testing.T) { conformanceLinux(t, 3) }

func conformanceLinux(t *testing.T, workers int) {
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	dptest.Run(t, func(t *testing.T) dptest.Link {
		l := linuxLink(t, workers)
		l.A.Outer4, l.B.Outer4 = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
		l.A.Outer6, l.B.Outer6 = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
		return l
	})
}

// linuxLink is two gateways in namespaces of their own.
func linuxLink(t *testing.T, workers int) dptest.Link {
	l, _, _ := linuxLinkOf(t, workers, false)
	return l
}

// linuxLinkOf also returns A's device, which may have a ring, and namespace.
func linuxLinkOf(t *testing.T, workers int, ring bool) (l dptest.Link, dev *tun.Linux, ns string) {
	n := namespaces.Add(1)
	a, b := fmt.Sprintf("adp%da%d", n, os.Getpid()), fmt.Sprintf("adp%db%d", n, os.Getpid())
	for _, ns := range []string{a, b} {
		ipCommand(t, "netns add "+ns)
		t.Cleanup(func() { ipCommand(t, "netns del "+ns) })
	}
	ipCommand(t, fmt.Sprintf("link add out netns %s type veth peer name out netns %s", a, b))
	for i, ns := range []string{a, b} {
		ipCommand(t, fmt.Sprintf("-n %s addr add 192.0.2.%d/24 dev out", ns, i+1))
		ipCommand(t, fmt.Sprintf("-n %s addr add 2001:db8::%d/64 dev out nodad", ns, i+1))
		ipCommand(t, fmt.Sprintf("-n %s link set out up", ns))
		ipCommand(t, fmt.Sprintf("-n %s link set lo up", ns))
	}
	l = dptest.Link{Quiet: 100 * time.Millisecond, Workers: uint32(workers)}
	l.A, dev = linuxEnd(t, a, workers, ring)
	l.B, _ = linuxEnd(t, b, workers, false)
	return l, dev, a
}

func ipCommand(t *testing.T, args string) {
	t.Helper()
	if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", args, err, out)
	}
}

// linuxEnd makes a gateway in a namespace.
func linuxEnd(t *testing.T, ns string, workers int, ring bool) (end dptest.End, dev *tun.Linux) {
	t.Helper()
	var sockets conn.Conn
	fd := -1
	inNamespace(t, ns, func() (err error) {
		if dev, err = tun.CreateTUN("adit0", tun.Options{MTU: 1400, NoCoalesce: true, Queues: workers, Ring: ring}); err != nil {
			return err
		}
		if sockets, err = conn.Listen(conn.Options{Workers: workers}); err != nil {
			return err
		}
		fd, err = packetSocket(dev.Name())
		return err
	})
	taken := &takenTap{}
	plane, err := userspace.New(userspace.Config{Tun: dev, Conn: sockets, Workers: workers, IKE: func(*conn.Packet) {}, Tap: taken})
	must(t, err)
	must(t, plane.Start())
	t.Cleanup(func() {
		must(t, plane.Close())
		must(t, unix.Close(fd))
		c := plane.Counters()
		if n := c.Drops(userspace.BatchPanic); n != 0 {
			t.Errorf("%d batches panicked", n)
		}
	})
	return dptest.End{
		Plane:   plane,
		Settled: taken.settled,
		Send: taken.counted(func(b []byte) {
			to := &unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_IP), Ifindex: index(t, fd)}
			if b[0]>>4 == 6 {
				to.Protocol = bigEndian(unix.ETH_P_IPV6)
			}
			must(t, unix.Sendto(fd, b, 0, to))
		}),
		Receive: func(wait time.Duration) []byte { return receiveLinux(t, fd, wait) },
	}, dev
}

// inNamespace runs f in a thread of its own that is thrown away afterwards.
func inNamespace(t *testing.T, ns string, f func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		h, err := os.Open("/run/netns/" + ns)
		if err == nil {
			err = unix.Setns(int(h.Fd()), unix.CLONE_NEWNET)
			h.Close()
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	must(t, <-done)
}

func bigEndian(n uint16) uint16 {
	return binary.NativeEndian.Uint16([]byte{byte(n >> 8), byte(n)})
}

// packetSocket sees what the plane writes to the device and sends to its reader.
func packetSocket(device string) (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(bigEndian(unix.ETH_P_ALL)))
	if err != nil {
		return -1, err
	}
	ifr, err := unix.NewIfreq(device)
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20)
	}
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr)
	}
	if err != nil {
		return -1, err
	}
	return fd, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_ALL), Ifindex: int(ifr.Uint32())})
}

func index(t *testing.T, fd int) int {
	a, err := unix.Getsockname(fd)
	must(t, err)
	return a.(*unix.SockaddrLinklayer).Ifindex
}

// receiveLinux waits for a packet that came in by the device; what goes out by
// it, such as the kernel's own neighbour discovery, is not looked at.
func receiveLinux(t *testing.T, fd int, wait time.Duration) []byte {
	b := make([]byte, 65536)
	for end := time.Now().Add(wait); ; {
		left := time.Until(end)
		if left <= 0 {
			return nil
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		if err == unix.EINTR || err == nil && n == 0 {
			continue
		}
		must(t, err)
		n, from, err := unix.Recvfrom(fd, b, 0)
		must(t, err)
		if from.(*unix.SockaddrLinklayer).Pkttype != unix.PACKET_OUTGOING {
			return b[:n]
		}
	}
}

// TestInterfaceMTU: an interface with an MTU below that of Ethernet, as of PPPoE, refuses
// a packet with DF once; the next that is too big is answered with what fits.
func TestInterfaceMTU(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	ns := fmt.Sprintf("adp%dm%d", namespaces.Add(1), os.Getpid())
	ipCommand(t, "netns add "+ns)
	t.Cleanup(func() { ipCommand(t, "netns del "+ns) })
	for _, c := range []string{"link add out mtu 1400 type veth peer name far", "addr add 192.0.2.1/24 dev out",
		"addr add 2001:db8::1/64 dev out nodad", "link set out up", "link set far up"} {
		ipCommand(t, "-n "+ns+" "+c)
	}
	for _, c := range []struct {
		local, remote string
		encap         bool
		overhead      int
	}{
		{"192.0.2.1", "192.0.2.2", true, 20 + 8}, {"192.0.2.1", "192.0.2.3", false, 20},
		{"2001:db8::1", "2001:db8::2", true, 40 + 8}, {"2001:db8::1", "2001:db8::3", false, 40},
	} {
		var plane atomic.Pointer[userspace.Plane]
		var sockets conn.Conn
		inNamespace(t, ns, func() (err error) {
			sockets, err = conn.Listen(conn.Options{OnReport: func(r conn.Report) {
				if p := plane.Load(); p != nil {
					p.Report(r)
				}
			}})
			return err
		})
		dev := &recorder{hole: newHole()}
		p, err := userspace.New(userspace.Config{Tun: dev, Conn: sockets, IKE: func(*conn.Packet) {}})
		must(t, err)
		plane.Store(p)
		ref := ipsec.SARef{Child: 1, Dir: ipsec.Out}
		must(t, p.AddSA(ipsec.SAParams{Ref: ref, SPI: 0x1000_0001, Encap: c.encap, EncKey: make(suite.Key, 36),
			Encr:  suite.Transform{Type: suite.TypeENCR, ID: suite.EncrAESGCM16, KeyBits: 256},
			Local: netip.AddrPortFrom(netip.MustParseAddr(c.local), 4500), Remote: netip.AddrPortFrom(netip.MustParseAddr(c.remote), 4500),
			LocalTS: selectors(netA4), RemoteTS: selectors(netB4)}))
		must(t, p.AddPolicy(ipsec.Policy{ID: 1, Out: ref, Local: selectors(netA4), Remote: selectors(netB4)}))
		out := p.NewOutbound()
		out.Batch([][]byte{udp(hostA4, hostB4, 1, 2, make([]byte, 1400-28))})
		fits := (1400-c.overhead-8-8-16)&^3 - 2
		for end := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			// The kernel's report may be with the goroutine that watches for them.
			if st, _ := p.Query(ref); st.MTU == fits {
				break
			} else if time.Now().After(end) {
				t.Fatalf("%+v: MTU %d, want %d; %+v", c, st.MTU, fits, sockets.Stats())
			}
		}
		out.Batch([][]byte{udp(hostA4, hostB4, 1, 2, make([]byte, 1400-28))})
		if len(dev.got) != 1 || dev.got[0][20] != 3 || dev.got[0][21] != 4 || int(binary.BigEndian.Uint16(dev.got[0][26:])) != fits {
			t.Errorf("%+v: no answer of %d: %x", c, fits, dev.got)
		}
		must(t, p.Close())
	}
}

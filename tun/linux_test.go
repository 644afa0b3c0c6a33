//go:build linux

package tun_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"adit/tun"
	"adit/tun/netstack"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// inNamespace runs f on a thread in a network namespace of its own, which goes
// away with the thread. What f opens must be opened on this goroutine.
func inNamespace(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		defer func() { done <- err }()
		if err == nil {
			f()
		}
	}()
	if err := <-done; err != nil {
		t.Fatalf("unshare: %v", err)
	}
}

// address gives an interface its address, in the thread's namespace.
func address(t testing.TB, name string, prefixes ...string) {
	t.Helper()
	link, err := netlink.LinkByName(name)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	for _, p := range prefixes {
		a, err := netlink.ParseAddr(p)
		if err != nil {
			t.Error(err)
			return
		}
		a.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(link, a); err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
}

var offloads = map[string]tun.Options{
	"all":        {},
	"none":       {NoOffload: true},
	"noTSO4":     {NoTSO4: true},
	"noTSO6":     {NoTSO6: true},
	"noECN":      {NoECN: true},
	"noUSO4":     {NoUSO4: true},
	"noUSO6":     {NoUSO6: true},
	"noCoalesce": {NoCoalesce: true},
	"queues":     {MultiQueue: true},
}

func TestCreateTUN(t *testing.T) {
	inNamespace(t, func() {
		a, err := tun.CreateTUN("", tun.Options{MTU: 1400})
		if err != nil {
			t.Error(err)
			return
		}
		defer a.Close()
		b, err := tun.CreateTUN(tun.DefaultName, tun.Options{NoOffload: true})
		if err != nil {
			t.Error(err)
			return
		}
		if a.Name() != "adit0" || b.Name() != "adit1" {
			t.Errorf("names %s, %s", a.Name(), b.Name())
		}
		if a.MTU() != 1400 || b.MTU() != 1500 {
			t.Errorf("MTUs %d, %d", a.MTU(), b.MTU())
		}
		if err := a.SetMTU(1280); err != nil || a.MTU() != 1280 {
			t.Errorf("SetMTU: %v, %d", err, a.MTU())
		}
		if _, err := tun.CreateTUN("adit0", tun.Options{}); !errors.Is(err, tun.ErrExists) {
			t.Errorf("own name twice: %v", err)
		}
		if _, err := tun.CreateTUN("lo", tun.Options{}); !errors.Is(err, tun.ErrExists) {
			t.Errorf("lo: %v", err)
		}
		for _, bad := range []string{"a/b", "adit%s", "a%d%d", "waytoolonganame0", "x%db"} {
			if _, err := tun.CreateTUN(bad, tun.Options{}); !errors.Is(err, tun.ErrName) {
				t.Errorf("%q: %v", bad, err)
			}
		}
		b.Close()
		b.Close()
		if _, err := netlink.LinkByName("adit1"); err == nil {
			t.Error("adit1 is still there after Close")
		}
		if _, err := b.Write([][]byte{payload(40)}, 0); !errors.Is(err, tun.ErrClosed) {
			t.Errorf("Write after Close: %v", err)
		}
		if err := b.SetMTU(1300); !errors.Is(err, tun.ErrClosed) {
			t.Errorf("SetMTU after Close: %v", err)
		}
	})
}

func TestCloseUnblocksRead(t *testing.T) {
	for name, opts := range offloads {
		inNamespace(t, func() {
			dev, err := tun.CreateTUN("", opts)
			if err != nil {
				t.Error(err)
				return
			}
			done := make(chan error, 1)
			go func() {
				bufs, sizes := buffers(4, 2048)
				for {
					// What IPv6 sends by itself may come first.
					if _, err := dev.Read(bufs, sizes, 0); err != nil {
						done <- err
						return
					}
				}
			}()
			time.Sleep(20 * time.Millisecond)
			dev.Close()
			select {
			case err := <-done:
				if !errors.Is(err, tun.ErrClosed) {
					t.Errorf("%s: Read: %v", name, err)
				}
			case <-time.After(5 * time.Second):
				t.Errorf("%s: Read still waits", name)
			}
		})
	}
}

// pump carries packets from one device to another until one of them closes,
// and counts those that seem larger than the MTU.
func pump(wg *sync.WaitGroup, from, to tun.Device, tooBig *int) {
	defer wg.Done()
	mtu := from.MTU()
	const headroom = 32
	bufs, sizes := buffers(from.BatchSize(), 65535+headroom)
	out := make([][]byte, 0, len(bufs))
	for {
		n, err := from.Read(bufs, sizes, headroom)
		if err != nil {
			return
		}
		out = out[:0]
		for i := range n {
			if sizes[i] > mtu {
				*tooBig++
			}
			out = append(out, bufs[i][:headroom+sizes[i]])
		}
		if _, err := to.Write(out, headroom); errors.Is(err, tun.ErrClosed) {
			return
		}
	}
}

// The kernel's TCP talks through the TUN to gVisor's: superpackets one way,
// joined segments the other, every byte compared.
func TestTCPThroughKernel(t *testing.T) {
	for name, opts := range offloads {
		for _, v6 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/v6=%v", name, v6), func(t *testing.T) {
				inNamespace(t, func() { transfer(t, opts, v6) })
			})
		}
	}
}

func transfer(t *testing.T, opts tun.Options, v6 bool) {
	const mtu = 1400
	opts.MTU = mtu
	dev, err := tun.CreateTUN("", opts)
	if err != nil {
		t.Error(err)
		return
	}
	defer dev.Close()
	address(t, dev.Name(), "10.99.0.1/24", "2001:db8:99::1/64")
	far := []netip.Addr{netip.MustParseAddr("10.99.0.2"), netip.MustParseAddr("2001:db8:99::2")}
	host, err := netstack.New(far, mtu)
	if err != nil {
		t.Error(err)
		return
	}
	defer host.Close()
	var wg sync.WaitGroup
	var big [2]int
	wg.Add(2)
	go pump(&wg, dev, host, &big[0])
	go pump(&wg, host, dev, &big[1])

	addr := netip.AddrPortFrom(far[0], 80)
	if v6 {
		addr = netip.AddrPortFrom(far[1], 80)
	}
	l, err := host.Listen(addr)
	if err != nil {
		t.Error(err)
		return
	}
	defer l.Close()
	const size = 1 << 20
	want := sha256.Sum256(payload(size))
	served := make(chan error, 1)
	go func() { // echo as a whole: first everything in, then everything out
		c, err := l.Accept()
		if err != nil {
			served <- err
			return
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		b := make([]byte, size)
		if _, err = io.ReadFull(c, b); err == nil {
			if sha256.Sum256(b) != want {
				err = errors.New("bytes changed on the way in")
			}
		}
		served <- err
		c.Write(b)
	}()
	c, err := net.DialTimeout("tcp", addr.String(), 5*time.Second)
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	start := time.Now()
	go c.Write(payload(size))
	if err := <-served; err != nil {
		t.Error(err)
		return
	}
	middle := time.Now()
	back, err := io.ReadAll(io.LimitReader(c, size))
	if err != nil || sha256.Sum256(back) != want {
		t.Errorf("bytes changed on the way back: %v", err)
	}
	end := time.Now()
	dev.Close()
	host.Close()
	wg.Wait()
	st := dev.Stats()
	t.Logf("out %v, back %v, %+v, %+v", middle.Sub(start), end.Sub(middle), dev.Offload(), st)
	if big != [2]int{} {
		t.Errorf("packets above the MTU: %v", big)
	}
	if st.ReadMalformed+st.ReadTooShort+st.WriteRefused != 0 {
		t.Errorf("dropped: %+v", st)
	}
	has := dev.Offload().TSO4
	if v6 {
		has = dev.Offload().TSO6
	}
	if (st.ReadSuper > 0) != has {
		t.Errorf("superpackets: %d, offload %+v", st.ReadSuper, dev.Offload())
	}
	if (st.WriteSuper > 0) != dev.Offload().Coalesce {
		t.Errorf("joined: %d, offload %+v", st.WriteSuper, dev.Offload())
	}
}

// UDP trains of the kernel (UDP_SEGMENT) arrive as datagrams of one size.
func TestUSOThroughKernel(t *testing.T) {
	for name, opts := range offloads {
		for _, v6 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/v6=%v", name, v6), func(t *testing.T) {
				inNamespace(t, func() { datagrams(t, opts, v6) })
			})
		}
	}
}

func datagrams(t *testing.T, opts tun.Options, v6 bool) {
	dev, err := tun.CreateTUN("", opts)
	if err != nil {
		t.Error(err)
		return
	}
	defer dev.Close()
	address(t, dev.Name(), "10.99.0.1/24", "2001:db8:99::1/64")
	family, has := unix.AF_INET, dev.Offload().USO4
	var to unix.Sockaddr = &unix.SockaddrInet4{Port: 9, Addr: [4]byte{10, 99, 0, 2}}
	if v6 {
		family, has = unix.AF_INET6, dev.Offload().USO6
		to = &unix.SockaddrInet6{Port: 9, Addr: netip.MustParseAddr("2001:db8:99::2").As16()}
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Error(err)
		return
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_SEGMENT, 1000); err != nil {
		t.Errorf("UDP_SEGMENT: %v", err)
		return
	}
	data := payload(10*1000 + 123)
	if err := unix.Sendto(fd, data, 0, to); err != nil {
		t.Errorf("send: %v", err)
		return
	}
	bufs, sizes := buffers(4, 2048) // fewer than segments: the rest must wait
	var got []byte
	for len(got) < len(data) {
		n, err := dev.Read(bufs, sizes, 7)
		if err != nil {
			t.Error(err)
			return
		}
		for i := range n {
			p := bufs[i][7 : 7+sizes[i]]
			at, addrs := 20, 12
			if v6 {
				at, addrs = 40, 8
			}
			if (p[0]>>4 == 6) != v6 || !v6 && p[9] != 17 || v6 && p[6] != 17 {
				continue // the kernel's own
			}
			ph := append(bytes.Clone(p[addrs:at]), 0, 17, byte((len(p)-at)>>8), byte(len(p)-at))
			if !v6 && tun.Checksum(p[:at]) != 0 || tun.Checksum(append(ph, p[at:]...)) != 0 {
				t.Errorf("checksums of a datagram of %d bytes", len(p))
			}
			got = append(got, p[at+8:]...)
		}
	}
	if !bytes.Equal(got, data) {
		t.Error("data changed")
	}
	if st := dev.Stats(); (st.ReadSuper > 0) != has {
		t.Errorf("%+v, %+v", st, dev.Offload())
	}
}

// A kernel that refuses an offload is asked for the others all the same, and gives and
// takes what it has.
func TestOffloadsOfOtherKernels(t *testing.T) {
	const csum, tso4, tso6, ecn, uso4, uso6 = 1, 2, 4, 8, 0x20, 0x40
	for name, c := range map[string]struct {
		lacks   int
		missing string
		single  bool // UDP's offloads go singly
	}{
		"all":           {csum, "TSO4, TSO6, TSO with ECN, USO4, USO6, UDP coalescing", true},
		"TSO4":          {tso4, "TSO4", false},
		"TSO6":          {tso6, "TSO6", false},
		"ECN":           {ecn, "TSO with ECN", false},
		"before 6.2":    {uso4 | uso6, "USO4, USO6, UDP coalescing", false},
		"USO6 singly":   {uso6, "USO6", true},
		"USO4 singly":   {uso4, "USO4", true},
		"none of these": {0, "", false}, // the real one's, if it is not older than 6.2
		"all of a late": {0, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			var real string
			inNamespace(t, func() {
				if dev, err := tun.CreateTUN("", tun.Options{}); err != nil {
					t.Error(err)
				} else {
					real = dev.Offload().Missing()
					dev.Close()
				}
			})
			if real != "" {
				t.Skipf("the real one lacks %s", real)
			}
			defer tun.OtherKernel(func(mask int) bool {
				return mask&c.lacks == 0 && (c.single || mask&(uso4|uso6) == 0 || mask&(uso4|uso6) == uso4|uso6)
			})()
			inNamespace(t, func() {
				dev, err := tun.CreateTUN("", tun.Options{})
				if err != nil {
					t.Error(err)
					return
				}
				got := dev.Offload().Missing()
				dev.Close()
				if got != c.missing {
					t.Errorf("it lacks %q, want %q", got, c.missing)
				}
				if c.single { // which the real one cannot do
					return
				}
				for _, v6 := range []bool{false, true} {
					transfer(t, tun.Options{}, v6)
					datagrams(t, tun.Options{}, v6)
				}
			})
		})
	}
}

func TestOpenQueue(t *testing.T) {
	inNamespace(t, func() {
		dev, err := tun.CreateTUN("", tun.Options{MultiQueue: true})
		if err != nil {
			t.Error(err)
			return
		}
		q, err := dev.OpenQueue()
		if err != nil {
			t.Error(err)
			return
		}
		if q.Name() != dev.Name() {
			t.Errorf("queue of %s is %s", dev.Name(), q.Name())
		}
		dev.Close()
		if _, err := netlink.LinkByName(q.Name()); err != nil {
			t.Errorf("gone with its first queue: %v", err)
		}
		q.Close()
		if _, err := netlink.LinkByName(q.Name()); err == nil {
			t.Error("still there without queues")
		}
		one, err := tun.CreateTUN("", tun.Options{})
		if err != nil {
			t.Error(err)
			return
		}
		defer one.Close()
		if _, err := one.OpenQueue(); err == nil {
			t.Error("a second queue without MultiQueue")
		}
	})
}

// ICMP, where no offload helps, through the plain path.
func TestPingThroughKernel(t *testing.T) {
	inNamespace(t, func() {
		dev, err := tun.CreateTUN("", tun.Options{})
		if err != nil {
			t.Error(err)
			return
		}
		defer dev.Close()
		address(t, dev.Name(), "10.99.0.1/24", "2001:db8:99::1/64")
		host, err := netstack.New([]netip.Addr{netip.MustParseAddr("10.99.0.2"), netip.MustParseAddr("2001:db8:99::2")}, 1400)
		if err != nil {
			t.Error(err)
			return
		}
		defer host.Close()
		var wg sync.WaitGroup
		var big [2]int
		wg.Add(2)
		go pump(&wg, dev, host, &big[0])
		go pump(&wg, host, dev, &big[1])
		for _, to := range []string{"10.99.0.1", "2001:db8:99::1"} {
			for _, size := range []int{0, 56, 4000} {
				// Again and again: the kernel takes up a new IPv6 address later.
				var err error
				for range 25 {
					ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
					_, err = host.Ping(ctx, netip.MustParseAddr(to), size)
					cancel()
					if err == nil {
						break
					}
				}
				if err != nil {
					t.Errorf("%s, %d bytes: %v", to, size, err)
				}
			}
		}
		dev.Close()
		host.Close()
		wg.Wait()
	})
}

func TestLinuxDoesNotAllocate(t *testing.T) {
	for name, opts := range offloads {
		inNamespace(t, func() {
			dev, err := tun.CreateTUN("", opts)
			if err != nil {
				t.Error(err)
				return
			}
			defer dev.Close()
			address(t, dev.Name(), "10.99.0.1/24")
			fresh := flow{payload: payload(30000)}.reference(t, 1400)
			segments := clones(fresh)
			if n := testing.AllocsPerRun(100, func() {
				copy(segments[0], fresh[0]) // joining changed its header
				if n, err := dev.Write(segments, 0); n != len(segments) || err != nil {
					t.Errorf("%s: Write: %d, %v", name, n, err)
				}
			}); n > 0 {
				t.Errorf("%s: %v allocations in Write", name, n)
			}
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
			if err != nil {
				t.Error(err)
				return
			}
			defer unix.Close(fd)
			data := payload(1000)
			to := &unix.SockaddrInet4{Port: 9, Addr: [4]byte{10, 99, 0, 2}}
			bufs, sizes := buffers(8, 2048)
			if n := testing.AllocsPerRun(100, func() {
				if err := unix.Sendto(fd, data, 0, to); err != nil {
					t.Error(err)
				}
				if _, err := dev.Read(bufs, sizes, 0); err != nil {
					t.Error(err)
				}
			}); n > 0 {
				t.Errorf("%s: %v allocations in Read", name, n)
			}
		})
	}
}

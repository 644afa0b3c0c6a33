//go:build linux

package userspace_test

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"adit/dataplane/userspace"
	"adit/internal/conn"
	"adit/ipsec"
	"adit/suite"
	"adit/tun"
)

// spring is one queue of a device that always has packets, while it runs and so many of
// them have not come back yet; what comes back it counts and forgets.
type spring struct {
	*hole
	fd      int
	packet  []byte    // with a virtio header if train
	to      [][4]byte // whom it goes to, in turns
	train   bool
	most    int64 // packets on their way
	each    int64 // packets that it stands for
	turn    int
	sent    int64
	running atomic.Bool
	got     atomic.Int64
	_       [64]byte
}

func (s *spring) FD() int { return s.fd }

func (s *spring) Take(t *tun.Super, mem []byte) (bool, error) {
	if !s.running.Load() {
		_, _ = unix.Read(s.fd, make([]byte, 8)) // no longer readable
		return false, nil
	}
	if s.sent-s.got.Load()+s.each > s.most {
		return false, nil
	}
	b := mem[:copy(mem, s.packet)]
	to := s.to[s.turn%len(s.to)] // nobody looks at the checksum
	s.turn++
	s.sent += s.each
	if !s.train {
		*(*[4]byte)(b[16:]) = to
		*t = tun.Whole(b)
		return true, nil
	}
	*(*[4]byte)(b[10+16:]) = to
	var err error
	*t, err = tun.ParseSuper(b)
	return err == nil, err
}

func (s *spring) Write(bufs [][]byte, _ int) (int, error) {
	s.got.Add(int64(len(bufs)))
	return len(bufs), nil
}

// springs are the queues of a device.
type springs struct {
	*spring
	all []*spring
}

func (s springs) Queues() (list []tun.Polled) {
	for _, q := range s.all {
		list = append(list, q)
	}
	return list
}

// run lets the queues run for a while and returns how many packets went round in a second.
func (s springs) run(b *testing.B, d time.Duration, p *userspace.Plane) float64 {
	count := func() (n int64) {
		for _, q := range s.all {
			n += q.got.Load()
		}
		return n
	}
	for _, q := range s.all {
		q.running.Store(true)
		_, _ = unix.Write(q.fd, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	}
	time.Sleep(d / 4)
	start, before := time.Now(), count()
	time.Sleep(d)
	n, took := count()-before, time.Since(start)
	for _, q := range s.all {
		q.running.Store(false)
	}
	time.Sleep(50 * time.Millisecond) // those on their way
	if n == 0 || len(dropsOf(p)) > 0 {
		b.Fatalf("%d packets; %v", n, dropsOf(p))
	}
	return float64(n) / took.Seconds()
}

// trainOf is a superpacket of TCP with so many segments of an IP packet of 1400 bytes.
func trainOf(to netip.Addr, n int) []byte {
	const hdr, mss = 40, 1360
	l4 := make([]byte, 20, 20+n*mss)
	binary.BigEndian.PutUint16(l4, 5000)
	l4[12], l4[13] = 5<<4, 0x10
	p := ip(hostA4, to, 6, append(l4, make([]byte, n*mss)...))
	v := []byte{1, 1} // checksum to be made, TSO4
	for _, x := range []int{hdr, mss, 20, 16} {
		v = binary.NativeEndian.AppendUint16(v, uint16(x))
	}
	return append(v, p...)
}

// alone listens in a network namespace of its own, of which only the loopback is up.
func alone(b testing.TB, opts conn.Options) (c conn.Conn) {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread goes with the goroutine
		done <- func() (err error) {
			if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return err
			}
			lo, err := netlink.LinkByName("lo")
			if err == nil {
				err = netlink.LinkSetUp(lo)
			}
			if err == nil {
				c, err = conn.Listen(opts)
			}
			return err
		}()
	}()
	must(b, <-done)
	return c
}

// round makes a plane with so many workers, whose SAs all lead to itself: what a worker
// takes of its queue it seals, sends through a socket of the kernel to its own port, and opens
// again. Each has its share of the SAs, which are used in turns.
func round(b *testing.B, workers, sas int, train, raw, across bool) (springs, *userspace.Plane) {
	c := alone(b, conn.Options{Workers: workers, NoRaw: !raw})
	var s springs
	for range workers {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		must(b, err)
		b.Cleanup(func() { unix.Close(fd) })
		q := &spring{hole: newHole(), fd: fd, train: train, most: 256, each: 1}
		q.packet = udp(hostA4, hostB4, 7, 7, make([]byte, 36))
		if train {
			q.packet, q.each, q.most = trainOf(hostB4, 45), 45, 8*45
		}
		s.all = append(s.all, q)
	}
	s.spring = s.all[0]
	p, err := userspace.New(userspace.Config{Tun: s, Conn: c, Workers: workers, IKE: func(*conn.Packet) {}})
	must(b, err)
	must(b, p.Start())
	b.Cleanup(func() { must(b, p.Close()) })
	for i := range sas {
		far := hostOf(uint32(i))
		selfSA(b, p, c, uint32(i), workers, raw, selectors(netip.PrefixFrom(far, 32)))
		q := i % workers
		if across {
			q = (i + 1) % workers
		}
		s.all[q].to = append(s.all[q].to, far.As4())
	}
	return s, p
}

// selfSA installs both SAs of a Child SA that leads to the plane itself, and its policy. It is
// worker number n's, modulo their number.
func selfSA(t testing.TB, p *userspace.Plane, c conn.Conn, n uint32, workers int, raw bool, far []ipsec.Selector) {
	t.Helper()
	here := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), c.Ports().NATT)
	near := selectors(netA4, netA6)
	key := make(suite.Key, 36)
	rand.Read(key)
	x := ipsec.SAParams{Ref: ipsec.SARef{Child: n + 1, Dir: ipsec.In}, SPI: ipsec.SPI(1000*workers) + ipsec.SPI(n), Local: here, Remote: here,
		Encap: !raw, Encr: suite.Transform{Type: suite.TypeENCR, ID: suite.EncrAESGCM16, KeyBits: 256}, EncKey: bytes.Clone(key), ESN: true, ReplayWindow: 4096,
		LocalTS: far, RemoteTS: near, CopyECN: true, MTU: 1500}
	must(t, p.AddSA(x))
	x.Ref.Dir, x.EncKey, x.LocalTS, x.RemoteTS = ipsec.Out, key, near, far
	must(t, p.AddSA(x))
	must(t, p.AddPolicy(ipsec.Policy{ID: ipsec.PolicyID(n + 1), Action: ipsec.Protect, Local: near, Remote: far, Out: ipsec.SARef{Child: n + 1, Dir: ipsec.Out}}))
}

// BenchmarkWorkers is how many packets a second one worker and two of them seal, send to
// themselves through the kernel, receive and open, in turns on the same machine: with trains of
// 45 packets of 1400 bytes and with single ones of 64, in UDP and raw; and where each packet
// comes by the queue of a worker that must hand it over. It needs two idle cores.
func BenchmarkWorkers(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("network namespaces need root")
	}
	for _, c := range []struct {
		train, raw, across bool
	}{{train: true}, {}, {train: true, raw: true}, {raw: true}, {train: true, across: true}, {across: true}} {
		b.Run(fmt.Sprintf("train=%v/raw=%v/handed=%v", c.train, c.raw, c.across), func(b *testing.B) {
			one, p1 := round(b, 1, 4, c.train, c.raw, false)
			two, p2 := round(b, 2, 4, c.train, c.raw, c.across)
			var best [2]float64
			for b.Loop() {
				best[0] = max(best[0], one.run(b, 200*time.Millisecond, p1))
				best[1] = max(best[1], two.run(b, 200*time.Millisecond, p2))
			}
			b.ReportMetric(best[0]/1000, "1-worker-kpps")
			b.ReportMetric(best[1]/1000, "2-workers-kpps")
			b.ReportMetric(best[1]/best[0], "2/1")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkActiveSAs is the same with one worker, where one SA does all, or 8 or 1,000 take
// turns: single packets of several make no trains.
func BenchmarkActiveSAs(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("network namespaces need root")
	}
	for _, train := range []bool{true, false} {
		b.Run(fmt.Sprintf("train=%v", train), func(b *testing.B) {
			numbers := [3]int{1, 8, 1000}
			var ways [3]springs
			var planes [3]*userspace.Plane
			var best [3]float64
			for i, n := range numbers {
				ways[i], planes[i] = round(b, 1, n, train, false, false)
			}
			for b.Loop() {
				for i, s := range ways {
					best[i] = max(best[i], s.run(b, 150*time.Millisecond, planes[i]))
				}
			}
			for i, n := range numbers {
				b.ReportMetric(best[i]/1000, fmt.Sprint(n, "-kpps"))
			}
			b.ReportMetric(best[2]/best[1], "1000/8")
			b.ReportMetric(best[2]/best[0], "1000/1")
			b.ReportMetric(0, "ns/op")
		})
	}
}

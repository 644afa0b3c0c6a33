package hostnet_test

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"adit/internal/hostnet"
)

// flood sends UDP packets one by one, a hundred times count, and returns the time of
// the fastest hundredth. In it the kernel carried each to where it ends: over a veth
// pair that happens within the system call.
func flood(p packet, count int) (time.Duration, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	to := &unix.SockaddrInet4{Addr: p.Dst.Addr().As4(), Port: int(p.Dst.Port())}
	if err := unix.Connect(fd, to); err != nil {
		return 0, err
	}
	b := make([]byte, 22)
	best := time.Hour
	for range 100 {
		start := time.Now()
		for range count {
			unix.Write(fd, b) // a full device is no matter here
		}
		best = min(best, time.Since(start))
	}
	return best, nil
}

// BenchmarkForwarding is what a packet of 64 bytes costs from the inside network
// until the TUN device throws it away: without anything of ours but a route, with
// the steering alone, and with the guard. The best of many short rounds counts.
func BenchmarkForwarding(b *testing.B) {
	const round = 200
	for _, c := range []struct {
		name     string
		policies int
		off      bool
	}{{"route", 0, true}, {"steering", 1, true}, {"guard", 1, false}, {"guard1000", 1000, false}} {
		b.Run(c.name, func(b *testing.B) {
			l := newLab(b)
			l.gw.ok(request{Op: "new", Options: hostnet.Options{JournalDir: l.journal, GuardOff: c.off}})
			l.gw.ok(request{Op: "deaf", Device: "adit0"})
			l.gw.ok(request{Op: "setup", Device: "adit0", MTU: 1400})
			ps := []hostnet.Policy{}
			for i := range c.policies {
				ps = append(ps, protect(fmt.Sprint("p", i), "10.1.0.0/24", fmt.Sprintf("10.2.%d.%d/30", i/64, i%64*4)))
			}
			if c.policies == 0 {
				run(b, "ip -n "+l.gw.ns+" route add 10.2.0.0/30 dev adit0")
			} else {
				l.apply(ps...)
			}
			best := time.Hour
			for b.Loop() {
				r := l.host.ok(request{Op: "flood", Packets: []packet{udp("10.1.0.5:1", "10.2.0.2:9")}, Count: round})
				best = min(best, r.Took)
			}
			b.ReportMetric(float64(best.Nanoseconds())/round, "ns/packet")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkApply is the CPU time of the first Apply, and of one without the first policy.
func BenchmarkApply(b *testing.B) {
	for _, n := range []int{300, 3000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			l := newLab(b)
			l.up(hostnet.Options{})
			ps := roadWarriors(n)
			var first, second time.Duration
			for b.Loop() {
				l.apply()
				first += l.gw.ok(request{Op: "apply", State: hostnet.State{Devices: []string{"adit0"}, Policies: ps}}).Took
				second += l.gw.ok(request{Op: "apply", State: hostnet.State{Devices: []string{"adit0"}, Policies: ps[1:]}}).Took
			}
			b.ReportMetric(float64(first.Microseconds())/1e3/float64(b.N), "ms/all")
			b.ReportMetric(float64(second.Microseconds())/1e3/float64(b.N), "ms/one-less")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkChange is the CPU time of ten clients more, among a few and among thousands.
func BenchmarkChange(b *testing.B) {
	for _, there := range []int{10, 9000} {
		b.Run(fmt.Sprint(there), func(b *testing.B) {
			l := newLab(b)
			l.up(hostnet.Options{})
			l.apply(clients(0, 3)...)
			for at := 3; at < there; at += 1000 {
				l.change(clients(at, min(at+1000, there)))
			}
			var took time.Duration
			ten := clients(there, there+10)
			var ids []string
			for _, p := range ten {
				ids = append(ids, p.ID)
			}
			for b.Loop() {
				took += l.gw.ok(request{Op: "change", State: hostnet.State{Policies: ten}}).Took
				l.change(nil, ids...)
			}
			b.ReportMetric(float64(took.Microseconds())/1e3/float64(b.N), "ms/ten")
			b.ReportMetric(0, "ns/op")
		})
	}
}

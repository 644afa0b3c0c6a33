package interop_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"adit/interop/lab"
	"adit/interop/peer"
)

// rounds of the benchmarks: the ways take turns, and their medians count, so that
// what else the machine does meets all alike.
const rounds = 3

// ways are how packets get from host to host: without a tunnel, through
// strongSwan's kernel-libipsec and through adit, both with AES-256-GCM, all with
// the same MTU inside.
var ways = []string{"plain", string(strongSwan), string(adit)}

// onEveryWay measures each way in turn and reports the medians, and adit's as a
// multiple of strongSwan's.
func onEveryWay(b *testing.B, unit string, measure func(b *testing.B, l *lab.Lab) float64) {
	labs := map[string]*lab.Lab{}
	for i, way := range ways {
		l := lab.ForTest(b, fmt.Sprintf("bench%d", i), lab.Options{InnerMTU: 1400, Logf: func(string, ...any) {}})
		if way == "plain" {
			routed(b, l)
		} else {
			tunneled(b, l, kind(way))
		}
		if err := l.WaitPing(lab.LeftHost, l.R.Host4, 5*time.Second); err != nil {
			b.Fatal(err)
		}
		labs[way] = l
	}
	got := map[string][]float64{}
	b.ResetTimer()
	for range b.N * rounds {
		for _, way := range ways {
			got[way] = append(got[way], measure(b, labs[way]))
		}
	}
	median := map[string]float64{}
	for _, way := range ways {
		slices.Sort(got[way])
		median[way] = got[way][len(got[way])/2]
		b.ReportMetric(median[way], way+"-"+unit)
		b.Logf("%s: %.3g %s (of %.3g)", way, median[way], unit, got[way])
	}
	b.ReportMetric(median[string(adit)]/median[string(strongSwan)], "adit/strongSwan")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkTunnelTCP measures one TCP stream between the hosts. Run it with
// -benchtime 1x.
func BenchmarkTunnelTCP(b *testing.B) {
	onEveryWay(b, "Gbit/s", func(b *testing.B, l *lab.Lab) float64 {
		r, err := l.Iperf(lab.LeftHost, lab.RightHost, l.R.Host4, lab.IperfOptions{Duration: 3 * time.Second})
		if err != nil {
			b.Fatal(err)
		}
		return r.BitsPerSecond / 1e9
	})
}

// BenchmarkTunnelRoundTrip measures the average round trip of a ping.
func BenchmarkTunnelRoundTrip(b *testing.B) {
	onEveryWay(b, "µs-rtt", func(b *testing.B, l *lab.Lab) float64 {
		r, err := l.Ping(lab.LeftHost, l.R.Host4, lab.PingOptions{Count: 100, Interval: 5 * time.Millisecond, Tool: true})
		if err != nil || r.Received == 0 {
			b.Fatalf("%+v %v", r, err)
		}
		return float64(r.Avg.Nanoseconds()) / 1e3
	})
}

// BenchmarkTunnelUDP64 measures how many datagrams of 64 octets a second arrive
// while at most one in a hundred is lost: the best of a ladder of rates.
func BenchmarkTunnelUDP64(b *testing.B) {
	const octets, loss = 64, 1.0
	onEveryWay(b, "kpps", func(b *testing.B, l *lab.Lab) float64 {
		best := 0.0
		for _, kpps := range []int64{10, 20, 40, 60, 80, 100, 125, 150, 200, 250} {
			r, err := l.Iperf(lab.LeftHost, lab.RightHost, l.R.Host4, lab.IperfOptions{UDPRate: kpps * 1000 * octets * 8, Length: octets})
			if err != nil {
				b.Fatal(err)
			}
			if r.LostPercent > loss {
				break
			}
			best = max(best, r.BitsPerSecond/octets/8/1e3)
		}
		return best
	})
}

func routed(b *testing.B, l *lab.Lab) {
	b.Helper()
	for _, c := range [][]string{
		{lab.Left, "ip", "route", "add", l.R.Inner4.String(), "via", l.R.Wan4.String()},
		{lab.Right, "ip", "route", "add", l.L.Inner4.String(), "via", l.L.Wan4.String()},
	} {
		if _, err := l.Exec(5*time.Second, c[0], c[1:]...); err != nil {
			b.Fatal(err)
		}
	}
}

func tunneled(b *testing.B, l *lab.Lab, k kind) {
	b.Helper()
	start := func(node string, c conn, me, other string) peer.Gateway {
		var g peer.Gateway
		var err error
		if k == adit {
			g, err = peer.Adit(l, node, peer.AditOptions{})
		} else {
			g, err = peer.StrongSwan(l, node, peer.StrongSwanOptions{})
		}
		if err == nil {
			err = g.Start()
		}
		if err == nil {
			err = g.Load(c.text(me, other))
		}
		if err != nil {
			b.Fatal(fmt.Errorf("%s: %w", node, err))
		}
		return g
	}
	p := path{Lab: l}
	left, right := p.ends(false)
	start(lab.Right, right, rightID, leftID)
	if err := start(lab.Left, left, leftID, rightID).Initiate("net"); err != nil {
		b.Fatal(err)
	}
}

package interop_test

import (
	"fmt"
	"testing"
	"time"

	"adit/interop/lab"
	"adit/interop/peer"
)

// BenchmarkTunnelTCP measures one TCP stream between the hosts: without a tunnel,
// through strongSwan's kernel-libipsec and through adit, all with AES-256-GCM and
// the same MTU inside, in one run. Run it with -benchtime 1x.
func BenchmarkTunnelTCP(b *testing.B) {
	for _, name := range []string{"plain", string(strongSwan), string(adit)} {
		b.Run(name, func(b *testing.B) {
			l := lab.ForTest(b, "bench", lab.Options{InnerMTU: 1400, Logf: func(string, ...any) {}})
			if name == "plain" {
				routed(b, l)
			} else {
				tunneled(b, l, kind(name))
			}
			if err := l.WaitPing(lab.LeftHost, l.R.Host4, 5*time.Second); err != nil {
				b.Fatal(err)
			}
			ping, err := l.Ping(lab.LeftHost, l.R.Host4, lab.PingOptions{Count: 50, Interval: 5 * time.Millisecond})
			if err != nil || ping.Received != 50 {
				b.Fatalf("%+v %v", ping, err)
			}
			var bits float64
			b.ResetTimer()
			for range b.N {
				r, err := l.Iperf(lab.LeftHost, lab.RightHost, l.R.Host4, lab.IperfOptions{Duration: 4 * time.Second})
				if err != nil {
					b.Fatal(err)
				}
				bits += r.BitsPerSecond
			}
			b.ReportMetric(bits/float64(b.N)/1e9, "Gbit/s")
			b.ReportMetric(float64(ping.Avg.Microseconds()), "µs-rtt")
			b.ReportMetric(0, "ns/op")
		})
	}
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

package userspace_test

import (
	"net/netip"
	"testing"
	"time"

	"adit/ipsec"
)

// hostOf is the far host of child number n, alone in its network.
func hostOf(n uint32) netip.Addr { return netip.AddrFrom4([4]byte{10, 2, byte(n >> 8), byte(n)}) }

// among makes a bench with so many Child SAs, each for one far host, and batches of
// packets of 1300 bytes for the first active of them.
func among(b *testing.B, sas, active uint32) (x *bench, batches [][][]byte) {
	one := func(n uint32) child {
		far := hostOf(n)
		return child{n: n, a: selectors(netA4), b: []ipsec.Selector{ipsec.FromPrefix(netip.PrefixFrom(far, 32))}}
	}
	x = newBench(b, one(1))
	for n := uint32(2); n <= sas; n++ {
		x.l.install(one(n))
	}
	for n := uint32(1); n <= active; n++ {
		var packets [][]byte
		for i := range benchBatch {
			packets = append(packets, udp(hostA4, hostOf(n), uint16(i%4), 2, make([]byte, 1272)))
		}
		batches = append(batches, packets)
	}
	return x, batches
}

// BenchmarkManySAs compares, in turns, a gateway that has one SA with gateways that
// have 10,000, of which one carries packets, and 1,000.
func BenchmarkManySAs(b *testing.B) {
	type way struct {
		name    string
		x       *bench
		batches [][][]byte
		best    time.Duration // of a turn: what else the machine does only adds
	}
	ways := []*way{{name: "1"}, {name: "1-of-10000"}, {name: "1000-of-10000"}}
	for i, c := range [][2]uint32{{1, 1}, {10000, 1}, {10000, 1000}} {
		ways[i].x, ways[i].batches = among(b, c[0], c[1])
	}
	for b.Loop() {
		for _, w := range ways {
			start := time.Now()
			for i := range 1000 {
				if n := w.x.through(w.batches[i%len(w.batches)]); n != benchBatch {
					b.Fatalf("%d packets; %v %v", n, dropsOf(w.x.l.a.plane), dropsOf(w.x.l.b.plane))
				}
			}
			if d := time.Since(start); w.best == 0 || d < w.best {
				w.best = d
			}
		}
	}
	for _, w := range ways {
		b.ReportMetric(float64(w.best.Nanoseconds())/1000/benchBatch, w.name+"-ns/packet")
	}
	b.ReportMetric(float64(ways[0].best)/float64(ways[1].best), "1-of-10000/1")
	b.ReportMetric(float64(ways[0].best)/float64(ways[2].best), "1000-of-10000/1")
	b.ReportMetric(0, "ns/op")
}

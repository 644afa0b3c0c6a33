package userspace_test

import (
	"net/netip"
	"strconv"
	"testing"
	"time"

	"adit/ipsec"
)

// hostOf is the far host of child number n, alone in its network.
func hostOf(n uint32) netip.Addr { return netip.AddrFrom4([4]byte{10, 2, byte(n >> 8), byte(n)}) }

// among makes a bench with so many Child SAs, each for one far host.
func among(b *testing.B, sas uint32) *bench {
	one := func(n uint32) child {
		far := hostOf(n)
		return child{n: n, a: selectors(netA4), b: []ipsec.Selector{ipsec.FromPrefix(netip.PrefixFrom(far, 32))}}
	}
	x := newBench(b, one(1))
	for n := uint32(2); n <= sas; n++ {
		x.l.install(one(n))
	}
	return x
}

// BenchmarkManySAs compares, in turns, a gateway that has one SA with gateways that
// have 10,000, of which one carries packets, and 1,000: these in runs of a whole batch, or
// with another SA for every packet, which 8 that do the same are there for. The packets lie
// in the same memory always, as those of a device do: what differs is the state of SAs.
func BenchmarkManySAs(b *testing.B) {
	for _, size := range []int{1272, 36} {
		b.Run(strconv.Itoa(size+28), func(b *testing.B) { manySAs(b, size) })
	}
}

func manySAs(b *testing.B, size int) {
	type way struct {
		name   string
		sas    uint32
		active int
		each   bool // every packet is of another SA
		x      *bench
		best   time.Duration // of a turn: what else the machine does only adds
	}
	ways := []*way{{name: "1", sas: 1, active: 1}, {name: "1-of-10000", sas: 10000, active: 1}, {name: "1000-of-10000", sas: 10000, active: 1000},
		{name: "8-each", sas: 10000, active: 8, each: true}, {name: "1000-each", sas: 10000, active: 1000, each: true}}
	for _, w := range ways {
		w.x = among(b, w.sas)
	}
	packets := make([][]byte, benchBatch)
	for i := range packets {
		packets[i] = udp(hostA4, hostB4, 7, 2, make([]byte, size))
	}
	for b.Loop() {
		for _, w := range ways {
			start, sa := time.Now(), 0
			for range 1000 {
				for _, p := range packets {
					// Nobody looks at the checksums. SAs lie in memory as they were made: the
					// next one is somewhere else.
					to := hostOf(uint32(sa*611%w.active + 1)).As4()
					copy(p[16:20], to[:])
					if w.each {
						sa++
					}
				}
				if sa++; w.x.through(packets) != benchBatch {
					b.Fatalf("%v %v", dropsOf(w.x.l.a.plane), dropsOf(w.x.l.b.plane))
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
	b.ReportMetric(float64(ways[3].best)/float64(ways[4].best), "1000-each/8-each")
	b.ReportMetric(0, "ns/op")
}

//go:build linux

package conn_test

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"adit/internal/conn"
)

// BenchmarkSockets is what a packet costs from a sending Conn, through the kernel, to a
// receiving one, all in one thread: raw and in UDP. Other work on the machine only adds, so
// the shortest turn counts.
func BenchmarkSockets(b *testing.B) {
	const batch = 64
	p := newPath(b)
	left, right := p.listen(0, conn.Options{}), p.listen(1, conn.Options{})
	for _, to := range []string{"192.0.2.2", "2001:db8::2"} {
		for _, encap := range []bool{false, true} {
			for _, size := range []int{100, 1400} {
				name := fmt.Sprintf("encap=%v/v6=%v/%d", encap, len(to) > 9, size)
				b.Run(name, func(b *testing.B) {
					remote, err := netip.ParseAddr(to)
					if err != nil {
						b.Fatal(err)
					}
					local, err := left.SourceFor(remote)
					if err != nil {
						b.Fatal(err)
					}
					at := 1 // of plain, encap, raw
					if !encap {
						at = 2
					}
					if remote.Is6() {
						at += 3
					}
					r := right.Readers()[at].(conn.Polled)
					// As the data plane gives it: a train in UDP.
					var out []conn.Packet
					whole := make([]byte, batch*size)
					for i := range batch {
						copy(whole[i*size:], espPacket(uint32(i), size))
					}
					most := min(conn.MaxTrain/size, conn.MaxSegments)
					for n := 0; n < batch; n += most {
						out = append(out, conn.Packet{Kind: conn.ESP, Encap: encap, DF: true, Local: netip.AddrPortFrom(local, 4500),
							Remote: netip.AddrPortFrom(remote, 4500), Buf: whole[n*size : min(n+most, batch)*size], Segment: size})
					}
					runtime.LockOSThread()
					defer runtime.UnlockOSThread()
					in := make([]conn.Packet, 32)
					best := [2]time.Duration{1 << 40, 1 << 40}
					for b.Loop() {
						start := time.Now()
						if _, err := left.WriteBatch(out); err != nil {
							b.Fatal(err)
						}
						mid := time.Now()
						for got := 0; got < batch*size; {
							n, err := r.Take(in)
							if err != nil {
								b.Fatal(err)
							}
							for i := range in[:n] {
								got += len(in[i].Buf)
							}
						}
						best[0], best[1] = min(best[0], mid.Sub(start)), min(best[1], time.Since(mid))
					}
					b.ReportMetric(float64(best[0])/batch, "send-ns/packet")
					b.ReportMetric(float64(best[1])/batch, "receive-ns/packet")
					b.ReportMetric(0, "ns/op")
				})
			}
		}
	}
}

//go:build linux

package conn_test

import (
	"encoding/binary"
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
					most := min(conn.MaxTrain/size, conn.MaxSegments())
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

// BenchmarkRawWorkers is what a raw packet costs with so many raw sockets that look at it,
// of which one takes it: to send, with all that the kernel does until it waits at that one, and
// to receive.
func BenchmarkRawWorkers(b *testing.B) {
	const batch = 64
	for _, v6 := range []bool{false, true} {
		to := netip.MustParseAddr("192.0.2.2")
		if v6 {
			to = netip.MustParseAddr("2001:db8::2")
		}
		for _, workers := range []int{1, 2, 4} {
			b.Run(fmt.Sprintf("v6=%v/workers=%d", v6, workers), func(b *testing.B) {
				p := newPath(b)
				left, right := p.listen(0, conn.Options{}), p.listen(1, conn.Options{Workers: workers})
				local, err := left.SourceFor(to)
				if err != nil {
					b.Fatal(err)
				}
				var out []conn.Packet
				for i := range batch {
					buf := espPacket(uint32(i), 1400)
					binary.BigEndian.PutUint32(buf, uint32(256*workers+workers-1))
					out = append(out, conn.Packet{Kind: conn.ESP, DF: true, Local: netip.AddrPortFrom(local, 0), Remote: netip.AddrPortFrom(to, 0), Buf: buf})
				}
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				in, n := make([]conn.Packet, 32), 0
				best := [2]time.Duration{1 << 40, 1 << 40}
				r := rawReader(right, v6, workers-1)
				for end := time.Now().Add(10 * time.Second); n == 0 && time.Now().Before(end); n, _ = r.Take(in) {
					left.WriteBatch(out[:1]) // IPv6 addresses need a while until they are usable
					time.Sleep(10 * time.Millisecond)
				}
				for n > 0 {
					n, _ = r.Take(in)
				}
				for b.Loop() {
					start := time.Now()
					if _, err := left.WriteBatch(out); err != nil {
						b.Fatal(err)
					}
					mid := time.Now()
					for got, end := 0, mid.Add(time.Second); got < batch; got += n {
						if n, err = r.Take(in); err != nil || time.Now().After(end) {
							b.Fatalf("%d of %d packets, %v", got, batch, err)
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

// rawReader is the Reader for raw ESP of a worker.
func rawReader(c conn.Conn, v6 bool, worker int) conn.Polled {
	var raw []conn.Polled
	for _, r := range c.Readers() {
		if conn.IsRaw(r, v6) && r.(conn.Polled).Worker() == worker {
			raw = append(raw, r.(conn.Polled))
		}
	}
	return raw[0]
}

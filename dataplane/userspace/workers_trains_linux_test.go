//go:build linux

package userspace_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"adit/dataplane/userspace"
	"adit/internal/conn"
	"adit/ipsec"
	"adit/tun"
)

// feed is one queue of a device that gives a list of superpackets, and keeps what it gets.
type feed struct {
	*hole
	fd   int
	mu   sync.Mutex
	list [][]byte
	got  [][]byte
}

func (f *feed) FD() int { return f.fd }

func (f *feed) Take(s *tun.Super, mem []byte) (ok bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.list) == 0 {
		_, _ = unix.Read(f.fd, make([]byte, 8)) // no longer readable
		return false, nil
	}
	b := mem[:copy(mem, f.list[0])]
	f.list = f.list[1:]
	*s, err = tun.ParseSuper(b)
	return err == nil, err
}

func (f *feed) Write(bufs [][]byte, _ int) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, b := range bufs {
		f.got = append(f.got, bytes.Clone(b))
	}
	return len(bufs), nil
}

type feeds []*feed

func (f feeds) Queues() (list []tun.Polled) {
	for _, q := range f {
		list = append(list, q)
	}
	return list
}

// flowOf is what the kernel chooses a queue by.
func flowOf(t *testing.T, packet []byte) string {
	t.Helper()
	f, ok := userspace.FlowOf(packet)
	if !ok {
		t.Fatalf("%x", packet)
	}
	return f
}

// TestWorkersEqualPackets: trains of many flows, from the queues of several workers, by
// the SAs of these and of the others, through sockets of the kernel, come out as the packets that
// they stand for, built one by one; each flow's in their order.
func TestWorkersEqualPackets(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	seed := rand.Uint64()
	for _, raw := range []bool{false, true} {
		r := rand.New(rand.NewPCG(seed, 2))
		const workers = 2
		p, queues := selfish(t, workers, raw)
		for range 12 {
			want, total := map[string][][]byte{}, 0
			for _, q := range queues {
				q.got = nil
			}
			lists := make([][][]byte, workers)
			for range 1 + r.IntN(20) {
				x := random(r)
				flow := flowOf(t, x.packets[0])
				want[flow] = append(want[flow], x.packets...)
				total += len(x.packets)
				q := len(flow) // the same for a flow
				for _, b := range []byte(flow) {
					q += int(b)
				}
				lists[q%workers] = append(lists[q%workers], x.super)
			}
			for i, q := range queues {
				q.mu.Lock()
				q.list = lists[i]
				q.mu.Unlock()
				_, _ = unix.Write(q.fd, []byte{1, 0, 0, 0, 0, 0, 0, 0})
			}
			got := func() (n int) {
				for _, q := range queues {
					q.mu.Lock()
					n += len(q.got)
					q.mu.Unlock()
				}
				return n
			}
			for end := time.Now().Add(20 * time.Second); got() < total && time.Now().Before(end); {
				time.Sleep(time.Millisecond)
			}
			came := map[string][][]byte{}
			for _, q := range queues {
				q.mu.Lock()
				for _, b := range q.got {
					came[flowOf(t, b)] = append(came[flowOf(t, b)], b)
				}
				q.mu.Unlock()
			}
			for flow, w := range want {
				if err := equal(came[flow], w); err != nil {
					t.Fatalf("seed %d, raw %v, flow %x: %v; %v", seed, raw, flow, err, dropsOf(p))
				}
			}
			if n := got(); n != total {
				t.Fatalf("seed %d, raw %v: %d packets, want %d", seed, raw, n, total)
			}
		}
		if out, in := p.Moved(); out[0]*out[1]*in[0]*in[1] == 0 {
			t.Errorf("raw %v: sealed %v, opened %v", raw, out, in)
		}
	}
}

// selfish is a plane whose SAs, one for each far host of random's, lead to itself.
func selfish(t *testing.T, workers int, raw bool) (*userspace.Plane, feeds) {
	c := alone(t, conn.Options{Workers: workers, NoRaw: !raw})
	var queues feeds
	for range workers {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		must(t, err)
		t.Cleanup(func() { unix.Close(fd) })
		queues = append(queues, &feed{hole: newHole(), fd: fd})
	}
	p, err := userspace.New(userspace.Config{Tun: struct {
		*feed
		feeds
	}{queues[0], queues}, Conn: c, Workers: workers, IKE: func(*conn.Packet) {}})
	must(t, err)
	must(t, p.Start())
	t.Cleanup(func() {
		must(t, p.Close())
		if c := p.Counters(); c.Drops(userspace.BatchPanic) != 0 {
			t.Errorf("a batch panicked")
		}
	})
	far := selectors(netip.PrefixFrom(hostB6, 128))
	for i := range 4 {
		far = append(far, selectors(netip.MustParsePrefix(fmt.Sprintf("10.2.0.%d/32", i)))...)
	}
	for i, ts := range far {
		selfSA(t, p, c, uint32(i), workers, raw, []ipsec.Selector{ts})
	}
	return p, queues
}

//go:build linux

package conn_test

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"adit/internal/conn"
)

// TestDrained: a reader that says that it has nothing left has nothing left, and does not
// say so while there is something.
func TestDrained(t *testing.T) {
	p := newPath(t)
	a, b := p.listen(0, conn.Options{}), p.listen(1, conn.Options{})
	const n = 100 // more than a call takes
	var out []conn.Packet
	for i := range n {
		out = append(out, conn.Packet{Kind: conn.IKE, Remote: netip.AddrPortFrom(right, 500), Buf: make([]byte, 28+i)})
	}
	if sent, err := a.WriteBatch(out); sent != n || err != nil {
		t.Fatal(sent, err)
	}
	var r conn.Polled
	for _, x := range b.Readers() {
		q := x.(conn.Polled)
		fds := []unix.PollFd{{Fd: int32(q.FD()), Events: unix.POLLIN}}
		if ready, err := unix.Poll(fds, 200); err == nil && ready == 1 {
			r = q
			break
		}
	}
	if r == nil {
		t.Fatal("nothing arrived")
	}
	in := make([]conn.Packet, 40)
	got := 0
	for _, most := range []int{1, 7, 40, 40, 40} {
		k, err := r.Take(in[:most])
		if err != nil {
			t.Fatal(err)
		}
		if got += k; got < n && r.Drained() {
			t.Fatalf("drained after %d of %d", got, n)
		}
	}
	if got != n || !r.Drained() {
		t.Errorf("%d of %d taken, drained: %v", got, n, r.Drained())
	}
}

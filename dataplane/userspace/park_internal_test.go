//go:build linux

package userspace

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestPark: a parked source is nobody's event, and what came meanwhile is one as soon as
// it is watched again.
func TestPark(t *testing.T) {
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	p := &Plane{stop: make(chan struct{}), done: make(chan struct{})}
	p.cfg.Clock = time.Now
	w, err := p.newWorker(0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	s := &source{fd: int32(fd)}
	w.add = []*source{s}
	w.changed()
	bring := func() {
		t.Helper()
		if _, err := unix.Write(fd, []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
			t.Fatal(err)
		}
	}
	bring()
	if w.look(0); !s.hot || len(w.hot) != 1 {
		t.Fatalf("hot %v", s.hot)
	}
	w.park()
	w.park()
	s.hot = false
	if w.look(0); !s.parked || s.hot {
		t.Fatalf("parked %v, hot %v", s.parked, s.hot)
	}
	s.hot, w.hot = true, w.hot[:0]
	w.cool(s)
	if w.look(0); s.parked || !s.hot {
		t.Fatalf("watched again: parked %v, hot %v", s.parked, s.hot)
	}
	w.park()
	if w.drop(s, unix.EBADF); s.parked || w.sources[s.fd] != nil {
		t.Fatal("given up, but parked")
	}
	w.park()
	if w.cool(s); s.parked {
		t.Fatal("given up, but watched again")
	}
}

//go:build linux

package userspace

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"adit/internal/conn"
	"adit/ipsec"
	"adit/tun"
)

// restedDevice is a device whose packets come past its queue: whoever brings one wakes a
// reader only if it rests. What a reader may not do, the device tells the test.
type restedDevice struct {
	tun.Device
	t        *testing.T
	fd, rest int // eventfds

	mu      sync.Mutex
	packets [][]byte
	resting bool
	busy    int // how often Rest still says that something is on its way
	err     error

	takes, rests atomic.Int64
	taken        atomic.Int64
}

func newRested(t *testing.T) *restedDevice {
	near, far := tun.Pipe(1500)
	d := &restedDevice{Device: near, t: t, fd: eventFD(t), rest: eventFD(t)}
	t.Cleanup(func() { near.Close(); far.Close() })
	return d
}

func eventFD(t *testing.T) int {
	t.Helper()
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func signal(t *testing.T, fd int) {
	if _, err := unix.Write(fd, []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
		t.Error(err)
	}
}

func (d *restedDevice) FD() int     { return d.fd }
func (d *restedDevice) RestFD() int { return d.rest }

func (d *restedDevice) Rest() bool {
	d.rests.Add(1)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.busy > 0 {
		d.busy--
		return false
	}
	d.resting = len(d.packets) == 0
	return d.resting
}

func (d *restedDevice) Take(s *tun.Super, mem []byte) (bool, error) {
	d.takes.Add(1)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.resting = false
	var b [8]byte
	_, _ = unix.Read(d.rest, b[:])
	if d.err != nil || len(d.packets) == 0 {
		return false, d.err
	}
	*s = tun.Whole(mem[:copy(mem, d.packets[0])])
	d.packets = d.packets[1:]
	d.taken.Add(1)
	return true, nil
}

// bring puts a packet there, and wakes a reader that rests.
func (d *restedDevice) bring(p []byte) {
	d.mu.Lock()
	d.packets = append(d.packets, p)
	asleep := d.resting
	d.resting = false
	d.mu.Unlock()
	if asleep {
		signal(d.t, d.rest)
	}
}

func (d *restedDevice) set(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

// restedWorker has a worker that isn't running yet, of devices without policies: each packet
// is counted as dropped.
func restedWorker(t *testing.T, devices ...*restedDevice) (*Plane, *worker, []*source) {
	t.Helper()
	host, err := conn.NewNetwork().Host(netip.MustParseAddr("192.0.2.1"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := host.Listen(conn.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	p, err := New(Config{Tun: devices[0], Conn: c, IKE: func(*conn.Packet) {}})
	if err != nil {
		t.Fatal(err)
	}
	p.Events(func(ipsec.Event) {})
	w, err := p.newWorker(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	var list []*source
	for _, d := range devices {
		s := &source{fd: int32(d.fd), dev: p.devices[0], tun: d}
		list = append(list, s)
		w.add = append(w.add, s)
	}
	w.changed()
	for w.round(); len(w.hot) > 0; {
		w.round() // until they cool down
	}
	return p, w, list
}

func (w *worker) runFor(t *testing.T) {
	go w.run()
	t.Cleanup(func() { close(w.p.stop); w.end() })
}

func dropsNow(w *worker) int64 { return int64(w.out.count.drops[OutNoPolicy].Load()) }

var aPacket = []byte{0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 1, 0, 1, 10, 2, 0, 2, 0, 1, 0, 2, 0, 8, 0, 0}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(20 * time.Microsecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

// TestRestedPackets brings packets one at a time and in bursts, before, while and after the
// worker goes to sleep: none stays where it is.
func TestRestedPackets(t *testing.T) {
	d := newRested(t)
	_, w, _ := restedWorker(t, d)
	w.runFor(t)
	sent := int64(0)
	for round := range 3000 {
		burst := 1 + round%7%3*20
		if round%3 == 0 {
			d.set(func() { d.busy = round % 4 })
		}
		for range burst {
			d.bring(aPacket)
			sent++
		}
		eventually(t, "a packet isn't taken", func() bool { return d.taken.Load() == sent })
		switch {
		case round%500 == 0:
			time.Sleep(3 * time.Millisecond) // the worker sleeps deeply
		case round%5 == 0:
			time.Sleep(time.Duration(round%200) * time.Microsecond)
		}
	}
	eventually(t, "packets are taken and not moved", func() bool { return dropsNow(w) == sent })
}

// TestRestedIdle: who rests does nothing.
func TestRestedIdle(t *testing.T) {
	d := newRested(t)
	_, w, _ := restedWorker(t, d)
	w.runFor(t)
	d.bring(aPacket)
	eventually(t, "the packet isn't taken", func() bool { return d.taken.Load() == 1 })
	time.Sleep(20 * time.Millisecond)
	takes, rests := d.takes.Load(), d.rests.Load()
	time.Sleep(50 * time.Millisecond)
	if d.takes.Load() != takes || d.rests.Load() != rests || takes > 10*missLimit {
		t.Errorf("it was asked %d times, then %d times more although nothing came", takes, d.takes.Load()-takes)
	}
}

// TestRestedNotYet: the worker doesn't sleep while something is on its way into a device, and
// looks after the others meanwhile.
func TestRestedNotYet(t *testing.T) {
	d, other := newRested(t), newRested(t)
	_, w, list := restedWorker(t, d, other)
	signal(t, d.rest)
	if w.look(0); !list[0].hot || list[1].hot {
		t.Fatal("the second descriptor isn't looked at")
	}
	d.busy = 3
	list[0].misses = missLimit - 1
	if w.round(); !list[0].hot || len(w.hot) != 1 || list[0].misses != 0 {
		t.Fatalf("after many misses: hot %v, misses %d", list[0].hot, list[0].misses)
	}
	if w.sleep(); !list[0].hot || list[1].hot || len(w.hot) != 1 {
		t.Fatalf("hot %v and %v", list[0].hot, list[1].hot)
	}
	signal(t, other.rest)
	if w.sleep(); !list[0].hot || !list[1].hot || len(w.hot) != 2 {
		t.Fatalf("hot %v and %v, %d in all: the other had something", list[0].hot, list[1].hot, len(w.hot))
	}
	if d.busy != 0 {
		t.Fatal(d.busy)
	}
	// Now it may sleep; that a packet is there by then is an event.
	w.round()
	woken := make(chan struct{})
	go func() { time.Sleep(5 * time.Millisecond); d.bring(aPacket); close(woken) }()
	if w.sleep(); !list[0].hot {
		t.Error("it isn't hot although it brought a packet")
	}
	<-woken
	if w.round(); d.taken.Load() != 1 {
		t.Error("the packet isn't taken")
	}
}

// TestRestedParked: of a parked device only the first descriptor is taken from the poller.
func TestRestedParked(t *testing.T) {
	d := newRested(t)
	_, w, list := restedWorker(t, d)
	s := list[0]
	signal(t, d.rest)
	w.look(0)
	w.park()
	d.busy = 1
	if w.cool(s) || !s.parked || !s.hot {
		t.Fatalf("cooled although something is on its way: parked %v, hot %v", s.parked, s.hot)
	}
	if w.round(); !w.cool(s) || s.parked || s.hot {
		t.Fatalf("parked %v, hot %v", s.parked, s.hot)
	}
	w.hot = w.hot[:0]
	signal(t, d.fd)
	if w.look(0); !s.hot {
		t.Error("its queue isn't watched again")
	}
}

// TestRestedFails: a device that fails for good is asked no more, whatever it says is still on
// its way, and the others go on.
func TestRestedFails(t *testing.T) {
	for _, hot := range []bool{true, false} {
		d, other := newRested(t), newRested(t)
		p, w, _ := restedWorker(t, d, other)
		before := d.takes.Load()
		for range 100 {
			d.bring(aPacket)
		}
		if !hot {
			d.set(func() { d.packets = nil })
		}
		signal(t, d.rest)
		d.set(func() { d.busy, d.err = 1<<30, errors.New("gone") })
		if w.look(0); len(w.hot) != 1 {
			t.Fatal(len(w.hot))
		}
		w.round()
		if len(w.hot) != 0 || w.sources[int32(d.fd)] != nil || w.sources[int32(d.rest)] != nil {
			t.Fatalf("%d are hot, sources %v", len(w.hot), w.sources)
		}
		select {
		case <-p.done:
		default:
			t.Error("nobody is told")
		}
		w.runFor(t)
		signal(t, d.fd)
		signal(t, d.rest)
		other.bring(aPacket)
		eventually(t, "the other isn't served", func() bool { return other.taken.Load() == 1 })
		if n := d.takes.Load() - before; n != 1 {
			t.Errorf("hot %v: it was asked %d times", hot, n)
		}
	}
}

// TestRestedPoller: a device one of whose descriptors can't be watched is given up whole.
func TestRestedPoller(t *testing.T) {
	d := newRested(t)
	d.rest = 1 << 20 // no descriptor
	p, w, list := restedWorker(t, d)
	select {
	case <-p.done:
	default:
		t.Error("nobody is told")
	}
	if !list[0].gone || len(w.sources) != 0 {
		t.Errorf("sources %v", w.sources)
	}
	signal(t, d.fd)
	if w.look(0); len(w.hot) != 0 {
		t.Error("it is still watched")
	}
}

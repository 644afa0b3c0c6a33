package tun

import (
	"errors"
	"net"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"adit/tun/ring"
)

// ringed is what a device has for the way past its queue.
type ringed struct {
	ways    *ways // nil: there is no such way
	memory  *ring.Ring
	ringErr error
	lookout *lookout
	seen    atomic.Bool // somebody wants to see all that leaves by the interface
	done    chan struct{}
}

// errQueues says that only a device of one queue has a ring.
var errQueues = errors.New("the device has several queues")

// openRing makes the ring that the options ask for. Without it all goes on.
func (t *Linux) openRing() {
	if !t.opts.Ring {
		return
	}
	if t.ringErr = t.makeRing(); t.ringErr != nil {
		t.closeRing()
	}
}

// RingError is why the device has no ring although the options ask for one, or nil.
func (t *Linux) RingError() error { return t.ringErr }

func (t *Linux) makeRing() error {
	if t.opts.MultiQueue {
		return errQueues
	}
	if !t.offload.Header {
		return errors.New("the device has no virtio header")
	}
	ifi, err := net.InterfaceByName(t.name)
	if err != nil {
		return err
	}
	if t.memory, err = ring.New(ifi.Index, RingSize); err != nil {
		return err
	}
	if err := t.watchSeen(int32(ifi.Index)); err != nil {
		return err
	}
	t.rd.poll[2] = unix.PollFd{Fd: int32(t.memory.FD()), Events: unix.POLLIN}
	t.ways = &ways{ring: counted{t.memory, t}, read: t.takeOne, seen: &t.seen, after: switchAfter}
	return nil
}

// counted is a ring whose packets are counted.
type counted struct {
	*ring.Ring
	t *Linux
}

func (c counted) Take(mem []byte) int {
	n := c.Ring.Take(mem)
	if n > 0 {
		c.t.stats.readRing.Add(1)
	}
	return n
}

func (t *Linux) full() uint64 {
	t.ctlMu.Lock()
	defer t.ctlMu.Unlock()
	if t.ways == nil {
		return 0
	}
	return uint64(t.memory.Full())
}

// Rest implements Rested.
func (t *Linux) Rest() bool { return t.ways == nil || t.ways.rest() }

// RestFD implements Rested.
func (t *Linux) RestFD() int {
	if t.ways == nil {
		return -1
	}
	return t.memory.FD()
}

// watchSeen learns when somebody wants to see all that leaves by the interface.
func (t *Linux) watchSeen(index int32) (err error) {
	if t.lookout, err = newLookout(index); err != nil {
		return err
	}
	t.seen.Store(t.lookout.look())
	t.done = make(chan struct{})
	go t.watching()
	return nil
}

// watching ends when the device is closed. If the socket fails, nobody can know what is to
// be seen.
func (t *Linux) watching() {
	defer close(t.done)
	poll := []unix.PollFd{{Fd: int32(t.lookout.news), Events: unix.POLLIN}, {Fd: int32(t.wake), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(poll, -1)
		if t.closed.Load() {
			return
		}
		changed := false
		if err == nil {
			changed, err = t.lookout.changed()
		}
		switch {
		case err == unix.EINTR:
		case err != nil:
			t.seen.Store(true)
			return
		case changed:
			t.seen.Store(t.lookout.look())
		}
	}
}

// unwatch waits for the end of watching, which closing the device brings.
func (t *Linux) unwatch() {
	if t.done != nil {
		<-t.done
		t.lookout.close()
		t.done = nil
	}
}

// closeRing is called with all locks held, or before anybody else knows the device.
func (t *Linux) closeRing() {
	if t.memory != nil {
		t.memory.Close()
	}
	t.ways, t.memory = nil, nil
}

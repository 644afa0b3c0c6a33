package tun

import (
	"encoding/binary"
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
	watch   int // a socket that tells of changes of the interface
	seen    atomic.Bool
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
	t.ways = &ways{ring: counted{t.memory, t}, read: t.takeOne, up: t.takeUp, seen: &t.seen, after: switchAfter}
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

// watchSeen learns when the interface becomes promiscuous, as tcpdump makes it.
func (t *Linux) watchSeen(index int32) (err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.RTNLGRP_LINK - 1)}); err != nil {
		_ = unix.Close(fd)
		return err
	}
	t.watch, t.done = fd, make(chan struct{})
	t.look()
	go t.watching(fd, index)
	return nil
}

// look reads whether the interface is promiscuous.
func (t *Linux) look() {
	if ifr, err := t.ioctl(unix.SIOCGIFFLAGS, 0); err == nil {
		t.seen.Store(ifr.Uint16()&unix.IFF_PROMISC != 0)
	}
}

// watching ends when the socket is shut or fails. A message that tells of the interface is
// only the occasion to look: one may be lost.
func (t *Linux) watching(fd int, index int32) {
	defer close(t.done)
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(t.wake), Events: unix.POLLIN}}
	b := make([]byte, unix.Getpagesize())
	for {
		if _, err := unix.Poll(poll, -1); err != nil && err != unix.EINTR {
			return
		}
		if t.closed.Load() {
			return
		}
		n, err := unix.Read(fd, b)
		switch {
		case err == unix.EINTR, err == unix.ENOBUFS:
		case err != nil:
			return
		case n < unix.SizeofNlMsghdr+unix.SizeofIfInfomsg || int32(binary.NativeEndian.Uint32(b[unix.SizeofNlMsghdr+4:])) != index:
			continue
		}
		t.look()
	}
}

// unwatch waits for the end of watching, which closing the device brings.
func (t *Linux) unwatch() {
	if t.done != nil {
		<-t.done
		_ = unix.Close(t.watch)
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

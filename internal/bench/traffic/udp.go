package traffic

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A datagram begins with the number of its trial (4 octets) and its own (8).
const datagramHeader = 12

// batch is the number of datagrams a system call takes.
const batch = 64

// maxTrain is what one call may carry with UDP_SEGMENT, in octets.
const maxTrain = 65507

// step is how long a sender at most waits between two system calls as long as its
// rate allows for it: what is sent at once is at most a step's worth, so that queues
// on the way don't overflow for the sender's manner alone.
const step = 200 * time.Microsecond

// makeUp is what a sender makes up for after it had to wait for a core; the rest isn't
// sent and isn't counted as sent.
const makeUp = time.Millisecond

// socketBuffer is what sockets ask for, in octets.
const socketBuffer = 8 << 20

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
	_   [4]byte
}

// messages are the memory of one system call. They lie on the heap and stay there.
type messages struct {
	hdr [batch]mmsghdr
	iov [batch]unix.Iovec
	buf [batch][]byte
	all []byte // buf, one behind the other
}

func newMessages(size int) *messages {
	m := &messages{all: make([]byte, batch*size)}
	for i := range m.buf {
		m.buf[i] = m.all[i*size : (i+1)*size : (i+1)*size]
		m.iov[i].Base = &m.buf[i][0]
		m.iov[i].SetLen(size)
		m.hdr[i].hdr.Iov = &m.iov[i]
		m.hdr[i].hdr.SetIovlen(1)
	}
	return m
}

func (m *messages) call(trap uintptr, fd, n, flags int) (int, error) {
	for {
		r, _, e := unix.Syscall6(trap, uintptr(fd), uintptr(unsafe.Pointer(&m.hdr[0])), uintptr(n), uintptr(flags), 0, 0)
		switch {
		case e == unix.EINTR:
		case e != 0:
			return 0, e
		default:
			return int(r), nil
		}
	}
}

// socket opens a UDP socket, bound or connected.
func socket(bind, connect netip.AddrPort) (int, error) {
	family := unix.AF_INET
	if bind.Addr().Is6() || connect.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	for _, opt := range []int{unix.SO_RCVBUFFORCE, unix.SO_SNDBUFFORCE} {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, opt, socketBuffer) // without root what is there must do
	}
	if bind.IsValid() {
		err = unix.Bind(fd, sockaddr(bind))
	}
	if err == nil && connect.IsValid() {
		err = unix.Connect(fd, sockaddr(connect))
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// SendUDP sends on a thread of its own and waits for it.
func (s *service) SendUDP(a SendUDP, out *Sent) error {
	if a.Size < MinDatagram || a.Size > MaxDatagram || a.Rate < 1 || a.Rate > MaxRate {
		return fmt.Errorf("%d octets at %d a second: from %d to %d octets and 1 to %d a second are possible", a.Size, a.Rate, MinDatagram, MaxDatagram, MaxRate)
	}
	if err := errors.Join(checkDuration("warming up", a.Warm), checkDuration("sending", a.For)); err != nil {
		return err
	}
	fd, err := socket(netip.AddrPort{}, a.To)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	done := make(chan error, 1)
	onThread(func() {
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1000, 0, 0, 0) // ns: sleeps end when they should
		done <- send(fd, a, out)
	})
	return <-done
}

// send keeps to the rate: every step, or after every datagram at low rates, it sends
// what is due.
func send(fd int, a SendUDP, out *Sent) error {
	m := newMessages(a.Size)
	for i := range m.buf {
		binary.BigEndian.PutUint32(m.buf[i], a.Trial)
	}
	most := batch
	if a.Trains {
		// The length of a segment, for all of the socket's calls.
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT, a.Size); err != nil {
			return fmt.Errorf("UDP_SEGMENT: %w", err)
		}
		most = min(batch, maxTrain/a.Size)
	}
	atOnce := uint64(min(max(int64(a.Rate)*int64(step)/int64(time.Second), 1), int64(most)))
	start := monotonic()
	warm, end := start+int64(a.Warm), start+int64(a.Warm+a.For)
	var n, skipped uint64 // sent; due, but left out
	hot := false
	for {
		now := monotonic()
		if !hot && now >= warm {
			// The receiver counts by tranches.
			hot, warm, out.First = true, now, (n+perTranche-1)/perTranche*perTranche
		}
		if now >= end {
			out.Packets, out.Took = max(int64(n)-int64(out.First), 0), now-warm
			return nil
		}
		due := uint64(float64(now-start)*float64(a.Rate)/1e9) - skipped
		if debt := uint64(makeUp.Seconds()*float64(a.Rate)) + batch; due > n+debt {
			skipped += due - n - debt
			due = n + debt
		}
		if due < n+atOnce {
			at := start + int64(float64(n+skipped+atOnce)*1e9/float64(a.Rate))
			sleepUntil(min(at, end))
			continue
		}
		k := int(min(due-n, uint64(most)))
		for i := range k {
			binary.BigEndian.PutUint64(m.buf[i][4:], n+uint64(i))
		}
		sent, err := k, error(nil)
		if a.Trains {
			_, err = unix.Write(fd, m.all[:k*a.Size])
		} else {
			sent, err = m.call(unix.SYS_SENDMMSG, fd, k, 0)
		}
		switch {
		case err == nil:
			n += uint64(sent)
		case errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ECONNREFUSED):
			// Its own queue is full, or an error of an earlier datagram is told. Nothing
			// was sent by this call.
		default:
			return fmt.Errorf("sending: %w", err)
		}
	}
}

func sleepUntil(at int64) {
	t := unix.NsecToTimespec(at)
	_ = unix.ClockNanosleep(unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, &t, nil) // woken early: the caller looks again
}

// sink counts datagrams of the newest trial.
type sink struct {
	mu    sync.Mutex
	ever  int64
	trial uint32
	// got has the number of datagrams by tranches of their numbers and the time of
	// the tranche's first and last arrival.
	got []tranche
}

// perTranche is how many numbers share a counter: the first datagram that counts is
// known only after the trial, and then to this many.
const perTranche = batch

type tranche struct {
	n           int32
	first, last int64
}

// maxTranches bounds the memory of a trial.
const maxTranches = 1 << 21

// ListenUDP counts in the background until the process ends.
func (s *service) ListenUDP(at netip.AddrPort, _ *bool) error {
	fd, err := socket(at, netip.AddrPort{})
	if err != nil {
		return err
	}
	k := &sink{}
	s.mu.Lock()
	s.sink = k
	s.mu.Unlock()
	onThread(func() {
		defer unix.Close(fd)
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1000, 0, 0, 0)
		_ = k.receive(fd)
	})
	return nil
}

// Between two looks the receiver sleeps, so that no datagram has to wake it: on a
// virtual machine the sender of a wake-up to an idle core pays several microseconds for
// it, more than for the packet. Without datagrams for a while it waits for one.
const (
	lookEvery   = 250 * time.Microsecond
	looksInVain = 400
)

// receive ends with an error of the socket.
func (k *sink) receive(fd int) error {
	m := newMessages(MaxDatagram + 1)
	flags, vain := unix.MSG_WAITFORONE, 0
	for {
		n, err := m.call(unix.SYS_RECVMMSG, fd, batch, flags)
		switch {
		case errors.Is(err, unix.EAGAIN):
			if vain++; vain > looksInVain {
				flags = unix.MSG_WAITFORONE
				continue
			}
			sleepUntil(monotonic() + int64(lookEvery))
		case err != nil:
			return err
		default:
			k.note(m, n)
			flags, vain = unix.MSG_DONTWAIT, 0
			if n < batch {
				sleepUntil(monotonic() + int64(lookEvery))
			}
		}
	}
}

// note counts the datagrams of one system call.
func (k *sink) note(m *messages, n int) {
	now := monotonic()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ever += int64(n)
	for i := range n {
		if m.hdr[i].n < datagramHeader {
			continue
		}
		trial, number := binary.BigEndian.Uint32(m.buf[i]), binary.BigEndian.Uint64(m.buf[i][4:])
		if trial < k.trial || number/perTranche >= maxTranches {
			continue
		}
		if trial > k.trial {
			k.trial, k.got = trial, k.got[:0]
		}
		t := int(number / perTranche)
		for len(k.got) <= t {
			k.got = append(k.got, tranche{first: now})
		}
		k.got[t].n++
		k.got[t].last = now
	}
}

func (k *sink) count(c CountUDP) (a Arrived) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if a.Ever = k.ever; k.trial != c.Trial {
		return a
	}
	for i := int(min(c.First/perTranche, maxTranches)); i < len(k.got); i++ {
		t := k.got[i]
		if t.n == 0 {
			continue
		}
		if a.Packets == 0 {
			a.FirstAt = t.first
		}
		a.Packets += int64(t.n)
		a.LastAt = max(a.LastAt, t.last)
	}
	return a
}

//go:build linux

package tun

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"adit/internal/kernel"
)

// DefaultName is the pattern that CreateTUN turns into adit0, adit1, …
const DefaultName = "adit%d"

// Linux is a TUN device of the Linux kernel, or one queue of it. Its descriptor is
// kept from Go's poller, which would wake a thread of its own for every packet that
// another thread is about to take.
type Linux struct {
	name    string
	fd      int
	wake    int // an eventfd: readable once the device is closed
	ctl     int // a socket for interface ioctls: keeps the namespace of its making
	ctlMu   sync.Mutex
	offload Offload
	opts    Options
	more    []*Linux // its further queues
	ringed           // the way past its queue, if there is one

	rdMu   sync.Mutex // held by Read while it is at it
	rd     reader
	wrMu   sync.Mutex
	wr     writer
	closed atomic.Bool

	stats struct {
		readPackets, readSuper, readMalformed, readTooShort atomic.Uint64
		writePackets, writeSuper, writeRefused              atomic.Uint64
		writeApart, readFailed, readRing                    atomic.Uint64
	}
}

var (
	_ Polled = (*Linux)(nil)
	_ Queued = (*Linux)(nil)
	_ Rested = (*Linux)(nil)
)

// reader is the state of Read.
type reader struct {
	mem    []byte // virtio header and superpacket
	super  Super
	poll   [3]unix.PollFd
	failed int // calls in a row that failed without a reason
}

// writer is the state of Write, under wrMu.
type writer struct {
	iov  []unix.Iovec
	hdr  [vnetHdrLen]byte
	head [maxHeader]byte // what the header of a train's first packet was
	co   coalescer
	call func(fd int, iov []unix.Iovec) unix.Errno // writev, but for tests
	emit func(*train)                              // writeTrain, bound once
	took int                                       // packets taken by this Write
	fail error                                     // the last refusal of this Write
}

// CreateTUN makes a TUN interface in the network namespace of the calling
// thread and sets it up. name may end in %d, which the kernel replaces by the
// lowest free number; an empty name means DefaultName. An interface that exists
// already gives ErrExists. The interface goes away with Close, or with the
// process.
func CreateTUN(name string, opts Options) (*Linux, error) {
	if name == "" {
		name = DefaultName
	}
	if len(name) >= unix.IFNAMSIZ || strings.ContainsAny(name, "/ \t\n:") ||
		strings.Count(name, "%") > 1 || strings.Contains(name, "%") && !strings.HasSuffix(name, "%d") {
		return nil, fmt.Errorf("%w: %q", ErrName, name)
	}
	if opts.MTU != 0 && (opts.MTU < MinMTU || opts.MTU > MaxPacket) {
		return nil, fmt.Errorf("%w: %d", ErrMTU, opts.MTU)
	}
	opts.MultiQueue = opts.MultiQueue || opts.Queues > 1
	// TUN_EXCL: never attach to an interface that somebody else made.
	t, err := openQueue(name, opts, unix.IFF_TUN_EXCL)
	if err != nil {
		return nil, err
	}
	for err == nil && len(t.more) < opts.Queues-1 {
		var q *Linux
		if q, err = t.OpenQueue(); err == nil {
			t.more = append(t.more, q)
		}
	}
	if err == nil {
		err = t.setUp()
	}
	if err != nil {
		t.Close()
		return nil, err
	}
	t.openRing()
	return t, nil
}

// Queues implements Queued.
func (t *Linux) Queues() []Polled {
	list := []Polled{t}
	for _, q := range t.more {
		list = append(list, q)
	}
	return list
}

// OpenQueue adds a queue to a device made with Options.MultiQueue. The kernel
// spreads flows over the queues; each has a Read of its own. Closing the last
// queue removes the interface.
func (t *Linux) OpenQueue() (*Linux, error) {
	if !t.opts.MultiQueue {
		return nil, errors.New("tun: not made with MultiQueue")
	}
	return openQueue(t.name, t.opts, 0)
}

func openQueue(name string, opts Options, flags uint16) (*Linux, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("tun: open /dev/net/tun: %w", err)
	}
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("%w: %q", ErrName, name)
	}
	flags |= unix.IFF_TUN | unix.IFF_NO_PI
	if opts.MultiQueue {
		flags |= unix.IFF_MULTI_QUEUE
	}
	if !opts.NoOffload {
		flags |= unix.IFF_VNET_HDR
	}
	ifr.SetUint16(flags)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		unix.Close(fd)
		if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EINVAL) && interfaceExists(name) {
			return nil, fmt.Errorf("%w: %s", ErrExists, name)
		}
		return nil, fmt.Errorf("tun: make %s: %w", name, err)
	}
	t := &Linux{name: ifr.Name(), opts: opts, fd: fd, wake: -1, ctl: -1}
	t.rd.super.done = true
	if err := t.open(); err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

// open readies everything beside the descriptor.
func (t *Linux) open() (err error) {
	if err := t.probe(t.fd); err != nil {
		return err
	}
	if t.ctl, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return fmt.Errorf("tun: control socket: %w", err)
	}
	if t.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("tun: eventfd: %w", err)
	}
	t.rd.poll = [3]unix.PollFd{{Fd: int32(t.fd), Events: unix.POLLIN}, {Fd: int32(t.wake), Events: unix.POLLIN}, {Fd: -1}}
	t.wr.emit, t.wr.call = t.writeTrain, writev
	t.wr.iov = make([]unix.Iovec, 0, maxTrain+1)
	t.wr.co.most = longestTrain()
	return nil
}

func interfaceExists(name string) bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq(name)
	return err == nil && unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr) == nil
}

// Offload bits of TUNSETOFFLOAD (linux/if_tun.h).
const (
	tunCsum = 0x01
	tunTSO4 = 0x02
	tunTSO6 = 0x04
	tunECN  = 0x08
	tunUSO4 = 0x20
	tunUSO6 = 0x40
)

// kernelOffloads asks for offloads (TUNSETOFFLOAD); tests put older kernels in its place.
var kernelOffloads = func(fd, mask int) error { return unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, mask) }

// probe switches on what the kernel has and the options allow.
func (t *Linux) probe(fd int) error {
	if t.opts.NoOffload {
		return nil
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, vnetHdrLen); err != nil {
		return fmt.Errorf("tun: virtio header: %w", err)
	}
	t.offload.Header = true
	has := accepted(fd, 0)
	mask := accepted(fd, t.opts.off())
	t.offload.TSO4, t.offload.TSO6, t.offload.ECN = mask&tunTSO4 != 0, mask&tunTSO6 != 0, mask&tunECN != 0
	t.offload.USO4, t.offload.USO6 = mask&tunUSO4 != 0, mask&tunUSO6 != 0
	// The device takes TCP superpackets from us as long as it has had this header. Those
	// of UDP came with the kernel (6.2) that could give them.
	t.offload.Coalesce = !t.opts.NoCoalesce
	t.offload.CoalesceUDP = has&(tunUSO4|tunUSO6) != 0 && !t.opts.NoCoalesce
	if err := kernelOffloads(fd, mask); err != nil {
		return fmt.Errorf("tun: set offloads: %w", err)
	}
	return nil
}

// longestTrain is the number of packets in a superpacket of UDP that the kernel takes
// (its UDP_MAX_SEGMENTS, which nothing but a version tells).
func longestTrain() int {
	if kernel.AtLeast(6, 10) {
		return maxTrain
	}
	return oldTrain
}

// accepted tries the offloads but those in off, each on top of those before it, and
// returns what the kernel takes. It has UDP's for both families only together, so far.
func accepted(fd, off int) (mask int) {
	for _, more := range []int{tunTSO4, tunTSO6, tunECN, tunUSO4, tunUSO6, tunUSO4 | tunUSO6} {
		if more&off == 0 && mask&more != more && kernelOffloads(fd, tunCsum|mask|more) == nil {
			mask |= tunCsum | more
		}
	}
	return mask
}

// off are the offloads that the options forbid.
func (o *Options) off() (mask int) {
	for _, c := range []struct {
		no  bool
		bit int
	}{{o.NoTSO4, tunTSO4}, {o.NoTSO6, tunTSO6}, {o.NoECN, tunECN}, {o.NoUSO4, tunUSO4}, {o.NoUSO6, tunUSO6}} {
		if c.no {
			mask |= c.bit
		}
	}
	return mask
}

// queueLength is how many packets wait in the kernel for a reader.
const queueLength = 5000

func (t *Linux) setUp() error {
	if t.opts.MTU != 0 {
		if err := t.SetMTU(t.opts.MTU); err != nil {
			return err
		}
	}
	// No link-local address of its own: nobody could answer the neighbour and
	// router discovery that the kernel would send into the device. A kernel
	// without IPv6 has no such file.
	_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+t.name+"/addr_gen_mode", []byte("1"), 0o644)
	ifr, err := unix.NewIfreq(t.name)
	if err != nil {
		return err
	}
	// The kernel's default of 500 packets is 25 ms at 20,000 a second: less than a
	// busy machine may keep a reader from its core.
	ifr.SetUint32(queueLength)
	if err := unix.IoctlIfreq(t.ctl, unix.SIOCSIFTXQLEN, ifr); err != nil {
		return fmt.Errorf("tun: queue length of %s: %w", t.name, err)
	}
	if err := unix.IoctlIfreq(t.ctl, unix.SIOCGIFFLAGS, ifr); err != nil {
		return fmt.Errorf("tun: flags of %s: %w", t.name, err)
	}
	ifr.SetUint16(ifr.Uint16() | unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(t.ctl, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("tun: set %s up: %w", t.name, err)
	}
	return nil
}

// FD implements Polled.
func (t *Linux) FD() int { return t.fd }

// Take implements Polled.
func (t *Linux) Take(s *Super, mem []byte) (bool, error) {
	for range maxBatch { // as many malformed ones are passed over at a time
		n, err := t.next(mem)
		if n == 0 || err != nil {
			return false, err
		}
		if t.takeUp(s, mem[:n]) {
			return true, nil
		}
	}
	return false, nil
}

// next takes what comes next by the queue, or past it; 0: there is nothing now.
func (t *Linux) next(mem []byte) (int, error) {
	if t.ways != nil {
		return t.ways.next(mem)
	}
	return t.takeOne(mem)
}

// takeOne reads from the queue; 0: it is empty, or failed.
func (t *Linux) takeOne(mem []byte) (int, error) {
	for {
		n, _, e := unix.RawSyscall(unix.SYS_READ, uintptr(t.fd), uintptr(unsafe.Pointer(&mem[0])), uintptr(len(mem)))
		switch e {
		case 0:
			t.rd.failed = 0
			return int(n), nil
		case unix.EINTR:
		case unix.EAGAIN:
			t.rd.failed = 0
			return 0, nil
		default:
			return 0, t.misread(e)
		}
	}
}

// misread tells whether a failure to read is lasting: the device is gone, or fails again
// and again. What passes, as a shortage of memory does, costs no more than a packet.
func (t *Linux) misread(e unix.Errno) error {
	t.stats.readFailed.Add(1)
	t.rd.failed++
	if e == unix.EBADF || e == unix.EBADFD || e == unix.ENODEV || e == unix.EFAULT || t.rd.failed >= maxFailed {
		return t.fault(e)
	}
	return nil
}

// takeUp makes a Super of what was read; false: it is malformed.
func (t *Linux) takeUp(s *Super, b []byte) bool {
	if !t.offload.Header {
		*s = Whole(b)
		t.stats.readPackets.Add(1)
		return true
	}
	var err error
	if *s, err = ParseSuper(b); err != nil {
		t.stats.readMalformed.Add(1)
		return false
	}
	if s.Train() {
		t.stats.readSuper.Add(1)
	}
	t.stats.readPackets.Add(uint64(s.Count()))
	return true
}

// Read implements Device.
func (t *Linux) Read(bufs [][]byte, sizes []int, offset int) (n int, err error) {
	t.rdMu.Lock()
	defer t.rdMu.Unlock()
	r := &t.rd
	if r.mem == nil {
		r.mem = make([]byte, TakeSize)
	}
	var tooShort error
	for n < len(bufs) {
		if t.closed.Load() {
			return 0, ErrClosed
		}
		if r.super.More() {
			size, err := r.super.Next(bufs[n][offset:])
			if err != nil {
				t.stats.readTooShort.Add(1)
				tooShort = err
				continue
			}
			sizes[n] = size
			n++
			continue
		}
		ok, err := t.Take(&r.super, r.mem)
		switch {
		case ok:
		case n > 0: // what we have first; an error comes again
			return n, nil
		case err != nil:
			return 0, err
		case tooShort != nil:
			return 0, tooShort
		case !t.Rest():
		default:
			if _, err := unix.Poll(r.poll[:], -1); err != nil && err != unix.EINTR {
				return 0, t.fault(err)
			}
		}
	}
	return n, nil
}

// fault makes ErrClosed of what a closed descriptor gives.
func (t *Linux) fault(err error) error {
	if t.closed.Load() {
		return ErrClosed
	}
	return fmt.Errorf("tun: %s: %w", t.name, err)
}

// Write implements Device.
func (t *Linux) Write(bufs [][]byte, offset int) (int, error) {
	t.wrMu.Lock()
	defer t.wrMu.Unlock()
	if t.closed.Load() {
		return 0, ErrClosed
	}
	w := &t.wr
	w.took, w.fail = 0, nil
	for _, b := range bufs {
		p := b[offset:]
		if !isIP(p) {
			w.fail = ErrNotIP
			t.stats.writeRefused.Add(1)
			continue
		}
		if !t.offload.Coalesce {
			t.writeOne(p)
		}
	}
	if t.offload.Coalesce {
		w.co.coalesce(bufs, offset, true, t.offload.CoalesceUDP, w.emit)
	}
	t.stats.writePackets.Add(uint64(w.took))
	return w.took, w.fail
}

// writeOne writes a packet as it is.
func (t *Linux) writeOne(p []byte) {
	w := &t.wr
	w.iov = w.iov[:0]
	if t.offload.Header {
		clear(w.hdr[:])
		w.add(w.hdr[:])
	}
	w.add(p)
	t.booked(t.flush(), 1)
}

// writeTrain writes a train as one superpacket. One that the kernel refuses is written
// packet by packet, so that what may pass does.
func (t *Linux) writeTrain(tr *train) {
	if tr.n == 1 {
		t.writeOne(tr.pkts[0])
		return
	}
	w := &t.wr
	head := w.head[:copy(w.head[:], tr.pkts[0][:tr.hdr])]
	var h vnetHdr
	tr.superHeader(&h)
	h.put(w.hdr[:])
	w.iov = w.iov[:0]
	w.add(w.hdr[:])
	w.add(tr.pkts[0])
	for _, p := range tr.pkts[1:tr.n] {
		w.add(p[tr.hdr:])
	}
	switch e := t.flush(); e {
	case 0:
		t.stats.writeSuper.Add(1)
		t.booked(e, tr.n)
	case unix.EIO, unix.EBADF, unix.EBADFD, unix.ENODEV: // the device is down, or gone
		t.booked(e, tr.n)
	default:
		t.stats.writeApart.Add(1)
		copy(tr.pkts[0], head)
		for _, p := range tr.pkts[:tr.n] {
			t.writeOne(p)
		}
	}
}

func (w *writer) add(p []byte) {
	v := unix.Iovec{Base: &p[0]}
	v.SetLen(len(p))
	w.iov = append(w.iov, v)
}

// flush writes what the I/O vector describes: one packet, or a superpacket made
// of several.
func (t *Linux) flush() unix.Errno {
	for {
		if e := t.wr.call(t.fd, t.wr.iov); e != unix.EINTR {
			return e
		}
	}
}

func writev(fd int, iov []unix.Iovec) unix.Errno {
	_, _, e := unix.RawSyscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(&iov[0])), uintptr(len(iov)))
	return e
}

// booked counts packets as taken or refused. EAGAIN counts as refused: a TUN that
// doesn't take a packet drops it, as any full interface does.
func (t *Linux) booked(e unix.Errno, packets int) {
	if e == 0 {
		t.wr.took += packets
		return
	}
	t.wr.fail = t.fault(e)
	t.stats.writeRefused.Add(uint64(packets))
}

// Name implements Device.
func (t *Linux) Name() string { return t.name }

// Offload says what probing found.
func (t *Linux) Offload() Offload { return t.offload }

// Stats reads the counters.
func (t *Linux) Stats() Stats {
	s := &t.stats
	return Stats{
		ReadPackets: s.readPackets.Load(), ReadSuper: s.readSuper.Load(),
		ReadMalformed: s.readMalformed.Load(), ReadTooShort: s.readTooShort.Load(),
		WritePackets: s.writePackets.Load(), WriteSuper: s.writeSuper.Load(),
		WriteRefused: s.writeRefused.Load(),
		WriteApart:   s.writeApart.Load(), ReadFailed: s.readFailed.Load(),
		ReadRing: s.readRing.Load(), RingFull: t.full(),
	}
}

// MTU implements Device: it asks the kernel, since an operator may have changed
// it. After Close it is 0.
func (t *Linux) MTU() int {
	ifr, err := t.ioctl(unix.SIOCGIFMTU, 0)
	if err != nil {
		return 0
	}
	return int(ifr.Uint32())
}

// SetMTU implements Device.
func (t *Linux) SetMTU(mtu int) error {
	if mtu < MinMTU || mtu > MaxPacket {
		return fmt.Errorf("%w: %d", ErrMTU, mtu)
	}
	if _, err := t.ioctl(unix.SIOCSIFMTU, uint32(mtu)); err != nil {
		return fmt.Errorf("tun: MTU of %s: %w", t.name, err)
	}
	return nil
}

// ioctl asks for or sets a number of the interface.
func (t *Linux) ioctl(request uint, value uint32) (*unix.Ifreq, error) {
	t.ctlMu.Lock()
	defer t.ctlMu.Unlock()
	if t.ctl < 0 {
		return nil, ErrClosed
	}
	ifr, err := unix.NewIfreq(t.name)
	if err != nil {
		return nil, err
	}
	ifr.SetUint32(value)
	return ifr, unix.IoctlIfreq(t.ctl, request, ifr)
}

// BatchSize implements Device.
func (t *Linux) BatchSize() int { return maxBatch }

// Close implements Device.
func (t *Linux) Close() error {
	if t.closed.Swap(true) {
		return nil
	}
	for _, q := range t.more {
		q.Close()
	}
	if t.wake >= 0 {
		_, _ = unix.Write(t.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	}
	t.unwatch()
	t.rdMu.Lock()
	defer t.rdMu.Unlock()
	t.wrMu.Lock()
	defer t.wrMu.Unlock()
	t.ctlMu.Lock()
	defer t.ctlMu.Unlock()
	if t.ctl >= 0 {
		unix.Close(t.ctl)
		t.ctl = -1
	}
	if t.wake >= 0 {
		unix.Close(t.wake)
	}
	t.closeRing()
	return unix.Close(t.fd)
}

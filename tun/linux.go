//go:build linux

package tun

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// DefaultName is the pattern that CreateTUN turns into adit0, adit1, …
const DefaultName = "adit%d"

// Linux is a TUN device of the Linux kernel, or one queue of it.
type Linux struct {
	name    string
	file    *os.File
	raw     syscall.RawConn
	ctl     int // a socket for interface ioctls: keeps the namespace of its making
	ctlMu   sync.Mutex
	offload Offload
	opts    Options

	rd     reader
	wrMu   sync.Mutex
	wr     writer
	closed atomic.Bool

	stats struct {
		readPackets, readSuper, readMalformed, readTooShort atomic.Uint64
		writePackets, writeSuper, writeRefused              atomic.Uint64
	}
}

var _ Device = (*Linux)(nil)

// reader is the state of Read: its own fields, so that the function given to
// the poller is made once and captures nothing.
type reader struct {
	buf   []byte // where the system call reads to
	n     int
	err   error
	wait  bool // sleep until there is something
	call  func(fd uintptr) bool
	split splitter
	super []byte // virtio header and superpacket
}

// writer is the state of Write, under wrMu.
type writer struct {
	iov  []unix.Iovec
	err  error
	call func(fd uintptr) bool
	hdr  [vnetHdrLen]byte
	co   coalescer
	emit func(*train) // writeTrain, bound once
	took int          // packets taken by this Write
	fail error        // the last refusal of this Write
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
	// TUN_EXCL: never attach to an interface that somebody else made.
	t, err := openQueue(name, opts, unix.IFF_TUN_EXCL)
	if err != nil {
		return nil, err
	}
	if err := t.setUp(); err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
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
	t := &Linux{name: ifr.Name(), opts: opts}
	if err := t.probe(fd); err != nil {
		unix.Close(fd)
		return nil, err
	}
	t.ctl, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("tun: control socket: %w", err)
	}
	t.file = os.NewFile(uintptr(fd), "/dev/net/tun") // non-blocking: goes through the poller
	if t.raw, err = t.file.SyscallConn(); err != nil {
		t.Close()
		return nil, err
	}
	t.rd.call = t.readReady
	t.wr.call = t.writeReady
	t.wr.emit = t.writeTrain
	if t.offload.Header {
		t.rd.super = make([]byte, vnetHdrLen+MaxPacket)
	}
	t.wr.iov = make([]unix.Iovec, 0, maxTrain+1)
	return t, nil
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

// probe switches on what the kernel has and the options allow.
func (t *Linux) probe(fd int) error {
	if t.opts.NoOffload {
		return nil
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, vnetHdrLen); err != nil {
		return fmt.Errorf("tun: virtio header: %w", err)
	}
	t.offload.Header = true
	const tso = tunCsum | tunTSO4 | tunTSO6 | tunECN
	const uso = tunUSO4 | tunUSO6
	// Writing UDP superpackets came with the same kernel (6.2) as reading them.
	hasUSO := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tso|uso) == nil
	hasTSO := hasUSO || unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tso) == nil
	t.offload.TSO = hasTSO && !t.opts.NoTSO
	t.offload.USO = hasUSO && !t.opts.NoUSO
	t.offload.Coalesce = hasTSO && !t.opts.NoCoalesce
	t.offload.CoalesceUDP = hasUSO && !t.opts.NoCoalesce
	mask := 0
	if t.offload.TSO {
		mask |= tso
	}
	if t.offload.USO {
		mask |= tunCsum | uso
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, mask); err != nil {
		return fmt.Errorf("tun: set offloads: %w", err)
	}
	return nil
}

// queueLength is how many packets wait in the kernel for a reader.
const queueLength = 2000

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

// Read implements Device.
func (t *Linux) Read(bufs [][]byte, sizes []int, offset int) (n int, err error) {
	r := &t.rd
	var tooShort error
	for n < len(bufs) {
		if r.split.more() {
			size, err := r.split.next(bufs[n][offset:])
			if err != nil {
				t.stats.readTooShort.Add(1)
				tooShort = err
				continue
			}
			sizes[n] = size
			n++
			continue
		}
		r.buf = r.super
		if !t.offload.Header {
			r.buf = bufs[n][offset:]
		}
		r.wait = n == 0
		r.err = nil
		if err := t.raw.Read(r.call); err != nil {
			if n > 0 {
				break // what we have first; the error comes again
			}
			return 0, t.fault(err)
		}
		if r.err == unix.EAGAIN {
			break
		}
		if r.err != nil {
			if n > 0 {
				break
			}
			return 0, t.fault(r.err)
		}
		if !t.offload.Header {
			sizes[n] = r.n
			n++
			continue
		}
		t.takeUp()
	}
	t.stats.readPackets.Add(uint64(n))
	if n == 0 {
		return 0, tooShort
	}
	return n, nil
}

// takeUp gives what was read with its virtio header to the splitter.
func (t *Linux) takeUp() {
	r := &t.rd
	if r.n < vnetHdrLen {
		t.stats.readMalformed.Add(1)
		return
	}
	var h vnetHdr
	h.parse(r.super)
	if err := r.split.start(&h, r.super[vnetHdrLen:r.n]); err != nil {
		t.stats.readMalformed.Add(1)
		return
	}
	if h.gsoType&^gsoECN != gsoNone {
		t.stats.readSuper.Add(1)
	}
}

func (t *Linux) readReady(fd uintptr) bool {
	r := &t.rd
	for {
		r.n, r.err = unix.Read(int(fd), r.buf)
		if r.err == unix.EINTR {
			continue
		}
		return r.err != unix.EAGAIN || !r.wait
	}
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
	t.flush(1)
}

// writeTrain writes a train as one superpacket.
func (t *Linux) writeTrain(tr *train) {
	if tr.n == 1 {
		t.writeOne(tr.pkts[0])
		return
	}
	w := &t.wr
	var h vnetHdr
	tr.superHeader(&h)
	h.put(w.hdr[:])
	w.iov = w.iov[:0]
	w.add(w.hdr[:])
	w.add(tr.pkts[0])
	for _, p := range tr.pkts[1:tr.n] {
		w.add(p[tr.hdr:])
	}
	if t.flush(tr.n) {
		t.stats.writeSuper.Add(1)
	}
}

func (w *writer) add(p []byte) {
	v := unix.Iovec{Base: &p[0]}
	v.SetLen(len(p))
	w.iov = append(w.iov, v)
}

// flush writes what the I/O vector describes: one packet, or a superpacket made
// of several.
func (t *Linux) flush(packets int) bool {
	w := &t.wr
	w.err = nil
	err := t.raw.Write(w.call)
	if err == nil {
		err = w.err
	}
	if err != nil {
		if w.fail = t.fault(err); w.fail != ErrClosed {
			t.stats.writeRefused.Add(uint64(packets))
		}
		return false
	}
	w.took += packets
	return true
}

func (t *Linux) writeReady(fd uintptr) bool {
	w := &t.wr
	for {
		_, _, e := unix.Syscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&w.iov[0])), uintptr(len(w.iov)))
		if e == unix.EINTR {
			continue
		}
		if e != 0 {
			w.err = e
		}
		// EAGAIN counts as refused: a TUN that doesn't take a packet drops it,
		// as any full interface does.
		return true
	}
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
	t.ctlMu.Lock()
	unix.Close(t.ctl)
	t.ctl = -1
	t.ctlMu.Unlock()
	return t.file.Close()
}

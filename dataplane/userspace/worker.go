package userspace

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"adit/internal/conn"
	"adit/tun"
)

// worker moves packets in both directions, from every device and socket that can be
// polled, in one thread: a batch runs to its end before the next is taken, so that
// nothing is handed over and flows keep their order. All its calls but poll return
// at once and move a bounded amount.
//
// Its goroutine is locked to its thread: that took a third off an idle round trip,
// and some of the time under load, where another thread had to be found for it
// whenever it came back from waiting.
//
// There can be several. A flow stays with one of them, by the kernel's choice of the
// queue, and an inbound SA, by the socket's selector. An outbound SA has an owner among
// them, to which the others hand its packets over.
type worker struct {
	p     *Plane
	n     int // its number
	beat  *beat
	out   *outbound
	in    *inbound
	mem   []byte // what was taken of a device
	taken [1]tun.Super

	linger      unix.Timespec
	lingers     int    // since the last sleep
	dense       int    // sleeps in a row that were short and between many packets
	packets     uint64 // passed before the last of them
	epoll, wake int
	events      [16]unix.EpollEvent
	sources     map[int32]*source // by descriptor
	hot         []*source         // those that are asked without waiting for the poller
	done        chan struct{}

	from   []*handover // what others hand over
	asleep atomic.Bool // it must be roused to look there

	mu  sync.Mutex
	add []*source // to be polled, too
}

// source is where packets come from: a device or a reader.
type source struct {
	fd     int32
	dev    *device
	tun    tun.Polled
	rested tun.Rested // the device, if it wants to know of sleeps
	reader conn.Polled
	hot    bool
	parked bool // the poller does not watch it; only of hot ones
	gone   bool // it failed for good
	misses int  // turns in a row that found nothing
}

// How the worker divides its time.
const (
	// turnPackets and turnBytes are what is taken of one source before the next
	// has its turn.
	turnPackets = arenaPackets
	turnBytes   = 3 * tun.MaxPacket
	// lookEvery is the number of rounds after which sources that had nothing are
	// looked at again, missLimit that of empty turns that make one of them.
	lookEvery = 16
	missLimit = 64
	// shortWait is how many milliseconds the thread waits before it lets Go know.
	shortWait = 1
	// After denseSleeps sleeps in a row that were shorter than denseSleep, with
	// densePackets and more passed between them, packets come faster than a thread
	// is woken: then it lets them gather for lingerTime, in which nobody has to wake
	// it either. That halved what a packet of 64 bytes costs, and left the cores to
	// the hosts; 50 µs brought little, 500 nothing more. Questions and answers, one
	// at a time, never come to that.
	denseSleep   = 25 * time.Microsecond
	denseSleeps  = 4
	densePackets = 4
	lingerTime   = 150 * time.Microsecond
	// parkAfter is the number of lingers without a sleep after which the hot sources
	// are taken from the poller.
	parkAfter = 2
	// workerSlice is the thread's time slice, the shortest that the kernel takes.
	workerSlice = 100 * time.Microsecond
	// readSlots is the number of datagrams or trains taken of a socket at a time.
	readSlots = 32
)

func (p *Plane) newWorker(n int) (*worker, error) {
	w := &worker{p: p, n: n, mem: make([]byte, tun.TakeSize), sources: map[int32]*source{}, epoll: -1, linger: unix.NsecToTimespec(int64(lingerTime)), done: make(chan struct{})}
	var err error
	if w.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, fmt.Errorf("userspace: eventfd: %w", err)
	}
	if w.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err == nil {
		err = w.poll(int32(w.wake))
	}
	if err != nil {
		w.close()
		return nil, fmt.Errorf("userspace: epoll: %w", err)
	}
	w.beat = p.newBeat(fmt.Sprintf("plane-%d", n))
	w.out, w.in = newOutbound(p, nil, arenaSize, arenaPackets), newInbound(p, readSlots)
	w.out.flows, w.out.beat, w.in.beat = newFlowCache(), w.beat, w.beat
	w.out.worker, w.in.worker = n, n
	return w, nil
}

func (w *worker) poll(fd int32) error {
	return unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, int(fd), &unix.EpollEvent{Events: unix.EPOLLIN, Fd: fd})
}

func (w *worker) close() {
	unix.Close(w.wake)
	if w.epoll >= 0 {
		unix.Close(w.epoll)
	}
}

// poll gives a source to a worker; they are made when the first one comes. It is
// called with p.mu held.
func (p *Plane) poll(n int, s *source) error {
	if p.workers == nil {
		list := make([]*worker, p.cfg.Workers)
		for i := range list {
			var err error
			if list[i], err = p.newWorker(i); err != nil {
				for _, w := range list[:i] {
					w.close()
				}
				return err
			}
		}
		meet(list)
		p.workers = list
		for _, w := range list {
			go w.run()
		}
	}
	w := p.workers[n%len(p.workers)]
	w.mu.Lock()
	w.add = append(w.add, s)
	w.mu.Unlock()
	w.rouse()
	return nil
}

// rouse makes the worker look at what changed.
func (w *worker) rouse() { _, _ = unix.Write(w.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }

// end waits for the worker to stop, Plane.stop being closed.
func (w *worker) end() {
	w.rouse()
	<-w.done
}

func (w *worker) run() {
	defer close(w.done)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// Else the kernel adds 50 µs to those of a linger.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1000, 0, 0, 0)
	shortSlice()
	lingered := false
	for round := 0; ; round++ {
		moved, more := w.round()
		if moved {
			lingered = false
		}
		switch {
		case more && round%lookEvery != 0:
			continue
		case more:
			w.look(0)
		case w.dense >= denseSleeps && len(w.hot) > 0 && !lingered:
			lingered = true // if that brings nothing, sleep
			w.gathered()
			if w.lingers++; w.lingers >= parkAfter {
				w.park()
			}
			_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&w.linger)), 0, 0)
			w.look(0)
		default:
			lingered = false
			w.sleep()
		}
		select {
		case <-w.p.stop:
			return
		default:
		}
	}
}

// shortSlice asks the kernel for a short time slice (EEVDF, since Linux 6.12; before, it
// is ignored): who has one is woken in the midst of another thread's, and a packet needs
// not wait for a key exchange of the control plane. It gives no more of the processor. Where a
// filter forbids the call, nothing is lost but that.
func shortSlice() {
	if a, err := unix.SchedGetAttr(0, 0); err == nil && a.Policy == unix.SCHED_NORMAL {
		a.Runtime = uint64(workerSlice)
		_ = unix.SchedSetAttr(0, a, 0)
	}
}

// sleep waits until a source has something, and learns whether packets come so
// densely that it is better to let some gather.
func (w *worker) sleep() {
	kept := w.hot[:0]
	for _, s := range w.hot {
		if !w.cool(s) {
			kept = append(kept, s)
		}
	}
	if w.hot = kept; len(kept) > 0 {
		// Perhaps a packet that is still on its way into the device, for as long as a
		// processor of the kernel's stands still: the other sources don't wait for that.
		w.look(0)
		return
	}
	w.lingers = 0
	w.gathered()
	start := time.Now()
	w.asleep.Store(true)
	if !w.waiting() {
		w.look(-1)
	}
	w.asleep.Store(false)
	if time.Since(start) >= denseSleep {
		w.dense = 0
	}
}

// park takes the hot sources from the poller, as long as they are looked at without it.
// Else whoever brings a packet calls the poller for it, nearly 0.1 µs a packet in the
// thread of the sending host, under locks that this thread wants, too.
func (w *worker) park() {
	for _, s := range w.hot {
		if !s.parked && !s.gone {
			s.parked = unix.EpollCtl(w.epoll, unix.EPOLL_CTL_DEL, int(s.fd), nil) == nil
		}
	}
}

// cool makes a hot source one that the poller watches. What it has by now is an event, or
// keeps it hot: then cool returns false.
func (w *worker) cool(s *source) bool {
	if !s.gone && s.rested != nil && !s.rested.Rest() {
		s.misses = 0
		return false
	}
	s.hot = false
	if !s.parked {
		return true
	}
	s.parked = false
	if err := w.poll(s.fd); err != nil {
		w.drop(s, fmt.Errorf("userspace: epoll: %w", err))
	}
	return true
}

// gathered counts the packets since the thread slept or lingered last.
func (w *worker) gathered() {
	n := w.out.count.outPackets.Load() + w.in.count.inPackets.Load()
	if n-w.packets >= densePackets {
		w.dense = min(w.dense+1, denseSleeps)
	} else {
		w.dense = 0
	}
	w.packets = n
}

// round gives every hot source a turn. It tells whether one had something, and whether
// one may have more.
func (w *worker) round() (moved, more bool) {
	kept := w.hot[:0]
	for _, s := range w.hot {
		some, rest := w.turn(s)
		if s.gone {
			moved = moved || some
			continue
		}
		moved, more = moved || some, more || rest
		if some {
			s.misses = 0
		} else if s.misses++; s.misses >= missLimit && w.cool(s) {
			continue
		}
		kept = append(kept, s)
	}
	w.hot = kept
	for _, h := range w.from {
		if w.takeOver(h) {
			moved, more = true, true
		}
	}
	return moved, more
}

// turn moves what a source has, up to a bound. some: it had something; rest: it may
// have more.
func (w *worker) turn(s *source) (some, rest bool) {
	if s.tun != nil {
		return w.turnDevice(s)
	}
	n, err := s.reader.Take(w.in.recv)
	if n > 0 {
		w.in.guarded(n)
	}
	if err != nil {
		w.drop(s, err)
	}
	return n > 0, !s.reader.Drained()
}

func (w *worker) turnDevice(s *source) (some, rest bool) {
	ok, err := s.tun.Take(&w.taken[0], w.mem)
	if ok {
		rest, err = w.out.guardedTurn(s.dev, s.tun, &w.taken[0], w.mem)
	}
	if err != nil {
		w.drop(s, err)
	}
	return ok, rest
}

// drop gives up a source that failed for good.
func (w *worker) drop(s *source, err error) {
	for _, fd := range s.fds() {
		_ = unix.EpollCtl(w.epoll, unix.EPOLL_CTL_DEL, int(fd), nil)
		delete(w.sources, fd)
	}
	s.gone, s.hot, s.parked = true, false, false // round takes it out of the hot ones
	w.p.fail(err)
}

// look asks the poller which sources have something, and waits for that if timeout
// is -1.
func (w *worker) look(timeout int) {
	var n int
	if timeout == 0 {
		r, _, _ := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(w.epoll), uintptr(unsafe.Pointer(&w.events[0])), uintptr(len(w.events)), 0, 0, 0)
		n = max(int(r), 0)
	} else {
		n = w.await()
	}
	for i := range max(n, 0) {
		e := &w.events[i]
		if e.Fd == int32(w.wake) {
			w.changed()
			continue
		}
		s := w.sources[e.Fd]
		if s == nil {
			continue
		}
		if e.Events&unix.EPOLLERR != 0 && s.reader != nil {
			s.reader.Errors()
		}
		if !s.hot {
			s.hot, s.misses = true, 0
			w.hot = append(w.hot, s)
		}
	}
}

// await waits for the poller. The first shortWait of it keeps hold of the P, as the
// calls that return at once do: to let go of it and take it up again for every packet
// of a dialogue, and what Go's monitor does about a thread that mostly waits, cost a
// tenth of the gateway's time. A collection waits that long for this thread.
func (w *worker) await() int {
	n, _, e := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(w.epoll), uintptr(unsafe.Pointer(&w.events[0])), uintptr(len(w.events)), shortWait, 0, 0)
	if e == 0 && n > 0 {
		return int(n)
	}
	long, _ := unix.EpollWait(w.epoll, w.events[:], -1)
	return long
}

// changed takes in new sources.
func (w *worker) changed() {
	var b [8]byte
	_, _ = unix.Read(w.wake, b[:])
	w.mu.Lock()
	list := w.add
	w.add = nil
	w.mu.Unlock()
	for _, s := range list {
		s.rested, _ = s.tun.(tun.Rested)
		for _, fd := range s.fds() {
			w.sources[fd] = s
			if err := w.poll(fd); err != nil {
				w.drop(s, fmt.Errorf("userspace: epoll: %w", err))
				break
			}
		}
		if s.rested != nil && !s.gone {
			// It has not been told that anybody sleeps.
			s.hot, w.hot = true, append(w.hot, s)
		}
	}
}

// fds are the descriptors that the source is waited for with.
func (s *source) fds() []int32 {
	if s.rested != nil {
		if fd := s.rested.RestFD(); fd >= 0 {
			return []int32{s.fd, int32(fd)}
		}
	}
	return []int32{s.fd}
}

// startDevice begins to read a device. It is called with p.mu held.
func (p *Plane) startDevice(d *device) error {
	for i, q := range d.queues {
		// More queues than workers are those of one that has several of them.
		if err := p.poll(i, &source{fd: int32(q.FD()), dev: d, tun: q}); err != nil {
			return err
		}
	}
	if len(d.queues) > 0 {
		return nil
	}
	if t, ok := d.tun.(tun.Polled); ok {
		return p.poll(0, &source{fd: int32(t.FD()), dev: d, tun: t})
	}
	b := p.newBeat(fmt.Sprintf("tun-%d", d.ifID))
	w := newOutbound(p, d, arenaSize, arenaPackets)
	w.flows, w.beat = newFlowCache(), b
	p.wg.Go(func() { w.readDevice(d) })
	return nil
}

// startReader begins to read from the Conn. It is called with p.mu held.
func (p *Plane) startReader(i int, r conn.Reader) error {
	if c, ok := r.(conn.Polled); ok {
		return p.poll(c.Worker(), &source{fd: int32(c.FD()), reader: c})
	}
	w := newInbound(p, batchSize)
	w.beat = p.newBeat(fmt.Sprintf("conn-%d", i))
	p.wg.Go(func() { w.readConn(r) })
	return nil
}

// readDevice is the goroutine of a device that cannot be polled.
func (w *outbound) readDevice(d *device) {
	size := min(max(d.tun.BatchSize(), 1), batchSize)
	bufs, sizes, list := make([][]byte, size), make([]int, size), make([]tun.Super, size)
	mem := make([]byte, size*tun.MaxPacket)
	for i := range bufs {
		bufs[i] = mem[i*tun.MaxPacket : (i+1)*tun.MaxPacket]
	}
	for {
		n, err := d.tun.Read(bufs, sizes, 0)
		for i := range n {
			list[i] = tun.Whole(bufs[i][:sizes[i]])
		}
		if n > 0 {
			w.guarded(d, list[:n])
		}
		if err != nil {
			w.p.fail(err)
			return
		}
	}
}

// readConn is the goroutine of a reader that cannot be polled.
func (w *inbound) readConn(r conn.Reader) {
	for {
		n, err := r.ReadBatch(w.recv)
		if n > 0 {
			w.guarded(n)
		}
		if err != nil {
			w.p.fail(err)
			return
		}
	}
}

package tun

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// Memory is one end of a packet pipe in memory (see Pipe).
type Memory struct {
	name   string
	mtu    atomic.Int64
	in     *queue // what Read takes
	out    *queue // what Write fills: the peer's in
	closed chan struct{}
	once   sync.Once
}

var _ Device = (*Memory)(nil)

// queue holds packets on their way, oldest first, in buffers that are used
// again and again.
type queue struct {
	mu    sync.Mutex
	ring  [memoryQueue][]byte
	head  int
	count int
	ready chan struct{} // capacity 1: something was put
}

var pipes atomic.Uint64

// Pipe makes two devices in memory: what is written to one is read from the
// other. A packet larger than the reading side's MTU or than its buffer is
// dropped, and so is what finds 1024 packets waiting.
func Pipe(mtu int) (a, b *Memory) {
	ab := &queue{ready: make(chan struct{}, 1)}
	ba := &queue{ready: make(chan struct{}, 1)}
	n := pipes.Add(1)
	a = &Memory{name: fmt.Sprintf("mem%da", n), in: ba, out: ab, closed: make(chan struct{})}
	b = &Memory{name: fmt.Sprintf("mem%db", n), in: ab, out: ba, closed: make(chan struct{})}
	a.mtu.Store(int64(mtu))
	b.mtu.Store(int64(mtu))
	return a, b
}

// Read implements Device.
func (m *Memory) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	for {
		select {
		case <-m.closed:
			return 0, ErrClosed
		default:
		}
		if n := m.in.take(bufs, sizes, offset, m.MTU()); n > 0 || len(bufs) == 0 {
			return n, nil
		}
		select {
		case <-m.closed:
		case <-m.in.ready:
		}
	}
}

func (q *queue) take(bufs [][]byte, sizes []int, offset, mtu int) (n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for n < len(bufs) && q.count > 0 {
		p := q.ring[q.head]
		q.head = (q.head + 1) % memoryQueue
		q.count--
		if len(p) > len(bufs[n])-offset || len(p) > mtu {
			continue
		}
		sizes[n] = copy(bufs[n][offset:], p)
		n++
	}
	return n
}

func (q *queue) put(p []byte) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.count == memoryQueue {
		return false
	}
	slot := &q.ring[(q.head+q.count)%memoryQueue]
	*slot = append((*slot)[:0], p...)
	q.count++
	return true
}

// Write implements Device.
func (m *Memory) Write(bufs [][]byte, offset int) (n int, err error) {
	select {
	case <-m.closed:
		return 0, ErrClosed
	default:
	}
	for _, b := range bufs {
		switch p := b[offset:]; {
		case !isIP(p):
			err = ErrNotIP
		case !m.out.put(p):
			err = ErrFull
		default:
			n++
		}
	}
	if n > 0 {
		select {
		case m.out.ready <- struct{}{}:
		default:
		}
	}
	return n, err
}

// isIP says whether p can be an IPv4 or IPv6 packet: a version and room for
// the header.
func isIP(p []byte) bool {
	if len(p) < ipv4Len || len(p) > MaxPacket {
		return false
	}
	return p[0]>>4 == 4 || p[0]>>4 == 6 && len(p) >= ipv6Len
}

// Name implements Device.
func (m *Memory) Name() string { return m.name }

// MTU implements Device.
func (m *Memory) MTU() int { return int(m.mtu.Load()) }

// SetMTU implements Device.
func (m *Memory) SetMTU(mtu int) error {
	if mtu < MinMTU || mtu > MaxPacket {
		return ErrMTU
	}
	m.mtu.Store(int64(mtu))
	return nil
}

// BatchSize implements Device.
func (m *Memory) BatchSize() int { return maxBatch }

// Close implements Device. The other end stays open: what it writes is lost.
func (m *Memory) Close() error {
	m.once.Do(func() { close(m.closed) })
	return nil
}

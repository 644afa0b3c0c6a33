package traffic

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// chunk is the size of a read or write of a stream.
const chunk = 128 << 10

// monotonic is the machine's clock in nanoseconds.
func monotonic() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // cannot fail with this clock
	return t.Nano()
}

// onThread runs f on a thread of its own, which ends with it: f may have changed it.
func onThread(f func()) {
	go func() {
		runtime.LockOSThread()
		f()
	}()
}

// blocking turns a connection into a descriptor whose calls block.
func blocking(c *net.TCPConn) (*os.File, int, error) {
	f, err := c.File()
	_ = c.Close() // the file is another descriptor of the same socket
	if err != nil {
		return nil, 0, err
	}
	return f, int(f.Fd()), nil // Fd makes it blocking
}

// ListenTCP accepts streams until the process ends.
func (s *service) ListenTCP(at netip.AddrPort, _ *bool) error {
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
	if err != nil {
		return err
	}
	s.onClose(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.AcceptTCP()
			if err != nil {
				return
			}
			f, fd, err := blocking(c)
			if err != nil {
				continue
			}
			onThread(func() {
				defer f.Close()
				s.drain(fd)
			})
		}
	}()
	return nil
}

// drain reads a stream to its end.
func (s *service) drain(fd int) {
	b := make([]byte, chunk)
	for {
		n, err := unix.Read(fd, b)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n <= 0 {
			return
		}
		s.bytes.Add(int64(n))
	}
}

// ReceivedTCP reads the counter and the clock together.
func (s *service) ReceivedTCP(_ bool, out *Counted) error {
	*out = Counted{Bytes: s.bytes.Load(), At: monotonic()}
	return nil
}

// streams are those that are being sent.
type streams struct {
	wg   sync.WaitGroup
	fds  []int
	file []*os.File
}

// StartTCP connects and sends in the background.
func (s *service) StartTCP(a SendTCP, _ *bool) error {
	if a.Streams < 1 || a.Streams > MaxStreams {
		return fmt.Errorf("%d streams: 1 to %d are possible", a.Streams, MaxStreams)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams != nil {
		return errors.New("streams are being sent already")
	}
	st := &streams{}
	for range a.Streams {
		c, err := net.DialTimeout("tcp", a.To.String(), 5*time.Second)
		if err == nil {
			var f *os.File
			var fd int
			if f, fd, err = blocking(c.(*net.TCPConn)); err == nil {
				st.fds, st.file = append(st.fds, fd), append(st.file, f)
				continue
			}
		}
		st.end()
		return err
	}
	for _, fd := range st.fds {
		st.wg.Add(1)
		onThread(func() {
			defer st.wg.Done()
			pour(fd)
		})
	}
	s.streams = st
	return nil
}

// pour writes until the stream is shut.
func pour(fd int) {
	b := make([]byte, chunk)
	for i := range b {
		b[i] = byte(i * 7)
	}
	for {
		if _, err := unix.Write(fd, b); err != nil && !errors.Is(err, unix.EINTR) {
			return // EPIPE after a shutdown; Go ignores the signal for sockets
		}
	}
}

func (st *streams) end() {
	for _, fd := range st.fds {
		_ = unix.Shutdown(fd, unix.SHUT_RDWR)
	}
	st.wg.Wait()
	for _, f := range st.file {
		// What is still queued in the kernel isn't wanted: a reset ends it at once.
		_ = unix.SetsockoptLinger(int(f.Fd()), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		_ = f.Close()
	}
}

// StopTCP ends what StartTCP began.
func (s *service) StopTCP(_ bool, _ *bool) error {
	s.mu.Lock()
	st := s.streams
	s.streams = nil
	s.mu.Unlock()
	if st != nil {
		st.end()
	}
	return nil
}

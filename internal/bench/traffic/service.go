package traffic

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// service is what a host does; its exported methods are what may be called.
type service struct {
	bytes atomic.Int64 // brought by all TCP streams

	mu      sync.Mutex
	closers []func() // of listeners and sinks, for the end of the process
	streams *streams
	sink    *sink
	file    chan fileResult
}

type fileResult struct {
	d   Digest
	err error
}

func (s *service) onClose(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closers = append(s.closers, f)
}

func (s *service) close() {
	_ = s.StopTCP(false, nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.closers {
		f()
	}
}

// CountUDP is called by the benchmark, as are all exported methods.
func (s *service) CountUDP(c CountUDP, out *Arrived) error {
	s.mu.Lock()
	k := s.sink
	s.mu.Unlock()
	if k == nil {
		return errors.New("nothing counts datagrams here")
	}
	*out = k.count(c)
	return nil
}

// fileTimeout bounds the transfer of a file.
const fileTimeout = 2 * time.Minute

// ExpectFile waits in the background.
func (s *service) ExpectFile(f File, _ *bool) error {
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(f.Addr))
	if err != nil {
		return err
	}
	_ = l.SetDeadline(time.Now().Add(fileTimeout))
	s.onClose(func() { _ = l.Close() })
	res := make(chan fileResult, 1)
	s.mu.Lock()
	s.file = res
	s.mu.Unlock()
	go func() {
		defer l.Close()
		err := takeFile(l, f.Path)
		var r fileResult
		if r.err = err; err == nil {
			r.d, r.err = DigestFile(f.Path)
		}
		res <- r
	}()
	return nil
}

// takeFile writes what one connection brings.
func takeFile(l net.Listener, path string) error {
	c, err := l.Accept()
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(fileTimeout))
	out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, c)
	return errors.Join(err, out.Close())
}

// DigestFile reads a file.
func DigestFile(path string) (d Digest, err error) {
	f, err := os.Open(path)
	if err != nil {
		return d, err
	}
	defer f.Close()
	h := sha256.New()
	if d.Bytes, err = io.Copy(h, f); err != nil {
		return d, err
	}
	d.SHA256 = hex.EncodeToString(h.Sum(nil))
	return d, nil
}

// SendFile sends and waits for the receiver to have read everything.
func (s *service) SendFile(f File, _ *bool) error {
	in, err := os.Open(f.Path)
	if err != nil {
		return err
	}
	defer in.Close()
	c, err := net.DialTimeout("tcp", f.Addr.String(), 5*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(fileTimeout))
	if _, err := io.Copy(c, in); err != nil {
		return err
	}
	return c.(*net.TCPConn).CloseWrite()
}

// GotFile waits for the result.
func (s *service) GotFile(_ bool, out *Digest) error {
	s.mu.Lock()
	res := s.file
	s.mu.Unlock()
	if res == nil {
		return errors.New("no file is expected")
	}
	r := <-res
	*out = r.d
	return r.err
}

func checkDuration(what string, d time.Duration) error {
	if d < 0 || d > MaxFor {
		return fmt.Errorf("%s of %v: at most %v", what, d, MaxFor)
	}
	return nil
}

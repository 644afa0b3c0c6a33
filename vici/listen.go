package vici

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// ErrInUse is what [Listen] returns if a server answers at the address already.
var ErrInUse = errors.New("vici: another server answers at this address")

// ErrURI is what [Listen] and [Dial] return for an address that they do not understand.
var ErrURI = errors.New("vici: address must be unix:///path or tcp://host:port")

// socketMode lets root and the socket's group in, nobody else.
const socketMode = 0o770

// parseURI splits "unix:///path" and "tcp://host:port" into what package net wants.
func parseURI(uri string) (network, address string, err error) {
	scheme, rest, ok := strings.Cut(uri, "://")
	switch {
	case ok && scheme == "unix" && strings.HasPrefix(rest, "/"):
		// The kernel's address has room for 107 bytes; its own error would say "invalid argument".
		if len(rest) > 107 {
			return "", "", fmt.Errorf("%w: path of %d bytes, 107 are possible", ErrURI, len(rest))
		}
		return "unix", rest, nil
	case ok && scheme == "tcp":
		if _, _, err := net.SplitHostPort(rest); err != nil {
			return "", "", fmt.Errorf("%w: %v", ErrURI, err)
		}
		return "tcp", rest, nil
	}
	return "", "", fmt.Errorf("%w, not %q", ErrURI, uri)
}

// Listen opens the socket of a server at "unix:///path" or "tcp://host:port". A Unix socket that
// a dead server left is replaced; if a live one answers, or a TCP port is taken, the error wraps
// [ErrInUse]. The Unix socket has mode 0770 and is removed by Close, unless something else has
// taken its place meanwhile. TCP has no access control at all: whoever reaches the port controls
// the gateway.
//
// If the service manager passed sockets to this process (LISTEN_FDS, see sd_listen_fds(3)), the
// one at the address is used as it is: its mode and its removal are the manager's. If none of
// them is at the address, the error wraps [ErrActivation].
func Listen(uri string) (net.Listener, error) {
	network, address, err := parseURI(uri)
	if err != nil {
		return nil, err
	}
	if l, err := activated(network, address); l != nil || err != nil {
		return l, err
	}
	if network == "unix" {
		return listenUnix(address)
	}
	l, err := net.Listen(network, address)
	if errors.Is(err, syscall.EADDRINUSE) {
		err = fmt.Errorf("%w: %s", ErrInUse, uri)
	}
	return l, err
}

func listenUnix(path string) (net.Listener, error) {
	// Two servers that start at once must not both find the socket stale and remove each other's.
	unlock, err := lockDir(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("vici: %w", err)
	}
	defer unlock()
	if err := removeStale(path); err != nil {
		return nil, err
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		// On Linux the socket's own mode limits that of the file bind makes: there is no moment
		// at which the file is open to everybody, whatever the umask.
		var err error
		if e := c.Control(func(fd uintptr) { err = syscall.Fchmod(int(fd), socketMode) }); e != nil {
			return e
		}
		return err
	}}
	l, err := lc.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("vici: %w", err)
	}
	ul := &unixListener{UnixListener: l.(*net.UnixListener), path: path}
	ul.SetUnlinkOnClose(false)
	if err = os.Chmod(path, socketMode); err == nil {
		ul.file, err = os.Lstat(path)
	}
	if err != nil {
		l.Close()
		os.Remove(path)
		return nil, fmt.Errorf("vici: %w", err)
	}
	return ul, nil
}

// removeStale removes the socket at path if nobody listens on it.
func removeStale(path string) error {
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("vici: %w", err)
	case st.Mode()&fs.ModeSocket == 0:
		return fmt.Errorf("vici: %s exists and is no socket", path)
	}
	conn, err := net.DialTimeout("unix", path, probeTimeout)
	switch {
	case err == nil:
		conn.Close()
		return fmt.Errorf("%w: unix://%s", ErrInUse, path)
	case errors.Is(err, syscall.ECONNREFUSED): // the proof that nobody listens
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("vici: stale socket: %w", err)
		}
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, os.ErrDeadlineExceeded): // listens, but is busy
		return fmt.Errorf("%w: unix://%s", ErrInUse, path)
	}
	return fmt.Errorf("vici: %w", err)
}

// lockDir takes a lock on a directory for as long as a socket in it is examined and replaced.
func lockDir(dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if err != syscall.EINTR {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, &fs.PathError{Op: "lock", Path: dir, Err: err}
	}
	return func() { f.Close() }, nil
}

// unixListener removes its socket on Close if that is still the one it made.
type unixListener struct {
	*net.UnixListener
	path string
	file fs.FileInfo
	once sync.Once
}

func (l *unixListener) Close() error {
	l.once.Do(func() {
		unlock, err := lockDir(filepath.Dir(l.path))
		if err != nil {
			return
		}
		defer unlock()
		if st, err := os.Lstat(l.path); err == nil && os.SameFile(st, l.file) {
			os.Remove(l.path)
		}
	})
	return l.UnixListener.Close()
}

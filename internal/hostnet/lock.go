package hostnet

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// lockName is an abstract socket: these are per network namespace and vanish
// with their process, whatever ends it.
const lockName = "@adit"

// instanceLock is the proof that this process is the only adit of the namespace.
type instanceLock struct{ l *net.UnixListener }

func acquireLock() (*instanceLock, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: lockName, Net: "unix"})
	if err == nil {
		return &instanceLock{l}, nil
	}
	if !errors.Is(err, unix.EADDRINUSE) {
		return nil, fmt.Errorf("hostnet: taking the instance lock: %w", err)
	}
	if pid := lockHolder(); pid > 0 {
		return nil, fmt.Errorf("%w (process %d)", ErrAlreadyRunning, pid)
	}
	return nil, ErrAlreadyRunning
}

// lockHolder returns the process that listens on the lock, 0 if unknown (also
// when it lives in another PID namespace).
func lockHolder() int {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: lockName, Net: "unix"})
	if err != nil {
		return 0
	}
	defer c.Close()
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	pid := 0
	raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})
	return pid
}

func (k *instanceLock) release() { k.l.Close() }

package vici

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// ErrActivation is what [Listen] returns if the service manager passed sockets, and none of
// them is at the address wanted: clients of those would wait for ever.
var ErrActivation = errors.New("vici: the sockets passed by the service manager are at other addresses")

// firstPassed is the first descriptor that systemd passes (sd_listen_fds(3)); maxPassed bounds
// how many are looked at.
const (
	firstPassed = 3
	maxPassed   = 16
)

// passed are the listening sockets that the service manager gave to this process. They are
// taken out of the environment, so that no child believes that they are its own.
var passed = sync.OnceValues(func() (found []net.Listener, err error) {
	pid, fds := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS")
	if pid != strconv.Itoa(os.Getpid()) || fds == "" {
		return nil, nil
	}
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		os.Unsetenv(name)
	}
	n, err := strconv.Atoi(fds)
	if err != nil || n < 0 || n > maxPassed {
		return nil, fmt.Errorf("vici: LISTEN_FDS=%q: want a number up to %d", fds, maxPassed)
	}
	for fd := firstPassed; fd < firstPassed+n; fd++ {
		syscall.CloseOnExec(fd)
		f := os.NewFile(uintptr(fd), "passed socket")
		l, err := net.FileListener(f)
		f.Close() // the listener has a descriptor of its own
		if err != nil {
			return nil, fmt.Errorf("vici: descriptor %d of the service manager: %w", fd, err)
		}
		found = append(found, l)
	}
	return found, nil
})

// taken makes sure that a passed socket is handed out once.
var taken struct {
	sync.Mutex
	by map[net.Listener]bool
}

// activated returns the passed socket at an address, nil if none was passed at all.
func activated(network, address string) (net.Listener, error) {
	all, err := passed()
	if err != nil || len(all) == 0 {
		return nil, err
	}
	return choose(all, network, address)
}

func choose(all []net.Listener, network, address string) (net.Listener, error) {
	taken.Lock()
	defer taken.Unlock()
	var others []string
	for _, l := range all {
		if sameAddress(l.Addr(), network, address) {
			if taken.by[l] {
				return nil, fmt.Errorf("%w: %s://%s", ErrInUse, network, address)
			}
			if taken.by == nil {
				taken.by = map[net.Listener]bool{}
			}
			taken.by[l] = true
			return l, nil
		}
		others = append(others, l.Addr().Network()+"://"+l.Addr().String())
	}
	return nil, fmt.Errorf("%w: %s, but wanted is %s://%s", ErrActivation, strings.Join(others, ", "), network, address)
}

// sameAddress compares a socket's address with a wanted one; /var/run and /run are the same
// directory.
func sameAddress(a net.Addr, network, address string) bool {
	if a.Network() != network {
		return false
	}
	if network != "unix" {
		want, err := net.ResolveTCPAddr(network, address)
		return err == nil && a.String() == want.String()
	}
	return real(a.String()) == real(address)
}

// real is a path with the links of its directory resolved.
func real(path string) string {
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return filepath.Clean(path)
	}
	return filepath.Join(dir, filepath.Base(path))
}

package kernel

import (
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrThreads says that a capability can't be taken from all threads.
var ErrThreads = errors.New("kernel: built with cgo, whose threads Go's runtime does not reach")

// capabilities are the sets of a thread, of 64 bits in two words (capget(2)).
type capabilities [2]unix.CapUserData

func (c *capabilities) effective(number int) bool {
	return c[number/32].Effective&(1<<(number%32)) != 0
}

func (c *capabilities) any(number int) bool {
	w := c[number/32]
	return (w.Effective|w.Permitted|w.Inheritable)&(1<<(number%32)) != 0
}

// without clears one; the kernel takes it from the ambient set with the others.
func (c *capabilities) without(number int) {
	w, bit := &c[number/32], uint32(1)<<(number%32)
	w.Effective, w.Permitted, w.Inheritable = w.Effective&^bit, w.Permitted&^bit, w.Inheritable&^bit
}

// GiveUp takes a capability from all threads of the process for good, so that programs it
// starts don't have it either, and tells whether there was something to take.
//
// With CAP_SYS_ADMIN, which allows nearly all that any other does, nothing is taken: it
// would be for show. The bounding set can be made smaller only with CAP_SETPCAP. Without
// that it stays, which means nothing to who runs under no_new_privs, or isn't root.
//
// In a program built with cgo it is ErrThreads: capset is for the calling thread alone.
func GiveUp(number int) (given bool, err error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have capabilities
	if err := unix.Capget(&header, &have[0]); err != nil {
		return false, fmt.Errorf("kernel: capget: %w", err)
	}
	if have.effective(unix.CAP_SYS_ADMIN) {
		return false, nil
	}
	bound, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(number), 0, 0, 0)
	if err == nil && bound == 1 && have.effective(unix.CAP_SETPCAP) {
		if err := ofAllThreads(syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, uintptr(number), 0, 0, 0, 0)); err != nil {
			return false, fmt.Errorf("kernel: bounding set: %w", err)
		}
		given = true
	}
	if !have.any(number) {
		return given, nil
	}
	have.without(number)
	// The runtime stops the process for the time of it: no thread is started meanwhile that
	// would have the old sets.
	if err := ofAllThreads(syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&have[0])), 0)); err != nil {
		return given, fmt.Errorf("kernel: capset: %w", err)
	}
	return true, nil
}

// ofAllThreads is the error of a system call that all threads did.
func ofAllThreads(_, _ uintptr, e syscall.Errno) error {
	switch e {
	case 0:
		return nil
	case syscall.ENOTSUP:
		return ErrThreads
	}
	return e
}

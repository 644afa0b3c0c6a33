//go:build linux

package tun

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// OtherKernel has the device refuse offloads that has does not name, until the
// returned function is called.
func OtherKernel(has func(mask int) bool) (restore func()) {
	real := kernelOffloads
	kernelOffloads = func(fd, mask int) error {
		if !has(mask) {
			return unix.EINVAL
		}
		const uso = tunUSO4 | tunUSO6
		if mask&uso != uso {
			mask &^= uso // the real one has them only together
		}
		return real(fd, mask)
	}
	return func() { kernelOffloads = real }
}

// OnWrite has f take the device's writes.
func (t *Linux) OnWrite(f func(vectors [][]byte) unix.Errno) {
	t.wr.call = func(_ int, iov []unix.Iovec) unix.Errno {
		var list [][]byte
		for _, v := range iov {
			list = append(list, unsafe.Slice(v.Base, v.Len))
		}
		return f(list)
	}
}

// Misread says what becomes of a failed read.
func (t *Linux) Misread(e unix.Errno) error { return t.misread(e) }

// Seen tells whether somebody wants to see all that leaves by the device.
func (t *Linux) Seen() bool { return t.seen.Load() }

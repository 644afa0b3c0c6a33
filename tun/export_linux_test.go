//go:build linux

package tun

import "golang.org/x/sys/unix"

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

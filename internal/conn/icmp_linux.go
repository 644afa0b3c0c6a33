//go:build linux

package conn

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// errorReader is the scratch space for reading error queues, under errMu.
type errorReader struct {
	hdr  unix.Msghdr
	iov  unix.Iovec
	name unix.RawSockaddrInet6
	ctrl [256]byte
	buf  [maxQuote]byte
}

func newErrorReader() *errorReader {
	r := &errorReader{}
	r.iov.Base = &r.buf[0]
	r.iov.SetLen(len(r.buf))
	r.hdr.Name = (*byte)(unsafe.Pointer(&r.name))
	r.hdr.Iov = &r.iov
	r.hdr.SetIovlen(1)
	return r
}

// watchErrors waits for errors of the send-only sockets, which have no reader, until
// the Conn closes. The kernel ignores the group's selector when it looks for the
// socket that an ICMP error is about, so half of them come here.
func (c *linuxConn) watchErrors(twins []*socket) {
	fds := []unix.PollFd{{Fd: int32(c.wake), Events: unix.POLLIN}}
	for _, s := range twins {
		fds = append(fds, unix.PollFd{Fd: int32(s.fd)}) // no events: POLLERR alone
	}
	for !c.closed.Load() {
		if _, err := unix.Poll(fds, -1); err != nil && err != unix.EINTR {
			return
		}
		for i, s := range twins {
			if fds[i+1].Revents != 0 {
				s.clearErrors()
			}
		}
	}
}

// clearErrors takes the errors of a socket, both those of its queue and the one
// that the next call would return.
func (s *socket) clearErrors() {
	s.drainErrors(s.fd)
	_, _ = unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ERROR)
}

// drainErrors takes up to maxReports errors from the socket's error queue
// (IP_RECVERR), reports them and returns their number.
func (s *socket) drainErrors(fd int) (taken int) {
	c := s.conn
	c.errMu.Lock()
	defer c.errMu.Unlock()
	r := c.errs
	for range maxReports {
		r.hdr.Namelen = unix.SizeofSockaddrInet6
		r.hdr.Control = &r.ctrl[0]
		r.hdr.SetControllen(len(r.ctrl))
		r.hdr.Flags = 0
		r.name = unix.RawSockaddrInet6{}
		n, _, e := unix.Syscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&r.hdr)),
			unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if e == unix.EINTR {
			continue
		}
		if e != 0 {
			break
		}
		taken++
		c.stats.reports.Add(1)
		if c.opts.OnReport == nil {
			continue
		}
		rep := Report{
			Local: netip.AddrPortFrom(netip.IPv4Unspecified(), s.port),
			Raw:   s.role == roleRaw, Encap: s.role == roleEncap,
			Remote: addrPort(&r.name), Quote: r.buf[:min(int(n), len(r.buf))],
		}
		if s.v6 {
			rep.Local = netip.AddrPortFrom(netip.IPv6Unspecified(), s.port)
		}
		if rep.Raw {
			rep.Remote = netip.AddrPortFrom(rep.Remote.Addr(), 0)
		}
		if rep.parse(r.ctrl[:min(int(r.hdr.Controllen), len(r.ctrl))]) {
			c.opts.OnReport(rep)
		}
	}
	return taken
}

// Origins of struct sock_extended_err (linux/errqueue.h).
const (
	originICMP  = 2
	originICMP6 = 3
	extErrLen   = 16
)

// parse takes struct sock_extended_err, and the offender's address behind it,
// from the control messages.
func (rep *Report) parse(b []byte) bool {
	for len(b) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
		length := int(h.Len)
		if length < unix.SizeofCmsghdr || length > len(b) {
			return false
		}
		body := b[unix.SizeofCmsghdr:length]
		isErr := h.Level == unix.SOL_IP && h.Type == unix.IP_RECVERR ||
			h.Level == unix.SOL_IPV6 && h.Type == unix.IPV6_RECVERR
		if isErr && len(body) >= extErrLen {
			// errno u32 | origin u8 | type u8 | code u8 | pad | info u32 | data u32
			errno := unix.Errno(binary.NativeEndian.Uint32(body))
			if origin := body[4]; origin == originICMP || origin == originICMP6 {
				rep.Type, rep.Code = body[5], body[6]
				if sa := body[extErrLen:]; len(sa) >= unix.SizeofSockaddrInet4 {
					var raw unix.RawSockaddrInet6
					copy((*[unix.SizeofSockaddrInet6]byte)(unsafe.Pointer(&raw))[:], sa)
					rep.Offender = addrPort(&raw).Addr()
				}
			}
			if errno == unix.EMSGSIZE {
				rep.MTU = int(binary.NativeEndian.Uint32(body[8:]))
			}
			return true
		}
		b = b[min(cmsgAlign(length), len(b)):]
	}
	return false
}

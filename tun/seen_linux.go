package tun

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// lookout tells whether somebody wants to see all that leaves by an interface: a capture, a
// qdisc that an operator gave it, or filters there. The interface is known by its
// index, since it can be renamed. Two sockets keep the network namespace of their making.
type lookout struct {
	index int32
	news  int // tells of changes of interfaces and qdiscs
	ask   int
	buf   []byte
}

// askWait is how many seconds an answer of the kernel, which comes at once, may take.
const askWait = 2

func newLookout(index int32) (*lookout, error) {
	l := &lookout{index: index, news: -1, ask: -1, buf: make([]byte, 1<<15)}
	var err error
	if l.news, err = netlinkSocket(unix.SOCK_NONBLOCK, 1<<(unix.RTNLGRP_LINK-1)|1<<(unix.RTNLGRP_TC-1)); err == nil {
		l.ask, err = netlinkSocket(0, 0)
	}
	if err == nil {
		err = unix.SetsockoptTimeval(l.ask, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: askWait})
	}
	if err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func netlinkSocket(flags int, groups uint32) (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|flags, unix.NETLINK_ROUTE)
	if err != nil {
		return -1, err
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (l *lookout) close() {
	for _, fd := range []int{l.news, l.ask} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// changed reads a message and reports whether it is an occasion to look; an error is
// lasting. One message or more may be lost, which is an occasion, too.
func (l *lookout) changed() (bool, error) {
	n, err := unix.Read(l.news, l.buf)
	switch {
	case err == unix.ENOBUFS:
		return true, nil
	case err == unix.EINTR, err == unix.EAGAIN:
		return false, nil
	case err != nil:
		return false, err
	}
	return n >= unix.SizeofNlMsghdr+unix.SizeofIfInfomsg && l.ours(l.buf[unix.SizeofNlMsghdr:]), nil
}

// ours tells of a message's body, of an interface or a qdisc, whether it is about the
// interface: both have the index at the same place.
func (l *lookout) ours(body []byte) bool {
	return int32(binary.NativeEndian.Uint32(body[4:])) == l.index
}

// look reports whether somebody wants to see all. If the kernel doesn't answer, as of an
// interface that left the namespace, nobody can know: then it is so.
func (l *lookout) look() bool {
	seen := false
	err := l.request(unix.RTM_GETLINK, 0, func(b []byte) {
		// The flag in the message is only what the operator set. Captures are counted here.
		promiscuity := attribute(b, unix.SizeofIfInfomsg, unix.IFLA_PROMISCUITY)
		seen = seen || len(promiscuity) == 4 && binary.NativeEndian.Uint32(promiscuity) > 0
	})
	if err == nil && !seen {
		err = l.request(unix.RTM_GETQDISC, unix.NLM_F_DUMP, func(b []byte) {
			handle, parent := binary.NativeEndian.Uint32(b[8:]), binary.NativeEndian.Uint32(b[12:])
			kind := attribute(b, sizeofTcmsg, unix.TCA_KIND)
			// The kernel's own qdisc has no handle, and noqueue, which hostnet gives our
			// devices, does nothing.
			given := parent == rootQdisc && handle != 0 && string(kind) != "noqueue\x00"
			seen = seen || l.ours(b) && (given || string(kind) == "clsact\x00")
		})
	}
	return seen || err != nil
}

const (
	sizeofTcmsg = 20
	rootQdisc   = 0xffffffff // TC_H_ROOT
)

// request asks about the interface and hands on the bodies of the answers, each with room for the
// fixed part of both kinds.
func (l *lookout) request(kind uint16, flags uint16, each func(body []byte)) error {
	var q [unix.SizeofNlMsghdr + sizeofTcmsg]byte
	binary.NativeEndian.PutUint32(q[0:], uint32(len(q)))
	binary.NativeEndian.PutUint16(q[4:], kind)
	binary.NativeEndian.PutUint16(q[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK|flags)
	binary.NativeEndian.PutUint32(q[unix.SizeofNlMsghdr+4:], uint32(l.index))
	if err := unix.Sendto(l.ask, q[:], 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	for {
		n, err := unix.Read(l.ask, l.buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		for b := l.buf[:n]; len(b) >= unix.SizeofNlMsghdr; {
			size := int(binary.NativeEndian.Uint32(b))
			if size < unix.SizeofNlMsghdr || size > len(b) {
				return fmt.Errorf("tun: a message of the kernel of %d bytes in %d", size, len(b))
			}
			body := b[unix.SizeofNlMsghdr:size]
			switch t := binary.NativeEndian.Uint16(b[4:]); {
			case t == unix.NLMSG_DONE:
				return nil
			case t == unix.NLMSG_ERROR && len(body) >= 4:
				if e := int32(binary.NativeEndian.Uint32(body)); e != 0 {
					return unix.Errno(-e)
				}
				return nil
			case len(body) >= sizeofTcmsg:
				each(body)
			}
			b = b[min((size+3)&^3, len(b)):]
		}
	}
}

// attribute is that of a type behind a message's fixed part, or nil.
func attribute(body []byte, fixed int, kind uint16) []byte {
	for b := body[min(fixed, len(body)):]; len(b) >= unix.SizeofRtAttr; {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofRtAttr || size > len(b) {
			return nil
		}
		if binary.NativeEndian.Uint16(b[2:]) == kind {
			return b[unix.SizeofRtAttr:size]
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return nil
}

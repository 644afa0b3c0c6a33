//go:build linux

package conn

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"adit/internal/kernel"
)

// sender is the scratch space of one WriteBatch: system-level messages for one
// socket. It lies on the heap and is used again.
type sender struct {
	conn  *linuxConn
	sock  *socket
	msgs  [sendSlots]mmsghdr
	names [sendSlots]unix.RawSockaddrInet6
	ctrl  [sendSlots][controlLen]byte
	train [sendSlots]train
	heads [sendSlots][ipv6Len]byte // of raw ESP with DF
	iovs  [maxIov]unix.Iovec

	n     int        // messages built
	iov   int        // I/O vectors used
	part  Packet     // of a train that goes in pieces
	one   unix.Iovec // of a train that the kernel refused
	done  int        // messages dealt with
	sent  int        // packets handed to the kernel
	err   error
	last  unix.Errno // what message number done failed with before
	tries int        // how often it failed
	until time.Time  // waits for room end then; zero: none began
	poll  [2]unix.PollFd
}

const maxIov = 1024

// MaxSegments is the number of packets that a train has at most.
func MaxSegments() int { return segments }

var segments = func() int {
	if kernel.AtLeast(6, 10) {
		return mostSegments
	}
	return oldSegments
}()

// maxTries is how often one message is tried: the first failures may be ICMP
// errors about earlier datagrams, which the kernel reports just once.
const maxTries = 3

// train is what a message carries: one packet, or several of one size for
// UDP_SEGMENT, in an I/O vector each or all in one.
type train struct {
	first   *Packet
	packets int
	bytes   int
	size    int // of all packets but the last
	last    int // length of the last packet
	iov     int // its first I/O vector
}

// marker is the non-ESP marker, in front of IKE on the port for both.
var marker [markerLen]byte

// keepalive is the payload of a NAT keepalive.
var keepalive = [1]byte{0xff}

func newSender(c *linuxConn) *sender {
	return &sender{conn: c}
}

// WriteBatch implements Conn.
func (c *linuxConn) WriteBatch(pkts []Packet) (int, error) {
	c.inUse.RLock()
	defer c.inUse.RUnlock()
	if c.closed.Load() {
		return 0, ErrClosed
	}
	s := c.senders.Get().(*sender)
	s.sent, s.err, s.until = 0, nil, time.Time{}
	for i := range pkts {
		p := &pkts[i]
		sock, err := c.socketFor(p)
		if err != nil {
			s.err = err
			c.stats.other.Add(1)
			continue
		}
		if len(p.Buf) > MaxTrain {
			s.err = ErrTooBig
			c.stats.tooBig.Add(1)
			continue
		}
		if sock != s.sock || s.n == sendSlots || s.iov+2 > maxIov {
			s.flush()
			s.sock = sock
		}
		if p.Segment > 0 && p.Segment < len(p.Buf) {
			s.addTrain(p)
		} else if !s.extend(p) {
			s.add(p)
		}
	}
	s.flush()
	n, err := s.sent, s.err
	s.sock = nil
	c.senders.Put(s)
	c.stats.sent.Add(uint64(n))
	return n, err
}

// socketFor chooses the socket that a packet leaves by.
func (c *linuxConn) socketFor(p *Packet) (*socket, error) {
	r := rolePlain
	switch {
	case p.Kind < IKE || p.Kind > Keepalive:
		return nil, ErrKind
	case p.Encap:
		r = roleEncap
	case p.Kind == ESP:
		r = roleRaw
	}
	if !p.Remote.IsValid() {
		return nil, ErrNoRoute
	}
	v6 := p.Remote.Addr().Is6()
	s := c.out[family(v6)][r][index(p.DF)]
	if s == nil {
		return nil, ErrNoSocket
	}
	if w := int(p.Worker); r == roleEncap && p.Kind == ESP && w < len(c.encap[family(v6)]) {
		s = c.encap[family(v6)][w][index(p.DF)]
		if p.Own && w < len(c.own[family(v6)]) {
			s = c.own[family(v6)][w][index(p.DF)]
		}
	}
	return s, nil
}

// add starts a message with p.
func (s *sender) add(p *Packet) {
	m := &s.msgs[s.n]
	*m = mmsghdr{}
	h := &m.hdr
	h.Name = (*byte)(unsafe.Pointer(&s.names[s.n]))
	h.Namelen = s.putName(&s.names[s.n], p)
	if n := s.putControl(s.ctrl[s.n][:0], p); n > 0 {
		h.Control = &s.ctrl[s.n][0]
		h.SetControllen(n)
	}
	t := &s.train[s.n]
	*t = train{first: p, packets: 1, bytes: len(p.Buf), size: len(p.Buf), last: len(p.Buf), iov: s.iov}
	switch {
	case p.Kind == Keepalive:
		s.addIov(keepalive[:])
	case p.Kind == IKE && p.Encap:
		s.addIov(marker[:])
		s.addIov(p.Buf)
	case s.sock.ttl != 0:
		s.addIov(s.putHeader(&s.heads[s.n], p))
		s.addIov(p.Buf)
	default:
		s.addIov(p.Buf)
	}
	h.Iov = &s.iovs[t.iov]
	h.SetIovlen(s.iov - t.iov)
	s.n++
}

// addTrain starts a message with the packets of p, or as many messages as they need.
func (s *sender) addTrain(p *Packet) {
	n := (len(p.Buf) + p.Segment - 1) / p.Segment
	if !s.sock.gso || n > MaxSegments() || s.conn.noGSO.has(p.Remote, p.Segment) {
		for at := 0; at < len(p.Buf); at += p.Segment {
			if s.n == sendSlots || s.iov+2 > maxIov {
				sock := s.sock
				s.flush()
				s.sock = sock
			}
			s.part = *p
			s.part.Buf, s.part.Segment = p.Buf[at:min(at+p.Segment, len(p.Buf))], 0
			s.add(&s.part)
			s.train[s.n-1].first = p // the same but for Buf
		}
		return
	}
	s.add(p)
	t := &s.train[s.n-1]
	t.packets, t.size, t.last = n, p.Segment, len(p.Buf)-(n-1)*p.Segment
	s.addSegment(s.n-1, p.Segment)
}

func (s *sender) addIov(b []byte) {
	v := &s.iovs[s.iov]
	v.Base = unsafe.SliceData(b)
	v.SetLen(len(b))
	s.iov++
}

// extend appends p to the last message as a further UDP_SEGMENT segment, if
// the two may travel together: all segments are as long as the first, but for
// the last one, and everything outside the payload is equal.
func (s *sender) extend(p *Packet) bool {
	if s.n == 0 || !s.sock.gso || p.Kind != ESP {
		return false
	}
	t := &s.train[s.n-1]
	f := t.first
	if f.Kind != ESP || t.packets == MaxSegments() || t.last != t.size ||
		len(p.Buf) > t.size || len(p.Buf) == 0 || t.bytes+len(p.Buf) > MaxTrain ||
		p.TOS != f.TOS || p.Remote != f.Remote || p.Local != f.Local || p.IfIndex != f.IfIndex {
		return false
	}
	if t.packets == 1 {
		if s.conn.noGSO.has(p.Remote, t.size) {
			return false
		}
		s.addSegment(s.n-1, t.size)
	}
	s.addIov(p.Buf)
	s.msgs[s.n-1].hdr.SetIovlen(s.iov - t.iov)
	t.packets++
	t.bytes += len(p.Buf)
	t.last = len(p.Buf)
	return true
}

// addSegment appends the UDP_SEGMENT control message to message i.
func (s *sender) addSegment(i, size int) {
	h := &s.msgs[i].hdr
	c := s.ctrl[i][:int(h.Controllen)]
	c = appendControl(c, unix.SOL_UDP, unix.UDP_SEGMENT, 2)
	binary.NativeEndian.PutUint16(c[int(h.Controllen)+unix.SizeofCmsghdr:], uint16(size))
	h.Control = &s.ctrl[i][0]
	h.SetControllen(len(c))
}

func (s *sender) putName(sa *unix.RawSockaddrInet6, p *Packet) uint32 {
	port := p.Remote.Port()
	if s.sock.role == roleRaw {
		port = 0 // raw sockets take a port for a protocol number
	}
	if a := p.Remote.Addr(); a.Is4() {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		*v4 = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: ntohs(port), Addr: a.As4()}
		return unix.SizeofSockaddrInet4
	}
	*sa = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: ntohs(port), Addr: p.Remote.Addr().As16()}
	if p.Remote.Addr().IsLinkLocalUnicast() {
		sa.Scope_id = p.IfIndex
	}
	return unix.SizeofSockaddrInet6
}

// putControl builds source address and traffic class; c has the capacity.
func (s *sender) putControl(c []byte, p *Packet) int {
	local := p.Local.Addr()
	if local.IsValid() && !local.IsUnspecified() {
		// The interface is left to the routes, except where the address does
		// not tell it.
		if s.sock.v6 {
			at := len(c)
			c = appendControl(c, unix.SOL_IPV6, unix.IPV6_PKTINFO, 20)
			b := c[at+unix.SizeofCmsghdr:]
			a := local.As16()
			copy(b, a[:])
			var ifIndex uint32
			if local.IsLinkLocalUnicast() || p.Remote.Addr().IsLinkLocalUnicast() {
				ifIndex = p.IfIndex
			}
			binary.NativeEndian.PutUint32(b[16:], ifIndex)
		} else if local.Is4() {
			at := len(c)
			c = appendControl(c, unix.SOL_IP, unix.IP_PKTINFO, 12)
			b := c[at+unix.SizeofCmsghdr:]
			a := local.As4()
			clear(b[:12])
			copy(b[4:], a[:]) // ipi_spec_dst
		}
	}
	if p.TOS != 0 {
		level, typ := int32(unix.SOL_IP), int32(unix.IP_TOS)
		if s.sock.v6 {
			level, typ = unix.SOL_IPV6, unix.IPV6_TCLASS
		}
		at := len(c)
		c = appendControl(c, level, typ, 4)
		binary.NativeEndian.PutUint32(c[at+unix.SizeofCmsghdr:], uint32(p.TOS))
	}
	return len(c)
}

// appendControl appends a control message's header and room for its body.
func appendControl(c []byte, level, typ int32, size int) []byte {
	at := len(c)
	c = c[:at+cmsgAlign(unix.SizeofCmsghdr+size)]
	h := (*unix.Cmsghdr)(unsafe.Pointer(&c[at]))
	h.Level, h.Type = level, typ
	h.SetLen(unix.SizeofCmsghdr + size)
	return c
}

// flush sends what was built and forgets it.
func (s *sender) flush() {
	if s.n > 0 {
		s.done, s.tries = 0, 0
		s.transmit()
		clear(s.iovs[:s.iov]) // don't hold on to the caller's buffers
		clear(s.train[:s.n])
	}
	s.n, s.iov = 0, 0
}

// transmit sends what was built. While the socket's buffer is full it waits, up to
// sendWait a WriteBatch, or up to espWait where it is ESP that waits: its sender has
// another direction to serve, and what a slow link has no room for is to be dropped, as
// any router does, so that those who sent it learn of it.
func (s *sender) transmit() {
	fd := s.sock.fd
	for s.done < s.n {
		n, _, e := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&s.msgs[s.done])),
			uintptr(s.n-s.done), unix.MSG_DONTWAIT, 0, 0)
		switch {
		case e == unix.EINTR:
		case e == unix.EAGAIN:
			ready, err := s.conn.await(fd, unix.POLLOUT, s.patience(), &s.poll)
			if err != nil {
				s.err = err
				return
			}
			if !ready {
				s.count(e, s.train[s.done].packets)
				s.done++
			}
		case e == unix.EBADF || e == unix.ENOTSOCK:
			s.err = s.conn.closedOr(e)
			return
		case e != 0:
			s.failed(fd, e)
		default:
			for range int(n) {
				s.success()
			}
		}
	}
}

// patience is how many milliseconds this WriteBatch may still wait.
func (s *sender) patience() int {
	if s.until.IsZero() {
		wait := sendWait
		if s.train[s.done].first.Kind == ESP {
			wait = espWait
		}
		s.until = time.Now().Add(time.Duration(wait) * time.Millisecond)
		return wait
	}
	return int(max(time.Until(s.until), 0) / time.Millisecond)
}

func (s *sender) success() {
	t := &s.train[s.done]
	s.sent += t.packets
	if t.packets > 1 {
		s.conn.stats.sentTrains.Add(1)
	}
	s.done++
	s.tries = 0
}

// failed deals with an error of message done: try again, since it may be an
// old ICMP error; take a train apart; or count and go on.
func (s *sender) failed(fd int, e unix.Errno) {
	s.sock.drainErrors(fd)
	if s.tries++; s.tries < maxTries && (s.tries == 1 || e != s.last) {
		s.last = e
		return
	}
	t := &s.train[s.done]
	if t.packets > 1 && (e == unix.EIO || e == unix.EINVAL || e == unix.EMSGSIZE) {
		switch e {
		case unix.EIO: // no checksum offload on the way, or xfrm policies
			s.conn.giveUpGSO(t.first.Remote, 1)
		case unix.EINVAL: // segments above the route's MTU, which are to be fragmented
			s.conn.giveUpGSO(t.first.Remote, t.size)
		case unix.EMSGSIZE: // what newer kernels say of that; with DF it is about these packets
			if !s.sock.df {
				s.conn.giveUpGSO(t.first.Remote, t.size)
			}
		}
		s.single(fd)
	} else {
		s.count(e, t.packets)
	}
	s.done++
	s.tries = 0
}

// single sends the packets of train number done one by one.
func (s *sender) single(fd int) {
	t := &s.train[s.done]
	h := &s.msgs[s.done].hdr
	// Without UDP_SEGMENT, the last of the control messages.
	h.SetControllen(int(h.Controllen) - cmsgAlign(unix.SizeofCmsghdr+2))
	if h.Controllen == 0 {
		h.Control = nil
	}
	// Each vector holds one packet or, where they came as a train, several.
	left := s.iovs[t.iov : t.iov+int(h.Iovlen)]
	h.Iov = &s.one
	h.SetIovlen(1)
	for i := range t.packets {
		size := t.size
		if i == t.packets-1 {
			size = t.last
		}
		s.one.Base = left[0].Base
		s.one.SetLen(size)
		if rest := int(left[0].Len) - size; rest > 0 {
			left[0].Base = (*byte)(unsafe.Add(unsafe.Pointer(left[0].Base), size))
			left[0].SetLen(rest)
		} else {
			left = left[1:]
		}
		for tries := 0; ; {
			_, _, e := unix.RawSyscall6(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(h)), unix.MSG_DONTWAIT, 0, 0, 0)
			if e == unix.EINTR {
				continue
			}
			if e == 0 {
				s.sent++
				break
			}
			if tries++; tries == maxTries || e == unix.EAGAIN {
				s.count(e, 1)
				break
			}
			s.sock.drainErrors(fd)
		}
	}
}

// count books a refusal by cause.
func (s *sender) count(e unix.Errno, packets int) {
	st := &s.conn.stats
	c := &st.other
	s.err = e
	switch e {
	case unix.EMSGSIZE:
		c = &st.tooBig
		s.err = ErrTooBig
	case unix.ENETUNREACH, unix.EHOSTUNREACH, unix.ENETDOWN, unix.EADDRNOTAVAIL:
		c = &st.unreachable
	case unix.ECONNREFUSED, unix.EPERM, unix.EACCES:
		c = &st.refused
	case unix.ENOBUFS, unix.ENOMEM, unix.EAGAIN:
		c = &st.noBuff
	}
	c.Add(uint64(packets))
}

// giveUpGSO does without UDP_SEGMENT for a destination and segments of size
// bytes and more.
func (c *linuxConn) giveUpGSO(a netip.AddrPort, size int) {
	c.noGSO.add(a, size)
	c.stats.segmentFallback.Add(1)
}

// destinations remembers, for a while and a bounded number of remote addresses,
// from which segment size on UDP_SEGMENT failed.
type destinations struct {
	n  atomic.Int32 // zero: no need to lock
	mu sync.Mutex
	m  map[netip.AddrPort]noSegment
}

type noSegment struct {
	size  int
	until time.Time // routes change: then it is tried again
}

func (d *destinations) has(a netip.AddrPort, size int) bool {
	if d.n.Load() == 0 {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	e, ok := d.m[a]
	if ok && time.Now().After(e.until) {
		delete(d.m, a)
		d.n.Store(int32(len(d.m)))
		return false
	}
	return ok && size >= e.size
}

func (d *destinations) add(a netip.AddrPort, size int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.m == nil || len(d.m) >= maxNoSegment {
		d.m = make(map[netip.AddrPort]noSegment)
	}
	if e, ok := d.m[a]; ok {
		size = min(size, e.size)
	}
	d.m[a] = noSegment{size: size, until: time.Now().Add(noSegmentFor)}
	d.n.Store(int32(len(d.m)))
}

// disconnect takes away the peer of a UDP socket.
func disconnect(fd int) error {
	sa := unix.RawSockaddr{Family: unix.AF_UNSPEC}
	_, _, e := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&sa)), unix.SizeofSockaddrInet4)
	if e != 0 {
		return e
	}
	return nil
}

//go:build linux

package conn

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mmsghdr is struct mmsghdr of recvmmsg(2) and sendmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
	_   [4]byte
}

// controlLen is room for the control messages that we ask for: packet info
// (up to 40 bytes with its header), TOS or traffic class (24), UDP_GRO (24).
const controlLen = 128

// socketReader is a Reader over one socket. What the kernel reads and writes
// lies in fields on the heap: a stack can move under a system call.
type socketReader struct {
	sock  *socket
	arena []byte // readSlots times maxDatagram+1
	msgs  [readSlots]mmsghdr
	iovs  [readSlots]unix.Iovec
	names [readSlots]unix.RawSockaddrInet6
	ctrl  [readSlots][controlLen]byte

	got  int // messages of the last call
	cur  int // the one being handed out
	pos  int // where its next segment starts
	meta message
	mean int // bytes of a message of the last call, about

	drained bool // the last call left nothing behind
	poll    [2]unix.PollFd
}

var _ Polled = (*socketReader)(nil)

// message is what the control messages and the address of a message said.
type message struct {
	buf           []byte
	segment       int // bytes of a segment; 0: one datagram
	local, remote netip.AddrPort
	ifIndex       uint32
	tos           uint8
}

const slotLen = maxDatagram + 1

func newReader(s *socket) *socketReader {
	r := &socketReader{sock: s, arena: make([]byte, readSlots*slotLen)}
	for i := range r.msgs {
		r.iovs[i].Base = &r.arena[i*slotLen]
		r.iovs[i].SetLen(slotLen)
		h := &r.msgs[i].hdr
		h.Iov = &r.iovs[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&r.names[i]))
		h.Control = &r.ctrl[i][0]
	}
	return r
}

// ReadBatch implements Reader.
func (r *socketReader) ReadBatch(pkts []Packet) (int, error) {
	if len(pkts) == 0 {
		return 0, nil
	}
	c := r.sock.conn
	c.inUse.RLock()
	defer c.inUse.RUnlock()
	for {
		if c.closed.Load() {
			return 0, ErrClosed
		}
		n, err := r.next(pkts, false)
		if n > 0 || err != nil {
			return n, err
		}
		if r.cur < r.got {
			continue // all that was looked at was dropped
		}
		if _, err := c.await(r.sock.fd, unix.POLLIN, -1, &r.poll); err != nil {
			return 0, err
		}
		if r.poll[0].Revents&unix.POLLERR != 0 {
			r.Errors()
		}
	}
}

// FD implements Polled.
func (r *socketReader) FD() int { return r.sock.fd }

// Errors implements Polled.
func (r *socketReader) Errors() { r.sock.clearErrors() }

// Worker implements Polled.
func (r *socketReader) Worker() int { return r.sock.worker }

// Drained implements Polled.
func (r *socketReader) Drained() bool { return r.drained && r.cur == r.got }

// Take implements Polled.
func (r *socketReader) Take(pkts []Packet) (int, error) { return r.next(pkts, true) }

// next fills pkts from the messages of the last call, or those of a new one. trains
// says whether ESP packets that came together are one Packet.
func (r *socketReader) next(pkts []Packet, trains bool) (int, error) {
	if r.cur == r.got {
		if err := r.receive(len(pkts)); err != nil || r.got == 0 {
			return 0, err
		}
	}
	n := r.handOut(pkts, trains)
	return n, nil
}

// largeMessage is the size in bytes from which on few messages are taken at a time,
// so that a call stays short.
const largeMessage, fewSlots = 8 << 10, 6

// receive is one system call, which never waits.
func (r *socketReader) receive(most int) error {
	vlen := min(readSlots, most)
	if r.mean >= largeMessage {
		vlen = min(fewSlots, most)
	}
	for i := range vlen {
		h := &r.msgs[i].hdr
		h.Namelen = unix.SizeofSockaddrInet6
		h.SetControllen(controlLen)
		h.Flags = 0
	}
	r.got, r.cur, r.pos, r.drained = 0, 0, 0, true
	for range maxReports {
		n, _, e := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(r.sock.fd), uintptr(unsafe.Pointer(&r.msgs[0])),
			uintptr(vlen), unix.MSG_DONTWAIT, 0, 0)
		switch e {
		case 0:
			r.got = int(n)
			r.drained = r.got < vlen
			sum := 0
			for i := range r.got {
				sum += int(r.msgs[i].n)
			}
			r.mean = sum / max(r.got, 1)
			return nil
		case unix.EINTR:
		case unix.EAGAIN:
			return nil
		case unix.EBADF, unix.ENOTSOCK, unix.EFAULT, unix.EINVAL:
			return r.sock.conn.closedOr(fmt.Errorf("conn: receive: %w", e))
		default:
			// ICMP errors about what we sent, and passing shortages.
			r.sock.drainErrors(r.sock.fd)
		}
	}
	return nil
}

// handOut fills pkts from the messages of the last call.
func (r *socketReader) handOut(pkts []Packet, trains bool) (n int) {
	stats := &r.sock.conn.stats
	datagrams := 0
	for n < len(pkts) && r.cur < r.got {
		if r.pos == 0 {
			if !r.open(r.cur) {
				r.cur++
				continue
			}
			if r.meta.segment > 0 && r.meta.segment < len(r.meta.buf) {
				stats.receivedTrains.Add(1)
			}
		}
		p := &pkts[n]
		*p = Packet{Local: r.meta.local, Remote: r.meta.remote, IfIndex: r.meta.ifIndex, TOS: r.meta.tos}
		if k := r.segment(p, trains); k > 0 {
			datagrams += k
			n++
		} else {
			stats.malformed.Add(1)
		}
		if r.pos == len(r.meta.buf) {
			r.pos = 0
			r.cur++
		}
	}
	stats.received.Add(uint64(datagrams))
	return n
}

// segment makes p of the message's next segment, or, with trains, of as many as are
// ESP packets in a row. It returns their number, 0 for what is malformed.
func (r *socketReader) segment(p *Packet, trains bool) (n int) {
	m := &r.meta
	first := r.pos
	for r.pos < len(m.buf) {
		end := len(m.buf)
		if m.segment > 0 {
			end = min(end, r.pos+m.segment)
		}
		payload := m.buf[r.pos:end:end]
		if r.sock.role == roleRaw {
			r.pos = end
			p.Kind, p.Buf = ESP, payload
			if len(payload) < minESP {
				return 0
			}
			return 1
		}
		encap := r.sock.role == roleEncap
		kind, body, ok := Demux(payload, encap)
		if n > 0 && (!ok || kind != ESP) {
			break // it is looked at again
		}
		r.pos = end
		if !ok {
			return 0
		}
		p.Kind, p.Buf, p.Encap = kind, body, encap
		n++
		if !trains || kind != ESP {
			return n
		}
	}
	if n > 1 {
		p.Buf, p.Segment = m.buf[first:r.pos:r.pos], m.segment
	}
	return n
}

// open decodes addresses and control messages of message i into meta. It is
// false for what is to be dropped.
func (r *socketReader) open(i int) bool {
	stats := &r.sock.conn.stats
	msg := &r.msgs[i]
	m := &r.meta
	*m = message{}
	if msg.hdr.Flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		stats.truncated.Add(1)
		return false
	}
	base := i * slotLen
	m.buf = r.arena[base : base+int(msg.n) : base+int(msg.n)]
	if len(m.buf) == 0 {
		stats.malformed.Add(1)
		return false
	}
	m.remote = addrPort(&r.names[i])
	local := parseControl(r.ctrl[i][:min(int(msg.hdr.Controllen), controlLen)], m)
	if r.sock.role != roleRaw {
		m.local = netip.AddrPortFrom(local, r.sock.port)
	} else {
		m.local = netip.AddrPortFrom(local, 0)
		m.remote = netip.AddrPortFrom(m.remote.Addr(), 0)
		if !r.sock.v6 && !m.stripIPv4() {
			stats.malformed.Add(1)
			return false
		}
	}
	if !local.IsValid() || local.IsMulticast() || local == broadcast {
		stats.malformed.Add(1)
		return false
	}
	return true
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// addrPort decodes a socket address of either family.
func addrPort(sa *unix.RawSockaddrInet6) netip.AddrPort {
	switch sa.Family {
	case unix.AF_INET:
		a := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), ntohs(a.Port))
	case unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), ntohs(sa.Port))
	}
	return netip.AddrPort{}
}

func ntohs(v uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], v)
	return binary.BigEndian.Uint16(b[:])
}

// parseControl walks the control messages of a received datagram and returns
// the address it was sent to.
func parseControl(b []byte, m *message) (local netip.Addr) {
	for len(b) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
		length := int(h.Len)
		if length < unix.SizeofCmsghdr || length > len(b) {
			return local
		}
		body := b[unix.SizeofCmsghdr:length]
		switch {
		case h.Level == unix.SOL_IP && h.Type == unix.IP_PKTINFO && len(body) >= 12:
			// ifindex, the address to answer from, the address in the header
			m.ifIndex = binary.NativeEndian.Uint32(body)
			local = netip.AddrFrom4([4]byte(body[8:12]))
		case h.Level == unix.SOL_IPV6 && h.Type == unix.IPV6_PKTINFO && len(body) >= 20:
			local = netip.AddrFrom16([16]byte(body[:16])).Unmap()
			m.ifIndex = binary.NativeEndian.Uint32(body[16:])
		case h.Level == unix.SOL_IP && h.Type == unix.IP_TOS && len(body) >= 1:
			m.tos = body[0]
		case h.Level == unix.SOL_IPV6 && h.Type == unix.IPV6_TCLASS && len(body) >= 4:
			m.tos = uint8(binary.NativeEndian.Uint32(body))
		case h.Level == unix.SOL_UDP && h.Type == unix.UDP_GRO && len(body) >= 4:
			if v := int32(binary.NativeEndian.Uint32(body)); v > 0 {
				m.segment = int(v)
			}
		}
		b = b[min(cmsgAlign(length), len(b)):]
	}
	return local
}

func cmsgAlign(n int) int {
	const a = int(unsafe.Sizeof(uintptr(0)))
	return (n + a - 1) &^ (a - 1)
}

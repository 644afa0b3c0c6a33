//go:build linux

package conn

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Raw ESP leaves by two sockets for each family. The one that receives sends what may
// be fragmented; the kernel makes the header. What has DF set, nearly everything, leaves by
// a socket of protocol 255 (IPPROTO_RAW, raw(7)), for which the header is made here:
// that takes a tenth off what a packet costs the kernel, and a second socket of
// protocol 50 would get, for the sake of a filter that drops it, a copy of each packet
// that comes in. Routes, rules and the packet filter treat both alike: source address and
// traffic class are given as control messages, too.

const ipv4Len, ipv6Len, protoESP = 20, 40, 50

// openRaw opens a raw ESP socket, or its send-only twin, which takes nothing in.
func (c *linuxConn) openRaw(v6, df bool) error {
	s, err := c.newSocket(v6, roleRaw, df, 0)
	if err != nil || !df {
		return err
	}
	level, name := unix.SOL_IP, unix.IP_TTL
	if v6 {
		level, name = unix.SOL_IPV6, unix.IPV6_UNICAST_HOPS
	}
	n, err := unix.GetsockoptInt(s.fd, level, name) // the default of this namespace
	if err != nil || n < 1 || n > 255 {
		return fmt.Errorf("conn: default TTL: %d, %w", n, err)
	}
	s.ttl = uint8(n)
	return attach(s.fd, unix.SO_ATTACH_FILTER, zero)
}

// putHeader makes the IP header of a packet with DF into h. What it leaves at zero, the
// kernel fills in: of IPv4 the length, identification, checksum and, if there is none yet, the
// source address.
func (s *sender) putHeader(h *[ipv6Len]byte, p *Packet) []byte {
	local, remote := p.Local.Addr(), p.Remote.Addr()
	if remote.Is4() {
		b := h[:ipv4Len]
		clear(b)
		b[0], b[1], b[6], b[8], b[9] = 0x45, p.TOS, 0x40, s.sock.ttl, protoESP
		if local.Is4() {
			*(*[4]byte)(b[12:]) = local.As4()
		}
		*(*[4]byte)(b[16:]) = remote.As4()
		return b
	}
	if !local.Is6() || local.IsUnspecified() {
		// Nobody fills it in. A Child SA always has one, so this is rare.
		var err error
		if local, err = s.conn.SourceFor(remote); err != nil {
			local = netip.IPv6Unspecified()
		}
	}
	b := h[:ipv6Len]
	b[0], b[1], b[2], b[3] = 0x60|p.TOS>>4, p.TOS<<4, 0, 0
	binary.BigEndian.PutUint16(b[4:], uint16(len(p.Buf)))
	b[6], b[7] = protoESP, s.sock.ttl
	*(*[16]byte)(b[8:]) = local.As16()
	*(*[16]byte)(b[24:]) = remote.As16()
	return b
}

// stripIPv4 takes off the IP header that raw IPv4 sockets deliver, and reads the traffic
// class in it.
func (m *message) stripIPv4() bool {
	if len(m.buf) < ipv4Len || m.buf[0]>>4 != 4 {
		return false
	}
	ihl := int(m.buf[0]&15) * 4
	if ihl < ipv4Len || ihl >= len(m.buf) {
		return false
	}
	m.tos = m.buf[1]
	m.buf = m.buf[ihl:]
	return true
}

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

// maxRaw is the number of raw sockets that receive, for each family. The kernel gives each
// of them a copy of the packet's head before it asks the filter, so that one more costs every
// packet something (BenchmarkRawWorkers): workers beyond it leave raw ESP to the first.
const maxRaw = 4

// openRaw opens the sockets for raw ESP of a family: one that receives for each worker, the
// first of which also sends, and the send-only twin, which takes nothing in.
func (c *linuxConn) openRaw(v6 bool) error {
	for w := range min(c.opts.Workers, maxRaw) {
		s, err := c.newSocket(v6, roleRaw, false, w)
		if err != nil {
			return err
		}
		if c.opts.Workers > 1 {
			if err := attach(s.fd, unix.SO_ATTACH_FILTER, onlySPI(v6, w, c.opts.Workers)); err != nil {
				return err
			}
		}
	}
	s, err := c.newSocket(v6, roleRaw, true, 0)
	if err != nil {
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

// onlySPI is a filter that keeps the packets of a worker (WorkerOf), and for the first one
// those of workers without a raw socket. A raw IPv4 socket sees the IP header first, one
// of IPv6 does not. What is too short to have an SPI is nobody's.
func onlySPI(v6 bool, worker, workers int) []unix.SockFilter {
	load := []unix.SockFilter{
		{Code: unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_IND},
	}
	if v6 {
		load = []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}}
	}
	rest := uint32(workers) // never reached
	if worker == 0 {
		rest = maxRaw
	}
	return append(load,
		unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_MOD | unix.BPF_K, K: uint32(workers)},
		unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(worker), Jt: 1},
		unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, K: rest, Jf: 1},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 1<<32 - 1},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K})
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

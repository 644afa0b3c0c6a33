package tun

import (
	"encoding/binary"
	"errors"
)

// vnetHdrLen is the size of struct virtio_net_hdr (linux/virtio_net.h), which
// precedes every packet of a TUN device with IFF_VNET_HDR:
//
//	flags u8 | gso_type u8 | hdr_len u16 | gso_size u16 | csum_start u16 | csum_offset u16
//
// in the machine's byte order.
const vnetHdrLen = 10

const (
	vnetNeedsCsum = 1 // flags: the transport checksum holds only the pseudo header's part

	gsoNone  = 0
	gsoTCPv4 = 1
	gsoTCPv6 = 4
	gsoUDPL4 = 5
	gsoECN   = 0x80 // bit beside the type: the first segment may carry CWR
)

const (
	protoTCP = 6
	protoUDP = 17

	tcpFIN = 0x01
	tcpSYN = 0x02
	tcpRST = 0x04
	tcpPSH = 0x08
	tcpACK = 0x10
	tcpURG = 0x20
	tcpCWR = 0x80

	ipv4Len = 20
	ipv6Len = 40
	tcpLen  = 20
	udpLen  = 8
)

var errSuper = errors.New("tun: superpacket contradicts its header")

// vnetHdr is a decoded virtio_net_hdr. hdr_len is left out on reading: it is a
// hint of the kernel's that isn't always right.
type vnetHdr struct {
	flags, gsoType                         uint8
	hdrLen, gsoSize, csumStart, csumOffset uint16
}

func (h *vnetHdr) parse(b []byte) {
	h.flags, h.gsoType = b[0], b[1]
	h.hdrLen = binary.NativeEndian.Uint16(b[2:])
	h.gsoSize = binary.NativeEndian.Uint16(b[4:])
	h.csumStart = binary.NativeEndian.Uint16(b[6:])
	h.csumOffset = binary.NativeEndian.Uint16(b[8:])
}

func (h *vnetHdr) put(b []byte) {
	b[0], b[1] = h.flags, h.gsoType
	binary.NativeEndian.PutUint16(b[2:], h.hdrLen)
	binary.NativeEndian.PutUint16(b[4:], h.gsoSize)
	binary.NativeEndian.PutUint16(b[6:], h.csumStart)
	binary.NativeEndian.PutUint16(b[8:], h.csumOffset)
}

// splitter turns one packet of the kernel, with its virtio header, into
// packets that can go on a wire: a plain packet gets its checksum completed, a
// superpacket is cut into segments of gso_size bytes. The packet's memory must
// stay until the last segment was taken.
type splitter struct {
	pkt     []byte // the packet, or nil when all was taken
	hdrLen  int    // bytes of IP and transport header; 0: not a superpacket
	l4      int    // offset of the transport header
	mss     int    // payload bytes a segment
	pos     int    // offset of the next segment's payload
	udp, v6 bool
	cksum   uint64 // pseudo header without the length
}

// start takes up a packet. On error nothing is to be taken.
func (s *splitter) start(h *vnetHdr, pkt []byte) error {
	*s = splitter{}
	if h.gsoType&^gsoECN == gsoNone {
		if h.flags&vnetNeedsCsum != 0 {
			if err := completeChecksum(pkt, int(h.csumStart), int(h.csumOffset)); err != nil {
				return err
			}
		}
		if len(pkt) == 0 {
			return errSuper
		}
		s.pkt = pkt
		return nil
	}
	return s.startSuper(h, pkt)
}

func (s *splitter) startSuper(h *vnetHdr, pkt []byte) error {
	l4 := int(h.csumStart)
	if len(pkt) < ipv4Len || h.gsoSize == 0 || h.flags&vnetNeedsCsum == 0 {
		return errSuper
	}
	var addrs []byte
	switch pkt[0] >> 4 {
	case 4:
		if l4 != int(pkt[0]&15)*4 || l4 < ipv4Len || len(pkt) < l4 {
			return errSuper
		}
		addrs = pkt[12:20]
	case 6:
		// Extension headers may lie between: the kernel says where they end.
		if l4 < ipv6Len || len(pkt) < l4 {
			return errSuper
		}
		s.v6 = true
		addrs = pkt[8:40]
	default:
		return errSuper
	}
	proto := uint8(protoTCP)
	switch t := h.gsoType &^ gsoECN; {
	case t == gsoTCPv4 && !s.v6, t == gsoTCPv6 && s.v6:
		if len(pkt) < l4+tcpLen {
			return errSuper
		}
		doff := int(pkt[l4+12]>>4) * 4
		if doff < tcpLen || len(pkt) < l4+doff {
			return errSuper
		}
		s.hdrLen = l4 + doff
	case t == gsoUDPL4:
		proto, s.udp = protoUDP, true
		s.hdrLen = l4 + udpLen
	default:
		return errSuper
	}
	if len(pkt) <= s.hdrLen {
		return errSuper
	}
	s.pkt, s.l4, s.mss, s.pos = pkt, l4, int(h.gsoSize), s.hdrLen
	s.cksum = pseudo(addrs, proto)
	return nil
}

// more says whether there is something left to take.
func (s *splitter) more() bool { return s.pkt != nil }

// next puts the next packet into dst and returns its length. When dst is too
// small the packet is skipped and the error is ErrTooShort.
func (s *splitter) next(dst []byte) (int, error) {
	if s.hdrLen == 0 {
		pkt := s.pkt
		s.pkt = nil
		if len(dst) < len(pkt) {
			return 0, ErrTooShort
		}
		return copy(dst, pkt), nil
	}
	first := s.pos == s.hdrLen
	start := s.pos
	end := min(start+s.mss, len(s.pkt))
	index := (start - s.hdrLen) / s.mss
	last := end == len(s.pkt)
	pkt := s.pkt
	s.pos = end
	if last {
		s.pkt = nil
	}
	n := s.hdrLen + end - start
	if len(dst) < n {
		return 0, ErrTooShort
	}
	dst = dst[:n]
	copy(dst, pkt[:s.hdrLen])
	copy(dst[s.hdrLen:], pkt[start:end])
	s.fixIP(dst, index)
	l4 := dst[s.l4:]
	acc := s.cksum + uint64(len(l4))
	if s.udp {
		binary.BigEndian.PutUint16(l4[4:], uint16(len(l4)))
		l4[6], l4[7] = 0, 0
		c := ^fold(sum(l4, acc))
		if c == 0 {
			c = 0xffff // RFC 768: a sum of zero is sent as all ones
		}
		binary.BigEndian.PutUint16(l4[6:], c)
		return n, nil
	}
	seq := binary.BigEndian.Uint32(l4[4:]) + uint32(start-s.hdrLen)
	binary.BigEndian.PutUint32(l4[4:], seq)
	if !first {
		l4[13] &^= tcpCWR // RFC 3168 §6.1.2: one CWR for one reduction
	}
	if !last {
		l4[13] &^= tcpFIN | tcpPSH
	}
	l4[16], l4[17] = 0, 0
	binary.BigEndian.PutUint16(l4[16:], ^fold(sum(l4, acc)))
	return n, nil
}

// fixIP sets what differs in the IP header of segment number index.
func (s *splitter) fixIP(dst []byte, index int) {
	if s.v6 {
		binary.BigEndian.PutUint16(dst[4:], uint16(len(dst)-ipv6Len))
		return
	}
	binary.BigEndian.PutUint16(dst[2:], uint16(len(dst)))
	id := binary.BigEndian.Uint16(dst[4:]) + uint16(index)
	binary.BigEndian.PutUint16(dst[4:], id)
	dst[10], dst[11] = 0, 0
	binary.BigEndian.PutUint16(dst[10:], ^fold(sum(dst[:s.l4], 0)))
}

// completeChecksum does what the kernel left to the hardware: the field holds
// the pseudo header's sum, the sum over the rest from start on is to be added.
func completeChecksum(pkt []byte, start, offset int) error {
	at := start + offset
	if at+2 > len(pkt) {
		return errSuper
	}
	c := ^fold(sum(pkt[start:], 0))
	if c == 0 {
		c = 0xffff // the same number in ones' complement, and what UDP demands
	}
	binary.BigEndian.PutUint16(pkt[at:], c)
	return nil
}

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
	tcpPSH = 0x08
	tcpACK = 0x10
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

// Super is one packet of a device, or a superpacket: a train of one flow that has
// one header and waits to be cut into packets of at most Largest bytes. What comes
// out of it can go on a wire: checksums, lengths, identifications and flags are
// those of the single packets (RFC 9293, RFC 768, RFC 3168 §6.1.2).
type Super struct {
	// Packet is the packet as the kernel gave it, from the IP header on. It must
	// stay until the last packet was cut. The header of a train may be changed
	// before the first is.
	Packet []byte

	hdrLen  int // bytes of IP and transport header; 0: not a train
	l4      int // offset of the transport header
	mss     int // payload bytes a packet
	pos     int // offset of the next one's payload; 0: none was cut yet
	udp, v6 bool
	done    bool
	id      uint16 // of the next packet
	seq     uint32
	ipSum   uint64 // of the IP header but for length, identification and checksum
	l4Sum   uint64 // of pseudo and transport header but for length, sequence number, flags and checksum
}

// Whole is a packet that needs no cutting.
func Whole(packet []byte) Super { return Super{Packet: packet} }

// ParseSuper takes up what a device with a virtio header gives: the header, and the
// packet or superpacket behind it, whose checksum is completed in place.
func ParseSuper(b []byte) (s Super, err error) {
	if len(b) < vnetHdrLen {
		return Super{done: true}, errSuper
	}
	var h vnetHdr
	h.parse(b)
	err = s.start(&h, b[vnetHdrLen:])
	return s, err
}

// start takes up a packet with its virtio header. On error there is nothing in it.
func (s *Super) start(h *vnetHdr, pkt []byte) error {
	*s = Super{done: true}
	if h.gsoType&^gsoECN == gsoNone {
		if h.flags&vnetNeedsCsum != 0 {
			if err := completeChecksum(pkt, int(h.csumStart), int(h.csumOffset)); err != nil {
				return err
			}
		}
		if len(pkt) == 0 {
			return errSuper
		}
		*s = Whole(pkt)
		return nil
	}
	return s.startTrain(h, pkt)
}

func (s *Super) startTrain(h *vnetHdr, pkt []byte) error {
	l4 := int(h.csumStart)
	if len(pkt) < ipv4Len || h.gsoSize == 0 || h.flags&vnetNeedsCsum == 0 {
		return errSuper
	}
	v6 := false
	switch pkt[0] >> 4 {
	case 4:
		if l4 != int(pkt[0]&15)*4 || l4 < ipv4Len || len(pkt) < l4 {
			return errSuper
		}
	case 6:
		// Extension headers may lie between: the kernel says where they end.
		if l4 < ipv6Len || len(pkt) < l4 {
			return errSuper
		}
		v6 = true
	default:
		return errSuper
	}
	hdrLen := l4 + udpLen
	switch t := h.gsoType &^ gsoECN; {
	case t == gsoTCPv4 && !v6, t == gsoTCPv6 && v6:
		if len(pkt) < l4+tcpLen {
			return errSuper
		}
		doff := int(pkt[l4+12]>>4) * 4
		if doff < tcpLen || len(pkt) < l4+doff {
			return errSuper
		}
		hdrLen = l4 + doff
	case t == gsoUDPL4:
		s.udp = true
	default:
		return errSuper
	}
	if len(pkt) <= hdrLen {
		return errSuper
	}
	s.Packet, s.v6, s.hdrLen, s.l4, s.mss, s.done = pkt, v6, hdrLen, l4, int(h.gsoSize), false
	return nil
}

// Train reports whether there is something to cut.
func (s *Super) Train() bool { return s.hdrLen != 0 }

// Count is the number of packets that come out of an uncut one.
func (s *Super) Count() int {
	if s.hdrLen == 0 {
		return 1
	}
	return (len(s.Packet) - s.hdrLen + s.mss - 1) / s.mss
}

// Header is the length of what all packets of a train begin with, and where in it
// the transport header is.
func (s *Super) Header() (size, transport int) { return s.hdrLen, s.l4 }

// Largest is the size of the largest packet that comes out.
func (s *Super) Largest() int {
	if s.hdrLen == 0 {
		return len(s.Packet)
	}
	return min(s.hdrLen+s.mss, len(s.Packet))
}

// More says whether there is something left to take.
func (s *Super) More() bool { return !s.done }

// NextLen is the length of the packet that Next gives.
func (s *Super) NextLen() int {
	if s.hdrLen == 0 {
		return len(s.Packet)
	}
	return s.hdrLen + min(s.mss, len(s.Packet)-max(s.pos, s.hdrLen))
}

// Next puts the next packet into dst and returns its length. When dst is too
// small the packet is skipped and the error is ErrTooShort.
func (s *Super) Next(dst []byte) (int, error) {
	if s.hdrLen == 0 {
		s.done = true
		if len(dst) < len(s.Packet) {
			return 0, ErrTooShort
		}
		return copy(dst, s.Packet), nil
	}
	if s.pos == 0 {
		s.sumHeader()
	}
	first := s.pos == s.hdrLen
	start, end := s.pos, min(s.pos+s.mss, len(s.Packet))
	last := end == len(s.Packet)
	id, seq := s.id, s.seq
	s.pos, s.done = end, last
	s.id++
	s.seq += uint32(end - start)
	n := s.hdrLen + end - start
	if len(dst) < n {
		return 0, ErrTooShort
	}
	dst = dst[:n]
	copy(dst, s.Packet[:s.hdrLen])
	copy(dst[s.hdrLen:], s.Packet[start:end])
	if s.v6 {
		binary.BigEndian.PutUint16(dst[4:], uint16(n-ipv6Len))
	} else {
		binary.BigEndian.PutUint16(dst[2:], uint16(n))
		binary.BigEndian.PutUint16(dst[4:], id)
		binary.BigEndian.PutUint16(dst[10:], ^fold(s.ipSum+uint64(n)+uint64(id)))
	}
	l4 := dst[s.l4:]
	acc := s.l4Sum + uint64(len(l4))
	if s.udp {
		binary.BigEndian.PutUint16(l4[4:], uint16(len(l4)))
		c := ^fold(sum(l4[udpLen:], acc+uint64(len(l4))))
		if c == 0 {
			c = 0xffff // RFC 768: a sum of zero is sent as all ones
		}
		binary.BigEndian.PutUint16(l4[6:], c)
		return n, nil
	}
	binary.BigEndian.PutUint32(l4[4:], seq)
	if !first {
		l4[13] &^= tcpCWR // RFC 3168 §6.1.2: one CWR for one reduction
	}
	if !last {
		l4[13] &^= tcpFIN | tcpPSH
	}
	acc += uint64(seq) + uint64(l4[12])<<8 + uint64(l4[13])
	// The header is a multiple of four bytes long: the payload starts on an even place.
	binary.BigEndian.PutUint16(l4[16:], ^fold(sum(dst[s.hdrLen:], acc)))
	return n, nil
}

// sumHeader adds up what the packets of a train have in common.
func (s *Super) sumHeader() {
	p, l4 := s.Packet, s.Packet[s.l4:s.hdrLen]
	s.pos = s.hdrLen
	proto := uint8(protoTCP)
	if s.udp {
		proto = protoUDP
	}
	var addrs []byte
	if s.v6 {
		addrs = p[8:40]
	} else {
		addrs = p[12:20]
		s.id = binary.BigEndian.Uint16(p[4:])
		s.ipSum = sum(p[12:s.l4], uint64(binary.BigEndian.Uint16(p))+uint64(binary.BigEndian.Uint32(p[6:])))
	}
	s.l4Sum = pseudo(addrs, proto) + uint64(binary.BigEndian.Uint32(l4)) // the ports
	if s.udp {
		return
	}
	s.seq = binary.BigEndian.Uint32(l4[4:])
	s.l4Sum += uint64(binary.BigEndian.Uint32(l4[8:])) + uint64(binary.BigEndian.Uint16(l4[14:]))
	s.l4Sum = sum(l4[18:], s.l4Sum) // urgent pointer and options
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

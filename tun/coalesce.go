package tun

import (
	"bytes"
	"encoding/binary"
)

const (
	// maxTrain is the number of packets that one superpacket is made of at most, and
	// oldTrain what kernels before 6.10 take of UDP.
	maxTrain, oldTrain = 128, 64
	// maxTrains is the number of flows joined side by side in one Write.
	maxTrains = 8
)

// coalescer joins packets of one Write to superpackets, the way back from what
// Super does: the kernel then handles one large packet instead of forty. Only
// what Super would cut into the same packets again is joined, so nobody can
// tell afterwards: equal addresses, ports, traffic class with ECN, hop limit,
// DF, TCP options and acknowledgement, consecutive numbers, right checksums.
type coalescer struct {
	trains [maxTrains]train // those that may still grow
	n      int
	most   int // packets of a train
}

// train is a run of packets of one flow, in order.
type train struct {
	pkts  [maxTrain][]byte
	n     int
	bytes int // of the superpacket so far
	l4    int
	hdr   int // bytes of IP and transport header
	mss   int // payload bytes of all packets but the last
	udp   bool
	done  bool // nothing may follow: a short packet, or one with PSH
}

// segment is a packet that could be part of a train.
type segment struct {
	pkt     []byte
	l4, hdr int
	udp     bool
}

// parseSegment looks whether a packet is of a kind that can be joined, and
// whether its checksums are right: they are made anew afterwards, which must not
// mend what was broken before.
func parseSegment(p []byte) (s segment, ok bool) {
	s.pkt = p
	var proto uint8
	var addrs []byte
	if p[0]>>4 == 4 {
		// No options, no fragments (DF may be set), and the exact length.
		if p[0] != 0x45 || binary.BigEndian.Uint16(p[6:])&^0x4000 != 0 || int(binary.BigEndian.Uint16(p[2:])) != len(p) {
			return s, false
		}
		if fold(sum(p[:ipv4Len], 0)) != 0xffff {
			return s, false
		}
		s.l4, proto, addrs = ipv4Len, p[9], p[12:20]
	} else {
		if int(binary.BigEndian.Uint16(p[4:])) != len(p)-ipv6Len {
			return s, false
		}
		s.l4, proto, addrs = ipv6Len, p[6], p[8:40]
	}
	l4 := p[s.l4:]
	switch proto {
	case protoTCP:
		if len(l4) < tcpLen || l4[13]&^tcpPSH != tcpACK || l4[12]&15 != 0 {
			return s, false // SYN, FIN, RST, URG, ECE, CWR and AE stay alone
		}
		doff := int(l4[12]>>4) * 4
		if doff < tcpLen || doff >= len(l4) {
			return s, false
		}
		s.hdr = s.l4 + doff
	case protoUDP:
		if len(l4) <= udpLen || int(binary.BigEndian.Uint16(l4[4:])) != len(l4) || l4[6]|l4[7] == 0 {
			return s, false
		}
		s.udp = true
		s.hdr = s.l4 + udpLen
	default:
		return s, false
	}
	return s, fold(sum(l4, pseudo(addrs, proto)+uint64(len(l4)))) == 0xffff
}

// sameFlow compares addresses and ports.
func (t *train) sameFlow(s *segment) bool {
	f := t.pkts[0]
	if f[0]>>4 != s.pkt[0]>>4 || t.udp != s.udp || t.l4 != s.l4 {
		return false
	}
	from := 12
	if s.l4 == ipv6Len {
		from = 8
	}
	return bytes.Equal(f[from:s.l4+4], s.pkt[from:s.l4+4]) // the ports follow the addresses
}

// fits says whether s continues the train.
func (t *train) fits(s *segment) bool {
	f, p := t.pkts[0], s.pkt
	size := len(p) - s.hdr
	if t.done || s.hdr != t.hdr || size > t.mss || t.bytes+size > MaxPacket {
		return false
	}
	if s.l4 == ipv4Len {
		// TOS, flags, TTL; identifications as Super would count them, but
		// with DF they mean nothing (RFC 6864 §4.1).
		if f[1] != p[1] || f[6] != p[6] || f[8] != p[8] || f[6]&0x40 == 0 &&
			binary.BigEndian.Uint16(p[4:]) != binary.BigEndian.Uint16(f[4:])+uint16(t.n) {
			return false
		}
	} else if !bytes.Equal(f[:4], p[:4]) || f[7] != p[7] {
		return false
	}
	if s.udp {
		return true
	}
	fl, pl := f[s.l4:], p[s.l4:]
	sent := uint32(t.bytes - t.hdr)
	return binary.BigEndian.Uint32(pl[4:]) == binary.BigEndian.Uint32(fl[4:])+sent &&
		bytes.Equal(fl[8:13], pl[8:13]) && // acknowledgement and header length
		bytes.Equal(fl[14:16], pl[14:16]) && // window
		bytes.Equal(fl[18:t.hdr-t.l4], pl[18:t.hdr-t.l4]) // urgent pointer and options
}

func (t *train) start(s *segment) {
	t.n, t.bytes = 0, s.hdr
	t.l4, t.hdr, t.mss, t.udp, t.done = s.l4, s.hdr, len(s.pkt)-s.hdr, s.udp, false
	t.append(s)
}

func (t *train) append(s *segment) {
	size := len(s.pkt) - s.hdr
	t.pkts[t.n] = s.pkt
	t.n++
	t.bytes += size
	t.done = size < t.mss || !s.udp && s.pkt[s.l4+13]&tcpPSH != 0
}

// superHeader turns the first packet's header into the superpacket's and fills
// the virtio header. A train of one stays as it is.
func (t *train) superHeader(h *vnetHdr) {
	*h = vnetHdr{}
	if t.n == 1 {
		return
	}
	p := t.pkts[0]
	h.flags = vnetNeedsCsum
	h.hdrLen, h.gsoSize, h.csumStart = uint16(t.hdr), uint16(t.mss), uint16(t.l4)
	addrs, proto := p[8:40], uint8(protoTCP)
	if t.l4 == ipv4Len {
		addrs = p[12:20]
		h.gsoType = gsoTCPv4
		binary.BigEndian.PutUint16(p[2:], uint16(t.bytes))
		p[10], p[11] = 0, 0
		binary.BigEndian.PutUint16(p[10:], ^fold(sum(p[:ipv4Len], 0)))
	} else {
		h.gsoType = gsoTCPv6
		binary.BigEndian.PutUint16(p[4:], uint16(t.bytes-ipv6Len))
	}
	l4 := p[t.l4:]
	length := t.bytes - t.l4
	if t.udp {
		h.gsoType, h.csumOffset, proto = gsoUDPL4, 6, protoUDP
		binary.BigEndian.PutUint16(l4[4:], uint16(length))
	} else {
		h.csumOffset = 16
		last := t.pkts[t.n-1]
		l4[13] |= last[t.l4+13] & tcpPSH // of the last packet: Super keeps it there
	}
	// The kernel completes the sum of the pseudo header.
	binary.BigEndian.PutUint16(l4[h.csumOffset:], fold(pseudo(addrs, proto)+uint64(length)))
}

// coalesce takes the packets of one Write and hands trains, some of one packet
// only, to emit: packets of one flow in their order. tcp and udp say what may be
// joined.
func (c *coalescer) coalesce(bufs [][]byte, offset int, tcp, udp bool, emit func(*train)) {
	for _, b := range bufs {
		p := b[offset:]
		if !isIP(p) {
			continue
		}
		s, ok := parseSegment(p)
		if !ok || s.udp && !udp || !s.udp && !tcp {
			// It may belong to a flow that has a train: nothing may overtake.
			c.flush(emit)
			single := &c.trains[0]
			single.n, single.pkts[0] = 1, p
			emit(single)
			continue
		}
		t := c.find(&s)
		switch {
		case t != nil && t.n < c.most && t.fits(&s):
			t.append(&s)
			continue
		case t != nil:
			// A new train behind the old one: order within the flow.
			emit(t)
			t.start(&s)
			continue
		case c.n == maxTrains:
			c.flush(emit)
		}
		c.trains[c.n].start(&s)
		c.n++
	}
	c.flush(emit)
}

func (c *coalescer) find(s *segment) *train {
	for i := c.n - 1; i >= 0; i-- {
		if c.trains[i].sameFlow(s) {
			return &c.trains[i]
		}
	}
	return nil
}

// flush emits all trains, the oldest first.
func (c *coalescer) flush(emit func(*train)) {
	for i := range c.n {
		emit(&c.trains[i])
	}
	c.n = 0
}

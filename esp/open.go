package esp

import (
	"encoding/binary"

	"adit/ipsec"
)

// Open turns the ESP packet p into the IP packet that it carries, in place (RFC
// 4303 §3.4). The order is: replay check, authentication, replay mark, and only
// then a look at what is inside. On any error nothing of the packet may be used.
// A dummy packet is ErrDummy: genuine, and to be discarded.
func (s *SA) Open(p *Packet) error {
	n := p.Len
	if p.Err = s.check(p); p.Err == nil {
		p.Err = s.accept(p, s.decrypt(p))
	}
	switch p.Err {
	case nil:
		s.count(1, uint64(p.Len), p.Seq)
	case ErrDummy:
		s.count(1, uint64(n), p.Seq)
	default:
		s.refused(p.Err)
	}
	return p.Err
}

// OpenBatch opens packets in their order and tells each one's outcome in its
// Err; it returns how many hold an IP packet now.
func (s *SA) OpenBatch(ps []Packet) (opened int) {
	if s.mayEndIn(ps) {
		for i := range ps {
			if s.Open(&ps[i]) == nil {
				opened++
			}
		}
		return opened
	}
	for len(ps) > 0 {
		n := min(len(ps), maxParts)
		opened += s.openParts(ps[:n])
		ps = ps[n:]
	}
	return opened
}

// openParts opens at most maxParts packets. Each goes through the same steps as in Open,
// but the cipher may have them all at once, after all checks of the window: marking it
// then refuses the second of two equal packets. With ESN a packet behind the window may
// count as replayed that one by one would count as forged, its high half being guessed
// by a window that has moved on.
func (s *SA) openParts(ps []Packet) (opened int) {
	s.parts = s.parts[:0] // whatever a panic left
	if s.batch != nil {
		for i := range ps {
			if ps[i].Err = s.check(&ps[i]); ps[i].Err == nil {
				s.addPart(&ps[i])
			}
		}
		s.batch.OpenBatch(s.parts)
	}
	var packets, bytes, top uint64
	part := 0
	for i := range ps {
		p := &ps[i]
		n := p.Len
		switch {
		case s.batch == nil:
			if p.Err = s.check(p); p.Err == nil {
				p.Err = s.accept(p, s.decrypt(p))
			}
		case p.Err == nil:
			p.Err = s.accept(p, s.parts[part].OK)
			part++
		}
		switch p.Err {
		case nil:
			opened++
			n = p.Len
		case ErrDummy:
		default:
			s.refused(p.Err)
			continue
		}
		packets++
		bytes += uint64(n)
		top = max(top, p.Seq)
	}
	if packets > 0 {
		s.count(packets, bytes, top)
	}
	return opened
}

// refused counts a packet that was not opened.
func (s *SA) refused(err error) {
	switch err {
	case ErrReplay:
		s.replayed.Add(1)
	case ErrAuth:
		s.authFailed.Add(1)
	case ErrExpired, ErrDirection:
	default:
		s.malformed.Add(1)
	}
}

// check is what comes before the cipher: form, SPI, and the window.
func (s *SA) check(p *Packet) error {
	text := p.Len - headerLen - s.ivLen - s.icvLen
	switch {
	case s.window == nil:
		return ErrDirection
	case s.Expired():
		return ErrExpired
	case p.Off < 0 || p.Len < 0 || p.Off+p.Len > len(p.Buf) || text < trailerLen:
		return ErrTooShort
	case text&(s.align-1) != 0:
		return ErrAlign
	}
	esp := p.Bytes()
	if binary.BigEndian.Uint32(esp) != uint32(s.params.SPI) {
		return ErrSPI
	}
	low := binary.BigEndian.Uint32(esp[4:])
	p.Seq = uint64(low)
	if s.params.ESN {
		var ok bool
		if p.Seq, ok = s.window.extend(low); !ok {
			return ErrReplay
		}
	}
	if !s.window.check(p.Seq) {
		return ErrReplay
	}
	return nil
}

func (s *SA) decrypt(p *Packet) bool {
	esp := p.Bytes()
	body, end := headerLen+s.ivLen, len(esp)-s.icvLen
	aad, trailer := s.authenticated(p, esp[:headerLen], p.Seq)
	return s.cipher.Open(aad, esp[headerLen:body], esp[body:end], esp[end:], trailer)
}

// accept is what comes after the cipher: the mark in the window, only then a look inside.
func (s *SA) accept(p *Packet, authentic bool) error {
	switch {
	case !authentic:
		return ErrAuth
	case !s.window.commit(p.Seq):
		return ErrReplay
	}
	p.Off += headerLen + s.ivLen
	p.Len -= headerLen + s.ivLen + s.icvLen
	return s.unpad(p)
}

// unpad takes off the trailer (RFC 4303 §3.4.4.1 step 4): the padding counts up
// from 1, and what else was there would be a channel out of the peer's host.
func (s *SA) unpad(p *Packet) error {
	b := p.Bytes()
	pad, next := int(b[len(b)-2]), b[len(b)-1]
	n := len(b) - trailerLen - pad
	if n < 0 {
		return ErrPadding
	}
	for i, v := range b[n : n+pad] {
		if v != byte(i+1) {
			return ErrPadding
		}
	}
	if next == protoNone {
		return ErrDummy
	}
	p.Len = n
	if s.params.Mode == ipsec.ModeTransport {
		return s.rebuild(p, next)
	}
	return s.detunnel(p, next)
}

// detunnel checks the inner header, cuts TFC padding off by its length, and
// carries the outer ECN field and DSCP inwards.
func (s *SA) detunnel(p *Packet, next uint8) error {
	ip := p.Bytes()
	var total int
	switch next {
	case protoIPv4:
		if len(ip) < ipv4Len || ip[0]>>4 != 4 || ip[0]&15 < 5 {
			return ErrInner
		}
		if total = int(binary.BigEndian.Uint16(ip[2:])); total < int(ip[0]&15)*4 {
			return ErrInner
		}
	case protoIPv6:
		if len(ip) < ipv6Len || ip[0]>>4 != 6 {
			return ErrInner
		}
		total = ipv6Len + int(binary.BigEndian.Uint16(ip[4:]))
	default:
		return ErrNextHeader
	}
	if total > len(ip) {
		return ErrInner
	}
	p.Len = total
	ip = ip[:total]
	was := trafficClass(ip)
	tos := was
	if s.params.CopyECN {
		ecn, ok := innerECN(was, p.TOS)
		if !ok {
			return ErrECN
		}
		tos = tos&^ecnMask | ecn
	}
	if s.params.dscpTo {
		tos = tos&ecnMask | p.TOS&^ecnMask
	}
	if tos != was {
		setTrafficClass(ip, tos)
	}
	return nil
}

// rebuild puts an IP header before the payload of transport mode: that of the
// outer packet as the SA knows it, as sockets do not deliver the original.
func (s *SA) rebuild(p *Packet, next uint8) error {
	e := s.endpoints.Load()
	body := p.Bytes()
	if next == protoUDP && len(body) >= udpLen {
		// TFC padding behind a protocol that tells its length (RFC 4303 §2.7).
		if n := int(binary.BigEndian.Uint16(body[4:])); n >= udpLen && n < len(body) {
			body = body[:n]
		}
	}
	hdr := s.addrHeader()
	if p.Off < hdr {
		return ErrNoRoom
	}
	if len(body)+hdr > 65535 {
		return ErrInner
	}
	p.Off -= hdr
	p.Len = hdr + len(body)
	ip := p.Bytes()
	var addrs []byte
	if hdr == ipv4Len {
		clear(ip[:ipv4Len])
		ip[0], ip[1] = 0x45, p.TOS
		binary.BigEndian.PutUint16(ip[2:], uint16(p.Len))
		ip[6], ip[8], ip[9] = flagDF, outerTTL, next
		src, dst := e.Remote.Addr().As4(), e.Local.Addr().As4()
		copy(ip[12:], src[:])
		copy(ip[16:], dst[:])
		binary.BigEndian.PutUint16(ip[10:], ^fold(add16(ip[:ipv4Len], 0)))
		addrs = ip[12:20]
	} else {
		ip[0], ip[1], ip[2], ip[3] = 0x60|p.TOS>>4, p.TOS<<4, 0, 0
		binary.BigEndian.PutUint16(ip[4:], uint16(len(body)))
		ip[6], ip[7] = next, outerTTL
		src, dst := e.Remote.Addr().As16(), e.Local.Addr().As16()
		copy(ip[8:], src[:])
		copy(ip[24:], dst[:])
		addrs = ip[8:40]
	}
	if p.Encap {
		repairChecksum(addrs, next, ip[hdr:])
	}
	return nil
}

package esp

import (
	"encoding/binary"

	"adit/ipsec"
	"adit/suite"
)

// Seal turns the IP packet p into an ESP packet, in place (RFC 4303 §3.3).
// Tunnel mode protects the whole packet; transport mode takes off its IP header,
// which the caller's socket makes anew from the SA's endpoints, TOS and DF.
func (s *SA) Seal(p *Packet) error {
	first, n, err := s.take(1)
	if n == 0 {
		p.Err = err
		return err
	}
	size := uint64(p.Len)
	if p.Err = s.sealAs(p, first); p.Err != nil {
		return p.Err
	}
	s.encrypt(p)
	s.count(1, size, first)
	return nil
}

// SealBatch seals packets in their order and tells each one's outcome in its
// Err; it returns how many were sealed. The sequence numbers are taken at once,
// and a refused packet's number is left out.
func (s *SA) SealBatch(ps []Packet) (sealed int) {
	if len(ps) == 0 {
		return 0
	}
	if s.mayEndIn(ps) {
		for i := range ps {
			if s.Seal(&ps[i]) == nil {
				sealed++
			}
		}
		return sealed
	}
	first, n, err := s.take(uint64(len(ps)))
	var size uint64
	for i := range ps {
		p := &ps[i]
		if uint64(i) >= n {
			p.Err = err
			continue
		}
		l := p.Len
		if p.Err = s.sealAs(p, first+uint64(i)); p.Err == nil {
			size += uint64(l)
			sealed++
		}
	}
	s.encryptAll(ps)
	if n > 0 {
		s.count(uint64(sealed), size, first+n-1)
	}
	return sealed
}

// encryptAll encrypts the packets without an error.
func (s *SA) encryptAll(ps []Packet) {
	s.parts = s.parts[:0] // whatever a panic left
	for i := range ps {
		p := &ps[i]
		switch {
		case p.Err != nil:
		case s.batch == nil:
			s.encrypt(p)
		case s.addPart(p):
			s.batch.SealBatch(s.parts)
			s.parts = s.parts[:0]
		}
	}
	if len(s.parts) > 0 {
		s.batch.SealBatch(s.parts)
	}
}

// addPart makes an ESP packet one of the parts, and reports that they are full.
func (s *SA) addPart(p *Packet) (full bool) {
	if s.parts == nil {
		s.parts = make([]suite.BatchPacket, 0, maxParts)
	}
	n := len(s.parts)
	s.parts = s.parts[:n+1]
	b, esp := &s.parts[n], p.Bytes()
	b.AAD, _ = s.authenticated(p, esp[:headerLen], p.Seq)
	*(*[8]byte)(b.Nonce[4:]) = [8]byte(esp[headerLen:])
	b.Buf = esp[headerLen+s.ivLen:]
	return n+1 == maxParts
}

// SealDummy makes p a dummy packet of n random-looking bytes (RFC 4303 §2.6);
// Buf and Off are the caller's, what the buffer held is overwritten.
func (s *SA) SealDummy(p *Packet, n int) error {
	first, got, err := s.take(1)
	if got == 0 {
		return err
	}
	if n < 0 || p.Off+n > len(p.Buf) {
		return ErrNoRoom
	}
	p.Len, p.TOS, p.DF = n, 0, false
	clear(p.Bytes())
	if p.Err = s.frame(p, first, protoNone, 0); p.Err == nil {
		s.encrypt(p)
		s.count(1, uint64(n), first)
	}
	return p.Err
}

// take reserves n consecutive sequence numbers, or as many as are left. A number
// is never given out twice, whatever becomes of its packet.
func (s *SA) take(n uint64) (first, got uint64, err error) {
	switch {
	case s.window != nil:
		return 0, 0, ErrDirection
	case s.Expired() && s.seq.Load() < s.max:
		return 0, 0, ErrExpired
	}
	for {
		last := s.seq.Load()
		if last >= s.max {
			s.count(0, 0, last)
			return 0, 0, ErrExhausted
		}
		got = min(n, s.max-last)
		if s.seq.CompareAndSwap(last, last+got) {
			return last + 1, got, ErrExhausted // the error is for what got lacks of n
		}
	}
}

func (s *SA) sealAs(p *Packet, seq uint64) error {
	if p.Off < 0 || p.Len < ipv4Len || p.Off+p.Len > len(p.Buf) {
		return ErrInner
	}
	ip := p.Bytes()
	v4 := ip[0]>>4 == 4
	if !v4 && (ip[0]>>4 != 6 || len(ip) < ipv6Len) {
		return ErrInner
	}
	if s.params.Mode == ipsec.ModeTransport {
		return s.sealTransport(p, seq, v4)
	}
	// RFC 6040 §4.1: normal mode copies the ECN field, compatibility mode sends none.
	tos, inner := uint8(0), trafficClass(ip)
	if s.params.CopyECN {
		tos = inner & ecnMask
	}
	if s.params.dscpTo {
		tos |= inner &^ ecnMask
	}
	next := uint8(protoIPv6)
	df := true // IPv6 packets are not fragmented on their way
	if v4 {
		next, df = protoIPv4, ip[6]&flagDF != 0
	}
	switch s.params.DF {
	case ipsec.DFClear:
		df = false
	case ipsec.DFSet:
		df = true
	}
	p.TOS, p.DF = tos, df
	return s.frame(p, seq, next, s.tfc(p.Len))
}

// tfc is the padding that hides the size of a packet of n bytes (RFC 4303 §2.7).
func (s *SA) tfc(n int) int {
	switch want := s.params.TFC; {
	case s.params.Mode == ipsec.ModeTransport:
	case want == ipsec.TFCToMTU:
		return max(s.InnerMTU()-n, 0)
	case want > 0:
		return max(min(int(want), s.InnerMTU())-n, 0)
	}
	return 0
}

// sealTransport takes off the IP header (RFC 4303 §3.1.1). Transport mode covers
// whole datagrams only, and headers for the routers on the way cannot be hidden.
func (s *SA) sealTransport(p *Packet, seq uint64, v4 bool) error {
	ip := p.Bytes()
	p.TOS = trafficClass(ip)
	if v4 {
		hdr := int(ip[0]&15) * 4
		if hdr < ipv4Len || hdr > len(ip) {
			return ErrInner
		}
		if binary.BigEndian.Uint16(ip[6:])&0x3fff != 0 {
			return ErrFragment
		}
		switch s.params.DF {
		case ipsec.DFCopy:
			p.DF = ip[6]&flagDF != 0
		default:
			p.DF = s.params.DF == ipsec.DFSet
		}
		next := ip[9]
		p.Off, p.Len = p.Off+hdr, p.Len-hdr
		return s.frame(p, seq, next, 0)
	}
	switch ip[6] {
	case extFragment:
		return ErrFragment
	case extHopByHop, extRouting:
		return ErrExtension
	}
	next := ip[6]
	p.DF = s.params.DF != ipsec.DFClear
	p.Off, p.Len = p.Off+ipv6Len, p.Len-ipv6Len
	return s.frame(p, seq, next, 0)
}

// frame builds the ESP packet around the payload p, which encrypt is to follow:
//
//	SPI | sequence number | IV | payload | TFC padding | padding | pad length | next header | ICV
func (s *SA) frame(p *Packet, seq uint64, next uint8, tfc int) error {
	text := p.Len + tfc + trailerLen
	pad := -text & (s.align - 1)
	text += pad
	start := p.Off - headerLen - s.ivLen
	end := p.Off + text + s.icvLen
	if start < 0 || end > len(p.Buf) {
		return ErrNoRoom
	}
	tail := p.Buf[p.Off+p.Len : p.Off+text]
	clear(tail[:tfc])
	for i := range pad {
		tail[tfc+i] = byte(i + 1) // RFC 4303 §2.4
	}
	tail[tfc+pad], tail[tfc+pad+1] = byte(pad), next

	head := p.Buf[start : start+headerLen]
	binary.BigEndian.PutUint32(head, uint32(s.params.SPI))
	binary.BigEndian.PutUint32(head[4:], uint32(seq))
	s.cipher.PutIV(p.Buf[start+headerLen:p.Off], seq)
	p.Off, p.Len, p.Seq = start, end-start, seq
	return nil
}

func (s *SA) encrypt(p *Packet) {
	esp := p.Bytes()
	body, end := headerLen+s.ivLen, len(esp)-s.icvLen
	aad, trailer := s.authenticated(p, esp[:headerLen], p.Seq)
	s.cipher.Seal(aad, esp[headerLen:body], esp[body:end], esp[end:], trailer)
}

// authenticated returns the associated data of an AEAD, with ESN the whole
// sequence number in the middle (RFC 4106 §5), or the header and, apart, the
// high half which a separate integrity algorithm takes last (RFC 4303 §2.2.1).
func (s *SA) authenticated(p *Packet, head []byte, seq uint64) (aad, trailer []byte) {
	switch {
	case !s.params.ESN:
		return head, nil
	case !s.params.aead:
		trailer = p.scratch[:4]
		binary.BigEndian.PutUint32(trailer, uint32(seq>>32))
		return head, trailer
	}
	aad = p.scratch[:12]
	binary.BigEndian.PutUint32(aad, uint32(s.params.SPI))
	binary.BigEndian.PutUint64(aad[4:], seq)
	return aad, nil
}

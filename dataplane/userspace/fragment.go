package userspace

import (
	"encoding/binary"

	"adit/esp"
)

// fragBatch is the number of fragments sealed and sent at a time.
const fragBatch = 16

// fragment sends an IPv4 packet without DF in fragments that fit the path, each
// protected on its own (RFC 791 §3.2, RFC 4301 appendix D).
func (w *outbound) fragment(s *sa, p *esp.Packet) {
	if w.frags == nil {
		w.frags = make([]esp.Packet, fragBatch)
		for i := range w.frags {
			w.frags[i].Buf = make([]byte, bufferSize)
		}
	}
	b := p.Bytes()
	hdr := int(b[0]&15) * 4
	body := b[hdr:]
	step := (s.InnerMTU() - hdr) &^ 7
	if step < 8 {
		w.p.count.drop(OutTooBigSilent)
		return
	}
	field := binary.BigEndian.Uint16(b[6:])
	w.p.count.fragmented.Add(1)
	n := 0
	for at := 0; at < len(body); at += step {
		f := &w.frags[n]
		part := body[at:min(at+step, len(body))]
		size := copy(f.Buf[headroom:], b[:hdr])
		h := f.Buf[headroom : headroom+hdr]
		if at > 0 {
			size = laterOptions(h)
		}
		off := field&0x1fff + uint16(at/8)
		if at+len(part) < len(body) || field&0x2000 != 0 {
			off |= 0x2000
		}
		size += copy(f.Buf[headroom+size:], part)
		binary.BigEndian.PutUint16(h[2:], uint16(size))
		binary.BigEndian.PutUint16(h[6:], off)
		headerChecksum(h[:int(h[0]&15)*4])
		f.Off, f.Len = headroom, size
		if n++; n == fragBatch {
			w.sealFragments(s, n)
			n = 0
		}
	}
	if n > 0 {
		w.sealFragments(s, n)
	}
}

func (w *outbound) sealFragments(s *sa, n int) {
	if !w.seal(s, w.frags[:n]) {
		w.p.count.drops[OutNoSA].Add(uint64(n))
	}
	w.transmit()
}

// laterOptions keeps in the header of a later fragment only the options that
// are to be copied (RFC 791 §3.1), and returns its new length.
func laterOptions(h []byte) int {
	to := ipv4Len
	for at := ipv4Len; at < len(h); {
		kind, size := h[at], 1
		if kind == 0 {
			break
		}
		if kind != 1 {
			if at+1 >= len(h) || h[at+1] < 2 || at+int(h[at+1]) > len(h) {
				break
			}
			size = int(h[at+1])
			if kind&0x80 != 0 {
				to += copy(h[to:], h[at:at+size])
			}
		}
		at += size
	}
	for to%4 != 0 {
		h[to] = 0
		to++
	}
	h[0] = 0x40 | uint8(to/4)
	return to
}

// headerChecksum sets the checksum of an IPv4 header.
func headerChecksum(h []byte) {
	h[10], h[11] = 0, 0
	binary.BigEndian.PutUint16(h[10:], ^fold(sum16(h, 0)))
}

// sum16 is the ones' complement sum of RFC 1071 over b, added to acc.
func sum16(b []byte, acc uint64) uint64 {
	for len(b) >= 4 {
		acc += uint64(binary.BigEndian.Uint32(b))
		b = b[4:]
	}
	if len(b) >= 2 {
		acc += uint64(binary.BigEndian.Uint16(b))
		b = b[2:]
	}
	if len(b) == 1 {
		acc += uint64(b[0]) << 8
	}
	return acc
}

func fold(acc uint64) uint16 {
	for acc > 0xffff {
		acc = acc>>16 + acc&0xffff
	}
	return uint16(acc)
}

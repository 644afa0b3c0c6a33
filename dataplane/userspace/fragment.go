package userspace

import (
	"encoding/binary"

	"adit/tun"
)

// fragment puts an IPv4 packet without DF into the arena in fragments that fit the
// path, each to be protected on its own (RFC 791 §3.2, RFC 4301 appendix D).
func (w *outbound) fragment(s *sa, b []byte) {
	if w.frag == nil {
		w.frag = make([]byte, limitPacket)
	}
	hdr := int(b[0]&15) * 4
	body := b[hdr:]
	step := (s.InnerMTU() - hdr) &^ 7
	if step < 8 {
		w.count.drop(OutTooBigSilent)
		return
	}
	field := binary.BigEndian.Uint16(b[6:])
	w.count.fragmented.Add(1)
	for at := 0; at < len(body); at += step {
		part := body[at:min(at+step, len(body))]
		h := w.frag[:copy(w.frag, b[:hdr])]
		if at > 0 {
			h = h[:laterOptions(h)]
		}
		off := field&0x1fff + uint16(at/8)
		if at+len(part) < len(body) || field&0x2000 != 0 {
			off |= 0x2000
		}
		size := len(h) + copy(w.frag[len(h):], part)
		binary.BigEndian.PutUint16(h[2:], uint16(size))
		binary.BigEndian.PutUint16(h[6:], off)
		headerChecksum(h)
		one := tun.Whole(w.frag[:size])
		w.put(s, &one)
	}
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

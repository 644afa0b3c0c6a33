package dptest

import (
	"encoding/binary"
	"net/netip"
)

// UDP makes an IP packet with UDP inside, checksums right and DF set.
func UDP(src, dst netip.Addr, srcPort, dstPort uint16, payload []byte) []byte {
	b := make([]byte, 8, 8+len(payload))
	binary.BigEndian.PutUint16(b, srcPort)
	binary.BigEndian.PutUint16(b[2:], dstPort)
	binary.BigEndian.PutUint16(b[4:], uint16(8+len(payload)))
	b = append(b, payload...)
	acc := uint32(17 + len(b))
	for _, a := range [][]byte{src.AsSlice(), dst.AsSlice()} {
		acc += sum(a)
	}
	c := ^fold(acc + sum(b))
	if c == 0 {
		c = 0xffff
	}
	binary.BigEndian.PutUint16(b[6:], c)
	if src.Is4() {
		h := make([]byte, 20, 20+len(b))
		h[0], h[6], h[8], h[9] = 0x45, 0x40, 64, 17
		binary.BigEndian.PutUint16(h[2:], uint16(20+len(b)))
		copy(h[12:], src.AsSlice())
		copy(h[16:], dst.AsSlice())
		binary.BigEndian.PutUint16(h[10:], ^fold(sum(h)))
		return append(h, b...)
	}
	h := make([]byte, 40, 40+len(b))
	h[0], h[6], h[7] = 0x60, 17, 64
	binary.BigEndian.PutUint16(h[4:], uint16(len(b)))
	copy(h[8:], src.AsSlice())
	copy(h[24:], dst.AsSlice())
	return append(h, b...)
}

func sum(b []byte) (acc uint32) {
	for i := 0; i+1 < len(b); i += 2 {
		acc += uint32(b[i])<<8 | uint32(b[i+1])
	}
	if len(b)%2 == 1 {
		acc += uint32(b[len(b)-1]) << 8
	}
	return acc
}

func fold(acc uint32) uint16 {
	for acc > 0xffff {
		acc = acc>>16 + acc&0xffff
	}
	return uint16(acc)
}

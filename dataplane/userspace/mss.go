package userspace

import "encoding/binary"

// clampMSS lowers the MSS option of a TCP SYN to what fits into packets of mtu
// bytes, and repairs the checksum (RFC 1624). It reports whether it changed it.
func clampMSS(b []byte, h *headers, mtu int) bool {
	const tcpLen, synFlag = 20, 2
	if h.proto != protoTCP || h.l4 == 0 || h.l4+tcpLen > len(b) || b[h.l4+13]&synFlag == 0 {
		return false
	}
	tcp := b[h.l4:]
	end := int(tcp[12]>>4) * 4
	if end < tcpLen || end > len(tcp) {
		return false
	}
	limit := mtu - ipv4Len - tcpLen
	if h.v6 {
		limit = mtu - ipv6Len - tcpLen
	}
	if limit < 1 {
		return false
	}
	for at := tcpLen; at+1 < end; {
		size := 1
		switch tcp[at] {
		case 0:
			return false
		case 1:
		case 2:
			if tcp[at+1] != 4 || at+4 > end {
				return false
			}
			old := binary.BigEndian.Uint16(tcp[at+2:])
			if int(old) <= limit {
				return false
			}
			binary.BigEndian.PutUint16(tcp[at+2:], uint16(limit))
			from, to := old, uint16(limit)
			if at%2 == 1 { // the value straddles two words of the sum
				from, to = from<<8|from>>8, to<<8|to>>8
			}
			sum := uint64(^binary.BigEndian.Uint16(tcp[16:])) + uint64(^from) + uint64(to)
			binary.BigEndian.PutUint16(tcp[16:], ^fold(sum))
			return true
		default:
			if size = int(tcp[at+1]); size < 2 {
				return false
			}
		}
		at += size
	}
	return false
}

package esp

import "encoding/binary"

const (
	ipv4Len = 20
	ipv6Len = 40
	udpLen  = 8

	protoIPv4   = 4
	protoTCP    = 6
	protoUDP    = 17
	protoIPv6   = 41
	protoICMPv6 = 58
	protoNone   = 59 // dummy packets (RFC 4303 §2.6)

	extHopByHop = 0
	extRouting  = 43
	extFragment = 44

	flagDF = 0x40 // in byte 6 of the IPv4 header

	ecnMask = 3
	ecnCE   = 3

	outerTTL = 64
)

// trafficClass is the TOS byte of an IPv4 or the traffic class of an IPv6 header.
func trafficClass(ip []byte) uint8 {
	if ip[0]>>4 == 4 {
		return ip[1]
	}
	return ip[0]<<4 | ip[1]>>4
}

// setTrafficClass changes it, and the IPv4 header checksum with it (RFC 1624).
func setTrafficClass(ip []byte, tos uint8) {
	if ip[0]>>4 == 6 {
		ip[0] = 0x60 | tos>>4
		ip[1] = tos<<4 | ip[1]&0x0f
		return
	}
	old := binary.BigEndian.Uint16(ip)
	ip[1] = tos
	sum := uint32(^binary.BigEndian.Uint16(ip[10:])) + uint32(^old) + uint32(binary.BigEndian.Uint16(ip))
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum))
}

// innerECN is the table of RFC 6040 §4.2 (figure 4): what leaves of the inner and
// the outer field; false: the packet must be dropped.
func innerECN(inner, outer uint8) (uint8, bool) {
	inner, outer = inner&ecnMask, outer&ecnMask
	if outer != ecnCE {
		return inner, true // ECT(0) and ECT(1) outside never change the inside
	}
	return ecnCE, inner != 0
}

// add16 is the ones' complement sum of RFC 1071 over b, added to acc.
func add16(b []byte, acc uint64) uint64 {
	for len(b) >= 8 {
		v := binary.BigEndian.Uint64(b)
		acc += v>>32 + v&0xffffffff
		b = b[8:]
	}
	for len(b) >= 2 {
		acc += uint64(b[0])<<8 | uint64(b[1])
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

// repairChecksum makes the transport checksum right for the addresses of the
// rebuilt header: behind a NAT the sender computed it over others (RFC 3948
// §3.1.2). ESP's own check covered the payload already.
func repairChecksum(addrs []byte, proto uint8, b []byte) {
	var at int
	switch {
	case proto == protoTCP && len(b) >= 20:
		at = 16
	case proto == protoUDP && len(b) >= udpLen:
		if at = 6; b[6] == 0 && b[7] == 0 && len(addrs) == 8 {
			return // sent without (RFC 768)
		}
	case proto == protoICMPv6 && len(b) >= 4:
		at = 2
	default:
		return
	}
	b[at], b[at+1] = 0, 0
	sum := ^fold(add16(b, add16(addrs, uint64(proto)+uint64(len(b)))))
	if sum == 0 && proto == protoUDP {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(b[at:], sum)
}

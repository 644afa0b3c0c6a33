package userspace

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"adit/ipsec"
)

const (
	ipv4Len = 20
	ipv6Len = 40

	protoICMP    = 1
	protoTCP     = 6
	protoUDP     = 17
	protoDCCP    = 33
	protoICMPv6  = 58
	protoSCTP    = 132
	protoMH      = 135
	protoUDPLite = 136

	extHopByHop = 0
	extRouting  = 43
	extFragment = 44
	extAH       = 51
	extDest     = 60
)

// flow is what the selectors see of a packet (RFC 4301 §4.4.1.1). Flows are
// comparable. For ICMP and Mobile IPv6 both ports hold type and code.
type flow struct {
	src, dst         [16]byte // IPv4: the first four
	srcPort, dstPort uint16
	proto            uint8
	v6, ports        bool // ports: they are known
}

func (f *flow) addrs() (src, dst netip.Addr) {
	if f.v6 {
		return netip.AddrFrom16(f.src), netip.AddrFrom16(f.dst)
	}
	return netip.AddrFrom4([4]byte(f.src[:4])), netip.AddrFrom4([4]byte(f.dst[:4]))
}

func (f *flow) reversed() flow {
	r := *f
	r.src, r.dst, r.srcPort, r.dstPort = f.dst, f.src, f.dstPort, f.srcPort
	return r
}

// headers is where things are in a packet.
type headers struct {
	flow
	l4       int  // offset of the upper layer's header; 0 when a later fragment has none
	fragment bool // any fragment of a datagram, the first too
	df       bool // IPv4: don't fragment
	id       uint32
}

var (
	errMalformed  = errors.New("userspace: malformed IP packet")
	errExtensions = errors.New("userspace: too many IPv6 extension headers")
)

// parse reads the headers of b, an IP packet of exactly its own length; quoted
// allows one that an ICMP error cut short.
func (h *headers) parse(b []byte, quoted bool) error {
	*h = headers{}
	if len(b) < ipv4Len {
		return errMalformed
	}
	switch b[0] >> 4 {
	case 4:
		return h.parse4(b, quoted)
	case 6:
		return h.parse6(b, quoted)
	}
	return errMalformed
}

func (h *headers) parse4(b []byte, quoted bool) error {
	hdr, total := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
	if hdr < ipv4Len || hdr > total || hdr > len(b) || total != len(b) && !quoted {
		return errMalformed
	}
	copy(h.src[:], b[12:16])
	copy(h.dst[:], b[16:20])
	frag := binary.BigEndian.Uint16(b[6:])
	h.proto, h.df, h.fragment = b[9], frag&0x4000 != 0, frag&0x3fff != 0
	h.id = uint32(binary.BigEndian.Uint16(b[4:]))
	if frag&0x1fff != 0 {
		return nil
	}
	h.l4 = hdr
	h.readPorts(b[hdr:])
	return nil
}

func (h *headers) parse6(b []byte, quoted bool) error {
	if len(b) < ipv6Len || int(binary.BigEndian.Uint16(b[4:]))+ipv6Len != len(b) && !quoted {
		return errMalformed
	}
	h.v6 = true
	copy(h.src[:], b[8:24])
	copy(h.dst[:], b[24:40])
	next, at := b[6], ipv6Len
	for range limitExtensions + 1 {
		size := 0
		switch next {
		case extHopByHop, extRouting, extDest:
			if at+8 > len(b) {
				return errMalformed
			}
			size = (int(b[at+1]) + 1) * 8
		case extAH:
			if at+8 > len(b) {
				return errMalformed
			}
			size = (int(b[at+1]) + 2) * 4
		case extFragment:
			if at+8 > len(b) {
				return errMalformed
			}
			size = 8
			h.fragment, h.id = true, binary.BigEndian.Uint32(b[at+4:])
			if binary.BigEndian.Uint16(b[at+2:])&0xfff8 != 0 {
				h.proto = b[at] // of the first header in the whole datagram
				return nil
			}
		default:
			h.proto, h.l4 = next, at
			h.readPorts(b[at:])
			return nil
		}
		if at+size > len(b) {
			return errMalformed
		}
		next, at = b[at], at+size
	}
	return errExtensions
}

func (h *headers) readPorts(b []byte) {
	switch h.proto {
	case protoTCP, protoUDP, protoSCTP, protoDCCP, protoUDPLite:
		if len(b) >= 4 {
			h.srcPort, h.dstPort, h.ports = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:]), true
		}
	case protoICMP, protoICMPv6:
		if len(b) >= 2 {
			h.srcPort, h.ports = binary.BigEndian.Uint16(b), true
			h.dstPort = h.srcPort
		}
	case protoMH:
		if len(b) >= 3 {
			h.srcPort, h.ports = uint16(b[2])<<8, true
			h.dstPort = h.srcPort
		}
	}
}

// quote finds the packet that an ICMP error is about; false if this is none.
func (h *headers) quote(b []byte) ([]byte, bool) {
	if h.l4 == 0 || !h.ports {
		return nil, false
	}
	switch typ := uint8(h.srcPort >> 8); {
	case h.proto == protoICMP && !h.v6: // unreachable, quench, redirect, time exceeded, parameter problem
		if typ != 3 && typ != 4 && typ != 5 && typ != 11 && typ != 12 {
			return nil, false
		}
	case h.proto == protoICMPv6 && h.v6: // RFC 4443 §2.1: errors are below 128; redirect is 137
		if typ >= 128 && typ != 137 {
			return nil, false
		}
	default:
		return nil, false
	}
	if h.l4+8 > len(b) {
		return nil, true
	}
	return b[h.l4+8:], true
}

// matches reports whether a packet that goes from one of from to one of to.
func matches(f *flow, from, to []ipsec.Selector) bool {
	src, dst := f.addrs()
	ok := false
	for i := range from {
		if from[i].Match(src, f.proto, f.srcPort, f.ports) {
			ok = true
			break
		}
	}
	if !ok {
		return false
	}
	for i := range to {
		if to[i].Match(dst, f.proto, f.dstPort, f.ports) {
			return true
		}
	}
	return false
}

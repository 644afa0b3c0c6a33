package lab

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// Class is what a captured packet is, seen from outside.
type Class int

// The classes of packets. Everything that is not IP (ARP) is ClassOther, and so
// are IP packets of no other class.
const (
	ClassOther     Class = iota
	ClassESP             // raw ESP, IP protocol 50
	ClassUDPESP          // ESP in UDP on port 4500
	ClassIKE             // UDP port 500, or 4500 with the non-ESP marker
	ClassKeepalive       // the one-octet NAT keepalive on port 4500
	ClassICMP            // ICMP and ICMPv6
	ClassFragment        // a fragment that is not the first
	numClasses
)

// Packet is a captured packet from its IP header on.
type Packet struct {
	Src, Dst         netip.Addr // zero if it isn't IP
	Proto            uint8      // of IPv4, or the first header after the IPv6 ones that are skipped
	SrcPort, DstPort uint16     // of UDP and TCP
	SPI, Seq         uint32     // of ESP
	Class            Class
	Outgoing         bool   // sent by the namespace captured in, not received
	Clear            bool   // shows an address of the watched prefixes; see Capture
	Bytes            []byte // IP header and what follows, as far as it was kept
	Len              int    // full length in octets
}

const (
	protoICMP, protoIPIP, protoTCP, protoUDP = 1, 4, 6, 17
	protoIPv6, protoFragment, protoESP       = 41, 44, 50
	protoICMPv6                              = 58
)

// parsePacket classifies an IP packet; p.Bytes and p.Len are set already. inner
// are the prefixes whose addresses must not be visible.
func parsePacket(p *Packet, inner []netip.Prefix) {
	payload, first, ok := parseIP(p)
	if !ok {
		return
	}
	p.Clear = within(inner, p.Src) || within(inner, p.Dst)
	if !first {
		p.Class = ClassFragment
		return
	}
	switch p.Proto {
	case protoESP:
		p.Class = ClassESP
		setESP(p, payload)
	case protoTCP, protoUDP:
		if len(payload) < 8 {
			return
		}
		p.SrcPort, p.DstPort = binary.BigEndian.Uint16(payload), binary.BigEndian.Uint16(payload[2:])
		if p.Proto == protoUDP {
			classifyUDP(p, payload[8:])
		}
	case protoIPIP, protoIPv6:
		p.Clear = p.Clear || showsInner(payload, inner)
	case protoICMP, protoICMPv6:
		p.Class = ClassICMP
		// An error message quotes the packet that it is about.
		quotes := p.Proto == protoICMP && len(payload) > 8 && slices.Contains([]byte{3, 4, 5, 11, 12}, payload[0]) ||
			p.Proto == protoICMPv6 && len(payload) > 8 && payload[0] < 128
		if quotes {
			p.Clear = p.Clear || showsInner(payload[8:], inner)
		}
	}
}

// showsInner reports whether an encapsulated IP packet has an inner address.
func showsInner(b []byte, inner []netip.Prefix) bool {
	q := Packet{Bytes: b, Len: len(b)}
	parseIP(&q)
	return within(inner, q.Src) || within(inner, q.Dst)
}

func within(ps []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(ps, func(p netip.Prefix) bool { return p.Contains(a) })
}

// parseIP reads addresses and protocol and returns the payload; first is false
// for fragments but the first.
func parseIP(p *Packet) (payload []byte, first, ok bool) {
	b := p.Bytes
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		n := int(b[0]&15) * 4
		if n < 20 || n > len(b) {
			return nil, false, false
		}
		p.Src, p.Dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
		p.Proto = b[9]
		return b[n:], binary.BigEndian.Uint16(b[6:])&0x1fff == 0, true
	case len(b) >= 40 && b[0]>>4 == 6:
		p.Src, p.Dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
		p.Proto, payload, first = b[6], b[40:], true
		for len(payload) >= 8 {
			n := 8
			switch p.Proto {
			case 0, 43, 60: // hop-by-hop, routing, destination options
				n = 8 + int(payload[1])*8
			case protoFragment:
				first = first && binary.BigEndian.Uint16(payload[2:])&0xfff8 == 0
			default:
				return payload, first, true
			}
			if n > len(payload) {
				break
			}
			p.Proto, payload = payload[0], payload[n:]
		}
		return payload, first, true
	}
	return nil, false, false
}

func classifyUDP(p *Packet, data []byte) {
	switch {
	case p.SrcPort == 500 || p.DstPort == 500:
		p.Class = ClassIKE
	case p.SrcPort != 4500 && p.DstPort != 4500:
	case len(data) == 1 && data[0] == 0xff:
		p.Class = ClassKeepalive
	case len(data) >= 8 && binary.BigEndian.Uint32(data) == 0:
		p.Class = ClassIKE
	case len(data) >= 8:
		p.Class = ClassUDPESP
		setESP(p, data)
	}
}

func setESP(p *Packet, b []byte) {
	if len(b) >= 8 {
		p.SPI, p.Seq = binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
	}
}

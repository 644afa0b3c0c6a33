// Package dhcp answers the DHCPINFORM that Windows sends through its tunnels: which
// networks and name servers are behind them (RFC 2131 §4.3.5, RFC 3442, Microsoft's
// option 249). It owns the packets, from the IP header on, and nothing else; start
// reading at [ParseInform].
package dhcp

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// The bounds of what is read and told.
const (
	MaxPacket  = 1500 // bytes of a request with its headers
	maxOptions = 64   // options of a request
	maxRoutes  = 64
	maxServers = 8
	maxDomain  = 255
)

// ErrRequest: the packet is no DHCPINFORM.
var ErrRequest = errors.New("dhcp: no DHCPINFORM")

// Options (RFC 2132, RFC 3442; 249 is Microsoft's number for 121).
const (
	optionMask     = 1
	optionDNS      = 6
	optionDomain   = 15
	optionType     = 53
	optionServer   = 54
	optionList     = 55
	optionRoutes   = 121
	optionMSRoutes = 249
	optionEnd      = 255

	typeACK    = 5
	typeInform = 8
)

// The lengths of headers: IPv4 without options, UDP, and BOOTP up to the options.
const (
	lenIP    = 20
	lenUDP   = 8
	lenBOOTP = 240
)

var cookie = [4]byte{99, 130, 83, 99} // RFC 2131 §3

// Inform is a DHCPINFORM.
type Inform struct {
	Client netip.Addr // the sender of the IP packet, which is the one to answer
	xid    [4]byte
	flags  [2]byte
	chaddr [16]byte
	htype  [2]byte // and the length of chaddr
	wants  [256]bool
	listed bool // it said what it wants
}

// ParseInform reads an IPv4 packet. What it says of its client's address is not
// believed: the IP header's is what the tunnel's selectors allow.
func ParseInform(b []byte) (*Inform, error) {
	if len(b) > MaxPacket || len(b) < lenIP+lenUDP+lenBOOTP || b[0]>>4 != 4 || b[9] != 17 {
		return nil, ErrRequest
	}
	head := int(b[0]&15) * 4
	if head < lenIP || len(b) < head+lenUDP+lenBOOTP || binary.BigEndian.Uint16(b[6:])&0x3fff != 0 { // a fragment
		return nil, ErrRequest
	}
	udp := b[head:]
	n := int(binary.BigEndian.Uint16(udp[4:]))
	if n < lenUDP+lenBOOTP || n > len(udp) || binary.BigEndian.Uint16(udp) != 68 || binary.BigEndian.Uint16(udp[2:]) != 67 {
		return nil, ErrRequest
	}
	m := udp[lenUDP:n]
	if m[0] != 1 || [4]byte(m[236:240]) != cookie {
		return nil, ErrRequest
	}
	q := &Inform{Client: netip.AddrFrom4([4]byte(b[12:16])), xid: [4]byte(m[4:8]), flags: [2]byte(m[10:12]), chaddr: [16]byte(m[28:44]), htype: [2]byte(m[1:3])}
	return q, q.options(m[lenBOOTP:])
}

func (q *Inform) options(b []byte) error {
	inform := false
	for n := 0; len(b) > 0 && b[0] != optionEnd; n++ {
		if b[0] == 0 { // padding
			b = b[1:]
			continue
		}
		if n == maxOptions || len(b) < 2 || len(b) < 2+int(b[1]) {
			return ErrRequest
		}
		v := b[2 : 2+int(b[1])]
		switch b[0] {
		case optionType:
			inform = len(v) == 1 && v[0] == typeInform
		case optionList:
			q.listed = true
			for _, o := range v {
				q.wants[o] = true
			}
		}
		b = b[2+len(v):]
	}
	if !inform {
		return ErrRequest
	}
	return nil
}

// Settings are what a client is told.
type Settings struct {
	Server  netip.Addr     // who answers, and the router of the routes
	Routes  []netip.Prefix // of IPv4; others are left out
	DNS     []netip.Addr
	Domains []string
}

// Answer is the DHCPACK as an IPv4 packet, with what the client asked for.
func (q *Inform) Answer(s Settings) []byte {
	b := make([]byte, lenIP+lenUDP+lenBOOTP, 1024)
	m := b[lenIP+lenUDP:]
	m[0] = 2
	copy(m[1:3], q.htype[:])
	copy(m[4:8], q.xid[:])
	copy(m[10:12], q.flags[:])
	copy(m[12:16], q.Client.AsSlice()) // ciaddr; yiaddr stays empty (RFC 2131 §4.3.5)
	copy(m[28:44], q.chaddr[:])
	copy(m[236:240], cookie[:])
	b = append(b, optionType, 1, typeACK, optionServer, 4)
	b = append(b, s.Server.AsSlice()...)
	if q.wanted(optionMask) {
		b = append(b, optionMask, 4, 255, 255, 255, 255)
	}
	var dns []byte
	for _, a := range s.DNS[:min(len(s.DNS), maxServers)] {
		if a.Is4() {
			dns = append(dns, a.AsSlice()...)
		}
	}
	b = q.add(b, optionDNS, dns)
	if len(s.Domains) > 0 && len(s.Domains[0]) <= maxDomain {
		b = q.add(b, optionDomain, []byte(s.Domains[0]))
	}
	routes := routes(s)
	b = q.add(b, optionRoutes, routes)
	b = q.add(b, optionMSRoutes, routes)
	b = append(b, optionEnd)
	if pad := lenIP + lenUDP + 300 - len(b); pad > 0 { // the least that BOOTP relays know
		b = append(b, make([]byte, pad)...)
	}
	return q.headers(b, s.Server)
}

func (q *Inform) wanted(option byte) bool { return !q.listed || q.wants[option] }

// add appends an option, in pieces where it is too long for one (RFC 3396).
func (q *Inform) add(b []byte, option byte, v []byte) []byte {
	if !q.wanted(option) {
		return b
	}
	for len(v) > 0 {
		n := min(len(v), 255)
		b = append(append(b, option, byte(n)), v[:n]...)
		v = v[n:]
	}
	return b
}

// routes are classless static routes (RFC 3442): length, significant octets, router.
func routes(s Settings) (b []byte) {
	for _, p := range s.Routes[:min(len(s.Routes), maxRoutes)] {
		if !p.Addr().Is4() || p.Bits() == 0 {
			continue // the default route is the client's own affair
		}
		a := p.Masked().Addr().As4()
		b = append(b, byte(p.Bits()))
		b = append(b, a[:(p.Bits()+7)/8]...)
		b = append(b, s.Server.AsSlice()...)
	}
	return b
}

// headers fills in the IP and UDP headers.
func (q *Inform) headers(b []byte, from netip.Addr) []byte {
	b[0], b[8], b[9] = 0x45, 64, 17
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	copy(b[12:16], from.AsSlice())
	copy(b[16:20], q.Client.AsSlice())
	binary.BigEndian.PutUint16(b[10:], ^sum(b[:lenIP], 0))
	u := b[lenIP:]
	binary.BigEndian.PutUint16(u, 67)
	binary.BigEndian.PutUint16(u[2:], 68)
	binary.BigEndian.PutUint16(u[4:], uint16(len(u)))
	pseudo := uint32(sum(b[12:20], 17+uint32(len(u))))
	c := ^sum(u, pseudo)
	if c == 0 {
		c = 0xffff
	}
	binary.BigEndian.PutUint16(u[6:], c)
	return b
}

// sum is the Internet checksum's sum (RFC 1071).
func sum(b []byte, s uint32) uint16 {
	for ; len(b) > 1; b = b[2:] {
		s += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

package radius

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// Errors of the codec. They are sentinels: hostile packets cost no formatting.
var (
	ErrShort         = errors.New("radius: packet shorter than its header or its length field")
	ErrLength        = errors.New("radius: length field out of range (RFC 2865 §3: 20 to 4096)")
	ErrAttribute     = errors.New("radius: attribute shorter than 2 octets or beyond the packet's end")
	ErrTooMany       = errors.New("radius: too many attributes")
	ErrTooLong       = errors.New("radius: packet or attribute value too long to be sent")
	ErrAuthenticator = errors.New("radius: wrong Response Authenticator")
	ErrNoMessageAuth = errors.New("radius: no Message-Authenticator (CVE-2024-3596)")
	ErrMessageAuth   = errors.New("radius: wrong Message-Authenticator")
	ErrIdentifier    = errors.New("radius: wrong identifier")
	ErrCode          = errors.New("radius: code is no response to the request")
	ErrPassword      = errors.New("radius: password longer than 128 octets")
	ErrKeys          = errors.New("radius: MS-MPPE keys malformed, or encrypted with another secret")
)

const headerLen = 20

// Attribute is one attribute of a packet: a type and up to MaxValue octets of value.
type Attribute struct {
	Type  Type
	Value []byte
}

// Packet is a RADIUS packet with its attributes in their order (RFC 2865 §3).
type Packet struct {
	Code          Code
	Identifier    uint8
	Authenticator [16]byte
	Attributes    []Attribute
}

// Parse reads a packet. Octets beyond the length field are padding and ignored; the
// attributes' values alias b. Nothing is verified but the form.
func Parse(b []byte) (*Packet, error) {
	b, err := trim(b)
	if err != nil {
		return nil, err
	}
	count := 0
	for rest := b[headerLen:]; len(rest) > 0; count++ {
		if len(rest) < 2 || rest[1] < 2 || int(rest[1]) > len(rest) {
			return nil, ErrAttribute
		}
		if count == MaxAttributes {
			return nil, ErrTooMany
		}
		rest = rest[rest[1]:]
	}
	p := &Packet{Code: Code(b[0]), Identifier: b[1], Attributes: make([]Attribute, 0, count)}
	copy(p.Authenticator[:], b[4:])
	for rest := b[headerLen:]; len(rest) > 0; rest = rest[rest[1]:] {
		p.Attributes = append(p.Attributes, Attribute{Type(rest[0]), rest[2:rest[1]:rest[1]]})
	}
	return p, nil
}

// trim checks the header and cuts padding off.
func trim(b []byte) ([]byte, error) {
	if len(b) < headerLen {
		return nil, ErrShort
	}
	n := int(binary.BigEndian.Uint16(b[2:]))
	if n < headerLen || n > MaxPacket {
		return nil, ErrLength
	}
	if n > len(b) {
		return nil, ErrShort
	}
	return b[:n:n], nil
}

// Append appends the packet's octets to b. Values are written as they are: nothing is
// hidden, signed or computed.
func (p *Packet) Append(b []byte) ([]byte, error) {
	if len(p.Attributes) > MaxAttributes {
		return nil, ErrTooMany
	}
	n := headerLen
	for _, a := range p.Attributes {
		if len(a.Value) > MaxValue {
			return nil, ErrTooLong
		}
		n += 2 + len(a.Value)
	}
	if n > MaxPacket {
		return nil, ErrTooLong
	}
	b = append(b, byte(p.Code), p.Identifier, byte(n>>8), byte(n))
	b = append(b, p.Authenticator[:]...)
	for _, a := range p.Attributes {
		b = append(b, byte(a.Type), byte(2+len(a.Value)))
		b = append(b, a.Value...)
	}
	return b, nil
}

// Add appends an attribute.
func (p *Packet) Add(t Type, value []byte) {
	p.Attributes = append(p.Attributes, Attribute{t, value})
}

// AddString appends an attribute of text.
func (p *Packet) AddString(t Type, s string) { p.Add(t, []byte(s)) }

// AddUint32 appends an attribute of four octets.
func (p *Packet) AddUint32(t Type, v uint32) { p.Add(t, binary.BigEndian.AppendUint32(nil, v)) }

// AddEAP appends an EAP packet as EAP-Message attributes of at most MaxValue octets
// each (RFC 3579 §3.1). An empty one becomes one empty attribute, EAP-Start (§2.1).
func (p *Packet) AddEAP(eap []byte) {
	for len(eap) > MaxValue {
		p.Add(TypeEAPMessage, eap[:MaxValue])
		eap = eap[MaxValue:]
	}
	p.Add(TypeEAPMessage, eap)
}

// Get returns the value of the first attribute of a type.
func (p *Packet) Get(t Type) (value []byte, ok bool) {
	for _, a := range p.Attributes {
		if a.Type == t {
			return a.Value, true
		}
	}
	return nil, false
}

// All returns the values of every attribute of a type, in order.
func (p *Packet) All(t Type) [][]byte {
	var vs [][]byte
	for _, a := range p.Attributes {
		if a.Type == t {
			vs = append(vs, a.Value)
		}
	}
	return vs
}

// EAP joins the EAP-Message attributes (RFC 3579 §3.1); ok says whether there is one.
func (p *Packet) EAP() (eap []byte, ok bool) {
	for _, a := range p.Attributes {
		if a.Type == TypeEAPMessage {
			eap, ok = append(eap, a.Value...), true
		}
	}
	return eap, ok
}

// Uint32 returns the first attribute of a type whose value has four octets.
func (p *Packet) Uint32(t Type) (v uint32, ok bool) {
	if b, found := p.Get(t); found && len(b) == 4 {
		return binary.BigEndian.Uint32(b), true
	}
	return 0, false
}

// Framed4 returns the address that Framed-IP-Address gives to the peer. The two
// values that leave the choice to the peer or to us (RFC 2865 §5.8) are none, and
// neither is an address that no single host can have.
func (p *Packet) Framed4() (netip.Addr, bool) {
	b, ok := p.Get(TypeFramedIPAddress)
	if !ok || len(b) != 4 {
		return netip.Addr{}, false
	}
	a := netip.AddrFrom4([4]byte(b))
	if b[0] == 0 || b[0] >= 224 || a.IsLoopback() { // 255.255.255.254 and .255 are among them
		return netip.Addr{}, false
	}
	return a, true
}

// Framed6 returns the address that Framed-IPv6-Address (RFC 6911 §3.1) gives to the
// peer.
func (p *Packet) Framed6() (netip.Addr, bool) {
	b, ok := p.Get(TypeFramedIPv6Address)
	if !ok || len(b) != 16 {
		return netip.Addr{}, false
	}
	a := netip.AddrFrom16([16]byte(b))
	if a.Is4In6() || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() {
		return netip.Addr{}, false
	}
	return a, true
}

// FramedPrefixes returns the prefixes of the Framed-IPv6-Prefix attributes (RFC 3162
// §2.3); malformed ones are left out.
func (p *Packet) FramedPrefixes() []netip.Prefix {
	var ps []netip.Prefix
	for _, b := range p.All(TypeFramedIPv6Prefix) {
		if len(b) < 2 || len(b) > 18 || b[1] > 128 || (len(b)-2)*8 < int(b[1]) {
			continue
		}
		var a [16]byte
		copy(a[:], b[2:])
		if pre, err := netip.AddrFrom16(a).Prefix(int(b[1])); err == nil {
			ps = append(ps, pre)
		}
	}
	return ps
}

// Vendors with attributes that we read.
const VendorMicrosoft = 311

// Microsoft's attributes (RFC 2548) that we read.
const (
	MSMPPESendKey        = 16
	MSMPPERecvKey        = 17
	MSPrimaryDNSServer   = 28
	MSSecondaryDNSServer = 29
)

// Vendor returns the values of a vendor's attribute in all Vendor-Specific attributes
// (RFC 2865 §5.26) that have the recommended form: one octet of type, one of length.
// Those that don't are left out.
func (p *Packet) Vendor(vendor uint32, t uint8) [][]byte {
	var vs [][]byte
	for _, a := range p.Attributes {
		if a.Type != TypeVendorSpecific || len(a.Value) < 4 || binary.BigEndian.Uint32(a.Value) != vendor {
			continue
		}
		for b := a.Value[4:]; len(b) >= 2 && b[1] >= 2 && int(b[1]) <= len(b); b = b[b[1]:] {
			if b[0] == t {
				vs = append(vs, b[2:b[1]])
			}
		}
	}
	return vs
}

// AddVendor appends a Vendor-Specific attribute with one attribute of the vendor.
func (p *Packet) AddVendor(vendor uint32, t uint8, value []byte) {
	b := binary.BigEndian.AppendUint32(nil, vendor)
	p.Add(TypeVendorSpecific, append(append(b, t, byte(2+len(value))), value...))
}

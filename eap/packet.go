package eap

import (
	"encoding/binary"
	"fmt"
)

// Code is the first byte of a packet (RFC 3748 §4).
type Code uint8

// The codes of RFC 3748 §4.1 and §4.2.
const (
	CodeRequest  Code = 1
	CodeResponse Code = 2
	CodeSuccess  Code = 3
	CodeFailure  Code = 4
)

func (c Code) String() string {
	switch c {
	case CodeRequest:
		return "Request"
	case CodeResponse:
		return "Response"
	case CodeSuccess:
		return "Success"
	case CodeFailure:
		return "Failure"
	}
	return fmt.Sprintf("Code(%d)", uint8(c))
}

// Type is the type of a Request or Response (RFC 3748 §5), a method's name.
type Type uint8

// The types that this package knows.
const (
	TypeIdentity     Type = 1
	TypeNotification Type = 2
	TypeNak          Type = 3
	TypeMD5          Type = 4
	TypeGTC          Type = 6
	TypeTLS          Type = 13
	TypeTTLS         Type = 21
	TypeMSCHAPv2     Type = 26
	TypeExpanded     Type = 254
)

func (t Type) String() string {
	switch t {
	case TypeIdentity:
		return "Identity"
	case TypeNotification:
		return "Notification"
	case TypeNak:
		return "Nak"
	case TypeMD5:
		return "MD5"
	case TypeGTC:
		return "GTC"
	case TypeTLS:
		return "TLS"
	case TypeTTLS:
		return "TTLS"
	case TypeMSCHAPv2:
		return "MSCHAPv2"
	case TypeExpanded:
		return "Expanded"
	}
	return fmt.Sprintf("Type(%d)", uint8(t))
}

// Mutual reports whether a method authenticates the server so well, and derives a
// key, that IKE needs no other proof of the responder (RFC 5998 §4). MSCHAPv2 does
// not count: who knows or guesses the password's hash can play the server.
func (t Type) Mutual() bool { return t == TypeTLS || t == TypeTTLS }

// DerivesKey reports whether a method yields an MSK.
func (t Type) DerivesKey() bool { return t == TypeMSCHAPv2 || t == TypeTLS || t == TypeTTLS }

// tunnel reports whether the method's messages are fragments of TLS records.
func (t Type) tunnel() bool { return t == TypeTLS || t == TypeTTLS }

// Packet is an EAP packet (RFC 3748 §4). A Success or Failure has neither Type nor
// Data.
//
//	+--------+------------+---------------+--------+--------
//	|  Code  | Identifier |    Length     |  Type  | Data …
//	+--------+------------+---------------+--------+--------
type Packet struct {
	Code       Code
	Identifier uint8
	Type       Type
	Data       []byte
}

const (
	headerLen     = 4
	typeHeaderLen = 5
)

// ParsePacket takes a packet apart. Data is a part of b. The errors wrap
// ErrMalformed.
//
// Deviates: RFC 3748 §4 lets octets behind Length be padding. IKE's EAP payload and
// TTLS's AVP have lengths of their own, so a difference is an error here.
func ParsePacket(b []byte) (Packet, error) {
	if len(b) < headerLen {
		return Packet{}, malformed("packet shorter than its header")
	}
	if int(binary.BigEndian.Uint16(b[2:])) != len(b) {
		return Packet{}, malformed("length field is not the packet's length")
	}
	p := Packet{Code: Code(b[0]), Identifier: b[1]}
	switch p.Code {
	case CodeRequest, CodeResponse:
		if len(b) < typeHeaderLen {
			return Packet{}, malformed("request or response without a type")
		}
		p.Type, p.Data = Type(b[4]), b[typeHeaderLen:len(b):len(b)]
		if p.Type == 0 {
			return Packet{}, malformed("type 0")
		}
	case CodeSuccess, CodeFailure:
		if len(b) != headerLen {
			return Packet{}, malformed("success or failure with data")
		}
	default:
		return Packet{}, malformed("unknown code")
	}
	return p, nil
}

// Append writes the packet behind b. Data must leave the length within 16 bits.
func (p Packet) Append(b []byte) []byte {
	n := headerLen
	if p.Code == CodeRequest || p.Code == CodeResponse {
		n = typeHeaderLen + len(p.Data)
	}
	b = append(b, byte(p.Code), p.Identifier, byte(n>>8), byte(n))
	if n > headerLen {
		b = append(append(b, byte(p.Type)), p.Data...)
	}
	return b
}

// desired lists the methods of a Nak (RFC 3748 §5.3), legacy or expanded; ok is
// false if the response is no Nak or not well formed. Methods of other vendors are
// left out.
func (p Packet) desired() (types []Type, ok bool) {
	switch p.Type {
	case TypeNak:
		for _, t := range p.Data {
			types = append(types, Type(t))
		}
		return types, len(p.Data) > 0
	case TypeExpanded:
		// Vendor (3 bytes) and type (4 bytes), then 8 bytes a method of which the
		// first says again that it is expanded.
		const expandedNak = "\x00\x00\x00\x00\x00\x00\x03"
		if len(p.Data) < 15 || len(p.Data)%8 != 7 || string(p.Data[:7]) != expandedNak {
			return nil, false
		}
		for d := p.Data[7:]; len(d) >= 8; d = d[8:] {
			if d[0] == byte(TypeExpanded) && string(d[1:7]) == expandedNak[:6] {
				types = append(types, Type(d[7]))
			}
		}
		return types, true
	}
	return nil, false
}

package eap

import "encoding/binary"

// AVP is an attribute inside a TTLS tunnel, in Diameter's format (RFC 5281 §10.1).
//
//	+---------------------------------------------------------------+
//	|                           AVP Code                            |
//	+---------------+-----------------------------------------------+
//	|V M r r r r r r|                  AVP Length                   |
//	+---------------+-----------------------------------------------+
//	|                     Vendor-ID (if V is set)                   |
//	+---------------------------------------------------------------+
//	|    Data, padded to four bytes that Length doesn't count …
type AVP struct {
	Code   uint32
	Vendor uint32 // 0 for the codes of RADIUS and Diameter
	// Mandatory: who doesn't know the AVP must fail.
	Mandatory bool
	Data      []byte
}

const (
	avpVendor    = 0x80
	avpMandatory = 0x40
	avpHeaderLen = 8

	// Codes of RFC 5281 §11.2.
	avpUserName        = 1
	avpUserPassword    = 2
	avpEAPMessage      = 79
	vendorMicrosoft    = 311
	avpChallenge       = 11 // MS-CHAP-Challenge
	avpMSCHAP2Response = 25
	avpMSCHAP2Success  = 26
)

// ParseAVPs takes the AVPs of one TTLS message apart. Their Data are parts of b. The
// errors wrap ErrMalformed or ErrLimit.
func ParseAVPs(b []byte) ([]AVP, error) {
	var avps []AVP
	for len(b) > 0 {
		if len(avps) == maxAVPs {
			return nil, limit("too many AVPs")
		}
		if len(b) < avpHeaderLen {
			return nil, malformed("AVP header cut off")
		}
		a := AVP{Code: binary.BigEndian.Uint32(b), Mandatory: b[4]&avpMandatory != 0}
		header, n := avpHeaderLen, int(binary.BigEndian.Uint32(b[4:])&0xffffff)
		if b[4]&avpVendor != 0 {
			header += 4
		}
		if n < header || n > len(b) {
			return nil, malformed("AVP length")
		}
		if header > avpHeaderLen {
			a.Vendor = binary.BigEndian.Uint32(b[8:])
		}
		a.Data = b[header:n:n]
		avps = append(avps, a)
		// The padding of the last AVP is missing from some senders.
		b = b[min((n+3)&^3, len(b)):]
	}
	return avps, nil
}

// Append writes the AVP and its padding behind b.
func (a AVP) Append(b []byte) []byte {
	flags, n := uint32(0), avpHeaderLen+len(a.Data)
	if a.Mandatory {
		flags |= avpMandatory << 24
	}
	if a.Vendor != 0 {
		flags |= avpVendor << 24
		n += 4
	}
	b = binary.BigEndian.AppendUint32(b, a.Code)
	b = binary.BigEndian.AppendUint32(b, flags|uint32(n))
	if a.Vendor != 0 {
		b = binary.BigEndian.AppendUint32(b, a.Vendor)
	}
	b = append(b, a.Data...)
	return append(b, make([]byte, -n&3)...)
}

func appendAVPs(avps ...AVP) []byte {
	var b []byte
	for _, a := range avps {
		a.Mandatory = true
		b = a.Append(b)
	}
	return b
}

// phase2AVPs is what a TTLS message says, in the form that the machines want.
type phase2AVPs struct {
	eap                []byte // joined EAP-Message AVPs
	userName, password []byte
	challenge          []byte
	response, success  []byte
}

// sortAVPs refuses AVPs that appear twice and unknown ones that are mandatory. Only
// EAP-Message may be repeated: some split the packet as RADIUS does.
func sortAVPs(b []byte) (phase2AVPs, error) {
	avps, err := ParseAVPs(b)
	var s phase2AVPs
	for _, a := range avps {
		var field *[]byte
		switch [2]uint32{a.Vendor, a.Code} {
		case [2]uint32{0, avpEAPMessage}:
			if len(s.eap)+len(a.Data) > maxInnerPacket {
				return s, limit("EAP packet inside TTLS too long")
			}
			s.eap = append(s.eap, a.Data...)
			continue
		case [2]uint32{0, avpUserName}:
			field = &s.userName
		case [2]uint32{0, avpUserPassword}:
			field = &s.password
		case [2]uint32{vendorMicrosoft, avpChallenge}:
			field = &s.challenge
		case [2]uint32{vendorMicrosoft, avpMSCHAP2Response}:
			field = &s.response
		case [2]uint32{vendorMicrosoft, avpMSCHAP2Success}:
			field = &s.success
		default:
			if a.Mandatory {
				return s, unexpected("mandatory AVP that we don't know")
			}
			continue
		}
		if *field != nil {
			return s, malformed("AVP twice")
		}
		*field = a.Data
	}
	return s, err
}

package wire

import "encoding/binary"

// V1Payload is one payload of an IKEv1 message: its type and its body, the bytes
// behind the generic header. Bodies stay as they came since hashes and signatures
// of IKEv1 cover them (RFC 2409 §5); the ParseV1 functions read them.
type V1Payload struct {
	Type PayloadType
	Body []byte
}

// MaxV1Payloads bounds the payloads of one IKEv1 message: a peer sends up to some
// thirty vendor IDs.
const MaxV1Payloads = 64

// ParseV1Chain parses the payloads of an IKEv1 message (RFC 2408 §3.2), b being what
// follows the header, decrypted if it was encrypted. It returns also how many bytes
// the chain takes; what follows is padding, which the caller judges.
func ParseV1Chain(first PayloadType, b []byte) (list []V1Payload, used int, err error) {
	for t := first; t != PayloadNone; {
		switch {
		case len(list) == MaxV1Payloads:
			return nil, 0, &ParseError{Offset: used, Payload: t, Err: ErrTooMany}
		case len(b)-used < payloadHeaderLen:
			return nil, 0, &ParseError{Offset: used, Payload: t, Err: ErrShort}
		case b[used+1] != 0:
			// RESERVED must be zero, and one that isn't is the surest sign of a wrong key
			// (RFC 2408 §5.3).
			return nil, 0, &ParseError{Offset: used + 1, Payload: t, Err: ErrReserved}
		}
		length := int(binary.BigEndian.Uint16(b[used+2:]))
		switch {
		case length < payloadHeaderLen:
			return nil, 0, &ParseError{Offset: used + 2, Payload: t, Err: ErrLength}
		case length > len(b)-used:
			return nil, 0, &ParseError{Offset: used + 2, Payload: t, Err: ErrShort}
		}
		list = append(list, V1Payload{Type: t, Body: b[used+payloadHeaderLen : used+length : used+length]})
		t = PayloadType(b[used])
		used += length
	}
	return list, used, nil
}

// AppendV1Chain appends the chain to dst and returns the type of the first payload.
// It panics when a body does not fit its length field.
func AppendV1Chain(dst []byte, list []V1Payload) (first PayloadType, out []byte) {
	for i, p := range list {
		next := PayloadNone
		if i+1 < len(list) {
			next = list[i+1].Type
		}
		if len(p.Body) > 0xffff-payloadHeaderLen {
			panic(ErrTooLarge)
		}
		dst = append(dst, byte(next), 0)
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(p.Body)+payloadHeaderLen))
		dst = append(dst, p.Body...)
	}
	if len(list) == 0 {
		return PayloadNone, dst
	}
	return list[0].Type, dst
}

// AppendV1Message appends a message in the clear; it fills in NextPayload and Length.
func AppendV1Message(dst []byte, h Header, list []V1Payload) []byte {
	start := len(dst)
	dst = h.Append(dst)
	first, dst := AppendV1Chain(dst, list)
	if len(dst)-start > MaxMessageLen {
		panic(ErrTooLarge)
	}
	dst[start+16] = byte(first)
	binary.BigEndian.PutUint32(dst[start+24:], uint32(len(dst)-start))
	return dst
}

// V1Attribute is a data attribute (RFC 2408 §3.3): Value of a basic one is its two
// bytes.
type V1Attribute struct {
	Type  uint16
	Basic bool
	Value []byte
}

// MaxV1Attributes bounds the attributes of one transform or of one Attributes payload.
const MaxV1Attributes = 128

// Basic16 makes a basic attribute.
func Basic16(t, v uint16) V1Attribute {
	return V1Attribute{Type: t, Basic: true, Value: binary.BigEndian.AppendUint16(nil, v)}
}

// Uint is the value as a number; false: it has none that fits 64 bits.
func (a V1Attribute) Uint() (uint64, bool) {
	if len(a.Value) == 0 || len(a.Value) > 8 {
		return 0, false
	}
	var n uint64
	for _, b := range a.Value {
		n = n<<8 | uint64(b)
	}
	return n, true
}

func parseV1Attributes(c *cursor) (list []V1Attribute) {
	for c.left() > 0 && c.err == nil {
		if len(list) == MaxV1Attributes {
			c.fail(c.pos, ErrTooMany)
			return nil
		}
		t := c.u16()
		a := V1Attribute{Type: t &^ attributeFixedFormat, Basic: t&attributeFixedFormat != 0}
		if a.Basic {
			a.Value = c.take(2)
		} else {
			a.Value = c.take(int(c.u16()))
		}
		list = append(list, a)
	}
	return list
}

func appendV1Attributes(w *builder, list []V1Attribute) {
	for _, a := range list {
		if a.Basic {
			w.u16(a.Type&^attributeFixedFormat | attributeFixedFormat)
			w.bytes(a.Value[:2])
			continue
		}
		w.u16(a.Type &^ attributeFixedFormat)
		w.count16(len(a.Value))
		w.bytes(a.Value)
	}
}

// V1SA is the Security Association payload (RFC 2407 §4.6.1) of the IPsec DOI.
type V1SA struct {
	Situation uint32
	Proposals []V1Proposal
}

// V1Proposal is one proposal (RFC 2408 §3.5): its transforms are alternatives.
// Proposals of the same number belong together.
type V1Proposal struct {
	Number     uint8
	Protocol   ProtocolID
	SPI        []byte
	Transforms []V1Transform
}

// V1Transform is one transform (RFC 2408 §3.6).
type V1Transform struct {
	Number, ID uint8
	Attributes []V1Attribute
}

// Attribute is the first attribute of that type as a number.
func (t *V1Transform) Attribute(kind uint16) (uint64, bool) {
	for _, a := range t.Attributes {
		if a.Type == kind {
			return a.Uint()
		}
	}
	return 0, false
}

// The DOI of IPsec and its situation (RFC 2407 §4.2).
const (
	V1DOI                   = 1
	V1SituationIdentityOnly = 1
)

// ParseV1SA reads the body of an SA payload.
func ParseV1SA(body []byte) (*V1SA, error) {
	c := cursor{b: body, end: len(body)}
	if doi := c.u32(); doi != V1DOI && c.err == nil {
		c.fail(0, ErrReserved)
	}
	p := &V1SA{Situation: c.u32()}
	if p.Situation != V1SituationIdentityOnly {
		c.fail(4, ErrReserved) // others are followed by labels (RFC 2407 §4.6.1)
	}
	total := 0
	for next := PayloadV1Proposal; next == PayloadV1Proposal && c.err == nil; {
		if len(p.Proposals) == MaxProposals {
			c.fail(c.pos, ErrTooMany)
			break
		}
		s := c.v1Substructure(&next)
		x := V1Proposal{Number: s.u8(), Protocol: ProtocolID(s.u8())}
		size, count := int(s.u8()), int(s.u8())
		x.SPI = s.take(size)
		if total += count; total > MaxTransforms {
			s.fail(s.pos, ErrTooMany)
		}
		for range count {
			var more PayloadType
			t := s.v1Substructure(&more)
			y := V1Transform{Number: t.u8(), ID: t.u8()}
			t.skip(2)
			y.Attributes = parseV1Attributes(&t)
			s.join(&t)
			if s.err != nil {
				break
			}
			x.Transforms = append(x.Transforms, y)
		}
		c.join(&s)
		p.Proposals = append(p.Proposals, x)
	}
	if c.err == nil && c.left() != 0 {
		c.fail(c.pos, ErrTrailing)
	}
	if c.err != nil {
		return nil, &ParseError{Offset: c.errAt, Payload: PayloadV1SA, Err: c.err}
	}
	return p, nil
}

// v1Substructure reads the generic header of a proposal or transform and cuts off its body.
func (c *cursor) v1Substructure(next *PayloadType) cursor {
	*next = PayloadType(c.u8())
	c.skip(1)
	return c.sub(int(c.u16()) - payloadHeaderLen)
}

// Payload is the payload with the SA's body.
func (p *V1SA) Payload() V1Payload {
	var w builder
	w.u32(V1DOI)
	w.u32(V1SituationIdentityOnly)
	for i, x := range p.Proposals {
		start := w.v1Header(i+1 < len(p.Proposals), PayloadV1Proposal)
		w.u8(x.Number)
		w.u8(uint8(x.Protocol))
		w.count8(len(x.SPI))
		w.count8(len(x.Transforms))
		w.bytes(x.SPI)
		for j, t := range x.Transforms {
			at := w.v1Header(j+1 < len(x.Transforms), PayloadV1Transform)
			w.u8(t.Number)
			w.u8(t.ID)
			w.reserved(2)
			appendV1Attributes(&w, t.Attributes)
			w.patch16(at+2, len(w.b)-at)
		}
		w.patch16(start+2, len(w.b)-start)
	}
	if w.err != nil {
		panic(w.err)
	}
	return V1Payload{PayloadV1SA, w.b}
}

func (w *builder) v1Header(more bool, t PayloadType) (start int) {
	start = len(w.b)
	if !more {
		t = PayloadNone
	}
	w.u8(uint8(t))
	w.reserved(1)
	w.u16(0)
	return start
}

// V1ID is the Identification payload (RFC 2407 §4.6.2).
type V1ID struct {
	Type     IDType
	Protocol uint8
	Port     uint16
	Data     []byte
}

// ParseV1ID reads the body of an ID payload.
func ParseV1ID(body []byte) (V1ID, error) {
	c := cursor{b: body, end: len(body)}
	p := V1ID{Type: IDType(c.u8()), Protocol: c.u8(), Port: c.u16(), Data: c.rest()}
	if c.err != nil {
		return V1ID{}, &ParseError{Offset: c.errAt, Payload: PayloadV1ID, Err: c.err}
	}
	return p, nil
}

// Payload is the payload.
func (p V1ID) Payload() V1Payload {
	b := append([]byte{byte(p.Type), p.Protocol}, byte(p.Port>>8), byte(p.Port))
	return V1Payload{PayloadV1ID, append(b, p.Data...)}
}

// V1Notify is the Notification payload (RFC 2408 §3.14).
type V1Notify struct {
	Protocol ProtocolID
	SPI      []byte
	Type     V1NotifyType
	Data     []byte
}

// ParseV1Notify reads the body of a Notification payload.
func ParseV1Notify(body []byte) (V1Notify, error) {
	c := cursor{b: body, end: len(body)}
	c.skip(4) // the DOI: some send 0
	p := V1Notify{Protocol: ProtocolID(c.u8())}
	size := int(c.u8())
	p.Type = V1NotifyType(c.u16())
	p.SPI = c.take(size)
	p.Data = c.rest()
	if c.err != nil {
		return V1Notify{}, &ParseError{Offset: c.errAt, Payload: PayloadV1Notification, Err: c.err}
	}
	return p, nil
}

// Payload is the payload.
func (p V1Notify) Payload() V1Payload {
	var w builder
	w.u32(V1DOI)
	w.u8(uint8(p.Protocol))
	w.count8(len(p.SPI))
	w.u16(uint16(p.Type))
	w.bytes(p.SPI)
	w.bytes(p.Data)
	if w.err != nil {
		panic(w.err)
	}
	return V1Payload{PayloadV1Notification, w.b}
}

// V1Delete is the Delete payload (RFC 2408 §3.15). SPIs of ProtocolIKE are cookie
// pairs of 16 bytes.
type V1Delete struct {
	Protocol ProtocolID
	SPIs     [][]byte
}

// MaxV1DeleteSPIs bounds the SPIs of one Delete payload.
const MaxV1DeleteSPIs = 1024

// ParseV1Delete reads the body of a Delete payload.
func ParseV1Delete(body []byte) (V1Delete, error) {
	c := cursor{b: body, end: len(body)}
	c.skip(4)
	p := V1Delete{Protocol: ProtocolID(c.u8())}
	size, n := int(c.u8()), int(c.u16())
	switch {
	case c.err != nil:
	case size == 0 || n == 0 || n > MaxV1DeleteSPIs:
		c.fail(5, ErrTooMany)
	case n*size != c.left():
		c.fail(6, ErrCount)
	default:
		for range n {
			p.SPIs = append(p.SPIs, c.take(size))
		}
	}
	if c.err != nil {
		return V1Delete{}, &ParseError{Offset: c.errAt, Payload: PayloadV1Delete, Err: c.err}
	}
	return p, nil
}

// Payload is the payload; all SPIs have one length.
func (p V1Delete) Payload() V1Payload {
	var w builder
	w.u32(V1DOI)
	w.u8(uint8(p.Protocol))
	size := 0
	if len(p.SPIs) > 0 {
		size = len(p.SPIs[0])
	}
	w.count8(size)
	w.count16(len(p.SPIs))
	for _, spi := range p.SPIs {
		w.bytes(spi)
	}
	if w.err != nil {
		panic(w.err)
	}
	return V1Payload{PayloadV1Delete, w.b}
}

// V1Attributes is the Attributes payload of Mode Config and XAUTH
// (draft-dukes-ike-mode-cfg-02 §3.2).
type V1Attributes struct {
	CFGType    CFGType
	Identifier uint16
	Attributes []V1Attribute
}

// ParseV1Attributes reads the body of an Attributes payload.
func ParseV1Attributes(body []byte) (*V1Attributes, error) {
	c := cursor{b: body, end: len(body)}
	p := &V1Attributes{CFGType: CFGType(c.u8())}
	c.skip(1)
	p.Identifier = c.u16()
	p.Attributes = parseV1Attributes(&c)
	if c.err != nil {
		return nil, &ParseError{Offset: c.errAt, Payload: PayloadV1Attributes, Err: c.err}
	}
	return p, nil
}

// Payload is the payload.
func (p *V1Attributes) Payload() V1Payload {
	var w builder
	w.u8(uint8(p.CFGType))
	w.reserved(1)
	w.u16(p.Identifier)
	appendV1Attributes(&w, p.Attributes)
	if w.err != nil {
		panic(w.err)
	}
	return V1Payload{PayloadV1Attributes, w.b}
}

// V1Fragment is the Fragment payload of Cisco and Microsoft ([MS-IKEE] §2.2.2.1): a
// part of a whole message, header and all. It comes in the clear, alone in a message
// whose message ID and exchange type mean nothing.
type V1Fragment struct {
	ID     uint16 // of the message that it is a part of
	Number uint8  // from 1
	Last   bool
	Data   []byte
}

// V1FragmentOverhead is what a Fragment payload takes beside its data.
const V1FragmentOverhead = payloadHeaderLen + 4

// ParseV1Fragment reads the body of a Fragment payload.
func ParseV1Fragment(body []byte) (V1Fragment, error) {
	c := cursor{b: body, end: len(body)}
	p := V1Fragment{ID: c.u16(), Number: c.u8(), Last: c.u8()&1 != 0, Data: c.rest()}
	if c.err == nil && (p.Number == 0 || len(p.Data) == 0) {
		c.fail(2, ErrCount)
	}
	if c.err != nil {
		return V1Fragment{}, &ParseError{Offset: c.errAt, Payload: PayloadV1Fragment, Err: c.err}
	}
	return p, nil
}

// Payload is the payload.
func (p V1Fragment) Payload() V1Payload {
	b := append(make([]byte, 0, 4+len(p.Data)), byte(p.ID>>8), byte(p.ID), p.Number, 0)
	if p.Last {
		b[3] = 1
	}
	return V1Payload{PayloadV1Fragment, append(b, p.Data...)}
}

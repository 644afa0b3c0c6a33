package wire

// CP is the Configuration payload (RFC 7296 section 3.15).
type CP struct {
	Critical   bool
	CFGType    CFGType
	Attributes []Attribute
}

// Attribute is one configuration attribute (RFC 7296 section 3.15.1). In a
// request an empty Value asks for any.
type Attribute struct {
	Type  AttributeType
	Value []byte
}

// CFGType says what a Configuration payload wants.
type CFGType uint8

// The configuration types (RFC 7296 section 3.15).
const (
	CFGRequest CFGType = 1
	CFGReply   CFGType = 2
	CFGSet     CFGType = 3
	CFGAck     CFGType = 4
)

var cfgTypeNames = map[CFGType]string{
	CFGRequest: "CFG_REQUEST",
	CFGReply:   "CFG_REPLY",
	CFGSet:     "CFG_SET",
	CFGAck:     "CFG_ACK",
}

// String is the name in the registry.
func (t CFGType) String() string { return name(cfgTypeNames, t, "CFGType") }

// attributeTypeMask clears the reserved bit in front of the attribute's type.
const attributeTypeMask = 0x7fff

// Type is PayloadCP.
func (p *CP) Type() PayloadType { return PayloadCP }
func (p *CP) critical() bool    { return p.Critical }

func parseCP(c *cursor, crit bool) Payload {
	p := &CP{Critical: crit, CFGType: CFGType(c.u8())}
	c.skip(3)
	n := 0
	for s := *c; ; n++ {
		if s.err != nil {
			c.fail(s.errAt, s.err)
			return p
		}
		if s.left() == 0 {
			break
		}
		if n == MaxAttributes {
			c.fail(s.pos, ErrTooMany)
			return p
		}
		s.skip(2)
		s.skip(int(s.u16()))
	}
	if n == 0 {
		return p
	}
	p.Attributes = make([]Attribute, n)
	for i := range p.Attributes {
		p.Attributes[i].Type = AttributeType(c.u16() & attributeTypeMask)
		p.Attributes[i].Value = c.take(int(c.u16()))
	}
	return p
}

func (p *CP) appendBody(w *builder) {
	w.u8(uint8(p.CFGType))
	w.reserved(3)
	for _, a := range p.Attributes {
		w.u16(uint16(a.Type) & attributeTypeMask)
		w.count16(len(a.Value))
		w.bytes(a.Value)
	}
}

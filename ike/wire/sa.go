package wire

// SA is the Security Association payload (RFC 7296 section 3.3): proposals in
// the sender's order of preference.
type SA struct {
	Critical  bool
	Proposals []Proposal
}

// Proposal is one proposal of an SA payload (RFC 7296 section 3.3.1). Its
// transforms of one type are alternatives, its types are all needed.
type Proposal struct {
	// Number counts from 1 in a request; a response repeats the number of the
	// proposal that it accepts.
	Number   uint8
	Protocol ProtocolID
	// SPI is the sender's: empty in the first IKE SA, 8 bytes when an IKE SA is
	// rekeyed, 4 bytes for ESP and AH.
	SPI        []byte
	Transforms []Transform
}

// Transform is one transform of a proposal (RFC 7296 section 3.3.2).
type Transform struct {
	// Type is one of the TransformType constants or a number unknown here.
	Type uint8
	// ID is the algorithm, in the registry of Type.
	ID uint16
	// KeyLength is the Key Length attribute in bits, zero when there is none.
	KeyLength uint16
	// RawAttributes is set by parsing only, and only when the attributes are
	// anything but a single well-formed Key Length: the bytes of all of them.
	// When building it takes the place of KeyLength.
	RawAttributes []byte
}

// UnknownAttribute reports whether the transform bears attributes that are not
// understood. Such a transform must not be chosen, the other ones of its type
// can be (RFC 7296 section 3.3.6).
func (t *Transform) UnknownAttribute() bool { return t.RawAttributes != nil }

// The transform types (RFC 7296 section 3.3.2, RFC 9370 section 2.1). Type 5
// was ESN; the IANA registry now says SN, sequence numbers.
const (
	TransformTypeENCR   uint8 = 1
	TransformTypePRF    uint8 = 2
	TransformTypeINTEG  uint8 = 3
	TransformTypeKE     uint8 = 4
	TransformTypeESN    uint8 = 5
	TransformTypeADDKE1 uint8 = 6
	TransformTypeADDKE7 uint8 = 12
)

const (
	lastSubstructure     = 0
	moreProposals        = 2
	moreTransforms       = 3
	proposalHeaderLen    = 8
	transformHeaderLen   = 8
	attributeKeyLength   = 14
	attributeFixedFormat = 0x8000
)

// Type is PayloadSA.
func (p *SA) Type() PayloadType { return PayloadSA }
func (p *SA) critical() bool    { return p.Critical }

func parseSA(c *cursor, crit bool) Payload {
	n := countSubstructures(*c, proposalHeaderLen, moreProposals, MaxProposals, c)
	if c.err != nil {
		return nil
	}
	p := &SA{Critical: crit, Proposals: make([]Proposal, n)}
	for i := range p.Proposals {
		c.skip(2)
		s := c.sub(int(c.u16()) - 4)
		parseProposal(&s, &p.Proposals[i])
		c.join(&s)
	}
	return p
}

func parseProposal(c *cursor, p *Proposal) {
	p.Number = c.u8()
	p.Protocol = ProtocolID(c.u8())
	spiLen := int(c.u8())
	countAt := c.pos
	count := int(c.u8())
	p.SPI = c.take(spiLen)
	if c.err != nil {
		return
	}
	n := 0
	if c.left() > 0 {
		n = countSubstructures(*c, transformHeaderLen, moreTransforms, MaxTransforms, c)
	}
	if n != count {
		c.fail(countAt, ErrCount)
	}
	if c.err != nil || n == 0 {
		return
	}
	p.Transforms = make([]Transform, n)
	for i := range p.Transforms {
		c.skip(2)
		s := c.sub(int(c.u16()) - 4)
		parseTransform(&s, &p.Transforms[i])
		c.join(&s)
	}
}

// countSubstructures walks over proposals or transforms in c, checks their
// lengths and their last/more octets, and reports an error into out.
func countSubstructures(c cursor, minLen int, more uint8, limit int, out *cursor) int {
	n := 0
	for marker := more; marker == more; n++ {
		if n == limit {
			out.fail(c.pos, ErrTooMany)
			return 0
		}
		at := c.pos
		marker = c.u8()
		c.skip(1)
		length := int(c.u16())
		if c.err == nil && length < minLen {
			c.fail(at+2, ErrLength)
		}
		c.skip(length - 4)
		if c.err != nil {
			out.fail(c.errAt, c.err)
			return 0
		}
		if marker != more && marker != lastSubstructure {
			out.fail(at, ErrReserved)
			return 0
		}
	}
	if c.left() != 0 {
		out.fail(c.pos, ErrCount)
	}
	return n
}

func parseTransform(c *cursor, t *Transform) {
	t.Type = c.u8()
	c.skip(1)
	t.ID = c.u16()
	raw := *c
	n, known := 0, true
	for ; c.left() > 0 && c.err == nil; n++ {
		if n == MaxTransformAttributes {
			c.fail(c.pos, ErrTooMany)
			return
		}
		kind, value := c.u16(), c.u16()
		switch {
		case kind == attributeFixedFormat|attributeKeyLength && t.KeyLength == 0 && value != 0:
			t.KeyLength = value
		case kind&attributeFixedFormat != 0:
			known = false
		default:
			known = false
			c.skip(int(value))
		}
	}
	if !known && c.err == nil {
		t.RawAttributes = raw.rest()
	}
}

func (p *SA) appendBody(w *builder) {
	for i := range p.Proposals {
		start := len(w.b)
		w.u8(marker(i, len(p.Proposals), moreProposals))
		w.reserved(1)
		w.u16(0)
		p.Proposals[i].append(w)
		w.patch16(start+2, len(w.b)-start)
	}
}

func (p *Proposal) append(w *builder) {
	w.u8(p.Number)
	w.u8(uint8(p.Protocol))
	w.count8(len(p.SPI))
	w.count8(len(p.Transforms))
	w.bytes(p.SPI)
	for i := range p.Transforms {
		t := &p.Transforms[i]
		start := len(w.b)
		w.u8(marker(i, len(p.Transforms), moreTransforms))
		w.reserved(1)
		w.u16(0)
		w.u8(t.Type)
		w.reserved(1)
		w.u16(t.ID)
		if t.RawAttributes != nil {
			w.bytes(t.RawAttributes)
		} else if t.KeyLength != 0 {
			w.u16(attributeFixedFormat | attributeKeyLength)
			w.u16(t.KeyLength)
		}
		w.patch16(start+2, len(w.b)-start)
	}
}

func marker(i, n int, more uint8) uint8 {
	if i+1 == n {
		return lastSubstructure
	}
	return more
}

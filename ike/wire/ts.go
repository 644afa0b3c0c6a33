package wire

import "net/netip"

// TS is a Traffic Selector payload, TSi or TSr (RFC 7296 section 3.13).
type TS struct {
	Critical bool
	// Kind is PayloadTSi or PayloadTSr.
	Kind      PayloadType
	Selectors []TrafficSelector
}

// TrafficSelector is one selector of a TS payload (RFC 7296 section 3.13.1).
type TrafficSelector struct {
	Type TSType
	// Protocol is the IP protocol, zero for any.
	Protocol uint8
	// StartPort and EndPort are inclusive; 0 to 65535 is any, 65535 to 0 is
	// OPAQUE (RFC 7296 section 3.13.1). For ICMP they hold type and code.
	StartPort, EndPort uint16
	// Start and End are inclusive and of the family that Type says, never
	// IPv4-mapped. Their order is not checked here.
	Start, End netip.Addr
	// Raw is set for every Type but the two address ranges: all bytes behind
	// the selector's length field. The fields above, but Type and Protocol,
	// are then zero.
	Raw []byte
}

// TSType is the kind of a traffic selector.
type TSType uint8

// The traffic selector types (RFC 7296 section 3.13.1, RFC 4595, RFC 9478).
const (
	TSIPv4AddrRange TSType = 7
	TSIPv6AddrRange TSType = 8
	TSFCAddrRange   TSType = 9
	TSSecLabel      TSType = 10
)

var tsTypeNames = map[TSType]string{
	TSIPv4AddrRange: "TS_IPV4_ADDR_RANGE",
	TSIPv6AddrRange: "TS_IPV6_ADDR_RANGE",
	TSFCAddrRange:   "TS_FC_ADDR_RANGE",
	TSSecLabel:      "TS_SECLABEL",
}

// String is the name in the registry.
func (t TSType) String() string { return name(tsTypeNames, t, "TSType") }

const selectorHeaderLen = 4

// addrLen is zero for types that are not address ranges.
func (t TSType) addrLen() int {
	switch t {
	case TSIPv4AddrRange:
		return 4
	case TSIPv6AddrRange:
		return 16
	}
	return 0
}

// Type is Kind.
func (p *TS) Type() PayloadType { return p.Kind }
func (p *TS) critical() bool    { return p.Critical }

// FindTS returns the first TS payload of the kind, PayloadTSi or PayloadTSr, or
// nil.
func FindTS(payloads []Payload, kind PayloadType) *TS {
	for _, p := range payloads {
		if ts, ok := p.(*TS); ok && ts.Kind == kind {
			return ts
		}
	}
	return nil
}

func parseTS(c *cursor, t PayloadType, crit bool) Payload {
	p := &TS{Critical: crit, Kind: t}
	countAt := c.pos
	count := int(c.u8())
	c.skip(3)
	n := countSelectors(*c, c)
	if n != count {
		c.fail(countAt, ErrCount)
	}
	if c.err != nil || n == 0 {
		return p
	}
	p.Selectors = make([]TrafficSelector, n)
	for i := range p.Selectors {
		s := &p.Selectors[i]
		s.Type = TSType(c.u8())
		s.Protocol = c.u8()
		body := c.sub(int(c.u16()) - selectorHeaderLen)
		parseSelector(&body, s)
		c.join(&body)
	}
	return p
}

// countSelectors walks over the selectors in c by their lengths and reports an
// error into out.
func countSelectors(c cursor, out *cursor) int {
	n := 0
	for ; c.left() > 0; n++ {
		if n == MaxSelectors {
			c.fail(c.pos, ErrTooMany)
			break
		}
		c.skip(2)
		at := c.pos
		length := int(c.u16())
		if c.err == nil && length < selectorHeaderLen {
			c.fail(at, ErrLength)
		}
		c.skip(length - selectorHeaderLen)
		if c.err != nil {
			break
		}
	}
	if c.err != nil {
		out.fail(c.errAt, c.err)
	}
	return n
}

func parseSelector(c *cursor, s *TrafficSelector) {
	n := s.Type.addrLen()
	if n == 0 {
		s.Raw = c.rest()
		return
	}
	if c.left() != 4+2*n {
		c.fail(c.pos-2, ErrLength)
		return
	}
	s.StartPort, s.EndPort = c.u16(), c.u16()
	s.Start, _ = netip.AddrFromSlice(c.take(n))
	s.End, _ = netip.AddrFromSlice(c.take(n))
}

func (p *TS) appendBody(w *builder) {
	if p.Kind != PayloadTSi && p.Kind != PayloadTSr {
		w.fail(ErrKind)
	}
	w.count8(len(p.Selectors))
	w.reserved(3)
	for i := range p.Selectors {
		p.Selectors[i].append(w)
	}
}

func (s *TrafficSelector) append(w *builder) {
	start := len(w.b)
	w.u8(uint8(s.Type))
	w.u8(s.Protocol)
	w.u16(0)
	if n := s.Type.addrLen(); n == 0 {
		w.bytes(s.Raw)
	} else {
		w.u16(s.StartPort)
		w.u16(s.EndPort)
		w.addr(s.Start, n)
		w.addr(s.End, n)
	}
	w.patch16(start+2, len(w.b)-start)
}

// addr appends a as n bytes; one of the other family cannot be built.
func (w *builder) addr(a netip.Addr, n int) {
	if a.BitLen() != 8*n {
		w.fail(ErrKind)
		return
	}
	if n == 4 {
		b := a.As4()
		w.bytes(b[:])
		return
	}
	b := a.As16()
	w.bytes(b[:])
}

package wire

import "encoding/binary"

// payloadHeaderLen is the generic payload header: next payload, critical bit
// with seven reserved ones, length (RFC 7296 section 3.2).
const payloadHeaderLen = 4

const criticalBit = 0x80

// Payload is one payload of a chain, of one of the types of this package:
// *SA, *KE, *ID, *Cert, *CertReq, *Auth, *Nonce, *Notify, *Delete, *VendorID,
// *TS, *CP, *EAP, *Unknown. Each has a field Critical, the critical bit as
// received; it is to be left clear for every payload of RFC 7296 when sending
// (section 2.5).
type Payload interface {
	// Type is the payload's number in the chain.
	Type() PayloadType
	critical() bool
	appendBody(w *builder)
}

// Unknown is a payload whose type this package does not know, body and all.
// Without the critical bit it is to be skipped; with it the message is to be
// refused (RFC 7296 section 2.5), see UnknownCritical.
type Unknown struct {
	Critical    bool
	PayloadType PayloadType
	Body        []byte
}

// Type is the number as received.
func (p *Unknown) Type() PayloadType     { return p.PayloadType }
func (p *Unknown) critical() bool        { return p.Critical }
func (p *Unknown) appendBody(w *builder) { w.bytes(p.Body) }

// UnknownCritical returns the type of the first payload that is unknown and
// marked critical: a request with one is to be answered by
// UNSUPPORTED_CRITICAL_PAYLOAD, a response with one is to be ignored
// (RFC 7296 section 2.5).
func UnknownCritical(payloads []Payload) (PayloadType, bool) {
	for _, p := range payloads {
		if u, ok := p.(*Unknown); ok && u.Critical {
			return u.PayloadType, true
		}
	}
	return PayloadNone, false
}

// First returns the first payload of type T, such as First[*KE](payloads).
// Where two kinds share a type (ID, TS) use FindID and FindTS.
func First[T Payload](payloads []Payload) (T, bool) {
	for _, p := range payloads {
		if t, ok := p.(T); ok {
			return t, true
		}
	}
	var none T
	return none, false
}

// ParsePayloads parses a chain that fills b exactly: what an Encrypted payload
// holds, padding and pad length removed, with the type of the first payload as
// its header gave it. An empty chain is PayloadNone and no bytes. An Encrypted
// payload in b is refused with ErrNested.
func ParsePayloads(first PayloadType, b []byte) ([]Payload, error) {
	if len(b) > MaxMessageLen {
		return nil, &ParseError{Offset: MaxMessageLen, Err: ErrLength}
	}
	payloads, enc, err := parseChain(first, b, 0)
	if err != nil {
		return nil, err
	}
	if enc != nil {
		return nil, &ParseError{Offset: enc.Offset, Payload: enc.Type, Err: ErrNested}
	}
	return payloads, nil
}

// parseChain parses the chain in b[pos:]. It ends at the end of b, or at an
// Encrypted payload, which must be the last and reach the end of b.
func parseChain(first PayloadType, b []byte, pos int) ([]Payload, *Encrypted, error) {
	n, err := countPayloads(first, b, pos)
	if err != nil || n == 0 {
		return nil, nil, err
	}
	payloads := make([]Payload, 0, n)
	for t := first; t != PayloadNone; {
		next := PayloadType(b[pos])
		c := cursor{b: b, pos: pos + payloadHeaderLen, end: pos + int(binary.BigEndian.Uint16(b[pos+2:]))}
		crit := b[pos+1]&criticalBit != 0
		pos = c.end
		if t == PayloadSK || t == PayloadSKF {
			e := parseEncrypted(&c, t, next, crit)
			if c.err != nil {
				return nil, nil, &ParseError{Offset: c.errAt, Payload: t, Err: c.err}
			}
			return payloads, e, nil
		}
		p := parseBody(&c, t, crit)
		if c.err == nil && c.left() != 0 {
			c.fail(c.pos, ErrTrailing)
		}
		if c.err != nil {
			return nil, nil, &ParseError{Offset: c.errAt, Payload: t, Err: c.err}
		}
		payloads = append(payloads, p)
		t = next
	}
	return payloads, nil, nil
}

// countPayloads walks the generic headers only, so that the lengths of the
// whole chain are known to be sound before any body is looked at.
func countPayloads(first PayloadType, b []byte, pos int) (int, error) {
	n := 0
	for t := first; t != PayloadNone; n++ {
		if n == MaxPayloads {
			return 0, &ParseError{Offset: pos, Payload: t, Err: ErrTooMany}
		}
		if len(b)-pos < payloadHeaderLen {
			return 0, &ParseError{Offset: pos, Payload: t, Err: ErrShort}
		}
		length := int(binary.BigEndian.Uint16(b[pos+2:]))
		if length < payloadHeaderLen {
			return 0, &ParseError{Offset: pos + 2, Payload: t, Err: ErrLength}
		}
		if length > len(b)-pos {
			return 0, &ParseError{Offset: pos + 2, Payload: t, Err: ErrShort}
		}
		next := PayloadType(b[pos])
		pos += length
		if t == PayloadSK || t == PayloadSKF {
			// Its next payload is the first one inside it.
			next = PayloadNone
		}
		t = next
	}
	if pos != len(b) {
		return 0, &ParseError{Offset: pos, Err: ErrTrailing}
	}
	return n, nil
}

// parseBody reads one body; it may leave c unread or failed.
func parseBody(c *cursor, t PayloadType, crit bool) Payload {
	switch t {
	case PayloadSA:
		return parseSA(c, crit)
	case PayloadKE:
		return parseKE(c, crit)
	case PayloadIDi, PayloadIDr:
		return parseID(c, t, crit)
	case PayloadCERT:
		return &Cert{Critical: crit, Encoding: CertEncoding(c.u8()), Data: c.rest()}
	case PayloadCERTREQ:
		return &CertReq{Critical: crit, Encoding: CertEncoding(c.u8()), Authorities: c.rest()}
	case PayloadAUTH:
		return parseAuth(c, crit)
	case PayloadNonce:
		return parseNonce(c, crit)
	case PayloadNotify:
		return parseNotify(c, crit)
	case PayloadDelete:
		return parseDelete(c, crit)
	case PayloadVendorID:
		return &VendorID{Critical: crit, Data: c.rest()}
	case PayloadTSi, PayloadTSr:
		return parseTS(c, t, crit)
	case PayloadCP:
		return parseCP(c, crit)
	case PayloadEAP:
		return parseEAP(c, crit)
	}
	return &Unknown{Critical: crit, PayloadType: t, Body: c.rest()}
}

// AppendPayloads appends the chain of payloads to dst and returns the type of
// the first one, PayloadNone for an empty chain. It panics when a value does not
// fit its length field, which no parsed payload can cause; where data of foreign
// origin and unknown size goes in, ask CheckPayloads before.
func AppendPayloads(dst []byte, payloads []Payload) (first PayloadType, out []byte) {
	w := builder{b: dst}
	first = appendChain(&w, payloads, PayloadNone)
	if w.err != nil {
		panic(w.err)
	}
	return first, w.b
}

// CheckPayloads reports ErrTooLarge or ErrKind where AppendPayloads would panic.
func CheckPayloads(payloads []Payload) error {
	var w builder
	appendChain(&w, payloads, PayloadNone)
	if w.err == nil && len(w.b) > MaxMessageLen-HeaderLen {
		return ErrTooLarge
	}
	return w.err
}

// appendChain appends the payloads, the last of them pointing to last.
func appendChain(w *builder, payloads []Payload, last PayloadType) PayloadType {
	for i, p := range payloads {
		next := last
		if i+1 < len(payloads) {
			next = payloads[i+1].Type()
		}
		start := len(w.b)
		appendPayloadHeader(w, next, p.critical())
		p.appendBody(w)
		w.patch16(start+2, len(w.b)-start)
	}
	if len(payloads) == 0 {
		return last
	}
	return payloads[0].Type()
}

// appendPayloadHeader leaves the length to be patched.
func appendPayloadHeader(w *builder, next PayloadType, critical bool) {
	w.u8(uint8(next))
	if critical {
		w.u8(criticalBit)
	} else {
		w.u8(0)
	}
	w.u16(0)
}

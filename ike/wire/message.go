package wire

import "encoding/binary"

// Message is an IKEv2 message as it lies on the wire: the header, the payloads
// in the clear and, if there is one, the Encrypted payload that ends it.
type Message struct {
	Header Header
	// Payloads are those in the clear.
	Payloads []Payload
	// Encrypted is nil when the message ends without one.
	Encrypted *Encrypted
	// Raw is the message as received; AUTH and the integrity check are computed
	// over these bytes (RFC 7296 sections 2.15 and 3.14).
	Raw []byte
}

// Encrypted is the Encrypted payload, SK (RFC 7296 section 3.14), or the
// Encrypted Fragment payload, SKF (RFC 7383 section 2.5), not yet decrypted.
type Encrypted struct {
	Critical bool
	// Type is PayloadSK or PayloadSKF.
	Type PayloadType
	// FirstInner is the type of the first payload inside. In a fragment other
	// than the first it is PayloadNone.
	FirstInner PayloadType
	// Offset is where Body starts in the message. The bytes before it are the
	// associated data of AEAD ciphers (RFC 5282 section 5.1, RFC 7383 section
	// 2.5).
	Offset int
	// Body is the initialization vector, the ciphertext and the integrity
	// checksum; how they divide is the cipher's matter.
	Body []byte
	// FragmentNumber, from 1, and TotalFragments are zero in an SK payload.
	FragmentNumber, TotalFragments uint16
}

func (e *Encrypted) headerLen() int {
	if e.Type == PayloadSKF {
		return payloadHeaderLen + 4
	}
	return payloadHeaderLen
}

// ParseMessage parses an IKEv2 message that fills b exactly. It does not look
// into the Encrypted payload: verify, decrypt, then ParsePayloads. Payloads of
// unknown type are kept as *Unknown.
func ParseMessage(b []byte) (*Message, error) {
	h, err := ParseHeader(b)
	if err != nil {
		return nil, err
	}
	if h.Version.Major != 2 {
		return nil, &ParseError{Offset: 17, Err: ErrVersion}
	}
	if int(h.Length) > len(b) {
		return nil, &ParseError{Offset: 24, Err: ErrShort}
	}
	if int(h.Length) < len(b) {
		return nil, &ParseError{Offset: int(h.Length), Err: ErrTrailing}
	}
	payloads, enc, err := parseChain(h.NextPayload, b, HeaderLen)
	if err != nil {
		return nil, err
	}
	return &Message{Header: h, Payloads: payloads, Encrypted: enc, Raw: b}, nil
}

func parseEncrypted(c *cursor, t, first PayloadType, crit bool) *Encrypted {
	e := &Encrypted{Critical: crit, Type: t, FirstInner: first}
	if t == PayloadSKF {
		at := c.pos
		e.FragmentNumber, e.TotalFragments = c.u16(), c.u16()
		if e.FragmentNumber == 0 || e.FragmentNumber > e.TotalFragments || e.FragmentNumber > 1 && first != PayloadNone {
			c.fail(at, ErrFragment)
		}
	}
	e.Offset = c.pos
	e.Body = c.rest()
	return e
}

// UnknownCritical is UnknownCritical over the payloads in the clear.
func (m *Message) UnknownCritical() (PayloadType, bool) { return UnknownCritical(m.Payloads) }

// Append appends the message to dst, built from Header, Payloads and Encrypted;
// Raw is not looked at. NextPayload and Length are filled in as AppendMessage
// does.
func (m *Message) Append(dst []byte) []byte {
	if m.Encrypted == nil {
		return AppendMessage(dst, m.Header, m.Payloads)
	}
	dst = AppendEncrypted(dst, m.Header, m.Payloads, *m.Encrypted, len(m.Encrypted.Body))
	return append(dst, m.Encrypted.Body...)
}

// AppendMessage appends a message in the clear to dst. It fills in the header's
// NextPayload and Length. It panics as AppendPayloads does, and when the message
// exceeds MaxMessageLen.
func AppendMessage(dst []byte, h Header, payloads []Payload) []byte {
	start := len(dst)
	w := builder{b: h.Append(dst)}
	first := appendChain(&w, payloads, PayloadNone)
	w.finishHeader(start, first, 0)
	return w.b
}

// AppendEncrypted appends everything of a protected message that stands before
// the initialization vector: the header, the payloads in the clear (usually
// none), and the header of the Encrypted payload made of e's Type, FirstInner,
// Critical and, for PayloadSKF, fragment numbers. bodyLen is the number of bytes
// that the caller will append: initialization vector, ciphertext, checksum. All
// lengths are final, so that what was appended is the associated data. It panics
// as AppendMessage does.
func AppendEncrypted(dst []byte, h Header, plain []Payload, e Encrypted, bodyLen int) []byte {
	start := len(dst)
	w := builder{b: h.Append(dst)}
	first := appendChain(&w, plain, e.Type)
	at := len(w.b)
	appendPayloadHeader(&w, e.FirstInner, e.Critical)
	w.patch16(at+2, e.headerLen()+bodyLen)
	if e.Type == PayloadSKF {
		w.u16(e.FragmentNumber)
		w.u16(e.TotalFragments)
	}
	w.finishHeader(start, first, bodyLen)
	return w.b
}

// EncryptedOverhead is the number of bytes of a protected message without clear
// payloads that stand before the initialization vector, for PayloadSK or
// PayloadSKF: what AppendEncrypted appends.
func EncryptedOverhead(t PayloadType) int {
	return HeaderLen + (&Encrypted{Type: t}).headerLen()
}

// finishHeader fills in NextPayload and Length of the header at start; more
// bytes are still to come.
func (w *builder) finishHeader(start int, first PayloadType, more int) {
	length := w.fits(len(w.b)-start+more, MaxMessageLen)
	if w.err != nil {
		panic(w.err)
	}
	w.b[start+16] = byte(first)
	binary.BigEndian.PutUint32(w.b[start+24:], uint32(length))
}

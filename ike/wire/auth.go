package wire

// KE is the Key Exchange payload (RFC 7296 section 3.4).
type KE struct {
	Critical bool
	// Group is the key exchange method's transform ID (type 4).
	Group uint16
	// Data is the public value; its length for the group is not checked here.
	Data []byte
}

// Type is PayloadKE.
func (p *KE) Type() PayloadType { return PayloadKE }
func (p *KE) critical() bool    { return p.Critical }

func parseKE(c *cursor, crit bool) Payload {
	p := &KE{Critical: crit, Group: c.u16()}
	c.skip(2)
	p.Data = c.rest()
	return p
}

func (p *KE) appendBody(w *builder) {
	w.u16(p.Group)
	w.reserved(2)
	w.bytes(p.Data)
}

// Nonce is the Nonce payload (RFC 7296 section 3.9), 16 to 256 bytes.
type Nonce struct {
	Critical bool
	Data     []byte
}

// Type is PayloadNonce.
func (p *Nonce) Type() PayloadType { return PayloadNonce }
func (p *Nonce) critical() bool    { return p.Critical }

func parseNonce(c *cursor, crit bool) Payload {
	at := c.pos
	p := &Nonce{Critical: crit, Data: c.rest()}
	if len(p.Data) < MinNonceLen || len(p.Data) > MaxNonceLen {
		c.fail(at, ErrLength)
	}
	return p
}

func (p *Nonce) appendBody(w *builder) { w.bytes(p.Data) }

// ID is an Identification payload, IDi or IDr (RFC 7296 section 3.5).
type ID struct {
	Critical bool
	// Kind is PayloadIDi or PayloadIDr.
	Kind   PayloadType
	IDType IDType
	// Reserved is the reserved field as received, to be left zero when sending.
	// It is kept since AUTH is computed over it.
	Reserved [3]byte
	// Data is the identity in the format of IDType, not checked here.
	Data []byte
}

// Type is Kind.
func (p *ID) Type() PayloadType { return p.Kind }
func (p *ID) critical() bool    { return p.Critical }

func parseID(c *cursor, t PayloadType, crit bool) Payload {
	p := &ID{Critical: crit, Kind: t, IDType: IDType(c.u8())}
	copy(p.Reserved[:], c.take(3))
	p.Data = c.rest()
	return p
}

func (p *ID) appendBody(w *builder) {
	if p.Kind != PayloadIDi && p.Kind != PayloadIDr {
		w.fail(ErrKind)
	}
	w.b = p.AppendSigned(w.b)
}

// AppendSigned appends the payload without its generic header, over which AUTH
// is computed: RestOfInitIDPayload or RestOfRespIDPayload (RFC 7296 section
// 2.15).
func (p *ID) AppendSigned(dst []byte) []byte {
	dst = append(dst, byte(p.IDType))
	dst = append(dst, p.Reserved[:]...)
	return append(dst, p.Data...)
}

// FindID returns the first ID payload of the kind, PayloadIDi or PayloadIDr, or
// nil.
func FindID(payloads []Payload, kind PayloadType) *ID {
	for _, p := range payloads {
		if id, ok := p.(*ID); ok && id.Kind == kind {
			return id
		}
	}
	return nil
}

// Auth is the Authentication payload (RFC 7296 section 3.8).
type Auth struct {
	Critical bool
	Method   AuthMethod
	Data     []byte
}

// Type is PayloadAUTH.
func (p *Auth) Type() PayloadType { return PayloadAUTH }
func (p *Auth) critical() bool    { return p.Critical }

func parseAuth(c *cursor, crit bool) Payload {
	p := &Auth{Critical: crit, Method: AuthMethod(c.u8())}
	c.skip(3)
	p.Data = c.rest()
	return p
}

func (p *Auth) appendBody(w *builder) {
	w.u8(uint8(p.Method))
	w.reserved(3)
	w.bytes(p.Data)
}

// Cert is the Certificate payload (RFC 7296 section 3.6).
type Cert struct {
	Critical bool
	Encoding CertEncoding
	Data     []byte
}

// Type is PayloadCERT.
func (p *Cert) Type() PayloadType { return PayloadCERT }
func (p *Cert) critical() bool    { return p.Critical }

func (p *Cert) appendBody(w *builder) {
	w.u8(uint8(p.Encoding))
	w.bytes(p.Data)
}

// CertReq is the Certificate Request payload (RFC 7296 section 3.7).
type CertReq struct {
	Critical bool
	Encoding CertEncoding
	// Authorities is, for X.509 encodings, the SHA-1 hashes of the accepted
	// authorities' public keys, 20 bytes each, joined; the length is not
	// checked here.
	Authorities []byte
}

// Type is PayloadCERTREQ.
func (p *CertReq) Type() PayloadType { return PayloadCERTREQ }
func (p *CertReq) critical() bool    { return p.Critical }

func (p *CertReq) appendBody(w *builder) {
	w.u8(uint8(p.Encoding))
	w.bytes(p.Authorities)
}

// EAP is the Extensible Authentication payload (RFC 7296 section 3.16).
type EAP struct {
	Critical bool
	// Raw is the EAP packet. When parsed it has at least the four bytes of code,
	// identifier and length, and the length is that of Raw.
	Raw []byte
}

// Type is PayloadEAP.
func (p *EAP) Type() PayloadType { return PayloadEAP }
func (p *EAP) critical() bool    { return p.Critical }

func parseEAP(c *cursor, crit bool) Payload {
	body := *c
	c.skip(2)
	at := c.pos
	length := int(c.u16())
	if c.err == nil && length != body.left() {
		c.fail(at, ErrLength)
	}
	c.rest()
	return &EAP{Critical: crit, Raw: body.rest()}
}

func (p *EAP) appendBody(w *builder) { w.bytes(p.Raw) }

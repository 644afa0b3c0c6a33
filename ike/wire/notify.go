package wire

// Notify is the Notify payload (RFC 7296 section 3.10).
type Notify struct {
	Critical bool
	// Protocol says what SPI names; ProtocolNone when SPI is empty.
	Protocol   ProtocolID
	SPI        []byte
	NotifyType NotifyType
	Data       []byte
}

// Type is PayloadNotify.
func (p *Notify) Type() PayloadType { return PayloadNotify }
func (p *Notify) critical() bool    { return p.Critical }

func parseNotify(c *cursor, crit bool) Payload {
	p := &Notify{Critical: crit, Protocol: ProtocolID(c.u8())}
	spiLen := int(c.u8())
	p.NotifyType = NotifyType(c.u16())
	p.SPI = c.take(spiLen)
	p.Data = c.rest()
	return p
}

func (p *Notify) appendBody(w *builder) {
	w.u8(uint8(p.Protocol))
	w.count8(len(p.SPI))
	w.u16(uint16(p.NotifyType))
	w.bytes(p.SPI)
	w.bytes(p.Data)
}

// FindNotify returns the first Notify payload of the type, or nil.
func FindNotify(payloads []Payload, t NotifyType) *Notify {
	for _, p := range payloads {
		if n, ok := p.(*Notify); ok && n.NotifyType == t {
			return n
		}
	}
	return nil
}

// Delete is the Delete payload (RFC 7296 section 3.11).
type Delete struct {
	Critical bool
	// Protocol is ProtocolIKE for the IKE SA itself, without SPIs, or
	// ProtocolESP or ProtocolAH.
	Protocol ProtocolID
	// SPIs are those of the sender's inbound SAs.
	SPIs []uint32
}

const deleteSPILen = 4

// Type is PayloadDelete.
func (p *Delete) Type() PayloadType { return PayloadDelete }
func (p *Delete) critical() bool    { return p.Critical }

func parseDelete(c *cursor, crit bool) Payload {
	p := &Delete{Critical: crit, Protocol: ProtocolID(c.u8())}
	sizeAt := c.pos
	size, n := int(c.u8()), int(c.u16())
	switch {
	case c.err != nil:
		return p
	case n == 0:
		return p
	case p.Protocol == ProtocolIKE, size != deleteSPILen:
		c.fail(sizeAt, ErrLength)
	case n > MaxDeleteSPIs:
		c.fail(sizeAt+1, ErrTooMany)
	case n*deleteSPILen != c.left():
		c.fail(sizeAt+1, ErrCount)
	}
	if c.err != nil {
		return p
	}
	p.SPIs = make([]uint32, n)
	for i := range p.SPIs {
		p.SPIs[i] = c.u32()
	}
	return p
}

func (p *Delete) appendBody(w *builder) {
	w.u8(uint8(p.Protocol))
	if p.Protocol == ProtocolIKE {
		if len(p.SPIs) > 0 {
			w.fail(ErrTooLarge)
		}
		w.reserved(3)
		return
	}
	w.u8(deleteSPILen)
	w.count16(len(p.SPIs))
	for _, spi := range p.SPIs {
		w.u32(spi)
	}
}

// VendorID is the Vendor ID payload (RFC 7296 section 3.12).
type VendorID struct {
	Critical bool
	Data     []byte
}

// Type is PayloadVendorID.
func (p *VendorID) Type() PayloadType     { return PayloadVendorID }
func (p *VendorID) critical() bool        { return p.Critical }
func (p *VendorID) appendBody(w *builder) { w.bytes(p.Data) }

package wire

import "encoding/binary"

// HeaderLen is the length of the IKE header in bytes.
const HeaderLen = 28

// Version is the version octet of the header: four bits each.
type Version struct {
	Major, Minor uint8
}

// The versions that are spoken.
var (
	IKEv1 = Version{Major: 1}
	IKEv2 = Version{Major: 2}
)

// Flags is the flags octet of the header. Bits beside the named ones are
// ignored on receipt and must not be sent (RFC 7296 section 3.1); they are kept
// as received, since the bits of IKEv1 lie there.
type Flags uint8

// The flags of IKEv2 (RFC 7296 section 3.1).
const (
	// FlagInitiator is set in every message of the original initiator of the
	// IKE SA.
	FlagInitiator Flags = 1 << 3
	// FlagVersion says that the sender could speak a higher major version.
	FlagVersion Flags = 1 << 4
	// FlagResponse marks a response.
	FlagResponse Flags = 1 << 5
)

// The flags of IKEv1 (RFC 2408 section 3.1).
const (
	FlagV1Encryption Flags = 1 << 0
	FlagV1Commit     Flags = 1 << 1
	FlagV1AuthOnly   Flags = 1 << 2
)

// Header is the header common to IKEv1 and IKEv2 (RFC 7296 section 3.1).
type Header struct {
	// SPIi and SPIr are the SPIs of the original initiator and responder, in
	// IKEv1 the cookies. SPIr is zero in the first message.
	SPIi, SPIr uint64
	// NextPayload is the type of the first payload.
	NextPayload PayloadType
	Version     Version
	Exchange    ExchangeType
	Flags       Flags
	MessageID   uint32
	// Length is the length of the message in bytes, header included.
	Length uint32
}

// Response reports whether FlagResponse is set.
func (h *Header) Response() bool { return h.Flags&FlagResponse != 0 }

// FromInitiator reports whether the sender is the original initiator of the
// IKE SA.
func (h *Header) FromInitiator() bool { return h.Flags&FlagInitiator != 0 }

// ParseHeader reads the header at the start of b, of any version. It checks
// that Length can be that of a message at all, not that b holds that much: that
// is ParseMessage's part. Errors: ErrShort, ErrLength.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < HeaderLen {
		return Header{}, &ParseError{Offset: len(b), Err: ErrShort}
	}
	h := Header{
		SPIi:        binary.BigEndian.Uint64(b),
		SPIr:        binary.BigEndian.Uint64(b[8:]),
		NextPayload: PayloadType(b[16]),
		Version:     Version{Major: b[17] >> 4, Minor: b[17] & 15},
		Exchange:    ExchangeType(b[18]),
		Flags:       Flags(b[19]),
		MessageID:   binary.BigEndian.Uint32(b[20:]),
		Length:      binary.BigEndian.Uint32(b[24:]),
	}
	if h.Length < HeaderLen || h.Length > MaxMessageLen {
		return Header{}, &ParseError{Offset: 24, Err: ErrLength}
	}
	return h, nil
}

// Append appends the 28 bytes of the header as it stands, Length and
// NextPayload included, to b.
func (h Header) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, h.SPIi)
	b = binary.BigEndian.AppendUint64(b, h.SPIr)
	b = append(b, byte(h.NextPayload), h.Version.Major<<4|h.Version.Minor&15, byte(h.Exchange), byte(h.Flags))
	b = binary.BigEndian.AppendUint32(b, h.MessageID)
	return binary.BigEndian.AppendUint32(b, h.Length)
}

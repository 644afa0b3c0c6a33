package wire

import (
	"errors"
	"strconv"
)

// The reasons for which a message is refused. All but ErrVersion mean that the
// message is malformed: for an authenticated request the answer is
// INVALID_SYNTAX (RFC 7296 section 3.10.1), everything else is dropped.
var (
	// ErrShort: the bytes end before the structure does.
	ErrShort = errors.New("wire: truncated")
	// ErrLength: a length field contradicts the structure around it, or a
	// field has a length that its definition forbids.
	ErrLength = errors.New("wire: inconsistent length")
	// ErrTrailing: bytes follow after the end of the structure.
	ErrTrailing = errors.New("wire: trailing bytes")
	// ErrTooMany: more elements than the limits of this package allow.
	ErrTooMany = errors.New("wire: too many elements")
	// ErrCount: a count field or a last/more marker contradicts the elements
	// that are there.
	ErrCount = errors.New("wire: inconsistent element count")
	// ErrReserved: a field holds a value that its definition reserves and that
	// leaves no way to go on (reserved bits alone are ignored).
	ErrReserved = errors.New("wire: reserved value")
	// ErrFragment: the fragment number is zero or above the total, or a later
	// fragment names a first payload (RFC 7383 sections 2.5 and 2.6).
	ErrFragment = errors.New("wire: invalid fragment number")
	// ErrNested: an Encrypted payload inside the contents of another.
	ErrNested = errors.New("wire: nested encrypted payload")
	// ErrVersion: ParseMessage was given a message of a major version other
	// than 2 (RFC 7296 section 2.5: INVALID_MAJOR_VERSION).
	ErrVersion = errors.New("wire: not an IKEv2 message")
	// ErrTooLarge: a value to be built does not fit the length or count field
	// in front of it. Only CheckPayloads returns it.
	ErrTooLarge = errors.New("wire: value does not fit its length field")
	// ErrKind: an ID or TS payload to be built does not say whether it is the
	// initiator's or the responder's. Only CheckPayloads returns it.
	ErrKind = errors.New("wire: payload without kind")
)

// ParseError says where parsing stopped and why. Every error of the Parse
// functions is a *ParseError.
type ParseError struct {
	// Offset is the position in the bytes given to the Parse function.
	Offset int
	// Payload is the payload in which it happened; PayloadNone stands for the
	// header or for the chain itself.
	Payload PayloadType
	// Err is one of the sentinels of this package.
	Err error
}

// Error gives the reason, the payload and the offset in one line.
func (e *ParseError) Error() string {
	in := "the header"
	if e.Payload != PayloadNone {
		in = e.Payload.String()
	}
	return e.Err.Error() + " in " + in + " at byte " + strconv.Itoa(e.Offset)
}

// Unwrap makes errors.Is find the sentinel.
func (e *ParseError) Unwrap() error { return e.Err }

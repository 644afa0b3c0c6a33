package vici

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// PacketType says what a packet is.
type PacketType uint8

// The packet types.
const (
	CmdRequest      PacketType = 0 // named, with a message
	CmdResponse     PacketType = 1 // with a message
	CmdUnknown      PacketType = 2
	EventRegister   PacketType = 3 // named
	EventUnregister PacketType = 4 // named
	EventConfirm    PacketType = 5
	EventUnknown    PacketType = 6
	EventNotify     PacketType = 7 // named, with a message
)

// String returns the type's name in the protocol's description.
func (t PacketType) String() string {
	names := [...]string{"CMD_REQUEST", "CMD_RESPONSE", "CMD_UNKNOWN", "EVENT_REGISTER", "EVENT_UNREGISTER", "EVENT_CONFIRM", "EVENT_UNKNOWN", "EVENT"}
	if int(t) < len(names) {
		return names[t]
	}
	return fmt.Sprintf("packet type %d", uint8(t))
}

func (t PacketType) named() bool {
	return t == CmdRequest || t == EventRegister || t == EventUnregister || t == EventNotify
}

func (t PacketType) hasBody() bool { return t == CmdRequest || t == CmdResponse || t == EventNotify }

// Packet is one packet. Body is an encoded message, see [Unmarshal].
type Packet struct {
	Type PacketType
	Name string // of the command or event, for types that have one
	Body []byte // for types that carry a message
}

// The reasons for which packets and messages are refused.
var (
	ErrMalformed = errors.New("vici: malformed")
	ErrTooLong   = errors.New("vici: longer than the protocol allows")
)

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// ParsePacket parses a packet without the length before it. Body refers to b.
func ParsePacket(b []byte) (Packet, error) {
	if len(b) > MaxPacket {
		return Packet{}, fmt.Errorf("%w: packet of %d bytes", ErrTooLong, len(b))
	}
	if len(b) == 0 {
		return Packet{}, malformed("empty packet")
	}
	p := Packet{Type: PacketType(b[0])}
	b = b[1:]
	if p.Type > EventNotify {
		return Packet{}, malformed("%v", p.Type)
	}
	if p.Type.named() {
		if len(b) == 0 || int(b[0]) > len(b)-1 {
			return Packet{}, malformed("name of %v is cut off", p.Type)
		}
		p.Name, b = string(b[1:1+b[0]]), b[1+int(b[0]):]
		if !printable(p.Name) {
			return Packet{}, malformed("name of %v is empty or not printable", p.Type)
		}
	}
	switch {
	case p.Type.hasBody():
		p.Body = b
	case len(b) > 0:
		return Packet{}, malformed("%d bytes after %v", len(b), p.Type)
	}
	return p, nil
}

// AppendFrame appends the packet with its length before it.
func (p Packet) AppendFrame(b []byte) ([]byte, error) {
	size := 1
	if p.Type.named() {
		if len(p.Name) > MaxName || !printable(p.Name) {
			return b, malformed("name %q for %v", p.Name, p.Type)
		}
		size += 1 + len(p.Name)
	}
	if p.Type.hasBody() {
		size += len(p.Body)
	}
	if size > MaxPacket {
		return b, fmt.Errorf("%w: packet of %d bytes", ErrTooLong, size)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(size))
	b = append(b, byte(p.Type))
	if p.Type.named() {
		b = append(b, byte(len(p.Name)))
		b = append(b, p.Name...)
	}
	if p.Type.hasBody() {
		b = append(b, p.Body...)
	}
	return b, nil
}

// ReadPacket reads one packet. It returns io.EOF if the stream ends before it.
func ReadPacket(r io.Reader) (Packet, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		if err == io.ErrUnexpectedEOF {
			err = malformed("length is cut off")
		}
		return Packet{}, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > MaxPacket {
		return Packet{}, fmt.Errorf("%w: packet of %d bytes", ErrTooLong, size)
	}
	// The buffer grows with what arrives: an announced length alone costs no memory.
	var buf bytes.Buffer
	if n, err := io.CopyN(&buf, r, int64(size)); err == io.EOF {
		return Packet{}, malformed("packet ends after %d of %d bytes", n, size)
	} else if err != nil {
		return Packet{}, err
	}
	return ParsePacket(buf.Bytes())
}

// printable reports whether a command's or event's name is acceptable.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return s != ""
}

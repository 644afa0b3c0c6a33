package eap

import "encoding/binary"

// The messages of TLS and TTLS come in fragments (RFC 5216 §3.1, RFC 5281 §9.1):
//
//	+---------------+------------------------------+--------
//	|L M S R R|Ver  |  TLS Message Length (if L)   | Data …
//	+---------------+------------------------------+--------
//
// Whoever gets a fragment with M answers with flags alone. The version is TTLS's;
// for TLS its bits are reserved.
const (
	flagLength = 0x80
	flagMore   = 0x40
	flagStart  = 0x20
	maskVer    = 0x07
)

// framer cuts messages into fragments and joins them. The fragments of both
// directions never overlap: while one side sends, the other acknowledges.
type framer struct {
	size int // of an EAP packet
	ttls bool

	out   []byte // still to be sent
	first bool
	in    []byte // joined so far
	want  int    // announced length of the message that is being joined, 0 if none was
}

// ack is a message without data: the wish for the next fragment, or consent.
func (f *framer) ack() []byte { return []byte{0} }

// send begins a message and returns its first fragment.
func (f *framer) send(message []byte) []byte {
	f.out, f.first = message, true
	return f.nextFragment()
}

func (f *framer) nextFragment() []byte {
	room := f.size - typeHeaderLen - 1
	b := []byte{0}
	if f.first {
		// Also on a message of one fragment, where it is optional: some peers need it.
		f.first = false
		b[0] = flagLength
		b = binary.BigEndian.AppendUint32(b, uint32(len(f.out)))
		room -= 4
	}
	n := min(room, len(f.out))
	b = append(b, f.out[:n]...)
	if f.out = f.out[n:]; len(f.out) > 0 {
		b[0] |= flagMore
	}
	return b
}

// receive takes a fragment. reply is what has to be sent before anything else: the
// next fragment of ours or the acknowledgement of one of theirs. Without reply, the
// message is complete; it is empty for an acknowledgement that nobody waits for
// here.
func (f *framer) receive(data []byte) (message, reply []byte, err error) {
	if len(data) == 0 {
		return nil, nil, malformed("TLS message without flags")
	}
	flags, data := data[0], data[1:]
	if f.ttls && flags&maskVer != 0 {
		return nil, nil, malformed("TTLS version is not 0")
	}
	if flags&flagStart != 0 {
		return nil, nil, unexpected("TLS start in the middle")
	}
	if len(f.out) > 0 {
		if flags&(flagLength|flagMore) != 0 || len(data) != 0 {
			return nil, nil, unexpected("data instead of the wish for the next fragment")
		}
		return nil, f.nextFragment(), nil
	}
	if flags&flagLength != 0 {
		if data, err = f.announce(data); err != nil {
			return nil, nil, err
		}
	}
	switch {
	case len(f.in)+len(data) > maxMessageTLS:
		return nil, nil, limit("TLS message too long")
	case f.want > 0 && len(f.in)+len(data) > f.want:
		return nil, nil, malformed("TLS message longer than announced")
	case flags&flagMore != 0 && len(data) == 0:
		return nil, nil, malformed("empty TLS fragment with more to come")
	case flags&flagMore != 0:
		f.in = append(f.in, data...)
		return nil, f.ack(), nil
	}
	message = append(f.in, data...)
	if f.want > 0 && len(message) != f.want {
		return nil, nil, malformed("TLS message shorter than announced")
	}
	f.in, f.want = nil, 0
	return message, nil, nil
}

// announce takes the message's length, which may be said again but not otherwise.
func (f *framer) announce(data []byte) (rest []byte, err error) {
	if len(data) < 4 {
		return nil, malformed("TLS message length cut off")
	}
	n := binary.BigEndian.Uint32(data)
	switch {
	case n > maxMessageTLS:
		return nil, limit("announced TLS message too long")
	case len(f.in) > 0 && int(n) != f.want:
		return nil, malformed("TLS message length changed")
	}
	f.want = int(n)
	if n == 0 && len(data) > 4 {
		return nil, malformed("TLS message longer than announced")
	}
	return data[4:], nil
}

// startFlag reports whether a request is the start of a TLS method (RFC 5216 §2.1.1).
// Data behind it is ignored; nothing in it would be authenticated.
func startFlag(data []byte) bool {
	return len(data) > 0 && data[0]&(flagStart|flagMore) == flagStart
}

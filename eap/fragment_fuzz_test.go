package eap

import (
	"bytes"
	"testing"
)

// FuzzFragments joins what split made, in pieces of any size, and gives arbitrary
// fragments to a framer.
func FuzzFragments(f *testing.F) {
	f.Add(uint16(100), []byte("\x80\x00\x00\x00\x03abc"))
	f.Add(uint16(200), []byte("\xc0\x00\x00\x00\x06abc"))
	f.Add(uint16(100), bytes.Repeat([]byte{0x40}, 300))
	f.Fuzz(func(t *testing.T, size uint16, b []byte) {
		from := framer{size: minFragment + int(size)%1000}
		var to framer
		for part := from.send(b); ; {
			if len(part)+typeHeaderLen > from.size {
				t.Fatal("fragment too long")
			}
			msg, reply, err := to.receive(part)
			if err != nil {
				t.Fatal(err)
			}
			if reply == nil {
				if !bytes.Equal(msg, b) {
					t.Fatal("joined otherwise")
				}
				break
			}
			if _, part, err = from.receive(reply); err != nil || part == nil {
				t.Fatal("no next fragment", err)
			}
		}
		any := framer{size: defaultFragment, ttls: size&1 == 1}
		for len(b) > 0 {
			n := min(1+int(size)%97, len(b))
			if _, _, err := any.receive(b[:n]); err != nil {
				return
			}
			if len(any.in) > maxMessageTLS {
				t.Fatal("joined too much")
			}
			b = b[n:]
		}
	})
}

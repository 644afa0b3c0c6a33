package wire_test

import (
	"bytes"
	"slices"
	"strconv"
	"testing"

	"adit/ike/wire"
)

// Messages of a foreign implementation parse to what that implementation said
// they hold, and are rebuilt to the same bytes.
func TestCapturedMessages(t *testing.T) {
	for _, c := range readCaptures(t) {
		t.Run(c.exchange+" "+c.direction+" "+c.id, func(t *testing.T) {
			var plain []byte
			first := wire.PayloadNone
			var got []wire.Payload
			for i, b := range c.wire {
				m, err := wire.ParseMessage(b)
				if err != nil {
					t.Fatal(err)
				}
				if out := m.Append(nil); !bytes.Equal(out, b) {
					t.Errorf("rebuilt differently:\n got %x\nwant %x", out, b)
				}
				if m.Header.Exchange.String() != c.exchange || m.Header.Response() != (c.direction == "response") || strconv.Itoa(int(m.Header.MessageID)) != c.id {
					t.Errorf("header %+v", m.Header)
				}
				got = append(got, m.Payloads...)
				if (m.Encrypted != nil) != (len(c.plain) > 0) {
					t.Fatalf("Encrypted = %v", m.Encrypted)
				}
				if m.Encrypted == nil {
					continue
				}
				if i == 0 {
					first = m.Encrypted.FirstInner
				}
				if len(c.wire) > 1 && (int(m.Encrypted.FragmentNumber) != i+1 || int(m.Encrypted.TotalFragments) != len(c.wire)) {
					t.Errorf("fragment %d/%d, want %d/%d", m.Encrypted.FragmentNumber, m.Encrypted.TotalFragments, i+1, len(c.wire))
				}
				plain = append(plain, c.plain[i]...)
			}
			inner, err := wire.ParsePayloads(first, plain)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, inner...)
			if f, out := wire.AppendPayloads(nil, inner); f != first || !bytes.Equal(out, plain) {
				t.Errorf("contents rebuilt differently:\n got %v %x\nwant %v %x", f, out, first, plain)
			}
			var chain []string
			for _, p := range got {
				chain = append(chain, p.Type().String())
			}
			if !slices.Equal(chain, c.chain) {
				t.Errorf("payloads %v, want %v", chain, c.chain)
			}
			for _, p := range got {
				if u, ok := p.(*wire.Unknown); ok {
					t.Errorf("unknown payload %d", u.PayloadType)
				}
			}
		})
	}
}

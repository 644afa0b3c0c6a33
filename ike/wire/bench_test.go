package wire_test

import (
	"testing"

	"adit/ike/wire"
)

// A responder parses every first message before it knows whether the peer is
// honest; these figures bound what a flood of them costs.
func BenchmarkParseMessage(b *testing.B) {
	for _, c := range readCaptures(b)[:2] {
		b.Run(c.exchange+" "+c.direction, func(b *testing.B) {
			b.SetBytes(int64(len(c.wire[0])))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := wire.ParseMessage(c.wire[0]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkRefuse(b *testing.B) {
	msg := unhex(b, malformed[len(malformed)-1].msg)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := wire.ParseMessage(msg); err == nil {
			b.Fatal("accepted")
		}
	}
}

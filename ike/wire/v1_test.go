package wire_test

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"testing"

	"adit/ike/wire"
)

// firstV1 is message 1 of main mode as strongSwan would send it, but for the number of
// its transforms.
func firstV1() []wire.V1Payload {
	sa := wire.V1SA{Situation: wire.V1SituationIdentityOnly, Proposals: []wire.V1Proposal{
		{Number: 1, Protocol: wire.ProtocolIKE, Transforms: []wire.V1Transform{
			{Number: 1, ID: wire.V1KeyIKE, Attributes: []wire.V1Attribute{wire.Basic16(1, 7), wire.Basic16(14, 128), wire.Basic16(11, 1), {Type: 12, Value: []byte{0, 1, 0x51, 0x80}}}},
			{Number: 2, ID: wire.V1KeyIKE}}},
		{Number: 2, Protocol: wire.ProtocolESP, SPI: []byte{1, 2, 3, 4}, Transforms: []wire.V1Transform{{Number: 1, ID: 12, Attributes: []wire.V1Attribute{wire.Basic16(4, 1)}}}},
	}}
	return []wire.V1Payload{sa.Payload(),
		wire.V1ID{Type: wire.IDV1IPv4AddrSubnet, Protocol: 17, Port: 500, Data: []byte{10, 0, 0, 0, 255, 0, 0, 0}}.Payload(),
		wire.V1Notify{Protocol: wire.ProtocolIKE, SPI: make([]byte, 16), Type: wire.V1RUThere, Data: []byte{0, 0, 0, 7}}.Payload(),
		wire.V1Delete{Protocol: wire.ProtocolESP, SPIs: [][]byte{{1, 2, 3, 4}, {5, 6, 7, 8}}}.Payload(),
		(&wire.V1Attributes{CFGType: wire.CFGRequest, Identifier: 7, Attributes: []wire.V1Attribute{{Type: 1, Value: []byte{}}, wire.Basic16(16520, 0)}}).Payload(),
		wire.V1Fragment{ID: 1, Number: 2, Last: true, Data: []byte("the end")}.Payload(),
		{Type: wire.PayloadV1VendorID, Body: []byte("a vendor")},
	}
}

// again parses a payload's body and builds it anew.
func again(p wire.V1Payload) (wire.V1Payload, error) {
	switch p.Type {
	case wire.PayloadV1SA:
		x, err := wire.ParseV1SA(p.Body)
		if err != nil {
			return p, err
		}
		return x.Payload(), nil
	case wire.PayloadV1ID:
		x, err := wire.ParseV1ID(p.Body)
		return x.Payload(), err
	case wire.PayloadV1Notification:
		x, err := wire.ParseV1Notify(p.Body)
		return x.Payload(), err
	case wire.PayloadV1Delete:
		x, err := wire.ParseV1Delete(p.Body)
		return x.Payload(), err
	case wire.PayloadV1Attributes:
		x, err := wire.ParseV1Attributes(p.Body)
		if err != nil {
			return p, err
		}
		return x.Payload(), nil
	case wire.PayloadV1Fragment:
		x, err := wire.ParseV1Fragment(p.Body)
		return x.Payload(), err
	}
	return p, nil
}

// TestRFC2408_3_V1Payloads builds, parses and builds again.
func TestRFC2408_3_V1Payloads(t *testing.T) {
	list := firstV1()
	first, b := wire.AppendV1Chain(nil, list)
	got, used, err := wire.ParseV1Chain(first, append(bytes.Clone(b), 0, 0, 0))
	if err != nil || used != len(b) || !reflect.DeepEqual(got, list) {
		t.Fatalf("%v, %d of %d octets, %v", got, used, len(b), err)
	}
	for _, p := range got {
		if q, err := again(p); err != nil || !bytes.Equal(q.Body, p.Body) {
			t.Errorf("%v: %x becomes %x, %v", p.Type, p.Body, q.Body, err)
		}
	}
	if n, _ := wire.ParseV1SA(got[0].Body); n != nil {
		if life, ok := n.Proposals[0].Transforms[0].Attribute(12); !ok || life != 86400 {
			t.Errorf("lifetime %d", life)
		}
	}
}

// TestRFC2408_5_V1Malformed has what must be refused: each case spoils one octet of a
// good chain.
func TestRFC2408_5_V1Malformed(t *testing.T) {
	first, good := wire.AppendV1Chain(nil, firstV1())
	for name, spoil := range map[string]func(b []byte) []byte{
		"reserved":       func(b []byte) []byte { b[1] = 1; return b },
		"length too far": func(b []byte) []byte { binary.BigEndian.PutUint16(b[2:], uint16(len(b)+1)); return b },
		"length too low": func(b []byte) []byte { b[2], b[3] = 0, 3; return b },
		"cut":            func(b []byte) []byte { return b[:len(b)-1] },
	} {
		if _, _, err := wire.ParseV1Chain(first, spoil(bytes.Clone(good))); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	sa := firstV1()[0].Body
	for at, v := range map[int]byte{3: 2, 7: 2, 11: 0xff, 15: 200, 14: 99} {
		b := bytes.Clone(sa)
		b[at] = v
		if _, err := wire.ParseV1SA(b); err == nil {
			t.Errorf("an SA payload with octet %d = %d is taken", at, v)
		}
	}
}

func FuzzParseV1Chain(f *testing.F) {
	first, b := wire.AppendV1Chain(nil, firstV1())
	f.Add(byte(first), b)
	f.Fuzz(func(t *testing.T, first byte, b []byte) {
		list, used, err := wire.ParseV1Chain(wire.PayloadType(first), b)
		if err != nil {
			return
		}
		first2, built := wire.AppendV1Chain(nil, list)
		if used > len(b) || byte(first2) != first || !bytes.Equal(built, b[:used]) {
			t.Fatalf("%d octets of %x are built as %x", used, b, built)
		}
		wire.V1Summary(wire.Header{}, list)
	})
}

// fuzzV1 has a parser take whatever comes; what it takes can be built and parsed again.
func fuzzV1(f *testing.F, kind wire.PayloadType) {
	for _, p := range firstV1() {
		if p.Type == kind {
			f.Add(p.Body)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := again(wire.V1Payload{Type: kind, Body: b})
		if err != nil {
			return
		}
		if r, err := again(q); err != nil || !bytes.Equal(r.Body, q.Body) {
			t.Fatalf("%x is built as %x, and that as %x, %v", b, q.Body, r.Body, err)
		}
	})
}

func FuzzParseV1SA(f *testing.F)         { fuzzV1(f, wire.PayloadV1SA) }
func FuzzParseV1ID(f *testing.F)         { fuzzV1(f, wire.PayloadV1ID) }
func FuzzParseV1Notify(f *testing.F)     { fuzzV1(f, wire.PayloadV1Notification) }
func FuzzParseV1Delete(f *testing.F)     { fuzzV1(f, wire.PayloadV1Delete) }
func FuzzParseV1Attributes(f *testing.F) { fuzzV1(f, wire.PayloadV1Attributes) }
func FuzzParseV1Fragment(f *testing.F)   { fuzzV1(f, wire.PayloadV1Fragment) }

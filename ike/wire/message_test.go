package wire_test

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"adit/ike/wire"
)

func TestRFC7296_3_1_Header(t *testing.T) {
	b := unhex(t, `0102030405060708 1112131415161718 21 20 22 08 00000005 0000001c ffff`)
	h, err := wire.ParseHeader(b)
	if err != nil {
		t.Fatal(err)
	}
	want := wire.Header{SPIi: 0x0102030405060708, SPIr: 0x1112131415161718, NextPayload: wire.PayloadSA,
		Version: wire.IKEv2, Exchange: wire.ExchangeIKESAInit, Flags: wire.FlagInitiator, MessageID: 5, Length: 28}
	if h != want {
		t.Errorf("parsed %+v, want %+v", h, want)
	}
	if out := h.Append(nil); !bytes.Equal(out, b[:wire.HeaderLen]) {
		t.Errorf("built %x", out)
	}
	if !h.FromInitiator() || h.Response() {
		t.Error("flags misread")
	}
	for b[19] = 0; b[19] < 255; b[19]++ {
		h, err := wire.ParseHeader(b)
		if err != nil {
			t.Fatalf("flags %x: %v", b[19], err)
		}
		if h.Response() != (b[19]&0x20 != 0) || h.FromInitiator() != (b[19]&8 != 0) || byte(h.Flags) != b[19] {
			t.Errorf("flags %x misread", b[19])
		}
	}
}

func TestHeaderOfIKEv1(t *testing.T) {
	h, err := wire.ParseHeader(unhex(t, `0102030405060708 0000000000000000 01 10 02 01 00000000 0000001c`))
	if err != nil {
		t.Fatal(err)
	}
	if h.Version != wire.IKEv1 || h.Exchange != wire.ExchangeV1IdentityProtection || h.NextPayload != wire.PayloadV1SA || h.Flags != wire.FlagV1Encryption {
		t.Errorf("parsed %+v", h)
	}
}

const (
	hdr   = `0102030405060708 1112131415161718 `
	first = `0102030405060708 0000000000000000 `
)

// malformed are whole messages with one lie each; several are the published
// attacks on decoders. The fuzz targets start from them.
var malformed = []struct {
	name   string
	msg    string
	want   error
	offset int
	in     wire.PayloadType
}{
	{"empty", ``, wire.ErrShort, 0, 0},
	{"half a header", hdr + `29 20 25 08 000000`, wire.ErrShort, 23, 0},
	{"length below the header", hdr + `00 20 25 08 00000000 0000001b`, wire.ErrLength, 24, 0},
	{"length above any message", hdr + `00 20 25 08 00000000 ffffffff`, wire.ErrLength, 24, 0},
	{"length above the datagram", hdr + `00 20 25 08 00000000 0000001d`, wire.ErrShort, 24, 0},
	{"length below the datagram", hdr + `00 20 25 08 00000000 0000001c 00`, wire.ErrTrailing, 28, 0},
	{"RFC7296_2_5 major version 1", hdr + `00 10 25 08 00000000 0000001c`, wire.ErrVersion, 17, 0},
	{"RFC7296_2_5 major version 3", hdr + `00 30 25 08 00000000 0000001c`, wire.ErrVersion, 17, 0},
	{"payload announced, none there", hdr + `29 20 25 08 00000000 0000001c`, wire.ErrShort, 28, wire.PayloadNotify},
	{"no payload announced, one there", hdr + `00 20 25 08 00000000 00000020 00000004`, wire.ErrTrailing, 28, 0},
	{"payload of length zero pointing to itself", hdr + `29 20 25 08 00000000 00000020 29000000`, wire.ErrLength, 30, wire.PayloadNotify},
	{"unknown payload of length zero", hdr + `c8 20 25 08 00000000 00000020 c8000000`, wire.ErrLength, 30, 200},
	{"payload of length three", hdr + `2b 20 25 08 00000000 00000020 00000003`, wire.ErrLength, 30, wire.PayloadVendorID},
	{"payload beyond the message", hdr + `2b 20 25 08 00000000 00000020 0000ffff`, wire.ErrShort, 30, wire.PayloadVendorID},
	{"half a payload header", hdr + `2b 20 25 08 00000000 0000001f 000000`, wire.ErrShort, 28, wire.PayloadVendorID},
	{"bytes behind SK", hdr + `2e 20 25 08 00000000 00000022 00000005aa 2b`, wire.ErrTrailing, 33, 0},
	{"RFC7296_3_14 SK with length zero", hdr + `2e 20 25 08 00000000 00000020 29000000`, wire.ErrLength, 30, wire.PayloadSK},
	{"SKF without numbers", hdr + `35 20 25 08 00000000 00000022 29000006 0001`, wire.ErrShort, 34, wire.PayloadSKF},
	{"RFC7383_2_6 SKF number zero", hdr + `35 20 25 08 00000000 00000024 29000008 00000002`, wire.ErrFragment, 32, wire.PayloadSKF},
	{"RFC7383_2_6 SKF total zero", hdr + `35 20 25 08 00000000 00000024 29000008 00010000`, wire.ErrFragment, 32, wire.PayloadSKF},
	{"RFC7383_2_6 SKF number above total", hdr + `35 20 25 08 00000000 00000024 00000008 00030002`, wire.ErrFragment, 32, wire.PayloadSKF},
	{"RFC7383_2_5 later SKF with a first payload", hdr + `35 20 25 08 00000000 00000024 29000008 00020002`, wire.ErrFragment, 32, wire.PayloadSKF},
	{"KE without group", hdr + `22 20 22 08 00000000 00000021 00000005 04`, wire.ErrShort, 32, wire.PayloadKE},
	{"KE group 1025 without value", hdr + `22 20 22 08 00000000 00000023 00000007 040100`, wire.ErrShort, 34, wire.PayloadKE},
	{"ID without reserved field", hdr + `23 20 23 08 00000000 00000023 00000007 010000`, wire.ErrShort, 33, wire.PayloadIDi},
	{"empty CERT", hdr + `25 20 23 08 00000000 00000020 00000004`, wire.ErrShort, 32, wire.PayloadCERT},
	{"empty CERTREQ", hdr + `26 20 23 08 00000000 00000020 00000004`, wire.ErrShort, 32, wire.PayloadCERTREQ},
	{"AUTH without reserved field", hdr + `27 20 23 08 00000000 00000021 00000005 02`, wire.ErrShort, 33, wire.PayloadAUTH},
	{"empty nonce", hdr + `28 20 22 08 00000000 00000020 00000004`, wire.ErrLength, 32, wire.PayloadNonce},
	{"RFC7296_3_9 nonce of 15 bytes", hdr + `28 20 22 08 00000000 0000002f 00000013 000102030405060708090a0b0c0d0e`, wire.ErrLength, 32, wire.PayloadNonce},
	{"notify SPI size 255", hdr + `29 20 25 08 00000000 00000028 0000000c 03ff4009 01020304`, wire.ErrShort, 36, wire.PayloadNotify},
	{"notify of three bytes", hdr + `29 20 25 08 00000000 00000023 00000007 000040`, wire.ErrShort, 34, wire.PayloadNotify},
	{"delete counts 65535", hdr + `2a 20 25 08 00000000 00000028 0000000c 0304ffff 01020304`, wire.ErrTooMany, 34, wire.PayloadDelete},
	{"delete counts two of one", hdr + `2a 20 25 08 00000000 00000028 0000000c 03040002 01020304`, wire.ErrCount, 34, wire.PayloadDelete},
	{"delete counts one of two", hdr + `2a 20 25 08 00000000 0000002c 00000010 03040001 01020304 01020304`, wire.ErrCount, 34, wire.PayloadDelete},
	{"delete counts none of one", hdr + `2a 20 25 08 00000000 00000028 0000000c 03040000 01020304`, wire.ErrTrailing, 36, wire.PayloadDelete},
	{"delete of 65535 SPIs of no size", hdr + `2a 20 25 08 00000000 00000024 00000008 0300ffff`, wire.ErrLength, 33, wire.PayloadDelete},
	{"delete with SPIs of 8 bytes", hdr + `2a 20 25 08 00000000 0000002c 00000010 01080001 0102030405060708`, wire.ErrLength, 33, wire.PayloadDelete},
	{"delete of IKE with an SPI", hdr + `2a 20 25 08 00000000 00000028 0000000c 01040001 01020304`, wire.ErrLength, 33, wire.PayloadDelete},
	{"empty SA", first + `21 20 22 08 00000000 00000020 00000004`, wire.ErrShort, 32, wire.PayloadSA},
	{"proposal of length zero", first + `21 20 22 08 00000000 00000028 0000000c 02000000 01010000`, wire.ErrLength, 34, wire.PayloadSA},
	{"proposal of length seven", first + `21 20 22 08 00000000 00000027 0000000b 00000007 010100`, wire.ErrLength, 34, wire.PayloadSA},
	{"proposal beyond the payload", first + `21 20 22 08 00000000 00000028 0000000c 0000ffff 01010000`, wire.ErrShort, 36, wire.PayloadSA},
	{"proposal says more, none there", first + `21 20 22 08 00000000 00000028 0000000c 02000008 01010000`, wire.ErrShort, 40, wire.PayloadSA},
	{"proposal says last, more there", first + `21 20 22 08 00000000 00000030 00000014 00000008 01010000 00000008 02010000`, wire.ErrCount, 40, wire.PayloadSA},
	{"proposal with marker 3", first + `21 20 22 08 00000000 00000028 0000000c 03000008 01010000`, wire.ErrReserved, 32, wire.PayloadSA},
	{"proposal SPI beyond it", first + `21 20 22 08 00000000 00000028 0000000c 00000008 0101ff00`, wire.ErrShort, 40, wire.PayloadSA},
	{"proposal counts a transform too many", first + `21 20 22 08 00000000 00000030 00000014 00000010 01010002 00000008 01000003`, wire.ErrCount, 39, wire.PayloadSA},
	{"proposal counts no transform of one", first + `21 20 22 08 00000000 00000030 00000014 00000010 01010000 00000008 01000003`, wire.ErrCount, 39, wire.PayloadSA},
	{"transform of length zero", first + `21 20 22 08 00000000 00000030 00000014 00000010 01010001 03000000 01000003`, wire.ErrLength, 42, wire.PayloadSA},
	{"transform beyond its proposal", first + `21 20 22 08 00000000 00000030 00000014 00000010 01010001 00000009 01000003`, wire.ErrShort, 44, wire.PayloadSA},
	{"transform attribute beyond it", first + `21 20 22 08 00000000 00000034 00000018 00000014 01010001 0000000c 01000003 000effff`, wire.ErrShort, 52, wire.PayloadSA},
	{"half a transform attribute", first + `21 20 22 08 00000000 00000032 00000016 00000012 01010001 0000000a 01000003 800e`, wire.ErrShort, 50, wire.PayloadSA},
	{"transform marker 2", first + `21 20 22 08 00000000 00000030 00000014 00000010 01010001 02000008 01000003`, wire.ErrReserved, 40, wire.PayloadSA},
	{"TS counts 255 of none", hdr + `2c 20 23 08 00000000 00000024 00000008 ff000000`, wire.ErrCount, 32, wire.PayloadTSi},
	{"TS counts none of one", hdr + `2c 20 23 08 00000000 00000034 00000018 00000000 07000010 0000ffff 00000000 ffffffff`, wire.ErrCount, 32, wire.PayloadTSi},
	{"TS selector of length zero", hdr + `2c 20 23 08 00000000 00000034 00000018 01000000 07000000 0000ffff 00000000 ffffffff`, wire.ErrLength, 38, wire.PayloadTSi},
	{"TS selector beyond it", hdr + `2d 20 23 08 00000000 00000034 00000018 01000000 07000011 0000ffff 00000000 ffffffff`, wire.ErrShort, 40, wire.PayloadTSr},
	{"TS IPv6 selector of IPv4's length", hdr + `2d 20 23 08 00000000 00000034 00000018 01000000 08000010 0000ffff 00000000 ffffffff`, wire.ErrLength, 38, wire.PayloadTSr},
	{"TS IPv4 selector longer than one", hdr + `2d 20 23 08 00000000 00000038 0000001c 01000000 07000014 0000ffff 00000000 ffffffff 00000000`, wire.ErrLength, 38, wire.PayloadTSr},
	{"TS of unknown type with length zero", hdr + `2d 20 23 08 00000000 00000028 0000000c 01000000 63000000`, wire.ErrLength, 38, wire.PayloadTSr},
	{"CP attribute beyond it", hdr + `2f 20 23 08 00000000 00000028 0000000c 01000000 0001ffff`, wire.ErrShort, 40, wire.PayloadCP},
	{"half a CP attribute", hdr + `2f 20 23 08 00000000 00000026 0000000a 01000000 0001`, wire.ErrShort, 38, wire.PayloadCP},
	{"CP of one byte", hdr + `2f 20 23 08 00000000 00000021 00000005 01`, wire.ErrShort, 33, wire.PayloadCP},
	{"EAP of three bytes", hdr + `30 20 23 08 00000000 00000023 00000007 010700`, wire.ErrShort, 34, wire.PayloadEAP},
	{"RFC7296_3_16 EAP length above", hdr + `30 20 23 08 00000000 00000025 00000009 0107000601`, wire.ErrLength, 34, wire.PayloadEAP},
	{"RFC7296_3_16 EAP length below", hdr + `30 20 23 08 00000000 00000025 00000009 0107000401`, wire.ErrLength, 34, wire.PayloadEAP},
}

func TestMalformedMessages(t *testing.T) {
	for _, tt := range malformed {
		t.Run(tt.name, func(t *testing.T) {
			m, err := wire.ParseMessage(unhex(t, tt.msg))
			var pe *wire.ParseError
			if !errors.As(err, &pe) {
				t.Fatalf("ParseMessage = %+v, %v", m, err)
			}
			if !errors.Is(err, tt.want) || pe.Offset != tt.offset || pe.Payload != tt.in {
				t.Errorf("error %q (offset %d, payload %v), want %q (offset %d, payload %v)", err, pe.Offset, pe.Payload, tt.want, tt.offset, tt.in)
			}
			if m != nil {
				t.Error("a message beside the error")
			}
		})
	}
}

func TestLimits(t *testing.T) {
	repeat := func(n int, more, last string) []byte {
		return append(bytes.Repeat(unhex(t, more), n-1), unhex(t, last)...)
	}
	proposal := func(n int) []byte {
		body := repeat(n, "03000008 01000003", "00000008 01000003")
		return chain(0, 0, append([]byte{0, 0, byte((len(body) + 8) >> 8), byte(len(body) + 8), 1, 1, 0, byte(n)}, body...))
	}
	attributes := func(n int) []byte {
		a := bytes.Repeat([]byte{0x80, 1, 0, 0}, n)
		transform := append([]byte{0, 0, 0, byte(8 + len(a)), 1, 0, 0, 12}, a...)
		return chain(0, 0, append([]byte{0, 0, 0, byte(8 + len(transform)), 1, 1, 0, 1}, transform...))
	}
	spis := func(n int) []byte {
		return chain(0, 0, append([]byte{3, 4, byte(n >> 8), byte(n)}, make([]byte, 4*n)...))
	}
	for _, tt := range []struct {
		name  string
		typ   wire.PayloadType
		limit int
		build func(n int) []byte
	}{
		{"payloads", wire.PayloadVendorID, wire.MaxPayloads, func(n int) []byte { return repeat(n, "2b000004", "00000004") }},
		{"proposals", wire.PayloadSA, wire.MaxProposals, func(n int) []byte {
			return chain(0, 0, repeat(n, "02000008 01010000", "00000008 01010000"))
		}},
		{"transforms", wire.PayloadSA, wire.MaxTransforms, proposal},
		{"transform attributes", wire.PayloadSA, wire.MaxTransformAttributes, attributes},
		{"attributes", wire.PayloadCP, wire.MaxAttributes, func(n int) []byte {
			return chain(0, 0, append(make([]byte, 4), make([]byte, 4*n)...))
		}},
		{"delete SPIs", wire.PayloadDelete, wire.MaxDeleteSPIs, spis},
		{"selectors", wire.PayloadTSi, wire.MaxSelectors, func(n int) []byte {
			return chain(0, 0, append([]byte{byte(n), 0, 0, 0}, bytes.Repeat([]byte{99, 0, 0, 4}, n)...))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := wire.ParsePayloads(tt.typ, tt.build(tt.limit)); err != nil {
				t.Errorf("at the limit: %v", err)
			}
			if _, err := wire.ParsePayloads(tt.typ, tt.build(tt.limit+1)); !errors.Is(err, wire.ErrTooMany) {
				t.Errorf("above the limit: %v, want %v", err, wire.ErrTooMany)
			}
		})
	}
	if _, err := wire.ParsePayloads(wire.PayloadVendorID, make([]byte, wire.MaxMessageLen+1)); !errors.Is(err, wire.ErrLength) {
		t.Errorf("oversized chain: %v", err)
	}
}

func TestParsePayloadsAtItsEdges(t *testing.T) {
	if ps, err := wire.ParsePayloads(wire.PayloadNone, nil); err != nil || len(ps) != 0 {
		t.Errorf("empty chain: %v, %v", ps, err)
	}
	if first, out := wire.AppendPayloads([]byte{7}, nil); first != wire.PayloadNone || !bytes.Equal(out, []byte{7}) {
		t.Errorf("empty chain built as %v %x", first, out)
	}
	for _, tt := range []struct {
		name  string
		first wire.PayloadType
		b     string
		want  error
	}{
		{"bytes without a payload", wire.PayloadNone, "00", wire.ErrTrailing},
		{"payload without bytes", wire.PayloadNotify, "", wire.ErrShort},
		{"SK in SK", wire.PayloadSK, "29000008 00000000", wire.ErrNested},
		{"SKF in SK", wire.PayloadSKF, "29000008 00010001", wire.ErrNested},
		{"SK behind a payload in SK", wire.PayloadVendorID, "2e000004 29000004", wire.ErrNested},
	} {
		if ps, err := wire.ParsePayloads(tt.first, unhex(t, tt.b)); !errors.Is(err, tt.want) || ps != nil {
			t.Errorf("%s: %v, %v, want %v", tt.name, ps, err, tt.want)
		}
	}
}

// RFC 7296 section 3.14 and RFC 7383 section 2.5.
func TestEncryptedPayloads(t *testing.T) {
	for _, tt := range []struct {
		name string
		msg  string
		want wire.Encrypted
		in   []wire.Payload
	}{
		{"SK", hdr + `2e 20 25 08 00000002 00000024 2a000008 aabbccdd`,
			wire.Encrypted{Type: wire.PayloadSK, FirstInner: wire.PayloadDelete, Offset: 32, Body: []byte{0xaa, 0xbb, 0xcc, 0xdd}}, nil},
		{"SK with nothing at all", hdr + `2e 20 25 08 00000002 00000020 00000004`,
			wire.Encrypted{Type: wire.PayloadSK, Offset: 32, Body: []byte{}}, nil},
		{"SK behind a payload in the clear, critical", hdr + `2b 20 25 08 00000002 00000028 2e000005 76 2a800007 aabbcc`,
			wire.Encrypted{Critical: true, Type: wire.PayloadSK, FirstInner: wire.PayloadDelete, Offset: 37, Body: []byte{0xaa, 0xbb, 0xcc}},
			[]wire.Payload{&wire.VendorID{Data: []byte("v")}}},
		{"first fragment", hdr + `35 20 23 08 00000001 00000026 2300000a 00010002 aabb`,
			wire.Encrypted{Type: wire.PayloadSKF, FirstInner: wire.PayloadIDi, Offset: 36, Body: []byte{0xaa, 0xbb}, FragmentNumber: 1, TotalFragments: 2}, nil},
		{"last fragment", hdr + `35 20 23 08 00000001 00000026 0000000a ffffffff aabb`,
			wire.Encrypted{Type: wire.PayloadSKF, Offset: 36, Body: []byte{0xaa, 0xbb}, FragmentNumber: 65535, TotalFragments: 65535}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := unhex(t, tt.msg)
			m, err := wire.ParseMessage(b)
			if err != nil {
				t.Fatal(err)
			}
			if m.Encrypted == nil || !reflect.DeepEqual(*m.Encrypted, tt.want) {
				t.Fatalf("parsed %+v, want %+v", m.Encrypted, tt.want)
			}
			if len(m.Payloads) != len(tt.in) || len(tt.in) > 0 && !reflect.DeepEqual(m.Payloads, tt.in) {
				t.Errorf("in the clear %v, want %v", m.Payloads, tt.in)
			}
			if out := m.Append(nil); !bytes.Equal(out, b) {
				t.Errorf("rebuilt %x\nfrom    %x", out, b)
			}
			// What precedes the body is the associated data; it must not depend
			// on what is appended afterwards.
			aad := wire.AppendEncrypted([]byte{1, 2, 3}, wire.Header{SPIi: m.Header.SPIi, SPIr: m.Header.SPIr, Version: wire.IKEv2,
				Exchange: m.Header.Exchange, Flags: m.Header.Flags, MessageID: m.Header.MessageID}, tt.in, tt.want, len(tt.want.Body))
			if !bytes.Equal(aad[3:], b[:tt.want.Offset]) {
				t.Errorf("associated data %x, want %x", aad[3:], b[:tt.want.Offset])
			}
			if len(tt.in) == 0 && wire.EncryptedOverhead(tt.want.Type) != tt.want.Offset {
				t.Errorf("EncryptedOverhead = %d, want %d", wire.EncryptedOverhead(tt.want.Type), tt.want.Offset)
			}
		})
	}
}

func TestAppendEncryptedRefusesWhatDoesNotFit(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("built it")
		}
	}()
	wire.AppendEncrypted(nil, wire.Header{}, nil, wire.Encrypted{Type: wire.PayloadSK}, wire.MaxMessageLen-31)
}

func TestRFC7296_2_5_UnknownCriticalInTheClear(t *testing.T) {
	m, err := wire.ParseMessage(unhex(t, first+`c8 20 22 08 00000000 00000028 c9 00 0004 ca 80 0004 00 80 0004`))
	if err != nil {
		t.Fatal(err)
	}
	if typ, ok := m.UnknownCritical(); !ok || typ != 201 {
		t.Errorf("UnknownCritical = %v, %v", typ, ok)
	}
}

func TestSummary(t *testing.T) {
	h := wire.Header{Version: wire.IKEv2, Exchange: wire.ExchangeIKESAInit}
	ps := []wire.Payload{
		&wire.SA{Proposals: []wire.Proposal{{}}}, &wire.KE{Group: 31}, &wire.Nonce{Data: make([]byte, 16)},
		&wire.Notify{NotifyType: wire.NATDetectionSourceIP, Data: []byte("\x1b[2J")}, &wire.Notify{NotifyType: 50000},
		&wire.Unknown{PayloadType: 200, Critical: true}, &wire.VendorID{Data: []byte("\n")},
	}
	want := "IKE_SA_INIT request 0 [ SA KE(31) Nonce N(NAT_DETECTION_SOURCE_IP) N(Notify(50000)) Payload(200)! V ]"
	m, err := wire.ParseMessage(wire.AppendMessage(nil, h, ps))
	if err != nil {
		t.Fatal(err)
	}
	if got := m.Summary(); got != want {
		t.Errorf("Summary = %q\nwant      %q", got, want)
	}
	if got := wire.Summarize(h, ps); got != want {
		t.Errorf("Summarize = %q", got)
	}
	h = wire.Header{Exchange: 99, Flags: wire.FlagResponse, MessageID: 7}
	ps = []wire.Payload{
		&wire.Delete{Protocol: wire.ProtocolESP, SPIs: []uint32{1, 2}}, &wire.Delete{Protocol: wire.ProtocolIKE},
		&wire.CP{CFGType: wire.CFGReply}, &wire.ID{Kind: wire.PayloadIDr}, &wire.TS{Kind: wire.PayloadTSi},
	}
	want = "Exchange(99) response 7 [ D(ESP x2) D(IKE) CP(CFG_REPLY) IDr TSi ]"
	if got := wire.Summarize(h, ps); got != want {
		t.Errorf("Summarize = %q\nwant        %q", got, want)
	}
	m, err = wire.ParseMessage(unhex(t, hdr+`35 20 23 08 00000001 00000026 2300000a 00010002 aabb`))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := m.Summary(), "IKE_AUTH request 1 [ SKF(1/2) ]"; got != want {
		t.Errorf("Summary = %q, want %q", got, want)
	}
	m, err = wire.ParseMessage(unhex(t, hdr+`2e 20 25 28 00000003 00000020 00000004`))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := m.Summary(), "INFORMATIONAL response 3 [ SK ]"; got != want {
		t.Errorf("Summary = %q, want %q", got, want)
	}
}

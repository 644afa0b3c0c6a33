package wire_test

import (
	"bytes"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"adit/ike/wire"
)

// bodies holds each payload once, as hex of its body by the diagrams of the RFC
// and as the value it stands for.
var bodies = []struct {
	name string
	typ  wire.PayloadType
	body string
	want wire.Payload
}{
	{"RFC7296_3_3_SA", wire.PayloadSA, `
		02 00 0028 01 01 00 03
			03 00 000c 01 00 0014 800e 0100
			03 00 0008 02 00 0007
			00 00 000c 04 00 001f 800e 0080
		00 00 0014 02 03 04 01 c0ffee01
			00 00 0008 05 00 0000`,
		&wire.SA{Proposals: []wire.Proposal{
			{Number: 1, Protocol: wire.ProtocolIKE, SPI: []byte{}, Transforms: []wire.Transform{
				{Type: wire.TransformTypeENCR, ID: 20, KeyLength: 256},
				{Type: wire.TransformTypePRF, ID: 7},
				{Type: wire.TransformTypeKE, ID: 31, KeyLength: 128},
			}},
			{Number: 2, Protocol: wire.ProtocolESP, SPI: []byte{0xc0, 0xff, 0xee, 1}, Transforms: []wire.Transform{
				{Type: wire.TransformTypeESN, ID: 0},
			}},
		}}},
	{"RFC7296_3_3_SA_without_transforms", wire.PayloadSA, `00 00 0008 01 03 00 00`,
		&wire.SA{Proposals: []wire.Proposal{{Number: 1, Protocol: wire.ProtocolESP, SPI: []byte{}}}}},
	{"RFC7296_3_3_6_unknown_attributes", wire.PayloadSA, `
		00 00 0030 01 01 00 03
			03 00 000e 01 00 000c 0012 0002 abcd
			03 00 000c 01 00 000c 8011 0001
			00 00 000e 01 00 000c 000e 0002 0100`,
		&wire.SA{Proposals: []wire.Proposal{{Number: 1, Protocol: wire.ProtocolIKE, SPI: []byte{}, Transforms: []wire.Transform{
			{Type: 1, ID: 12, RawAttributes: []byte{0, 0x12, 0, 2, 0xab, 0xcd}},
			{Type: 1, ID: 12, RawAttributes: []byte{0x80, 0x11, 0, 1}},
			{Type: 1, ID: 12, RawAttributes: []byte{0, 0x0e, 0, 2, 1, 0}},
		}}}}},
	{"RFC7296_3_3_5_repeated_key_length", wire.PayloadSA, `
		00 00 0018 01 01 00 01
			00 00 0010 01 00 000c 800e 0100 800e 0080`,
		&wire.SA{Proposals: []wire.Proposal{{Number: 1, Protocol: wire.ProtocolIKE, SPI: []byte{}, Transforms: []wire.Transform{
			{Type: 1, ID: 12, KeyLength: 256, RawAttributes: []byte{0x80, 0x0e, 1, 0, 0x80, 0x0e, 0, 0x80}},
		}}}}},
	{"RFC7296_3_3_5_key_length_zero", wire.PayloadSA, `00 00 0014 01 01 00 01 00 00 000c 01 00 000c 800e 0000`,
		&wire.SA{Proposals: []wire.Proposal{{Number: 1, Protocol: wire.ProtocolIKE, SPI: []byte{}, Transforms: []wire.Transform{
			{Type: 1, ID: 12, RawAttributes: []byte{0x80, 0x0e, 0, 0}},
		}}}}},
	{"RFC7296_3_4_KE", wire.PayloadKE, `001f 0000 0102030405`,
		&wire.KE{Group: 31, Data: []byte{1, 2, 3, 4, 5}}},
	{"RFC7296_3_5_IDi", wire.PayloadIDi, `02 000000 676174652e6578616d706c65`,
		&wire.ID{Kind: wire.PayloadIDi, IDType: wire.IDFQDN, Data: []byte("gate.example")}},
	{"RFC7296_3_5_IDr_reserved_bytes_are_kept", wire.PayloadIDr, `01 010203 c0000201`,
		&wire.ID{Kind: wire.PayloadIDr, IDType: wire.IDIPv4Addr, Reserved: [3]byte{1, 2, 3}, Data: []byte{192, 0, 2, 1}}},
	{"RFC7619_ID_NULL", wire.PayloadIDi, `0d 000000`,
		&wire.ID{Kind: wire.PayloadIDi, IDType: wire.IDNull, Data: []byte{}}},
	{"RFC7296_3_6_CERT", wire.PayloadCERT, `04 3082`, &wire.Cert{Encoding: wire.CertX509Signature, Data: []byte{0x30, 0x82}}},
	{"RFC7296_3_7_CERTREQ", wire.PayloadCERTREQ, `04 000102030405060708090a0b0c0d0e0f10111213`,
		&wire.CertReq{Encoding: wire.CertX509Signature, Authorities: []byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19}}},
	{"RFC7296_3_8_AUTH", wire.PayloadAUTH, `02 000000 feed`, &wire.Auth{Method: wire.AuthSharedKey, Data: []byte{0xfe, 0xed}}},
	{"RFC7296_3_9_Nonce", wire.PayloadNonce, strings.Repeat("5a", 16), &wire.Nonce{Data: bytes.Repeat([]byte{0x5a}, 16)}},
	{"RFC7296_3_9_Nonce_longest", wire.PayloadNonce, strings.Repeat("5a", 256), &wire.Nonce{Data: bytes.Repeat([]byte{0x5a}, 256)}},
	{"RFC7296_3_10_N_REKEY_SA", wire.PayloadNotify, `03 04 4009 c0ffee01`,
		&wire.Notify{Protocol: wire.ProtocolESP, SPI: []byte{0xc0, 0xff, 0xee, 1}, NotifyType: wire.RekeySA, Data: []byte{}}},
	{"RFC7296_3_10_N_INVALID_KE_PAYLOAD", wire.PayloadNotify, `00 00 0011 001f`,
		&wire.Notify{SPI: []byte{}, NotifyType: wire.InvalidKEPayload, Data: []byte{0, 31}}},
	{"RFC7296_3_11_D_IKE", wire.PayloadDelete, `01 00 0000`, &wire.Delete{Protocol: wire.ProtocolIKE}},
	{"RFC7296_3_11_D_ESP", wire.PayloadDelete, `03 04 0002 00000101 fffffffe`,
		&wire.Delete{Protocol: wire.ProtocolESP, SPIs: []uint32{0x101, 0xfffffffe}}},
	{"RFC7296_3_12_V", wire.PayloadVendorID, `61646974`, &wire.VendorID{Data: []byte("adit")}},
	{"RFC7296_3_13_TSi", wire.PayloadTSi, `
		03 000000
		07 06 0010 01bb 01bb 0a010000 0a0100ff
		08 00 0028 0000 ffff fd000001000000000000000000000000 fd00000100000000ffffffffffffffff
		0a 00 0008 73797300`,
		&wire.TS{Kind: wire.PayloadTSi, Selectors: []wire.TrafficSelector{
			{Type: wire.TSIPv4AddrRange, Protocol: 6, StartPort: 443, EndPort: 443,
				Start: netip.MustParseAddr("10.1.0.0"), End: netip.MustParseAddr("10.1.0.255")},
			{Type: wire.TSIPv6AddrRange, EndPort: 65535,
				Start: netip.MustParseAddr("fd00:1::"), End: netip.MustParseAddr("fd00:1::ffff:ffff:ffff:ffff")},
			{Type: wire.TSSecLabel, Raw: []byte("sys\x00")},
		}}},
	{"RFC7296_3_13_1_TSr_OPAQUE_and_mapped", wire.PayloadTSr, `
		01 000000
		08 84 0028 ffff 0000 00000000000000000000ffffc0000201 00000000000000000000ffffc0000201`,
		&wire.TS{Kind: wire.PayloadTSr, Selectors: []wire.TrafficSelector{
			{Type: wire.TSIPv6AddrRange, Protocol: 132, StartPort: 65535,
				Start: netip.MustParseAddr("::ffff:192.0.2.1"), End: netip.MustParseAddr("::ffff:192.0.2.1")},
		}}},
	{"RFC7296_3_15_CP", wire.PayloadCP, `01 000000 0001 0000 0003 0004 c0000235`,
		&wire.CP{CFGType: wire.CFGRequest, Attributes: []wire.Attribute{
			{Type: wire.InternalIP4Address, Value: []byte{}},
			{Type: wire.InternalIP4DNS, Value: []byte{192, 0, 2, 0x35}},
		}}},
	{"RFC7296_3_15_CP_empty", wire.PayloadCP, `04 000000`, &wire.CP{CFGType: wire.CFGAck}},
	{"RFC7296_3_16_EAP_identity", wire.PayloadEAP, `01 07 0005 01`, &wire.EAP{Raw: []byte{1, 7, 0, 5, 1}}},
	{"RFC7296_3_16_EAP_success", wire.PayloadEAP, `03 07 0004`, &wire.EAP{Raw: []byte{3, 7, 0, 4}}},
	{"RFC7296_2_5_unknown", 200, `0badcafe`, &wire.Unknown{PayloadType: 200, Body: []byte{0x0b, 0xad, 0xca, 0xfe}}},
	{"IKEv1_number_in_IKEv2", wire.PayloadV1SA, `00000001`, &wire.Unknown{PayloadType: 1, Body: []byte{0, 0, 0, 1}}},
}

// chain puts a generic payload header in front of body.
func chain(next wire.PayloadType, flags byte, body []byte) []byte {
	n := len(body) + 4
	return append([]byte{byte(next), flags, byte(n >> 8), byte(n)}, body...)
}

func TestPayloadBodies(t *testing.T) {
	for _, tt := range bodies {
		t.Run(tt.name, func(t *testing.T) {
			b := chain(wire.PayloadNone, 0, unhex(t, tt.body))
			got, err := wire.ParsePayloads(tt.typ, b)
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != 1 || !reflect.DeepEqual(got[0], tt.want) {
				t.Fatalf("parsed %#v\nwant %#v", got[0], tt.want)
			}
			first, out := wire.AppendPayloads(nil, []wire.Payload{tt.want})
			if first != tt.typ || !bytes.Equal(out, b) {
				t.Errorf("built %v %x\nwant %v %x", first, out, tt.typ, b)
			}
			if err := wire.CheckPayloads(got); err != nil {
				t.Errorf("CheckPayloads: %v", err)
			}
		})
	}
}

// RFC 7296 section 3.2: every type may carry the critical bit, and the seven
// bits behind it are ignored.
func TestRFC7296_3_2_CriticalBit(t *testing.T) {
	for _, tt := range bodies {
		t.Run(tt.name, func(t *testing.T) {
			body := unhex(t, tt.body)
			got, err := wire.ParsePayloads(tt.typ, chain(wire.PayloadNone, 0xff, body))
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.ValueOf(got[0]).Elem().FieldByName("Critical").Bool() {
				t.Error("critical bit lost")
			}
			_, out := wire.AppendPayloads(nil, got)
			if want := chain(wire.PayloadNone, 0x80, body); !bytes.Equal(out, want) {
				t.Errorf("built %x, want %x", out, want)
			}
			u, critical := wire.UnknownCritical(got)
			_, unknown := got[0].(*wire.Unknown)
			if critical != unknown || unknown && u != tt.typ {
				t.Errorf("UnknownCritical = %v, %v", u, critical)
			}
		})
	}
}

// RFC 7296 sections 3.2, 3.4, 3.8, 3.13, 3.15.1: reserved bits and fields are
// ignored on receipt, and zero in what is built from the parsed values.
func TestReservedBitsAreIgnored(t *testing.T) {
	for _, tt := range []struct {
		typ       wire.PayloadType
		got, want string
	}{
		{wire.PayloadVendorID, `007f0005 76`, `00000005 76`},
		{200, `007f0005 76`, `00000005 76`},
		{wire.PayloadSA, `00000014 00ff0010 01010001 00ff0008 01ff0003`, `00000014 00000010 01010001 00000008 01000003`},
		{wire.PayloadKE, `00000009 001fffff 01`, `00000009 001f0000 01`},
		{wire.PayloadAUTH, `00000009 02ffffff 01`, `00000009 02000000 01`},
		{wire.PayloadTSi, `0000000d 01ffffff 0a000005 01`, `0000000d 01000000 0a000005 01`},
		{wire.PayloadCP, `0000000c 01ffffff 80010000`, `0000000c 01000000 00010000`},
	} {
		ps, err := wire.ParsePayloads(tt.typ, unhex(t, tt.got))
		if err != nil {
			t.Errorf("%v: %v", tt.typ, err)
			continue
		}
		if _, out := wire.AppendPayloads(nil, ps); !bytes.Equal(out, unhex(t, tt.want)) {
			t.Errorf("%v: built %x", tt.typ, out)
		}
		if cp, ok := ps[0].(*wire.CP); ok && cp.Attributes[0].Type != wire.InternalIP4Address {
			t.Errorf("attribute %v", cp.Attributes[0].Type)
		}
		if u, critical := wire.UnknownCritical(ps); critical {
			t.Errorf("payload %d is not critical", u)
		}
	}
}

// Every truncation of every body is refused or parses to something that is
// rebuilt to the same bytes; none panics.
func TestTruncatedBodies(t *testing.T) {
	for _, tt := range bodies {
		body := unhex(t, tt.body)
		for n := range body {
			b := chain(wire.PayloadNone, 0, body[:n])
			got, err := wire.ParsePayloads(tt.typ, b)
			if err != nil {
				continue
			}
			if _, out := wire.AppendPayloads(nil, got); !bytes.Equal(out, b) {
				t.Errorf("%s cut to %d: parsed %#v, rebuilt %x from %x", tt.name, n, got[0], out, b)
			}
		}
	}
}

func TestParsedValuesAliasTheInputOnly(t *testing.T) {
	b := chain(wire.PayloadVendorID, 0, unhex(t, "0000 4006 aabb"))
	b = append(b, chain(wire.PayloadNone, 0, []byte("vendor"))...)
	got, err := wire.ParsePayloads(wire.PayloadNotify, b)
	if err != nil {
		t.Fatal(err)
	}
	n := got[0].(*wire.Notify)
	if &n.Data[0] != &b[8] {
		t.Error("notification data was copied")
	}
	before := bytes.Clone(b)
	_ = append(n.Data, 0xff)
	_ = append(n.SPI, 0xff)
	if !bytes.Equal(b, before) {
		t.Error("appending to a parsed field wrote into the next payload")
	}
}

func TestFindPayloads(t *testing.T) {
	ps := []wire.Payload{
		&wire.ID{Kind: wire.PayloadIDr, IDType: wire.IDKeyID},
		&wire.ID{Kind: wire.PayloadIDi, IDType: wire.IDFQDN},
		&wire.TS{Kind: wire.PayloadTSr},
		&wire.Notify{NotifyType: wire.Cookie},
		&wire.KE{Group: 19},
	}
	if id := wire.FindID(ps, wire.PayloadIDi); id != ps[1] {
		t.Errorf("FindID = %v", id)
	}
	if ts := wire.FindTS(ps, wire.PayloadTSr); ts != ps[2] {
		t.Errorf("FindTS = %v", ts)
	}
	if ts := wire.FindTS(ps, wire.PayloadTSi); ts != nil {
		t.Errorf("FindTS found %v", ts)
	}
	if n := wire.FindNotify(ps, wire.Cookie); n != ps[3] {
		t.Errorf("FindNotify = %v", n)
	}
	if n := wire.FindNotify(ps, wire.Redirect); n != nil {
		t.Errorf("FindNotify found %v", n)
	}
	if ke, ok := wire.First[*wire.KE](ps); !ok || ke != ps[4] {
		t.Errorf("First = %v, %v", ke, ok)
	}
	if n, ok := wire.First[*wire.Nonce](ps); ok || n != nil {
		t.Errorf("First found %v", n)
	}
}

// RFC 7296 section 3.3.6: an attribute that is not understood bars its transform,
// and no other.
func TestRFC7296_3_3_6_UnknownAttributeMarksItsTransform(t *testing.T) {
	got, err := wire.ParsePayloads(wire.PayloadSA, chain(wire.PayloadNone, 0, unhex(t, `
		00 00 0020 01 01 00 02
			03 00 000c 01 00 0014 8011 0100
			00 00 000c 01 00 0014 800e 0100`)))
	if err != nil {
		t.Fatal(err)
	}
	tr := got[0].(*wire.SA).Proposals[0].Transforms
	if !tr[0].UnknownAttribute() || tr[1].UnknownAttribute() {
		t.Errorf("transforms %+v", tr)
	}
}

// RFC 7296 section 2.15: AUTH covers the ID payload without its generic header.
func TestRFC7296_2_15_SignedOctetsOfID(t *testing.T) {
	body := unhex(t, "01 0a0b0c c0000201")
	got, err := wire.ParsePayloads(wire.PayloadIDi, chain(wire.PayloadNone, 0, body))
	if err != nil {
		t.Fatal(err)
	}
	if out := got[0].(*wire.ID).AppendSigned(nil); !bytes.Equal(out, body) {
		t.Errorf("signed octets %x, want %x", out, body)
	}
}

func TestBuildingRefusesWhatDoesNotFit(t *testing.T) {
	big := make([]byte, 1<<16)
	for name, tt := range map[string]struct {
		p    wire.Payload
		want error
	}{
		"payload":            {&wire.VendorID{Data: big}, wire.ErrTooLarge},
		"payload by a byte":  {&wire.VendorID{Data: big[:65532]}, wire.ErrTooLarge},
		"message":            {&wire.VendorID{Data: big[:65531]}, wire.ErrTooLarge},
		"notify SPI":         {&wire.Notify{SPI: big[:256]}, wire.ErrTooLarge},
		"proposal SPI":       {&wire.SA{Proposals: []wire.Proposal{{SPI: big[:256]}}}, wire.ErrTooLarge},
		"transforms":         {&wire.SA{Proposals: []wire.Proposal{{Transforms: make([]wire.Transform, 256)}}}, wire.ErrTooLarge},
		"selectors":          {&wire.TS{Kind: wire.PayloadTSi, Selectors: make([]wire.TrafficSelector, 256)}, wire.ErrTooLarge},
		"attribute":          {&wire.CP{Attributes: []wire.Attribute{{Value: big}}}, wire.ErrTooLarge},
		"delete of IKE SPIs": {&wire.Delete{Protocol: wire.ProtocolIKE, SPIs: []uint32{1}}, wire.ErrTooLarge},
		"ID without kind":    {&wire.ID{}, wire.ErrKind},
		"TS without kind":    {&wire.TS{}, wire.ErrKind},
		"wrong family": {&wire.TS{Kind: wire.PayloadTSi, Selectors: []wire.TrafficSelector{{Type: wire.TSIPv4AddrRange,
			Start: netip.MustParseAddr("::1"), End: netip.MustParseAddr("::1")}}}, wire.ErrKind},
		"no address": {&wire.TS{Kind: wire.PayloadTSi, Selectors: []wire.TrafficSelector{{Type: wire.TSIPv6AddrRange}}}, wire.ErrKind},
	} {
		t.Run(name, func(t *testing.T) {
			if err := wire.CheckPayloads([]wire.Payload{tt.p}); err != tt.want {
				t.Errorf("CheckPayloads = %v, want %v", err, tt.want)
			}
			defer func() {
				if recover() == nil {
					t.Error("AppendMessage built it")
				}
			}()
			wire.AppendMessage(nil, wire.Header{}, []wire.Payload{tt.p})
		})
	}
}

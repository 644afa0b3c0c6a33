package wire_test

import (
	"bytes"
	"net/netip"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"adit/ike/wire"
)

func octets(t *rapid.T, label string, low, high int) []byte {
	return append(make([]byte, 0, 1), rapid.SliceOfN(rapid.Byte(), low, high).Draw(t, label)...)
}

func drawAddr(t *rapid.T, n int) netip.Addr {
	a, _ := netip.AddrFromSlice(octets(t, "address", n, n))
	return a
}

func drawSelector(t *rapid.T) wire.TrafficSelector {
	s := wire.TrafficSelector{Type: wire.TSType(rapid.IntRange(6, 10).Draw(t, "selector type")), Protocol: rapid.Byte().Draw(t, "protocol")}
	n := map[wire.TSType]int{wire.TSIPv4AddrRange: 4, wire.TSIPv6AddrRange: 16}[s.Type]
	if n == 0 {
		s.Raw = octets(t, "selector", 0, 20)
		return s
	}
	s.StartPort, s.EndPort = rapid.Uint16().Draw(t, "start"), rapid.Uint16().Draw(t, "end")
	s.Start, s.End = drawAddr(t, n), drawAddr(t, n)
	return s
}

func drawTransform(t *rapid.T) wire.Transform {
	return wire.Transform{Type: rapid.Byte().Draw(t, "type"), ID: rapid.Uint16().Draw(t, "id"), KeyLength: rapid.Uint16().Draw(t, "key length")}
}

func drawProposal(t *rapid.T) wire.Proposal {
	p := wire.Proposal{Number: rapid.Byte().Draw(t, "number"), Protocol: wire.ProtocolID(rapid.Byte().Draw(t, "protocol")), SPI: octets(t, "SPI", 0, 255)}
	p.Transforms = nonEmpty(rapid.SliceOfN(rapid.Custom(drawTransform), 0, 12).Draw(t, "transforms"))
	return p
}

// nonEmpty turns an empty slice into nil, as parsing yields it.
func nonEmpty[T any](s []T) []T {
	if len(s) == 0 {
		return nil
	}
	return s
}

func drawPayload(t *rapid.T) wire.Payload {
	crit := rapid.Bool().Draw(t, "critical")
	kind := rapid.IntRange(0, 13).Draw(t, "payload")
	switch kind {
	case 0:
		return &wire.SA{Critical: crit, Proposals: rapid.SliceOfN(rapid.Custom(drawProposal), 1, 4).Draw(t, "proposals")}
	case 1:
		return &wire.KE{Critical: crit, Group: rapid.Uint16().Draw(t, "group"), Data: octets(t, "value", 0, 40)}
	case 2:
		id := &wire.ID{Critical: crit, Kind: rapid.SampledFrom([]wire.PayloadType{wire.PayloadIDi, wire.PayloadIDr}).Draw(t, "kind"),
			IDType: wire.IDType(rapid.Byte().Draw(t, "type")), Data: octets(t, "id", 0, 40)}
		copy(id.Reserved[:], octets(t, "reserved", 3, 3))
		return id
	case 3:
		return &wire.Cert{Critical: crit, Encoding: wire.CertEncoding(rapid.Byte().Draw(t, "encoding")), Data: octets(t, "certificate", 0, 40)}
	case 4:
		return &wire.CertReq{Critical: crit, Encoding: wire.CertEncoding(rapid.Byte().Draw(t, "encoding")), Authorities: octets(t, "authorities", 0, 60)}
	case 5:
		return &wire.Auth{Critical: crit, Method: wire.AuthMethod(rapid.Byte().Draw(t, "method")), Data: octets(t, "auth", 0, 40)}
	case 6:
		return &wire.Nonce{Critical: crit, Data: octets(t, "nonce", wire.MinNonceLen, wire.MaxNonceLen)}
	case 7:
		return &wire.Notify{Critical: crit, Protocol: wire.ProtocolID(rapid.Byte().Draw(t, "protocol")), SPI: octets(t, "SPI", 0, 255),
			NotifyType: wire.NotifyType(rapid.Uint16().Draw(t, "type")), Data: octets(t, "data", 0, 40)}
	case 8:
		d := &wire.Delete{Critical: crit, Protocol: wire.ProtocolID(rapid.Byte().Draw(t, "protocol"))}
		if d.Protocol != wire.ProtocolIKE {
			d.SPIs = nonEmpty(rapid.SliceOfN(rapid.Uint32(), 0, 20).Draw(t, "SPIs"))
		}
		return d
	case 9:
		return &wire.VendorID{Critical: crit, Data: octets(t, "vendor", 0, 40)}
	case 10:
		return &wire.TS{Critical: crit, Kind: rapid.SampledFrom([]wire.PayloadType{wire.PayloadTSi, wire.PayloadTSr}).Draw(t, "kind"),
			Selectors: nonEmpty(rapid.SliceOfN(rapid.Custom(drawSelector), 0, 6).Draw(t, "selectors"))}
	case 11:
		return &wire.CP{Critical: crit, CFGType: wire.CFGType(rapid.Byte().Draw(t, "type")),
			Attributes: nonEmpty(rapid.SliceOfN(rapid.Custom(func(t *rapid.T) wire.Attribute {
				return wire.Attribute{Type: wire.AttributeType(rapid.Uint16Range(0, 0x7fff).Draw(t, "type")), Value: octets(t, "value", 0, 20)}
			}), 0, 6).Draw(t, "attributes"))}
	case 12:
		b := append([]byte{2, rapid.Byte().Draw(t, "identifier"), 0, 0}, octets(t, "eap", 0, 40)...)
		b[3] = byte(len(b))
		return &wire.EAP{Critical: crit, Raw: b}
	}
	return &wire.Unknown{Critical: crit, PayloadType: wire.PayloadType(rapid.ByteRange(54, 255).Draw(t, "type")), Body: octets(t, "body", 0, 40)}
}

// Whatever is built parses to the same values, and those are built to the same
// bytes: in the clear, and as the contents and clear part of an SK or SKF.
func TestBuildParseBuild(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ps := rapid.SliceOfN(rapid.Custom(drawPayload), 0, 8).Draw(t, "payloads")
		h := wire.Header{SPIi: rapid.Uint64().Draw(t, "SPIi"), SPIr: rapid.Uint64().Draw(t, "SPIr"), Version: wire.Version{Major: 2, Minor: rapid.Uint8Range(0, 15).Draw(t, "minor")},
			Exchange: wire.ExchangeType(rapid.Byte().Draw(t, "exchange")), Flags: wire.Flags(rapid.Byte().Draw(t, "flags")), MessageID: rapid.Uint32().Draw(t, "id")}

		b := wire.AppendMessage([]byte{1, 2, 3}, h, ps)[3:]
		m, err := wire.ParseMessage(b)
		if err != nil {
			t.Fatalf("own message refused: %v", err)
		}
		if len(m.Payloads) != len(ps) || len(ps) > 0 && !reflect.DeepEqual(m.Payloads, ps) {
			t.Fatalf("parsed %#v\nbuilt  %#v", m.Payloads, ps)
		}
		h.Length, h.NextPayload = uint32(len(b)), m.Header.NextPayload
		if m.Header != h {
			t.Fatalf("parsed %+v, built %+v", m.Header, h)
		}
		if again := m.Append(nil); !bytes.Equal(again, b) {
			t.Fatalf("rebuilt\n%x\nfrom\n%x", again, b)
		}

		first, inner := wire.AppendPayloads(nil, ps)
		e := wire.Encrypted{Critical: rapid.Bool().Draw(t, "critical"), Type: wire.PayloadSK, FirstInner: first}
		if rapid.Bool().Draw(t, "fragment") {
			e.Type, e.FragmentNumber = wire.PayloadSKF, 1
			e.TotalFragments = rapid.Uint16Range(1, 65535).Draw(t, "total")
		}
		b = wire.AppendEncrypted(nil, h, ps, e, len(inner))
		e.Offset, e.Body = len(b), inner
		b = append(b, inner...)
		if m, err = wire.ParseMessage(b); err != nil {
			t.Fatalf("own encrypted message refused: %v", err)
		}
		if len(inner) == 0 {
			e.Body = m.Encrypted.Body
		}
		if !reflect.DeepEqual(*m.Encrypted, e) {
			t.Fatalf("parsed %+v, built %+v", *m.Encrypted, e)
		}
		if again := m.Append(nil); !bytes.Equal(again, b) {
			t.Fatalf("rebuilt\n%x\nfrom\n%x", again, b)
		}
		got, err := wire.ParsePayloads(m.Encrypted.FirstInner, m.Encrypted.Body)
		if err != nil || len(got) != len(ps) {
			t.Fatalf("contents: %v, %v", got, err)
		}
	})
}

package attack_test

import (
	"crypto/rand"
	"encoding/binary"
	"net/netip"
	"testing"

	"adit/ike"
	"adit/ike/wire"
	"adit/suite"
)

// hostile is a scripted peer. It speaks IKEv2 by ike/wire and suite alone and says
// what a test tells it to.
type hostile struct {
	w          *world
	at, to     netip.AddrPort
	id         string
	psk        suite.Key
	group      suite.TransformID
	initiator  bool
	spiI, spiR uint64
	ni, nr     []byte
	kx         suite.KeyExchange
	request    []byte // IKE_SA_INIT as sent and received, for AUTH
	response   []byte
	prf        suite.PRF
	d, pi, pr  suite.Key
	ci, cr     suite.Cipher
	next       uint32 // message ID of the next request
	sealed     uint64
	fragments  bool // announces RFC 7383
}

var (
	encr  = suite.Transform{Type: suite.TypeENCR, ID: suite.EncrAESCBC, KeyBits: 128}
	integ = suite.Transform{Type: suite.TypeINTEG, ID: suite.IntegHMACSHA2_256_128}
	prf   = suite.Transform{Type: suite.TypePRF, ID: suite.PRFHMACSHA2_256}
)

func random(n int) []byte { b := make([]byte, n); rand.Read(b); return b }

func random64() uint64 { return binary.BigEndian.Uint64(random(8)) | 1 }

// guest is a hostile peer that has the key of the guest connection.
func (w *world) guest() *hostile {
	return &hostile{w: w, at: netip.AddrPortFrom(hostileAddr, 500), to: netip.AddrPortFrom(victimAddr, 500), id: guestID, psk: guestKey,
		group: suite.KECurve25519, initiator: true, spiI: random64(), ni: random(32)}
}

// stranger has no key.
func (w *world) stranger() *hostile {
	p := w.guest()
	p.psk = suite.Key("a guess")
	return p
}

func ikeProposal(group suite.TransformID, spi []byte) *wire.SA {
	return &wire.SA{Proposals: []wire.Proposal{{Number: 1, Protocol: wire.ProtocolIKE, SPI: spi, Transforms: []wire.Transform{
		{Type: wire.TransformTypeENCR, ID: uint16(encr.ID), KeyLength: encr.KeyBits}, {Type: wire.TransformTypeINTEG, ID: uint16(integ.ID)},
		{Type: wire.TransformTypePRF, ID: uint16(prf.ID)}, {Type: wire.TransformTypeKE, ID: uint16(group)}}}}}
}

func espProposal(spi uint32) *wire.SA {
	return &wire.SA{Proposals: []wire.Proposal{{Number: 1, Protocol: wire.ProtocolESP, SPI: binary.BigEndian.AppendUint32(nil, spi), Transforms: []wire.Transform{
		{Type: wire.TransformTypeENCR, ID: uint16(suite.EncrAESGCM16), KeyLength: 128}, {Type: wire.TransformTypeESN, ID: 0}}}}}
}

func ts(kind wire.PayloadType, from, to string) *wire.TS {
	return &wire.TS{Kind: kind, Selectors: []wire.TrafficSelector{{Type: wire.TSIPv4AddrRange, EndPort: 65535, Start: netip.MustParseAddr(from), End: netip.MustParseAddr(to)}}}
}

func selectorPayloads() []wire.Payload {
	return []wire.Payload{ts(wire.PayloadTSi, "10.9.0.0", "10.9.255.255"), ts(wire.PayloadTSr, "10.1.0.0", "10.1.255.255")}
}

func notify(t wire.NotifyType, data []byte) *wire.Notify {
	return &wire.Notify{NotifyType: t, Data: data}
}

// initPayloads are those of an honest first message.
func (p *hostile) initPayloads() []wire.Payload {
	if p.kx == nil {
		var err error
		if p.kx, err = suite.NewKeyExchange(p.group); err != nil {
			p.w.t.Fatal(err)
		}
	}
	list := []wire.Payload{ikeProposal(p.group, nil), &wire.KE{Group: uint16(p.group), Data: p.kx.Public()}, &wire.Nonce{Data: p.ni}}
	if p.fragments {
		list = append(list, notify(wire.FragmentationSupported, nil))
	}
	return list
}

func (p *hostile) first(list ...wire.Payload) []byte {
	return wire.AppendMessage(nil, wire.Header{SPIi: p.spiI, Version: wire.IKEv2, Exchange: wire.ExchangeIKESAInit, Flags: wire.FlagInitiator}, list)
}

// send injects bytes and returns what came back to the address of the peer.
func (p *hostile) send(data []byte) (back []ike.Datagram) {
	n := len(p.w.out)
	p.w.inject(p.at, p.to, data)
	for _, d := range p.w.out[n:] {
		if d.Remote.Addr() == p.at.Addr() {
			back = append(back, d)
		}
	}
	return back
}

// init does IKE_SA_INIT, cookies included.
func (p *hostile) init() bool {
	p.w.t.Helper()
	list := p.initPayloads()
	p.request = p.first(list...)
	back := p.send(p.request)
	if len(back) == 0 {
		return false
	}
	msg := parse(p.w.t, back[0].Data)
	if c := wire.FindNotify(msg.Payloads, wire.Cookie); c != nil {
		p.request = p.first(append([]wire.Payload{notify(wire.Cookie, c.Data)}, list...)...)
		if back = p.send(p.request); len(back) == 0 {
			return false
		}
		msg = parse(p.w.t, back[0].Data)
	}
	return p.take(msg)
}

// take derives the keys from the responder's IKE_SA_INIT.
func (p *hostile) take(msg *wire.Message) bool {
	ke, ok1 := wire.First[*wire.KE](msg.Payloads)
	nr, ok2 := wire.First[*wire.Nonce](msg.Payloads)
	if !ok1 || !ok2 {
		return false
	}
	p.response, p.nr, p.spiR, p.next = msg.Raw, nr.Data, msg.Header.SPIr, 1
	shared, err := p.kx.Shared(ke.Data)
	if err != nil {
		p.w.t.Fatal(err)
	}
	p.derive(shared)
	return true
}

// derive is RFC 7296 §2.14, with the prf of suite.
func (p *hostile) derive(shared suite.Key) {
	f, err := suite.NewPRF(prf)
	if err != nil {
		p.w.t.Fatal(err)
	}
	p.prf = f
	seed := append(append([]byte(nil), p.ni...), p.nr...)
	p.arm(f.Sum(seed, shared))
}

func (p *hostile) arm(skeyseed suite.Key) {
	seed := append(append([]byte(nil), p.ni...), p.nr...)
	seed = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(seed, p.spiI), p.spiR)
	all := p.prf.Plus(skeyseed, seed, 3*32+2*32+2*16)
	cut := func(n int) suite.Key { k := all[:n:n]; all = all[n:]; return k }
	p.d = cut(32)
	ai, ar, ei, er := cut(32), cut(32), cut(16), cut(16)
	p.pi, p.pr = cut(32), cut(32)
	var err error
	if p.ci, err = suite.NewCipher(encr, integ, ei, ai); err != nil {
		p.w.t.Fatal(err)
	}
	if p.cr, err = suite.NewCipher(encr, integ, er, ar); err != nil {
		p.w.t.Fatal(err)
	}
}

func parse(t testing.TB, b []byte) *wire.Message {
	t.Helper()
	msg, err := wire.ParseMessage(b)
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

func (p *hostile) cipher(out bool) suite.Cipher {
	if p.initiator == out {
		return p.ci
	}
	return p.cr
}

// seal protects payloads under any header.
func (p *hostile) seal(h wire.Header, list ...wire.Payload) []byte {
	first, text := wire.AppendPayloads(nil, list)
	return p.sealText(h, first, text)
}

func (p *hostile) sealText(h wire.Header, first wire.PayloadType, text []byte) []byte {
	return p.sealPayload(h, wire.Encrypted{Type: wire.PayloadSK, FirstInner: first}, text)
}

// sealPayload protects any bytes in an Encrypted or Encrypted Fragment payload.
func (p *hostile) sealPayload(h wire.Header, e wire.Encrypted, text []byte) []byte {
	c := p.cipher(true)
	pad := 0
	for ; (len(text)+1)%c.Align() != 0; pad++ {
		text = append(text, 0)
	}
	text = append(text, byte(pad))
	iv, icv := c.IVLen(), c.ICVLen()
	b := wire.AppendEncrypted(nil, h, nil, e, iv+len(text)+icv)
	at := len(b)
	b = append(append(append(b, make([]byte, iv)...), text...), make([]byte, icv)...)
	p.sealed++
	c.PutIV(b[at:at+iv], p.sealed)
	c.Seal(b[:at], b[at:at+iv], b[at+iv:at+iv+len(text)], b[at+iv+len(text):], nil)
	return b
}

// open reads a protected message; nil if it is not authentic.
func (p *hostile) open(b []byte) []wire.Payload {
	msg := parse(p.w.t, b)
	if msg.Encrypted == nil {
		return nil
	}
	c := p.cipher(false)
	body := append([]byte(nil), msg.Encrypted.Body...)
	iv, icv := c.IVLen(), c.ICVLen()
	text := body[iv : len(body)-icv]
	if !c.Open(b[:msg.Encrypted.Offset], body[:iv], text, body[len(body)-icv:], nil) {
		return nil
	}
	list, err := wire.ParsePayloads(msg.Encrypted.FirstInner, text[:len(text)-1-int(text[len(text)-1])])
	if err != nil {
		p.w.t.Fatal(err)
	}
	return list
}

func (p *hostile) header(x wire.ExchangeType, id uint32, response bool) wire.Header {
	h := wire.Header{SPIi: p.spiI, SPIr: p.spiR, Version: wire.IKEv2, Exchange: x, MessageID: id}
	if p.initiator {
		h.Flags |= wire.FlagInitiator
	}
	if response {
		h.Flags |= wire.FlagResponse
	}
	return h
}

// ask sends the next request and returns the answer's payloads, nil without an authentic answer.
func (p *hostile) ask(x wire.ExchangeType, list ...wire.Payload) []wire.Payload {
	h := p.header(x, p.next, false)
	p.next++
	for _, d := range p.send(p.seal(h, list...)) {
		if r := parse(p.w.t, d.Data).Header; r.Response() && r.MessageID == h.MessageID {
			if list := p.open(d.Data); list != nil {
				return list
			}
			return []wire.Payload{} // an empty answer
		}
	}
	return nil
}

func (p *hostile) idi() *wire.ID {
	return &wire.ID{Kind: wire.PayloadIDi, IDType: wire.IDFQDN, Data: []byte(p.id)}
}

// auth is the AUTH payload of the initiator (RFC 7296 §2.15).
func (p *hostile) auth(id *wire.ID) *wire.Auth {
	maced := p.prf.Sum(p.pi, id.AppendSigned(nil))
	return &wire.Auth{Method: wire.AuthSharedKey, Data: p.prf.Sum(p.prf.Sum(p.psk, []byte("Key Pad for IKEv2")), p.request, p.nr, maced)}
}

func (p *hostile) authPayloads() []wire.Payload {
	id := p.idi()
	return append([]wire.Payload{id, p.auth(id), espProposal(binary.BigEndian.Uint32(random(4)) | 1<<31)}, selectorPayloads()...)
}

// established sets an IKE SA with a Child SA up.
func (p *hostile) established() *hostile {
	p.w.t.Helper()
	if !p.init() {
		p.w.t.Fatal("IKE_SA_INIT was not answered")
	}
	answer := p.ask(wire.ExchangeIKEAuth, p.authPayloads()...)
	if _, ok := wire.First[*wire.Auth](answer); !ok {
		p.w.t.Fatalf("IKE_AUTH was refused: %v %v", wire.Summarize(wire.Header{}, answer), p.w.v.rejections)
	}
	return p
}

func errorIn(list []wire.Payload) wire.NotifyType {
	for _, x := range list {
		if n, ok := x.(*wire.Notify); ok && n.NotifyType.IsError() {
			return n.NotifyType
		}
	}
	return 0
}

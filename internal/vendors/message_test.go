package vendors_test

import (
	"bytes"
	"crypto/sha1"
	"net/netip"

	"adit/ike"
	"adit/ike/wire"
)

// send puts a datagram of the peer on the way.
func (p *peer) send(from, to netip.AddrPort, data []byte) {
	d := ike.Datagram{Local: to, Remote: from, Data: bytes.Clone(data)}
	way := oneWay
	if p.w.delay != nil {
		way += p.w.delay(d)
	}
	p.w.fly(flight{at: p.w.now.Add(way), toAdit: true, d: d})
}

func (s *ikeSA) cipher(out bool) interface {
	IVLen() int
	ICVLen() int
	Align() int
	PutIV([]byte, uint64)
	Seal(aad, iv, text, icv, scratch []byte)
	Open(aad, iv, text, icv, scratch []byte) bool
} {
	if s.initiator == out {
		return s.ci
	}
	return s.cr
}

// seal protects payloads, in fragments if the message is long and both sides know how.
func (s *ikeSA) seal(h wire.Header, list []wire.Payload) [][]byte {
	first, text := wire.AppendPayloads(nil, list)
	size := s.p.habits.fragments
	if !s.fragments || size == 0 || len(text) <= size {
		return [][]byte{s.sealPayload(h, wire.Encrypted{Type: wire.PayloadSK, FirstInner: first}, text)}
	}
	var out [][]byte
	total := (len(text) + size - 1) / size
	for i := range total {
		e := wire.Encrypted{Type: wire.PayloadSKF, FragmentNumber: uint16(i + 1), TotalFragments: uint16(total)}
		if i == 0 {
			e.FirstInner = first
		}
		out = append(out, s.sealPayload(h, e, bytes.Clone(text[i*size:min((i+1)*size, len(text))])))
	}
	return out
}

func (s *ikeSA) sealPayload(h wire.Header, e wire.Encrypted, text []byte) []byte {
	c := s.cipher(true)
	pad := 0
	for ; (len(text)+1)%c.Align() != 0; pad++ {
		text = append(text, 0)
	}
	text = append(text, byte(pad))
	iv, icv := c.IVLen(), c.ICVLen()
	b := wire.AppendEncrypted(nil, h, nil, e, iv+len(text)+icv)
	at := len(b)
	b = append(append(append(b, make([]byte, iv)...), text...), make([]byte, icv)...)
	s.sealed++
	c.PutIV(b[at:at+iv], s.sealed)
	c.Seal(b[:at], b[at:at+iv], b[at+iv:at+iv+len(text)], b[at+iv+len(text):], nil)
	return b
}

// open reads a protected message; whole is false until all fragments are there.
func (s *ikeSA) open(msg *wire.Message) (list []wire.Payload, whole bool) {
	t, e, c := s.p.w.t, msg.Encrypted, s.cipher(false)
	body := bytes.Clone(e.Body)
	iv, icv := c.IVLen(), c.ICVLen()
	text := body[iv : len(body)-icv]
	if !c.Open(msg.Raw[:e.Offset], body[:iv], text, body[len(body)-icv:], nil) {
		t.Fatal("adit sent what does not open under the keys of the IKE SA")
	}
	text, inner := text[:len(text)-1-int(text[len(text)-1])], e.FirstInner
	if e.Type == wire.PayloadSKF {
		if s.parts == nil {
			s.parts = map[uint16][]byte{}
		}
		if e.FragmentNumber == 1 {
			s.partInner = inner
		}
		if s.parts[e.FragmentNumber] = text; len(s.parts) < int(e.TotalFragments) {
			return nil, false
		}
		text, inner = nil, s.partInner
		for i := range e.TotalFragments {
			text = append(text, s.parts[i+1]...)
		}
		s.parts = nil
		s.p.fragmented++
	}
	list, err := wire.ParsePayloads(inner, text)
	if err != nil {
		t.Fatal(err)
	}
	return list, true
}

func (s *ikeSA) header(x wire.ExchangeType, id uint32, response bool) wire.Header {
	h := wire.Header{SPIi: s.spiI, SPIr: s.spiR, Version: wire.IKEv2, Exchange: x, MessageID: id}
	if s.initiator {
		h.Flags |= wire.FlagInitiator
	}
	if response {
		h.Flags |= wire.FlagResponse
	}
	return h
}

// ask sends a request as soon as no other one is in flight.
func (s *ikeSA) ask(x *exchange) {
	s.queue = append(s.queue, x)
	s.next()
}

func (s *ikeSA) next() {
	for s.flight == nil && len(s.queue) > 0 && !s.gone {
		x := s.queue[0]
		s.queue = s.queue[1:]
		list := x.list()
		if list == nil {
			continue
		}
		s.flight = x
		for _, b := range s.seal(s.header(x.kind, s.sendID, false), list) {
			s.p.send(s.at, s.to, b)
		}
	}
}

// answer sends the response to the request that is being worked at.
func (s *ikeSA) answer(h wire.Header, list ...wire.Payload) {
	s.last = s.seal(s.header(h.Exchange, h.MessageID, true), list)
	s.recvID = h.MessageID + 1
	for _, b := range s.last {
		s.p.send(s.at, s.to, b)
	}
}

func (p *peer) find(h *wire.Header) *ikeSA {
	for _, s := range p.sas {
		if s.spiI == h.SPIi && s.spiR == h.SPIr {
			return s
		}
	}
	return nil
}

// receive takes a datagram of adit. Local is the peer's address in it.
func (p *peer) receive(d ike.Datagram) {
	if p.asleep || d.Local.Addr() != p.address() {
		return // nobody is there
	}
	msg, err := wire.ParseMessage(d.Data)
	if err != nil {
		p.w.t.Fatal("adit sent what does not parse: ", err)
	}
	p.received++
	h := msg.Header
	if h.Exchange == wire.ExchangeIKESAInit {
		if h.Response() {
			p.initAnswered(d, msg)
		} else {
			p.initRequest(d, msg)
		}
		return
	}
	s := p.find(&h)
	if s == nil || s.gone || msg.Encrypted == nil {
		return
	}
	if !h.Response() && h.MessageID+1 == s.recvID {
		for _, b := range s.last {
			p.send(s.at, s.to, b)
		}
		return
	}
	list, whole := s.open(msg)
	if !whole {
		return
	}
	s.at, s.to = d.Local, d.Remote
	switch {
	case h.Response():
		if x := s.flight; x != nil && h.MessageID == s.sendID {
			s.flight = nil
			s.sendID++
			if n := errorIn(list); n != 0 {
				p.refused = append(p.refused, n)
			}
			x.then(list)
			s.next()
		}
	case h.MessageID == s.recvID:
		s.take(h, list)
	}
}

// natHash is SHA-1(SPIi | SPIr | IP | port) (RFC 7296 §2.23).
func natHash(spiI, spiR uint64, a netip.AddrPort) []byte {
	b := append(append(spi8(spiI), spi8(spiR)...), a.Addr().AsSlice()...)
	h := sha1.Sum(append(b, byte(a.Port()>>8), byte(a.Port())))
	return h[:]
}

// initNotifies are what goes along with IKE_SA_INIT of either direction.
func (s *ikeSA) initNotifies() (list []wire.Payload) {
	if !s.p.noNAT {
		source := natHash(s.spiI, s.spiR, s.at)
		if s.p.badHash {
			source = random(20)
		}
		list = append(list, notify(wire.NATDetectionSourceIP, source), notify(wire.NATDetectionDestinationIP, natHash(s.spiI, s.spiR, s.to)))
	}
	if s.p.habits.fragments > 0 {
		list = append(list, notify(wire.FragmentationSupported, nil))
	}
	if s.p.native != nil {
		list = append(list, s.p.native.hello...)
	}
	if s.p.hashes {
		list = append(list, notify(wire.SignatureHashAlgorithms, []byte{0, 2, 0, 3, 0, 4}))
	}
	return list
}

// learn takes what adit's IKE_SA_INIT says besides.
func (s *ikeSA) learn(list []wire.Payload) {
	s.fragments = s.p.habits.fragments > 0 && wire.FindNotify(list, wire.FragmentationSupported) != nil
	src := wire.FindNotify(list, wire.NATDetectionSourceIP)
	if src != nil && !s.p.noNAT && !bytes.Equal(src.Data, natHash(s.spiI, s.spiR, s.to)) {
		s.p.encap = true // adit seems to be behind a NAT
	}
}

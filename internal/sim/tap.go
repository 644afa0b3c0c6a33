package sim

import (
	"bytes"
	"crypto/sha256"
	"fmt"

	"adit/ike"
	"adit/ike/wire"
	"adit/ipsec"
	"adit/suite"
)

// tap listens to every IKE message. It reads them with the exported keys, and
// checks what an observer of the wire can: windows, message IDs, repetitions, IVs.
type tap struct {
	w       *World
	keys    map[[2]uint64][]*ike.IKEKeys // the newest last: additional key exchanges make new ones
	v1      map[streamKey][][]byte       // what was sent in IKEv1
	streams map[streamKey]*stream
	inits   map[[2]uint64][]byte           // IKE_SA_INIT messages: the last request, the answer
	ivs     map[string]map[string][32]byte // by key: first bytes of the body
	spis    map[ipsec.SPI]string           // names of ESP SPIs, in order of appearance
	sas     map[uint64]int                 // numbers of IKE SAs by SPIi, in order of appearance
}

// streamKey names one host's half of the conversation in one IKE SA.
type streamKey struct {
	host, life int
	spiI, spiR uint64
}

// stream is what one host sent and got in one IKE SA.
type stream struct {
	began     bool
	next      uint32              // message ID of its next request
	sent      map[pieceKey][]byte // requests
	answered  map[uint32]bool     // requests whose response came
	asked     map[uint32]bool     // requests of the peer that came
	responses map[pieceKey][]byte
	parts     map[partsKey]*parts // of messages in fragments: what came
	lastReply int64
}

// pieceKey names a message, or one of its fragments (number from 1).
type pieceKey struct {
	id     uint32
	number uint16
}

// partsKey names a message that comes in so many fragments.
type partsKey struct {
	response bool
	id       uint32
	total    uint16
}

// parts is what came of a message in fragments.
type parts struct{ have map[uint16]bool }

// piece is what a message is of its message ID.
func piece(m *wire.Message) pieceKey {
	k := pieceKey{id: m.Header.MessageID}
	if m.Encrypted != nil {
		k.number = m.Encrypted.FragmentNumber
	}
	return k
}

// whole reports whether all of a message has come with this piece of it.
func (s *stream) whole(m *wire.Message) bool {
	e := m.Encrypted
	if e == nil || e.TotalFragments == 0 {
		return true
	}
	k := partsKey{m.Header.Response(), m.Header.MessageID, e.TotalFragments}
	if s.parts[k] == nil {
		s.parts[k] = &parts{map[uint16]bool{}}
	}
	s.parts[k].have[e.FragmentNumber] = true
	return len(s.parts[k].have) == int(e.TotalFragments)
}

func newTap(w *World) *tap {
	return &tap{w: w, keys: map[[2]uint64][]*ike.IKEKeys{}, streams: map[streamKey]*stream{}, inits: map[[2]uint64][]byte{},
		ivs: map[string]map[string][32]byte{}, spis: map[ipsec.SPI]string{}, sas: map[uint64]int{}}
}

func (t *tap) spi(s ipsec.SPI) string {
	name := t.spis[s]
	if name == "" {
		name = fmt.Sprintf("s%d", len(t.spis)+1)
		t.spis[s] = name
	}
	return name
}

func (t *tap) sa(spiI uint64) string {
	n := t.sas[spiI]
	if n == 0 {
		n = len(t.sas) + 1
		t.sas[spiI] = n
	}
	return fmt.Sprintf("#%d", n)
}

// learn takes the keys of an IKE SA; both ends must have the same. Those of an additional
// key exchange replace the ones before.
func (t *tap) learn(k *ike.IKEKeys) {
	id := [2]uint64{k.SPIi, k.SPIr}
	for _, old := range t.keys[id] {
		if old.SKei.Equal(k.SKei) && old.SKer.Equal(k.SKer) && old.SKai.Equal(k.SKai) && old.SKar.Equal(k.SKar) {
			return
		}
	}
	if t.keys[id] != nil {
		t.w.note("keys of %x differ, or are replaced", id)
	}
	clone := *k
	clone.SKei, clone.SKer = bytes.Clone(k.SKei), bytes.Clone(k.SKer)
	clone.SKai, clone.SKar = bytes.Clone(k.SKai), bytes.Clone(k.SKar)
	t.keys[id] = append(t.keys[id], &clone)
}

// open decrypts a message; nil if it cannot. key is the one that it is sealed with.
func (t *tap) open(m *wire.Message) (list []wire.Payload, key string) {
	all := t.keys[[2]uint64{m.Header.SPIi, m.Header.SPIr}]
	for i := len(all) - 1; i >= 0 && m.Encrypted != nil; i-- {
		if list := openWith(all[i], m); list != nil {
			key = string(all[i].SKei)
			if !m.Header.FromInitiator() {
				key = string(all[i].SKer)
			}
			return list, key
		}
	}
	return nil, ""
}

func openWith(k *ike.IKEKeys, m *wire.Message) []wire.Payload {
	enc, integ := k.SKei, k.SKai
	if !m.Header.FromInitiator() {
		enc, integ = k.SKer, k.SKar
	}
	c, err := suite.NewCipher(k.Encr, k.Integ, enc, integ)
	if err != nil {
		return nil
	}
	body := bytes.Clone(m.Encrypted.Body)
	iv, icv := c.IVLen(), c.ICVLen()
	if len(body) < iv+icv+1 {
		return nil
	}
	text := body[iv : len(body)-icv]
	if !c.Open(m.Raw[:m.Encrypted.Offset], body[:iv], text, body[len(body)-icv:], nil) {
		return nil
	}
	if m.Encrypted.Type == wire.PayloadSKF {
		return []wire.Payload{}
	}
	pad := int(text[len(text)-1])
	if pad+1 > len(text) {
		return nil
	}
	list, err := wire.ParsePayloads(m.Encrypted.FirstInner, text[:len(text)-1-pad])
	if err != nil {
		return nil
	}
	if list == nil {
		list = []wire.Payload{}
	}
	return list
}

// stream finds or makes the record of a host's half.
func (t *tap) stream(h *Host, hd *wire.Header) *stream {
	k := streamKey{h.index, h.life, hd.SPIi, hd.SPIr}
	s := t.streams[k]
	if s == nil {
		s = &stream{sent: map[pieceKey][]byte{}, answered: map[uint32]bool{}, asked: map[uint32]bool{}, responses: map[pieceKey][]byte{}, parts: map[partsKey]*parts{}, lastReply: -1}
		t.streams[k] = s
	}
	return s
}

// sent checks a message that a host sends and returns its summary.
func (t *tap) sent(h *Host, d ike.Datagram) string {
	if h1, err := wire.ParseHeader(d.Data); err == nil && h1.Version.Major == 1 {
		return t.sentV1(h, &h1, d)
	}
	m, err := wire.ParseMessage(d.Data)
	if err != nil {
		t.w.violate("well-formed", "%s sends a message that does not parse: %v", h.Name, err)
		return "unreadable"
	}
	hd := &m.Header
	tag := t.sa(hd.SPIi) + " "
	switch {
	case hd.SPIi == 0:
		return m.Summary()
	case hd.Exchange == wire.ExchangeIKESAInit, hd.Exchange == wire.ExchangeIKESessionResume:
		return tag + m.Summary() + map[bool]string{true: " again"}[t.sentInit(h, m)]
	}
	if refusesVersion(d.Data) || m.Encrypted == nil && wire.FindNotify(m.Payloads, wire.InvalidIKESPI) != nil {
		return tag + m.Summary() // in no window: whatever came is answered
	}
	repeated := false
	s := t.stream(h, hd)
	if hd.Response() {
		repeated = t.sentResponse(h, m, s)
	} else {
		repeated = t.sentRequest(h, m, s)
	}
	text := m.Summary()
	if m.Encrypted != nil {
		list, sealing := t.open(m)
		t.checkIV(h, m, sealing)
		if list != nil && m.Encrypted.Type == wire.PayloadSK {
			text = wire.Summarize(*hd, list) + details(list)
		} else if list == nil && t.keys[[2]uint64{hd.SPIi, hd.SPIr}] != nil {
			text += " (keys differ)"
		}
	}
	if repeated {
		text += " again"
	}
	return tag + text
}

func details(list []wire.Payload) string {
	for _, p := range list {
		if n, ok := p.(*wire.Notify); ok && n.NotifyType == wire.RekeySA {
			return " rekey"
		}
	}
	return ""
}

// sentInit checks an IKE_SA_INIT message. A request may be followed by another
// one, with a cookie or another key exchange; an answer that begins an IKE SA by
// no other one.
func (t *tap) sentInit(h *Host, m *wire.Message) (repeated bool) {
	k := [2]uint64{m.Header.SPIi, m.Header.SPIr}
	old, ok := t.inits[k]
	repeated = ok && bytes.Equal(old, m.Raw)
	if ok && !repeated && m.Header.Response() && m.Header.SPIr != 0 {
		t.w.violate("same response", "%s answers one IKE_SA_INIT in two ways", h.Name)
	}
	t.inits[k] = bytes.Clone(m.Raw)
	return repeated
}

func (t *tap) sentRequest(h *Host, m *wire.Message, s *stream) (repeated bool) {
	hd, id, key := &m.Header, m.Header.MessageID, piece(m)
	if old, ok := s.sent[key]; ok {
		if !bytes.Equal(old, m.Raw) {
			t.w.violate("same request", "%s repeats %s %d with other bytes", h.Name, hd.Exchange, id)
		}
		return true
	}
	if !s.began && id <= 1 {
		s.began, s.next = true, id
	}
	further := key.number > 1 && s.sent[pieceKey{id, 1}] != nil
	if id != s.next && !further {
		t.w.violate("message ID", "%s sends %s request %d, due is %d", h.Name, hd.Exchange, id, s.next)
	}
	if id > 0 {
		if s.mine(id-1) && !s.answered[id-1] {
			t.w.violate("window", "%s sends %s request %d before the answer to %d came", h.Name, hd.Exchange, id, id-1)
		}
	}
	s.next = id + 1
	s.sent[key] = bytes.Clone(m.Raw)
	return false
}

// mine reports whether the request of that ID was sent here.
func (s *stream) mine(id uint32) bool {
	return s.sent[pieceKey{id, 0}] != nil || s.sent[pieceKey{id, 1}] != nil
}

// refusesVersion recognizes the answer to a message of another version, which is
// never authenticated and may be a damaged one.
func refusesVersion(data []byte) bool {
	m, err := wire.ParseMessage(data)
	return err == nil && m.Encrypted == nil && wire.FindNotify(m.Payloads, wire.InvalidMajorVersion) != nil
}

func (t *tap) sentResponse(h *Host, m *wire.Message, s *stream) (repeated bool) {
	hd, id, key := &m.Header, m.Header.MessageID, piece(m)
	if old, ok := s.responses[key]; ok {
		if !bytes.Equal(old, m.Raw) {
			t.w.violate("same response", "%s answers %s %d in two ways", h.Name, hd.Exchange, id)
		}
		return true
	}
	if key.number == 0 && s.responses[pieceKey{id, 1}] != nil || key.number == 1 && s.responses[pieceKey{id, 0}] != nil {
		t.w.violate("same response", "%s answers %s %d whole and in fragments", h.Name, hd.Exchange, id)
	}
	if !s.asked[id] {
		t.w.violate("response", "%s answers %s %d, which never came", h.Name, hd.Exchange, id)
	}
	if int64(id) <= s.lastReply && key.number < 2 {
		t.w.violate("message ID", "%s answers %s %d after %d", h.Name, hd.Exchange, id, s.lastReply)
	}
	s.lastReply = int64(id)
	s.responses[key] = bytes.Clone(m.Raw)
	return false
}

// checkIV finds two different messages with one IV under one key, in whatever IKE SAs:
// a gateway that was killed, and resumes, must not come to the keys of before.
func (t *tap) checkIV(h *Host, m *wire.Message, sealing string) {
	if len(m.Encrypted.Body) < 8 {
		return
	}
	k := sealing
	if k == "" { // unknown to us: a key of this IKE SA and direction
		k = fmt.Sprintf("%x %x %t", m.Header.SPIi, m.Header.SPIr, m.Header.FromInitiator())
	}
	if t.ivs[k] == nil {
		t.ivs[k] = map[string][32]byte{}
	}
	iv, sum := string(m.Encrypted.Body[:8]), sha256.Sum256(m.Raw)
	if old, ok := t.ivs[k][iv]; ok && old != sum {
		t.w.violate("IV reuse", "%s seals two IKE messages with the IV %x under one key", h.Name, iv)
	}
	t.ivs[k][iv] = sum
}

// received notes that a message reached a host.
func (t *tap) received(h *Host, p *packet) {
	if p.corrupted || p.forged {
		return
	}
	m, err := wire.ParseMessage(p.data)
	if err != nil {
		return
	}
	hd := &m.Header
	if hd.Exchange == wire.ExchangeIKESessionResume {
		return
	}
	if hd.Exchange == wire.ExchangeIKESAInit {
		if !hd.Response() && hd.SPIr == 0 {
			h.lastInit = p
		}
		return
	}
	s := t.stream(h, hd)
	if !s.whole(m) {
		return
	}
	if hd.Response() {
		s.answered[hd.MessageID] = true
	} else {
		s.asked[hd.MessageID] = true
	}
}

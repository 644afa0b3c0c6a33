package ikev2_test

import (
	"slices"
	"testing"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/suite"
)

// mitm reads and changes what the two hosts say to each other: it has the keys,
// since both export them. So every message that only a peer can send can be sent.
type mitm struct {
	*pair
	// change sees each protected message decrypted and returns what is delivered
	// instead; nil loses it.
	change func(from *host, h *wire.Header, payloads []wire.Payload) []wire.Payload
	sealed uint64
	// changing are the keys of the message that change sees.
	changing *ike.IKEKeys
}

func newMITM(t testing.TB, tweak func(a, b *side)) *mitm {
	m := &mitm{}
	m.pair = newPair(t, func(a, b *side) {
		a.config.UnsafeExportKeys, b.config.UnsafeExportKeys = true, true
		if tweak != nil {
			tweak(a, b)
		}
	})
	m.filter = func(from *host, d ike.Datagram) bool {
		if m.change == nil {
			return true
		}
		msg, err := wire.ParseMessage(d.Data)
		if err != nil || msg.Encrypted == nil {
			return true
		}
		defer func() { m.changing = nil }()
		payloads, ok := m.open(msg)
		if !ok {
			t.Error("the man in the middle cannot read a message")
			return true
		}
		h := msg.Header
		changed := m.change(from, &h, payloads)
		if changed == nil {
			return false
		}
		to := m.other(from)
		m.seq++
		m.queue = append(m.queue, packet{m.now.Add(10 * time.Millisecond), m.seq, to, ike.Datagram{Local: d.Remote, Remote: d.Local, Data: m.seal(h, changed)}})
		return false
	}
	return m
}

// keysOf are the keys of the IKE SA that a header names, the newest first: additional
// key exchanges change them.
func (m *mitm) keysOf(h *wire.Header) (list []*ike.IKEKeys) {
	for _, k := range append(append([]ike.ExportKeys(nil), m.a.keys...), m.b.keys...) {
		if k.IKE != nil && k.IKE.SPIi == h.SPIi && k.IKE.SPIr == h.SPIr {
			list = append(list, k.IKE)
		}
	}
	slices.Reverse(list)
	return list
}

// cipherBy is the cipher of the messages of the side that sent h.
func cipherBy(k *ike.IKEKeys, h *wire.Header) suite.Cipher {
	e, i := k.SKer, k.SKar
	if h.FromInitiator() {
		e, i = k.SKei, k.SKai
	}
	c, _ := suite.NewCipher(k.Encr, k.Integ, slices.Clone(e), slices.Clone(i))
	return c
}

func (m *mitm) cipherOf(h *wire.Header) suite.Cipher {
	k := m.changing
	if k == nil {
		k = m.keysOf(h)[0]
	}
	return cipherBy(k, h)
}

func (m *mitm) open(msg *wire.Message) ([]wire.Payload, bool) {
	for _, k := range m.keysOf(&msg.Header) {
		if list, ok := openWith(cipherBy(k, &msg.Header), msg); ok {
			m.changing = k
			return list, ok
		}
	}
	return nil, false
}

func openWith(c suite.Cipher, msg *wire.Message) ([]wire.Payload, bool) {
	body := append([]byte(nil), msg.Encrypted.Body...)
	iv, icv := c.IVLen(), c.ICVLen()
	text := body[iv : len(body)-icv]
	if !c.Open(msg.Raw[:msg.Encrypted.Offset], body[:iv], text, body[len(body)-icv:], nil) {
		return nil, false
	}
	list, err := wire.ParsePayloads(msg.Encrypted.FirstInner, text[:len(text)-1-int(text[len(text)-1])])
	return list, err == nil
}

func (m *mitm) seal(h wire.Header, payloads []wire.Payload) []byte {
	first, text := wire.AppendPayloads(nil, payloads)
	return m.sealRaw(h, first, text)
}

// sealRaw protects any plaintext, well formed or not.
func (m *mitm) sealRaw(h wire.Header, first wire.PayloadType, text []byte) []byte {
	pad := 0
	for a := m.cipherOf(&h).Align(); (len(text)+1)%a != 0; pad++ {
		text = append(text, 0)
	}
	return m.sealText(h, first, append(text, byte(pad)))
}

// sealText protects bytes that end with their pad length.
func (m *mitm) sealText(h wire.Header, first wire.PayloadType, text []byte) []byte {
	c := m.cipherOf(&h)
	iv, icv := c.IVLen(), c.ICVLen()
	msg := wire.AppendEncrypted(nil, h, nil, wire.Encrypted{Type: wire.PayloadSK, FirstInner: first}, iv+len(text)+icv)
	at := len(msg)
	msg = append(msg, make([]byte, iv)...)
	msg = append(msg, text...)
	msg = append(msg, make([]byte, icv)...)
	m.sealed++
	c.PutIV(msg[at:at+iv], 1<<40+m.sealed)
	c.Seal(msg[:at], msg[at:at+iv], msg[at+iv:at+iv+len(text)], msg[at+iv+len(text):], nil)
	return msg
}

package ikev2

import (
	"adit/ike/wire"
	"adit/internal/simbug"
	"adit/suite"
)

// seal protects a message in one piece: AppendEncrypted's head, IV, ciphertext,
// ICV (RFC 7296 §3.14, RFC 5282 §3).
func (k *ikeKeys) seal(h wire.Header, payloads []wire.Payload) []byte {
	first, text := wire.AppendPayloads(nil, payloads)
	defer clear(text)
	return k.sealText(h, wire.Encrypted{Type: wire.PayloadSK, FirstInner: first}, text)
}

// padded is the length of the plaintext with padding and pad length.
func (k *ikeKeys) padded(n int) int {
	pad := 0
	if a := k.out.Align(); a > 1 {
		pad = a - 1 - n%a
	}
	return n + pad + 1
}

// sealedLen is the length of what protects n bytes: IV, ciphertext, ICV.
func (k *ikeKeys) sealedLen(n int) int { return k.out.IVLen() + k.padded(n) + k.out.ICVLen() }

// sealText makes the message whose Encrypted or Encrypted Fragment payload e holds text.
func (k *ikeKeys) sealText(h wire.Header, e wire.Encrypted, text []byte) []byte {
	iv, n, body := k.out.IVLen(), k.padded(len(text)), k.sealedLen(len(text))
	msg := make([]byte, 0, wire.EncryptedOverhead(e.Type)+body)
	msg = wire.AppendEncrypted(msg, h, nil, e, body)
	at := len(msg)
	msg = msg[:at+body]
	copy(msg[at+iv:], text)
	msg[at+iv+n-1] = byte(n - 1 - len(text))
	k.out.PutIV(msg[at:at+iv], k.sealed)
	if simbug.Chosen != simbug.ReusedIV || k.sealed%3 != 2 {
		k.sealed++
	}
	k.out.Seal(msg[:at], msg[at:at+iv], msg[at+iv:at+iv+n], msg[at+iv+n:], nil)
	return msg
}

// open verifies and decrypts the Encrypted payload, or the one of a fragment. The
// message's own bytes are left as they are. ok: it is authentic; then err says
// whether its padding is wrong. A repeated request may be under the keys before.
func (k *ikeKeys) open(msg *wire.Message, repeated bool) (text []byte, ok bool, err error) {
	if text, ok, err = openBy(k.in, msg); !ok && repeated && k.before != nil {
		return openBy(k.before, msg)
	}
	return text, ok, err
}

func openBy(c suite.Cipher, msg *wire.Message) (text []byte, ok bool, err error) {
	e := msg.Encrypted
	iv, icv := c.IVLen(), c.ICVLen()
	if e == nil || len(e.Body) < iv+icv+1 {
		return nil, false, nil
	}
	body := append([]byte(nil), e.Body...)
	text = body[iv : len(body)-icv]
	if !c.Open(msg.Raw[:e.Offset], body[:iv], text, body[len(body)-icv:], nil) {
		return nil, false, nil
	}
	if len(text) == 0 || int(text[len(text)-1]) >= len(text) {
		return nil, true, wire.ErrLength
	}
	return text[:len(text)-1-int(text[len(text)-1])], true, nil
}

package ikev2

import (
	"adit/ike/wire"
	"adit/internal/simbug"
)

// seal builds a protected message: AppendEncrypted's head, IV, ciphertext, ICV
// (RFC 7296 §3.14, RFC 5282 §3).
func (k *ikeKeys) seal(h wire.Header, payloads []wire.Payload) []byte {
	first, text := wire.AppendPayloads(nil, payloads)
	pad := 0
	if a := k.out.Align(); a > 1 {
		pad = a - 1 - len(text)%a
	}
	iv, icv := k.out.IVLen(), k.out.ICVLen()
	n := len(text) + pad + 1
	body := iv + n + icv
	msg := make([]byte, 0, wire.EncryptedOverhead(wire.PayloadSK)+body)
	msg = wire.AppendEncrypted(msg, h, nil, wire.Encrypted{Type: wire.PayloadSK, FirstInner: first}, body)
	at := len(msg)
	msg = msg[:at+body]
	copy(msg[at+iv:], text)
	clear(text)
	msg[at+iv+n-1] = byte(pad)
	k.out.PutIV(msg[at:at+iv], k.sealed)
	if simbug.Chosen != simbug.ReusedIV || k.sealed%3 != 2 {
		k.sealed++
	}
	k.out.Seal(msg[:at], msg[at:at+iv], msg[at+iv:at+iv+n], msg[at+iv+n:], nil)
	return msg
}

// open verifies and decrypts the Encrypted payload. The message's own bytes are
// left as they are. ok: it is authentic; then err says what is wrong inside.
func (k *ikeKeys) open(msg *wire.Message) (payloads []wire.Payload, ok bool, err error) {
	e := msg.Encrypted
	iv, icv := k.in.IVLen(), k.in.ICVLen()
	if e == nil || e.Type != wire.PayloadSK || len(e.Body) < iv+icv+1 {
		return nil, false, nil
	}
	body := append([]byte(nil), e.Body...)
	text := body[iv : len(body)-icv]
	if !k.in.Open(msg.Raw[:e.Offset], body[:iv], text, body[len(body)-icv:], nil) {
		return nil, false, nil
	}
	if len(text) == 0 || int(text[len(text)-1]) >= len(text) {
		return nil, true, wire.ErrLength
	}
	payloads, err = wire.ParsePayloads(e.FirstInner, text[:len(text)-1-int(text[len(text)-1])])
	return payloads, true, err
}

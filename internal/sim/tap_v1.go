package sim

import (
	"bytes"

	"adit/ike"
	"adit/ike/wire"
)

// sentV1 checks a message of IKEv1 that a host sends and returns its summary: which
// payloads it has if it is in the clear, that it is encrypted if not. A message ID
// other than 0 means one exchange, whose messages differ: IVs are chained, so that one
// text twice would show as equal bytes.
func (t *tap) sentV1(h *Host, hd *wire.Header, d ike.Datagram) string {
	text := t.sa(hd.SPIi) + " " + hd.Exchange.String()
	body := d.Data[wire.HeaderLen:]
	if hd.Flags&wire.FlagV1Encryption == 0 {
		list, used, err := wire.ParseV1Chain(hd.NextPayload, body)
		if err != nil || used != len(body) || int(hd.Length) != len(d.Data) {
			t.w.violate("well-formed", "%s sends a message of IKEv1 that does not parse: %v", h.Name, err)
		}
		clear := *hd
		clear.MessageID = 0
		text = t.sa(hd.SPIi) + " " + wire.V1Summary(clear, list)
	} else {
		if len(body) == 0 || len(body)%8 != 0 {
			t.w.violate("well-formed", "%s sends an encrypted message of IKEv1 of %d octets", h.Name, len(body))
		}
		text += " encrypted"
	}
	k := streamKey{h.index, h.life, hd.SPIi, hd.SPIr}
	if t.v1 == nil {
		t.v1 = map[streamKey][][]byte{}
	}
	for _, old := range t.v1[k] {
		if bytes.Equal(old, d.Data) {
			return text + " again"
		}
	}
	t.v1[k] = append(t.v1[k], bytes.Clone(d.Data))
	return text
}

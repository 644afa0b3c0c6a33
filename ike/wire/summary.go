package wire

import "strconv"

// Summary is the message in one line, for logs:
//
//	IKE_SA_INIT request 0 [ SA KE(31) Nonce N(NAT_DETECTION_SOURCE_IP) ]
//
// What stands in an Encrypted payload is not known here: it shows as SK, or as
// SKF with number and total. No bytes of the peer's get into the line, only
// names and numbers.
func (m *Message) Summary() string {
	b := make([]byte, 0, 128)
	b = appendExchange(b, &m.Header)
	b = append(b, " ["...)
	b = appendSummary(b, m.Payloads)
	if e := m.Encrypted; e != nil {
		b = append(b, ' ')
		b = append(b, e.Type.String()...)
		if e.Type == PayloadSKF {
			b = append(b, '(')
			b = strconv.AppendUint(b, uint64(e.FragmentNumber), 10)
			b = append(b, '/')
			b = strconv.AppendUint(b, uint64(e.TotalFragments), 10)
			b = append(b, ')')
		}
	}
	return string(append(b, " ]"...))
}

// Summarize is Summary for a header and the payloads behind it wherever they
// were, thus for a decrypted message.
func Summarize(h Header, payloads []Payload) string {
	b := make([]byte, 0, 128)
	b = appendExchange(b, &h)
	b = append(b, " ["...)
	b = appendSummary(b, payloads)
	return string(append(b, " ]"...))
}

func appendExchange(b []byte, h *Header) []byte {
	b = append(b, h.Exchange.String()...)
	if h.Response() {
		b = append(b, " response "...)
	} else {
		b = append(b, " request "...)
	}
	return strconv.AppendUint(b, uint64(h.MessageID), 10)
}

func appendSummary(b []byte, payloads []Payload) []byte {
	for _, p := range payloads {
		b = append(b, ' ')
		b = append(b, p.Type().String()...)
		switch p := p.(type) {
		case *KE:
			b = append(b, '(')
			b = strconv.AppendUint(b, uint64(p.Group), 10)
			b = append(b, ')')
		case *Notify:
			b = append(b, '(')
			b = append(b, p.NotifyType.String()...)
			b = append(b, ')')
		case *Delete:
			b = append(b, '(')
			b = append(b, p.Protocol.String()...)
			if n := len(p.SPIs); n > 1 {
				b = append(b, " x"...)
				b = strconv.AppendInt(b, int64(n), 10)
			}
			b = append(b, ')')
		case *CP:
			b = append(b, '(')
			b = append(b, p.CFGType.String()...)
			b = append(b, ')')
		case *Unknown:
			if p.Critical {
				b = append(b, '!')
			}
		}
	}
	return b
}

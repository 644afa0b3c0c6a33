package sim

import (
	"bytes"
	"encoding/binary"
	"strconv"
	"strings"

	"adit/ike"
	"adit/ike/wire"
)

// moves holds the commands for gateways that send their peers away, for attackers
// who weaken what two sides agree on, and for post-quantum preshared keys.
func (w *World) moves() map[string]func([]string) error {
	gateway := func(s string) ike.RedirectTarget {
		to, err := ike.ParseRedirectTarget(s)
		if err != nil {
			panic(argError(err.Error()))
		}
		return to
	}
	return map[string]func([]string) error{
		"redirect": func(a []string) error {
			h := w.host(a, 0)
			h.Do(ike.Redirect{ID: h.commandID("redirect " + arg(a, 1)), IKE: arg(a, 1), Gateway: gateway(arg(a, 2))})
			return nil
		},
		"drain": func(a []string) error { w.host(a, 0).Do(ike.Drain{On: true, To: gateway(arg(a, 1))}); return nil },
		"strip": func(a []string) error {
			n, err := strconv.ParseUint(arg(a, 3), 10, 16)
			if err != nil {
				return err
			}
			w.rules = append(w.rules, &rule{from: w.Host(arg(a, 0)), to: w.Host(arg(a, 1)), left: number(arg(a, 2)), text: strings.Join(a[4:], " "),
				do: "strip", notify: wire.NotifyType(n)})
			return nil
		},
		"ppk": func(a []string) error {
			h := w.host(a, 0)
			if h.ppks == nil {
				h.ppks = map[string]string{}
			}
			h.ppks[arg(a, 1)] = arg(a, 2)
			return nil
		},
	}
}

// strip makes a notify of a message in the clear one that nobody knows.
func strip(p *packet, t wire.NotifyType) bool {
	m, err := wire.ParseMessage(p.data)
	if err != nil || m.Encrypted != nil || wire.FindNotify(m.Payloads, t) == nil {
		return false
	}
	head := binary.BigEndian.AppendUint16([]byte{0, 0}, uint16(t)) // of protocol 0, without SPI
	at := bytes.Index(p.data[wire.HeaderLen:], head)
	if at < 0 {
		return false
	}
	p.data = bytes.Clone(p.data)
	binary.BigEndian.PutUint16(p.data[wire.HeaderLen+at+2:], 65534)
	return true
}

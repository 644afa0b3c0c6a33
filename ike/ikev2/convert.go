package ikev2

import (
	"errors"
	"strings"

	"adit/ike"
	"adit/ike/wire"
	"adit/ipsec"
	"adit/suite"
)

// toWire makes an SA payload of proposals. spi is the same in each.
func toWire(list []suite.Proposal, spi []byte) *wire.SA {
	p := &wire.SA{}
	for i, x := range list {
		w := wire.Proposal{Number: uint8(i + 1), Protocol: wire.ProtocolID(x.Protocol), SPI: spi}
		for _, t := range x.Transforms {
			w.Transforms = append(w.Transforms, wire.Transform{Type: uint8(t.Type), ID: uint16(t.ID), KeyLength: t.KeyBits})
		}
		p.Proposals = append(p.Proposals, w)
	}
	return p
}

// fromWire makes proposals of an SA payload, index by index.
func fromWire(p *wire.SA) []suite.Proposal {
	out := make([]suite.Proposal, len(p.Proposals))
	for i, w := range p.Proposals {
		out[i].Protocol = suite.Protocol(w.Protocol)
		for _, t := range w.Transforms {
			x := suite.Transform{Type: suite.TransformType(t.Type), ID: suite.TransformID(t.ID), KeyBits: t.KeyLength}
			if t.UnknownAttribute() {
				x.KeyBits = suite.KeyBitsUnknown
			}
			out[i].Transforms = append(out[i].Transforms, x)
		}
	}
	return out
}

// tsPayload makes a TS payload of selectors.
func tsPayload(kind wire.PayloadType, list []ipsec.Selector) *wire.TS {
	p := &wire.TS{Kind: kind}
	for _, s := range list {
		t := wire.TrafficSelector{Type: wire.TSIPv4AddrRange, Protocol: s.Proto, StartPort: s.PortFrom, EndPort: s.PortTo, Start: s.From, End: s.To}
		if s.From.Is6() {
			t.Type = wire.TSIPv6AddrRange
		}
		p.Selectors = append(p.Selectors, t)
	}
	return p
}

// selectors reads a TS payload. What adit does not know (labels, Fibre Channel)
// or what is no range is left out, as RFC 7296 §2.9 lets a responder do.
func selectors(p *wire.TS) (out []ipsec.Selector) {
	if p == nil {
		return nil
	}
	for _, t := range p.Selectors {
		if t.Raw != nil || len(out) == limitSelectors {
			continue
		}
		s := ipsec.Selector{Proto: t.Protocol, From: t.Start, To: t.End, PortFrom: t.StartPort, PortTo: t.EndPort}
		if !s.IsDynamic() && s.Valid() {
			out = append(out, s)
		}
	}
	return out
}

func idPayload(kind wire.PayloadType, id ike.Identity) *wire.ID {
	return &wire.ID{Kind: kind, IDType: wire.IDType(id.Type), Data: []byte(id.Data)}
}

func identity(p *wire.ID) ike.Identity {
	return ike.Identity{Type: uint8(p.IDType), Data: string(p.Data)}
}

// slowGroup tells the groups whose computation takes more than 200 µs and so is a job.
func slowGroup(g suite.TransformID) bool {
	switch g {
	case suite.KECurve25519, suite.KEECP256, suite.KEMLKEM512, suite.KEMLKEM768, suite.KEMLKEM1024:
		return false
	}
	return true
}

func firstKE(list []suite.Proposal) suite.TransformID {
	for _, p := range list {
		if t, ok := p.First(suite.TypeKE); ok && t.ID != suite.KENone {
			return t.ID
		}
	}
	return suite.KENone
}

func offersKE(list []suite.Proposal, g suite.TransformID) bool {
	for _, p := range list {
		if p.Has(suite.Transform{Type: suite.TypeKE, ID: g}) {
			return true
		}
	}
	return false
}

// noProposal is the record of proposals that do not meet.
func noProposal(err error, ours, theirs []suite.Proposal) *ike.Rejection {
	r := &ike.Rejection{Reason: ike.ReasonProposal, Detail: ike.DetailTransform, Notify: wire.NoProposalChosen.String(), Ours: proposalText(ours), Theirs: proposalText(theirs), Difference: err.Error()}
	var none *suite.NoProposalError
	if errors.As(err, &none) && none.Type == suite.TypeKE {
		r.Detail = ike.DetailGroup
	}
	return r
}

func proposalText(list []suite.Proposal) string {
	text := ""
	for i, p := range list {
		if i > 0 {
			text += ", "
		}
		if i == 8 {
			return text + "…"
		}
		text += p.String()
	}
	return text
}

func selectorText(local, remote []ipsec.Selector) string {
	return selectorList(local) + " === " + selectorList(remote)
}

// selectorList is the first few of a list of selectors for people.
func selectorList(list []ipsec.Selector) string {
	var b strings.Builder
	for i, s := range list {
		if i > 0 {
			b.WriteByte(' ')
		}
		if i == 8 {
			b.WriteString("…")
			break
		}
		b.WriteString(s.String())
	}
	return b.String()
}

package ikev2

import (
	"slices"

	"adit/ike"
	"adit/ike/wire"
)

// announcesChildless reports whether one of the connections lets the peer begin
// without a Child SA (RFC 6023 §3). A responder does not know yet which one it will be.
func announcesChildless(peers []*ike.Peer) bool {
	return slices.ContainsFunc(peers, func(p *ike.Peer) bool { return p.Childless != ike.ChildlessNever })
}

// childlessRefused tells why the first IKE_AUTH request is not taken by
// `childless`; nil: it is. Such a set-up ends with INVALID_SYNTAX.
func childlessRefused(p *ike.Peer, first []wire.Payload) *ike.Rejection {
	sa, _ := wire.First[*wire.SA](first)
	none := sa == nil && wire.FindTS(first, wire.PayloadTSi) == nil && wire.FindTS(first, wire.PayloadTSr) == nil
	why := ""
	switch {
	case none && p.Childless == ike.ChildlessNever:
		why = "the peer wants no Child SA in IKE_AUTH and childless = never"
	case !none && p.Childless == ike.ChildlessForce:
		why = "the peer wants a Child SA in IKE_AUTH and childless = force"
	default:
		return nil
	}
	return &ike.Rejection{SAKey: ike.SAKey{Name: p.Name}, Reason: ike.ReasonSyntax, Notify: wire.InvalidSyntax.String(), Difference: why, Options: []string{p.Option("childless")}}
}

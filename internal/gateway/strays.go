package gateway

import (
	"fmt"

	"adit/ike"
)

// strays tells, once for each Child SA when it ends or is rekeyed, of packets that came
// out of it with addresses that are not its own: somebody else's, or of a network that a
// router at the peer forgot to translate. The data plane has dropped and counted them
// (RFC 4301 §5.2); a line a packet would be the peer's to fill our log with.
func (g *Gateway) strays(e ike.Event) {
	var sa ike.SAInfo
	var c ike.ChildInfo
	switch e := e.(type) {
	case ike.ChildDown:
		sa, c = e.SA, e.Child
	case ike.ChildRekeyed:
		sa, c = e.SA, e.Old
	default:
		return
	}
	in, _ := g.Query(c.ID)
	if in.SelectorMismatch == 0 {
		return
	}
	who := sa.RemoteEAPID
	if who == "" {
		who = sa.RemoteID.String()
	}
	g.bus.publish(ike.Note{SAKey: ike.SAKey{Name: sa.Name, ID: sa.ID, Child: c.Name, ChildID: c.ID}, Level: 1,
		Text: fmt.Sprintf("%d packets of %.64q were dropped: their addresses are not those of the Child SA", in.SelectorMismatch, who)})
}

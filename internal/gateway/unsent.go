package gateway

import (
	"net/netip"

	"adit/ike"
)

// limitUnsent is how many peers are remembered to which nothing could be sent.
const limitUnsent = 256

// unsent remembers why the last message to a peer did not leave the host: to the
// engine it is only lost, but whoever reads that the peer does not answer should
// know that it was never asked. Used by the shard's thread alone.
type unsent map[netip.AddrPort]error

func (u *unsent) note(to netip.AddrPort, err error) {
	if *u == nil || len(*u) >= limitUnsent {
		*u = unsent{}
	}
	(*u)[to] = err
}

func (u *unsent) clear(to netip.AddrPort) {
	if len(*u) > 0 {
		delete(*u, to)
	}
}

// explain adds to the record of a peer that does not answer what is known here.
func (u *unsent) explain(e ike.Event) ike.Event {
	r, ok := e.(*ike.Rejection)
	if !ok || r.Reason != ike.ReasonNoAnswer {
		return e
	}
	err := (*u)[r.Remote]
	if err == nil {
		return e
	}
	told := *r
	told.Hint = "sending failed here: " + err.Error()
	return &told
}

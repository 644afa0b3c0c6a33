package ikev2

import (
	"time"

	"adit/ike"
	"adit/ike/wire"
)

// Gateway identity types of REDIRECT (RFC 5685 §9.2).
const (
	gatewayIPv4 = 1
	gatewayIPv6 = 2
	gatewayFQDN = 3
)

// redirectData is what a REDIRECT notify carries within an established IKE SA, where it
// needs no nonce (RFC 5685 §9.2):
//
//	| GW Ident Type | GW Ident Len | New Responder GW Identity |
func redirectData(to ike.RedirectTarget) []byte {
	typ, id := byte(gatewayFQDN), []byte(to.Name)
	if a := to.Addr.Unmap(); a.IsValid() {
		typ, id = gatewayIPv6, a.AsSlice()
		if a.Is4() {
			typ = gatewayIPv4
		}
	}
	return append([]byte{typ, byte(len(id))}, id...)
}

// redirect tells the peer to use another gateway. It then deletes the IKE SA; if it does
// not, we do, after the time that a set-up may take.
type redirect struct{ to ike.RedirectTarget }

func (*redirect) name() string { return "IKE_REDIRECT" }

func (t *redirect) begin(s *sa, now time.Time) {
	if !s.Usable() {
		s.finish()
		return
	}
	s.request(now, wire.ExchangeInformational, []wire.Payload{notify(wire.Redirect, redirectData(t.to))})
}

func (t *redirect) answered(s *sa, now time.Time, in *inbound) {
	s.finish()
	s.note(1, "the peer was redirected to "+t.to.String())
	s.later(now.Add(s.config().HalfOpenTimeout), &endRedirected{t.to})
}

func (*redirect) cancel(*sa, time.Time) {}

// endRedirected closes an IKE SA that a redirected peer has kept.
type endRedirected struct{ to ike.RedirectTarget }

func (*endRedirected) name() string { return "IKE_DELETE" }

func (t *endRedirected) begin(s *sa, now time.Time) {
	s.finish()
	s.Close(now, ike.Closed{Cause: ike.CauseLocal, Reason: "redirected to " + t.to.String()}, false)
}

func (*endRedirected) answered(*sa, time.Time, *inbound) {}
func (*endRedirected) cancel(*sa, time.Time)             {}

// Redirect implements ike.Redirector. Once is enough: a second one changes nothing.
func (s *sa) Redirect(now time.Time, to ike.RedirectTarget) (why string) {
	switch {
	case !s.Usable():
		return "it is being closed or replaced"
	case !s.peerCaps.redirect:
		return "the peer did not announce REDIRECT_SUPPORTED"
	case len(to.Name) > 255 || !to.Addr.IsValid() && to.Name == "":
		return "the gateway's name is empty or longer than 255 octets"
	case s.peerCaps.redirected:
		return ""
	}
	if !s.enqueue(&redirect{to}) {
		return "too many exchanges wait"
	}
	s.peerCaps.redirected = true
	s.run(now)
	return ""
}

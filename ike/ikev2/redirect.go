package ikev2

import (
	"crypto/hmac"
	"net/netip"
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

// parseRedirect reads a REDIRECT notify's data; what follows the gateway is the nonce
// of IKE_SA_INIT (RFC 5685 §9.2).
func parseRedirect(data []byte) (to ike.RedirectTarget, nonce []byte, ok bool) {
	if len(data) < 2 || len(data) < 2+int(data[1]) {
		return to, nil, false
	}
	id, nonce := data[2:2+int(data[1])], data[2+int(data[1]):]
	switch a, _ := netip.AddrFromSlice(id); {
	case data[0] == gatewayIPv4 && len(id) == 4, data[0] == gatewayIPv6 && len(id) == 16:
		return ike.RedirectTarget{Addr: a}, nonce, true
	case data[0] == gatewayFQDN:
		to.Name = string(id)
		return to, nonce, to.Valid()
	}
	return to, nil, false
}

// redirectNotify announces that we follow redirections; from is the gateway that has
// sent us here (RFC 5685 §3).
func redirectNotify(from netip.Addr) *wire.Notify {
	if !from.IsValid() {
		return notify(wire.RedirectSupported, nil)
	}
	return notify(wire.RedirectedFrom, redirectData(ike.RedirectTarget{Addr: from}))
}

// takesRedirect reports whether an initiator may be redirected.
func takesRedirect(payloads []wire.Payload) bool {
	return wire.FindNotify(payloads, wire.RedirectSupported) != nil || wire.FindNotify(payloads, wire.RedirectedFrom) != nil
}

// redirectedInit takes a REDIRECT in place of the answer to IKE_SA_INIT. Only who has
// seen our request can make one: it holds our nonce (RFC 5685 §3).
func (s *sa) redirectedInit(now time.Time, st *initSent, in *inbound, n *wire.Notify) {
	to, nonce, ok := parseRedirect(n.Data)
	if !ok || !hmac.Equal(nonce, st.ni) {
		s.env.Drop(now, ike.DropRedirect, in.datagram.Remote)
		return
	}
	if why := s.follow(now, to); why != "" {
		s.doubt(now, st, redirectRefused(to, why))
		return
	}
	s.end(now, ike.Closed{Cause: ike.CauseRedirected, Reason: "redirected to " + to.String()})
}

// follow asks the engine to follow a redirection; it returns why it does not.
func (s *sa) follow(now time.Time, to ike.RedirectTarget) string {
	why := "follow_redirects = no"
	if !s.config().NoRedirects {
		why = s.env.Redirected(now, to)
	}
	if why == "" {
		s.note(1, "redirected by the peer to "+to.String())
	}
	return why
}

func redirectRefused(to ike.RedirectTarget, why string) *ike.Rejection {
	return &ike.Rejection{Reason: ike.ReasonPeer, ByPeer: true, Notify: wire.Redirect.String(), Difference: "the peer redirects to " + to.String() + ": " + why}
}

// redirectedAuth takes a REDIRECT of a gateway that has proved who it is within
// IKE_AUTH (RFC 5685 §6): the IKE SA is deleted, and the set-up begins anew with the
// other gateway. It reports whether there was one.
func (s *sa) redirectedAuth(now time.Time, in *inbound) bool {
	n := wire.FindNotify(in.payloads, wire.Redirect)
	if n == nil {
		return false
	}
	to, _, ok := parseRedirect(n.Data)
	why := "its notify makes no sense"
	if ok {
		why = s.follow(now, to)
	}
	s.sendDeleteNow(now)
	if why != "" {
		s.fail(now, redirectRefused(to, why))
		return true
	}
	s.end(now, ike.Closed{Cause: ike.CauseRedirected, Reason: "redirected to " + to.String()})
	return true
}

// redirectedUp takes a REDIRECT within an established IKE SA (RFC 5685 §5). What is not
// followed changes nothing: the gateway may delete the IKE SA.
func (s *sa) redirectedUp(now time.Time, n *wire.Notify) {
	to, _, ok := parseRedirect(n.Data)
	if !ok {
		s.note(1, "the peer sent a REDIRECT that makes no sense")
		return
	}
	if why := s.follow(now, to); why != "" {
		s.note(1, "not redirected to "+to.String()+": "+why)
	}
}

// sentAway refuses a first message where the gateway is drained or redirects all, and
// reports whether it has. Nothing is kept. Who comes from the gateway to which it would
// be sent stays, or would be sent back without end.
func sentAway(env *ike.Env, now time.Time, d ike.Datagram, h *wire.Header, payloads []wire.Payload, ni []byte) bool {
	to, refuse := env.Away()
	able := to.IsSet() && takesRedirect(payloads) && to.Addr.Unmap() != d.Remote.Addr().Unmap() && to.Addr.Unmap() != d.Local.Addr().Unmap()
	if n := wire.FindNotify(payloads, wire.RedirectedFrom); n != nil && able {
		from, _, _ := parseRedirect(n.Data)
		able = from.Addr.Unmap() != to.Addr.Unmap() || from.Name != to.Name
	}
	switch {
	case able:
		initAnswer(env, d, h, wire.Redirect, append(redirectData(to), ni...))
		if env.MayReject(now) {
			env.Emit(ike.Note{Level: 1, Text: d.Remote.Addr().String() + " was redirected to " + to.String()})
		}
		return true
	case refuse:
		env.Drop(now, ike.DropDraining, d.Remote)
	}
	return refuse
}

// isEnd reports whether the gateway is this one, or the peer itself.
func (s *sa) isEnd(to ike.RedirectTarget) bool {
	a := to.Addr.Unmap()
	return a.IsValid() && (a == s.local.Addr().Unmap() || a == s.remote.Addr().Unmap())
}

// awayAfterAuth is where a peer is sent by IKE_AUTH that has been authenticated, zero: it stays.
func (s *sa) awayAfterAuth(p *ike.Peer) ike.RedirectTarget {
	if _, draining := s.env.Away(); draining || !s.peerCaps.redirect || s.isEnd(p.Redirect) {
		return ike.RedirectTarget{}
	}
	return p.Redirect
}

// lateForDrain redirects a peer whose set-up was under way when the draining began: by
// INFORMATIONAL. Peer quirk (strongSwan 5.9.8): a REDIRECT in IKE_AUTH crashes charon.
func (s *sa) lateForDrain(now time.Time) {
	if to, draining := s.env.Away(); draining && to.IsSet() && s.peerCaps.redirect {
		if why := s.Redirect(now, to); why != "" {
			s.note(1, "not redirected to "+to.String()+": "+why)
		}
	}
}

// redirectAuth ends a set-up by REDIRECT in place of a Child SA (RFC 5685 §6). The
// peer, who is authenticated, deletes the IKE SA, or we do after a while.
func (s *sa) redirectAuth(now time.Time, st *authReceived, in *inbound, p *proof, list []wire.Payload, to ike.RedirectTarget) {
	s.respond(now, in, append(list, notify(wire.Redirect, redirectData(to))))
	contact := st.contact
	s.up(now, p, contact)
	s.peerCaps.redirected = true
	s.note(1, "the peer was redirected to "+to.String())
	s.later(now.Add(s.config().HalfOpenTimeout), &endRedirected{to})
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
	case !to.Valid():
		return "the gateway's name is empty, longer than 255 octets or no host name"
	case s.isEnd(to):
		return "that is this gateway, or the peer itself"
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

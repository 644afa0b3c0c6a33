package ike

import (
	"net/netip"
	"time"
)

// Redirect sends the peers of established IKE SAs to another gateway (RFC 5685 §5):
// those whose IKE SA matches every field that is set, that were its initiator, and that
// announced REDIRECT_SUPPORTED. Matched in CommandDone counts all that match; Err is set
// if none of them can be redirected.
type Redirect struct {
	ID       CommandID
	IKE      string     // connection name
	IKEID    uint32     // unique number as listed, 0: any
	From, To netip.Addr // the peer's address lies between; invalid: any
	PeerID   Identity   // pattern for the peer's identity, that of EAP if it has one
	Gateway  RedirectTarget
}

func (Redirect) command() {}

// RedirectTarget is the gateway that a peer is to use instead: an address, or a name of
// at most 255 octets.
type RedirectTarget struct {
	Addr netip.Addr
	Name string
}

// String is the address or the name.
func (g RedirectTarget) String() string {
	if g.Addr.IsValid() {
		return g.Addr.String()
	}
	return g.Name
}

// Redirector is an SA that can send its peer to another gateway.
type Redirector interface {
	// Redirect reports why it cannot, "" if the peer will be told.
	Redirect(now time.Time, to RedirectTarget) (why string)
}

func (e *Engine) redirect(now time.Time, c Redirect) {
	done := CommandDone{ID: c.ID}
	sent, why := 0, "no SA matches"
	for _, env := range e.ordered() {
		if c.IKEID != 0 && env.id != c.IKEID || c.IKE != "" && env.key().Name != c.IKE || env.upSince.IsZero() || env.rekeyed || env.gone || !c.fits(env.sa.Info()) {
			continue
		}
		done.Matched++
		r, ok := env.sa.(Redirector)
		switch {
		case !ok:
			why = "its version of IKE knows no redirection"
		case env.origin:
			why = "this gateway is its initiator"
		default:
			why = "internal error"
			e.guard(env, func() { why = r.Redirect(now, c.Gateway) })
		}
		if why == "" {
			sent++
		} else {
			e.emit(Note{SAKey: env.key(), Level: 1, Text: "not redirected to " + c.Gateway.String() + ": " + why})
		}
	}
	if sent == 0 {
		done.Err = &Rejection{SAKey: SAKey{Name: c.IKE, ID: c.IKEID}, Reason: ReasonInternal, Difference: why}
	}
	if c.ID != 0 {
		e.emit(done)
	}
}

// fits reports whether the peer of an IKE SA is one that is meant.
func (c *Redirect) fits(sa SAInfo) bool {
	if a := sa.Remote.Addr().Unmap(); c.From.IsValid() && (a.BitLen() != c.From.BitLen() || a.Less(c.From) || c.To.Less(a)) {
		return false
	}
	if c.PeerID.IsAny() {
		return true
	}
	id := sa.RemoteID
	if sa.RemoteEAPID != "" {
		var err error
		if id, err = ParseIdentity(sa.RemoteEAPID); err != nil {
			return false
		}
	}
	return id.Match(c.PeerID) != MatchNone
}

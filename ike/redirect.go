package ike

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
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

// limitGatewayName bounds the name of a gateway: its length is one octet (RFC 5685 §9.2).
const limitGatewayName = 255

// ParseRedirectTarget reads an address or a name.
func ParseRedirectTarget(text string) (t RedirectTarget, err error) {
	id, err := ParseIdentity(text)
	switch {
	case err != nil:
	case id.Type == IDIPv4Addr || id.Type == IDIPv6Addr:
		t.Addr, err = netip.ParseAddr(id.String())
	case id.Type == IDFQDN:
		t.Name = id.Data
	default:
		err = errGateway
	}
	if err == nil && !t.Valid() {
		err = errGateway
	}
	return t, err
}

// Valid reports whether it is an address, or a name that may be looked up and logged.
func (g RedirectTarget) Valid() bool {
	if g.Addr.IsValid() || g.Name == "" {
		return g.Addr.IsValid() && g.Name == ""
	}
	return len(g.Name) <= limitGatewayName && g.Name[0] != '-' && g.Name[0] != '.' && strings.IndexFunc(g.Name, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '.' && c != '_'
	}) < 0
}

var errGateway = errors.New("a gateway is an address or a host name")

// IsSet reports whether there is a target.
func (g RedirectTarget) IsSet() bool { return g != RedirectTarget{} }

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

// Drain has the engine refuse new peers: who announces REDIRECT_SUPPORTED is sent to
// To, if that is set, and others get no answer. What is up stays as it is.
type Drain struct {
	On bool
	To RedirectTarget
}

func (Drain) command() {}

// sendAway is how a Drain stands.
type sendAway struct {
	refuse bool
	to     RedirectTarget
}

// Away tells where new peers are to be sent, if anywhere, and whether those are
// refused that cannot be.
func (v *Env) Away() (to RedirectTarget, refuse bool) {
	if v.e.away.refuse {
		return v.e.away.to, true
	}
	return v.e.cfg.RedirectTo, false
}

// Clients are the numbers of the established IKE SAs that peers have begun, in order.
func (e *Engine) Clients() (ids []uint32) {
	for id, env := range e.byID {
		if !env.upSince.IsZero() && !env.origin && !env.rekeyed && !env.gone {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// Redirected tells that the peer, a gateway, sends us to another one (RFC 5685). It
// returns why that is not followed, "" if it is: an IKE SA that is not up must then be
// closed with CauseRedirected, an established one stays until its successor has its
// Child SAs.
func (v *Env) Redirected(now time.Time, to RedirectTarget) (why string) {
	e, c := v.e, v.conn
	up := !v.upSince.IsZero()
	here := v.sa.Info()
	switch {
	case c == nil || !c.loaded:
		return "its connection is not loaded any more"
	case e.shutdown:
		return "shutting down"
	case up && !v.origin || !up && !v.initiator:
		return "the peer is not our gateway: it began the IKE SA"
	case up && (v.rekeyed || c.try != nil || c.losing(v)):
		return "another IKE SA is taking over already"
	case !up && (c.try == nil || c.try.env != v):
		return "the set-up was given up"
	case to.Addr.IsValid() && (to.Addr.Unmap() == here.Remote.Addr().Unmap() || to.Addr.Unmap() == here.Local.Addr().Unmap() || !reachable(to.Addr)):
		return "that leads back, or nowhere"
	}
	c.redirects = slices.DeleteFunc(c.redirects, func(t time.Time) bool { return now.Sub(t) >= redirectPeriod })
	if len(c.redirects) >= limitRedirects {
		return "too many redirections in " + redirectPeriod.String() + " (RFC 5685 §7)"
	}
	c.redirects = append(c.redirects, now)
	if up {
		c.try = &attempt{replaces: v}
	}
	t := c.try
	t.to, t.from = to, [2]netip.Addr{here.Remote.Addr().Unmap(), here.Local.Addr().Unmap()}
	t.tried, t.found, t.hosts = 0, map[string][]netip.Addr{}, nil
	if to.Name != "" {
		t.hosts = []string{to.Name}
	}
	for _, s := range c.peer.LocalAddrs {
		if s.Host != "" && !slices.Contains(t.hosts, s.Host) {
			t.hosts = append(t.hosts, s.Host)
		}
	}
	if up {
		c.step(e, now)
	}
	return ""
}

// reachable reports whether an address can be a gateway's.
func reachable(a netip.Addr) bool {
	a = a.Unmap()
	return a.IsValid() && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// redirected lists the addresses of the gateway to which another one has sent us,
// without those that lead back.
func (t *attempt) redirected(c *connection) (out []netip.Addr) {
	list := []netip.Addr{t.to.Addr}
	if t.to.Name != "" {
		list = t.found[t.to.Name]
	}
	for _, a := range list {
		if reachable(a) && !slices.Contains(t.from[:], a.Unmap()) && len(out) < limitTargets {
			out = append(out, a)
		}
	}
	if len(list) > 0 && len(out) == 0 {
		t.last = c.refused(ReasonPeer, "", "the redirection to "+t.to.String()+" leads back, or nowhere")
	}
	return out
}

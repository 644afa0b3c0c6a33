package ike

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"adit/ipsec"
)

// connection is the life of one Peer: the Child SAs that are wanted, the
// attempt that is under way, and the IKE SAs that there are. All initiations of
// a Peer meet here, so that however many ask, one IKE SA comes of it.
type connection struct {
	peer   *Peer
	loaded bool // still in the configuration
	sas    []*Env
	wants  []*want
	try    *attempt
	// handovers are IKE SAs that close as soon as another one has their Child SAs.
	handovers []handover
	retryAt   time.Time // of a failed attempt, zero: none waits
	failures  int       // attempts in a row that failed, for the back-off
	rounds    int       // of keyingtries
	queued    bool
	wakeAt    time.Time
	keep      keeping
	// redirects are when gateways redirected us, as long as that counts, oldest first.
	redirects []time.Time
	ticket    *Ticket // to resume the last IKE SA with (RFC 5723)
}

// want is one Child SA, or with a nil child the IKE SA alone, that is to come up.
type want struct {
	req        *ChildRequest
	waiters    []*waiter
	persistent bool // tried again until it is up or somebody terminates it
	given      *Env // the IKE SA that works at it
	retryAt    time.Time
	failures   int
}

type handover struct {
	from, to *Env
	deadline time.Time
	after    time.Time // from is not closed before
}

// waiter is a command that ends when the last of what it waits for has ended.
type waiter struct {
	id            CommandID
	matched, left int
	err           error
}

func (w *waiter) done(e *Engine, err error) {
	if err != nil && w.err == nil {
		w.err = err
	}
	if w.left--; w.left == 0 && w.id != 0 {
		e.emit(CommandDone{ID: w.id, Matched: w.matched, Err: w.err})
	}
}

// connection returns the peer's connection, and makes it on first use.
func (e *Engine) connection(p *Peer) *connection {
	c := e.conns[p.Name]
	if c == nil {
		c = &connection{peer: p, loaded: e.isLoaded(p)}
		e.conns[p.Name] = c
	}
	return c
}

func (e *Engine) isLoaded(p *Peer) bool { return slices.Contains(e.peers, p) }

func (e *Engine) queueConn(c *connection) {
	if !c.queued {
		c.queued = true
		e.dueConns = append(e.dueConns, c)
	}
}

// want notes that a Child SA is wanted and who waits for it.
func (c *connection) want(e *Engine, req *ChildRequest, w *waiter, persistent bool) {
	name := ""
	if req.Child != nil {
		name = req.Child.Name
	}
	for _, x := range c.wants {
		if x.name() == name {
			x.persistent = x.persistent || persistent
			if x.given == nil && req.Acquired != nil {
				x.req.Acquired = req.Acquired
			}
			if w != nil {
				if len(x.waiters) >= limitWaiters {
					w.done(e, &Rejection{SAKey: SAKey{Name: c.peer.Name, Child: name}, Reason: ReasonLimit, Difference: "too many commands wait for this connection"})
				} else {
					x.waiters = append(x.waiters, w)
				}
			}
			if req.Acquired != nil && w == nil {
				x.retryAt = c.hurried(x)
			} else {
				x.retryAt = time.Time{}
			}
			c.retryAt = time.Time{}
			e.queueConn(c)
			return
		}
	}
	x := &want{req: req, persistent: persistent}
	req.want = x
	if w != nil {
		x.waiters = []*waiter{w}
	}
	if len(c.wants) >= limitWanted {
		x.resolve(e, &Rejection{SAKey: SAKey{Name: c.peer.Name, Child: name}, Reason: ReasonLimit, Difference: "too many Child SAs wait for this connection"})
		return
	}
	c.wants = append(c.wants, x)
	if w != nil {
		c.retryAt = time.Time{} // an operator does not wait for the back-off
	}
	e.queueConn(c)
}

func (x *want) name() string {
	if x.req.Child == nil {
		return ""
	}
	return x.req.Child.Name
}

func (x *want) resolve(e *Engine, err error) {
	for _, w := range x.waiters {
		w.done(e, err)
	}
	x.waiters = nil
}

func (c *connection) drop(x *want) {
	if i := slices.Index(c.wants, x); i >= 0 {
		c.wants = slices.Delete(c.wants, i, i+1)
	}
}

// usable is the newest IKE SA in which a Child SA can be made.
func (c *connection) usable() *Env {
	var spare *Env
	for _, env := range slices.Backward(c.sas) {
		if env.upSince.IsZero() || env.rekeyed || env.gone || c.losing(env) || !env.sa.Usable() {
			continue
		}
		if !env.spare {
			return env
		}
		spare = env
	}
	return spare
}

func (c *connection) losing(env *Env) bool {
	return slices.ContainsFunc(c.handovers, func(h handover) bool { return h.from == env })
}

// hasChild reports whether the IKE SA has an installed Child SA of the name, and
// one that the packet fits, if a packet asked for it.
func hasChild(env *Env, name string, packet *ipsec.Acquire) bool {
	for _, ch := range env.sa.Info().Children {
		if ch.Name == name && (ch.State == "INSTALLED" || ch.State == "REKEYING") && ch.Covers(packet) {
			return true
		}
	}
	return false
}

// Covers reports whether the packet fits the Child SA's selectors; nil fits.
func (c ChildInfo) Covers(packet *ipsec.Acquire) bool {
	if packet == nil {
		return true
	}
	if packet.Resource != 0 && packet.Resource != c.Resource {
		return false
	}
	fits := func(list []ipsec.Selector, a netip.Addr, port uint16) bool {
		return slices.ContainsFunc(list, func(s ipsec.Selector) bool {
			return s.MatchAddr(a) && (s.Proto == 0 || s.Proto == packet.Proto) && (s.AnyPort() || s.PortFrom <= port && port <= s.PortTo)
		})
	}
	return fits(c.LocalTS, packet.Src.Unmap(), packet.SrcPort) && fits(c.RemoteTS, packet.Dst.Unmap(), packet.DstPort)
}

// review does what the connection's state asks for. It runs after each input
// that touched the connection.
func (c *connection) review(e *Engine, now time.Time) {
	defer c.schedule(e, now)
	for _, h := range slices.Clone(c.handovers) {
		c.reviewHandover(e, now, h)
	}
	if e.shutdown {
		return
	}
	for _, name := range c.keep.crashed {
		c.lost(e, now, name, CauseDead)
	}
	c.keep.crashed = nil
	if env := c.usable(); env != nil {
		if t := c.try; t != nil && t.replaces == nil && t.env == nil {
			delete(e.jobs, t.job)
			c.try = nil
		}
		for _, x := range slices.Clone(c.wants) {
			switch {
			case x.given != nil && !x.given.gone || now.Before(x.retryAt):
			case x.req.Child == nil || hasChild(env, x.req.Child.Name, x.req.Acquired):
				x.resolve(e, nil)
				c.drop(x)
			default:
				x.given = env
				e.guard(env, func() { env.sa.CreateChild(now, x.req) })
			}
		}
		return
	}
	if c.try == nil && !now.Before(c.retryAt) && c.needed(now) {
		c.attempt(e, now, nil)
	}
}

// needed reports whether an IKE SA must be made for what is wanted.
func (c *connection) needed(now time.Time) bool {
	return slices.ContainsFunc(c.wants, func(x *want) bool {
		return (x.given == nil || x.given.gone) && !now.Before(x.retryAt)
	})
}

// reviewHandover closes an IKE SA when its successor has all its Child SAs, or
// when the time for that is over.
func (c *connection) reviewHandover(e *Engine, now time.Time, h handover) {
	forget := func() {
		c.handovers = slices.DeleteFunc(c.handovers, func(x handover) bool { return x == h })
	}
	if h.from.gone || h.to.gone {
		forget()
		return
	}
	if now.Before(h.deadline) {
		for _, ch := range h.from.sa.Info().Children {
			if ch.State != "INSTALLED" && ch.State != "REKEYING" || hasChild(h.to, ch.Name, nil) {
				continue
			}
			if cfg := c.peer.Child(ch.Name); cfg != nil && h.to.sa.Usable() {
				switch x := c.wanted(ch.Name); {
				case x == nil:
					c.want(e, &ChildRequest{Child: cfg}, nil, false)
				case x.given == nil || x.given.gone:
					x.retryAt = time.Time{} // review comes to it next
				}
				return
			}
		}
	}
	if now.Before(h.after) {
		return
	}
	forget()
	e.guard(h.from, func() { h.from.sa.Close(now, Closed{Cause: CauseReplaced, Reason: "replaced"}, false) })
}

// abandon gives up an attempt that has not come further than IKE_SA_INIT when
// the peer's own IKE SA is up first.
func (c *connection) abandon(e *Engine, now time.Time, v *Env) {
	t := c.try
	if v.initiator || t == nil || t.replaces != nil || t.env == nil || t.env.gone || t.env.sa == nil {
		return
	}
	if env := t.env; env.sa.Info().SPIr == 0 {
		c.try = nil
		e.guard(env, func() { env.sa.Close(now, Closed{Cause: CauseReplaced, Reason: "the peer was faster"}, true) })
	}
}

// settleDuplicate decides which of two IKE SAs goes that the two sides initiated
// one each, mostly because both started at once: the one with the lower nonce,
// by who initiated it (the rule of RFC 7296 §2.8.1, which both sides can apply
// alone). It asks for no overlap in time: messages that are lost and repeated
// let the two sides see different orders. Whoever made the loser deletes it at
// once. A peer that knows no such rule keeps it: then it is a spare that nothing
// new is made in, and goes by us after spareGrace.
func (c *connection) settleDuplicate(e *Engine, now time.Time, a, b *Env) {
	loser, winner := a, b
	if slices.Compare(b.tie, a.tie) < 0 {
		loser, winner = b, a
	}
	if !loser.origin {
		loser.spare = true
		c.handovers = append(c.handovers, handover{loser, winner, now.Add(spareGrace + duplicateGrace), now.Add(spareGrace)})
		return
	}
	h := handover{loser, winner, now.Add(duplicateGrace), time.Time{}}
	if loser.upSince.Add(reauthOverlap).Before(winner.upSince) {
		// Not both at once: the peer reauthenticates what we initiated. Our answer may not
		// have made its new Child SAs yet when a deletion arrives.
		h.deadline, h.after = now.Add(reauthOverlap+duplicateGrace), now.Add(reauthOverlap)
	}
	c.handovers = append(c.handovers, h)
	// What the loser was still to make is made in the winner.
	for _, x := range c.wants {
		if x.given == loser {
			x.given = nil
		}
	}
}

// established tells that an IKE SA of the connection is up.
func (c *connection) established(e *Engine, now time.Time, env *Env) {
	c.failures, c.rounds, c.retryAt = 0, 0, time.Time{}
	if c.try != nil && c.try.env == env {
		t := c.try
		c.try = nil
		if t.replaces != nil && !t.replaces.gone {
			c.handovers = append(c.handovers, handover{t.replaces, env, now.Add(timeoutHandover), now.Add(reauthOverlap)})
		}
	}
}

// timeoutHandover bounds how long a reauthentication waits for the Child SAs of
// the new IKE SA.
const timeoutHandover = 60 * time.Second

// reauthOverlap is how long both IKE SAs stay at a reauthentication: what the peer
// still sends by the old Child SAs is on its way.
const reauthOverlap = time.Second

// spareGrace is how long a peer has to delete the IKE SA of its own that is one too many.
const spareGrace = 5 * time.Second

// succeed lets the IKE SA that came of a rekey take the place of the old one.
func (c *connection) succeed(old, next *Env) {
	c.sas = append(c.sas, next)
	for _, x := range c.wants {
		if x.given == old {
			x.given = next
		}
	}
	for i := range c.handovers {
		h := &c.handovers[i]
		if h.from == old {
			h.from = next
		}
		if h.to == old {
			h.to = next
		}
	}
	if c.try != nil && c.try.replaces == old {
		c.try.replaces = next
	}
}

func (c *connection) childDone(e *Engine, now time.Time, x *want, rej *Rejection) {
	x.given = nil
	if rej == nil {
		x.resolve(e, nil)
		c.drop(x)
		return
	}
	x.resolve(e, rej)
	if !x.persistent {
		c.drop(x)
		return
	}
	x.failures++
	x.retryAt = now.Add(e.backOff(x.failures))
}

// restart wants a Child SA again that was lost: at once, but after a back-off if one
// after the other does not last. Peer quirk (AWS): a new Child SA costs the one before,
// and two children that start again each time would never stop.
func (c *connection) restart(e *Engine, now time.Time, name string, lasted time.Duration) {
	cfg := c.peer.Child(name)
	if cfg == nil || !c.loaded {
		return
	}
	if c.keep.shortLived++; lasted >= keepUpStable {
		c.keep.shortLived = 0
	}
	c.want(e, &ChildRequest{Child: cfg}, nil, !c.peer.GiveUp)
	if x := c.wanted(name); x != nil && c.keep.shortLived > 1 {
		x.retryAt = now.Add(e.backOff(c.keep.shortLived - 1))
	}
}

// closed tells that an IKE SA of the connection is gone.
func (c *connection) closed(e *Engine, now time.Time, env *Env, wasUp bool, why Closed) {
	c.sas = slices.DeleteFunc(c.sas, func(x *Env) bool { return x == env })
	if wasUp {
		c.dropTicket(why.Cause)
	}
	for _, x := range c.wants {
		if x.given == env {
			x.given = nil
		}
	}
	if len(c.sas) == 1 {
		c.sas[0].spare = false
	}
	if c.try != nil && c.try.replaces == env {
		c.try.replaces = nil
	}
	if c.try != nil && c.try.env == env && !wasUp {
		c.attemptFailed(e, now, why.Rejection, why.Cause)
	}
}

// reauthenticate makes an IKE SA that replaces env, with the Child SAs of env
// (make before break), or closes env first if so configured.
func (c *connection) reauthenticate(e *Engine, now time.Time, env *Env) {
	var names []string
	for _, ch := range env.sa.Info().Children {
		if (ch.State == "INSTALLED" || ch.State == "REKEYING") && !slices.Contains(names, ch.Name) {
			names = append(names, ch.Name)
		}
	}
	if e.cfg.BreakBeforeMake {
		for _, name := range names {
			if cfg := c.peer.Child(name); cfg != nil {
				c.want(e, &ChildRequest{Child: cfg}, nil, c.peer.keepsUp(cfg))
			}
		}
		e.guard(env, func() { env.sa.Close(now, Closed{Cause: CauseReplaced, Reason: "reauthentication"}, false) })
		return
	}
	if c.try == nil {
		c.attempt(e, now, env)
	}
}

func (e *Engine) backOff(failures int) time.Duration {
	if e.cfg.RetryInitiate > 0 {
		return e.cfg.RetryInitiate
	}
	d := retryFirst << min(max(failures-1, 0), 6)
	d = min(d, retryMost)
	return d - RandomSpan(d/4)
}

// wakeConnections runs the connections' own timers, in order of names.
func (e *Engine) wakeConnections(now time.Time) {
	var due []*connection
	for _, c := range e.timed {
		if !c.wakeAt.IsZero() && !now.Before(c.wakeAt) {
			due = append(due, c)
		}
	}
	slices.SortFunc(due, func(a, b *connection) int { return strings.Compare(a.peer.Name, b.peer.Name) })
	for _, c := range due {
		if t := c.try; t != nil && t.job != 0 && !now.Before(t.deadline) {
			delete(e.jobs, t.job)
			t.job = 0
			c.answered(e, now, nil, errNoAnswerInTime)
		}
		e.queueConn(c)
	}
}

// connWake is the next of the connections' own timers.
func (e *Engine) connWake() time.Time {
	var next time.Time
	for _, c := range e.timed {
		if next.IsZero() || c.wakeAt.Before(next) {
			next = c.wakeAt
		}
	}
	return next
}

// schedule sets the connection's timer; review has done what is due already.
func (c *connection) schedule(e *Engine, now time.Time) {
	next := time.Time{}
	sooner := func(t time.Time) {
		if t.After(now) && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	if c.try != nil && c.try.job != 0 {
		sooner(c.try.deadline)
	}
	if c.try == nil || c.usable() != nil {
		for _, x := range c.wants {
			if x.given == nil && c.usable() == nil && x.retryAt.Before(c.retryAt) {
				sooner(c.retryAt)
			} else if x.given == nil {
				sooner(x.retryAt)
			}
		}
	}
	for _, h := range c.handovers {
		sooner(h.deadline)
		sooner(h.after)
	}
	c.wakeAt = next
	switch i := slices.Index(e.timed, c); {
	case next.IsZero() && i >= 0:
		e.timed = slices.Delete(e.timed, i, i+1)
	case !next.IsZero() && i < 0:
		e.timed = append(e.timed, c)
	}
}

// target is one pair of addresses to try.
type target struct{ local, remote netip.AddrPort }

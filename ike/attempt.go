package ike

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"time"
)

// attempt is one round of making an IKE SA: names are resolved, a source
// address is found for each remote one, then the pairs are tried in turn, each
// with the whole schedule of retransmissions.
type attempt struct {
	replaces *Env // reauthentication: the IKE SA that goes then
	job      JobID
	deadline time.Time

	hosts   []string // still to resolve
	found   map[string][]netip.Addr
	remotes []netip.Addr // still to try
	asking  netip.Addr   // the remote address whose source is asked for
	tried   int
	env     *Env // the IKE SA that is being made
	last    *Rejection
	// to is where a gateway has redirected us, instead of the configured addresses; from
	// are that gateway's address and our own, to which it may not lead.
	to   RedirectTarget
	from [2]netip.Addr
}

var errNoAnswerInTime = errors.New("no answer in time")

// attempt starts a round.
func (c *connection) attempt(e *Engine, now time.Time, replaces *Env) {
	t := &attempt{replaces: replaces, found: map[string][]netip.Addr{}}
	c.try = t
	for _, specs := range [2][]AddrSpec{c.peer.RemoteAddrs, c.peer.LocalAddrs} {
		for _, s := range specs {
			if s.Host != "" && !slices.Contains(t.hosts, s.Host) {
				t.hosts = append(t.hosts, s.Host)
			}
		}
	}
	if replaces != nil {
		// The peer is where it is now, wherever its name points.
		info := replaces.sa.Info()
		t.hosts = nil
		c.start(e, now, target{info.Local, info.Remote})
		return
	}
	c.step(e, now)
}

// step goes on to the next question of the attempt.
func (c *connection) step(e *Engine, now time.Time) {
	t := c.try
	if len(t.hosts) > 0 {
		c.ask(e, now, Resolve{Hosts: t.hosts[:1]})
		return
	}
	if t.to.IsSet() {
		t.remotes = t.redirected(c)
	} else if t.found != nil {
		t.remotes = t.addresses(c.peer.RemoteAddrs)
	}
	t.next(c, e, now)
}

// addresses lists what addresses specs name, those of resolved names included.
func (t *attempt) addresses(specs []AddrSpec) []netip.Addr {
	var out []netip.Addr
	for _, s := range specs {
		switch {
		case s.Any:
		case s.Host != "":
			out = append(out, t.found[s.Host]...)
		case s.From == s.To && s.From.IsValid():
			out = append(out, s.From)
		}
	}
	return out[:min(len(out), limitTargets)]
}

func (c *connection) ask(e *Engine, now time.Time, q Question) {
	e.lastJob++
	e.jobs[e.lastJob] = jobOwner{conn: c}
	c.try.job, c.try.deadline = e.lastJob, now.Add(timeoutAsk)
	e.effect(Ask{Job: e.lastJob, Deadline: c.try.deadline, Question: q})
	e.queueConn(c)
}

// done takes the answer to the attempt's question.
func (c *connection) done(e *Engine, now time.Time, r Result) {
	if c.try == nil || c.try.job != r.Job {
		return
	}
	c.try.job = 0
	c.answered(e, now, r.Value, r.Err)
	e.queueConn(c)
}

func (c *connection) answered(e *Engine, now time.Time, value any, err error) {
	t := c.try
	if len(t.hosts) > 0 {
		host := t.hosts[0]
		t.hosts = t.hosts[1:]
		addrs, _ := value.([]netip.Addr)
		if err == nil {
			t.found[host] = addrs[:min(len(addrs), limitTargets)]
		}
		if len(t.found[host]) == 0 {
			why := "no address"
			if err != nil {
				why = err.Error()
			}
			t.last = c.refused(ReasonAddress, DetailUnresolved, "the name "+host+" does not resolve: "+why)
		}
		c.step(e, now)
		return
	}
	src, _ := value.(netip.Addr)
	if err != nil || !src.IsValid() {
		t.last = c.refused(ReasonAddress, DetailNoRoute, "no route to "+t.asking.String())
		if err != nil {
			t.last.Hint = err.Error()
		}
		t.next(c, e, now)
		return
	}
	c.startFrom(e, now, src, t.asking)
}

// refused is the record of an attempt that ended before anything was sent.
func (c *connection) refused(reason Reason, detail Detail, difference string) *Rejection {
	r := &Rejection{SAKey: SAKey{Name: c.peer.Name}, Reason: reason, Detail: detail, Difference: difference}
	r.PointTo(c.peer)
	return r
}

// next tries the next remote address.
func (t *attempt) next(c *connection, e *Engine, now time.Time) {
	t.found = orEmpty(t.found)
	for len(t.remotes) > 0 && t.tried < limitTargets {
		remote := t.remotes[0]
		t.remotes = t.remotes[1:]
		t.tried++
		locals := t.addresses(c.peer.LocalAddrs)
		if i := slices.IndexFunc(locals, func(a netip.Addr) bool { return a.Is4() == remote.Is4() }); i >= 0 {
			c.startFrom(e, now, locals[i], remote)
			return
		}
		if len(locals) > 0 && !slices.ContainsFunc(c.peer.LocalAddrs, func(s AddrSpec) bool { return s.Any || s.From != s.To }) {
			t.last = c.refused(ReasonAddress, DetailNoFamily, "no local address of the family of "+remote.String())
			continue
		}
		t.asking = remote
		c.ask(e, now, SourceAddress{Remote: remote})
		return
	}
	if t.last == nil {
		t.last = c.refused(ReasonAddress, DetailNoTarget, "no remote address to initiate to")
	}
	c.roundFailed(e, now)
}

func orEmpty(m map[string][]netip.Addr) map[string][]netip.Addr {
	if m == nil {
		m = map[string][]netip.Addr{}
	}
	return m
}

func (c *connection) startFrom(e *Engine, now time.Time, local, remote netip.Addr) {
	lp, rp := c.peer.LocalPort, c.peer.RemotePort
	if rp == 0 {
		rp = 500
	}
	if lp == 0 || lp == 500 {
		if lp = e.cfg.Port; rp != 500 {
			lp = e.cfg.NATPort // other ports of the peer expect the marker of RFC 3948
		}
	}
	c.start(e, now, target{netip.AddrPortFrom(local, lp), netip.AddrPortFrom(remote, rp)})
}

// start begins the IKE SA towards one target.
func (c *connection) start(e *Engine, now time.Time, to target) {
	t := c.try
	major := c.peer.Version
	if major == 0 {
		major = 2
	}
	v := e.versions[major&15]
	switch {
	case v == nil:
		t.last = c.refused(ReasonVersion, "", "IKEv"+strconv.Itoa(int(major))+" is not spoken here")
		t.last.Ours = "2"
		t.remotes = nil
		c.roundFailed(e, now)
		return
	case len(e.byID) >= limitSAs:
		t.last = c.refused(ReasonLimit, "", "too many IKE SAs")
		t.remotes = nil
		c.roundFailed(e, now)
		return
	}
	req := InitiateRequest{Peer: c.peer, Local: to.local, Remote: to.remote, Reauth: t.replaces != nil, RedirectedFrom: t.from[0]}
	if t.replaces != nil {
		info := t.replaces.sa.Info()
		for _, ch := range info.Children {
			if cfg := c.peer.Child(ch.Name); cfg != nil && (ch.State == "INSTALLED" || ch.State == "REKEYING") {
				req.Child = &ChildRequest{Child: cfg}
				break
			}
		}
	} else {
		for _, x := range c.wants {
			if x.req.Child != nil && (x.given == nil || x.given.gone) && !now.Before(x.retryAt) {
				req.Child = x.req
				break
			}
		}
	}
	if t.replaces == nil && major == 2 && !t.to.IsSet() {
		req.Ticket = c.takeTicket(now)
	}
	env := e.newEnv(now, major, true)
	env.conn, env.reauth = c, t.replaces != nil
	e.byID[env.id] = env
	c.sas = append(c.sas, env)
	t.env = env
	if req.Child != nil && req.Child.want != nil {
		req.Child.want.given = env
	}
	e.stats.Initiated++
	e.guard(env, func() { env.sa = v.Initiate(env, now, req) })
}

// attemptFailed tells that the IKE SA towards one target did not come up.
func (c *connection) attemptFailed(e *Engine, now time.Time, rej *Rejection, cause Cause) {
	t := c.try
	t.env = nil
	if rej != nil {
		t.last = rej
	}
	if cause == CauseRedirected {
		c.step(e, now)
		return
	}
	if cause == CauseLocal { // somebody terminated it
		c.try = nil
		for _, x := range slices.Clone(c.wants) {
			x.resolve(e, c.refused(ReasonInternal, DetailTerminated, "terminated while it was initiated"))
			c.drop(x)
		}
		return
	}
	t.next(c, e, now)
}

// roundFailed ends a round: keyingtries, then the back-off before the next one.
func (c *connection) roundFailed(e *Engine, now time.Time) {
	t := c.try
	c.try = nil
	c.rounds++
	c.failures++
	rej := t.last
	if rej.Reason == ReasonAddress || rej.Reason == ReasonVersion || rej.Reason == ReasonLimit {
		e.emit(rej) // others were emitted by who found them
	}
	if t.replaces != nil || c.usable() != nil {
		// The old IKE SA goes on until its hard lifetime.
		c.rounds = 0
		e.queueConn(c)
		return
	}
	if c.peer.KeyingTries != 0 && c.rounds >= c.peer.KeyingTries {
		c.rounds = 0
		for _, x := range slices.Clone(c.wants) {
			x.resolve(e, rej)
			if !x.persistent {
				c.drop(x)
			}
		}
	}
	c.retryAt = now.Add(e.backOff(c.failures))
	e.queueConn(c)
}

// Attempt is how the initiations of a connection stand.
type Attempt struct {
	// Wanted are the children that are to come up, an empty name the IKE SA alone.
	Wanted []string
	// Held are children with keep_up that an operator took down.
	Held []string
	// Failures counts attempts in a row that failed; RetryAt is when the next one
	// begins, zero: none waits.
	Failures int
	RetryAt  time.Time
	// Trying: an attempt is under way. Asking is what it waits for before it can send:
	// a name to be looked up, or the way to an address.
	Trying bool
	Asking string
}

// Attempt tells how the initiations of the connection of that name stand.
func (e *Engine) Attempt(name string) Attempt {
	c := e.conns[name]
	if c == nil {
		return Attempt{}
	}
	a := Attempt{Failures: c.failures, RetryAt: c.retryAt, Trying: c.try != nil}
	for _, x := range c.wants {
		a.Wanted = append(a.Wanted, x.name())
		if x.given == nil && x.retryAt.After(a.RetryAt) {
			a.RetryAt = x.retryAt
		}
		a.Failures = max(a.Failures, x.failures)
	}
	a.Held = slices.Sorted(maps.Keys(c.keep.held))
	if t := c.try; t != nil && t.job != 0 {
		if a.Asking = "the way to " + t.asking.String(); len(t.hosts) > 0 {
			a.Asking = "the address of " + t.hosts[0]
		}
	}
	return a
}

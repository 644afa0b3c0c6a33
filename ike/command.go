package ike

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"adit/ipsec"
)

// Do carries out a command.
func (e *Engine) Do(now time.Time, c Command) {
	switch c := c.(type) {
	case Initiate:
		e.initiate(now, c)
	case Terminate:
		e.terminate(now, c)
	case Rekey:
		e.rekey(now, c)
	case Redirect:
		e.redirect(now, c)
	case Drain:
		e.away.refuse, e.away.to = c.On, c.To
	case AddressesChanged:
		e.addressesChanged(now, c)
	case Reload:
		e.reload(c)
	case Shutdown:
		e.shutDown(now, c)
	case Trust:
		e.authorities, e.authorityNames = c.Authorities, c.Names
	}
	e.settle(now)
}

func (e *Engine) refuse(id CommandID, name, child string, reason Reason, difference string) {
	if id != 0 {
		e.emit(CommandDone{ID: id, Err: &Rejection{SAKey: SAKey{Name: name, Child: child}, Reason: reason, Difference: difference}})
	}
}

func (e *Engine) initiate(now time.Time, c Initiate) {
	p := c.Peer
	switch {
	case e.shutdown:
		e.refuse(c.ID, p.Name, c.Child, ReasonLimit, "shutting down")
		return
	case len(e.conns) >= limitConnections && e.conns[p.Name] == nil:
		e.refuse(c.ID, p.Name, c.Child, ReasonLimit, "too many connections")
		return
	}
	req := &ChildRequest{Acquired: c.Acquired}
	if c.Child != "" {
		if req.Child = p.Child(c.Child); req.Child == nil {
			e.refuse(c.ID, p.Name, c.Child, ReasonInternal, "the connection has no child of this name")
			return
		}
	}
	conn := e.connection(p)
	conn.peer, conn.loaded = p, conn.loaded || e.isLoaded(p)
	var w *waiter
	if c.ID != 0 {
		w = &waiter{id: c.ID, matched: 1, left: 1}
	}
	if req.Child != nil && c.Acquired == nil {
		delete(conn.keep.held, c.Child) // an operator or the configuration wants it up again
	}
	persistent := req.Child != nil && conn.peer.keepsUp(req.Child) && !conn.keep.held[c.Child]
	conn.want(e, req, w, persistent)
}

// acquire handles a data plane's wish that came here directly.
func (e *Engine) acquire(now time.Time, a ipsec.Acquire) {
	if a.Resource > 0 {
		e.acquireResource(now, a)
		return
	}
	for _, p := range e.peers {
		if c := p.Child(a.Name); c != nil && c.Action == ipsec.Protect {
			e.initiate(now, Initiate{Peer: p, Child: a.Name, Acquired: &a})
			return
		}
	}
}

// acquireResource asks for a Child SA for one resource, in the IKE SA of the one that
// serves all (RFC 9611 §4). Nobody waits for it: the data plane asks again.
func (e *Engine) acquireResource(now time.Time, a ipsec.Acquire) {
	g := e.policies.byPolicy[a.Policy]
	if g == nil || e.shutdown {
		return
	}
	env := e.byChild[g.lanes[0].serves()]
	if env == nil || env.gone || env.conn == nil {
		return
	}
	if cfg := env.conn.peer.Child(a.Name); cfg != nil {
		e.guard(env, func() { env.sa.CreateChild(now, &ChildRequest{Child: cfg, Acquired: &a}) })
	}
}

func (e *Engine) terminate(now time.Time, c Terminate) {
	w := &waiter{id: c.ID, left: 1}
	if c.Child == "" && c.ChildID == 0 {
		e.terminateIKE(now, c, w)
	} else {
		e.terminateChildren(now, c, w)
	}
	if w.matched == 0 && c.ID != 0 {
		w.err = fmt.Errorf("no SA matches")
	}
	w.done(e, nil)
}

func (e *Engine) terminateIKE(now time.Time, c Terminate, w *waiter) {
	if c.IKEID == 0 {
		for _, name := range e.connNames(c.IKE) {
			e.conns[name].holdAll()
			e.conns[name].forgetWants(e, "")
		}
	}
	for _, env := range e.ordered() {
		if c.IKEID != 0 && env.id != c.IKEID || c.IKE != "" && env.key().Name != c.IKE || env.rekeyed {
			continue
		}
		if env.conn != nil && c.Reason == "" {
			env.conn.holdAll()
			env.conn.forgetWants(e, "")
		}
		w.matched++
		w.left++
		env.waiters = append(env.waiters, w)
		e.guard(env, func() { env.sa.Close(now, Closed{Cause: CauseLocal, Reason: cmp.Or(c.Reason, "terminated")}, c.Force) })
	}
}

func (e *Engine) connNames(only string) []string {
	if only != "" {
		if e.conns[only] == nil {
			return nil
		}
		return []string{only}
	}
	return slices.Sorted(maps.Keys(e.conns))
}

// forgetWants ends what is wanted of the child, or of all if it is empty.
func (c *connection) forgetWants(e *Engine, child string) {
	for _, x := range slices.Clone(c.wants) {
		if child == "" || x.name() == child {
			x.resolve(e, &Rejection{SAKey: SAKey{Name: c.peer.Name, Child: x.name()}, Reason: ReasonInternal, Detail: DetailTerminated, Difference: "terminated while it was initiated"})
			c.drop(x)
		}
	}
	if len(c.wants) == 0 && c.try != nil && c.try.env == nil {
		delete(e.jobs, c.try.job)
		c.try = nil
	}
	e.queueConn(c)
}

func (e *Engine) terminateChildren(now time.Time, c Terminate, w *waiter) {
	if c.ChildID == 0 {
		for _, name := range e.connNames(c.IKE) {
			e.conns[name].hold(c.Child)
			e.conns[name].forgetWants(e, c.Child)
		}
	}
	for _, m := range e.matchChildren(c.IKE, c.IKEID, c.Child, c.ChildID) {
		w.matched++
		w.left++
		e.policies.await(m.child, w)
		if m.env.conn != nil {
			m.env.conn.hold(m.name)
		}
		e.guard(m.env, func() { m.env.sa.DeleteChild(now, m.child, "terminated") })
	}
}

type matchedChild struct {
	env   *Env
	child uint32
	name  string
}

// matchChildren lists the live Child SAs that fit, in order of their numbers.
func (e *Engine) matchChildren(ike string, ikeID uint32, child string, childID uint32) (out []matchedChild) {
	for _, env := range e.ordered() {
		if ikeID != 0 && env.id != ikeID || ike != "" && env.key().Name != ike {
			continue
		}
		for _, ch := range env.sa.Info().Children {
			if (child == "" || ch.Name == child) && (childID == 0 || ch.ID == childID) && (ch.State == "INSTALLED" || ch.State == "REKEYING") {
				out = append(out, matchedChild{env, ch.ID, ch.Name})
			}
		}
	}
	slices.SortFunc(out, func(a, b matchedChild) int { return cmp.Compare(a.child, b.child) })
	return out
}

func (e *Engine) rekey(now time.Time, c Rekey) {
	n := 0
	if c.Child == "" && c.ChildID == 0 {
		for _, env := range e.ordered() {
			if c.IKEID != 0 && env.id != c.IKEID || c.IKE != "" && env.key().Name != c.IKE || env.upSince.IsZero() || env.rekeyed || !env.sa.Usable() {
				continue
			}
			n++
			if c.Reauth {
				env.Reauthenticate(now)
				e.queueConn(env.conn)
			} else {
				e.guard(env, func() { env.sa.RekeyIKE(now) })
			}
		}
	} else {
		for _, m := range e.matchChildren(c.IKE, c.IKEID, c.Child, c.ChildID) {
			n++
			e.guard(m.env, func() { m.env.sa.RekeyChild(now, m.child) })
		}
	}
	if c.ID != 0 {
		done := CommandDone{ID: c.ID, Matched: n}
		if n == 0 {
			done.Err = fmt.Errorf("no SA matches")
		}
		e.emit(done)
	}
}

func (e *Engine) reload(c Reload) {
	e.peers = c.Peers
	byName := c.Changed
	names := slices.Sorted(maps.Keys(byName))
	if byName == nil {
		byName = make(map[string]*Peer, len(c.Peers))
		for _, p := range c.Peers {
			byName[p.Name] = p
		}
		names = e.connNames("")
	}
	for _, name := range names {
		conn := e.conns[name]
		if conn == nil {
			continue
		}
		p := byName[name]
		if conn.loaded = p != nil; conn.loaded {
			conn.peer = p
		}
		for _, x := range slices.Clone(conn.wants) {
			if x.req.Child == nil {
				continue
			}
			var cfg *Child
			if p != nil {
				cfg = p.Child(x.name())
			}
			switch {
			case cfg == nil:
				x.resolve(e, &Rejection{SAKey: SAKey{Name: name, Child: x.name()}, Reason: ReasonInternal, Detail: DetailUnloaded, Difference: "the connection was unloaded"})
				conn.drop(x)
			case x.given == nil:
				x.req.Child = cfg
				x.persistent = x.persistent && p.keepsUp(cfg)
			}
		}
		if !conn.loaded && len(conn.sas) == 0 && conn.try == nil && len(conn.wants) == 0 {
			delete(e.conns, name)
			e.timed = slices.DeleteFunc(e.timed, func(t *connection) bool { return t == conn })
		} else {
			e.queueConn(conn)
		}
	}
}

func (e *Engine) shutDown(now time.Time, c Shutdown) {
	if e.shutdown {
		return
	}
	e.shutdown = true
	e.shutdownBy = now.Add(c.Grace)
	for _, name := range e.connNames("") {
		conn := e.conns[name]
		conn.forgetWants(e, "")
		conn.handovers = nil
	}
	for _, env := range e.ordered() {
		e.guard(env, func() { env.sa.Close(now, Closed{Cause: CauseLocal, Reason: "shutting down"}, false) })
	}
}

// await lets a command wait for a Child SA to go.
func (t *policyTable) await(child uint32, w *waiter) {
	if t.waiting == nil {
		t.waiting = map[uint32][]*waiter{}
	}
	t.waiting[child] = append(t.waiting[child], w)
}

func (e *Engine) childGone(id uint32) {
	list := e.policies.waiting[id]
	delete(e.policies.waiting, id)
	for _, w := range list {
		w.done(e, nil)
	}
}

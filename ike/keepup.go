package ike

import "time"

// keeping is what a connection remembers for the children with keep_up: who took
// them down, and how often they did not last.
type keeping struct {
	held    map[string]bool      // children that an operator took down
	upSince map[string]time.Time // children that are up, since when without a gap
	// losses counts in a row the losses of what had not been up for keepUpStable;
	// the next start waits for the longer the more there are. The whole connection has
	// one count and one time, so that many children do not come back one by one.
	losses         int
	lostAt, backAt time.Time
	shortLived     int      // losses is of children with keep_up, this of those with other actions
	crashed        []string // lost by a failed invariant, to be seen to by review
}

// keepUpStable is how long a child is up before its loss counts as a first one, so
// that a peer which accepts and deletes at once is not asked without a pause.
const keepUpStable = time.Minute

// cameUp notes that a child is up.
func (k *keeping) cameUp(now time.Time, name string) {
	if k.upSince == nil {
		k.upSince = map[string]time.Time{}
	}
	if _, known := k.upSince[name]; !known {
		k.upSince[name] = now
	}
}

// hold keeps what an operator takes down from coming back by itself.
func (c *connection) hold(name string) {
	if cfg := c.peer.Child(name); cfg == nil || !cfg.KeepUp {
		return
	}
	if c.keep.held == nil {
		c.keep.held = map[string]bool{}
	}
	c.keep.held[name] = true
}

// holdAll is hold for every child.
func (c *connection) holdAll() {
	for _, cfg := range c.peer.Children {
		c.hold(cfg.Name)
	}
}

// keeps reports whether the connection, as it is configured now, has the child
// brought back.
func (c *connection) keeps(name string) bool {
	cfg := c.peer.Child(name)
	return cfg != nil && cfg.KeepUp && c.loaded && !c.keep.held[name]
}

// lost has a child with keep_up brought back, and reports whether it is to be: at
// once if it had lasted, else after a back-off. What another IKE SA is taking over
// gets the time for that.
func (c *connection) lost(e *Engine, now time.Time, name string, cause Cause) bool {
	if cause == CauseLocal || !c.keeps(name) || e.shutdown {
		delete(c.keep.upSince, name)
		return false
	}
	if env := c.usable(); env != nil && hasChild(env, name, nil) {
		return true // there is another one
	}
	if cause == CauseReplaced {
		c.bringBack(e, name, now.Add(keepUpHandover))
		return true
	}
	since, known := c.keep.upSince[name]
	delete(c.keep.upSince, name)
	if !now.Before(c.keep.backAt) { // else it went together with another child
		delay := time.Duration(0)
		if known && now.Sub(since) >= keepUpStable {
			c.keep.losses = 0
		} else {
			c.keep.losses++
			delay = e.backOff(c.keep.losses)
		}
		c.keep.lostAt, c.keep.backAt = now, now.Add(delay)
	}
	c.bringBack(e, name, c.keep.backAt)
	return true
}

// keepUpHandover is how long the successor of an IKE SA has for the child of the old one.
const keepUpHandover = 2 * time.Second

// bringBack wants the child, not before some time.
func (c *connection) bringBack(e *Engine, name string, at time.Time) {
	x := c.wanted(name)
	if x == nil {
		c.want(e, &ChildRequest{Child: c.peer.Child(name)}, nil, true)
		if x = c.wanted(name); x == nil {
			return // too many are wanted: the note is out
		}
	}
	x.persistent = true
	if x.retryAt.Before(at) {
		x.retryAt = at
	}
	e.queueConn(c)
}

// wanted is what is noted of a child that is to come up, nil if nothing is.
func (c *connection) wanted(name string) *want {
	for _, x := range c.wants {
		if x.name() == name {
			return x
		}
	}
	return nil
}

// hurried is when a child is tried that traffic asks for while it waits: at once,
// but for a peer that takes it down again and again.
func (c *connection) hurried(x *want) time.Time {
	if c.keep.losses == 0 || !c.keeps(x.name()) {
		return time.Time{}
	}
	if soon := c.keep.lostAt.Add(retryFirst); soon.Before(x.retryAt) {
		return soon
	}
	return x.retryAt
}

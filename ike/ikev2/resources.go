package ikev2

import (
	"encoding/binary"
	"slices"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/ipsec"
	"adit/suite"
)

// Child SAs for single resources (RFC 9611): beside the one that serves all, the
// fallback, each worker of the data plane gets one of its own when it first has packets.
// Which resource one serves is each side's own affair: both count for themselves.

// resourceOf is the resource that asks for a Child SA, 0: none in particular.
func resourceOf(a *ipsec.Acquire) uint16 {
	if a == nil {
		return 0
	}
	return a.Resource
}

func (t *createChild) resource() uint16 {
	if t.req == nil {
		return 0
	}
	return resourceOf(t.req.Acquired)
}

// resourceInfo is the notify that says that there may be more of the kind (§5.1). The
// number is that of the Child SA, unique and for people's logs: a worker's own would tell
// the peer, and whoever it talks to, about the machine (§7).
func (c *child) resourceInfo() *wire.Notify {
	if c.resource == 0 {
		return notify(wire.SAResourceInfo, nil)
	}
	return notify(wire.SAResourceInfo, binary.BigEndian.AppendUint32(nil, c.id))
}

// live reports whether the Child SA is one of several of a configuration, and stays.
func (c *child) live(cfg *ike.Child) bool {
	return c.cfg.Name == cfg.Name && c.many && c.replacement == nil && c.state != childRekeyed && c.state != childDeleting
}

// alike are the live Child SAs of a configuration with certain selectors and mode: the
// fallback, and those of single resources.
func (s *sa) alike(cfg *ike.Child, local, remote []ipsec.Selector, mode ipsec.Mode) (fallback *child, single []*child) {
	for _, c := range s.children {
		switch {
		case !c.live(cfg) || c.mode != mode || !slices.Equal(c.localTS, local) || !slices.Equal(c.remoteTS, remote):
		case c.resource > 0:
			single = append(single, c)
		case c.state != childPending:
			fallback = c
		}
	}
	return fallback, single
}

// fallbackOf is the live Child SA for all that the packet of an acquire belongs to; it may
// have any selectors that the peer granted.
func (s *sa) fallbackOf(cfg *ike.Child, a *ipsec.Acquire) *child {
	for _, c := range s.children {
		if c.live(cfg) && c.resource == 0 && c.state != childPending {
			if _, _, ok := packetSelectors(a, c.localTS, c.remoteTS); ok {
				return c
			}
		}
	}
	return nil
}

// onlySuite are the proposals that come to the algorithms of a Child SA that is there,
// whatever key exchange goes with them.
func onlySuite(list []suite.Proposal, has suite.Selected) (out []suite.Proposal) {
	sn := has.SN
	sn.Type = suite.TypeSN // an answer need not name it
	for _, p := range list {
		q, found := suite.Proposal{Protocol: p.Protocol}, 0
		for _, t := range p.Transforms {
			switch t.Type {
			case suite.TypeENCR, suite.TypeINTEG, suite.TypeSN:
				if t != has.Encr && t != has.Integ && t != sn {
					continue
				}
				found++
			}
			q.Transforms = append(q.Transforms, t)
		}
		if want := len(suite.Selected{Encr: has.Encr, Integ: has.Integ, SN: sn}.Proposal().Transforms); found == want {
			out = append(out, q)
		}
	}
	return out
}

// offerLike makes an offer ask for what the fallback has in all but the keys (§3). The
// packet that asked stands in front of its selectors (§4): the peer may choose a resource
// by it, but not narrow them.
func (s *sa) offerLike(o *childOffer, f *child, a *ipsec.Acquire) {
	o.like = f
	o.proposals = onlySuite(o.proposals, f.suite)
	o.local, o.remote, o.c.mode = f.localTS, f.remoteTS, f.mode
	if l, r, ok := packetSelectors(a, f.localTS, f.remoteTS); ok && !s.config().IgnoreAcquire {
		o.local, o.remote = prepend(l, f.localTS), prepend(r, f.remoteTS)
	}
}

// acceptedLike checks that the peer granted just that.
func (o *childOffer) acceptedLike() *ike.Rejection {
	c, f := o.c, o.like
	same := func(a, b []ipsec.Selector) bool { return ipsec.ContainsAll(a, b) && ipsec.ContainsAll(b, a) }
	if same(c.localTS, f.localTS) && same(c.remoteTS, f.remoteTS) {
		c.localTS, c.remoteTS = f.localTS, f.remoteTS // in the same order
		return nil
	}
	return &ike.Rejection{SAKey: ike.SAKey{Child: c.cfg.Name}, Reason: ike.ReasonSelectors, ByPeer: true,
		Ours: selectorText(f.localTS, f.remoteTS), Theirs: selectorText(c.localTS, c.remoteTS),
		Difference: "a further Child SA for a worker of its own must have the selectors of the first (RFC 9611)"}
}

// wantsResource is the fallback if a Child SA for a single resource can be asked for: the
// peer takes part, and has not said that there are enough.
func (s *sa) wantsResource(t *createChild) *child {
	f := s.fallbackOf(t.cfg, t.req.Acquired)
	if f == nil || slices.ContainsFunc(s.noMore, func(c *ike.Child) bool { return c.Name == t.cfg.Name }) ||
		len(onlySuite(t.cfg.Proposals, f.suite)) == 0 {
		return nil
	}
	return f
}

// resourceRefused goes on without a Child SA for the resource, and asks for no other
// one until one goes. That is what TS_MAX_QUEUE (§5.2) means; whatever else the peer has
// against one, the next would be no better.
func (s *sa) resourceRefused(now time.Time, t *createChild, why string) {
	s.noMore = append(s.noMore, t.cfg)
	s.note(1, "no Child SA of "+t.cfg.Name+" for a worker of its own: "+why)
	t.ended(s, now, nil)
}

// oneOfMany is what a responder makes of a request for a Child SA that may be one of
// several (§3).
type oneOfMany struct {
	many     bool
	like     *child // the fallback, if there is one: then all but the keys must be as it has it
	resource uint16 // that the new one is to serve here
}

// chooseResource says, as responder, whether a new Child SA may be one of several, and
// which resource it serves here: the first serves all, each further one the last that
// has fewest. Where the peer has more resources than we have workers, some get several:
// what it sends must be received, and of those that go out one is used (§4).
func (s *sa) chooseResource(cfg *ike.Child, payloads []wire.Payload, local, remote []ipsec.Selector, mode ipsec.Mode) (m oneOfMany, _ *refusal) {
	if wire.FindNotify(payloads, wire.SAResourceInfo) == nil {
		return m, nil
	}
	fallback, single := s.alike(cfg, local, remote, mode)
	if cfg.PerCPU == ike.PerCPUNo && fallback == nil {
		return m, nil
	}
	if fallback == nil {
		return oneOfMany{many: true}, nil
	}
	workers := max(s.config().Workers, 1)
	why := ""
	switch {
	case cfg.PerCPU == ike.PerCPUNo:
		why = "per_cpu_sas is off by now"
	case len(onlySuite(cfg.Proposals, fallback.suite)) == 0:
		why = "the algorithms of the first Child SA are configured no longer"
	case len(single) >= max(limitResources, 2*workers) || len(s.children) >= limitChildren:
		why = "the peer asks for too many Child SAs with the same selectors (RFC 9611)"
	}
	if why != "" {
		// Not NO_ADDITIONAL_SAS: the peer would take it for all selectors (§6).
		return m, &refusal{wire.TSMaxQueue, nil, &ike.Rejection{SAKey: ike.SAKey{Child: cfg.Name}, Reason: ike.ReasonLimit, Difference: why}}
	}
	used := make([]int, workers)
	for _, c := range single {
		used[int(c.resource-1)%workers]++
	}
	best := workers - 1
	for i := workers - 1; i >= 0; i-- {
		if used[i] < used[best] {
			best = i
		}
	}
	return oneOfMany{many: true, like: fallback, resource: uint16(best + 1)}, nil
}

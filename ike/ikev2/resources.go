package ikev2

import (
	"encoding/binary"
	"slices"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/ipsec"
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
// number is for people: it means nothing to the peer.
func (c *child) resourceInfo() *wire.Notify {
	if c.resource == 0 {
		return notify(wire.SAResourceInfo, nil)
	}
	return notify(wire.SAResourceInfo, binary.BigEndian.AppendUint32(nil, uint32(c.resource-1)))
}

// alike are the live Child SAs of a configuration, with these selectors if they are
// given: the fallback, and those of single resources.
func (s *sa) alike(cfg *ike.Child, local, remote []ipsec.Selector) (fallback *child, single []*child) {
	for _, c := range s.children {
		switch {
		case c.cfg.Name != cfg.Name || !c.many || c.replacement != nil || c.state == childRekeyed || c.state == childDeleting:
		case local != nil && !(slices.Equal(c.localTS, local) && slices.Equal(c.remoteTS, remote)):
		case c.resource > 0:
			single = append(single, c)
		case c.state != childPending:
			fallback = c
		}
	}
	return fallback, single
}

// wantsResource reports whether a Child SA for a single resource can be asked for: the
// peer takes part, and has not said that there are enough.
func (s *sa) wantsResource(t *createChild) bool {
	fallback, _ := s.alike(t.cfg, nil, nil)
	return fallback != nil &&
		!slices.ContainsFunc(s.noMore, func(c *ike.Child) bool { return c.Name == t.cfg.Name })
}

// resourceRefused goes on without a Child SA for the resource. After TS_MAX_QUEUE (§5.2)
// no other one is asked for until one goes.
func (s *sa) resourceRefused(now time.Time, t *createChild, n *wire.Notify) {
	if n.NotifyType == wire.TSMaxQueue || n.NotifyType == wire.NoAdditionalSAs {
		s.noMore = append(s.noMore, t.cfg)
	}
	s.note(1, "the peer refuses a Child SA of "+t.cfg.Name+" for a worker of its own: "+n.NotifyType.String())
	t.ended(s, now, nil)
}

// chooseResource says, as responder, whether a new Child SA may be one of several, and
// which resource it serves here: the first serves all, each further one the last that
// has fewest. Where the peer has more resources than we have workers, some get several:
// what it sends must be received, and of those that go out one is used (§4).
func (s *sa) chooseResource(cfg *ike.Child, payloads []wire.Payload, local, remote []ipsec.Selector) (many bool, resource uint16, _ *refusal) {
	if cfg.PerCPU == ike.PerCPUNo || wire.FindNotify(payloads, wire.SAResourceInfo) == nil {
		return false, 0, nil
	}
	fallback, single := s.alike(cfg, local, remote)
	if fallback == nil {
		return true, 0, nil
	}
	if len(single) >= limitResources {
		return false, 0, &refusal{wire.TSMaxQueue, nil, &ike.Rejection{SAKey: ike.SAKey{Child: cfg.Name}, Reason: ike.ReasonLimit,
			Difference: "the peer asks for too many Child SAs with the same selectors (RFC 9611)"}}
	}
	workers := max(s.config().Workers, 1)
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
	return true, uint16(best + 1), nil
}

package ike

import (
	"crypto/sha256"
	"math/big"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"adit/internal/simbug"
	"adit/ipsec"
)

// Priorities of policies, lowest first. Each class lies in (base − PriorityRange,
// base]; within it narrower selectors come first. So every shunt precedes every
// Child SA's policy, which precedes every trap, whatever their selectors.
const (
	PriorityRange    = 200_000
	PriorityShunt    = 200_000 // bypass and discard policies of the configuration
	PrioritySA       = 400_000 // policies of Child SAs
	PriorityTrap     = 600_000
	PriorityFallback = 800_000 // what a driver wants behind everything
)

// Priority computes the priority of a policy inside a class: the widest
// selectors of either side count, by their address bits, then protocol, then ports.
func Priority(class uint32, local, remote []ipsec.Selector) uint32 {
	width := min(narrowness(local)+narrowness(remote), PriorityRange-1)
	return class - width
}

func narrowness(sel []ipsec.Selector) uint32 {
	least := uint32(0)
	for i, s := range sel {
		n := uint32(0)
		if !s.IsDynamic() {
			size := new(big.Int).Sub(s.Size(), big.NewInt(1))
			n = uint32(s.From.BitLen()-size.BitLen()) * 512
		} else {
			n = 128 * 512
		}
		if s.Proto != 0 {
			n += 128
		}
		if s.Opaque() {
			n += 64
		} else if !s.AnyPort() {
			n += 64 + uint32(65535-(s.PortTo-s.PortFrom))/1024
		}
		if i == 0 || n < least {
			least = n
		}
	}
	return least
}

// policyTable names request IDs and policies, and remembers which Child SAs
// serve each policy: a rekey, a reauthentication or two peers that connect at
// once make a second Child SA for the same selectors, and when one goes the
// policy must pass to the other without a gap.
type policyTable struct {
	groups     map[groupKey]*policyGroup
	byChild    map[uint32]*policyGroup
	byPolicy   map[ipsec.PolicyID]*policyGroup
	identities map[[2]Identity][]*Env
	waiting    map[uint32][]*waiter // commands, by the Child SA that is to go
	lastReqID  uint32
	lastPolicy ipsec.PolicyID
}

type policyGroup struct {
	key    groupKey
	policy ipsec.Policy
	lanes  []lane // the fallback's first
	bound  int32
	none   bool // the Child SA's configuration wants no policies
	live   bool // the data plane has the policies
}

// lane is the Child SAs of a group that serve one resource (RFC 9611), 0: all of them.
type lane struct {
	resource uint16
	members  []uint32 // bound and not retired, in order of binding
	usable   []uint32 // those of members that were activated, last one last
}

// lane is the one that the Child SA is in; nil: it is in none, or no longer.
func (g *policyGroup) lane(id uint32) *lane {
	for i := range g.lanes {
		if slices.Contains(g.lanes[i].members, id) {
			return &g.lanes[i]
		}
	}
	return nil
}

// laneOf is the lane of a resource, made if there is none.
func (g *policyGroup) laneOf(resource uint16) *lane {
	for i := range g.lanes {
		if g.lanes[i].resource == resource {
			return &g.lanes[i]
		}
	}
	g.lanes = append(g.lanes, lane{resource: resource})
	return &g.lanes[len(g.lanes)-1]
}

// serves is the Child SA that carries what the lane is for, 0: none.
func (l *lane) serves() uint32 {
	if n := len(l.usable); n > 0 {
		return l.usable[n-1]
	}
	return 0
}

func (t *policyTable) init() {
	t.groups, t.byChild, t.byPolicy = map[groupKey]*policyGroup{}, map[uint32]*policyGroup{}, map[ipsec.PolicyID]*policyGroup{}
	t.identities = map[[2]Identity][]*Env{}
}

// groupKey is the SHA-256 of what the Child SAs of a group have in common: that text
// is long, and there is one for each of them in a crowd.
type groupKey [sha256.Size]byte

func keyOf(peer string, c *Child, mode ipsec.Mode, local, remote []ipsec.Selector) groupKey {
	var b strings.Builder
	b.WriteString(strconv.Quote(peer) + strconv.Quote(c.Name) + mode.String())
	for _, list := range [2][]ipsec.Selector{local, remote} {
		b.WriteByte('|')
		for _, s := range list {
			b.WriteString(s.From.String() + "-" + s.To.String() + "/" + strconv.Itoa(int(s.Proto)) + "/" + strconv.Itoa(int(s.PortFrom)) + "-" + strconv.Itoa(int(s.PortTo)) + " ")
		}
	}
	return sha256.Sum256([]byte(b.String()))
}

// BindPolicy gives a Child SA its request ID and its policies: those of the
// Child SAs of the same configuration and selectors, or new ones. UnbindPolicy
// or RemoveChild undoes it. many says that it is one of several that serve a resource
// each, resource which one, 0 being the fallback.
func (v *Env) BindPolicy(id uint32, peer *Peer, c *Child, mode ipsec.Mode, local, remote []ipsec.Selector, many bool, resource uint16) (reqid uint32, policies []ipsec.Policy) {
	t := &v.e.policies
	key := keyOf(peer.Name, c, mode, local, remote)
	g := t.groups[key]
	if g == nil {
		t.lastPolicy++
		reqid := c.ReqID
		if reqid == 0 {
			t.lastReqID++
			reqid = t.lastReqID
		}
		prio := c.Priority
		if prio == 0 {
			prio = Priority(PrioritySA, local, remote)
		}
		g = &policyGroup{key: key, none: !c.Policies, policy: ipsec.Policy{ID: t.lastPolicy, Name: c.Name, Action: ipsec.Protect,
			Local: local, Remote: remote, Priority: prio, Mode: mode, IfID: c.IfID, ReqID: reqid}}
		g.lanes = []lane{{}}
		t.groups[key], t.byPolicy[g.policy.ID] = g, g
	}
	if resource == 0 {
		g.policy.PerResource = many
	}
	l := g.laneOf(resource)
	l.members = append(l.members, id)
	g.bound++
	t.byChild[id] = g
	return g.policy.ReqID, g.policies(l, id)
}

// policies are those of the group if the lane is served by the Child SA. Where there is
// no fallback another one takes its place.
func (g *policyGroup) policies(of *lane, by uint32) []ipsec.Policy {
	if g.none {
		return nil
	}
	p := g.policy
	out := uint32(0)
	for i := range g.lanes {
		l := &g.lanes[i]
		id := l.serves()
		if l == of {
			id = by
		}
		switch {
		case id == 0:
		case l.resource == 0:
			out = id
		default:
			if out == 0 {
				out = id
			}
			p.Resources = append(p.Resources, ipsec.SARef{Child: id, Dir: ipsec.Out})
		}
	}
	p.Out = ipsec.SARef{Child: out, Dir: ipsec.Out}
	return []ipsec.Policy{p}
}

func without(list []uint32, id uint32) []uint32 {
	if i := slices.Index(list, id); i >= 0 {
		return slices.Delete(list, i, i+1)
	}
	return list
}

// MarkActive tells that an InstallChild with Activate set was issued; call it
// together with the effect, since the order of effects is what counts.
func (v *Env) MarkActive(id uint32) {
	if g := v.e.policies.byChild[id]; g != nil {
		if l := g.lane(id); l != nil {
			l.usable = append(without(l.usable, id), id)
		}
		g.live = true
	}
}

// ActivateChild makes the Child SA the one that its policies use.
func (v *Env) ActivateChild(id uint32) {
	g := v.e.policies.byChild[id]
	if g == nil {
		return
	}
	l := g.lane(id)
	if l == nil || l.serves() == id {
		return
	}
	v.MarkActive(id)
	if p := g.policies(l, id); p != nil {
		v.e.effect(ActivateChild{p})
	}
}

// Served reports whether another Child SA carries what this one is for.
func (v *Env) Served(id uint32) bool {
	g := v.e.policies.byChild[id]
	if g == nil {
		return false
	}
	l := g.lane(id)
	return l != nil && l.serves() != 0 && l.serves() != id
}

// RetireChild tells that the Child SA was replaced and stays only for packets
// that are on the way: its policies pass to another one.
func (v *Env) RetireChild(id uint32) {
	e := v.e
	g := e.policies.byChild[id]
	if g == nil {
		return
	}
	l := g.lane(id)
	if l == nil || len(l.members) < 2 {
		return // nobody else could take the policies
	}
	e.policies.pass(e, g, l, id)
	l.members = without(l.members, id)
}

// pass lets the policies of a lane go from one member to another that is usable or,
// failing that, at least installed. A lane that has no other is left out, unless it is
// the last one.
func (t *policyTable) pass(e *Engine, g *policyGroup, l *lane, id uint32) {
	active := l.serves() == id
	l.usable = without(l.usable, id)
	if !active || simbug.Chosen == simbug.StalePolicy {
		return
	}
	if len(l.usable) == 0 {
		for _, m := range l.members {
			if m != id {
				l.usable = append(l.usable, m)
			}
		}
	}
	p := g.policies(l, l.serves())
	if p != nil && p[0].Out.Child == 0 {
		i := slices.IndexFunc(g.lanes, func(o lane) bool { return slices.ContainsFunc(o.members, func(m uint32) bool { return m != id }) })
		if i < 0 {
			return
		}
		o := &g.lanes[i]
		o.usable = append(o.usable, o.members[0])
		p = g.policies(o, o.serves())
	}
	if p != nil {
		e.effect(ActivateChild{p})
	}
}

// others is the number of Child SAs of the group beside this one that could carry its traffic.
func (g *policyGroup) others(id uint32) (n int) {
	for i := range g.lanes {
		for _, m := range g.lanes[i].members {
			if m != id {
				n++
			}
		}
	}
	return n
}

// UnbindPolicy undoes BindPolicy for a Child SA that was not installed.
func (v *Env) UnbindPolicy(id uint32) {
	t := &v.e.policies
	if g := t.byChild[id]; g != nil && g.others(id) > 0 {
		if l := g.lane(id); l != nil {
			t.pass(v.e, g, l, id)
		}
	} else if g != nil {
		g.live = false // its policies were never added
	}
	t.unbind(id)
}

// unbind returns the policies that go with the last Child SA that could use them.
func (t *policyTable) unbind(id uint32) (gone []ipsec.PolicyID) {
	g := t.byChild[id]
	if g == nil {
		return nil
	}
	delete(t.byChild, id)
	if l := g.lane(id); l != nil {
		l.members, l.usable = without(l.members, id), without(l.usable, id)
	}
	if g.others(id) == 0 && g.live {
		g.live = false
		if !g.none {
			gone = []ipsec.PolicyID{g.policy.ID}
		}
	}
	if g.bound--; g.bound == 0 {
		delete(t.groups, g.key)
		delete(t.byPolicy, g.policy.ID)
	}
	return gone
}

// RemoveChild removes the Child SA from the data plane; its policies pass to
// another Child SA of the same selectors or are removed with it.
func (v *Env) RemoveChild(id uint32) { v.e.policies.remove(v.e, id) }

func (t *policyTable) remove(e *Engine, id uint32) {
	g := t.byChild[id]
	if g == nil {
		return
	}
	if l := g.lane(id); l != nil && g.others(id) > 0 {
		t.pass(e, g, l, id)
	}
	e.effect(RemoveChild{Child: id, Policies: t.unbind(id)})
}

func (t *policyTable) addIdentity(v *Env) {
	if !slices.Contains(t.identities[v.ids], v) {
		t.identities[v.ids] = append(t.identities[v.ids], v)
	}
}

func (t *policyTable) dropIdentity(v *Env) {
	list := t.identities[v.ids]
	i := slices.Index(list, v)
	if i < 0 {
		return
	}
	if list = slices.Delete(list, i, i+1); len(list) == 0 {
		delete(t.identities, v.ids)
	} else {
		t.identities[v.ids] = list
	}
}

func (t *policyTable) sameIdentities(local, remote Identity) []*Env {
	return slices.Clone(t.identities[[2]Identity{local, remote}])
}

// MatchPeers lists the connections whose addresses and version fit a first
// message, best first, and why the others do not (for a Rejection, bounded).
func MatchPeers(peers []*Peer, version uint8, local, remote netip.Addr) (fit []*Peer, not []Candidate) {
	type scored struct {
		p     *Peer
		score int
	}
	var list []scored
	for _, p := range peers[:min(len(peers), limitCandidates)] {
		var why string
		var detail Detail
		l, r := matchAddrs(p.LocalAddrs, local), matchAddrs(p.RemoteAddrs, remote)
		switch {
		case p.Version != 0 && p.Version != version:
			why, detail = "it is for IKEv"+strconv.Itoa(int(p.Version)), DetailVersion
		case l < 0:
			why, detail = "local_addrs do not contain "+local.String(), DetailLocalAddrs
		case r < 0:
			why, detail = "remote_addrs do not contain "+remote.String(), DetailRemoteAddrs
		}
		if why == "" {
			list = append(list, scored{p, r*4 + l})
		} else if len(not) < limitRejectionCandidates {
			not = append(not, Candidate{Name: p.Name, Why: why, Detail: detail})
		}
	}
	slices.SortStableFunc(list, func(a, b scored) int { return b.score - a.score })
	for _, s := range list {
		fit = append(fit, s.p)
	}
	return fit, not
}

// matchAddrs: −1 no; 0 any; 1 a host name, which may resolve to anything; 2 a range; 3 the address itself.
func matchAddrs(specs []AddrSpec, a netip.Addr) int {
	a = a.Unmap().WithZone("")
	if len(specs) == 0 {
		return 0
	}
	best := -1
	for _, s := range specs {
		switch {
		case s.Any:
			best = max(best, 0)
		case s.Host != "":
			best = max(best, 1)
		case s.From.Is4() == a.Is4() && s.From.Compare(a) <= 0 && a.Compare(s.To) <= 0:
			if s.From == s.To {
				best = max(best, 3)
			} else {
				best = max(best, 2)
			}
		}
	}
	return best
}

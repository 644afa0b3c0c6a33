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
	identities map[[2]Identity][]*Env
	waiting    map[uint32][]*waiter // commands, by the Child SA that is to go
	lastReqID  uint32
	lastPolicy ipsec.PolicyID
}

type policyGroup struct {
	key     groupKey
	policy  ipsec.Policy
	members []uint32 // bound and not retired, in order of binding
	usable  []uint32 // those of members that were activated, last one last
	bound   int32
	none    bool // the Child SA's configuration wants no policies
	live    bool // the data plane has the policies
}

func (t *policyTable) init() {
	t.groups, t.byChild = map[groupKey]*policyGroup{}, map[uint32]*policyGroup{}
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
// or RemoveChild undoes it.
func (v *Env) BindPolicy(id uint32, peer *Peer, c *Child, mode ipsec.Mode, local, remote []ipsec.Selector) (reqid uint32, policies []ipsec.Policy) {
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
		t.groups[key] = g
	}
	g.members = append(g.members, id)
	g.bound++
	t.byChild[id] = g
	return g.policy.ReqID, g.policies(id)
}

func (g *policyGroup) policies(out uint32) []ipsec.Policy {
	if g.none {
		return nil
	}
	p := g.policy
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
		g.usable = append(without(g.usable, id), id)
		g.live = true
	}
}

// ActivateChild makes the Child SA the one that its policies use.
func (v *Env) ActivateChild(id uint32) {
	g := v.e.policies.byChild[id]
	if g == nil || len(g.usable) > 0 && g.usable[len(g.usable)-1] == id {
		return
	}
	v.MarkActive(id)
	if p := g.policies(id); p != nil {
		v.e.effect(ActivateChild{p})
	}
}

// RetireChild tells that the Child SA was replaced and stays only for packets
// that are on the way: its policies pass to another one.
func (v *Env) RetireChild(id uint32) {
	e := v.e
	g := e.policies.byChild[id]
	if g == nil || len(g.members) < 2 {
		return // nobody else could take the policies
	}
	e.policies.pass(e, g, id)
	g.members = without(g.members, id)
}

// pass lets the policies of a group go from one member to another that is
// usable or, failing that, at least installed.
func (t *policyTable) pass(e *Engine, g *policyGroup, id uint32) {
	active := len(g.usable) > 0 && g.usable[len(g.usable)-1] == id
	g.usable = without(g.usable, id)
	if !active || simbug.Chosen == simbug.StalePolicy {
		return
	}
	if len(g.usable) == 0 {
		for _, m := range g.members {
			if m != id {
				g.usable = append(g.usable, m)
			}
		}
	}
	if n := len(g.usable); n > 0 {
		if p := g.policies(g.usable[n-1]); p != nil {
			e.effect(ActivateChild{p})
		}
	}
}

// UnbindPolicy undoes BindPolicy for a Child SA that was not installed.
func (v *Env) UnbindPolicy(id uint32) {
	t := &v.e.policies
	if g := t.byChild[id]; g != nil && len(g.members) > 1 {
		t.pass(v.e, g, id)
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
	g.members, g.usable = without(g.members, id), without(g.usable, id)
	if len(g.members) == 0 && g.live {
		g.live = false
		if !g.none {
			gone = []ipsec.PolicyID{g.policy.ID}
		}
	}
	if g.bound--; g.bound == 0 {
		delete(t.groups, g.key)
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
	if slices.Contains(g.members, id) && len(g.members) > 1 {
		t.pass(e, g, id)
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

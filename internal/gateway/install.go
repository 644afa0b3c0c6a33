package gateway

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"adit/ike"
	"adit/ipsec"
)

// Install gives a child the policy that `start_action = trap` would give it: a trap, or
// for a bypass or discard child that policy. It stays until Uninstall, or until the
// child is unloaded. With an empty conn the first connection that has such a child is
// meant. A policy that stands already is a success.
func (g *Gateway) Install(conn, child string) error {
	v := &g.inv
	v.change.Lock()
	defer v.change.Unlock()
	if !g.isRunning() {
		return ErrNotRunning
	}
	p, c := v.loadedChild(conn, child)
	if c == nil {
		return notFound("child", child)
	}
	if c.Action == ipsec.Protect && !c.Policies {
		return errors.New("it has policies = no")
	}
	if _, _, err := g.endpoints(p, c, true); err != nil && !errors.Is(err, errNameUnknown) {
		return err
	}
	key := staticKey{p.Name, c.Name}
	v.mu.Lock()
	delete(v.withheld, key)
	v.trapped[key] = true
	v.mu.Unlock()
	g.restatic([]change{{p, p}})
	return nil
}

// Uninstall takes away the trap, bypass or discard policy of a child and the guard that
// comes with it, whatever made it, until Install, the end of a Child SA that leaves a
// trap, or a changed configuration of the child. Child SAs stay.
func (g *Gateway) Uninstall(conn, child string) error {
	v := &g.inv
	v.change.Lock()
	defer v.change.Unlock()
	if !g.isRunning() {
		return ErrNotRunning
	}
	v.mu.Lock()
	var s *static
	for key, x := range v.static {
		if key.child == child && (conn == "" || key.conn == conn) && (s == nil || x.policy.ID < s.policy.ID) {
			s = x
		}
	}
	if s == nil {
		v.mu.Unlock()
		return fmt.Errorf("policy '%s' %w", child, ErrNotFound)
	}
	delete(v.trapped, s.key)
	v.withheld[s.key] = true
	p := v.conns[s.key.conn].peer
	v.mu.Unlock()
	g.restatic([]change{{p, p}})
	return nil
}

// loadedChild is the child of that name, of that connection if one is named.
func (v *inventory) loadedChild(conn, child string) (*ike.Peer, *ike.Child) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, l := range v.order {
		if conn != "" && conn != l.peer.Name {
			continue
		}
		if c := l.peer.Child(child); c != nil {
			return l.peer, c
		}
	}
	return nil, nil
}

// StandingPolicy is a trap, bypass or discard policy that stands without any SA.
type StandingPolicy struct {
	Conn, Child   string
	Action        ipsec.Action // Protect: a trap
	Mode          ipsec.Mode
	ReqID         uint32
	Local, Remote []ipsec.Selector
}

// Policies are the policies that stand without any SA, in the order in which they came.
func (g *Gateway) Policies() []StandingPolicy {
	v := &g.inv
	v.mu.Lock()
	list := make([]*static, 0, len(v.static))
	for _, s := range v.static {
		if s.inDP {
			list = append(list, s)
		}
	}
	v.mu.Unlock()
	slices.SortFunc(list, func(a, b *static) int { return cmp.Compare(a.policy.ID, b.policy.ID) })
	out := make([]StandingPolicy, len(list))
	for i, s := range list {
		p := &s.policy
		out[i] = StandingPolicy{Conn: s.key.conn, Child: s.key.child, Action: p.Action, Mode: p.Mode, ReqID: p.ReqID, Local: p.Local, Remote: p.Remote}
	}
	return out
}

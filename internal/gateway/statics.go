package gateway

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"time"

	"adit/ike"
	"adit/ipsec"
)

// restatic brings trap policies, shunts and guards in line with changed
// connections: new ones stand before old ones go.
func (g *Gateway) restatic(changes []change) {
	obsolete, changed := g.statics(changes)
	switch {
	case changed && len(obsolete) == 0:
		g.host.hurry()
	case changed:
		_ = g.host.wait() // logged, and tried again
	}
	for _, s := range obsolete {
		_ = g.opt.Dataplane.DeletePolicy(s.policy.ID)
	}
	g.names.wanted()
}

// statics is restatic for the data plane. New policies are there when it returns;
// those that nobody wants any more are returned, to be removed once the host has
// changed, if it has to.
func (g *Gateway) statics(changes []change) (obsolete []*static, changed bool) {
	v := &g.inv
	var keys []staticKey
	wanted := map[staticKey]*static{}
	for _, ch := range changes {
		for _, p := range []*ike.Peer{ch.old, ch.new} {
			if p == nil {
				continue
			}
			for _, c := range p.Children {
				key := staticKey{p.Name, c.Name}
				keys = append(keys, key)
				if p == ch.new {
					if ch.old != nil && !reflect.DeepEqual(ch.old.Child(c.Name), c) {
						v.unwithhold(key)
					}
					if s := g.staticFor(p, c); s != nil {
						wanted[s.key] = s
					}
				}
			}
		}
	}
	var add []ipsec.Policy
	v.mu.Lock()
	for _, key := range keys {
		old, s := v.static[key], wanted[key]
		// A trap that came while we were looking stays; those of unloaded children go.
		if l := v.conns[key.conn]; l == nil || l.peer.Child(key.child) == nil {
			delete(v.trapped, key)
			delete(v.withheld, key)
		} else if v.trapped[key] && s == nil {
			continue
		}
		switch {
		case s == nil && old == nil:
			continue
		case s == nil:
			delete(v.static, key)
			delete(v.byID, old.policy.ID)
			if old.inDP {
				obsolete = append(obsolete, old)
			}
			changed = true
			continue
		case old == s:
			continue // seen already: both configurations have the child
		case old == nil:
			s.policy.ID = v.nextID
			v.nextID++
		default:
			s.policy.ID = old.policy.ID
			if reflect.DeepEqual(old.policy, s.policy) && old.inDP == s.inDP {
				old.peer, wanted[key] = s.peer, old
				continue
			}
			if old.inDP && !s.inDP {
				obsolete = append(obsolete, old)
			}
		}
		changed = true
		v.static[key], v.byID[s.policy.ID] = s, s
		if s.inDP {
			add = append(add, s.policy)
		}
	}
	v.mu.Unlock()
	slices.SortFunc(add, func(a, b ipsec.Policy) int { return int(a.ID) - int(b.ID) })
	for _, p := range add {
		if err := g.opt.Dataplane.AddPolicy(p); err != nil {
			g.bus.publish(ike.Note{SAKey: ike.SAKey{Child: p.Name}, Level: 1, Text: fmt.Sprintf("policy of %s: %v", p.Name, err)})
		}
	}
	return obsolete, changed
}

// trap makes a child whose end has a trap follow (close_action, dpd_action) one with
// a trap policy until it is unloaded. It is called on the shard's thread.
func (g *Gateway) trap(key staticKey) {
	v := &g.inv
	v.mu.Lock()
	l := v.conns[key.conn]
	if l == nil || l.peer.Child(key.child) == nil {
		v.mu.Unlock()
		return
	}
	v.trapped[key] = true
	delete(v.withheld, key)
	v.mu.Unlock()
	s := g.staticFor(l.peer, l.peer.Child(key.child))
	if s == nil {
		return
	}
	v.mu.Lock()
	old := v.static[key]
	switch {
	case old != nil && old.inDP || !v.trapped[key]: // stands already, or was unloaded meanwhile
		v.mu.Unlock()
		return
	case old != nil:
		s.policy.ID = old.policy.ID
	default:
		s.policy.ID = v.nextID
		v.nextID++
	}
	v.static[key], v.byID[s.policy.ID] = s, s
	v.mu.Unlock()
	if err := g.opt.Dataplane.AddPolicy(s.policy); err != nil {
		g.bus.publish(ike.Note{SAKey: ike.SAKey{Name: key.conn, Child: key.child}, Level: 1, Text: fmt.Sprintf("policy of %s: %v", key.child, err)})
	}
	g.host.changed(nil)
}

// staticFor is the policy that a child wants for as long as it is loaded, nil if none.
func (g *Gateway) staticFor(p *ike.Peer, c *ike.Child) *static {
	s := &static{key: staticKey{p.Name, c.Name}, peer: p}
	g.inv.mu.Lock()
	trapped, withheld := g.inv.trapped[s.key], g.inv.withheld[s.key]
	g.inv.mu.Unlock()
	class := ike.PriorityTrap
	pol := ipsec.Policy{Name: c.Name, Action: c.Action, Mode: c.Mode, Priority: c.Priority, IfID: c.IfID, ReqID: c.ReqID}
	switch {
	case withheld:
		return nil
	case c.Action != ipsec.Protect && c.StartAction&ike.ActionTrap == 0 && !trapped:
		return nil // loaded, for who installs it by name
	case c.Action != ipsec.Protect:
		s.inDP, class = true, ike.PriorityShunt
	case c.StartAction == ike.ActionNone && !c.KeepUp && !trapped || !c.Policies:
		return nil
	default:
		pol.Trap = c.StartAction&ike.ActionTrap != 0 || trapped
		s.inDP = pol.Trap
	}
	var err error
	if pol.Local, pol.Remote, err = g.endpoints(p, c, pol.Trap); errors.Is(err, errNameUnknown) {
		return nil // the name worker tells when it cannot find out
	} else if err != nil {
		g.bus.publish(ike.Note{SAKey: ike.SAKey{Name: p.Name, Child: c.Name}, Level: 1,
			Text: fmt.Sprintf("child %s of %s cannot be guarded before it is up: %v", c.Name, p.Name, err)})
		return nil
	}
	if pol.Priority == 0 {
		pol.Priority = ike.Priority(uint32(class), pol.Local, pol.Remote)
	}
	s.policy = pol
	return s
}

// unwithhold forgets that an operator took a child's policy away: it has new settings.
func (v *inventory) unwithhold(key staticKey) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.withheld, key)
}

// endpoints resolves dynamic selectors from the connection's addresses, as far
// as those are known before any negotiation. A trap of who asks for an address of the peer's
// waits at its own address, from which packets come as long as there is no other one.
func (g *Gateway) endpoints(p *ike.Peer, c *ike.Child, trap bool) (local, remote []ipsec.Selector, err error) {
	var far, near netip.Addr
	switch {
	case len(p.VIPs) > 0 && !trap && slices.ContainsFunc(c.Local, ipsec.Selector.IsDynamic):
		return nil, nil, errors.New("its local addresses are given by the peer")
	case len(p.Pools) > 0 && slices.ContainsFunc(c.Remote, ipsec.Selector.IsDynamic):
		return nil, nil, errors.New("its remote addresses come from a pool")
	}
	if isDynamic(c) {
		if far, err = g.single(p.RemoteAddrs); err == nil {
			near, err = g.single(p.LocalAddrs)
		}
		if err == nil && far.IsValid() && !near.IsValid() {
			near, err = g.opt.Transport.SourceFor(far)
		}
		if err == nil && (!far.IsValid() || !near.IsValid()) {
			err = errors.New("its dynamic selectors need one known address at each end")
		}
		if err != nil {
			return nil, nil, err
		}
	}
	for _, s := range c.Local {
		local = append(local, s.Resolve(near))
	}
	for _, s := range c.Remote {
		remote = append(remote, s.Resolve(far))
	}
	return local, remote, nil
}

func isDynamic(c *ike.Child) bool {
	return slices.ContainsFunc(c.Remote, ipsec.Selector.IsDynamic) || slices.ContainsFunc(c.Local, ipsec.Selector.IsDynamic)
}

var errNameUnknown = errors.New("its name is not resolved yet")

// single is the one address that a list of addresses means, if it means one.
func (g *Gateway) single(specs []ike.AddrSpec) (netip.Addr, error) {
	if len(specs) == 0 || specs[0].Any {
		return netip.Addr{}, nil
	}
	s := specs[0]
	switch {
	case s.Host == "" && s.From == s.To:
		return s.From, nil
	case s.Host == "":
		return netip.Addr{}, nil
	}
	g.inv.mu.Lock()
	defer g.inv.mu.Unlock()
	if a, ok := g.inv.names[s.Host]; ok {
		return a, nil
	}
	return netip.Addr{}, errNameUnknown
}

// nameWorker looks up the names that dynamic selectors of traps and guards need,
// on a thread of its own: nobody waits for a resolver, neither start-up nor a
// client. The policies follow when the names are known.
type nameWorker struct {
	g      *Gateway
	signal chan struct{}
}

func (w *nameWorker) init(g *Gateway) { w.g, w.signal = g, make(chan struct{}, 1) }

// wanted tells that the configuration changed.
func (w *nameWorker) wanted() {
	select {
	case w.signal <- struct{}{}:
	default:
	}
}

func (w *nameWorker) run(ctx context.Context) {
	retry := time.NewTimer(time.Hour)
	retry.Stop()
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.signal:
		case <-retry.C:
		}
		failed := w.g.lookUp(ctx)
		if ctx.Err() != nil {
			return
		}
		for _, host := range slices.Sorted(maps.Keys(failed)) {
			w.g.bus.publish(ike.Note{Level: 1, Text: fmt.Sprintf("what depends on %s is not guarded before it is up: %v", host, failed[host])})
		}
		if len(failed) > 0 {
			retry.Reset(retryNames)
		}
	}
}

// lookUp resolves the wanted names, several at once, and brings the policies in
// line if something new came of it.
func (g *Gateway) lookUp(ctx context.Context) (failed map[string]error) {
	found := map[string]netip.Addr{}
	failed = map[string]error{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, limitLookups)
	for _, host := range g.wantedNames() {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
			defer cancel()
			var addrs []netip.Addr
			err := errBug
			guarded(func() { addrs, err = g.resolve(ctx, []string{host}) }, func(e error) { err = e })
			mu.Lock()
			defer mu.Unlock()
			if err == nil && len(addrs) > 0 {
				found[host] = addrs[0]
			} else {
				failed[host] = err
			}
		})
	}
	wg.Wait()
	if len(found) == 0 {
		return failed
	}
	v := &g.inv
	v.change.Lock()
	defer v.change.Unlock()
	if !g.isRunning() {
		return failed
	}
	v.mu.Lock()
	changed := false
	for host, a := range found {
		changed = changed || v.names[host] != a
		v.names[host] = a
	}
	v.mu.Unlock()
	if !changed {
		return failed
	}
	var all []change
	for _, p := range g.Conns() {
		if slices.ContainsFunc(p.Children, isDynamic) {
			all = append(all, change{p, p})
		}
	}
	g.restatic(all)
	return failed
}

// wantedNames are the names that policies without an SA depend on; others are forgotten.
func (g *Gateway) wantedNames() []string {
	wanted := map[string]bool{}
	v := &g.inv
	v.mu.Lock()
	trapped := maps.Clone(v.trapped)
	v.mu.Unlock()
	for _, p := range g.Conns() {
		for _, c := range p.Children {
			idle := c.StartAction == ike.ActionNone && !c.KeepUp && !trapped[staticKey{p.Name, c.Name}]
			if !isDynamic(c) || c.Action == ipsec.Protect && (idle || !c.Policies) {
				continue
			}
			for _, specs := range [2][]ike.AddrSpec{p.RemoteAddrs, p.LocalAddrs} {
				if len(specs) > 0 && specs[0].Host != "" {
					wanted[specs[0].Host] = true
				}
			}
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	maps.DeleteFunc(v.names, func(host string, _ netip.Addr) bool { return !wanted[host] })
	return slices.Sorted(maps.Keys(wanted))
}

package gateway

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"sync"

	"adit/ike"
	"adit/internal/config"
	"adit/ipsec"
)

// Source tells who loaded a connection or a secret: a reload of the file
// replaces what came from the file and nothing else.
type Source uint8

// The sources.
const (
	FromFile Source = iota
	FromVICI
)

// inventory is what is configured and what stands: connections, secrets, trap
// and shunt policies, and the policies of Child SAs. Safe for concurrent use.
type inventory struct {
	change sync.Mutex // serialises changes of the configuration

	mu      sync.Mutex
	conns   map[string]*loaded
	order   []string
	secrets []secret
	static  map[staticKey]*static // trap and shunt policies, guards of start connections
	byID    map[ipsec.PolicyID]*static
	nextID  ipsec.PolicyID
	active  map[ipsec.PolicyID]activePolicy // policies of Child SAs
}

type loaded struct {
	peer   *ike.Peer
	source Source
}

type staticKey struct{ conn, child string }

// static is a policy that stands as long as its connection is loaded.
type static struct {
	key    staticKey
	peer   *ike.Peer
	policy ipsec.Policy
	inDP   bool // installed in the data plane; a guard alone is not
}

// Policy numbers of our own lie above those of the engine.
const firstStaticID ipsec.PolicyID = 1 << 63

func (v *inventory) init() {
	v.conns, v.static, v.byID = map[string]*loaded{}, map[staticKey]*static{}, map[ipsec.PolicyID]*static{}
	v.active, v.nextID = map[ipsec.PolicyID]activePolicy{}, firstStaticID
}

// Load makes the model's connections and secrets those that came from the file:
// what changed is replaced, what vanished is unloaded, the rest is left alone.
func (g *Gateway) Load(m *config.Model) {
	v := &g.inv
	v.change.Lock()
	defer v.change.Unlock()
	v.mu.Lock()
	v.secrets = slices.DeleteFunc(v.secrets, func(s secret) bool { return s.source == FromFile })
	for _, s := range m.Secrets {
		v.secrets = append(v.secrets, secret{s, FromFile})
	}
	next := map[string]*ike.Peer{}
	var order []string
	for _, name := range v.order {
		if c := v.conns[name]; c.source != FromFile {
			next[name], order = c.peer, append(order, name)
		}
	}
	for _, p := range m.Peers {
		if next[p.Name] == nil {
			order = append(order, p.Name)
		}
		next[p.Name] = p
	}
	v.mu.Unlock()
	g.replace(order, next, func(string) Source { return FromFile })
}

// LoadConn loads or replaces one connection.
func (g *Gateway) LoadConn(p *ike.Peer) error {
	return g.edit(func(order []string, next map[string]*ike.Peer) ([]string, error) {
		if next[p.Name] == nil {
			if len(order) >= limitConnections {
				return nil, fmt.Errorf("more than %d connections", limitConnections)
			}
			order = append(order, p.Name)
		}
		next[p.Name] = p
		return order, nil
	})
}

// UnloadConn forgets a connection; its established IKE SAs stay, except for what its start actions made.
func (g *Gateway) UnloadConn(name string) error {
	return g.edit(func(order []string, next map[string]*ike.Peer) ([]string, error) {
		if next[name] == nil {
			return nil, notFound("connection", name)
		}
		delete(next, name)
		return slices.DeleteFunc(order, func(n string) bool { return n == name }), nil
	})
}

func (g *Gateway) edit(f func([]string, map[string]*ike.Peer) ([]string, error)) error {
	v := &g.inv
	v.change.Lock()
	defer v.change.Unlock()
	v.mu.Lock()
	next := map[string]*ike.Peer{}
	for name, c := range v.conns {
		next[name] = c.peer
	}
	order, err := f(slices.Clone(v.order), next)
	sources := map[string]Source{}
	for name, c := range v.conns {
		sources[name] = c.source
	}
	v.mu.Unlock()
	if err != nil {
		return err
	}
	g.replace(order, next, func(name string) Source {
		if s, ok := sources[name]; ok {
			return s
		}
		return FromVICI
	})
	return nil
}

// replace swaps the connections: the guard and traps of new ones stand before
// those of old ones go, then the engine learns of it, then start actions run.
func (g *Gateway) replace(order []string, next map[string]*ike.Peer, source func(string) Source) {
	v := &g.inv
	var gone, fresh []*ike.Peer
	v.mu.Lock()
	for _, name := range v.order {
		old := v.conns[name]
		if p := next[name]; p == nil || !reflect.DeepEqual(p, old.peer) {
			gone = append(gone, old.peer)
		} else {
			next[name] = old.peer // keep what SAs already point to
		}
	}
	peers := make([]*ike.Peer, 0, len(order))
	conns := map[string]*loaded{}
	for _, name := range order {
		p := next[name]
		if old := v.conns[name]; old == nil || old.peer != p {
			fresh = append(fresh, p)
			conns[name] = &loaded{p, source(name)}
		} else {
			conns[name] = old
		}
		peers = append(peers, p)
	}
	v.conns, v.order = conns, order
	v.mu.Unlock()

	g.shard.command(ike.Reload{Peers: peers})
	obsolete := g.statics(peers)
	g.host.wait()
	for _, s := range obsolete {
		_ = g.opt.Dataplane.DeletePolicy(s.policy.ID)
	}
	for _, p := range gone {
		g.stopStarted(p)
	}
	for _, p := range fresh {
		for _, c := range p.Children {
			if c.Action == ipsec.Protect && c.StartAction&ike.ActionStart != 0 {
				g.shard.command(ike.Initiate{Peer: p, Child: c.Name})
			}
		}
	}
}

// stopStarted closes the Child SAs that a start action of an unloaded or changed connection made.
func (g *Gateway) stopStarted(p *ike.Peer) {
	for _, c := range p.Children {
		if c.Action == ipsec.Protect && c.StartAction&ike.ActionStart != 0 {
			g.shard.command(ike.Terminate{IKE: p.Name, Child: c.Name})
		}
	}
}

// statics brings trap policies, shunts and guards in line with the connections.
// New ones are in the data plane when it returns; those that nobody wants any
// more are returned, to be removed once the host has changed.
func (g *Gateway) statics(peers []*ike.Peer) (obsolete []*static) {
	v := &g.inv
	wanted := map[staticKey]*static{}
	for _, p := range peers {
		for _, c := range p.Children {
			if s := g.staticFor(p, c); s != nil {
				wanted[s.key] = s
			}
		}
	}
	v.mu.Lock()
	var add []ipsec.Policy
	for key, s := range wanted {
		if old := v.static[key]; old != nil {
			s.policy.ID = old.policy.ID
			if reflect.DeepEqual(old.policy, s.policy) && old.inDP == s.inDP {
				old.peer = s.peer
				wanted[key] = old
				continue
			}
			if old.inDP && !s.inDP {
				obsolete = append(obsolete, old)
			}
		} else {
			s.policy.ID = v.nextID
			v.nextID++
		}
		if s.inDP {
			add = append(add, s.policy)
		}
	}
	for key, old := range v.static {
		if wanted[key] == nil && old.inDP {
			obsolete = append(obsolete, old)
		}
	}
	v.static, v.byID = wanted, map[ipsec.PolicyID]*static{}
	for _, s := range wanted {
		v.byID[s.policy.ID] = s
	}
	v.mu.Unlock()
	slices.SortFunc(add, func(a, b ipsec.Policy) int { return int(a.ID) - int(b.ID) })
	for _, p := range add {
		if err := g.opt.Dataplane.AddPolicy(p); err != nil {
			g.bus.publish(ike.Note{SAKey: ike.SAKey{Child: p.Name}, Level: 1, Text: fmt.Sprintf("policy of %s: %v", p.Name, err)})
		}
	}
	return obsolete
}

// staticFor is the policy that a child wants for as long as it is loaded, nil if none.
func (g *Gateway) staticFor(p *ike.Peer, c *ike.Child) *static {
	s := &static{key: staticKey{p.Name, c.Name}, peer: p}
	class := ike.PriorityTrap
	pol := ipsec.Policy{Name: c.Name, Action: c.Action, Mode: c.Mode, Priority: c.Priority, IfID: c.IfID, ReqID: c.ReqID}
	switch {
	case c.Action != ipsec.Protect:
		s.inDP, class = true, ike.PriorityShunt
	case c.StartAction == ike.ActionNone || !c.Policies:
		return nil
	default:
		pol.Trap = c.StartAction&ike.ActionTrap != 0
		s.inDP = pol.Trap
	}
	var err error
	if pol.Local, pol.Remote, err = g.endpoints(p, c); err != nil {
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

// endpoints resolves dynamic selectors from the connection's addresses, as far
// as those are known before any negotiation.
func (g *Gateway) endpoints(p *ike.Peer, c *ike.Child) (local, remote []ipsec.Selector, err error) {
	var far, near netip.Addr
	if slices.ContainsFunc(c.Remote, ipsec.Selector.IsDynamic) || slices.ContainsFunc(c.Local, ipsec.Selector.IsDynamic) {
		if far = g.single(p.RemoteAddrs); far.IsValid() {
			if near = g.single(p.LocalAddrs); !near.IsValid() {
				near, err = g.opt.Transport.SourceFor(far)
			}
		}
		if err == nil && (!far.IsValid() || !near.IsValid()) {
			err = fmt.Errorf("its dynamic selectors need one known address at each end")
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

// single is the one address that a list of addresses means, if it means one.
func (g *Gateway) single(specs []ike.AddrSpec) netip.Addr {
	if len(specs) == 0 || specs[0].Any {
		return netip.Addr{}
	}
	if s := specs[0]; s.Host == "" {
		if s.From == s.To {
			return s.From
		}
		return netip.Addr{}
	}
	ctx, cancel := context.WithTimeout(context.Background(), resolveTimeout)
	defer cancel()
	if addrs, err := g.resolve(ctx, []string{specs[0].Host}); err == nil {
		return addrs[0]
	}
	return netip.Addr{}
}

// Conns are the loaded connections in the order of loading.
func (g *Gateway) Conns() []*ike.Peer {
	v := &g.inv
	v.mu.Lock()
	defer v.mu.Unlock()
	out := make([]*ike.Peer, 0, len(v.order))
	for _, name := range v.order {
		out = append(out, v.conns[name].peer)
	}
	return out
}

// find is the connection of that name, or the first that has the child.
func (v *inventory) find(conn, child string) (*ike.Peer, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, name := range v.order {
		p := v.conns[name].peer
		if conn != "" && conn != name {
			continue
		}
		if child == "" {
			return p, nil
		}
		if c := p.Child(child); c != nil {
			if c.Action != ipsec.Protect {
				return nil, fmt.Errorf("child '%s' is a %s policy: there is nothing to negotiate", child, c.Action)
			}
			return p, nil
		}
	}
	if child != "" {
		return nil, notFound("CHILD_SA", child)
	}
	return nil, notFound("IKE_SA", conn)
}

// acquired is the initiation that an acquire of a trap policy asks for.
func (v *inventory) acquired(a ipsec.Acquire) (ike.Initiate, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	s := v.byID[a.Policy]
	if s == nil {
		return ike.Initiate{}, false
	}
	return ike.Initiate{Peer: s.peer, Child: s.key.child, Acquired: &a}, true
}

// clear forgets all policies at the end and lists those that the data plane has.
func (v *inventory) clear() (ids []ipsec.PolicyID) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, s := range v.static {
		if s.inDP {
			ids = append(ids, s.policy.ID)
		}
	}
	for id := range v.active {
		ids = append(ids, id)
	}
	clear(v.static)
	clear(v.byID)
	clear(v.active)
	return ids
}

package gateway

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
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
	trapped map[staticKey]bool               // children whose end left a trap: close_action, dpd_action
	active  map[ipsec.PolicyID]*activePolicy // policies of Child SAs
	// prepared are those of a Child SA that the host is ready for and the data plane has not yet.
	prepared map[uint32][]ipsec.PolicyID
	names    map[string]netip.Addr // looked up for dynamic selectors
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
	v.active, v.prepared, v.nextID = map[ipsec.PolicyID]*activePolicy{}, map[uint32][]ipsec.PolicyID{}, firstStaticID
	v.names, v.trapped = map[string]netip.Addr{}, map[staticKey]bool{}
}

// Load makes the model's connections and secrets those that came from the file:
// what changed is replaced, what vanished is unloaded, the rest is left alone.
func (g *Gateway) Load(m *config.Model) error {
	if len(m.Secrets) > limitSecrets {
		return fmt.Errorf("more than %d secrets", limitSecrets)
	}
	if err := g.trust.replace(m); err != nil {
		g.bus.publish(ike.Note{Level: 1, Text: fmt.Sprintf("credentials: %v", err)})
	}
	kept, err := g.leases.replace(m.Pools)
	if err != nil {
		return err
	}
	if len(kept) > 0 {
		g.bus.publish(ike.Note{Level: 1, Text: fmt.Sprintf("pools %s are in use and stay until nobody has an address of them", strings.Join(kept, ", "))})
	}
	return g.edit(FromFile, func(order []string, next map[string]*ike.Peer) ([]string, error) {
		v := &g.inv
		v.mu.Lock()
		defer v.mu.Unlock()
		order = slices.DeleteFunc(order, func(name string) bool {
			if v.conns[name].source != FromFile {
				return false
			}
			delete(next, name)
			return true
		})
		for _, p := range m.Peers {
			if next[p.Name] == nil {
				order = append(order, p.Name)
			}
			next[p.Name] = p
		}
		if len(order) > limitConnections {
			return nil, fmt.Errorf("more than %d connections", limitConnections)
		}
		v.replaceSecrets(m.Secrets)
		return order, nil
	})
}

// LoadConn loads or replaces one connection. Its warnings are told as notes.
func (g *Gateway) LoadConn(p *ike.Peer) error {
	for _, w := range p.Warnings {
		g.bus.publish(ike.Note{SAKey: ike.SAKey{Name: p.Name}, Level: 1, Text: w})
	}
	return g.edit(FromVICI, func(order []string, next map[string]*ike.Peer) ([]string, error) {
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

// UnloadConn forgets a connection. Its SAs stay, except for those that a start
// action made.
func (g *Gateway) UnloadConn(name string) error {
	return g.edit(FromVICI, func(order []string, next map[string]*ike.Peer) ([]string, error) {
		if next[name] == nil {
			return nil, notFound("connection", name)
		}
		delete(next, name)
		return slices.DeleteFunc(order, func(n string) bool { return n == name }), nil
	})
}

// edit changes the connections by f, which gets the order and the connections as
// they are and returns the new order. One change happens at a time.
func (g *Gateway) edit(source Source, f func([]string, map[string]*ike.Peer) ([]string, error)) error {
	v := &g.inv
	v.change.Lock()
	defer v.change.Unlock()
	if !g.isRunning() {
		return ErrNotRunning
	}
	v.mu.Lock()
	order, next := slices.Clone(v.order), make(map[string]*ike.Peer, len(v.conns))
	for name, c := range v.conns {
		next[name] = c.peer
	}
	v.mu.Unlock()
	order, err := f(order, next)
	if err != nil {
		return err
	}
	return g.replace(order, next, source)
}

// replace swaps the connections: the guard and traps of new ones stand before
// those of old ones go, then the engine learns of it, then start actions run.
func (g *Gateway) replace(order []string, next map[string]*ike.Peer, source Source) error {
	v := &g.inv
	var changes []change
	v.mu.Lock()
	for _, name := range v.order {
		old := v.conns[name]
		if p := next[name]; p == nil || !reflect.DeepEqual(p, old.peer) {
			changes = append(changes, change{old: old.peer, new: p})
		} else {
			next[name] = old.peer // keep what SAs already point to
		}
	}
	peers := make([]*ike.Peer, 0, len(order))
	conns := make(map[string]*loaded, len(order))
	for _, name := range order {
		p, old := next[name], v.conns[name]
		switch {
		case old == nil:
			changes = append(changes, change{new: p})
			conns[name] = &loaded{p, source}
		case old.peer != p:
			conns[name] = &loaded{p, old.source}
		default:
			conns[name] = old
		}
		peers = append(peers, p)
	}
	v.conns, v.order = conns, order
	v.mu.Unlock()

	ctx := context.Background() // closing ends every wait
	pad := slices.DeleteFunc(slices.Clone(peers), (*ike.Peer).OnlyShunts)
	if err := g.shard.deliver(ctx, ike.Reload{Peers: pad}); err != nil {
		return err
	}
	obsolete := g.statics(peers)
	_ = g.host.wait() // logged, and tried again
	for _, s := range obsolete {
		_ = g.opt.Dataplane.DeletePolicy(s.policy.ID)
	}
	g.names.wanted()
	if err := g.stopStarted(ctx, changes); err != nil {
		return err
	}
	for _, ch := range changes {
		for _, c := range ch.started() {
			if err := g.shard.deliver(ctx, ike.Initiate{Peer: ch.new, Child: c.Name}); err != nil {
				return err
			}
		}
	}
	return nil
}

// change is what becomes of one connection; old or new may be nil.
type change struct{ old, new *ike.Peer }

// samePeer reports whether only children differ.
func (ch change) samePeer() bool {
	if ch.old == nil || ch.new == nil {
		return false
	}
	a, b := *ch.old, *ch.new
	a.Children, b.Children, a.Warnings, b.Warnings = nil, nil, nil, nil
	return reflect.DeepEqual(a, b)
}

// stopped are the children of the old connection with a start action that are gone
// or changed, started those of the new one that are new or changed.
func (ch change) stopped() []*ike.Child { return started(ch.old, ch.new, ch.samePeer()) }
func (ch change) started() []*ike.Child { return started(ch.new, ch.old, ch.samePeer()) }

func started(of, other *ike.Peer, samePeer bool) (list []*ike.Child) {
	if of == nil {
		return nil
	}
	for _, c := range of.Children {
		if c.Action == ipsec.Protect && c.StartAction&ike.ActionStart != 0 && !(samePeer && reflect.DeepEqual(c, other.Child(c.Name))) {
			list = append(list, c)
		}
	}
	return list
}

// stopStarted closes what the start actions of unloaded or changed connections
// made: the Child SAs, and an IKE SA that is left without any or was still being
// made.
func (g *Gateway) stopStarted(ctx context.Context, changes []change) error {
	var sas []ike.SAInfo
	for _, ch := range changes {
		gone := ch.stopped()
		if len(gone) == 0 {
			continue
		}
		if sas == nil {
			var err error
			if sas, err = g.SAs(ctx); err != nil {
				return err
			}
		}
		for _, sa := range sas {
			if sa.Name == ch.old.Name && !ch.samePeer() && onlyHas(sa, gone) {
				if err := g.shard.deliver(ctx, ike.Terminate{IKEID: sa.ID}); err != nil {
					return err
				}
			}
		}
		for _, c := range gone {
			if err := g.shard.deliver(ctx, ike.Terminate{IKE: ch.old.Name, Child: c.Name}); err != nil {
				return err
			}
		}
	}
	return nil
}

// onlyHas reports whether the IKE SA has none but these children, and has one of
// them or is not up yet.
func onlyHas(sa ike.SAInfo, children []*ike.Child) bool {
	for _, c := range sa.Children {
		if !slices.ContainsFunc(children, func(x *ike.Child) bool { return x.Name == c.Name }) {
			return false
		}
	}
	return len(sa.Children) > 0 || sa.Established.IsZero()
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
		if conn != "" && conn != name || conn == "" && child == "" {
			continue
		}
		if child == "" {
			if p.OnlyShunts() {
				return nil, fmt.Errorf("connection '%s' has only bypass and discard policies: there is nothing to negotiate", name)
			}
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

package gateway

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"adit/ike"
	"adit/internal/config"
	"adit/ipsec"
)

// Source tells who loaded a connection or a secret. A reload of the file replaces
// and unloads what came from the file and nothing else; VICI's commands replace and
// unload whatever has the name, so that `adit reload` and swanctl can change what
// the daemon loaded when it started.
type Source uint8

// The sources.
const (
	FromFile Source = iota
	FromVICI
	Kept // the gateway's own, which no reload replaces: by ACME
)

// inventory is what is configured and what stands: connections, secrets, trap
// and shunt policies, and the policies of Child SAs. Safe for concurrent use.
type inventory struct {
	change sync.Mutex // serialises changes of the configuration

	mu      sync.Mutex
	conns   map[string]*loaded
	order   []*loaded
	secrets []secret
	// passwords are the EAP secrets by an owner of theirs, the first of each; nil: to be made anew.
	passwords map[string]int
	static    map[staticKey]*static // trap and shunt policies, guards of start connections
	byID      map[ipsec.PolicyID]*static
	nextID    ipsec.PolicyID
	trapped   map[staticKey]bool // children with a trap beyond their start_action: by close_action, dpd_action, Install
	// withheld are children whose policy an operator took away (Uninstall).
	withheld map[staticKey]bool
	active   map[ipsec.PolicyID]*activePolicy // policies of Child SAs
	// prepared are those of a Child SA that the host is ready for and the data plane has not yet.
	prepared map[uint32][]ipsec.PolicyID
	names    map[string]netip.Addr // looked up for dynamic selectors
	routeMTU int                   // bounds the MTU of routes, bytes; 0: it does not
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
	v.names, v.trapped, v.withheld = map[string]netip.Addr{}, map[staticKey]bool{}, map[staticKey]bool{}
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
	defer g.standing.look()
	defer g.clientsChanged(g.leases.clients()) // once the connections have their policies
	kept, err := g.leases.replace(m.Pools)
	if err != nil {
		return err
	}
	if len(kept) > 0 {
		g.bus.publish(ike.Note{Level: 1, Text: fmt.Sprintf("pools %s are in use and stay until nobody has an address of them", strings.Join(kept, ", "))})
	}
	if err := g.SetUsers(m.Users); err != nil {
		return err
	}
	return g.edit(FromFile, func(v *inventory) ([]*ike.Peer, []string, error) {
		kept := map[string]bool{}
		for _, p := range m.Peers {
			kept[p.Name] = true
		}
		var gone []string
		others := 0
		for _, l := range v.order {
			switch {
			case kept[l.peer.Name]:
			case l.source == FromFile:
				gone = append(gone, l.peer.Name)
			default:
				others++
			}
		}
		if others+len(m.Peers) > limitConnections {
			return nil, nil, fmt.Errorf("more than %d connections", limitConnections)
		}
		v.replaceSecrets(m.Secrets)
		return m.Peers, gone, nil
	})
}

// LoadConn is LoadConns for one connection.
func (g *Gateway) LoadConn(p *ike.Peer) error { return g.LoadConns([]*ike.Peer{p}) }

// LoadConns loads or replaces connections, all of them or none. Their warnings are told
// as notes.
func (g *Gateway) LoadConns(peers []*ike.Peer) error {
	err := g.edit(FromVICI, func(v *inventory) ([]*ike.Peer, []string, error) {
		n := len(v.order)
		for _, p := range peers {
			if v.conns[p.Name] == nil {
				n++
			}
		}
		if n > limitConnections {
			return nil, nil, fmt.Errorf("more than %d connections", limitConnections)
		}
		return peers, nil, nil
	})
	if err != nil {
		return err
	}
	for _, p := range peers {
		for _, w := range p.Warnings {
			g.bus.publish(ike.Note{SAKey: ike.SAKey{Name: p.Name}, Level: 1, Text: w})
		}
	}
	return nil
}

// UnloadConn forgets a connection. Its SAs stay, except for those that a start
// action made.
func (g *Gateway) UnloadConn(name string) error {
	return g.edit(FromVICI, func(v *inventory) ([]*ike.Peer, []string, error) {
		if v.conns[name] == nil {
			return nil, nil, notFound("connection", name)
		}
		return nil, []string{name}, nil
	})
}

// edit changes the connections: f, which is called with mu held, says which to
// load and which to unload. One change happens at a time.
func (g *Gateway) edit(source Source, f func(*inventory) (load []*ike.Peer, unload []string, err error)) error {
	v := &g.inv
	v.change.Lock()
	defer v.change.Unlock()
	if !g.isRunning() {
		return ErrNotRunning
	}
	v.mu.Lock()
	load, unload, err := f(v)
	if err != nil {
		v.mu.Unlock()
		return err
	}
	if slices.ContainsFunc(load, func(p *ike.Peer) bool { return len(p.Pools) > 0 }) {
		g.leases.open()
	}
	changes := v.difference(load, unload)
	pad := v.take(changes, load, source)
	v.mu.Unlock()
	if len(changes) == 0 && source == FromVICI {
		return nil
	}
	return g.apply(changes, pad)
}

// take records the connections as they are from now on and returns the PAD for the
// engine. The file's come in the order of the file, behind the others. The caller
// holds mu.
func (v *inventory) take(changes []change, load []*ike.Peer, source Source) (pad []*ike.Peer) {
	gone := false
	for _, ch := range changes {
		switch {
		case ch.new == nil:
			delete(v.conns, ch.old.Name)
			gone = true
		case ch.old == nil:
			l := &loaded{ch.new, source}
			v.conns[ch.new.Name] = l
			v.order = append(v.order, l)
		default:
			v.conns[ch.new.Name].peer = ch.new
		}
	}
	if gone {
		v.order = slices.DeleteFunc(v.order, func(l *loaded) bool { return v.conns[l.peer.Name] != l })
	}
	if source == FromFile {
		for _, p := range load {
			v.conns[p.Name].source = FromFile // what the file has too is the file's
		}
		v.order = slices.DeleteFunc(v.order, func(l *loaded) bool { return l.source == FromFile })
		for _, p := range load {
			v.order = append(v.order, v.conns[p.Name])
		}
	}
	pad = make([]*ike.Peer, 0, len(v.order))
	for _, l := range v.order {
		if !l.peer.OnlyShunts() {
			pad = append(pad, l.peer)
		}
	}
	return pad
}

// apply makes the changes take effect: the engine learns of them, guard and
// traps of new connections stand before those of old ones go, then start actions run.
// It costs what changes, not what is loaded.
func (g *Gateway) apply(changes []change, pad []*ike.Peer) error {
	ctx := context.Background() // closing ends every wait
	changed := make(map[string]*ike.Peer, len(changes))
	for _, ch := range changes {
		if ch.new == nil {
			g.histories.forget(ch.name())
		}
		if ch.new == nil || ch.new.OnlyShunts() {
			changed[ch.name()] = nil
		} else {
			changed[ch.name()] = ch.new
		}
	}
	// Whoever was told that a connection is loaded may have the peer begin at once: its
	// first message must not overtake the command.
	reload := ike.Reload{Peers: pad, Changed: changed}
	if err := g.shard.call(ctx, func(*ike.Engine) { g.shard.command(reload) }); err != nil {
		return err
	}
	g.restatic(changes)
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

// Conns are the loaded connections in the order of loading.
func (g *Gateway) Conns() []*ike.Peer {
	v := &g.inv
	v.mu.Lock()
	defer v.mu.Unlock()
	out := make([]*ike.Peer, 0, len(v.order))
	for _, l := range v.order {
		out = append(out, l.peer)
	}
	return out
}

// find is the connection of that name, or the first that has the child.
func (v *inventory) find(conn, child string) (*ike.Peer, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, l := range v.order {
		p, name := l.peer, l.peer.Name
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

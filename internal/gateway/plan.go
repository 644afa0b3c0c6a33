package gateway

import (
	"context"
	"crypto/sha256"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"adit/ike"
	"adit/internal/config"
	"adit/ipsec"
	"adit/pki"
)

// change is what becomes of one connection; old or new may be nil.
type change struct{ old, new *ike.Peer }

func (ch change) name() string {
	if ch.new != nil {
		return ch.new.Name
	}
	return ch.old.Name
}

// difference lists what changes when these connections are loaded and those
// unloaded: nothing for what is loaded just so. The caller holds mu.
func (v *inventory) difference(load []*ike.Peer, unload []string) (changes []change) {
	for _, name := range unload {
		if old := v.conns[name]; old != nil {
			changes = append(changes, change{old: old.peer})
		}
	}
	for _, p := range load {
		switch old := v.conns[p.Name]; {
		case old == nil:
			changes = append(changes, change{new: p})
		case !equal(old.peer, p, false):
			changes = append(changes, change{old.peer, p})
		}
	}
	return changes
}

// equal compares connections; what its warnings say and in which order its options stand
// does not make one another one.
func equal(a, b *ike.Peer, withoutChildren bool) bool {
	x, y := *a, *b
	for _, p := range []*ike.Peer{&x, &y} {
		p.Warnings, p.Local, p.Remote = nil, unordered(p.Local), unordered(p.Remote)
	}
	if withoutChildren {
		x.Children, y.Children = nil, nil
	}
	return reflect.DeepEqual(x, y)
}

func unordered(rounds []ike.AuthRound) []ike.AuthRound {
	rounds = slices.Clone(rounds)
	for i := range rounds {
		rounds[i].Given = nil
	}
	return rounds
}

// samePeer reports whether only children differ.
func (ch change) samePeer() bool {
	return ch.old != nil && ch.new != nil && equal(ch.old, ch.new, true)
}

// stopped are the children of the old connection that loading started and that are
// gone or changed, started those of the new one to start that are new or changed.
func (ch change) stopped() []*ike.Child { return started(ch.old, ch.new, ch.samePeer()) }
func (ch change) started() []*ike.Child { return started(ch.new, ch.old, ch.samePeer()) }

func started(of, other *ike.Peer, samePeer bool) (list []*ike.Child) {
	if of == nil {
		return nil
	}
	for _, c := range of.Children {
		if c.Starts() && !(samePeer && reflect.DeepEqual(c, other.Child(c.Name))) {
			list = append(list, c)
		}
	}
	return list
}

// closes are the IKE SAs and children of the old connection that go: what start
// actions made of children that are gone or changed, and an IKE SA that is left
// without any or was still being made.
func (ch change) closes(sas []ike.SAInfo) (ikes []ike.SAInfo, children []*ike.Child) {
	if children = ch.stopped(); len(children) == 0 || ch.samePeer() {
		return nil, children
	}
	for _, sa := range sas {
		if sa.Name == ch.old.Name && onlyHas(sa, children) {
			ikes = append(ikes, sa)
		}
	}
	return ikes, children
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

// stopStarted closes what the changes close.
func (g *Gateway) stopStarted(ctx context.Context, changes []change) error {
	var sas []ike.SAInfo
	for _, ch := range changes {
		if len(ch.stopped()) == 0 {
			continue
		}
		if sas == nil {
			var err error
			if sas, err = g.SAs(ctx); err != nil {
				return err
			}
		}
		ikes, children := ch.closes(sas)
		for _, sa := range ikes {
			if err := g.shard.deliver(ctx, ike.Terminate{IKEID: sa.ID}); err != nil {
				return err
			}
		}
		for _, c := range children {
			if err := g.shard.deliver(ctx, ike.Terminate{IKE: ch.old.Name, Child: c.Name}); err != nil {
				return err
			}
		}
	}
	return nil
}

// Verdict says what loading or unloading something changes.
type Verdict string

// The verdicts.
const (
	Unchanged Verdict = "none"
	Added     Verdict = "add"
	Changed   Verdict = "change"
	Removed   Verdict = "remove"
)

// Plan is what loading or unloading one connection would do. Nothing has been done.
type Plan struct {
	Name        string
	Verdict     Verdict
	Differences []config.Difference // of Changed: the options that differ
	Children    []ChildPlan         // those that something happens to or that have SAs
	ClosesIKE   []uint32            // the numbers of the IKE SAs that are closed
	KeepsIKE    []uint32            // of those that stay, with the configuration that they were made with until they are rekeyed
}

// ChildPlan is what would become of one child.
type ChildPlan struct {
	Name                    string
	Verdict                 Verdict
	StandsNow, StandsThen   string   // none, guard, trap, bypass or discard: what is in force without an SA
	Starts                  bool     // it is initiated
	ClosesChild, KeepsChild []uint32 // the numbers of its Child SAs
}

// PlanConn tells what LoadConn would do.
func (g *Gateway) PlanConn(ctx context.Context, p *ike.Peer) (Plan, error) {
	return g.plan(ctx, p.Name, []*ike.Peer{p}, nil)
}

// PlanUnload tells what UnloadConn would do.
func (g *Gateway) PlanUnload(ctx context.Context, name string) (Plan, error) {
	return g.plan(ctx, name, nil, []string{name})
}

func (g *Gateway) plan(ctx context.Context, name string, load []*ike.Peer, unload []string) (Plan, error) {
	v := &g.inv
	v.mu.Lock()
	known := v.conns[name] != nil
	changes := v.difference(load, unload)
	v.mu.Unlock()
	switch {
	case load == nil && !known:
		return Plan{}, notFound("connection", name)
	case len(changes) == 0:
		return Plan{Name: name, Verdict: Unchanged}, nil
	}
	ch := changes[0]
	out := Plan{Name: name, Verdict: verdict(ch.old != nil, ch.new != nil)}
	if out.Verdict == Changed {
		out.Differences = config.Diff(ch.old, ch.new)
	}
	sas, err := g.SAs(ctx)
	if err != nil {
		return Plan{}, err
	}
	sas = slices.DeleteFunc(sas, func(sa ike.SAInfo) bool { return sa.Name != name })
	closing, stopping := ch.closes(sas)
	for _, sa := range sas {
		if slices.ContainsFunc(closing, func(x ike.SAInfo) bool { return x.ID == sa.ID }) {
			out.ClosesIKE = append(out.ClosesIKE, sa.ID)
		} else {
			out.KeepsIKE = append(out.KeepsIKE, sa.ID)
		}
	}
	seen := map[string]bool{}
	for _, p := range []*ike.Peer{ch.new, ch.old} {
		if p == nil {
			continue
		}
		for _, c := range p.Children {
			if !seen[c.Name] {
				seen[c.Name] = true
				if cp := g.planChild(ch, c.Name, sas, stopping); cp.Verdict != Unchanged || cp.Starts || len(cp.ClosesChild)+len(cp.KeepsChild) > 0 || cp.StandsNow != cp.StandsThen {
					out.Children = append(out.Children, cp)
				}
			}
		}
	}
	return out, nil
}

func verdict(old, now bool) Verdict {
	switch {
	case !old:
		return Added
	case !now:
		return Removed
	}
	return Changed
}

func (g *Gateway) planChild(ch change, name string, sas []ike.SAInfo, stopping []*ike.Child) ChildPlan {
	var was, will *ike.Child
	if ch.old != nil {
		was = ch.old.Child(name)
	}
	if ch.new != nil {
		will = ch.new.Child(name)
	}
	out := ChildPlan{Name: name, Verdict: verdict(was != nil, will != nil), StandsNow: g.stands(ch.old, was), StandsThen: g.stands(ch.new, will)}
	if was != nil && will != nil && reflect.DeepEqual(was, will) {
		out.Verdict = Unchanged
	}
	out.Starts = slices.Contains(ch.started(), will)
	stops := slices.ContainsFunc(stopping, func(c *ike.Child) bool { return c.Name == name })
	for _, sa := range sas {
		for _, c := range sa.Children {
			switch {
			case c.Name != name:
			case stops:
				out.ClosesChild = append(out.ClosesChild, c.ID)
			default:
				out.KeepsChild = append(out.KeepsChild, c.ID)
			}
		}
	}
	return out
}

// stands is what of a child is in force as long as it is loaded.
func (g *Gateway) stands(p *ike.Peer, c *ike.Child) string {
	if c == nil {
		return "none"
	}
	switch s := g.staticFor(p, c); {
	case s == nil:
		return "none"
	case s.policy.Action == ipsec.Bypass:
		return "bypass"
	case s.policy.Action == ipsec.Discard:
		return "discard"
	case s.policy.Trap:
		return "trap"
	}
	return "guard"
}

// PlanSecret tells what LoadSecret would do.
func (g *Gateway) PlanSecret(s config.Secret) Verdict {
	v := &g.inv
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, old := range v.secrets {
		same := old.Kind == s.Kind && old.Key.Equal(s.Key) && slices.Equal(old.Owners, s.Owners)
		switch {
		case old.ID != s.ID:
		case same:
			return Unchanged
		case s.ID != "":
			return Changed
		}
	}
	return Added
}

// PlanKey tells what LoadKey would do.
func (g *Gateway) PlanKey(k config.Key) Verdict {
	if slices.Contains(g.KeyIDs(), k.ID) {
		return Unchanged
	}
	return Added
}

// PlanCert tells what LoadCert would do.
func (g *Gateway) PlanCert(c config.Cert) Verdict {
	t := &g.trust
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, old := range t.certs {
		if old.Kind == c.Kind && old.Flag == c.Flag && slices.Equal(old.DER, c.DER) {
			return Unchanged
		}
	}
	return Added
}

// PlanAuthority tells what LoadAuthority would do.
func (g *Gateway) PlanAuthority(a config.Authority) Verdict {
	for _, old := range g.Authorities() {
		if old.Name == a.Name {
			old.Pos = a.Pos
			if reflect.DeepEqual(old, a) {
				return Unchanged
			}
			return Changed
		}
	}
	return Added
}

// PlanPool tells what LoadPool would do; the error is the one that it would give.
func (g *Gateway) PlanPool(p config.Pool) (Verdict, error) {
	l := &g.leases
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.pools[p.Name]
	if old == nil {
		return Added, nil
	}
	was := old.Pool
	was.Pos = p.Pos
	switch {
	case reflect.DeepEqual(was, p):
		return Unchanged, nil
	case (old.From != p.From || old.To != p.To) && old.online() > 0:
		return Changed, fmt.Errorf("pool '%s' has leases online, unable to replace its addresses", p.Name)
	}
	return Changed, nil
}

// RetainCerts forgets all loaded certificates, CRLs and public keys but those with
// these SHA-256 hashes, and names the ones forgotten. With dry set it only names
// them. Those of connections and authorities are not concerned.
func (g *Gateway) RetainCerts(keep map[[sha256.Size]byte]bool, dry bool) (gone []string) {
	t := &g.trust
	t.mu.Lock()
	rest := slices.Clone(t.certs)
	rest = slices.DeleteFunc(rest, func(c ownedCert) bool {
		if c.source == Kept || keep[sha256.Sum256(c.DER)] {
			return false
		}
		gone = append(gone, describeCert(c))
		return true
	})
	if len(gone) > 0 && !dry {
		t.certs = rest
		if err := t.rebuild(); err != nil {
			g.bus.publish(ike.Note{Level: 1, Text: fmt.Sprintf("credentials: %v", err)})
		}
	}
	t.mu.Unlock()
	if len(gone) > 0 && !dry {
		t.announce()
	}
	return gone
}

func describeCert(c ownedCert) string {
	if c.x509 != nil {
		return strings.TrimSpace(string(c.Kind) + " " + certName(c.x509))
	}
	return string(c.Kind)
}

func certName(c *pki.Certificate) string {
	if id, err := ike.DNIdentity(c.X509.RawSubject); err == nil {
		return id.String()
	}
	return "serial " + c.Serial()
}

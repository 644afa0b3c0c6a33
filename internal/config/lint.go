package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"adit/conf"
	"adit/ike"
	"adit/ipsec"
	"adit/suite"
)

// Check is Load for whoever wants to know all that may bite: its warnings are more
// than those that are worth a line in the log at each start. Each names the option,
// says what happens, and what to write instead.
func Check(path string, daemon Daemon) (*Model, error) {
	root, d, m, err := load(path, daemon)
	if err != nil {
		return nil, err
	}
	l := &linter{root: root, d: d, m: m}
	for _, p := range m.Peers {
		l.conn(p)
		for _, c := range p.Children {
			if c.Action == ipsec.Protect {
				l.child(p, c)
				l.lifetimes(p, c)
				l.forwardSecrecy(p, c)
			}
		}
		l.clients(p)
	}
	l.overlaps()
	l.secrets()
	slices.SortStableFunc(l.warnings, func(a, b Warning) int {
		if a.Pos.File != b.Pos.File {
			return strings.Compare(a.Pos.File, b.Pos.File)
		}
		return a.Pos.Line - b.Pos.Line
	})
	m.Warnings = append(m.Warnings, l.warnings[:min(len(l.warnings), limitWarnings)]...)
	return m, nil
}

// linter looks for what is valid and bites.
type linter struct {
	root     *conf.Section
	d        *decoder
	m        *Model
	warnings []Warning
}

// find is the section or value at a path of names.
func (l *linter) find(path []string) (pos conf.Pos, given bool) {
	s := l.root
	for i, name := range path {
		if i == len(path)-1 {
			if v, ok := s.Get(name); ok {
				return v.Pos, true
			}
		}
		sub := s.Sub(name)
		if sub == nil {
			return pos, false
		}
		s, pos = sub, sub.Pos
	}
	return pos, true
}

// warn places a warning at the option, or, if it is not given, at the section that
// would have it.
func (l *linter) warn(path []string, format string, args ...any) {
	if len(l.warnings) > limitWarnings {
		return
	}
	pos, _ := l.find(path)
	l.warnings = append(l.warnings, Warning{pos, strings.Join(path, ".") + ": " + fmt.Sprintf(format, args...)})
}

func (l *linter) given(path []string) bool { _, ok := l.find(path); return ok }

func connPath(p *ike.Peer, more ...string) []string {
	return append([]string{"connections", p.Name}, more...)
}

func childPath(p *ike.Peer, c *ike.Child, option string) []string {
	return connPath(p, "children", c.Name, option)
}

// anywhere reports whether a connection names no single place to initiate to.
func anywhere(p *ike.Peer) bool {
	return !slices.ContainsFunc(p.RemoteAddrs, func(s ike.AddrSpec) bool { return !s.Any && (s.Host != "" || s.From == s.To) })
}

// conn looks at the connection itself.
func (l *linter) conn(p *ike.Peer) {
	var keepUp []string
	for _, c := range p.Children {
		if c.KeepUp {
			keepUp = append(keepUp, c.Name)
		}
	}
	if keepUp != nil && p.DPDDelay == 0 {
		l.warn(connPath(p, "dpd_delay"), "is 0, so that a peer which dies is not noticed and %s not brought back before its next rekey; give dpd_delay = 30s", strings.Join(keepUp, ", "))
	}
	if keepUp != nil && p.GiveUp {
		l.warn(connPath(p, "keyingtries"), "does not end what keep_up tries; leave it out, or keep_up")
	}
	if p.ReauthTime > 0 && l.d.daemon.BreakBeforeMake {
		l.warn(connPath(p, "reauth_time"), "every %v the tunnel is down for a moment, since make_before_break = no; use rekey_time, or make_before_break = yes", short(p.ReauthTime))
	}
	if p.RekeyTime > 0 && p.RandTime >= p.RekeyTime && l.given(connPath(p, "rand_time")) {
		l.warn(connPath(p, "rand_time"), "is as long as rekey_time, so that the IKE SA may be rekeyed as soon as it is up; give less")
	}
	if p.Unique == ike.UniqueReplace || p.Unique == ike.UniqueKeep {
		for _, r := range p.Remote {
			if r.Method == ike.AuthPSK && r.ID.IsAny() && anywhere(p) {
				l.warn(connPath(p, "unique"), "peers with one identity between them throw each other out (replace) or cannot get in (keep), and a pre-shared key lets anybody choose an identity; give %s.id, or unique = never", r.Name)
				break
			}
		}
	}
	l.ppk(p)
	for _, name := range p.Pools {
		i := slices.IndexFunc(l.m.Pools, func(q Pool) bool { return q.Name == name })
		if i < 0 || !l.m.Pools[i].From.IsValid() {
			continue
		}
		pool := ipsec.Selector{From: l.m.Pools[i].From, To: l.m.Pools[i].To, PortTo: 65535}
		for _, c := range p.Children {
			for _, s := range c.Local {
				if _, ok := s.Intersect(pool); ok && !isAll(s) {
					l.warn([]string{"pools", name, "addrs"}, "%s has addresses of local_ts of connections.%s.children.%s (%s): hosts there look for them on their own link and do not answer; give the pool a network of its own", pool, p.Name, c.Name, s)
				}
			}
		}
	}
}

// ppk finds post-quantum preshared keys that cannot be used.
func (l *linter) ppk(p *ike.Peer) {
	stand := slices.ContainsFunc(p.Children, stands)
	switch {
	case p.PPKRequired && p.PPKID == "" && stand:
		l.warn(connPath(p, "ppk_required"), "no IKE SA that begins here comes up, since nothing names the PPK to use; give ppk_id")
	case (p.PPKRequired || p.PPKID != "") && p.Version == 1:
		l.warn(connPath(p, "version"), "IKEv1 has no PPKs; leave ppk_id and ppk_required out, or version = 1")
	}
	if p.PPKID != "" && !slices.ContainsFunc(l.m.Secrets, func(s Secret) bool {
		return s.Kind == SecretPPK && (len(s.Owners) == 0 || slices.ContainsFunc(s.Owners, func(id ike.Identity) bool { return id.Data == p.PPKID || id.String() == p.PPKID }))
	}) {
		l.warn(connPath(p, "ppk_id"), "no section ppk* of secrets has the id %s, so that it is not used", p.PPKID)
	}
}

func isAll(s ipsec.Selector) bool {
	prefix, ok := s.Prefix()
	return ok && prefix.Bits() == 0
}

// child looks at one child alone.
func (l *linter) child(p *ike.Peer, c *ike.Child) {
	at := func(option string) []string { return childPath(p, c, option) }
	if c.DPDAction != ike.ActionNone && p.DPDDelay == 0 {
		l.warn(at("dpd_action"), "nothing looks whether the peer lives, since dpd_delay is 0: it never happens; give the connection dpd_delay = 30s")
	}
	if c.Action != ipsec.Protect && c.StartAction&ike.ActionTrap == 0 {
		l.warn(at("mode"), "the %s policy is only loaded, not in force, until somebody installs it by name; give it start_action = trap", c.Action)
	}
	if c.CloseAction&ike.ActionStart != 0 && !c.KeepUp {
		l.warn(at("close_action"), "start answers each close by the peer at once: if the peer does so too, or closes again and again, they never stop; use keep_up = yes on one side, which waits longer each time")
	}
	if c.StartAction&ike.ActionStart != 0 && anywhere(p) {
		l.warn(at("start_action"), "start has nowhere to go, since remote_addrs names no single peer; name it, or leave start_action out")
	}
	if c.KeepUp && c.Inactivity > 0 {
		l.warn(at("inactivity"), "closes what keep_up brings back at once; leave one of them out")
	}
	if c.RandTime >= c.RekeyTime && c.RekeyTime > 0 && l.given(at("rand_time")) {
		l.warn(at("rand_time"), "is as long as rekey_time, so that the Child SA may be rekeyed as soon as it is up; give less")
	}
	if !c.MSSClamp && c.Mode == ipsec.ModeTunnel {
		l.warn(at("mss_clamp"), "no lets TCP send segments that do not fit into the tunnel: where ICMP is filtered connections hang; leave it out")
	}
	if c.StartAction != ike.ActionNone && len(p.VIPs) == 0 && c.Mode == ipsec.ModeTunnel && slices.ContainsFunc(c.Remote, isAll) {
		l.warn(at("remote_ts"), "everything that leaves %s goes into this tunnel, or nowhere while it is down; IKE and ESP themselves and connected networks are left out. If that is not wanted, name the networks", texts(c.Local))
	}
	for _, a := range c.Local {
		for _, b := range c.Remote {
			if _, ok := a.Intersect(b); ok && !isAll(a) && !isAll(b) && c.Mode == ipsec.ModeTunnel {
				l.warn(at("remote_ts"), "%s has addresses of local_ts (%s): what local hosts send to each other through this gateway goes into the tunnel; take them out, or add a child with mode = pass for them", b, a)
				return
			}
		}
	}
}

func texts(list []ipsec.Selector) string { return join(list, ipsec.Selector.String) }

// lifetimes looks for rekeys of the IKE SA and of a Child SA that come together:
// the peers then handle both at once, which is where many of them fail.
func (l *linter) lifetimes(p *ike.Peer, c *ike.Child) {
	ikeTime, option := p.RekeyTime, "rekey_time"
	if ikeTime == 0 {
		ikeTime, option = p.ReauthTime, "reauth_time"
	}
	if ikeTime == 0 || c.RekeyTime == 0 || ikeTime < c.RekeyTime || ikeTime%c.RekeyTime != 0 {
		return
	}
	fixed := p.RandTime == 0 && c.RandTime == 0
	if ikeTime != c.RekeyTime && !fixed || !l.given(connPath(p, option)) && !l.given(childPath(p, c, "rekey_time")) {
		return // chance keeps them apart
	}
	l.warn(childPath(p, c, "rekey_time"), "%s and %s of the IKE SA (%s) end together, so that both are rekeyed at once, where peers collide; give the child %s", short(c.RekeyTime), option, short(ikeTime), short(shorter(c.RekeyTime)))
}

// shorter is a span near to d of which no multiple is soon one of d.
func shorter(d time.Duration) time.Duration {
	n := (d * 9 / 10).Truncate(time.Minute)
	if n == 0 {
		n = d * 9 / 10
	}
	return n
}

// groupBits is about how strong a key exchange is.
var groupBits = map[suite.TransformID]int{suite.KEMODP1024: 80, suite.KEMODP1536: 90, suite.KEMODP2048: 112, suite.KEMODP3072: 128, suite.KEMODP4096: 152,
	suite.KEMODP6144: 176, suite.KEMODP8192: 200, suite.KEECP256: 128, suite.KEECP384: 192, suite.KEECP521: 256, suite.KECurve25519: 128, suite.KECurve448: 224}

func groups(list []suite.Proposal) (out []suite.Transform) {
	for _, p := range list {
		for _, t := range p.ByType(suite.TypeKE) {
			if t.ID != suite.KENone && !slices.Contains(out, t) {
				out = append(out, t)
			}
		}
	}
	return out
}

// forwardSecrecy looks at the groups of a child beside those of its IKE SA. The
// first Child SA is made without a key exchange of its own, so that what does not
// fit shows an hour later, at the first rekey.
func (l *linter) forwardSecrecy(p *ike.Peer, c *ike.Child) {
	ours, theirs := groups(c.Proposals), groups(p.Proposals)
	if len(ours) == 0 || !l.given(childPath(p, c, "esp_proposals")) || !l.given(connPath(p, "proposals")) {
		return
	}
	if slices.ContainsFunc(ours, func(t suite.Transform) bool { return slices.Contains(theirs, t) }) {
		return
	}
	text := "no group of it (%s) is one of the connection's proposals (%s): whether the peer takes it shows at the first rekey, not before; use the same group in both"
	weakest := 1 << 16
	for _, t := range theirs {
		weakest = min(weakest, groupBits[t.ID])
	}
	if slices.ContainsFunc(ours, func(t suite.Transform) bool { return groupBits[t.ID] < weakest }) {
		text += ", it is weaker besides"
	}
	l.warn(childPath(p, c, "esp_proposals"), text, join(ours, suite.Transform.Keyword), join(theirs, suite.Transform.Keyword))
}

// stretch is one remote selector of a child, to be compared with others.
type stretch struct {
	p *ike.Peer
	c *ike.Child
	s ipsec.Selector
}

// overlaps looks for children whose traffic is the same: only one of them gets it.
func (l *linter) overlaps() {
	var all []stretch
	for _, p := range l.m.Peers {
		for _, c := range p.Children {
			if c.Action != ipsec.Protect || !c.Policies {
				continue
			}
			for _, s := range c.Remote {
				if !s.IsDynamic() {
					all = append(all, stretch{p, c, s})
				}
			}
		}
	}
	slices.SortStableFunc(all, func(a, b stretch) int { return a.s.From.Compare(b.s.From) })
	told := map[[2]*ike.Child]bool{}
	for i, a := range all {
		for _, b := range all[i+1:] {
			if b.s.From.Compare(a.s.To) > 0 || len(told) > limitWarnings {
				break
			}
			x, y := a, b
			if l.after(x, y) {
				x, y = y, x // the one that stands first in the file
			}
			if x.c == y.c || told[[2]*ike.Child{x.c, y.c}] || x.c.Priority != y.c.Priority {
				continue
			}
			if l.sameTraffic(x, y) {
				told[[2]*ike.Child{x.c, y.c}] = true
			}
		}
	}
}

// special reports whether one of two selectors is of a protocol or ports alone: such a
// child is meant to lie inside of another one.
func special(list ...ipsec.Selector) bool {
	return slices.ContainsFunc(list, func(s ipsec.Selector) bool { return s.Proto != 0 || !s.AnyPort() })
}

func (l *linter) after(a, b stretch) bool {
	x, _ := l.find(connPath(a.p, "children", a.c.Name))
	y, _ := l.find(connPath(b.p, "children", b.c.Name))
	return x.File == y.File && x.Line > y.Line
}

func (l *linter) sameTraffic(a, b stretch) bool {
	common, ok := a.s.Intersect(b.s)
	if !ok {
		return false
	}
	local := slices.ContainsFunc(a.c.Local, func(x ipsec.Selector) bool {
		return slices.ContainsFunc(b.c.Local, func(y ipsec.Selector) bool {
			_, ok := x.Intersect(y)
			return ok || x.IsDynamic() && y.IsDynamic()
		})
	})
	same := slices.Equal(a.c.Local, b.c.Local) && slices.Equal(a.c.Remote, b.c.Remote)
	other := "connections." + a.p.Name + ".children." + a.c.Name
	switch {
	case !local:
		return false
	case a.p == b.p:
		if same {
			l.warn(childPath(b.p, b.c, "remote_ts"), "local_ts and remote_ts are those of %s: only one of the two gets the traffic, and rekeys double; take one out", other)
		}
		if nested := a.s != b.s; !same && nested && stands(a.c) && stands(b.c) && !special(a.s, b.s) {
			l.warn(childPath(b.p, b.c, "remote_ts"), "%s is in remote_ts of %s, too: the narrower one gets the traffic, and none falls back to the other while it is down; if that is not wanted, take it out there", common, other)
			return true
		}
		return same
	case !stands(a.c) || !stands(b.c) || sameAddrs(a.p, b.p):
		return false
	case a.s == b.s:
		l.warn(childPath(b.p, b.c, "remote_ts"), "%s is remote_ts of %s, too, with another peer: only one of the two gets the traffic, whichever came up last; give one of them priority, or other networks", common, other)
	default:
		l.warn(childPath(b.p, b.c, "remote_ts"), "%s is in remote_ts of %s, too, with another peer: the narrower one gets the traffic, and none falls back to the other while it is down; if that is not wanted, take it out there", common, other)
	}
	return true
}

// stands reports whether the child's policy is there without the peer's doing.
func stands(c *ike.Child) bool { return c.KeepUp || c.StartAction != ike.ActionNone }

func sameAddrs(a, b *ike.Peer) bool {
	return slices.Equal(a.RemoteAddrs, b.RemoteAddrs) && slices.EqualFunc(a.Remote, b.Remote, func(x, y ike.AuthRound) bool { return x.ID.String() == y.ID.String() })
}

// keepUp checks what keep_up needs, and has peers that die noticed where nothing
// else is said.
func (d *decoder) keepUp(s *conf.Section, p *ike.Peer) {
	for _, c := range p.Children {
		if !c.KeepUp {
			continue
		}
		pos, path := s.Pos, s.Path()+".children."+c.Name+".keep_up"
		if children := s.Sub("children"); children != nil {
			if v, ok := children.Sub(c.Name).Get("keep_up"); ok {
				pos = v.Pos
			}
		}
		switch {
		case c.Action != ipsec.Protect:
			d.failf(pos, "%s: a %s policy has nothing to bring back; leave keep_up out", path, c.Action)
		case anywhere(p):
			d.failf(pos, "%s: there is nobody to bring it back from: remote_addrs names no single peer; name it, or leave keep_up out", path)
		}
		if _, given := s.Get("dpd_delay"); !given {
			p.DPDDelay = keepUpDPD
		}
	}
}

// keepUpDPD is how long a peer may be silent before it is asked whether it lives, if
// something is to be kept up and dpd_delay is not given.
const keepUpDPD = 30 * time.Second

package config

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"adit/conf"
	"adit/ike"
	"adit/ipsec"
	"adit/suite"
)

// Defaults of strongSwan 6.
const (
	defaultIKERekey     = 4 * time.Hour
	defaultChildRekey   = time.Hour
	defaultReplayWindow = 4096 // adit's own: strongSwan has 32
	limitAddrs          = 64
	limitChildren       = 4096
	limitSelectors      = 255 // RFC 7296 §3.13: their number is one byte
	limitVIPs           = 16
	limitPools          = 64
	limitProposals      = 100 // `default` stands for several; their number is one byte, too
)

// decodePeer decodes one connection. Errors go to the decoder; the result is
// complete only if there were none.
func (d *decoder) decodePeer(name string, s *conf.Section) *ike.Peer {
	before := len(d.warnings)
	d.place(s)
	p := peerDraft{Peer: &ike.Peer{Name: name, LocalPort: 500, RemotePort: 500, KeyingTries: 1, PreferPeer: d.daemon.PreferPeer, SendCertReq: true, MOBIKE: true}}
	if d.daemon.NextDefaults {
		p.Version = 2
	}
	values(d, s, &p, peerOptions)
	var local, remote []authDraft
	sections(d, s, []string{"local", "remote", "children"}, func(sub *conf.Section) bool {
		switch {
		case sub.Name == "children":
			for c := range sub.Sections() {
				if len(p.Children) == limitChildren {
					d.failf(c.Pos, "%s: more than %d children", c.Path(), limitChildren)
					return true
				}
				p.Children = append(p.Children, d.decodeChild(c))
			}
			for v := range sub.Values() {
				d.fail(v.Errorf("a child is a section: write %s { … }", v.Key))
			}
		case strings.HasPrefix(sub.Name, "local"):
			local = append(local, d.decodeAuth(sub, true))
		case strings.HasPrefix(sub.Name, "remote"):
			remote = append(remote, d.decodeAuth(sub, false))
		default:
			return false
		}
		return true
	})
	if len(local)+len(remote) > 0 || !p.OnlyShunts() {
		p.Local, p.Remote = d.rounds(s, "local", local), d.rounds(s, "remote", remote)
		d.belongTogether(s, p.Peer)
		d.ikev1(s, p.Peer)
	}
	if p.Proposals == nil {
		p.Proposals = defaults(suite.IKE)
	}
	d.postQuantum(&p)
	p.lifetimes()
	d.keepUp(s, p.Peer)
	for _, w := range d.warnings[before:] {
		p.Warnings = append(p.Warnings, w.Text)
	}
	return p.Peer
}

// postQuantum applies `pq` to the proposals of a connection.
func (d *decoder) postQuantum(p *peerDraft) {
	var hybrid, out []suite.Proposal
	add := func(list *[]suite.Proposal, q suite.Proposal, ok bool) {
		if ok && !slices.ContainsFunc(*list, func(o suite.Proposal) bool { return slices.Equal(o.Transforms, q.Transforms) }) {
			*list = append(*list, q)
		}
	}
	for _, q := range p.Proposals {
		switch p.pq {
		case "off":
			r, ok := q.WithoutPostQuantum()
			add(&out, r, ok)
		case "prefer", "require":
			r, ok := q.WithPostQuantum()
			add(&hybrid, r, ok)
			add(&out, q, p.pq == "prefer")
		default:
			out = append(out, q)
		}
	}
	for _, q := range out {
		add(&hybrid, q, true)
	}
	if p.Proposals = hybrid; len(hybrid) == 0 {
		d.fail(p.pqAt.Errorf("with this no proposal is left"))
	}
}

func defaults(p suite.Protocol) []suite.Proposal {
	list, err := suite.ParseProposals(p, []string{"default"})
	if err != nil {
		panic("config: the default proposals do not parse: " + err.Error())
	}
	return list
}

// lifetimes applies strongSwan's rules for times that were not given.
func (p *peerDraft) lifetimes() {
	l := &p.life
	switch {
	case l.rekey == nil && l.reauth == nil:
		p.RekeyTime = defaultIKERekey
	default:
		p.RekeyTime, p.ReauthTime = duration(l.rekey), duration(l.reauth)
	}
	p.OverTime = max(p.RekeyTime, p.ReauthTime) / 10
	if l.over != nil {
		p.OverTime = duration(l.over)
	}
	shorter := max(p.RekeyTime, p.ReauthTime)
	if p.RekeyTime != 0 && p.ReauthTime != 0 {
		shorter = min(p.RekeyTime, p.ReauthTime)
	}
	if l.random != nil {
		p.RandTime = min(duration(l.random), shorter)
		return
	}
	p.RandTime = min(p.OverTime, shorter/2)
}

func duration(n *uint64) time.Duration {
	if n == nil {
		return 0
	}
	return time.Duration(*n)
}

func (d *decoder) decodeChild(s *conf.Section) *ike.Child {
	c := childDraft{Child: &ike.Child{Name: s.Name, Policies: true, CopyECN: true, MSSClamp: true,
		ReplayWindow: cmp.Or(d.daemon.ReplayWindow, defaultReplayWindow), PreferPeer: d.daemon.PreferPeer}}
	values(d, s, &c, childOptions)
	sections(d, s, nil, func(*conf.Section) bool { return false })
	if c.Local == nil {
		c.Local = []ipsec.Selector{ipsec.Dynamic()}
	}
	if c.Remote == nil {
		c.Remote = []ipsec.Selector{ipsec.Dynamic()}
	}
	if c.Proposals == nil {
		c.Proposals = defaults(suite.ESP)
	}
	var rekey, life, random uint64
	rekey, life, random = c.time.resolve(uint64(defaultChildRekey))
	c.RekeyTime, c.LifeTime, c.RandTime = time.Duration(rekey), time.Duration(min(life, math.MaxInt64)), time.Duration(random)
	c.RekeyBytes, c.LifeBytes, c.RandBytes = c.bytes.resolve(0)
	c.RekeyPackets, c.LifePackets, c.RandPackets = c.packets.resolve(0)
	for _, l := range []struct {
		what        string
		rekey, life uint64
	}{{"time", rekey, life}, {"bytes", c.RekeyBytes, c.LifeBytes}, {"packets", c.RekeyPackets, c.LifePackets}} {
		if l.life != 0 && l.rekey > l.life {
			d.failf(s.Pos, "%s: rekey_%s is longer than life_%s", s.Path(), l.what, l.what)
		}
	}
	return c.Child
}

// resolve applies strongSwan's rules: a soft bound is the hard one less a
// eleventh, a hard one the soft one and a tenth, the random part their difference.
func (l lifetimes) resolve(fallback uint64) (rekey, life, random uint64) {
	switch {
	case l.rekey != nil:
		rekey = *l.rekey
	case l.life != nil:
		rekey = *l.life / 11 * 10
	default:
		rekey = fallback
	}
	if l.life != nil {
		life = *l.life
	} else {
		life = rekey + rekey/10
		if life < rekey {
			life = math.MaxUint64
		}
	}
	if l.random != nil {
		return rekey, life, min(*l.random, rekey) // more would rekey without end
	}
	return rekey, life, life - min(life, rekey)
}

// addrSpecs reads local_addrs and remote_addrs: addresses, prefixes, ranges,
// names and %any.
func addrSpecs(v conf.Value) ([]ike.AddrSpec, error) {
	var out []ike.AddrSpec
	for _, text := range v.Strings() {
		if len(out) == limitAddrs {
			return nil, v.Errorf("more than %d addresses", limitAddrs)
		}
		spec, ok := addrSpec(text)
		if !ok {
			return nil, v.Errorf("%q is no address, prefix, range or host name", text)
		}
		out = append(out, spec)
	}
	return out, nil
}

func addrSpec(text string) (ike.AddrSpec, bool) {
	switch text {
	case "%any":
		return ike.AddrSpec{Any: true}, true
	case "%any4", "0.0.0.0":
		return ike.AddrSpec{From: netip.IPv4Unspecified(), To: netip.AddrFrom4([4]byte{255, 255, 255, 255}), Word: text}, true
	case "%any6", "::":
		s := ipsec.FromPrefix(netip.PrefixFrom(netip.IPv6Unspecified(), 0))
		return ike.AddrSpec{From: s.From, To: s.To, Word: text}, true
	}
	if s, err := ipsec.ParseSelector(text); err == nil && !s.IsDynamic() && s.Proto == 0 && s.AnyPort() {
		return ike.AddrSpec{From: s.From, To: s.To}, true
	}
	return ike.AddrSpec{Host: text}, hostName(text)
}

// hostName reports whether the text can be a name to look up: letters, digits,
// hyphens and dots, and not something that was meant to be a number.
func hostName(text string) bool {
	if text == "" || len(text) > 253 || strings.HasPrefix(text, "-") || strings.HasPrefix(text, ".") {
		return false
	}
	letter := false
	for _, c := range text {
		switch {
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_':
			letter = true
		case c >= '0' && c <= '9' || c == '-' || c == '.':
		default:
			return false
		}
	}
	return letter
}

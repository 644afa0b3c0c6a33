package control

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"adit/conf"
	"adit/ike"
	"adit/internal/config"
	"adit/internal/explain"
	"adit/internal/gateway"
	"adit/pki"
	"adit/vici"
)

// explainEvent streams one report of the command `explain`.
const explainEvent = "explain"

// explain is a command of adit's own: why connections are not up, and which option to
// change. `name` is a connection's or a child's; without it all connections are told.
func (c *controller) explain(ctx context.Context, req *vici.Request) (*conf.Section, error) {
	name := req.Msg.Text("name")
	x, err := c.explaining(ctx)
	if err != nil {
		return nil, err
	}
	found := false
	for _, p := range x.conns {
		child := p.Child(name)
		if name != "" && name != p.Name && (child == nil || x.isConn(name)) {
			continue
		}
		if found = true; name == "" || name == p.Name {
			child = nil
		}
		r := explain.Explain(x.facts(p, child))
		if err := req.Emit(explainEvent, r.Section()); err != nil {
			return nil, err
		}
	}
	if !found && name != "" {
		r := explain.NotLoaded(name, conf.Nearest(name, x.names()), len(x.conns))
		if err := req.Emit(explainEvent, r.Section()); err != nil {
			return nil, err
		}
	}
	return reply(nil), nil
}

// explaining is what all reports of one request are made of.
type explaining struct {
	c         *controller
	now       time.Time
	conns     []*ike.Peer
	sas       map[string][]ike.SAInfo
	strangers []gateway.Refusal
	mentions  map[string][]gateway.Refusal
	trouble   []gateway.Trouble
	drops     map[string]uint64
	clock     *[]string // nil: nobody has needed it yet
	places    *config.Places
}

func (c *controller) explaining(ctx context.Context) (*explaining, error) {
	x := &explaining{c: c, now: time.Now(), conns: c.g.Conns(), sas: map[string][]ike.SAInfo{}}
	sas, err := c.g.SAs(ctx)
	if err != nil {
		return nil, err
	}
	for _, sa := range sas {
		x.sas[sa.Name] = append(x.sas[sa.Name], sa)
	}
	x.strangers, x.trouble = c.g.Strangers()
	x.mentions = c.g.Mentions()
	if c.opt.Counters != nil {
		x.drops = c.opt.Counters()
	}
	if c.opt.ConfigFile != "" {
		x.places, _ = config.LocateIn(c.opt.ConfigFile) // broken just now: then without places
	}
	return x, nil
}

func (x *explaining) isConn(name string) bool {
	for _, p := range x.conns {
		if p.Name == name {
			return true
		}
	}
	return false
}

func (x *explaining) names() (out []string) {
	for _, p := range x.conns {
		out = append(out, p.Name)
		for _, c := range p.Children {
			out = append(out, c.Name)
		}
	}
	return out
}

func (x *explaining) facts(p *ike.Peer, child *ike.Child) explain.Facts {
	g := x.c.g
	f := explain.Facts{Now: x.now, Peer: p, Child: child, SAs: x.sas[p.Name], Stats: map[uint32]ike.ChildStats{},
		History: g.History(p.Name), Trouble: x.trouble, Drops: x.drops}
	f.Attempt, _ = g.Attempt(p.Name)
	f.Strangers = slices.Concat(x.mentions[p.Name], x.strangers)
	for _, r := range f.History.Refusals {
		if d := r.Record.Detail; d == ike.DetailExpired || d == ike.DetailNotYetValid {
			f.Clock = x.clockSigns()
		}
	}
	for _, sa := range f.SAs {
		for _, ch := range sa.Children {
			in, out := g.Query(ch.ID)
			f.Stats[ch.ID] = ike.ChildStats{In: in, Out: out}
		}
	}
	f.Secrets = func(local, remote string) []string {
		l, err1 := ike.ParseIdentity(local)
		r, err2 := ike.ParseIdentity(remote)
		if errors.Join(err1, err2) != nil {
			return nil
		}
		return g.SecretsOf(l, r)
	}
	if x.places != nil {
		f.Place = func(option string) (string, bool) {
			pos, given := x.places.Find(option)
			if !pos.IsValid() {
				return "", false
			}
			return fmt.Sprintf("%s:%d", pos.File, pos.Line), given
		}
	}
	return f
}

func (x *explaining) clockSigns() []string {
	if x.clock == nil {
		signs := clockSigns(x.now, x.c.g.Certificates())
		x.clock = &signs
	}
	return *x.clock
}

// clockSigns are reasons to believe that this host's clock is wrong: it is behind what
// must have been before now, or all that should be valid has expired by it.
func clockSigns(now time.Time, certs []gateway.LoadedCert) (signs []string) {
	says := now.UTC().Format("2006-01-02 15:04 UTC")
	if built, ok := buildTime(); ok && now.Before(built) {
		signs = append(signs, fmt.Sprintf("it says %s, and this program was made on %s", says, built.UTC().Format(time.DateOnly)))
	}
	expired, valid := 0, 0
	for _, c := range certs {
		if c.Kind != config.CertX509 || !c.HasKey && !c.Anchor {
			continue
		}
		parsed, err := pki.NewCertificate(c.DER)
		if err != nil {
			continue
		}
		x := parsed.X509
		switch {
		case now.Before(x.NotBefore):
			if len(signs) < 4 {
				signs = append(signs, fmt.Sprintf("it says %s, and certificate %q, which is loaded here, was issued on %s", says,
					strings.ToValidUTF8(x.Subject.String(), "?"), x.NotBefore.UTC().Format("2006-01-02 15:04 UTC")))
			}
		case now.After(x.NotAfter):
			expired++
		default:
			valid++
		}
	}
	if expired > 1 && valid == 0 {
		signs = append(signs, fmt.Sprintf("by it (%s) all %d certificates of our own and authorities that are loaded here have expired", says, expired))
	}
	return signs
}

func buildTime() (time.Time, bool) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return time.Time{}, false
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.time" {
			t, err := time.Parse(time.RFC3339, s.Value)
			return t, err == nil
		}
	}
	return time.Time{}, false
}

package ikev1_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"adit/ike"
	"adit/ike/ikev1"
	"adit/ike/wire"
	"adit/ipsec"
	"adit/suite"
)

// pair is two engines, a network and a model data plane each, on a clock of its
// own. Datagrams take 10 ms; jobs are answered at once unless held.
type pair struct {
	t     testing.TB
	now   time.Time
	a, b  *host
	queue []packet
	// filter sees every datagram before it is delivered; false loses it.
	filter func(from *host, d ike.Datagram) bool
	delay  func(from *host, d ike.Datagram) time.Duration
	nat    func(from *host, d *ike.Datagram) // changes addresses on the way
	seq    int
}

type packet struct {
	at  time.Time
	seq int
	to  *host
	d   ike.Datagram
}

type host struct {
	p      *pair
	name   string
	addr   netip.Addr
	e      *ike.Engine
	peer   *ike.Peer
	plane  *model
	psk    suite.Key
	events []ike.Event
	sent   []ike.Datagram
	held   []func() // jobs that wait, if holdJobs is set
	hold   bool
	onEach func(ike.Effect)
	stats  map[uint32]ike.ChildStats
	resolv map[string][]netip.Addr
	keys   []ike.ExportKeys
	creds  *credentials
	made   []ike.SA // every one that was begun

	lease           func(ike.LeaseAddresses) (*ike.Lease, error)
	leased, assumed map[uint64]int // what is held now
	leaseQuestions  []ike.LeaseAddresses
	assumeQuestions []ike.AssumeAddresses
	assumeErr       error
}

// model is a data plane that keeps what it is told and refuses nonsense.
type model struct {
	t      testing.TB
	name   string
	sas    map[ipsec.SARef]ipsec.SAParams
	spis   map[ipsec.SPI]uint32
	pol    map[ipsec.PolicyID]ipsec.Policy
	fail   error
	maxSAs int
}

func newModel(t testing.TB, name string) *model {
	return &model{t: t, name: name, sas: map[ipsec.SARef]ipsec.SAParams{}, spis: map[ipsec.SPI]uint32{}, pol: map[ipsec.PolicyID]ipsec.Policy{}}
}

func (m *model) install(f ike.InstallChild) error {
	if m.fail != nil {
		return m.fail
	}
	if _, dup := m.spis[f.In.SPI]; dup {
		return fmt.Errorf("SPI %v is taken", f.In.SPI)
	}
	if _, dup := m.sas[f.In.Ref]; dup || f.In.Ref.Dir != ipsec.In || f.Out.Ref.Dir != ipsec.Out || f.In.Ref.Child != f.Out.Ref.Child {
		m.t.Errorf("%s: bad InstallChild %v %v", m.name, f.In.Ref, f.Out.Ref)
	}
	m.sas[f.In.Ref], m.sas[f.Out.Ref] = f.In, f.Out
	m.spis[f.In.SPI] = f.In.Ref.Child
	if f.Activate {
		m.policies(f.Policies)
	}
	m.maxSAs = max(m.maxSAs, len(m.sas))
	return nil
}

func (m *model) policies(list []ipsec.Policy) {
	for _, p := range list {
		if _, ok := m.sas[p.Out]; !ok {
			m.t.Errorf("%s: policy %d points to the SA %v that is not there", m.name, p.ID, p.Out)
		}
		m.pol[p.ID] = p
	}
}

func (m *model) remove(f ike.RemoveChild) {
	for _, id := range f.Policies {
		if _, ok := m.pol[id]; !ok {
			m.t.Errorf("%s: policy %d removed twice", m.name, id)
		}
		delete(m.pol, id)
	}
	for _, d := range []ipsec.Direction{ipsec.In, ipsec.Out} {
		ref := ipsec.SARef{Child: f.Child, Dir: d}
		if sa, ok := m.sas[ref]; !ok {
			m.t.Errorf("%s: SA %v removed but not installed", m.name, ref)
		} else if d == ipsec.In {
			delete(m.spis, sa.SPI)
		}
		delete(m.sas, ref)
	}
	for _, p := range m.pol {
		if p.Out.Child == f.Child {
			m.t.Errorf("%s: policy %d is left pointing to the removed Child SA %d", m.name, p.ID, f.Child)
		}
	}
}

var (
	addrA = netip.MustParseAddr("192.0.2.1")
	addrB = netip.MustParseAddr("192.0.2.2")
	start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
)

func mustProposals(t testing.TB, p suite.Protocol, text string) []suite.Proposal {
	list, err := suite.ParseProposals(p, []string{text})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func sel(text string) ipsec.Selector {
	s, err := ipsec.ParseSelector(text)
	if err != nil {
		panic(err)
	}
	return s
}

func id(text string) ike.Identity {
	i, err := ike.ParseIdentity(text)
	if err != nil {
		panic(err)
	}
	return i
}

// side is what tests change of one host's configuration.
type side struct {
	peer   *ike.Peer
	child  *ike.Child
	config *ike.Config
}

// newPair makes hosts a and b; tweak changes the configuration before the engines start.
func newPair(t testing.TB, tweak func(a, b *side)) *pair {
	p := &pair{t: t, now: start}
	mk := func(name string, ours, theirs netip.Addr, lid, rid, lts, rts string) (*host, *side) {
		c := &ike.Child{Name: "net", Local: []ipsec.Selector{sel(lts)}, Remote: []ipsec.Selector{sel(rts)},
			Proposals: mustProposals(t, suite.ESP, "aes128gcm16-x25519"), ReplayWindow: 4096, Policies: true}
		peer := &ike.Peer{Name: name, Version: 1, LocalAddrs: []ike.AddrSpec{{From: ours, To: ours}}, RemoteAddrs: []ike.AddrSpec{{From: theirs, To: theirs}},
			Proposals: mustProposals(t, suite.IKE, "aes128-sha256-x25519"), KeyingTries: 1,
			Local: []ike.AuthRound{{ID: id(lid)}}, Remote: []ike.AuthRound{{ID: id(rid)}}, Children: []*ike.Child{c}}
		h := &host{p: p, name: name, addr: ours, plane: newModel(t, name), psk: suite.Key("correct horse battery staple"), stats: map[uint32]ike.ChildStats{}, creds: newCredentials(), leased: map[uint64]int{}, assumed: map[uint64]int{}}
		return h, &side{peer, c, &ike.Config{}}
	}
	var sa, sb *side
	p.a, sa = mk("a", addrA, addrB, "a.example.org", "b.example.org", "10.1.0.0/16", "10.2.0.0/16")
	p.b, sb = mk("b", addrB, addrA, "b.example.org", "a.example.org", "10.2.0.0/16", "10.1.0.0/16")
	if tweak != nil {
		tweak(sa, sb)
	}
	for _, x := range []struct {
		h *host
		s *side
	}{{p.a, sa}, {p.b, sb}} {
		x.h.peer = x.s.peer
		x.s.config.Peers = []*ike.Peer{x.s.peer}
		x.s.config.Shard = x.h.name[0]
		x.h.e = ike.New(*x.s.config, x.h.version())
	}
	return p
}

// version is ikev1.Version that keeps hold of the SAs that it makes.
func (h *host) version() ike.Version {
	v := ikev1.Version
	v.Initiate = func(env *ike.Env, now time.Time, r ike.InitiateRequest) ike.SA {
		h.made = append(h.made, ikev1.Version.Initiate(env, now, r))
		return h.made[len(h.made)-1]
	}
	v.Accept = func(env *ike.Env, now time.Time, d ike.Datagram, hd wire.Header) ike.SA {
		s := ikev1.Version.Accept(env, now, d, hd)
		if s != nil {
			h.made = append(h.made, s)
		}
		return s
	}
	return v
}

func (p *pair) other(h *host) *host {
	if h == p.a {
		return p.b
	}
	return p.a
}

// drain applies what the engine wants done.
func (h *host) drain() {
	for {
		list := h.e.Take()
		if len(list) == 0 {
			return
		}
		for _, f := range list {
			if h.onEach != nil {
				h.onEach(f)
			}
			h.apply(f)
		}
	}
}

func (h *host) done(job ike.JobID, v any, err error) {
	answer := func() { h.e.Done(h.p.now, ike.Result{Job: job, Value: v, Err: err}) }
	if h.hold {
		h.held = append(h.held, answer)
		return
	}
	answer()
}

func (h *host) apply(f ike.Effect) {
	switch f := f.(type) {
	case ike.Send:
		h.sent = append(h.sent, f.Datagram)
		h.p.transmit(h, f.Datagram)
	case ike.InstallChild:
		h.done(f.Job, nil, h.plane.install(f))
	case ike.ActivateChild:
		h.plane.policies(f.Policies)
	case ike.RemoveChild:
		h.plane.remove(f)
	case ike.UpdateChild:
		for _, d := range []ipsec.Direction{ipsec.In, ipsec.Out} {
			ref := ipsec.SARef{Child: f.Child, Dir: d}
			sa := h.plane.sas[ref]
			sa.Local, sa.Remote, sa.Encap = f.Update.Local, f.Update.Remote, f.Update.Encap
			h.plane.sas[ref] = sa
		}
	case ike.QueryChild:
		h.done(f.Job, h.stats[f.Child], nil)
	case ike.Compute:
		h.done(f.Job, f.Run(), nil)
	case ike.Ask:
		switch q := f.Question.(type) {
		case ike.PSKLookup:
			var keys []suite.Key
			if h.psk != nil {
				keys = []suite.Key{slices.Clone(h.psk)}
			}
			h.done(f.Job, keys, nil)
		case ike.Resolve:
			h.done(f.Job, h.resolv[q.Hosts[0]], nil)
		case ike.SourceAddress:
			h.done(f.Job, h.addr, nil)
		case ike.LeaseAddresses:
			h.leaseQuestions = append(h.leaseQuestions, q)
			h.leased[q.Lease]++
			v, err := h.lease(q)
			h.done(f.Job, v, err)
		case ike.AssumeAddresses:
			h.assumeQuestions = append(h.assumeQuestions, q)
			h.assumed[q.Lease]++
			h.done(f.Job, nil, h.assumeErr)
		default:
			v, err := h.creds.answer(q)
			h.done(f.Job, v, err)
		}
	case ike.EndEAP:
		h.creds.end(f.Session)
	case ike.ReleaseLease:
		if h.leased[f.Lease] != 1 {
			h.p.t.Errorf("%s: lease %x released that was given %d times", h.name, f.Lease, h.leased[f.Lease])
		}
		delete(h.leased, f.Lease)
	case ike.UndoAddresses:
		if h.assumed[f.Lease] != 1 {
			h.p.t.Errorf("%s: addresses %x undone that were taken %d times", h.name, f.Lease, h.assumed[f.Lease])
		}
		delete(h.assumed, f.Lease)
	case ike.Emit:
		h.events = append(h.events, f.Event)
		if bug, ok := f.Event.(ike.Bug); ok {
			h.p.t.Errorf("%s: bug: %s\n%s", h.name, bug.Value, bug.Stack)
		}
	case ike.ExportKeys:
		h.keys = append(h.keys, f)
	}
}

func (p *pair) transmit(from *host, d ike.Datagram) {
	if p.filter != nil && !p.filter(from, d) {
		return
	}
	after := 10 * time.Millisecond
	if p.delay != nil {
		after = p.delay(from, d)
	}
	if p.nat != nil {
		p.nat(from, &d)
	}
	to := p.other(from)
	p.seq++
	p.queue = append(p.queue, packet{p.now.Add(after), p.seq, to, ike.Datagram{Local: d.Remote, Remote: d.Local, Data: bytes.Clone(d.Data)}})
}

// run lets d of virtual time pass.
func (p *pair) run(d time.Duration) {
	end := p.now.Add(d)
	for steps := 0; ; steps++ {
		if steps > 200_000 {
			p.t.Fatal("the pair does not come to rest")
		}
		p.a.drain()
		p.b.drain()
		slices.SortStableFunc(p.queue, func(x, y packet) int {
			if c := x.at.Compare(y.at); c != 0 {
				return c
			}
			return x.seq - y.seq
		})
		next := end
		what := 0
		if len(p.queue) > 0 && !p.queue[0].at.After(next) {
			next, what = p.queue[0].at, 1
		}
		for i, h := range []*host{p.a, p.b} {
			if w := h.e.NextWake(); !w.IsZero() && w.Before(next) {
				next, what = w, 2+i
			}
		}
		if next.After(p.now) {
			p.now = next
		}
		switch what {
		case 0:
			p.now = end
			return
		case 1:
			k := p.queue[0]
			p.queue = p.queue[1:]
			if len(k.d.Data) > 1 {
				k.to.e.Datagram(p.now, k.d)
			}
		case 2:
			p.a.e.Wake(p.now)
		case 3:
			p.b.e.Wake(p.now)
		}
		p.a.drain()
		p.b.drain()
	}
}

// do gives a command and applies what follows at once.
func (h *host) do(c ike.Command) { h.e.Do(h.p.now, c); h.drain() }

func (h *host) initiate(child string) {
	h.do(ike.Initiate{ID: 1, Peer: h.peer, Child: child})
}

func eventsOf[T ike.Event](h *host) (out []T) {
	for _, e := range h.events {
		if x, ok := e.(T); ok {
			out = append(out, x)
		}
	}
	return out
}

// up checks that both hosts have exactly one IKE SA and one Child SA that fit
// each other, and that traffic flows.
func (p *pair) up() {
	p.t.Helper()
	p.upN(1)
}

func (p *pair) upN(children int) {
	p.t.Helper()
	sa, sb := p.a.e.SAs(), p.b.e.SAs()
	if len(sa) != 1 || len(sb) != 1 {
		p.t.Fatalf("IKE SAs: %d at a, %d at b, want one each\na: %+v\nb: %+v", len(sa), len(sb), brief(sa), brief(sb))
	}
	if sa[0].SPIi != sb[0].SPIi || sa[0].SPIr != sb[0].SPIr || sa[0].Initiator == sb[0].Initiator || sa[0].State != "ESTABLISHED" || sb[0].State != "ESTABLISHED" {
		p.t.Fatalf("the IKE SAs do not fit\na: %+v\nb: %+v", sa[0], sb[0])
	}
	if len(sa[0].Children) != children || len(sb[0].Children) != children {
		p.t.Fatalf("Child SAs: %d at a, %d at b, want %d\na: %+v\nb: %+v", len(sa[0].Children), len(sb[0].Children), children, brief(sa), brief(sb))
	}
	if n := len(p.a.plane.sas); n != 2*children {
		p.t.Errorf("a's data plane has %d SAs, want %d", n, 2*children)
	}
	if n := len(p.b.plane.sas); n != 2*children {
		p.t.Errorf("b's data plane has %d SAs, want %d", n, 2*children)
	}
	p.flows()
}

// flows checks that every outbound SA that a policy uses has an inbound SA with
// the same keys at the other end: no black hole.
func (p *pair) flows() {
	p.t.Helper()
	for _, h := range []*host{p.a, p.b} {
		if len(h.plane.pol) == 0 {
			p.t.Errorf("%s has no policies", h.name)
		}
		for _, pol := range h.plane.pol {
			out := h.plane.sas[pol.Out]
			there := p.other(h).plane
			in, ok := there.sas[ipsec.SARef{Child: there.spis[out.SPI], Dir: ipsec.In}]
			if !ok || in.SPI != out.SPI {
				p.t.Errorf("%s sends under SPI %v, which the peer does not have", h.name, out.SPI)
				continue
			}
			if !bytes.Equal(in.EncKey, out.EncKey) || !bytes.Equal(in.IntegKey, out.IntegKey) || len(in.EncKey) == 0 || in.Encr != out.Encr || in.ESN != out.ESN {
				p.t.Errorf("%s's outbound SA %v has other keys than the peer's inbound one", h.name, out.SPI)
			}
			if !slices.Equal(in.LocalTS, out.RemoteTS) || !slices.Equal(in.RemoteTS, out.LocalTS) || in.Mode != out.Mode {
				p.t.Errorf("selectors differ: %v %v and %v %v", out.LocalTS, out.RemoteTS, in.LocalTS, in.RemoteTS)
			}
		}
	}
}

// down checks that nothing is left.
func (p *pair) down() {
	p.t.Helper()
	for _, h := range []*host{p.a, p.b} {
		st := h.e.Stats()
		if st.SAs != 0 || st.Children != 0 || st.HalfOpen != 0 || st.Established != 0 || len(h.plane.sas) != 0 || len(h.plane.pol) != 0 || st.Jobs != 0 || st.FragmentBytes != 0 || len(h.leased)+len(h.assumed) != 0 {
			p.t.Errorf("%s: something is left: %+v, %d SAs and %d policies in the data plane; %v", h.name, st, len(h.plane.sas), len(h.plane.pol), brief(h.e.SAs()))
		}
	}
}

func brief(list []ike.SAInfo) (out []string) {
	for _, s := range list {
		text := fmt.Sprintf("#%d %016x_%016x %s init=%v tasks=%v", s.ID, s.SPIi, s.SPIr, s.State, s.Initiator, s.Tasks)
		for _, c := range s.Children {
			text += fmt.Sprintf(" {%s#%d %s in=%v out=%v}", c.Name, c.ID, c.State, c.SPIIn, c.SPIOut)
		}
		out = append(out, text)
	}
	return out
}

// reasons lists the rejections a host recorded.
func (h *host) reasons() (out []ike.Reason) {
	for _, r := range eventsOf[*ike.Rejection](h) {
		out = append(out, r.Reason)
	}
	return out
}

func (h *host) trace() (out []string) {
	for _, e := range h.events {
		switch e := e.(type) {
		case ike.Message:
			dir := "<-"
			if e.Out {
				dir = "->"
			}
			out = append(out, fmt.Sprintf("%s %s %s", h.name, dir, e.Summary))
		case *ike.Rejection:
			out = append(out, h.name+" rejection "+e.Error())
		case ike.Note:
			out = append(out, h.name+" note "+e.Text)
		default:
			out = append(out, fmt.Sprintf("%s %T", h.name, e))
		}
	}
	return out
}

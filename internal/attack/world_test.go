package attack_test

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"adit/ike"
	"adit/ike/ikev2"
	"adit/ipsec"
	"adit/suite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	victimAddr  = netip.MustParseAddr("192.0.2.1")
	honestAddr  = netip.MustParseAddr("192.0.2.2")
	hostileAddr = netip.MustParseAddr("203.0.113.66")
	epoch       = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
)

const (
	victimID = "victim.example.org"
	honestID = "honest.example.org"
	guestID  = "guest.example.org"
)

var (
	honestKey = suite.Key("the honest peer's own long key")
	guestKey  = suite.Key("the key of the guest turned bad")
)

// world is a victim, an honest peer with a tunnel to it, and everybody else. What
// the victim sends to everybody else is kept in out.
type world struct {
	t      testing.TB
	now    time.Time
	v, h   *node
	queue  []ike.Datagram
	out    []ike.Datagram
	tap    func(ike.Datagram) bool // false: the datagram is lost
	hold   bool                    // the victim's computations wait in held
	held   []func()
	counts map[string]int // what the victim calculated and asked, by kind
}

// node is an engine with a model of a data plane.
type node struct {
	w          *world
	addr       netip.Addr
	e          *ike.Engine
	peers      []*ike.Peer
	sas        map[ipsec.SARef]ipsec.SAParams
	pol        map[ipsec.PolicyID]ipsec.Policy
	rejections []*ike.Rejection
	bugs       []ike.Bug
	ups, downs int
	done       []ike.CommandDone
	moved      int
	mostSAs    int // largest number of IKE SAs
	mostPlane  int // largest number of SAs in the data plane
}

func proposals(t testing.TB, p suite.Protocol, text ...string) []suite.Proposal {
	t.Helper()
	list, err := suite.ParseProposals(p, text)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func selectors(t testing.TB, text ...string) (out []ipsec.Selector) {
	t.Helper()
	for _, x := range text {
		s, err := ipsec.ParseSelector(x)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, s)
	}
	return out
}

func identity(t testing.TB, text string) ike.Identity {
	t.Helper()
	id, err := ike.ParseIdentity(text)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func exactly(a netip.Addr) []ike.AddrSpec { return []ike.AddrSpec{{From: a, To: a}} }

// newWorld brings the honest tunnel up. change alters the victim's settings.
func newWorld(t testing.TB, change func(c *ike.Config, guest *ike.Peer)) *world {
	t.Helper()
	w := &world{t: t, now: epoch, counts: map[string]int{}}
	child := func(name, local, remote string) *ike.Child {
		return &ike.Child{Name: name, Local: selectors(t, local), Remote: selectors(t, remote), ReplayWindow: 4096, Policies: true,
			Proposals: proposals(t, suite.ESP, "aes128gcm16-x25519", "aes128gcm16")}
	}
	peer := func(name string, addrs []ike.AddrSpec, local, remote string, c *ike.Child) *ike.Peer {
		return &ike.Peer{Name: name, RemoteAddrs: addrs, KeyingTries: 1, Children: []*ike.Child{c},
			Proposals: proposals(t, suite.IKE, "aes128-sha256-x25519-ecp256-ecp384-x448-modp2048"),
			Local:     []ike.AuthRound{{ID: identity(t, local)}}, Remote: []ike.AuthRound{{ID: identity(t, remote)}}}
	}
	guest := peer("guest", nil, victimID, guestID, child("guest", "10.1.0.0/16", "10.9.0.0/16"))
	cfg := ike.Config{Shard: 1}
	if change != nil {
		change(&cfg, guest)
	}
	cfg.Peers = []*ike.Peer{peer("honest", exactly(honestAddr), victimID, honestID, child("net", "10.1.0.0/16", "10.2.0.0/16")), guest}
	w.v = w.node(victimAddr, cfg)
	w.h = w.node(honestAddr, ike.Config{Shard: 2, Peers: []*ike.Peer{peer("victim", exactly(victimAddr), honestID, victimID, child("net", "10.2.0.0/16", "10.1.0.0/16"))}})
	w.h.do(ike.Initiate{ID: 1, Peer: w.h.peers[0], Child: "net"})
	w.advance(time.Second)
	if err := w.tunnel(); err != "" {
		t.Fatal("the honest tunnel does not come up: ", err)
	}
	clear(w.counts)
	return w
}

func (w *world) node(addr netip.Addr, cfg ike.Config) *node {
	return &node{w: w, addr: addr, e: ike.New(cfg, ikev2.Version), peers: cfg.Peers,
		sas: map[ipsec.SARef]ipsec.SAParams{}, pol: map[ipsec.PolicyID]ipsec.Policy{}}
}

func (n *node) do(c ike.Command) { n.e.Do(n.w.now, c); n.w.pump() }

// inject sends a datagram into the network.
func (w *world) inject(from, to netip.AddrPort, data []byte) {
	w.queue = append(w.queue, ike.Datagram{Local: from, Remote: to, Data: bytes.Clone(data)})
	w.pump()
}

// pump carries everything out that is due now.
func (w *world) pump() {
	for steps := 0; ; steps++ {
		if steps > 100_000 {
			w.t.Fatal("the network does not come to rest")
		}
		busy := w.v.drain()
		busy = w.h.drain() || busy
		if len(w.queue) > 0 {
			d := w.queue[0]
			w.queue = w.queue[1:]
			w.deliver(d)
			busy = true
		}
		if !busy {
			return
		}
	}
}

func (w *world) deliver(d ike.Datagram) {
	if w.tap != nil && !w.tap(d) || len(d.Data) == 1 {
		return
	}
	in := ike.Datagram{Local: d.Remote, Remote: d.Local, Data: bytes.Clone(d.Data)}
	switch d.Remote.Addr() {
	case w.v.addr:
		w.v.e.Datagram(w.now, in)
	case w.h.addr:
		w.h.e.Datagram(w.now, in)
	default:
		w.out = append(w.out, d)
	}
}

// advance lets virtual time pass.
func (w *world) advance(d time.Duration) {
	w.t.Helper()
	end := w.now.Add(d)
	w.pump()
	for range 1_000_000 {
		next := end
		for _, n := range []*node{w.v, w.h} {
			if at := n.e.NextWake(); !at.IsZero() && at.Before(next) {
				next = at
			}
		}
		if next.After(w.now) {
			w.now = next
		}
		if !w.now.Before(end) {
			return
		}
		w.v.e.Wake(w.now)
		w.h.e.Wake(w.now)
		w.pump()
	}
	w.t.Fatal("time does not pass: timers are set again and again")
}

func (n *node) drain() bool {
	list := n.e.Take()
	for _, f := range list {
		n.apply(f)
	}
	n.mostSAs = max(n.mostSAs, n.e.Stats().SAs)
	n.mostPlane = max(n.mostPlane, len(n.sas))
	return len(list) > 0
}

func (n *node) count(kind string) {
	if n == n.w.v {
		n.w.counts[kind]++
	}
}

func (n *node) apply(f ike.Effect) {
	answer := func(job ike.JobID, v any) { n.e.Done(n.w.now, ike.Result{Job: job, Value: v}) }
	switch f := f.(type) {
	case ike.Send:
		n.w.queue = append(n.w.queue, ike.Datagram{Local: f.Local, Remote: f.Remote, Data: bytes.Clone(f.Data)})
	case ike.InstallChild:
		if n == n.w.v {
			n.w.within(f)
		}
		n.sas[f.In.Ref], n.sas[f.Out.Ref] = f.In, f.Out
		if f.Activate {
			n.apply(ike.ActivateChild{Policies: f.Policies})
		}
		answer(f.Job, nil)
	case ike.ActivateChild:
		for _, p := range f.Policies {
			n.pol[p.ID] = p
		}
	case ike.RemoveChild:
		for _, id := range f.Policies {
			delete(n.pol, id)
		}
		delete(n.sas, ipsec.SARef{Child: f.Child, Dir: ipsec.In})
		delete(n.sas, ipsec.SARef{Child: f.Child, Dir: ipsec.Out})
	case ike.UpdateChild:
		n.moved++
	case ike.QueryChild:
		answer(f.Job, ike.ChildStats{})
	case ike.Compute:
		n.count("compute " + f.Kind)
		if n == n.w.v && n.w.hold {
			n.w.held = append(n.w.held, func() { answer(f.Job, f.Run()) })
			return
		}
		answer(f.Job, f.Run())
	case ike.Ask:
		switch q := f.Question.(type) {
		case ike.PSKLookup:
			n.count("lookup")
			answer(f.Job, n.keys(q))
		case ike.SourceAddress:
			answer(f.Job, n.addr)
		default:
			answer(f.Job, nil)
		}
	case ike.Emit:
		n.event(f.Event)
	}
}

// within demands that the victim's Child SAs stay inside their configuration.
func (w *world) within(f ike.InstallChild) {
	w.t.Helper()
	remote := selectors(w.t, map[string]string{"net": "10.2.0.0/16", "guest": "10.9.0.0/16"}[f.In.Name])
	for _, sa := range []ipsec.SAParams{f.In, f.Out} {
		if len(sa.LocalTS) == 0 || len(sa.RemoteTS) == 0 || !ipsec.ContainsAll(selectors(w.t, "10.1.0.0/16"), sa.LocalTS) || !ipsec.ContainsAll(remote, sa.RemoteTS) || sa.SPI < ipsec.MinSPI {
			w.t.Errorf("installed beyond the configuration: %v %v === %v", sa.SPI, sa.LocalTS, sa.RemoteTS)
		}
	}
}

func (n *node) keys(q ike.PSKLookup) []suite.Key {
	both := q.LocalID.String() + " " + q.RemoteID.String()
	switch {
	case both == victimID+" "+honestID || both == honestID+" "+victimID:
		return []suite.Key{slices.Clone(honestKey)}
	case both == victimID+" "+guestID:
		return []suite.Key{slices.Clone(guestKey)}
	}
	return nil
}

func (n *node) event(e ike.Event) {
	switch e := e.(type) {
	case *ike.Rejection:
		n.rejections = append(n.rejections, e)
	case ike.Bug:
		n.bugs = append(n.bugs, e)
	case ike.IKEUp:
		n.ups++
	case ike.IKEDown:
		n.downs++
	case ike.CommandDone:
		n.done = append(n.done, e)
	}
}

// rejected tells whether a rejection of this reason was recorded.
func (n *node) rejected(r ike.Reason) bool {
	return slices.ContainsFunc(n.rejections, func(x *ike.Rejection) bool { return x.Reason == r })
}

// tunnel says what is wrong with the honest tunnel, "" if it carries traffic both ways.
func (w *world) tunnel() string {
	for _, n := range []*node{w.v, w.h} {
		there, name := w.h, "net"
		if n == w.h {
			there = w.v
		}
		found := false
		for _, p := range n.pol {
			if p.Name != name {
				continue
			}
			found = true
			out, ok := n.sas[p.Out]
			if !ok {
				return n.addr.String() + ": a policy without its SA"
			}
			fits := false
			for ref, in := range there.sas {
				fits = fits || ref.Dir == ipsec.In && in.SPI == out.SPI && in.Name == name && bytes.Equal(in.EncKey, out.EncKey)
			}
			if !fits {
				return n.addr.String() + ": sends under an SPI that the other side does not have"
			}
		}
		if !found {
			return n.addr.String() + ": no policy"
		}
	}
	return ""
}

// honest checks what has to hold after every attack: no invariant failed, the
// tunnel of the honest peer stands and can be rekeyed.
func (w *world) honest() {
	w.t.Helper()
	w.tap = nil
	for _, n := range []*node{w.v, w.h} {
		for _, b := range n.bugs {
			w.t.Errorf("bug: %s\n%s", b.Value, b.Stack)
		}
	}
	if err := w.tunnel(); err != "" {
		w.t.Fatal("the honest tunnel is broken: ", err)
	}
	before := w.h.e.Stats()
	w.h.do(ike.Rekey{Child: "net"})
	w.h.do(ike.Rekey{IKE: "victim"})
	w.advance(20 * time.Second)
	if after := w.h.e.Stats(); after.RekeysChild <= before.RekeysChild || after.RekeysIKE <= before.RekeysIKE {
		w.t.Errorf("the honest peer cannot rekey any more: %+v", after)
	}
	if err := w.tunnel(); err != "" {
		w.t.Error("the honest tunnel is broken after a rekey: ", err)
	}
}

// rest lets everything run out and demands that nothing is left but the honest
// tunnel and others established IKE SAs.
func (w *world) rest(others int) {
	w.t.Helper()
	w.advance(5 * time.Minute)
	if st := w.v.e.Stats(); st.HalfOpen != 0 || st.SAs != 1+others || st.Established != 1+others || st.Jobs != 0 {
		w.t.Errorf("left at the victim: %+v", st)
	}
	if len(w.v.bugs)+len(w.h.bugs) > 0 {
		w.t.Errorf("bugs: %v %v", w.v.bugs, w.h.bugs)
	}
}

// dropped is how often the victim counted a reason.
func (w *world) dropped(r ike.DropReason) uint64 { return w.v.e.Stats().Dropped[r] }

// counts runs f and demands that the reason was counted in it.
func (w *world) counted(r ike.DropReason, f func()) {
	w.t.Helper()
	before := w.v.e.Stats().Dropped
	f()
	if after := w.v.e.Stats().Dropped; after[r] == before[r] {
		w.t.Errorf("not counted as %s: %v, then %v", r, before, after)
	}
}

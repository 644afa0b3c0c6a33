package vendors_test

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/cryptotest"
	"time"

	"go.uber.org/goleak"

	"adit/ike"
	"adit/ike/ikev2"
	"adit/ipsec"
	"adit/suite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	aditAddr  = netip.MustParseAddr("192.0.2.1")
	peerAddr  = netip.MustParseAddr("198.51.100.2")
	epoch     = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	sharedPSK = suite.Key("the key that both sides were given")
)

const (
	aditID = "adit.example.org"
	peerID = "peer.example.org"
	// oneWay is how long a datagram takes.
	oneWay = 10 * time.Millisecond
)

// world is adit's engine, one scripted peer and the network between them, in
// virtual time and without chance: datagrams arrive in the order of their times.
type world struct {
	t    testing.TB
	now  time.Time
	e    *ike.Engine
	cfg  ike.Config
	p    *peer
	old  *oldPeer // of IKEv1, in the place of p
	line []flight
	seq  int
	// What adit has done.
	sas        map[ipsec.SARef]ipsec.SAParams
	pol        map[ipsec.PolicyID]ipsec.Policy
	signed     []ike.SignAuth
	notes      []string
	rejections []*ike.Rejection
	done       []ike.CommandDone
	ups, downs int
	childDowns int
	largest    int // bytes of the largest datagram that adit sent
	// delay changes the way of single datagrams of the peer, for reordering.
	delay  func(d ike.Datagram) time.Duration
	use    ipsec.SAStats // what adit's data plane says of every SA
	office               // what the gateway has for remote clients
}

// flight is a datagram on its way, or something that the peer does at a time.
type flight struct {
	at     time.Time
	seq    int
	toAdit bool
	d      ike.Datagram
	do     func()
}

func proposals(t testing.TB, p suite.Protocol, text ...string) []suite.Proposal {
	t.Helper()
	list, err := suite.ParseProposals(p, text)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func selectors(t testing.TB, text string) (out []ipsec.Selector) {
	t.Helper()
	for x := range strings.SplitSeq(text, ",") {
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

// conn is what a test configures at adit.
type conn struct {
	ike, esp string            // proposals, as in swanctl.conf
	children []string          // "name local_ts === remote_ts"
	change   func(p *ike.Peer) // everything else
	engine   func(c *ike.Config)
}

// newWorld makes a world. The peer is complete but for its habits.
func newWorld(t *testing.T, c conn, p *peer) *world {
	t.Helper()
	cryptotest.SetGlobalRandom(t, 1)
	w := &world{t: t, now: epoch, p: p, sas: map[ipsec.SARef]ipsec.SAParams{}, pol: map[ipsec.PolicyID]ipsec.Policy{}}
	cfg := &ike.Peer{Name: "gw", Version: 2, RemoteAddrs: exactly(peerAddr), LocalAddrs: exactly(aditAddr), KeyingTries: 1,
		Proposals: proposals(t, suite.IKE, strings.Split(c.ike, ",")...),
		Local:     []ike.AuthRound{{ID: identity(t, aditID)}}, Remote: []ike.AuthRound{{ID: identity(t, peerID)}}}
	for _, text := range c.children {
		name, ts, _ := strings.Cut(text, " ")
		local, remote, _ := strings.Cut(ts, " === ")
		cfg.Children = append(cfg.Children, &ike.Child{Name: name, Local: selectors(t, local), Remote: selectors(t, remote), ReplayWindow: 64, Policies: true,
			Proposals: proposals(t, suite.ESP, strings.Split(c.esp, ",")...)})
	}
	if c.change != nil {
		c.change(cfg)
	}
	w.cfg = ike.Config{Shard: 1, Peers: []*ike.Peer{cfg}}
	if c.engine != nil {
		c.engine(&w.cfg)
	}
	w.e = ike.New(w.cfg, ikev2.Version)
	p.w = w
	return w
}

func (w *world) peer() *ike.Peer { return w.cfg.Peers[0] }

// do gives adit a command and lets a little time pass.
func (w *world) do(c ike.Command) {
	w.e.Do(w.now, c)
	w.drain()
	w.advance(time.Second)
}

// initiate brings the connection up from adit's side.
func (w *world) initiate(child string) {
	w.do(ike.Initiate{ID: 1, Peer: w.peer(), Child: child})
	w.advance(2 * time.Second)
}

// fly puts something on the way.
func (w *world) fly(f flight) {
	w.seq++
	f.seq = w.seq
	i, _ := slices.BinarySearchFunc(w.line, f, func(a, b flight) int {
		if c := a.at.Compare(b.at); c != 0 {
			return c
		}
		return a.seq - b.seq
	})
	w.line = slices.Insert(w.line, i, f)
}

// after has the peer do something later.
func (w *world) after(d time.Duration, do func()) { w.fly(flight{at: w.now.Add(d), do: do}) }

// advance lets virtual time pass.
func (w *world) advance(d time.Duration) {
	w.t.Helper()
	end := w.now.Add(d)
	w.drain()
	still := 0
	for range 1_000_000 {
		next := end
		if at := w.e.NextWake(); !at.IsZero() && at.Before(next) {
			next = at
		}
		if len(w.line) > 0 && w.line[0].at.Before(next) {
			next = w.line[0].at
		}
		if next.After(w.now) {
			w.now, still = next, 0
		} else if still++; still > 10_000 {
			break
		}
		if !w.now.Before(end) {
			return
		}
		for len(w.line) > 0 && !w.line[0].at.After(w.now) {
			f := w.line[0]
			w.line = w.line[1:]
			switch {
			case f.do != nil:
				f.do()
			case f.toAdit:
				w.e.Datagram(w.now, f.d)
			case w.old != nil:
				w.old.receive(f.d)
			default:
				w.p.receive(f.d)
			}
			w.drain()
		}
		w.e.Wake(w.now)
		w.drain()
	}
	w.t.Fatal("time does not pass: something is done again and again without a pause")
}

func (w *world) drain() {
	for range 100_000 {
		list := w.e.Take()
		if len(list) == 0 {
			return
		}
		for _, f := range list {
			w.apply(f)
		}
	}
	w.t.Fatal("the engine does not come to rest")
}

func (w *world) apply(f ike.Effect) {
	answer := func(job ike.JobID, v any) { w.e.Done(w.now, ike.Result{Job: job, Value: v}) }
	switch f := f.(type) {
	case ike.Send:
		w.largest = max(w.largest, len(f.Data))
		if len(f.Data) > 1 {
			w.fly(flight{at: w.now.Add(oneWay), d: ike.Datagram{Local: f.Remote, Remote: f.Local, Data: bytes.Clone(f.Data)}})
		}
	case ike.InstallChild:
		w.sas[f.In.Ref], w.sas[f.Out.Ref] = f.In, f.Out
		if f.Activate {
			w.apply(ike.ActivateChild{Policies: f.Policies})
		}
		answer(f.Job, nil)
	case ike.ActivateChild:
		for _, p := range f.Policies {
			w.pol[p.ID] = p
		}
	case ike.RemoveChild:
		for _, id := range f.Policies {
			delete(w.pol, id)
		}
		delete(w.sas, ipsec.SARef{Child: f.Child, Dir: ipsec.In})
		delete(w.sas, ipsec.SARef{Child: f.Child, Dir: ipsec.Out})
	case ike.UpdateChild:
		w.moved = append(w.moved, f)
	case ike.EndEAP:
		w.hangUp(f.Session)
	case ike.ReleaseLease:
		w.takeBack(f.Lease)
	case ike.QueryChild:
		answer(f.Job, ike.ChildStats{In: w.use, Out: w.use})
	case ike.Compute:
		answer(f.Job, f.Run())
	case ike.Ask:
		w.ask(f, answer)
	case ike.Emit:
		w.event(f.Event)
	}
}

func (w *world) ask(f ike.Ask, answer func(ike.JobID, any)) {
	switch q := f.Question.(type) {
	case ike.PSKLookup:
		answer(f.Job, []suite.Key{slices.Clone(sharedPSK)})
	case ike.SignAuth:
		w.signed = append(w.signed, q)
		answer(f.Job, w.p.signFor(q))
	case ike.EAPRound:
		answer(f.Job, w.eapRound(q))
	case ike.LeaseAddresses:
		answer(f.Job, w.lease(q))
	default:
		answer(f.Job, nil)
	}
}

func (w *world) event(e ike.Event) {
	switch e := e.(type) {
	case *ike.Rejection:
		w.rejections = append(w.rejections, e)
	case ike.Note:
		w.notes = append(w.notes, e.Text)
	case ike.Bug:
		w.t.Errorf("bug: %s\n%s", e.Value, e.Stack)
	case ike.IKEUp:
		w.ups++
	case ike.IKEDown:
		w.downs++
	case ike.ChildDown:
		w.childDowns++
	case ike.CommandDone:
		w.done = append(w.done, e)
	}
}

// noted reports whether a note or a rejection has these words.
func (w *world) noted(words string) bool {
	return slices.ContainsFunc(w.notes, func(s string) bool { return strings.Contains(s, words) }) ||
		slices.ContainsFunc(w.rejections, func(r *ike.Rejection) bool { return strings.Contains(r.Error(), words) })
}

// expire tells adit that a Child SA has carried as much as it may before a rekey.
func (w *world) expire() {
	for ref := range w.sas {
		if ref.Dir == ipsec.Out {
			w.e.Dataplane(w.now, ipsec.Expire{Ref: ref})
		}
	}
	w.drain()
	w.advance(time.Second)
}

// settled demands that both sides agree: one IKE SA, n Child SAs with the same SPIs
// and keys on both sides, each with its policy, and nothing else on either side.
func (w *world) settled(n int) {
	w.t.Helper()
	st := w.e.Stats()
	if st.SAs != 1 || st.Established != 1 || st.HalfOpen != 0 || st.Jobs != 0 {
		w.t.Errorf("IKE SAs at adit: %+v", st)
	}
	if live := w.p.live(); len(live) != 1 {
		w.t.Errorf("%d IKE SAs at the peer", len(live))
	}
	theirs := w.p.children()
	if len(w.sas) != 2*n || len(w.pol) != n || len(theirs) != n {
		w.t.Errorf("adit has %d SAs and %d policies, the peer %d Child SAs; %d Child SAs are to be there\nnotes: %q\nrejections: %v", len(w.sas), len(w.pol), len(theirs), n, w.notes, w.rejections)
	}
	for _, p := range w.pol {
		out := w.sas[p.Out]
		i := slices.IndexFunc(theirs, func(c *childSA) bool { return ipsec.SPI(c.spiIn) == out.SPI })
		if i < 0 {
			w.t.Errorf("adit sends %v under SPI %v, which the peer does not have", p.Remote, out.SPI)
			continue
		}
		c := theirs[i]
		in := w.sas[ipsec.SARef{Child: p.Out.Child, Dir: ipsec.In}]
		if in.SPI != ipsec.SPI(c.spiOut) || !bytes.Equal(in.EncKey, c.outKey) || !bytes.Equal(out.EncKey, c.inKey) || !bytes.Equal(in.IntegKey, c.outInteg) {
			w.t.Errorf("the two sides of %v have different SPIs or keys", out.SPI)
		}
		if !ipsec.ContainsAll(c.local, out.RemoteTS) || !ipsec.ContainsAll(c.remote, out.LocalTS) {
			w.t.Errorf("adit has %v === %v, the peer %v === %v", out.LocalTS, out.RemoteTS, c.remote, c.local)
		}
	}
}

// settledSoon is settled as soon as what was replaced is gone.
func (w *world) settledSoon(n int) {
	w.t.Helper()
	w.advance(10 * time.Second)
	w.settled(n)
}

// carries reports whether a packet between two addresses finds a policy of adit,
// whose SA the peer has and takes it by.
func (w *world) carries(src, dst string) bool {
	a, b := netip.MustParseAddr(src), netip.MustParseAddr(dst)
	in := func(list []ipsec.Selector, a netip.Addr) bool {
		return slices.ContainsFunc(list, func(s ipsec.Selector) bool { return s.MatchAddr(a) })
	}
	for _, p := range w.pol {
		if !in(p.Local, a) || !in(p.Remote, b) {
			continue
		}
		return slices.ContainsFunc(w.p.children(), func(c *childSA) bool {
			return ipsec.SPI(c.spiIn) == w.sas[p.Out].SPI && in(c.remote, a) && in(c.local, b)
		})
	}
	return false
}

package ike_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/ipsec"
)

// fakeSA is an IKE SA that does what a test tells it.
type fakeSA struct {
	env    *ike.Env
	req    ike.InitiateRequest
	on     func(d ike.Datagram)
	wake   time.Time
	closed bool
	wiped  bool
}

func (s *fakeSA) Datagram(_ time.Time, d ike.Datagram, _ wire.Header) { s.on(d) }
func (s *fakeSA) Wake(now time.Time) {
	if s.closed {
		return
	}
	s.fail(now)
}
func (s *fakeSA) NextWake() time.Time              { return s.wake }
func (s *fakeSA) Done(time.Time, ike.Result)       {}
func (s *fakeSA) Dataplane(time.Time, ipsec.Event) {}
func (s *fakeSA) Info() ike.SAInfo {
	return ike.SAInfo{ID: s.env.ID(), Local: s.req.Local, Remote: s.req.Remote}
}
func (s *fakeSA) CreateChild(now time.Time, r *ike.ChildRequest) { s.env.ChildDone(now, r, nil) }
func (s *fakeSA) RekeyChild(time.Time, uint32)                   {}
func (s *fakeSA) DeleteChild(time.Time, uint32, string)          {}
func (s *fakeSA) RekeyIKE(time.Time)                             {}
func (s *fakeSA) Usable() bool                                   { return !s.closed }
func (s *fakeSA) TieBreak() []byte                               { return nil }
func (s *fakeSA) Wipe()                                          { s.wiped = true }
func (s *fakeSA) Close(now time.Time, c ike.Closed, _ bool)      { s.closed = true; s.env.Closed(now, c) }
func (s *fakeSA) fail(now time.Time) {
	s.closed = true
	s.env.Closed(now, ike.Closed{Cause: ike.CauseFailed, Rejection: &ike.Rejection{Reason: ike.ReasonNoAnswer}})
}

// rig is an engine on a clock of its own, with fakes for its IKE SAs.
type rig struct {
	t      *testing.T
	e      *ike.Engine
	now    time.Time
	made   []*fakeSA
	lasts  time.Duration // of an attempt, before it fails
	events []ike.Event
	asked  []ike.Question
	answer func(q ike.Question) (any, error)
}

func newRig(t *testing.T, cfg ike.Config) *rig {
	r := &rig{t: t, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), lasts: 10 * time.Second}
	version := ike.Version{Major: 2,
		First: func(h *wire.Header) bool { return h.SPIr == 0 },
		Accept: func(env *ike.Env, now time.Time, d ike.Datagram, h wire.Header) ike.SA {
			s := &fakeSA{env: env, on: func(ike.Datagram) { panic("a bug") }}
			env.Register(env.NewSPI(), h.SPIi)
			r.made = append(r.made, s)
			return s
		},
		Initiate: func(env *ike.Env, now time.Time, req ike.InitiateRequest) ike.SA {
			s := &fakeSA{env: env, req: req, wake: now.Add(r.lasts)}
			r.made = append(r.made, s)
			return s
		}}
	r.e = ike.New(cfg, version)
	return r
}

func (r *rig) drain() {
	for {
		list := r.e.Take()
		if len(list) == 0 {
			return
		}
		for _, f := range list {
			switch f := f.(type) {
			case ike.Emit:
				r.events = append(r.events, f.Event)
			case ike.Ask:
				r.asked = append(r.asked, f.Question)
				if r.answer != nil {
					v, err := r.answer(f.Question)
					r.e.Done(r.now, ike.Result{Job: f.Job, Value: v, Err: err})
				}
			}
		}
	}
}

func (r *rig) run(d time.Duration) {
	end := r.now.Add(d)
	for steps := 0; ; steps++ {
		if steps > 10_000 {
			r.t.Fatal("the engine does not come to rest")
		}
		r.drain()
		w := r.e.NextWake()
		if w.IsZero() || w.After(end) {
			r.now = end
			return
		}
		if w.After(r.now) {
			r.now = w
		}
		r.e.Wake(r.now)
	}
}

func (r *rig) done() (out []ike.CommandDone) {
	for _, e := range r.events {
		if d, ok := e.(ike.CommandDone); ok {
			out = append(out, d)
		}
	}
	return out
}

func (r *rig) targets() (out []string) {
	for _, s := range r.made {
		out = append(out, s.req.Local.String()+" "+s.req.Remote.String())
	}
	return out
}

func addr(s string) ike.AddrSpec { a := netip.MustParseAddr(s); return ike.AddrSpec{From: a, To: a} }

func peerTo(tries int, remotes ...ike.AddrSpec) *ike.Peer {
	return &ike.Peer{Name: "p", RemoteAddrs: remotes, KeyingTries: tries, Local: make([]ike.AuthRound, 1), Remote: make([]ike.AuthRound, 1), Children: []*ike.Child{{Name: "c"}}}
}

// Addresses of both families and of names are tried in turn, each with its whole
// schedule, and names are resolved anew after each failure.
func TestAddressesInTurn(t *testing.T) {
	p := peerTo(2, addr("192.0.2.1"), ike.AddrSpec{Host: "gw.example"}, addr("2001:db8::1"))
	r := newRig(t, ike.Config{Peers: []*ike.Peer{p}})
	resolved := 0
	r.answer = func(q ike.Question) (any, error) {
		switch q := q.(type) {
		case ike.Resolve:
			resolved++
			return []netip.Addr{netip.AddrFrom4([4]byte{198, 51, 100, byte(resolved)})}, nil
		case ike.SourceAddress:
			if q.Remote.Is4() {
				return netip.MustParseAddr("10.0.0.1"), nil
			}
			return netip.MustParseAddr("fd00::1"), nil
		}
		return nil, nil
	}
	r.e.Do(r.now, ike.Initiate{ID: 1, Peer: p, Child: "c"})
	r.run(5 * time.Minute)
	want := []string{
		"10.0.0.1:500 192.0.2.1:500", "10.0.0.1:500 198.51.100.1:500", "[fd00::1]:500 [2001:db8::1]:500",
		"10.0.0.1:500 192.0.2.1:500", "10.0.0.1:500 198.51.100.2:500", "[fd00::1]:500 [2001:db8::1]:500"}
	if got := r.targets(); !slices.Equal(got, want) {
		t.Errorf("%s", strings.Join(got, "\n"))
	}
	if d := r.done(); len(d) != 1 || d[0].Err == nil {
		t.Errorf("%+v", d)
	}
	if st := r.e.Stats(); st.SAs != 0 || !r.e.NextWake().IsZero() {
		t.Errorf("not at rest: %+v, next wake %v", st, r.e.NextWake())
	}
}

func TestKeyingTries(t *testing.T) {
	for _, tt := range []struct {
		tries    int
		start    ike.StartAction
		giveUp   bool // keyingtries was given
		atLeast  int
		atMost   int
		reported bool
	}{{1, 0, false, 1, 1, true}, {3, 0, true, 3, 3, true}, {0, 0, false, 40, 1000, false},
		{1, ike.ActionStart, false, 40, 1000, true}, {2, ike.ActionStart, true, 2, 2, true}} {
		p := peerTo(tt.tries, addr("192.0.2.1"))
		p.LocalAddrs = []ike.AddrSpec{addr("10.0.0.1")}
		p.Children[0].StartAction, p.GiveUp = tt.start, tt.giveUp
		r := newRig(t, ike.Config{Peers: []*ike.Peer{p}})
		r.e.Do(r.now, ike.Initiate{ID: 1, Peer: p, Child: "c"})
		r.run(time.Hour)
		if n := len(r.made); n < tt.atLeast || n > tt.atMost {
			t.Errorf("keyingtries %d, start %v: %d attempts in an hour", tt.tries, tt.start, n)
		}
		if len(r.done()) == 1 != tt.reported {
			t.Errorf("keyingtries %d: %v", tt.tries, r.done())
		}
		// Terminating ends it.
		r.e.Do(r.now, ike.Terminate{IKE: "p"})
		r.run(time.Second)
		n := len(r.made)
		r.run(time.Hour)
		if len(r.made) != n {
			t.Error("it goes on after Terminate")
		}
	}
}

func TestInitiationsCoalesce(t *testing.T) {
	p := peerTo(1, addr("192.0.2.1"))
	p.LocalAddrs = []ike.AddrSpec{addr("10.0.0.1")}
	r := newRig(t, ike.Config{Peers: []*ike.Peer{p}})
	for i := range 5 {
		r.e.Do(r.now, ike.Initiate{ID: ike.CommandID(i + 1), Peer: p, Child: "c"})
	}
	r.run(time.Second)
	if len(r.made) != 1 {
		t.Fatalf("%d IKE SAs", len(r.made))
	}
	r.made[0].wake = time.Time{}
	id := ike.Identity{Type: ike.IDFQDN, Data: "x"}
	r.made[0].env.Established(r.now, p, id, id, false)
	r.made[0].env.ChildDone(r.now, r.made[0].req.Child, nil)
	r.e.Wake(r.now)
	r.drain()
	if d := r.done(); len(d) != 5 || d[4].Err != nil {
		t.Errorf("%+v", d)
	}
}

func TestNothingToInitiateTo(t *testing.T) {
	for name, tt := range map[string]struct {
		remotes []ike.AddrSpec
		answer  func(ike.Question) (any, error)
		want    string
	}{
		"any":        {nil, nil, "no remote address to initiate to"},
		"no route":   {[]ike.AddrSpec{addr("192.0.2.1")}, func(ike.Question) (any, error) { return netip.Addr{}, nil }, "no route to 192.0.2.1"},
		"no name":    {[]ike.AddrSpec{{Host: "gw"}}, func(ike.Question) (any, error) { return nil, errors.New("NXDOMAIN") }, "the name gw does not resolve: NXDOMAIN"},
		"no answer":  {[]ike.AddrSpec{{Host: "gw"}}, nil, "the name gw does not resolve: no answer in time"},
		"no version": {[]ike.AddrSpec{addr("192.0.2.1")}, func(ike.Question) (any, error) { return netip.MustParseAddr("10.0.0.1"), nil }, "IKEv1 is not spoken here"},
	} {
		t.Run(name, func(t *testing.T) {
			p := peerTo(1, tt.remotes...)
			if name == "no version" {
				p.Version = 1
			}
			r := newRig(t, ike.Config{Peers: []*ike.Peer{p}})
			r.answer = tt.answer
			r.e.Do(r.now, ike.Initiate{ID: 1, Peer: p, Child: "c"})
			r.run(time.Minute)
			var rej *ike.Rejection
			if d := r.done(); len(d) != 1 || !errors.As(d[0].Err, &rej) || rej.Difference != tt.want {
				t.Errorf("%+v", r.done())
			}
		})
	}
}

// A panic in one IKE SA drops that one and tells so; the others go on.
func TestPanicDropsOneSA(t *testing.T) {
	r := newRig(t, ike.Config{})
	first := func(spi uint64) ike.Datagram {
		h := wire.Header{SPIi: spi, Version: wire.IKEv2, Exchange: wire.ExchangeIKESAInit, Flags: wire.FlagInitiator}
		return ike.Datagram{Local: netip.MustParseAddrPort("10.0.0.1:500"), Remote: netip.MustParseAddrPort("192.0.2.1:500"), Data: wire.AppendMessage(nil, h, nil)}
	}
	r.e.Datagram(r.now, first(1))
	r.e.Datagram(r.now, first(2))
	r.e.Datagram(r.now, first(1)) // makes the first one panic
	r.drain()
	var bugs []ike.Bug
	for _, e := range r.events {
		if b, ok := e.(ike.Bug); ok {
			bugs = append(bugs, b)
		}
	}
	if len(bugs) != 1 || bugs[0].Value != "a bug" || len(bugs[0].Stack) == 0 || bugs[0].ID != 1 {
		t.Errorf("%+v", bugs)
	}
	if st := r.e.Stats(); st.SAs != 1 || st.HalfOpen != 1 || st.Bugs != 1 || !r.made[0].wiped || r.made[1].wiped {
		t.Errorf("%+v", st)
	}
}

func TestSPIsCarryTheLabel(t *testing.T) {
	r := newRig(t, ike.Config{Node: 0xab, Shard: 0xcd})
	p := peerTo(1, addr("192.0.2.1"))
	p.LocalAddrs = []ike.AddrSpec{addr("10.0.0.1")}
	r.e.Do(r.now, ike.Initiate{Peer: p, Child: "c"})
	seen := map[uint64]bool{}
	for range 1000 {
		spi := r.made[0].env.NewSPI()
		if spi>>48 != 0xabcd || seen[spi] {
			t.Fatalf("%016x", spi)
		}
		seen[spi] = true
	}
}

func TestPriorities(t *testing.T) {
	list := func(s string) []ipsec.Selector {
		x, err := ipsec.ParseSelector(s)
		if err != nil {
			t.Fatal(err)
		}
		return []ipsec.Selector{x}
	}
	order := []uint32{
		ike.Priority(ike.PriorityShunt, list("0.0.0.0/0"), list("0.0.0.0/0")),
		ike.Priority(ike.PrioritySA, list("2001:db8::1[tcp/80]"), list("2001:db8::2[tcp/80]")),
		ike.Priority(ike.PrioritySA, list("10.0.0.1[tcp/80]"), list("10.0.0.2")),
		ike.Priority(ike.PrioritySA, list("10.0.0.1[tcp]"), list("10.0.0.2")),
		ike.Priority(ike.PrioritySA, list("10.0.0.1"), list("10.0.0.2")),
		ike.Priority(ike.PrioritySA, list("10.0.0.0/24"), list("10.0.0.2")),
		ike.Priority(ike.PrioritySA, list("10.0.0.0/8"), list("10.0.0.0/8")),
		ike.Priority(ike.PrioritySA, list("0.0.0.0/0"), list("0.0.0.0/0")),
		ike.Priority(ike.PriorityTrap, list("2001:db8::1[tcp/80]"), list("2001:db8::2[tcp/80]")),
		ike.Priority(ike.PriorityTrap, list("0.0.0.0/0"), list("0.0.0.0/0")),
		ike.PriorityFallback,
	}
	if !slices.IsSorted(order) || len(slices.Compact(slices.Clone(order))) != len(order) {
		t.Errorf("%v", order)
	}
}

func TestRetransmitWait(t *testing.T) {
	r := ike.Retransmit{Timeout: 4 * time.Second, Base: 1.8, Tries: 5, Limit: 30 * time.Second}
	var all []time.Duration
	for n := 0; ; n++ {
		w, last := r.Wait(n)
		all = append(all, w.Round(time.Millisecond))
		if last {
			break
		}
	}
	want := []time.Duration{4 * time.Second, 7200 * time.Millisecond, 12960 * time.Millisecond, 23328 * time.Millisecond, 30 * time.Second, 30 * time.Second}
	if !slices.Equal(all, want) {
		t.Errorf("%v", all)
	}
	r.Jitter = 50
	for range 100 {
		if w, _ := r.Wait(0); w < 2*time.Second || w > 4*time.Second {
			t.Fatal(w)
		}
	}
}

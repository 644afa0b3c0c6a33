package gateway

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"adit/ike"
	"adit/internal/config"
	"adit/ipsec"
	"adit/suite"
)

// The pool refuses what does not fit instead of waiting, and a panic ends one job.
func TestPoolIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(1)
		ctx, stop := context.WithCancel(context.Background())
		defer stop()
		p.ctx = ctx
		block := make(chan struct{})
		var failures []error
		failed := func(err error) { failures = append(failures, err) }
		done := make(chan struct{})
		go func() { p.run(ctx); close(done) }()
		if !p.submit(func() { <-block; panic("a seeded bug") }, failed) {
			t.Fatal("an idle pool refused")
		}
		synctest.Wait()
		accepted := 0
		for range 2 * limitJobs {
			if p.submit(func() {}, failed) {
				accepted++
			}
		}
		if accepted != limitJobs || p.waiting() != limitJobs || p.busy.Load() != 1 {
			t.Errorf("%d were accepted, %d wait, %d run", accepted, p.waiting(), p.busy.Load())
		}
		asked := 0
		for range 2 * limitJobs {
			if p.ask(&p.outside, func(ctx context.Context) { <-ctx.Done() }, failed) {
				asked++
			}
		}
		if asked != limitAsks+limitJobs || p.outside.n != limitAsks {
			t.Errorf("%d questions were accepted, %d run", asked, p.outside.n)
		}
		wrote := false
		if !p.ask(&p.leases, func(context.Context) { wrote = true }, failed) {
			t.Error("a lease was refused for others' questions")
		}
		synctest.Wait()
		if !wrote {
			t.Error("a lease waits for others' questions")
		}
		close(block)
		synctest.Wait()
		if len(failures) != 1 || !errors.Is(failures[0], errBug) {
			t.Errorf("failures %v", failures)
		}
		if p.waiting() != 0 || p.busy.Load() != 0 {
			t.Error("jobs were left over after the panic")
		}
		stop()
		p.under.Wait()
		<-done
		if p.outside.n+p.leases.n != 0 {
			t.Error("questions are left over")
		}
	})
}

func TestExpiriesAreKept(t *testing.T) {
	q := expiries{signal: make(chan struct{}, 1), pending: map[ipsec.SARef]bool{}}
	a, b := ipsec.SARef{Child: 1}, ipsec.SARef{Child: 2}
	for _, x := range []ipsec.Expire{{Ref: a}, {Ref: b, Hard: true}, {Ref: a, Hard: true}, {Ref: b}} {
		q.add(x)
	}
	got := q.take()
	if len(got) != 2 || got[0] != (ipsec.Expire{Ref: a, Hard: true}) || got[1] != (ipsec.Expire{Ref: b, Hard: true}) {
		t.Errorf("%v", got)
	}
	if len(q.take()) != 0 || len(q.pending) != 0 {
		t.Error("something was kept")
	}
}

func TestSPISetIsBounded(t *testing.T) {
	var s spiSet
	for i := range uint64(3*limitSPIs + 1) {
		s.add(i + 1)
	}
	if !s.has(3*limitSPIs) || s.has(1) || len(s.young)+len(s.old) > 2*limitSPIs {
		t.Errorf("%d and %d are kept", len(s.young), len(s.old))
	}
}

// RFC 7296 §3.1: which SPI is ours follows from the initiator flag and the direction.
func TestRFC7296_3_1_OurSPI(t *testing.T) {
	b := make([]byte, 28)
	b[7], b[15] = 1, 2
	for _, c := range []struct {
		flags    byte
		received bool
		want     uint64
	}{{0x08, true, 2}, {0x20, true, 1}, {0x08, false, 1}, {0x20, false, 2}} {
		b[19] = c.flags
		if got, ok := ourSPI(b, c.received); got != c.want || !ok {
			t.Errorf("%+v: %d", c, got)
		}
	}
	if _, ok := ourSPI(b[:27], true); ok {
		t.Error("a short message has an SPI")
	}
}

func ident(t *testing.T, s string) ike.Identity {
	t.Helper()
	id, err := ike.ParseIdentity(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestSecrets(t *testing.T) {
	g := &Gateway{}
	g.inv.init()
	g.leases.init()
	g.trust.init(nil)
	load := func(id, key string, owners ...string) suite.Key {
		s := config.Secret{ID: id, Key: suite.Key(key)}
		for _, o := range owners {
			s.Owners = append(s.Owners, ident(t, o))
		}
		if err := g.LoadSecret(s); err != nil {
			t.Fatal(err)
		}
		return s.Key
	}
	load("", "everybody's")
	load("", "everybody's") // again: nothing is added
	load("a", "ours", "moon.example")
	load("b", "theirs", "sun.example")
	other := load("c", "other", "mars.example")
	both := load("d", "both", "moon.example", "sun.example")
	q := ike.PSKLookup{LocalID: ident(t, "moon.example"), RemoteID: ident(t, "sun.example")}
	// A peer that has a key of its own is nobody who only has one of others with us.
	for who, want := range map[string][]string{"sun.example": {"both", "theirs"}, "mars.example": {"other"}, "venus.example": {"ours", "both", "everybody's"}} {
		q := ike.PSKLookup{LocalID: ident(t, "moon.example"), RemoteID: ident(t, who)}
		var got []string
		for _, k := range g.inv.keys(q) {
			got = append(got, string(k))
		}
		if !slices.Equal(got, want) {
			t.Errorf("keys of %s: %q, want %q", who, got, want)
		}
	}
	// Replacing and forgetting zeroes the old key, not what was handed out.
	out := g.inv.keys(q)[0]
	load("d", "newer", "moon.example", "sun.example")
	if both[0] != 0 || string(out) != "both" {
		t.Errorf("old key %q, handed out %q", []byte(both), []byte(out))
	}
	if err := g.UnloadSecret("c"); err != nil || other[0] != 0 {
		t.Error("the unloaded key stands", err)
	}
	if err := g.UnloadSecret("c"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if g.ClearSecrets(); len(g.inv.keys(q)) != 0 {
		t.Error("keys are left")
	}
}

func TestLimits(t *testing.T) {
	g := &Gateway{}
	g.inv.init()
	g.leases.init()
	g.trust.init(nil)
	g.running.Store(true)
	g.inv.secrets = make([]secret, limitSecrets)
	if g.LoadSecret(config.Secret{ID: "one more", Key: suite.Key("x")}) == nil {
		t.Error("too many secrets were loaded")
	}
	if g.Load(&config.Model{Secrets: make([]config.Secret, limitSecrets+1)}) == nil {
		t.Error("a file with too many secrets was loaded")
	}
	peers := make([]*ike.Peer, limitConnections+1)
	for i := range peers {
		peers[i] = &ike.Peer{Name: string(rune(i%0xd000)) + string(rune(i/0xd000+1))}
	}
	if g.Load(&config.Model{Peers: peers}) == nil {
		t.Error("too many connections were loaded")
	}
	var b bus
	for range limitSubscribers + 10 {
		b.subscribe(func(ike.Event) {})
	}
	if n := len(*b.subs.Load()); n != limitSubscribers {
		t.Errorf("%d subscribers", n)
	}
}

// A flood that claims SPIs of ours fills its own queue only: the messages of a
// known IKE SA still find room.
func TestFloodHasAQueueOfItsOwn(t *testing.T) {
	s := &shard{first: make(chan *ike.Datagram, limitFirst), established: make(chan *ike.Datagram, limitEstablished)}
	s.known.add(0x0102)
	message := func(spi uint16) ike.Datagram {
		b := make([]byte, 28)
		b[0], b[14], b[15], b[19] = 9, byte(spi>>8), byte(spi), 0x08
		return ike.Datagram{Data: b}
	}
	for i := range 3 * limitEstablished {
		s.datagram(message(uint16(0x8000 + i)))
	}
	s.datagram(message(0x0102))
	if len(s.first) != limitFirst || len(s.established) != 1 || s.dropped.Load() != 3*limitEstablished-limitFirst {
		t.Errorf("%d and %d wait, %d were dropped", len(s.first), len(s.established), s.dropped.Load())
	}
}

// First messages wait in bounded memory, however large they are, and what left the queue
// makes room again.
func TestFirstMessagesAreBoundedInBytes(t *testing.T) {
	s := &shard{first: make(chan *ike.Datagram, limitFirst), established: make(chan *ike.Datagram, limitEstablished)}
	const size = 60_000
	for range limitFirst {
		s.datagram(ike.Datagram{Data: make([]byte, size)})
	}
	if n := len(s.first); n != limitFirstBytes/size || s.firstBytes.Load() != int64(n*size) || s.dropped.Load() != uint64(limitFirst-n) {
		t.Errorf("%d wait with %d bytes, %d were dropped", n, s.firstBytes.Load(), s.dropped.Load())
	}
}

// While many computations or leases wait, nobody new is let in; afterwards they are.
func TestCrowded(t *testing.T) {
	s := &shard{g: &Gateway{pool: newPool(1)}}
	for range crowdedJobs {
		s.g.pool.submit(func() {}, func(error) {})
	}
	if s.crowded() {
		t.Error("crowded too early")
	}
	s.g.pool.submit(func() {}, func(error) {})
	if !s.crowded() {
		t.Error("not crowded by computations")
	}
	<-s.g.pool.jobs
	s.leasing.Store(crowdedLeases + 1)
	if !s.crowded() {
		t.Error("not crowded by leases")
	}
	if err := s.leased(nil); err != nil || s.crowded() {
		t.Error("crowded for ever", err)
	}
}

// A job that does not end shows as the thread that it holds; the others stay well.
func TestStuckJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(2)
		ctx, stop := context.WithCancel(context.Background())
		var run sync.WaitGroup
		run.Go(func() { p.run(ctx) })
		gate := make(chan struct{})
		p.submit(func() { <-gate }, func(error) {})
		time.Sleep(20 * time.Second)
		p.submit(func() {}, func(error) {})
		synctest.Wait()
		silent := func() (n int, most time.Duration) {
			for i := range p.since {
				if d := silence(p.since[i].Load(), time.Now()); d > 0 {
					n, most = n+1, max(most, d)
				}
			}
			return n, most
		}
		if n, most := silent(); n != 1 || most != 20*time.Second || (Part{Silent: most}).OK() {
			t.Errorf("%d threads are stuck, for %v", n, most)
		}
		close(gate)
		synctest.Wait()
		if n, _ := silent(); n != 0 {
			t.Errorf("%d threads are stuck after the job's end", n)
		}
		stop()
		run.Wait()
	})
}

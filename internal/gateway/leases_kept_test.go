package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"sync"
	"testing"
	"time"

	"adit/internal/config"
	"adit/internal/gateway"
)

// shelf is a store in memory that several gateways share.
type shelf struct {
	mu      sync.Mutex
	rev     uint64
	records map[netip.Addr]gateway.LeaseRecord
	told    []func(gateway.LeaseRecord)
	silent  map[string]time.Duration
	broken  error
	deaf    bool // changes are not told
}

type shelfOf struct {
	*shelf
	name, boot string
}

func (s shelfOf) view(r gateway.LeaseRecord) gateway.LeaseRecord {
	r.Ours = r.Gateway == s.name
	r.Mine = r.Ours && r.Boot == s.boot
	return r
}

func (s shelfOf) Open(told func(gateway.LeaseRecord)) {
	s.mu.Lock()
	known := maps.Clone(s.records)
	s.shelf.told = append(s.shelf.told, func(r gateway.LeaseRecord) { told(s.view(r)) })
	s.mu.Unlock()
	go func() { // as the real one, not on the caller's thread
		for _, r := range known {
			told(s.view(r))
		}
	}()
}

func (s shelfOf) Ready(context.Context) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return true, s.broken
}

func (s shelfOf) Take(_ context.Context, r gateway.LeaseRecord) (gateway.LeaseRecord, error) {
	s.mu.Lock()
	if s.broken != nil {
		defer s.mu.Unlock()
		return r, s.broken
	}
	now := s.records[r.Addr]
	if now.Rev != r.Rev {
		defer s.mu.Unlock()
		return s.view(now), gateway.ErrLeaseTaken
	}
	r.Gateway, r.Boot, r.Online = s.name, s.boot, true
	return s.view(s.write(r)), nil
}

func (s shelfOf) write(r gateway.LeaseRecord) gateway.LeaseRecord {
	s.rev++
	r.Rev, r.At = s.rev, time.Now()
	s.records[r.Addr] = r
	told, deaf := s.shelf.told, s.deaf
	s.mu.Unlock()
	for _, f := range told {
		if !deaf {
			f(r)
		}
	}
	return r
}

func (s shelfOf) Free(r gateway.LeaseRecord) {
	go func() {
		s.mu.Lock()
		if s.records[r.Addr].Rev != r.Rev {
			s.mu.Unlock()
			return
		}
		r.Gateway, r.Boot, r.Online = s.name, s.boot, false
		s.write(r)
	}()
}

func (s shelfOf) Silent(name string) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.silent[name]
}
func (s shelfOf) Shared() (string, bool) { return s.name, true }
func (s shelfOf) Close()                 {}

func newShelf() *shelf {
	return &shelf{records: map[netip.Addr]gateway.LeaseRecord{}, silent: map[string]time.Duration{}}
}

func pool4(from, to string) config.Pool {
	return config.Pool{Name: "p", From: netip.MustParseAddr(from), To: netip.MustParseAddr(to)}
}

func give(t *testing.T, l *gateway.Lessor, lease uint64, id string) string {
	t.Helper()
	a, err := l.Give(context.Background(), lease, id, "p")
	if err != nil {
		return err.Error()
	}
	return a.String()
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for range 500 {
		if f() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal(what)
}

// Three gateways that hear nothing of each other but what a conflict tells still give no
// address twice, use the whole pool, and refuse the client for whom nothing is left.
func TestSharedPoolNoAddressTwice(t *testing.T) {
	s := newShelf()
	s.deaf = true
	p := pool4("10.3.0.1", "10.3.0.60")
	var mu sync.Mutex
	has := map[netip.Addr]string{}
	var wg sync.WaitGroup
	for gw := range 3 {
		l := gateway.NewLessor(shelfOf{s, fmt.Sprint("gw", gw), "1"}, nil, p)
		for i := range 20 {
			wg.Go(func() {
				id := fmt.Sprintf("user %d of %d", i, gw)
				a, err := l.Give(context.Background(), uint64(i+1), id, "p")
				mu.Lock()
				defer mu.Unlock()
				if other, twice := has[a]; err != nil || twice {
					t.Errorf("%s: %v %v, which %q has", id, a, err, other)
				}
				has[a] = id
			})
		}
	}
	wg.Wait()
	l := gateway.NewLessor(shelfOf{s, "late", "1"}, nil, p)
	if got, err := l.Give(context.Background(), 1, "late", "p"); err == nil {
		t.Errorf("the sixty-first client got %s", got)
	}
}

// A run that was killed has nobody online any more: its clients get their addresses
// again, others do not as long as there are fresh ones.
func TestLeasesSurviveARun(t *testing.T) {
	s := newShelf()
	p := pool4("10.3.0.1", "10.3.0.4")
	l := gateway.NewLessor(shelfOf{s, "gw", "1"}, nil, p)
	alice, bob := give(t, l, 1, "alice"), give(t, l, 2, "bob")
	l = gateway.NewLessor(shelfOf{s, "gw", "2"}, nil, p)
	eventually(t, "what was kept is not known", func() bool { return l.Pools()[0].Offline == 2 })
	if a := give(t, l, 1, "carol"); a == alice || a == bob {
		t.Errorf("carol got %s, which somebody had", a)
	}
	if a := give(t, l, 2, "bob"); a != bob {
		t.Errorf("bob got %s, not %s", a, bob)
	}
	if a := give(t, l, 3, "alice"); a != alice {
		t.Errorf("alice got %s, not %s", a, alice)
	}
	st := l.Pools()[0]
	if st.Online != 3 || st.Offline != 0 {
		t.Errorf("%+v", st)
	}
}

// A client that moves to another gateway gets its address there once its old gateway has
// let go of it or is not heard any more; the old one then closes what is left of it.
// Others get such an address only after the longer time of reclaim.
func TestLeaseMovesToAnotherGateway(t *testing.T) {
	s := newShelf()
	p := pool4("10.3.0.1", "10.3.0.2")
	var lost []string
	a := gateway.NewLessor(shelfOf{s, "a", "1"}, func(x netip.Addr) { lost = append(lost, x.String()) }, p)
	b := gateway.NewLessor(shelfOf{s, "b", "1"}, nil, p)
	first := give(t, a, 1, "alice")
	if other := give(t, b, 1, "alice"); other == first {
		t.Fatalf("both gateways gave %s", first)
	}
	b.Release(1)
	s.mu.Lock()
	s.silent["a"] = time.Minute
	s.mu.Unlock()
	if again := give(t, b, 2, "alice"); again == first {
		t.Errorf("alice's last address is that of b, not %s", first)
	}
	if got := give(t, b, 3, "bob"); got == first {
		t.Errorf("bob got alice's %s from a gateway that may be cut off", first)
	}
	s.mu.Lock()
	s.silent["a"] = 25 * time.Hour
	s.mu.Unlock()
	b.Reclaim(24 * time.Hour)
	if got := give(t, b, 3, "bob"); got != first {
		t.Errorf("bob got %s, not the %s of a gateway that is gone", got, first)
	}
	if len(lost) != 1 || lost[0] != first {
		t.Errorf("gateway a did not lose %s: %v", first, lost)
	}
}

// With a dead store new leases are refused with the reason, those that stand stay, and
// when it is back it goes on.
func TestDeadLeaseStore(t *testing.T) {
	s := newShelf()
	l := gateway.NewLessor(shelfOf{s, "gw", "1"}, nil, pool4("10.3.0.1", "10.3.0.2"))
	first := give(t, l, 1, "alice")
	s.mu.Lock()
	s.broken = fmt.Errorf("%w: nobody is there", gateway.ErrLeaseStore)
	s.mu.Unlock()
	if _, err := l.Give(context.Background(), 2, "bob", "p"); !errors.Is(err, gateway.ErrLeaseStore) {
		t.Fatalf("bob: %v", err)
	}
	if st := l.Pools()[0]; st.Online != 1 {
		t.Errorf("%+v", st)
	}
	s.mu.Lock()
	s.broken = nil
	s.mu.Unlock()
	if a := give(t, l, 3, "bob"); a == first || a == "" {
		t.Errorf("bob got %q", a)
	}
	l.Release(1)
	if a := give(t, l, 4, "alice"); a != first {
		t.Errorf("alice came back to %s, not %s", a, first)
	}
}

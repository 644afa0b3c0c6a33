package cluster

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"adit/internal/gateway"
)

// Who waits while the disk is at work is served by its next turn, all together.
func TestDurableTogether(t *testing.T) {
	dir := t.TempDir()
	write := func(text string) {
		if err := os.WriteFile(filepath.Join(dir, "f"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("1")
	synctest.Test(t, func(t *testing.T) {
		d := newDurable(dir)
		turns, broken := 0, false
		d.sync = func(f *os.File) error {
			if filepath.Base(f.Name()) == "f" {
				turns++
				time.Sleep(5 * time.Millisecond)
			}
			if broken {
				return errors.New("the disk is broken")
			}
			return nil
		}
		began := time.Now()
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() {
				if err := d.wait(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(began); turns > 3 || took > 20*time.Millisecond {
			t.Errorf("1000 waited for %d turns, %v", turns, took)
		}
		write("23")
		broken = true
		if d.wait(t.Context()) == nil {
			t.Error("a failure is not told")
		}
		broken, turns = false, 0
		if err := d.wait(t.Context()); err != nil || turns == 0 {
			t.Errorf("after a failure: %v, %d turns", err, turns)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := d.wait(ctx); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		time.Sleep(time.Second) // its turn ends all the same
	})
}

// What Take has acknowledged is in a file that was synced after that: the server keeps
// nothing of it to itself.
func TestTakenIsOnDisk(t *testing.T) {
	s := New(Config{Dir: t.TempDir()})
	defer s.Close()
	s.Open(func(gateway.LeaseRecord) {})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if kept, err := s.Ready(ctx); !kept || err != nil {
		t.Fatal(kept, err)
	}
	synced := map[string]bool{} // what the disk has of names, after each turn
	s.srv.durable.sync = func(f *os.File) error {
		if b, err := os.ReadFile(f.Name()); err == nil {
			for _, id := range []string{"alice", "bob", "carol"} {
				if bytes.Contains(b, []byte(`"`+id+`"`)) {
					synced[id] = true
				}
			}
		}
		return f.Sync()
	}
	for i, id := range []string{"alice", "bob", "carol"} {
		a := netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)})
		if _, err := s.Take(ctx, gateway.LeaseRecord{Addr: a, Pool: "p", Identity: id}); err != nil {
			t.Fatal(err)
		}
		if !synced[id] {
			t.Errorf("%s's lease was acknowledged and not synced", id)
		}
	}
}

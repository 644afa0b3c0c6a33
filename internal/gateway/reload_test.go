package gateway_test

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"adit/ike"
	"adit/internal/config"
	"adit/internal/gateway"
)

// What a reload does to tunnels that a start action made.
func TestReload(t *testing.T) {
	const start = "start_action=start;"
	two := func(netOptions, twoOptions string) string {
		return connection("gw", leftAddr, rightAddr, "net:"+start+netOptions+leftNet, "two:"+start+twoOptions+"local_ts=10.3.0.0/24;remote_ts=10.4.0.0/24")
	}
	// moved is the same with another setting of the connection itself.
	moved := func(s string) string {
		return strings.Replace(s, "keyingtries = 0", "keyingtries = 0\n dpd_delay = 70s", 1)
	}
	for _, c := range []struct {
		name, conf      string
		net, two, newSA bool // is it another one than before; is the IKE SA?
		children        int
	}{
		{"unchanged", two("", ""), false, false, false, 2},
		{"one child changed", two("", "rekey_time=50m;"), false, true, false, 2},
		{"one child gone", connection("gw", leftAddr, rightAddr, "net:"+start+leftNet), false, true, false, 1},
		{"connection changed", moved(two("", "")), true, true, true, 2},
		{"gone", "", true, true, true, 0},
		{"no longer started", connection("gw", leftAddr, rightAddr, "net:"+leftNet, "two:local_ts=10.3.0.0/24;remote_ts=10.4.0.0/24"), true, true, false, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				left, right := pair(t)
				defer right.gw.Shutdown()
				defer left.gw.Shutdown()
				right.load(connection("gw", rightAddr, leftAddr, "net:"+rightNet, "two:local_ts=10.4.0.0/24;remote_ts=10.3.0.0/24"))
				left.load(two("", ""))
				time.Sleep(time.Second)
				before, was := identities(t, left)
				if len(before) != 2 {
					t.Fatalf("children %v", before)
				}
				var conns []string
				if c.conf != "" {
					conns = []string{c.conf}
				}
				left.load(conns...)
				time.Sleep(20 * time.Second)
				after, is := identities(t, left)
				if len(after) != c.children {
					t.Fatalf("children after: %v", after)
				}
				for name, changed := range map[string]bool{"net": c.net, "two": c.two} {
					if now, ok := after[name]; ok && (now != before[name]) != changed {
						t.Errorf("%s was %d and is %d", name, before[name], now)
					}
				}
				if (is != was) != c.newSA {
					t.Errorf("the IKE SA was %d and is %d", was, is)
				}
			})
		})
	}
}

func identities(t *testing.T, e *end) (children map[string]uint32, ikeID uint32) {
	t.Helper()
	sas, err := e.gw.SAs(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	children = map[string]uint32{}
	for _, sa := range sas {
		if sa.State == "ESTABLISHED" {
			ikeID = sa.ID
		}
		for _, c := range sa.Children {
			if c.State == "INSTALLED" {
				children[c.Name] = c.ID
			}
		}
	}
	return children, ikeID
}

// What VICI loaded survives a reload of the file, and is found by it.
func TestReloadLeavesOthersAlone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		left := newLab(t).end("left", leftAddr)
		defer left.gw.Shutdown()
		other := model(t, connection("vici", leftAddr, rightAddr, "x:start_action=trap;"+leftNet)).Peers[0]
		if err := left.gw.LoadConn(other); err != nil {
			t.Fatal(err)
		}
		if err := left.gw.LoadSecret(config.Secret{ID: "v", Key: []byte("a key of a client")}); err != nil {
			t.Fatal(err)
		}
		left.load(connection("file", leftAddr, rightAddr, "y:"+leftNet))
		left.load(connection("file2", leftAddr, rightAddr, "y:"+leftNet))
		var names []string
		for _, p := range left.gw.Conns() {
			names = append(names, p.Name)
		}
		if got := strings.Join(names, " "); got != "vici file2" {
			t.Errorf("connections %s", got)
		}
		if got := strings.Join(left.gw.SecretIDs(), " "); got != "v ike" {
			t.Errorf("secrets %s", got)
		}
		left.expect(0, 1, 1)
	})
}

// Nobody waits for a resolver; the guard follows when the name is known.
func TestNamesOfTraps(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var known atomic.Bool
		left := newLab(t).end("left", leftAddr, func(o *gateway.Options) {
			o.Resolver = func(ctx context.Context, host string) ([]netip.Addr, error) {
				if !known.Load() {
					<-ctx.Done()
					return nil, ctx.Err()
				}
				return []netip.Addr{netip.MustParseAddr(rightAddr)}, nil
			}
		})
		defer left.gw.Shutdown()
		began := time.Now()
		if err := left.gw.Load(model(t, connection("gw", leftAddr, "gw.example", "host:start_action=trap;mode=transport"))); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("loading took %v", took)
		}
		left.expect(0, 0, 0)
		known.Store(true)
		time.Sleep(2 * time.Minute)
		left.expect(0, 1, 1)
		left.load()
		left.expect(0, 0, 0)
	})
}

func TestLifecycle(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l := newLab(t)
		never := l.end("left", leftAddr)
		never.gw.Shutdown()

		fresh, err := gateway.New(optionsOf(never))
		if err != nil {
			t.Fatal(err)
		}
		for _, gw := range []*gateway.Gateway{never.gw, fresh} { // stopped, and never started
			if err := gw.Load(model(t, connection("gw", leftAddr, rightAddr, "net:"+leftNet))); !errors.Is(err, gateway.ErrNotRunning) {
				t.Error(err)
			}
			if _, err := gw.SAs(context.Background()); !errors.Is(err, gateway.ErrNotRunning) {
				t.Error(err)
			}
			if _, err := gw.Terminate(context.Background(), ike.Terminate{IKE: "x"}); !errors.Is(err, gateway.ErrNotRunning) {
				t.Error(err)
			}
			gw.Datagram(ike.Datagram{Data: make([]byte, 28)})
			gw.Shutdown()
			gw.Shutdown()
		}
	})
}

func optionsOf(e *end) gateway.Options {
	return gateway.Options{Dataplane: e, Transport: outer{e}, Log: discard, Versions: versions}
}

// Shutdown tells the peer, takes everything away, and ends within seconds although
// a peer does not answer and a load is under way.
func TestShutdown(t *testing.T) {
	for _, mute := range []bool{false, true} {
		bubble(t, func(t *testing.T) {
			left, right := pair(t)
			defer right.gw.Shutdown()
			left.load(connection("gw", leftAddr, rightAddr, "net:start_action=trap|start;"+leftNet))
			time.Sleep(time.Second)
			left.expect(2, 2, 2)
			right.mu.Lock()
			right.mute = mute
			right.mu.Unlock()
			loaded := make(chan error, 1)
			go func() {
				var err error
				for err == nil {
					err = left.gw.Load(model(t, connection("gw", leftAddr, rightAddr, "net:start_action=trap|start;"+leftNet),
						connection("more", leftAddr, "198.51.100.7", "net:start_action=start;"+leftNet)))
				}
				loaded <- err
			}()
			began := time.Now()
			left.gw.Shutdown()
			if took := time.Since(began); took > 5*time.Second || !mute && took > time.Second {
				t.Errorf("it took %v", took)
			}
			if err := <-loaded; !errors.Is(err, gateway.ErrNotRunning) {
				t.Errorf("Load during the shutdown: %v", err)
			}
			left.expect(0, 0, 0)
			right.settle()
			right.expect(0, 0, 0)
		})
	}
}

// Commands that wait end with the gateway.
func TestShutdownEndsWaiting(t *testing.T) {
	bubble(t, func(t *testing.T) {
		left := newLab(t).end("left", leftAddr)
		left.load(connection("gw", leftAddr, rightAddr, "net:"+leftNet))
		done := make(chan error, 1)
		go func() { done <- left.gw.Initiate(context.Background(), "gw", "net") }()
		left.settle()
		left.gw.Shutdown()
		if err := <-done; err == nil {
			t.Error("an initiation without a peer succeeded")
		}
	})
}

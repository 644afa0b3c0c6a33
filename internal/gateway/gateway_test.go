package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"adit/ike"
	"adit/ike/ikev2"
	"adit/ike/wire"
	"adit/internal/gateway"
	"adit/ipsec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bubble runs a test on virtual time and ends the gateways that it made.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

func TestInitiateRekeyTerminate(t *testing.T) {
	bubble(t, func(t *testing.T) {
		left, right := pair(t)
		defer right.gw.Shutdown()
		defer left.gw.Shutdown()
		if err := left.gw.Initiate(within(time.Minute), "", "net"); err != nil {
			t.Fatal(err)
		}
		left.settle()
		left.expect(2, 1, 1)
		right.expect(2, 1, 1)
		before := left.children()

		if n, err := left.gw.Rekey(within(time.Minute), ike.Rekey{Child: "net"}); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		time.Sleep(10 * time.Second) // the old inbound SA stays a while
		if after := left.children(); len(after) != 1 || after[0] == before[0] {
			t.Errorf("after the rekey: %v, before %v", after, before)
		}
		left.expect(2, 1, 1)
		right.expect(2, 1, 1)
		if n, err := left.gw.Rekey(within(time.Minute), ike.Rekey{Child: "other"}); n != 0 || err != nil {
			t.Errorf("rekey of nothing: %d, %v", n, err)
		}

		if n, err := right.gw.Terminate(within(time.Minute), ike.Terminate{IKE: "gw"}); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		left.settle()
		left.expect(0, 0, 0)
		right.expect(0, 0, 0)
		if n, err := left.gw.Terminate(within(time.Minute), ike.Terminate{IKE: "gw"}); n != 0 || err != nil {
			t.Errorf("terminating nothing: %d, %v", n, err)
		}
		for _, c := range [][2]string{{"gw", "other"}, {"other", "net"}, {"other", ""}} {
			if err := left.gw.Initiate(within(time.Second), c[0], c[1]); !errors.Is(err, gateway.ErrNotFound) {
				t.Errorf("initiating %v: %v", c, err)
			}
		}
	})
}

// The responder's SAs and its host stand before the answer leaves that lets the
// peer use them; its policy comes after, so that no packet overtakes the answer.
func TestOrderOfEffects(t *testing.T) {
	bubble(t, func(t *testing.T) {
		left, right := pair(t)
		defer right.gw.Shutdown()
		defer left.gw.Shutdown()
		if err := left.gw.Initiate(within(time.Minute), "gw", "net"); err != nil {
			t.Fatal(err)
		}
		right.settle() // the answer is out before the policy stands
		var got []string
		for _, l := range left.lab.lines() {
			if rest, ok := strings.CutPrefix(l, "right "); ok && rest != "host has 0 policies" {
				got = append(got, rest)
			}
		}
		want := []string{"sends exchange 34", "adds SA in", "adds SA out", "host has 1 policies", "sends exchange 35", "adds policy of net"}
		if !slices.Equal(got[:min(len(want), len(got))], want) {
			t.Errorf("order at the responder:\n%s", strings.Join(got, "\n"))
		}
	})
}

// A host that refuses (no guard) keeps the tunnel down, both sides hear of it, and
// nothing stays behind.
func TestHostRefuses(t *testing.T) {
	bubble(t, func(t *testing.T) {
		left, right := pair(t)
		defer right.gw.Shutdown()
		defer left.gw.Shutdown()
		right.mu.Lock()
		right.apply = func() error { return errors.New("no nftables here") }
		right.mu.Unlock()
		if err := left.gw.Initiate(within(time.Minute), "gw", "net"); err == nil {
			t.Fatal("the tunnel came up without a guard")
		}
		right.settle()
		right.expect(0, 0, 0)
		left.expect(0, 0, 0)
		right.mu.Lock()
		right.apply = nil
		right.mu.Unlock()
		if err := left.gw.Initiate(within(time.Minute), "gw", "net"); err != nil {
			t.Fatal(err)
		}
		right.settle()
		right.expect(2, 1, 1)
	})
}

// A change of the host that failed is tried again until it stands.
func TestHostIsTriedAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		left := newLab(t).end("left", leftAddr)
		defer left.gw.Shutdown()
		failing := true
		left.mu.Lock()
		left.apply = func() error {
			if failing {
				return errors.New("busy")
			}
			return nil
		}
		left.mu.Unlock()
		left.load(connection("gw", leftAddr, rightAddr, "net:start_action=trap;"+leftNet))
		left.expect(0, 1, 0)
		left.mu.Lock()
		failing = false
		left.mu.Unlock()
		time.Sleep(time.Minute)
		left.expect(0, 1, 1)
	})
}

func TestPanics(t *testing.T) {
	for _, c := range []struct {
		name string
		set  func(left *end, fail func() error)
	}{
		{"data plane", func(e *end, f func() error) { e.addSA = f }},
		{"host", func(e *end, f func() error) { e.apply = f }},
		{"transport", func(e *end, f func() error) { e.send = f }},
		{"subscriber", func(e *end, f func() error) { e.gw.Subscribe(func(ike.Event) { _ = f() }) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				left, right := pair(t)
				defer right.gw.Shutdown()
				defer left.gw.Shutdown()
				left.mu.Lock()
				var times atomic.Int32
				c.set(left, func() error {
					if times.Add(1) == 1 {
						panic("a seeded bug")
					}
					return nil
				})
				left.mu.Unlock()
				_ = left.gw.Initiate(within(time.Minute), "gw", "net")
				if times.Load() == 0 {
					t.Fatal("the seeded bug was not reached")
				}
				// Whatever became of that one, the gateway works.
				if _, err := left.gw.Terminate(within(time.Minute), ike.Terminate{IKE: "gw"}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				left.expect(0, 0, 0)
				if err := left.gw.Initiate(within(time.Minute), "gw", "net"); err != nil {
					t.Fatal(err)
				}
				left.settle()
				left.expect(2, 1, 1)
				st, err := left.gw.Stats(within(time.Second))
				if err != nil || st.Engine.Bugs == 0 && c.name != "host" {
					t.Errorf("%d bugs are counted, %v", st.Engine.Bugs, err)
				}
			})
		})
	}
}

// A bug in what lies around the IKE SAs in the engine costs one datagram.
func TestPanicInFirstMessage(t *testing.T) {
	bubble(t, func(t *testing.T) {
		broken := ike.Version{Major: 3, First: func(*wire.Header) bool { panic("a seeded bug") }}
		left, right := pair(t, func(o *gateway.Options) { o.Versions = []ike.Version{ikev2.Version, broken} })
		defer right.gw.Shutdown()
		defer left.gw.Shutdown()
		b := make([]byte, 28)
		b[0], b[17], b[18], b[19], b[27] = 1, 0x30, 34, 8, 28
		left.gw.Datagram(ike.Datagram{Local: netip.AddrPortFrom(left.addr, 500), Remote: netip.AddrPortFrom(right.addr, 500), Data: b})
		left.settle()
		if left.bugs() != 1 {
			t.Fatalf("%d bugs were told", left.bugs())
		}
		if err := left.gw.Initiate(within(time.Minute), "gw", "net"); err != nil {
			t.Fatal(err)
		}
	})
}

// A flood of what names no IKE SA of ours is dropped and counted, and does not
// touch the messages of established peers, nor commands.
func TestFlood(t *testing.T) {
	bubble(t, func(t *testing.T) {
		left, right := pair(t)
		defer right.gw.Shutdown()
		defer left.gw.Shutdown()
		if err := left.gw.Initiate(within(time.Minute), "gw", "net"); err != nil {
			t.Fatal(err)
		}
		from := netip.MustParseAddrPort("198.51.100.1:500")
		for i := range 20000 {
			b := make([]byte, 28)
			b[0], b[8], b[16], b[17], b[18], b[19], b[27] = byte(i), byte(i)|1, 33, 0x20, 37, 8, 28 // an SPI of ours is claimed
			b[1], b[9] = byte(i>>8), byte(i>>8)
			left.gw.Datagram(ike.Datagram{Local: netip.AddrPortFrom(left.addr, 500), Remote: from, Data: b})
		}
		if n, err := right.gw.Rekey(within(time.Minute), ike.Rekey{Child: "net"}); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		time.Sleep(time.Second)
		st, err := left.gw.Stats(within(time.Second))
		if err != nil || st.DatagramsDropped == 0 {
			t.Errorf("%d datagrams were dropped, %v", st.DatagramsDropped, err)
		}
		if st.Engine.RekeysChild == 0 && len(left.children()) != 1 {
			t.Error("the flood kept the rekey away")
		}
		st, _ = right.gw.Stats(within(time.Second))
		if st.Engine.Retransmits != 0 {
			t.Errorf("the peer had to repeat %d messages", st.Engine.Retransmits)
		}
	})
}

// More start actions than the command queue holds: none is lost.
func TestManyStartActions(t *testing.T) {
	bubble(t, func(t *testing.T) {
		left := newLab(t).end("left", leftAddr)
		defer left.gw.Shutdown()
		var conns []string
		const n = 1100
		for i := range n {
			conns = append(conns, connection(fmt.Sprintf("c%d", i), leftAddr, fmt.Sprintf("198.51.%d.%d", 100+i/250, 1+i%250),
				"net:start_action=start;policies=no;"+leftNet))
		}
		left.load(conns...)
		st, err := left.gw.Stats(within(time.Second))
		if err != nil || st.Engine.Initiated != n {
			t.Errorf("%d of %d connections were initiated, %v", st.Engine.Initiated, n, err)
		}
	})
}

func TestTrap(t *testing.T) {
	bubble(t, func(t *testing.T) {
		left, right := pair(t)
		defer right.gw.Shutdown()
		defer left.gw.Shutdown()
		trap := connection("gw", leftAddr, rightAddr, "net:start_action=trap;"+leftNet)
		left.load(trap)
		left.expect(0, 1, 1)
		var id ipsec.PolicyID
		for id = range left.policies {
		}
		left.emit(ipsec.Acquire{Policy: id, Name: "net", Src: netip.MustParseAddr("10.1.0.2"), Dst: netip.MustParseAddr("10.2.0.2"), Proto: 1})
		left.settle()
		left.expect(2, 2, 2)
		// Going down leaves the trap; unloading takes the policy, the routes and the guard away.
		if _, err := left.gw.Terminate(within(time.Minute), ike.Terminate{IKE: "gw"}); err != nil {
			t.Fatal(err)
		}
		left.settle()
		left.expect(0, 1, 1)
		if err := left.gw.UnloadConn("gw"); err != nil {
			t.Fatal(err)
		}
		left.expect(0, 0, 0)
		if err := left.gw.UnloadConn("gw"); !errors.Is(err, gateway.ErrNotFound) {
			t.Error(err)
		}
		left.emit(ipsec.Acquire{Policy: id, Name: "net"}) // too late: nothing happens
		left.settle()
		left.expect(0, 0, 0)
	})
}

// Expiries are never lost, however many come at once.
func TestExpiries(t *testing.T) {
	bubble(t, func(t *testing.T) {
		left, right := pair(t)
		defer right.gw.Shutdown()
		defer left.gw.Shutdown()
		if err := left.gw.Initiate(within(time.Minute), "gw", "net"); err != nil {
			t.Fatal(err)
		}
		left.settle()
		sas, _ := left.gw.SAs(context.Background())
		ref := ipsec.SARef{Child: sas[0].Children[0].ID, Dir: ipsec.Out}
		for i := range 50000 { // of SAs that do not exist, and one that does
			left.emit(ipsec.Expire{Ref: ipsec.SARef{Child: uint32(1000 + i)}})
			left.emit(ipsec.Orphan{SPI: 77})
		}
		left.emit(ipsec.Expire{Ref: ref})
		time.Sleep(10 * time.Second)
		if st, _ := left.gw.Stats(within(time.Second)); st.Engine.RekeysChild != 1 {
			t.Errorf("%d rekeys after the expiry", st.Engine.RekeysChild)
		}
	})
}

// stuck is a log that does not take anything until it is let go.
type stuck struct {
	slog.Handler
	gate chan struct{}
	n    *atomic.Int32
}

func (s stuck) Handle(ctx context.Context, r slog.Record) error {
	<-s.gate
	s.n.Add(1)
	return s.Handler.Handle(ctx, r)
}

// A log that stalls does not stall the gateway; what is lost is counted.
func TestStalledLog(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := stuck{discard.Handler(), make(chan struct{}), new(atomic.Int32)}
		left, right := pair(t, func(o *gateway.Options) { o.Log = slog.New(h) })
		defer right.gw.Shutdown()
		if err := left.gw.Initiate(within(time.Minute), "gw", "net"); err != nil {
			t.Fatal(err)
		}
		for range 4500 {
			if err := left.gw.LoadConn(&ike.Peer{Name: "x", Warnings: []string{"a remark"}}); err != nil {
				t.Fatal(err)
			}
		}
		if h.n.Load() != 0 {
			t.Error("the log was not stuck")
		}
		close(h.gate)
		left.gw.Shutdown()
		if n := h.n.Load(); n < 4096 || n > 4200 {
			t.Errorf("%d lines were written", n)
		}
	})
}

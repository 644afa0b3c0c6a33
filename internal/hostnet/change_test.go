package hostnet_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"adit/internal/hostnet"
)

// client is a policy like those of a gateway's clients: all but the remote addresses
// alike. Some have a network.
func client(i int) hostnet.Policy {
	if i%7 == 2 {
		p := protect(fmt.Sprint("sa/", i), "10.1.0.0/24 2001:db8:1::/64", fmt.Sprintf("10.%d.%d.0/24 2001:db8:3:%x::/64", 100+i/250, i%250, i))
		p.Group = "clients"
		return p
	}
	p := protect(fmt.Sprint("sa/", i), "10.1.0.0/24 2001:db8:1::/64", fmt.Sprintf("10.2.%d.%d/32 2001:db8:2::%x/128", i/200, i%200+1, i+1))
	p.Group = "clients"
	return p
}

func clients(from, to int) (ps []hostnet.Policy) {
	for i := from; i < to; i++ {
		ps = append(ps, client(i))
	}
	return ps
}

// change makes a change that must not need the whole state.
func (l *lab) change(add []hostnet.Policy, remove ...string) {
	l.t.Helper()
	l.gw.ok(request{Op: "change", State: hostnet.State{Policies: add}, Remove: remove})
}

// needsWhole makes one that must, and that must change nothing.
func (l *lab) needsWhole(why string, add []hostnet.Policy, remove ...string) {
	l.t.Helper()
	before := l.canonical() + l.routes()
	if r := l.gw.do(request{Op: "change", State: hostnet.State{Policies: add}, Remove: remove}); !r.Whole {
		l.t.Errorf("%s: answered %q instead of asking for the whole state", why, r.Err)
	}
	if l.canonical()+l.routes() != before {
		l.t.Errorf("%s: something changed all the same", why)
	}
}

func (l *lab) routes() string {
	list := strings.Split(run(l.t, "ip -n "+l.gw.ns+" route show table all proto 173")+run(l.t, "ip -n "+l.gw.ns+" -6 route show table all proto 173"), "\n")
	slices.Sort(list)
	return strings.Join(list, "\n")
}

// One of many clients is guarded and steered from its Change on, and no longer
// after it; the guard's drops count under the group.
func TestClientsComeAndGo(t *testing.T) {
	l := newLab(t)
	l.up(hostnet.Options{})
	l.apply(clients(0, 3)...)
	out4, out6 := udp("10.1.0.5:1", "10.2.0.5:9"), udp("[2001:db8:1::5]:1", "[2001:db8:2::5]:9") // client 4
	own4 := udp("10.1.0.1:1", "10.2.0.5:8")
	in4, in6 := udp("10.2.0.5:9", "10.1.0.5:1"), udp("[2001:db8:2::5]:9", "[2001:db8:1::5]:1")
	l.expect(l.host, out4, "out")
	l.change(clients(3, 6))
	for _, p := range []packet{out4, out6} {
		l.expect(l.host, p, "tun")
	}
	l.expect(l.gw, own4, "tun")
	l.fromTunnel(in4, "host")
	for _, p := range []packet{in4, in6} {
		l.expect(l.out, p)
	}
	if c := l.gw.ok(request{Op: "counters"}).Counters["clients"]; c.In.Packets < 2 {
		t.Errorf("drops of clear packets: %+v", c)
	}
	// Without the device the guard holds the traffic.
	l.gw.ok(request{Op: "closetun"})
	l.expect(l.host, out4)
	if c := l.gw.ok(request{Op: "counters"}).Counters["clients"]; c.Out.Packets == 0 {
		t.Errorf("drops of leaving packets: %+v", c)
	}
	l.gw.ok(request{Op: "tun", Device: "adit0"})
	l.gw.ok(request{Op: "setup", Device: "adit0", MTU: 1400})
	l.gw.ok(request{Op: "refresh"}) // has those of the change, too
	l.expect(l.host, out4, "tun")
	l.change(nil, "sa/4", "sa/never")
	l.expect(l.host, out4, "out")
	l.expect(l.host, udp("10.1.0.5:1", "10.2.0.4:9"), "tun")
	l.expect(l.host, udp("10.1.0.5:1", "10.100.2.9:9"), "tun")
	if r := l.routes(); strings.Contains(r, "10.2.0.5 ") || !strings.Contains(r, "10.2.0.6 ") {
		t.Errorf("routes:\n%s", r)
	}
}

// However changes came about, they leave what Apply makes of the same policies.
func TestChangesAreWhatApplyMakes(t *testing.T) {
	l, fresh := newLab(t), newLab(t)
	l.up(hostnet.Options{})
	rng := rand.New(rand.NewPCG(3, 4))
	site := protect("conn/site", "10.1.0.0/24", "10.9.0.0/16")
	there := map[int]hostnet.Policy{0: client(0), 2: client(2)}
	l.apply(site, client(0), client(2))
	for step := range 40 {
		var add []hostnet.Policy
		var remove []string
		for range rng.IntN(8) {
			i := 3 + rng.IntN(30)
			id := client(i).ID
			if slices.Contains(remove, id) || slices.ContainsFunc(add, func(p hostnet.Policy) bool { return p.ID == id }) {
				continue
			}
			switch _, here := there[i]; {
			case here && rng.IntN(2) == 0:
				remove = append(remove, id)
				delete(there, i)
			default: // new, or with another MTU
				p := client(i)
				p.MTU = 1300 + rng.IntN(3)
				add = append(add, p)
				there[i] = p
			}
		}
		l.change(add, remove...)
		if step%10 != 9 {
			continue
		}
		all := []hostnet.Policy{site}
		for _, p := range there {
			all = append(all, p)
		}
		fresh.up(hostnet.Options{})
		fresh.apply(all...)
		for what, both := range map[string][2]string{"program": {l.canonical(), fresh.canonical()}, "routes": {l.routes(), fresh.routes()}} {
			if both[0] != both[1] {
				t.Fatalf("%s after changes:\n%s\nfresh:\n%s", what, both[0], both[1])
			}
		}
		fresh.gw.ok(request{Op: "close"})
		fresh.gw.ok(request{Op: "closetun"})
	}
}

// What a change cannot be is refused before anything is touched; a policy that
// then shares addresses with others is guarded by Apply.
func TestChangesThatNeedTheWhole(t *testing.T) {
	l := newLab(t)
	l.up(hostnet.Options{})
	l.needsWhole("nothing was applied", clients(0, 1))
	l.apply(append(clients(0, 2), protect("conn/site", "10.1.0.0/24", "10.9.0.0/16"))...)
	overlap := client(5)
	overlap.Remote = sel("10.2.0.0..10.2.0.1")
	l.needsWhole("addresses of another client", []hostnet.Policy{client(6), overlap})
	overlap.Remote = sel("10.9.5.0/24")
	l.needsWhole("addresses of another policy", []hostnet.Policy{overlap})
	odd := client(5)
	odd.Group = "others"
	l.needsWhole("a new group", []hostnet.Policy{odd})
	odd = client(5)
	odd.Local = sel("10.1.0.0/25")
	l.needsWhole("another local side", []hostnet.Policy{odd})
	odd = client(5)
	odd.Action = hostnet.Bypass
	l.needsWhole("a bypass", []hostnet.Policy{odd})
	odd = client(5)
	odd.Remote = ports(odd.Remote, 17, 1, 9)
	l.needsWhole("ports", []hostnet.Policy{odd})
	odd = client(5)
	odd.Remote = nil
	l.needsWhole("no remote side", []hostnet.Policy{odd})
	odd = client(1)
	odd.Remote = sel("10.2.0.77/32")
	l.needsWhole("other addresses under the same ID", []hostnet.Policy{odd})
	l.needsWhole("the last of the group goes", nil, "sa/0", "sa/1")
	l.needsWhole("one that is not of the group goes", nil, "conn/site")
	l.needsWhole("replaced and removed", []hostnet.Policy{client(1)}, "sa/1")

	// One that overlaps two of the group leaves all three guarded, and stays so.
	overlap = client(5)
	overlap.Remote = sel("10.2.0.0/29")
	all := []hostnet.Policy{client(0), client(1), client(4), overlap}
	l.apply(all...)
	l.expect(l.host, udp("10.1.0.5:1", "10.2.0.5:9"), "tun")
	l.expect(l.out, udp("10.2.0.5:9", "10.1.0.5:1"))
	l.apply(all[:3]...)
	l.expect(l.host, udp("10.1.0.5:1", "10.2.0.5:9"), "tun")
	l.expect(l.out, udp("10.2.0.5:9", "10.1.0.5:1"))
	l.apply()
	l.expect(l.host, udp("10.1.0.5:1", "10.2.0.5:9"), "out")
}

// Somebody flushed the ruleset: a change fails, and Refresh brings back the guard
// of all, those of earlier changes too.
func TestChangeAfterAFlushedRuleset(t *testing.T) {
	l := newLab(t)
	l.up(hostnet.Options{})
	l.apply(clients(0, 3)...)
	l.change(clients(3, 6))
	run(t, "ip netns exec "+l.gw.ns+" nft flush ruleset")
	if r := l.gw.do(request{Op: "change", State: hostnet.State{Policies: clients(6, 7)}}); r.Err == "" {
		t.Error("a change without the table succeeded")
	}
	l.needsWhole("after a failure", clients(6, 7))
	l.gw.ok(request{Op: "refresh"})
	l.expect(l.host, udp("10.1.0.5:1", "10.2.0.5:9"), "tun")
	l.expect(l.out, udp("10.2.0.5:9", "10.1.0.5:1"))
	l.change(clients(6, 7))
}

// Thousands of clients: a few more are as much work as among ten. (BenchmarkChange has
// the times.)
func TestChangeIsIndependentOfWhatIsThere(t *testing.T) {
	l := newLab(t)
	l.up(hostnet.Options{})
	work := func(first int) (least uint64) {
		for k := range 5 {
			r := l.gw.ok(request{Op: "change", State: hostnet.State{Policies: clients(first+10*k, first+10*k+10)}})
			if k == 0 || r.Work < least {
				least = r.Work
			}
		}
		return least
	}
	l.apply(clients(0, 3)...)
	few := work(3)
	l.change(clients(1000, 4000))
	many := work(9000)
	t.Logf("ten more: %d allocations among a few, %d among thousands", few, many)
	if many > 2*few {
		t.Error("the work grows with what is there")
	}
}

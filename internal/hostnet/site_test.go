package hostnet_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"adit/internal/hostnet"
)

// roadWarriors are two clients with addresses of a pool, who may reach everything.
func (l *lab) roadWarriors(c ...hostnet.Clients) {
	l.t.Helper()
	l.gw.ok(request{Op: "apply", State: hostnet.State{Devices: []string{"adit0"}, Clients: c,
		Policies: []hostnet.Policy{protect("a", "0.0.0.0/0", "10.3.0.1/32"), protect("b", "0.0.0.0/0", "10.3.0.2/32")}}})
}

func poolOf(from, to string) hostnet.Clients {
	return hostnet.Clients{From: netip.MustParseAddr(from), To: netip.MustParseAddr(to)}
}

// from is the source with which a packet that came out of the tunnel arrived somewhere.
func (l *lab) from(a *agent, p packet) string {
	l.t.Helper()
	l.places(p, func(ps ...packet) { l.gw.ok(request{Op: "inject", Packets: ps}) })
	found := ""
	eventually(func() bool {
		seen := a.ok(request{Op: "seen"}).Seen
		if i := slices.IndexFunc(seen, func(s packet) bool { return s.Dst == p.Dst && s.Proto == p.Proto }); i >= 0 {
			found = seen[i].Src.Addr().String()
		}
		return found != ""
	})
	return found
}

func TestMasqueradeOfClients(t *testing.T) {
	l := newLab(t)
	l.up(hostnet.Options{})
	pool := poolOf("10.3.0.1", "10.3.0.9")
	out, between := udp("10.3.0.1:1000", "10.2.0.5:2000"), udp("10.3.0.1:1000", "10.3.0.2:2000")
	l.roadWarriors(pool)
	if src := l.from(l.out, out); src != "10.3.0.1" {
		t.Fatalf("without masquerade the packet came from %q", src)
	}
	pool.Masquerade = true
	l.roadWarriors(pool)
	out = udp("10.3.0.1:1001", "10.2.0.5:2000") // another flow: that one's addresses are settled
	if src := l.from(l.out, out); src != "192.0.2.1" {
		t.Fatalf("masqueraded, the packet came from %q\n%s", src, l.ruleset())
	}
	// The answer finds its way to the client, through the guard and into the tunnel.
	l.where(l.out, udp("10.2.0.5:2000", "192.0.2.1:1001"))
	back := func(s packet) bool { return s.Dst.String() == "10.3.0.1:1001" && s.Src.Addr().String() == "10.2.0.5" }
	if !eventually(func() bool { return slices.ContainsFunc(l.gw.ok(request{Op: "seen"}).Seen, back) }) {
		t.Errorf("the answer did not reach the client: %v", l.gw.ok(request{Op: "seen"}).Seen)
	}
	if src := l.from(l.gw, between); src != "10.3.0.1" {
		t.Errorf("one client reached the other as %q", src)
	}
	if src := l.from(l.out, udp("10.4.0.1:1000", "10.2.0.5:2000")); src != "10.4.0.1" {
		t.Errorf("who has no address of the pool left as %q", src)
	}

	// What a killed instance left stands until the next one says what it wants.
	l.gw.kill()
	l.restart()
	l.up(hostnet.Options{})
	if !strings.Contains(l.ruleset(), "masquerade") {
		t.Error("the killed instance's masquerading went before the next state came")
	}
	pool.To = netip.MustParseAddr("10.3.0.200")
	l.roadWarriors(pool)
	pool.To = netip.MustParseAddr("10.3.0.5")
	l.roadWarriors(pool) // ranges that overlap the old ones
	if src := l.from(l.out, udp("10.3.0.2:1002", "10.2.0.5:2000")); src != "192.0.2.1" {
		t.Errorf("after the restart the packet came from %q", src)
	}
	pool.Masquerade = false
	l.roadWarriors(pool)
	if s := l.ruleset(); strings.Contains(s, "masquerad") || strings.Contains(s, "clients_") {
		t.Errorf("masquerading was to end:\n%s", s)
	}
	pool.Masquerade = true
	l.roadWarriors(pool)
	l.gw.ok(request{Op: "close"})
	if s := l.ruleset(); s != "" {
		t.Errorf("ruleset after Close:\n%s", s)
	}
}

func TestClientsApart(t *testing.T) {
	l := newLab(t)
	l.up(hostnet.Options{})
	ab, ba := udp("10.3.0.1:1000", "10.3.0.2:2000"), udp("10.3.0.2:1000", "10.3.0.1:2000")
	out := udp("10.3.0.1:1000", "10.2.0.5:2000")
	all := poolOf("10.3.0.1", "10.3.0.9")
	l.roadWarriors(all)
	l.fromTunnel(ab, "tun")
	all.Apart = true
	l.roadWarriors(all)
	l.fromTunnel(ab)
	l.fromTunnel(ba)
	l.fromTunnel(out, "out")
	// A site behind another tunnel is no client.
	l.fromTunnel(udp("10.4.0.1:1000", "10.3.0.2:2000"), "tun")
	// Two pools, one of them apart: both ways between them are closed.
	one, two := poolOf("10.3.0.1", "10.3.0.1"), poolOf("10.3.0.2", "10.3.0.2")
	two.Apart = true
	l.roadWarriors(one, two)
	l.fromTunnel(ab)
	l.fromTunnel(ba)
	count := run(t, "ip netns exec "+l.gw.ns+" nft list counter inet adit client_to_client")
	if !strings.Contains(count, "packets 4 ") {
		t.Errorf("4 packets were dropped, counted are: %s", count)
	}
	two.Apart = false
	l.roadWarriors(one, two)
	l.fromTunnel(ba, "tun")
	l.gw.ok(request{Op: "close"})
	if s := l.ruleset(); s != "" {
		t.Errorf("ruleset after Close:\n%s", s)
	}
}

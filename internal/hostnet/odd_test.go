package hostnet_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"adit/internal/hostnet"
)

// Packets flow while the program is replaced over and over, also by a new
// process: none may slip between two transactions.
func TestNoOpenWindowBetweenApplies(t *testing.T) {
	l := newLab(t)
	l.up(hostnet.Options{})
	l.apply(siteToSite)
	for _, a := range []*agent{l.host, l.out, l.gw} {
		a.ok(request{Op: "forget"})
	}
	flood := func(from *agent, p packet, stop chan struct{}, sent chan int) {
		ps := slices.Repeat([]packet{p}, 50)
		n := 0
		for {
			select {
			case <-stop:
				sent <- n
				return
			default:
				from.ok(request{Op: "send", Packets: ps})
				n += len(ps)
			}
		}
	}
	stop, sent := make(chan struct{}), make(chan int, 2)
	go flood(l.host, udp("10.1.0.5:1000", "10.2.0.5:2000"), stop, sent)
	go flood(l.out, udp("10.2.0.5:2000", "10.1.0.5:1000"), stop, sent)
	other := protect("other", "10.1.0.0/24", "10.3.0.0/24")
	for i := range 40 {
		if i%2 == 0 {
			l.apply(siteToSite, other)
		} else {
			l.apply(siteToSite)
		}
		if i == 20 {
			l.gw.kill()
			l.restart()
			l.up(hostnet.Options{})
		}
	}
	close(stop)
	n := <-sent + <-sent
	time.Sleep(50 * time.Millisecond)
	if n < 1000 {
		t.Fatalf("only %d packets sent", n)
	}
	for name, a := range map[string]*agent{"outside": l.out, "inside": l.host} {
		for _, p := range a.ok(request{Op: "seen"}).Seen {
			if p.Proto == 17 && (p.Dst == netip.MustParseAddrPort("10.2.0.5:2000") || p.Dst == netip.MustParseAddrPort("10.1.0.5:1000")) {
				t.Fatalf("clear packet %s: %v", name, p)
			}
		}
	}
	t.Logf("%d packets over 40 applies", n)
}

// A reload of the host's own firewall ("flush ruleset") takes our table too: it
// is reported, and Refresh brings it back.
func TestFlushedRulesetIsNoticedAndRestored(t *testing.T) {
	l := newLab(t)
	l.up(hostnet.Options{})
	l.apply(siteToSite)
	l.gw.ok(request{Op: "watch"})
	run(t, "ip netns exec "+l.gw.ns+" nft flush ruleset")
	evs := l.gw.ok(request{Op: "events"}).Events
	if !slices.ContainsFunc(evs, func(e hostnet.Event) bool { return e.Kind == hostnet.EventGuard && e.Gone }) {
		t.Errorf("events after the flush: %+v", evs)
	}
	l.gw.ok(request{Op: "refresh"})
	l.expect(l.out, udp("10.2.0.5:2000", "10.1.0.5:1000"))
	l.expect(l.host, udp("10.1.0.5:1000", "10.2.0.5:2000"), "tun")
	// Our own transactions raise no alarm.
	l.gw.ok(request{Op: "events"})
	l.gw.ok(request{Op: "refresh"})
	if evs := l.gw.ok(request{Op: "events"}).Events; slices.ContainsFunc(evs, func(e hostnet.Event) bool { return e.Kind == hostnet.EventGuard }) {
		t.Errorf("events after a refresh: %+v", evs)
	}
	l.gw.ok(request{Op: "unwatch"})
}

func TestWatchReportsTheHost(t *testing.T) {
	l := newLab(t)
	l.up(hostnet.Options{})
	l.gw.ok(request{Op: "watch"})
	g := l.gw.ns
	run(t, "ip -n "+g+" addr add 192.0.2.77/24 dev wan")
	run(t, "ip -n "+g+" addr add 2001:db8:f::77/64 dev wan nodad")
	run(t, "ip -n "+g+" addr del 192.0.2.77/24 dev wan")
	run(t, "ip -n "+g+" route add 203.0.113.0/24 via 192.0.2.2 table 77")
	run(t, "ip -n "+g+" link set lan down")
	l.apply(siteToSite) // our own routes are no news
	evs := l.gw.ok(request{Op: "events"}).Events
	for name, match := range map[string]func(hostnet.Event) bool{
		"address": func(e hostnet.Event) bool {
			return e.Kind == hostnet.EventAddress && !e.Gone && e.Prefix == netip.MustParsePrefix("192.0.2.77/24")
		},
		"address v6": func(e hostnet.Event) bool {
			return e.Kind == hostnet.EventAddress && !e.Gone && e.Prefix == netip.MustParsePrefix("2001:db8:f::77/64")
		},
		"address gone": func(e hostnet.Event) bool {
			return e.Kind == hostnet.EventAddress && e.Gone && e.Prefix == netip.MustParsePrefix("192.0.2.77/24")
		},
		"route": func(e hostnet.Event) bool {
			return e.Kind == hostnet.EventRoute && e.Table == 77 && e.Prefix == netip.MustParsePrefix("203.0.113.0/24")
		},
		"link down": func(e hostnet.Event) bool { return e.Kind == hostnet.EventLink && e.Name == "lan" && !e.Up },
	} {
		if !slices.ContainsFunc(evs, match) {
			t.Errorf("no event: %s in %+v", name, evs)
		}
	}
	if slices.ContainsFunc(evs, func(e hostnet.Event) bool {
		return e.Kind == hostnet.EventRoute && (e.Table == 220 || e.Table == 220000)
	}) {
		t.Error("our own routes are reported")
	}
	l.gw.ok(request{Op: "unwatch"})
}

// The device vanishes: the guard holds, Apply and Close go on, and the routes
// come back with the device.
func TestDeviceVanishes(t *testing.T) {
	l := newLab(t)
	l.up(hostnet.Options{})
	l.apply(siteToSite)
	l.gw.ok(request{Op: "addaddr", Device: "adit0", Prefix: netip.MustParsePrefix("10.50.0.1/32")})
	l.gw.ok(request{Op: "closetun"})
	l.apply(siteToSite, protect("other", "10.1.0.0/24", "10.3.0.0/24"))
	l.expect(l.host, udp("10.1.0.5:1000", "10.3.0.5:2000"))
	l.gw.ok(request{Op: "deladdr", Device: "adit0", Prefix: netip.MustParsePrefix("10.50.0.1/32")})
	if s := fmt.Sprint(l.gw.ok(request{Op: "diagnose"}).Lines); !strings.Contains(s, "adit0 does not exist") {
		t.Errorf("diagnose: %s", s)
	}
	l.gw.ok(request{Op: "tun", Device: "adit0"})
	l.gw.ok(request{Op: "setup", Device: "adit0"})
	l.gw.ok(request{Op: "refresh"})
	l.expect(l.host, udp("10.1.0.5:1000", "10.3.0.5:2000"), "tun")
	l.gw.ok(request{Op: "closetun"})
	l.gw.ok(request{Op: "close"})
	l.gw.ok(request{Op: "close"}) // twice is harmless
	if rs := l.ruleset(); rs != "" {
		t.Errorf("ruleset after Close:\n%s", rs)
	}
}

func TestAddressesAreCounted(t *testing.T) {
	l := newLab(t)
	l.up(hostnet.Options{})
	p := netip.MustParsePrefix("10.50.0.1/32")
	q := request{Op: "addaddr", Device: "adit0", Prefix: p}
	l.gw.ok(q)
	l.gw.ok(q)
	has := func() bool { return strings.Contains(run(t, "ip -n "+l.gw.ns+" addr show dev adit0"), p.String()) }
	q.Op = "deladdr"
	l.gw.ok(q)
	if !has() {
		t.Error("the address went with the first of two")
	}
	// The virtual address is the source of what the host itself sends.
	l.apply(protect("rw", "10.50.0.1/32", "0.0.0.0/0"))
	out := udp("0.0.0.0:1000", "198.51.100.9:7")
	l.expect(l.gw, out, "tun")
	for _, s := range l.gw.ok(request{Op: "seen"}).Seen {
		if s.Dst == out.Dst && s.Src.Addr() != p.Addr() {
			t.Errorf("source %v", s.Src)
		}
	}
	l.gw.ok(q)
	if has() {
		t.Error("the address stays after the last")
	}
	if r := l.gw.do(q); r.Err == "" {
		t.Error("removing once more is no error")
	}
}

// Reverse-path filtering in strict mode on all interfaces, and no plain route to
// the far network: what comes out of the tunnel still gets through, and the host
// can answer it.
func TestStrictReversePathFilterAndNoPlainRoute(t *testing.T) {
	l := newLab(t)
	g := l.gw.ns
	run(t, "ip netns exec "+g+" sysctl -qw net.ipv4.conf.all.rp_filter=1")
	run(t, "ip -n "+g+" route del default")
	run(t, "ip -n "+g+" -6 route del default")
	l.up(hostnet.Options{})
	l.apply(siteToSite)
	for _, in := range []packet{udp("10.2.0.5:7", "10.1.0.5:1000"), udp("[2001:db8:2::5]:7", "[2001:db8:1::5]:1000")} {
		l.fromTunnel(in, "host")
	}
	l.expect(l.host, udp("10.1.0.5:1000", "10.2.0.5:2000"), "tun")
	l.expect(l.gw, udp("10.1.0.1:1000", "10.2.0.5:2000"), "tun")
	l.expect(l.gw, udp("0.0.0.0:1000", "10.2.0.5:2000"), "tun")
	l.expect(l.gw, udp("[::]:1000", "[2001:db8:2::5]:2000"), "tun")
	if s := fmt.Sprint(l.gw.ok(request{Op: "diagnose"}).Lines); !strings.Contains(s, "rp_filter of wan is strict") {
		t.Errorf("diagnose: %s", s)
	}
	run(t, "ip netns exec "+g+" sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0")
	if s := fmt.Sprint(l.gw.ok(request{Op: "diagnose"}).Lines); !strings.Contains(s, "ip_forward is 0") || !strings.Contains(s, "conf.all.forwarding is 0") {
		t.Errorf("diagnose: %s", s)
	}
	if s := run(t, "ip -n "+g+" addr show dev adit0"); strings.Contains(s, "fe80") {
		t.Errorf("link-local address on the TUN:\n%s", s)
	}
}

// A strict reverse-path filter on the outside lets our outer packets in also
// where everything, or the peer itself, goes into the tunnel.
func TestStrictFilterAndOuterPackets(t *testing.T) {
	for name, p := range map[string]hostnet.Policy{
		"everything":    protect("all", "10.1.0.0/24", "0.0.0.0/0"),
		"host to host":  protect("host", "192.0.2.1/32", "192.0.2.2/32"),
		"host anywhere": protect("any", "192.0.2.1/32", "0.0.0.0/0"),
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			run(t, "ip netns exec "+l.gw.ns+" sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.wan.rp_filter=1")
			l.up(hostnet.Options{})
			l.apply(p)
			before := l.filtered()
			for _, src := range []string{"192.0.2.2:4500", "10.2.0.5:4500"} {
				l.where(l.out, udp(src, "192.0.2.1:4500"))
			}
			if n := l.filtered(); n != before {
				t.Errorf("the reverse-path filter dropped %d outer packets\n%s", n-before, run(t, "ip -n "+l.gw.ns+" rule"))
			}
			if name == "everything" {
				l.expect(l.gw, udp("0.0.0.0:1", "198.51.100.9:9"), "tun")
				l.expect(l.gw, udp("10.1.0.1:1", "198.51.100.9:9"), "tun")
				l.expect(l.gw, udp("192.0.2.1:1", "198.51.100.9:9"), "out")
			} else {
				l.expect(l.gw, udp("192.0.2.1:1", "192.0.2.2:9"), map[string]string{"host to host": "tun", "host anywhere": "out"}[name])
			}
		})
	}
}

// filtered is the gateway's count of packets that failed the reverse-path check.
func (l *lab) filtered() int {
	var n int
	lines := strings.Split(run(l.t, "ip netns exec "+l.gw.ns+" cat /proc/net/netstat"), "\n")
	for i := 0; i+1 < len(lines); i++ {
		names, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
		if at := slices.Index(names, "IPReversePathFilter"); at > 0 && at < len(values) {
			fmt.Sscan(values[at], &n)
		}
	}
	return n
}

// Address translation must not carry a policy's packets around the guard.
func TestGuardSeesThroughNAT(t *testing.T) {
	l := newLab(t)
	l.up(hostnet.Options{})
	g := l.gw.ns
	nat := filepath.Join(t.TempDir(), "nat")
	os.WriteFile(nat, []byte(`table ip nat {
	chain post { type nat hook postrouting priority 100; ip saddr 10.1.0.9 snat to 10.1.0.1; masquerade; }
	chain pre { type nat hook prerouting priority -100; ip daddr 192.0.2.1 udp dport 8080 dnat to 10.1.0.5:80; }
}`), 0o600)
	run(t, "ip netns exec "+g+" nft -f "+nat)
	run(t, "ip -n "+l.host.ns+" addr add 10.1.0.9/24 dev lan")
	outer := protect("net", "10.1.0.0/30 10.1.0.5/32", "10.2.0.0/24")
	l.apply(outer)
	l.gw.ok(request{Op: "closetun"}) // steering has nowhere to go: only the guard is between
	// 10.1.0.9 is not the policy's, but becomes it by source NAT.
	for _, c := range []struct {
		p    packet
		want bool
	}{{udp("10.1.0.5:1000", "10.2.0.5:2000"), false}, {udp("10.1.0.9:1000", "10.2.0.5:2000"), false}, {udp("10.1.0.9:1000", "10.3.0.5:2000"), true}} {
		l.where(l.host, c.p)
		left := func() bool {
			return slices.ContainsFunc(l.out.ok(request{Op: "seen"}).Seen, func(s packet) bool { return s.Dst == c.p.Dst })
		}
		if got := left() || c.want && eventually(left); got != c.want {
			t.Errorf("%v: left %v, want %v", c.p, got, c.want)
		}
	}
	fwd := udp("10.2.0.5:1000", "192.0.2.1:8080")
	l.where(l.out, fwd)
	for _, p := range l.host.ok(request{Op: "seen"}).Seen {
		if p.Proto == 17 && p.Dst.Port() == 80 {
			t.Errorf("DNAT let in %v", p)
		}
	}
}

// A mark on a forwarded packet, whoever put it there, opens nothing.
func TestForeignMarksAreNotBelieved(t *testing.T) {
	l := newLab(t)
	l.up(hostnet.Options{})
	rules := filepath.Join(t.TempDir(), "marks")
	os.WriteFile(rules, []byte("table inet x { chain c { type filter hook prerouting priority -300; meta mark set 0x010000aa; }; }\n"), 0o600)
	run(t, "ip netns exec "+l.gw.ns+" nft -f "+rules)
	l.apply(siteToSite)
	l.expect(l.host, udp("10.1.0.5:1000", "10.2.0.5:2000"), "tun")
	l.expect(l.out, udp("10.2.0.5:2000", "10.1.0.5:1000"))
	p := siteToSite
	p.InstallRoutes = false // nothing sets another mark
	l.apply(p)
	l.expect(l.host, udp("10.1.0.5:1000", "10.2.0.5:2000"))
}

func roadWarriors(n int) (ps []hostnet.Policy) {
	for i := range n {
		ps = append(ps, protect(fmt.Sprint("rw", i), "10.1.0.0/24", fmt.Sprintf("10.64.%d.%d/32", i/250, i%250+1)))
	}
	return ps
}

// Thousands work like one, and the work for them grows with their number, not with its
// square. (BenchmarkApply has the times.)
func TestThousandsOfPolicies(t *testing.T) {
	l := newLab(t)
	l.up(hostnet.Options{})
	work := func(ps []hostnet.Policy) uint64 {
		return l.gw.ok(request{Op: "apply", State: hostnet.State{Devices: []string{"adit0"}, Policies: ps}}).Work
	}
	few := work(roadWarriors(200))
	fewRules := strings.Count(l.ruleset(), "\n")
	work(nil)
	ps := roadWarriors(2000)
	first := work(ps)
	rules := strings.Count(l.ruleset(), "\n")
	second := work(ps[1:])
	t.Logf("200 policies: %d allocations, %d lines of rules; 2000: %d, %d; one less: %d", few, fewRules, first, rules, second)
	if first > 20*few || second > first || rules > 12*fewRules {
		t.Errorf("the work grows faster than the policies")
	}
	l.expect(l.host, udp("10.1.0.5:1000", "10.64.7.200:7"), "tun")
	l.expect(l.host, udp("10.1.0.5:1000", "10.64.0.1:7"), "out")
	l.expect(l.out, udp("10.2.0.5:1000", "10.1.0.5:7"), "host")
	// Many wide policies that overlap, beyond what the dispatch can cut.
	ps = nil
	for i := range 400 {
		p := protect(fmt.Sprint("wide", i), fmt.Sprintf("10.1.%d.%d/32", i/250, i%250+1), fmt.Sprintf("10.0.0.0..10.%d.%d.255", 200+i/250, i%250))
		ps = append(ps, p)
	}
	l.apply(ps...)
	l.expect(l.host, udp("10.1.0.5:1000", "10.64.7.200:7"), "tun")
}

func TestBadStatesAreRefused(t *testing.T) {
	l := newLab(t)
	l.up(hostnet.Options{})
	good := siteToSite
	bad := map[string]func(*hostnet.Policy){
		"id":       func(p *hostnet.Policy) { p.ID = "" },
		"action":   func(p *hostnet.Policy) { p.Action = 0 },
		"device":   func(p *hostnet.Policy) { p.Device = "nosuch" },
		"local":    func(p *hostnet.Policy) { p.Local = nil },
		"zero":     func(p *hostnet.Policy) { p.Remote = []hostnet.Selector{{}} },
		"backward": func(p *hostnet.Policy) { p.Remote[0].From, p.Remote[0].To = p.Remote[0].To, p.Remote[0].From },
		"mixed":    func(p *hostnet.Policy) { p.Remote[0].To = netip.MustParseAddr("::1") },
		"mapped": func(p *hostnet.Policy) {
			p.Remote[0].From, p.Remote[0].To = netip.MustParseAddr("::ffff:1.2.3.4"), netip.MustParseAddr("::ffff:1.2.3.5")
		},
		"ports": func(p *hostnet.Policy) { p.Remote[0].Proto, p.Remote[0].PortFrom, p.Remote[0].PortTo = 6, 9, 8 },
		"mtu":   func(p *hostnet.Policy) { p.MTU = -1 },
	}
	l.apply(good)
	for name, spoil := range bad {
		p := protect("net", "10.1.0.0/24", "10.2.0.0/24")
		spoil(&p)
		if r := l.gw.do(request{Op: "apply", State: hostnet.State{Devices: []string{"adit0"}, Policies: []hostnet.Policy{p}}}); r.Err == "" {
			t.Errorf("%s: accepted", name)
		}
	}
	if r := l.gw.do(request{Op: "setup", Device: "wan"}); !strings.Contains(r.Err, "not a TUN") {
		t.Errorf("setup of a foreign device: %q", r.Err)
	}
	if r := l.gw.do(request{Op: "setup", Device: "../x"}); r.Err == "" {
		t.Error("a path passes as a device name")
	}
	l.expect(l.host, udp("10.1.0.5:1000", "10.2.0.5:2000"), "tun") // the good one stands
	// A spoilt journal keeps nobody from starting.
	l.gw.ok(request{Op: "addaddr", Device: "adit0", Prefix: netip.MustParsePrefix("10.50.0.1/32")})
	l.gw.kill()
	files, _ := filepath.Glob(l.journal + "/state-*.json")
	if len(files) != 1 {
		t.Fatalf("journals: %v", files)
	}
	if fi, _ := os.Stat(files[0]); fi.Mode().Perm() != 0o600 {
		t.Errorf("journal mode %v", fi.Mode())
	}
	os.WriteFile(files[0], []byte(`{"Protocols":[1,2,4,9999],"Addresses":[{"Device":"../../x"}]`), 0o600)
	l.restart()
	l.up(hostnet.Options{})
	l.apply(good)
	l.expect(l.host, udp("10.1.0.5:1000", "10.2.0.5:2000"), "tun")
	l.gw.ok(request{Op: "close"})
	if files, _ := filepath.Glob(l.journal + "/*"); len(files) != 0 {
		t.Errorf("journal after Close: %v", files)
	}
}

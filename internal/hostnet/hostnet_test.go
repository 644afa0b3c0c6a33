package hostnet_test

import (
	"net/netip"
	"strings"
	"testing"

	"adit/internal/hostnet"
)

const own = 0x01000000 // the default own mark

var siteToSite = protect("net", "10.1.0.0/24 2001:db8:1::/64", "10.2.0.0/24 2001:db8:2::/64")

// phases drives a site-to-site policy through its life and returns the clear
// packets seen outside and inside in every phase.
func phases(l *lab, o hostnet.Options) map[string]int {
	leaks := map[string]int{}
	probe := func(phase string) {
		for _, c := range []struct {
			from *agent
			p    packet
		}{
			{l.host, udp("10.1.0.5:1000", "10.2.0.5:2000")},
			{l.host, udp("[2001:db8:1::5]:1000", "[2001:db8:2::5]:2000")},
			{l.gw, udp("10.1.0.1:1000", "10.2.0.5:2001")},
			{l.gw, udp("[2001:db8:1::1]:1000", "[2001:db8:2::5]:2001")},
			{l.out, udp("10.2.0.5:2000", "10.1.0.5:1000")},
			{l.out, udp("[2001:db8:2::5]:2000", "[2001:db8:1::5]:1000")},
		} {
			for _, at := range l.where(c.from, c.p) {
				if at != "tun" {
					leaks[phase]++
				}
			}
		}
	}
	l.up(o)
	o.JournalDir = l.journal
	l.apply(siteToSite)
	probe("up")
	l.apply(siteToSite, protect("other", "10.1.0.0/24", "10.3.0.0/24"))
	probe("reload")
	l.gw.ok(request{Op: "closetun"})
	probe("device gone")
	l.gw.ok(request{Op: "tun", Device: "adit0"})
	l.gw.ok(request{Op: "setup", Device: "adit0"})
	l.gw.ok(request{Op: "refresh"})
	probe("device back")
	l.gw.kill()
	l.restart()
	probe("killed")
	l.gw.ok(request{Op: "new", Options: o})
	probe("started again, no policy yet")
	l.gw.ok(request{Op: "tun", Device: "adit0"})
	l.gw.ok(request{Op: "setup", Device: "adit0"})
	l.apply(siteToSite)
	probe("started again")
	return leaks
}

func TestGuardHoldsThroughEveryPhase(t *testing.T) {
	l := newLab(t)
	for phase, n := range phases(l, hostnet.Options{}) {
		t.Errorf("%s: %d clear packets", phase, n)
	}
	l.expect(l.host, udp("10.1.0.5:1000", "10.2.0.5:2000"), "tun")
	c := l.gw.ok(request{Op: "counters"}).Counters["net"]
	if c.Out.Packets == 0 || c.In.Packets == 0 || c.Out.Bytes == 0 {
		t.Errorf("counters after drops: %+v", c)
	}
	l.gw.ok(request{Op: "close"})
	if rs := l.ruleset(); rs != "" {
		t.Errorf("ruleset after Close:\n%s", rs)
	}
	l.expect(l.host, udp("10.1.0.5:1000", "10.2.0.5:2000"), "out")
}

// Without the guard the same phases leak: the test above can fail.
func TestWithoutGuardThePhasesLeak(t *testing.T) {
	leaks := phases(newLab(t), hostnet.Options{GuardOff: true})
	for _, phase := range []string{"up", "reload", "device gone", "device back", "killed",
		"started again, no policy yet", "started again"} {
		if leaks[phase] == 0 {
			t.Errorf("%s: no clear packets without the guard: the probes prove nothing", phase)
		}
	}
}

func TestRoutesAndRulesComeAndGo(t *testing.T) {
	l := newLab(t)
	l.up(hostnet.Options{})
	show := func() string {
		return run(t, "ip -n "+l.gw.ns+" rule") + run(t, "ip -n "+l.gw.ns+" -6 rule") +
			run(t, "ip -n "+l.gw.ns+" route show table all proto 173") + run(t, "ip -n "+l.gw.ns+" -6 route show table all proto 173")
	}
	before := show()
	l.apply(siteToSite, protect("twin", "10.1.0.0/24", "10.2.0.0/24"))
	after := show()
	for _, want := range []string{"10.2.0.0/24 dev adit0 table 220 ", "src 10.1.0.1 mtu 1380",
		"2001:db8:2::/64 dev adit0 table 220 ", "src 2001:db8:1::1", "lookup 220", "10.2.0.0/24 dev adit0 table 220000"} {
		if !strings.Contains(after, want) {
			t.Errorf("no %q in\n%s", want, after)
		}
	}
	// Another MTU replaces the routes; the smaller of two policies counts.
	narrow := siteToSite
	narrow.MTU = 1300
	l.apply(narrow, protect("twin", "10.1.0.0/24", "10.2.0.0/24"))
	if s := show(); strings.Count(s, "mtu 1300") < 4 || strings.Contains(s, "mtu 1380") {
		t.Errorf("after a change of MTU:\n%s", s)
	}
	// The destination is still needed by the twin.
	l.apply(protect("twin", "10.1.0.0/24", "10.2.0.0/24"))
	if s := show(); !strings.Contains(s, "10.2.0.0/24 dev adit0 table 220 ") || strings.Contains(s, "2001:db8:2::/64") {
		t.Errorf("after removing one of two:\n%s", s)
	}
	l.apply()
	if s := show(); s != before {
		t.Errorf("left behind:\n%s\nbefore:\n%s", s, before)
	}
	l.apply(siteToSite)
	l.gw.ok(request{Op: "close"})
	if s := show(); s != before {
		t.Errorf("left behind after Close:\n%s", s)
	}
}

func TestProtocolsPortsAndRanges(t *testing.T) {
	l := newLab(t)
	l.up(hostnet.Options{})
	p := protect("dns", "10.1.0.0/24", "10.2.0.0/24")
	p.Local = ports(p.Local, 17, 0, 65535)
	p.Remote = ports(p.Remote, 17, 53, 100)
	icmp := protect("echo", "10.1.0.0/24 2001:db8:1::/64", "")
	icmp.Remote = append(ports(sel("10.2.0.0/24"), 1, 8<<8, 8<<8), ports(sel("2001:db8:2::/64"), 58, 128<<8, 128<<8|255)...)
	ranged := protect("range", "10.1.0.5..10.1.0.6", "10.7.0.10..10.7.0.20 2001:db8:7::1..2001:db8:7::9")
	ranged.Local = append(ranged.Local, sel("2001:db8:1::5..2001:db8:1::6")...)
	l.apply(p, icmp, ranged)
	frag := udp("10.1.0.5:0", "10.2.0.5:0")
	frag.Spoof, frag.Fragment = true, 100
	ping := func(src, dst string, proto uint8, typ uint16) packet {
		return packet{Proto: proto, Src: netip.AddrPortFrom(netip.MustParseAddr(src), 0),
			Dst: netip.AddrPortFrom(netip.MustParseAddr(dst), typ<<8)}
	}
	tcp := udp("10.1.0.5:0", "10.2.0.5:53")
	tcp.Proto = 6
	for _, c := range []struct {
		from *agent
		p    packet
		want string
	}{
		{l.host, udp("10.1.0.5:1000", "10.2.0.5:53"), "tun"},
		{l.host, udp("10.1.0.5:1000", "10.2.0.5:100"), "tun"},
		{l.host, udp("10.1.0.5:1000", "10.2.0.5:52"), "out"},
		{l.host, udp("10.1.0.5:1000", "10.2.0.5:101"), "out"},
		{l.gw, udp("10.1.0.1:1000", "10.2.0.5:53"), "tun"},
		{l.gw, udp("10.1.0.1:1000", "10.2.0.5:54000"), "out"},
		{l.host, tcp, "out"},
		{l.host, frag, "tun"}, // may belong to a DNS packet: not in the clear
		{l.host, ping("10.1.0.5", "10.2.0.5", 1, 8), "tun"},
		{l.host, ping("10.1.0.5", "10.2.0.5", 1, 13), "out"},
		{l.host, ping("2001:db8:1::5", "2001:db8:2::5", 58, 128), "tun"},
		{l.host, ping("2001:db8:1::5", "2001:db8:2::5", 58, 200), "out"},
		{l.gw, ping("2001:db8:1::1", "2001:db8:2::5", 58, 128), "tun"},
		{l.host, udp("10.1.0.5:1", "10.7.0.10:9"), "tun"},
		{l.host, udp("10.1.0.5:1", "10.7.0.20:9"), "tun"},
		{l.host, udp("10.1.0.5:1", "10.7.0.9:9"), "out"},
		{l.host, udp("10.1.0.5:1", "10.7.0.21:9"), "out"},
		{l.gw, udp("10.1.0.1:1", "10.7.0.15:9"), "out"}, // source outside the range
		{l.host, udp("[2001:db8:1::5]:1", "[2001:db8:7::9]:9"), "tun"},
		{l.host, udp("[2001:db8:1::5]:1", "[2001:db8:7::a]:9"), "out"},
	} {
		l.expect(c.from, c.p, c.want)
	}
	// Inbound: the same selectors the other way round.
	l.expect(l.out, udp("10.2.0.5:53", "10.1.0.5:1000"))
	l.expect(l.out, udp("10.2.0.5:52", "10.1.0.5:1000"), "host")
}

func TestBypassAndDiscardByPriority(t *testing.T) {
	l := newLab(t)
	l.up(hostnet.Options{})
	bypass := hostnet.Policy{ID: "pass", Action: hostnet.Bypass, Local: sel("10.1.0.0/24"), Remote: ports(sel("10.2.0.0/24"), 17, 99, 99), Priority: 10}
	drop := hostnet.Policy{ID: "drop", Action: hostnet.Discard, Local: sel("10.1.0.0/24"), Remote: ports(sel("10.2.0.0/24"), 17, 66, 66), Priority: 20}
	late := hostnet.Policy{ID: "late", Action: hostnet.Bypass, Local: sel("10.1.0.0/24"), Remote: sel("10.2.0.0/24"), Priority: 5000}
	l.apply(siteToSite, late, drop, bypass)
	l.expect(l.host, udp("10.1.0.5:1000", "10.2.0.5:99"), "out")
	l.expect(l.gw, udp("10.1.0.1:1000", "10.2.0.5:99"), "out")
	l.expect(l.out, udp("10.2.0.5:99", "10.1.0.5:1000"), "host")
	l.expect(l.host, udp("10.1.0.5:1000", "10.2.0.5:66"))
	l.expect(l.gw, udp("10.1.0.1:1000", "10.2.0.5:66"))
	l.expect(l.out, udp("10.2.0.5:66", "10.1.0.5:1000"))
	l.expect(l.host, udp("10.1.0.5:1000", "10.2.0.5:67"), "tun")
	counted := func() hostnet.PolicyCount { return l.gw.ok(request{Op: "counters"}).Counters["drop"] }
	if !eventually(func() bool { return counted().Out.Packets == 2 && counted().In.Packets == 1 }) {
		t.Errorf("discard counted %+v, want 2 out, 1 in", counted())
	}
}

func TestDefaultRouteThroughTheTunnel(t *testing.T) {
	l := newLab(t)
	l.up(hostnet.Options{})
	l.apply(protect("all", "10.1.0.0/24 2001:db8:1::/64", "0.0.0.0/0 ::/0"))
	l.expect(l.host, udp("10.1.0.5:1000", "198.51.100.7:9"), "tun")
	l.expect(l.host, udp("[2001:db8:1::5]:1000", "[2001:db8:99::7]:9"), "tun")
	// Our own encapsulated packets don't loop, other packets of the gateway's
	// public address keep their way, those without a source are hinted inside.
	enc := udp("192.0.2.1:4500", "198.51.100.1:4500")
	enc.Mark = own
	l.expect(l.gw, enc, "out")
	enc6 := udp("[2001:db8:f::1]:4500", "[2001:db8:99::1]:4500")
	enc6.Mark = own
	l.expect(l.gw, enc6, "out")
	l.expect(l.gw, udp("192.0.2.1:1000", "198.51.100.7:22"), "out")
	l.expect(l.gw, udp("[2001:db8:f::1]:1000", "[2001:db8:99::7]:22"), "out")
	l.expect(l.gw, udp("0.0.0.0:1000", "198.51.100.7:22"), "tun")
	l.expect(l.gw, udp("[::]:1000", "[2001:db8:99::7]:22"), "tun")
	// Connected subnets, neighbour discovery and multicast stay outside.
	l.expect(l.gw, udp("10.1.0.1:1000", "10.1.0.5:7"), "host")
	l.expect(l.gw, udp("0.0.0.0:1000", "10.1.0.5:7"), "host")
	l.expect(l.gw, udp("[::]:1000", "[2001:db8:1::5]:7"), "host")
	l.expect(l.host, udp("10.1.0.5:1000", "192.0.2.2:7"), "out")
	l.expect(l.gw, udp("0.0.0.0:1000", "192.0.2.2:7"), "out")
	l.expect(l.out, udp("192.0.2.2:1000", "10.1.0.5:7"), "host")
	run(t, "ip -n "+l.gw.ns+" neigh flush all")
	run(t, "ip -n "+l.gw.ns+" -6 neigh flush all")
	run(t, "ip netns exec "+l.gw.ns+" ping -c1 -W2 2001:db8:1::5")
	run(t, "ip netns exec "+l.host.ns+" ping -c1 -W2 10.1.0.1")
	// And from the rest of the world nothing comes in by the clear way.
	l.expect(l.out, udp("10.2.0.5:1000", "10.1.0.5:7"))
	l.expect(l.out, udp("[2001:db8:2::5]:1000", "[2001:db8:1::5]:7"))
	// What comes out of the tunnel does.
	l.fromTunnel(udp("198.51.100.7:9", "10.1.0.5:1000"), "host")
}

func TestHostToHostTransport(t *testing.T) {
	l := newLab(t)
	l.up(hostnet.Options{})
	l.apply(protect("v4", "192.0.2.1/32", "192.0.2.2/32"), protect("v6", "2001:db8:f::1/128", "2001:db8:f::2/128"))
	for _, c := range []struct{ a, b string }{{"192.0.2.1", "192.0.2.2"}, {"[2001:db8:f::1]", "[2001:db8:f::2]"}} {
		l.expect(l.gw, udp(c.a+":1000", c.b+":7"), "tun")
		l.expect(l.gw, udp(c.a+":500", c.b+":500"), "tun") // not ours: no mark
		ike := udp(c.a+":500", c.b+":500")
		ike.Mark = own
		l.expect(l.gw, ike, "out")
		esp := ike
		esp.Proto = 50
		l.expect(l.gw, esp, "out")
		// Inbound: IKE and ESP reach a socket, the rest does not.
		for _, in := range []struct {
			proto uint8
			port  string
			want  bool
		}{{17, ":500", true}, {17, ":4500", true}, {17, ":501", false}, {6, ":500", false}} {
			p := udp(c.b+":500", c.a+in.port)
			p.Proto = in.proto
			before := l.dropped()
			l.where(l.out, p)
			if in.want && l.dropped() != before {
				t.Errorf("%v: not let in", p)
			}
			if !in.want && !eventually(func() bool { return l.dropped() > before }) {
				t.Errorf("%v: let in", p)
			}
		}
	}
	run(t, "ip -n "+l.gw.ns+" -6 neigh flush all")
	esp := udp("[2001:db8:f::1]:500", "[2001:db8:f::2]:500")
	esp.Mark = own
	l.expect(l.gw, esp, "out") // needs neighbour discovery first
}

// dropped is the number of inbound packets that the guard dropped.
func (l *lab) dropped() (n uint64) {
	for _, c := range l.gw.ok(request{Op: "counters"}).Counters {
		n += c.In.Packets
	}
	return n
}

func TestSecondInstanceIsRefused(t *testing.T) {
	l := newLab(t)
	l.up(hostnet.Options{})
	second := newAgent(t, l.gw.ns)
	r := second.do(request{Op: "new", Options: hostnet.Options{JournalDir: l.journal}})
	if !r.Running || !strings.Contains(r.Err, "process") {
		t.Errorf("second instance: %+v", r)
	}
	// Another namespace is another world.
	l.host.ok(request{Op: "new", Options: hostnet.Options{JournalDir: l.journal}})
	l.host.ok(request{Op: "close"})
	l.gw.ok(request{Op: "abandon"})
	second.ok(request{Op: "new", Options: hostnet.Options{JournalDir: l.journal}})
	second.ok(request{Op: "close"})
}

func TestKilledInstanceIsReconciled(t *testing.T) {
	l := newLab(t)
	l.up(hostnet.Options{})
	l.apply(siteToSite)
	run(t, "ip -n "+l.gw.ns+" link add keep type veth peer name keep2")
	l.gw.ok(request{Op: "addaddr", Device: "keep", Prefix: netip.MustParsePrefix("10.99.0.1/32")})
	l.expect(l.out, udp("10.2.0.5:1000", "10.1.0.5:7"))
	if !eventually(func() bool { return l.dropped() == 1 }) {
		t.Fatalf("%d packets dropped, want 1", l.dropped())
	}
	l.gw.kill()
	l.restart()
	if s := run(t, "ip -n "+l.gw.ns+" rule"); !strings.Contains(s, "220") {
		t.Fatalf("the killed instance left no rules, nothing to reconcile:\n%s", s)
	}
	// Another configuration: other table and protocol, no policies.
	l.gw.ok(request{Op: "new", Options: hostnet.Options{JournalDir: l.journal, Table: 221, Protocol: 174, Priority: 300}})
	if s := run(t, "ip -n "+l.gw.ns+" rule") + run(t, "ip -n "+l.gw.ns+" addr"); strings.Contains(s, "220") || strings.Contains(s, "10.99.0.1") {
		t.Errorf("stale rules or addresses after New:\n%s", s)
	}
	if !strings.Contains(l.ruleset(), "drop") {
		t.Error("the guard fell at New, before any Apply")
	}
	l.gw.ok(request{Op: "tun", Device: "adit0"})
	l.gw.ok(request{Op: "setup", Device: "adit0"})
	l.apply(siteToSite)
	if c := l.gw.ok(request{Op: "counters"}).Counters["net"]; c.In.Packets != 1 {
		t.Errorf("counter after restart %+v, want the one drop of before", c)
	}
	l.apply()
	if c := l.gw.ok(request{Op: "counters"}).Counters; len(c) != 0 {
		t.Errorf("counters of no policies: %v", c)
	}
	l.gw.ok(request{Op: "close"})
	if rs := l.ruleset(); rs != "" {
		t.Errorf("ruleset after Close:\n%s", rs)
	}
}

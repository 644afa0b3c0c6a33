package hostnet_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"adit/internal/hostnet"
)

// However a program came about by changes, it is the one that the last State
// makes alone (and no change was refused: a refusal starts a new epoch, which
// the names would show).
func TestChangesMakeTheSameProgramAsAFreshStart(t *testing.T) {
	l := newLab(t)
	l.up(hostnet.Options{})
	rng := rand.New(rand.NewPCG(1, 2))
	draw := func() []hostnet.Policy {
		var ps []hostnet.Policy
		for i := range 12 {
			if rng.IntN(2) == 0 {
				continue
			}
			from := rng.IntN(30)
			to := min(from+rng.IntN(12), 31)
			p := protect(fmt.Sprint("p", i), "10.1.0.0/24", fmt.Sprintf("10.9.0.%d..10.9.0.%d", from, to))
			switch rng.IntN(6) {
			case 0:
				p.Remote = sel("0.0.0.0/0")
			case 1:
				p.Remote = append(p.Remote, sel(fmt.Sprintf("2001:db8:9::%d/127", from))...)
				p.Local = append(p.Local, sel("2001:db8:1::/64")...)
			case 2:
				p.Action = hostnet.Bypass
			case 3:
				p.Remote = ports(p.Remote, 17, uint16(from), 100)
			case 4:
				p.Remote = sel("255.255.255.0/24 0.0.0.0/32")
			}
			ps = append(ps, p)
		}
		rng.Shuffle(len(ps), func(a, b int) { ps[a], ps[b] = ps[b], ps[a] })
		return ps
	}
	fresh := newLab(t)
	for range 25 {
		ps := draw()
		l.apply(ps...)
	}
	for range 5 {
		ps := draw()
		l.apply(ps...)
		fresh.up(hostnet.Options{})
		fresh.apply(ps...)
		if got, want := l.canonical(), fresh.canonical(); got != want {
			g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
			for i := range min(len(g), len(w)) {
				if g[i] != w[i] {
					t.Errorf("after changes: %s\nfresh: %s", g[i], w[i])
				}
			}
			t.Fatalf("%d and %d lines; policies %+v", len(g), len(w), ps)
		}
		fresh.gw.ok(request{Op: "close"})
		fresh.gw.ok(request{Op: "closetun"})
	}
}

// canonical is the ruleset with its chains and counters sorted, without counts.
func (l *lab) canonical() string {
	blocks := strings.Split(l.ruleset(), "\n\n")
	for i, b := range blocks {
		blocks[i] = strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(b), "table inet adit {"), "\n}")
		if strings.Contains(b, "packets ") {
			blocks[i] = strings.Fields(strings.TrimPrefix(blocks[i], "\n\t"))[1]
		}
		blocks[i] = strings.TrimSpace(blocks[i])
	}
	slices.Sort(blocks)
	return strings.Join(blocks, "\n")
}

// Both sides overlap: what came out of the tunnel is not sent back into it.
func TestOverlappingSidesDoNotLoop(t *testing.T) {
	l := newLab(t)
	l.up(hostnet.Options{})
	run(t, "ip -n "+l.gw.ns+" route add 10.1.77.0/24 via 10.1.0.5") // behind the inside network
	l.apply(protect("wide", "10.0.0.0/8", "10.0.0.0/8"))
	l.expect(l.host, udp("10.1.0.5:1", "10.2.0.5:9"), "tun")
	in := udp("10.2.0.5:9", "10.1.77.1:1")
	l.fromTunnel(in, "host")
	// In the clear the same packet is not let in (it goes into the tunnel).
	if got := l.where(l.out, in); slices.Contains(got, "host") {
		t.Errorf("clear packet: seen at %q", got)
	}
	// A hub sends from one tunnel network to another.
	l.apply(protect("a", "0.0.0.0/0", "10.2.0.0/24"), protect("b", "0.0.0.0/0", "10.3.0.0/24"))
	l.fromTunnel(udp("10.2.0.5:9", "10.3.0.7:1"), "tun")
}

func TestIncludeConnected(t *testing.T) {
	l := newLab(t)
	l.up(hostnet.Options{})
	p := protect("all", "10.1.0.0/24", "0.0.0.0/0")
	l.apply(p)
	l.expect(l.host, udp("10.1.0.5:1", "192.0.2.2:9"), "out")
	p.IncludeConnected = true
	l.apply(p)
	l.expect(l.host, udp("10.1.0.5:1", "192.0.2.2:9"), "tun")
	l.expect(l.out, udp("192.0.2.2:9", "10.1.0.5:1"))
}

// Connected subnets are looked at again by Refresh.
func TestRefreshSeesNewSubnets(t *testing.T) {
	l := newLab(t)
	l.up(hostnet.Options{})
	l.apply(protect("all", "10.1.0.0/24", "0.0.0.0/0"))
	l.expect(l.host, udp("10.1.0.5:1", "10.2.0.5:9"), "tun")
	run(t, "ip -n "+l.gw.ns+" addr add 10.2.0.1/24 dev wan")
	run(t, "ip -n "+l.out.ns+" addr add 10.2.0.5/24 dev wan")
	l.gw.ok(request{Op: "refresh"})
	l.expect(l.host, udp("10.1.0.5:1", "10.2.0.5:9"), "out")
}

func TestTwoDevices(t *testing.T) {
	l := newLab(t)
	l.up(hostnet.Options{})
	second := newAgent(t, l.gw.ns)
	second.ok(request{Op: "tun", Device: "adit1"})
	l.gw.ok(request{Op: "setup", Device: "adit1"})
	// The same far network from two hosts, each by a device of its own.
	a, b := protect("a", "10.1.0.5/32", "10.2.0.0/24"), protect("b", "10.1.0.6/32", "10.2.0.0/24")
	b.Device = "adit1"
	run(t, "ip -n "+l.host.ns+" addr add 10.1.0.6/24 dev lan")
	l.gw.ok(request{Op: "apply", State: hostnet.State{Devices: []string{"adit0", "adit1"}, Policies: []hostnet.Policy{a, b}}})
	l.expect(l.host, udp("10.1.0.5:1", "10.2.0.5:9"), "tun")
	l.expect(l.host, udp("10.1.0.6:1", "10.2.0.5:9"))
	if !eventually(func() bool {
		return slices.ContainsFunc(second.ok(request{Op: "seen"}).Seen, func(p packet) bool { return p.Src.Addr() == netip.MustParseAddr("10.1.0.6") })
	}) {
		t.Error("nothing came by adit1")
	}
}

// IKE messages arrive in fragments too, and a marked packet from outside is not
// believed.
func TestFragmentsOfIKEPass(t *testing.T) {
	l := newLab(t)
	l.up(hostnet.Options{})
	l.apply(protect("v4", "192.0.2.1/32", "192.0.2.2/32"), protect("v6", "2001:db8:f::1/128", "2001:db8:f::2/128"))
	for _, c := range []struct{ src, dst string }{{"192.0.2.2:500", "192.0.2.1:500"}, {"[2001:db8:f::2]:500", "[2001:db8:f::1]:500"}} {
		p := udp(c.src, c.dst)
		p.Spoof, p.Fragment = true, 3
		l.where(l.out, p)
		if n := l.dropped(); n != 0 {
			t.Errorf("%v: fragment dropped (%d)", p, n)
		}
		p.Proto = 6
		l.where(l.out, p)
		if !eventually(func() bool { return l.dropped() > 0 }) {
			t.Errorf("%v: fragment of another protocol let in", p)
		}
		l.apply()
		l.apply(protect("v6", "2001:db8:f::1/128", "2001:db8:f::2/128"))
	}
}

// ICMP errors about our outer packets come in, those about others don't.
func TestErrorsAboutOuterPacketsPass(t *testing.T) {
	l := newLab(t)
	l.up(hostnet.Options{})
	l.apply(protect("v4", "192.0.2.1/32", "0.0.0.0/0"), protect("v6", "2001:db8:f::1/128", "::/0"))
	for _, c := range []struct {
		proto    uint8
		src, dst string
		typ      uint16
		quoted   uint8
		from     uint16
		letIn    bool
	}{
		{1, "10.2.0.5", "192.0.2.1", 3<<8 | 4, 17, 4500, true},
		{1, "10.2.0.5", "192.0.2.1", 3<<8 | 4, 50, 0, true},
		{1, "10.2.0.5", "192.0.2.1", 11 << 8, 17, 500, true},
		{1, "10.2.0.5", "192.0.2.1", 3<<8 | 4, 17, 999, false},
		{1, "10.2.0.5", "192.0.2.1", 3<<8 | 4, 6, 4500, false},
		{1, "10.2.0.5", "192.0.2.1", 8 << 8, 17, 4500, false},
		{58, "2001:db8:2::5", "2001:db8:f::1", 2 << 8, 17, 4500, true},
		{58, "2001:db8:2::5", "2001:db8:f::1", 2 << 8, 50, 0, true},
		{58, "2001:db8:2::5", "2001:db8:f::1", 2 << 8, 17, 999, false},
		{58, "2001:db8:2::5", "2001:db8:f::1", 128 << 8, 17, 4500, false},
	} {
		src, dst := netip.MustParseAddr(c.src), netip.MustParseAddr(c.dst)
		inner := packet{Proto: c.quoted, Src: netip.AddrPortFrom(dst, c.from), Dst: netip.AddrPortFrom(src, 4500)}
		p := packet{Proto: c.proto, Src: netip.AddrPortFrom(src, c.typ), Dst: netip.AddrPortFrom(dst, c.typ), Spoof: true, Payload: inner.bytes()}
		before := l.dropped()
		l.where(l.out, p)
		if c.letIn && l.dropped() != before {
			t.Errorf("%+v: not let in", c)
		}
		if !c.letIn && !eventually(func() bool { return l.dropped() > before }) {
			t.Errorf("%+v: let in", c)
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	needRoot(t)
	for name, o := range map[string]hostnet.Options{
		"mark with holes":  {MarkMask: 0xf0f00000},
		"narrow mark":      {MarkMask: 0x3},
		"kernel protocol":  {Protocol: 2},
		"late priority":    {Priority: 32766},
		"local table":      {Table: 255},
		"overlapping":      {Table: 300, SteerTable: 250},
		"table among ours": {Table: 220005},
	} {
		o.JournalDir = t.TempDir()
		if n, err := hostnet.New(o); err == nil {
			n.Close()
			t.Errorf("%s: accepted", name)
		}
	}
}

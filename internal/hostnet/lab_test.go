package hostnet_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"adit/internal/hostnet"
)

// lab is a host in the inside network, a gateway, and the outside, which is at
// the same time the far network (reachable without any tunnel, so that a leak is
// a packet that arrives):
//
//	host 10.1.0.5 -- lan -- 10.1.0.1 gateway 192.0.2.1 -- wan -- 192.0.2.2 outside 10.2.0.5
//	2001:db8:1::5        2001:db8:1::1   2001:db8:f::1   2001:db8:f::2   2001:db8:2::5
type lab struct {
	t               testing.TB
	prefix, journal string
	host, gw, out   *agent
}

type agent struct {
	t    testing.TB
	ns   string
	cmd  *exec.Cmd
	enc  *json.Encoder
	dec  *json.Decoder
	dead bool
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("network namespaces need root")
	}
}

func run(t testing.TB, command string) string {
	t.Helper()
	f := strings.Fields(command)
	out, err := exec.Command(f[0], f[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return string(out)
}

var labs int

func newLab(t testing.TB) *lab {
	t.Helper()
	needRoot(t)
	labs++
	l := &lab{t: t, prefix: fmt.Sprintf("hn%d-%d", os.Getpid(), labs), journal: t.TempDir()}
	for _, n := range []string{"h", "g", "o"} {
		ns := l.prefix + n
		run(t, "ip netns add "+ns)
		t.Cleanup(func() { exec.Command("ip", "netns", "del", ns).Run() })
		run(t, "ip -n "+ns+" link set lo up")
		for _, s := range []string{"all", "default"} {
			run(t, "ip netns exec "+ns+" sysctl -qw net.ipv6.conf."+s+".accept_dad=0 net.ipv4.conf."+s+".rp_filter=0")
		}
	}
	h, g, o := l.prefix+"h", l.prefix+"g", l.prefix+"o"
	for _, c := range []string{
		"ip -n " + h + " link add lan type veth peer name lan netns " + g,
		"ip -n " + g + " link add wan type veth peer name wan netns " + o,
		"ip -n " + h + " link set lan up", "ip -n " + g + " link set lan up",
		"ip -n " + g + " link set wan up", "ip -n " + o + " link set wan up",
		"ip netns exec " + g + " sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
		"ip -n " + h + " addr add 10.1.0.5/24 dev lan", "ip -n " + h + " addr add 2001:db8:1::5/64 dev lan nodad",
		"ip -n " + g + " addr add 10.1.0.1/24 dev lan", "ip -n " + g + " addr add 2001:db8:1::1/64 dev lan nodad",
		"ip -n " + g + " addr add 192.0.2.1/24 dev wan", "ip -n " + g + " addr add 2001:db8:f::1/64 dev wan nodad",
		"ip -n " + o + " addr add 192.0.2.2/24 dev wan", "ip -n " + o + " addr add 2001:db8:f::2/64 dev wan nodad",
		"ip -n " + o + " addr add 10.2.0.5/32 dev lo", "ip -n " + o + " addr add 2001:db8:2::5/128 dev lo nodad",
		"ip -n " + h + " route add default via 10.1.0.1", "ip -n " + h + " -6 route add default via 2001:db8:1::1",
		"ip -n " + g + " route add default via 192.0.2.2", "ip -n " + g + " -6 route add default via 2001:db8:f::2",
		"ip -n " + o + " route add default via 192.0.2.1", "ip -n " + o + " -6 route add default via 2001:db8:f::1",
	} {
		run(t, c)
	}
	l.host, l.gw, l.out = newAgent(t, h), newAgent(t, g), newAgent(t, o)
	l.host.ok(request{Op: "sniff", Device: "lan"})
	l.out.ok(request{Op: "sniff", Device: "wan"})
	return l
}

func newAgent(t testing.TB, ns string) *agent {
	t.Helper()
	a := &agent{t: t, ns: ns, cmd: exec.Command("ip", "netns", "exec", ns, os.Args[0])}
	a.cmd.Env = append(os.Environ(), "HOSTNET_AGENT=1", "GORACE=atexit_sleep_ms=0")
	a.cmd.Stderr = os.Stderr
	in, err := a.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := a.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	a.enc, a.dec = json.NewEncoder(in), json.NewDecoder(bufio.NewReader(out))
	t.Cleanup(func() {
		in.Close()
		if !a.dead {
			a.cmd.Wait()
		}
	})
	return a
}

// kill ends the agent as SIGKILL does ("ip netns exec" has become the agent).
func (a *agent) kill() {
	a.cmd.Process.Kill()
	a.cmd.Wait()
	a.dead = true
}

func (a *agent) do(q request) answer {
	a.t.Helper()
	if err := a.enc.Encode(&q); err != nil {
		a.t.Fatal(err)
	}
	var r answer
	if err := a.dec.Decode(&r); err != nil {
		a.t.Fatalf("agent in %s died at %s: %v", a.ns, q.Op, err)
	}
	return r
}

func (a *agent) ok(q request) answer {
	a.t.Helper()
	r := a.do(q)
	if r.Err != "" {
		a.t.Fatalf("%s: %s", q.Op, r.Err)
	}
	return r
}

// up starts hostnet on the gateway, with a TUN device.
func (l *lab) up(o hostnet.Options) {
	l.t.Helper()
	o.JournalDir = l.journal
	l.gw.ok(request{Op: "new", Options: o})
	l.gw.ok(request{Op: "tun", Device: "adit0"})
	l.gw.ok(request{Op: "setup", Device: "adit0", MTU: 1400})
}

func (l *lab) apply(ps ...hostnet.Policy) {
	l.t.Helper()
	l.gw.ok(request{Op: "apply", State: hostnet.State{Devices: []string{"adit0"}, Policies: ps}})
}

// restart is a new process for the gateway after the old one is gone.
func (l *lab) restart() { l.gw = newAgent(l.t, l.gw.ns) }

// where sends a packet from an agent and returns the places where it was seen:
// "out" (on the wire outside), "host" (on the inside network), "tun".
func (l *lab) where(from *agent, p packet, want ...string) []string {
	l.t.Helper()
	return l.places(p, func(ps ...packet) { from.ok(request{Op: "send", Packets: ps}) }, want...)
}

// fromTunnel sends a packet out of the gateway's TUN device.
func (l *lab) fromTunnel(p packet, want ...string) {
	l.t.Helper()
	if got := l.places(p, func(ps ...packet) { l.gw.ok(request{Op: "inject", Packets: ps}) }, want...); !slices.Equal(got, want) {
		l.t.Errorf("%v from the tunnel: seen at %q, want %q", p, got, want)
	}
}

func (l *lab) places(p packet, send func(...packet), want ...string) []string {
	l.t.Helper()
	agents := []struct {
		name string
		*agent
	}{{"host", l.host}, {"out", l.out}, {"tun", l.gw}}
	for _, a := range agents {
		a.ok(request{Op: "forget"})
	}
	send(p)
	// What is on its way arrives within a few softirqs. On a busy machine that may
	// take long: what is wanted is waited for; then, until some looks in a row see
	// nothing new.
	var found []string
	deadline := time.Now().Add(3 * time.Second)
	for calm, last := 0, -1; calm < 4; {
		time.Sleep(8 * time.Millisecond)
		found = found[:0]
		total := 0
		for _, a := range agents {
			r := a.ok(request{Op: "seen"})
			total += len(r.Seen)
			if slices.ContainsFunc(r.Seen, func(s packet) bool { return same(s, p) }) {
				found = append(found, a.name)
			}
		}
		missing := slices.ContainsFunc(want, func(w string) bool { return !slices.Contains(found, w) })
		if total != last || missing && time.Now().Before(deadline) {
			calm = 0
		}
		calm, last = calm+1, total
	}
	return found
}

// eventually waits for what a busy machine may be slow to do.
func eventually(done func() bool) bool {
	for deadline := time.Now().Add(3 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if done() {
			return true
		}
	}
	return done()
}

// same compares what was sent with what was seen; an unset source matches all.
func same(seen, sent packet) bool {
	if seen.Proto != sent.Proto || seen.Dst.Addr() != sent.Dst.Addr() || seen.Fragment != sent.Fragment {
		return false
	}
	if sent.Fragment == 0 && sent.Proto != 50 && seen.Dst.Port() != sent.Dst.Port() {
		return false
	}
	return !sent.Src.IsValid() || sent.Src.Addr().IsUnspecified() || seen.Src.Addr() == sent.Src.Addr()
}

func udp(src, dst string) packet {
	return packet{Proto: 17, Src: netip.MustParseAddrPort(src), Dst: netip.MustParseAddrPort(dst)}
}

func (l *lab) expect(from *agent, p packet, want ...string) {
	l.t.Helper()
	if got := l.where(from, p, want...); !slices.Equal(got, want) {
		l.t.Errorf("%v: seen at %q, want %q", p, got, want)
	}
}

func sel(s string) []hostnet.Selector {
	var out []hostnet.Selector
	for _, p := range strings.Fields(s) {
		if from, to, ok := strings.Cut(p, ".."); ok {
			out = append(out, hostnet.Selector{From: netip.MustParseAddr(from), To: netip.MustParseAddr(to)})
			continue
		}
		out = append(out, hostnet.PrefixSelector(netip.MustParsePrefix(p)))
	}
	return out
}

func ports(s []hostnet.Selector, proto uint8, from, to uint16) []hostnet.Selector {
	for i := range s {
		s[i].Proto, s[i].PortFrom, s[i].PortTo = proto, from, to
	}
	return s
}

func protect(id, local, remote string) hostnet.Policy {
	return hostnet.Policy{ID: id, Action: hostnet.Protect, Local: sel(local), Remote: sel(remote), Priority: 1000,
		Device: "adit0", MTU: 1380, InstallRoutes: true, SrcHint: true}
}

// ruleset returns what is in the gateway's nftables.
func (l *lab) ruleset() string {
	return run(l.t, "ip netns exec "+l.gw.ns+" nft list ruleset")
}

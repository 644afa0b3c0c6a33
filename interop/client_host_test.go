package interop_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"adit/interop/lab"
)

const ownResolver = "# mine\nnameserver 192.0.2.53\nsearch home.example\noptions edns0\n"

// reaches pings from the client's machine.
func (l *clientLab) reaches(to netip.Addr) bool {
	l.t.Helper()
	got, err := l.Ping(lab.Left, to, lab.PingOptions{Count: 2, Timeout: 700 * time.Millisecond, Pattern: marker})
	if err != nil {
		l.t.Fatal(err)
	}
	return got.Received > 0
}

// clear counts pings that left the client's machine in the clear. (The gateway sends on
// what is for others, by the same wire.)
func (l *clientLab) clear() int {
	return l.outside.Count(func(p *lab.Packet) bool {
		return p.Outgoing && p.Class == lab.ClassICMP && strings.Contains(string(p.Bytes), string(marker))
	})
}

// listClear names them for a failure.
func (l *clientLab) listClear() (text string) {
	l.outside.Count(func(p *lab.Packet) bool {
		if p.Class == lab.ClassICMP {
			text += fmt.Sprintf(" %v>%v(%v)", p.Src, p.Dst, p.Outgoing)
		}
		return false
	})
	return text
}

// As root: some networks, with name servers in resolv.conf, then everything, with the
// attacks that aim at clients. All is undone after an end, and after kill -9 by the next
// start; until then what the tunnel protected goes nowhere.
func TestClientOfTheHost(t *testing.T) {
	t.Parallel()
	for _, k := range []kind{strongSwan, adit} {
		t.Run(string(k), func(t *testing.T) {
			l := newClientLab(t, k, lab.Bridge, "0.0.0.0/0, ::/0")
			resolver := filepath.Join(l.Dir, "resolv.conf")
			l.must(os.WriteFile(resolver, []byte(ownResolver), 0o644))
			if k == adit {
				l.attacks(netip.MustParseAddr("10.3.0.99"), false)
			}
			before := l.state(resolver)
			unchanged := func(after string) {
				t.Helper()
				if now := l.state(resolver); now != before {
					t.Errorf("%s there is left:\n%s\nbefore it was\n%s", after, now, before)
				}
			}
			var err error
			l.outside, err = l.Capture(lab.Left, lab.Wan)
			l.must(err)
			l.split(resolver)
			unchanged("after a tunnel for some networks")

			p := l.connect(true, "names are asked inside", "--resolv-conf", resolver)
			l.says(p, "everything goes through the tunnel")
			l.full(resolver)
			if k == adit {
				l.attacks(vip4[0], true)
			}
			l.gateway.Kill9()
			l.silent("the gateway is dead")
			p.Kill()
			l.silent("the client was killed")
			l.must(l.gateway.Start())
			if b, err := os.ReadFile(resolver); err != nil || !strings.Contains(string(b), "#adit# nameserver 192.0.2.53") {
				t.Errorf("after kill -9: %s %v", b, err)
			}
			if out, err := l.Exec(20*time.Second, lab.Left, l.bin, "connect", "--undo"); err != nil {
				t.Errorf("--undo: %s %v", out, err)
			}
			unchanged("after kill -9 and --undo")
		})
	}
}

// split connects for some networks and ends it in order.
func (l *clientLab) split(resolver string) {
	t := l.t
	t.Helper()
	p := l.connect(true, "names are asked inside, by resolv.conf", "--resolv-conf", resolver, "--subnet", "10.2.0.0/24", "--subnet", "fd02::/64")
	l.says(p, "through the tunnel: 10.2.0.0/24 fd02::/64")
	for _, a := range []netip.Addr{l.R.Host4, l.R.Host6} {
		l.must(l.WaitPing(lab.Left, a, 5*time.Second))
		if !l.reaches(a) || l.clear() != 0 {
			t.Errorf("%v: not reached, or in the clear", a)
		}
	}
	if b, err := os.ReadFile(resolver); err != nil || !strings.HasPrefix(string(b), "# adit, until the tunnel is down {\nnameserver 10.2.0.2\nnameserver fd02::2\nsearch corp.example home.example\n# } adit\n# mine\nnameserver 192.0.2.53\n#adit# search home.example\n") {
		t.Errorf("resolv.conf: %s %v", b, err)
	}
	// Everything else goes on as before.
	if !l.reaches(l.R.Wan4) || l.clear() == 0 {
		t.Error("what is not the tunnel's is not reached in the clear")
	}
	if err := p.Stop(10 * time.Second); err != nil {
		t.Errorf("%v\n%s", err, p.Log())
	}
	l.outside.Stop()
	var err error
	l.outside, err = l.Capture(lab.Left, lab.Wan)
	l.must(err)
}

// full looks at a tunnel for everything.
func (l *clientLab) full(resolver string) {
	t := l.t
	t.Helper()
	for _, a := range []netip.Addr{l.R.Host4, l.R.Host6} {
		l.must(l.WaitPing(lab.Left, a, 5*time.Second))
	}
	if b, err := os.ReadFile(resolver); err != nil || !strings.Contains(string(b), "\n#adit# nameserver 192.0.2.53\n") || !strings.Contains(string(b), "\noptions edns0\n") {
		t.Errorf("another name server counts beside those inside: %s %v", b, err)
	}
	// Neither the gateway's own address nor a machine of the local network is reached in the clear.
	for _, a := range []netip.Addr{l.R.Wan4, l.L.Host4, netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("2001:db8:7::9")} {
		l.reaches(a)
	}
	if n := l.clear(); n != 0 {
		t.Errorf("%d packets in the clear outside:%s", n, l.listClear())
	}
	if c := l.outside.Counts(); c.ESP() == 0 {
		t.Errorf("no ESP: %+v", c)
	}
}

// silent proves that nothing but IKE and ESP leaves the client's machine.
func (l *clientLab) silent(when string) {
	l.t.Helper()
	for _, a := range []netip.Addr{l.R.Host4, l.R.Host6, l.R.Wan4, l.L.Host4, netip.MustParseAddr("203.0.113.9")} {
		if l.reaches(a) {
			l.t.Errorf("%s: %v is reached", when, a)
		}
	}
	if n := l.clear(); n != 0 {
		l.t.Errorf("%s: %d packets in the clear outside", when, n)
	}
}

// --allow-lan: a machine of the private local network is reached beside a tunnel for
// everything, without it none is; what is inside stays inside, and nothing else leaves in
// the clear.
func TestClientAllowsLocalNetwork(t *testing.T) {
	l := newClientLab(t, adit, lab.Bridge, "0.0.0.0/0, ::/0")
	resolver := filepath.Join(l.Dir, "resolv.conf")
	l.must(os.WriteFile(resolver, []byte(ownResolver), 0o644))
	before := l.state(resolver)
	var err error
	l.outside, err = l.Capture(lab.Left, lab.Wan)
	l.must(err)
	for _, allowed := range []bool{false, true} {
		args := []string{"--resolv-conf", resolver}
		if allowed {
			args = append(args, "--allow-lan")
		}
		p := l.connect(true, "everything goes through the tunnel", args...)
		l.must(l.WaitPing(lab.Left, l.R.Host4, 5*time.Second))
		if got := l.reaches(l.L.Host4); got != allowed {
			t.Errorf("--allow-lan %v: a machine of the local network is reached: %v", allowed, got)
		}
		for _, a := range []netip.Addr{l.R.Wan4, netip.MustParseAddr("203.0.113.9")} {
			l.reaches(a)
		}
		if n := l.clear(); n != 0 {
			t.Errorf("--allow-lan %v: %d packets in the clear outside:%s", allowed, n, l.listClear())
		}
		if err := p.Stop(10 * time.Second); err != nil {
			t.Errorf("%v\n%s", err, p.Log())
		}
	}
	if now := l.state(resolver); now != before {
		t.Errorf("there is left:\n%s\nbefore it was\n%s", now, before)
	}
}

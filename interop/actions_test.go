package interop_test

import (
	"testing"
	"time"

	"adit/interop/lab"
	"adit/interop/peer"
)

// What becomes of a child whose peer deletes it, ends the IKE SA or dies without a
// word: close_action and dpd_action decide, and come to the same.
func TestActions(t *testing.T) {
	t.Parallel()
	for _, action := range []string{"none", "trap", "start"} {
		t.Run(action, func(t *testing.T) {
			among(t, led(), settings{middle: lab.Bridge, charon: impatient}, func(t *testing.T, p *path) {
				left, right := p.ends(false)
				left.child = "close_action = " + action + "\ndpd_action = " + action + "\n"
				left.extra = "dpd_delay = 1s\nkeyingtries = 0\n"
				p.load(left, right)
				p.up()
				p.pings(false)
				for _, event := range []struct {
					name   string
					happen func() error
				}{
					{"the child was deleted", func() error { return p.right.TerminateChild("net") }},
					{"the IKE SA was deleted", func() error { return p.right.Terminate("gw") }},
					{"the peer died", func() error { p.right.Kill9(); return nil }},
				} {
					p.after(action, event.name, event.happen, right)
				}
			})
		})
	}
}

// after lets an event happen and checks what follows it; then the child is up.
func (p *path) after(action, name string, happen func() error, right conn) {
	t := p.t
	t.Helper()
	old := peer.Installed(p.sas(p.left), "net")
	if len(old) != 1 {
		t.Fatalf("before %q: %+v", name, old)
	}
	if err := happen(); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	p.wait("the end of the child after "+name, p.left, func(s []peer.SA) bool {
		c := peer.Installed(s, "net")
		return len(c) == 0 || c[0].SPIIn != old[0].SPIIn
	})
	if p.right.PID() == 0 {
		if err := p.right.Start(); err != nil {
			t.Fatal(err)
		}
		if err := p.right.Load(right.text(rightID, leftID)); err != nil {
			t.Fatal(err)
		}
	}
	up := func() bool { return len(peer.Installed(p.sas(p.left), "net")) > 0 }
	if action != "start" {
		lab.Poll(700*time.Millisecond, func() (bool, error) { return up(), nil })
		if up() {
			t.Errorf("with %s the child came back by itself after %s", action, name)
		}
	}
	switch action {
	case "none":
		if err := p.left.Initiate("net"); err != nil {
			t.Fatalf("after %s: %v", name, err)
		}
	case "trap":
		got, err := p.Ping(lab.LeftHost, p.R.Host4, lab.PingOptions{Timeout: 5 * time.Second})
		if err != nil || got.Received != 1 {
			t.Fatalf("after %s the packet that should bring the child back got no answer: %+v %v", name, got, err)
		}
	}
	p.settled()
	p.pings(false)
}

// Lifetimes by time, bytes and packets: the child is rekeyed, and nothing is lost.
// The peer's kernel-libipsec counts neither bytes nor packets: there, adit does.
func TestLifetimes(t *testing.T) {
	t.Parallel()
	for name, lines := range map[string]string{
		"time":    "rekey_time = 2s\nrand_time = 0s\nlife_time = 60s\n",
		"bytes":   "rekey_bytes = 100000\nrand_bytes = 0\nlife_bytes = 100000000\n",
		"packets": "rekey_packets = 500\nrand_packets = 0\nlife_packets = 1000000\n",
	} {
		t.Run(name, func(t *testing.T) {
			across(t, settings{middle: lab.Bridge}, func(t *testing.T, p *path) {
				left, right := p.ends(false)
				left.child, right.child = lines, lines
				if name == "time" {
					right.child = ""
					left.extra = "rekey_time = 3s\nrand_time = 0s\nover_time = 60s\n"
				}
				p.load(left, right)
				p.up()
				s := p.sas(p.left)
				child, ike := peer.Installed(s, "net")[0].SPIIn, s[0].InitiatorSPI
				if err := p.WaitPing(lab.LeftHost, p.R.Host4, 5*time.Second); err != nil {
					t.Fatal(err)
				}
				there, err := p.StartFlow(lab.Flow{From: lab.LeftHost, To: lab.RightHost, Src: p.L.Host4, Dst: p.R.Host4, Rate: 200, Size: 200})
				if err != nil {
					t.Fatal(err)
				}
				back, err := p.StartFlow(lab.Flow{From: lab.RightHost, To: lab.LeftHost, Src: p.R.Host4, Dst: p.L.Host4, Port: 7778, Rate: 200, Size: 200})
				if err != nil {
					t.Fatal(err)
				}
				p.wait("a rekeyed child", p.left, func(s []peer.SA) bool {
					c := peer.Installed(s, "net")
					return len(c) == 1 && c[0].SPIIn != child
				})
				if name == "time" {
					p.wait("a rekeyed IKE SA", p.left, func(s []peer.SA) bool {
						e := peer.Established(s, "gw")
						return len(e) == 1 && e[0].InitiatorSPI != ike
					})
				}
				for _, f := range []*lab.RunningFlow{there, back} {
					if r := f.Stop(); r.Lost() != 0 || r.Duplicated != 0 {
						t.Errorf("during a rekey: %v", r)
					}
				}
			})
		})
	}
}

// A child stays while it is used, and goes when it was idle for `inactivity`.
func TestInactivity(t *testing.T) {
	t.Parallel()
	among(t, led(), settings{middle: lab.Bridge}, func(t *testing.T, p *path) {
		left, right := p.ends(false)
		left.child = "inactivity = 2s\n"
		p.load(left, right)
		p.up()
		flow, err := p.StartFlow(lab.Flow{From: lab.LeftHost, To: lab.RightHost, Src: p.L.Host4, Dst: p.R.Host4, Rate: 20})
		if err != nil {
			t.Fatal(err)
		}
		if lab.Poll(3*time.Second, func() (bool, error) { return len(peer.Installed(p.sas(p.left), "net")) == 0, nil }) == nil {
			t.Error("the child went though it was used")
		}
		flow.Stop()
		for _, g := range []peer.Gateway{p.left, p.right} {
			p.wait("the end of the idle child", g, func(s []peer.SA) bool { return len(peer.Installed(s, "net")) == 0 })
		}
	})
}

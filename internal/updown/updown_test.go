package updown_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"adit/ike"
	"adit/internal/updown"
	"adit/ipsec"
)

func sel(prefix string) ipsec.Selector { return ipsec.FromPrefix(netip.MustParsePrefix(prefix)) }

func fqdn(s string) ike.Identity { return ike.Identity{Type: ike.IDFQDN, Data: s} }

func theSA() ike.SAInfo {
	return ike.SAInfo{Name: "gw", ID: 7, Instance: 0xabc, Local: netip.MustParseAddrPort("192.0.2.1:500"), Remote: netip.MustParseAddrPort("192.0.2.2:4500"),
		LocalID: fqdn("left.example.org"), RemoteID: fqdn("right.example.org")}
}

func theChild() ike.ChildInfo {
	return ike.ChildInfo{Name: "net", ID: 3, ReqID: 5, Updown: "run me", LocalTS: []ipsec.Selector{sel("10.1.0.0/16")}, RemoteTS: []ipsec.Selector{sel("10.2.0.0/16")}}
}

// seen is an environment as a map; nothing may stand in it twice.
func seen(t interface{ Fatalf(string, ...any) }, env []string) map[string]string {
	m := map[string]string{}
	for _, s := range env {
		k, v, ok := strings.Cut(s, "=")
		if _, twice := m[k]; twice || !ok {
			t.Fatalf("%q twice or without value in %q", k, env)
		}
		m[k] = v
	}
	return m
}

// recorder notes the calls.
type recorder struct {
	mu    sync.Mutex
	calls []map[string]string
	cmds  []string
	notes []string
}

func (r *recorder) options(t *testing.T) updown.Options {
	return updown.Options{
		Device: func(netip.Addr, netip.Addr) string { return "wan0" },
		Report: func(n ike.Note) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.notes = append(r.notes, n.Text)
		},
		Run: func(_ context.Context, command string, env []string, _ func(string)) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.calls, r.cmds = append(r.calls, seen(t, env)), append(r.cmds, command)
			return nil
		},
	}
}

func (r *recorder) of(key string) (out []string) {
	for _, c := range r.calls {
		out = append(out, c[key])
	}
	return out
}

func TestEnvironment(t *testing.T) {
	t.Setenv("PATH", "/sbin:/bin")
	base := map[string]string{
		"PATH": "/sbin:/bin", "PLUTO_VERSION": "1.1", "PLUTO_VERB": "up-client", "PLUTO_CONNECTION": "net", "PLUTO_INTERFACE": "wan0", "PLUTO_REQID": "5",
		"PLUTO_PROTO": "esp", "PLUTO_UNIQUEID": "7", "PLUTO_ME": "192.0.2.1", "PLUTO_MY_ID": "left.example.org", "PLUTO_MY_CLIENT": "10.1.0.0/16",
		"PLUTO_MY_PORT": "0", "PLUTO_MY_PROTOCOL": "0", "PLUTO_PEER": "192.0.2.2", "PLUTO_PEER_ID": "right.example.org", "PLUTO_PEER_CLIENT": "10.2.0.0/16",
		"PLUTO_PEER_PORT": "0", "PLUTO_PEER_PROTOCOL": "0", "ADIT_INSTANCE": "0000000000000abc", "ADIT_CONNECTION": "gw", "ADIT_CHILD": "net", "ADIT_CHILD_ID": "3",
	}
	for _, tt := range []struct {
		name string
		edit func(*ike.SAInfo, *ike.ChildInfo)
		want map[string]string // beside base; "-" must be missing
	}{
		{"plain", func(*ike.SAInfo, *ike.ChildInfo) {}, nil},
		{"host", func(_ *ike.SAInfo, c *ike.ChildInfo) {
			c.LocalTS = []ipsec.Selector{sel("192.0.2.1/32")}
			c.RemoteTS = []ipsec.Selector{sel("192.0.2.2/32")}
		}, map[string]string{"PLUTO_VERB": "up-host", "PLUTO_MY_CLIENT": "192.0.2.1/32", "PLUTO_PEER_CLIENT": "192.0.2.2/32"}},
		{"v6 network", func(_ *ike.SAInfo, c *ike.ChildInfo) {
			c.LocalTS, c.RemoteTS = []ipsec.Selector{sel("::/0")}, []ipsec.Selector{sel("2001:db8:1::/48")}
		}, map[string]string{"PLUTO_VERB": "up-client-v6", "PLUTO_MY_CLIENT": "::/0", "PLUTO_PEER_CLIENT": "2001:db8:1::/48"}},
		{"everything", func(_ *ike.SAInfo, c *ike.ChildInfo) { c.LocalTS = []ipsec.Selector{sel("0.0.0.0/0")} },
			map[string]string{"PLUTO_MY_CLIENT": "0.0.0.0/0"}},
		{"a range that is no prefix", func(_ *ike.SAInfo, c *ike.ChildInfo) {
			c.RemoteTS = []ipsec.Selector{{From: netip.MustParseAddr("10.2.0.5"), To: netip.MustParseAddr("10.2.0.9"), PortTo: 65535}}
		}, map[string]string{"PLUTO_PEER_CLIENT": "10.2.0.0/28"}},
		{"ports", func(_ *ike.SAInfo, c *ike.ChildInfo) {
			c.LocalTS[0].Proto, c.LocalTS[0].PortFrom, c.LocalTS[0].PortTo = 6, 80, 80
			c.RemoteTS[0].Proto, c.RemoteTS[0].PortFrom, c.RemoteTS[0].PortTo = 6, 1024, 2047
		}, map[string]string{"PLUTO_MY_PORT": "80", "PLUTO_MY_PROTOCOL": "6", "PLUTO_PEER_PORT": "1024:2047", "PLUTO_PEER_PROTOCOL": "6"}},
		{"ICMP type and code", func(_ *ike.SAInfo, c *ike.ChildInfo) {
			c.RemoteTS[0].Proto, c.RemoteTS[0].PortFrom, c.RemoteTS[0].PortTo = 1, 3<<8|4, 3<<8|4
		}, map[string]string{"PLUTO_MY_PORT": "3", "PLUTO_PEER_PORT": "4", "PLUTO_PEER_PROTOCOL": "1"}},
		{"virtual addresses", func(sa *ike.SAInfo, _ *ike.ChildInfo) {
			sa.RemoteVIPs = []netip.Addr{netip.MustParseAddr("fd03::10"), netip.MustParseAddr("10.3.0.17"), netip.MustParseAddr("10.3.0.18")}
			sa.LocalVIPs = []netip.Addr{netip.MustParseAddr("10.4.0.1")}
		}, map[string]string{"PLUTO_PEER_SOURCEIP": "fd03::10", "PLUTO_PEER_SOURCEIP6_1": "fd03::10", "PLUTO_PEER_SOURCEIP4_1": "10.3.0.17",
			"PLUTO_PEER_SOURCEIP4_2": "10.3.0.18", "PLUTO_MY_SOURCEIP": "10.4.0.1", "PLUTO_MY_SOURCEIP4_1": "10.4.0.1"}},
		{"the rest", func(sa *ike.SAInfo, c *ike.ChildInfo) {
			sa.NATRemote, sa.RemoteEAPID, c.IfID, c.HostAccess = true, "alice", 42, true
		}, map[string]string{"PLUTO_UDP_ENC": "4500", "PLUTO_XAUTH_ID": "alice", "PLUTO_IF_ID_IN": "42", "PLUTO_IF_ID_OUT": "42", "PLUTO_HOST_ACCESS": "1"}},
		{"hostile identities", func(sa *ike.SAInfo, _ *ike.ChildInfo) {
			sa.RemoteID = fqdn("$(reboot)`id`;\n\x00x=y")
			sa.RemoteEAPID = "a\nPLUTO_PEER_ID=root\x00\x7f\u00e9\xff"
		}, map[string]string{"PLUTO_PEER_ID": "$(reboot)`id`;??x=y", "PLUTO_XAUTH_ID": "a?PLUTO_PEER_ID=root?????"}},
		{"an endless identity", func(sa *ike.SAInfo, _ *ike.ChildInfo) { sa.RemoteID = fqdn(strings.Repeat("x", 65000)) },
			map[string]string{"PLUTO_PEER_ID": strings.Repeat("x", 4096) + "..."}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var rec recorder
			r := updown.New(rec.options(t))
			sa, c := theSA(), theChild()
			tt.edit(&sa, &c)
			r.Event(ike.ChildUp{SA: sa, Child: c})
			until(t, func() bool { rec.mu.Lock(); defer rec.mu.Unlock(); return len(rec.calls) == 1 })
			r.Close()
			want := map[string]string{}
			for _, m := range []map[string]string{base, tt.want} {
				for k, v := range m {
					want[k] = v
				}
			}
			if len(rec.calls) != 2 {
				t.Fatalf("%d calls", len(rec.calls))
			}
			for i, verb := range []string{want["PLUTO_VERB"], strings.Replace(want["PLUTO_VERB"], "up", "down", 1)} {
				want["PLUTO_VERB"] = verb
				for k, v := range want {
					if got, ok := rec.calls[i][k]; !ok || got != v {
						t.Errorf("%s is %q, not %q", k, got, v)
					}
				}
				for k, v := range rec.calls[i] {
					if _, ok := want[k]; !ok {
						t.Errorf("%s=%s was not expected", k, v)
					}
				}
			}
			if rec.cmds[0] != "run me" || rec.cmds[1] != "run me" {
				t.Errorf("ran %q", rec.cmds)
			}
		})
	}
}

func until(t *testing.T, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("did not happen")
		}
	}
}

// One call for each pair of one family and of protocols that go together.
func TestPairs(t *testing.T) {
	var rec recorder
	r := updown.New(rec.options(t))
	c := theChild()
	udp := sel("10.9.0.0/16")
	udp.Proto = 17
	tcp := sel("10.8.0.0/16")
	tcp.Proto = 6
	c.LocalTS = []ipsec.Selector{sel("10.1.0.0/16"), sel("fd01::/64"), udp}
	c.RemoteTS = []ipsec.Selector{sel("10.2.0.0/16"), tcp, sel("fd02::/64")}
	r.Event(ike.ChildUp{SA: theSA(), Child: c})
	until(t, func() bool { rec.mu.Lock(); defer rec.mu.Unlock(); return len(rec.calls) == 4 })
	r.Close()
	var got []string
	for _, c := range rec.calls {
		got = append(got, c["PLUTO_VERB"]+" "+c["PLUTO_MY_CLIENT"]+" "+c["PLUTO_PEER_CLIENT"])
	}
	want := []string{"up-client 10.1.0.0/16 10.2.0.0/16", "up-client 10.1.0.0/16 10.8.0.0/16", "up-client-v6 fd01::/64 fd02::/64", "up-client 10.9.0.0/16 10.2.0.0/16"}
	for _, w := range want[:4] {
		want = append(want, strings.Replace(w, "up", "down", 1))
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nnot %q", got, want)
	}
}

// Rekeys run nothing; the instance stays while the number of the IKE SA changes, and the
// command is the one that ran for up, whatever the configuration became meanwhile.
func TestRekeyAndReload(t *testing.T) {
	var rec recorder
	r := updown.New(rec.options(t))
	sa, c := theSA(), theChild()
	r.Event(ike.ChildUp{SA: sa, Child: c})
	next := sa
	next.ID = 8
	r.Event(ike.IKERekeyed{Old: sa, New: next})
	renewed := c
	renewed.ID, renewed.Updown, renewed.LocalTS, renewed.ReqID = 4, "another", []ipsec.Selector{sel("10.1.1.0/24")}, 99
	r.Event(ike.ChildRekeyed{SA: next, Old: c, New: renewed})
	r.Event(ike.ChildDown{SA: next, Child: c}) // of what was replaced: not a down
	moved := next
	moved.Remote = netip.MustParseAddrPort("198.51.100.9:4500")
	r.Event(ike.Moved{SA: moved, Old: next.Remote})
	r.Event(ike.ChildDown{SA: moved, Child: renewed})
	r.Event(ike.IKEDown{SA: moved})
	until(t, func() bool { rec.mu.Lock(); defer rec.mu.Unlock(); return len(rec.calls) == 2 })
	r.Close()
	for key, want := range map[string][]string{
		"PLUTO_VERB": {"up-client", "down-client"}, "ADIT_INSTANCE": {"0000000000000abc", "0000000000000abc"}, "PLUTO_UNIQUEID": {"7", "8"},
		"PLUTO_MY_CLIENT": {"10.1.0.0/16", "10.1.0.0/16"}, "PLUTO_REQID": {"5", "5"}, "ADIT_CHILD_ID": {"3", "3"}, "PLUTO_PEER": {"192.0.2.2", "198.51.100.9"},
	} {
		if got := rec.of(key); !slices.Equal(got, want) {
			t.Errorf("%s: %q, not %q", key, got, want)
		}
	}
	if !slices.Equal(rec.cmds, []string{"run me", "run me"}) {
		t.Errorf("ran %q", rec.cmds)
	}
}

// What an error of the engine took away goes down with its IKE SA.
func TestDownWithIKESA(t *testing.T) {
	var rec recorder
	r := updown.New(rec.options(t))
	sa := theSA()
	r.Event(ike.ChildUp{SA: sa, Child: theChild()})
	r.Event(ike.IKEDown{SA: sa})
	until(t, func() bool { rec.mu.Lock(); defer rec.mu.Unlock(); return len(rec.calls) == 2 })
	r.Close()
	if got := rec.of("PLUTO_VERB"); !slices.Equal(got, []string{"up-client", "down-client"}) {
		t.Error(got)
	}
}

// Whatever happens in whatever order, and however the commands behave: each up is
// followed by one down, in the end nothing is up, and calls for the same networks never
// run at the same time.
func TestAlwaysBalanced(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var mu sync.Mutex
		state := map[string]string{} // by Child SA and pair: the last verb
		running := map[string]bool{} // by networks
		ran, fault := 0, ""
		fail := func(format string, a ...any) {
			if fault == "" {
				fault = fmt.Sprintf(format, a...)
			}
		}
		r := updown.New(updown.Options{
			AtOnce: rapid.IntRange(1, 4).Draw(t, "at once"), Waiting: rapid.IntRange(1, 12).Draw(t, "waiting"), Timeout: 2 * time.Millisecond, Drain: time.Minute,
			Device: func(netip.Addr, netip.Addr) string { return "wan0" },
			Run: func(ctx context.Context, command string, env []string, _ func(string)) error {
				e := seen(t, env)
				nets := e["ADIT_CHILD"] + " " + e["PLUTO_MY_CLIENT"] + " " + e["PLUTO_PEER_CLIENT"]
				key := e["ADIT_CHILD_ID"] + " " + nets
				verb, _, _ := strings.Cut(e["PLUTO_VERB"], "-")
				mu.Lock()
				ran++
				if running[nets] {
					fail("two calls at once for %s", nets)
				}
				running[nets] = true
				if command != "script of "+e["ADIT_CHILD_ID"] {
					fail("%q ran for %s", command, key)
				}
				if want := map[string]string{"": "up", "up": "down"}[state[key]]; verb != want {
					fail("%s after %q for %s", verb, state[key], key)
				}
				state[key] = verb
				mu.Unlock()
				defer func() { mu.Lock(); running[nets] = false; mu.Unlock() }()
				switch rand.IntN(8) {
				case 0:
					panic("a script's")
				case 1:
					<-ctx.Done()
					return ctx.Err()
				case 2:
					time.Sleep(time.Duration(rand.IntN(1000)) * time.Microsecond)
				case 3:
					return errors.New("exit status 1")
				}
				return nil
			},
		})
		type up struct {
			sa uint32
			c  ike.ChildInfo
		}
		live, next, sas := []up{}, uint32(1), []uint32{1, 2}
		nextSA := uint32(3)
		info := func(id uint32) ike.SAInfo { sa := theSA(); sa.ID = id; return sa }
		child := func() ike.ChildInfo {
			c := theChild()
			c.Name = fmt.Sprint("net", rapid.IntRange(0, 2).Draw(t, "child"))
			c.ID, next = next, next+1
			c.Updown = fmt.Sprint("script of ", c.ID)
			if c.Name != "net0" { // those have two pairs
				c.RemoteTS = append(c.RemoteTS, sel("10.3.0.0/16"))
			}
			return c
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			i := 0
			if len(live) > 0 {
				i = rapid.IntRange(0, len(live)-1).Draw(t, "which")
			}
			switch what := rapid.IntRange(0, 9).Draw(t, "what"); {
			case what < 4 || len(live) == 0:
				u := up{sas[rapid.IntRange(0, 1).Draw(t, "sa")], child()}
				live = append(live, u)
				r.Event(ike.ChildUp{SA: info(u.sa), Child: u.c})
			case what == 4: // a Child rekey, with another script since a reload
				c := child()
				r.Event(ike.ChildRekeyed{SA: info(live[i].sa), Old: live[i].c, New: c})
				live[i].c = c
			case what == 5: // an IKE rekey
				k := rapid.IntRange(0, 1).Draw(t, "sa")
				r.Event(ike.IKERekeyed{Old: info(sas[k]), New: info(nextSA)})
				for j := range live {
					if live[j].sa == sas[k] {
						live[j].sa = nextSA
					}
				}
				sas[k], nextSA = nextSA, nextSA+1
			case what == 6: // the engine lost it
				sa := live[i].sa
				r.Event(ike.IKEDown{SA: info(sa)})
				live = slices.DeleteFunc(live, func(u up) bool { return u.sa == sa })
			case what == 7: // nothing but time
				time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond)
			default:
				r.Event(ike.ChildDown{SA: info(live[i].sa), Child: live[i].c})
				live = slices.Delete(live, i, i+1)
			}
		}
		r.Close()
		r.Event(ike.ChildUp{SA: theSA(), Child: child()}) // too late
		mu.Lock()
		defer mu.Unlock()
		for key, verb := range state {
			if verb != "down" {
				fail("%s ended with %s", key, verb)
			}
		}
		if fault != "" {
			t.Fatal(fault, " after ", ran, " calls")
		}
	})
}

// When more waits than may, an up is refused and told; no down of an up that ran is.
func TestQueueOverflow(t *testing.T) {
	var rec recorder
	o := rec.options(t)
	gate := make(chan struct{})
	run := o.Run
	o.Run = func(ctx context.Context, command string, env []string, line func(string)) error {
		<-gate
		return run(ctx, command, env, line)
	}
	o.AtOnce, o.Waiting = 1, 2
	r := updown.New(o)
	for i := range uint32(6) {
		c := theChild()
		c.ID, c.Name = 10+i, fmt.Sprint("net", i)
		r.Event(ike.ChildUp{SA: theSA(), Child: c})
	}
	for i := range uint32(6) {
		c := theChild()
		c.ID, c.Name = 10+i, fmt.Sprint("net", i)
		r.Event(ike.ChildDown{SA: theSA(), Child: c})
	}
	close(gate)
	until(t, func() bool { rec.mu.Lock(); defer rec.mu.Unlock(); return len(rec.calls) >= 4 })
	r.Close()
	sum := map[string]int{}
	for _, c := range rec.calls {
		sum[c["ADIT_CHILD_ID"]+c["PLUTO_VERB"]]++
	}
	if n := len(rec.calls); n < 4 || n > 6 || n%2 != 0 {
		t.Errorf("%d calls: %v", n, sum)
	}
	for k, n := range sum {
		if n != 1 {
			t.Errorf("%s %d times", k, n)
		}
	}
	if all := strings.Join(rec.notes, "\n"); !strings.Contains(all, "not run for this Child SA") {
		t.Errorf("nobody was told: %s", all)
	}
}

// At the end ups that still wait are not run, and what will not end is killed.
func TestCloseBounded(t *testing.T) {
	var rec recorder
	o := rec.options(t)
	o.Run = func(ctx context.Context, _ string, env []string, _ func(string)) error {
		rec.mu.Lock()
		rec.calls = append(rec.calls, seen(t, env))
		rec.mu.Unlock()
		<-ctx.Done()
		return ctx.Err()
	}
	o.AtOnce, o.Timeout, o.Drain = 1, time.Hour, 50*time.Millisecond
	r := updown.New(o)
	for i := range uint32(3) {
		c := theChild()
		c.ID, c.Name = 10+i, fmt.Sprint("net", i)
		c.RemoteTS = append(c.RemoteTS, sel("10.3.0.0/16")) // is never up, and so not down
		r.Event(ike.ChildUp{SA: theSA(), Child: c})
	}
	until(t, func() bool { rec.mu.Lock(); defer rec.mu.Unlock(); return len(rec.calls) == 1 })
	begin := time.Now()
	r.Close()
	r.Close()
	if d := time.Since(begin); d > 5*time.Second || !slices.Equal(rec.of("PLUTO_VERB"), []string{"up-client", "down-client"}) {
		t.Errorf("it took %v, calls %v", d, rec.of("PLUTO_VERB"))
	}
	if all := strings.Join(rec.notes, "\n"); !strings.Contains(all, "up-client was killed: the gateway ends") || !strings.Contains(all, "down-client was killed: the gateway ends") || strings.Contains(all, "not run") {
		t.Errorf("notes: %s", all)
	}
}

// What cannot be run before the end is told.
func TestCloseTellsWhatIsLost(t *testing.T) {
	var rec recorder
	o := rec.options(t)
	run := o.Run
	o.Run = func(ctx context.Context, command string, env []string, line func(string)) error {
		err := run(ctx, command, env, line)
		if strings.HasPrefix(seen(t, env)["PLUTO_VERB"], "down") {
			<-ctx.Done()
		}
		return err
	}
	o.AtOnce, o.Timeout, o.Drain = 1, time.Hour, 50*time.Millisecond
	r := updown.New(o)
	for i := range uint32(3) {
		c := theChild()
		c.ID, c.Name = 10+i, fmt.Sprint("net", i)
		r.Event(ike.ChildUp{SA: theSA(), Child: c})
	}
	until(t, func() bool { rec.mu.Lock(); defer rec.mu.Unlock(); return len(rec.calls) == 3 })
	r.Close()
	if all := strings.Join(rec.notes, "\n"); !strings.Contains(all, "2 calls were not run") || len(rec.calls) != 4 {
		t.Errorf("%d calls, notes: %s", len(rec.calls), all)
	}
}

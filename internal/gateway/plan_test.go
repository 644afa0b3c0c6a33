package gateway_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"adit/internal/gateway"
)

// What a plan says of a connection is what loading it then does, to the very SAs.
func TestPlanIsWhatLoadDoes(t *testing.T) {
	const start = "start_action=start;"
	base := connection("gw", leftAddr, rightAddr, "net:"+start+leftNet, "two:"+start+"local_ts=10.3.0.0/24;remote_ts=10.4.0.0/24")
	for _, c := range []struct {
		name, conf, want string
	}{
		{"unchanged", base, "none"},
		{"one child", strings.Replace(base, "10.4.0.0/24", "10.4.0.0/25", 1), "change children.two.remote_ts two:change closes starts"},
		{"an option of the connection", strings.Replace(base, "keyingtries = 0", "keyingtries = 0\n dpd_delay = 70s", 1), "change dpd_delay closes net:none closes starts two:none closes starts"},
		{"a child less", connection("gw", leftAddr, rightAddr, "net:"+start+leftNet), "change two:remove closes guard>none"},
		{"a child more", connection("gw", leftAddr, rightAddr, "net:"+start+leftNet, "two:"+start+"local_ts=10.3.0.0/24;remote_ts=10.4.0.0/24", "six:local_ts=10.6.0.0/24;remote_ts=10.7.0.0/24;start_action=trap"),
			"change six:add none>trap"},
		{"no longer started", connection("gw", leftAddr, rightAddr, "net:"+leftNet, "two:"+start+"local_ts=10.3.0.0/24;remote_ts=10.4.0.0/24"), "change children.net.start_action net:change closes guard>none"},
		{"kept up", connection("gw", leftAddr, rightAddr, "net:keep_up=yes;"+leftNet, "two:"+start+"local_ts=10.3.0.0/24;remote_ts=10.4.0.0/24"),
			"change dpd_delay children.net.keep_up children.net.start_action closes net:change closes starts two:none closes starts"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				left, right := pair(t)
				defer right.gw.Shutdown()
				defer left.gw.Shutdown()
				right.load(connection("gw", rightAddr, leftAddr, "net:"+rightNet, "two:local_ts=10.4.0.0/24;remote_ts=10.3.0.0/24"))
				left.load(base)
				time.Sleep(time.Second)
				before, was := identities(t, left)
				p := model(t, c.conf).Peers[0]
				plan, err := left.gw.PlanConn(context.Background(), p)
				if err != nil {
					t.Fatal(err)
				}
				if got := told(plan); got != c.want {
					t.Errorf("the plan:\n%s\nwant\n%s", got, c.want)
				}
				if now, is := identities(t, left); fmt.Sprint(now) != fmt.Sprint(before) || is != was {
					t.Error("planning changed something")
				}
				if err := left.gw.LoadConn(p); err != nil {
					t.Fatal(err)
				}
				time.Sleep(20 * time.Second)
				after, is := identities(t, left)
				if len(plan.ClosesIKE) > 0 != (is != was) {
					t.Errorf("the IKE SA was %d and is %d", was, is)
				}
				for _, child := range plan.Children {
					now, up := after[child.Name]
					if len(child.ClosesChild) > 0 && up && now == before[child.Name] || child.Starts && !up || len(child.KeepsChild) > 0 && now != before[child.Name] {
						t.Errorf("%+v: was %d, is %d", child, before[child.Name], now)
					}
				}
				if again, err := left.gw.PlanConn(context.Background(), model(t, c.conf).Peers[0]); err != nil || again.Verdict != gateway.Unchanged {
					t.Errorf("planned again: %v %v", again, err)
				}
			})
		})
	}
}

// told is a plan in few words.
func told(p gateway.Plan) string {
	words := []string{string(p.Verdict)}
	for _, d := range p.Differences {
		words = append(words, d.Path)
	}
	if len(p.ClosesIKE) > 0 {
		words = append(words, "closes")
	}
	for _, c := range p.Children {
		if len(c.ClosesChild) == 0 && !c.Starts && c.StandsNow == c.StandsThen && c.Verdict == gateway.Unchanged {
			continue
		}
		words = append(words, c.Name+":"+string(c.Verdict))
		if len(c.ClosesChild) > 0 {
			words = append(words, "closes")
		}
		if c.Starts {
			words = append(words, "starts")
		}
		if c.StandsNow != c.StandsThen {
			words = append(words, c.StandsNow+">"+c.StandsThen)
		}
	}
	return strings.Join(words, " ")
}

// Whoever loads many connections one by one does not wait for a host whose changes
// have become slow; but the guard follows within a second, and one that is fast is
// waited for.
func TestManyLoadsAreDoneTogether(t *testing.T) {
	bubble(t, func(t *testing.T) {
		left, right := pair(t)
		defer right.gw.Shutdown()
		defer left.gw.Shutdown()
		slow := time.Duration(0)
		left.mu.Lock()
		left.apply = func() error { time.Sleep(slow); return nil }
		left.mu.Unlock()
		load := func(i int) {
			t.Helper()
			c := connection(fmt.Sprintf("c%d", i), leftAddr, fmt.Sprintf("198.51.100.%d", i+1), fmt.Sprintf("net%d:start_action=trap;local_ts=10.1.0.0/24;remote_ts=10.9.%d.0/24", i, i))
			if err := left.gw.LoadConn(model(t, c).Peers[0]); err != nil {
				t.Fatal(err)
			}
		}
		stands := func() int {
			left.mu.Lock()
			defer left.mu.Unlock()
			return len(left.state.Policies)
		}
		for i := range 3 {
			load(i)
			if n := stands(); n != i+1 {
				t.Errorf("%d policies stand after %d were loaded", n, i+1)
			}
		}
		slow = 100 * time.Millisecond
		began := time.Now()
		for i := 3; i < 103; i++ {
			load(i)
			time.Sleep(time.Millisecond)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("100 loads took %v", took)
		}
		time.Sleep(time.Second)
		if n := stands(); n != 103 {
			t.Errorf("%d policies stand a second later", n)
		}
		// What goes is waited for: the trap leaves the data plane after the host changed.
		if err := left.gw.UnloadConn("c50"); err != nil {
			t.Fatal(err)
		}
		if n := stands(); n != 102 {
			t.Errorf("%d policies stand after one was unloaded", n)
		}
	})
}

// VICI replaces and unloads what the file loaded; reading the file again brings it
// back, and leaves what only VICI knows.
func TestSourcesOfConnections(t *testing.T) {
	bubble(t, func(t *testing.T) {
		left := newLab(t).end("left", leftAddr)
		defer left.gw.Shutdown()
		conn := func(name, dpd string) string {
			return strings.Replace(connection(name, leftAddr, rightAddr, "net-"+name+":"+leftNet), "keyingtries = 0", "dpd_delay = "+dpd, 1)
		}
		loaded := func() string {
			var list []string
			for _, p := range left.gw.Conns() {
				list = append(list, p.Name+" "+p.DPDDelay.String())
			}
			return strings.Join(list, ", ")
		}
		left.load(conn("a", "1s"), conn("b", "1s"))
		for _, step := range []struct {
			what func() error
			want string
		}{
			{func() error { return left.gw.LoadConn(model(t, conn("a", "2s")).Peers[0]) }, "a 2s, b 1s"},
			{func() error { return left.gw.LoadConn(model(t, conn("c", "2s")).Peers[0]) }, "a 2s, b 1s, c 2s"},
			{func() error { return left.gw.UnloadConn("b") }, "a 2s, c 2s"},
			{func() error { return left.gw.Load(model(t, conn("b", "1s"), conn("a", "1s"))) }, "c 2s, b 1s, a 1s"},
			{func() error { return left.gw.Load(model(t, conn("c", "3s"))) }, "c 3s"},
			{func() error { return left.gw.Load(model(t)) }, ""}, // the file's by now
		} {
			if err := step.what(); err != nil {
				t.Fatal(err)
			}
			if got := loaded(); got != step.want {
				t.Fatalf("loaded %q, want %q", got, step.want)
			}
		}
	})
}

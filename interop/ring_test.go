package interop_test

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"adit/interop/lab"
)

// TestRing sends datagrams one by one through a tunnel, from a host behind each end: they go
// past the devices' queues, which the interfaces' counters tell, unless `ring = no` says
// otherwise. Nothing is lost, and flows keep their order.
func TestRing(t *testing.T) {
	for _, c := range []struct{ name, option string }{{"ring", ""}, {"no_ring", "ring = no\n"}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			runOne(t, pair{adit, adit}, settings{noAttach: true, charon: c.option + "workers = 1\n"}, func(t *testing.T, p *path) {
				left, right := p.ends(false)
				p.load(left, right)
				if err := p.left.Initiate("net"); err != nil {
					t.Fatal(err)
				}
				p.deepQueues()
				if used := p.pastQueues(); used != (c.option == "") {
					t.Errorf("packets go past the devices' queues: %v", used)
				}
			})
		})
	}
}

// pastQueues sends a flow each way and reports whether most of their packets were not
// counted by the devices of the gateways that they left by.
func (p *path) pastQueues() bool {
	t := p.t
	t.Helper()
	const enough = 3000
	nodes := []string{lab.Left, lab.Right}
	var before [2]int
	for i, n := range nodes {
		before[i] = p.sentBy(n)
	}
	var flows [2]*lab.RunningFlow
	for i, f := range []lab.Flow{{From: lab.LeftHost, To: lab.RightHost, Src: p.L.Host4, Dst: p.R.Host4}, {From: lab.RightHost, To: lab.LeftHost, Src: p.R.Host4, Dst: p.L.Host4}} {
		f.Port, f.Rate, f.Size = uint16(9000+i), 3000, 300
		r, err := p.StartFlow(f)
		if err != nil {
			t.Fatal(err)
		}
		flows[i] = r
	}
	for _, f := range flows {
		if err := lab.Poll(p.patience, func() (bool, error) { return f.Received() > enough, nil }); err != nil {
			t.Fatal(err)
		}
	}
	past := true
	for i, f := range flows {
		r := f.Stop()
		counted := p.sentBy(nodes[i]) - before[i]
		t.Logf("%v; %d of them are counted by the device", r, counted)
		if r.Lost() != 0 || r.Duplicated != 0 || r.Reordered != 0 || r.SendErrors != 0 || r.Corrupt != 0 {
			t.Errorf("flow %d: %v", i, r)
		}
		past = past && counted < int(r.Sent)/2
	}
	return past
}

// sentBy is the number of packets that adit0 of a gateway counts as sent.
func (p *path) sentBy(node string) (n int) {
	p.t.Helper()
	err := lab.InNS(p.NS(node), func() error {
		b, err := os.ReadFile("/proc/thread-self/net/dev")
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(b)) {
			if name, rest, _ := strings.Cut(strings.TrimSpace(line), ":"); name == "adit0" {
				n, err = strconv.Atoi(strings.Fields(rest)[9])
			}
		}
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return n
}

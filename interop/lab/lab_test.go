package lab_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"adit/interop/lab"
)

// allow gives the gateways what a lab withholds: routes to each other's inside.
func allow(t *testing.T, l *lab.Lab) {
	t.Helper()
	for _, c := range [][]string{
		{lab.Left, "ip", "route", "add", "10.2.0.0/24", "via", l.R.Wan4.String()},
		{lab.Right, "ip", "route", "add", "10.1.0.0/24", "via", l.L.Wan4.String()},
		{lab.Left, "ip", "route", "add", "fd02::/64", "via", l.R.Wan6.String()},
		{lab.Right, "ip", "route", "add", "fd01::/64", "via", l.L.Wan6.String()},
	} {
		if _, err := l.Exec(5*time.Second, c[0], c[1:]...); err != nil {
			t.Fatal(err)
		}
	}
}

func ping(t *testing.T, l *lab.Lab, v6 bool, o lab.PingOptions) lab.PingResult {
	t.Helper()
	to := l.R.Host4
	if v6 {
		to = l.R.Host6
	}
	r, err := l.Ping(lab.LeftHost, to, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestNoWayWithoutATunnel(t *testing.T) {
	for name, m := range map[string]lab.Middle{"direct": lab.Direct, "bridge": lab.Bridge, "impaired": lab.Impaired, "nat": lab.NAT} {
		t.Run(name, func(t *testing.T) {
			l := lab.ForTest(t, "lbn", lab.Options{Middle: m})
			c, err := l.CaptureOutside()
			if err != nil {
				t.Fatal(err)
			}
			// Gateways reach each other, hosts don't.
			for _, to := range []string{l.R.Wan4.String(), l.R.Wan6.String()} {
				if _, err := l.Exec(5*time.Second, lab.Left, "ping", "-c1", "-W2", to); err != nil {
					t.Errorf("gateway to gateway: %v", err)
				}
			}
			short := lab.PingOptions{Count: 3, Timeout: 100 * time.Millisecond}
			for _, v6 := range []bool{false, true} {
				if r := ping(t, l, v6, short); r.Sent != 3 || r.Received != 0 {
					t.Errorf("ping without a tunnel: %+v", r)
				}
			}
			// The attempts are visible outside: a leak could not hide.
			got := c.Stop()
			if m == lab.NAT { // what is masqueraded shows only the far end
				if got.Clear == 0 {
					t.Errorf("capture saw none of the attempts: %+v", got)
				}
			} else if got.Clear != 6 || got.Missed != 0 {
				t.Errorf("capture saw %d clear packets of 6: %+v", got.Clear, got)
			}
		})
	}
}

func TestPrefixIsExclusiveAndStaleOnesAreRemoved(t *testing.T) {
	l := lab.ForTest(t, "lbx", lab.Options{})
	if _, err := lab.New("lbx", lab.Options{}); !errors.Is(err, lab.ErrInUse) {
		t.Errorf("second lab of the same prefix: %v", err)
	}
	p, err := l.Start(lab.Left, nil, "sleep", "1000")
	if err != nil {
		t.Fatal(err)
	}
	dir := l.Dir
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	select {
	case <-p.Done():
	default:
		t.Error("a process outlived the lab")
	}
	for _, f := range []string{dir, dir + ".lock", "/var/run/netns/lbx-l", "/var/run/netns/lbx-lh"} {
		if _, err := os.Stat(f); err == nil {
			t.Errorf("%s outlived the lab", f)
		}
	}
	if _, err := lab.New("toolong7", lab.Options{}); err == nil {
		t.Error("a prefix of 8 letters was taken")
	}
}

func TestExecTimesOutWithItsChildren(t *testing.T) {
	l := lab.ForTest(t, "lbe", lab.Options{})
	start := time.Now()
	_, err := l.Exec(200*time.Millisecond, lab.Left, "sh", "-c", "sleep 100 & sleep 100")
	if err == nil || time.Since(start) > 3*time.Second {
		t.Errorf("err %v after %v", err, time.Since(start))
	}
	out, err := l.Exec(5*time.Second, lab.Left, "ip", "netns", "pids", l.NS(lab.Left))
	if err != nil || len(strings.Fields(out)) > 1 {
		t.Errorf("left over: %q %v", out, err)
	}
	if out, err := l.Exec(time.Second, lab.Left, "sh", "-c", "echo no; exit 3"); err == nil || out != "no\n" {
		t.Errorf("failing command: %q %v", out, err)
	}
}

func TestImpairedPath(t *testing.T) {
	l := lab.ForTest(t, "lbi", lab.Options{Middle: lab.Impaired})
	allow(t, l)
	if r := ping(t, l, false, lab.PingOptions{Count: 20, Size: 1400}); r.Lost() != 0 {
		t.Fatalf("unimpaired: %+v", r)
	}
	flow := lab.Flow{From: lab.LeftHost, To: lab.RightHost, Src: l.L.Host4, Dst: l.R.Host4, Rate: 2000}
	run := func(i lab.Impairment) lab.FlowResult {
		t.Helper()
		if err := l.Impair(i); err != nil {
			t.Fatal(err)
		}
		f, err := l.StartFlow(flow)
		if err != nil {
			t.Fatal(err)
		}
		var enough uint64 = 400
		if err := lab.Poll(10*time.Second, func() (bool, error) { return f.Received() >= enough, nil }); err != nil {
			t.Fatal(err)
		}
		r := f.Stop()
		t.Logf("%+v: %v", i.Seed, r)
		return r
	}
	if r := run(lab.Impairment{}); r.Lost()+r.Duplicated+r.Reordered+r.Corrupt+r.SendErrors != 0 {
		t.Errorf("unimpaired flow: %v", r)
	}
	if r := run(lab.Impairment{Seed: 1, Loss: 0.2, Duplicate: 0.1}); r.Lost() == 0 || r.Duplicated == 0 || r.Reordered+r.Corrupt != 0 {
		t.Errorf("loss and duplication: %v", r)
	}
	if r := run(lab.Impairment{Seed: 2, Reorder: 0.1}); r.Lost() != 0 || r.Reordered == 0 {
		t.Errorf("reordering: %v", r)
	}
	if r := run(lab.Impairment{Seed: 3, Corrupt: 0.1}); r.Corrupt == 0 || r.Lost() != r.Corrupt {
		t.Errorf("corruption with mended checksums: %v", r)
	}
	l.Impair(lab.Impairment{Delay: 30 * time.Millisecond})
	if r := ping(t, l, true, lab.PingOptions{Count: 3}); r.Lost() != 0 || r.Avg < 60*time.Millisecond {
		t.Errorf("delay of 30 ms a way: %+v", r)
	}
	l.Impair(lab.Impairment{Filter: func(d lab.Direction, _ []byte) bool { return d != lab.RightToLeft }})
	if r := ping(t, l, false, lab.PingOptions{Count: 2, Timeout: 100 * time.Millisecond}); r.Received != 0 {
		t.Errorf("one way cut: %+v", r)
	}
	if c := l.ForwarderCounts(); c.Corrupted[lab.LeftToRight] == 0 || c.Dropped[lab.RightToLeft] < 2 || c.Duplicated[lab.LeftToRight] == 0 {
		t.Errorf("forwarder's own counts: %+v", c)
	}
}

func TestNATRebinds(t *testing.T) {
	l := lab.ForTest(t, "lbr", lab.Options{Middle: lab.NAT})
	c, err := l.CaptureOutside()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Stop()
	ports := map[uint16]bool{}
	send := func() {
		t.Helper()
		f, err := l.StartFlow(lab.Flow{From: lab.Left, To: lab.Right, Src: l.L.Wan4, Dst: l.R.Wan4, Port: 4500, Rate: 500})
		if err != nil {
			t.Fatal(err)
		}
		if err := lab.Poll(5*time.Second, func() (bool, error) { return f.Received() > 10, nil }); err != nil {
			t.Fatal(err)
		}
		f.Stop()
	}
	send()
	if err := l.Rebind(30000); err != nil {
		t.Fatal(err)
	}
	send()
	c.Stop()
	ps, _ := c.Packets()
	for _, p := range ps {
		if p.DstPort == 4500 {
			if p.Src != l.L.Seen4 {
				t.Fatalf("source %v is not the NAT's", p.Src)
			}
			ports[p.SrcPort/1000] = true
		}
	}
	if len(ports) != 2 || !ports[20] || !ports[30] {
		t.Errorf("port ranges seen: %v", ports)
	}
}

func TestIperfAndInject(t *testing.T) {
	l := lab.ForTest(t, "lbt", lab.Options{})
	allow(t, l)
	r, err := l.Iperf(lab.LeftHost, lab.RightHost, l.R.Host4, lab.IperfOptions{Bytes: 20 << 20})
	if err != nil || r.Bytes < 1<<20 || r.BitsPerSecond < 1e8 {
		t.Errorf("iperf: %+v %v", r, err)
	}
	c, err := l.Capture(lab.RightHost, lab.Eth0)
	if err != nil {
		t.Fatal(err)
	}
	mac, err := l.MAC(lab.Right, lab.Wan)
	if err != nil {
		t.Fatal(err)
	}
	// An IPv4 header of protocol 253 from inside l to inside r, without payload.
	pkt := []byte{0x45, 0, 0, 20, 0, 1, 0, 0, 64, 253, 0, 0, 10, 1, 0, 2, 10, 2, 0, 2}
	sum := uint32(0)
	for i := 0; i < 20; i += 2 {
		sum += uint32(pkt[i])<<8 | uint32(pkt[i+1])
	}
	sum = ^(sum&0xffff + sum>>16)
	pkt[10], pkt[11] = byte(sum>>8), byte(sum)
	if err := l.Inject(lab.Left, lab.Wan, mac, pkt); err != nil {
		t.Fatal(err)
	}
	if err := lab.Poll(3*time.Second, func() (bool, error) {
		return c.Count(func(p *lab.Packet) bool { return p.Proto == 253 }) == 1, nil
	}); err != nil {
		t.Errorf("injected packet: %v", err)
	}
	pcap := l.Dir + "/x.pcap"
	if err := c.WritePcap(pcap); err != nil {
		t.Fatal(err)
	}
	if out, err := l.Exec(10*time.Second, lab.Left, "tcpdump", "-nr", pcap, "ip", "proto", "253"); err != nil || !strings.Contains(out, "10.1.0.2 > 10.2.0.2") {
		t.Errorf("tcpdump reads our pcap as %q, %v", out, err)
	}
}

// The sender and the receiver lose nothing themselves at the rate of the load
// tests, also through the forwarder.
func TestFlowItselfIsLossless(t *testing.T) {
	for name, m := range map[string]lab.Middle{"direct": lab.Direct, "impaired": lab.Impaired} {
		t.Run(name, func(t *testing.T) {
			l := lab.ForTest(t, "lbf", lab.Options{Middle: m})
			allow(t, l)
			f, err := l.StartFlow(lab.Flow{From: lab.LeftHost, To: lab.RightHost, Src: l.L.Host4, Dst: l.R.Host4, Rate: 20000, Size: 200})
			if err != nil {
				t.Fatal(err)
			}
			if err := lab.Poll(10*time.Second, func() (bool, error) { return f.Received() >= 20000, nil }); err != nil {
				t.Error(err)
			}
			r := f.Stop()
			t.Log(r)
			if r.Lost()+r.Duplicated+r.Reordered+r.Corrupt+r.SendErrors != 0 {
				t.Errorf("unimpaired: %v", r)
			}
		})
	}
}

package interop_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"adit/interop/lab"
	"adit/interop/peer"
)

// Numbered packets at 20,000 a second while each side in turn rekeys the child 30
// times and the IKE SA 10 times: none is lost, none comes twice.
func TestRekeyUnderLoad(t *testing.T) {
	for _, ends := range loadPairs() {
		t.Run(ends.String(), func(t *testing.T) {
			runOne(t, ends, settings{noAttach: true}, func(t *testing.T, p *path) {
				left, right := p.ends(false)
				left.esp, right.esp = "aes128gcm16-x25519", "aes128gcm16-x25519"
				p.load(left, right)
				p.up()
				p.pings(false)
				p.deepQueues()
				flow, err := p.StartFlow(lab.Flow{From: lab.LeftHost, To: lab.RightHost, Src: p.L.Host4, Dst: p.R.Host4, Rate: 20000, Size: 200})
				if err != nil {
					t.Fatal(err)
				}
				spis := map[string]bool{}
				for i := range 30 {
					for _, g := range []peer.Gateway{p.left, p.right} {
						p.rekeyChild(g)
						spis[peer.Installed(p.sas(p.left), "net")[0].SPIOut] = true
						if i%3 == 2 {
							p.rekeyIKE(g)
						}
					}
				}
				r := flow.Stop()
				p.facts["flow"] = r.String()
				t.Log(r)
				if r.Lost() != 0 || r.Duplicated != 0 || r.SendErrors != 0 {
					t.Errorf("during rekeys: %v", r)
				}
				// The sender doesn't make up for the time in which it was not run itself,
				// so on a machine with other work it sends a little less.
				if rate := float64(r.Sent) / r.Took.Seconds(); rate < 19000 {
					t.Errorf("the load was only %.0f packets a second", rate)
				}
				if t.Failed() {
					p.drops()
				}
				if len(spis) != 60 {
					t.Errorf("60 rekeys gave %d SPIs", len(spis))
				}
			})
		})
	}
}

// deepQueues gives the gateways' devices queues for half a second of the load, so
// that a machine that does not run a gateway for a while loses nothing: a TUN
// device has room for 500 packets, 25 ms of it.
func (p *path) deepQueues() {
	p.t.Helper()
	for _, node := range []string{lab.Left, lab.Right} {
		if _, err := p.Exec(5*time.Second, node, "sh", "-c",
			"for d in $(ls /sys/class/net); do [ -e /sys/class/net/$d/tun_flags ] && ip link set dev $d txqueuelen 10000; done; true"); err != nil {
			p.t.Fatal(err)
		}
	}
}

// drops logs where packets may have been lost.
func (p *path) drops() {
	for _, node := range []string{lab.LeftHost, lab.Left, lab.Right, lab.RightHost} {
		out, _ := p.Exec(5*time.Second, node, "sh", "-c", "ip -s link; grep ^Udp: /proc/net/snmp; cat /proc/net/softnet_stat")
		p.t.Logf("%s:\n%s", node, out)
	}
}

// loadPairs: the load is adit's to bear; the control shows that the harness can.
func loadPairs() []pair {
	if os.Getenv("ADIT_INTEROP") == "control" {
		return []pair{{strongSwan, strongSwan}}
	}
	return []pair{{adit, adit}}
}

// The guard: from the loading of a policy on, no packet of it passes in the clear,
// whatever happens to the tunnel and the daemon. Packets flow all the while.
func TestGuard(t *testing.T) {
	t.Parallel()
	for _, g := range []struct {
		action string
		v6     bool
	}{{"trap", false}, {"start", false}, {"trap", true}} {
		t.Run(g.action+map[bool]string{false: "_v4", true: "_v6"}[g.v6], func(t *testing.T) {
			t.Parallel()
			runOne(t, pair{adit, adit}, settings{middle: lab.Bridge}, func(t *testing.T, p *path) { p.guard(g.action, g.v6) })
		})
	}
}

func (p *path) guard(action string, v6 bool) {
	t := p.t
	left, right := p.ends(v6)
	lh, rh := p.hosts(v6)
	left.child, right.child = "start_action = "+action+"\n", "start_action = trap\n"
	p.load(left, right)
	flow, err := p.StartFlow(lab.Flow{From: lab.LeftHost, To: lab.RightHost, Src: lh, Dst: rh, Rate: 1000})
	if err != nil {
		t.Fatal(err)
	}
	back, err := p.StartFlow(lab.Flow{From: lab.RightHost, To: lab.LeftHost, Src: rh, Dst: lh, Port: 7778, Rate: 1000})
	if err != nil {
		t.Fatal(err)
	}
	// arrives waits until packets get through after what just happened.
	arrives := func(after string) {
		t.Helper()
		before, beforeBack := flow.Received(), back.Received()
		if err := lab.Poll(15*time.Second, func() (bool, error) {
			return flow.Received() > before+100 && back.Received() > beforeBack+100, nil
		}); err != nil {
			t.Fatalf("nothing arrives after %s: %v", after, err)
		}
		if c := p.outside.Counts(); c.Clear != 0 {
			t.Fatalf("after %s %d clear packets were outside", after, c.Clear)
		}
	}
	arrives("up")
	p.settled()
	p.rekeyChild(p.left)
	p.rekeyIKE(p.right)
	arrives("rekeys")
	if err := p.left.Terminate("gw"); err != nil {
		t.Fatal(err)
	}
	if action == "trap" {
		arrives("down, and up again by a packet")
	} else if err := p.left.Initiate("net"); err != nil {
		t.Fatal(err)
	}
	arrives("down and up")
	p.load(left, right)
	arrives("a reload")

	// A clear packet from outside with inner addresses goes nowhere.
	p.injectIsStopped(v6)

	// Killed, the guard stays: what flows is dropped, not sent in the clear.
	p.left.Kill9()
	seen := p.outside.Counts().Total
	lab.Poll(500*time.Millisecond, func() (bool, error) { return false, nil })
	if c := p.outside.Counts(); c.Clear != 0 {
		t.Fatalf("after kill -9 %d clear packets were outside (%d in all)", c.Clear, c.Total-seen)
	}
	if err := p.left.Start(); err != nil {
		t.Fatal(err)
	}
	p.load(left, right)
	if action == "start" {
		if err := p.left.Initiate("net"); err != nil {
			t.Logf("initiating after the restart: %v", err)
		}
	}
	arrives("kill -9 and a restart")
	if c := p.outside.Stop(); c.Clear != 0 || c.Missed != 0 {
		t.Fatalf("outside: %+v", c)
	}
	p.facts["clear"] = "0"

	// The same without the guard: the test would have seen it.
	p.left.Kill9()
	if _, err := p.Exec(5*time.Second, lab.Left, "nft", "flush", "ruleset"); err != nil {
		t.Fatal(err)
	}
	p.unrouted()
	c, err := p.CaptureOutside()
	if err != nil {
		t.Fatal(err)
	}
	if err := lab.Poll(5*time.Second, func() (bool, error) { return c.Counts().Clear > 0, nil }); err != nil {
		t.Errorf("without the guard nothing is seen in the clear either: %v; the test proves nothing", err)
	}
	c.Stop()
	p.outside = nil
}

// unrouted removes what a killed daemon left of its routing, so that only the
// guard's absence decides.
func (p *path) unrouted() {
	p.t.Helper()
	out, err := p.Exec(5*time.Second, lab.Left, "sh", "-c",
		"for f in -4 -6; do ip $f rule show | awk -F: '$1 > 0 && $1 < 32766 {print $1}' | while read n; do ip $f rule del pref $n; done; done; ip rule show")
	if err != nil {
		p.t.Fatal(err)
	}
	p.facts["rules"] = fmt.Sprint(len(out))
}

// injectIsStopped sends a clear packet with inner addresses to the left gateway
// from outside; it must not come out at the left host.
func (p *path) injectIsStopped(v6 bool) {
	p.t.Helper()
	inside, err := p.Capture(lab.LeftHost, lab.Eth0)
	if err != nil {
		p.t.Fatal(err)
	}
	mac, err := p.MAC(lab.Left, lab.Wan)
	if err != nil {
		p.t.Fatal(err)
	}
	// UDP from the right host's address to a port that the flows do not use.
	pkt := udp4(p.R.Host4.As4(), p.L.Host4.As4(), 9, 9999)
	if v6 {
		pkt = udp6(p.R.Host6.As16(), p.L.Host6.As16(), 9, 9999)
	}
	// Sent by the bridge's side, behind the point of capture: it is the attacker's.
	if err := p.Inject(lab.Right, lab.Wan, mac, pkt); err != nil {
		p.t.Fatal(err)
	}
	stranger := func(k *lab.Packet) bool { return k.DstPort == 9999 }
	if err := lab.Poll(2*time.Second, func() (bool, error) { return p.outside.Count(stranger) > 0, nil }); err != nil {
		p.t.Fatalf("the injected packet is not on the wire: %v", err)
	}
	lab.Poll(200*time.Millisecond, func() (bool, error) { return inside.Count(stranger) > 0, nil })
	inside.Stop()
	if inside.Count(stranger) != 0 {
		p.t.Errorf("a clear packet with inner addresses was let in from outside")
	}
	p.freshCapture() // the injected one was in the clear, of course
}

// udp4 is an IPv4 packet with an empty UDP datagram, without UDP checksum.
func udp4(src, dst [4]byte, sport, dport uint16) []byte {
	b := []byte{0x45, 0, 0, 28, 0, 7, 0, 0, 64, 17, 0, 0,
		src[0], src[1], src[2], src[3], dst[0], dst[1], dst[2], dst[3],
		byte(sport >> 8), byte(sport), byte(dport >> 8), byte(dport), 0, 8, 0, 0}
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	sum = sum&0xffff + sum>>16
	sum = ^(sum&0xffff + sum>>16)
	b[10], b[11] = byte(sum>>8), byte(sum)
	return b
}

// udp6 is the same in IPv6.
func udp6(src, dst [16]byte, sport, dport uint16) []byte {
	b := append([]byte{0x60, 0, 0, 0, 0, 8, 17, 64}, src[:]...)
	b = append(b, dst[:]...)
	return append(b, byte(sport>>8), byte(sport), byte(dport>>8), byte(dport), 0, 8, 0, 0)
}

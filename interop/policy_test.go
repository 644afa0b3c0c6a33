package interop_test

import (
	"encoding/binary"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"adit/interop/lab"
	"adit/interop/peer"
)

// The first packet of a trap policy starts the negotiation, and is not lost.
func TestTrap(t *testing.T) {
	t.Parallel()
	among(t, led(), settings{middle: lab.Bridge}, func(t *testing.T, p *path) {
		left, right := p.ends(false)
		left.child = "start_action = trap\n"
		p.load(left, right)
		if s := p.sas(p.left); len(s) != 0 {
			t.Fatalf("an IKE SA without a packet: %+v", s)
		}
		got, err := p.Ping(lab.LeftHost, p.R.Host4, lab.PingOptions{Timeout: 5 * time.Second})
		if err != nil || got.Received != 1 {
			t.Errorf("the first ping: %+v %v", got, err)
		}
		p.settled()
		p.pings(false)
	})
}

// A client's trap waits at its own address, since it has no other one yet: what the peer gives
// it is used from the next packet on, and what still comes from the own one does not leave.
func TestTrapOfClient(t *testing.T) {
	among(t, led(), settings{middle: lab.Bridge}, func(t *testing.T, p *path) {
		p.giveClients()
		l, _ := p.ends(false)
		client := site{name: "alice", local: "auth = psk\nid = " + clientID("alice"), remote: "auth = psk\nid = " + rightID,
			extra: "vips = 0.0.0.0\n", localTS: "dynamic", remoteTS: "10.2.0.0/24", child: "start_action = trap\n"}
		if err := p.left.Load(l.with("secrets {\nike-1 {\nsecret = \"what all the clients share\"\n}\n}\n", client)); err != nil {
			t.Fatal(err)
		}
		if out, err := p.left.Swanctl("--list-pols", "--trap"); err != nil || !strings.Contains(out, p.L.Wan4.String()+"/32") {
			t.Errorf("%s %v", out, err)
		}
		if err := p.WaitPing(lab.Left, p.R.Host4, p.patience); err != nil {
			t.Fatal(err)
		}
		own, err := p.Ping(lab.Left, p.R.Host4, lab.PingOptions{Count: 3, Source: p.L.Wan4, Timeout: 2 * time.Second})
		if s := p.sas(p.left); own.Received != 0 || len(s) != 1 || len(s[0].Children) != 1 {
			t.Errorf("from its own address: %+v %v, SAs %+v", own, err, s)
		}
		p.leave(t, "alice")
		if err := p.WaitPing(lab.Left, p.R.Host4, p.patience); err != nil {
			t.Errorf("for the second time: %v", err)
		}
	})
}

// The SPD decides in the order of how narrow policies are: some traffic passes in
// the clear, some nowhere, the rest through the tunnel.
func TestPassAndDrop(t *testing.T) {
	t.Parallel()
	among(t, led(), settings{middle: lab.Bridge}, func(t *testing.T, p *path) {
		left, right := p.ends(false)
		left.children = "net {\nlocal_ts = " + left.localTS + "\nremote_ts = " + left.remoteTS + "\nesp_proposals = aes256gcm16\n}\n" +
			"open {\nmode = pass\nstart_action = trap\nlocal_ts = " + left.localTS + "\nremote_ts = " + left.remoteTS + "[udp/9999]\n}\n" +
			"never {\nmode = drop\nstart_action = trap\nlocal_ts = " + left.localTS + "\nremote_ts = " + left.remoteTS + "[udp/8888]\n}\n"
		p.load(left, right)
		p.up()
		p.pings(false)
		send := func(port uint16) *lab.RunningFlow {
			t.Helper()
			f, err := p.StartFlow(lab.Flow{From: lab.LeftHost, To: lab.RightHost, Src: p.L.Host4, Dst: p.R.Host4, Port: port, Rate: 200})
			if err != nil {
				t.Fatal(err)
			}
			return f
		}
		seen := func(port uint16) int { return p.outside.Count(func(k *lab.Packet) bool { return k.DstPort == port }) }
		dropped, normal := send(8888), send(7777)
		if err := lab.Poll(5*time.Second, func() (bool, error) { return normal.Received() > 100, nil }); err != nil {
			t.Errorf("the policy of the rest: %v", err)
		}
		if r := normal.Stop(); r.Lost() != 0 {
			t.Errorf("the policy of the rest: %v", r)
		}
		if r := dropped.Stop(); r.Received != 0 || seen(8888) != 0 {
			t.Errorf("mode = drop: %v, %d outside", r, seen(8888))
		}
		if c := p.outside.Counts(); c.Clear != 0 {
			t.Errorf("clear packets: %+v", c)
		}
		passed := send(9999)
		if err := lab.Poll(5*time.Second, func() (bool, error) { return seen(9999) > 50, nil }); err != nil {
			t.Errorf("mode = pass: %d packets outside in the clear", seen(9999))
		}
		passed.Stop()
		c := p.outside.Stop()
		if int(c.Clear) != seen(9999) {
			t.Errorf("%d clear packets, but %d of the policy", c.Clear, seen(9999))
		}
		p.outside = nil // they were meant to be seen
	})
}

// A policy of one protocol and port takes that, and only that.
func TestPortSelectors(t *testing.T) {
	t.Parallel()
	across(t, settings{middle: lab.Bridge}, func(t *testing.T, p *path) {
		left, right := p.ends(false)
		for _, ts := range []*string{&left.localTS, &left.remoteTS, &right.localTS, &right.remoteTS} {
			*ts += "[udp/7777]"
		}
		p.load(left, right)
		p.up()
		for _, g := range []peer.Gateway{p.left, p.right} {
			c := peer.Installed(p.sas(g), "net")
			if len(c) != 1 || len(c[0].LocalTS) != 1 || !strings.HasSuffix(c[0].LocalTS[0], "[udp/7777]") || !strings.HasSuffix(c[0].RemoteTS[0], "[udp/7777]") {
				t.Errorf("selectors: %+v", c)
			}
		}
		there, err := p.StartFlow(lab.Flow{From: lab.LeftHost, To: lab.RightHost, Src: p.L.Host4, Dst: p.R.Host4, Rate: 200})
		if err != nil {
			t.Fatal(err)
		}
		if err := lab.Poll(5*time.Second, func() (bool, error) { return there.Received() > 50, nil }); err != nil {
			t.Error(err)
		}
		if r := there.Stop(); r.Lost() != 0 {
			t.Errorf("left to right: %v", r)
		}
		back, err := p.StartFlow(lab.Flow{From: lab.RightHost, To: lab.LeftHost, Src: p.R.Host4, Dst: p.L.Host4, Rate: 200})
		if err != nil {
			t.Fatal(err)
		}
		if err := lab.Poll(5*time.Second, func() (bool, error) { return back.Received() > 50, nil }); err != nil {
			t.Error(err)
		}
		if r := back.Stop(); r.Lost() != 0 {
			t.Errorf("right to left: %v", r)
		}
		if c := p.outside.Counts(); c.Clear != 0 || c.ESP() < 100 {
			t.Errorf("outside: %+v", c)
		}
		p.noPing(false) // is of no policy: leaves in the clear, to nobody
		p.freshCapture()
	})
}

// The initiator asks for less than the responder has (TestNarrowing: for more).
func TestNarrowerInitiator(t *testing.T) {
	t.Parallel()
	across(t, settings{middle: lab.Bridge}, func(t *testing.T, p *path) {
		left, right := p.ends(false)
		wantL, wantR := left.localTS, left.remoteTS
		right.localTS, right.remoteTS = "10.2.0.0/16", "10.0.0.0/8"
		p.load(left, right)
		p.up()
		p.pings(false)
		c := peer.Installed(p.sas(p.right), "net")
		if len(c) != 1 || !slices.Equal(c[0].LocalTS, []string{wantR}) || !slices.Equal(c[0].RemoteTS, []string{wantL}) {
			t.Errorf("the responder has selectors %+v", c)
		}
	})
}

// encap with a peer whose data plane has ESP in UDP only, and asks for it.
func TestEncap(t *testing.T) {
	t.Parallel()
	for _, encap := range []string{"auto", "yes", "no"} {
		t.Run(encap, func(t *testing.T) {
			across(t, settings{middle: lab.Bridge}, func(t *testing.T, p *path) {
				left, right := p.ends(false)
				if strings.HasPrefix(p.left.Name(), string(adit)) {
					left.extra = "encap = " + encap + "\n"
				} else {
					right.extra = "encap = " + encap + "\n"
				}
				p.load(left, right)
				p.up()
				p.pings(false)
				c := p.outside.Counts()
				if c.By[lab.ClassESP] != 0 || c.By[lab.ClassUDPESP] == 0 {
					t.Errorf("outside: %+v", c)
				}
				for _, g := range []peer.Gateway{p.left, p.right} {
					if c := peer.Installed(p.sas(g), "net"); len(c) != 1 || !c[0].Encap {
						t.Errorf("list-sas of %s: %+v", g.Name(), c)
					}
				}
			})
		})
	}
}

// TFC padding: whatever the length inside, it is one length outside.
func TestTFCPadding(t *testing.T) {
	t.Parallel()
	among(t, led(), settings{middle: lab.Bridge}, func(t *testing.T, p *path) {
		left, right := p.ends(false)
		left.child = "tfc_padding = 1000\n"
		p.load(left, right)
		p.up()
		for _, size := range []int{16, 100, 700} {
			got, err := p.Ping(lab.LeftHost, p.R.Host4, lab.PingOptions{Count: 3, Size: size})
			if err != nil || got.Received != 3 {
				t.Errorf("ping of %d octets: %+v %v", size, got, err)
			}
		}
		lengths := map[int]bool{}
		p.outside.Count(func(k *lab.Packet) bool {
			if k.Class == lab.ClassUDPESP && k.Len <= 1500 && k.Src == p.L.Wan4 {
				lengths[k.Len] = true
			}
			return false
		})
		if len(lengths) != 1 || lengths[0] {
			t.Errorf("lengths outside: %v", lengths)
		}
		for n := range lengths {
			if n < 1000 {
				t.Errorf("padded to %d octets only", n)
			}
		}
	})
}

var routeMTU = regexp.MustCompile(`mtu (\d+)`)

// Packets that are too long: fragments pass, with DF set the host is told the right
// length, and TCP does not even try.
func TestPathMTU(t *testing.T) {
	t.Parallel()
	for _, v6 := range []bool{false, true} {
		t.Run(map[bool]string{false: "v4", true: "v6"}[v6], func(t *testing.T) {
			among(t, led(), settings{middle: lab.Bridge}, func(t *testing.T, p *path) { p.pathMTU(v6) })
		})
	}
}

func (p *path) pathMTU(v6 bool) {
	t := p.t
	left, right := p.ends(v6)
	lh, rh := p.hosts(v6)
	head := map[bool]int{false: 28, true: 48}[v6] // IP and ICMP
	p.load(left, right)
	p.up()
	p.pings(v6)

	if got, err := p.Ping(lab.LeftHost, rh, lab.PingOptions{Count: 2, Size: 1500 - head, DF: true, Timeout: 300 * time.Millisecond}); err != nil || got.Received != 0 || got.Errors == 0 {
		t.Errorf("a packet of 1500 octets with DF: %+v %v", got, err)
	}
	route, err := p.Exec(5*time.Second, lab.LeftHost, "ip", "route", "get", rh.String())
	m := routeMTU.FindStringSubmatch(route)
	if err != nil || m == nil {
		t.Fatalf("the host learned no MTU: %s %v", route, err)
	}
	mtu, _ := strconv.Atoi(m[1])
	p.facts["mtu"] = m[1]
	before := p.outside.Counts()
	// strongSwan's device has an MTU of its own: the far host has to learn that first.
	if err := lab.Poll(5*time.Second, func() (bool, error) {
		got, err := p.Ping(lab.LeftHost, rh, lab.PingOptions{Size: mtu - head, DF: true, Timeout: 300 * time.Millisecond})
		return got.Received > 0, err
	}); err != nil {
		t.Errorf("a packet of just the MTU %d: %v", mtu, err)
	}
	if got, err := p.Ping(lab.LeftHost, rh, lab.PingOptions{Count: 3, Size: mtu - head, DF: true}); err != nil || got.Received != 3 {
		t.Errorf("a packet of just the MTU %d: %+v %v", mtu, got, err)
	}
	// The right MTU is the largest: outside such a packet is as long as it may be,
	// but for the padding to a multiple of four octets. What is longer is a train of
	// packets that the device cuts; a single one would have been fragmented.
	longest := 0
	p.outside.Count(func(k *lab.Packet) bool {
		if k.Class == lab.ClassUDPESP && k.Len <= 1500 && k.Src == map[bool]netip.Addr{false: p.L.Wan4, true: p.L.Wan6}[v6] {
			longest = max(longest, k.Len)
		}
		return false
	})
	if longest <= 1500-16 {
		t.Errorf("the longest packet outside has %d octets", longest)
	}
	if after := p.outside.Counts(); after.By[lab.ClassFragment] != before.By[lab.ClassFragment] {
		t.Errorf("fragments outside: %+v", after)
	}

	// Without DF: the host fragments by itself now, and everything arrives.
	flow, err := p.StartFlow(lab.Flow{From: lab.LeftHost, To: lab.RightHost, Src: lh, Dst: rh, Rate: 100, Size: 4000})
	if err != nil {
		t.Fatal(err)
	}
	if err := lab.Poll(5*time.Second, func() (bool, error) { return flow.Received() >= 50, nil }); err != nil {
		t.Error(err)
	}
	if r := flow.Stop(); r.Lost() != 0 || r.Corrupt != 0 {
		t.Errorf("datagrams of 4000 octets: %v", r)
	}

	// SYN and SYN-ACK, as they arrive: clamped on the way.
	hosts := map[string]*lab.Capture{}
	for _, h := range []string{lab.LeftHost, lab.RightHost} {
		if hosts[h], err = p.Capture(h, lab.Eth0); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := p.Iperf(lab.LeftHost, lab.RightHost, rh, lab.IperfOptions{Bytes: 1 << 20}); err != nil || r.Bytes == 0 {
		t.Errorf("TCP: %+v %v", r, err)
	}
	for h, c := range hosts {
		c.Stop()
		syns := c.Count(func(k *lab.Packet) bool {
			mss, ok := synMSS(k)
			if !ok || k.Outgoing {
				return false
			}
			if want := mtu - head - 12; int(mss) > want {
				t.Errorf("a SYN to %s offers segments of %d octets, the tunnel takes %d", h, mss, want)
			}
			return true
		})
		if syns == 0 {
			t.Errorf("no SYN arrived at %s", h)
		}
	}
}

// synMSS is the maximum segment size that a TCP SYN offers.
func synMSS(k *lab.Packet) (uint16, bool) {
	head := 40
	if len(k.Bytes) > 0 && k.Bytes[0]>>4 == 4 {
		head = int(k.Bytes[0]&15) * 4
	}
	if k.Proto != 6 || len(k.Bytes) < head+24 || k.Bytes[head+13]&2 == 0 {
		return 0, false
	}
	tcp := k.Bytes[head:]
	for o := tcp[20:min(len(tcp), int(tcp[12]>>4)*4)]; len(o) >= 4; {
		switch {
		case o[0] == 2:
			return binary.BigEndian.Uint16(o[2:]), true
		case o[0] == 1:
			o = o[1:]
		case o[1] < 2 || int(o[1]) > len(o):
			return 0, false
		default:
			o = o[o[1]:]
		}
	}
	return 0, false
}

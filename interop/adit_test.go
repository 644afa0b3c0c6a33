package interop_test

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"adit/interop/lab"
	"adit/interop/peer"
)

// alone runs a scenario with adit at both ends: what kernel-libipsec can't do, or
// what concerns the program and not the protocol.
func alone(t *testing.T, s settings, scenario func(t *testing.T, p *path)) {
	runOne(t, pair{adit, adit}, s, scenario)
}

// encap = no is raw ESP where no NAT is found; the default is ESP in UDP.
func TestRawESP(t *testing.T) {
	t.Parallel()
	for _, v6 := range []bool{false, true} {
		t.Run(map[bool]string{false: "v4", true: "v6"}[v6], func(t *testing.T) {
			alone(t, settings{middle: lab.Bridge}, func(t *testing.T, p *path) {
				left, right := p.ends(v6)
				p.load(left, right)
				p.up()
				p.pings(v6)
				if c := p.outside.Counts(); c.By[lab.ClassESP] != 0 {
					t.Errorf("raw ESP by default: %+v", c)
				}
				if err := p.left.Terminate("gw"); err != nil {
					t.Fatal(err)
				}
				p.wait("the end of the SA at the peer", p.right, func(s []peer.SA) bool { return len(s) == 0 })
				p.freshCapture()
				left.extra, right.extra = "encap = no\n", "encap = no\n"
				p.load(left, right)
				p.up()
				p.pings(v6)
				if c := p.outside.Counts(); c.By[lab.ClassESP] == 0 || c.By[lab.ClassUDPESP] != 0 {
					t.Errorf("with encap = no: %+v", c)
				}
				if c := peer.Installed(p.sas(p.left), "net"); len(c) != 1 || c[0].Encap {
					t.Errorf("list-sas: %+v", c)
				}
			})
		})
	}
}

// Transport mode between the gateways themselves, in UDP (the default) and raw.
func TestTransportMode(t *testing.T) {
	t.Parallel()
	for _, encap := range []string{"auto", "no"} {
		for _, v6 := range []bool{false, true} {
			t.Run(map[bool]string{false: "v4", true: "v6"}[v6]+"_encap_"+encap, func(t *testing.T) {
				alone(t, settings{middle: lab.Bridge}, func(t *testing.T, p *path) { p.transport(p.ends, v6, encap) })
			})
		}
	}
}

func (p *path) transport(ends func(v6 bool) (left, right conn), v6 bool, encap string) {
	t := p.t
	left, right := ends(v6)
	to := p.R.Wan4
	if v6 {
		to = p.R.Wan6
	}
	left.localTS, left.remoteTS, right.localTS, right.remoteTS = "dynamic", "dynamic", "dynamic", "dynamic"
	left.child, right.child = "mode = transport\n", "mode = transport\n"
	left.extra, right.extra = "encap = "+encap+"\n", "encap = "+encap+"\n"
	p.load(left, right)
	p.up()
	if c := peer.Installed(p.sas(p.left), "net"); len(c) != 1 || c[0].Mode != "TRANSPORT" {
		t.Fatalf("children: %+v", c)
	}
	if err := p.WaitPing(lab.Left, to, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	p.freshCapture()
	got, err := p.Ping(lab.Left, to, lab.PingOptions{Count: 5, Pattern: marker})
	if err != nil || got.Received != 5 {
		t.Errorf("%+v %v", got, err)
	}
	// The capture's own thread may be behind the ping.
	_ = lab.Poll(2*time.Second, func() (bool, error) { return p.outside.Counts().ESP() >= 10, nil })
	if n := p.outside.Contains(marker); n != 0 || p.outside.Counts().ESP() < 10 {
		t.Errorf("%d packets show the data: %+v", n, p.outside.Counts())
	}
}

// The NAT gives the initiator another port: the responder follows what it can
// authenticate (RFC 7296 §2.23).
func TestNATRebinding(t *testing.T) {
	t.Parallel()
	for _, ends := range []pair{{adit, adit}, {strongSwan, adit}} {
		t.Run(ends.String(), func(t *testing.T) {
			runOne(t, ends, settings{middle: lab.NAT}, func(t *testing.T, p *path) {
				left, right := p.ends(false)
				right.remote = "%any"
				p.load(left, right)
				p.up()
				p.pings(false)
				before := p.sas(p.right)[0].RemotePort
				if err := p.Rebind(30000); err != nil {
					t.Fatal(err)
				}
				p.pingsFromLeft()
				p.pings(false)
				p.wait("the new port in list-sas", p.right, func(s []peer.SA) bool {
					return len(s) == 1 && s[0].RemotePort != before
				})
			})
		})
	}
}

func (p *path) pingsFromLeft() {
	p.t.Helper()
	if err := p.WaitPing(lab.LeftHost, p.R.Host4, 10*time.Second); err != nil {
		p.t.Fatal(err)
	}
}

// footprint is what a gateway's namespace shows of a daemon: rules, routes, links,
// firewall.
func (p *path) footprint(node string) string {
	p.t.Helper()
	out, err := p.Exec(5*time.Second, node, "sh", "-c",
		"{ ip rule; ip -6 rule; ip route show table all; ip -6 route show table all; ip -o link | sed 's/ mode .*//'; nft list ruleset; } | grep -v -e fe80: -e ff00:")
	if err != nil {
		p.t.Fatal(err)
	}
	return out
}

// SIGTERM sends Deletes, undoes everything on the host and ends soon.
func TestStopUndoesEverything(t *testing.T) {
	t.Parallel()
	alone(t, settings{}, func(t *testing.T, p *path) {
		if err := p.left.Stop(); err != nil {
			t.Fatal(err)
		}
		before := p.footprint(lab.Left)
		if err := p.left.Start(); err != nil {
			t.Fatal(err)
		}
		left, right := p.ends(false)
		p.load(left, right)
		p.up()
		p.pings(false)
		if p.footprint(lab.Left) == before {
			t.Fatal("a tunnel leaves no trace: the comparison proves nothing")
		}
		begin := time.Now()
		if err := p.left.Stop(); err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("stopping took %v", took)
		}
		p.wait("the end of the SA at the peer", p.right, func(s []peer.SA) bool { return len(s) == 0 })
		if after := p.footprint(lab.Left); after != before {
			t.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
	})
}

// SIGHUP reads the configuration again; neither an error in it nor a change beside
// them touches tunnels that are up: not a packet is lost.
func TestSIGHUP(t *testing.T) {
	t.Parallel()
	runOne(t, pair{adit, adit}, settings{middle: lab.Bridge, file: true}, func(t *testing.T, p *path) {
		g := p.left.(*peer.AditGateway)
		left, right := p.ends(false)
		if err := p.right.Load(right.text(rightID, leftID)); err != nil {
			t.Fatal(err)
		}
		p.up()
		p.pings(false)
		spi := peer.Installed(p.sas(g), "net")[0].SPIIn
		flow, err := p.StartFlow(lab.Flow{From: lab.LeftHost, To: lab.RightHost, Src: p.L.Host4, Dst: p.R.Host4, Rate: 500})
		if err != nil {
			t.Fatal(err)
		}
		hup := func(conf, what string, seen func(log string) (bool, error)) {
			t.Helper()
			had := len(g.Log())
			if err := g.Rewrite(conf); err != nil {
				t.Fatal(err)
			}
			if err := g.Signal(syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
			if err := lab.Poll(5*time.Second, func() (bool, error) { return seen(g.Log()[had:]) }); err != nil {
				t.Errorf("no sign of %s: %v", what, err)
			}
			if c := peer.Installed(p.sas(g), "net"); len(c) != 1 || c[0].SPIIn != spi {
				t.Errorf("after %s the tunnel did not stay: %+v", what, c)
			}
			p.pings(false)
		}
		usual := left.text(leftID, rightID)
		hup(strings.Replace(usual, "remote_ts", "remote_tss", 1), "the error", func(log string) (bool, error) {
			return strings.Contains(log, "swanctl.conf:"), nil
		})
		left.children = "net {\nlocal_ts = " + left.localTS + "\nremote_ts = " + left.remoteTS + "\nesp_proposals = aes256gcm16\n}\nmore {\nremote_ts = 10.9.0.0/24\n}"
		lists := func(string) (bool, error) {
			out, err := g.Swanctl("--list-conns")
			return strings.Contains(out, "more:"), err
		}
		hup(left.text(leftID, rightID), "the new child", lists)
		hup(usual, "its end", func(string) (bool, error) { ok, err := lists(""); return !ok, err })
		if r := flow.Stop(); r.Lost() != 0 || r.Duplicated != 0 {
			t.Errorf("during reloads: %v", r)
		}
	})
}

// A second gateway in the namespace, or on the socket, is refused; a socket that a
// killed one left is replaced.
func TestSecondInstance(t *testing.T) {
	t.Parallel()
	alone(t, settings{}, func(t *testing.T, p *path) {
		g := p.left.(*peer.AditGateway)
		for _, uri := range []string{g.URI(), g.URI() + "2"} {
			out, err := p.Exec(5*time.Second, lab.Left, g.Binary, "run", "--vici", uri)
			if err == nil || !strings.Contains(strings.ToLower(out), "another") && !strings.Contains(strings.ToLower(out), "already") {
				t.Errorf("a second instance with %s: %v, %s", uri, err, out)
			}
		}
		if _, err := g.SAs(); err != nil {
			t.Errorf("the first one was disturbed: %v", err)
		}
		g.Kill9()
		if _, err := os.Stat(strings.TrimPrefix(g.URI(), "unix://")); err != nil {
			t.Errorf("no stale socket to replace: %v", err)
		}
		if err := g.Start(); err != nil {
			t.Error(err)
		}
	})
}

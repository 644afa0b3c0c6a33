package interop_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"adit/interop/lab"
	"adit/interop/peer"
)

// Four tunnels of a gateway with two workers, a flow each way through each, windows of 32
// packets: nothing is lost, every flow keeps its order, and what comes in has SPIs of both
// workers; with adit while each end rekeys all four, in UDP and raw. strongSwan's
// kernel-libipsec loses packets when it is rekeyed under load, without any worker.
func TestWorkersUnderLoad(t *testing.T) {
	for _, c := range []struct {
		ends  pair
		encap string
	}{{pair{adit, adit}, "yes"}, {pair{adit, adit}, "no"}, {pair{adit, strongSwan}, "yes"}} {
		t.Run(c.ends.String()+"_encap_"+c.encap, func(t *testing.T) {
			t.Parallel()
			runOne(t, c.ends, settings{noAttach: true, charon: "workers = 2\n"}, func(t *testing.T, p *path) { p.workers(c.encap, c.ends.responder == adit) })
		})
	}
}

const fourTunnels = 4

// portOf is the lower port of a tunnel: both are its selectors, one for each way.
func portOf(i int) uint16 { return uint16(9000 + 2*i) }

func tunnelOf(i int) string { return fmt.Sprintf("net%d", i) }

func (p *path) workers(encap string, rekey bool) {
	t := p.t
	left, right := p.ends(false)
	for _, c := range []*conn{&left, &right} {
		c.extra = "encap = " + encap + "\n"
		for i := range fourTunnels {
			c.children += fmt.Sprintf("%s {\nlocal_ts = %s[udp/%d-%d]\nremote_ts = %s[udp/%d-%d]\nesp_proposals = aes128gcm16\nreplay_window = 32\n}\n",
				tunnelOf(i), c.localTS, portOf(i), portOf(i)+1, c.remoteTS, portOf(i), portOf(i)+1)
		}
	}
	p.load(left, right)
	for i := range fourTunnels {
		if err := p.left.Initiate(tunnelOf(i)); err != nil {
			t.Fatal(err)
		}
	}
	p.deepQueues()
	var flows []*lab.RunningFlow
	rate, enough := 1000, uint64(1000)
	if !rekey {
		// charon's socket holds some 150 packets: on a busy machine it overflows.
		rate, enough = 250, 400
	}
	for i := range fourTunnels {
		for way, f := range []lab.Flow{{From: lab.LeftHost, To: lab.RightHost, Src: p.L.Host4, Dst: p.R.Host4}, {From: lab.RightHost, To: lab.LeftHost, Src: p.R.Host4, Dst: p.L.Host4}} {
			f.Port, f.Rate, f.Size = portOf(i)+uint16(way), rate, 400
			r, err := p.StartFlow(f)
			if err != nil {
				t.Fatal(err)
			}
			flows = append(flows, r)
		}
	}
	p.onBothWorkers()
	if rekey {
		for range 2 {
			for i := range fourTunnels {
				p.rekeyTunnel(p.left, i)
				p.rekeyTunnel(p.right, i)
			}
		}
		p.onBothWorkers()
	}
	if err := lab.Poll(p.patience, func() (bool, error) { return flows[0].Received() > enough, nil }); err != nil {
		t.Fatal(err)
	}
	for i, f := range flows {
		r := f.Stop()
		t.Log(r)
		if r.Lost() != 0 || r.Duplicated != 0 || r.Reordered != 0 || r.SendErrors != 0 || r.Corrupt != 0 {
			t.Errorf("flow %d: %v", i, r)
		}
	}
	if t.Failed() {
		p.drops()
	}
}

// onBothWorkers: the tunnels' SPIs, which name the worker (conn.WorkerOf), are of both.
func (p *path) onBothWorkers() {
	p.t.Helper()
	for _, g := range []peer.Gateway{p.left, p.right} {
		if !strings.HasPrefix(g.Name(), string(adit)) {
			continue
		}
		of := map[uint64]bool{}
		for i := range fourTunnels {
			for _, c := range peer.Installed(p.sas(g), tunnelOf(i)) {
				spi, err := strconv.ParseUint(c.SPIIn, 16, 32)
				if err != nil {
					p.t.Fatal(err)
				}
				of[spi%2] = true
			}
		}
		if len(of) != 2 {
			p.t.Errorf("%s: all tunnels are one worker's", g.Name())
		}
	}
}

// rekeyTunnel has an end rekey a tunnel and waits until both ends have only the new one.
func (p *path) rekeyTunnel(g peer.Gateway, i int) {
	p.t.Helper()
	old := peer.Installed(p.sas(g), tunnelOf(i))
	if len(old) != 1 {
		p.t.Fatalf("%d of %s before a rekey", len(old), tunnelOf(i))
	}
	if err := g.RekeyChild(tunnelOf(i)); err != nil {
		p.t.Fatal(err)
	}
	for _, end := range []peer.Gateway{p.left, p.right} {
		p.wait("a rekeyed tunnel", end, func(s []peer.SA) bool {
			c := peer.Installed(s, tunnelOf(i))
			return len(c) == 1 && c[0].SPIIn != old[0].SPIIn && c[0].SPIIn != old[0].SPIOut
		})
	}
}

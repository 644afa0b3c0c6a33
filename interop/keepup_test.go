package interop_test

import (
	"testing"
	"time"

	"adit/interop/lab"
	"adit/interop/peer"
)

// A peer that deletes the tunnel again and again gets it back each time, after a
// longer and longer wait; the operator's `down` ends that.
func TestKeepUp(t *testing.T) {
	t.Parallel()
	among(t, []pair{{adit, strongSwan}, {adit, adit}}, settings{middle: lab.Bridge, charon: impatient}, func(t *testing.T, p *path) {
		left, right := p.ends(false)
		left.child = "keep_up = yes\n"
		left.extra = "dpd_delay = 1s\n"
		p.load(left, right)
		installed := func(s []peer.SA) bool { return len(peer.Installed(s, "net")) == 1 }
		p.wait("the tunnel, which nobody asked for", p.left, installed)
		began := time.Now()
		for i, happen := range []func() error{
			func() error { return p.right.Terminate("gw") },
			func() error { return p.right.TerminateChild("net") },
		} {
			old := peer.Installed(p.sas(p.left), "net")[0]
			if err := happen(); err != nil {
				t.Fatal(err)
			}
			p.wait("another Child SA", p.left, func(s []peer.SA) bool {
				return installed(s) && peer.Installed(s, "net")[0].SPIIn != old.SPIIn
			})
			t.Logf("event %d: back after %v in all", i, time.Since(began).Round(100*time.Millisecond))
		}
		if took := time.Since(began); took < 700*time.Millisecond {
			t.Errorf("two losses in a row took %v only: there was no back-off", took)
		}
		p.settled()
		p.pings(false)
		if err := p.left.Terminate("gw"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1500 * time.Millisecond)
		if s := p.sas(p.left); installed(s) {
			t.Errorf("it came back against the operator's will: %+v", s)
		}
	})
}

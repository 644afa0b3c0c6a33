package interop_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"adit/interop/lab"
	"adit/interop/peer"
)

// cpus are the numbers of the resources that the Child SAs of an end serve, "" for all.
func cpus(s []peer.SA) (list []string) {
	for _, c := range peer.Installed(s, "net") {
		if c.Fields["per-cpu-sas"] != "yes" {
			return nil
		}
		list = append(list, c.Fields["cpu"])
	}
	slices.Sort(list)
	return list
}

// flows sends datagrams of many flows through the tunnel, so that each worker of the
// near gateway has some.
func (p *path) flows(from, to string) {
	p.t.Helper()
	if out, err := p.Exec(20*time.Second, from, "bash", "-c", fmt.Sprintf("for i in $(seq 100); do echo x >/dev/udp/%s/9; done", to)); err != nil {
		p.t.Fatal(err, out)
	}
}

// Child SAs for single workers beside the one for all (RFC 9611), from source ports of
// their own: made when a worker has packets, listed alike, rekeyed by either end, gone
// with the IKE SA. strongSwan's kernel-libipsec has no acquire for a processor: it makes
// them as responder alone.
func TestPerCPU(t *testing.T) {
	t.Parallel()
	among(t, []pair{{adit, adit}, {adit, newer}, {newer, adit}}, settings{middle: lab.Bridge, charon: "workers = 2\n"}, func(t *testing.T, p *path) {
		left, right := p.ends(false)
		left.extra, right.extra = "encap = yes\n", "encap = yes\n"
		// kernel-libipsec sends by charon's sockets, which have no further ports.
		for g, c := range map[peer.Gateway]*conn{p.left: &left, p.right: &right} {
			if c.child = "per_cpu_sas = yes\n"; strings.HasPrefix(g.Name(), "adit") {
				c.child = "per_cpu_sas = encap\n"
			}
		}
		p.load(left, right)
		p.up()
		for _, g := range []peer.Gateway{p.left, p.right} {
			if got := cpus(p.sas(g)); len(got) != 1 || got[0] != "" {
				t.Errorf("%s lists %q at first", g.Name(), got)
			}
		}
		l, r := p.hosts(false)
		// Whoever is adit has workers that ask.
		asks, from, to := p.left, lab.LeftHost, r.String()
		if !strings.HasPrefix(p.left.Name(), "adit") {
			asks, from, to = p.right, lab.RightHost, l.String()
		}
		p.flows(from, to)
		// Two that both ask at once may have more than one for a worker, and the other end
		// none for one that has no packets.
		p.wait("a Child SA for each worker", asks, func(s []peer.SA) bool {
			return slices.Equal(slices.Compact(cpus(s)), []string{"", "0", "1"})
		})
		for _, g := range []peer.Gateway{p.left, p.right} {
			p.wait("Child SAs of single workers", g, func(s []peer.SA) bool { return len(cpus(s)) >= 3 && len(cpus(s)) == len(cpus(p.sas(asks))) })
		}
		p.facts["cpus"] = strings.Join(cpus(p.sas(asks)), " ")
		p.flows(from, to)
		used := 0
		for _, c := range peer.Installed(p.sas(asks), "net") {
			if c.Fields["cpu"] != "" && c.Fields["packets-out"] != "0" {
				used++
			}
		}
		if used < 2 {
			t.Errorf("%d of the two have carried packets: %+v", used, p.sas(asks))
		}
		p.pings(false)
		for _, g := range []peer.Gateway{p.left, p.right} {
			before := peer.Installed(p.sas(g), "net")
			want := map[peer.Gateway][]string{p.left: cpus(p.sas(p.left)), p.right: cpus(p.sas(p.right))}
			if err := g.RekeyChild("net"); err != nil {
				t.Fatal(err)
			}
			for _, end := range []peer.Gateway{p.left, p.right} {
				p.wait("new Child SAs in place of all", end, func(s []peer.SA) bool {
					now := peer.Installed(s, "net")
					return slices.Equal(cpus(s), want[end]) && !slices.ContainsFunc(now, func(c peer.Child) bool {
						return slices.ContainsFunc(before, func(o peer.Child) bool { return o.SPIIn == c.SPIIn || o.SPIIn == c.SPIOut })
					})
				})
			}
			p.flows(from, to)
			if strings.HasPrefix(p.left.Name(), "adit") {
				p.pings(false)
			} else if err := p.WaitPing(lab.LeftHost, r, 5*time.Second); err != nil {
				t.Fatal(err) // single packets are lost when charon, with kernel-libipsec, rekeys several at once
			}
		}
		if err := p.left.Terminate("gw"); err != nil {
			t.Fatal(err)
		}
		for _, end := range []peer.Gateway{p.left, p.right} {
			p.wait("nothing left", end, func(s []peer.SA) bool { return len(s) == 0 })
		}
	})
}

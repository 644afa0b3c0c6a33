//go:build linux

package userspace_test

import (
	"crypto/rand"
	"encoding/binary"
	"net/netip"
	"os"
	"testing"
	"time"

	"adit/dataplane/userspace"
	"adit/ipsec"
	"adit/ipsec/dptest"
	"adit/suite"
)

// between installs both SAs of a Child SA, from a to b and back, with a window of 32
// packets, as other makers have it, and makes a's policy use it.
func between(t *testing.T, l dptest.Link, n uint32, spiB, spiA ipsec.SPI, remote netip.Prefix, change func(*ipsec.SAParams)) {
	t.Helper()
	far := func(e dptest.End) netip.AddrPort { return netip.AddrPortFrom(e.Outer4, 4500) }
	for _, d := range []struct {
		from, to dptest.End
		spi      ipsec.SPI
		lts, rts []ipsec.Selector
	}{{l.B, l.A, spiA, selectors(remote), selectors(netA4)}, {l.A, l.B, spiB, selectors(netA4), selectors(remote)}} {
		key := make(suite.Key, 36)
		rand.Read(key)
		p := ipsec.SAParams{Ref: ipsec.SARef{Child: n, Dir: ipsec.In}, SPI: d.spi, Local: far(d.to), Remote: far(d.from), Encap: true,
			Encr:   suite.Transform{Type: suite.TypeENCR, ID: suite.EncrAESGCM16, KeyBits: 256},
			EncKey: append(suite.Key(nil), key...), ReplayWindow: 32, LocalTS: d.rts, RemoteTS: d.lts}
		if change != nil {
			change(&p)
		}
		must(t, d.to.Plane.AddSA(p))
		p.Ref.Dir, p.EncKey = ipsec.Out, key
		p.Local, p.Remote, p.LocalTS, p.RemoteTS = p.Remote, p.Local, d.lts, d.rts
		if change != nil {
			change(&p)
		}
		must(t, d.from.Plane.AddSA(p))
	}
}

func use(t *testing.T, l dptest.Link, id ipsec.PolicyID, n uint32, remote netip.Prefix) {
	t.Helper()
	must(t, l.A.Plane.AddPolicy(ipsec.Policy{ID: id, Action: ipsec.Protect, Local: selectors(netA4), Remote: selectors(remote),
		Out: ipsec.SARef{Child: n, Dir: ipsec.Out}}))
}

// TestWorkersInOrder sends many flows through two SAs that several threads share, under
// load, with rekeys on the way: nothing is lost, nothing comes behind a window of 32,
// each flow keeps its order, and each SA is its owner's alone; in UDP and raw.
func TestWorkersInOrder(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	for _, c := range []struct {
		workers int
		raw     bool
	}{{2, false}, {4, false}, {2, true}} {
		workers := c.workers
		change := func(p *ipsec.SAParams) { p.Encap = !c.raw }
		l := linuxLink(t, workers)
		l.A.Outer4, l.B.Outer4 = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
		nets := []netip.Prefix{netip.MustParsePrefix("10.2.0.0/24"), netip.MustParsePrefix("10.2.1.0/24")}
		w := uint32(workers)
		// Two workers have SAs, and keep them over rekeys.
		spi := func(n uint32) ipsec.SPI { return ipsec.SPI(1000*w + w*n + n%2) }
		for i, net := range nets {
			between(t, l, uint32(i+1), spi(uint32(i+1)), spi(501+uint32(i)), net, change)
			use(t, l, ipsec.PolicyID(i+1), uint32(i+1), net)
		}
		const flows, rounds, most = 24, 400, 300
		next := map[uint16]uint32{} // what each flow has brought
		got, sent := 0, 0
		take := func(wait time.Duration) bool {
			b := l.B.Receive(wait)
			if b == nil {
				return false
			}
			port, n := binary.BigEndian.Uint16(b[20:]), binary.BigEndian.Uint32(b[28:])
			if n != next[port] {
				t.Errorf("%+v: flow %d brought packet %d, want %d", c, port, n, next[port])
			}
			next[port] = n + 1
			got++
			return true
		}
		child := uint32(2)
		for round := range rounds {
			for f := range flows {
				to := nets[f%2].Addr().Next()
				l.A.Send(udp(hostA4, to, uint16(1000+f), 9, binary.BigEndian.AppendUint32(nil, uint32(round))))
				sent++
			}
			for sent-got > most && take(5*time.Second) {
			}
			if round%100 == 50 { // a rekey of each
				for i, net := range nets {
					child++
					between(t, l, child, spi(child), spi(500+child), net, change)
					use(t, l, ipsec.PolicyID(i+1), child, net)
					must(t, l.A.Plane.DeleteSA(ipsec.SARef{Child: child - 2, Dir: ipsec.Out}))
				}
			}
			if t.Failed() {
				break
			}
		}
		for got < sent && take(5*time.Second) {
		}
		a, b := l.A.Plane.(*userspace.Plane), l.B.Plane.(*userspace.Plane)
		if got != sent {
			t.Errorf("%+v: %d of %d packets; %v %v", c, got, sent, dropsOf(a), dropsOf(b))
		}
		if ca, cb := a.Counters(), b.Counters(); cb.Drops(userspace.InReplay) != 0 || ca.Drops(userspace.OutNoSA) != 0 {
			t.Errorf("%+v: %v %v", c, dropsOf(a), dropsOf(b))
		}
		out, _ := a.Moved()
		_, in := b.Moved()
		for i := range workers {
			if (out[i] > 0) != (i < 2) || (in[i] > 0) != (i < 2) {
				t.Errorf("%+v: sealed %v, opened %v", c, out, in)
				break
			}
		}
	}
}

// TestWorkersOfTheirOwn: a worker that has an SA of its own seals for its flows with that,
// and sends from a port of its own; one that has none asks for one, once, and uses the
// one for all.
func TestWorkersOfTheirOwn(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	const workers = 2
	l := linuxLink(t, workers)
	l.A.Outer4, l.B.Outer4 = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	a := l.A.Plane.(*userspace.Plane)
	acquired := make(chan ipsec.Acquire, 100)
	a.Events(func(e ipsec.Event) {
		if x, ok := e.(ipsec.Acquire); ok {
			acquired <- x
		}
	})
	between(t, l, 1, 1000, 2000, netB4, nil)
	between(t, l, 2, 1003, 2003, netB4, func(p *ipsec.SAParams) { p.Resource, p.OwnPort = 2, p.Ref.Dir == ipsec.Out })
	pol := ipsec.Policy{ID: 1, Name: "net", Action: ipsec.Protect, Local: selectors(netA4), Remote: selectors(netB4), PerResource: true,
		Out: ipsec.SARef{Child: 1, Dir: ipsec.Out}, Resources: []ipsec.SARef{{Child: 2, Dir: ipsec.Out}}}
	must(t, a.AddPolicy(pol))
	send := func(rounds int) {
		t.Helper()
		for f := range rounds {
			l.A.Send(udp(hostA4, hostB4, uint16(1000+f), 9, nil))
			if l.B.Receive(5*time.Second) == nil {
				t.Fatalf("flow %d is lost: %v %v", f, dropsOf(a), dropsOf(l.B.Plane.(*userspace.Plane)))
			}
		}
	}
	packets := func(child uint32) uint64 {
		st, _ := a.Query(ipsec.SARef{Child: child, Dir: ipsec.Out})
		return st.Packets
	}
	send(64)
	if x := <-acquired; x.Resource != 1 || x.Policy != 1 || x.Src != hostA4 || x.Dst != hostB4 {
		t.Errorf("acquired %+v", x)
	}
	if n := len(acquired); n != 0 {
		t.Errorf("asked %d times more: %+v", n, <-acquired)
	}
	all, own := packets(1), packets(2)
	if all == 0 || own == 0 || all+own != 64 {
		t.Errorf("%d by the SA for all, %d by the worker's own", all, own)
	}
	between(t, l, 3, 1002, 2002, netB4, func(p *ipsec.SAParams) { p.Resource, p.OwnPort = 1, p.Ref.Dir == ipsec.Out })
	pol.Resources = append(pol.Resources, ipsec.SARef{Child: 3, Dir: ipsec.Out})
	must(t, a.AddPolicy(pol))
	send(64)
	if packets(1) != all || packets(2) == own || packets(3) == 0 {
		t.Errorf("now %d by the SA for all, which had %d, %d and %d by the workers' own", packets(1), all, packets(2), packets(3))
	}
	// One goes: its worker falls back.
	pol.Resources = pol.Resources[1:]
	must(t, a.AddPolicy(pol))
	must(t, a.DeleteSA(ipsec.SARef{Child: 2, Dir: ipsec.Out}))
	send(64)
	if packets(1) == all {
		t.Error("nothing by the SA for all")
	}
}

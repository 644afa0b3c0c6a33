package userspace_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"adit/dataplane/userspace"
	"adit/internal/conn"
	"adit/ipsec"
)

// TestRFC4301_4_4_1_SPDAgainstList compares the indexed SPD with a search through
// an ordered list, over random policies that are added, replaced and deleted.
func TestRFC4301_4_4_1_SPDAgainstList(t *testing.T) {
	addr := func(v6 bool) *rapid.Generator[netip.Addr] {
		return rapid.Custom(func(t *rapid.T) netip.Addr {
			n := rapid.Uint8Max(15).Draw(t, "host")
			if v6 {
				return netip.AddrFrom16([16]byte{0xfd, 15: n})
			}
			return netip.AddrFrom4([4]byte{10, 0, 0, n})
		})
	}
	side := rapid.Custom(func(t *rapid.T) []ipsec.Selector {
		var list []ipsec.Selector
		for range rapid.IntRange(1, 3).Draw(t, "selectors") {
			v6 := rapid.Bool().Draw(t, "v6")
			a, b := addr(v6).Draw(t, "from"), addr(v6).Draw(t, "to")
			if b.Less(a) {
				a, b = b, a
			}
			s := ipsec.Selector{From: a, To: b, PortTo: 65535}
			switch rapid.IntRange(0, 3).Draw(t, "kind") {
			case 0: // everything of the family
				s = ipsec.FromPrefix(netip.PrefixFrom(a, 0))
			case 1:
				s.Proto, s.PortFrom, s.PortTo = 17, 7000, 7000
			}
			list = append(list, s)
		}
		return list
	})
	rapid.Check(t, func(t *rapid.T) {
		p, err := userspace.New(userspace.Config{Tun: newHole(), Conn: &sink{}, IKE: func(*conn.Packet) {}})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		model := map[ipsec.PolicyID]ipsec.Policy{}
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			id := ipsec.PolicyID(rapid.IntRange(1, 12).Draw(t, "id"))
			if _, ok := model[id]; ok && rapid.Bool().Draw(t, "delete") {
				if err := p.DeletePolicy(id); err != nil {
					t.Fatal(err)
				}
				delete(model, id)
			} else {
				pol := ipsec.Policy{ID: id, Action: ipsec.Discard, Priority: rapid.Uint32Range(0, 3).Draw(t, "priority"),
					Local: side.Draw(t, "local"), Remote: side.Draw(t, "remote")}
				if err := p.AddPolicy(pol); err != nil {
					t.Fatal(err)
				}
				model[id] = pol
			}
			for range 5 {
				v6 := rapid.Bool().Draw(t, "v6")
				src, dst := addr(v6).Draw(t, "src"), addr(v6).Draw(t, "dst")
				sport := rapid.SampledFrom([]uint16{1, 7000}).Draw(t, "sport")
				dport := rapid.SampledFrom([]uint16{1, 7000}).Draw(t, "dport")
				if got, want := p.FindPolicy(udp(src, dst, sport, dport, nil), 0), first(model, src, dst, sport, dport); got != want {
					t.Fatalf("%v to %v: policy %d, want %d of %v", src, dst, got, want, model)
				}
			}
		}
	})
}

func first(model map[ipsec.PolicyID]ipsec.Policy, src, dst netip.Addr, sport, dport uint16) (best ipsec.PolicyID) {
	one := func(list []ipsec.Selector, a netip.Addr, port uint16) bool {
		for _, s := range list {
			if s.Match(a, 17, port, true) {
				return true
			}
		}
		return false
	}
	for id, p := range model {
		if !one(p.Local, src, sport) || !one(p.Remote, dst, dport) {
			continue
		}
		if b := model[best]; best == 0 || p.Priority < b.Priority || p.Priority == b.Priority && id < best {
			best = id
		}
	}
	return best
}

// TestManySAs: thousands of SAs are found by SPI while others come and go, and
// SPI zero never finds what was deleted.
func TestManySAs(t *testing.T) {
	b := newBench(t, child{})
	live := map[uint32]bool{1: true}
	for n := uint32(2); n < 3000; n++ {
		b.l.install(child{n: n, noPolicy: true})
		live[n] = true
		if n%3 != 0 {
			for _, s := range []*side{b.l.a, b.l.b} {
				must(t, s.plane.DeleteSA(ipsec.SARef{Child: n, Dir: ipsec.In}))
				must(t, s.plane.DeleteSA(ipsec.SARef{Child: n, Dir: ipsec.Out}))
			}
			delete(live, n)
		}
	}
	for n := uint32(1); n < 3000; n++ {
		before := b.l.b.plane.Counters()
		wire := binary.BigEndian.AppendUint32(nil, 0x1000_0000+n)
		b.in.Batch([]conn.Packet{{Kind: conn.ESP, Buf: append(wire, make([]byte, 44)...)}})
		after := b.l.b.plane.Counters()
		if found := after.Drops(userspace.InNoSA) == before.Drops(userspace.InNoSA); found != live[n] {
			t.Fatalf("SA %d found: %v", n, found)
		}
	}
}

func TestSPIZero(t *testing.T) {
	b := newBench(t, child{})
	spi := ipsec.SPI(0x5000)
	for userspace.SPIHash(spi) != userspace.SPIHash(0) {
		spi++
	}
	p := b.l.peer(func(s *ipsec.SAParams) { s.SPI = spi })
	must(t, b.l.b.plane.DeleteSA(ipsec.SARef{Child: 77, Dir: ipsec.In}))
	for _, n := range []ipsec.SPI{0, p.spi} {
		b.in.Batch([]conn.Packet{{Kind: conn.ESP, Buf: append(binary.BigEndian.AppendUint32(nil, uint32(n)), make([]byte, 44)...)}})
	}
	if c := b.l.b.plane.Counters(); c.Drops(userspace.InNoSA) != 2 || c.Drops(userspace.BatchPanic) != 0 {
		t.Fatalf("drops %v", dropsOf(b.l.b.plane))
	}
}

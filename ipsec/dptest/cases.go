package dptest

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"adit/ipsec"
	"adit/suite"
)

var (
	hostA4, hostB4 = netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.2.0.2")
	hostA6, hostB6 = netip.MustParseAddr("fd01::1"), netip.MustParseAddr("fd02::2")
)

var cases = []struct {
	name string
	test func(*run)
}{
	{"RFC4301_3_2_Forwarding", forwarding},
	{"Suites", suites},
	{"RFC4301_4_4_1_PolicyOrder", policyOrder},
	{"RFC4301_4_4_1_PortsAndProtocol", portsAndProtocol},
	{"RFC4301_5_2_SelectorsInbound", selectorsInbound},
	{"ReplacePolicy", replacePolicy},
	{"TrapKeepsFirstPackets", trapKeepsFirstPackets},
	{"PolicyWithoutSA", policyWithoutSA},
	{"RekeyWithoutLoss", rekeyWithoutLoss},
	{"LifetimePackets", lifetimePackets},
	{"LifetimeBytes", lifetimeBytes},
	{"Query", query},
	{"UpdateSA", updateSA},
	{"DeleteSA", deleteSA},
	{"Refusals", refusals},
	{"Close", closing},
}

func payload(n int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(n)) }

func a4b4(n int) []byte { return UDP(hostA4, hostB4, 1000, 2000, payload(n)) }
func b4a4(n int) []byte { return UDP(hostB4, hostA4, 2000, 1000, payload(n)) }

// forwarding: both modes, families and forms, both ways.
func forwarding(r *run) {
	n := uint32(0)
	for _, outer6 := range []bool{false, true} {
		if outer6 && !r.A.Outer6.IsValid() {
			continue
		}
		for _, raw := range []bool{false, true} {
			for _, mode := range []ipsec.Mode{ipsec.ModeTunnel, ipsec.ModeTransport} {
				if raw && r.NoRaw || mode == ipsec.ModeTransport && r.NoTransport {
					continue
				}
				n++
				p := pair{n: n, outer6: outer6, raw: raw, mode: mode}
				r.install(p)
				inner := [][2]netip.Addr{{hostA4, hostB4}, {hostA6, hostB6}}
				if mode == ipsec.ModeTransport {
					if inner = [][2]netip.Addr{{r.A.Outer4, r.B.Outer4}}; outer6 {
						inner = [][2]netip.Addr{{r.A.Outer6, r.B.Outer6}}
					}
				}
				for _, h := range inner {
					for _, size := range []int{0, 1, 2, 3, 4, 700, 1200} {
						r.passes(r.a, r.b, UDP(h[0], h[1], 1000, 2000, make([]byte, size)))
						r.passes(r.b, r.a, UDP(h[1], h[0], 2000, 1000, make([]byte, size)))
					}
				}
				r.ok(r.a.Plane.DeletePolicy(ipsec.PolicyID(n)))
				r.ok(r.b.Plane.DeletePolicy(ipsec.PolicyID(n)))
				r.remove(n)
			}
		}
	}
}

// suites: one of each construction, with and without extended sequence numbers.
func suites(r *run) {
	encr := func(id suite.TransformID, bits uint16) suite.Transform {
		return suite.Transform{Type: suite.TypeENCR, ID: id, KeyBits: bits}
	}
	integ := func(id suite.TransformID) suite.Transform {
		return suite.Transform{Type: suite.TypeINTEG, ID: id}
	}
	n := uint32(0)
	for _, p := range []pair{
		{encr: encr(suite.EncrAESGCM16, 128)}, {encr: encr(suite.EncrAESGCM12, 192)}, {encr: encr(suite.EncrAESCCM16, 128)},
		{encr: encr(suite.EncrChaCha20Poly1305, 0)}, {encr: encr(suite.EncrNULLAuthAESGMAC, 256)},
		{encr: encr(suite.EncrAESCBC, 256), integ: integ(suite.IntegHMACSHA2_256_128)},
		{encr: encr(suite.EncrAESCBC, 128), integ: integ(suite.IntegAESCMAC96)},
		{encr: encr(suite.EncrAESCTR, 128), integ: integ(suite.IntegHMACSHA1_96)},
		{encr: encr(suite.EncrNULL, 0), integ: integ(suite.IntegHMACSHA2_512_256)},
	} {
		for _, p.noESN = range []bool{false, true} {
			n++
			p.n = n
			r.install(p)
			r.passes(r.a, r.b, a4b4(int(n)))
			r.passes(r.b, r.a, b4a4(int(n)))
			r.ok(r.a.Plane.DeletePolicy(ipsec.PolicyID(n)))
			r.ok(r.b.Plane.DeletePolicy(ipsec.PolicyID(n)))
			r.remove(n)
		}
	}
}

// policyOrder: priority first, then the ID, whatever the order of adding.
func policyOrder(r *run) {
	r.install(pair{n: 1, noPolicies: true})
	p := pair{n: 1}
	p.fill(r)
	base, _ := p.policies()
	protect, discard := base, base
	protect.ID, protect.Priority = 5, 100
	discard.ID, discard.Priority, discard.Action, discard.Out = 6, 100, ipsec.Discard, ipsec.SARef{}
	r.ok(r.a.Plane.AddPolicy(discard))
	r.vanishes(r.a, r.b, a4b4(1))
	r.ok(r.a.Plane.AddPolicy(protect)) // same priority, lower ID
	r.passes(r.a, r.b, a4b4(2))
	discard.Priority = 99
	r.ok(r.a.Plane.AddPolicy(discard))
	r.vanishes(r.a, r.b, a4b4(3))
	// A narrow discard before a wide protect leaves the rest alone.
	discard.Remote = sel(netip.MustParsePrefix("10.2.9.0/24"))
	r.ok(r.a.Plane.AddPolicy(discard))
	r.passes(r.a, r.b, a4b4(4))
	r.vanishes(r.a, r.b, UDP(hostA4, netip.MustParseAddr("10.2.9.9"), 1, 2, nil))
	r.ok(r.a.Plane.DeletePolicy(6))
	r.passes(r.a, r.b, UDP(hostA4, netip.MustParseAddr("10.2.9.9"), 1, 2, nil))
	// What no policy matches does not pass either.
	r.vanishes(r.a, r.b, UDP(hostA4, netip.MustParseAddr("10.3.0.1"), 1, 2, nil))
	r.vanishes(r.a, r.b, UDP(netip.MustParseAddr("10.9.0.1"), hostB4, 1, 2, nil))
}

func portsAndProtocol(r *run) {
	with := func(p netip.Prefix, proto uint8, from, to uint16) []ipsec.Selector {
		s := ipsec.FromPrefix(p)
		s.Proto, s.PortFrom, s.PortTo = proto, from, to
		return []ipsec.Selector{s}
	}
	r.install(pair{n: 1, a: with(NetA4, ipsec.ProtoUDP, 0, 65535), b: with(NetB4, ipsec.ProtoUDP, 2000, 2010)})
	r.passes(r.a, r.b, UDP(hostA4, hostB4, 1, 2000, nil))
	r.passes(r.a, r.b, UDP(hostA4, hostB4, 1, 2010, nil))
	r.passes(r.b, r.a, UDP(hostB4, hostA4, 2005, 1, nil))
	r.vanishes(r.a, r.b, UDP(hostA4, hostB4, 1, 1999, nil))
	r.vanishes(r.a, r.b, UDP(hostA4, hostB4, 1, 2011, nil))
	tcp := UDP(hostA4, hostB4, 1, 2000, make([]byte, 20))
	tcp[9] = ipsec.ProtoTCP
	binary.BigEndian.PutUint16(tcp[10:], 0)
	binary.BigEndian.PutUint16(tcp[10:], ^fold(sum(tcp[:20])))
	r.vanishes(r.a, r.b, tcp)
}

// selectorsInbound: a peer that sends more through an SA than was agreed is not believed.
func selectorsInbound(r *run) {
	wide, narrow := pair{n: 1}, netip.MustParsePrefix("10.1.0.0/24")
	a, b := wide.fill(r)
	enc, _ := r.keys(wide)
	p := ipsec.SAParams{Ref: ipsec.SARef{Child: 1, Dir: ipsec.Out}, SPI: 0xA000_0001, Local: a, Remote: b, Encap: true,
		Encr: wide.encr, ReplayWindow: 64, LocalTS: wide.a, RemoteTS: wide.b}
	in := p
	in.Ref.Dir, in.Local, in.Remote, in.LocalTS, in.RemoteTS = ipsec.In, b, a, wide.b, sel(narrow)
	in.EncKey = append(suite.Key(nil), enc...)
	p.EncKey = enc
	r.ok(r.b.Plane.AddSA(in))
	r.ok(r.a.Plane.AddSA(p))
	pol, _ := wide.policies()
	r.ok(r.a.Plane.AddPolicy(pol))
	r.passes(r.a, r.b, a4b4(1))
	r.vanishes(r.a, r.b, UDP(netip.MustParseAddr("10.1.1.1"), hostB4, 1, 2, nil))
	r.vanishes(r.a, r.b, UDP(hostA6, hostB6, 1, 2, nil))
	st, ok := r.b.Plane.Query(in.Ref)
	if !ok || st.SelectorMismatch != 2 {
		r.Fatalf("mismatches counted: %+v", st)
	}
}

// replacePolicy: the one of the same ID, with other selectors.
func replacePolicy(r *run) {
	r.install(pair{n: 1})
	r.passes(r.a, r.b, a4b4(1))
	p := pair{n: 1}
	p.fill(r)
	pol, _ := p.policies()
	pol.Remote = sel(netip.MustParsePrefix("10.2.7.0/24"))
	r.ok(r.a.Plane.AddPolicy(pol))
	r.vanishes(r.a, r.b, a4b4(2))
	r.passes(r.a, r.b, UDP(hostA4, netip.MustParseAddr("10.2.7.7"), 1, 2, nil))
	pol.Action, pol.Out = ipsec.Discard, ipsec.SARef{}
	r.ok(r.a.Plane.AddPolicy(pol))
	r.vanishes(r.a, r.b, UDP(hostA4, netip.MustParseAddr("10.2.7.7"), 1, 2, nil))
}

// trapKeepsFirstPackets: one Acquire, and the packets leave in order when the SA
// is there, with the trap's own policy or with another.
func trapKeepsFirstPackets(r *run) {
	for _, own := range []bool{true, false} {
		p := pair{n: 1}
		p.fill(r)
		if !own {
			p.n = 2
		}
		trap, _ := p.policies()
		trap.ID, trap.Out, trap.Trap, trap.Priority, trap.Name = 7, ipsec.SARef{}, true, 10, "trap"
		r.ok(r.a.Plane.AddPolicy(trap))
		before := len(all[ipsec.Acquire](r.a))
		for n := range 5 {
			r.a.Send(a4b4(n))
		}
		for end := time.Now().Add(patience); len(all[ipsec.Acquire](r.a)) == before && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		if got := r.b.Receive(r.Quiet); got != nil {
			r.Fatalf("left without SA: %x", got)
		}
		acquires := all[ipsec.Acquire](r.a)
		if len(acquires) != before+1 {
			r.Fatalf("%d acquires for one flow", len(acquires)-before)
		}
		if q := acquires[before]; q.Policy != 7 || q.Name != "trap" || q.Src != hostA4 || q.Dst != hostB4 || q.Proto != 17 ||
			q.SrcPort != 1000 || q.DstPort != 2000 {
			r.Fatalf("acquire %+v", q)
		}
		p.noPolicies = true
		r.install(p)
		pol, _ := p.policies()
		if own {
			pol = trap
			pol.Out = ipsec.SARef{Child: p.n, Dir: ipsec.Out}
		}
		r.ok(r.a.Plane.AddPolicy(pol))
		for n := range 5 {
			r.arrives(r.b, a4b4(n))
		}
		r.passes(r.a, r.b, a4b4(9))
		r.ok(r.a.Plane.DeletePolicy(pol.ID))
		if !own {
			r.ok(r.a.Plane.DeletePolicy(7))
		}
		r.remove(p.n)
	}
}

// policyWithoutSA: no trap, no SA, no packet, and none later either.
func policyWithoutSA(r *run) {
	p := pair{n: 1}
	p.fill(r)
	pol, _ := p.policies()
	pol.Out = ipsec.SARef{}
	r.ok(r.a.Plane.AddPolicy(pol))
	r.vanishes(r.a, r.b, a4b4(1))
	if n := len(all[ipsec.Acquire](r.a)); n != 0 {
		r.Fatalf("%d acquires without trap", n)
	}
	r.install(pair{n: 1})
	r.passes(r.a, r.b, a4b4(2))
}

// rekeyWithoutLoss: the new pair is installed, the policy switched, the old pair
// removed, between numbered packets: each arrives, once, in order.
func rekeyWithoutLoss(r *run) {
	r.install(pair{n: 1})
	n := 0
	for generation := uint32(2); generation < 8; generation++ {
		for range 10 {
			r.a.Send(a4b4(n))
			n++
		}
		p := pair{n: generation, noPolicies: true}
		r.install(p)
		p.fill(r)
		pa, pb := p.policies()
		pa.ID, pb.ID = 1, 1
		r.ok(r.a.Plane.AddPolicy(pa))
		r.ok(r.b.Plane.AddPolicy(pb))
		for range 10 {
			r.a.Send(a4b4(n))
			n++
		}
		for i := n - 20; i < n; i++ {
			r.arrives(r.b, a4b4(i))
		}
		r.remove(generation - 1)
	}
	r.passes(r.b, r.a, b4a4(n))
}

// lifetimePackets: soft once, hard once, and nothing after the hard bound.
func lifetimePackets(r *run) {
	r.install(pair{n: 1, life: ipsec.Lifetime{SoftPackets: 3, HardPackets: 5}})
	for n := range 5 {
		r.passes(r.a, r.b, a4b4(n))
		wantSoft, wantHard := n+1 >= 3, n+1 >= 5
		if !wantSoft {
			continue
		}
		for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
			soft, hard := expiries(r.a, ipsec.Out)
			if soft == 1 && hard == btoi(wantHard) {
				break
			}
			if time.Now().After(end) {
				r.Fatalf("after packet %d: %d soft and %d hard expiries", n+1, soft, hard)
			}
		}
	}
	r.vanishes(r.a, r.b, a4b4(6))
	if soft, hard := expiries(r.a, ipsec.Out); soft != 1 || hard != 1 {
		r.Fatalf("%d soft and %d hard expiries", soft, hard)
	}
	if soft, hard := expiries(r.b, ipsec.In); soft != 1 || hard != 1 {
		r.Fatalf("inbound: %d soft and %d hard expiries", soft, hard)
	}
}

func lifetimeBytes(r *run) {
	r.install(pair{n: 1, life: ipsec.Lifetime{SoftBytes: 2500}})
	for n := range 4 {
		r.passes(r.a, r.b, UDP(hostA4, hostB4, 1, 2, make([]byte, 972))) // 1000 bytes
		if n < 2 {
			if soft, hard := expiries(r.a, ipsec.Out); soft+hard != 0 {
				r.Fatalf("expired after %d bytes", 1000*(n+1))
			}
		}
	}
	if e := wait[ipsec.Expire](r.a); e.Ref != (ipsec.SARef{Child: 1, Dir: ipsec.Out}) || e.Hard {
		r.Fatalf("expiry %+v", e)
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func expiries(g *gateway, d ipsec.Direction) (soft, hard int) {
	for _, e := range all[ipsec.Expire](g) {
		if e.Ref != (ipsec.SARef{Child: 1, Dir: d}) {
			continue
		}
		if e.Hard {
			hard++
		} else {
			soft++
		}
	}
	return soft, hard
}

func query(r *run) {
	r.install(pair{n: 1})
	if _, ok := r.a.Plane.Query(ipsec.SARef{Child: 2, Dir: ipsec.Out}); ok {
		r.Fatal("an SA that does not exist was found")
	}
	out, in := ipsec.SARef{Child: 1, Dir: ipsec.Out}, ipsec.SARef{Child: 1, Dir: ipsec.In}
	if st, ok := r.a.Plane.Query(out); !ok || st.Packets != 0 || !st.LastUse.IsZero() {
		r.Fatalf("fresh: %+v", st)
	}
	for n := range 3 {
		r.passes(r.a, r.b, a4b4(n))
	}
	for g, ref := range map[*gateway]ipsec.SARef{r.a: out, r.b: in} {
		st, ok := g.Plane.Query(ref)
		if !ok || st.Packets != 3 || st.Bytes != 3*32 || st.Seq != 3 || st.LastUse.IsZero() {
			r.Fatalf("%s: %+v", ref.Dir, st)
		}
	}
}

// updateSA: the outbound SA to an address where nobody is, and back.
func updateSA(r *run) {
	r.install(pair{n: 1})
	r.passes(r.a, r.b, a4b4(1))
	p := pair{n: 1}
	a, b := p.fill(r)
	out := ipsec.SARef{Child: 1, Dir: ipsec.Out}
	nowhere := netip.AddrPortFrom(b.Addr(), 4599)
	r.ok(r.a.Plane.UpdateSA(out, ipsec.SAUpdate{Local: a, Remote: nowhere, Encap: true}))
	r.vanishes(r.a, r.b, a4b4(2))
	r.ok(r.a.Plane.UpdateSA(out, ipsec.SAUpdate{Local: a, Remote: b, Encap: true}))
	r.passes(r.a, r.b, a4b4(3))
	r.refused(r.a.Plane.UpdateSA(ipsec.SARef{Child: 9, Dir: ipsec.Out}, ipsec.SAUpdate{Local: a, Remote: b}), "the update of no SA")
	if !r.NoRaw { // RFC 7296 §2.23: both forms are taken, whatever was agreed
		r.ok(r.a.Plane.UpdateSA(out, ipsec.SAUpdate{Local: a, Remote: b}))
		r.passes(r.a, r.b, a4b4(4))
	}
}

func deleteSA(r *run) {
	r.install(pair{n: 1})
	r.passes(r.a, r.b, a4b4(1))
	r.ok(r.b.Plane.DeleteSA(ipsec.SARef{Child: 1, Dir: ipsec.In}))
	r.vanishes(r.a, r.b, a4b4(2))
	if o := wait[ipsec.Orphan](r.b); o.SPI != 0xA000_0001 || o.Remote.Addr() != r.A.Outer4 {
		r.Fatalf("orphan %+v", o)
	}
	r.ok(r.a.Plane.DeleteSA(ipsec.SARef{Child: 1, Dir: ipsec.Out}))
	r.vanishes(r.a, r.b, a4b4(3))
	r.refused(r.a.Plane.DeleteSA(ipsec.SARef{Child: 1, Dir: ipsec.Out}), "the second deletion of an SA")
	r.ok(r.a.Plane.DeletePolicy(1))
	r.refused(r.a.Plane.DeletePolicy(1), "the second deletion of a policy")
}

// refusals: what would be ambiguous or unsafe.
func refusals(r *run) {
	r.install(pair{n: 1})
	p := pair{n: 2}
	a, b := p.fill(r)
	for what, change := range map[string]func(*ipsec.SAParams){
		"a reference in use":    func(s *ipsec.SAParams) { s.Ref.Child = 1 },
		"an inbound SPI in use": func(s *ipsec.SAParams) { s.SPI = 0xA000_0001 },
		"a reserved SPI":        func(s *ipsec.SAParams) { s.SPI = 100 },
		"a short key":           func(s *ipsec.SAParams) { s.EncKey = s.EncKey[:20] },
		"no integrity": func(s *ipsec.SAParams) {
			s.Encr = suite.Transform{Type: suite.TypeENCR, ID: suite.EncrAESCBC, KeyBits: 256}
		},
		"an unresolved selector":      func(s *ipsec.SAParams) { s.RemoteTS = []ipsec.Selector{ipsec.Dynamic()} },
		"an SA without outer address": func(s *ipsec.SAParams) { s.Remote = netip.AddrPort{} },
	} {
		s := ipsec.SAParams{Ref: ipsec.SARef{Child: 2, Dir: ipsec.In}, SPI: 0xA000_0002, Local: b, Remote: a, Encap: true,
			Encr: p.encr, EncKey: make(suite.Key, 36), ReplayWindow: 64, LocalTS: p.b, RemoteTS: p.a}
		change(&s)
		r.refused(r.b.Plane.AddSA(s), what)
	}
	pol, _ := p.policies()
	r.refused(r.a.Plane.AddPolicy(pol), "a policy with an SA that does not exist")
	pol.Out = ipsec.SARef{}
	pol.Remote = []ipsec.Selector{ipsec.Dynamic()}
	r.refused(r.a.Plane.AddPolicy(pol), "a policy with an unresolved selector")
	for n := range 3 { // all that left the first pair alone
		r.passes(r.a, r.b, a4b4(n))
	}
}

func closing(r *run) {
	r.install(pair{n: 1})
	r.passes(r.a, r.b, a4b4(1))
	r.ok(r.a.Plane.Close())
	r.ok(r.a.Plane.Close())
	if _, ok := r.a.Plane.Query(ipsec.SARef{Child: 1, Dir: ipsec.Out}); ok {
		r.Fatal("an SA survived Close")
	}
	p := pair{n: 3}
	p.fill(r)
	pol, _ := p.policies()
	pol.Out = ipsec.SARef{}
	r.refused(r.a.Plane.AddPolicy(pol), fmt.Sprintf("policy %d after Close", pol.ID))
}

// Package dptest is the conformance suite of ipsec.Dataplane: whatever moves
// packets under the engines, in userspace, in a kernel or in a simulation, is
// run through it.
//
// It owns what the interface promises and nothing of a backend: it installs SAs
// and policies at two gateways, sends inner packets and looks at what comes out.
// Start reading at Link and Run; the cases are in cases.go.
package dptest

import (
	"bytes"
	"crypto/rand"
	"net/netip"
	"sync"
	"testing"
	"time"

	"adit/ipsec"
	"adit/suite"
)

// End is one of the two gateways under test.
type End struct {
	Plane ipsec.Dataplane
	// Outer4 and Outer6 are the gateway's addresses towards the other; an invalid
	// one leaves its family out.
	Outer4, Outer6 netip.Addr
	// Send puts an IP packet into the gateway as from the network behind it.
	Send func(packet []byte)
	// Settled waits until the gateway has decided about all that was sent; nil
	// where that cannot be seen, and time alone must do.
	Settled func()
	// Receive waits so long for an IP packet out to that network; nil if none came.
	Receive func(wait time.Duration) []byte
}

// Link is a pair of gateways that reach each other.
type Link struct {
	A, B End
	// NoRaw and NoTransport leave out what the backend or its surroundings cannot do.
	NoRaw, NoTransport bool
	// Quiet is how long to wait before it is believed that a packet does not come;
	// 0 means 50 ms.
	Quiet time.Duration
	// Workers is by how much the SPIs of one Child SA and of the next differ, 0 is 1: a
	// backend with several threads gives each the SPIs that have one remainder, and a
	// rekey keeps the order of packets only if it keeps the thread.
	Workers uint32
}

// Networks behind the gateways: every inner packet is between them, except in
// transport mode.
var (
	NetA4 = netip.MustParsePrefix("10.1.0.0/16")
	NetB4 = netip.MustParsePrefix("10.2.0.0/16")
	NetA6 = netip.MustParsePrefix("fd01::/16")
	NetB6 = netip.MustParsePrefix("fd02::/16")
)

const (
	patience     = 5 * time.Second
	defaultQuiet = 50 * time.Millisecond
	nattPort     = 4500
)

// Run runs the suite; open makes a fresh pair for each case and cleans up by t.
func Run(t *testing.T, open func(t *testing.T) Link) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			l := open(t)
			if l.Quiet == 0 {
				l.Quiet = defaultQuiet
			}
			r := &run{T: t, Link: l}
			r.a, r.b = newGateway(r, l.A), newGateway(r, l.B)
			c.test(r)
		})
	}
}

// run is one case at work.
type run struct {
	*testing.T
	Link
	a, b *gateway
}

// gateway is an End with the events that it emitted.
type gateway struct {
	End
	r      *run
	mu     sync.Mutex
	events []ipsec.Event
}

func newGateway(r *run, e End) *gateway {
	g := &gateway{End: e, r: r}
	g.Plane.Events(func(ev ipsec.Event) {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.events = append(g.events, ev)
	})
	return g
}

// wait returns the first event of a type, and fails if none comes.
func wait[E ipsec.Event](g *gateway) E {
	g.r.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if l := all[E](g); len(l) > 0 {
			return l[0]
		}
	}
	var none E
	g.r.Fatalf("no event %T", none)
	return none
}

// all returns the events of a type that came so far.
func all[E ipsec.Event](g *gateway) (list []E) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, ev := range g.events {
		if e, ok := ev.(E); ok {
			list = append(list, e)
		}
	}
	return list
}

func (r *run) ok(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (r *run) refused(err error, what string) {
	r.Helper()
	if err == nil {
		r.Fatalf("%s was accepted", what)
	}
}

// passes sends a packet into one gateway and demands it from the other.
func (r *run) passes(from, to *gateway, packet []byte) {
	r.Helper()
	from.Send(packet)
	r.arrives(to, packet)
}

func (r *run) arrives(at *gateway, packet []byte) {
	r.Helper()
	got := at.Receive(patience)
	if got == nil {
		r.Fatal("the packet did not arrive")
	}
	if !sameBut(got, packet) {
		r.Fatalf("arrived\n%x, sent\n%x", got, packet)
	}
}

// vanishes sends a packet and demands that nothing comes out.
func (r *run) vanishes(from, to *gateway, packet []byte) {
	r.Helper()
	from.Send(packet)
	if from.Settled != nil {
		from.Settled()
	}
	if got := to.Receive(r.Quiet); got != nil {
		r.Fatalf("arrived although nothing may pass: %x", got)
	}
}

// sameBut compares packets apart from the IPv4 fields that forwarding and
// transport mode change: TOS, identification, flags, TTL and checksum.
func sameBut(got, want []byte) bool {
	if len(got) != len(want) || len(got) < 20 || got[0]>>4 != want[0]>>4 {
		return false
	}
	if got[0]>>4 == 6 {
		return bytes.Equal(got[:7], want[:7]) && bytes.Equal(got[8:], want[8:])
	}
	return bytes.Equal(got[2:4], want[2:4]) && got[9] == want[9] && bytes.Equal(got[12:], want[12:])
}

// pair describes one Child SA between the gateways.
type pair struct {
	n          uint32 // its number at both ends, and the policy's ID
	outer6     bool
	raw        bool
	mode       ipsec.Mode
	a, b       []ipsec.Selector // default: the networks, or the gateways in transport mode
	encr       suite.Transform  // default: AES-256-GCM
	integ      suite.Transform
	noESN      bool
	life       ipsec.Lifetime
	noPolicies bool
}

func sel(prefixes ...netip.Prefix) (out []ipsec.Selector) {
	for _, p := range prefixes {
		out = append(out, ipsec.FromPrefix(p))
	}
	return out
}

func (p *pair) fill(r *run) (a, b netip.AddrPort) {
	x, y := r.A.Outer4, r.B.Outer4
	if p.outer6 {
		x, y = r.A.Outer6, r.B.Outer6
	}
	if p.a == nil && p.mode == ipsec.ModeTransport {
		p.a, p.b = sel(netip.PrefixFrom(x, x.BitLen())), sel(netip.PrefixFrom(y, y.BitLen()))
	} else if p.a == nil {
		p.a, p.b = sel(NetA4, NetA6), sel(NetB4, NetB6)
	}
	if p.encr == (suite.Transform{}) {
		p.encr = suite.Transform{Type: suite.TypeENCR, ID: suite.EncrAESGCM16, KeyBits: 256}
	}
	return netip.AddrPortFrom(x, nattPort), netip.AddrPortFrom(y, nattPort)
}

func (p *pair) policies() (a, b ipsec.Policy) {
	a = ipsec.Policy{ID: ipsec.PolicyID(p.n), Name: "dptest", Local: p.a, Remote: p.b, Mode: p.mode,
		Out: ipsec.SARef{Child: p.n, Dir: ipsec.Out}, ReqID: p.n}
	b = a
	b.Local, b.Remote = p.b, p.a
	return a, b
}

// install makes the SAs of a pair, inbound before outbound, and its policies.
func (r *run) install(p pair) {
	r.Helper()
	a, b := p.fill(r)
	there := r.direction(p, r.a, r.b, a, b, r.spi(0xA000_0000, p), p.a, p.b)
	back := r.direction(p, r.b, r.a, b, a, r.spi(0xB000_0000, p), p.b, p.a)
	r.ok(r.a.Plane.AddSA(there))
	r.ok(r.b.Plane.AddSA(back))
	for _, k := range []suite.Key{there.EncKey, there.IntegKey, back.EncKey, back.IntegKey} {
		if !bytes.Equal(k, make([]byte, len(k))) {
			r.Fatal("AddSA left a key in its parameters")
		}
	}
	if p.noPolicies {
		return
	}
	pa, pb := p.policies()
	r.ok(r.a.Plane.AddPolicy(pa))
	r.ok(r.b.Plane.AddPolicy(pb))
}

func (r *run) spi(base uint32, p pair) ipsec.SPI {
	step := max(r.Workers, 1)
	return ipsec.SPI(base + 1 + (p.n-1)*step)
}

// direction installs the inbound SA of one direction and returns the outbound one.
func (r *run) direction(p pair, from, to *gateway, local, remote netip.AddrPort, spi ipsec.SPI, lts, rts []ipsec.Selector) ipsec.SAParams {
	r.Helper()
	enc, ing := r.keys(p)
	s := ipsec.SAParams{Ref: ipsec.SARef{Child: p.n, Dir: ipsec.Out}, SPI: spi, Name: "dptest", ReqID: p.n,
		Local: local, Remote: remote, Encap: !p.raw, Mode: p.mode, Encr: p.encr, Integ: p.integ, ESN: !p.noESN,
		ReplayWindow: 64, LocalTS: lts, RemoteTS: rts, Life: p.life, CopyECN: true}
	in := s
	in.Ref.Dir = ipsec.In
	in.Local, in.Remote, in.LocalTS, in.RemoteTS = remote, local, rts, lts
	in.EncKey, in.IntegKey = bytes.Clone(enc), bytes.Clone(ing)
	r.ok(to.Plane.AddSA(in))
	s.EncKey, s.IntegKey = enc, ing
	for _, k := range []suite.Key{in.EncKey, in.IntegKey} {
		if !bytes.Equal(k, make([]byte, len(k))) {
			r.Fatal("AddSA left a key in its parameters")
		}
	}
	return s
}

func (r *run) keys(p pair) (enc, ing suite.Key) {
	r.Helper()
	n, m, err := suite.KeyLengths(p.encr, p.integ)
	r.ok(err)
	enc, ing = make(suite.Key, n), make(suite.Key, m)
	rand.Read(enc)
	rand.Read(ing)
	return enc, ing
}

// remove deletes a pair at both ends.
func (r *run) remove(n uint32) {
	r.Helper()
	for _, g := range []*gateway{r.a, r.b} {
		for _, d := range []ipsec.Direction{ipsec.Out, ipsec.In} {
			r.ok(g.Plane.DeleteSA(ipsec.SARef{Child: n, Dir: d}))
		}
	}
}

package sim

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"adit/ike"
	"adit/ipsec"
)

// flow is traffic between two hosts' networks that a Child SA carries; probes
// are sent along it in both directions.
type flow struct {
	name  string // of the child
	hosts [2]*Host
	ends  [2]netip.Addr
	ports [2]uint16
	proto uint8

	sent, came, lost [2]int
}

// probe is one numbered packet of a flow.
type probe struct {
	w      *World
	flow   *flow
	side   int // who sends
	number uint64
	at     time.Time
	by     uint32 // Child SA that carried it
	waits  bool
	got    bool
	ended  bool
}

// loss is a probe that the data planes lost, not the network.
type loss struct {
	at   time.Time
	text string
}

type probeState struct {
	every     time.Duration // 0: none are sent
	gen, last uint64
	losses    []loss
	disturbed []time.Time
}

// disturb notes that traffic may be lost for a good reason about now: a host
// was restarted, an SA closed, the network cut.
func (w *World) disturb() {
	d := &w.probes.disturbed
	if n := len(*d); n == 0 || w.now.Sub((*d)[n-1]) > 100*time.Millisecond {
		*d = append(*d, w.now)
	}
}

// AddFlows makes a flow for every child that both hosts configure under one
// name with selectors that meet.
func (w *World) AddFlows() {
	w.flows = nil
	for i, a := range w.hosts {
		for _, b := range w.hosts[i+1:] {
			for _, pa := range a.peers {
				for _, ca := range pa.Children {
					for _, pb := range b.peers {
						if cb := pb.Child(ca.Name); cb != nil && pa.Name == pb.Name {
							w.addFlow(a, b, ca, cb)
						}
					}
				}
			}
		}
	}
}

// poolOf is the pool out of which a, with the child of that name, has an address of b.
func poolOf(a, b *Host, child string) (netip.Prefix, bool) {
	for _, pa := range a.peers {
		for _, pb := range b.peers {
			if pa.Name == pb.Name && pa.Child(child) != nil && len(pa.VIPs) > 0 && len(pb.Pools) > 0 {
				p, ok := b.creds.pools[pb.Pools[0]]
				return p, ok
			}
		}
	}
	return netip.Prefix{}, false
}

func (w *World) addFlow(a, b *Host, ca, cb *ike.Child) {
	pub := func(h *Host) netip.Addr {
		if h.nat != nil && ca.Mode == ipsec.ModeTunnel {
			return h.nat.public
		}
		return h.addrs[0]
	}
	resolve := func(list []ipsec.Selector, at netip.Addr) []ipsec.Selector {
		out := slices.Clone(list)
		for i := range out {
			out[i] = out[i].Resolve(at)
		}
		return out
	}
	if pool, ok := poolOf(a, b, ca.Name); ok && ca.Local[0].IsDynamic() {
		pub = func(h *Host) netip.Addr {
			if h == a {
				return pool.Addr().Next()
			}
			return h.addrs[0]
		}
	}
	l := ipsec.Narrow(resolve(ca.Local, pub(a)), resolve(cb.Remote, pub(a)))
	r := ipsec.Narrow(resolve(ca.Remote, pub(b)), resolve(cb.Local, pub(b)))
	if len(l) == 0 || len(r) == 0 {
		return
	}
	f := &flow{name: ca.Name, hosts: [2]*Host{a, b}, proto: max(l[0].Proto, r[0].Proto)}
	for i, s := range []ipsec.Selector{l[0], r[0]} {
		f.ends[i] = s.From
		if next := s.From.Next(); s.MatchAddr(next) {
			f.ends[i] = next
		}
		f.ports[i] = 4000
		if !s.AnyPort() && !s.Opaque() {
			f.ports[i] = s.PortFrom
		}
	}
	if f.proto == 0 {
		f.proto = ipsec.ProtoUDP
	}
	w.flows = append(w.flows, f)
}

// Ping starts sending probes along every flow, or stops with 0.
func (w *World) Ping(every time.Duration) {
	w.probes.every = every
	w.probes.gen++
	gen := w.probes.gen
	if every <= 0 {
		return
	}
	var tick func()
	tick = func() {
		if w.probes.gen != gen {
			return
		}
		for _, f := range w.flows {
			for side := range 2 {
				w.probe(f, side)
			}
		}
		w.after(every, tick)
	}
	w.after(every, tick)
}

// probe sends one packet.
func (w *World) probe(f *flow, side int) *probe {
	h := f.hosts[side]
	if h.engine == nil {
		return nil
	}
	w.probes.last++
	p := &probe{w: w, flow: f, side: side, number: w.probes.last, at: w.now}
	f.sent[side]++
	if up := h.ups.has(f.name); up && f.hosts[1-side].engine != nil {
		if pol := h.plane.lookup(f, side); pol == nil || pol.Out.IsZero() {
			w.violate("policy gap", "%s: %s is up but no policy leads its traffic into an SA", h.Name, f.name)
		}
	}
	h.plane.output(p)
	return p
}

// packet is the probe as an IP packet.
func (p *probe) packet() []byte {
	src, dst := p.flow.ends[p.side], p.flow.ends[1-p.side]
	body := make([]byte, 8, 24)
	binary.BigEndian.PutUint16(body, p.flow.ports[p.side])
	binary.BigEndian.PutUint16(body[2:], p.flow.ports[1-p.side])
	binary.BigEndian.PutUint16(body[4:], 24)
	body = binary.BigEndian.AppendUint64(body, p.number)
	body = append(body, "01234567"...)
	if p.flow.proto == ipsec.ProtoUDP { // transport mode corrects what has none
		pseudo := append(append(src.AsSlice(), dst.AsSlice()...), 0, p.flow.proto, 0, 24)
		binary.BigEndian.PutUint16(body[6:], ^sum16(append(pseudo, body...)))
	}
	if src.Is4() {
		b := make([]byte, 20, 64)
		b[0], b[8], b[9] = 0x45, 64, p.flow.proto
		binary.BigEndian.PutUint16(b[2:], uint16(20+len(body)))
		copy(b[12:], src.AsSlice())
		copy(b[16:], dst.AsSlice())
		binary.BigEndian.PutUint16(b[10:], ^sum16(b))
		return append(b, body...)
	}
	b := make([]byte, 40, 80)
	b[0], b[6], b[7] = 0x60, p.flow.proto, 64
	binary.BigEndian.PutUint16(b[4:], uint16(len(body)))
	copy(b[8:], src.AsSlice())
	copy(b[24:], dst.AsSlice())
	return append(b, body...)
}

// sum16 is the ones' complement sum of RFC 1071 over an even number of bytes.
func sum16(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}

// arrived ends a probe well.
func (p *probe) arrived() {
	if p.got {
		p.w.violate("doubled packet", "probe %d of %s came out twice", p.number, p.flow.name)
	}
	p.got, p.ended = true, true
	p.flow.came[p.side]++
	p.w.note("probe %d arrived", p.number)
	if p.waits {
		p.w.tracef("%s: the packet that waited for %s has arrived", p.flow.hosts[1-p.side].Name, p.flow.name)
	}
}

// end ends a probe that is lost.
func (p *probe) end(why string) {
	if p == nil || p.ended {
		return
	}
	p.ended = true
	p.flow.lost[p.side]++
	p.w.note("probe %d lost: %s", p.number, why)
	if p.waits && why != "" {
		p.w.tracef("%s: a packet of %s is lost: %s", p.flow.hosts[p.side].Name, p.flow.name, why)
	}
	if why == "no policy" || why == "no SA" || len(why) > 8 && why[:8] == "network:" {
		return // who has no SA yet loses nothing by a fault of ours
	}
	p.w.probes.losses = append(p.w.probes.losses, loss{p.w.now, p.flow.hosts[p.side].Name + " " + p.flow.name + ": " + why})
}

// checkLosses holds every lost probe against the disturbances: without one near
// it, the data planes had a black hole.
func (w *World) checkLosses() {
	for _, l := range w.probes.losses {
		if !slices.ContainsFunc(w.probes.disturbed, func(t time.Time) bool { return l.at.Sub(t).Abs() <= w.grace }) {
			w.violate("black hole", "a packet was lost at %.3fs without a reason: %s", l.at.Sub(epoch).Seconds(), l.text)
			break
		}
	}
	w.probes.losses = nil
}

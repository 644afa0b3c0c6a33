package sim

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"adit/esp"
	"adit/ike"
	"adit/ipsec"
)

// driverPolicy marks the numbers of policies that the driver makes itself.
const driverPolicy ipsec.PolicyID = 1 << 63

// acquireEvery is how often a trap asks again while nothing comes of it.
const acquireEvery = 5 * time.Second

type keyHash [32]byte

// keyUse counts where the key of an ESP SA was installed: once for each direction.
type keyUse struct {
	in, out int
	seqs    map[uint64]struct{} // numbers sent under it
	ivs     map[string]struct{}
}

// plane is the model of a data plane: an SAD whose SAs are real ones of package
// esp, and an SPD.
type plane struct {
	h        *Host
	sas      map[ipsec.SARef]*planeSA
	inbound  map[ipsec.SPI]*planeSA
	policies []ipsec.Policy
	traps    int
	acquired map[ipsec.PolicyID]time.Time
	waits    map[ipsec.PolicyID]*probe
	orphanAt time.Time
	changed  bool
	loose    map[ipsec.SARef]time.Time // outbound SAs in use without a match since
}

// planeSA is one SA and what an observer knows of it.
type planeSA struct {
	params  ipsec.SAParams // without keys
	key     keyHash
	esp     *esp.SA
	lastUse time.Time
	top     uint64 // reference of the replay window
	seen    map[uint64]bool
}

func newPlane(h *Host) *plane {
	return &plane{h: h, sas: map[ipsec.SARef]*planeSA{}, inbound: map[ipsec.SPI]*planeSA{}, acquired: map[ipsec.PolicyID]time.Time{},
		waits: map[ipsec.PolicyID]*probe{}, loose: map[ipsec.SARef]time.Time{}}
}

func hashKey(p *ipsec.SAParams) keyHash {
	b := fmt.Appendf(nil, "%v %v %t|", p.Encr, p.Integ, p.ESN)
	b = append(append(append(b, p.EncKey...), '|'), p.IntegKey...)
	return sha256.Sum256(b)
}

// install adds both SAs of a Child SA, or none.
func (p *plane) install(f ike.InstallChild) error {
	if f.In.Ref.Child != f.Out.Ref.Child || f.In.Ref.Dir != ipsec.In || f.Out.Ref.Dir != ipsec.Out {
		p.h.w.violate("contract", "%s: install of odd references %v %v", p.h.Name, f.In.Ref, f.Out.Ref)
	}
	if f.In.SPI < ipsec.MinSPI || f.Out.SPI < ipsec.MinSPI {
		p.h.w.violate("contract", "%s: reserved SPI %v %v", p.h.Name, f.In.SPI, f.Out.SPI)
	}
	if p.inbound[f.In.SPI] != nil || p.sas[f.In.Ref] != nil {
		return errors.New("SPI is taken")
	}
	for _, params := range []ipsec.SAParams{f.In, f.Out} {
		key := hashKey(&params)
		use := p.h.w.keys[key]
		if use == nil {
			use = &keyUse{seqs: map[uint64]struct{}{}, ivs: map[string]struct{}{}}
			p.h.w.keys[key] = use
		}
		n := &use.in
		if params.Ref.Dir == ipsec.Out {
			n = &use.out
		}
		if *n++; *n > 1 {
			p.h.w.violate("key reuse", "%s: one ESP key installed twice as %s", p.h.Name, params.Ref.Dir)
		}
		sa, err := esp.New(params)
		if err != nil {
			delete(p.sas, f.In.Ref)
			delete(p.inbound, f.In.SPI)
			p.h.w.violate("contract", "%s: install: %v", p.h.Name, err)
			return err
		}
		params.EncKey, params.IntegKey = nil, nil
		s := &planeSA{params: params, key: key, esp: sa, seen: map[uint64]bool{}}
		p.sas[params.Ref] = s
		if params.Ref.Dir == ipsec.In {
			p.inbound[params.SPI] = s
		}
	}
	if f.Activate {
		for _, pol := range f.Policies {
			if !slices.ContainsFunc(p.policies, func(x ipsec.Policy) bool { return x.ID == pol.ID }) {
				p.h.w.disturb() // the peer may be a moment later
			}
			p.addPolicy(pol)
		}
	}
	p.changed = true
	return nil
}

func (p *plane) addPolicy(pol ipsec.Policy) {
	p.changed = true
	if !pol.Out.IsZero() && p.sas[pol.Out] == nil {
		p.h.w.violate("contract", "%s: policy of %s points to an SA that is not there", p.h.Name, pol.Name)
	}
	if i := slices.IndexFunc(p.policies, func(x ipsec.Policy) bool { return x.ID == pol.ID }); i >= 0 {
		p.policies[i] = pol
	} else {
		p.policies = append(p.policies, pol)
	}
	slices.SortStableFunc(p.policies, func(a, b ipsec.Policy) int {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.ID, b.ID))
	})
	p.release()
}

// release sends the packets that waited for an SA.
func (p *plane) release() {
	for _, pol := range slices.Clone(p.policies) {
		if pr := p.waits[pol.ID]; pr != nil {
			if got := p.lookup(pr.flow, pr.side); got != nil && !got.Out.IsZero() {
				delete(p.waits, pol.ID)
				p.output(pr)
			}
		}
	}
}

// setTraps makes the policies of the configuration's traps.
func (p *plane) setTraps(peers []*ike.Peer) {
	p.policies = slices.DeleteFunc(p.policies, func(x ipsec.Policy) bool { return x.ID&driverPolicy != 0 })
	p.traps = 0
	n := driverPolicy
	for _, peer := range peers {
		for _, c := range peer.Children {
			n++
			if c.StartAction&ike.ActionTrap == 0 {
				continue
			}
			p.traps++
			p.addPolicy(ipsec.Policy{ID: n, Name: c.Name, Action: ipsec.Protect, Trap: true, Mode: c.Mode,
				Local: p.resolved(c.Local, p.h.addrs[0]), Remote: p.resolved(c.Remote, p.peerAddr(peer)), Priority: ike.Priority(ike.PriorityTrap, c.Local, c.Remote)})
		}
	}
}

func (p *plane) peerAddr(peer *ike.Peer) netip.Addr {
	for _, s := range peer.RemoteAddrs {
		if a := p.h.names[s.Host]; len(a) > 0 {
			return a[len(a)-1]
		}
		if s.From.IsValid() {
			return s.From
		}
	}
	return netip.Addr{}
}

func (p *plane) resolved(list []ipsec.Selector, a netip.Addr) (out []ipsec.Selector) {
	for _, s := range list {
		out = append(out, s.Resolve(a))
	}
	return out
}

func (p *plane) remove(child uint32, policies []ipsec.PolicyID) {
	p.changed = true
	for _, id := range policies {
		n := len(p.policies)
		p.policies = slices.DeleteFunc(p.policies, func(x ipsec.Policy) bool { return x.ID == id })
		if len(p.policies) == n {
			p.h.w.violate("contract", "%s: removal of policy %d, which is not there", p.h.Name, id)
		}
	}
	for _, dir := range []ipsec.Direction{ipsec.In, ipsec.Out} {
		ref := ipsec.SARef{Child: child, Dir: dir}
		sa := p.sas[ref]
		if sa == nil {
			p.h.w.violate("contract", "%s: removal of Child SA %d, which is not there", p.h.Name, child)
			continue
		}
		delete(p.sas, ref)
		if dir == ipsec.In {
			delete(p.inbound, sa.params.SPI)
		}
	}
	for _, pol := range p.policies {
		if pol.Out.Child == child {
			p.h.w.violate("black hole", "%s: a policy of %s still uses the removed Child SA %d", p.h.Name, pol.Name, child)
		}
	}
}

func (p *plane) update(child uint32, u ipsec.SAUpdate) {
	p.changed = true
	for _, dir := range []ipsec.Direction{ipsec.In, ipsec.Out} {
		if sa := p.sas[ipsec.SARef{Child: child, Dir: dir}]; sa != nil {
			if err := sa.esp.Update(u); err != nil {
				p.h.w.violate("contract", "%s: update: %v", p.h.Name, err)
			}
		} else {
			p.h.w.violate("contract", "%s: update of Child SA %d, which is not there", p.h.Name, child)
		}
	}
}

func (p *plane) stats(child uint32) ike.ChildStats {
	read := func(d ipsec.Direction) ipsec.SAStats {
		sa := p.sas[ipsec.SARef{Child: child, Dir: d}]
		if sa == nil {
			return ipsec.SAStats{}
		}
		s := sa.esp.Stats()
		s.LastUse = sa.lastUse
		return s
	}
	return ike.ChildStats{In: read(ipsec.In), Out: read(ipsec.Out)}
}

// lookup finds the policy for a flow's packets.
func (p *plane) lookup(f *flow, side int) *ipsec.Policy {
	src, dst := f.ends[side], f.ends[1-side]
	for i := range p.policies {
		pol := &p.policies[i]
		if matches(pol.Local, src, f.proto, f.ports[side]) && matches(pol.Remote, dst, f.proto, f.ports[1-side]) {
			return pol
		}
	}
	return nil
}

func matches(list []ipsec.Selector, a netip.Addr, proto uint8, port uint16) bool {
	return slices.ContainsFunc(list, func(s ipsec.Selector) bool { return s.Match(a, proto, port, true) })
}

// output sends a probe through the SPD.
func (p *plane) output(pr *probe) {
	pol := p.lookup(pr.flow, pr.side)
	switch {
	case pol == nil:
		pr.end("no policy")
		return
	case pol.Out.IsZero():
		if pol.Trap {
			p.waits[pol.ID] = pr
			pr.waits = true
			if at, ok := p.acquired[pol.ID]; !ok || p.h.w.now.Sub(at) >= acquireEvery {
				p.acquired[pol.ID] = p.h.w.now
				p.h.w.tracef("%s: a packet meets the trap of %s", p.h.Name, pol.Name)
				p.h.dataplane(ipsec.Acquire{Policy: pol.ID, Name: pol.Name, Src: pr.flow.ends[pr.side], Dst: pr.flow.ends[1-pr.side], Proto: pr.flow.proto,
					SrcPort: pr.flow.ports[pr.side], DstPort: pr.flow.ports[1-pr.side]})
			}
			return
		}
		pr.end("no SA")
		return
	}
	sa := p.sas[pol.Out]
	if sa == nil {
		pr.end("policy without SA")
		return
	}
	pkt := esp.Packet{Buf: make([]byte, 1800), Off: 64}
	pkt.Len = copy(pkt.Buf[64:], pr.packet())
	err := sa.esp.Seal(&pkt)
	p.due(sa)
	if err != nil {
		pr.end("seal: " + err.Error())
		return
	}
	p.numbers(sa, &pkt)
	sa.lastUse = p.h.w.now
	pr.by = sa.params.Ref.Child
	ep := sa.esp.Endpoints()
	src, dst := ep.Local, ep.Remote
	if !ep.Encap {
		src, dst = netip.AddrPortFrom(src.Addr(), 0), netip.AddrPortFrom(dst.Addr(), 0)
	}
	p.h.w.transmit(&packet{from: p.h, src: src, dst: dst, data: slices.Clone(pkt.Bytes()), esp: true, encap: ep.Encap, probe: pr, text: "ESP"})
}

// numbers checks that no sequence number and no IV is used twice under a key.
func (p *plane) numbers(sa *planeSA, pkt *esp.Packet) {
	use := p.h.w.keys[sa.key]
	b := pkt.Bytes()
	if _, dup := use.seqs[pkt.Seq]; dup {
		p.h.w.violate("sequence reuse", "%s: ESP sequence number %d twice under one key", p.h.Name, pkt.Seq)
	}
	use.seqs[pkt.Seq] = struct{}{}
	if len(b) >= 16 {
		iv := string(b[8:16])
		if _, dup := use.ivs[iv]; dup {
			p.h.w.violate("IV reuse", "%s: ESP IV %x twice under one key", p.h.Name, iv)
		}
		use.ivs[iv] = struct{}{}
	}
}

// due passes on the bounds of lifetime that were crossed.
func (p *plane) due(sa *planeSA) {
	soft, hard := sa.esp.Due()
	if soft {
		p.h.dataplane(ipsec.Expire{Ref: sa.params.Ref})
	}
	if hard {
		p.h.dataplane(ipsec.Expire{Ref: sa.params.Ref, Hard: true})
	}
}

// input takes an ESP packet from the network.
func (p *plane) input(k *packet) {
	if len(k.data) < 8 {
		return
	}
	spi := ipsec.SPI(binary.BigEndian.Uint32(k.data))
	sa := p.inbound[spi]
	if k.corrupted && sa == nil {
		k.probe.end("network: damaged")
		return
	}
	if sa == nil {
		k.probe.end("unknown SPI")
		if p.orphanAt.IsZero() || p.h.w.now.Sub(p.orphanAt) >= time.Second {
			p.orphanAt = p.h.w.now
			p.h.dataplane(ipsec.Orphan{SPI: spi, Local: k.dst, Remote: k.src})
		}
		return
	}
	buf := make([]byte, 64+len(k.data)+64)
	pkt := esp.Packet{Buf: buf, Off: 64, Len: copy(buf[64:], k.data), Encap: k.encap}
	late := sa.late(k)
	err := sa.esp.Open(&pkt)
	p.due(sa)
	if !k.corrupted {
		p.replay(sa, k, err)
	} else if err == nil {
		p.h.w.violate("ESP integrity", "%s: a damaged ESP packet was accepted", p.h.Name)
		return
	}
	switch {
	case k.corrupted || late && err != nil: // with ESN what is late looks like a number of 2^32 later
		k.probe.end("network: damaged, doubled or late")
		return
	case err != nil:
		k.probe.end("open: " + err.Error())
		return
	}
	sa.lastUse = p.h.w.now
	if ep := sa.esp.Endpoints(); k.encap && ep.TrackNAT && ep.Remote != k.src {
		p.h.dataplane(ipsec.MappingChange{Ref: sa.params.Ref, Remote: k.src})
	}
	f, side := k.probe.flow, k.probe.side
	if !matches(sa.params.RemoteTS, f.ends[side], f.proto, f.ports[side]) || !matches(sa.params.LocalTS, f.ends[1-side], f.proto, f.ports[1-side]) {
		k.probe.end("selectors")
		return
	}
	if !sameBody(pkt.Bytes(), k.probe.packet()) {
		p.h.w.violate("ESP content", "%s: another packet came out than went in:\n%x\n%x", p.h.Name, pkt.Bytes(), k.probe.packet())
	}
	k.probe.arrived()
}

// late reports whether a packet is behind the window or was received before.
func (sa *planeSA) late(k *packet) bool {
	seq, size := uint64(binary.BigEndian.Uint32(k.data[4:])), uint64(sa.params.ReplayWindow)
	return size != 0 && (sa.top >= size && seq <= sa.top-size || sa.seen[seq])
}

// replay holds the anti-replay window of package esp against the plain rule of
// RFC 4303 §3.4.3.
func (p *plane) replay(sa *planeSA, k *packet, err error) {
	seq, size := uint64(binary.BigEndian.Uint32(k.data[4:])), sa.params.ReplayWindow
	if size == 0 || errors.Is(err, esp.ErrExpired) || errors.Is(err, esp.ErrAuth) {
		return
	}
	stale := sa.late(k)
	if refused := errors.Is(err, esp.ErrReplay); refused != stale {
		p.h.w.violate("replay window", "%s: packet %d with %d received and a window of %d: refused %t, should be %t", p.h.Name, seq, sa.top, size, refused, stale)
	}
	if !stale {
		sa.seen[seq] = true
		sa.top = max(sa.top, seq)
	}
}

// label names an SA for the trace.
func (p *plane) label(r ipsec.SARef) string {
	sa := p.sas[r]
	if sa == nil {
		return fmt.Sprintf("{%d}", r.Child)
	}
	return fmt.Sprintf("%s{%d}", sa.params.Name, r.Child)
}

// pair names both SAs of a Child SA for the trace.
func (p *plane) pair(child uint32) string {
	in := p.sas[ipsec.SARef{Child: child, Dir: ipsec.In}]
	if in == nil {
		return fmt.Sprintf("{%d}", child)
	}
	out := p.sas[ipsec.SARef{Child: child, Dir: ipsec.Out}]
	enc := ""
	if out.params.Encap {
		enc = " in UDP"
	}
	return fmt.Sprintf("%s{%d} in %s out %s, %s%s, %s === %s", in.params.Name, child, p.h.w.tap.spi(in.params.SPI), p.h.w.tap.spi(out.params.SPI),
		in.params.Mode, enc, list(in.params.LocalTS), list(in.params.RemoteTS))
}

func list(sel []ipsec.Selector) string {
	s := ""
	for i, x := range sel {
		if i > 0 {
			s += " "
		}
		s += x.String()
	}
	return s
}

// sameBody compares two IP packets behind their headers.
func sameBody(a, b []byte) bool {
	n := 20
	if b[0]>>4 == 6 {
		n = 40
	}
	return len(a) == len(b) && string(a[n:]) == string(b[n:])
}

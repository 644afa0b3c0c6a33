package userspace

import (
	"time"

	"adit/esp"
	"adit/internal/conn"
	"adit/ipsec"
)

// outbound is the state of one worker from a device to the sockets: a batch of
// packets runs through batch from end to end. It is not safe for concurrent use
// and knows nothing of goroutines.
type outbound struct {
	p    *Plane
	dev  *device
	now  time.Time
	beat *beat

	bufs  [][]byte // whole buffers, the same memory as pkts'
	sizes []int
	pkts  []esp.Packet
	sas   []*sa // for each of pkts; nil: dropped or gone already
	send  []conn.Packet
	flows flowCache
	frags []esp.Packet // fragments before encapsulation, made when first needed
	first fragMemory[entry]
	whole reassembler
	icmp  icmpSender
	h     headers
}

// headroom in front of each packet that is read from a device.
const headroom = 64

const bufferSize = headroom + 65535 + 1024

func newOutbound(p *Plane, d *device, size int) *outbound {
	w := &outbound{p: p, dev: d, bufs: make([][]byte, size), sizes: make([]int, size), pkts: make([]esp.Packet, size),
		sas: make([]*sa, size), send: make([]conn.Packet, 0, max(size, fragBatch))}
	mem := make([]byte, size*bufferSize)
	for i := range w.bufs {
		w.bufs[i] = mem[i*bufferSize : (i+1)*bufferSize : (i+1)*bufferSize]
		w.pkts[i].Buf = w.bufs[i]
	}
	return w
}

// readDevice is the goroutine of a device.
func (p *Plane) readDevice(d *device, b *beat) {
	defer p.wg.Done()
	w := newOutbound(p, d, min(max(d.tun.BatchSize(), 1), batchSize))
	w.flows, w.beat = newFlowCache(), b
	for {
		n, err := d.tun.Read(w.bufs, w.sizes, headroom)
		if n > 0 {
			w.guarded(n)
		}
		if err != nil {
			p.fail(err)
			return
		}
	}
}

// guarded runs a batch; a bug that shows in it costs this batch only.
func (w *outbound) guarded(n int) {
	defer w.recovered()
	w.batch(n)
}

// recovered gives a batch up. What was to be sent points into buffers that the
// next batch fills with other packets, in clear: it must be forgotten.
func (w *outbound) recovered() {
	if recover() != nil {
		w.p.count.drop(BatchPanic)
		clear(w.sas)
		w.send = w.send[:0]
	}
	w.beat.end()
}

// batch moves the first n packets that were read.
func (w *outbound) batch(n int) {
	w.now = w.p.cfg.Clock()
	w.beat.begin(w.now)
	from := 0
	for i := range n {
		p := &w.pkts[i]
		p.Off, p.Len = headroom, w.sizes[i]
		s := w.route(p)
		w.sas[i] = s
		if s == nil {
			continue
		}
		switch w.fit(s, p) {
		case refuse:
			w.sas[i] = nil
		case answer:
			w.sas[i] = nil
			w.tooBig(s, p)
		case split:
			w.flush(from, i) // fragments keep their place in the order
			from = i + 1
			w.fragment(s, p)
		}
	}
	w.flush(from, n)
}

// route decides about one packet by the SPD (RFC 4301 §5.1): the SA that
// protects it, or nil when it is dropped or waits.
func (w *outbound) route(p *esp.Packet) *sa {
	b := p.Bytes()
	if err := w.h.parse(b, false); err != nil {
		if err == errExtensions {
			w.p.count.drop(OutExtensions)
		} else {
			w.p.count.drop(OutMalformed)
		}
		return nil
	}
	if w.p.cfg.Tap != nil {
		w.p.cfg.Tap.Inner(ipsec.Out, b)
	}
	return w.apply(w.policy(b), b)
}

// policy is the one that covers the packet at hand, or nil.
func (w *outbound) policy(b []byte) *entry {
	later := w.h.fragment && w.h.l4 == 0
	if later {
		if e := w.first.find(&w.h, w.now); e != nil && !e.removed() {
			return e
		}
	}
	e := w.flows.find(&w.p.spd, &w.h.flow, w.dev.ifID)
	if e == nil {
		e = w.routeICMP(b)
	}
	if w.h.fragment && !later && e != nil {
		w.first.note(&w.h, e, w.now)
	}
	return e
}

// apply does what the policy says.
func (w *outbound) apply(e *entry, b []byte) *sa {
	switch {
	case e == nil:
		w.p.count.drop(OutNoPolicy)
		return nil
	case e.policy.Action == ipsec.Discard:
		w.p.count.drop(OutDiscard)
		return nil
	case e.policy.Action == ipsec.Bypass:
		// Whatever may go in clear is steered past the device by the host's rules.
		w.p.count.drop(OutBypass)
		return nil
	}
	s := e.current()
	switch {
	case s != nil:
	case !e.policy.Trap:
		w.p.count.drop(OutNoSA)
	default:
		var gone bool
		if s, gone = w.p.wait(e, &w.h, b, w.now); gone {
			// The policy was replaced while this packet was on its way.
			return w.apply(w.p.spd.find(&w.h.flow, w.dev.ifID), b)
		}
	}
	return s
}

// routeICMP finds the policy for an ICMP error that none covers: that of the
// packet which it is about, seen from the other side (RFC 4301 §6.2).
func (w *outbound) routeICMP(b []byte) *entry {
	quoted, ok := w.h.quote(b)
	var q headers
	if !ok || q.parse(quoted, true) != nil || q.src != w.h.dst {
		return nil
	}
	r := q.reversed()
	return w.p.spd.find(&r, w.dev.ifID)
}

// fitness is what is to be done with a packet that has an SA.
type fitness uint8

const (
	pass   fitness = iota
	split          // too big: in fragments
	answer         // too big, and its sender wants to hear of it
	refuse         // drop, counted already
)

// fit readies a packet for its SA: transport mode's addresses, MSS, size.
func (w *outbound) fit(s *sa, p *esp.Packet) fitness {
	params := s.Params()
	b := p.Bytes()
	if params.Mode == ipsec.ModeTransport {
		// The socket makes the header anew from the SA's endpoints.
		if e := s.Endpoints(); !w.between(e) {
			w.p.count.drop(OutNotPeer)
			return refuse
		}
		if w.h.fragment {
			return w.reassemble(p)
		}
	}
	mtu := s.InnerMTU()
	if params.MSSClamp && w.h.proto == protoTCP && clampMSS(b, &w.h, mtu) {
		w.p.count.clamped.Add(1)
	}
	switch {
	case len(b) <= mtu:
		return pass
	case w.h.v6 && len(b) <= minPMTU6:
		return pass // IPv6 hosts may send that much in any case (RFC 2473 §7.1)
	case w.h.df || w.h.v6:
		return answer
	case w.p.cfg.FragmentAfter || params.Mode == ipsec.ModeTransport:
		return pass
	}
	return split
}

// reassemble holds a fragment back until its datagram is whole. Then it passes
// whatever its size: fragments leave again on the outside.
func (w *outbound) reassemble(p *esp.Packet) fitness {
	whole, lost := w.whole.add(&w.h, p, w.now)
	w.p.count.drops[OutFragment].Add(uint64(lost))
	if whole && w.h.parse(p.Bytes(), false) == nil {
		return pass
	}
	return refuse
}

// between reports whether the packet at hand runs between the SA's endpoints.
func (w *outbound) between(e *esp.Endpoints) bool {
	src, dst := w.h.addrs()
	return src == e.Local.Addr() && dst == e.Remote.Addr()
}

// flush seals and sends packets from to to-1, a run of one SA at a time.
func (w *outbound) flush(from, to int) {
	for i := from; i < to; {
		s := w.sas[i]
		j := i + 1
		for j < to && w.sas[j] == s {
			j++
		}
		if s != nil && !w.seal(s, w.pkts[i:j]) {
			for k := i; k < j; k++ {
				w.again(w.pkts[k : k+1])
			}
		}
		i = j
	}
	w.transmit()
}

// again takes up a packet whose SA was deleted after it was routed: a rekey must
// not lose it. The policy has its new SA by now, or packets wait for one.
func (w *outbound) again(one []esp.Packet) {
	p := &one[0]
	if w.h.parse(p.Bytes(), false) != nil {
		return
	}
	s := w.apply(w.p.spd.find(&w.h.flow, w.dev.ifID), p.Bytes())
	if s == nil {
		return
	}
	switch w.fit(s, p) {
	case pass:
		if !w.seal(s, one) {
			w.p.count.drop(OutNoSA)
		}
	case answer:
		w.tooBig(s, p)
	case split:
		w.transmit()
		w.fragment(s, p)
	}
}

// seal seals one run and appends it to what will be sent; false if the SA was
// deleted meanwhile.
func (w *outbound) seal(s *sa, ps []esp.Packet) bool {
	var bytes, packets uint64
	for i := range ps {
		bytes += uint64(ps[i].Len)
	}
	if !s.seal(ps) {
		return false
	}
	e, mtu := s.Endpoints(), s.PathMTU()
	outer := ipv4Len
	if e.Remote.Addr().Is6() {
		outer = ipv6Len
	}
	if e.Encap {
		outer += 8
	}
	for i := range ps {
		p := &ps[i]
		if p.Err != nil {
			w.p.count.drop(sealReason(p.Err))
			bytes -= uint64(p.Len)
			continue
		}
		packets++
		df := p.DF && outer+p.Len <= mtu // what was let through too big leaves in fragments
		w.send = append(w.send, conn.Packet{Buf: p.Bytes(), Local: e.Local, Remote: e.Remote, Kind: conn.ESP,
			TOS: p.TOS, Encap: e.Encap, DF: df})
		if w.p.cfg.Tap != nil {
			w.p.cfg.Tap.Outer(ipsec.Out, e.Local, e.Remote, e.Encap, p.TOS, p.Bytes())
		}
	}
	if packets > 0 {
		s.Touch(w.now.UnixNano())
		w.p.count.outPackets.Add(packets)
		w.p.count.outBytes.Add(bytes)
	}
	w.p.expire(s)
	return true
}

// transmit hands over what was sealed.
func (w *outbound) transmit() {
	if len(w.send) == 0 {
		return
	}
	n, err := w.p.cfg.Conn.WriteBatch(w.send)
	if err != nil {
		w.p.count.drops[OutSend].Add(uint64(len(w.send) - n))
	}
	w.send = w.send[:0]
}

// sendWaited sends a packet that waited for this SA. Called under Plane.mu, so that
// the SA cannot be deleted meanwhile.
func (w *outbound) sendWaited(s *sa, packet []byte) {
	defer w.recovered()
	w.now = w.p.cfg.Clock()
	p := &w.pkts[0]
	p.Off, p.Len = headroom, copy(p.Buf[headroom:], packet)
	if w.h.parse(p.Bytes(), false) != nil {
		return
	}
	w.dev, w.sas[0] = s.dev, s
	switch w.fit(s, p) {
	case pass:
		w.flush(0, 1)
	case answer:
		w.tooBig(s, p)
	case split:
		w.fragment(s, p)
	}
}

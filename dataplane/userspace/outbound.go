package userspace

import (
	"bytes"
	"time"

	"adit/esp"
	"adit/internal/conn"
	"adit/ipsec"
	"adit/tun"
)

// outbound is the state of one worker from the devices to the sockets. Packets are
// cut and copied into an arena, one behind the other with room for what ESP adds,
// sealed there run by run, and sent from there. It is not safe for concurrent use
// and knows nothing of goroutines.
type outbound struct {
	p     *Plane
	count *counters
	beat  *beat
	dev   *device // where what is at hand came from
	// worker is the number of the worker that this is part of.
	worker int
	handed bool        // what is at hand came from another worker
	to     []*handover // the others, which seal for SAs of theirs; nil: there are none
	now    time.Time

	arena []byte
	end   int          // of what is taken of it
	pkts  []esp.Packet // in the arena, n of them
	at    []int        // where in the arena their Bufs begin
	sas   []*sa        // for each of pkts
	n     int
	again [][]byte // copies of packets whose SA was deleted before they were sealed
	redo  bool     // they are at hand

	send    []conn.Packet
	sending int // packets in send
	train   train

	flows flowCache
	first fragMemory[entry]
	whole reassembler
	icmp  icmpSender
	piece []byte // a packet of a train that cannot go as one
	frag  []byte
	h     headers
	many  int // packets in what is at hand
}

// train is what the last of outbound.send holds of the arena.
type train struct {
	from, to int // in the arena
	size     int // of its packets
	n        int // their number; 0: nothing may be added
}

const (
	// limitPacket is the size in bytes of the largest packet and what may be put
	// around it.
	limitPacket = 65535 + 1024
	// arenaSize and arenaPackets are what a worker seals and sends at a time: two
	// superpackets and some, which stay in the processor's second cache.
	arenaSize    = 288 << 10
	arenaPackets = 256
)

func newOutbound(p *Plane, d *device, size, packets int) *outbound {
	return &outbound{p: p, dev: d, count: p.newCounters(), arena: make([]byte, size), pkts: make([]esp.Packet, packets),
		at: make([]int, packets), sas: make([]*sa, packets), send: make([]conn.Packet, 0, packets)}
}

// guarded runs a batch of packets that were read from a device; a bug that shows in
// it costs this batch only.
func (w *outbound) guarded(d *device, packets []tun.Super) {
	defer w.recovered()
	w.begin(d)
	for i := range packets {
		w.packet(&packets[i])
	}
	w.flush()
}

// guardedTurn runs what was taken of a device, and what can be taken of it then, up
// to the bounds of a turn.
func (w *outbound) guardedTurn(d *device, from tun.Polled, t *tun.Super, mem []byte) (more bool, err error) {
	defer w.recovered()
	w.begin(d)
	for n, size, ok := 0, 0, true; ok; ok, err = from.Take(t, mem) {
		n++
		size += len(t.Packet)
		w.packet(t)
		if n >= turnPackets || size >= turnBytes {
			more = true
			break
		}
	}
	w.flush()
	return more, err
}

func (w *outbound) begin(d *device) {
	w.dev, w.now = d, w.p.cfg.Clock()
	w.beat.begin(w.now)
}

// recovered gives a batch up. What was to be sent points into the arena, which the
// next batch fills with other packets, in clear: it must be forgotten.
func (w *outbound) recovered() {
	if recover() != nil {
		w.count.drop(BatchPanic)
		w.reset()
		w.send, w.sending, w.again, w.redo = w.send[:0], 0, nil, false
	}
	w.beat.end()
}

func (w *outbound) reset() {
	clear(w.sas[:w.n])
	w.n, w.end, w.train = 0, 0, train{}
}

// packet decides about one packet, or a train of one flow, by the SPD (RFC 4301
// §5.1) and puts it into the arena. The decision is made once a train: what the
// selectors see is the same for all its packets.
func (w *outbound) packet(t *tun.Super) {
	b := t.Packet
	w.many = t.Count()
	if err := w.h.parse(b, false); err != nil {
		if err == errExtensions {
			w.drop(OutExtensions)
		} else {
			w.drop(OutMalformed)
		}
		return
	}
	if t.Train() {
		if _, l4 := t.Header(); w.h.l4 != l4 || w.h.fragment {
			w.drop(OutMalformed) // the kernel sees another transport header than the selectors
			return
		}
	}
	if w.p.cfg.Tap != nil {
		if t.Train() {
			w.apart(t)
			return
		}
		if !w.redo {
			w.p.cfg.Tap.Inner(ipsec.Out, b)
		}
	}
	s, wait := w.apply(w.policy(b), b, t.Train())
	if wait {
		w.apart(t)
		return
	}
	if s == nil || s.owner != w.worker && w.handOver(s, t) {
		return
	}
	switch fitness := w.fit(s, t); {
	case fitness == pass:
		w.put(s, t)
	case fitness == refuse:
	case t.Train():
		w.apart(t)
	case fitness == answer:
		w.tooBig(s, b)
	default:
		w.fragment(s, b)
	}
}

// drop counts what is at hand as dropped.
func (w *outbound) drop(r Reason) { w.count.drops[r].Add(uint64(w.many)) }

// apart takes the packets of a train on their own.
func (w *outbound) apart(t *tun.Super) {
	if w.piece == nil {
		w.piece = make([]byte, limitPacket)
	}
	for t.More() {
		n, err := t.Next(w.piece)
		if err != nil {
			continue // no packet is that large
		}
		one := tun.Whole(w.piece[:n])
		w.packet(&one)
	}
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

// apply does what the policy says: it returns the SA that protects the packet, or
// nil when it is dropped or waits. Trains do not wait: for them it says that they
// would have to.
func (w *outbound) apply(e *entry, b []byte, isTrain bool) (s *sa, wait bool) {
	switch {
	case e == nil:
		w.drop(OutNoPolicy)
		return nil, false
	case e.policy.Action == ipsec.Discard:
		w.drop(OutDiscard)
		return nil, false
	case e.policy.Action == ipsec.Bypass:
		// Whatever may go in clear is steered past the device by the host's rules.
		w.drop(OutBypass)
		return nil, false
	}
	if s = e.current(); s != nil {
		if e.single != nil {
			s = w.ownOr(e, s)
		}
		return s, false
	}
	switch {
	case !e.policy.Trap:
		w.drop(OutNoSA)
	case isTrain:
		return nil, true
	default:
		var gone bool
		if s, gone = w.p.wait(e, &w.h, b, w.now); gone {
			// The policy was replaced while this packet was on its way.
			return w.apply(w.p.spd.find(&w.h.flow, w.dev.ifID), b, false)
		}
	}
	return s, false
}

// ownOr is the worker's own SA of a policy, or the one for all while it has none, and
// asks for one then. What another worker handed over is for the one for all.
func (w *outbound) ownOr(e *entry, all *sa) *sa {
	if w.handed {
		return all
	}
	if s := e.of(w.worker); s != nil {
		return s
	}
	if at := w.now.Unix(); !w.redo && at-e.asked[w.worker].Load() >= int64(acquireAgain/time.Second) {
		e.asked[w.worker].Store(at)
		src, dst := w.h.addrs()
		w.p.emit(ipsec.Acquire{Policy: e.policy.ID, Name: e.policy.Name, Src: src, Dst: dst, Proto: w.h.proto,
			SrcPort: w.h.srcPort, DstPort: w.h.dstPort, Resource: uint16(w.worker + 1)})
	}
	return all
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
func (w *outbound) fit(s *sa, t *tun.Super) fitness {
	params := s.Params()
	b := t.Packet
	if params.Mode == ipsec.ModeTransport {
		// The socket makes the header anew from the SA's endpoints.
		if e := s.Endpoints(); !w.between(e) {
			w.drop(OutNotPeer)
			return refuse
		}
		if w.h.fragment {
			return w.reassemble(t)
		}
	}
	mtu := s.InnerMTU()
	if params.MSSClamp && w.h.proto == protoTCP && clampMSS(b, &w.h, mtu) {
		w.count.clamped.Add(1)
	}
	switch size := t.Largest(); {
	case size <= mtu:
		return pass
	case w.h.v6 && size <= minPMTU6:
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
func (w *outbound) reassemble(t *tun.Super) fitness {
	whole, lost := w.whole.add(&w.h, t.Packet, w.now)
	w.count.drops[OutFragment].Add(uint64(lost))
	if whole != nil && w.h.parse(whole, false) == nil {
		*t = tun.Whole(whole)
		return pass
	}
	return refuse
}

// between reports whether the packet at hand runs between the SA's endpoints.
func (w *outbound) between(e *esp.Endpoints) bool {
	src, dst := w.h.addrs()
	return src == e.Local.Addr() && dst == e.Remote.Addr()
}

// put cuts a packet or train into the arena.
func (w *outbound) put(s *sa, t *tun.Super) {
	head := s.HeadLen()
	for t.More() {
		size := t.NextLen()
		room := s.SealedLen(size)
		if w.n == len(w.pkts) || w.end+room > len(w.arena) {
			w.seal()
		}
		p := &w.pkts[w.n]
		// No byte of the next packet is within reach, whatever changes until then.
		p.Buf = w.arena[w.end : w.end+room : w.end+room]
		p.Off, p.Len = head, size
		if _, err := t.Next(p.Buf[head:]); err != nil {
			w.count.drop(OutMalformed)
			continue
		}
		w.at[w.n], w.sas[w.n] = w.end, s
		w.n++
		w.end += room
	}
}

// flush seals and sends what is in the arena. Packets whose SA was deleted after
// they were routed are taken up again: a rekey must not lose them. The policy has
// its new SA by now, or packets wait for one.
func (w *outbound) flush() {
	for _, h := range w.to {
		if h != nil {
			h.tell()
		}
	}
	w.seal()
	for range limitAgain {
		if len(w.again) == 0 {
			return
		}
		list := w.again
		w.again, w.redo = nil, true
		for _, b := range list {
			one := tun.Whole(b)
			w.packet(&one)
		}
		w.redo = false
		w.seal()
	}
	w.count.drops[OutNoSA].Add(uint64(len(w.again)))
	w.again = nil
}

// seal seals what is in the arena, a run of one SA at a time, sends it and empties
// the arena.
func (w *outbound) seal() {
	for i := 0; i < w.n; {
		s := w.sas[i]
		j := i + 1
		for j < w.n && w.sas[j] == s {
			j++
		}
		// What is behind a run that is taken up again waits with it: a flow keeps its order.
		if len(w.again) > 0 || !w.sealRun(s, i, j) {
			for k := i; k < j; k++ {
				w.again = append(w.again, bytes.Clone(w.pkts[k].Bytes()))
			}
		}
		i = j
	}
	w.transmit()
	w.reset()
}

// sealRun seals packets from to to-1; false if their SA was deleted meanwhile.
func (w *outbound) sealRun(s *sa, from, to int) bool {
	ps := w.pkts[from:to]
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
	w.train.n = 0
	for i := range ps {
		p := &ps[i]
		if p.Err != nil {
			w.count.drop(sealReason(p.Err))
			bytes -= min(bytes, uint64(p.Len))
			continue
		}
		packets++
		df := p.DF && outer+p.Len <= mtu // what was let through too big leaves in fragments
		if !w.extend(p, w.at[from+i]+p.Off, df) {
			w.send = append(w.send, conn.Packet{Buf: p.Bytes(), Local: e.Local, Remote: e.Remote, Kind: conn.ESP,
				TOS: p.TOS, Encap: e.Encap, DF: df, Worker: uint8(w.worker), Own: s.own})
		}
		if w.p.cfg.Tap != nil {
			w.p.cfg.Tap.Outer(ipsec.Out, e.Local, e.Remote, e.Encap, p.TOS, p.Bytes())
		}
	}
	w.sending += int(packets)
	if packets > 0 {
		s.Touch(w.now.UnixNano())
		w.count.outPackets.Add(packets)
		w.count.outBytes.Add(bytes)
	}
	w.p.expire(s)
	return true
}

// extend adds a sealed packet at a place in the arena to the last one of w.send, if
// it lies right behind and may travel with it: all but the last are of one size.
func (w *outbound) extend(p *esp.Packet, at int, df bool) bool {
	t := &w.train
	if t.n > 0 && t.to == at && p.Len <= t.size && t.to-t.from == t.n*t.size && t.n < conn.MaxSegments() &&
		t.to-t.from+p.Len <= conn.MaxTrain {
		if last := &w.send[len(w.send)-1]; last.TOS == p.TOS && last.DF == df {
			t.n++
			t.to += p.Len
			last.Buf, last.Segment = w.arena[t.from:t.to:t.to], t.size
			return true
		}
	}
	*t = train{from: at, to: at + p.Len, size: p.Len, n: 1}
	return false
}

// transmit hands over what was sealed.
func (w *outbound) transmit() {
	if len(w.send) == 0 {
		return
	}
	n, err := w.p.cfg.Conn.WriteBatch(w.send)
	if err != nil {
		w.count.drops[OutSend].Add(uint64(w.sending - n))
	}
	w.send, w.sending = w.send[:0], 0
}

// sendWaited sends a packet that waited for this SA. Called under Plane.mu, so that
// the SA cannot be deleted meanwhile.
func (w *outbound) sendWaited(s *sa, packet []byte) {
	defer w.recovered()
	w.now, w.dev, w.many = w.p.cfg.Clock(), s.dev, 1
	if w.h.parse(packet, false) != nil {
		return
	}
	t := tun.Whole(packet)
	switch w.fit(s, &t) {
	case pass:
		w.put(s, &t)
	case answer:
		w.tooBig(s, packet)
	case split:
		w.fragment(s, packet)
	}
	w.seal()
	w.count.drops[OutNoSA].Add(uint64(len(w.again)))
	w.again = nil
}

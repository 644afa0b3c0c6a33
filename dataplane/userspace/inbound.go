package userspace

import (
	"bytes"
	"encoding/binary"
	"slices"
	"time"

	"adit/esp"
	"adit/internal/conn"
	"adit/ipsec"
)

// inbound is the state of one worker from the readers of the Conn to the devices.
// Packets are opened where they were received, a run of one SA at a time, and
// written to the device from there. It is not safe for concurrent use and knows
// nothing of goroutines.
type inbound struct {
	p     *Plane
	count *counters
	beat  *beat
	now   time.Time
	// worker is the number of the worker that this is part of.
	worker int

	recv []conn.Packet
	pkts []esp.Packet   // the run at hand, n of them
	from []*conn.Packet // of each of pkts
	n    int
	sa   *sa // of the run

	copies [][]byte // transport mode packets, with room for the header
	dev    *device  // of out
	out    [][]byte
	orphan limiter
	inform limiter
	taken  bool // the packet at hand was handed away
	first  fragMemory[sa]
	h      headers
	last   admitted
}

// admitted is the flow that was let through last, and the SA that it belongs to: in
// a train its selectors need not be looked at again.
type admitted struct {
	flow flow
	sa   *sa
}

// runPackets is the number of packets opened at a time, and of those written.
const runPackets = 256

func newInbound(p *Plane, size int) *inbound {
	return &inbound{p: p, count: p.newCounters(), recv: make([]conn.Packet, size), pkts: make([]esp.Packet, runPackets),
		from: make([]*conn.Packet, runPackets), copies: make([][]byte, runPackets), out: make([][]byte, 0, runPackets)}
}

// guarded runs a batch, the first n of w.recv; a bug that shows in it costs this
// batch only.
func (w *inbound) guarded(n int) {
	defer func() {
		if recover() != nil {
			w.count.drop(BatchPanic)
			w.n, w.sa, w.out, w.last = 0, nil, w.out[:0], admitted{}
		}
		w.beat.end()
	}()
	w.batch(n)
}

// batch moves the first n packets, or trains of them, that were received.
func (w *inbound) batch(n int) {
	w.now = w.p.cfg.Clock()
	w.beat.begin(w.now)
	for i := range n {
		r := &w.recv[i]
		switch r.Kind {
		case conn.ESP:
			w.train(r)
		case conn.Keepalive:
			w.count.keepalives.Add(1)
			w.p.cfg.IKE(r)
		default:
			w.count.ike.Add(1)
			w.p.cfg.IKE(r)
		}
	}
	w.open()
	w.deliver()
}

// train adds the packets of r to the run at hand.
func (w *inbound) train(r *conn.Packet) {
	size := len(r.Buf)
	if r.Segment > 0 {
		size = r.Segment
	}
	for at := 0; at == 0 || at < len(r.Buf); at += max(size, 1) {
		end := min(at+size, len(r.Buf))
		w.datagram(r, r.Buf[at:end:end])
	}
}

// datagram finds the SA of an ESP packet (RFC 4301 §5.2 step 3a).
func (w *inbound) datagram(r *conn.Packet, b []byte) {
	if len(b) < 8 {
		w.count.drop(InShort)
		return
	}
	spi := ipsec.SPI(binary.BigEndian.Uint32(b))
	if w.sa == nil || w.sa.spi != spi || w.n == len(w.pkts) {
		s := w.p.spis.get(spi)
		if s == nil {
			w.count.drop(InNoSA)
			if w.orphan.allow(w.now, limitOrphans) {
				w.p.emit(ipsec.Orphan{SPI: spi, Local: r.Local, Remote: r.Remote})
			}
			return
		}
		w.open()
		w.sa = s
	}
	if w.p.cfg.Tap != nil {
		w.p.cfg.Tap.Outer(ipsec.In, r.Local, r.Remote, r.Encap, r.TOS, b)
	}
	p := &w.pkts[w.n]
	p.Buf, p.Off, p.Len, p.TOS, p.Encap = b, 0, len(b), r.TOS, r.Encap
	if w.sa.Params().Mode == ipsec.ModeTransport {
		need := esp.OpenHeadroom + len(b)
		if cap(w.copies[w.n]) < need {
			w.copies[w.n] = make([]byte, max(need, 2048))
		}
		p.Buf = w.copies[w.n][:need]
		copy(p.Buf[esp.OpenHeadroom:], b)
		p.Off = esp.OpenHeadroom
	}
	w.from[w.n] = r
	w.n++
}

// open opens the run at hand and keeps the packets that may pass.
func (w *inbound) open() {
	s, ps := w.sa, w.pkts[:w.n]
	w.sa, w.n = nil, 0
	if len(ps) == 0 {
		return
	}
	s.open(ps)
	if s.dev != w.dev || len(w.out)+len(ps) > cap(w.out) {
		w.deliver()
		w.dev = s.dev
	}
	var packets, bytes uint64
	var fresh *conn.Packet // the genuine packet with the highest number
	var highest uint64
	for i := range ps {
		p := &ps[i]
		if p.Err != nil {
			w.count.drop(openReason(p.Err))
			if p.Err != esp.ErrDummy {
				continue
			}
		}
		if p.Seq > highest {
			fresh, highest = w.from[i], p.Seq
		}
		if p.Err == nil && w.admit(s, p.Bytes()) {
			packets++
			bytes += uint64(p.Len)
			w.out = append(w.out, p.Bytes())
		}
	}
	if fresh != nil {
		s.Touch(w.now.UnixNano())
		w.watchMapping(s, fresh, highest)
	}
	if packets > 0 {
		w.count.inPackets.Add(packets)
		w.count.inBytes.Add(bytes)
	}
	if s.Params().Mode == ipsec.ModeTransport {
		w.deliver() // the copies are wanted for the next run
	}
	w.p.expire(s)
}

// admit checks what came out of an SA against its selectors (RFC 4301 §5.2 step
// 4), and readies it for the device.
func (w *inbound) admit(s *sa, b []byte) bool {
	if err := w.h.parse(b, false); err != nil {
		if err == errExtensions {
			w.count.drop(InExtensions)
		} else {
			w.count.drop(InMalformed)
		}
		return false
	}
	params := s.Params()
	if w.taken = false; !w.covered(s, params, b) {
		if w.taken {
			return false
		}
		s.CountMismatch()
		w.count.drop(InSelector)
		return false
	}
	if w.h.fragment && w.h.l4 != 0 {
		w.first.note(&w.h, s, w.now)
	}
	if params.MSSClamp && w.h.proto == protoTCP && clampMSS(b, &w.h, s.InnerMTU()) {
		w.count.clamped.Add(1)
	}
	if w.p.cfg.Tap != nil {
		w.p.cfg.Tap.Inner(ipsec.In, b)
	}
	return true
}

// covered reports whether the SA may carry the packet at hand. One of the same
// addresses, protocol and ports as the one before it need not be looked at again.
func (w *inbound) covered(s *sa, params *esp.Params, b []byte) bool {
	switch {
	case w.h.fragment && w.h.l4 == 0:
		return w.selected(params, b) || w.first.find(&w.h, w.now) == s
	case w.last.sa == s && w.last.flow == w.h.flow:
		return true
	case w.isInform(params):
		if w.taken = true; w.inform.allow(w.now, limitInforms) {
			w.p.emit(ipsec.Inform{Ref: s.ref, Packet: bytes.Clone(b)})
		}
		return false
	case !w.selected(params, b):
		return false
	}
	if _, isError := w.h.quote(b); !isError {
		w.last = admitted{w.h.flow, s}
	}
	return true
}

// isInform reports whether the packet is DHCP from a client with a single address that it
// was given, to everybody: Windows asks so for its routes, whatever the selectors say.
func (w *inbound) isInform(params *esp.Params) bool {
	if w.h.dstPort != 67 || w.h.srcPort != 68 || w.h.proto != protoUDP || w.h.v6 || w.h.fragment || [4]byte(w.h.dst[:4]) != [4]byte{255, 255, 255, 255} {
		return false
	}
	src, _ := w.h.addrs()
	return slices.ContainsFunc(params.RemoteTS, func(t ipsec.Selector) bool { return t.From == src && t.To == src })
}

// selected reports whether the packet is one of the SA's. An ICMP error is judged
// by the packet of ours that it quotes, seen from the peer's side, and must go to
// that packet's sender (RFC 4301 §6.2): else a peer could break connections
// that it has no part in, and routers behind it could not report anything.
func (w *inbound) selected(params *esp.Params, b []byte) bool {
	quoted, isError := w.h.quote(b)
	if !isError {
		return matches(&w.h.flow, params.RemoteTS, params.LocalTS)
	}
	var q headers
	if q.parse(quoted, true) != nil || q.src != w.h.dst {
		return false
	}
	src, _ := w.h.addrs()
	r := q.reversed()
	return unicast(src) && matches(&r, params.RemoteTS, params.LocalTS)
}

// watchMapping notices that the NAT before the peer changed its mapping. Only the
// newest genuine packet counts: an old one that an attacker held back and sent
// from elsewhere is refused by the window or not the newest.
func (w *inbound) watchMapping(s *sa, r *conn.Packet, seq uint64) {
	if !s.Endpoints().TrackNAT || !r.Encap || r.Remote == s.Endpoints().Remote || seq != s.Stats().Seq {
		return
	}
	s.mu.Lock()
	tell := s.mapped != r.Remote || w.now.Sub(s.mappedAt) >= mappingAgain
	if tell {
		s.mapped, s.mappedAt = r.Remote, w.now
	}
	s.mu.Unlock()
	if tell {
		w.p.emit(ipsec.MappingChange{Ref: s.ref, Remote: r.Remote})
	}
}

// deliver writes what was opened to the device.
func (w *inbound) deliver() {
	if len(w.out) == 0 {
		return
	}
	n, err := w.dev.of(w.worker).Write(w.out, 0)
	if err != nil {
		w.count.drops[InDevice].Add(uint64(len(w.out) - n))
	}
	w.out = w.out[:0]
}

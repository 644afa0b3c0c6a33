package userspace

import (
	"encoding/binary"
	"time"

	"adit/esp"
	"adit/internal/conn"
	"adit/ipsec"
)

// inbound is the state of one worker from a reader of the Conn to the devices. It
// is not safe for concurrent use and knows nothing of goroutines.
type inbound struct {
	p    *Plane
	now  time.Time
	beat *beat

	recv   []conn.Packet
	pkts   []esp.Packet
	copies [][]byte // transport mode packets, with room for the header
	dev    *device  // of out
	out    [][]byte
	orphan limiter
	first  fragMemory[sa]
	h      headers
}

func newInbound(p *Plane, size int) *inbound {
	return &inbound{p: p, recv: make([]conn.Packet, size), pkts: make([]esp.Packet, size),
		copies: make([][]byte, size), out: make([][]byte, 0, size)}
}

// readConn is the goroutine of a reader.
func (p *Plane) readConn(r conn.Reader, b *beat) {
	defer p.wg.Done()
	w := newInbound(p, batchSize)
	w.beat = b
	for {
		n, err := r.ReadBatch(w.recv)
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
func (w *inbound) guarded(n int) {
	defer func() {
		if recover() != nil {
			w.p.count.drop(BatchPanic)
			w.out = w.out[:0]
		}
		w.beat.end()
	}()
	w.batch(n)
}

// batch moves the first n datagrams that were received.
func (w *inbound) batch(n int) {
	w.now = w.p.cfg.Clock()
	w.beat.begin(w.now)
	for i := 0; i < n; {
		s := w.classify(i)
		j := i + 1
		if s != nil {
			for j < n && w.follows(s, j) {
				j++
			}
			w.open(s, i, j)
		}
		i = j
	}
	w.deliver()
}

// classify hands IKE to the engine and finds the SA of an ESP packet (RFC 4301
// §5.2 step 3a), nil if there is nothing more to do with it.
func (w *inbound) classify(i int) *sa {
	r := &w.recv[i]
	switch r.Kind {
	case conn.ESP:
	case conn.Keepalive:
		w.p.count.keepalives.Add(1)
		w.p.cfg.IKE(r)
		return nil
	default:
		w.p.count.ike.Add(1)
		w.p.cfg.IKE(r)
		return nil
	}
	if len(r.Buf) < 8 {
		w.p.count.drop(InShort)
		return nil
	}
	spi := ipsec.SPI(binary.BigEndian.Uint32(r.Buf))
	s := w.p.spis.get(spi)
	if s == nil {
		w.p.count.drop(InNoSA)
		if w.orphan.allow(w.now, limitOrphans) {
			w.p.emit(ipsec.Orphan{SPI: spi, Local: r.Local, Remote: r.Remote})
		}
		return nil
	}
	w.prepare(s, i)
	return s
}

// follows reports whether packet j continues a run of this SA.
func (w *inbound) follows(s *sa, j int) bool {
	r := &w.recv[j]
	if r.Kind != conn.ESP || len(r.Buf) < 8 || ipsec.SPI(binary.BigEndian.Uint32(r.Buf)) != s.spi {
		return false
	}
	w.prepare(s, j)
	return true
}

// prepare describes packet i to the transform.
func (w *inbound) prepare(s *sa, i int) {
	r, p := &w.recv[i], &w.pkts[i]
	if w.p.cfg.Tap != nil {
		w.p.cfg.Tap.Outer(ipsec.In, r.Local, r.Remote, r.Encap, r.TOS, r.Buf)
	}
	p.Buf, p.Off, p.Len, p.TOS, p.Encap = r.Buf, 0, len(r.Buf), r.TOS, r.Encap
	if s.Params().Mode == ipsec.ModeTransport {
		need := esp.OpenHeadroom + len(r.Buf)
		if cap(w.copies[i]) < need {
			w.copies[i] = make([]byte, max(need, 2048))
		}
		p.Buf = w.copies[i][:need]
		copy(p.Buf[esp.OpenHeadroom:], r.Buf)
		p.Off = esp.OpenHeadroom
	}
}

// open opens a run of packets of one SA and keeps those that may pass.
func (w *inbound) open(s *sa, from, to int) {
	ps := w.pkts[from:to]
	s.open(ps)
	if s.dev != w.dev {
		w.deliver()
		w.dev = s.dev
	}
	var packets, bytes uint64
	var fresh *conn.Packet // the genuine packet with the highest number
	var highest uint64
	for i := range ps {
		p := &ps[i]
		if p.Err != nil {
			w.p.count.drop(openReason(p.Err))
			if p.Err != esp.ErrDummy {
				continue
			}
		}
		if p.Seq > highest {
			fresh, highest = &w.recv[from+i], p.Seq
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
		w.p.count.inPackets.Add(packets)
		w.p.count.inBytes.Add(bytes)
	}
	w.p.expire(s)
}

// admit checks what came out of an SA against its selectors (RFC 4301 §5.2 step
// 4), and readies it for the device.
func (w *inbound) admit(s *sa, b []byte) bool {
	if err := w.h.parse(b, false); err != nil {
		if err == errExtensions {
			w.p.count.drop(InExtensions)
		} else {
			w.p.count.drop(InMalformed)
		}
		return false
	}
	params := s.Params()
	if !w.selected(params, b) && !(w.h.fragment && w.h.l4 == 0 && w.first.find(&w.h, w.now) == s) {
		s.CountMismatch()
		w.p.count.drop(InSelector)
		return false
	}
	if w.h.fragment && w.h.l4 != 0 {
		w.first.note(&w.h, s, w.now)
	}
	if params.MSSClamp && w.h.proto == protoTCP && clampMSS(b, &w.h, s.InnerMTU()) {
		w.p.count.clamped.Add(1)
	}
	if w.p.cfg.Tap != nil {
		w.p.cfg.Tap.Inner(ipsec.In, b)
	}
	return true
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
	if !s.Params().TrackNAT || !r.Encap || r.Remote == s.Endpoints().Remote || seq != s.Stats().Seq {
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
	n, err := w.dev.tun.Write(w.out, 0)
	if err != nil {
		w.p.count.drops[InDevice].Add(uint64(len(w.out) - n))
	}
	w.out = w.out[:0]
}

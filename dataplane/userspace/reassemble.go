package userspace

import (
	"encoding/binary"
	"hash/maphash"
	"time"
)

// fragKey names the datagram that a fragment belongs to (RFC 791, RFC 8200 §4.5).
type fragKey struct {
	src, dst [16]byte
	id       uint32
	proto    uint8
	v6       bool
}

func (h *headers) fragKey() fragKey { return fragKey{h.src, h.dst, h.id, h.proto, h.v6} }

// fragMemory remembers what was decided about first fragments, so that the later
// ones, which show no ports, follow them (RFC 4301 §7.3). It is of fixed size and
// of one worker; V is the policy or the SA.
type fragMemory[V any] struct {
	seed  maphash.Seed
	slots []fragSeen[V]
}

type fragSeen[V any] struct {
	key   fragKey
	value *V
	at    time.Time
}

func (m *fragMemory[V]) slot(h *headers) (*fragSeen[V], fragKey) {
	if m.slots == nil {
		m.seed, m.slots = maphash.MakeSeed(), make([]fragSeen[V], limitFragments)
	}
	k := h.fragKey()
	return &m.slots[maphash.Comparable(m.seed, k)&(limitFragments-1)], k
}

// note remembers the decision about a first fragment.
func (m *fragMemory[V]) note(h *headers, v *V, now time.Time) {
	s, k := m.slot(h)
	*s = fragSeen[V]{k, v, now}
}

// find is the decision about the first fragment of this one's datagram, or nil.
func (m *fragMemory[V]) find(h *headers, now time.Time) *V {
	s, k := m.slot(h)
	if s.value == nil || s.key != k || now.Sub(s.at) >= fragmentAge {
		return nil
	}
	return s.value
}

// reassembler puts datagrams together that transport mode must carry whole (RFC
// 4303 §3.3.4). It holds few of them, of one worker.
type reassembler struct {
	partial []partial
	out     []byte // the last whole datagram
}

type partial struct {
	key    fragKey
	since  time.Time // zero: free
	mem    []byte    // what lies behind the IP header
	header []byte    // of the first fragment
	next   uint8     // IPv6: what the fragment header says
	spans  []span
	got    int
	total  int // 0: not known yet
}

type span struct{ from, to int }

// add takes in a fragment. When its datagram is whole, it is returned, valid until
// the next call; lost tells how many fragments were given up for it.
func (r *reassembler) add(h *headers, b []byte, now time.Time) (whole []byte, lost int) {
	hdr, off, more, next, ok := fragmentOf(b)
	if !ok || h.v6 && b[6] != extFragment { // other headers before it cannot be carried
		return nil, 1
	}
	d, lost := r.datagram(h.fragKey(), now)
	header, body := b[:hdr], b[hdr:]
	if h.v6 {
		header = b[:ipv6Len]
	}
	end := off + len(body)
	if !d.fits(off, end, more) {
		// Overlaps are an attack or a bug (RFC 5722): all of it goes.
		lost += len(d.spans) + 1
		d.clear()
		return nil, lost
	}
	if cap(d.mem) < end {
		d.mem = append(make([]byte, 0, max(end, 2*cap(d.mem))), d.mem...)
	}
	d.mem = d.mem[:max(len(d.mem), end)]
	copy(d.mem[off:], body)
	d.spans = append(d.spans, span{off, end})
	d.got += len(body)
	if !more {
		d.total = end
	}
	if off == 0 {
		d.header, d.next = append(d.header[:0], header...), next
	}
	if d.total == 0 || d.got != d.total || len(d.header) == 0 {
		return nil, lost
	}
	if whole = d.join(r.out[:0]); whole == nil {
		lost += len(d.spans)
	} else {
		r.out = whole
	}
	d.clear()
	return whole, lost
}

// datagram finds the datagram of a key, or a place for it: the oldest if need be.
func (r *reassembler) datagram(k fragKey, now time.Time) (d *partial, lost int) {
	if r.partial == nil {
		r.partial = make([]partial, limitReassembly)
	}
	d = &r.partial[0]
	for i := range r.partial {
		c := &r.partial[i]
		if !c.since.IsZero() && now.Sub(c.since) >= fragmentAge {
			lost += len(c.spans)
			c.clear()
		}
		if c.key == k && !c.since.IsZero() {
			return c, lost
		}
		if c.since.Before(d.since) {
			d = c
		}
	}
	lost += len(d.spans)
	d.clear()
	d.key, d.since = k, now
	return d, lost
}

// fits reports whether a fragment leaves the datagram possible.
func (d *partial) fits(from, to int, more bool) bool {
	if to > 65535-ipv4Len || from == to || len(d.spans) >= limitPieces || more && (to-from)%8 != 0 {
		return false
	}
	if d.total != 0 && (to > d.total || !more) || !more && to < len(d.mem) {
		return false
	}
	for _, s := range d.spans {
		if from < s.to && s.from < to {
			return false
		}
	}
	return true
}

// join appends the datagram to b, nil if it is larger than any may be.
func (d *partial) join(b []byte) []byte {
	if len(d.header)+d.total > 65535 {
		return nil
	}
	b = append(append(b, d.header...), d.mem[:d.total]...)
	if b[0]>>4 == 6 {
		b[6] = d.next
		binary.BigEndian.PutUint16(b[4:], uint16(d.total))
		return b
	}
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	binary.BigEndian.PutUint16(b[6:], 0)
	headerChecksum(b[:len(d.header)])
	return b
}

func (d *partial) clear() {
	d.since, d.got, d.total = time.Time{}, 0, 0
	d.mem, d.header, d.spans = d.mem[:0], d.header[:0], d.spans[:0]
}

// fragmentOf reads the fragment fields of a packet: the length of all headers
// before the fragment's part, its place, and what follows.
func fragmentOf(b []byte) (hdr, off int, more bool, next uint8, ok bool) {
	if b[0]>>4 == 4 {
		f := binary.BigEndian.Uint16(b[6:])
		return int(b[0]&15) * 4, int(f&0x1fff) * 8, f&0x2000 != 0, b[9], true
	}
	if len(b) < ipv6Len+8 {
		return 0, 0, false, 0, false
	}
	f := binary.BigEndian.Uint16(b[ipv6Len+2:])
	return ipv6Len + 8, int(f &^ 7), f&1 != 0, b[ipv6Len], true
}

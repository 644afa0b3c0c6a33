package sim

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"adit/ike/wire"
)

// Link is what the network does to datagrams; the same for all pairs of hosts.
// Probabilities are from 0 to 1.
type Link struct {
	Delay   time.Duration // one way
	Jitter  time.Duration // on top, at random: reorders what is closer together
	Loss    float64
	Dup     float64
	Reorder float64 // of being delayed by ReorderBy at most
	Corrupt float64 // of one to three flipped bits
	MTU     int     // larger IP packets are lost; 0: none is
}

// reorderBy is the longest additional delay of a datagram that is reordered.
const reorderBy = 400 * time.Millisecond

// packet is a datagram on the way: an IKE message or an ESP packet.
type packet struct {
	from, to  *Host
	src, dst  netip.AddrPort // as the sender wrote them, then as NATs made them
	data      []byte
	esp       bool
	encap     bool // ESP in UDP
	probe     *probe
	text      string // what it is, for rules and the trace
	corrupted bool
	forged    bool
}

func (p *packet) size() int {
	n := 20 + len(p.data)
	if p.src.Addr().Is6() {
		n += 20
	}
	if !p.esp || p.encap {
		n += 8
	}
	if !p.esp && p.src.Port() != 500 {
		n += 4 // the non-ESP marker (RFC 3948 §2.2)
	}
	return n
}

// rule is what a script does to chosen datagrams.
type rule struct {
	from, to *Host
	text     string          // part of the summary
	left     int             // how many more; negative: all
	do       string          // drop, hold, dup, corrupt or strip
	notify   wire.NotifyType // to strip
}

// NAT translates one host's source addresses.
type NAT struct {
	public   netip.Addr
	preserve bool // the public port is the private one where possible
	next     uint16
	out      map[netip.AddrPort]uint16
	in       map[uint16]netip.AddrPort
}

func newNAT(public netip.Addr, preserve bool) *NAT {
	return &NAT{public: public, preserve: preserve, next: 20000, out: map[netip.AddrPort]uint16{}, in: map[uint16]netip.AddrPort{}}
}

func (n *NAT) outward(src netip.AddrPort) netip.AddrPort {
	port, ok := n.out[src]
	if !ok {
		port = src.Port()
		if _, taken := n.in[port]; !n.preserve || taken {
			n.next++
			port = n.next
		}
		n.out[src], n.in[port] = port, src
	}
	return netip.AddrPortFrom(n.public, port)
}

// rebind forgets every mapping, as a NAT does that restarts; ports differ afterwards.
func (n *NAT) rebind() {
	n.out, n.in = map[netip.AddrPort]uint16{}, map[uint16]netip.AddrPort{}
	n.preserve = false
	n.next += 100
}

// transmit puts a datagram on the network.
func (w *World) transmit(p *packet) {
	fate := ""
	again := 1
	defer func() { w.traceSend(p, fate) }()
	if !p.forged && !p.from.has(p.src.Addr()) {
		fate = "no such address"
		w.lost(p, fate)
		return
	}
	if n := p.from.nat; n != nil && !p.forged {
		if p.esp && !p.encap {
			fate = "no NAT for raw ESP"
			w.lost(p, fate)
			return
		}
		p.src = n.outward(p.src)
	}
	p.to = w.hostOf(p.dst.Addr())
	if p.to == nil {
		fate = "no such host"
		w.lost(p, fate)
		return
	}
	for _, r := range w.rules {
		if r.left == 0 || r.from != nil && r.from != p.from || r.to != nil && r.to != p.to || !strings.Contains(p.text, r.text) {
			continue
		}
		if p.esp && r.text == "" {
			continue // rules without text are for IKE
		}
		r.left--
		switch r.do {
		case "drop":
			fate = "lost"
			w.lost(p, fate)
			return
		case "hold":
			fate = "held"
			w.held = append(w.held, p)
			return
		case "dup":
			fate = "doubled"
			again = 2
		case "corrupt":
			fate = "damaged"
			w.corrupt(p)
		case "strip":
			if strip(p, r.notify) {
				fate = "without " + r.notify.String()
			}
		}
		break
	}
	switch {
	case w.cut[[2]*Host{p.from, p.to}]:
		fate = "cut off"
	case w.net.MTU > 0 && p.size() > w.net.MTU:
		fate = "too big"
	case w.chance(w.net.Loss):
		fate = "lost"
	}
	if fate != "" && fate != "doubled" && fate != "damaged" && !strings.HasPrefix(fate, "without ") {
		w.lost(p, fate)
		return
	}
	if w.chance(w.net.Dup) {
		again++
		fate = "doubled"
	}
	for range again {
		q := *p
		q.data = append([]byte(nil), p.data...)
		d := w.net.Delay + w.span(w.net.Jitter)
		if w.chance(w.net.Reorder) {
			d += w.span(reorderBy)
		}
		if w.chance(w.net.Corrupt) {
			w.corrupt(&q)
			fate = "damaged"
		}
		w.after(d, func() { w.deliver(&q) })
	}
}

// corrupt flips one to three bits.
func (w *World) corrupt(p *packet) {
	if len(p.data) == 0 {
		return
	}
	was := string(p.data)
	for range 1 + w.rng.IntN(3) {
		i := w.rng.IntN(len(p.data) * 8)
		p.data[i/8] ^= 1 << (i % 8)
	}
	from := 0
	if h, err := wire.ParseHeader([]byte(was)); err == nil && h.Version.Major == 1 {
		from = min(wire.HeaderLen, len(was)) // no HASH of IKEv1 covers the header
	}
	p.corrupted = p.corrupted || string(p.data[from:]) != was[from:]
}

// deliver brings a datagram to its host, through the NAT in front of it.
func (w *World) deliver(p *packet) {
	h := p.to
	if h.nat != nil && p.dst.Addr() == h.nat.public {
		inner, ok := h.nat.in[p.dst.Port()]
		if !ok || p.esp && !p.encap {
			w.lost(p, "no mapping")
			return
		}
		p.dst = inner
	}
	if h.engine == nil {
		w.lost(p, "host is down")
		return
	}
	h.receive(p)
}

// lost ends a datagram that the network took.
func (w *World) lost(p *packet, why string) {
	w.note("lost %s %s", p.text, why)
	if p.probe != nil {
		p.probe.end("network: " + why)
	}
}

// traceSend writes the line of a datagram.
func (w *World) traceSend(p *packet, fate string) {
	if p.esp {
		w.note("esp %s>%s %s %x %s", p.src, p.dst, p.from.Name, p.data, fate)
		return
	}
	to := p.dst.String()
	if p.to != nil {
		to = p.to.Name
	}
	w.note("ike %s>%s %x", p.src, p.dst, p.data)
	if fate != "" {
		fate = "  *" + fate + "*"
	}
	ports := ""
	if p.src.Port() != 500 || p.dst.Port() != 500 {
		ports = fmt.Sprintf(" :%d>:%d", p.src.Port(), p.dst.Port())
	}
	w.tracef("%s -> %s%s  %s%s", p.from.Name, to, ports, p.text, fate)
}

package conn

import (
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
)

// Network is an outside network in memory: hosts with addresses, between which
// datagrams pass at once and in order. It never routes, fragments or loses
// anything by itself, apart from what finds a reader's queue full.
type Network struct {
	mu     sync.Mutex // also serialises tap and filter
	hosts  map[netip.Addr]*Host
	tap    func(Datagram)
	filter func(*Datagram) bool
	wire   []byte   // the datagram on its way, marker included
	now    Datagram // the same, for tap and filter: a field, so that none is allocated
}

// Datagram is what an observer of a Network sees: what would stand on the wire
// behind the outer headers.
type Datagram struct {
	// Src and Dst are the outer addresses; ports are 0 for raw ESP.
	Src, Dst netip.AddrPort
	// Raw: IP protocol 50, not UDP.
	Raw bool
	TOS uint8
	DF  bool
	// Payload is the UDP payload with its marker, or the ESP packet. It is
	// valid during the call only.
	Payload []byte
}

// NewNetwork makes a network without hosts.
func NewNetwork() *Network {
	return &Network{hosts: map[netip.Addr]*Host{}}
}

// SetTap has f called for each datagram that passes, before the filter. It must
// not call the Network or its Conns; nil takes it away.
func (n *Network) SetTap(f func(Datagram)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.tap = f
}

// SetFilter has f decide about each datagram: false drops it. f may change
// Payload in place, its TOS and its addresses (a NAT), and cut Payload shorter.
// The same ban as for the tap holds.
func (n *Network) SetFilter(f func(*Datagram) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.filter = f
}

// Inject puts a datagram onto the network as if somebody had sent it: for
// tests with forged or replayed traffic. Tap and filter don't see it. It tells
// whether anybody received it.
func (n *Network) Inject(d Datagram) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.deliver(&d)
}

// Host adds a host with the given addresses, the preferred one of a family
// first.
func (n *Network) Host(addrs ...netip.Addr) (*Host, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := &Host{net: n}
	for _, a := range addrs {
		a = a.Unmap().WithZone("")
		if n.hosts[a] != nil {
			return nil, fmt.Errorf("conn: address %s is taken in this network", a)
		}
		h.addrs = append(h.addrs, a)
	}
	for _, a := range h.addrs {
		n.hosts[a] = h
	}
	return h, nil
}

// Host is a host of a Network.
type Host struct {
	net   *Network
	addrs []netip.Addr
	conns []*memoryConn // under net.mu
}

// Listen opens a Conn at the host. Ports, NoIPv4, NoIPv6 and NoRaw of the options
// count; a port that another Conn of the host has is ErrPortInUse.
func (h *Host) Listen(opts Options) (Conn, error) {
	ports, err := opts.ports()
	if err != nil {
		return nil, err
	}
	if opts.AnyPort {
		ports = Ports{IKE: PortIKE, NATT: PortNATT}
	}
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	for _, c := range h.conns {
		for _, p := range []uint16{ports.IKE, ports.NATT} {
			if p == c.ports.IKE || p == c.ports.NATT {
				return nil, &PortError{Port: p, Network: "udp4", Err: ErrPortInUse}
			}
		}
	}
	c := &memoryConn{host: h, ports: ports, opts: opts}
	c.queue.ready = make(chan struct{}, 1)
	c.queue.closed = make(chan struct{})
	h.conns = append(h.conns, c)
	return c, nil
}

// memoryConn is a Conn of a Host, with one Reader: itself.
type memoryConn struct {
	host  *Host
	ports Ports
	opts  Options
	queue memoryRing
	stats struct {
		received, malformed, sent, unreachable, other, tooBig, full atomic.Uint64
	}
}

var (
	_ Conn   = (*memoryConn)(nil)
	_ Reader = (*memoryConn)(nil)
)

// memoryRing holds arrived datagrams. Buffers are swapped with those that the
// reader holds from the last batch, so nothing is allocated once they grew.
type memoryRing struct {
	mu     sync.Mutex
	slots  [memoryQueue]Packet // Buf: the whole storage, its length the payload
	head   int
	count  int
	held   [readSlots][]byte // with the reader since its last batch
	ready  chan struct{}     // capacity 1
	closed chan struct{}
	once   sync.Once
}

func (q *memoryRing) put(p *Packet) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.count == memoryQueue {
		return false
	}
	slot := &q.slots[(q.head+q.count)%memoryQueue]
	mem := slot.Buf
	*slot = *p
	slot.Buf = append(mem[:0], p.Buf...)
	q.count++
	select {
	case q.ready <- struct{}{}:
	default:
	}
	return true
}

func (q *memoryRing) take(pkts []Packet) (n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for n < len(pkts) && n < readSlots && q.count > 0 {
		slot := &q.slots[q.head]
		pkts[n] = *slot
		q.held[n], slot.Buf = slot.Buf, q.held[n]
		q.head = (q.head + 1) % memoryQueue
		q.count--
		n++
	}
	return n
}

func (q *memoryRing) isClosed() bool {
	select {
	case <-q.closed:
		return true
	default:
		return false
	}
}

// ReadBatch implements Reader.
func (c *memoryConn) ReadBatch(pkts []Packet) (int, error) {
	for {
		if c.queue.isClosed() {
			return 0, ErrClosed
		}
		if n := c.queue.take(pkts); n > 0 || len(pkts) == 0 {
			c.stats.received.Add(uint64(n))
			return n, nil
		}
		select {
		case <-c.queue.ready:
		case <-c.queue.closed:
		}
	}
}

// WriteBatch implements Conn.
func (c *memoryConn) WriteBatch(pkts []Packet) (n int, err error) {
	if c.queue.isClosed() {
		return 0, ErrClosed
	}
	net := c.host.net
	net.mu.Lock()
	defer net.mu.Unlock()
	for i := range pkts {
		p := &pkts[i]
		size := max(len(p.Buf), 1)
		if p.Segment > 0 {
			size = p.Segment
		}
		for at := 0; at == 0 || at < len(p.Buf); at += size {
			if e := c.send(p, p.Buf[at:min(at+size, len(p.Buf))]); e != nil {
				err = e
				continue
			}
			n++
		}
	}
	c.stats.sent.Add(uint64(n))
	return n, err
}

// send puts one packet, p or one of its train, onto the network, under its lock.
func (c *memoryConn) send(p *Packet, buf []byte) error {
	d := &c.host.net.now
	*d = Datagram{TOS: p.TOS, DF: p.DF}
	wire := c.host.net.wire[:0]
	port := c.ports.IKE
	if p.Encap {
		port = c.ports.NATT
	}
	switch p.Kind {
	case IKE:
		if p.Encap {
			wire = append(wire, 0, 0, 0, 0)
		}
	case ESP:
		if !p.Encap {
			if c.opts.NoRaw {
				c.stats.other.Add(1)
				return ErrNoSocket
			}
			d.Raw, port = true, 0
		}
	case Keepalive:
	default:
		c.stats.other.Add(1)
		return ErrKind
	}
	if p.Kind == Keepalive {
		wire = append(wire, 0xff)
	} else {
		wire = append(wire, buf...)
	}
	c.host.net.wire = wire
	if len(wire) > MaxTrain {
		c.stats.tooBig.Add(1)
		return ErrTooBig
	}
	remote := p.Remote.Addr()
	src := p.Local.Addr()
	if !src.IsValid() || src.IsUnspecified() {
		var err error
		if src, err = c.SourceFor(remote); err != nil {
			c.stats.unreachable.Add(1)
			return err
		}
	} else if c.host.net.hosts[src] != c.host || src.Is4() != remote.Is4() {
		c.stats.unreachable.Add(1)
		return ErrNoRoute
	}
	d.Src, d.Dst, d.Payload = netip.AddrPortFrom(src, port), p.Remote, wire
	if d.Raw {
		d.Dst = netip.AddrPortFrom(remote, 0)
	}
	c.host.net.pass(d)
	return nil
}

// pass shows a datagram to tap and filter, and delivers it.
func (n *Network) pass(d *Datagram) {
	if n.tap != nil {
		n.tap(*d)
	}
	if n.filter != nil && !n.filter(d) {
		return
	}
	n.deliver(d)
}

func (n *Network) deliver(d *Datagram) bool {
	h := n.hosts[d.Dst.Addr()]
	if h == nil {
		return false
	}
	for _, c := range h.conns {
		if c.wants(d) {
			return c.arrive(d)
		}
	}
	return false
}

func (c *memoryConn) wants(d *Datagram) bool {
	if d.Dst.Addr().Is4() && c.opts.NoIPv4 || d.Dst.Addr().Is6() && c.opts.NoIPv6 {
		return false
	}
	if d.Raw {
		return !c.opts.NoRaw
	}
	return d.Dst.Port() == c.ports.IKE || d.Dst.Port() == c.ports.NATT
}

func (c *memoryConn) arrive(d *Datagram) bool {
	p := Packet{Local: d.Dst, Remote: d.Src, TOS: d.TOS, Kind: ESP, Buf: d.Payload}
	if !d.Raw {
		var ok bool
		p.Encap = d.Dst.Port() == c.ports.NATT
		if p.Kind, p.Buf, ok = Demux(d.Payload, p.Encap); !ok {
			c.stats.malformed.Add(1)
			return false
		}
	} else if len(d.Payload) < minESP {
		c.stats.malformed.Add(1)
		return false
	}
	if !c.queue.put(&p) {
		c.stats.full.Add(1)
		return false
	}
	return true
}

// Readers implements Conn.
func (c *memoryConn) Readers() []Reader { return []Reader{c} }

// SourceFor implements Conn: the host's first address of the family.
func (c *memoryConn) SourceFor(remote netip.Addr) (netip.Addr, error) {
	remote = remote.Unmap()
	for _, a := range c.host.addrs {
		if a.Is4() == remote.Is4() {
			return a, nil
		}
	}
	return netip.Addr{}, ErrNoRoute
}

// Ports implements Conn.
func (c *memoryConn) Ports() Ports { return c.ports }

// Stats implements Conn.
func (c *memoryConn) Stats() Stats {
	s := &c.stats
	return Stats{
		Received: s.received.Load(), Malformed: s.malformed.Load(), Sent: s.sent.Load(),
		SendUnreachable: s.unreachable.Load(), SendOther: s.other.Load(),
		SendTooBig: s.tooBig.Load(), QueueFull: s.full.Load(),
	}
}

// Close implements Conn.
func (c *memoryConn) Close() error {
	c.queue.once.Do(func() {
		close(c.queue.closed)
		n := c.host.net
		n.mu.Lock()
		defer n.mu.Unlock()
		for i, o := range c.host.conns {
			if o == c {
				c.host.conns = append(c.host.conns[:i:i], c.host.conns[i+1:]...)
				break
			}
		}
	})
	return nil
}

//go:build linux

package conn

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// role is what a socket is for; the sockets of a Conn are a table over family,
// role and DF.
type role int

const (
	rolePlain role = iota // UDP without marker: 500
	roleEncap             // UDP with marker: 4500
	roleRaw               // raw ESP
	roles
)

// socket is one socket of the kernel. It is kept from Go's poller: that would be
// woken for every datagram that comes in, and for every one that has left.
type socket struct {
	conn *linuxConn
	fd   int
	v6   bool
	role role
	df   bool // the send-only twin with DF set
	port uint16
	gso  bool  // UDP_SEGMENT is there
	ttl  uint8 // of the headers made here; 0: the kernel makes them
	// worker is the number of the worker that it is for; own: it only sends, from a
	// port of its own.
	worker int
	own    bool
}

// linuxConn is a Conn over sockets of the Linux kernel.
//
// DF is a property of a socket (IP_MTU_DISCOVER), so each family and role has
// two of them on one port: the one that receives and sends without DF, and a
// send-only one with DF that a selector keeps free of arriving datagrams. With
// several workers the marker's port has such a pair for each of them, and the
// selector gives each the packets of its SPIs; of raw sockets each has one to receive.
type linuxConn struct {
	opts    Options
	ports   Ports
	out     [2][roles][2]*socket // [v6][role][df]; nil where there is none
	encap   [2][][2]*socket      // [v6][worker][df]: the first are those of out
	own     [2][][2]*socket      // [v6][worker][df]; none with one worker
	raw     [2][]*socket         // [v6]: of the workers behind the first
	readers []Reader
	senders sync.Pool // of *sender
	noGSO   destinations
	wake    int // an eventfd: readable once the Conn is closed
	closed  atomic.Bool
	inUse   sync.RWMutex // read-held by calls that use the sockets; Close waits for them

	probeMu sync.Mutex
	probe   [2]int // sockets for SourceFor, -1 where there is none

	errMu   sync.Mutex
	errs    *errorReader
	watcher sync.WaitGroup

	stats counters
}

type counters struct {
	received, receivedTrains, malformed, truncated         atomic.Uint64
	sent, sentTrains, tooBig, unreachable, refused, noBuff atomic.Uint64
	other, segmentFallback, reports                        atomic.Uint64
}

var _ Conn = (*linuxConn)(nil)

// Listen opens the sockets in the network namespace of the calling thread. A
// port that is taken gives a *PortError with ErrPortInUse.
func Listen(opts Options) (Conn, error) {
	ports, err := opts.ports()
	if err != nil {
		return nil, err
	}
	if opts.Workers = max(opts.Workers, 1); opts.Workers > MaxWorkers {
		return nil, ErrWorkers
	}
	c := &linuxConn{opts: opts, ports: ports, probe: [2]int{-1, -1}, errs: newErrorReader()}
	if c.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, fmt.Errorf("conn: eventfd: %w", err)
	}
	c.senders.New = func() any { return newSender(c) }
	if err := c.open(); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (c *linuxConn) open() error {
	for _, v6 := range []bool{false, true} {
		if v6 && c.opts.NoIPv6 || !v6 && c.opts.NoIPv4 {
			continue
		}
		err := c.openFamily(v6)
		if v6 && !c.opts.NoIPv4 && (errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL)) {
			c.closeFamily(v6) // a kernel without IPv6
			c.out[family(v6)] = [roles][2]*socket{}
			c.encap[family(v6)], c.own[family(v6)], c.raw[family(v6)] = nil, nil, nil
			continue
		}
		if err != nil {
			return err
		}
	}
	var twins []*socket
	for f := range c.out {
		for r := range c.out[f] {
			if s := c.out[f][r][0]; s != nil {
				c.readers = append(c.readers, newReader(s))
			}
			if s := c.out[f][r][1]; s != nil {
				twins = append(twins, s)
			}
		}
	}
	for f := range c.encap {
		for w, pair := range c.encap[f] {
			if w > 0 {
				c.readers = append(c.readers, newReader(pair[0]))
				twins = append(twins, pair[1])
			}
		}
		for _, s := range c.raw[f] {
			c.readers = append(c.readers, newReader(s))
		}
		for _, pair := range c.own[f] {
			twins = append(twins, pair[0], pair[1])
		}
	}
	if len(c.readers) == 0 {
		return ErrNoSocket
	}
	c.watcher.Go(func() { c.watchErrors(twins) })
	return nil
}

// Which source addresses to prefer (RFC 5014 §4).
const (
	preferTemporary = 1
	preferPublic    = 2
)

func (c *linuxConn) openFamily(v6 bool) error {
	f := family(v6)
	fd, err := unix.Socket(domain(v6), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("conn: socket: %w", err)
	}
	c.probe[f] = fd
	if err := c.setMark(fd); err != nil {
		return err
	}
	if v6 {
		prefer := preferPublic
		if c.opts.TemporaryAddrs {
			prefer = preferTemporary
		}
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_ADDR_PREFERENCES, prefer) // else the kernel's own choice
	}
	for _, r := range []role{rolePlain, roleEncap} {
		port := &c.ports.IKE
		if r == roleEncap {
			port = &c.ports.NATT
		}
		if err := c.openUDP(v6, r, port); err != nil {
			return err
		}
	}
	if c.opts.Workers > 1 {
		if err := c.openOwn(v6); err != nil {
			return err
		}
	}
	if c.opts.NoRaw {
		return nil
	}
	return c.openRaw(v6)
}

// openUDP opens the receiving sockets of a port and their send-only twins. The
// first is bound without SO_REUSEPORT, so that a second instance is refused;
// only then the others may join it. The group's selector gives every datagram to
// the first member, or, on the port with the marker, those of each SPI to the member
// of its worker. (The kernel looks at the option when the later one binds. The order
// of binding is that of the members.)
func (c *linuxConn) openUDP(v6 bool, r role, port *uint16) error {
	workers := 1
	if r == roleEncap {
		workers = c.opts.Workers
		c.encap[family(v6)] = make([][2]*socket, workers)
	}
	var first *socket
	for i := range 2 * workers {
		s, err := c.newSocket(v6, r, i >= workers, i%workers)
		if err != nil {
			return err
		}
		if first == nil {
			first = s
		} else if err := reusePort(s.fd); err != nil {
			return err
		}
		if err := bind(s.fd, v6, port); err != nil {
			return err
		}
		if s == first {
			if err := reusePort(s.fd); err != nil {
				return err
			}
		}
		s.port = *port
	}
	if workers > 1 {
		return attach(first.fd, unix.SO_ATTACH_REUSEPORT_CBPF, bySPI(workers))
	}
	return attach(first.fd, unix.SO_ATTACH_REUSEPORT_CBPF, zero)
}

// openOwn opens the sockets that send from a port of the worker's own. They receive
// nothing: who answers, does so to the port with the marker.
func (c *linuxConn) openOwn(v6 bool) error {
	f := family(v6)
	c.own[f] = make([][2]*socket, c.opts.Workers)
	for w := range c.own[f] {
		port := uint16(0)
		for _, df := range []bool{false, true} {
			fd, err := unix.Socket(domain(v6), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_UDP)
			if err != nil {
				return fmt.Errorf("conn: socket: %w", err)
			}
			s := &socket{conn: c, fd: fd, v6: v6, role: roleEncap, df: df, worker: w, own: true}
			c.own[f][w][index(df)] = s
			if err := errors.Join(s.configure(fd), attach(fd, unix.SO_ATTACH_FILTER, zero), reusePort(fd)); err != nil {
				return err
			}
			if err := bind(fd, v6, &port); err != nil {
				return err
			}
			s.port = port
		}
	}
	return nil
}

func reusePort(fd int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return fmt.Errorf("conn: SO_REUSEPORT: %w", err)
	}
	return nil
}

// zero is the classic BPF program "return 0": for a filter it means "keep no byte",
// for a SO_REUSEPORT selector "member 0".
var zero = []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}}

// bySPI is WorkerOf as a selector. The non-ESP marker is a number, too, which makes
// IKE the first worker's; a load beyond the end ends the program with 0.
func bySPI(workers int) []unix.SockFilter {
	return []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS},
		{Code: unix.BPF_ALU | unix.BPF_MOD | unix.BPF_K, K: uint32(workers)},
		{Code: unix.BPF_RET | unix.BPF_A},
	}
}

// attach sets a classic BPF program.
func attach(fd, option int, code []unix.SockFilter) error {
	prog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, option, &prog); err != nil {
		return fmt.Errorf("conn: attach selector: %w", err)
	}
	return nil
}

func (c *linuxConn) newSocket(v6 bool, r role, df bool, worker int) (*socket, error) {
	typ, proto := unix.SOCK_DGRAM, unix.IPPROTO_UDP
	if r == roleRaw {
		typ, proto = unix.SOCK_RAW, unix.IPPROTO_ESP
		if df {
			proto = unix.IPPROTO_RAW
		}
	}
	fd, err := unix.Socket(domain(v6), typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	if err != nil {
		if r == roleRaw && errors.Is(err, unix.EPERM) {
			return nil, fmt.Errorf("%w: %w", ErrNoRaw, err)
		}
		return nil, fmt.Errorf("conn: socket: %w", err)
	}
	s := &socket{conn: c, fd: fd, v6: v6, role: r, df: df, worker: worker}
	switch {
	case worker == 0:
		c.out[family(v6)][r][index(df)] = s
	case r == roleRaw:
		c.raw[family(v6)] = append(c.raw[family(v6)], s)
	}
	if r == roleEncap {
		c.encap[family(v6)][worker][index(df)] = s
	}
	return s, s.configure(fd)
}

func (s *socket) configure(fd int) error {
	if err := s.conn.setMark(fd); err != nil {
		return err
	}
	type option struct{ level, name, value int }
	var list []option
	if s.v6 {
		discover := unix.IPV6_PMTUDISC_WANT
		if s.df {
			// PROBE: no fragments, and no belief in what ICMP told the kernel.
			discover = unix.IPV6_PMTUDISC_PROBE
			list = append(list, option{unix.SOL_IPV6, unix.IPV6_DONTFRAG, 1})
		}
		list = append(list,
			option{unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER, discover},
			option{unix.SOL_IPV6, unix.IPV6_V6ONLY, 1},
			option{unix.SOL_IPV6, unix.IPV6_RECVPKTINFO, 1},
			option{unix.SOL_IPV6, unix.IPV6_RECVTCLASS, 1},
			option{unix.SOL_IPV6, unix.IPV6_RECVERR, 1})
	} else {
		// OMIT: DF clear, and no fragments because of forged ICMP.
		discover := unix.IP_PMTUDISC_OMIT
		if s.df {
			discover = unix.IP_PMTUDISC_PROBE
		}
		list = append(list,
			option{unix.SOL_IP, unix.IP_MTU_DISCOVER, discover},
			option{unix.SOL_IP, unix.IP_PKTINFO, 1},
			option{unix.SOL_IP, unix.IP_RECVERR, 1})
		if s.role != roleRaw { // there it is in the header
			list = append(list, option{unix.SOL_IP, unix.IP_RECVTOS, 1})
		}
	}
	for _, o := range list {
		if s.v6 && s.role == roleRaw && o.name == unix.IPV6_V6ONLY {
			continue // a raw IPv6 socket is so anyway
		}
		if s.role == roleRaw && s.worker > 0 && (o.name == unix.IPV6_RECVERR && s.v6 || o.name == unix.IP_RECVERR && !s.v6) {
			continue // it never sends, and each error would be told to each raw socket
		}
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			return fmt.Errorf("conn: socket option %d/%d: %w", o.level, o.name, err)
		}
	}
	setBuffer(fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF)
	if !s.df && !s.own {
		setBuffer(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF)
	}
	if s.role == roleEncap {
		if !s.conn.opts.NoGRO {
			// Not there before Linux 5.0: datagrams come one by one. The twin has it as
			// well: where the kernel joins datagrams it looks for a socket without asking
			// the selector, and any of the group may be the one that it finds.
			_ = unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1)
		}
		if !s.conn.opts.NoGSO {
			_, err := unix.GetsockoptInt(fd, unix.SOL_UDP, unix.UDP_SEGMENT)
			s.gso = err == nil
		}
	}
	return nil
}

// setBuffer asks for a large buffer beyond the system's limit, or else up to it.
func setBuffer(fd, force, plain int) {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, sockBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, plain, sockBuffer)
	}
}

func (c *linuxConn) setMark(fd int) error {
	if c.opts.Mark == 0 {
		return nil
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(c.opts.Mark)); err != nil {
		return fmt.Errorf("conn: SO_MARK: %w", err)
	}
	return nil
}

// bind binds to port on every address; a port of 0 becomes the one given by
// the kernel.
func bind(fd int, v6 bool, port *uint16) error {
	var sa unix.Sockaddr = &unix.SockaddrInet4{Port: int(*port)}
	network := "udp4"
	if v6 {
		sa, network = &unix.SockaddrInet6{Port: int(*port)}, "udp6"
	}
	if err := unix.Bind(fd, sa); err != nil {
		if errors.Is(err, unix.EADDRINUSE) {
			err = ErrPortInUse
		}
		if errors.Is(err, unix.EACCES) {
			err = fmt.Errorf("%w: CAP_NET_BIND_SERVICE is needed, or net.ipv4.ip_unprivileged_port_start of at most %d", err, *port)
		}
		return &PortError{Port: *port, Network: network, Err: err}
	}
	got, err := unix.Getsockname(fd)
	if err != nil {
		return err
	}
	switch a := got.(type) {
	case *unix.SockaddrInet4:
		*port = uint16(a.Port)
	case *unix.SockaddrInet6:
		*port = uint16(a.Port)
	}
	return nil
}

func domain(v6 bool) int {
	if v6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

func family(v6 bool) int { return index(v6) }

func index(b bool) int {
	if b {
		return 1
	}
	return 0
}

// SourceFor implements Conn: connecting a UDP socket sends nothing, but makes
// the kernel look up the route and choose the address.
func (c *linuxConn) SourceFor(remote netip.Addr) (netip.Addr, error) {
	remote = remote.Unmap()
	var sa unix.Sockaddr = &unix.SockaddrInet4{Port: PortIKE}
	if remote.Is4() {
		sa.(*unix.SockaddrInet4).Addr = remote.As4()
	} else if remote.Is6() {
		a := &unix.SockaddrInet6{Port: PortIKE, Addr: remote.As16()}
		if z := remote.Zone(); z != "" {
			ifi, err := net.InterfaceByName(z)
			if err != nil {
				return netip.Addr{}, ErrNoRoute
			}
			a.ZoneId = uint32(ifi.Index)
		}
		sa = a
	}
	c.probeMu.Lock()
	defer c.probeMu.Unlock()
	if c.closed.Load() {
		return netip.Addr{}, ErrClosed
	}
	fd := c.probe[family(remote.Is6())]
	if !remote.IsValid() || fd < 0 {
		return netip.Addr{}, ErrNoRoute
	}
	// AF_UNSPEC takes the last connection, and with it the last address, away.
	if err := disconnect(fd); err != nil {
		return netip.Addr{}, err
	}
	if err := unix.Connect(fd, sa); err != nil {
		return netip.Addr{}, fmt.Errorf("%w %s: %w", ErrNoRoute, remote, err)
	}
	got, err := unix.Getsockname(fd)
	if err != nil {
		return netip.Addr{}, err
	}
	switch a := got.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrFrom4(a.Addr), nil
	case *unix.SockaddrInet6:
		return netip.AddrFrom16(a.Addr), nil
	}
	return netip.Addr{}, ErrNoRoute
}

// Readers implements Conn.
func (c *linuxConn) Readers() []Reader { return c.readers }

// Ports implements Conn.
func (c *linuxConn) Ports() Ports { return c.ports }

// Stats implements Conn.
func (c *linuxConn) Stats() Stats {
	s := &c.stats
	return Stats{
		Received: s.received.Load(), ReceivedTrains: s.receivedTrains.Load(),
		Malformed: s.malformed.Load(), Truncated: s.truncated.Load(),
		Sent: s.sent.Load(), SentTrains: s.sentTrains.Load(),
		SendTooBig: s.tooBig.Load(), SendUnreachable: s.unreachable.Load(),
		SendRefused: s.refused.Load(), SendNoBuffer: s.noBuff.Load(), SendOther: s.other.Load(),
		SegmentFallback: s.segmentFallback.Load(), Reports: s.reports.Load(),
	}
}

// Close implements Conn.
func (c *linuxConn) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	_, _ = unix.Write(c.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	c.watcher.Wait()
	c.inUse.Lock()
	defer c.inUse.Unlock()
	c.closeFamily(false)
	c.closeFamily(true)
	return unix.Close(c.wake)
}

func (c *linuxConn) closeFamily(v6 bool) {
	f := family(v6)
	for r := range c.out[f] {
		for d := range c.out[f][r] {
			if s := c.out[f][r][d]; s != nil {
				unix.Close(s.fd)
			}
		}
	}
	for _, s := range c.raw[f] {
		unix.Close(s.fd)
	}
	for _, pair := range slices.Concat(c.encap[f], c.own[f]) {
		for _, s := range pair {
			if s != nil && (s.own || s.worker > 0) {
				unix.Close(s.fd)
			}
		}
	}
	c.probeMu.Lock()
	defer c.probeMu.Unlock()
	if c.probe[f] >= 0 {
		unix.Close(c.probe[f])
		c.probe[f] = -1
	}
}

// await waits until a socket has one of the events, or for so many milliseconds
// (-1: for ever), or until the Conn is closed.
func (c *linuxConn) await(fd int, events int16, timeout int, scratch *[2]unix.PollFd) (ready bool, err error) {
	*scratch = [2]unix.PollFd{{Fd: int32(fd), Events: events}, {Fd: int32(c.wake), Events: unix.POLLIN}}
	if _, err := unix.Poll(scratch[:], timeout); err != nil && err != unix.EINTR {
		return false, fmt.Errorf("conn: poll: %w", err)
	}
	if c.closed.Load() {
		return false, ErrClosed
	}
	return scratch[0].Revents != 0, nil
}

// closedOr makes ErrClosed of what a closed descriptor gives.
func (c *linuxConn) closedOr(err error) error {
	if c.closed.Load() {
		return ErrClosed
	}
	return err
}

// Package conn owns the outside sockets: UDP 500 and 4500 and raw ESP, for
// IPv4 and IPv6, in batches. It knows the exact local address of each datagram
// and sends from it, tells IKE from ESP by the non-ESP marker (RFC 3948 §2.2),
// and carries the outer TOS both ways.
//
// It must not know what is in a datagram beyond its kind: no IKE header, no SPI
// table, no policy.
//
// Start reading at Packet, Conn and Reader; Demux is the marker rule; Listen
// opens the real sockets (udp_linux.go, send_linux.go, icmp_linux.go), and
// Network is the twin in memory for tests and for the rootless demo.
package conn

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// Kind is what a datagram is, by where and with which marker it came.
type Kind uint8

// The kinds of datagrams.
const (
	// IKE is a message with an IKE header in front; the non-ESP marker, where
	// there was one, is gone.
	IKE Kind = iota + 1
	// ESP is an ESP packet from its SPI on (RFC 4303 §2), raw or from UDP.
	ESP
	// Keepalive is a NAT keepalive of one byte (RFC 3948 §2.3). Its Buf is not
	// looked at when sending.
	Keepalive
)

// String is the kind's name for logs.
func (k Kind) String() string {
	switch k {
	case IKE:
		return "IKE"
	case ESP:
		return "ESP"
	case Keepalive:
		return "keepalive"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Packet is one datagram of the outside network.
type Packet struct {
	// Buf is the payload without marker: an IKE message or an ESP packet. From
	// ReadBatch it lies in memory of the Reader, may be changed in place, and
	// is valid until the next ReadBatch of the same Reader. For WriteBatch it is
	// the caller's, read only during the call.
	Buf []byte

	// Segment, if not 0 and less than len(Buf), says that Buf is a train: ESP
	// packets of Segment bytes each, one behind the other, the last one of as many
	// or fewer. WriteBatch takes trains, Take gives them, ReadBatch does not. A train
	// to send has at most MaxSegments() packets and MaxTrain bytes.
	Segment int

	// Local and Remote are the outer addresses; ports are 0 for raw ESP. IPv4
	// addresses are never in the mapped form, and addresses have no zone. When
	// sending, an unspecified or invalid Local.Addr() leaves the source address
	// to the kernel, and Local.Port() is not looked at: Kind and Encap choose
	// the socket.
	Local, Remote netip.AddrPort

	// IfIndex is the interface that a datagram came in by. When sending it is
	// needed for link-local IPv6 addresses only; 0 otherwise.
	IfIndex uint32

	// Kind is IKE, ESP or Keepalive.
	Kind Kind

	// TOS is the outer traffic class: DSCP in the upper six bits, ECN in the
	// lower two.
	TOS uint8

	// Encap: on the port with the non-ESP marker (4500). IKE without Encap goes
	// by port 500, ESP without Encap is raw IP protocol 50.
	Encap bool

	// Worker, when sending ESP in UDP, is the number of the worker that sends: it has
	// a socket of its own on the port. Own has the packet leave from a source port of
	// the worker's own instead, if there are several, at which nothing is received: so
	// network cards and routers on the way see a flow of its own.
	Worker uint8
	Own    bool

	// DF, when sending: don't fragment. On IPv4 it sets the header bit; for both
	// families a datagram too big for the interface is refused (counted in
	// Stats.SendTooBig) instead of fragmented here.
	DF bool
}

// Conn sends and receives outer datagrams. WriteBatch, SourceFor, Ports, Stats
// and Close may be called from any goroutine.
type Conn interface {
	// Readers are the receiving ends. Each wants one goroutine that calls
	// ReadBatch in a loop; the number of readers never changes.
	Readers() []Reader

	// WriteBatch sends packets. One that can't be sent (no route, refused,
	// too big) does not stop the ones behind it: n counts those handed over, err
	// is the last refusal, counted in Stats too; only ErrClosed is lasting.
	// It may block while a socket's send buffer is full, for a bounded time.
	WriteBatch(pkts []Packet) (n int, err error)

	// SourceFor is the local address that a datagram to remote would leave
	// from now, by the routes of the host; ErrNoRoute if there is none.
	SourceFor(remote netip.Addr) (netip.Addr, error)

	// Ports are the UDP ports in use.
	Ports() Ports

	// Stats reads the counters.
	Stats() Stats

	// Close ends everything; waiting calls return ErrClosed. A second Close is
	// harmless.
	Close() error
}

// Reader is one receiving end of a Conn. One goroutine at a time may use it.
type Reader interface {
	// ReadBatch waits until there is at least one datagram, then fills as many
	// elements of pkts as are there. Malformed datagrams are dropped and
	// counted. Any error is lasting; after Close it is ErrClosed. ICMP errors
	// never end it.
	ReadBatch(pkts []Packet) (n int, err error)
}

// Polled is a Reader that one thread can serve together with other things: taking
// from it never waits.
type Polled interface {
	Reader

	// FD is a descriptor that is readable when there is something to take.
	FD() int

	// Take is ReadBatch, but that it returns 0 where that would wait, and that ESP
	// packets which came joined by the kernel are one train (Packet.Segment). It
	// must not run while ReadBatch does, and have ended before Close.
	Take(pkts []Packet) (n int, err error)

	// Drained reports whether the last Take is known to have left nothing.
	Drained() bool

	// Errors reports the ICMP errors that wait at the descriptor (POLLERR).
	Errors()

	// Worker is the number of the worker that the packets are for (Options.Workers).
	Worker() int
}

// WorkerOf tells which of so many workers gets the ESP packets of an SPI (raw ones only if it
// is among the first four). All else is the first one's.
func WorkerOf(spi uint32, workers int) int { return int(spi % uint32(max(workers, 1))) }

// Ports are the two UDP ports.
type Ports struct {
	// IKE is the port without marker (500), NATT the one with it (4500).
	IKE, NATT uint16
}

// The standard ports (RFC 7296 §2, RFC 3948).
const (
	PortIKE  = 500
	PortNATT = 4500
)

// Limits.
const (
	// maxDatagram is the size of the largest datagram in bytes.
	maxDatagram = 65535
	// readSlots is the number of datagrams (or trains of them, with UDP_GRO)
	// that one system call receives; each has maxDatagram bytes.
	readSlots = 32
	// sendSlots is the number of messages in one sending system call.
	sendSlots = 64
	// MaxWorkers bounds Options.Workers.
	MaxWorkers = 64
	// MaxTrain bounds one UDP_SEGMENT train, in bytes; mostSegments and, before Linux 6.10,
	// oldSegments the number of its packets (the kernel's UDP_MAX_SEGMENTS).
	MaxTrain                  = 65507
	mostSegments, oldSegments = 128, 64
	// maxNoSegment is the number of destinations remembered as unfit for
	// UDP_SEGMENT; beyond it the table starts anew.
	maxNoSegment = 1024
	// noSegmentFor is how long such a destination is remembered.
	noSegmentFor = 5 * time.Minute
	// sendWait is how many milliseconds a WriteBatch waits, in all, for room in send
	// buffers, espWait how many if the first that has none is ESP.
	sendWait = 50
	espWait  = 1
	// sockBuffer is the socket buffer asked for, in bytes.
	sockBuffer = 8 << 20
	// maxQuote is the number of payload bytes kept of a quoted datagram.
	maxQuote = 64
	// maxReports is the number of ICMP errors taken from a socket at a time.
	maxReports = 32
	// memoryQueue is the number of datagrams waiting at a host in memory.
	memoryQueue = 4096
)

// Errors of this package.
var (
	// ErrClosed is returned by every call on a Conn that was closed.
	ErrClosed = net.ErrClosed
	// ErrPortInUse says that another program, or a second adit, holds a port;
	// it comes wrapped in a *PortError.
	ErrPortInUse = errors.New("port in use")
	// ErrNoRoute says that the host has no route to an address.
	ErrNoRoute = errors.New("conn: no route to the address")
	// ErrNoRaw is wrapped where CAP_NET_RAW is missing, see Options.NoRaw.
	ErrNoRaw = errors.New("conn: raw ESP needs CAP_NET_RAW")
	// ErrNoSocket says that there is no socket for the address family or for
	// raw ESP.
	ErrNoSocket = errors.New("conn: no socket for this kind of packet")
	// ErrTooBig says that a datagram exceeds 64 KiB, or the interface's MTU with
	// DF set.
	ErrTooBig = errors.New("conn: datagram too big")
	// ErrKind says that a packet to send has no known Kind.
	ErrKind = errors.New("conn: packet without a kind")
	// ErrWorkers says that Options.Workers is out of range.
	ErrWorkers = errors.New("conn: number of workers out of range")
	// ErrPorts says that the two ports are the same.
	ErrPorts = errors.New("conn: the port for IKE and the one for NAT traversal must differ")
)

// PortError is a failure to bind a port, usually ErrPortInUse.
type PortError struct {
	Port    uint16
	Network string // "udp4" or "udp6"
	Err     error
}

// Error names port and cause.
func (e *PortError) Error() string {
	if errors.Is(e.Err, ErrPortInUse) {
		return fmt.Sprintf("conn: %s port %d is in use by another program (a second adit, charon, pluto?)", e.Network, e.Port)
	}
	return fmt.Sprintf("conn: bind %s port %d: %v", e.Network, e.Port, e.Err)
}

// Unwrap gives the cause.
func (e *PortError) Unwrap() error { return e.Err }

// Report is an ICMP error about a datagram of ours. It is a claim of whoever
// sent it: believe it only if Quote starts with a live SPI (ESP) and within the
// limits of the protocol. One error may be reported twice.
type Report struct {
	// Local is the port it left by (address unspecified), Remote where it went.
	Local, Remote netip.AddrPort
	// Offender is who sent the ICMP error; invalid if it arose in this host.
	Offender netip.Addr
	// MTU is the next hop's MTU in bytes for "too big", else 0.
	MTU int
	// Type and Code are those of ICMP or ICMPv6; both 0 if it arose here.
	Type, Code uint8
	// Raw says that the datagram was raw ESP, Encap that it left by the port
	// with the marker.
	Raw, Encap bool
	// Quote is the beginning of the quoted payload (UDP payload or ESP packet),
	// valid during the call only; it may be empty.
	Quote []byte
}

// Options say how Listen opens sockets. The zero value is the usual one.
type Options struct {
	// Ports to bind; 0 means 500 and 4500.
	Ports Ports
	// AnyPort binds free ports instead (Conn.Ports tells which): for tests.
	AnyPort bool
	// Mark is the fwmark of everything sent (SO_MARK), so that a rule can keep
	// it out of the tunnel's routes; 0 for none.
	Mark uint32
	// NoIPv4, NoIPv6 leave out a family; a host without IPv6 does so by itself.
	NoIPv4, NoIPv6 bool
	// TemporaryAddrs has SourceFor prefer temporary IPv6 addresses (RFC 8981) to
	// public ones; without it, it is the other way round.
	TemporaryAddrs bool
	// Workers is how many threads receive ESP, 1 if it is 0, MaxWorkers at most:
	// each has a Reader for each family, which gets the packets of its SPIs (WorkerOf).
	Workers int
	// NoRaw leaves out the raw ESP sockets, which need CAP_NET_RAW (ErrNoRaw): ESP
	// then comes and goes in UDP alone, and sending it raw fails.
	NoRaw bool
	// NoGRO and NoGSO switch the UDP offloads off.
	NoGRO, NoGSO bool
	// OnReport, if set, is called for ICMP errors, from the goroutine that reads
	// or writes. It must not block nor call the Conn.
	OnReport func(Report)
}

func (o *Options) ports() (Ports, error) {
	p := o.Ports
	if o.AnyPort {
		return Ports{}, nil
	}
	if p.IKE == 0 {
		p.IKE = PortIKE
	}
	if p.NATT == 0 {
		p.NATT = PortNATT
	}
	if p.IKE == p.NATT {
		return p, ErrPorts
	}
	return p, nil
}

// Stats are counters of a Conn since it was opened.
type Stats struct {
	// Received datagrams given to readers; ReceivedTrains those system-level
	// datagrams that UDP_GRO had joined.
	Received, ReceivedTrains uint64
	// Malformed: too short for their port, or with a broken outer header.
	Malformed uint64
	// Truncated: datagrams that did not fit, dropped.
	Truncated uint64
	// Sent datagrams; SentTrains system-level messages with UDP_SEGMENT.
	Sent, SentTrains uint64
	// SendTooBig, SendUnreachable, SendRefused, SendNoBuffer, SendOther count
	// datagrams that were not sent, by cause.
	SendTooBig, SendUnreachable, SendRefused, SendNoBuffer, SendOther uint64
	// SegmentFallback counts destinations for which UDP_SEGMENT was given up.
	SegmentFallback uint64
	// Reports are ICMP errors received about our datagrams.
	Reports uint64
	// QueueFull counts datagrams dropped since a reader in memory is too slow.
	QueueFull uint64
}

// markerLen is the length of the non-ESP marker: four zero bytes where ESP has
// its SPI, which is never zero (RFC 3948 §2.2).
const markerLen = 4

// minESP is an ESP header without anything behind it: SPI and sequence number.
const minESP = 8

// Demux tells what a UDP payload is. encap says that it came by the port with
// the non-ESP marker; body is the payload without it. ok is false for what is
// too short to be anything.
func Demux(payload []byte, encap bool) (kind Kind, body []byte, ok bool) {
	if len(payload) == 0 {
		return 0, nil, false
	}
	if !encap {
		return IKE, payload, true
	}
	if len(payload) == 1 && payload[0] == 0xff {
		return Keepalive, payload, true
	}
	if len(payload) < minESP {
		return 0, nil, false
	}
	if payload[0]|payload[1]|payload[2]|payload[3] == 0 {
		return IKE, payload[markerLen:], true
	}
	return ESP, payload, true
}

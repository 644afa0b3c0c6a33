// Package userspace is the data plane without a kernel's help: it holds the SAD
// and the SPD of RFC 4301 and moves packets between packet devices inside and
// the sockets outside.
//
// It owns the processing of RFC 4301 §5: which policy covers a packet, which SA
// protects it, whether what came out of an SA may be inside it, packets waiting
// for an SA, path MTU, fragmentation, MSS clamping, and the counters of
// everything that is dropped. It must not know IKE, configuration, routes or the
// algorithms; the ESP transform itself is package esp.
//
// Start reading at Plane (plane.go); then outbound.go and inbound.go, whose
// functions stand in the order in which a packet meets them.
package userspace

import (
	"errors"
	"net/netip"
	"time"

	"adit/internal/conn"
	"adit/ipsec"
	"adit/tun"
)

// Config is what a Plane works with. Tun, Conn and IKE are required.
type Config struct {
	// Tun is the device of IfID 0; AddDevice adds others.
	Tun tun.Device
	// Conn carries ESP. The Plane is its only reader.
	Conn conn.Conn
	// Workers is the number of threads that move packets, 1 if it is 0. Each serves its
	// queue of each device that has several (tun.Queued), and its readers of the Conn
	// (conn.Options.Workers); what has one queue or one reader is the first one's.
	Workers int
	// IKE takes every datagram that is not ESP (IKE messages and keepalives). It
	// is called from the readers' goroutines, must not block, and the packet's
	// memory is its own during the call only.
	IKE func(*conn.Packet)
	// Clock tells the time; nil is time.Now. It is asked once a batch.
	Clock func() time.Time
	// Tap sees every packet, for a debugging capture; nil costs nothing.
	Tap Tap
	// FragmentAfter lets inner IPv4 packets without DF that are too big for the
	// path leave whole, in fragments of the outer packet; otherwise the inner
	// packet is fragmented (RFC 4301 appendix D).
	FragmentAfter bool
	// Source4 and Source6 are the source of ICMP errors to inner hosts. Where
	// invalid it is the inner destination: Linux refuses own addresses that come
	// in by a device, and the route back exists for that one only.
	Source4, Source6 netip.Addr
}

// Tap sees packets pass: genuine inner packets in clear and ESP packets as on
// the wire. Calls come from several goroutines; the memory is lent for the call.
type Tap interface {
	Inner(dir ipsec.Direction, packet []byte)
	Outer(dir ipsec.Direction, local, remote netip.AddrPort, encap bool, tos uint8, esp []byte)
}

// Limits.
const (
	// limitWaitPackets and limitWaitBytes bound what waits for one policy's SA,
	// limitWaitTotal the packets of all policies, limitWaitAge the time.
	limitWaitPackets = 64
	limitWaitBytes   = 256 << 10
	limitWaitTotal   = 4096
	limitWaitAge     = 30 * time.Second
	// acquireAgain is when Acquire is repeated for a policy still without SA.
	acquireAgain = 5 * time.Second
	// limitFlows is the number of flows that a worker remembers (a power of two).
	limitFlows = 8192
	// limitFragments is the number of datagrams whose first fragment a worker
	// remembers (a power of two), limitReassembly those that it puts together for
	// transport mode, of limitPieces fragments each, for fragmentAge.
	limitFragments  = 512
	limitReassembly = 16
	limitPieces     = 128
	fragmentAge     = 15 * time.Second
	// limitExtensions bounds the chain of IPv6 extension headers looked through.
	limitExtensions = 8
	// limitICMP, limitOrphans and limitInforms are events a second, each worker.
	limitICMP    = 100
	limitOrphans = 10
	limitInforms = 50
	// limitPrefixes is how many prefixes of a policy are indexed; one with more
	// is compared with every packet that no cached flow covers.
	limitPrefixes = 64
	// mappingAgain is when an unanswered MappingChange is told again.
	mappingAgain = 2 * time.Second
	// pmtuAge is how long a lowered path MTU is believed (RFC 1191 §6.3).
	pmtuAge = 10 * time.Minute
	// hereAgain is when the same report of this host's own kernel is looked at again.
	hereAgain = 100 * time.Millisecond
	// minPMTU4 and minPMTU6: no report lowers the path MTU below them.
	minPMTU4, minPMTU6 = 576, 1280
	// batchSize is the number of packets moved at a time where they come one by one.
	batchSize = 128
	// limitAgain is how often packets are taken up again whose SA was deleted.
	limitAgain = 3
)

// Errors of Plane's methods.
var (
	ErrClosed   = errors.New("userspace: data plane closed")
	ErrRefTaken = errors.New("userspace: SA reference in use")
	ErrSPITaken = errors.New("userspace: inbound SPI in use")
	ErrNoSA     = errors.New("userspace: no such SA")
	ErrNoPolicy = errors.New("userspace: no such policy")
	ErrPolicyID = errors.New("userspace: policy without ID")
	ErrSelector = errors.New("userspace: selector unresolved or invalid")
	ErrNoDevice = errors.New("userspace: no device of this interface ID")
	ErrIfID     = errors.New("userspace: interface ID in use")
)

// Package tun owns packet devices: places where whole IP packets (no link
// header) are read from and written to the inside of the gateway.
//
// It must not know what a packet is for: no policy, no keys, no routes, no
// addresses (internal/hostnet gives the interface its addresses and routes).
//
// Start reading at Device, the interface that the data plane works against;
// then Linux (a kernel TUN with segmentation offload), Super (how a
// superpacket of the kernel becomes MTU-sized packets), coalescer (the way
// back) and Memory (the twin for tests). The subpackage netstack is a device
// with a TCP/IP host of our own behind it, for use without root.
package tun

import (
	"errors"
	"os"
	"strings"
)

// Device is a packet device. One goroutine at a time may call Read; Write may
// be called from several, and at the same time as Read.
type Device interface {
	// Read waits until there is at least one packet, then takes as many as are
	// there and fit into bufs. Packet i lies at bufs[i][offset:offset+sizes[i]];
	// what is before and behind is the caller's headroom and tailroom, untouched.
	// The number of packets is n. After Close the error is ErrClosed; any other
	// error is lasting too.
	Read(bufs [][]byte, sizes []int, offset int) (n int, err error)

	// Write hands whole IP packets at bufs[i][offset:] to the device. A packet
	// that the device refuses does not stop the ones behind it: n counts those
	// taken, err is the last refusal, and only ErrClosed is lasting. The headers
	// of the packets may be changed in place (coalescing); the buffers are the
	// caller's again on return.
	Write(bufs [][]byte, offset int) (n int, err error)

	// Name is the interface's name, for logs and for routes.
	Name() string

	// MTU is the largest packet, in bytes, that Read will deliver.
	MTU() int

	// SetMTU changes the MTU. Values outside [MinMTU, MaxPacket] are ErrMTU.
	SetMTU(mtu int) error

	// BatchSize is the number of buffers worth giving to one Read or Write.
	BatchSize() int

	// Close ends the device; a Read that waits returns ErrClosed. A second
	// Close is harmless.
	Close() error
}

// Polled is a Device that one thread can serve together with other things: taking
// from it never waits.
type Polled interface {
	Device

	// FD is a descriptor that is readable when there is something to take.
	FD() int

	// Take reads one packet or superpacket into mem, which has TakeSize bytes, and
	// describes it in s; false: there is nothing now. An error is lasting. It must
	// not run while Read does, and have ended before Close.
	Take(s *Super, mem []byte) (bool, error)
}

// Rested is a Polled that wants to know when its reader sleeps.
type Rested interface {
	Polled

	// Rest is called, as Take is, before the reader waits for the descriptors; false: there
	// is something to take.
	Rest() bool

	// RestFD is a second descriptor to be waited for, or -1.
	RestFD() int
}

// Queued is a Device with several queues, one for each thread that serves it. What the
// kernel sends into the device is spread over them by flows, and a flow whose answers
// are written to a queue comes by that queue from then on.
type Queued interface {
	Device

	// Queues are all of them, the device itself first, which closes them with itself.
	Queues() []Polled
}

// Counted is a Device that counts.
type Counted interface {
	Device

	// Stats reads the counters.
	Stats() Stats
}

// Limits of the devices in this package.
const (
	// TakeSize is the memory in bytes that one Take wants.
	TakeSize = vnetHdrLen + MaxPacket
	// MaxPacket is the size in bytes of the largest IP packet.
	MaxPacket = 65535
	// MinMTU is the smallest MTU accepted: 68, that of IPv4 (RFC 791). IPv6
	// needs 1280 (RFC 8200 §5): below it the kernel takes IPv6 off the device.
	MinMTU = 68
	// maxBatch is the number of packets that one Read or Write works best with:
	// two full TSO superpackets at an MTU of 1400.
	maxBatch = 128
	// maxHeader is the size in bytes of the largest header of what is joined.
	maxHeader = ipv6Len + 60
	// RingSize is the memory in bytes of a device's ring: 3.6 ms of packets of 1300 bytes
	// at 400,000 a second.
	RingSize = 1 << 21
	// maxFailed is how many reads in a row may fail before a device is given up.
	maxFailed = 1000
	// memoryQueue is the number of packets that wait on one side of a Pipe.
	memoryQueue = 1024
)

// Errors of this package.
var (
	// ErrClosed is returned by every call on a device that was closed.
	ErrClosed = os.ErrClosed
	// ErrExists says that an interface of the wished name is there already and
	// isn't ours to take.
	ErrExists = errors.New("tun: an interface of this name exists already")
	// ErrName says that a name can't be one of a network interface.
	ErrName = errors.New("tun: not a usable interface name")
	// ErrMTU says that an MTU lies outside [MinMTU, MaxPacket].
	ErrMTU = errors.New("tun: MTU out of range")
	// ErrNotIP says that a buffer given to Write holds no IPv4 or IPv6 packet.
	ErrNotIP = errors.New("tun: not an IP packet")
	// ErrFull says that packets were dropped since the receiving side of a
	// device in memory is too slow.
	ErrFull = errors.New("tun: queue full")
	// ErrTooShort says that a buffer given to Read is too small for the packet,
	// which was dropped and counted.
	ErrTooShort = errors.New("tun: buffer too small for the packet")
)

// Options say how a Linux TUN device is made. The zero value is the usual one.
type Options struct {
	// MTU in bytes; 0 leaves the kernel's default of 1500.
	MTU int
	// MultiQueue makes a device to which OpenQueue can add further queues, Queues one
	// that has so many from the beginning (0 and 1: an ordinary one).
	MultiQueue bool
	Queues     int
	// Ring is for a device that packets are forwarded into: single ones come past its
	// queue (package ring), if the kernel can do that and there is one queue. It costs
	// RingSize bytes of memory. Linux.RingError tells why it can't be.
	Ring bool
	// NoOffload does without superpackets at all (no virtio header): one packet
	// a system call. For kernels or tests that want it so.
	NoOffload bool
	// These switch single offloads off: in Read TCP superpackets of each family, those
	// with CWR set, UDP superpackets of each family; in Write superpackets.
	NoTSO4, NoTSO6, NoECN, NoUSO4, NoUSO6, NoCoalesce bool
}

// Offload says which offloads a device has after probing.
type Offload struct {
	// Header: the virtio header is there at all.
	Header bool
	// TSO4, TSO6, USO4, USO6: Read gets TCP and UDP superpackets of IPv4 and IPv6 and
	// splits them. ECN: those of TCP, too, whose first segment has CWR set.
	TSO4, TSO6, ECN, USO4, USO6 bool
	// Coalesce and CoalesceUDP: Write joins TCP segments and UDP datagrams.
	Coalesce, CoalesceUDP bool
}

// Missing names what a device could have and has not, "" if nothing is missing.
func (o Offload) Missing() string {
	var list []string
	for _, m := range []struct {
		there bool
		name  string
	}{{o.Header, "virtio header"}, {o.TSO4, "TSO4"}, {o.TSO6, "TSO6"}, {o.ECN, "TSO with ECN"},
		{o.USO4, "USO4"}, {o.USO6, "USO6"}, {o.Coalesce, "TCP coalescing"}, {o.CoalesceUDP, "UDP coalescing"}} {
		if !m.there {
			list = append(list, m.name)
		}
	}
	return strings.Join(list, ", ")
}

// Stats are counters of a device since it was made.
type Stats struct {
	// ReadPackets are packets given to the caller, ReadSuper the superpackets
	// of the kernel among their sources.
	ReadPackets, ReadSuper uint64
	// ReadMalformed are superpackets that contradict their header, ReadTooShort
	// packets dropped since the caller's buffer was too small.
	ReadMalformed, ReadTooShort uint64
	// WritePackets are packets taken, WriteSuper the superpackets made of them.
	WritePackets, WriteSuper uint64
	// WriteRefused are packets that the kernel did not take, WriteApart the
	// superpackets that it did not take as such, but were written one by one.
	WriteRefused, WriteApart uint64
	// ReadFailed are reads that failed, for a passing reason but the last.
	ReadFailed uint64
	// ReadRing are those of ReadPackets that came by the ring, RingFull the packets that
	// were lost since it was full, modulo 2^32.
	ReadRing, RingFull uint64
}

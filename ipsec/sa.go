package ipsec

import (
	"fmt"
	"net/netip"
	"time"

	"adit/suite"
)

// SPI is an ESP or AH security parameter index (RFC 4303 §2.1), in host order.
// Values below 256 are reserved and never used.
type SPI uint32

// MinSPI is the lowest SPI that may be assigned (RFC 4303 §2.1).
const MinSPI SPI = 256

// String prints the SPI as strongSwan does: eight hexadecimal digits.
func (s SPI) String() string { return fmt.Sprintf("%08x", uint32(s)) }

// Mode is the encapsulation mode of a Child SA (RFC 4301 §4.1).
type Mode uint8

// The modes. BEET is negotiated by notify but not offered by adit yet.
const (
	ModeTunnel Mode = iota
	ModeTransport
	ModeBEET
)

// String prints the mode as VICI does (TUNNEL, TRANSPORT, BEET).
func (m Mode) String() string {
	switch m {
	case ModeTunnel:
		return "TUNNEL"
	case ModeTransport:
		return "TRANSPORT"
	case ModeBEET:
		return "BEET"
	}
	return "UNKNOWN"
}

// Direction tells inbound from outbound.
type Direction uint8

// The directions, seen from this gateway.
const (
	In Direction = iota
	Out
)

// String prints the direction in lower case.
func (d Direction) String() string {
	if d == In {
		return "in"
	}
	return "out"
}

// SARef names one unidirectional SA inside this process. Outbound SPIs are
// chosen by peers and may repeat between them, so SAs are named by the Child SA
// that they belong to. Child numbers are never reused while the process lives;
// 0 is no SA.
type SARef struct {
	Child uint32
	Dir   Direction
}

// IsZero reports whether the reference names nothing.
func (r SARef) IsZero() bool { return r.Child == 0 }

// DSCPCopy says which way the DSCP field is copied between the inner and the
// outer header (RFC 4301 §5.1.2).
type DSCPCopy uint8

// Values of `copy_dscp`; out is strongSwan's default.
const (
	DSCPOut DSCPCopy = iota
	DSCPIn
	DSCPBoth
	DSCPNone
)

// DFMode says what happens to the outer DF bit of IPv4 (RFC 4301 §8.1).
type DFMode uint8

// Values: copy the inner bit (default, `copy_df = yes`), clear it (`copy_df = no`), or set it.
const (
	DFCopy DFMode = iota
	DFClear
	DFSet
)

// SAParams is all that a data plane must know of one unidirectional SA. The
// data plane takes over EncKey and IntegKey and zeroes them once its ciphers
// are made; the giver forgets them.
type SAParams struct {
	Ref   SARef
	SPI   SPI
	Name  string // name of the Child SA's configuration, for logs and counters
	ReqID uint32
	IfID  uint32 // interface the SA's packets use; 0: the default device

	// Outer endpoints. The ports are the UDP ports of the IKE SA; they are used
	// when Encap is set, and for an inbound SA to notice a moved NAT mapping.
	Local, Remote netip.AddrPort
	// Encap sends ESP in UDP (RFC 3948). Inbound SAs accept both forms whatever
	// it says (RFC 7296 §2.23).
	Encap bool
	// TrackNAT lets a data plane report MappingChange for authenticated packets
	// from a new address: only where a NAT was found before the peer (RFC 7296 §2.23).
	TrackNAT bool

	// Resource binds the SA to one resource of the data plane (RFC 9611), such as a
	// worker: n is number n−1. 0 is the fallback that serves all. OwnPort sends ESP in UDP
	// from a source port of the resource's own.
	Resource uint16
	OwnPort  bool

	Mode             Mode
	Encr, Integ      suite.Transform
	EncKey, IntegKey suite.Key
	ESN              bool
	ReplayWindow     uint32 // packets; 0 switches replay protection off

	// LocalTS and RemoteTS are the negotiated selectors, for the check of every
	// inner packet (RFC 4301 §5.2 step 4). The data plane keeps the slices: nobody
	// changes them.
	LocalTS, RemoteTS []Selector

	Life Lifetime

	// TFC pads every packet to this many bytes (RFC 4303 §2.7), 0: none,
	// TFCToMTU: to the path MTU. Never used where the peer sent ESP_TFC_PADDING_NOT_SUPPORTED.
	TFC      int
	DF       DFMode
	CopyECN  bool
	CopyDSCP DSCPCopy
	MTU      int  // of the path between the gateways, bytes; 0: unknown
	MSSClamp bool // rewrite the MSS option of inner TCP SYNs
}

// TFCToMTU is SAParams.TFC for padding to the path MTU (`tfc_padding = mtu`).
const TFCToMTU = -1

// Lifetime bounds an SA by its use; 0 is no bound. Crossing a soft bound emits
// Expire with Hard unset, once; crossing a hard bound stops the SA and emits it
// with Hard set. Bounds of time are the engine's timers.
type Lifetime struct {
	SoftBytes, HardBytes     uint64
	SoftPackets, HardPackets uint64
}

// SAStats is what a data plane counts of one SA.
type SAStats struct {
	Bytes, Packets uint64
	// LastUse is when the last packet passed (inbound: was authenticated); zero if none did.
	LastUse time.Time
	// MTU is the largest inner packet that fits the path, in bytes (outbound; 0: unknown).
	MTU int
	// Seq is the last sequence number sent, or the highest received.
	Seq uint64
	// Drops of this SA by reason.
	Replayed, AuthFailed, SelectorMismatch, Malformed uint64
}

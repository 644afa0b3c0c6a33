// Package esp is the transform of RFC 4303: it turns IP packets into ESP
// packets and back, in place, one SA and one direction at a time.
//
// It owns sequence numbers and their extension to 64 bits, the anti-replay
// window, padding, traffic flow confidentiality, the header fields that tunnel
// and transport mode carry over (RFC 4301 §5.1.2, RFC 6040), and the byte and
// packet counts of an SA. It must not know policies, selectors, sockets,
// devices, clocks or how keys came about; it does no I/O, allocates nothing a
// packet and takes no lock.
//
// Start reading at SA and Packet (sa.go), then Seal (seal.go) and Open
// (open.go); replay.go is the window and the guess of the high sequence bits.
package esp

import "errors"

// Limits of this package.
const (
	// MaxReplayWindow is the largest anti-replay window in packets.
	MaxReplayWindow = 1 << 20
	// SealHeadroom is the number of bytes that Seal needs in front of a packet.
	SealHeadroom = headerLen + maxIVLen
	// SealTailroom is the number of bytes that Seal needs behind a packet,
	// beside the padding for traffic flow confidentiality.
	SealTailroom = maxAlign + trailerLen + maxICVLen
	// OpenHeadroom is the number of bytes that Open needs in front of an ESP
	// packet of a transport mode SA to rebuild the IP header; tunnel mode needs none.
	OpenHeadroom = ipv6Len - headerLen

	headerLen  = 8 // SPI and sequence number (RFC 4303 §2)
	trailerLen = 2 // pad length and next header
	maxIVLen   = 16
	maxICVLen  = 32
	maxAlign   = 16

	// Without ESN the last packet has number 2^32-1; a new SA is asked for
	// 2^28 packets before (18 s at 14.88 Mpps). With ESN the counter stops so
	// far from its end that no race can wrap it.
	maxSeq      = 1<<32 - 1
	softMaxSeq  = 1<<32 - 1<<28
	maxESN      = 1<<64 - 1<<32
	softMaxESN  = 1<<64 - 1<<48
	guessWindow = 4096 // for the high bits when replay protection is off
)

// Reasons for which a packet is not sealed or not opened. They are compared by
// identity on the drop path and counted by name.
var (
	ErrDirection  = errors.New("esp: SA is of the other direction")
	ErrNoRoom     = errors.New("esp: no room around the packet")
	ErrExhausted  = errors.New("esp: sequence numbers used up")
	ErrExpired    = errors.New("esp: SA is past its hard lifetime")
	ErrFragment   = errors.New("esp: transport mode cannot carry a fragment")
	ErrExtension  = errors.New("esp: IPv6 extension header that transport mode cannot carry")
	ErrTooShort   = errors.New("esp: packet too short")
	ErrAlign      = errors.New("esp: ciphertext is not a multiple of the block size")
	ErrSPI        = errors.New("esp: SPI of another SA")
	ErrReplay     = errors.New("esp: sequence number replayed or behind the window")
	ErrAuth       = errors.New("esp: integrity check failed")
	ErrPadding    = errors.New("esp: bad padding")
	ErrNextHeader = errors.New("esp: next header does not fit the mode")
	ErrInner      = errors.New("esp: malformed inner header")
	ErrDummy      = errors.New("esp: dummy packet")
	ErrECN        = errors.New("esp: congestion mark on a packet whose sender knows no ECN")
)

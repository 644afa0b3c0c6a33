package wire

// Limits on one message. What exceeds them is refused with ErrTooMany or
// ErrLength, whatever the peer's authority.
const (
	// MaxMessageLen is the largest message, header included, in bytes. It is
	// what a TCP-encapsulated message can carry (RFC 9329 section 3) and more
	// than a UDP datagram can; it bounds a reassembled message's plaintext too.
	MaxMessageLen = 1<<16 - 1

	// MaxPayloads bounds the payloads of one chain. Each chain of a message,
	// the clear one and the protected one, has this limit for itself.
	MaxPayloads = 64

	// MaxProposals bounds the proposals of one SA payload.
	MaxProposals = 64

	// MaxTransforms bounds the transforms of one proposal.
	MaxTransforms = 128

	// MaxTransformAttributes bounds the attributes of one transform.
	MaxTransformAttributes = 16

	// MaxSelectors bounds the traffic selectors of one TS payload; it is also
	// what the format's count octet can say.
	MaxSelectors = 255

	// MaxAttributes bounds the attributes of one Configuration payload.
	MaxAttributes = 256

	// MaxDeleteSPIs bounds the SPIs of one Delete payload.
	MaxDeleteSPIs = 4096

	// MinNonceLen and MaxNonceLen bound the data of a Nonce payload
	// (RFC 7296 section 3.9).
	MinNonceLen = 16
	MaxNonceLen = 256
)

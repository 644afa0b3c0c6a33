package eap

// What an unauthenticated stranger may make a session do.
const (
	// maxRounds is how many packets a session answers, whatever they are: it ends
	// endless Identity, Notification and Nak exchanges.
	maxRounds = 64
	// maxTunnelRounds stands in its place once a method on TLS was chosen, whose
	// messages come in fragments: 64 KiB in both directions and then some.
	maxTunnelRounds = 192
	// maxNaks is how many methods that we don't want a server may offer.
	maxNaks = 8
	// maxIdentity is the length of an identity. RFC 7542 §2.2 wants 253 bytes; a
	// distinguished name of a certificate can be longer.
	maxIdentity = 1024
	// maxPassword is the length of a password that we look at (GTC, PAP).
	maxPassword = 512
	// maxNameMSCHAPv2 is the Name field of MSCHAPv2 (RFC 2759 §4: up to 256).
	maxNameMSCHAPv2 = 256
	// maxMessageTLS is the size of one reassembled TLS message.
	maxMessageTLS = 64 << 10
	// maxAVPs is the number of AVPs in one TTLS message.
	maxAVPs = 64
	// maxInnerPacket is the size of an EAP packet inside TTLS. No inner method has
	// fragments.
	maxInnerPacket = 4096

	// Sizes of the EAP packets that carry fragments of TLS messages.
	defaultFragment = 1024
	minFragment     = 100
	maxFragment     = 16 << 10
)

package radius

import "time"

// The bounds of what peers and servers can make us hold or do.
const (
	// MaxPacket is the length of the longest packet (RFC 2865 §3).
	MaxPacket = 4096
	// MaxAttributes is the number of attributes a packet may have.
	MaxAttributes = 512
	// MaxValue is the length of the longest attribute value (RFC 2865 §5).
	MaxValue = 253
	// MaxEAP is the length of the longest EAP packet that a Relay takes from a peer.
	// With the other attributes of a request it stays below MaxPacket.
	MaxEAP = 3000
	// MaxRounds is the number of requests a Relay sends in one conversation. EAP-TLS
	// with certificate chains of 64 KiB each way, cut into 1000 octets, stays below.
	MaxRounds = 200
	// MaxServers is the number of servers that a Client takes.
	MaxServers = 64
	// MaxSockets is the upper bound of ServerConfig.Sockets.
	MaxSockets = 256
	// maxPassword is the length of the longest User-Password (RFC 2865 §5.2).
	maxPassword = 128
	// maxTries and maxTimeout bound a server's retransmission schedule.
	maxTries   = 32
	maxTimeout = 5 * time.Minute
	// socketLife is how long a socket takes new requests: then another one, with
	// another port and a fresh look-up of the server's name, takes its place.
	socketLife = 10 * time.Minute
	// refusedTime is how long a server counts as dead after an ICMP error. It is
	// short: such an error proves nothing.
	refusedTime = 10 * time.Second
	// lookupTimeout bounds the look-up of a server's name.
	lookupTimeout = 5 * time.Second
	// lookupPause is how long the error of opening a socket is repeated to others.
	lookupPause = time.Second
)

// Defaults of ServerConfig and Config; the retransmission is that of strongSwan's
// eap-radius, the sockets are not.
const (
	DefaultAuthPort = 1812
	DefaultTimeout  = 2 * time.Second
	DefaultBase     = 1.4
	DefaultTries    = 4
	DefaultSockets  = 16
	DefaultDeadTime = time.Minute
)

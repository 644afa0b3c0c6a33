// Package eap is the Extensible Authentication Protocol (RFC 3748) as IKEv2
// carries it (RFC 7296 §2.16): both the server, which decides, and the peer, which
// proves who it is. Its methods are Identity, Notification, Nak, MD5-Challenge, GTC,
// MSCHAPv2, TLS (RFC 5216, RFC 9190) and TTLS (RFC 5281, RFC 9427).
//
// It owns the formats of these packets, the order in which they may come and the
// keys that come out. It must not know IKE, RADIUS, addresses, connections or where
// passwords and certificates are kept: a function of the caller finds a password, and
// another judges a chain of certificates. There is no retransmission: the layer
// below delivers each packet once and in order. A repeated request is answered with
// the same bytes nevertheless.
//
// A session is a machine: Next takes the packet that came and returns the one to
// send. It fails closed. Whatever is malformed, out of order, too long or of
// another method ends the session; nothing is ignored and waited for. The peer
// believes a Success only after its method is content with the server, the server
// sends one only after its method is content with the peer.
//
// Only files whose name begins with "tls" hold a goroutine, because crypto/tls
// blocks. It ends with the session: Close is never optional.
//
// Start reading at Session (session.go), then server.go and peer.go; every method
// has files of its own. limits.go names what a stranger may cost us.
package eap

// Package ikev1 is IKE version 1: ISAKMP in the IPsec DOI (RFC 2407, RFC 2408,
// RFC 2409) with dead peer detection (RFC 3706) and NAT traversal (RFC 3947 and the
// drafts before it). One sa is one ISAKMP SA of phase 1 with the quick modes and
// informational exchanges under it.
//
// It owns the state of ISAKMP SAs and their IPsec SAs, and writes effects through
// ike.Env. It must not know sockets, clocks, credentials or data planes, nor the
// exchanges of IKEv2: leaving the package out of ike.New takes IKEv1 away.
//
// Start reading at rules.go, which message is taken where; then main.go (phase 1),
// quick.go (phase 2), informational.go, and sa.go for the timers. What protects
// messages is in keys.go and protect.go.
//
// Words are those of RFC 2409: CKY-I and CKY-R are the cookies, which the common
// parts call SPIi and SPIr; SKEYID and its children the keys.
package ikev1

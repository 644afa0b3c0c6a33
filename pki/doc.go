// Package pki decides which certificates and keys to believe.
//
// It owns certificates (RFC 5280) and their keys, the files they come in, trust
// anchors, chain validation and revocation by CRL (RFC 5280 §5) and OCSP (RFC 6960).
// It must not know IKE, identities of peers, connections or configuration: whoever
// asks brings the certificates of the peer, the constraints and the time, and binds
// the identity to the certificate itself.
//
// crypto/x509 builds and checks chains. Where it can't (Ed448, RFC 8410; keys marked
// for RSASSA-PSS only, RFC 4055) a small path of our own does the same checks and
// refuses what it doesn't evaluate: see ownpath.go.
//
// Start reading at [Store.Verify] in verify.go: chain, then our own checks of every
// element, then revocation of a chain that is already trusted. Revocation fetches go
// through a [Fetcher]; [HTTPFetcher] is the one for production. Every bound is in
// limits.go.
package pki

// Package sig signs and verifies IKEv2's AUTH payloads with public keys.
//
// It owns the signature schemes (RSA PKCS#1 v1.5 and PSS, ECDSA, Ed25519, Ed448),
// the authentication methods that carry them (RFC 7296 §3.8, RFC 4754, RFC 7427,
// RFC 8420), the coding of RFC 7427's AUTH data, the choice of a scheme for a key
// and a peer, the checks of keys, and the constraints on both that stand in an
// `auth` option (rsa-2048-sha256, ike:rsa/pss-sha256, …).
//
// It must not know messages, SAs, identities, certificates' contents or trust:
// keys come as crypto.PublicKey and crypto.Signer, the signed octets as bytes, and
// whether a key belongs to somebody was decided before. It does no I/O but reading
// crypto/rand, starts no goroutine and takes no lock.
//
// Start reading at Scheme, then Choose, Sign and Verify, then Constraints.
package sig

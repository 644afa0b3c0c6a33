// Package wire is the codec of ISAKMP and IKE messages: the 28-byte header,
// the chain of payloads behind it, and the body of every IKEv2 payload
// (RFC 7296 section 3, the fragments of RFC 7383).
//
// It owns the byte formats, the numbers that IANA gives to them and the limits
// on what one message may hold. It must not know keys, ciphers, policy, state,
// addresses of peers or which payload belongs into which exchange: a message
// that parses is well formed, not acceptable.
//
// Parsing copies nothing. Every []byte in a parsed value is a sub-slice of the
// input, with its capacity cut to its length; the values are good for as long
// as the input is neither reused nor changed. No allocation is sized by a
// length or count field before the bytes it speaks of have been seen.
//
// Parsing and building mirror each other: what parses without reserved bits
// set is rebuilt to the same bytes.
//
// Start reading at ParseMessage (message.go), then payload.go for the chain;
// each group of payload bodies has a file of its own. The bodies of IKEv1 share
// the header, the chain and the number types, and are otherwise separate.
package wire

// Package suite holds the algorithms of IKEv2 and ESP: what they are called,
// how two lists of them are matched, and the code that runs them.
//
// It owns transforms and proposals (RFC 7296 §3.3), strongSwan's proposal
// keywords, the choice of one suite from two lists, pseudo-random functions and
// prf+, packet ciphers for ESP and the IKE Encrypted payload, key exchange, and
// the Key type in which all secrets travel.
//
// It must not know messages, SAs, sockets, clocks or configuration files. It
// does no I/O but reading crypto/rand, starts no goroutine and takes no lock.
//
// Start reading at Transform and Proposal (what is negotiated), then Select
// (how), then Cipher, PRF and KeyExchange (what the choice then does).
package suite

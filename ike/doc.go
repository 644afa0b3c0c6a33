// Package ike is the engine of the IKE key managers and the contract between
// them and the program around: Config, Peer and Command go in, Effects and
// Events come out.
//
// It owns what the versions of IKE share: the table of IKE SAs by SPI, the
// defence against floods of first messages (cookies, half-open limits), timers,
// jobs, the life of a connection from its start action over retries to its
// close action, the naming of Child SAs, request IDs and policies, and the rule
// which of several Child SAs a policy uses.
//
// It must not know the exchanges of any version (packages ikev2 and, later,
// ikev1 do and are given to New), nor sockets, clocks, files, goroutines or logs:
// the time comes in with each call, randomness from crypto/rand, and everything
// that is to happen is an Effect for the caller.
//
// Start with Engine (engine.go) and Effect (contract.go), then Peer (peer.go),
// connection.go for the life of a connection, and Env (env.go) for what a
// version sees.
package ike

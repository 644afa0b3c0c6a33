// Package gateway is the only place where effects happen: it drives the IKE
// engine (datagrams, timers, commands, results), applies the engine's effects in
// order to the data plane, the network and the host, keeps the loaded
// connections and secrets, and publishes events.
//
// It knows no wire format, no VICI and no concrete data plane or socket: those
// are handed in (Options). Start with Gateway in gateway.go, then shard.go (the
// loop), effects.go (what an effect does) and connections.go (loading,
// reloading, traps, the guard).
package gateway

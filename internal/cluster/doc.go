// Package cluster keeps what several gateways must agree about: which address is
// leased to whom. It owns NATS: a JetStream server embedded in the process, without a
// listener and with synchronous writes, or the connection to a cluster of servers.
//
// It must not know what an address is good for: the gateway decides what to take, and
// this package answers whether it could be taken. Start reading at [Store.Take].
package cluster

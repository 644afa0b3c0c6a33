// Package sim runs whole IKE engines against each other in a world without
// time, threads or sockets: virtual hosts, each an ike.Engine with a model of
// what the gateway does for it, joined by a network that loses, doubles,
// reorders, delays and damages datagrams, with NATs that change their mind.
//
// It owns the clock, the queue of events, the network, the model of the data
// plane (which seals and opens real ESP with package esp), and the invariants
// that are checked after every step. It must not know how an engine works
// inside: it drives the contract of package ike and reads what the network
// carries with the keys that the engines export.
//
// Everything that happens follows from a script and a seed. The scripts in
// testdata are documentation as well: commands and, behind ----, what they led
// to. The swarm test makes scripts from seed numbers and prints the script of a
// seed that fails.
//
// Start reading at World (world.go), then Host (host.go), the commands of a
// script (script.go) and the invariants (invariant.go, tap.go, plane.go).
package sim

// Package client is the user's end of remote access: a tunnel to a gateway that gives
// addresses, as a part of a program, or for the whole host.
//
// Connect makes a tunnel that ends inside the process, in a TCP/IP stack of its own: it
// needs no privileges, changes nothing on the host, and only what the program dials
// through it (Tunnel.DialContext) or listens for in it (Tunnel.Listen) goes by it.
// RunHost is for root: a device, routes, name servers and a kill switch, all undone at
// the end.
//
// Both make the connection themselves out of Options: EAP with a name and a password
// (EAP-MSCHAPv2), EAP-TLS, or a certificate; the gateway always proves itself by a
// certificate. Everything else is the gateway's own machinery (internal/gateway), with
// ESP always in UDP, from ports that the kernel gives.
//
// The package holds no secrets longer than it must and logs none. Start reading at
// Options, then session.go (the life of a connection), tunnel.go (inside the process) and
// host.go, policy.go (as root).
package client

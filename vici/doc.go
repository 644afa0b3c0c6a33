// Package vici speaks strongSwan's Versatile IKE Control Interface: packets over a stream,
// whose messages are the configuration tree of package conf.
//
// It owns the framing and the packet types ([Packet]), the encoding of messages ([Marshal],
// [Unmarshal]), a server that answers commands and spreads events ([Server]), the sockets it
// listens on ([Listen]) and a client ([Client]).
//
// It does not know any command, event or option; internal/control gives them their meaning.
//
// A connection carries commands one at a time, answered in order, and between them events that
// the client registered for. A client that does not read loses published events and is cut off
// after a while; it never holds up whoever publishes.
//
// Start reading at packet.go and message.go, then server.go and session.go.
package vici

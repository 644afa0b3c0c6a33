// Package control gives VICI commands and events their meaning on a gateway:
// the commands that `swanctl` and adit's own verbs send, with the keys, value
// formats and error texts of strongSwan's vici plugin, because tools parse those.
//
// It knows messages (conf trees) and the gateway, no bytes and no sockets; those
// are package vici's. Start with Register in control.go; list.go makes the
// listings, commands.go the actions.
package control

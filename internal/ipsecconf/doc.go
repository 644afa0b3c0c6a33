// Package ipsecconf turns ipsec.conf and ipsec.secrets, of strongSwan's starter and
// of Libreswan, into a swanctl.conf.
//
// It owns the grammar of the two files ([Parse]), what their keywords mean in each
// dialect ([Keywords]), and the text that comes out ([Import]): comments stay at
// their places, and every line that has no counterpart, or another meaning, is
// marked where it stood. It knows nothing of what adit supports: each option that
// it writes is shown to internal/config first, and what that refuses is written as a
// comment with the reason.
//
// It opens files only through [conf.Files], asks the host nothing (which addresses
// are its own is told to it), and writes nothing: the caller gets the texts, and a
// list of the files to copy.
//
// Start with import.go, then parse.go; conn.go translates a connection.
package ipsecconf

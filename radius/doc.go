// Package radius speaks RADIUS as a network access server does: it asks servers
// whether a peer may enter, and carries EAP conversations to them.
//
// It owns the packet codec ([Packet], [Parse]), the authenticators and hidden
// attributes ([OpenResponse], [HidePassword]), a client for several servers with
// many requests in flight ([Client]) and the relay of one EAP conversation
// ([Relay]). Both the classic attributes and EAP are covered: RFC 2865, 2869, 3579,
// 2548 for the keys; what it does not know (RFC 6929 and vendors' attributes) it
// carries as it is.
//
// It must not know IKE, configuration files, or who logs what: counters are
// snapshots ([Client.Stats]), refusals are errors with a name.
//
// RADIUS over UDP rests on MD5. Against forgeries that MD5 allows (CVE-2024-3596,
// "Blast-RADIUS") every Access-Request carries a Message-Authenticator as its first
// attribute, and a response without a right one does not exist for us: it is counted,
// and waiting goes on.
//
// Start reading at packet.go and auth.go, then client.go and relay.go.
package radius

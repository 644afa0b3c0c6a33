// Package ikev2 is IKEv2 (RFC 7296): one IKE SA, initiator and responder in one
// machine, for package ike's engine.
//
// It owns the exchanges and their state: IKE_SA_INIT, IKE_AUTH in any number of
// rounds by shared key, signature or EAP, CREATE_CHILD_SA, INFORMATIONAL; message
// IDs and retransmission; the derivation of keys; collisions of RFC 7296 §2.25; and
// what is negotiated for Child SAs.
//
// It must not know the wire format (ike/wire), how algorithms work (suite), where
// keys, certificates and passwords are and who trusts whom (it asks the host), what
// the other IKE SAs do (ike.Env knows and answers), or anything of sockets, clocks
// and packets.
//
// Start with sa.go (one IKE SA and its inputs) and rules.go (which message is
// taken in which state), then one file an exchange: init.go, auth.go, child.go,
// rekey_child.go, rekey_ike.go, delete.go, informational.go. IKE_AUTH has a file a
// role (auth_initiator.go, auth_responder.go) and a concern; auth.go holds what both
// share, above all proof, without which no IKE SA comes up. window.go holds
// message IDs and retransmission, protect.go the Encrypted payload.
package ikev2

// Package vendors holds scripted peers that behave as the gateways and clients of
// other makers do (Cisco, Palo Alto, Fortinet, AWS, Google, Azure, Windows, Apple,
// Android), and tests that put adit's engine opposite. It has no code of its own
// beside the tests.
//
// It owns what is known of those peers' habits, each with its source; docs/peers.md
// tells operators what follows. Old Cisco and SonicWall devices speak IKEv1
// (v1_test.go). It must not know the insides of ike/ikev2: a peer
// here speaks ike/wire and suite alone (and eap where it logs in), and judges by what goes over the wire and
// by what adit installs. Nothing is sent and no time passes but the world's own.
//
// Start reading at world (world_test.go), then peer (peer_test.go).
package vendors

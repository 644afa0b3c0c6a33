// Package attack holds tests that attack the gateway from outside: a scripted
// hostile peer, with and without the shared key, against the IKE engine, forged
// packets against the data plane, hostile clients and files against VICI and the
// configuration. It has no code of its own beside the tests.
//
// It owns the attacks that the field knows (floods, replays, reflections, forged
// notifies, weak public values, storms of an authenticated peer); it must not know
// the insides of what it attacks: it speaks ike/wire and suite, and judges by what
// goes over the wire, by events, counters and the tunnel of an honest peer, which
// has to outlive every attack.
//
// Start reading at world (world_test.go), then hostile (hostile_test.go).
package attack

// Package bench is `adit bench`: it measures what IKE set-ups cost a responder,
// adit and strongSwan's charon in turn, with the same initiator and in one run.
//
// It owns the initiator (our own engine without a data plane, in this process), the
// namespaces and configurations of both responders, and what is read from /proc.
// It knows nothing of how adit works inside: the responder is the real `adit run`
// in a process of its own. Start reading at [IKE]; docs/bench.md says what the
// figures mean.
package bench

// Package updown runs the command of a child's `updown` when the Child SA comes up and
// when it goes, with the environment that strongSwan's charon gives it.
//
// It owns the bookkeeping that keeps every up and its down together, the queue of
// calls, the environment, and the programs while they run. It learns of SAs by
// events alone and must not know the engine, the gateway or the configuration. Nothing
// of a peer gets anywhere but into values of the environment.
//
// Start reading at [Runner.Event].
package updown

// Package interop holds adit against other IKE daemons, and against itself, across
// the networks of interop/lab: who initiates, which algorithms, what goes wrong. A
// scenario is written once and run for every pair of daemons in either role; a ping
// counts only where no route exists without the tunnel and a capture outside shows
// no inner address.
//
// It owns the scenarios (tests) and the table of their results, which the tests
// write to interop/out/interop.txt and interop.json. How daemons are run is
// interop/peer's knowledge.
//
// Start reading at the tests: interop_test.go, then scenarios_test.go.
package interop

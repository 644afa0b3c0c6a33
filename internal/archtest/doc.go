// Package archtest holds the architecture to its word: its tests read the source of
// the whole module and fail where a package imports what it must not, a protocol
// package touches a clock or starts a goroutine, a parser has no fuzz target, a
// package or file has a name that says nothing, and so on.
//
// It owns the tables of the rules ([Imports], [Libraries], [Unfuzzed]) and the
// checks; it knows the code only as syntax and runs none of it. A rule that changes
// is changed here and in docs/architecture.md together.
//
// Start reading at rules.go.
package archtest

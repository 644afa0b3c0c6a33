// Package explain says in plain words why a tunnel isn't up, or what is odd about one
// that is, and which option of the configuration to change.
//
// It is pure: Explain makes a Report of Facts that somebody has gathered
// (internal/control does, for the VICI command `explain`). It must not know sockets,
// files or clocks. Start reading at Explain; the words about refusals are in
// refusal.go and auth.go, those about tunnels that nobody refused in standing.go.
package explain

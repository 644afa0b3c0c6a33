package ike

import (
	"net/netip"
	"strings"
)

// Reason is why a negotiation was refused; stable names for logs, VICI and metrics.
type Reason string

// The reasons. The first six say which part of the configuration did not fit.
const (
	ReasonAddress        Reason = "address"        // no connection for these addresses
	ReasonVersion        Reason = "version"        // IKE version
	ReasonProposal       Reason = "proposal"       // no common algorithms
	ReasonIdentity       Reason = "identity"       // the peer's identity fits no connection
	ReasonAuthentication Reason = "authentication" // wrong key, or none
	ReasonSelectors      Reason = "selectors"      // no common traffic selectors
	ReasonNoAnswer       Reason = "no-answer"      // the peer does not answer
	ReasonSyntax         Reason = "syntax"         // malformed or incomplete message
	ReasonCritical       Reason = "critical"       // unknown critical payload
	ReasonUnique         Reason = "unique"         // the uniqueness policy keeps the other IKE SA
	ReasonInstall        Reason = "install"        // the data plane refused
	ReasonLimit          Reason = "limit"          // a bound of ours
	ReasonPeer           Reason = "peer"           // the peer refused, with this notify
	ReasonInternal       Reason = "internal"
	ReasonAddresses      Reason = "addresses" // no virtual address to give, or none given
)

// Rejection is the record of one refused negotiation, ours or the peer's: what a
// network engineer needs to find the line to change. It is an event and an error.
type Rejection struct {
	SAKey
	Reason        Reason
	Local, Remote netip.AddrPort
	// ByPeer: the peer refused; Notify is what it said, or what we said.
	ByPeer bool
	Notify string
	// Ours and Theirs are both sides' values in configuration's terms, Difference the first that differs.
	Ours, Theirs, Difference string
	// Candidates lists the connections that were considered, each with why it did not fit.
	Candidates []Candidate
	// Hint names the option to change, when there is a likely one.
	Hint string
}

// Candidate is a connection that was considered and why it was passed over.
type Candidate struct{ Name, Why string }

// Error is the record as one line.
func (r *Rejection) Error() string {
	var b strings.Builder
	b.WriteString(string(r.Reason))
	b.WriteString(" mismatch")
	switch r.Reason {
	case ReasonNoAnswer, ReasonSyntax, ReasonCritical, ReasonUnique, ReasonInstall, ReasonLimit, ReasonPeer, ReasonInternal, ReasonAuthentication, ReasonAddresses:
		b.Reset()
		b.WriteString(map[Reason]string{ReasonNoAnswer: "peer does not answer", ReasonSyntax: "malformed message",
			ReasonCritical: "unknown critical payload", ReasonUnique: "refused by uniqueness policy", ReasonInstall: "installing the SA failed",
			ReasonLimit: "limit reached", ReasonPeer: "refused by peer", ReasonInternal: "internal error", ReasonAuthentication: "authentication failed", ReasonAddresses: "no virtual address"}[r.Reason])
	}
	if r.ByPeer && r.Reason != ReasonPeer {
		b.WriteString(" (said by the peer)")
	}
	for _, f := range []struct{ name, v string }{{"notify", r.Notify}, {"first difference", r.Difference}, {"ours", r.Ours}, {"theirs", r.Theirs}, {"hint", r.Hint}} {
		if f.v != "" {
			b.WriteString("; " + f.name + ": " + f.v)
		}
	}
	for _, c := range r.Candidates {
		b.WriteString("; not " + c.Name + ": " + c.Why)
	}
	return b.String()
}

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

// Detail is a case of a Reason; stable names as those of Reason.
type Detail string

// The details.
const (
	DetailNoRoute       Detail = "no-route"         // address: no way to the peer
	DetailUnresolved    Detail = "name-unresolved"  // address: the peer's name has no address
	DetailNoFamily      Detail = "no-local-address" // address: none of ours is of the peer's family
	DetailNoTarget      Detail = "no-target"        // address: nobody to initiate to
	DetailGroup         Detail = "key-exchange"     // proposal: the group of the key exchange (PFS, in a Child SA)
	DetailMode          Detail = "mode"             // proposal: tunnel or transport mode
	DetailNoPSK         Detail = "no-shared-key"    // authentication: none for these identities
	DetailPSK           Detail = "shared-key"       // authentication: the shared keys differ
	DetailNoSignature   Detail = "no-signature"     // authentication: we cannot sign
	DetailMethod        Detail = "method"           // authentication: by another method than is wanted
	DetailNoCertificate Detail = "no-certificate"   // authentication: the peer sent none, and none is loaded
	DetailSignature     Detail = "signature"        // authentication: the signature is wrong
	DetailExpired       Detail = "expired"          // authentication: a certificate's time is over
	DetailNotYetValid   Detail = "not-yet-valid"    // authentication: a certificate's time has not come
	DetailUntrusted     Detail = "untrusted"        // authentication: no chain to an authority that is trusted
	DetailRevoked       Detail = "revoked"          // authentication: a certificate was revoked
	DetailNoRevocation  Detail = "no-revocation"    // authentication: nobody says whether a certificate was revoked
	DetailOtherName     Detail = "other-name"       // authentication: the certificate is of somebody else
	DetailWeak          Detail = "weak"             // authentication: key or signature under what is demanded
	DetailConstraint    Detail = "constraint"       // authentication: the chain breaks another rule
	DetailEAP           Detail = "eap"              // authentication: EAP failed
	DetailRADIUS        Detail = "radius"           // authentication: no RADIUS server answers
	DetailSilent        Detail = "silent"           // no-answer: nothing ever came back
	DetailSilentNAT     Detail = "silent-4500"      // no-answer: nothing comes back after the change to UDP 4500
	DetailHalfOpen      Detail = "half-open"        // no-answer: the peer began and did not go on
	DetailPool          Detail = "pool"             // addresses: the pool is used up
	DetailLeaseStore    Detail = "lease-store"      // addresses: what keeps the leases does not answer
	DetailNoPool        Detail = "no-pool"          // addresses: there is no pool
	DetailUnasked       Detail = "unasked"          // addresses: the peer asks for none
	DetailNotGiven      Detail = "not-given"        // addresses: the peer gives none
	DetailTerminated    Detail = "terminated"       // internal: an operator ended it
	DetailUnloaded      Detail = "unloaded"         // internal: its connection went
	DetailTransform     Detail = "transform"        // proposal: an algorithm differs
	DetailLocalID       Detail = "local-id"         // identity: ours is not the one that the peer wants
	DetailRemoteID      Detail = "remote-id"        // identity: the peer's is not the one that is wanted
	DetailLocalTS       Detail = "local-ts"         // selectors: our side shares nothing
	DetailRemoteTS      Detail = "remote-ts"        // selectors: the peer's side shares nothing
	DetailVersion       Detail = "version"          // of a candidate: it is for another version of IKE
	DetailLocalAddrs    Detail = "local-addrs"      // of a candidate: not for this address of ours
	DetailRemoteAddrs   Detail = "remote-addrs"     // of a candidate: not for the peer's address
	DetailRounds        Detail = "rounds"           // of a candidate: another number of rounds of authentication
	DetailEAPID         Detail = "eap-id"           // of a candidate: not for this EAP identity
	DetailPPK           Detail = "ppk"              // authentication: of a post-quantum preshared key (RFC 8784)
	DetailGroups        Detail = "groups"           // of a candidate: the peer is in none of its groups
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
	// Detail tells apart the cases of one reason that are mended in different ways; empty: there is one case.
	Detail Detail
	// Options are the paths of the options to look at, as connections.gw.proposals, the likeliest first.
	Options []string
	// Hint is what else to know for finding the line to change.
	Hint string
	// SA is the IKE SA as it was then, without its Child SAs; nil: there was none.
	SA *SAInfo
}

// Reject publishes the record of a negotiation that failed in an IKE SA of the
// connection p, nil if none was chosen yet. The child of the record stays.
func (e *Env) Reject(r *Rejection, p *Peer, key SAKey, sa SAInfo) *Rejection {
	key.Child, key.ChildID = r.Child, 0
	r.SAKey = key
	r.PointTo(p)
	sa.Children = nil
	r.SA = &sa
	e.Emit(r)
	return r
}

// Candidate is a connection, or a child of one, that was considered and why it was passed over.
type Candidate struct {
	Name, Why string
	// Detail is the case of Why, where it is one that somebody can mend by itself.
	Detail Detail
}

// Field is one fact of a Rejection. The names are the same in the structured log, in
// VICI's `alert` and in `explain`.
type Field struct {
	Name, Value string
	// List has the items of a field that is a list, nil for others; Value has them joined.
	List []string
}

// Fields are the facts of the record that are known, in a fixed order: reason, detail,
// notify, by-peer, difference, ours, theirs, options, hint, candidates, connection,
// child, local, remote.
func (r *Rejection) Fields() []Field {
	fields := make([]Field, 0, 14)
	text := func(name, value string) {
		if value != "" {
			fields = append(fields, Field{Name: name, Value: value})
		}
	}
	list := func(name, sep string, items []string) {
		if len(items) > 0 {
			fields = append(fields, Field{Name: name, Value: strings.Join(items, sep), List: items})
		}
	}
	text("reason", string(r.Reason))
	text("detail", string(r.Detail))
	text("notify", r.Notify)
	if r.ByPeer {
		text("by-peer", "yes")
	}
	text("difference", r.Difference)
	text("ours", r.Ours)
	text("theirs", r.Theirs)
	list("options", ", ", r.Options)
	text("hint", r.Hint)
	var candidates []string
	for _, c := range r.Candidates {
		candidates = append(candidates, c.Name+": "+c.Why)
	}
	list("candidates", "; ", candidates)
	text("connection", r.Name)
	text("child", r.Child)
	for _, a := range []struct {
		name string
		at   netip.AddrPort
	}{{"local", r.Local}, {"remote", r.Remote}} {
		if a.at.IsValid() {
			text(a.name, a.at.String())
		}
	}
	return fields
}

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
	for _, f := range []struct{ name, v string }{{"notify", r.Notify}, {"first difference", r.Difference}, {"ours", r.Ours}, {"theirs", r.Theirs}, {"options", strings.Join(r.Options, ", ")}, {"hint", r.Hint}} {
		if f.v != "" {
			b.WriteString("; " + f.name + ": " + f.v)
		}
	}
	for _, c := range r.Candidates {
		b.WriteString("; not " + c.Name + ": " + c.Why)
	}
	return b.String()
}

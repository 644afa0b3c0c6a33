package explain

import (
	"fmt"
	"strings"

	"adit/ike"
	"adit/internal/gateway"
)

// refused explains a refusal of the connection.
func (e *explainer) refused(f gateway.Refusal) {
	r := f.Record
	since := ago(e.Now.Sub(f.Last)) + " ago"
	if f.Count > 1 {
		since = fmt.Sprintf("%d times, the last time %s", f.Count, since)
	}
	e.fact("Refused %s%s.", since, with(r))
	switch r.Reason {
	case ike.ReasonAddress:
		e.unreached(r)
	case ike.ReasonVersion:
		e.verdict(Down, "cannot come up: %s.", r.Difference)
		e.change(r, "version = 2: IKEv2 is what is spoken here.")
	case ike.ReasonProposal:
		e.algorithms(r)
	case ike.ReasonIdentity:
		e.identity(r)
	case ike.ReasonAuthentication:
		e.authentication(r)
	case ike.ReasonSelectors:
		e.selectors(r)
	case ike.ReasonNoAnswer:
		e.noAnswer(r)
	case ike.ReasonUnique:
		e.verdict(Down, "was refused since another IKE SA of the same peer is up and unique = keep.")
		e.change(r, "unique = replace lets the new one in; unique = never keeps both.")
	case ike.ReasonInstall:
		e.verdict(Down, "was agreed on, and the data plane did not take it: %s.", r.Difference)
	case ike.ReasonAddresses:
		e.addresses(r)
	default:
		e.other(r)
	}
	e.both(r)
	e.passedOver(r)
}

// brief is a refusal in half a line.
func brief(r *ike.Rejection) string {
	text, _, _ := strings.Cut(r.Error(), ";")
	more, _, _ := strings.Cut(first(r.Difference), ";")
	if more == "" {
		more = r.Notify
	}
	if more == "" {
		return text
	}
	return text + " (" + strings.TrimPrefix(more, "no proposal in common: ") + ")"
}

// plain is a text without the trace of how a chain was looked for, which the log has.
func plain(s string) string {
	for _, mark := range []string{" (chain 0:", " (refused:"} {
		if i := strings.Index(s, mark); i > 0 {
			s = s[:i]
		}
	}
	return s
}

// with names the peer of a refusal.
func with(r *ike.Rejection) string {
	if !r.Remote.IsValid() {
		return ""
	}
	return " with " + r.Remote.String()
}

// both shows the two sides' values.
func (e *explainer) both(r *ike.Rejection) {
	if r.Detail == ike.DetailRemoteID {
		e.fact("Expected of the peer: %s. It says that it is: %s.", r.Ours, r.Theirs)
		return
	}
	if r.Ours != "" {
		e.fact("Ours: %s.", r.Ours)
	}
	if r.Theirs != "" {
		word := "The peer's"
		if r.ByPeer {
			word = "Expected of the peer"
		}
		e.fact("%s: %s.", word, r.Theirs)
	}
}

// passedOver lists the candidates with the rules that refused them.
func (e *explainer) passedOver(r *ike.Rejection) {
	for _, c := range r.Candidates {
		if strings.HasPrefix(c.Why, r.Difference) && r.Difference != "" && len(r.Candidates) == 1 {
			continue // that was told
		}
		kind := "Connection"
		if r.Reason == ike.ReasonSelectors || r.Detail == ike.DetailMode {
			kind = "Child"
		}
		e.fact("%s %s was not taken: %s.", kind, c.Name, plain(c.Why))
	}
}

// change adds the refusal's options, the first one with the text.
func (e *explainer) change(r *ike.Rejection, format string, args ...any) {
	options := e.options(r)
	if len(options) == 0 {
		e.advise("", format, args...)
		return
	}
	for i, o := range options {
		if i == 0 {
			e.advise(o, format, args...)
			continue
		}
		e.advise(o, "%s", otherwise(o))
	}
}

// options are the refusal's, with the sections of secrets that are meant by name.
func (e *explainer) options(r *ike.Rejection) (out []string) {
	for _, o := range r.Options {
		rest, ok := strings.CutPrefix(o, "secrets.ike*")
		if !ok || e.Secrets == nil {
			out = append(out, o)
			continue
		}
		names := e.Secrets(r.Ours, r.Theirs)
		for _, n := range names {
			out = append(out, "secrets."+n+rest)
		}
		if len(names) == 0 {
			out = append(out, "secrets")
		}
	}
	return out
}

// otherwise is what a second option may have to do with it.
func otherwise(option string) string {
	switch last := option[strings.LastIndexByte(option, '.')+1:]; last {
	case "id":
		if strings.Contains(option, ".remote") {
			return "the id that is asked for here is not the one that the peer has"
		}
		return "our id here is not the one that the peer expects"
	case "secret":
		return "the secret here and the peer's differ"
	case "certs":
		return "the peer takes another certificate than the one named here"
	case "cacerts":
		return "the authority that signed the peer's certificate is missing here"
	case "auth":
		return "the method here is not the peer's"
	default:
		return last + " here, or at the peer, is not what the other side has"
	}
}

// unreached explains why nothing could be sent, or who has nobody to talk to here.
func (e *explainer) unreached(r *ike.Rejection) {
	switch r.Detail {
	case ike.DetailNoRoute:
		e.verdict(Down, "cannot be set up: this host has %s.", r.Difference)
		e.fact("`ip route get ADDRESS` shows what the kernel says. Nothing was sent.")
		if r.Hint != "" {
			e.fact("The system says: %s.", r.Hint)
		}
		e.change(r, "Mend the host's routes, or the peer's address here.")
	case ike.DetailUnresolved:
		e.verdict(Down, "cannot be set up: %s.", r.Difference)
		e.change(r, "Mend the name or the resolver, or give the address here.")
	case ike.DetailNoFamily:
		e.verdict(Down, "cannot be set up: %s.", r.Difference)
		e.change(r, "Give an address of that family, or leave local_addrs out: the host then chooses one.")
	case ike.DetailNoTarget:
		e.verdict(Waiting, "cannot be set up from here: remote_addrs names no single peer.")
		e.change(r, "Name the peer's address; else only the peer can begin.")
	default:
		e.verdict(Down, "was refused: %s.", r.Difference)
		e.change(r, "The addresses of a connection must contain the peer's and ours.")
	}
}

// algorithms explains proposals that do not meet.
func (e *explainer) algorithms(r *ike.Rejection) {
	what, option := "IKE proposals", "proposals"
	if r.Child != "" {
		what, option = fmt.Sprintf("ESP proposals of child %s", r.Child), "esp_proposals"
	}
	switch {
	case r.Detail == ike.DetailMode:
		e.verdict(Down, "was refused: one side wants transport mode, the other tunnel mode.")
		e.change(r, "Both sides need the same mode.")
	case r.ByPeer && r.Difference == "":
		e.verdict(Down, "was refused by the peer: it takes none of our %s (%s).", what, r.Notify)
		switch {
		case r.Child != "":
			if r.Hint != "" {
				e.fact("%s.", capital(r.Hint))
			}
			e.fact("The peer does not say which algorithm it misses; a group for PFS on one side alone is the usual one, then the cipher.")
		default:
			e.fact("The peer does not say which algorithm it misses. It answers the same if it has no connection for our address.")
		}
		parts := "cipher, integrity, PRF and group"
		if r.Child != "" {
			parts = "cipher and integrity (and, for PFS, group)"
		}
		e.change(r, "%s must name, in one proposal, a %s that the peer has, too.", option, parts)
	default:
		e.verdict(Down, "was refused: the two sides' %s have no suite in common.", what)
		parts := strings.Split(strings.TrimPrefix(r.Difference, "no proposal in common: "), "; ")
		remedy := ""
		for i, p := range parts {
			if i == 1 {
				remedy = p
				continue
			}
			e.fact("%s.", capital(p))
		}
		if remedy == "" {
			remedy = option + " must have what the peer has"
		}
		e.change(r, "%s.", capital(remedy))
	}
}

func capital(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// selectors explains networks that do not meet.
func (e *explainer) selectors(r *ike.Rejection) {
	child := ""
	if r.Child != "" {
		child = " for child " + r.Child
	}
	if r.ByPeer {
		e.verdict(Down, "was refused by the peer: it does not take our traffic selectors%s (%s).", child, r.Notify)
		if r.Difference != "" { // peers that take one pair of selectors a Child SA
			e.fact("%s: %s.", capital(r.Difference), r.Ours)
		}
		e.fact("local_ts here must share addresses with remote_ts at the peer, and remote_ts here with its local_ts.")
		e.change(r, "local_ts must lie in what the peer has as remote_ts.")
		return
	}
	e.verdict(Down, "was refused: the two sides' traffic selectors%s share nothing.", child)
	if r.Detail == "" {
		e.fact("%s.", capital(r.Difference))
	}
	e.change(r, "%s must share addresses with what the peer asks for.", lastOf(e.options(r)))
}

// lastOf is the name of the first of some options.
func lastOf(options []string) string {
	if len(options) == 0 {
		return "local_ts and remote_ts"
	}
	return options[0][strings.LastIndexByte(options[0], '.')+1:]
}

// noAnswer explains silence by how far it went.
func (e *explainer) noAnswer(r *ike.Rejection) {
	switch {
	case strings.HasPrefix(r.Hint, "sending failed"):
		e.verdict(Down, "cannot reach the peer: nothing could be sent.")
		e.fact("%s.", capital(r.Hint))
		e.advise("", "Look at this host's routes and packet filter (`ip route get %s`, `nft list ruleset`).", r.Remote.Addr())
	case r.Detail == ike.DetailSilent:
		e.verdict(Down, "gets no answer from the peer: not even to IKE_SA_INIT.")
		e.silent(r.Remote.String())
	case r.Detail == ike.DetailHalfOpen:
		e.verdict(Down, "was begun by the peer, which did not go on after our answer to IKE_SA_INIT.")
		e.fact("Either our answer does not reach it (UDP 500 outwards), or its next message does not come here: it goes to UDP 4500 if there is a NAT, and is long if it carries certificates.")
		e.advise("", "Open UDP 4500 (and fragments) from the peer to this gateway.")
	case r.Detail == ike.DetailSilentNAT || strings.Contains(r.Difference, "IKE_AUTH"):
		e.verdict(Down, "gets no answer to IKE_AUTH, after IKE_SA_INIT was answered.")
		e.noAuthAnswer(r.Detail == ike.DetailSilentNAT)
	default:
		e.verdict(Down, "lost its peer: %s.", first(r.Difference))
		e.fact("The peer had been there. It is down, or the way to it is: nothing of the configuration is wrong.")
	}
}

// first is a text up to what only engineers of protocols read.
func first(s string) string {
	head, _, _ := strings.Cut(s, " [")
	return strings.TrimSpace(head)
}

// silent explains a peer that never answered.
func (e *explainer) silent(to string) {
	e.fact("The peer is down, %s is not its address, or UDP 500 is blocked on the way or back. A peer that has no connection for our address may be silent, too.", to)
	e.advise(e.Peer.Option("remote_addrs"), "See that this is the peer's address; then open UDP 500 and 4500 both ways.")
}

// noAuthAnswer explains silence after IKE_SA_INIT: floated, to UDP 4500.
func (e *explainer) noAuthAnswer(floated bool) {
	if floated {
		e.fact("IKE_SA_INIT went to UDP 500 and was answered. IKE_AUTH goes to UDP 4500, and nothing comes back: UDP 4500 is blocked on the way or back.")
		e.advise("", "Open UDP 4500 both ways in the firewalls between this gateway and the peer. No line of this configuration is wrong.")
		if e.Peer.Encap != ike.EncapNo {
			e.advise(e.Peer.Option("encap"), "If there is no NAT and UDP 4500 cannot be opened: encap = no stays on UDP 500 and ESP.")
		}
		return
	}
	e.fact("IKE_AUTH is longer than IKE_SA_INIT, above all with certificates: a firewall that drops fragments loses it. A peer that is at its limit, or whose RADIUS server hangs, is silent, too.")
	e.advise(e.Peer.Option("fragmentation"), "fragmentation = yes (RFC 7383), which the peer must know, too.")
}

// addresses explains virtual addresses that were not given.
func (e *explainer) addresses(r *ike.Rejection) {
	switch {
	case r.Notify == "FAILED_CP_REQUIRED" && r.ByPeer:
		e.verdict(Down, "was refused by the peer: it gives virtual addresses, and we ask for none (%s).", r.Notify)
	case r.ByPeer:
		e.verdict(Down, "got no virtual address from the peer (%s).", r.Notify)
	case r.Detail == ike.DetailNotGiven:
		e.verdict(Down, "got no virtual address: %s.", r.Difference)
	default:
		e.verdict(Down, "gave the peer no virtual address: %s.", r.Difference)
	}
	switch {
	case r.ByPeer && r.Notify == "FAILED_CP_REQUIRED":
		e.advise(e.Peer.Option("vips"), "vips = 0.0.0.0 (and ::, for IPv6) asks for an address.")
	case r.ByPeer:
		e.advise(e.Peer.Option("vips"), "The peer's pool is used up or it has none; without vips no address is asked for.")
	case r.Detail == ike.DetailPool:
		e.change(r, "Make the pool larger, or close what nobody uses (`swanctl --list-pools --leases`).")
	case r.Detail == ike.DetailLeaseStore:
		e.change(r, "Have the NATS servers run again (state.nats in strongswan.conf); tunnels that stand are not touched meanwhile.")
	case r.Detail == ike.DetailNoPool:
		e.change(r, "Name a pool here, or let the peer ask for no address (its vips).")
	case r.Detail == ike.DetailUnasked:
		e.change(r, "Leave pools out for this peer, or let it ask for an address (vips = 0.0.0.0 there).")
	default:
		e.change(r, "Leave vips out, or have the peer give an address (pools there).")
	}
}

// other explains what is rarer.
func (e *explainer) other(r *ike.Rejection) {
	switch {
	case r.ByPeer:
		e.verdict(Down, "was refused by the peer: %s.", nonEmpty(r.Notify, r.Difference))
		if m := meaning(r.Notify); m != "" {
			e.fact("%s usually means: %s.", r.Notify, m)
		}
		if r.Notify != "" && r.Difference != "" {
			e.fact("%s.", capital(r.Difference))
		}
	case r.Reason == ike.ReasonInternal && r.Detail == ike.DetailTerminated:
		e.verdict(Down, "was taken down by an operator while it was set up.")
	default:
		e.verdict(Down, "was refused: %s.", r.Error())
	}
	if r.Hint != "" {
		e.fact("%s.", capital(r.Hint))
	}
	for _, o := range e.options(r) {
		e.advise(o, "%s", otherwise(o))
	}
}

func nonEmpty(list ...string) string {
	for _, s := range list {
		if s != "" {
			return s
		}
	}
	return "it does not say why"
}

// meaning is what a notify usually says at a set-up.
func meaning(notify string) string {
	return map[string]string{
		"INVALID_SYNTAX":               "the peer could not read the message, or a shared key, a policy such as childless, or a payload does not suit it",
		"NO_ADDITIONAL_SAS":            "the peer takes no further Child SA in this IKE SA; some take one only",
		"TEMPORARY_FAILURE":            "the peer is at a rekey or has no resources just now; it is tried again",
		"INVALID_MAJOR_VERSION":        "the peer speaks IKEv1 only",
		"UNSUPPORTED_CRITICAL_PAYLOAD": "the peer does not know a payload that it must know",
		"INTERNAL_ADDRESS_FAILURE":     "the peer's pool of addresses is used up, or it has none",
		"FAILED_CP_REQUIRED":           "the peer wants that we ask for a virtual address (vips)",
		"SINGLE_PAIR_REQUIRED":         "the peer takes one pair of addresses a Child SA",
		"INVALID_SELECTORS":            "a packet came outside of the selectors",
		"INVALID_IKE_SPI":              "the peer has forgotten the IKE SA, after a restart as a rule",
		"AUTHENTICATION_FAILED":        "a key, certificate or identity of ours is not what the peer expects",
		"NO_PROPOSAL_CHOSEN":           "no algorithms in common, or no connection for our address",
		"TS_UNACCEPTABLE":              "the networks of the two sides share nothing",
	}[notify]
}

// stranger tells of a refused peer that may be the one that is waited for.
func (e *explainer) stranger(f gateway.Refusal) {
	r := f.Record
	why, option := e.mismatch(r)
	who := r.Remote.Addr().String()
	if r.Theirs != "" && r.Reason != ike.ReasonAddress && r.Reason != ike.ReasonProposal {
		who += " (" + r.Theirs + ")"
	}
	sure := e.nearness(r) == 2
	switch {
	case e.Verdict != "" && !sure:
	case sure:
		e.verdict(Down, "refuses its peer: %s was turned away %s ago.", r.Remote.Addr(), ago(e.Now.Sub(f.Last)))
		e.Changes = nil // nothing else is the matter
	}
	e.fact("A peer at %s was refused %s, the last time %s ago: %s.", who, times(f.Count), ago(e.Now.Sub(f.Last)), nonEmpty(r.Difference, string(r.Reason)))
	if why != "" {
		e.fact("%s was not taken for it: %s.", e.Peer.Name, plain(why))
	}
	if r.Name != "" {
		e.fact("Connection %s was taken instead.", r.Name)
	}
	for _, c := range r.Candidates {
		if c.Name != e.Peer.Name {
			e.fact("Connection %s was not taken: %s.", c.Name, plain(c.Why))
		}
	}
	if option != "" {
		before := e.Changes
		e.Changes = nil
		e.advise(option, "If that is the peer: %s must fit it, or the peer must be set to fit this.", option[strings.LastIndexByte(option, '.')+1:])
		e.Changes = append(e.Changes, before...)
	}
}

// mismatch is the rule of the connection that a stranger did not fulfil, and its option.
func (e *explainer) mismatch(r *ike.Rejection) (why, option string) {
	for _, c := range r.Candidates {
		if c.Name != e.Peer.Name {
			continue
		}
		x := ike.Rejection{Reason: r.Reason, Candidates: []ike.Candidate{c}}
		if x.PointTo(nil); len(x.Options) > 0 {
			option = x.Options[0]
		}
		if rest, ok := strings.CutPrefix(option, "connections."+e.Peer.Name+"."); ok {
			option = e.Peer.Option(rest) // the round's own name
		}
		return c.Why, option
	}
	if _, not := ike.MatchPeers([]*ike.Peer{e.Peer}, 2, r.Local.Addr(), r.Remote.Addr()); len(not) > 0 {
		x := ike.Rejection{Candidates: not}
		if x.PointTo(nil); len(x.Options) > 0 {
			option = x.Options[0]
		}
		return not[0].Why, option
	}
	return "", ""
}

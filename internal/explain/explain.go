package explain

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"adit/ike"
	"adit/internal/gateway"
)

// Explain says how it stands and why.
func Explain(f Facts) Report {
	e := &explainer{Facts: f}
	e.Report.Name = f.name()
	switch {
	case f.Peer.OnlyShunts() || f.Child != nil && !protects(f.Child):
		e.State = Up
		e.Verdict = e.Report.Name + " has nothing to negotiate: its policies (mode = pass or drop) stand."
	case e.isUp():
		e.odd()
	default:
		e.down()
	}
	if e.Child != nil {
		e.fact("Connection: %s.", e.Peer.Name)
	}
	e.places()
	return e.Report
}

// NotLoaded is the report of a name that nothing has. near are those that are like it.
func NotLoaded(name, near string, loaded int) Report {
	r := Report{Name: name, State: Unknown, Verdict: fmt.Sprintf("No connection or child called %q is loaded.", name)}
	switch {
	case near != "":
		r.Changes = []Change{{Text: fmt.Sprintf("Did you mean %q?", near)}}
	case loaded == 0:
		r.Facts = []string{"Nothing is loaded at all: `adit reload` or `swanctl --load-all` loads swanctl.conf; `adit check` finds what is wrong in it."}
	default:
		r.Facts = []string{fmt.Sprintf("%d connections are loaded (`swanctl --list-conns` or `adit status` names them).", loaded)}
	}
	return r
}

type explainer struct {
	Facts
	Report
}

func (e *explainer) fact(format string, args ...any) {
	e.Report.Facts = append(e.Report.Facts, fmt.Sprintf(format, args...))
}

// advise adds something to do; option may be empty.
func (e *explainer) advise(option, format string, args ...any) {
	if option != "" && slices.ContainsFunc(e.Changes, func(c Change) bool { return c.Option == option }) {
		return
	}
	e.Changes = append(e.Changes, Change{Text: fmt.Sprintf(format, args...), Option: option})
}

func (e *explainer) verdict(s State, format string, args ...any) {
	e.State, e.Verdict = s, e.Report.Name+" "+fmt.Sprintf(format, args...)
}

// down explains what is not up: by the last refusal, else by how far the set-up is,
// else by nobody having asked.
func (e *explainer) down() {
	own := e.refusals()
	near := e.near()
	switch {
	case len(own) > 0 && (len(near) == 0 || !near[0].Last.After(own[0].Last)):
		e.refused(own[0])
	case len(own) == 0 && len(near) == 0:
		e.unrefused()
	case len(own) > 0:
		e.refused(own[0])
		e.stranger(near[0])
	case near[0].Record.Reason == ike.ReasonNoAnswer && e.nearness(near[0].Record) == 2:
		e.refused(near[0])
	default:
		e.unrefused()
		e.stranger(near[0])
	}
	if len(own) > 1 {
		e.fact("Before that, %s ago: %s.", ago(e.Now.Sub(own[1].Last)), brief(own[1].Record))
	}
	for _, r := range append(own, near[:min(len(near), 3)]...) {
		e.Records = append(e.Records, record(r))
	}
	e.progress()
	for _, t := range e.Trouble {
		if t.Reason == ike.DropVersion && fitsAddress(e.Peer, t.Dropped) {
			e.fact("From %s come messages of another version of IKE than 2, which is all that is spoken here: set the peer to IKEv2.", t.Dropped.Last.Addr())
		}
	}
}

func fitsAddress(p *ike.Peer, d ike.Dropped) bool {
	fit, _ := ike.MatchPeers([]*ike.Peer{p}, p.Version, d.Last.Addr(), d.Last.Addr())
	if len(p.LocalAddrs) == 0 {
		return len(fit) > 0
	}
	fit, _ = ike.MatchPeers([]*ike.Peer{{Version: p.Version, RemoteAddrs: p.RemoteAddrs}}, p.Version, d.Last.Addr(), d.Last.Addr())
	return len(fit) > 0
}

// refusals are those of the connection that nothing has mended, the newest first.
func (e *explainer) refusals() (out []gateway.Refusal) {
	for _, r := range slices.Backward(e.History.Refusals) {
		if r.Mended.IsZero() && e.concerns(r.Record) {
			out = append(out, r)
		}
	}
	return out
}

// near are the refusals of others that may have been meant for this connection, the
// newest first, those that name it before those that only could.
func (e *explainer) near() (out []gateway.Refusal) {
	for _, r := range e.Strangers {
		if r.Mended.IsZero() && e.nearness(r.Record) > 0 {
			out = append(out, r)
		}
	}
	slices.SortStableFunc(out, func(a, b gateway.Refusal) int {
		return cmp.Or(cmp.Compare(e.nearness(b.Record), e.nearness(a.Record)), b.Last.Compare(a.Last))
	})
	return out
}

// nearness is how likely it is that a refused peer is the one of the connection: 2 if
// its identity or address is the configured one, 1 if the connection was considered.
func (e *explainer) nearness(r *ike.Rejection) int {
	if r.Name == e.Peer.Name {
		return 0
	}
	fit, _ := ike.MatchPeers([]*ike.Peer{{RemoteAddrs: e.Peer.RemoteAddrs}}, 2, r.Local.Addr(), r.Remote.Addr())
	exact := len(e.Peer.RemoteAddrs) > 0 && len(fit) > 0 && r.Remote.IsValid()
	for _, round := range e.Peer.Remote {
		exact = exact || !round.ID.IsAny() && round.ID.String() == r.Theirs
	}
	named := slices.ContainsFunc(r.Candidates, func(c ike.Candidate) bool { return c.Name == e.Peer.Name })
	switch {
	case exact && (named || r.Name == "" && r.Reason != ike.ReasonSyntax):
		return 2
	case named && r.Reason != ike.ReasonAddress:
		return 1
	case named && len(e.Strangers) <= fewStrangers:
		return 1
	}
	return 0
}

// fewStrangers is up to how many refused strangers one may be the peer by its mere presence.
const fewStrangers = 8

// progress tells how far a set-up is and when the next one begins.
func (e *explainer) progress() {
	a, s := e.Attempt, e.History.SetUp
	if s != nil && a.Trying {
		word := "IKE_SA_INIT"
		if s.Auth {
			word = "IKE_AUTH"
		}
		e.fact("Right now: %s sent %s to %s, the last time %s ago.", word, times(s.Sent), s.Remote, ago(e.Now.Sub(s.Last)))
	} else if a.Asking != "" {
		e.fact("Right now: waiting for %s.", a.Asking)
	}
	if a.RetryAt.After(e.Now) && len(a.Wanted) > 0 {
		e.fact("%s failed; the next try is in %s.", attempts(a.Failures), ago(a.RetryAt.Sub(e.Now)))
		if e.State == Down {
			e.State = Trying
		}
	}
	if a.Trying && e.State == Down {
		e.State = Trying
	}
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

func attempts(n int) string {
	if n == 1 {
		return "1 attempt"
	}
	return fmt.Sprintf("%d attempts in a row", n)
}

// NotGiven ends the text of a change of an option that is not written anywhere yet.
const NotGiven = " (not given yet: add it to the section here)."

// places looks up where the options are written.
func (e *explainer) places() {
	for i := range e.Changes {
		c := &e.Changes[i]
		if c.Option == "" || e.Place == nil {
			continue
		}
		at, given := e.Place(c.Option)
		if c.At = at; at != "" && !given {
			c.Text = strings.TrimSuffix(c.Text, ".") + NotGiven
		}
	}
}

package explain

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"adit/ike"
	"adit/ipsec"
)

// Tunnels that nobody has refused: those that are up, and those that nobody asked for.

func protects(c *ike.Child) bool { return c.Action == ipsec.Protect }

func isInstalled(c ike.ChildInfo) bool { return c.State == "INSTALLED" || c.State == "REKEYING" }

func isEstablished(s ike.SAInfo) bool { return s.State == "ESTABLISHED" || s.State == "REKEYING" }

// installed are the Child SAs of a child that carry traffic.
func (e *explainer) installed(name string) (out []ike.ChildInfo) {
	for _, s := range e.SAs {
		for _, c := range s.Children {
			if c.Name == name && isInstalled(c) {
				out = append(out, c)
			}
		}
	}
	return out
}

// isUp reports whether what was asked for stands: the child, or the IKE SA with those
// of its children that are to stand by themselves, or with any if none is.
func (e *explainer) isUp() bool {
	var established *ike.SAInfo
	for i := range e.SAs {
		if isEstablished(e.SAs[i]) {
			established = &e.SAs[i]
		}
	}
	if established == nil {
		return false
	}
	children := e.children()
	var up, missing []string
	for _, c := range children {
		switch {
		case len(e.installed(c.Name)) > 0:
			up = append(up, c.Name)
		case c.Starts() || e.Child != nil || slices.Contains(e.Attempt.Wanted, c.Name):
			missing = append(missing, c.Name)
		}
	}
	peer := fmt.Sprintf("%s (%s)", established.Remote.Addr(), established.RemoteID)
	if len(missing) > 0 || len(up) == 0 && len(children) > 0 {
		e.fact("The IKE SA with %s is up since %s; the Child SA is not.", peer, ago(e.Now.Sub(established.Established)))
		e.fact("That IKE SA keeps the configuration that it was made with: after a change `adit down %s` first.", e.Peer.Name)
		if len(up) > 0 {
			e.fact("Up: %s. Not up: %s.", strings.Join(up, ", "), strings.Join(missing, ", "))
		}
		return false
	}
	e.State = Up
	e.Verdict = fmt.Sprintf("%s is up, with %s, since %s.", e.Report.Name, peer, ago(e.Now.Sub(established.Established)))
	if e.Child == nil && len(children) > 1 {
		e.fact("%d of %d children are up: %s.", len(up), len(children), strings.Join(up, ", "))
	}
	return true
}

// odd tells what is worth knowing about a tunnel that is up.
func (e *explainer) odd() {
	for _, s := range e.SAs {
		if !isEstablished(s) {
			continue
		}
		switch {
		case s.NATLocal && s.NATRemote:
			e.fact("There are NATs on both sides: only the side whose NAT forwards UDP 500 and 4500 can be called.")
		case s.NATLocal:
			e.fact("There is a NAT before this gateway: ESP goes in UDP 4500, and if it forwards no ports this side has to begin.")
		case s.NATRemote:
			e.fact("There is a NAT before the peer (or it pretends one): ESP goes in UDP 4500, and behind a NAT that forwards no ports the peer has to begin.")
		}
		if in := s.RekeyAt.Sub(e.Now); !s.RekeyAt.IsZero() && in < time.Minute {
			e.fact("The IKE SA is rekeyed in %s.", ago(in))
		}
		if len(s.Tasks) > 0 {
			e.fact("Under way: %s.", strings.Join(s.Tasks, ", "))
		}
	}
	for _, c := range e.children() {
		for _, sa := range e.installed(c.Name) {
			e.traffic(sa)
		}
	}
	var drops []string
	for _, name := range []string{"in-replayed", "in-auth-failed", "in-selector-mismatch", "in-unknown-spi", "out-no-policy", "out-too-big"} {
		if n := e.Drops[name]; n > 0 {
			drops = append(drops, fmt.Sprintf("%s %d", name, n))
		}
	}
	if drops != nil {
		e.fact("Dropped on all tunnels together since the start: %s.", strings.Join(drops, ", "))
	}
	for _, r := range slices.Backward(e.History.Refusals) {
		if !r.Mended.IsZero() && e.concerns(r.Record) {
			e.fact("Before it came up, %s ago: %s.", ago(e.Now.Sub(r.Last)), brief(r.Record))
			e.Records = append(e.Records, record(r))
			break
		}
	}
	for _, r := range e.refusals() {
		e.fact("Refused %s ago, while it is up: %s.", ago(e.Now.Sub(r.Last)), brief(r.Record))
		e.Records = append(e.Records, record(r))
	}
}

// quiet is how long a Child SA may be without a packet before that is worth a word.
const quiet = 10 * time.Second

// traffic tells what is odd about the packets of a Child SA.
func (e *explainer) traffic(c ike.ChildInfo) {
	st, ok := e.Stats[c.ID]
	if !ok {
		return
	}
	age := e.Now.Sub(c.Installed)
	name := fmt.Sprintf("%s{%d}", c.Name, c.ID)
	way := "ESP (IP protocol 50)"
	if c.Encap {
		way = "UDP 4500"
	}
	switch {
	case age < quiet:
	case st.In.Packets == 0 && st.Out.Packets == 0:
		e.fact("%s: no packet in either direction in %s. Nothing is routed into it, or nobody has sent anything from %s to %s.", name, ago(age), list(c.LocalTS), list(c.RemoteTS))
	case st.In.Packets == 0:
		e.fact("%s: %d packets out and none in, in %s. %s is blocked on the way, or hosts of %s do not answer: look at their firewall and their route back.", name, st.Out.Packets, ago(age), way, list(c.RemoteTS))
		if !c.Encap {
			e.advise(e.Peer.Option("encap"), "If only ESP is blocked, encap = yes puts it into UDP.")
		}
	case st.Out.Packets == 0:
		e.fact("%s: %d packets in and none out, in %s. Hosts of %s do not answer, or their answers are routed past this gateway.", name, st.In.Packets, ago(age), list(c.LocalTS))
	}
	for _, d := range []struct {
		n    uint64
		what string
	}{{st.In.Replayed, "came twice or too late (replay window): packets are reordered on the way; replay_window is larger where that is usual"},
		{st.In.AuthFailed, "were damaged or forged"},
		{st.In.SelectorMismatch, "had addresses outside of the selectors: the peer sends what was not agreed on"},
		{st.In.Malformed, "were malformed"}} {
		if d.n > 0 {
			e.fact("%s: %d packets %s.", name, d.n, d.what)
		}
	}
	if in := c.RekeyAt.Sub(e.Now); !c.RekeyAt.IsZero() && in < 30*time.Second {
		e.fact("%s is rekeyed in %s.", name, ago(in))
	}
}

func list(sel []ipsec.Selector) string {
	parts := make([]string, len(sel))
	for i, s := range sel {
		parts[i] = s.String()
	}
	return strings.Join(parts, ", ")
}

// targets reports whether the connection names somebody to initiate to.
func (e *explainer) targets() bool {
	return slices.ContainsFunc(e.Peer.RemoteAddrs, func(s ike.AddrSpec) bool { return !s.Any && (s.Host != "" || s.From == s.To) })
}

// unrefused explains what is down without a refusal.
func (e *explainer) unrefused() {
	a, s := e.Attempt, e.History.SetUp
	switch {
	case a.Asking != "":
		e.verdict(Trying, "is being set up: it waits for %s.", a.Asking)
		return
	case a.Trying && s != nil:
		e.underWay()
		return
	case e.connecting():
		e.verdict(Trying, "is being set up at this moment.")
		return
	}
	if was := e.History.Down; !was.IsZero() && !was.Before(e.History.Up) {
		e.fact("It was up until %s ago: %s.", ago(e.Now.Sub(was)), e.History.DownReason)
	}
	e.asleep()
}

// underWay tells of a set-up that has got no answer yet.
func (e *explainer) underWay() {
	s := e.History.SetUp
	if s.Auth {
		e.verdict(Trying, "is being set up: IKE_AUTH was sent %s and is not answered yet.", times(s.Sent))
		if s.Sent > 2 {
			e.noAuthAnswer(strings.HasSuffix(s.Remote, ":4500"))
		}
		return
	}
	e.verdict(Trying, "is being set up: IKE_SA_INIT was sent %s, without an answer yet.", times(s.Sent))
	if s.Sent > 2 {
		e.silent(s.Remote)
	}
}

// connecting reports whether an IKE SA is half made.
func (e *explainer) connecting() bool {
	return slices.ContainsFunc(e.SAs, func(s ike.SAInfo) bool { return s.State == "CONNECTING" || s.State == "CREATED" })
}

// asleep tells what a connection waits for that nobody has asked for.
func (e *explainer) asleep() {
	var traps, starts, held, none []string
	for _, c := range e.children() {
		switch {
		case slices.Contains(e.Attempt.Held, c.Name):
			held = append(held, c.Name)
		case c.Starts():
			starts = append(starts, c.Name)
		case c.StartAction&ike.ActionTrap != 0:
			traps = append(traps, c.Name)
			e.fact("It begins with the first packet from %s to %s.", list(c.Local), list(c.Remote))
		default:
			none = append(none, c.Name)
		}
	}
	child := ""
	if cs := e.children(); len(cs) > 0 {
		child = cs[0].Name
	}
	at := func(option string) string { return "connections." + e.Peer.Name + ".children." + child + "." + option }
	switch {
	case held != nil:
		e.verdict(Down, "was taken down by an operator and stays down.")
		e.advise("", "`adit up %s` brings it back.", held[0])
	case starts != nil:
		e.verdict(Down, "is to be up and nothing tries it any more.")
		if e.Peer.GiveUp {
			e.advise(e.Peer.Option("keyingtries"), "keyingtries = %d ended the attempts; keyingtries = 0 goes on for ever.", e.Peer.KeyingTries)
		}
		e.advise(at("keep_up"), "keep_up = yes brings it back after whatever took it down.")
		e.advise("", "`adit up %s` tries it now.", starts[0])
	case traps != nil:
		e.verdict(Waiting, "waits for traffic (start_action = trap): nobody has sent any yet.")
		e.advise("", "Send something through it, or `adit up %s`.", traps[0])
		e.advise(at("keep_up"), "keep_up = yes (or start_action = start) brings it up without traffic.")
	case !e.targets():
		e.verdict(Waiting, "waits for the peer: this side has no address to call.")
		e.fact("remote_addrs names no single peer, so only the peer can begin. None of its messages has come here, or none that was refused: on the way to this gateway UDP 500 and 4500 must be open.")
		e.advise(e.Peer.Option("remote_addrs"), "Name the peer's address if this side is to begin.")
	default:
		e.verdict(Waiting, "was not asked for: it has no start_action, and the peer has not begun.")
		if len(none) > 0 {
			e.advise(at("keep_up"), "keep_up = yes (or start_action = start, or trap) lets this side begin.")
			e.advise("", "`adit up %s` brings it up once.", none[0])
		}
	}
}

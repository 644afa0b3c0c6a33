package sim

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/ipsec"
	"adit/suite"
)

// Bounds that no engine may pass in a world of a few hosts (floods included).
const (
	limitWorldSAs  = 120
	limitWorldJobs = 240
)

// balance holds up events against down events of one host.
type balance struct {
	ikes     map[uint32]string
	children map[uint32]string
}

func newBalance() balance { return balance{map[uint32]string{}, map[uint32]string{}} }

// has reports whether a Child SA of the name is up.
func (b balance) has(child string) bool {
	for _, name := range b.children {
		if name == child {
			return true
		}
	}
	return false
}

// event takes what an engine publishes: checks it, and traces it.
func (h *Host) event(ev ike.Event) {
	w := h.w
	if where := findKey(reflect.ValueOf(ev), 0); where != "" {
		w.violate("key in event", "%s: %T holds a key at %s", h.Name, ev, where)
	}
	up := func(set map[uint32]string, id uint32, name string) {
		if _, dup := set[id]; dup {
			w.violate("balance", "%s: %s is up twice (number %d)", h.Name, name, id)
		}
		set[id] = name
	}
	down := func(set map[uint32]string, id uint32, name string) {
		if _, ok := set[id]; !ok {
			w.violate("balance", "%s: %s goes down but was not up (number %d, %T)", h.Name, name, id, ev)
		}
		delete(set, id)
	}
	switch ev := ev.(type) {
	case ike.IKEUp:
		if w.forbid {
			w.violate("authentication", "%s: an IKE SA of %s came up", h.Name, ev.SA.Name)
		}
		h.checkProved(ev.SA)
		up(h.ups.ikes, ev.SA.ID, ev.SA.Name)
		w.tracef("%s: up   %s[%d] %s, %s", h.Name, ev.SA.Name, ev.SA.ID, role(ev.SA), ev.SA.Suite)
	case ike.IKEDown:
		w.disturb()
		down(h.ups.ikes, ev.SA.ID, ev.SA.Name)
		w.tracef("%s: down %s[%d]: %s", h.Name, ev.SA.Name, ev.SA.ID, ev.Reason)
	case ike.IKERekeyed:
		down(h.ups.ikes, ev.Old.ID, ev.Old.Name)
		up(h.ups.ikes, ev.New.ID, ev.New.Name)
		w.tracef("%s: rekeyed %s[%d] by [%d]", h.Name, ev.Old.Name, ev.Old.ID, ev.New.ID)
	case ike.ChildUp:
		up(h.ups.children, ev.Child.ID, ev.Child.Name)
		w.tracef("%s: up   %s{%d}, %s", h.Name, ev.Child.Name, ev.Child.ID, ev.Child.Suite)
	case ike.ChildDown:
		w.disturb()
		down(h.ups.children, ev.Child.ID, ev.Child.Name)
		w.tracef("%s: down %s{%d}: %s", h.Name, ev.Child.Name, ev.Child.ID, ev.Reason)
	case ike.ChildRekeyed:
		down(h.ups.children, ev.Old.ID, ev.Old.Name)
		up(h.ups.children, ev.New.ID, ev.New.Name)
		w.tracef("%s: rekeyed %s{%d} by {%d}", h.Name, ev.Old.Name, ev.Old.ID, ev.New.ID)
	case ike.ChildPassed:
		w.note("%s child %d passes to %d", h.Name, ev.Child.ID, ev.SA.ID)
	case ike.Addressed:
		w.note("%s %d has addresses %v", h.Name, ev.SA.ID, ev.SA.RemoteVIPs)
	case ike.Moved:
		w.disturb()
		w.tracef("%s: %s[%d] moved from %s to %s", h.Name, ev.SA.Name, ev.SA.ID, ev.Old, ev.SA.Remote)
	case ike.Note:
		w.tracef("%s: note: %s", h.Name, ev.Text)
	case ike.CommandDone:
		what := h.waiting[ev.ID]
		if what == "" {
			w.violate("balance", "%s: command %d ended twice or was never given", h.Name, ev.ID)
		}
		delete(h.waiting, ev.ID)
		if ev.Err != nil {
			w.tracef("%s: %s failed: %v", h.Name, what, ev.Err)
		} else {
			w.tracef("%s: %s done", h.Name, what)
		}
	case *ike.Rejection:
		w.tracef("%s: rejected%s: %s", h.Name, strings.TrimRight(" "+ev.Name, " "), ev.Error())
	case ike.Dropped:
		w.tracef("%s: dropped %d: %s", h.Name, ev.Count, ev.Reason)
	case ike.ShutdownDone:
		w.tracef("%s: shut down", h.Name)
	case ike.Bug:
		w.violate("bug", "%s: %s\n%s", h.Name, ev.Value, ev.Stack)
	case ike.Message:
		w.note("%s message %t %s %d", h.Name, ev.Out, ev.Summary, ev.Retransmit)
	default:
		w.violate("contract", "%s: unknown event %T", h.Name, ev)
	}
}

func role(sa ike.SAInfo) string {
	if sa.Initiator {
		return "as initiator"
	}
	return "as responder"
}

var keyType = reflect.TypeFor[suite.Key]()

// findKey walks whatever an event reaches for key material.
func findKey(v reflect.Value, depth int) string {
	if !v.IsValid() || depth > 12 || keyless(v.Type(), 0) {
		return ""
	}
	if v.Type() == keyType {
		if v.Len() > 0 {
			return "here"
		}
		return ""
	}
	switch v.Kind() {
	case reflect.Interface, reflect.Pointer:
		return findKey(v.Elem(), depth+1)
	case reflect.Struct:
		for i := range v.NumField() {
			if at := findKey(v.Field(i), depth+1); at != "" {
				return v.Type().Field(i).Name + "." + at
			}
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			if at := findKey(v.Index(i), depth+1); at != "" {
				return fmt.Sprintf("[%d].%s", i, at)
			}
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			if at := findKey(it.Key(), depth+1) + findKey(it.Value(), depth+1); at != "" {
				return "map." + at
			}
		}
	}
	return ""
}

// keyless reports whether no value of the type can lead to a key.
func keyless(t reflect.Type, depth int) bool {
	if t == keyType || depth > 12 {
		return false
	}
	switch t.Kind() {
	case reflect.Interface, reflect.Func, reflect.Chan, reflect.Map:
		return false
	case reflect.Pointer, reflect.Slice, reflect.Array:
		return keyless(t.Elem(), depth+1)
	case reflect.Struct:
		for i := range t.NumField() {
			if !keyless(t.Field(i).Type, depth+1) {
				return false
			}
		}
	}
	return true
}

// authenticated reports whether a message is one that must be protected, so that
// damage to it may change nothing.
func authenticated(data []byte) bool {
	h, err := wire.ParseHeader(data)
	if err == nil && h.Version.Major == 1 {
		return h.MessageID != 0 && h.Flags&wire.FlagV1Encryption != 0
	}
	return err == nil && h.SPIr != 0 && h.Exchange != wire.ExchangeIKESAInit
}

// fingerprint is an engine's visible state. Tasks are left out: an exchange that
// waits for its keys may start at a message that turns out to be forged.
func fingerprint(e *ike.Engine) string {
	var b strings.Builder
	for _, sa := range e.SAs() {
		sa.Tasks, sa.TasksQueued, sa.TasksPassive = nil, nil, nil
		fmt.Fprintf(&b, "%+v\n", sa)
	}
	return b.String()
}

// check holds the invariants that concern all hosts.
func (w *World) check() {
	changed := false
	for _, h := range w.hosts {
		if h.engine == nil {
			continue
		}
		changed = changed || h.plane.changed || len(h.plane.loose) > 0
		h.plane.changed = false
	}
	if changed {
		for _, h := range w.hosts {
			if h.engine != nil {
				w.checkMatches(h)
			}
		}
	}
}

// checkTables holds what an engine keeps against bounds.
func (h *Host) checkTables() {
	if s := h.engine.Stats(); s.SAs > limitWorldSAs || s.Jobs > limitWorldJobs || s.HalfOpen > s.SAs {
		h.w.violate("limits", "%s: tables grow: %+v", h.Name, s)
	}
}

// checkMatches looks for the peer's half of every outbound SA in use. It must be
// there, but for the time that a Delete or a death takes to be noticed.
func (w *World) checkMatches(h *Host) {
	used := map[ipsec.SARef]bool{}
	for _, pol := range h.plane.policies {
		if pol.Out.IsZero() || used[pol.Out] {
			continue
		}
		used[pol.Out] = true
		sa := h.plane.sas[pol.Out]
		if sa == nil {
			w.violate("black hole", "%s: the policy of %s has no SA", h.Name, pol.Name)
			continue
		}
		if w.matched(h, sa) {
			delete(h.plane.loose, pol.Out)
			continue
		}
		since, known := h.plane.loose[pol.Out]
		if !known {
			h.plane.loose[pol.Out] = w.now
		} else if w.now.Sub(since) > w.grace {
			w.violate("match", "%s: %s is in use since %v without an inbound SA at the peer", h.Name, h.plane.pair(pol.Out.Child), w.now.Sub(since))
			h.plane.loose[pol.Out] = w.now.Add(24 * time.Hour)
		}
	}
	for ref := range h.plane.loose {
		if !used[ref] {
			delete(h.plane.loose, ref)
		}
	}
}

func (w *World) matched(h *Host, sa *planeSA) bool {
	peer := w.hostOf(sa.esp.Endpoints().Remote.Addr())
	if peer == nil || peer.engine == nil {
		return false
	}
	in := peer.plane.inbound[sa.params.SPI]
	if in == nil {
		return false
	}
	if in.key != sa.key {
		w.violate("equal keys", "%s and %s: keys of SPI %s differ", h.Name, peer.Name, w.tap.spi(sa.params.SPI))
	}
	if sa.params.Mode == ipsec.ModeTunnel && (!sameSelectors(sa.params.LocalTS, in.params.RemoteTS) || !sameSelectors(sa.params.RemoteTS, in.params.LocalTS)) {
		w.violate("mirrored selectors", "%s has %s === %s, %s has %s === %s", h.Name, list(sa.params.LocalTS), list(sa.params.RemoteTS), peer.Name, list(in.params.LocalTS), list(in.params.RemoteTS))
	}
	return true
}

func sameSelectors(a, b []ipsec.Selector) bool {
	return ipsec.ContainsAll(a, b) && ipsec.ContainsAll(b, a)
}

// Heal makes the network perfect: what was cut is joined, rules end.
func (w *World) Heal() {
	w.net.Loss, w.net.Dup, w.net.Reorder, w.net.Corrupt, w.net.Jitter = 0, 0, 0, 0, 0
	w.rules = nil
	clear(w.cut)
	for _, h := range w.hosts {
		clear(h.noise)
		clear(h.fails)
	}
}

// Quiesce lets a healed world come to rest: exactly one IKE SA for each
// connection named and one Child SA for each child named, and nothing else. Names
// are "conn" or "conn/child".
func (w *World) Quiesce(names []string, most time.Duration) {
	w.Heal()
	until := w.now.Add(most)
	why := ""
	for w.now.Before(until) && len(w.violations) == 0 {
		w.Run(250*time.Millisecond, nil)
		if why = w.unsettled(names); why != "" {
			continue
		}
		w.Run(time.Second, nil)
		if why = w.unsettled(names); why == "" {
			w.checkLosses()
			return
		}
	}
	if why != "" {
		w.violate("quiescence", "no rest after %v: %s", most, why)
	}
	w.checkLosses()
}

// unsettled says what is not as it is at rest.
func (w *World) unsettled(names []string) string {
	want := map[string][]string{}
	for _, n := range names {
		conn, child, has := strings.Cut(n, "/")
		if _, ok := want[conn]; !ok {
			want[conn] = nil
		}
		if has {
			want[conn] = append(want[conn], child)
		}
	}
	for _, h := range w.hosts {
		if h.engine != nil {
			if why := h.unsettled(want); why != "" {
				return h.Name + ": " + why
			}
		}
	}
	return ""
}

func (h *Host) unsettled(want map[string][]string) string {
	sas := h.engine.SAs()
	expected, found, children := 0, 0, 0
	for _, p := range h.peers {
		names, ok := want[p.Name]
		if !ok {
			continue
		}
		expected++
		for _, sa := range sas {
			if sa.Name != p.Name {
				continue
			}
			found++
			var have []string
			for _, c := range sa.Children {
				if c.State != "INSTALLED" {
					return fmt.Sprintf("%s{%d} is %s", c.Name, c.ID, c.State)
				}
				if h.ups.children[c.ID] != c.Name {
					return fmt.Sprintf("%s{%d} is installed but no event said so", c.Name, c.ID)
				}
				have = append(have, c.Name)
			}
			if sa.State != "ESTABLISHED" || h.ups.ikes[sa.ID] != sa.Name {
				return fmt.Sprintf("%s[%d] is %s", sa.Name, sa.ID, sa.State)
			}
			slices.Sort(have)
			sorted := slices.Sorted(slices.Values(names))
			if !slices.Equal(have, sorted) {
				return fmt.Sprintf("%s has the Child SAs %v, wanted are %v", sa.Name, have, sorted)
			}
			children += len(have)
		}
	}
	s := h.engine.Stats()
	switch {
	case found != expected || len(sas) != expected:
		return fmt.Sprintf("%d IKE SAs, wanted are %d", len(sas), expected)
	case s.HalfOpen != 0 || s.Jobs != 0:
		return fmt.Sprintf("left over: %d half-open, %d jobs", s.HalfOpen, s.Jobs)
	case s.Children != children || len(h.plane.sas) != 2*children:
		return fmt.Sprintf("%d Child SAs at rest, %d in the engine's table, %d SAs in the data plane", children, s.Children, len(h.plane.sas))
	case len(h.plane.policies) != children+h.plane.traps:
		return fmt.Sprintf("%d policies for %d Child SAs and %d traps", len(h.plane.policies), children, h.plane.traps)
	case len(h.ups.ikes) != expected || len(h.ups.children) != children:
		return fmt.Sprintf("events say that %d IKE SAs and %d Child SAs are up", len(h.ups.ikes), len(h.ups.children))
	case len(h.plane.loose) != 0:
		return "an outbound SA has no match at the peer"
	}
	return ""
}

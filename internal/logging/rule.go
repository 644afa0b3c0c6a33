package logging

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Rule sets the level of lines at run time: of a group, of a connection, of a peer, or
// of all. Where one applies it decides for every target. Rules of a connection or peer
// go before those of groups, and those before a rule for all; of equals the highest
// level counts.
type Rule struct {
	Group string // empty: all
	Conn  string
	Peer  string // an address, a prefix or an identity
	Level int8
	Until time.Time // zero: until it is taken back or the program ends
}

const limitRules = 64

// ErrRules is returned for one rule too many.
var ErrRules = errors.New("too many levels are set: take some back first")

// Matcher finds lines by connection and peer; empty fields match all.
type Matcher struct{ Conn, Peer string }

// Match reports whether the line belongs to the connection and the peer.
func (m Matcher) Match(l *Line) bool {
	if m.Conn != "" && m.Conn != l.Conn {
		return false
	}
	if m.Peer == "" {
		return true
	}
	if p, err := netip.ParsePrefix(m.Peer); err == nil {
		return p.Contains(l.address())
	}
	if a, err := netip.ParseAddr(m.Peer); err == nil && a.Unmap() == l.address() {
		return true
	}
	return l.PeerID != "" && strings.EqualFold(l.PeerID, m.Peer)
}

func (r *Rule) matches(l *Line) bool {
	return (r.Group == "" || strings.EqualFold(r.Group, l.Group)) && (Matcher{r.Conn, r.Peer}).Match(l)
}

// weight says which rules go before others.
func (r *Rule) weight() int {
	switch {
	case r.Conn != "" || r.Peer != "":
		return 3
	case r.Group != "":
		return 2
	}
	return 1
}

func (r *Rule) sameScope(o Rule) bool {
	return strings.EqualFold(r.Group, o.Group) && r.Conn == o.Conn && r.Peer == o.Peer
}

// String tells the rule to people.
func (r Rule) String() string {
	s := fmt.Sprintf("level %d", r.Level)
	if r.Group != "" {
		s += " of " + strings.ToUpper(r.Group)
	}
	if r.Conn != "" {
		s += " for connection " + Printable(r.Conn)
	}
	if r.Peer != "" {
		s += " for peer " + Printable(r.Peer)
	}
	if !r.Until.IsZero() {
		s += " until " + r.Until.Format(time.TimeOnly)
	}
	return s
}

// ruled is the level that rules give a line.
func (h *Hub) ruled(l *Line) (level int8, ok bool) {
	best := 0
	for _, r := range *h.rules.Load() {
		if !r.Until.IsZero() && !l.Time.Before(r.Until) || !r.matches(l) {
			continue
		}
		if w := r.weight(); w > best || w == best && r.Level > level {
			best, level, ok = w, r.Level, true
		}
	}
	return level, ok
}

// Set adds a rule, or replaces the one of the same scope.
func (h *Hub) Set(r Rule) error {
	r.Level = min(max(r.Level, LevelSilent), LevelMost)
	h.mu.Lock()
	defer h.mu.Unlock()
	rules := slices.DeleteFunc(slices.Clone(*h.rules.Load()), r.sameScope)
	if len(rules) >= limitRules {
		return ErrRules
	}
	rules = append(rules, r)
	h.rules.Store(&rules)
	h.arm()
	return nil
}

// Unset takes back the rule of that scope, or with an empty one all rules; it returns
// how many there were.
func (h *Hub) Unset(scope Rule) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	old := *h.rules.Load()
	rules := []Rule{}
	if scope.Group != "" || scope.Conn != "" || scope.Peer != "" {
		rules = slices.DeleteFunc(slices.Clone(old), scope.sameScope)
	}
	h.rules.Store(&rules)
	h.arm()
	return len(old) - len(rules)
}

// Rules are those in force.
func (h *Hub) Rules() []Rule { return slices.Clone(*h.rules.Load()) }

// arm has the next rule that ends taken back in its time. h.mu is held.
func (h *Hub) arm() {
	if h.expire != nil {
		h.expire.Stop()
		h.expire = nil
	}
	var next time.Time
	for _, r := range *h.rules.Load() {
		if !r.Until.IsZero() && (next.IsZero() || r.Until.Before(next)) {
			next = r.Until
		}
	}
	if !next.IsZero() && !h.closed {
		h.expire = time.AfterFunc(time.Until(next), h.fallBack)
	}
}

func (h *Hub) fallBack() {
	h.mu.Lock()
	now := time.Now()
	rules, ended := []Rule{}, []Rule{}
	for _, r := range *h.rules.Load() {
		if !r.Until.IsZero() && !now.Before(r.Until) {
			ended = append(ended, r)
		} else {
			rules = append(rules, r)
		}
	}
	h.rules.Store(&rules)
	h.arm()
	h.mu.Unlock()
	for _, r := range ended {
		h.spread(&Line{Time: now, Severity: slog.LevelInfo, Level: 1, Group: "DMN", Text: "log " + r.String() + " has ended"})
	}
}

package logging

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Levels of a group.
const (
	LevelSilent  int8 = -1
	LevelControl int8 = 1 // the usual one
	LevelMost    int8 = 4
)

// Hub is a slog.Handler that spreads records to targets, to the ring and to
// followers. Its methods are safe for concurrent use; none waits for a target.
type Hub struct {
	targets atomic.Pointer[[]*target]
	rules   atomic.Pointer[[]Rule]
	follow  atomic.Pointer[follower]
	ring    ring

	mu     sync.Mutex // of changes
	base   Target     // stands where the configuration names no other for the same place
	closed bool
	expire *time.Timer
}

// follower takes lines beside the targets.
type follower struct {
	wanted func() bool
	take   func(*Line)
}

// New makes a hub with one target that stays whatever Apply names, unless it names
// another one for the same place.
func New(base Target) *Hub {
	h := &Hub{base: base}
	h.rules.Store(&[]Rule{})
	t := newTarget(h, base, false)
	h.targets.Store(&[]*target{t})
	go t.run()
	return h
}

// Of is the hub behind a logger, nil if there is another handler.
func Of(log *slog.Logger) *Hub {
	h, _ := log.Handler().(*Hub)
	return h
}

// Apply makes these the targets, beside the base. A target that was there and has not
// changed stays, with the lines that it has still to write.
func (h *Hub) Apply(wanted []Target) error {
	if len(wanted) > limitTargets {
		return fmt.Errorf("logging: more than %d targets", limitTargets)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return errors.New("logging: closed")
	}
	all := slices.Clone(wanted)
	if !slices.ContainsFunc(wanted, func(t Target) bool { return t.place() == h.base.place() }) {
		all = append([]Target{h.base}, all...)
	}
	old := slices.Clone(*h.targets.Load())
	var now, made []*target
	for _, t := range all {
		if slices.ContainsFunc(now, func(o *target) bool { return o.place() == t.place() }) {
			continue
		}
		if i := slices.IndexFunc(old, func(o *target) bool { return o.same(t) }); i >= 0 {
			now = append(now, old[i])
			old = slices.Delete(old, i, i+1)
		} else {
			// A file that only gets other levels is not emptied again.
			n := newTarget(h, t, slices.ContainsFunc(*h.targets.Load(), func(o *target) bool { return o.place() == t.place() }))
			now, made = append(now, n), append(made, n)
		}
	}
	h.targets.Store(&now)
	for _, t := range made { // when they are known: one that fails tells the others
		go t.run()
	}
	for _, t := range old {
		go t.close()
	}
	return nil
}

// Reopen has every file closed and opened again by its name, after a rotation.
func (h *Hub) Reopen() {
	for _, t := range *h.targets.Load() {
		t.reopen.Store(true)
		t.nudge()
	}
}

// Close writes what waits, a second at most, and ends all targets.
func (h *Hub) Close() {
	h.mu.Lock()
	h.closed = true
	if h.expire != nil {
		h.expire.Stop()
	}
	old := *h.targets.Load()
	h.targets.Store(&[]*target{})
	h.mu.Unlock()
	var wg sync.WaitGroup
	for _, t := range old {
		wg.Go(t.close)
	}
	wg.Wait()
}

// Enabled implements slog.Handler.
func (h *Hub) Enabled(_ context.Context, s slog.Level) bool {
	return s >= slog.LevelInfo || h.Takes("", levelOf(s))
}

// Takes reports whether any target could take a line of that group ("" any) and
// level: callers spare themselves making lines that nobody reads.
func (h *Hub) Takes(group string, level int8) bool {
	if level <= ringLevel {
		return true
	}
	if f := h.follow.Load(); f != nil && f.wanted() {
		return true
	}
	for _, r := range *h.rules.Load() {
		if level <= r.Level && (group == "" || r.Group == "" || strings.EqualFold(r.Group, group)) {
			return true
		}
	}
	for _, t := range *h.targets.Load() {
		if t.couldTake(group, level) {
			return true
		}
	}
	return false
}

// Handle implements slog.Handler.
func (h *Hub) Handle(_ context.Context, r slog.Record) error {
	h.spread(newLine(r, nil))
	return nil
}

// WithAttrs implements slog.Handler.
func (h *Hub) WithAttrs(as []slog.Attr) slog.Handler { return (&withAttrs{hub: h}).WithAttrs(as) }

// WithGroup implements slog.Handler.
func (h *Hub) WithGroup(name string) slog.Handler { return (&withAttrs{hub: h}).WithGroup(name) }

// spread hands a line to everybody who wants it.
func (h *Hub) spread(l *Line) {
	level, ruled := h.ruled(l)
	for _, t := range *h.targets.Load() {
		if ruled && l.Level <= level || !ruled && t.takes(l) {
			t.offer(l)
		}
	}
	if l.Level <= ringLevel || ruled && l.Level <= level {
		h.ring.add(l)
	}
	if f := h.follow.Load(); f != nil && f.wanted() {
		f.take(l)
	}
}

// Follow has every line of any level given to take while wanted says so. take must
// not block, nor log. There is one follower; the returned function ends it.
func (h *Hub) Follow(wanted func() bool, take func(*Line)) (stop func()) {
	f := &follower{wanted, take}
	h.follow.Store(f)
	return func() { h.follow.CompareAndSwap(f, nil) }
}

// TargetState is how a target is doing.
type TargetState struct {
	Name    string
	Waiting int           // lines in its queue
	Lost    uint64        // lines that found it full, in all
	Stalled time.Duration // how long the write under way has lasted
	Err     string        // why it cannot write, empty: it can
}

// Targets tells how all targets are doing.
func (h *Hub) Targets() []TargetState {
	var out []TargetState
	for _, t := range *h.targets.Load() {
		out = append(out, t.state())
	}
	return out
}

// ring keeps the last lines, bounded in number and bytes.
type ring struct {
	mu    sync.Mutex
	lines []*Line // oldest first
	bytes int
}

// Bounds of the ring, and the level up to which it keeps lines that no rule asks for.
const (
	limitRing      = 1000
	limitRingBytes = 512 << 10
	ringLevel      = int8(1)
)

func (r *ring) add(l *Line) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, l)
	r.bytes += l.size()
	n := 0
	for len(r.lines)-n > limitRing || r.bytes > limitRingBytes && len(r.lines)-n > 1 {
		r.bytes -= r.lines[n].size()
		r.lines[n] = nil
		n++
	}
	r.lines = r.lines[n:]
}

// Recent are the last lines of the ring that match, at most n (0: all), oldest first.
func (h *Hub) Recent(n int, match func(*Line) bool) []*Line {
	h.ring.mu.Lock()
	all := slices.Clone(h.ring.lines)
	h.ring.mu.Unlock()
	var out []*Line
	for i := len(all) - 1; i >= 0 && (n <= 0 || len(out) < n); i-- {
		if match == nil || match(all[i]) {
			out = append(out, all[i])
		}
	}
	slices.Reverse(out)
	return out
}

package sim

import (
	"container/heap"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"
)

// limitInstant bounds the events of one instant: more are a livelock.
const limitInstant = 20_000

// limitViolations ends a world: what comes after the first violation tells nothing.
const limitViolations = 1

// limitHistory bounds the lines that are kept for reports.
const limitHistory = 6000

// epoch is when every world begins.
var epoch = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// World is one simulation: hosts, the network between them, the clock and the
// queue of what is still to happen. Two worlds with the same script, seed and
// global randomness (testing/cryptotest.SetGlobalRandom) do exactly the same.
type World struct {
	now   time.Time
	seq   uint64
	queue eventQueue
	rng   *rand.Rand

	hosts []*Host
	net   Link
	rules []*rule
	held  []*packet
	cut   map[[2]*Host]bool

	tap    *tap
	flows  []*flow
	probes probeState
	keys   map[keyHash]*keyUse
	grace  time.Duration
	forbid bool // no IKE SA may come up

	violations []Violation
	lines      []string // since the last TakeTrace
	history    []string // the last lines, for reports
	sum        hash.Hash
	atInstant  int
	quiet      bool // the trace is hashed but not kept
}

// Violation is an invariant that did not hold.
type Violation struct {
	Name string // of the invariant
	At   time.Duration
	Text string
}

// Error is the violation as one line.
func (v Violation) Error() string {
	return fmt.Sprintf("%s at %.3fs: %s", v.Name, v.At.Seconds(), v.Text)
}

// event is something that happens at a moment; events of one moment happen in
// the order in which they were planned.
type event struct {
	at  time.Time
	seq uint64
	run func()
}

type eventQueue []event

// Len is part of heap.Interface.
func (q eventQueue) Len() int { return len(q) }

// Less is part of heap.Interface.
func (q eventQueue) Less(i, j int) bool {
	if !q[i].at.Equal(q[j].at) {
		return q[i].at.Before(q[j].at)
	}
	return q[i].seq < q[j].seq
}

// Swap is part of heap.Interface.
func (q eventQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }

// Push is part of heap.Interface.
func (q *eventQueue) Push(x any) { *q = append(*q, x.(event)) }

// Pop is part of heap.Interface.
func (q *eventQueue) Pop() any {
	old := *q
	e := old[len(old)-1]
	old[len(old)-1] = event{}
	*q = old[:len(old)-1]
	return e
}

// New makes an empty world. The seed is for the network's own dice.
func New(seed uint64) *World {
	w := &World{now: epoch, rng: rand.New(rand.NewPCG(seed, 0x5eed)), cut: map[[2]*Host]bool{},
		net: Link{Delay: 10 * time.Millisecond}, keys: map[keyHash]*keyUse{}, sum: sha256.New(), grace: 5 * time.Second}
	w.tap = newTap(w)
	return w
}

// after plans an event.
func (w *World) after(d time.Duration, run func()) {
	w.seq++
	heap.Push(&w.queue, event{w.now.Add(max(d, 0)), w.seq, run})
}

// Run lets the world go on for a duration, or until stop (checked after every
// event, may be nil) reports true; it returns whether stop did.
func (w *World) Run(d time.Duration, stop func() bool) bool {
	until := w.now.Add(d)
	for len(w.queue) > 0 && !w.queue[0].at.After(until) && len(w.violations) < limitViolations {
		e := heap.Pop(&w.queue).(event)
		if e.at.After(w.now) {
			w.now, w.atInstant = e.at, 0
		}
		if w.atInstant++; w.atInstant > limitInstant {
			w.violate("livelock", "more than %d events at one instant", limitInstant)
			return false
		}
		e.run()
		w.check()
		if stop != nil && stop() {
			return true
		}
	}
	w.now, w.atInstant = until, 0
	return false
}

// elapsed is the time since the world began.
func (w *World) elapsed() time.Duration { return w.now.Sub(epoch) }

func (w *World) violate(name, format string, args ...any) {
	v := Violation{name, w.elapsed(), fmt.Sprintf(format, args...)}
	if len(w.violations) < limitViolations {
		w.violations = append(w.violations, v)
	}
	w.tracef("VIOLATION %s: %s", v.Name, v.Text)
}

// Violations are the invariants that did not hold so far.
func (w *World) Violations() []Violation { return w.violations }

// tracef writes a line of the trace.
func (w *World) tracef(format string, args ...any) {
	line := fmt.Sprintf("%9.3f ", w.elapsed().Seconds()) + fmt.Sprintf(format, args...)
	w.note("%s", line)
	if !w.quiet {
		w.lines = append(w.lines, line)
	}
	if w.history = append(w.history, line); len(w.history) > limitHistory {
		w.history = append(w.history[:0:0], w.history[limitHistory/2:]...)
	}
}

// note adds to the hash of the trace what is too much to read.
func (w *World) note(format string, args ...any) {
	fmt.Fprintf(w.sum, format+"\n", args...)
}

// TakeTrace hands over the lines since the last call.
func (w *World) TakeTrace() string {
	if len(w.lines) == 0 {
		return ""
	}
	out := strings.Join(w.lines, "\n") + "\n"
	w.lines = nil
	return out
}

// History is the last part of the trace, for reports of failures.
func (w *World) History() string { return strings.Join(w.history, "\n") }

// TraceHash sums up all that has happened.
func (w *World) TraceHash() string { return hex.EncodeToString(w.sum.Sum(nil)[:12]) }

// Host finds a host by name, nil if there is none.
func (w *World) Host(name string) *Host {
	for _, h := range w.hosts {
		if h.Name == name {
			return h
		}
	}
	return nil
}

// hostOf finds who has an address, or the NAT in front of whom has.
func (w *World) hostOf(a netip.Addr) *Host {
	for _, h := range w.hosts {
		if h.has(a) || h.nat != nil && h.nat.public == a {
			return h
		}
	}
	return nil
}

func (w *World) chance(p float64) bool { return p > 0 && w.rng.Float64() < p }

// span is a random duration from 0 to d.
func (w *World) span(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return time.Duration(w.rng.Int64N(int64(d) + 1))
}

// Finish makes the checks that need the whole run.
func (w *World) Finish() { w.checkLosses() }

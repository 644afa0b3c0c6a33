package logging

import (
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"sync/atomic"
	"time"
)

// Kind is what a target is.
type Kind string

// The kinds.
const (
	File    Kind = "file"
	Stderr  Kind = "stderr"
	Stdout  Kind = "stdout"
	Syslog  Kind = "syslog"
	Journal Kind = "journal"
	Forward Kind = "slog" // a handler of the program that embeds
)

// Target is where lines go, which and how.
type Target struct {
	Kind Kind
	Path string // of File; of the socket of Syslog and Journal (empty: the system's)

	// BySeverity has slog's severity decide which lines are taken, in the formats of
	// slog ("text" or "json"); otherwise Default and Levels decide, by groups in
	// small letters, and lines look as strongSwan's do.
	BySeverity bool
	Severity   slog.Level
	Format     string

	Default int8
	Levels  map[string]int8

	Append, FlushLine, IKEName, LogLevel, JSON bool
	TimeFormat, Precision                      string

	Facility, Identifier string
	MapLevel             int8

	Handler slog.Handler // of Forward
}

const (
	limitTargets = 64
	limitQueue   = 1024 // lines that wait for one target
	limitWaiting = 2 << 20
	closeGrace   = time.Second      // for what waits at the end
	retryOpen    = 5 * time.Second  // before a target that failed is tried again
	stallShown   = 2 * time.Second  // a write that lasts longer is told by Targets
	writeLimit   = 10 * time.Second // of one write to a socket
)

// place is what two targets must not share.
func (t Target) place() string { return string(t.Kind) + " " + t.Path + t.Facility }

// same reports whether nothing differs. Handlers are others' and are not looked into.
func (t Target) same(o Target) bool {
	if t.Kind == Forward || o.Kind == Forward {
		return t.place() == o.place()
	}
	return reflect.DeepEqual(t, o)
}

func (t Target) name() string {
	switch t.Kind {
	case File:
		return t.Path
	case Syslog:
		return "syslog " + t.Facility
	}
	return string(t.Kind)
}

func (t Target) level(group string) int8 {
	if l, ok := t.Levels[strings.ToLower(group)]; ok {
		return l
	}
	return t.Default
}

// takes reports whether the line is for this target.
func (t Target) takes(l *Line) bool {
	if t.BySeverity {
		return l.Severity >= t.Severity
	}
	return l.Level <= t.level(l.Group)
}

func (t Target) couldTake(group string, level int8) bool {
	if t.BySeverity {
		return t.Severity <= slog.LevelDebug
	}
	if group != "" {
		return level <= t.level(group)
	}
	most := t.Default
	for _, l := range t.Levels {
		most = max(most, l)
	}
	return level <= most
}

// sink writes lines for one target; only the target's thread calls it.
type sink interface {
	write(*Line) error
	flush() error
	close()
}

// target is a Target with its thread.
type target struct {
	Target
	hub    *Hub
	queue  chan *Line
	wake   chan struct{}
	stop   chan struct{}
	ended  chan struct{}
	reopen atomic.Bool
	again  bool // the file was open before

	bytes      atomic.Int64 // in the queue
	lost, told atomic.Uint64
	since      atomic.Int64 // when the write under way began, 0: none
	fault      atomic.Pointer[string]
}

// newTarget makes a target whose thread is yet to be started.
func newTarget(h *Hub, spec Target, again bool) *target {
	return &target{Target: spec, hub: h, queue: make(chan *Line, limitQueue), wake: make(chan struct{}, 1),
		stop: make(chan struct{}), ended: make(chan struct{}), again: again}
}

// offer queues a line, or counts it as lost.
func (t *target) offer(l *Line) {
	n := int64(l.size())
	if t.bytes.Add(n) > limitWaiting {
		t.bytes.Add(-n)
		t.lost.Add(1)
		return
	}
	select {
	case t.queue <- l:
	default:
		t.bytes.Add(-n)
		t.lost.Add(1)
	}
}

func (t *target) nudge() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// close has what waits written, for a limited time.
func (t *target) close() {
	close(t.stop)
	select {
	case <-t.ended:
	case <-time.After(closeGrace):
	}
}

func (t *target) state() TargetState {
	s := TargetState{Name: t.name(), Waiting: len(t.queue), Lost: t.lost.Load()}
	if at := t.since.Load(); at != 0 {
		if d := time.Since(time.Unix(0, at)); d > stallShown {
			s.Stalled = d
		}
	}
	if f := t.fault.Load(); f != nil {
		s.Err = *f
	}
	return s
}

// run is the target's thread.
func (t *target) run() {
	defer close(t.ended)
	var out sink
	var failedAt time.Time
	fail := func(err error) {
		if out != nil {
			out.close()
			out = nil
		}
		text := Printable(err.Error())
		failedAt = time.Now()
		if t.fault.Swap(&text) == nil {
			t.complain(text)
		}
	}
	open := func() bool {
		if t.reopen.Swap(false) && out != nil && t.Kind == File {
			out.close()
			out, failedAt = nil, time.Time{}
		}
		if out != nil {
			return true
		}
		if !failedAt.IsZero() && time.Since(failedAt) < retryOpen {
			return false
		}
		t.since.Store(time.Now().UnixNano())
		defer t.since.Store(0)
		var err error
		if out, err = openSink(t.Target, t.again); err != nil {
			out = nil
			fail(err)
			return false
		}
		t.again = true
		t.fault.Store(nil)
		return true
	}
	write := func(l *Line) {
		if !open() {
			t.lost.Add(1)
			return
		}
		t.since.Store(time.Now().UnixNano())
		err := out.write(l)
		t.since.Store(0)
		if err != nil {
			t.lost.Add(1)
			fail(err)
		}
	}
	open()
	for {
		select {
		case l := <-t.queue:
			t.bytes.Add(-int64(l.size()))
			write(l)
			continue
		default:
		}
		if n := t.lost.Load(); n > t.told.Load() && t.fault.Load() == nil {
			missed := n - t.told.Swap(n)
			write(&Line{Time: time.Now(), Severity: slog.LevelWarn, Group: "DMN",
				Text: fmt.Sprintf("%d log lines were lost here: %s was too slow or could not be written", missed, t.name())})
		}
		if out != nil {
			t.since.Store(time.Now().UnixNano())
			err := out.flush()
			t.since.Store(0)
			if err != nil {
				fail(err)
			}
		}
		select {
		case l := <-t.queue:
			t.bytes.Add(-int64(l.size()))
			write(l)
		case <-t.wake:
			open()
		case <-t.stop:
			if len(t.queue) > 0 {
				continue
			}
			if out != nil {
				out.close()
			}
			return
		}
	}
}

// complain tells the other targets that this one cannot write.
func (t *target) complain(why string) {
	l := &Line{Time: time.Now(), Severity: slog.LevelWarn, Group: "DMN", Text: "the log " + t.name() + " cannot be written: " + why}
	for _, o := range *t.hub.targets.Load() {
		if o != t {
			o.offer(l)
		}
	}
	t.hub.ring.add(l)
}

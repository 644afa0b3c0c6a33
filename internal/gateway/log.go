package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync/atomic"

	"adit/ike"
)

// Record is an event as a line for people, in the terms of strongSwan's log:
// a group (IKE, CHD, NET, CFG, KNL, JOB), a level (0 audit, 1 control, 2 detail) and the SA it
// belongs to.
type Record struct {
	Group string
	Level int
	Name  string // connection
	ID    uint32 // unique number of the IKE SA, 0: none
	Text  string
	Attrs []slog.Attr // the facts of the text, for structured logs
}

// Describe makes the line of an event; false for events that no log shows.
func Describe(e ike.Event) (Record, bool) {
	switch e := e.(type) {
	case ike.IKEUp:
		return saRecord("IKE", 0, e.SA, fmt.Sprintf("IKE SA %s established between %s[%s] and %s[%s] with %s", label(e.SA.Name, e.SA.ID),
			e.SA.Local.Addr(), e.SA.LocalID, e.SA.Remote.Addr(), e.SA.RemoteID, e.SA.Suite)), true
	case ike.IKEDown:
		return saRecord("IKE", 0, e.SA, fmt.Sprintf("IKE SA %s to %s[%s] is down: %s", label(e.SA.Name, e.SA.ID), e.SA.Remote.Addr(), e.SA.RemoteID, e.Reason),
			slog.String("reason", e.Reason)), true
	case ike.IKERekeyed:
		return saRecord("IKE", 0, e.New, fmt.Sprintf("IKE SA %s replaces %s", label(e.New.Name, e.New.ID), label(e.Old.Name, e.Old.ID))), true
	case ike.ChildUp:
		return childRecord(e.SA, e.Child, "is up: "+describeChild(e.Child)), true
	case ike.ChildDown:
		return childRecord(e.SA, e.Child, "is down: "+e.Reason, slog.String("reason", e.Reason)), true
	case ike.ChildRekeyed:
		return childRecord(e.SA, e.New, fmt.Sprintf("replaces %s{%d}: %s", e.Old.Name, e.Old.ID, describeChild(e.New))), true
	case ike.Moved:
		return saRecord("IKE", 1, e.SA, fmt.Sprintf("peer of %s moved from %s to %s", label(e.SA.Name, e.SA.ID), e.Old, e.SA.Remote)), true
	case ike.Message:
		return messageRecord(e), true
	case ike.Note:
		return Record{Group: "IKE", Level: e.Level, Name: e.Name, ID: e.ID, Text: e.Text}, true
	case *ike.Rejection:
		return rejectionRecord(e), true
	case ike.Dropped:
		return Record{Group: "NET", Level: 1, Text: fmt.Sprintf("dropped %d IKE datagrams: %s (last from %s)", e.Count, e.Reason, e.Last),
			Attrs: []slog.Attr{slog.String("reason", fmt.Sprint(e.Reason)), slog.Uint64("count", e.Count)}}, true
	case ike.Bug:
		if e.SAKey == (ike.SAKey{}) {
			return Record{Group: "JOB", Level: 0, Text: "internal error, what caused it was dropped: " + e.Value,
				Attrs: []slog.Attr{slog.String("stack", string(e.Stack))}}, true
		}
		return Record{Group: "JOB", Level: 0, Name: e.Name, ID: e.ID, Text: "internal error, the IKE SA was dropped: " + e.Value,
			Attrs: []slog.Attr{slog.String("stack", string(e.Stack))}}, true
	}
	return Record{}, false
}

func label(name string, id uint32) string { return fmt.Sprintf("%s[%d]", name, id) }

func saRecord(group string, level int, sa ike.SAInfo, text string, attrs ...slog.Attr) Record {
	attrs = append(attrs, slog.String("local", sa.Local.String()), slog.String("remote", sa.Remote.String()),
		slog.String("remote_id", sa.RemoteID.String()))
	return Record{Group: group, Level: level, Name: sa.Name, ID: sa.ID, Text: text, Attrs: attrs}
}

func childRecord(sa ike.SAInfo, c ike.ChildInfo, text string, attrs ...slog.Attr) Record {
	r := saRecord("CHD", 0, sa, fmt.Sprintf("Child SA %s{%d} ", c.Name, c.ID)+text, attrs...)
	r.Attrs = append(r.Attrs, slog.String("child", c.Name), slog.Uint64("child_id", uint64(c.ID)))
	return r
}

func describeChild(c ike.ChildInfo) string {
	udp := ""
	if c.Encap {
		udp = " in UDP"
	}
	return fmt.Sprintf("%s, ESP%s with %s, SPIs %s in and %s out, %s to %s", strings.ToLower(c.Mode.String()), udp, c.Suite,
		c.SPIIn, c.SPIOut, joined(c.LocalTS), joined(c.RemoteTS))
}

func joined[T fmt.Stringer](list []T) string {
	parts := make([]string, len(list))
	for i, v := range list {
		parts[i] = v.String()
	}
	return strings.Join(parts, " ")
}

func messageRecord(m ike.Message) Record {
	r := Record{Group: "NET", Level: 1, Name: m.Name, ID: m.ID}
	switch {
	case m.Out && m.Retransmit > 0:
		r.Text = fmt.Sprintf("retransmission %d of %s", m.Retransmit, m.Summary)
	case m.Out:
		r.Text = fmt.Sprintf("sent %s from %s to %s (%d bytes)", m.Summary, m.Local, m.Remote, m.Bytes)
	default:
		r.Text = fmt.Sprintf("received %s from %s to %s (%d bytes)", m.Summary, m.Remote, m.Local, m.Bytes)
	}
	return r
}

func rejectionRecord(e *ike.Rejection) Record {
	who := ""
	if e.Name != "" {
		who = label(e.Name, e.ID) + ": "
	}
	peer := ""
	if e.Remote != (netip.AddrPort{}) {
		peer = fmt.Sprintf(" with %s", e.Remote)
	}
	r := Record{Group: "IKE", Level: 0, Name: e.Name, ID: e.ID, Text: fmt.Sprintf("%snegotiation%s refused: %s", who, peer, e.Error())}
	for _, a := range [][2]string{{"reason", string(e.Reason)}, {"notify", e.Notify}, {"ours", e.Ours}, {"theirs", e.Theirs},
		{"difference", e.Difference}, {"hint", e.Hint}, {"child", e.Child}} {
		if a[1] != "" {
			r.Attrs = append(r.Attrs, slog.String(a[0], a[1]))
		}
	}
	return r
}

// logWorker writes records to a structured log on a thread of its own: a log that
// stalls must not stall the engine. What does not fit the queue is lost and counted.
type logWorker struct {
	log   *slog.Logger
	queue chan ike.Event
	lost  atomic.Uint64
}

func (w *logWorker) init(log *slog.Logger) { w.log, w.queue = log, make(chan ike.Event, limitLog) }

func (w *logWorker) take(e ike.Event) {
	if m, ok := e.(ike.Message); ok && !w.log.Enabled(context.Background(), levelOf(m)) {
		return // the most frequent by far
	}
	select {
	case w.queue <- e:
	default:
		w.lost.Add(1)
	}
}

// run writes until ctx ends and the queue is empty.
func (w *logWorker) run(ctx context.Context) {
	for {
		select {
		case e := <-w.queue:
			guarded(func() { w.write(e) }, func(error) { w.lost.Add(1) })
		default:
			if n := w.lost.Swap(0); n > 0 {
				w.log.Warn("log lines were lost: the log is too slow", "count", n)
			}
			select {
			case e := <-w.queue:
				guarded(func() { w.write(e) }, func(error) { w.lost.Add(1) })
			case <-ctx.Done():
				if len(w.queue) == 0 {
					return
				}
			}
		}
	}
}

// levelOf puts messages (NET) and detail at debug.
func levelOf(e ike.Event) slog.Level {
	switch e := e.(type) {
	case *ike.Rejection:
		return slog.LevelWarn
	case ike.Bug:
		return slog.LevelError
	case ike.Message:
		return slog.LevelDebug
	case ike.Note:
		if e.Level > 1 {
			return slog.LevelDebug
		}
	}
	return slog.LevelInfo
}

func (w *logWorker) write(e ike.Event) {
	r, ok := Describe(e)
	if !ok {
		return
	}
	attrs := make([]slog.Attr, 0, 3+len(r.Attrs))
	attrs = append(attrs, slog.String("group", r.Group))
	if r.Name != "" {
		attrs = append(attrs, slog.String("conn", r.Name), slog.Uint64("ike", uint64(r.ID)))
	}
	w.log.LogAttrs(context.Background(), levelOf(e), r.Text, append(attrs, r.Attrs...)...)
}

package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

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
		return saRecord("IKE", 1, e.SA, movedText(e)), true
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
	for _, f := range e.Fields() {
		r.Attrs = append(r.Attrs, slog.String(f.Name, f.Value))
	}
	return r
}

// logWorker writes records to a structured log on a thread of its own: a log that
// stalls must not stall the engine. What does not fit the queue is lost and counted.
type logWorker struct {
	log   *slog.Logger
	takes func(e ike.Message) bool
	// chooses: it knows by group and level what it wants.
	chooses bool
	queue   chan ike.Event
	pulse   pulse
	peers   peerMemory
	lost    atomic.Uint64
	gone    atomic.Uint64 // messages that gave way to other events
}

// chooser is a log that knows by group and level what it wants (internal/logging).
type chooser interface {
	Takes(group string, level int8) bool
}

func (w *logWorker) init(log *slog.Logger) {
	w.log, w.queue = log, make(chan ike.Event, limitLog)
	w.pulse.init()
	w.takes = func(m ike.Message) bool { return w.log.Enabled(context.Background(), levelOf(m)) }
	if c, ok := log.Handler().(chooser); ok {
		w.chooses = true
		w.takes = func(ike.Message) bool { return c.Takes("NET", 1) }
	}
}

func (w *logWorker) take(e ike.Event) {
	if m, ok := e.(ike.Message); ok { // the most frequent by far
		if !w.takes(m) {
			return
		}
		if len(w.queue) > cap(w.queue)/2 { // they give way to what happened
			w.gone.Add(1)
			return
		}
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
		case <-w.pulse.asked:
			w.pulse.answer()
		case e := <-w.queue:
			guarded(func() { w.write(e) }, func(error) { w.lost.Add(1) })
		default:
			if n := w.lost.Swap(0) + w.gone.Swap(0); n > 0 {
				w.log.Warn("log lines were lost: the log is too slow", "count", n)
			}
			select {
			case <-w.pulse.asked:
				w.pulse.answer()
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
	w.peers.learn(e)
	r, ok := Describe(e)
	if !ok {
		return
	}
	attrs := make([]slog.Attr, 0, 6+len(r.Attrs))
	attrs = append(attrs, slog.String("group", r.Group), slog.Int("loglevel", r.Level))
	if r.Name != "" {
		attrs = append(attrs, slog.String("conn", r.Name), slog.Uint64("ike", uint64(r.ID)))
	}
	if p, ok := w.peers.of(e, r); ok {
		if x, ok := e.(*ike.Rejection); !ok || !x.Remote.IsValid() { // its own facts have it
			attrs = append(attrs, slog.String("remote", p.remote))
		}
		if p.id != "" {
			attrs = append(attrs, slog.String("remote_id", p.id))
		}
	}
	if !w.chooses {
		w.log.LogAttrs(context.Background(), levelOf(e), r.Text, append(attrs, r.Attrs...)...)
		return
	}
	// It goes by strongSwan's level, so slog may not decide.
	line := slog.NewRecord(time.Now(), levelOf(e), r.Text, 0)
	line.AddAttrs(append(attrs, r.Attrs...)...)
	_ = w.log.Handler().Handle(context.Background(), line)
}

// peerMemory knows the peers of IKE SAs, so that every line of an SA can be found by
// its peer. It holds two generations of limitPeers at most.
type peerMemory struct{ young, old map[uint32]peerOf }

type peerOf struct{ remote, id string }

const (
	limitPeers  = 1 << 14
	limitPeerID = 256 // octets of an identity that are remembered
)

func (m *peerMemory) get(id uint32) (peerOf, bool) {
	p, ok := m.young[id]
	if !ok {
		p, ok = m.old[id]
	}
	return p, ok
}

func (m *peerMemory) put(id uint32, p peerOf) {
	if len(p.id) > limitPeerID {
		p.id = strings.ToValidUTF8(p.id[:limitPeerID], "")
	}
	if m.young == nil || len(m.young) >= limitPeers {
		m.old, m.young = m.young, map[uint32]peerOf{}
	}
	m.young[id] = p
}

// learn remembers what an event tells of an SA's peer.
func (m *peerMemory) learn(e ike.Event) {
	switch e := e.(type) {
	case ike.IKEUp:
		m.put(e.SA.ID, peerOf{e.SA.Remote.String(), e.SA.RemoteID.String()})
	case ike.IKERekeyed:
		m.put(e.New.ID, peerOf{e.New.Remote.String(), e.New.RemoteID.String()})
	case ike.Moved:
		m.put(e.SA.ID, peerOf{e.SA.Remote.String(), e.SA.RemoteID.String()})
	case ike.Message:
		if e.ID == 0 {
			return
		}
		p, ok := m.get(e.ID)
		if remote := e.Remote.String(); !ok || p.remote != remote {
			p.remote = remote
			m.put(e.ID, p)
		}
	}
}

// of is the peer of a line whose own facts do not name it.
func (m *peerMemory) of(e ike.Event, r Record) (peerOf, bool) {
	switch e := e.(type) {
	case *ike.Rejection:
		p, _ := m.get(r.ID)
		if e.Remote.IsValid() {
			p.remote = e.Remote.String()
		}
		return p, p.remote != ""
	case ike.Dropped:
		return peerOf{remote: e.Last.String()}, e.Last.IsValid()
	case ike.Message, ike.Note, ike.Bug:
		if r.ID == 0 {
			return peerOf{}, false
		}
		return m.get(r.ID)
	case ike.IKEUp, ike.IKEDown, ike.IKERekeyed, ike.ChildUp, ike.ChildDown, ike.ChildRekeyed, ike.Moved:
		return peerOf{}, false // saRecord has told
	}
	return m.get(r.ID)
}

// movedText tells which end is elsewhere now, or that both are.
func movedText(e ike.Moved) string {
	name := label(e.SA.Name, e.SA.ID)
	switch {
	case e.SA.Local == e.OldLocal || !e.OldLocal.IsValid():
		return fmt.Sprintf("peer of %s moved from %s to %s", name, e.Old, e.SA.Remote)
	case e.SA.Remote == e.Old:
		return fmt.Sprintf("%s moved here from %s to %s", name, e.OldLocal, e.SA.Local)
	}
	return fmt.Sprintf("%s moved from %s and %s to %s and %s", name, e.OldLocal, e.Old, e.SA.Local, e.SA.Remote)
}

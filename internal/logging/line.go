package logging

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Keys of attributes that have a meaning of their own in a record.
const (
	KeyGroup  = "group"     // strongSwan's name of the subsystem
	KeyLevel  = "loglevel"  // strongSwan's level; never shown as an attribute
	KeyConn   = "conn"      // connection
	KeyIKE    = "ike"       // unique number of the IKE SA
	KeyPeer   = "remote"    // the peer's address, with or without port
	KeyPeerID = "remote_id" // the peer's identity
)

// Line is one record on its way to the targets. It is shared and never changed.
type Line struct {
	Time     time.Time
	Severity slog.Level
	Group    string // IKE, CHD, NET …, DMN
	Level    int8   // 0 to 4
	Conn     string // empty: belongs to no connection
	IKE      uint64 // 0: to no IKE SA
	Peer     string // address, empty: unknown
	PeerID   string
	Text     string
	// Facts are the attributes without those that have a field here.
	Facts []slog.Attr
	// Event tells that the record came with a group: its text says all that matters.
	Event bool
}

// Limits of one line, in bytes.
const (
	limitText  = 8 << 10
	limitFact  = 16 << 10
	limitFacts = 64      // attributes
	limitName  = 1 << 10 // of a connection, a peer
)

// newLine takes a record apart.
func newLine(r slog.Record, with []slog.Attr) *Line {
	l := &Line{Time: r.Time, Severity: r.Level, Level: levelOf(r.Level), Group: "DMN", Text: cut(r.Message, limitText)}
	if l.Time.IsZero() {
		l.Time = time.Now()
	}
	for _, a := range with {
		l.add(a)
	}
	r.Attrs(func(a slog.Attr) bool {
		l.add(a)
		return true
	})
	return l
}

func (l *Line) add(a slog.Attr) {
	v := a.Value.Resolve()
	switch a.Key {
	case KeyGroup:
		l.Group, l.Event = v.String(), true
	case KeyLevel:
		if v.Kind() == slog.KindInt64 {
			l.Level = int8(min(max(v.Int64(), 0), int64(LevelMost)))
		}
	case KeyConn:
		l.Conn = cut(v.String(), limitName)
	case KeyIKE:
		if v.Kind() == slog.KindUint64 {
			l.IKE = v.Uint64()
		}
	case KeyPeer:
		l.Peer = cut(v.String(), limitName)
	case KeyPeerID:
		l.PeerID = cut(v.String(), limitName)
	case "":
	default:
		if len(l.Facts) < limitFacts {
			switch v.Kind() {
			case slog.KindString, slog.KindAny, slog.KindGroup: // a later change of what it points to must not show, nor race
				v = slog.StringValue(cut(v.String(), limitFact))
			}
			l.Facts = append(l.Facts, slog.Attr{Key: a.Key, Value: v})
		}
	}
}

// record is the line as slog's, for its handlers.
func (l *Line) record() slog.Record {
	r := slog.NewRecord(l.Time, l.Severity, l.Text, 0)
	if l.Event {
		r.AddAttrs(slog.String(KeyGroup, l.Group))
	}
	if l.Conn != "" {
		r.AddAttrs(slog.String(KeyConn, l.Conn), slog.Uint64(KeyIKE, l.IKE))
	}
	if l.Peer != "" {
		r.AddAttrs(slog.String(KeyPeer, l.Peer))
	}
	if l.PeerID != "" {
		r.AddAttrs(slog.String(KeyPeerID, l.PeerID))
	}
	r.AddAttrs(l.Facts...)
	return r
}

// size is what a line takes in memory, about.
func (l *Line) size() int {
	n := 160 + len(l.Text) + len(l.Conn) + len(l.Peer) + len(l.PeerID)
	for _, a := range l.Facts {
		n += 48 + len(a.Key)
		if a.Value.Kind() == slog.KindString {
			n += len(a.Value.String())
		}
	}
	return n
}

// address is the peer's address without port.
func (l *Line) address() netip.Addr {
	if ap, err := netip.ParseAddrPort(l.Peer); err == nil {
		return ap.Addr().Unmap()
	}
	a, _ := netip.ParseAddr(l.Peer)
	return a.Unmap()
}

// message is the text with the facts of lines that are no events, on one line.
func (l *Line) message() string {
	if l.Event || len(l.Facts) == 0 {
		return Printable(l.Text)
	}
	var b strings.Builder
	b.WriteString(Printable(l.Text))
	for _, a := range l.Facts {
		fmt.Fprintf(&b, ", %s %s", Printable(a.Key), Printable(a.Value.String()))
	}
	return b.String()
}

// Printable writes control characters, line separators and what is no UTF-8 as
// escapes, so that a text stays on its line and moves no terminal.
func Printable(s string) string {
	plain := true
	for _, r := range s {
		if hidden(r) {
			plain = false
			break
		}
	}
	if plain && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\r':
			b.WriteString(`\r`)
		case r < 0x80 && hidden(r):
			fmt.Fprintf(&b, `\x%02x`, r)
		case hidden(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteString(s[:n])
		}
		s = s[n:]
	}
	return b.String()
}

// hidden are characters that end lines, move the cursor or turn the direction of text.
func hidden(r rune) bool {
	return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || unicode.Is(unicode.Cf, r)
}

func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "…"
}

// levelOf is strongSwan's level of a record that has none.
func levelOf(s slog.Level) int8 {
	switch {
	case s >= slog.LevelWarn:
		return 0
	case s >= slog.LevelInfo:
		return 1
	}
	return 2
}

// withAttrs is a handler of a logger that was made with With or WithGroup.
type withAttrs struct {
	hub    *Hub
	prefix string
	attrs  []slog.Attr
}

func (w *withAttrs) Enabled(ctx context.Context, l slog.Level) bool { return w.hub.Enabled(ctx, l) }

func (w *withAttrs) Handle(_ context.Context, r slog.Record) error {
	if w.prefix != "" {
		named := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
		r.Attrs(func(a slog.Attr) bool {
			named.AddAttrs(slog.Attr{Key: w.prefix + a.Key, Value: a.Value})
			return true
		})
		r = named
	}
	w.hub.spread(newLine(r, w.attrs))
	return nil
}

func (w *withAttrs) WithAttrs(as []slog.Attr) slog.Handler {
	n := &withAttrs{hub: w.hub, prefix: w.prefix, attrs: append([]slog.Attr(nil), w.attrs...)}
	for _, a := range as {
		n.attrs = append(n.attrs, slog.Attr{Key: w.prefix + a.Key, Value: a.Value})
	}
	return n
}

func (w *withAttrs) WithGroup(name string) slog.Handler {
	if name == "" {
		return w
	}
	return &withAttrs{hub: w.hub, prefix: w.prefix + name + ".", attrs: w.attrs}
}

package logging

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// openSink opens what a target writes to; again says that it was open before.
func openSink(t Target, again bool) (sink, error) {
	switch t.Kind {
	case Stderr:
		return newStream(t, os.Stderr, nil), nil
	case Stdout:
		return newStream(t, os.Stdout, nil), nil
	case File:
		return openFile(t, again)
	case Syslog:
		return openSyslog(t)
	case Journal:
		return openJournal(t)
	case Forward:
		return forward{t.Handler}, nil
	}
	return nil, fmt.Errorf("logging: no such kind of target: %s", t.Kind)
}

// forward hands lines to another handler.
type forward struct{ h slog.Handler }

func (f forward) write(l *Line) error {
	if !f.h.Enabled(context.Background(), l.Severity) {
		return nil
	}
	return f.h.Handle(context.Background(), l.record())
}
func (forward) flush() error { return nil }
func (forward) close()       {}

// stream writes lines as text: to a file or to one of the program's own streams.
type stream struct {
	t      Target
	out    *bufio.Writer
	closer io.Closer // nil: stays open
	line   bytes.Buffer
	slog   slog.Handler // of targets that go by severity
}

func newStream(t Target, w io.Writer, c io.Closer) *stream {
	s := &stream{t: t, out: bufio.NewWriterSize(w, 32<<10), closer: c}
	if t.BySeverity {
		opt := &slog.HandlerOptions{Level: slog.Level(-128)} // Takes has decided
		if s.slog = slog.NewTextHandler(&s.line, opt); t.Format == "json" {
			s.slog = slog.NewJSONHandler(&s.line, opt)
		}
	}
	return s
}

// openFile opens a log file, for appending unless it is to begin empty with the
// program. Whoever may read it is left to the directory and the operator's umask.
func openFile(t Target, again bool) (sink, error) {
	if err := os.MkdirAll(filepath.Dir(t.Path), 0o755); err != nil {
		return nil, err
	}
	mode := os.O_CREATE | os.O_WRONLY | os.O_APPEND
	if !t.Append && !again {
		mode |= os.O_TRUNC
	}
	f, err := os.OpenFile(t.Path, mode, 0o640)
	if err != nil {
		return nil, err
	}
	return newStream(t, f, f), nil
}

func (s *stream) write(l *Line) error {
	s.line.Reset()
	switch {
	case s.slog != nil:
		if err := s.slog.Handle(context.Background(), l.record()); err != nil {
			return err
		}
	case s.t.JSON:
		s.json(l)
	default:
		s.text(l)
	}
	if _, err := s.out.Write(s.line.Bytes()); err != nil {
		return err
	}
	if s.t.FlushLine {
		return s.out.Flush()
	}
	return nil
}

func (s *stream) flush() error { return s.out.Flush() }

func (s *stream) close() {
	_ = s.out.Flush()
	if s.closer != nil {
		_ = s.closer.Close()
	}
}

// stamp is the time as the target wants it, empty: not at all.
func (s *stream) stamp(at time.Time) string {
	if s.t.TimeFormat == "" {
		return ""
	}
	text := Strftime(s.t.TimeFormat, at)
	switch s.t.Precision {
	case "ms":
		text += fmt.Sprintf(".%03d", at.Nanosecond()/1e6)
	case "us":
		text += fmt.Sprintf(".%06d", at.Nanosecond()/1e3)
	}
	return text
}

// text is a line as charon's file logger writes it: time, thread, group, IKE SA, text.
func (s *stream) text(l *Line) {
	if at := s.stamp(l.Time); at != "" {
		s.line.WriteString(at)
		s.line.WriteByte(' ')
	}
	s.line.WriteString("00")
	s.line.WriteString(lead(s.t, l))
	s.line.WriteByte(' ')
	s.line.WriteString(l.message())
	s.line.WriteByte('\n')
}

// lead is the group and the IKE SA before the text.
func lead(t Target, l *Line) string {
	var b strings.Builder
	b.WriteByte('[')
	b.WriteString(Printable(l.Group))
	if t.LogLevel {
		b.WriteString(strconv.Itoa(int(l.Level)))
	}
	b.WriteByte(']')
	if t.IKEName && (l.IKE != 0 || l.Conn != "") {
		b.WriteString(" <")
		b.WriteString(Printable(l.Conn))
		if l.Conn != "" {
			b.WriteByte('|')
		}
		b.WriteString(strconv.FormatUint(l.IKE, 10))
		b.WriteByte('>')
	}
	return b.String()
}

// json is a line as charon's file logger writes it with json = yes, followed by what
// else is known.
func (s *stream) json(l *Line) {
	b := &s.line
	b.WriteByte('{')
	member := func(key string, v any) {
		text, err := json.Marshal(v)
		if err != nil {
			text, _ = json.Marshal(fmt.Sprint(v))
		}
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		name, _ := json.Marshal(key)
		b.Write(name)
		b.WriteByte(':')
		b.Write(text)
	}
	if at := s.stamp(l.Time); at != "" {
		member("time", at)
	}
	member("thread", 0)
	member("group", l.Group)
	member("level", l.Level)
	if s.t.IKEName && l.IKE != 0 {
		member("ikesa-uniqueid", strconv.FormatUint(l.IKE, 10))
	}
	if s.t.IKEName && l.Conn != "" {
		member("ikesa-name", l.Conn)
	}
	member("msg", l.Text)
	if l.Peer != "" {
		member("peer", l.Peer)
	}
	if l.PeerID != "" {
		member("peer-id", l.PeerID)
	}
	for _, a := range l.Facts {
		member(factName(a.Key), factValue(a.Value))
	}
	b.WriteString("}\n")
}

// factName keeps facts apart from the members that lines have anyway.
func factName(key string) string {
	switch key {
	case "time", "thread", "group", "level", "ikesa-uniqueid", "ikesa-name", "msg", "peer", "peer-id":
		return "fact-" + key
	}
	return key
}

func factValue(v slog.Value) any {
	switch v.Kind() {
	case slog.KindInt64, slog.KindUint64, slog.KindBool:
		return v.Any()
	}
	return v.String()
}

// Strftime formats a time as strftime(3) does in the C locale; what it does not know
// stays as it is.
func Strftime(format string, t time.Time) string {
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		c := format[i]
		if c != '%' || i+1 == len(format) {
			b.WriteByte(c)
			continue
		}
		i++
		if layout, ok := timeLayouts[format[i]]; ok {
			b.WriteString(t.Format(layout))
			continue
		}
		switch format[i] {
		case '%':
			b.WriteByte('%')
		case 'n', 't':
			b.WriteByte(' ') // a line stays one line
		case 's':
			b.WriteString(strconv.FormatInt(t.Unix(), 10))
		case 'j':
			fmt.Fprintf(&b, "%03d", t.YearDay())
		case 'k':
			fmt.Fprintf(&b, "%2d", t.Hour())
		case 'l':
			fmt.Fprintf(&b, "%2d", (t.Hour()+11)%12+1)
		case 'C':
			fmt.Fprintf(&b, "%02d", t.Year()/100)
		case 'u':
			b.WriteString(strconv.Itoa((int(t.Weekday())+6)%7 + 1))
		case 'w':
			b.WriteString(strconv.Itoa(int(t.Weekday())))
		case 'G':
			year, _ := t.ISOWeek()
			b.WriteString(strconv.Itoa(year))
		case 'V':
			_, week := t.ISOWeek()
			fmt.Fprintf(&b, "%02d", week)
		default:
			b.WriteString(Printable(format[i-1 : i+1]))
		}
	}
	return Printable(b.String())
}

var timeLayouts = map[byte]string{
	'Y': "2006", 'y': "06", 'm': "01", 'd': "02", 'e': "_2", 'H': "15", 'I': "03", 'M': "04", 'S': "05", 'p': "PM",
	'b': "Jan", 'h': "Jan", 'B': "January", 'a': "Mon", 'A': "Monday", 'Z': "MST", 'z': "-0700",
	'T': "15:04:05", 'R': "15:04", 'F': "2006-01-02", 'D': "01/02/06", 'x': "01/02/06", 'X': "15:04:05",
	'c': "Mon Jan _2 15:04:05 2006", 'r': "03:04:05 PM",
}

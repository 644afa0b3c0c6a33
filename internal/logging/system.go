package logging

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Sockets of the system's logs.
const (
	syslogSocket  = "/dev/log"
	journalSocket = "/run/systemd/journal/socket"
)

// Severities of syslog, which the journal shares (RFC 5424 §6.2.1).
const (
	severityError   = 3
	severityWarning = 4
	severityNotice  = 5
	severityInfo    = 6
	severityDebug   = 7
)

// OnJournal reports whether standard error goes to the journal: JOURNAL_STREAM names
// its device and inode (systemd.exec(5)).
func OnJournal() bool {
	var st unix.Stat_t
	return unix.Fstat(2, &st) == nil && os.Getenv("JOURNAL_STREAM") == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// priority is the severity of a line for the journal, that of strongSwan's journal
// logger; warnings and errors are our own.
func priority(l *Line) int {
	switch {
	case l.Severity >= slog.LevelError:
		return severityError
	case l.Severity >= slog.LevelWarn:
		return severityWarning
	case l.Level <= 0:
		return severityNotice
	case l.Level == 1:
		return severityInfo
	}
	return severityDebug
}

// journal speaks the journal's native protocol: one datagram a line, one field after
// the other. Lines are bounded so that a datagram always takes them.
type journal struct {
	conn net.Conn
	t    Target
	buf  bytes.Buffer
}

func openJournal(t Target) (sink, error) {
	path := t.Path
	if path == "" {
		path = journalSocket
	}
	c, err := net.Dial("unixgram", path)
	if err != nil {
		return nil, err
	}
	return &journal{conn: c, t: t}, nil
}

func (j *journal) write(l *Line) error {
	j.buf.Reset()
	id := j.t.Identifier
	if id == "" {
		id = "adit"
	}
	j.field("MESSAGE", l.Text)
	if !l.Event {
		j.buf.Reset()
		j.field("MESSAGE", l.message())
	}
	j.field("PRIORITY", strconv.Itoa(priority(l)))
	j.field("SYSLOG_IDENTIFIER", id)
	j.field("GROUP", l.Group)
	j.field("LEVEL", strconv.Itoa(int(l.Level)))
	if l.Conn != "" {
		j.field("CONN", l.Conn)
		j.field("IKE_SA_NAME", l.Conn) // strongSwan's name for it
	}
	if l.IKE != 0 {
		j.field("IKE", strconv.FormatUint(l.IKE, 10))
		j.field("IKE_SA_UNIQUE_ID", strconv.FormatUint(l.IKE, 10))
	}
	if l.Peer != "" {
		j.field("PEER", l.Peer)
	}
	if l.PeerID != "" {
		j.field("PEER_ID", l.PeerID)
	}
	for _, a := range l.Facts {
		if name := fieldName(a.Key); name != "" && j.buf.Len() < limitDatagram {
			j.field(name, a.Value.String())
		}
	}
	_ = j.conn.SetWriteDeadline(time.Now().Add(writeLimit))
	_, err := j.conn.Write(j.buf.Bytes())
	if errors.Is(err, unix.EMSGSIZE) { // a socket buffer made very small
		j.buf.Reset()
		j.field("MESSAGE", cut(l.Text, 1<<10))
		j.field("PRIORITY", strconv.Itoa(priority(l)))
		_, err = j.conn.Write(j.buf.Bytes())
	}
	return err
}

// limitDatagram is where no further fact is added to a datagram.
const limitDatagram = 64 << 10

// field appends one field; text of several lines is preceded by its length.
func (j *journal) field(name, value string) {
	j.buf.WriteString(name)
	if strings.ContainsRune(value, '\n') {
		j.buf.WriteByte('\n')
		_ = binary.Write(&j.buf, binary.LittleEndian, uint64(len(value)))
	} else {
		j.buf.WriteByte('=')
	}
	j.buf.WriteString(value)
	j.buf.WriteByte('\n')
}

// fieldName is an attribute's name as a field of the journal: capitals, digits and
// underscores, at most 64 and none of the journal's own.
func fieldName(key string) string {
	name := strings.TrimLeft(strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z' || r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, key), "_0123456789")
	if len(name) > 57 {
		name = name[:57]
	}
	switch name {
	case "":
		return ""
	case "MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER", "GROUP", "LEVEL", "CONN", "IKE", "PEER", "PEER_ID", "IKE_SA_NAME", "IKE_SA_UNIQUE_ID":
		return "FACT_" + name
	}
	return name
}

func (j *journal) flush() error { return nil }
func (j *journal) close()       { _ = j.conn.Close() }

// syslog writes to the local daemon in the format that it takes from syslog(3).
type syslog struct {
	conn   net.Conn
	stream bool // records end by a NUL
	t      Target
}

func openSyslog(t Target) (sink, error) {
	path := t.Path
	if path == "" {
		path = syslogSocket
	}
	s := &syslog{t: t}
	var err error
	if s.conn, err = net.Dial("unixgram", path); err != nil {
		if s.conn, err = net.Dial("unix", path); err != nil {
			return nil, err
		}
		s.stream = true
	}
	return s, nil
}

func (s *syslog) write(l *Line) error {
	severity := severityInfo
	if s.t.MapLevel >= 0 {
		severity = min(int(s.t.MapLevel)+int(max(l.Level, 0)), severityDebug)
	}
	id := s.t.Identifier
	if id == "" {
		id = "adit"
	}
	text := fmt.Sprintf("<%d>%s %s[%d]: 00%s %s", facilityCode(s.t.Facility)<<3|severity, l.Time.Format(time.Stamp),
		Printable(id), os.Getpid(), lead(s.t, l), l.message())
	if s.stream {
		text += "\x00"
	}
	_ = s.conn.SetWriteDeadline(time.Now().Add(writeLimit))
	_, err := s.conn.Write([]byte(text))
	return err
}

func (s *syslog) flush() error { return nil }
func (s *syslog) close()       { _ = s.conn.Close() }

// facilityCode is the number of a facility (RFC 5424 §6.2.1), daemon where there is none.
func facilityCode(name string) int {
	for i, n := range []string{"kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
		"", "", "", "", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7"} {
		if n == name && n != "" {
			return i
		}
	}
	return 3
}

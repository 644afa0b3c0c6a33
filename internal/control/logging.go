package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"adit/conf"
	"adit/internal/config"
	"adit/internal/gateway"
	"adit/internal/logging"
	"adit/vici"
)

// Commands and events of adit's own about its log:
//
//	get-log {conn, peer, level, count}   streams the last lines as list-log events
//	set-log {level, group, conn, peer, seconds}   sets a level at run time; reset = yes
//	        takes back the one of that scope (all without one); neither only tells
//	adit-log   every line as it comes, for who registered
const (
	lineEvent   = "adit-log"
	recentEvent = "list-log"
	longestRule = 30 * 24 * time.Hour
)

var errNoLog = errors.New("this gateway was started without a log of its own")

// followLog publishes the hub's lines to the clients that registered for them. The
// program's own lines (what was loaded, what is wrong with a file) are strongSwan's event
// log, too: there is no engine's event for them that logEvent would see.
func (c *controller) followLog() (stop func()) {
	if c.opt.Logs == nil {
		return func() {}
	}
	return c.opt.Logs.Follow(func() bool { return c.srv.Wanted(lineEvent) || c.srv.Wanted("log") }, func(l *logging.Line) {
		if c.srv.Wanted(lineEvent) {
			_ = c.srv.Publish(lineEvent, lineBody(l)) // too long for VICI: then it is in the log only
		}
		if !l.Event && l.Level <= 1 && c.srv.Wanted("log") {
			_ = c.srv.Publish("log", recordBody(gateway.Record{Group: l.Group, Level: int(l.Level), Name: l.Conn, ID: uint32(l.IKE), Text: lineText(l)}))
		}
	})
}

// lineText is a line with its facts behind it.
func lineText(l *logging.Line) string {
	text := l.Text
	for _, a := range l.Facts {
		if a.Key != "stack" {
			text += fmt.Sprintf(" %s=%v", a.Key, a.Value)
		}
	}
	return text
}

// lineBody is a line with all that is known, in the words of the event log.
func lineBody(l *logging.Line) *conf.Section {
	m := conf.New("")
	m.Set("time", l.Time.Format(time.RFC3339Nano))
	m.Set("group", l.Group)
	m.Setf("level", "%d", l.Level)
	m.Set("severity", severity(l.Severity))
	if l.Conn != "" {
		m.Set("ikesa-name", l.Conn)
		m.Setf("ikesa-uniqueid", "%d", l.IKE)
	}
	if l.Peer != "" {
		m.Set("peer", l.Peer)
	}
	if l.PeerID != "" {
		m.Set("peer-id", l.PeerID)
	}
	m.Set("msg", l.Text)
	if len(l.Facts) > 0 {
		f := m.Add("facts")
		for _, a := range l.Facts {
			if a.Key != "stack" {
				f.Set(a.Key, a.Value.String())
			}
		}
	}
	return m
}

func severity(s slog.Level) string { return strings.ToLower(s.String()) }

func (c *controller) getLog(_ context.Context, req *vici.Request) (*conf.Section, error) {
	if c.opt.Logs == nil {
		return reply(errNoLog), nil
	}
	level := int8(logging.LevelMost)
	if text := req.Msg.Text("level"); text != "" {
		var err error
		if level, err = logLevel(text); err != nil {
			return reply(err), nil
		}
	}
	who := logging.Matcher{Conn: req.Msg.Text("conn"), Peer: req.Msg.Text("peer")}
	lines := c.opt.Logs.Recent(int(number(req.Msg, "count")), func(l *logging.Line) bool { return l.Level <= level && who.Match(l) })
	for _, l := range lines {
		if err := req.Emit(recentEvent, lineBody(l)); err != nil && !errors.Is(err, vici.ErrTooLong) {
			return nil, err
		}
	}
	return reply(nil), nil
}

func logLevel(text string) (int8, error) {
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 8)
	if err != nil || n < int64(logging.LevelSilent) || n > int64(logging.LevelMost) {
		return 0, fmt.Errorf("level %q: use -1 (nothing) to 4; 1 is what is usual, 2 has detail", text)
	}
	return int8(n), nil
}

func (c *controller) setLog(_ context.Context, req *vici.Request) (*conf.Section, error) {
	if c.opt.Logs == nil {
		return reply(errNoLog), nil
	}
	m := req.Msg
	rule := logging.Rule{Group: strings.ToLower(m.Text("group")), Conn: m.Text("conn"), Peer: m.Text("peer")}
	if rule.Group != "" && !slices.Contains(config.LogGroups, rule.Group) {
		return reply(fmt.Errorf("there is no group %q: use %s", rule.Group, strings.Join(config.LogGroups, ", "))), nil
	}
	switch {
	case m.Text("reset") == "yes":
		if n := c.opt.Logs.Unset(rule); n == 0 && rule != (logging.Rule{}) {
			return reply(errors.New("no such level was set")), nil
		}
	case m.Text("level") != "":
		var err error
		if rule.Level, err = logLevel(m.Text("level")); err != nil {
			return reply(err), nil
		}
		if s := time.Duration(number(m, "seconds")) * time.Second; s > longestRule {
			return reply(fmt.Errorf("%v is too long: %v at most, or for good with 0", s, longestRule)), nil
		} else if s > 0 {
			rule.Until = time.Now().Add(s)
		}
		if err := c.opt.Logs.Set(rule); err != nil {
			return reply(err), nil
		}
	}
	out := reply(nil)
	list := out.Add("rules")
	for i, r := range c.opt.Logs.Rules() {
		s := list.Add(strconv.Itoa(i + 1))
		s.Setf("level", "%d", r.Level)
		for _, kv := range [][2]string{{"group", r.Group}, {"conn", r.Conn}, {"peer", r.Peer}} {
			if kv[1] != "" {
				s.Set(kv[0], kv[1])
			}
		}
		if !r.Until.IsZero() {
			s.Setf("seconds", "%d", max(1, int64((time.Until(r.Until)+time.Second-1)/time.Second)))
		}
	}
	return out, nil
}

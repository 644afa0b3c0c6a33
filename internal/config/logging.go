package config

import (
	"path/filepath"
	"slices"
	"strings"

	"adit/conf"
)

// LogKind is where log records go.
type LogKind string

// The kinds. Stdout and stderr are filelogs with these names.
const (
	LogFile    LogKind = "file"
	LogStdout  LogKind = "stdout"
	LogStderr  LogKind = "stderr"
	LogSyslog  LogKind = "syslog"
	LogJournal LogKind = "journal"
)

// Levels of a log group, strongSwan's.
const (
	LogSilent  int8 = -1
	LogAudit   int8 = 0
	LogControl int8 = 1 // the default
	LogDetail  int8 = 2
	LogRaw     int8 = 3
	LogPrivate int8 = 4 // with keys
)

// LogGroups are the subsystems that have a level of their own, by strongSwan's names.
var LogGroups = []string{"app", "asn", "cfg", "chd", "dmn", "enc", "esp", "ike", "imc", "imv", "job", "knl", "lib", "mgr", "net", "pts", "tls", "tnc", "wch"}

// limitLogs bounds the targets of one configuration.
const limitLogs = 64

// LogTarget is a section of `filelog` or `syslog`, or the section `journal`: where
// log records go, which of them, and how they look there. No target at all is the
// program's own default.
type LogTarget struct {
	Kind LogKind
	// Name is the section's: a file, a facility, or journal.
	Name string
	// Path is the absolute name of the file of LogFile, else empty.
	Path string
	// Facility is that of LogSyslog: daemon, auth …; Identifier precedes its records
	// (syslog.identifier), empty: the program's name.
	Facility, Identifier string

	Default int8            // level of the groups that Levels has not, LogSilent to LogPrivate
	Levels  map[string]int8 // by the names of LogGroups

	Append    bool // to what the file has; otherwise it is emptied first
	FlushLine bool // every record is written at once
	IKEName   bool // connection's name and unique number in every record
	LogLevel  bool // the level behind the group's name
	JSON      bool // one JSON object a line
	// TimeFormat is strftime(3)'s, empty: no time; Precision is "", "ms" or "us" and
	// says what is added to it after a dot.
	TimeFormat, Precision string
	// MapLevel is the syslog severity of level 0, from which the higher ones count on;
	// -1: all are LOG_INFO.
	MapLevel int8

	Pos conf.Pos
}

// Level is the highest level of a group's records that the target takes.
func (t LogTarget) Level(group string) int8 {
	if l, ok := t.Levels[group]; ok {
		return l
	}
	return t.Default
}

// facilities are the names of syslog's facilities that strongSwan knows, with others
// of syslog(3).
var facilities = []string{"auth", "authpriv", "cron", "daemon", "ftp", "kern", "lpr", "mail", "news", "syslog", "user", "uucp",
	"local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7"}

// logOptions are the values of a log target besides the levels of groups.
var logOptions = []option[LogTarget]{
	{name: "path", set: into(func(t *LogTarget) *string { return &t.Path }, conf.Value.One)},
	{name: "default", set: into(func(t *LogTarget) *int8 { return &t.Default }, logLevelOf)},
	{name: "append", set: into(func(t *LogTarget) *bool { return &t.Append }, boolOf)},
	{name: "flush_line", set: into(func(t *LogTarget) *bool { return &t.FlushLine }, boolOf)},
	{name: "ike_name", set: into(func(t *LogTarget) *bool { return &t.IKEName }, boolOf)},
	{name: "json", set: into(func(t *LogTarget) *bool { return &t.JSON }, boolOf)},
	{name: "log_level", set: into(func(t *LogTarget) *bool { return &t.LogLevel }, boolOf)},
	{name: "time_format", set: into(func(t *LogTarget) *string { return &t.TimeFormat }, conf.Value.One)},
	{name: "time_precision", set: into(func(t *LogTarget) *string { return &t.Precision }, oneOf([]string{"", "ms", "us"}, []string{"", "ms", "us"}))},
	{name: "time_add_ms", set: func(_ *decoder, t *LogTarget, v conf.Value) error {
		yes, err := v.Bool()
		if yes {
			t.Precision = "ms"
		}
		return err
	}},
	{name: "map_level", set: into(func(t *LogTarget) *int8 { return &t.MapLevel }, func(v conf.Value) (int8, error) {
		n, err := v.Int(-1, 7)
		return int8(n), err
	})},
}

// logLevelOf reads a level. What is beyond the range means its end, as for charon.
func logLevelOf(v conf.Value) (int8, error) {
	n, err := v.Int(-1<<31, 1<<31)
	return int8(min(max(n, int64(LogSilent)), int64(LogPrivate))), err
}

// decodeLogs reads the sections filelog, syslog and journal of one section of
// strongswan.conf; a target that a former section had is changed.
func (d *decoder) decodeLogs(dm *Daemon, s *conf.Section) {
	for sub := range s.Sub("filelog").Sections() {
		kind := LogFile
		if sub.Name == "stdout" || sub.Name == "stderr" {
			kind = LogKind(sub.Name)
		}
		t := d.decodeLog(dm, sub, kind)
		if t == nil || kind != LogFile {
			continue
		}
		if t.Path == "" {
			t.Path = sub.Name
		}
		if t.Path == "stdout" || t.Path == "stderr" {
			t.Kind, t.Path = LogKind(t.Path), ""
		} else if !filepath.IsAbs(t.Path) {
			d.failf(sub.Pos, "%s: %q is no absolute file name: give it with path =", sub.Path(), t.Path)
		}
	}
	identifier := s.Sub("syslog").Text("identifier")
	for sub := range s.Sub("syslog").Sections() {
		if !slices.Contains(facilities, sub.Name) {
			d.failf(sub.Pos, "%s: unknown syslog facility%s", sub.Path(), didYouMean(sub.Name, facilities))
			continue
		}
		if t := d.decodeLog(dm, sub, LogSyslog); t != nil {
			t.Facility = sub.Name
		}
	}
	for i := range dm.Logs {
		if dm.Logs[i].Kind == LogSyslog && identifier != "" {
			dm.Logs[i].Identifier = identifier
		}
	}
	if j := s.Sub("journal"); j != nil && j.Len() > 0 {
		d.decodeLog(dm, j, LogJournal)
	}
}

// decodeLog reads one target, new or of a former section.
func (d *decoder) decodeLog(dm *Daemon, s *conf.Section, kind LogKind) *LogTarget {
	i := slices.IndexFunc(dm.Logs, func(t LogTarget) bool {
		return t.Name == s.Name && (t.Kind == LogSyslog) == (kind == LogSyslog) && (t.Kind == LogJournal) == (kind == LogJournal)
	})
	if i < 0 {
		if len(dm.Logs) == limitLogs {
			d.failf(s.Pos, "%s: more than %d targets of logs", s.Path(), limitLogs)
			return nil
		}
		i = len(dm.Logs)
		dm.Logs = append(dm.Logs, LogTarget{Kind: kind, Name: s.Name, Default: LogControl, Append: true, MapLevel: -1, Pos: s.Pos})
	}
	t := &dm.Logs[i]
	for v := range s.Values() {
		if slices.Contains(LogGroups, strings.ToLower(v.Key)) {
			level, err := logLevelOf(v)
			d.fail(err)
			if t.Levels == nil {
				t.Levels = map[string]int8{}
			}
			t.Levels[strings.ToLower(v.Key)] = level
			continue
		}
		k := slices.IndexFunc(logOptions, func(o option[LogTarget]) bool { return o.name == v.Key })
		if k < 0 {
			d.warn(v.Pos, v.Path()+" has no effect: it is no group and no option of logs"+didYouMean(v.Key, append(names(logOptions), LogGroups...)))
			continue
		}
		d.fail(logOptions[k].set(d, t, v))
	}
	return t
}

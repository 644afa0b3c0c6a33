package config_test

import (
	"reflect"
	"strings"
	"testing"

	"adit/conf"
	"adit/internal/config"
)

func daemonOf(t *testing.T, text string) (config.Daemon, error) {
	t.Helper()
	root, err := conf.ParseBytes("strongswan.conf", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return config.DecodeDaemon(root)
}

func TestLogTargets(t *testing.T) {
	d, err := daemonOf(t, `
charon {
	filelog {
		charon {
			path = /var/log/charon.log
			time_format = %b %e %T
			time_precision = ms
			append = no
			flush_line = yes
			ike_name = yes
			json = yes
			default = 2
			ike = -1
			knl = 9
		}
		stderr { log_level = yes }
		/var/log/other { default = 0 }
	}
	syslog {
		identifier = vpn
		daemon { map_level = 5 }
		auth { default = -1
			ike = 0 }
	}
	journal { default = 0 }
}
charon-systemd {
	journal { ike = 2 }
}
adit {
	filelog { charon { default = 1 } }
}`)
	if err != nil {
		t.Fatal(err)
	}
	want := []config.LogTarget{
		{Kind: config.LogFile, Name: "charon", Path: "/var/log/charon.log", Default: 1, Levels: map[string]int8{"ike": -1, "knl": 4},
			FlushLine: true, IKEName: true, JSON: true, TimeFormat: "%b %e %T", Precision: "ms", MapLevel: -1},
		{Kind: config.LogStderr, Name: "stderr", Default: 1, Append: true, LogLevel: true, MapLevel: -1},
		{Kind: config.LogFile, Name: "/var/log/other", Path: "/var/log/other", Append: true, MapLevel: -1},
		{Kind: config.LogSyslog, Name: "daemon", Facility: "daemon", Identifier: "vpn", Default: 1, Append: true, MapLevel: 5},
		{Kind: config.LogSyslog, Name: "auth", Facility: "auth", Identifier: "vpn", Default: -1, Levels: map[string]int8{"ike": 0}, Append: true, MapLevel: -1},
		{Kind: config.LogJournal, Name: "journal", Levels: map[string]int8{"ike": 2}, Append: true, MapLevel: -1},
	}
	for i := range d.Logs {
		d.Logs[i].Pos = conf.Pos{}
	}
	if !reflect.DeepEqual(d.Logs, want) {
		t.Errorf("got\n%+v\nwant\n%+v", d.Logs, want)
	}
	if l := d.Logs[0].Level("ike"); l != config.LogSilent {
		t.Errorf("level of ike is %d", l)
	}
	if l := d.Logs[0].Level("net"); l != config.LogControl {
		t.Errorf("level of net is %d", l)
	}
}

func TestLogTargetErrors(t *testing.T) {
	for text, want := range map[string]string{
		"charon { filelog { log { default = 1 } } }":          "no absolute file name",
		"charon { filelog { log { path = x } } }":             "no absolute file name",
		"charon { syslog { deamon { default = 1 } } }":        "did you mean daemon?",
		"charon { filelog { stderr { default = loud } } }":    "loud",
		"charon { filelog { stderr { time_precision=ns } } }": "ns",
	} {
		_, err := daemonOf(t, text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", text, err, want)
		}
	}
}

package config_test

import (
	"os"
	"path/filepath"
	"testing"

	"adit/internal/config"
)

func TestPlaces(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	more := write("more.conf", "connections {\n two {\n  version = 2\n }\n}\n")
	file := write("swanctl.conf", "connections {\n gw {\n  proposals = default\n  local {\n   auth = psk\n  }\n  children {\n   net {\n    remote_ts = 10.0.0.0/8\n   }\n  }\n }\n}\nsecrets {\n ike-1 {\n  secret = x\n }\n}\ninclude more.conf\n")
	p, err := config.LocateIn(file)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]struct {
		file  string
		line  int
		given bool
	}{
		"connections.gw.proposals":              {file, 3, true},
		"connections.gw.encap":                  {file, 2, false},
		"connections.gw.local.id":               {file, 4, false},
		"connections.gw.children.net.remote_ts": {file, 9, true},
		"connections.gw.children.net.local_ts":  {file, 8, false},
		"connections.two.version":               {more, 2 + 1, true},
		"secrets.ike-1.secret":                  {file, 16, true},
		"secrets":                               {file, 14, true},
		"connections.other.proposals":           {"", 0, false},
		"pools.v4.addrs":                        {"", 0, false},
	} {
		pos, given := p.Find(path)
		if pos.File != want.file || pos.Line != want.line || given != want.given {
			t.Errorf("%s is at %s, given: %v; want %s:%d, %v", path, pos, given, want.file, want.line, want.given)
		}
	}
	if _, err := config.LocateIn(filepath.Join(dir, "none")); err == nil {
		t.Error("a file that is not there was read")
	}
}

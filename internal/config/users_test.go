package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"adit/conf"
	"adit/internal/config"
	"adit/internal/users"
	"adit/vici"
)

// Users of the file beside swanctl.conf are loaded, and an error in it is one of the whole.
func TestUsersFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "swanctl.conf")
	write := func(name, text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("swanctl.conf", "", 0o600)
	write("users", "alice:44ebba8d5312b8d611474411f56989ae:staff\n", 0o644)
	m, err := config.Load(file, config.Daemon{})
	if err != nil || len(m.Users) != 1 || m.Users[0].Name != "alice" || m.Users[0].Groups[0] != "staff" {
		t.Fatalf("%v %v", m, err)
	}
	if len(m.Warnings) != 1 || !strings.Contains(m.Warnings[0].Text, "others may read it") {
		t.Errorf("%v", m.Warnings)
	}
	write("users", "alice\n", 0o600)
	if _, err := config.Load(file, config.Daemon{}); err == nil || !strings.Contains(err.Error(), "users: line 1") {
		t.Errorf("%v", err)
	}
}

// Many users go in several messages, each of which VICI can carry.
func TestUserSteps(t *testing.T) {
	var all []users.User
	for i := range 10_000 {
		all = append(all, users.User{Name: fmt.Sprintf("user%d@example.org", i), NT: make([]byte, 16), Groups: []string{"staff"}})
	}
	steps := config.UserSteps(all)
	if len(steps) < 2 {
		t.Fatalf("%d steps", len(steps))
	}
	var got []users.User
	for i, s := range steps {
		b, err := vici.Marshal(s.Body)
		if err != nil || len(b) > vici.MaxPacket {
			t.Fatalf("%d bytes: %v", len(b), err)
		}
		list, part, count, err := config.DecodeUsers(s.Body)
		if err != nil || part != i || (count == len(all)) != (i == len(steps)-1) {
			t.Fatalf("part %d, count %d: %v", part, count, err)
		}
		got = append(got, list...)
	}
	if len(got) != len(all) || !got[9999].Equal(all[9999]) {
		t.Errorf("%d users", len(got))
	}
	bad := conf.New("")
	bad.Set("part", "0")
	bad.Add("alice").Set("nt", "short")
	if _, _, _, err := config.DecodeUsers(bad); err == nil || strings.Contains(err.Error(), "short") {
		t.Errorf("%v", err)
	}
}

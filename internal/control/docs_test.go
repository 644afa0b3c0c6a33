package control_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"adit/internal/conn"
)

// ofStrongSwan are the commands and events of strongSwan 6's VICI.
const (
	commandsOfStrongSwan = `version stats reload-settings initiate terminate rekey redirect install uninstall list-sas list-policies list-conns get-conns list-certs
list-authorities get-authorities load-conn unload-conn load-cert load-key unload-key get-keys load-token load-shared unload-shared get-shared flush-certs clear-creds
load-authority unload-authority load-pool unload-pool get-pools get-algorithms get-counters reset-counters`
	eventsOfStrongSwan = "log control-log list-sa list-policy list-conn list-cert list-authority ike-updown ike-rekey ike-update child-updown child-rekey alert"
)

// docs/swanctl.md has every command and event that the server knows, and no others; the
// server knows all of strongSwan's.
func TestSwanctlPage(t *testing.T) {
	b, err := os.ReadFile("../../docs/swanctl.md")
	if err != nil {
		t.Fatal(err)
	}
	s := newSide(t, conn.NewNetwork(), "192.0.2.1")
	commands, events := s.srv.Names()
	for heading, c := range map[string]struct {
		known []string
		least string
	}{"Commands": {commands, commandsOfStrongSwan}, "Events": {events, eventsOfStrongSwan}} {
		_, section, ok := strings.Cut(string(b), "\n## "+heading+"\n")
		if !ok {
			t.Fatalf("the page has no heading %s", heading)
		}
		section, _, _ = strings.Cut(section, "\n## ")
		rows := map[string]string{}
		for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| (supported|refused|own) \\|").FindAllStringSubmatch(section, -1) {
			if rows[m[1]] != "" {
				t.Errorf("%s stands there twice", m[1])
			}
			rows[m[1]] = m[2]
		}
		known := map[string]bool{}
		for _, name := range c.known {
			known[name] = true
			if rows[name] == "" {
				t.Errorf("%s: the page lacks %s", heading, name)
			}
		}
		least := map[string]bool{}
		for _, name := range strings.Fields(c.least) {
			least[name] = true
			if !known[name] {
				t.Errorf("%s: the server lacks %s", heading, name)
			}
		}
		for name, state := range rows {
			if !known[name] || least[name] == (state == "own") {
				t.Errorf("%s: the page has %s as %s", heading, name, state)
			}
		}
	}
}

package gateway_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"adit/ike"
)

// A child's command runs with the Child SA's coming and going: not at its rekeys, not
// another one after a reload or unloading, and once more before a gateway has ended.
func TestUpdownCommand(t *testing.T) {
	file := filepath.Join(t.TempDir(), "calls")
	script := func(word string) string {
		return `updown="echo ` + word + ` $PLUTO_VERB $PLUTO_PEER_CLIENT $PLUTO_UNIQUEID $ADIT_INSTANCE >> ` + file + `"`
	}
	bubble(t, func(t *testing.T) {
		left, right := pair(t)
		defer right.gw.Shutdown()
		left.load(connection("gw", leftAddr, rightAddr, "net:"+leftNet+";"+script("first")))
		up := func() {
			t.Helper()
			if err := left.gw.Initiate(within(time.Minute), "gw", "net"); err != nil {
				t.Fatal(err)
			}
			left.settle()
		}
		up()
		for _, r := range []ike.Rekey{{Child: "net"}, {IKE: "gw"}} {
			if n, err := left.gw.Rekey(within(time.Minute), r); n != 1 || err != nil {
				t.Fatal(n, err)
			}
			time.Sleep(20 * time.Second)
		}
		left.load(connection("gw", leftAddr, rightAddr, "net:"+leftNet+";"+script("second")))
		left.load()
		if n, err := left.gw.Terminate(within(time.Minute), ike.Terminate{IKE: "gw"}); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		left.load(connection("gw", leftAddr, rightAddr, "net:"+leftNet+";"+script("third")))
		up()
		left.gw.Shutdown()
	})
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	if len(lines) != 4 {
		t.Fatalf("%q", lines)
	}
	var words [][]string
	for i, want := range []string{"first up-client 10.2.0.0/24", "first down-client 10.2.0.0/24", "third up-client 10.2.0.0/24", "third down-client 10.2.0.0/24"} {
		if !strings.HasPrefix(lines[i], want+" ") {
			t.Errorf("call %d was %q, not %q", i, lines[i], want)
		}
		words = append(words, strings.Fields(lines[i]))
	}
	if words[0][3] == words[1][3] || words[0][4] != words[1][4] || words[1][4] == words[2][4] || words[2][4] != words[3][4] {
		t.Errorf("numbers and instances of the IKE SA: %q", lines)
	}
}

package control_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"adit/conf"
	"adit/vici"
)

// watch registers for events and returns a function that has the next ones.
func (s *side) watch(events ...string) (next func(n int) []vici.Event) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	c, err := vici.Dial(ctx, s.uri)
	if err != nil {
		s.t.Fatal(err)
	}
	got := make(chan vici.Event, 100)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for e, err := range c.Listen(ctx, events...) {
			if err != nil {
				return
			}
			got <- e
		}
	}()
	s.t.Cleanup(func() { cancel(); <-done })
	for deadline := time.Now().Add(5 * time.Second); !s.registered(events); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatal("the events are not registered for")
		}
	}
	return func(n int) (list []vici.Event) {
		s.t.Helper()
		for len(list) < n {
			select {
			case e := <-got:
				list = append(list, e)
			case <-time.After(10 * time.Second):
				s.t.Fatalf("only %d of %d events came: %v", len(list), n, names(list))
			}
		}
		return list
	}
}

func (s *side) registered(events []string) bool {
	for _, e := range events {
		if !s.srv.Wanted(e) {
			return false
		}
	}
	return true
}

func names(list []vici.Event) string {
	var out []string
	for _, e := range list {
		n := e.Name
		if e.Body.Text("up") == "yes" {
			n += " up"
		}
		out = append(out, n)
	}
	return strings.Join(out, ", ")
}

var saEvents = []string{"ike-updown", "ike-rekey", "ike-update", "child-updown", "child-rekey"}

// The order of events, their nesting and keys are charon's: an IKE SA comes before its
// Child SAs, and goes before them, too.
func TestEvents(t *testing.T) {
	left, right, _ := sides(t)
	here, there := left.watch(saEvents...), right.watch(saEvents...)
	left.ok("initiate", "child = net\ntimeout = 10000\n")
	for who, next := range map[string]func(int) []vici.Event{"initiator": here, "responder": there} {
		list := next(2)
		if got := names(list); got != "ike-updown up, child-updown up" {
			t.Fatalf("%s: %s", who, got)
		}
		up := text(list[0].Body)
		contains(t, up, "up = yes\n", "gw.uniqueid = 1\n", "gw.version = 2\n", "gw.state = ESTABLISHED\n", "gw.remote-id = 192.0.2.", "gw.encr-alg = AES_GCM_16\n", "gw.established = 0\n", "gw.rekey-time = ")
		if strings.Contains(up, "child-sas") {
			t.Errorf("%s: ike-updown lists Child SAs:\n%s", who, up)
		}
		contains(t, text(list[1].Body), "up = yes\n", "gw.state = ESTABLISHED\n", "gw.child-sas.net-1.name = net\n", "gw.child-sas.net-1.state = INSTALLED\n", "net-1.spi-in = ", "net-1.bytes-in = 0\n", "net-1.remote-ts = [10.")
		if who == "responder" != (list[0].Body.Sub("gw").Text("initiator") == "") {
			t.Errorf("%s: initiator = %s", who, list[0].Body.Sub("gw").Text("initiator"))
		}
	}
	spi := func(s *conf.Section) string { return s.Text("spi-in") }
	left.ok("rekey", "child = net\n")
	rekey := here(1)[0]
	if rekey.Name != "child-rekey" {
		t.Fatal(rekey.Name)
	}
	pair := rekey.Body.Sub("gw").Sub("child-sas").Sub("net")
	if pair == nil || spi(pair.Sub("old")) == spi(pair.Sub("new")) || pair.Sub("new").Text("uniqueid") != "2" {
		t.Fatal(text(rekey.Body))
	}
	contains(t, text(rekey.Body), "gw.uniqueid = 1\n", "net.old.uniqueid = 1\n", "net.old.name = net\n", "net.new.state = INSTALLED\n")

	left.ok("rekey", "ike = gw\n")
	rekey = here(1)[0]
	if rekey.Name != "ike-rekey" {
		t.Fatal(rekey.Name)
	}
	contains(t, text(rekey.Body), "gw.old.uniqueid = 1\n", "gw.new.uniqueid = 2\n", "gw.new.state = ESTABLISHED\n", "gw.new.initiator = yes\n", "gw.old.initiator-spi = ")
	if got := names(there(2)); got != "child-rekey, ike-rekey" {
		t.Fatal("responder: " + got)
	}

	counters, _ := left.call("get-counters", "", "")
	contains(t, text(counters), "counters..ike-rekey-init = 1\n", "counters..ike-rekey-resp = 0\n", "counters..child-rekey = 1\n", "counters..ike-init-out-req = 1\n", "counters..ike-init-in-resp = 1\n",
		"counters..ike-auth-out-req = 1\n", "counters..create-child-out-req = 2\n", "counters..create-child-in-resp = 2\n", "counters..invalid-spi = 0\n", "success = yes\n")
	counters, _ = right.call("get-counters", "all = yes\n", "")
	contains(t, text(counters), "counters.gw.ike-rekey-resp = 1\n", "counters.gw.child-rekey = 1\n", "counters.gw.create-child-in-req = 2\n", "counters.gw.create-child-out-resp = 2\n")

	left.ok("terminate", "ike = gw\n")
	for who, next := range map[string]func(int) []vici.Event{"initiator": here, "responder": there} {
		list := next(2)
		if got := names(list); got != "ike-updown, child-updown" {
			t.Fatalf("%s: %s", who, got)
		}
		down := text(list[0].Body)
		contains(t, down, "gw.uniqueid = 2\n", "gw.state = DELETING\n")
		if strings.Contains(down, ".established") || strings.HasPrefix(down, "up = ") {
			t.Errorf("%s: %s", who, down)
		}
		contains(t, text(list[1].Body), "gw.state = DELETING\n", "gw.child-sas.net-2.state = INSTALLED\n", "net-2.bytes-out = 0\n")
	}
}

// What a Child SA has carried stands in the event that tells of its end.
func TestLastCounters(t *testing.T) {
	left, right, _ := sides(t)
	next := left.watch("child-updown")
	left.ok("initiate", "child = net\ntimeout = 10000\n")
	next(1)
	packet := []byte{0x45, 0, 0, 28, 0, 1, 0x40, 0, 64, 253, 0, 0, 10, 1, 0, 2, 10, 2, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8}
	checksum(packet[:20])
	if _, err := left.inner.Write([][]byte{append(make([]byte, 64), packet...)}, 64); err != nil {
		t.Fatal(err)
	}
	if n, err := right.inner.Read([][]byte{make([]byte, 2048)}, []int{0}, 0); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	left.ok("terminate", "child = net\n")
	down := next(1)[0].Body
	contains(t, text(down), "gw.state = ESTABLISHED\n", "gw.child-sas.net-1.bytes-out = 28\n", "net-1.packets-out = 1\n", "net-1.use-out = ")
}

func TestCounters(t *testing.T) {
	left, _, _ := sides(t)
	left.refused("get-counters", "name = gw\n", "no counters found for this connection")
	left.ok("initiate", "child = net\ntimeout = 10000\n")
	got, _ := left.call("get-counters", "name = gw\n", "")
	contains(t, text(got), "counters.gw.ike-auth-in-resp = 1\n", "counters.gw.ike-auth-in-req = 0\n")
	left.ok("reset-counters", "name = gw\n")
	left.refused("get-counters", "name = gw\n", "no counters found for this connection")
	got, _ = left.call("get-counters", "", "")
	contains(t, text(got), "counters..ike-auth-in-resp = 1\n")
	left.ok("reset-counters", "")
	got, _ = left.call("get-counters", "", "")
	contains(t, text(got), "counters..ike-auth-in-resp = 0\n")
	left.ok("terminate", "ike = gw\n")
	left.ok("reset-counters", "all = yes\n")
	if got, _ = left.call("get-counters", "all = yes\n", ""); strings.Contains(text(got), "gw") || got.Text("success") != "yes" {
		t.Error(text(got))
	}
}

package gateway_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"adit/internal/gateway"
)

// silentParts are those that owe an answer for longer than a moment.
func silentParts(g *gateway.Gateway) map[string]time.Duration {
	out := map[string]time.Duration{}
	for _, p := range g.Health() {
		if p.Silent > 2*time.Second {
			out[p.Name] = p.Silent
		}
	}
	return out
}

// A thread that blocks is found within seconds, by name, and the others are not
// blamed; when it goes on, it is found to answer again.
func TestHealth(t *testing.T) {
	bubble(t, func(t *testing.T) {
		left, right := pair(t, func(o *gateway.Options) {
			o.Workers = func(time.Time) []gateway.Part { return []gateway.Part{{Name: "tun-0"}} }
		})
		defer right.gw.Shutdown()
		time.Sleep(10 * time.Second)
		names := map[string]bool{}
		for _, p := range left.gw.Health() {
			names[p.Name] = true
		}
		for _, want := range []string{"engine-0", "host", "log", "pool-0", "tun-0"} {
			if !names[want] {
				t.Errorf("nobody asks %s: %v", want, names)
			}
		}
		if s := silentParts(left.gw); len(s) != 0 {
			t.Errorf("silent at rest: %v", s)
		}
		gate := make(chan struct{})
		block := func() error { <-gate; return errors.New("was stuck") }

		left.mu.Lock()
		left.send = block
		left.mu.Unlock()
		go left.gw.Initiate(within(time.Second), "", "net") //nolint:errcheck // it cannot succeed
		time.Sleep(15 * time.Second)
		if s := silentParts(left.gw); len(s) != 1 || s["engine-0"] < 12*time.Second || s["engine-0"] > 15*time.Second {
			t.Errorf("with a stuck engine: %v", s)
		}
		left.mu.Lock()
		left.send = nil
		left.mu.Unlock()
		close(gate)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if s := silentParts(left.gw); len(s) != 0 {
			t.Errorf("after it went on: %v", s)
		}
		left.gw.Shutdown()
		if p := left.gw.Health(); p != nil {
			t.Errorf("after the end: %v", p)
		}
	})
}

package ikev2_test

import (
	"testing"
	"time"

	"adit/ike"
)

func TestRFC7296_1_2_SetUpWithSharedKey(t *testing.T) {
	p := newPair(t, nil)
	p.a.initiate("net")
	p.run(2 * time.Second)
	p.up()
	if d := eventsOf[ike.CommandDone](p.a); len(d) != 1 || d[0].Err != nil || d[0].ID != 1 {
		t.Errorf("CommandDone: %+v", d)
	}
	for _, h := range []*host{p.a, p.b} {
		if len(eventsOf[ike.IKEUp](h)) != 1 || len(eventsOf[ike.ChildUp](h)) != 1 {
			t.Errorf("%s: up events: %v", h.name, h.trace())
		}
	}
	if t.Failed() {
		for _, l := range append(p.a.trace(), p.b.trace()...) {
			t.Log(l)
		}
	}
}

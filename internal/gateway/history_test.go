package gateway

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"adit/ike"
	"adit/ike/wire"
)

// remembering is a history with a clock that goes on by a second at each event.
func remembering() (h *histories, take func(...ike.Event)) {
	h = &histories{}
	h.init()
	at := time.Unix(1000, 0)
	h.now = func() time.Time { return at }
	return h, func(list ...ike.Event) {
		for _, e := range list {
			at = at.Add(time.Second)
			h.take(e)
		}
	}
}

func refusalOf(conn, child string, reason ike.Reason, difference string) *ike.Rejection {
	return &ike.Rejection{SAKey: ike.SAKey{Name: conn, Child: child, ID: 3}, Reason: reason, Difference: difference, Remote: netip.MustParseAddrPort("192.0.2.2:500")}
}

func TestHistoryCountsAndMends(t *testing.T) {
	h, take := remembering()
	again := func() ike.Event { return refusalOf("gw", "", ike.ReasonAuthentication, "the shared keys differ") }
	take(again(), refusalOf("gw", "net", ike.ReasonSelectors, "a"), refusalOf("gw", "", ike.ReasonSelectors, "b"), again())
	p := h.byName["gw"]
	if n := len(p.Refusals); n != 3 {
		t.Fatalf("%d refusals", n)
	}
	if r := p.Refusals[2]; r.Count != 2 || r.Record.Reason != ike.ReasonAuthentication || r.Last.Sub(r.First) != 3*time.Second {
		t.Errorf("the repeated one: %+v", r)
	}
	sa := ike.SAInfo{Name: "gw", Remote: netip.MustParseAddrPort("192.0.2.2:4500")}
	mended := func() (out []bool) {
		for _, r := range p.Refusals {
			out = append(out, !r.Mended.IsZero())
		}
		return out
	}
	take(refusalOf("", "", ike.ReasonIdentity, "no connection for this identity"))
	take(ike.IKEUp{SA: sa})
	if got := fmt.Sprint(mended()); got != "[false false true]" {
		t.Errorf("the IKE SA came up: mended %s", got)
	}
	if h.strangers[0].Mended.IsZero() {
		t.Error("a stranger whose address has an IKE SA is still one")
	}
	take(ike.ChildUp{SA: sa, Child: ike.ChildInfo{Name: "other"}})
	if got := fmt.Sprint(mended()); got != "[false true true]" {
		t.Errorf("another child came up: mended %s", got)
	}
	take(ike.ChildUp{SA: sa, Child: ike.ChildInfo{Name: "net"}})
	if got := fmt.Sprint(mended()); got != "[true true true]" {
		t.Errorf("the child came up: mended %s", got)
	}
	take(again())
	if r := p.Refusals[2]; r.Count != 1 || !r.Mended.IsZero() {
		t.Errorf("what comes after the mending counts anew: %+v", r)
	}
	take(ike.IKEDown{SA: sa, Reason: "deleted by peer"})
	if p.DownReason != "deleted by peer" || !p.Down.After(p.Up) {
		t.Errorf("%+v", p)
	}
}

func TestHistoryFollowsASetUp(t *testing.T) {
	h, take := remembering()
	m := ike.Message{SAKey: ike.SAKey{Name: "gw", ID: 3}, Out: true, Whole: true, Exchange: wire.ExchangeIKESAInit, Summary: "IKE_SA_INIT request 0", Remote: netip.MustParseAddrPort("192.0.2.2:500")}
	take(m)
	m.Retransmit = 1
	take(m)
	p := h.byName["gw"]
	if p.SetUp == nil || p.SetUp.Sent != 2 || p.SetUp.Auth || p.SetUp.Last.Sub(p.SetUp.First) != time.Second {
		t.Fatalf("%+v", p.SetUp)
	}
	take(ike.Message{SAKey: m.SAKey, Out: true, Whole: true, Exchange: wire.ExchangeIKEAuth, Summary: "IKE_AUTH request 1", Remote: m.Remote})
	if p.SetUp == nil || p.SetUp.Sent != 1 || !p.SetUp.Auth {
		t.Fatalf("%+v", p.SetUp)
	}
	take(refusalOf("gw", "", ike.ReasonNoAnswer, ""))
	if p.SetUp != nil {
		t.Errorf("it ended, and is still under way: %+v", p.SetUp)
	}
}

// Whatever comes, what is remembered is bounded, and the newest stays.
func TestHistoryIsBounded(t *testing.T) {
	h, take := remembering()
	for i := range 500 {
		take(refusalOf("gw", "", ike.ReasonProposal, fmt.Sprint(i)), refusalOf("", "", ike.ReasonProposal, fmt.Sprint(i)),
			ike.Dropped{Reason: ike.DropReason(i % 40), Count: 1})
	}
	if n := len(h.byName["gw"].Refusals); n != limitRefusals || h.byName["gw"].Refusals[n-1].Record.Difference != "499" {
		t.Errorf("%d refusals of a connection", n)
	}
	if n := len(h.strangers); n != limitStrangers || h.strangers[n-1].Record.Difference != "499" {
		t.Errorf("%d strangers", n)
	}
	if n := len(h.trouble); n > limitTrouble {
		t.Errorf("%d reasons", n)
	}
	h.forget("gw")
	if len(h.byName) != 0 {
		t.Error("an unloaded connection is remembered")
	}
}

package gateway

import (
	"strings"
	"testing"

	"adit/ike"
	"adit/ipsec"
)

// wanderers is a data plane of whose SAs one has packets with the addresses of others.
type wanderers struct{ ipsec.Dataplane }

func (wanderers) Query(r ipsec.SARef) (ipsec.SAStats, bool) {
	if r.Child == 7 {
		return ipsec.SAStats{SelectorMismatch: 1000}, true
	}
	return ipsec.SAStats{}, true
}

// Who sends with the address of somebody else is named once, however often.
func TestForeignInnerAddressesAreTold(t *testing.T) {
	g := &Gateway{}
	g.opt.Dataplane = wanderers{}
	var lines []string
	g.bus.subscribe(g.strays)
	g.bus.subscribe(func(e ike.Event) {
		if n, ok := e.(ike.Note); ok {
			lines = append(lines, n.Text)
		}
	})
	sa := ike.SAInfo{Name: "rw", ID: 3, RemoteEAPID: "mallory"}
	g.bus.publish(ike.ChildDown{SA: sa, Child: ike.ChildInfo{ID: 6}})
	g.bus.publish(ike.ChildDown{SA: sa, Child: ike.ChildInfo{ID: 7}})
	if len(lines) != 1 || !strings.Contains(lines[0], `1000 packets of "mallory" were dropped`) {
		t.Errorf("%q", lines)
	}
	g.bus.publish(ike.ChildRekeyed{SA: sa, Old: ike.ChildInfo{ID: 7}, New: ike.ChildInfo{ID: 8}})
	if len(lines) != 2 {
		t.Errorf("%q", lines)
	}
}

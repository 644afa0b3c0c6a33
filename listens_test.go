package adit

import (
	"net/netip"
	"testing"

	"adit/internal/conn"
	"adit/internal/hostnet"
)

// IKE that comes to an address of an interface that strongswan.conf leaves out is dropped.
func TestListens(t *testing.T) {
	at := func(k conn.Kind) *conn.Packet {
		return &conn.Packet{Kind: k, Local: netip.MustParseAddrPort("127.0.0.1:500")}
	}
	for _, c := range []struct {
		use, ignore []string
		want        bool
	}{{nil, nil, true}, {[]string{"lo"}, nil, true}, {[]string{"eth9"}, nil, false}, {nil, []string{"lo"}, false}, {nil, []string{"eth9"}, true}} {
		if got := listens(hostnet.NewInterfaces(c.use, c.ignore), at(conn.IKE)); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
	if listens(nil, at(conn.Keepalive)) {
		t.Error("a keepalive goes to the engine")
	}
}

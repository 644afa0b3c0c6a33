package ikev2_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"adit/ike"
	"adit/ike/ikev2"
	"adit/ike/wire"
)

// redirected is a pair that is up, whose responder may redirect the initiator, and
// what goes to the initiator in the clear text of the man in the middle.
func redirected(t *testing.T) (m *mitm, seen *[]*wire.Notify) {
	var tb *side
	m = newMITM(t, func(a, b *side) { tb, a.config.NoRedirects = b, true })
	var sb []ike.SA
	m.b.e = ike.New(*tb.config, captured(&sb))
	seen = new([]*wire.Notify)
	m.change = func(from *host, h *wire.Header, p []wire.Payload) []wire.Payload {
		if n := wire.FindNotify(p, wire.Redirect); n != nil {
			if from != m.b || h.Exchange != wire.ExchangeInformational || h.Response() {
				t.Errorf("REDIRECT in %v from %s", h.Exchange, from.name)
			}
			*seen = append(*seen, n)
		}
		if p == nil {
			p = []wire.Payload{} // nil would lose it
		}
		return p
	}
	m.a.initiate("net")
	m.run(2 * time.Second)
	m.up()
	ikev2.AllowRedirect(sb[0])
	return m, seen
}

func lastDone(t *testing.T, h *host) ike.CommandDone {
	t.Helper()
	list := eventsOf[ike.CommandDone](h)
	if len(list) == 0 {
		t.Fatal("the command has no end")
	}
	return list[len(list)-1]
}

func TestRFC5685_5_GatewayRedirects(t *testing.T) {
	for text, want := range map[string]string{"192.0.2.77": "\x01\x04\xc0\x00\x02\x4d", "2001:db8::7": "\x02\x10\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x07", "gw2.example": "\x03\x0bgw2.example"} {
		m, seen := redirected(t)
		to := ike.RedirectTarget{Name: text}
		if a, err := netip.ParseAddr(text); err == nil {
			to = ike.RedirectTarget{Addr: a}
		}
		m.b.do(ike.Redirect{ID: 9, IKE: m.b.peer.Name, Gateway: to})
		if d := lastDone(t, m.b); d.ID != 9 || d.Matched != 1 || d.Err != nil {
			t.Errorf("%s: %+v", text, d)
		}
		m.run(5 * time.Second)
		m.b.do(ike.Redirect{ID: 10, IKEID: 1, Gateway: to}) // once is enough
		m.run(5 * time.Second)
		if len(*seen) != 1 || string((*seen)[0].Data) != want || len((*seen)[0].SPI) != 0 || (*seen)[0].Protocol != 0 {
			t.Errorf("%s: REDIRECT %+v", text, *seen)
		}
		m.up() // the peer here follows no redirection
		m.run(40 * time.Second)
		m.down()
		if d := eventsOf[ike.IKEDown](m.b); len(d) != 1 || d[0].Reason != "redirected to "+text {
			t.Errorf("%s: IKEDown %+v", text, d)
		}
	}
}

// The end of a redirected IKE SA is kept in sight over a rekey of it.
func TestRedirectedAndRekeyed(t *testing.T) {
	m, _ := redirected(t)
	m.b.do(ike.Redirect{Gateway: ike.RedirectTarget{Name: "gw2.example"}, PeerID: id("*.example.org")})
	m.run(time.Second)
	m.a.do(ike.Rekey{IKE: m.a.peer.Name})
	m.run(10 * time.Second)
	m.up()
	m.run(40 * time.Second)
	m.down()
}

// Only who announced it is redirected, by its responder only, and only who is meant.
func TestRedirectRefused(t *testing.T) {
	to := ike.RedirectTarget{Name: "gw2.example"}
	m, seen := redirected(t)
	at := netip.MustParseAddr
	for i, c := range []struct {
		r       ike.Redirect
		matched int
	}{
		{ike.Redirect{IKE: "other"}, 0}, {ike.Redirect{IKEID: 77}, 0}, {ike.Redirect{PeerID: id("other.example")}, 0},
		{ike.Redirect{From: at("203.0.113.1"), To: at("203.0.113.9")}, 0}, {ike.Redirect{From: at("::"), To: at("ffff::")}, 0},
	} {
		c.r.ID, c.r.Gateway = ike.CommandID(100+i), to
		m.b.do(c.r)
		if d := lastDone(t, m.b); d.Matched != c.matched || d.Err == nil {
			t.Errorf("%+v: %+v", c.r, d)
		}
	}
	m.a.do(ike.Redirect{ID: 5, IKEID: 1, Gateway: to})
	if d := lastDone(t, m.a); d.Matched != 1 || d.Err == nil || !strings.Contains(d.Err.Error(), "this gateway is its initiator") {
		t.Errorf("the initiator: %+v", d)
	}
	m.b.do(ike.Redirect{ID: 6, IKEID: 1, Gateway: ike.RedirectTarget{Name: strings.Repeat("x", 256)}})
	if d := lastDone(t, m.b); d.Err == nil {
		t.Errorf("a name that is too long: %+v", d)
	}
	if len(*seen) > 0 {
		t.Errorf("sent: %+v", *seen)
	}
	p := newPair(t, func(a, _ *side) { a.config.NoRedirects = true })
	p.a.initiate("net")
	p.run(2 * time.Second)
	p.b.do(ike.Redirect{ID: 7, IKEID: 1, Gateway: to})
	if d := lastDone(t, p.b); d.Matched != 1 || d.Err == nil || !strings.Contains(d.Err.Error(), "REDIRECT_SUPPORTED") {
		t.Errorf("without REDIRECT_SUPPORTED: %+v", d)
	}
}

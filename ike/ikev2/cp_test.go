package ikev2_test

import (
	"bytes"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/ipsec"
)

var (
	vip4 = netip.MustParseAddr("10.3.0.1")
	vip6 = netip.MustParseAddr("fec3::1")
	any4 = netip.IPv4Unspecified()
	any6 = netip.IPv6Unspecified()
)

// roadPair is a client a that wants addresses of a gateway b with a pool.
func roadPair(t testing.TB, want []netip.Addr, give []netip.Addr, tweak func(a, b *side)) *mitm {
	m := newMITM(t, func(a, b *side) {
		a.peer.VIPs = want
		a.child.Local = []ipsec.Selector{ipsec.Dynamic()}
		b.child.Remote = []ipsec.Selector{ipsec.Dynamic()}
		a.child.Remote = []ipsec.Selector{sel("10.2.0.0/16"), sel("fec2::/16")}
		b.child.Local = a.child.Remote
		b.peer.Pools = []string{"pool"}
		if tweak != nil {
			tweak(a, b)
		}
	})
	m.b.lease = func(q ike.LeaseAddresses) (*ike.Lease, error) {
		if len(give) == 0 {
			return nil, errors.New("pool 'pool' has no free address")
		}
		return &ike.Lease{Addrs: give, Attributes: []wire.Attribute{
			{Type: wire.InternalIP4DNS, Value: []byte{10, 2, 0, 53}}, {Type: wire.InternalIP4Subnet, Value: []byte{10, 2, 0, 0, 255, 255, 0, 0}},
			{Type: wire.InternalDNSDomain, Value: []byte("corp.example")}}}, nil
	}
	return m
}

func list(a ...netip.Addr) []netip.Addr { return a }

func selectorsText(l []ipsec.Selector) string {
	var out []string
	for _, s := range l {
		out = append(out, s.String())
	}
	return strings.Join(out, " ")
}

func TestRFC7296_2_19_VirtualAddresses(t *testing.T) {
	for _, c := range []struct {
		name       string
		want, give []netip.Addr
		ts         string
	}{
		{"IPv4", list(any4), list(vip4), "10.3.0.1/32"},
		{"IPv6", list(any6), list(vip6), "fec3::1/128"},
		{"both", list(any4, any6), list(vip4, vip6), "10.3.0.1/32 fec3::1/128"},
		{"both wanted, one given", list(any4, any6), list(vip4), "10.3.0.1/32"},
		{"a certain one", list(vip4), list(vip4), "10.3.0.1/32"},
		{"another than the certain one", list(netip.MustParseAddr("10.3.0.9")), list(vip4), "10.3.0.1/32"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := roadPair(t, c.want, c.give, nil)
			dump(t, m.pair)
			m.a.initiate("net")
			m.run(time.Second)
			m.up()
			a, b := m.a.e.SAs()[0], m.b.e.SAs()[0]
			if !slices.Equal(a.LocalVIPs, c.give) || !slices.Equal(b.RemoteVIPs, c.give) || a.RemoteVIPs != nil || b.LocalVIPs != nil {
				t.Errorf("a has %v, b gave %v", a.LocalVIPs, b.RemoteVIPs)
			}
			if got := selectorsText(a.Children[0].LocalTS); got != c.ts {
				t.Errorf("a's selectors %s, want %s", got, c.ts)
			}
			if got := selectorsText(b.Children[0].RemoteTS); got != c.ts {
				t.Errorf("b's selectors %s, want %s", got, c.ts)
			}
			q := m.b.leaseQuestions
			if len(q) != 1 || q[0].ID != "a.example.org" || q[0].Peer != m.b.peer || len(q[0].Request) < len(c.want) {
				t.Fatalf("%+v", q)
			}
			for i, w := range c.want {
				got := q[0].Request[i]
				if w.IsUnspecified() != (len(got.Value) == 0) || !w.IsUnspecified() && !bytes.Equal(got.Value, w.AsSlice()) {
					t.Errorf("asked for %v by %v", w, got)
				}
			}
			as := m.a.assumeQuestions
			if len(as) != 1 || !slices.Equal(as[0].Addrs, c.give) || len(as[0].Attributes) != 3 || string(as[0].Attributes[2].Value) != "corp.example" {
				t.Errorf("%+v", as)
			}
			// A Child SA rekey keeps the selectors; an IKE rekey keeps the lease.
			m.b.do(ike.Rekey{Child: "net"})
			m.run(10 * time.Second)
			m.a.do(ike.Rekey{IKE: "a"})
			m.run(10 * time.Second)
			m.b.do(ike.Rekey{IKE: "b"})
			m.run(10 * time.Second)
			m.up()
			if len(m.b.leased) != 1 || len(m.a.assumed) != 1 || len(m.b.leaseQuestions) != 1 {
				t.Errorf("leases %v, taken %v, %d questions", m.b.leased, m.a.assumed, len(m.b.leaseQuestions))
			}
			if a := m.a.e.SAs()[0]; !slices.Equal(a.LocalVIPs, c.give) || selectorsText(a.Children[0].LocalTS) != c.ts {
				t.Errorf("after rekeys: %v %v", a.LocalVIPs, a.Children[0].LocalTS)
			}
			m.a.do(ike.Terminate{IKE: "a"})
			m.run(400 * time.Second)
			m.down() // the lease and the addresses are given back
		})
	}
}

// What is not given ends in no Child SA, by name on both sides; the IKE SA stays.
func TestRFC7296_2_19_NoAddress(t *testing.T) {
	for _, c := range []struct {
		name   string
		want   []netip.Addr
		give   []netip.Addr
		tweak  func(a, b *side)
		notify wire.NotifyType
	}{
		{"pool is empty", list(any4), nil, nil, wire.InternalAddressFailure},
		{"no pool", list(any4), nil, func(a, b *side) { b.peer.Pools = nil }, wire.InternalAddressFailure},
		{"nobody asks", nil, list(vip4), nil, wire.FailedCPRequired},
		{"pool is empty, childless", list(any4), nil, func(a, b *side) { a.peer.Childless = ike.ChildlessForce }, wire.InternalAddressFailure},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := roadPair(t, c.want, c.give, c.tweak)
			dump(t, m.pair)
			var answer []wire.Payload
			m.change = func(from *host, h *wire.Header, p []wire.Payload) []wire.Payload {
				if from == m.b && h.Exchange == wire.ExchangeIKEAuth {
					answer = p
				}
				return p
			}
			m.a.initiate("net")
			m.run(5 * time.Second)
			n := 0
			for _, p := range answer {
				if x, ok := p.(*wire.Notify); ok && x.NotifyType == c.notify {
					n++
				}
				if _, ok := p.(*wire.CP); ok {
					t.Error("a CFG_REPLY came beside the refusal")
				}
			}
			if n != 1 {
				t.Errorf("%d times %v", n, c.notify)
			}
			if len(m.a.plane.sas)+len(m.b.plane.sas) != 0 || len(m.a.e.SAs()) != 1 || len(m.b.e.SAs()) != 1 {
				t.Errorf("a %v\nb %v", brief(m.a.e.SAs()), brief(m.b.e.SAs()))
			}
			if d := eventsOf[ike.CommandDone](m.a); len(d) != 1 || d[0].Err == nil {
				t.Errorf("%+v", d)
			}
			old := m.a.e.SAs()[0].SPIi
			// Neither side gets a Child SA by another way, nor asks for one.
			m.change = func(from *host, h *wire.Header, p []wire.Payload) []wire.Payload {
				// Only who was not told why may ask: the client that wanted no address.
				if h.Exchange == wire.ExchangeCreateChildSA && !h.Response() && (from == m.b || len(c.want) > 0) {
					t.Errorf("%s asks for a Child SA", from.name)
				}
				if p == nil {
					p = []wire.Payload{} // nil would be lost
				}
				return p
			}
			m.a.initiate("net")
			m.b.do(ike.Initiate{ID: 2, Peer: m.b.peer, Child: "net"})
			m.run(5 * time.Second)
			if len(m.a.plane.sas)+len(m.b.plane.sas) != 0 {
				t.Error("a Child SA came up later")
			}
			if len(c.want) > 0 {
				// Who goes on trying gets rid of an IKE SA that can never have an address.
				m.change = nil
				m.a.initiate("net")
				m.run(5 * time.Second)
				if sas := m.a.e.SAs(); slices.ContainsFunc(sas, func(sa ike.SAInfo) bool { return sa.SPIi == old }) {
					t.Errorf("the IKE SA without an address stays: %v", brief(sas))
				}
			}
			m.a.do(ike.Terminate{IKE: "a"})
			m.run(400 * time.Second)
			m.down()
		})
	}
}

// What the gateway gives is checked; without a usable address there is no Child SA,
// and the gateway's is deleted.
func TestRFC7296_3_15_HostileReplies(t *testing.T) {
	addr := func(typ wire.AttributeType, b ...byte) wire.Attribute {
		return wire.Attribute{Type: typ, Value: b}
	}
	good := addr(wire.InternalIP4Address, 10, 3, 0, 1)
	many := slices.Repeat([]wire.Attribute{addr(wire.InternalIP4DNS, 1, 2, 3, 4)}, 250)
	for _, c := range []struct {
		name  string
		reply *wire.CP // nil: none
		ok    bool
		rest  int
	}{
		{"as it should be", &wire.CP{CFGType: wire.CFGReply, Attributes: []wire.Attribute{good}}, true, 0},
		{"none", nil, false, 0},
		{"empty", &wire.CP{CFGType: wire.CFGReply}, false, 0},
		{"address without value", &wire.CP{CFGType: wire.CFGReply, Attributes: []wire.Attribute{addr(wire.InternalIP4Address)}}, false, 0},
		{"three bytes", &wire.CP{CFGType: wire.CFGReply, Attributes: []wire.Attribute{addr(wire.InternalIP4Address, 10, 3, 0)}}, false, 0},
		{"five bytes", &wire.CP{CFGType: wire.CFGReply, Attributes: []wire.Attribute{addr(wire.InternalIP4Address, 10, 3, 0, 1, 2)}}, false, 0},
		{"0.0.0.0", &wire.CP{CFGType: wire.CFGReply, Attributes: []wire.Attribute{addr(wire.InternalIP4Address, 0, 0, 0, 0)}}, false, 0},
		{"multicast", &wire.CP{CFGType: wire.CFGReply, Attributes: []wire.Attribute{addr(wire.InternalIP4Address, 224, 0, 0, 1)}}, false, 0},
		{"loopback", &wire.CP{CFGType: wire.CFGReply, Attributes: []wire.Attribute{addr(wire.InternalIP4Address, 127, 0, 0, 1)}}, false, 0},
		{"broadcast", &wire.CP{CFGType: wire.CFGReply, Attributes: []wire.Attribute{addr(wire.InternalIP4Address, 255, 255, 255, 255)}}, false, 0},
		{"family nobody wants", &wire.CP{CFGType: wire.CFGReply, Attributes: []wire.Attribute{addr(wire.InternalIP6Address, append(vip6.AsSlice(), 64)...)}}, false, 0},
		{"a CFG_SET", &wire.CP{CFGType: wire.CFGSet, Attributes: []wire.Attribute{good}}, false, 0},
		{"our request reflected", &wire.CP{CFGType: wire.CFGRequest, Attributes: []wire.Attribute{good}}, false, 0},
		{"two where one was wanted", &wire.CP{CFGType: wire.CFGReply, Attributes: []wire.Attribute{good, addr(wire.InternalIP4Address, 10, 3, 0, 2)}}, true, 0},
		{"bad ones among good ones", &wire.CP{CFGType: wire.CFGReply, Attributes: []wire.Attribute{addr(wire.InternalIP4DNS, 1), good,
			addr(wire.InternalIP6Subnet, 1, 2, 3), addr(wire.InternalDNSDomain, []byte("a b; rm -rf")...), addr(wire.InternalDNSDomain, []byte("corp.example")...),
			addr(wire.InternalDNSDomain, bytes.Repeat([]byte("x"), 64)...), addr(wire.InternalIP4DNS, 9, 9, 9, 9), addr(16383, 1, 2, 3)}}, true, 3},
		{"very many", &wire.CP{CFGType: wire.CFGReply, Attributes: append([]wire.Attribute{good}, many...)}, true, 63},
		{"very large", &wire.CP{CFGType: wire.CFGReply, Attributes: []wire.Attribute{good, addr(16383, bytes.Repeat([]byte{1}, 9000)...)}}, true, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := roadPair(t, list(any4), list(vip4), nil)
			dump(t, m.pair)
			m.change = func(from *host, h *wire.Header, p []wire.Payload) []wire.Payload {
				if from != m.b || h.Exchange != wire.ExchangeIKEAuth {
					return p
				}
				var out []wire.Payload
				for _, x := range p {
					if _, ok := x.(*wire.CP); !ok {
						out = append(out, x)
					} else if c.reply != nil {
						out = append(out, c.reply)
					}
				}
				return out
			}
			m.a.initiate("net")
			m.run(5 * time.Second)
			if c.ok {
				m.up()
				q := m.a.assumeQuestions
				if len(q) != 1 || !slices.Equal(q[0].Addrs, list(vip4)) || len(q[0].Attributes) != c.rest {
					t.Errorf("%+v", q)
				}
				return
			}
			if len(m.a.plane.sas)+len(m.b.plane.sas) != 0 || len(m.a.assumed) != 0 {
				t.Errorf("a Child SA is there: %v %v", brief(m.a.e.SAs()), brief(m.b.e.SAs()))
			}
			if !slices.Contains(m.a.reasons(), ike.ReasonAddresses) {
				t.Errorf("reasons %v", m.a.reasons())
			}
			// The gateway cannot have its way with a Child SA of its own.
			m.b.do(ike.Initiate{ID: 2, Peer: m.b.peer, Child: "net"})
			m.run(5 * time.Second)
			if len(m.a.plane.sas) != 0 {
				t.Error("a Child SA came up without an address")
			}
		})
	}
}

// A gateway that grants more than the address gets that alone; one whose selectors
// do not hold the address gets nothing.
func TestRFC7296_2_19_SelectorsAreNarrowedToTheAddress(t *testing.T) {
	for _, c := range []struct{ granted, want string }{{"0.0.0.0/0", "10.3.0.1/32"}, {"10.3.0.0/24", "10.3.0.1/32"}, {"10.4.0.0/24", ""}} {
		m := roadPair(t, list(any4), list(vip4), func(a, b *side) { b.child.Remote = []ipsec.Selector{sel(c.granted)} })
		m.a.initiate("net")
		m.run(5 * time.Second)
		got := ""
		if ch := m.a.e.SAs()[0].Children; len(ch) == 1 {
			got = selectorsText(ch[0].LocalTS)
		}
		if got != c.want || (c.want == "") != (len(m.b.plane.sas) == 0) {
			t.Errorf("granted %s: %q at a, %d SAs at b", c.granted, got, len(m.b.plane.sas))
		}
	}
}

// A gateway that gives no address does not get our endpoint into a Child SA of its own either.
func TestRFC7296_2_19_NoAddressNoChildOfTheGateway(t *testing.T) {
	m := roadPair(t, list(any4), list(vip4), func(a, b *side) { b.child.Remote = []ipsec.Selector{sel("0.0.0.0/0")} })
	m.change = func(from *host, h *wire.Header, p []wire.Payload) []wire.Payload {
		return slices.DeleteFunc(slices.Clone(p), func(x wire.Payload) bool { return x.Type() == wire.PayloadCP && h.Response() })
	}
	m.a.initiate("net")
	m.run(5 * time.Second)
	m.b.do(ike.Initiate{ID: 2, Peer: m.b.peer, Child: "net"})
	m.run(5 * time.Second)
	if len(m.a.plane.sas) != 0 || len(m.a.e.SAs()) != 1 {
		t.Errorf("%v", brief(m.a.e.SAs()))
	}
}

// The same for what a client may ask.
func TestRFC7296_3_15_HostileRequests(t *testing.T) {
	for _, c := range []struct {
		name  string
		attrs []wire.Attribute
		asked int // attributes in the question; -1: no question
	}{
		{"an address of three bytes", []wire.Attribute{{Type: wire.InternalIP4Address, Value: []byte{1, 2, 3}}}, -1},
		{"an address of 18 bytes", []wire.Attribute{{Type: wire.InternalIP6Address, Value: make([]byte, 18)}}, -1},
		{"a prefix of 129", []wire.Attribute{{Type: wire.InternalIP6Address, Value: append(vip6.AsSlice(), 129)}}, -1},
		{"none at all", nil, -1},
		{"256 of them", slices.Repeat([]wire.Attribute{{Type: wire.InternalIP4Address}}, 256), 64},
		{"unknown ones", []wire.Attribute{{Type: 12345}, {Type: wire.InternalIP4Address}, {Type: 12346, Value: []byte{1}}}, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := roadPair(t, list(any4), list(vip4), nil)
			m.change = func(from *host, h *wire.Header, p []wire.Payload) []wire.Payload {
				if from == m.a && h.Exchange == wire.ExchangeIKEAuth {
					for _, x := range p {
						if cp, ok := x.(*wire.CP); ok {
							cp.Attributes = c.attrs
						}
					}
				}
				return p
			}
			m.a.initiate("net")
			m.run(5 * time.Second)
			switch q := m.b.leaseQuestions; {
			case c.asked < 0 && len(q) != 0:
				t.Errorf("%+v", q)
			case c.asked >= 0 && (len(q) != 1 || len(q[0].Request) != c.asked):
				t.Errorf("%d questions", len(q))
			}
			if len(m.b.e.SAs()) != 1 || m.b.e.Stats().Bugs != 0 {
				t.Errorf("%v", brief(m.b.e.SAs()))
			}
		})
	}
}

// Nothing is asked before the client has proved itself.
func TestRFC7296_2_19_NoLeaseWithoutAUTH(t *testing.T) {
	m := roadPair(t, list(any4), list(vip4), nil)
	m.a.psk = []byte("another key")
	m.a.initiate("net")
	m.run(5 * time.Second)
	if len(m.b.leaseQuestions) != 0 || len(m.b.leased) != 0 {
		t.Errorf("%+v", m.b.leaseQuestions)
	}
}

// A host that refuses the address has no Child SA; one that never answers neither.
func TestRFC7296_2_19_HostRefusesTheAddress(t *testing.T) {
	m := roadPair(t, list(any4), list(vip4), nil)
	m.a.assumeErr = errors.New("no such device")
	m.a.initiate("net")
	m.run(5 * time.Second)
	if len(m.a.plane.sas)+len(m.b.plane.sas) != 0 || !slices.Contains(m.a.reasons(), ike.ReasonAddresses) {
		t.Errorf("%v %v", brief(m.a.e.SAs()), m.a.reasons())
	}
	m.a.do(ike.Terminate{IKE: "a"})
	m.run(400 * time.Second)
	m.down()
}

func TestRFC7296_2_19_LeaseWithoutAnswer(t *testing.T) {
	m := roadPair(t, list(any4), list(vip4), nil)
	m.a.initiate("net")
	m.run(15 * time.Millisecond)
	m.b.hold = true
	m.run(25 * time.Second)
	m.b.held, m.b.hold = nil, false
	m.run(400 * time.Second)
	if len(m.a.plane.sas)+len(m.b.plane.sas) != 0 {
		t.Error("a Child SA came up without an address")
	}
	for _, h := range []*host{m.a, m.b} {
		h.do(ike.Terminate{IKE: h.name})
	}
	m.run(400 * time.Second)
	if len(m.b.leased) != 0 {
		t.Errorf("leases are left: %v", m.b.leased)
	}
}

// Reauthentication, make before break, asks for the address that there is.
func TestRFC7296_2_8_3_ReauthenticationKeepsTheAddress(t *testing.T) {
	m := roadPair(t, list(any4), list(vip4), nil)
	dump(t, m.pair)
	m.a.initiate("net")
	m.run(time.Second)
	m.a.do(ike.Rekey{IKE: "a", Reauth: true})
	m.run(60 * time.Second)
	m.up()
	q := m.b.leaseQuestions
	if len(q) != 2 || !bytes.Equal(q[1].Request[0].Value, vip4.AsSlice()) {
		t.Errorf("%+v", q)
	}
	if len(m.b.leased) != 1 || len(m.a.assumed) != 1 {
		t.Errorf("leases %v, taken %v", m.b.leased, m.a.assumed)
	}
}

// A CFG_REQUEST in INFORMATIONAL gets an empty CFG_REPLY, a CFG_SET no CFG_ACK; in
// CREATE_CHILD_SA configuration payloads are passed over.
func TestRFC7296_3_15_OutsideOfIKE_AUTH(t *testing.T) {
	m := roadPair(t, list(any4), list(vip4), nil)
	m.a.initiate("net")
	m.run(time.Second)
	answer := func(id uint32, p ...wire.Payload) []wire.Payload {
		t.Helper()
		got := m.deliver(m.seal(m.request(wire.ExchangeInformational, id), p))
		if len(got) != 1 {
			t.Fatalf("%d answers", len(got))
		}
		msg, err := wire.ParseMessage(got[0])
		if err != nil {
			t.Fatal(err)
		}
		list, _ := m.open(msg)
		return list
	}
	got := answer(2, &wire.CP{CFGType: wire.CFGRequest, Attributes: []wire.Attribute{{Type: wire.ApplicationVersion}, {Type: wire.InternalIP4Address}}})
	if len(got) != 1 || got[0].(*wire.CP).CFGType != wire.CFGReply || len(got[0].(*wire.CP).Attributes) != 0 {
		t.Errorf("%+v", got)
	}
	if got := answer(3, &wire.CP{CFGType: wire.CFGSet, Attributes: []wire.Attribute{{Type: wire.InternalIP4DNS, Value: []byte{1, 2, 3, 4}}}}); len(got) != 0 {
		t.Errorf("%+v", got)
	}
	if len(m.b.leaseQuestions) != 1 {
		t.Error("an address was given outside of IKE_AUTH")
	}
}

func FuzzConfigurationReply(f *testing.F) {
	f.Add(uint8(2), []byte{0, 1, 0, 4, 10, 3, 0, 1}, true)
	f.Add(uint8(1), []byte{0, 1, 0, 0, 0, 8, 0, 0}, false)
	f.Add(uint8(2), []byte{0, 25, 0, 3, 'a', '.', 'b', 0, 8, 0, 17, 0xfe, 0xc3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 64}, true)
	f.Fuzz(func(t *testing.T, kind uint8, body []byte, reply bool) {
		if len(body) > 4096 {
			return
		}
		raw := append([]byte{0, 0, 0, byte(8 + len(body)), kind, 0, 0, 0}, body...)
		raw[2], raw[3] = byte((8+len(body))>>8), byte(8+len(body))
		chain, err := wire.ParsePayloads(wire.PayloadCP, raw)
		if err != nil {
			return
		}
		m := roadPair(t, list(any4, any6), list(vip4), nil)
		m.change = func(from *host, h *wire.Header, p []wire.Payload) []wire.Payload {
			if h.Exchange != wire.ExchangeIKEAuth || (from == m.b) != reply {
				return p
			}
			out := slices.Clone(p)
			for i, x := range out {
				if _, ok := x.(*wire.CP); ok {
					out[i] = chain[0]
				}
			}
			return out
		}
		m.a.initiate("net")
		m.run(5 * time.Second)
		for _, q := range m.a.assumeQuestions {
			for _, a := range q.Addrs {
				if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() {
					t.Fatalf("the host is to take %v", a)
				}
			}
		}
		settleFuzz(t, m)
	})
}

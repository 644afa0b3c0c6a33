package gateway

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"adit/ike"
	"adit/internal/config"
	"adit/ipsec"
	"adit/radius"
)

// meter is a data plane whose SAs have the counters that a test gives them.
type meter struct {
	ipsec.Dataplane
	bytes map[uint32]uint64 // by Child SA; the outbound one has twice as many
}

func (m meter) Query(r ipsec.SARef) (ipsec.SAStats, bool) {
	n, ok := m.bytes[r.Child]
	if r.Dir == ipsec.Out {
		n *= 2
	}
	return ipsec.SAStats{Bytes: n}, ok
}

// bookkeeper has accounts whose statements nobody sends.
func bookkeeper(t *testing.T, bytes map[uint32]uint64, cfg config.Accounting) *accounts {
	t.Helper()
	g := &Gateway{}
	g.opt.Dataplane = meter{bytes: bytes}
	cfg.On = true
	g.opt.Daemon.Accounting = cfg
	g.opt.Daemon.RADIUS = []config.RADIUSServer{{Name: "s", Address: "192.0.2.9", Secret: []byte("a secret of sixteen")}}
	g.accounts.init(g)
	t.Cleanup(func() { g.accounts.client.Close() })
	return &g.accounts
}

// next is the next statement that waits, nil if none does.
func next(a *accounts) *radius.Packet {
	select {
	case s := <-a.queue:
		return s.packet
	default:
		return nil
	}
}

func says(t *testing.T, p *radius.Packet, status uint32, user string, octets int) {
	t.Helper()
	if p == nil {
		t.Fatalf("no statement %d of %s", status, user)
	}
	name, _ := p.Get(radius.TypeUserName)
	if s, _ := p.Uint32(radius.TypeAcctStatusType); s != status || string(name) != user {
		t.Errorf("statement %d of %q, want %d of %s", s, name, status, user)
	}
	if n, _ := p.Uint32(radius.TypeAcctInputOctets); octets >= 0 && int32(n) != int32(octets) {
		t.Errorf("%d octets, want %d", int32(n), octets)
	}
}

// In IKEv1 the address comes after the IKE SA, and the Child SAs pass to the ISAKMP SA of
// a new phase 1: the Start waits for the one, and each octet is one session's alone.
func TestAccountsOfIKEv1(t *testing.T) {
	bytes := map[uint32]uint64{}
	a := bookkeeper(t, bytes, config.Accounting{})
	vip := []netip.Addr{netip.MustParseAddr("10.3.0.7")}
	first := ike.SAInfo{Name: "gw", ID: 1, Instance: 11, Version: 1, RemoteEAPID: "alice", Remote: netip.MustParseAddrPort("192.0.2.1:4500")}
	a.accepted(11, first.Local, first.Remote, &radius.Step{UserName: "alice@realm", Identity: "alice", Framed4: vip[0]})
	a.event(ike.IKEUp{SA: first})
	if p := next(a); p != nil {
		t.Errorf("told before there is an address: %v", p)
	}
	if f, ok := a.framed(11, false); !ok || f != vip[0] {
		t.Errorf("the server's address is forgotten: %v", f)
	}
	first.RemoteVIPs = vip
	a.event(ike.Addressed{SA: first})
	p := next(a)
	says(t, p, radius.AcctStart, "alice@realm", -1)
	if f, _ := p.Get(radius.TypeFramedIPAddress); len(f) != 4 || f[3] != 7 {
		t.Errorf("Framed-IP-Address %v", f)
	}
	bytes[100] = 0
	a.event(ike.ChildUp{SA: first, Child: ike.ChildInfo{ID: 100}})
	bytes[100] = 70
	// Phase 1 is made anew; what the Child SA carried is the first session's.
	second := first
	second.ID, second.Instance, second.RemoteVIPs, second.Children = 2, 22, nil, []ike.ChildInfo{{ID: 100}}
	a.event(ike.ChildPassed{SA: second, Child: ike.ChildInfo{ID: 100}})
	a.event(ike.IKEUp{SA: second})
	second.RemoteVIPs = vip
	if p := next(a); p != nil {
		t.Errorf("the second one is told before it has its address: %v", p)
	}
	a.event(ike.Addressed{SA: second})
	says(t, next(a), radius.AcctStart, "alice", -1)
	bytes[100] = 100
	a.event(ike.IKEDown{SA: first, Reason: "replaced"})
	says(t, next(a), radius.AcctStop, "alice@realm", 70)
	a.childGone(100, ipsec.SAStats{Bytes: 120}, ipsec.SAStats{Bytes: 240})
	delete(bytes, 100)
	a.event(ike.IKEDown{SA: second, Reason: "deleted by the peer"})
	p = next(a)
	says(t, p, radius.AcctStop, "alice", 50)
	if n, _ := p.Uint32(radius.TypeAcctOutputOctets); n != 100 {
		t.Errorf("%d octets out, want 100", n)
	}
	if len(a.owner)+len(a.all)+len(a.admit) != 0 {
		t.Errorf("left over: %v %v %v", a.owner, a.all, a.admit)
	}
}

// Whom we let in by ourselves has a session, if it is a client; a site has none.
func TestAccountsOfLocalUsers(t *testing.T) {
	a := bookkeeper(t, nil, config.Accounting{NeedsVIP: true})
	site := ike.SAInfo{Instance: 1, Version: 2, RemoteID: ident(t, "site.example")}
	a.event(ike.IKEUp{SA: site})
	user := ike.SAInfo{Instance: 2, Version: 2, RemoteID: ident(t, "x"), RemoteEAPID: "bob", RemoteVIPs: []netip.Addr{netip.MustParseAddr("10.3.0.8")}}
	a.event(ike.IKEUp{SA: user})
	says(t, next(a), radius.AcctStart, "bob", -1)
	card := ike.SAInfo{Instance: 3, Version: 2, RemoteID: ident(t, "carol@example"), RemoteVIPs: []netip.Addr{netip.MustParseAddr("10.3.0.9")}}
	a.event(ike.IKEUp{SA: card})
	says(t, next(a), radius.AcctStart, "carol@example", -1)
	bare := ike.SAInfo{Instance: 4, Version: 2, RemoteEAPID: "dora"} // accounting_requires_vip
	a.event(ike.IKEUp{SA: bare})
	a.event(ike.IKEDown{SA: bare})
	a.event(ike.IKEDown{SA: site})
	a.event(ike.IKEDown{SA: user, Reason: "peer does not answer"})
	p := next(a)
	says(t, p, radius.AcctStop, "bob", 0)
	if c, _ := p.Uint32(radius.TypeAcctTerminateCause); c != radius.CauseLostCarrier {
		t.Errorf("cause %d", c)
	}
	a.event(ike.IKEDown{SA: card})
	says(t, next(a), radius.AcctStop, "carol@example", 0)
	if p := next(a); p != nil {
		t.Errorf("one statement too many: %v", p)
	}
	// A request for the session of nobody in particular fits none.
	a.event(ike.IKEUp{SA: bare})
	empty := &radius.Packet{Code: radius.DisconnectRequest}
	empty.AddString(radius.TypeAcctSessionID, "")
	if list, _ := a.find(empty); len(list) != 0 {
		t.Errorf("an empty Acct-Session-Id fits %v", list)
	}
	named := &radius.Packet{Code: radius.DisconnectRequest}
	named.AddString(radius.TypeUserName, "dora")
	if list, _ := a.find(named); len(list) != 1 || list[0] != 4 {
		t.Errorf("dora is %v", list)
	}
}

// Servers that are dead for long are told of a session once, not once an interval, and
// who waits for them leaves room for others.
func TestDeadServersFillNothing(t *testing.T) {
	a := bookkeeper(t, nil, config.Accounting{Interval: time.Second})
	a.event(ike.IKEUp{SA: ike.SAInfo{Instance: 2, Version: 2, RemoteEAPID: "bob"}})
	says(t, next(a), radius.AcctStart, "bob", -1)
	now := time.Now()
	for i := range 10 {
		a.pass(t.Context(), now.Add(time.Duration(2*i+2)*time.Second))
	}
	says(t, next(a), radius.AcctInterimUpdate, "bob", 0)
	if p := next(a); p != nil {
		t.Errorf("a second one waits: %v", p)
	}
	lines := 0
	a.g.bus.subscribe(func(ike.Event) { lines++ })
	a.queue = make(chan *statement) // there is no room at all
	for i := range 100 {
		a.event(ike.IKEUp{SA: ike.SAInfo{Instance: uint64(10 + i), Version: 2, RemoteEAPID: "bob"}})
	}
	if lines != 1 {
		t.Errorf("%d lines about 100 lost statements", lines)
	}

	client, server := schools(t, config.RADIUSServer{Name: "s", Address: "192.0.2.9", Secret: []byte("a secret of sixteen")})
	for range limitRADIUSAsks {
		if _, err := server.conversations.mayAsk(); err != nil {
			t.Fatal(err)
		}
	}
	peer := &ike.Peer{Remote: []ike.AuthRound{{Method: ike.AuthXAuth, EAP: ike.EAPRadius}}}
	if _, err := server.conversations.xauth(t.Context(), ike.XAuth{Server: true, Peer: peer, User: "alice"}); !errors.Is(err, ErrBusy) {
		t.Errorf("one more waits: %v", err)
	}
	d := &dialogue{client: client, server: server, local: alice(ike.EAPMSCHAPv2), remote: asking(ike.EAPMSCHAPv2)}
	d.agree(t, "EAP_MSCHAPV2", "alice", true)
}

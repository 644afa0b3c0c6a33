package gateway

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"adit/ike"
	"adit/ike/wire"
	"adit/internal/config"
	"adit/internal/conn"
	"adit/internal/hostnet"
	"adit/ipsec"
	"adit/pki/pkitest"
)

// What settings of strongswan.conf change of the gateway's own work.

// notingHost writes down what is asked of it.
type notingHost struct {
	log  []string
	fail error
}

func (h *notingHost) note(words ...string) error {
	h.log = append(h.log, strings.Join(words, " "))
	return h.fail
}
func (h *notingHost) Apply(hostnet.State) error { return nil }
func (h *notingHost) AddAddress(device string, p netip.Prefix) error {
	return h.note("add", p.String(), device)
}
func (h *notingHost) DelAddress(device string, p netip.Prefix) error {
	return h.note("del", p.String(), device)
}
func (h *notingHost) AddNameServer(file string, a netip.Addr) error {
	return h.note("server", a.String(), file)
}
func (h *notingHost) DelNameServer(file string, a netip.Addr) error {
	return h.note("noserver", a.String(), file)
}

// install_virtual_ip, install_virtual_ip_on and resolve.file say what becomes of what a
// peer gives us; all of it is undone.
func TestVirtualAddressesAsConfigured(t *testing.T) {
	dns := func(a string) wire.Attribute {
		return wire.Attribute{Type: wire.InternalIP4DNS, Value: netip.MustParseAddr(a).AsSlice()}
	}
	q := ike.AssumeAddresses{Lease: 1, Peer: &ike.Peer{Name: "gw"}, Addrs: []netip.Addr{netip.MustParseAddr("10.3.0.7")},
		Attributes: []wire.Attribute{dns("10.0.0.53"), dns("127.0.0.1"), dns("10.0.0.53"), {Type: wire.InternalIP4DNS, Value: []byte{1, 2}}, {Type: wire.InternalIP6DNS, Value: netip.MustParseAddr("fd00::53").AsSlice()}}}
	for _, c := range []struct {
		daemon config.Daemon
		want   []string
	}{
		{config.Daemon{}, []string{"add 10.3.0.7/32 adit0", "del 10.3.0.7/32 adit0"}},
		{config.Daemon{VirtualIPDevice: "lan"}, []string{"add 10.3.0.7/32 lan", "del 10.3.0.7/32 lan"}},
		{config.Daemon{NoVirtualIPs: true, VirtualIPDevice: "lan"}, nil},
		{config.Daemon{NoVirtualIPs: true, ResolveFile: "/r"}, []string{"server 10.0.0.53 /r", "server fd00::53 /r", "noserver 10.0.0.53 /r", "noserver fd00::53 /r"}},
	} {
		h := &notingHost{}
		g := examinee(t)
		g.opt.Host, g.opt.Device, g.opt.Daemon = h, "adit0", c.daemon
		g.virtual.held = map[uint64]assumed{}
		g.virtual.expect(1)
		if err := g.assume(q); err != nil {
			t.Fatal(err)
		}
		g.undo(g.virtual.forget(1))
		if !slices.Equal(h.log, c.want) {
			t.Errorf("%+v: %q, want %q", c.want, h.log, c.want)
		}
		// Given up meanwhile: nothing stays.
		h.log = nil
		if err := g.assume(q); err == nil || !slices.Equal(h.log, c.want) {
			t.Errorf("given up: %q, %v", h.log, err)
		}
	}
	// A resolver that cannot be changed does not take the tunnel down.
	g := examinee(t)
	g.opt.Host, g.opt.Device, g.opt.Daemon = &notingHost{fail: errors.New("read-only")}, "adit0", config.Daemon{NoVirtualIPs: true, ResolveFile: "/r"}
	g.virtual.held = map[uint64]assumed{}
	g.virtual.expect(1)
	if err := g.assume(q); err != nil {
		t.Error(err)
	}
}

type namingHost struct{ notingHost }

func (h *namingHost) TakeNames(lease uint64, servers []netip.Addr, domains []string) {
	_ = h.note("names", fmt.Sprint(lease, servers, domains))
}
func (h *namingHost) DropNames(lease uint64) { _ = h.note("nonames", fmt.Sprint(lease)) }

// A host that sees to names itself hears of name servers and of domains that are host
// names, and nothing is written into a file for it.
func TestNamesForTheHost(t *testing.T) {
	domain := func(s string) wire.Attribute {
		return wire.Attribute{Type: wire.InternalDNSDomain, Value: []byte(s)}
	}
	h := &namingHost{}
	g := examinee(t)
	g.opt.Host, g.opt.Device, g.opt.Daemon = h, "adit0", config.Daemon{ResolveFile: "/r"}
	g.virtual.held = map[uint64]assumed{}
	g.virtual.expect(7)
	list := []wire.Attribute{domain("Corp.Example."), domain("corp.example"), domain("a b"), domain("x\nnameserver 1.2.3.4"), domain("-x"), domain(""), domain("a..b"), domain("_tcp.a"), domain(strings.Repeat("a", 64)),
		{Type: wire.InternalIP4DNS, Value: []byte{10, 0, 0, 53}}}
	if err := g.assume(ike.AssumeAddresses{Lease: 7, Peer: &ike.Peer{Name: "gw"}, Attributes: list}); err != nil {
		t.Fatal(err)
	}
	g.undo(g.virtual.forget(7))
	if want := []string{"names 7 [10.0.0.53] [corp.example _tcp.a]", "nonames 7"}; !slices.Equal(h.log, want) {
		t.Errorf("%q, want %q", h.log, want)
	}
}

type oneAddress struct{ conn.Conn }

func (oneAddress) SourceFor(netip.Addr) (netip.Addr, error) {
	return netip.MustParseAddr("192.0.2.1"), nil
}

// A source address on an interface that is left out is no way to the peer.
func TestSourceOnIgnoredInterface(t *testing.T) {
	to := netip.MustParseAddr("192.0.2.2")
	s := Sockets{Conn: oneAddress{}}
	if a, err := s.SourceFor(to); err != nil || a.String() != "192.0.2.1" {
		t.Fatal(a, err)
	}
	s.Usable = func(a netip.Addr) bool { return a.String() != "192.0.2.1" }
	if a, err := s.SourceFor(to); !errors.Is(err, conn.ErrNoRoute) || !strings.Contains(err.Error(), "interfaces_ignore") {
		t.Error(a, err)
	}
}

// kernel-netlink.mtu bounds the MTU of routes from above.
func TestRouteMTU(t *testing.T) {
	for _, c := range []struct{ limit, tunnel, want int }{{0, 1400, 1400}, {1300, 1400, 1300}, {1300, 1200, 1200}, {1300, 0, 1300}} {
		g := examinee(t)
		g.inv.routeMTU = c.limit
		g.inv.activate([]ipsec.Policy{{ID: 1, Action: ipsec.Protect}}, c.tunnel)
		add, _ := g.inv.hostDelta(map[ipsec.PolicyID]bool{1: true}, "adit0", true)
		all := g.inv.hostState("adit0", true).Policies
		if len(add) != 1 || len(all) != 1 || add[0].MTU != c.want || all[0].MTU != c.want {
			t.Errorf("%+v: %+v %+v", c, add, all)
		}
	}
}

// ca_id: one of the authorities above the peer must be it, by subject or other name.
func TestCAID(t *testing.T) {
	root := pkitest.NewCA(t, pkitest.Spec{Name: "Test CA"})
	sales, other := root.IssueCA(pkitest.Spec{Name: "Sales"}), root.IssueCA(pkitest.Spec{Name: "Research"})
	gw := sales.Issue(pkitest.Spec{Name: "gw", DNS: []string{"gw.example"}})
	want := func(c *pkitest.Entity) *ike.Peer {
		return pubkeyPeer(func(_, r *ike.AuthRound) {
			id, err := ike.DNIdentity(c.Cert.X509.RawSubject)
			if err != nil {
				t.Fatal(err)
			}
			r.CAID = id
		})
	}
	signer := believer(t, root, gw)
	if err := signer.load(config.Cert{Kind: config.CertX509, Flag: "NONE", DER: sales.Cert.DER()}, FromVICI); err != nil {
		t.Fatal(err)
	}
	v, _, err := prove(t, signer, believer(t, root), fqdn("gw.example"), allHashes, want(sales), want(root), want(other), want(gw))
	if err != nil {
		t.Fatal(err)
	}
	for i, fits := range []bool{true, true, false, false} {
		if (v.Why[i] == "") != fits {
			t.Errorf("candidate %d: %q", i, v.Why[i])
		}
	}
}

// reject_trusted_end_entity: whose certificate is loaded here is no peer.
func TestRejectTrustedEndEntity(t *testing.T) {
	ca := pkitest.NewCA(t, pkitest.Spec{Name: "Test CA"})
	gw := ca.Issue(pkitest.Spec{Name: "gw", DNS: []string{"gw.example"}})
	for _, reject := range []bool{false, true} {
		verifier := believer(t, ca, gw)
		verifier.rejectTrusted = reject
		_, _, err := prove(t, believer(t, ca, gw), verifier, fqdn("gw.example"), allHashes, pubkeyPeer(nil))
		if reject != (err != nil && strings.Contains(err.Error(), "reject_trusted_end_entity")) {
			t.Errorf("reject %v: %v", reject, err)
		}
	}
	stranger := believer(t, ca)
	stranger.rejectTrusted = true
	if _, _, err := prove(t, believer(t, ca, gw), stranger, fqdn("gw.example"), allHashes, pubkeyPeer(nil)); err != nil {
		t.Error(err)
	}
}

// The size of EAP packets follows the method's setting, and where the method is open both.
func TestEAPFragmentSettings(t *testing.T) {
	g := examinee(t)
	g.opt.Daemon.EAPTLSFragment = 500
	for m, want := range map[ike.EAPMethod]int{ike.EAPTLS: 500, ike.EAPTTLS: 1024, ike.EAPDynamic: 500} {
		if got := g.conversations.fragment(m); got != want {
			t.Errorf("%s: %d", m, got)
		}
	}
}

// phase2_method says what the server asks inside of EAP-TTLS. Our client shows its
// password to no server by GTC.
func TestTTLSMethodSetting(t *testing.T) {
	for word, agrees := range map[string]bool{"": true, "md5": true, "gtc": false} {
		client, server := schools(t)
		server.opt.Daemon.TTLSMethod = word
		d := &dialogue{client: client, server: server, local: alice(ike.EAPTTLS), remote: asking(ike.EAPTTLS)}
		if agrees {
			d.agree(t, "EAP_TTLS", "alice", true)
		} else {
			d.fails(t)
		}
	}
}

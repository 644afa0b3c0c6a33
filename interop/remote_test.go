package interop_test

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"adit/interop/lab"
	"adit/interop/peer"
)

// Two addresses of each family to give away, and what goes with them.
const pools = `pools {
	v4 {
		addrs = 10.3.0.16/30
		dns = 10.2.0.53
		subnet = 10.2.0.0/24
		25 = corp.example
	}
	v6 {
		addrs = fd03::10-fd03::11
		dns = fd02::53
	}
}
`

var (
	vip4 = []netip.Addr{netip.MustParseAddr("10.3.0.17"), netip.MustParseAddr("10.3.0.18")}
	vip6 = []netip.Addr{netip.MustParseAddr("fd03::10"), netip.MustParseAddr("fd03::11")}
)

// Clients get an address of either family with name servers and domains, each its own,
// the same again when it comes back and when it authenticates anew; when none is left,
// the next client gets an IKE SA without a child.
func TestRemoteAccess(t *testing.T) {
	t.Parallel()
	across(t, settings{middle: lab.Bridge}, func(t *testing.T, p *path) {
		p.giveClients("alice", "bob", "carol")
		p.client(t, "alice", 0)
		p.reaches(t, 0)
		if out, err := p.Exec(5*time.Second, lab.Left, "ip", "-o", "addr"); err != nil || !strings.Contains(out, vip4[0].String()+"/32") || !strings.Contains(out, vip6[0].String()+"/128") {
			t.Errorf("the addresses are not on a device: %s %v", out, err)
		}
		log := p.left.Log()
		p.says(t, p.left, log, "DNS 10.2.0.53", "DNS fd02::53", "corp.example")
		if _, ours := p.left.(*peer.AditGateway); !ours && !regexp.MustCompile(`parsed IKE_AUTH response 1 .*CPRP\(ADDR ADDR6 .*DNS.*SUBNET.*\)`).MatchString(log) {
			t.Errorf("strongSwan saw no name servers and subnets:\n%s", log)
		}
		p.leave(t, "alice")
		var out string
		if err := lab.Poll(p.patience, func() (_ bool, err error) {
			out, err = p.Exec(5*time.Second, lab.Left, "ip", "-o", "addr")
			return !strings.Contains(out, "10.3.0.") && !strings.Contains(out, "fd03:"), err
		}); err != nil {
			t.Errorf("the addresses are still on a device: %s %v", out, err)
		}
		p.pool(t, "alice offline")
		p.client(t, "bob", 1)
		p.reaches(t, 1)
		p.client(t, "alice", 0)
		p.reaches(t, 0)
		p.pool(t, "alice online", "bob online")

		m := p.mark()
		if err := p.left.Initiate("carol"); err == nil {
			t.Error("a third client came up with two addresses")
		}
		if s := peer.Established(p.sas(p.left), "carol"); len(s) != 1 || len(s[0].Children) != 0 {
			t.Errorf("the third client has %+v", s)
		}
		_, right := m.since()
		p.says(t, p.right, right, "no free address")
		p.leave(t, "carol")

		// With a new authentication the address stays, and nobody else gets it.
		old := peer.Established(p.sas(p.left), "alice")[0]
		if out, err := p.left.Swanctl("--rekey", "--ike", "alice", "--reauth"); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		p.wait("alice's new authentication", p.left, func(s []peer.SA) bool {
			s = peer.Established(s, "alice")
			return len(s) == 1 && s[0].InitiatorSPI != old.InitiatorSPI && len(peer.Installed(s, "alice")) == 1
		})
		p.has(t, "alice", 0)
		p.reaches(t, 0)
		p.reaches(t, 1)
		p.leave(t, "alice")
		p.leave(t, "bob")
		p.gone(t)
		p.pool(t, "alice offline", "bob offline")
	})
}

// giveClients loads connections of these clients, and the gateway's for all of them.
func (p *path) giveClients(names ...string) {
	p.t.Helper()
	l, r := p.ends(false)
	both := "10.2.0.0/24, fd02::/64"
	var clients []site
	for _, n := range names {
		clients = append(clients, site{name: n, local: "auth = psk\nid = " + clientID(n), remote: "auth = psk\nid = " + rightID,
			extra: "vips = 0.0.0.0, ::\n", localTS: "dynamic", remoteTS: both})
	}
	secret := "secrets {\nike-1 {\nsecret = \"what all the clients share\"\n}\n}\n"
	p.give(setting{conf: l.with(secret, clients...)},
		setting{conf: r.with(secret+pools, site{name: "rw", local: "auth = psk\nid = " + rightID, remote: "auth = psk\nid = *@left.example.org",
			extra: "pools = v4, v6\n", localTS: both, remoteTS: "dynamic"})})
}

// client brings a client up, which then has the n-th addresses.
func (p *path) client(t *testing.T, name string, n int) {
	t.Helper()
	m := p.mark()
	if err := p.left.Initiate(name); err != nil {
		_, right := m.since()
		t.Fatalf("initiating %s: %v\nright:\n%s", name, err, right)
	}
	p.has(t, name, n)
}

// has demands that both ends say the client has the n-th addresses.
func (p *path) has(t *testing.T, name string, n int) {
	t.Helper()
	want := []string{vip4[n].String(), vip6[n].String()}
	l := peer.Established(p.sas(p.left), name)
	if len(l) != 1 || !slices.Equal(slices.Sorted(slices.Values(l[0].LocalVIPs)), want) {
		t.Errorf("%s has not %v: %+v", name, want, l)
	}
	p.wait("the same at the gateway", p.right, func(s []peer.SA) bool {
		return slices.ContainsFunc(s, func(sa peer.SA) bool {
			return sa.RemoteID == clientID(name) && sa.State == "ESTABLISHED" && slices.Equal(slices.Sorted(slices.Values(sa.RemoteVIPs)), want)
		})
	})
	c := peer.Installed(l, name)
	ts := []string{want[0] + "/32", want[1] + "/128"}
	if len(c) != 1 || !slices.Equal(slices.Sorted(slices.Values(c[0].LocalTS)), ts) {
		t.Errorf("the selectors of %s are not %v: %+v", name, ts, c)
	}
}

// reaches pings with the n-th addresses from the client and from behind the gateway.
func (p *path) reaches(t *testing.T, n int) {
	t.Helper()
	for _, k := range []struct {
		node     string
		to, from netip.Addr
	}{{lab.Left, p.R.Host4, vip4[n]}, {lab.Left, p.R.Host6, vip6[n]}, {lab.RightHost, vip4[n], p.R.Host4}, {lab.RightHost, vip6[n], p.R.Host6}} {
		if err := lab.Poll(5*time.Second, func() (bool, error) {
			got, err := p.Ping(k.node, k.to, lab.PingOptions{Source: k.from, Pattern: marker, Timeout: 200 * time.Millisecond})
			return got.Received > 0, err
		}); err != nil {
			t.Errorf("from %v to %v: %v", k.from, k.to, err)
		}
	}
	if c := p.outside.Contains(marker); c != 0 {
		t.Errorf("%d packets outside show the pinged data", c)
	}
}

// leave ends a client's IKE SA and waits until the gateway knows.
func (p *path) leave(t *testing.T, name string) {
	t.Helper()
	if err := p.left.Terminate(name); err != nil {
		t.Fatal(err)
	}
	for _, g := range []peer.Gateway{p.left, p.right} {
		p.wait("the end of "+name, g, func(s []peer.SA) bool {
			return !slices.ContainsFunc(s, func(sa peer.SA) bool { return sa.LocalID == clientID(name) || sa.RemoteID == clientID(name) })
		})
	}
}

// pool demands these leases of the gateway's pools, in the words of `swanctl
// --list-pools --leases`: "alice online".
func (p *path) pool(t *testing.T, want ...string) {
	t.Helper()
	out, err := p.right.Swanctl("--list-pools", "--leases")
	if err != nil {
		t.Fatal(err)
	}
	lease := regexp.MustCompile(`(?m)^ +(\S+) +(online|offline) +'(\w+)@left\.example\.org'`)
	var got []string
	for _, m := range lease.FindAllStringSubmatch(out, -1) {
		if strings.Contains(m[1], ".") {
			got = append(got, m[3]+" "+m[2])
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) || len(lease.FindAllString(out, -1)) != 2*len(want) {
		t.Errorf("leases %v, want %v of either family:\n%s", got, want, out)
	}
}

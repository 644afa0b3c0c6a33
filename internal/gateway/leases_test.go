package gateway

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"adit/ike"
	"adit/ike/wire"
	"adit/internal/config"
)

func lessor(t *testing.T, list ...config.Pool) *leases {
	t.Helper()
	l := &leases{}
	l.init()
	for _, p := range list {
		if err := l.load(p, FromVICI); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func v4pool(name, from, to string) config.Pool {
	return config.Pool{Name: name, From: netip.MustParseAddr(from), To: netip.MustParseAddr(to),
		Attributes: []wire.Attribute{{Type: wire.InternalIP4DNS, Value: []byte{192, 0, 2, 53}}}}
}

func want(lease uint64, id string, wish string, pools ...string) ike.LeaseAddresses {
	q := ike.LeaseAddresses{Lease: lease, Peer: &ike.Peer{Pools: pools}, ID: id}
	a := wire.Attribute{Type: wire.InternalIP4Address}
	if wish != "" {
		a.Value = netip.MustParseAddr(wish).AsSlice()
	}
	q.Request = []wire.Attribute{a}
	return q
}

func one(t *testing.T, l *leases, q ike.LeaseAddresses) string {
	t.Helper()
	got, err := l.give(context.Background(), q)
	if err != nil {
		return "error"
	}
	if len(got.Addrs) != 1 {
		t.Fatalf("%d addresses", len(got.Addrs))
	}
	return got.Addrs[0].String()
}

// A client gets its last address again; a reauthenticating one that asks for the
// address that it has keeps it while both IKE SAs stand.
func TestRFC7296_2_19_LeaseOfAnIdentity(t *testing.T) {
	l := lessor(t, v4pool("p", "10.3.0.1", "10.3.0.3"))
	if a := one(t, l, want(1, "alice", "", "p")); a != "10.3.0.1" {
		t.Fatal(a)
	}
	if a := one(t, l, want(2, "bob", "10.3.0.1", "p")); a != "10.3.0.2" {
		t.Fatalf("bob got %s, which is alice's or out of order", a)
	}
	if a := one(t, l, want(3, "alice", "10.3.0.1", "p")); a != "10.3.0.1" {
		t.Fatalf("reauthentication moved alice to %s", a)
	}
	l.release(1)
	if a := one(t, l, want(4, "carol", "10.3.0.1", "p")); a != "10.3.0.3" {
		t.Fatalf("carol got %s while alice's second IKE SA has it", a)
	}
	l.release(3)
	if a := one(t, l, want(5, "alice", "", "p")); a != "10.3.0.1" {
		t.Fatalf("alice came back to %s", a)
	}
}

// Who comes back without a goodbye gets the address that its older IKE SA has until that
// is gone, also if it is the only one; if that one stays, another one.
func TestRFC7296_2_19_LeaseOfWhoComesBack(t *testing.T) {
	l := lessor(t, v4pool("p", "10.3.0.1", "10.3.0.1"))
	one(t, l, want(1, "alice", "", "p"))
	if a := one(t, l, want(2, "alice", "", "p")); a != "error" {
		t.Fatalf("a second device of alice's got %s", a)
	}
	back := want(3, "alice", "", "p")
	back.Instead = []uint64{1}
	if a := one(t, l, back); a != "10.3.0.1" {
		t.Fatalf("alice came back to %s", a)
	}
	l.release(1)
	bob := want(4, "bob", "10.3.0.1", "p")
	bob.Instead = []uint64{3} // which is not his
	if a := one(t, l, bob); a != "error" {
		t.Fatalf("bob got %s", a)
	}
	// A third one holds it, which does not go.
	both := want(5, "alice", "10.3.0.1", "p")
	one(t, l, both)
	back = want(6, "alice", "", "p")
	back.Instead = []uint64{3}
	if a := one(t, l, back); a != "error" {
		t.Fatalf("alice got %s, which another IKE SA of hers keeps", a)
	}
	l.release(3)
	l.release(5)
	if a := one(t, l, bob); a != "10.3.0.1" {
		t.Fatalf("bob got %s", a)
	}
}

func TestRFC7296_3_15_4_PoolExhausted(t *testing.T) {
	l := lessor(t, v4pool("p", "10.3.0.1", "10.3.0.2"))
	one(t, l, want(1, "a", "", "p"))
	one(t, l, want(2, "b", "", "p"))
	if a := one(t, l, want(3, "c", "", "p")); a != "error" {
		t.Fatalf("a third client got %s", a)
	}
	l.release(2)
	l.release(1)
	if a := one(t, l, want(3, "c", "", "p")); a != "10.3.0.2" {
		t.Fatalf("c got %s, not what was free for longest", a)
	}
	if a := one(t, l, want(4, "b", "", "p")); a != "10.3.0.1" {
		t.Fatalf("b got %s", a)
	}
}

// A pool that people have addresses of is not taken away from under them; one of
// another family gives nothing, which is no error.
func TestPoolInUse(t *testing.T) {
	g := &Gateway{}
	g.leases.init()
	l := &g.leases
	if err := g.LoadPool(v4pool("p", "10.3.0.1", "10.3.0.9")); err != nil {
		t.Fatal(err)
	}
	one(t, l, want(1, "a", "", "p"))
	if err := g.UnloadPool("p"); err == nil {
		t.Fatal("unloaded with a lease online")
	}
	if err := g.LoadPool(v4pool("p", "10.4.0.1", "10.4.0.9")); err == nil {
		t.Fatal("moved with a lease online")
	}
	s := g.Pools()[0]
	if s.Size != 9 || s.Online != 1 || s.Offline != 0 || len(s.Leases) != 1 || s.Leases[0].Identity != "a" || !s.Leases[0].Online {
		t.Fatalf("%+v", s)
	}
	q := want(2, "b", "", "p")
	q.Request[0].Type = wire.InternalIP6Address
	if got, err := l.give(context.Background(), q); err != nil || len(got.Addrs) != 0 {
		t.Fatalf("%v %v", got, err)
	}
	l.release(1)
	if err := g.UnloadPool("p"); err != nil {
		t.Fatal(err)
	}
}

func TestRangeSize(t *testing.T) {
	for _, x := range []struct {
		from, to string
		n        uint64
	}{{"10.0.0.1", "10.0.0.1", 1}, {"10.0.0.1", "10.0.0.254", 254}, {"10.0.0.255", "10.0.1.0", 2}, {"2001:db8::1", "2001:db8::ffff", 65535}, {"2001:db8::", "2001:db8:ffff::", 1 << 31}} {
		if n := rangeSize(netip.MustParseAddr(x.from), netip.MustParseAddr(x.to)); n != x.n {
			t.Errorf("%s to %s: %d, not %d", x.from, x.to, n, x.n)
		}
	}
}

// Whoever may call itself anything makes a large pool remember no more than is
// allowed, by wishes neither; finding the oldest address costs the same in any pool.
func TestPoolRemembersSoMany(t *testing.T) {
	l := lessor(t, v4pool("p", "10.0.0.1", "10.255.255.254"))
	one(t, l, want(1, "stays", "", "p"))
	wish := netip.MustParseAddr("10.99.0.0")
	for i := range uint64(limitRemembered + 5000) {
		q := want(i+2, fmt.Sprint("guest ", i), "", "p")
		if i%2 == 0 {
			wish = wish.Next()
			q.Request[0].Value = wish.AsSlice()
		}
		one(t, l, q)
		l.release(i + 2)
	}
	p := l.pools["p"]
	if len(p.used) != limitRemembered || len(p.last) > limitRemembered || p.free.Len() != limitRemembered-1 || len(l.held) != 1 {
		t.Errorf("%d addresses, %d identities, %d free, %d held", len(p.used), len(p.last), p.free.Len(), len(l.held))
	}
	if e := p.used[netip.MustParseAddr("10.0.0.1")]; e == nil || e.identity != "stays" || len(e.holders) != 1 {
		t.Errorf("an address in use was given to somebody else: %+v", e)
	}
	last := fmt.Sprint("guest ", limitRemembered+4999)
	if a := one(t, l, want(9_999_999, last, "", "p")); a != p.last[last].String() {
		t.Errorf("the last guest came back to %s", a)
	}
}

package client

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"adit/internal/hostnet"
)

func prefixesOf(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func selectorsOf(list ...string) (out []hostnet.Selector) {
	for _, p := range prefixesOf(list...) {
		out = append(out, hostnet.PrefixSelector(p))
	}
	return out
}

// Local networks stay reachable if they are private, and take nothing from what the
// gateway has named (CVE-2023-36672, CVE-2023-35838).
func TestLocalNetworks(t *testing.T) {
	lan := prefixesOf("192.168.1.0/24", "203.0.113.0/24", "10.2.0.0/25", "10.0.0.0/7", "fd00:1::/64", "2001:db8::/64", "0.0.0.0/1")
	for _, c := range []struct{ inside, want []string }{
		{[]string{"0.0.0.0/0", "::/0"}, []string{"192.168.1.0/24", "10.2.0.0/25", "fd00:1::/64"}},
		{[]string{"10.2.0.0/24"}, []string{"192.168.1.0/24", "fd00:1::/64"}},
		{[]string{"0.0.0.0/0", "fd00::/8"}, []string{"192.168.1.0/24", "10.2.0.0/25"}},
	} {
		s := steering{lan: lan, inside: selectorsOf(c.inside...)}
		if got := s.bypassed(); !slices.Equal(got, prefixesOf(c.want...)) {
			t.Errorf("inside %v: %v, want %v", c.inside, got, c.want)
		}
	}
}

// What is held back: of a tunnel for everything the other family, too.
func TestKillSwitch(t *testing.T) {
	everything := selectorsOf("0.0.0.0/0", "::/0")
	for _, c := range []struct {
		s    steering
		want []hostnet.Selector
	}{
		{steering{}, nil},
		{steering{inside: everything}, nil},
		{steering{killSwitch: true}, nil},
		{steering{killSwitch: true, closed: true}, everything},
		{steering{killSwitch: true, inside: selectorsOf("0.0.0.0/0")}, everything},
		{steering{killSwitch: true, inside: selectorsOf("::/0", "10.2.0.0/24")}, everything},
		{steering{killSwitch: true, inside: selectorsOf("10.2.0.0/24")}, selectorsOf("10.2.0.0/24")},
	} {
		if got := c.s.held(); !slices.Equal(got, c.want) {
			t.Errorf("%+v: %v, want %v", c.s, got, c.want)
		}
	}
}

// The name of the gateway is looked up once; an address is not, and all of them are tried.
func TestServerIsLookedUpOnce(t *testing.T) {
	asked := 0
	look := func(_ context.Context, host string) ([]netip.Addr, error) {
		asked++
		if host == "gone.example" {
			return nil, errors.New("no such host")
		}
		return []netip.Addr{netip.MustParseAddr("::ffff:192.0.2.2"), netip.MustParseAddr("2001:db8::2"), netip.MustParseAddr("192.0.2.2")}, nil
	}
	got, err := resolve(t.Context(), []string{"gone.example", "vpn.example", "198.51.100.1"}, look)
	want := []netip.Addr{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::2"), netip.MustParseAddr("198.51.100.1")}
	if err != nil || asked != 2 || !slices.Equal(got, want) {
		t.Errorf("%v %v, asked %d times", got, err, asked)
	}
	var e *Error
	if _, err := resolve(t.Context(), []string{"gone.example"}, look); !errors.As(err, &e) || e.Kind != Unreachable {
		t.Errorf("%v", err)
	}
}

// What comes by another way for an address that the gateway gave is dropped, from
// wherever it claims to be, link-local addresses too, and nothing leaves with it but by the
// tunnel (CVE-2019-14899); a local network with a target's addresses takes nothing out
// (CVE-2023-36672); and forwarding to a local network that stays reachable is for its own
// addresses alone.
func TestForeignPacketsForTheVirtualAddress(t *testing.T) {
	vip := netip.MustParseAddr("10.3.0.17")
	own := hostnet.Policy{ID: "sa/1", Action: hostnet.Protect, Local: selectorsOf("10.3.0.17/32"), Remote: selectorsOf("0.0.0.0/0"), Priority: 1000}
	got := compose(hostnet.State{Policies: []hostnet.Policy{own}}, steering{device: "adit0", vips: []netip.Addr{vip}, inside: selectorsOf("0.0.0.0/0"), killSwitch: true, lan: prefixesOf("192.168.1.0/24")})
	byID := map[string]hostnet.Policy{}
	for _, p := range got.Policies {
		byID[p.ID] = p
	}
	if p := byID["sa/1"]; !p.IncludeConnected {
		t.Errorf("a local network takes traffic out of the tunnel: %+v", p)
	}
	guard := byID["client/own"]
	if guard.Action != hostnet.Discard || guard.Priority <= own.Priority || !slices.Equal(guard.Local, selectorsOf("10.3.0.17/32")) {
		t.Errorf("the address is not guarded: %+v", guard)
	}
	for _, s := range selectorsOf("0.0.0.0/0", "::/0", "169.254.0.0/16", "fe80::/10") {
		if !slices.Contains(guard.Remote, s) {
			t.Errorf("packets from %v-%v for the address are not dropped", s.From, s.To)
		}
	}
	lan := byID["client/lan/192.168.1.0/24"]
	if lan.Action != hostnet.Bypass || lan.Priority >= own.Priority || !slices.Equal(lan.Local, selectorsOf("192.168.1.0/24")) {
		t.Errorf("the local network's exception is too wide, or too late: %+v", lan)
	}
	if s := byID["client/kill-switch"]; s.Action != hostnet.Discard || s.Priority <= guard.Priority {
		t.Errorf("%+v", s)
	}
}

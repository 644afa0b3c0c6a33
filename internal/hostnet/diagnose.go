package hostnet

import (
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
)

// diagnose looks for settings of the host that stop a gateway from working; s is
// nil before the first Apply.
func diagnose(s *State) []string {
	var found []string
	say := func(format string, a ...any) { found = append(found, fmt.Sprintf(format, a...)) }
	v4, v6 := s.families()
	if v4 && sysctl("ipv4/ip_forward") == "0" {
		say("net.ipv4.ip_forward is 0: networks behind this host won't be forwarded")
	}
	if v6 && sysctl("ipv6/conf/all/forwarding") == "0" {
		say("net.ipv6.conf.all.forwarding is 0: IPv6 networks behind this host won't be forwarded")
	}
	if v6 && sysctl("ipv6/conf/all/disable_ipv6") == "1" {
		say("net.ipv6.conf.all.disable_ipv6 is 1 although a policy has IPv6 addresses")
	}
	if s == nil {
		return found
	}
	links, err := netlink.LinkList()
	if err != nil {
		say("the host's links can't be listed: %v", err)
		return found
	}
	have := map[string]netlink.Link{}
	for _, l := range links {
		name := l.Attrs().Name
		have[name] = l
		if v4 && !slices.Contains(s.Devices, name) && strictFilter(name) {
			say("rp_filter of %s is strict: packets are dropped there if the route back to their source leads elsewhere", name)
		}
	}
	for _, d := range s.Devices {
		switch l := have[d]; {
		case l == nil:
			say("device %s does not exist", d)
		case l.Attrs().Flags&1 == 0:
			say("device %s is down", d)
		case v6 && sysctl("ipv6/conf/"+d+"/disable_ipv6") == "1":
			say("IPv6 is disabled on device %s although a policy has IPv6 addresses", d)
		case v6 && max(sysctl("ipv6/conf/"+d+"/accept_ra"), "0") != "0":
			say("accept_ra of device %s is on and can't be switched off: a peer whose selectors are as wide as ::/0 could send router advertisements; set net.ipv6.conf.default.accept_ra to 0 where this network namespace is made", d)
		}
	}
	return found
}

// strictFilter reports whether an interface drops packets whose source is routed
// by another interface; the larger of its own setting and that for all counts.
func strictFilter(name string) bool {
	return name != "lo" && max(sysctl("ipv4/conf/all/rp_filter"), sysctl("ipv4/conf/"+name+"/rp_filter")) == "1"
}

// families returns which address families the state's policies have; IPv4 alone
// without a state.
func (s *State) families() (v4, v6 bool) {
	if s == nil {
		return true, false
	}
	for _, p := range s.Policies {
		for _, sel := range p.Remote {
			v4 = v4 || sel.From.Is4()
			v6 = v6 || sel.From.Is6()
		}
	}
	return v4, v6
}

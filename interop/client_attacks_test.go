package interop_test

import (
	"net/netip"
	"time"

	"adit/interop/lab"
)

// attacks are what a hostile local network does to a machine: it claims a target's
// addresses as its own subnet (TunnelCrack's LocalNet, CVE-2023-36672), it gives a route
// more specific than the tunnel's, as DHCP's option 121 does (TunnelVision, CVE-2024-3661),
// and it sends packets for the address inside the tunnel (CVE-2019-14899). All of it works
// while nothing is connected, which shows that the attacks are ones, and nothing then.
func (l *clientLab) attacks(address netip.Addr, connected bool) {
	l.t.Helper()
	ip := func(node string, args ...string) {
		l.t.Helper()
		_, err := l.Exec(5*time.Second, node, append([]string{"ip"}, args...)...)
		l.must(err)
	}
	target := netip.MustParseAddr("203.0.113.9")
	change := func(verb string) {
		ip(lab.Left, "addr", verb, "203.0.113.1/24", "dev", lab.Lan)
		ip(lab.LeftHost, "addr", verb, target.String()+"/24", "dev", lab.Eth0)
		ip(lab.Left, "route", verb, "10.2.0.0/25", "via", l.L.Host4.String(), "dev", lab.Lan)
		if !connected {
			ip(lab.Left, "addr", verb, address.String()+"/32", "dev", "lo")
		}
	}
	change("add")
	defer change("del")
	time.Sleep(500 * time.Millisecond) // the client answers changes of the host after a while
	local, err := l.Capture(lab.LeftHost, lab.Eth0)
	l.must(err)
	defer local.Stop()
	claimed, inside := l.reaches(target), l.reaches(l.R.Host4)
	taken := local.Count(func(p *lab.Packet) bool {
		return !p.Outgoing && p.Class == lab.ClassICMP && (p.Dst == l.R.Host4 || p.Dst == target)
	})
	probe, err := l.Ping(lab.LeftHost, address, lab.PingOptions{Count: 2, Timeout: 500 * time.Millisecond})
	l.must(err)
	if connected && (claimed || !inside || taken > 0 || probe.Received > 0) {
		l.t.Errorf("the attacks: claimed target reached %v, inside reached %v, %d packets taken, %d probes answered", claimed, inside, taken, probe.Received)
	}
	if !connected && (!claimed || taken == 0 || probe.Received == 0) {
		l.t.Errorf("these are no attacks: claimed target reached %v, %d packets taken, %d probes answered", claimed, taken, probe.Received)
	}
}

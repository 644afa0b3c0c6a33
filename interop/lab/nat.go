package lab

import (
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
)

// Rebind makes the NAT in the middle forget its mappings and give out ports from
// firstPort (up to 999 more) from now on, as a router does after a restart or an
// idle time: the left gateway, which notices nothing, appears from other ports.
// Only for labs with [NAT] in the middle.
func (l *Lab) Rebind(firstPort int) error {
	if l.opt.Middle != NAT {
		return errors.New("lab: Rebind needs a NAT in the middle")
	}
	rules := "add table inet labnat\ndelete table inet labnat\ntable inet labnat {\n" +
		"chain post { type nat hook postrouting priority srcnat;\n"
	for _, p := range []string{"tcp", "udp"} {
		rules += fmt.Sprintf("oifname %q meta l4proto %s masquerade to :%d-%d\n", Right, p, firstPort, firstPort+999)
	}
	rules += fmt.Sprintf("oifname %q masquerade\n}\n}\n", Right)
	if out, err := run(10*time.Second, rules, "ip", "netns", "exec", l.NS(Wire), "nft", "-f", "-"); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return InNS(l.NS(Wire), func() error {
		// One flush takes the mappings of both address families.
		if err := netlink.ConntrackTableFlush(netlink.ConntrackTable); err != nil {
			return fmt.Errorf("flushing the NAT's mappings: %w", err)
		}
		return nil
	})
}

package hostnet

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A setting of one of our devices: a file below /proc/sys/net/FAMILY/conf/DEVICE and,
// for where /proc/sys is read-only (containers), a way by netlink.
type setting struct {
	family, name, value string
	netlink             func(link netlink.Link, value int) error // nil: there is none
}

// deviceSettings are what our devices need; rp is the value of rp_filter.
func deviceSettings(rp string) []setting {
	return []setting{
		{"ipv4", "rp_filter", rp, confIPv4(confRPFilter)},
		{"ipv4", "src_valid_mark", "1", confIPv4(confSrcValidMark)},
		{"ipv6", "addr_gen_mode", "1", netlink.LinkSetIP6AddrGenMode}, // none
		{"ipv6", "accept_ra", "0", nil},
		{"ipv6", "autoconf", "0", nil},
		{"ipv6", "router_solicitations", "0", nil},
	}
}

// set changes the setting unless it is so already. What cannot be set and has no other
// way stays as it is: Diagnose tells about it where it matters.
func (s setting) set(link netlink.Link) error {
	name := s.family + "/conf/" + link.Attrs().Name + "/" + s.name
	if sysctl(name) == s.value {
		return nil
	}
	err := os.WriteFile("/proc/sys/net/"+name, []byte(s.value), 0)
	if errors.Is(err, os.ErrNotExist) && s.family == "ipv6" {
		return nil // IPv6 is off on this host
	}
	if !errors.Is(err, unix.EROFS) && !errors.Is(err, os.ErrPermission) {
		return err
	}
	if s.netlink == nil {
		return nil
	}
	v, e := strconv.Atoi(s.value)
	if e == nil {
		e = s.netlink(link, v)
	}
	if e != nil {
		return fmt.Errorf("%w, and by netlink: %w", err, e)
	}
	return nil
}

// Numbers of settings in IFLA_INET_CONF: IPV4_DEVCONF_* of <linux/ip.h>.
const (
	confRPFilter     = 8
	confSrcValidMark = 24
	iflaInetConf     = 1 // IFLA_INET_CONF of <linux/if_link.h>
)

// confIPv4 sets an IPv4 setting of a device by its number.
func confIPv4(number int) func(netlink.Link, int) error {
	return func(link netlink.Link, value int) error {
		req := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
		msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
		msg.Index = int32(link.Attrs().Index)
		req.AddData(msg)
		spec := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
		spec.AddRtAttr(unix.AF_INET, nil).AddRtAttr(iflaInetConf, nil).AddRtAttr(number, nl.Uint32Attr(uint32(value)))
		req.AddData(spec)
		_, err := req.Execute(unix.NETLINK_ROUTE, 0)
		return err
	}
}

// sysctl returns a value below /proc/sys/net, "" if it doesn't exist.
func sysctl(name string) string {
	b, err := os.ReadFile("/proc/sys/net/" + name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

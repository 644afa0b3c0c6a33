package hostnet

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// DeviceTo names the device by which our own packets to remote leave, from local if
// that is valid: as those of our sockets, outside the policies and their routes.
func (n *Net) DeviceTo(local, remote netip.Addr) (string, error) {
	o := &netlink.RouteGetOptions{Mark: n.opt.ownMark()}
	if local.IsValid() {
		o.SrcAddr = local.Unmap().AsSlice()
	}
	routes, err := netlink.RouteGetWithOptions(remote.Unmap().AsSlice(), o)
	if err != nil {
		return "", fmt.Errorf("hostnet: route to %v: %w", remote, err)
	}
	for _, r := range routes {
		if d, err := net.InterfaceByIndex(r.LinkIndex); err == nil {
			return d.Name, nil
		}
	}
	return "", fmt.Errorf("hostnet: no device leads to %v", remote)
}

package hostnet

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Addresses are those of the host's links that are up, without loopback, link-local
// addresses, those that are not to be used (yet, or any more) and those of the devices
// named: what a peer can be told of.
func Addresses(without ...string) ([]netip.Addr, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("hostnet: listing links: %w", err)
	}
	up := map[int]bool{}
	for _, l := range links {
		a := l.Attrs()
		up[a.Index] = a.Flags&net.FlagUp != 0 && a.Flags&net.FlagLoopback == 0 && !slices.Contains(without, a.Name)
	}
	list, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("hostnet: listing addresses: %w", err)
	}
	var out []netip.Addr
	for _, x := range list {
		a, ok := netip.AddrFromSlice(x.IP)
		a = a.Unmap()
		const no = unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED | unix.IFA_F_DEPRECATED
		if ok && up[x.LinkIndex] && x.Flags&no == 0 && a.IsGlobalUnicast() && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out, nil
}

// Connected are the subnets of the host's links that are up, without loopback, link-local
// ones, single addresses and those of the devices named: the local networks.
func Connected(without ...string) ([]netip.Prefix, error) {
	h, err := readHost(without)
	if err != nil {
		return nil, err
	}
	var out []netip.Prefix
	for _, r := range h.connected {
		for _, p := range r.prefixes() {
			if !slices.Contains(out, p) {
				out = append(out, p)
			}
		}
	}
	return out, nil
}

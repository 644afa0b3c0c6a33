package hostnet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// addressKey is one address that we put on a device.
type addressKey struct {
	Device string
	Prefix netip.Prefix
}

func newAddressKey(device string, p netip.Prefix) (addressKey, error) {
	if err := checkDeviceName(device); err != nil {
		return addressKey{}, err
	}
	if !p.IsValid() || p.Addr().Is4In6() || p.Addr().IsUnspecified() || p.Addr().IsMulticast() {
		return addressKey{}, fmt.Errorf("hostnet: %v can't be a device's address", p)
	}
	return addressKey{device, p}, nil
}

// String returns address and device as ip(8) writes them.
func (k addressKey) String() string { return k.Prefix.String() + " dev " + k.Device }

func (k addressKey) netlink() *netlink.Addr {
	a := &netlink.Addr{IPNet: ipNet(k.Prefix)}
	if k.Prefix.Addr().Is6() {
		// Duplicate detection makes no sense on a TUN and would delay the use.
		a.Flags = unix.IFA_F_NODAD
	}
	return a
}

func addAddress(k addressKey) error {
	link, err := netlink.LinkByName(k.Device)
	if err != nil {
		return err
	}
	return netlink.AddrReplace(link, k.netlink())
}

// delAddress removes an address; one that is gone, or whose device is, is fine.
func delAddress(k addressKey) error {
	link, err := netlink.LinkByName(k.Device)
	if err == nil {
		err = netlink.AddrDel(link, k.netlink())
	}
	var gone netlink.LinkNotFoundError
	if errors.As(err, &gone) || errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// deviceGroup is the group (ip link … group) of our devices, by which the rules
// know them: 0xad17. It dies with the device. An index would be as quick to compare
// and could be another device's after ours died, a container's that is moved
// here for example: then the guard would let the traffic out by it. With the group,
// no rule matches until a device is made ours.
const deviceGroup = 44311

// group puts a TUN device into our group. What is new there loses its queueing
// discipline: a TUN device queues by itself, and pfifo_fast before it never has
// anything to hold, but costs every packet of the hosts. Whoever wants another one gives
// it to the device later, and keeps it.
func group(link netlink.Link) error {
	if link.Attrs().Group == deviceGroup {
		return nil
	}
	// Without it all works, too: kernels can lack this one.
	_ = netlink.QdiscReplace(&netlink.GenericQdisc{QdiscType: "noqueue",
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Parent: netlink.HANDLE_ROOT}})
	return netlink.LinkSetGroup(link, deviceGroup)
}

func isTUN(link netlink.Link) bool { return link.Type() == "tuntap" || link.Type() == "tun" }

func setupDevice(device string, mtu int) error {
	if err := checkDeviceName(device); err != nil {
		return err
	}
	link, err := netlink.LinkByName(device)
	if err != nil {
		return fmt.Errorf("hostnet: device %s: %w", device, err)
	}
	if !isTUN(link) {
		return fmt.Errorf("hostnet: device %s is a %s, not a TUN of ours", device, link.Type())
	}
	// Strict reverse-path filtering would drop what comes out of the tunnel where
	// the host has no plain route back. The kernel takes the larger of "all" and
	// the device's value, so strict can only be turned into loose, not off; with
	// src_valid_mark the check sees our mark and thereby our route.
	rp := "0"
	if sysctl("ipv4/conf/all/rp_filter") != "0" {
		rp = "2"
	}
	for _, c := range deviceSettings(rp) {
		if err := c.set(link); err != nil {
			return fmt.Errorf("hostnet: device %s: %w", device, err)
		}
	}
	if err := group(link); err != nil {
		return fmt.Errorf("hostnet: device %s: group %d: %w", device, deviceGroup, err)
	}
	if mtu > 0 {
		if err := netlink.LinkSetMTU(link, mtu); err != nil {
			return fmt.Errorf("hostnet: device %s: MTU %d: %w", device, mtu, err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("hostnet: device %s: up: %w", device, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func ipNetPrefix(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP)
	ones, size := n.Mask.Size()
	if !ok || size == 0 {
		return netip.Prefix{}, false
	}
	if size == 32 {
		a = a.Unmap()
	}
	return netip.PrefixFrom(a, ones), true
}

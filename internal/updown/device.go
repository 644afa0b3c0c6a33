package updown

import (
	"encoding/binary"
	"net"
	"net/netip"
	"syscall"
)

// deviceIn finds the address among the kernel's: a point-to-point device has its own in
// IFA_LOCAL and the peer's in IFA_ADDRESS, others the same in both or only the latter.
func deviceIn(messages []syscall.NetlinkMessage, local netip.Addr) string {
	for i := range messages {
		m := &messages[i]
		if m.Header.Type != syscall.RTM_NEWADDR || len(m.Data) < syscall.SizeofIfAddrmsg {
			continue
		}
		attrs, err := syscall.ParseNetlinkRouteAttr(m)
		if err != nil {
			continue
		}
		var own netip.Addr
		for _, a := range attrs {
			if addr, ok := netip.AddrFromSlice(a.Value); ok && (a.Attr.Type == syscall.IFA_LOCAL || a.Attr.Type == syscall.IFA_ADDRESS && !own.IsValid()) {
				own = addr
			}
		}
		if own != local {
			continue
		}
		device, err := net.InterfaceByIndex(int(binary.NativeEndian.Uint32(m.Data[4:8])))
		if err == nil {
			return device.Name
		}
	}
	return ""
}

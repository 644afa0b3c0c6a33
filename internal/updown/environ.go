package updown

import (
	"cmp"
	"fmt"
	"math/bits"
	"net/netip"
	"os"

	"adit/ipsec"
)

// defaultPath is for a gateway that was started without any.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// verb is PLUTO_VERB: a selector that is just our own address makes a host of us.
func verb(c call, p pair) string {
	v := "down"
	if c.isUp {
		v = "up"
	}
	if me := c.up.Local.Addr().Unmap().WithZone(""); p.local.From == me && p.local.To == me {
		v += "-host"
	} else {
		v += "-client"
	}
	if p.local.From.Is6() {
		v += "-v6"
	}
	return v
}

// environment is what a command is told, in charon's names and formats, with our own
// beside them. What tells the Child SA and its selectors apart is the same at up and
// at down; addresses and the number of the IKE SA are those of the moment.
func environment(c call, p pair) []string {
	env := make([]string, 0, 40)
	set := func(name, format string, a ...any) {
		env = append(env, name+"="+printable(fmt.Sprintf(format, a...)))
	}
	sa, child := c.sa, c.child
	set("PATH", "%s", cmp.Or(os.Getenv("PATH"), defaultPath))
	set("PLUTO_VERSION", "1.1")
	set("PLUTO_VERB", "%s", verb(c, p))
	set("PLUTO_CONNECTION", "%s", child.Name)
	set("PLUTO_INTERFACE", "%s", cmp.Or(c.device, "unknown"))
	set("PLUTO_REQID", "%d", child.ReqID)
	set("PLUTO_PROTO", "esp")
	set("PLUTO_UNIQUEID", "%d", sa.ID)
	set("PLUTO_ME", "%s", sa.Local.Addr())
	set("PLUTO_MY_ID", "%s", identity(sa.LocalID.String()))
	set("PLUTO_MY_CLIENT", "%s", subnet(p.local))
	set("PLUTO_MY_PORT", "%s", port(p, true))
	set("PLUTO_MY_PROTOCOL", "%d", p.local.Proto)
	set("PLUTO_PEER", "%s", sa.Remote.Addr())
	set("PLUTO_PEER_ID", "%s", identity(sa.RemoteID.String()))
	set("PLUTO_PEER_CLIENT", "%s", subnet(p.remote))
	set("PLUTO_PEER_PORT", "%s", port(p, false))
	set("PLUTO_PEER_PROTOCOL", "%d", p.remote.Proto)
	if sa.RemoteEAPID != "" {
		set("PLUTO_XAUTH_ID", "%s", identity(sa.RemoteEAPID))
	}
	sources(set, "PLUTO_MY_SOURCEIP", c.up.LocalVIPs)
	sources(set, "PLUTO_PEER_SOURCEIP", c.up.RemoteVIPs)
	if child.IfID != 0 {
		set("PLUTO_IF_ID_IN", "%d", child.IfID)
		set("PLUTO_IF_ID_OUT", "%d", child.IfID)
	}
	if sa.NATLocal || sa.NATRemote || sa.NATFake {
		set("PLUTO_UDP_ENC", "%d", sa.Remote.Port())
	}
	if child.HostAccess {
		set("PLUTO_HOST_ACCESS", "1")
	}
	set("ADIT_INSTANCE", "%016x", c.up.Instance)
	set("ADIT_CONNECTION", "%s", sa.Name)
	set("ADIT_CHILD", "%s", child.Name)
	set("ADIT_CHILD_ID", "%d", child.ID)
	return env
}

// identity shows every octet that is no printable ASCII as ?, as charon does, and bounds
// what a peer calls itself: the kernel starts nothing with a value of more than 128 KiB,
// and a peer must not decide that.
func identity(s string) string {
	b := []byte(s[:min(len(s), limitValue)])
	for i, c := range b {
		if c < 0x20 || c > 0x7e {
			b[i] = '?'
		}
	}
	if len(s) > limitValue {
		return string(b) + "..."
	}
	return string(b)
}

// sources are the virtual addresses: the first as such, then each by family and number.
func sources(set func(name, format string, a ...any), name string, vips []netip.Addr) {
	count := map[string]int{}
	for i, a := range vips {
		if i == 0 {
			set(name, "%s", a)
		}
		family := "4"
		if a.Is6() {
			family = "6"
		}
		count[family]++
		set(fmt.Sprintf("%s%s_%d", name, family, count[family]), "%s", a)
	}
}

// subnet is the selector's addresses as a prefix, the smallest around them if they are
// none.
func subnet(s ipsec.Selector) netip.Prefix {
	n := common(s.From, s.To)
	return netip.PrefixFrom(s.From, n).Masked()
}

// common is the number of leading bits that two addresses of one family share.
func common(a, b netip.Addr) int {
	x, y := a.AsSlice(), b.AsSlice()
	for i := range x {
		if d := x[i] ^ y[i]; d != 0 {
			return 8*i + bits.LeadingZeros8(d)
		}
	}
	return a.BitLen()
}

// port is a port, 0 for all of them, or a range; for ICMP the type locally and the code
// remotely, whichever selector has them.
func port(p pair, local bool) string {
	if proto := max(p.local.Proto, p.remote.Proto); proto == ipsec.ProtoICMP || proto == ipsec.ProtoICMPv6 {
		both := max(p.local.PortFrom, p.remote.PortFrom)
		if local {
			return fmt.Sprint(both >> 8)
		}
		return fmt.Sprint(both & 0xff)
	}
	s := p.remote
	if local {
		s = p.local
	}
	if s.PortFrom == s.PortTo || s.AnyPort() {
		return fmt.Sprint(s.PortFrom)
	}
	return fmt.Sprintf("%d:%d", s.PortFrom, s.PortTo)
}

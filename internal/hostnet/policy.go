package hostnet

import (
	"fmt"
	"net/netip"
	"slices"
)

// Action says what becomes of packets that match a Policy.
type Action uint8

const (
	// Protect steers matching packets into the policy's device and lets them
	// neither leave nor enter by another way.
	Protect Action = iota + 1
	// Bypass leaves matching packets to the host's routing, in the clear
	// (swanctl's mode = pass).
	Bypass
	// Discard drops matching packets in both directions (mode = drop).
	Discard
)

// String returns the lower-case name of the action.
func (a Action) String() string {
	switch a {
	case Protect:
		return "protect"
	case Bypass:
		return "bypass"
	case Discard:
		return "discard"
	}
	return fmt.Sprintf("action(%d)", uint8(a))
}

// Selector is one side of a traffic selector (RFC 7296 §3.13.1): an address
// range with both ends included and, for a protocol, a port range. From and To
// are of one family; IPv4 addresses are plain, not mapped into IPv6.
//
// Proto 0 means every protocol and its ports mean nothing. Ports 0 to 0 mean
// every port, like 0 to 65535, except with ICMP (1) and ICMPv6 (58), where the
// "ports" are type<<8|code and 0 to 0 is type 0, code 0. With the mobility
// header (135) they are type<<8. Ports 65535 to 0 are OPAQUE (RFC 4301
// §4.4.1.1): fragments only, whose ports can't be seen.
type Selector struct {
	Proto            uint8
	From, To         netip.Addr
	PortFrom, PortTo uint16
}

// PrefixSelector returns the selector of all protocols to or from a prefix.
func PrefixSelector(p netip.Prefix) Selector {
	r := prefixRange(p)
	return Selector{From: r.from, To: r.to}
}

// Policy is one entry of the host's outbound security policy, with its inbound
// twin implied (Local and Remote exchanged).
type Policy struct {
	// ID names the policy in Counters; unique within a State.
	ID     string
	Action Action
	// Local and Remote are matched as IKE traffic selectors: any of Local and any
	// of Remote of one family whose protocols agree.
	Local, Remote []Selector
	// Priority orders policies: the lower value wins, equal ones go in the order
	// of the State.
	Priority uint32
	// Device is the TUN device that carries the policy's traffic (Protect only).
	Device string
	// MTU is the effective inner MTU of the tunnel in bytes, put on the routes; 0
	// leaves the device's own.
	MTU int
	// InstallRoutes makes Apply steer the policy's traffic to Device. Without it
	// the guard stands all the same, and the operator routes. (A policy of any to
	// any on a device that the operator routes to, as with if_id, must not be in
	// the State: there the routes are the policy.)
	InstallRoutes bool
	// SrcHint puts a host address out of Local on the routes as preferred source.
	SrcHint bool
	// Group, if it is not empty, lets policies that differ in their remote addresses
	// alone share rules and counters, so that thousands may come and go (Change): the
	// guard's drops count under the Group then.
	Group string
	// IncludeConnected protects also those subnets of the host's own links that
	// lie inside a wider remote selector. Normally these stay outside, so that
	// 0.0.0.0/0 does not cut a gateway off from its own networks.
	IncludeConnected bool
}

// State is all that Apply makes true on the host.
type State struct {
	// Devices are our TUN devices. What enters or leaves by a device that SetupDevice
	// readied is not in the clear. A device that doesn't exist (yet) is no error.
	Devices  []string
	Policies []Policy
	Clients  []Clients
}

// Limits of a State; Apply refuses more by name.
const (
	// MaxPolicies is the number of policies in one State.
	MaxPolicies = 65536
	// MaxSelectors is the number of selectors on one side of a policy.
	MaxSelectors = 256
	// MaxPairs is the number of pairs of a local and a remote selector in one
	// policy.
	MaxPairs = 4096
	// MaxDevices is the number of TUN devices.
	MaxDevices = 200
)

func (s *State) validate() error {
	if len(s.Policies) > MaxPolicies {
		return fmt.Errorf("hostnet: %d policies, at most %d are possible", len(s.Policies), MaxPolicies)
	}
	if len(s.Devices) > MaxDevices {
		return fmt.Errorf("hostnet: %d devices, at most %d are possible", len(s.Devices), MaxDevices)
	}
	if err := s.validateClients(); err != nil {
		return err
	}
	devices := map[string]bool{}
	for _, d := range s.Devices {
		if err := checkDeviceName(d); err != nil {
			return err
		}
		devices[d] = true
	}
	seen := make(map[string]bool, len(s.Policies))
	for i := range s.Policies {
		p := &s.Policies[i]
		if p.ID == "" || seen[p.ID] {
			return fmt.Errorf("hostnet: policy %d: id %q is empty or not unique", i, p.ID)
		}
		seen[p.ID] = true
		if err := p.validate(devices); err != nil {
			return fmt.Errorf("hostnet: policy %q: %w", p.ID, err)
		}
	}
	return nil
}

func (p *Policy) validate(devices map[string]bool) error {
	if p.Action < Protect || p.Action > Discard {
		return fmt.Errorf("no such action: %v", p.Action)
	}
	if p.Action == Protect && p.InstallRoutes && !devices[p.Device] {
		return fmt.Errorf("device %q is not one of the state's", p.Device)
	}
	if p.MTU < 0 || p.MTU > 65535 {
		return fmt.Errorf("MTU %d is out of range", p.MTU)
	}
	if n := len(p.Local) * len(p.Remote); n > MaxPairs {
		return fmt.Errorf("%d pairs of selectors, at most %d are possible", n, MaxPairs)
	}
	for _, side := range [][]Selector{p.Local, p.Remote} {
		if len(side) == 0 || len(side) > MaxSelectors {
			return fmt.Errorf("%d selectors on a side, need 1 to %d", len(side), MaxSelectors)
		}
		for _, s := range side {
			if err := s.validate(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s Selector) validate() error {
	switch {
	case !s.From.IsValid() || !s.To.IsValid() || s.From.Is4() != s.To.Is4():
		return fmt.Errorf("selector %v-%v: need two addresses of one family", s.From, s.To)
	case s.From.Is4In6() || s.To.Is4In6() || s.From.Zone() != "" || s.To.Zone() != "":
		return fmt.Errorf("selector %v-%v: mapped addresses and zones are not possible", s.From, s.To)
	case s.To.Less(s.From):
		return fmt.Errorf("selector %v-%v: ends before it starts", s.From, s.To)
	case s.PortTo < s.PortFrom && !s.opaque():
		return fmt.Errorf("selector ports %d-%d: end before they start", s.PortFrom, s.PortTo)
	}
	return nil
}

func (s Selector) opaque() bool { return s.PortFrom == 65535 && s.PortTo == 0 }

// anyPort reports whether the selector says nothing about ports.
func (s Selector) anyPort() bool {
	if s.Proto == 0 || s.PortFrom == 0 && s.PortTo == 65535 {
		return true
	}
	return s.PortFrom == 0 && s.PortTo == 0 && s.Proto != protoICMP && s.Proto != protoICMPv6
}

// wide reports whether the policy takes every packet between its addresses.
func (p *Policy) wide() bool {
	for _, side := range [][]Selector{p.Local, p.Remote} {
		for _, s := range side {
			if s.Proto != 0 {
				return false
			}
		}
	}
	return true
}

const (
	protoICMP     = 1
	protoTCP      = 6
	protoUDP      = 17
	protoESP      = 50
	protoICMPv6   = 58
	protoMobility = 135
)

func checkDeviceName(name string) error {
	if name == "" || len(name) > 15 || name == "." || name == ".." {
		return fmt.Errorf("hostnet: %q is no device name", name)
	}
	for _, c := range []byte(name) {
		if c <= ' ' || c == '/' || c == ':' || c > '~' {
			return fmt.Errorf("hostnet: %q is no device name", name)
		}
	}
	return nil
}

func (s State) clone() State {
	c := State{Devices: append([]string(nil), s.Devices...), Policies: append([]Policy(nil), s.Policies...),
		Clients: slices.Clone(s.Clients)}
	for i := range c.Policies {
		c.Policies[i] = c.Policies[i].clone()
	}
	return c
}

func (p Policy) clone() Policy {
	p.Local = append([]Selector(nil), p.Local...)
	p.Remote = append([]Selector(nil), p.Remote...)
	return p
}

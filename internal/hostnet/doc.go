// Package hostnet owns everything that adit changes on the host it runs on: the
// guard and the steering (one nftables table), the routes and rules in routing
// tables of ours, the addresses, MTU and sysctls of our own TUN devices. Every
// change is declared by a State, made by Apply, journaled, undone by Close, and
// reconciled at the next New after a crash.
//
// # How traffic is steered
//
// A TUN device sees only what is routed into it, and policies say more than
// routes can (protocols, ports, sources, address ranges). So packets are
// classified by nftables before the routing decision, in prerouting for
// forwarded packets and in output (a chain of type route) for those of the host
// itself. A packet of a protect policy gets a mark, an ip rule leads the mark
// into a table of the policy's device, and everything else keeps the host's
// routing. The table Options.Table (220 by default) has the routes with a source
// hint for packets of the host itself that have no source address yet; such a
// packet that turns out to belong to no policy is marked as bypassing and is
// routed again without our tables.
//
// # The guard
//
// What matches a protect policy and is about to leave by anything but one of our
// devices is dropped and counted (postrouting, before and after source NAT), and
// so is what arrives in the clear with a policy's addresses (prerouting, after
// destination NAT). It holds from the Apply that names a policy to the Apply that
// no longer names it, and through the death of the process: the table stays, and
// the first Apply of the next process replaces it in one transaction. A ruleset
// that somebody flushes takes the table along: Watch tells, Refresh restores.
//
// Outside stay, unless a selector names exactly them: the subnets of the host's
// own links inside a wider remote selector, link-local addresses, multicast and
// broadcast; and always neighbour discovery, the host's own DHCP, the packets
// with our mark, and towards the host's own addresses IKE, ESP and the ICMP
// errors about them.
//
// Packets that become a policy's only by source NAT are not steered but held
// back: translate before the gateway, or route such traffic to the device.
//
// # Many policies
//
// Apply looks at the whole State. The thousands of clients of a gateway differ in
// their remote addresses alone (Policy.Group): they are a crowd, whose rules ask a set
// of addresses, and Change adds and removes members at the cost of what changes, in
// the same order (stale routes, guard, new routes). What Change cannot do, it leaves
// to Apply.
//
// The package knows no IKE and no ESP: its Selector and Policy are plain. It
// must run on threads of the network namespace that it is to change, which
// means: the process is in that namespace.
//
// Start reading at Net.Apply, then plan.go (what a State means), ruleset.go (the
// nftables program as plain values), nft.go and routes.go (its installation); then
// crowd.go and change.go.
package hostnet

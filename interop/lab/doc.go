// Package lab builds small networks out of Linux network namespaces, for the
// tests, the benchmarks and `adit demo`: two gateways, a host behind each, and
// what lies between the gateways (nothing, a bridge, a forwarder that spoils
// packets on purpose, or a NAT).
//
//	lh ── lan ┤ l ├ wan ── (middle) ── wan ┤ r ├ lan ── rh
//
//	lh  10.1.0.2   fd01::2      behind l (10.1.0.1, fd01::1)
//	rh  10.2.0.2   fd02::2      behind r (10.2.0.1, fd02::1)
//	l   192.0.2.1  2001:db8::1  outside
//	r   192.0.2.2  2001:db8::2  outside
//
// The gateways forward, but have no route to each other's inside network: their
// default route names a neighbour that does not exist (with a fixed link-layer
// address, so that no ARP hides the attempt). A ping between the hosts therefore
// passes only through a tunnel, and a packet that should have been in the tunnel
// and is not shows up, in the clear, in a capture outside.
//
// The package owns the namespaces, processes, sockets and files that it makes and
// removes them all in [Lab.Close]; what a crashed run with the same prefix left
// behind is removed by the next [New]. It must not know about IPsec beyond telling
// ESP from IKE in a capture: the peers are in interop/peer.
//
// Sockets are opened on a thread that entered the namespace and ends afterwards
// (see [InNS]); programs are started through `ip netns exec`. Nothing sleeps for
// a fixed time: wait with [Poll].
//
// Start reading at [New].
package lab

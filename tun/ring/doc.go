// Package ring is a quicker way for single packets that the kernel forwards into a TUN
// device: a program at the device's egress (eBPF, tcx) copies each into memory that the
// reader shares, and spares a system call and the way of the packet's buffer from one
// processor's cache to the other's.
//
// What the kernel does with a packet before it leaves by the device (routes, filters, the
// guard) stays as it is. It is a way for whole packets of TCP and UDP, each a [Class] that
// the reader switches on and the program off: the program leaves to the device's queue
// what is too large, a superpacket, a fragment or a tunnel's packet with a checksum to be
// completed within, and all of its class from then on.
// So both ways have an order; tun's reader restores it (tun/ways.go). All else, and what
// this host sends itself, is left to the queue.
//
// The checksum of a packet can be the pseudo header's sum only, left to be completed;
// tun tells by comparing. Packets taken this way are not in the interface's counters, and no
// capture, qdisc or filter at the interface sees them: the reader switches off while there is one.
//
// It knows nothing of TUN devices but an interface's index. Linux 6.6 on a little-endian machine
// of 64 bits, CAP_BPF and CAP_NET_ADMIN are needed by New, and neither capability afterwards.
// Start reading at [New], then program_linux.go.
package ring

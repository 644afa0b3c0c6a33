// Package traffic is a host of the benchmark: it sends and receives in the network
// namespace that its process was started in, and counts. One process a host serves
// the benchmark's calls on a Unix socket ([Serve]); [Dial] is the other side.
//
// All socket work is done by threads of their own with blocking system calls, as a
// small program in C would do it: the hosts share the machine's cores with the
// gateways that are measured, so what they cost counts.
//
//   - TCP: writes and reads of 128 KiB, copied as an application copies them.
//   - UDP: every datagram is a packet of its own in the sender's kernel (sendmmsg
//     without UDP_SEGMENT), as packets of many senders are; superpackets flatter those
//     gateways that can take them, and are sent only if asked for. The receiver uses recvmmsg without UDP_GRO, and
//     sleeps between two looks.
//   - Round trips: one datagram there and back, from system call to system call, both
//     ends on the same core.
//
// It owns no namespace and knows nothing of tunnels. Start reading at [Host].
package traffic

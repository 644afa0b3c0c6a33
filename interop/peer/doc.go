// Package peer runs IKE daemons in the nodes of a lab: adit itself and Debian's
// strongSwan, behind one interface, [Gateway], so that a test can put either at
// either end. Both are driven through Debian's unmodified swanctl; what differs is
// only how the program is started.
//
// It owns the daemons' processes and files (under the lab's directory). It knows
// nothing of how adit is built inside: it compiles ./cmd/adit and runs it.
//
// Start reading at [Gateway]; [StrongSwan] and [Adit] make one.
package peer

package gateway

import (
	"fmt"
	"net/netip"

	"adit/ike"
	"adit/internal/conn"
)

// Sockets sends IKE messages by the sockets of the data plane. It is the
// Transport of every gateway that has a conn.Conn.
type Sockets struct {
	Conn conn.Conn
	// Tap sees every message sent, for a debugging capture; may be nil.
	Tap func(ike.Datagram)
	// Usable says by which of the host's addresses IKE is spoken; nil: all.
	Usable func(netip.Addr) bool
}

// Send implements Transport. Messages from the port for NAT traversal get the
// non-ESP marker (RFC 3948 §2.2).
func (s Sockets) Send(d ike.Datagram) error {
	p := conn.Packet{Buf: d.Data, Local: d.Local, Remote: d.Remote, Kind: conn.IKE,
		Encap: d.Local.Port() == s.Conn.Ports().NATT, TOS: d.DSCP << 2}
	if len(d.Data) == 1 {
		p.Kind, p.Encap = conn.Keepalive, true
	}
	if s.Tap != nil {
		s.Tap(d)
	}
	_, err := s.Conn.WriteBatch([]conn.Packet{p})
	return err
}

// SourceFor implements Transport.
func (s Sockets) SourceFor(remote netip.Addr) (netip.Addr, error) {
	a, err := s.Conn.SourceFor(remote)
	if err == nil && s.Usable != nil && !s.Usable(a) {
		return netip.Addr{}, fmt.Errorf("%w %s: %s is on an interface that strongswan.conf leaves out (interfaces_use, interfaces_ignore)", conn.ErrNoRoute, remote, a)
	}
	return a, err
}

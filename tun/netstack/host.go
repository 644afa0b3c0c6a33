package netstack

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// MaxPing is the largest number of payload bytes of a Ping.
const MaxPing = 65000

func full(a netip.AddrPort) (tcpip.FullAddress, tcpip.NetworkProtocolNumber) {
	addr := a.Addr().Unmap()
	proto := tcpip.NetworkProtocolNumber(header.IPv4ProtocolNumber)
	if addr.Is6() {
		proto = header.IPv6ProtocolNumber
	}
	f := tcpip.FullAddress{NIC: nic, Port: a.Port()}
	if addr.IsValid() && !addr.IsUnspecified() {
		f.Addr = tcpip.AddrFromSlice(addr.AsSlice())
	}
	return f, proto
}

// Dial connects from the host; network is "tcp" or "udp".
func (s *Stack) Dial(ctx context.Context, network string, remote netip.AddrPort) (net.Conn, error) {
	if s.ctx.Err() != nil {
		return nil, net.ErrClosed
	}
	addr, proto := full(remote)
	switch network {
	case "tcp":
		c, err := gonet.DialContextTCP(ctx, s.stack, addr, proto)
		if err != nil {
			return nil, err
		}
		return c, nil
	case "udp":
		c, err := gonet.DialUDP(s.stack, nil, &addr, proto)
		if err != nil {
			return nil, err
		}
		return c, nil
	}
	return nil, net.UnknownNetworkError(network)
}

// Listen waits for TCP connections at an address of the host; port 0 takes a
// free one. An unspecified address means all of its family.
func (s *Stack) Listen(local netip.AddrPort) (net.Listener, error) {
	if s.ctx.Err() != nil {
		return nil, net.ErrClosed
	}
	addr, proto := full(local)
	l, err := gonet.ListenTCP(s.stack, addr, proto)
	if err != nil {
		return nil, err
	}
	return l, nil
}

// ListenUDP receives and sends UDP datagrams at an address of the host.
func (s *Stack) ListenUDP(local netip.AddrPort) (net.PacketConn, error) {
	if s.ctx.Err() != nil {
		return nil, net.ErrClosed
	}
	addr, proto := full(local)
	c, err := gonet.DialUDP(s.stack, &addr, nil, proto)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Ping sends one ICMP echo request with size bytes of payload and waits for the
// reply, which must be equal, or for the end of ctx. It returns the round trip.
func (s *Stack) Ping(ctx context.Context, remote netip.Addr, size int) (time.Duration, error) {
	if size < 0 || size > MaxPing {
		return 0, fmt.Errorf("netstack: ping size %d out of range", size)
	}
	if s.ctx.Err() != nil {
		return 0, net.ErrClosed
	}
	addr, proto := full(netip.AddrPortFrom(remote, 0))
	v6 := proto == header.IPv6ProtocolNumber
	transport := icmp.ProtocolNumber4
	if v6 {
		transport = icmp.ProtocolNumber6
	}
	var wq waiter.Queue
	ep, terr := s.stack.NewEndpoint(transport, proto, &wq)
	if terr != nil {
		return 0, fmt.Errorf("netstack: ping: %s", terr)
	}
	defer ep.Close()
	entry, ready := waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventErr)
	wq.EventRegister(&entry)
	defer wq.EventUnregister(&entry)
	if terr := ep.Connect(addr); terr != nil {
		return 0, fmt.Errorf("netstack: ping %s: %s", remote, terr)
	}
	seq := uint16(s.pings.Add(1))
	request := echo(v6, seq, size)
	sent := time.Now()
	if _, terr := ep.Write(bytes.NewReader(request), tcpip.WriteOptions{}); terr != nil {
		return 0, fmt.Errorf("netstack: ping %s: %s", remote, terr)
	}
	for {
		var reply bytes.Buffer
		_, terr := ep.Read(&reply, tcpip.ReadOptions{})
		if terr == nil {
			if isReply(reply.Bytes(), request, v6, seq) {
				return time.Since(sent), nil
			}
			continue
		}
		if _, again := terr.(*tcpip.ErrWouldBlock); !again {
			return 0, fmt.Errorf("netstack: ping %s: %s", remote, terr)
		}
		select {
		case <-ready:
		case <-ctx.Done():
			return 0, fmt.Errorf("netstack: ping %s: %w", remote, context.Cause(ctx))
		case <-s.ctx.Done():
			return 0, net.ErrClosed
		}
	}
}

// echoLen is the header of an ICMP echo (RFC 792, RFC 4443 §4.1): type, code,
// checksum, identifier, sequence number; checksum and identifier are the stack's.
const echoLen = 8

func echo(v6 bool, seq uint16, size int) []byte {
	b := make([]byte, echoLen+size)
	b[0] = byte(header.ICMPv4Echo)
	if v6 {
		b[0] = byte(header.ICMPv6EchoRequest)
	}
	binary.BigEndian.PutUint16(b[6:], seq)
	for i := range b[echoLen:] {
		b[echoLen+i] = byte(i)
	}
	return b
}

func isReply(b, request []byte, v6 bool, seq uint16) bool {
	want := byte(header.ICMPv4EchoReply)
	if v6 {
		want = byte(header.ICMPv6EchoReply)
	}
	return len(b) == len(request) && b[0] == want && binary.BigEndian.Uint16(b[6:]) == seq &&
		bytes.Equal(b[echoLen:], request[echoLen:])
}

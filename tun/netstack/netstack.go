// Package netstack owns a tun.Device with a whole TCP/IP host behind it, inside
// the process: gVisor's stack. The gateway reads from the device what the host
// sends and writes to it what the host shall receive. It needs no privileges,
// so `adit demo` runs with it where there is no root.
//
// It must not know about policy, keys or the outside network; nobody else may
// import gVisor.
//
// Start reading at New, or Unaddressed where the addresses come and go; host.go holds what the host can do (Dial, Listen, Ping).
package netstack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"adit/tun"
)

const (
	// nic is the number of the host's only interface.
	nic tcpip.NICID = 1
	// queueLen is the number of packets that may wait to be read from the host;
	// more are dropped, and TCP slows down.
	queueLen = 2048
	// batchSize is the number of buffers worth giving to Read and Write.
	batchSize = 128
	// tcpBuffer is the largest window of a connection in bytes.
	tcpBuffer = 4 << 20
)

// Stack is a host and the device that leads to it.
type Stack struct {
	name   string
	stack  *stack.Stack
	link   *channel.Endpoint
	ctx    context.Context // ends with Close: lets Read go
	cancel context.CancelFunc
	close  sync.Once
	wg     sync.WaitGroup // Writes under way
	mu     sync.RWMutex   // orders Write and Close
	mtu    atomic.Int64
	pings  atomic.Uint32

	addrMu sync.Mutex
	addrs  []netip.Addr
}

var _ tun.Device = (*Stack)(nil)

var stacks atomic.Uint64

// New makes a host with the given addresses and all its routes into the device.
// mtu is in bytes, at least 68, or 1280 where there is an IPv6 address.
func New(addrs []netip.Addr, mtu int) (*Stack, error) {
	if len(addrs) == 0 {
		return nil, errors.New("netstack: a host needs an address")
	}
	return newStack(addrs, mtu)
}

// Unaddressed makes a host that has no address until AddAddr gives it one: a client's,
// whose gateway gives the addresses.
func Unaddressed(mtu int) (*Stack, error) { return newStack(nil, mtu) }

func newStack(addrs []netip.Addr, mtu int) (*Stack, error) {
	s := &Stack{name: fmt.Sprintf("netstack%d", stacks.Add(1)-1)}
	for _, a := range addrs {
		s.addrs = append(s.addrs, a.Unmap().WithZone(""))
	}
	if err := s.checkMTU(mtu); err != nil {
		return nil, err
	}
	s.mtu.Store(int64(mtu))
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.link = channel.New(queueLen, uint32(mtu), "")
	s.stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
		HandleLocal:        true,
	})
	if err := s.setUp(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Stack) setUp() error {
	sack := tcpip.TCPSACKEnabled(true)
	s.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &sack)
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: tcpBuffer / 4, Max: tcpBuffer}
	s.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &receive)
	send := tcpip.TCPSendBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: tcpBuffer / 4, Max: tcpBuffer}
	s.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &send)
	if err := s.stack.CreateNIC(nic, s.link); err != nil {
		return fmt.Errorf("netstack: interface: %s", err)
	}
	for _, a := range s.addrs {
		if err := s.install(a); err != nil {
			return err
		}
	}
	s.stack.SetRouteTable([]tcpip.Route{
		{Destination: header.IPv4EmptySubnet, NIC: nic},
		{Destination: header.IPv6EmptySubnet, NIC: nic},
	})
	return nil
}

func (s *Stack) install(a netip.Addr) error {
	proto := tcpip.NetworkProtocolNumber(header.IPv4ProtocolNumber)
	if a.Is6() {
		proto = header.IPv6ProtocolNumber
	}
	pa := tcpip.ProtocolAddress{Protocol: proto, AddressWithPrefix: tcpip.AddrFromSlice(a.AsSlice()).WithPrefix()}
	if err := s.stack.AddProtocolAddress(nic, pa, stack.AddressProperties{}); err != nil {
		return fmt.Errorf("netstack: address %s: %s", a, err)
	}
	return nil
}

// AddAddr gives the host an address more; one that it has is no error.
func (s *Stack) AddAddr(a netip.Addr) error {
	a = a.Unmap().WithZone("")
	s.addrMu.Lock()
	defer s.addrMu.Unlock()
	switch {
	case s.ctx.Err() != nil:
		return net.ErrClosed
	case slices.Contains(s.addrs, a):
		return nil
	case a.Is6() && s.MTU() < header.IPv6MinimumMTU:
		return fmt.Errorf("%w: %d is too little for IPv6", tun.ErrMTU, s.MTU())
	}
	if err := s.install(a); err != nil {
		return err
	}
	s.addrs = append(s.addrs, a)
	return nil
}

// DelAddr takes an address away, with what is connected from it; one that it does not
// have is no error.
func (s *Stack) DelAddr(a netip.Addr) error {
	a = a.Unmap().WithZone("")
	s.addrMu.Lock()
	defer s.addrMu.Unlock()
	if s.ctx.Err() != nil || !slices.Contains(s.addrs, a) {
		return nil
	}
	s.addrs = slices.DeleteFunc(s.addrs, func(b netip.Addr) bool { return a == b })
	if err := s.stack.RemoveAddress(nic, tcpip.AddrFromSlice(a.AsSlice())); err != nil {
		return fmt.Errorf("netstack: address %s: %s", a, err)
	}
	return nil
}

// checkMTU is called with addrMu held, or before anybody else knows s.
func (s *Stack) checkMTU(mtu int) error {
	least := tun.MinMTU
	for _, a := range s.addrs {
		if a.Is6() {
			least = header.IPv6MinimumMTU
		}
	}
	if mtu < least || mtu > tun.MaxPacket {
		return fmt.Errorf("%w: %d", tun.ErrMTU, mtu)
	}
	return nil
}

// Read implements tun.Device: packets that the host sends.
func (s *Stack) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	if len(bufs) == 0 {
		return 0, nil
	}
	pkt := s.link.ReadContext(s.ctx)
	n := 0
	for pkt != nil {
		if size, ok := copyPacket(bufs[n][offset:], pkt); ok {
			sizes[n] = size
			n++
		}
		pkt.DecRef()
		if n == len(bufs) {
			return n, nil
		}
		pkt = s.link.Read()
	}
	if n == 0 && s.ctx.Err() != nil {
		return 0, tun.ErrClosed
	}
	return n, nil
}

// copyPacket puts a packet into dst, which must be large enough.
func copyPacket(dst []byte, pkt *stack.PacketBuffer) (n int, ok bool) {
	if pkt.Size() > len(dst) {
		return 0, false
	}
	for _, part := range pkt.AsSlices() {
		n += copy(dst[n:], part)
	}
	return n, n > 0
}

// Write implements tun.Device: packets for the host, which it handles before
// Write returns. What isn't for one of its addresses it drops itself.
func (s *Stack) Write(bufs [][]byte, offset int) (n int, err error) {
	s.mu.RLock()
	if s.ctx.Err() != nil {
		s.mu.RUnlock()
		return 0, tun.ErrClosed
	}
	s.wg.Add(1)
	s.mu.RUnlock()
	defer s.wg.Done()
	for _, b := range bufs {
		p := b[offset:]
		if len(p) == 0 {
			err = tun.ErrNotIP
			continue
		}
		var proto tcpip.NetworkProtocolNumber
		switch header.IPVersion(p) {
		case header.IPv4Version:
			proto = header.IPv4ProtocolNumber
		case header.IPv6Version:
			proto = header.IPv6ProtocolNumber
		default:
			err = tun.ErrNotIP
			continue
		}
		pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(p)})
		s.link.InjectInbound(proto, pkt)
		pkt.DecRef()
		n++
	}
	return n, err
}

// Name implements tun.Device.
func (s *Stack) Name() string { return s.name }

// Addrs are the host's addresses.
func (s *Stack) Addrs() []netip.Addr {
	s.addrMu.Lock()
	defer s.addrMu.Unlock()
	return slices.Clone(s.addrs)
}

// MTU implements tun.Device.
func (s *Stack) MTU() int { return int(s.mtu.Load()) }

// SetMTU implements tun.Device.
func (s *Stack) SetMTU(mtu int) error {
	s.addrMu.Lock()
	defer s.addrMu.Unlock()
	if err := s.checkMTU(mtu); err != nil {
		return err
	}
	if err := s.stack.SetNICMTU(nic, uint32(mtu)); err != nil {
		return fmt.Errorf("netstack: MTU: %s", err)
	}
	s.mtu.Store(int64(mtu))
	return nil
}

// BatchSize implements tun.Device.
func (s *Stack) BatchSize() int { return batchSize }

// Close implements tun.Device. The host's connections break off.
func (s *Stack) Close() error {
	s.close.Do(func() {
		s.mu.Lock()
		s.cancel()
		s.mu.Unlock()
		s.wg.Wait()
		s.stack.Destroy()
	})
	return nil
}

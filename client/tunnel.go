package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"adit/internal/conn"
	"adit/internal/hostnet"
	"adit/tun/netstack"
)

// Tunnel is a tunnel that ends inside this process. Its methods may be called from
// several goroutines.
type Tunnel struct {
	session  *session
	stack    *netstack.Stack
	host     *stackHost
	resolver net.Resolver
}

// firstMTU is that of the stack until the path's is known: less than any tunnel has whose
// path carries IPv6's 1280 octets is not needed.
const firstMTU = 1280

// Connect makes a tunnel. It returns when that is up, or says with an *Error why not.
func Connect(ctx context.Context, o Options) (*Tunnel, error) {
	c, err := newConnection(&o)
	if err != nil {
		return nil, err
	}
	stack, err := netstack.Unaddressed(firstMTU)
	if err != nil {
		return nil, err
	}
	sockets, err := listen(conn.Options{})
	if err != nil {
		stack.Close()
		return nil, err
	}
	t := &Tunnel{stack: stack, host: &stackHost{stack: stack, held: map[netip.Addr]int{}}}
	t.session, err = open(ctx, o, c, ends{device: stack, host: t.host, names: &t.host.names, sockets: sockets, watch: hostnet.WatchLinks,
		lookUp: systemNames})
	if err != nil {
		stack.Close()
		sockets.Close()
		return nil, err
	}
	t.resolver = net.Resolver{PreferGo: true, Dial: t.dialServer}
	return t, nil
}

// listen opens the outside sockets at ports that the kernel gives, which needs no
// privilege: ESP goes in UDP.
func listen(o conn.Options) (c conn.Conn, err error) {
	o.AnyPort, o.NoRaw = true, true
	for range 8 { // a port that IPv4 gave may be taken in IPv6
		if c, err = conn.Listen(o); !errors.Is(err, conn.ErrPortInUse) {
			return c, err
		}
	}
	return nil, err
}

// stackHost is the host that the stack is: it has the addresses that the gateway gives,
// and the MTU of the path.
type stackHost struct {
	names
	stack  *netstack.Stack
	heldMu sync.Mutex
	held   map[netip.Addr]int
}

// Apply implements gateway.Host.
func (h *stackHost) Apply(s hostnet.State) error {
	least := 0
	for _, p := range s.Policies {
		if p.MTU > 0 && (least == 0 || p.MTU < least) {
			least = p.MTU
		}
	}
	if least > 0 && least != h.stack.MTU() {
		_ = h.stack.SetMTU(max(least, firstMTU)) // the data plane fragments what is too big
	}
	return nil
}

// AddAddress implements gateway.Host.
func (h *stackHost) AddAddress(_ string, p netip.Prefix) error {
	h.heldMu.Lock()
	defer h.heldMu.Unlock()
	if h.held[p.Addr()] == 0 {
		if err := h.stack.AddAddr(p.Addr()); err != nil {
			return err
		}
	}
	h.held[p.Addr()]++
	return nil
}

// DelAddress implements gateway.Host.
func (h *stackHost) DelAddress(_ string, p netip.Prefix) error {
	h.heldMu.Lock()
	defer h.heldMu.Unlock()
	if h.held[p.Addr()]--; h.held[p.Addr()] > 0 {
		return nil
	}
	delete(h.held, p.Addr())
	return h.stack.DelAddr(p.Addr())
}

// Progress is where the tunnel stands.
func (t *Tunnel) Progress() Progress { return t.session.progress() }

// Done is closed when the tunnel has ended for good: by Close, or because the gateway
// lets the user in no more. A tunnel that is lost is set up again, without end.
func (t *Tunnel) Done() <-chan struct{} { return t.session.done }

// Err is why the tunnel has ended, once Done is closed; nil after Close.
func (t *Tunnel) Err() error {
	select {
	case <-t.session.done:
		return t.session.err
	default:
		return nil
	}
}

// Close ends the tunnel and all that goes through it. A second call is harmless.
func (t *Tunnel) Close() error {
	t.session.close()
	return errors.Join(t.stack.Close(), t.session.sockets.Close())
}

// errNoServers tells that a name cannot be looked up.
var errNoServers = errors.New("client: the gateway has told no name server that is inside the tunnel: use addresses, or name a server")

// dialServer reaches a name server inside, whichever the resolver thinks of.
func (t *Tunnel) dialServer(ctx context.Context, network, _ string) (net.Conn, error) {
	list := t.Progress().DNS
	if len(list) == 0 {
		return nil, errNoServers
	}
	if len(network) > 3 {
		network = network[:3]
	}
	return t.stack.Dial(ctx, network, netip.AddrPortFrom(list[rand.IntN(len(list))], 53))
}

// LookupNetIP asks the name servers inside for the addresses of a name; one without a dot
// is looked for in the domains that the gateway told, too. Nothing is asked outside.
func (t *Tunnel) LookupNetIP(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a.Unmap()}, nil
	}
	p := t.Progress()
	if len(p.DNS) == 0 {
		return nil, errNoServers
	}
	host = strings.TrimSuffix(host, ".")
	var tries []string
	if !strings.Contains(host, ".") {
		for _, d := range p.Domains {
			tries = append(tries, host+"."+d+".")
		}
	}
	tries = append(tries, host+".") // with a dot at its end: no domains of this machine's
	var first error
	for _, name := range tries {
		list, err := t.resolver.LookupNetIP(ctx, "ip", name)
		if err == nil && len(list) > 0 {
			for i := range list {
				list[i] = list[i].Unmap()
			}
			return list, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

// fallBack is how long one address of a name has before the next one is tried, too (RFC
// 8305 §5).
const fallBack = 300 * time.Millisecond

// DialContext connects through the tunnel: network is "tcp" or "udp", perhaps with a 4 or
// 6 behind, address a name or an address with a port. It fits http.Transport.
func (t *Tunnel) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := t.dial(ctx, network, address)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	return c, nil
}

func (t *Tunnel) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("client: %q is no port", text)
	}
	kind, family := network, byte(0)
	if len(network) == 4 {
		kind, family = network[:3], network[3]
	}
	if kind != "tcp" && kind != "udp" {
		return nil, net.UnknownNetworkError(network)
	}
	all, err := t.LookupNetIP(ctx, host)
	if err != nil {
		return nil, err
	}
	to, err := t.reached(all, family)
	if err != nil {
		return nil, err
	}
	return t.race(ctx, kind, to, uint16(port))
}

// reached are those addresses of one name that go through the tunnel.
func (t *Tunnel) reached(all []netip.Addr, family byte) (to []netip.Addr, err error) {
	p := t.Progress()
	for _, a := range all {
		if family == '4' && !a.Is4() || family == '6' && a.Is4() {
			continue
		}
		for _, r := range p.Routes {
			if r.Contains(a) {
				to = append(to, a)
				break
			}
		}
	}
	if len(to) == 0 {
		return nil, fmt.Errorf("client: %v is not reached by the tunnel, which leads to %v", all, p.Routes)
	}
	return to, nil
}

// race connects to the addresses in their order, to the next one when one has failed or
// takes its time, and keeps the first that answers.
func (t *Tunnel) race(ctx context.Context, kind string, to []netip.Addr, port uint16) (net.Conn, error) {
	if len(to) == 1 || kind == "udp" {
		return t.stack.Dial(ctx, kind, netip.AddrPortFrom(to[0], port))
	}
	type result struct {
		c   net.Conn
		err error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan result, len(to))
	next, waiting := 0, 0
	start := func() {
		if next == len(to) {
			return
		}
		a := netip.AddrPortFrom(to[next], port)
		next++
		waiting++
		go func() {
			c, err := t.stack.Dial(ctx, kind, a)
			results <- result{c, err}
		}()
	}
	start()
	timer := time.NewTicker(fallBack)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			start()
		case r := <-results:
			if waiting--; r.err == nil {
				go func() { // those that come too late
					for range waiting {
						if late := <-results; late.err == nil {
							late.c.Close()
						}
					}
				}()
				return r.c, nil
			}
			if start(); waiting == 0 {
				return nil, r.err
			}
		}
	}
}

// local makes an address of ours out of "host:port": without a host, our first one.
func (t *Tunnel) local(address string) (netip.AddrPort, error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return netip.AddrPort{}, err
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("client: %q is no port", text)
	}
	if host == "" {
		list := t.Progress().Addrs
		if len(list) == 0 {
			return netip.AddrPort{}, errors.New("client: the gateway has given no address")
		}
		return netip.AddrPortFrom(list[0], uint16(port)), nil
	}
	a, err := netip.ParseAddr(host)
	return netip.AddrPortFrom(a, uint16(port)), err
}

// Listen waits for TCP connections from inside, at an address of ours: ":80" is port 80 of
// the first one that the gateway gave.
func (t *Tunnel) Listen(network, address string) (net.Listener, error) {
	if network != "tcp" {
		return nil, net.UnknownNetworkError(network)
	}
	at, err := t.local(address)
	if err != nil {
		return nil, err
	}
	return t.stack.Listen(at)
}

// ListenPacket receives and sends UDP datagrams inside, at an address of ours.
func (t *Tunnel) ListenPacket(network, address string) (net.PacketConn, error) {
	if network != "udp" {
		return nil, net.UnknownNetworkError(network)
	}
	at, err := t.local(address)
	if err != nil {
		return nil, err
	}
	return t.stack.ListenUDP(at)
}

// Ping sends one ICMP echo request inside and waits for the answer.
func (t *Tunnel) Ping(ctx context.Context, to netip.Addr) (time.Duration, error) {
	return t.stack.Ping(ctx, to, 56)
}

package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"adit/dataplane/userspace"
	"adit/ike"
	"adit/ike/ikev2"
	"adit/internal/config"
	"adit/internal/conn"
	"adit/internal/gateway"
	"adit/internal/hostnet"
	"adit/ipsec"
	"adit/pki"
	"adit/tun"
)

// session is a gateway of our own with one connection: it sets the tunnel up, keeps it up,
// and tells what becomes of it.
type session struct {
	opt     Options
	conn    *connection
	sockets conn.Conn
	plane   *userspace.Plane
	gw      *gateway.Gateway
	fetcher *pki.HTTPFetcher
	names   *names
	device  string // for Progress
	stop    context.CancelFunc
	watch   sync.WaitGroup
	ended   sync.Once
	done    chan struct{} // closed when it has failed for good, or was closed
	err     error         // valid once done is closed

	mu       sync.Mutex
	now      Progress
	children map[uint32]bool // Child SAs that are installed
	refusals int             // by the gateway, in a row
	report   chan Progress
}

// limits of a session.
const (
	// limitRefusals is how often in a row a gateway may refuse a user who was connected
	// before that is believed: another try could lock the user out.
	limitRefusals = 3
	// limitReports are changes that wait for Progress.
	limitReports = 64
)

// names are name servers and domains as gateways told them, by lease.
type names struct {
	mu     sync.Mutex
	leases map[uint64]told
	last   uint64
}

type told struct {
	servers []netip.Addr
	domains []string
}

// TakeNames and DropNames are the gateway's, for its Host.
func (n *names) TakeNames(lease uint64, servers []netip.Addr, domains []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.leases == nil {
		n.leases = map[uint64]told{}
	}
	n.leases[lease], n.last = told{servers, domains}, lease
}

// DropNames forgets those of a lease.
func (n *names) DropNames(lease uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.leases, lease)
}

// get are those that were told last.
func (n *names) get() told {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.leases[n.last]
}

// ends are what differs between a tunnel inside the process and the host's.
type ends struct {
	device  tun.Device
	host    gateway.Host
	names   *names
	sockets conn.Conn
	plane   func(*userspace.Plane) // hears of it before packets come; may be nil
	lookUp  func(ctx context.Context, host string) ([]netip.Addr, error)
	watch   func(context.Context) (<-chan hostnet.Event, error)
	onHost  bool
}

// daemon are the settings of a client: nothing of strongswan.conf. It gives up on a silent
// gateway sooner than a gateway on a peer.
func daemon(p conn.Ports) (config.Daemon, error) {
	d, err := config.LoadDaemon("")
	d.Port, d.NATPort = p.IKE, p.NATT
	d.Retransmit = ike.Retransmit{Timeout: 2 * time.Second, Base: 1.6, Tries: 4}
	d.FetchTimeout = 5 * time.Second
	return d, err
}

// open sets the tunnel up. When it fails, nothing is left but what was handed in.
func open(ctx context.Context, o Options, c *connection, e ends) (_ *session, err error) {
	s := &session{opt: o, conn: c, sockets: e.sockets, names: e.names, done: make(chan struct{}),
		children: map[uint32]bool{}, report: make(chan Progress, limitReports)}
	if e.onHost {
		s.device = e.device.Name()
	}
	limit := o.Timeout
	if limit <= 0 {
		limit = defaultTimeout
	}
	first, cancel := context.WithTimeoutCause(ctx, limit, errNoAnswer)
	defer cancel()
	s.tell(func(p *Progress) {})
	to, err := resolve(first, c.hosts, e.lookUp)
	if err != nil {
		return nil, err
	}
	password, err := c.secret(ctx, &o)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			password.Zero() // else it is the gateway's, which overwrites it at the end
		}
	}()
	d, err := daemon(s.sockets.Ports())
	if err != nil {
		return nil, err
	}
	if err := s.build(e, d); err != nil {
		return nil, err
	}
	s.gw.Start()
	if err = s.plane.Start(); err == nil {
		err = s.run(first, e, to, password, d)
	}
	if err != nil {
		s.close()
		return nil, explain(first, err, c)
	}
	return s, nil
}

// build makes gateway and data plane.
func (s *session) build(e ends, d config.Daemon) (err error) {
	log := s.opt.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s.plane, err = userspace.New(userspace.Config{Tun: e.device, Conn: e.sockets, IKE: func(p *conn.Packet) {
		if p.Kind == conn.IKE {
			s.gw.Datagram(ike.Datagram{Local: p.Local, Remote: p.Remote, Data: p.Buf})
		}
	}})
	if err != nil {
		return err
	}
	if e.plane != nil {
		e.plane(s.plane)
	}
	s.fetcher = &pki.HTTPFetcher{Timeout: d.FetchTimeout}
	s.gw, err = gateway.New(gateway.Options{Daemon: d, Dataplane: s.plane, Transport: gateway.Sockets{Conn: e.sockets}, Host: e.host,
		Device: e.device.Name(), Log: log, Versions: []ike.Version{ikev2.Version}, ForceEncap: true, Fetcher: s.fetcher})
	return err
}

// run loads the connection and waits until it is up.
func (s *session) run(ctx context.Context, e ends, to []netip.Addr, password []byte, d config.Daemon) error {
	m, err := s.conn.model(&s.opt, to, password, d)
	if err != nil {
		return err
	}
	s.gw.Subscribe(s.event)
	var watch context.Context
	watch, s.stop = context.WithCancel(context.Background())
	s.watch.Go(func() { s.reports(watch) })
	events, err := e.watch(watch)
	if err != nil {
		return err
	}
	s.watch.Go(func() {
		s.gw.Follow(watch, events, func() ([]netip.Addr, error) { return hostnet.Addresses(e.device.Name()) })
	})
	if err := s.gw.Load(m); err != nil {
		return err
	}
	return s.gw.Initiate(ctx, s.conn.name, s.conn.child)
}

// event takes what the gateway tells, on its thread.
func (s *session) event(e ike.Event) {
	switch e := e.(type) {
	case ike.ChildUp:
		s.up(e.SA, e.Child)
	case ike.ChildDown:
		s.down(e.Child.ID, e.Reason)
	case ike.Moved:
		s.tell(func(p *Progress) { p.Gateway = e.SA.Remote })
	case *ike.Rejection:
		s.refused(e)
	}
}

func (s *session) up(sa ike.SAInfo, c ike.ChildInfo) {
	t := s.names.get()
	s.mu.Lock()
	s.children[c.ID] = true
	s.refusals = 0
	s.mu.Unlock()
	s.tell(func(p *Progress) {
		*p = Progress{State: Up, Gateway: sa.Remote, Addrs: slices.Clone(sa.LocalVIPs), Routes: prefixes(c.RemoteTS), Device: s.device, DNS: t.servers, Domains: t.domains}
		if len(s.opt.DNS) > 0 {
			p.DNS = slices.Clone(s.opt.DNS)
		}
		// One that is not inside would be asked in the clear.
		p.DNS = slices.DeleteFunc(slices.Clone(p.DNS), func(a netip.Addr) bool {
			return !slices.ContainsFunc(p.Routes, func(r netip.Prefix) bool { return r.Contains(a) })
		})
	})
}

func (s *session) down(child uint32, why string) {
	s.mu.Lock()
	delete(s.children, child)
	left := len(s.children)
	s.mu.Unlock()
	if left == 0 {
		s.tell(func(p *Progress) { p.State, p.Why = Lost, why })
	}
}

// refused ends the session if a user who was let in once is let in no more.
func (s *session) refused(r *ike.Rejection) {
	k := kindOf(r)
	s.mu.Lock()
	lost := s.now.State == Lost
	if lost && k == Refused {
		s.refusals++
	}
	n := s.refusals
	s.mu.Unlock()
	if lost && n >= limitRefusals {
		s.fail(explain(context.Background(), r, s.conn))
	}
}

// fail ends the session with an error.
func (s *session) fail(err error) {
	s.ended.Do(func() {
		s.err = err
		close(s.done)
	})
}

// tell changes what is known and has it reported. What does not fit is lost: the next
// report has the whole.
func (s *session) tell(change func(*Progress)) {
	s.mu.Lock()
	change(&s.now)
	p := s.now
	s.mu.Unlock()
	select {
	case s.report <- p:
	default:
	}
}

// reports hands what is told to whoever asked, on a thread of its own.
func (s *session) reports(ctx context.Context) {
	for {
		select {
		case p := <-s.report:
			if s.opt.Progress != nil {
				s.opt.Progress(p)
			}
		case <-ctx.Done():
			return
		}
	}
}

// progress is what is known now.
func (s *session) progress() Progress {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// close ends the tunnel with a Delete to the gateway.
func (s *session) close() {
	s.gw.Shutdown()
	_ = s.plane.Close()
	if s.stop != nil {
		s.stop()
	}
	s.watch.Wait()
	s.fetcher.Close()
	s.fail(nil)
}

// prefixes are what selectors cover, whatever their protocols and ports.
func prefixes(list []ipsec.Selector) (out []netip.Prefix) {
	for _, t := range list {
		for _, p := range t.Prefixes() {
			if !slices.Contains(out, p) {
				out = append(out, p)
			}
		}
	}
	return out
}

// systemNames looks names up as this machine does.
func systemNames(ctx context.Context, host string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

// limitTargets bounds the addresses of a gateway that are tried.
const limitTargets = 8

// resolve looks the gateway's names up, once: whoever answers for its name later, or sends
// the name of somebody else, moves nothing (CVE-2023-36673).
func resolve(ctx context.Context, hosts []string, lookUp func(context.Context, string) ([]netip.Addr, error)) (out []netip.Addr, err error) {
	for _, h := range hosts {
		list := []netip.Addr{}
		if a, e := netip.ParseAddr(h); e == nil {
			list = append(list, a)
		} else if list, e = lookUp(ctx, h); e != nil {
			err = errors.Join(err, e)
		}
		for _, a := range list {
			if a = a.Unmap().WithZone(""); !slices.Contains(out, a) && len(out) < limitTargets {
				out = append(out, a)
			}
		}
	}
	if len(out) > 0 {
		return out, nil
	}
	return nil, &Error{Unreachable, fmt.Sprintf("the gateway's name %s has no address: %v", hosts[0], err), err}
}

package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"

	"adit/internal/conn"
	"adit/internal/gateway"
	"adit/internal/hostnet"
	"adit/tun"
)

// HostOptions are those of a tunnel for the whole host.
type HostOptions struct {
	Options
	// NoKillSwitch lets what the tunnel protects leave in the clear while it is lost.
	NoKillSwitch bool
	// AllowLAN keeps private local networks reachable beside a tunnel for everything.
	AllowLAN bool
	// NoDNS leaves the host's resolver alone.
	NoDNS bool
	// ResolvConf is written where there is no systemd-resolved; empty: /etc/resolv.conf.
	ResolvConf string
	// Names hears who was told the name servers, or why nobody was.
	Names func(by string, err error)
}

// ErrAlreadyRunning is wrapped when another instance holds the network namespace.
var ErrAlreadyRunning = hostnet.ErrAlreadyRunning

// RunHost connects the host and keeps it connected until ctx ends, or until the gateway
// lets the user in no more; then everything is undone. It needs root (CAP_NET_ADMIN). It
// returns nil if it was up and ctx has ended.
//
// If the process dies, the kill switch stands and what the tunnel protected goes nowhere;
// the device is gone and the addresses and routes with it. The next RunHost, or Undo,
// puts the rest in order.
func RunHost(ctx context.Context, o HostOptions) (err error) {
	c, err := newConnection(&o.Options)
	if err != nil {
		return err
	}
	n, err := hostnet.New(hostnet.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	dev, err := openDevice()
	if err != nil {
		return err
	}
	defer dev.Close()
	if err := n.SetupDevice(dev.Name(), dev.MTU()); err != nil {
		return err
	}
	mark, _ := n.Mark()
	sockets, err := listen(conn.Options{Mark: mark})
	if err != nil {
		return err
	}
	defer sockets.Close()
	h := &hostEnd{net: n, log: o.Log, steer: steering{device: dev.Name(), killSwitch: !o.NoKillSwitch}, allowLAN: o.AllowLAN}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	return h.run(ctx, &o, c, dev, sockets)
}

// Undo takes away what a crashed RunHost has left, its kill switch as well.
func Undo() error {
	n, err := hostnet.New(hostnet.Options{})
	if err != nil {
		return err
	}
	return n.Close()
}

func openDevice() (dev *tun.Linux, err error) {
	for i := range 16 {
		if dev, err = tun.CreateTUN(fmt.Sprintf("adit%d", i), tun.Options{}); !errors.Is(err, tun.ErrExists) {
			return dev, err
		}
	}
	return nil, err
}

// hostEnd is the gateway's Host: what is the client's is added to what the gateway asks for.
type hostEnd struct {
	names
	net      *hostnet.Net
	log      *slog.Logger
	allowLAN bool

	mu    sync.Mutex
	last  hostnet.State
	steer steering
}

var _ gateway.Host = (*hostEnd)(nil)

// Apply implements gateway.Host.
func (h *hostEnd) Apply(s hostnet.State) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last = s
	if inside := insideOf(s); len(inside) > 0 {
		h.steer.inside, h.steer.closed = inside, false
	}
	return h.apply()
}

// apply is called with mu held.
func (h *hostEnd) apply() error {
	if h.allowLAN {
		lan, err := hostnet.Connected(h.steer.device)
		if err != nil {
			return err
		}
		h.steer.lan = lan
	}
	return h.net.Apply(compose(h.last, h.steer))
}

// AddAddress implements gateway.Host. The address is guarded before it is there.
func (h *hostEnd) AddAddress(device string, p netip.Prefix) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !slices.Contains(h.steer.vips, p.Addr()) {
		h.steer.vips = append(h.steer.vips, p.Addr())
		if err := h.apply(); err != nil {
			return err
		}
	}
	return h.net.AddAddress(device, p)
}

// DelAddress implements gateway.Host. The guard of the address stays: a new one of the same
// gateway replaces it, and in vain it does no harm.
func (h *hostEnd) DelAddress(device string, p netip.Prefix) error {
	return h.net.DelAddress(device, p)
}

// refresh puts routes, guard and names in order after the host has changed.
func (h *hostEnd) refresh() {
	h.mu.Lock()
	err := h.apply()
	h.mu.Unlock()
	if err = errors.Join(err, h.net.KeepNames()); err != nil {
		h.log.Error("putting routes, guard and name servers in order again: " + err.Error())
	}
}

// run is RunHost with all that it needs.
func (h *hostEnd) run(ctx context.Context, o *HostOptions, c *connection, dev tun.Device, sockets conn.Conn) error {
	ports := []uint16{sockets.Ports().IKE, sockets.Ports().NATT}
	lookUp := systemNames
	if h.net.Inherited() && h.steer.killSwitch {
		// Somebody was connected and died. Nothing gets out until we are, but our own questions.
		h.steer.closed = true
		r, err := newMarkedResolver(h.net)
		if err != nil {
			return err
		}
		ports, lookUp = append(ports, r.port), r.lookUp
	}
	h.net.SetIKEPorts(ports...)
	if err := h.Apply(hostnet.State{}); err != nil {
		return err
	}
	settled := make(chan Progress, limitReports)
	told := o.Progress
	opt := o.Options
	opt.Progress = func(p Progress) {
		select {
		case settled <- p:
		default:
		}
		if told != nil {
			told(p)
		}
	}
	s, err := open(ctx, opt, c, ends{device: dev, host: h, names: &h.names, sockets: sockets, onHost: true, lookUp: lookUp,
		watch: func(ctx context.Context) (<-chan hostnet.Event, error) { return h.net.Watch(ctx, true) }})
	if err != nil {
		return err
	}
	defer s.close()
	return h.serve(ctx, o, s, settled)
}

// serve follows what happens until the end.
func (h *hostEnd) serve(ctx context.Context, o *HostOptions, s *session, progress <-chan Progress) error {
	watch, stop := context.WithCancel(context.Background())
	defer stop()
	events, err := h.net.Watch(watch, false)
	if err != nil {
		return err
	}
	var now told
	names := func(p Progress) {
		next := told{p.DNS, p.Domains}
		if p.State != Up || o.NoDNS || slices.Equal(now.servers, next.servers) && slices.Equal(now.domains, next.domains) {
			return
		}
		now = next
		by, err := h.setNames(ctx, o, p)
		if err != nil {
			h.log.Error("name servers: " + err.Error())
		}
		if o.Names != nil {
			o.Names(by, err)
		}
	}
	names(s.progress())
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.done:
			return s.err
		case p := <-progress:
			names(p)
		case _, ok := <-events:
			if ok {
				drain(events)
				h.refresh()
			}
		}
	}
}

// setNames has the host ask the servers inside: for all names if everything goes through
// the tunnel or no domain was told, else for those below the domains.
func (h *hostEnd) setNames(ctx context.Context, o *HostOptions, p Progress) (string, error) {
	if len(p.DNS) == 0 {
		return "", h.net.DropNames(ctx)
	}
	file := o.ResolvConf
	if file == "" {
		file = "/etc/resolv.conf"
	}
	by, err := h.net.SetNames(ctx, hostnet.Names{Device: p.Device, Servers: p.DNS, Domains: p.Domains, All: p.Full() || len(p.Domains) == 0, File: file})
	return string(by), err
}

// drain takes what waits: one answer is enough for a burst.
func drain(events <-chan hostnet.Event) {
	for {
		select {
		case _, ok := <-events:
			if !ok {
				return
			}
		default:
			return
		}
	}
}

// Package adit is an IPsec gateway for programs that embed one: New makes a
// gateway from the files that strongSwan users have, Run runs it, Dial talks to a
// running one.
//
// It owns the order in which the parts come up and go down (control socket, host,
// device, sockets, data plane, IKE engine, configuration), and nothing else. The
// parts are in the packages named by docs/architecture.md; start there.
package adit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"adit/conf"
	"adit/dataplane/userspace"
	"adit/ike"
	"adit/ike/ikev1"
	"adit/ike/ikev2"
	"adit/internal/acme"
	"adit/internal/capture"
	"adit/internal/config"
	"adit/internal/conn"
	"adit/internal/control"
	"adit/internal/gateway"
	"adit/internal/hostnet"
	"adit/internal/kernel"
	"adit/internal/logging"
	"adit/ipsec"
	"adit/pki"
	"adit/tun"
	"adit/vici"
)

// Version of this build; the linker sets it.
var Version = "0.1.0-dev"

// Options of a gateway. The zero value waits for VICI clients on the default socket.
type Options struct {
	// ConfigFile is a swanctl.conf; empty: connections come by VICI.
	ConfigFile string
	// VICI is the control socket's URI; empty: strongswan.conf's, or unix:///var/run/charon.vici.
	VICI string
	// StrongswanConf is the file of daemon settings; empty: $STRONGSWAN_CONF, or /etc/strongswan.conf if there is one.
	StrongswanConf string
	// Log receives what operators should know; nil: slog.Default.
	Log *slog.Logger
	// UnsafeDebugDir gets pcap files of inner and outer packets and the keys that
	// Wireshark needs to read them. Whoever reads it reads the traffic.
	UnsafeDebugDir string
	// NoGuard leaves the guard's packet filter out: for tests that show what it is for.
	NoGuard bool
	// HealthAddr answers GET /healthz there: a TCP address, or unix:///path; empty: strongswan.conf's adit.health, if any.
	HealthAddr string
	// GiveUp takes from the whole process, and what it starts, a capability that nothing but
	// making the device needs, once it is made: CAP_BPF. Who runs as root with all of them keeps it.
	GiveUp bool
	// Ready is called once the gateway serves.
	Ready func()
}

// Gateway is one gateway of this process's network namespace.
type Gateway struct {
	opt    Options
	log    *slog.Logger
	daemon config.Daemon                 // as at the start
	now    atomic.Pointer[config.Daemon] // as read the last time
	logs   *logging.Hub
	acme   *acme.Keeper // while it runs

	mu      sync.Mutex // serialises reloads
	running atomic.Pointer[gateway.Gateway]
}

// ErrAlreadyRunning is wrapped when another instance holds the network namespace.
var ErrAlreadyRunning = hostnet.ErrAlreadyRunning

// New reads the daemon's settings and checks the configuration, without touching the host.
func New(o Options) (*Gateway, error) {
	g := &Gateway{opt: o, log: o.Log}
	if g.log == nil {
		g.log = slog.Default()
	}
	var err error
	if g.daemon, err = config.LoadDaemon(config.DaemonFile(o.StrongswanConf)); err != nil {
		return nil, err
	}
	g.warn(g.daemon.Warnings)
	if o.VICI != "" {
		g.daemon.VICISocket = o.VICI
	}
	g.now.Store(&g.daemon)
	if o.ConfigFile != "" {
		m, err := config.Load(o.ConfigFile, g.daemon)
		if err != nil {
			return nil, err
		}
		for _, s := range m.Secrets { // they are read again when it runs
			s.Key.Zero()
		}
	}
	return g, nil
}

func (g *Gateway) warn(ws []config.Warning) {
	for _, w := range ws {
		g.log.Warn(w.Text, "at", w.Pos.String())
	}
}

// Reload reads strongswan.conf and the configuration file again, and has log files
// opened again. With an error in either nothing changes. What of strongswan.conf can
// change only with a restart is told.
func (g *Gateway) Reload() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	gw := g.running.Load()
	if gw == nil {
		return errors.New("the gateway does not run")
	}
	g.logs.Reopen()
	d, err := g.readDaemon()
	if err != nil {
		g.log.Error("the settings were not read again, nothing changes: " + err.Error())
		return err
	}
	if err := g.load(gw, d); err != nil {
		return err
	}
	return g.retune(gw, d)
}

// load gives the gateway what the configuration file has now, if there is one.
func (g *Gateway) load(gw *gateway.Gateway, d *config.Daemon) error {
	if g.opt.ConfigFile == "" {
		return nil
	}
	m, err := config.Load(g.opt.ConfigFile, *d)
	if err == nil {
		g.warn(m.Warnings)
		err = gw.Load(m)
	}
	if err != nil {
		g.log.Error("the configuration was not loaded, nothing changes: "+err.Error(), "file", g.opt.ConfigFile)
		return err
	}
	g.log.Info("configuration loaded", "file", g.opt.ConfigFile, "connections", len(m.Peers), "secrets", len(m.Secrets),
		"certificates", len(m.Certs), "keys", len(m.Keys), "pools", len(m.Pools))
	return nil
}

func (g *Gateway) loadFirst(gw *gateway.Gateway) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.load(gw, &g.daemon)
}

// Run runs the gateway until ctx ends, then closes all tunnels, undoes what was
// changed on the host and returns. The control socket is bound first, so that
// clients find it at once.
func (g *Gateway) Run(ctx context.Context) error {
	if g.logs = logging.Of(g.log); g.logs == nil {
		g.logs = logging.New(logging.Target{Kind: logging.Forward, Handler: g.log.Handler(), BySeverity: true, Severity: slog.LevelDebug})
		defer g.logs.Close()
		g.log = slog.New(g.logs)
	}
	if err := g.logs.Apply(logTargets(g.daemon.Logs)); err != nil {
		return err
	}
	ln, err := vici.Listen(g.daemon.VICISocket)
	if err != nil {
		return err
	}
	defer ln.Close()
	if g.opt.NoGuard {
		g.log.Warn("UNSAFE: there is no guard: traffic leaves and enters in the clear whenever the tunnel is not there")
	}
	host, err := hostnet.New(hostnet.Options{Table: g.daemon.RoutingTable, Priority: g.daemon.RoutingTablePrio,
		IKEPorts: []uint16{g.daemon.Port, g.daemon.NATPort}, GuardOff: g.opt.NoGuard})
	if err != nil {
		return err
	}
	defer func() {
		if err := host.Close(); err != nil {
			g.log.Error("undoing the changes to the host: " + err.Error())
		}
	}()
	return g.withNetwork(ctx, ln, host)
}

// withNetwork opens the device and the sockets and serves on them.
func (g *Gateway) withNetwork(ctx context.Context, ln net.Listener, host *hostnet.Net) error {
	dev, err := g.openDevice()
	if err != nil {
		return err
	}
	defer dev.Close()
	g.giveUp()
	if err := host.SetupDevice(dev.Name(), dev.MTU()); err != nil {
		return err
	}
	mark, _ := host.Mark()
	var plane atomic.Pointer[userspace.Plane]
	sockets, err := g.listen(conn.Options{
		Ports: conn.Ports{IKE: g.daemon.Port, NATT: g.daemon.NATPort}, Mark: mark,
		NoIPv4: g.daemon.NoIPv4, NoIPv6: g.daemon.NoIPv6, TemporaryAddrs: g.daemon.TemporaryAddrs, Workers: g.Workers(),
		OnReport: func(r conn.Report) {
			if p := plane.Load(); p != nil {
				p.Report(r)
			}
		},
	})
	if err != nil {
		return err
	}
	defer sockets.Close()
	tap, err := openCapture(g.opt.UnsafeDebugDir)
	if err != nil {
		return err
	}
	if tap != nil {
		g.log.Warn("UNSAFE: packets and keys are written where others may read them", "dir", g.opt.UnsafeDebugDir)
		defer tap.Close()
	}
	var gw *gateway.Gateway
	usable := hostnet.NewInterfaces(g.daemon.InterfacesUse, g.daemon.InterfacesIgnore)
	out := gateway.Sockets{Conn: sockets, Usable: usable.Usable}
	cfg := userspace.Config{Tun: dev, Conn: sockets, Workers: g.Workers(), IKE: func(p *conn.Packet) {
		if tap != nil {
			tap.IKE(ipsec.In, p.Local, p.Remote, p.Encap, p.Buf)
		}
		if !listens(usable, p) {
			return
		}
		gw.Datagram(ike.Datagram{Local: p.Local, Remote: p.Remote, Data: p.Buf})
	}}
	if tap != nil {
		cfg.Tap = tap
		out.Tap = func(d ike.Datagram) {
			tap.IKE(ipsec.Out, d.Local, d.Remote, d.Local.Port() == sockets.Ports().NATT, d.Data)
		}
	}
	dp, err := userspace.New(cfg)
	if err != nil {
		return err
	}
	defer dp.Close()
	plane.Store(dp)
	fetcher := &pki.HTTPFetcher{Timeout: g.daemon.FetchTimeout}
	defer fetcher.Close()
	o := gateway.Options{
		Fetcher: fetcher, Leases: leaseStore(&g.daemon, g.log),
		Daemon: g.daemon, Dataplane: dp, Transport: out, Host: host, Device: dev.Name(),
		Log: g.log, Workers: workers(dp), Resources: g.Workers(), Versions: []ike.Version{ikev2.Version, ikev1.Version}, ForceEncap: true,
	}
	if tap != nil {
		o.KeyLog = tap.Keys
	}
	if h := g.daemon.Habits; !h.NoCrashDetection || h.ResumeSessions {
		secret, release, err := crashSecret(g.daemon.StateDir)
		if err != nil {
			g.log.Info("peers will not notice a restart at once: " + err.Error())
		} else {
			o.CrashSecret, o.TicketSecret = secret, ticketSecret(secret)
		}
		defer release()
	}
	if gw, err = gateway.New(o); err != nil {
		return err
	}
	return g.serve(ctx, ln, host, dp, gw, func() (func(), error) { return g.watchAddresses(ctx, host, gw, dev.Name(), usable) })
}

// listens reports whether a packet is for the engine: a keepalive has done its work by
// passing the NAT, and IKE that comes to an interface that is left out is nobody's.
func listens(usable *hostnet.Interfaces, p *conn.Packet) bool {
	return p.Kind == conn.IKE && usable.Usable(p.Local.Addr())
}

// listen opens the outside sockets. In a container that has no CAP_NET_RAW, ESP goes in
// UDP alone, which is what `encap = auto` asks for anyway.
func (g *Gateway) listen(o conn.Options) (conn.Conn, error) {
	sockets, err := conn.Listen(o)
	if errors.Is(err, conn.ErrNoRaw) {
		g.log.Warn("CAP_NET_RAW is missing: ESP goes in UDP alone, connections with encap = no and peers without NAT traversal will carry nothing")
		o.NoRaw = true
		sockets, err = conn.Listen(o)
	}
	return sockets, err
}

// serve runs everything until ctx ends.
func (g *Gateway) serve(ctx context.Context, ln net.Listener, host *hostnet.Net, dp *userspace.Plane, gw *gateway.Gateway, watchAddresses func() (func(), error)) error {
	gw.Start()
	defer gw.Shutdown() // on every way out; the second call does nothing
	if err := dp.Start(); err != nil {
		return err
	}
	srv := vici.NewServer(vici.Options{})
	defer g.keepCerts(gw)()
	stop := control.Register(srv, gw, control.Options{Version: Version, Reload: g.Reload, Counters: drops(dp), Logs: g.logs, ConfigFile: g.opt.ConfigFile, ACME: g.acme,
		Decode: control.Decoder{
			Conn: func(name string, s *conf.Section) (*ike.Peer, error) {
				return config.DecodeConn(name, s, *g.now.Load())
			},
			Secret: config.DecodeSecret,
		}})
	defer stop()
	unwatch, err := g.watchHost(ctx, host)
	if err != nil {
		return err
	}
	defer unwatch()
	unwatchAddresses, err := watchAddresses()
	if err != nil {
		return err
	}
	defer unwatchAddresses()
	unserve, err := g.serveHealth(gw)
	if err != nil {
		return err
	}
	defer unserve()
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	g.running.Store(gw)
	defer g.running.Store(nil)
	if err = g.loadFirst(gw); err == nil {
		for _, w := range host.Diagnose() {
			g.log.Warn(w)
		}
		kernel.ReleaseProgram()
		g.log.Info("adit is running", "version", Version, "vici", g.daemon.VICISocket)
		if g.opt.Ready != nil {
			g.opt.Ready()
		}
		select {
		case <-ctx.Done():
		case <-dp.Done():
			err = dp.Err()
		case err = <-served:
			err = fmt.Errorf("control socket: %w", err)
		}
	}
	gw.Shutdown()
	srv.Close()
	return err
}

// watchHost puts the guard and the routes back in order when somebody else
// changed addresses, links or the packet filter; bursts are answered once.
// The returned function ends it.
func (g *Gateway) watchHost(ctx context.Context, host *hostnet.Net) (end func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	events, err := host.Watch(ctx, false)
	if err != nil {
		cancel()
		return nil, err
	}
	var watch sync.WaitGroup
	watch.Go(func() {
		for range events {
			settle := time.NewTimer(hostSettles)
			for waiting := true; waiting; {
				select {
				case <-settle.C:
					waiting = false
				case _, ok := <-events:
					waiting = ok
				}
			}
			settle.Stop()
			if err := host.Refresh(); err != nil && ctx.Err() == nil {
				g.log.Error("putting routes and guard in order again: " + err.Error())
			}
		}
	})
	return func() {
		cancel()
		watch.Wait()
	}, nil
}

// hostSettles is how long a burst of changes to the host may last before they are answered.
const hostSettles = 100 * time.Millisecond

// drops reads the data plane's drop counters by reason.
func drops(dp *userspace.Plane) func() map[string]uint64 {
	return func() map[string]uint64 {
		c := dp.Counters()
		m := map[string]uint64{}
		for _, r := range userspace.Reasons() {
			m[r.String()] = c.Drops(r)
		}
		return m
	}
}

// Workers is the number of threads that move packets (option `workers`). On two
// processors, which the hosts of a test shared, two threads were slower than one; from
// four on half of them are left to the rest: network interrupts, IKE, and whatever else
// the machine is there for.
func (g *Gateway) Workers() int {
	if n := g.daemon.Workers; n > 0 {
		return n
	}
	return max(1, min(runtime.NumCPU()/2, 8))
}

// openDevice makes adit0, or the next free name.
func (g *Gateway) openDevice() (tun.Device, error) {
	var err error
	for i := range 16 {
		var dev *tun.Linux
		if dev, err = tun.CreateTUN(fmt.Sprintf("adit%d", i), tun.Options{Queues: g.Workers(), Ring: !g.daemon.NoRing}); err == nil {
			if missing := dev.Offload().Missing(); missing != "" {
				g.log.Info("the kernel's TUN device lacks an offload: packets of that kind pass one by one, more slowly", "device", dev.Name(), "lacks", missing)
			}
			if err := dev.RingError(); err != nil {
				g.log.Info("single packets go by the device's queue, more slowly: the quicker way past it can't be", "device", dev.Name(), "why", err)
			}
			return dev, nil
		}
		if !errors.Is(err, tun.ErrExists) {
			break
		}
	}
	return nil, err
}

// giveUp is called when the device is made, which is done once: no reload makes another.
func (g *Gateway) giveUp() {
	if !g.opt.GiveUp {
		return
	}
	switch given, err := kernel.GiveUp(unix.CAP_BPF); {
	case err != nil:
		g.log.Warn("CAP_BPF is not needed any more, but can't be given up: the gateway and its updown scripts keep it", "why", err)
	case given:
		g.log.Debug("CAP_BPF was needed for the device, and is given up")
	}
}

func openCapture(dir string) (*capture.Dir, error) {
	if dir == "" {
		return nil, nil
	}
	return capture.Open(dir)
}

// Dial connects to the control socket of a running gateway (or of a charon).
func Dial(ctx context.Context, uri string) (*vici.Client, error) { return vici.Dial(ctx, uri) }

package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"adit/ike"
	"adit/internal/config"
	"adit/internal/hostnet"
	"adit/internal/updown"
	"adit/ipsec"
	"adit/pki"
	"adit/suite"
)

// Transport sends IKE messages and knows the host's addresses.
type Transport interface {
	// Send transmits one message; it never blocks for long and copies what it keeps.
	// A datagram of one byte is a NAT keepalive.
	Send(ike.Datagram) error
	// SourceFor is the local address that the host would use towards remote.
	SourceFor(remote netip.Addr) (netip.Addr, error)
}

// Host changes the host's routing and packet filter to a wanted state.
type Host interface {
	Apply(hostnet.State) error
	// AddAddress and DelAddress put a virtual address on a device; calls are counted.
	AddAddress(device string, p netip.Prefix) error
	DelAddress(device string, p netip.Prefix) error
}

// Options are what a gateway is made of. Dataplane, Transport, Log and Versions
// are needed; Host is nil where nothing of the host may be touched.
type Options struct {
	Daemon    config.Daemon
	Dataplane ipsec.Dataplane
	Transport Transport
	Host      Host
	Device    string // the data plane's device, for routes and the guard
	Log       *slog.Logger
	Versions  []ike.Version
	// Resources is the number of the data plane's workers, which SPIs name (ike.Config.Workers).
	Resources int
	// ForceEncap: the data plane prefers ESP in UDP (see ike.Config).
	ForceEncap bool
	// KeyLog receives every key that the engine exports; nil unless the operator
	// asked for it with the unsafe option.
	KeyLog func(ike.ExportKeys)
	// Fetcher gets CRLs and OCSP answers; nil: nothing is fetched.
	Fetcher pki.Fetcher
	// Leases keeps the leases of addresses; nil: they live in memory.
	Leases LeaseStore
	// Control is called for every socket towards a RADIUS server before it is connected;
	// may be nil.
	Control func(network, address string, c syscall.RawConn) error
	// CrashSecret makes the tokens of crash detection (ike.Config.CrashSecret); may be nil.
	CrashSecret suite.Key
	// TicketSecret makes the keys of session tickets (ike.Config.TicketSecret); may be nil.
	TicketSecret suite.Key
	// Workers tells of threads that are not the gateway's own (Health); may be nil.
	Workers func(now time.Time) []Part
	// Resolver overrides the system's resolver, in tests.
	Resolver func(ctx context.Context, host string) ([]netip.Addr, error)
}

// Gateway is a gateway, running from Start to Shutdown. Its methods are safe for
// concurrent use.
type Gateway struct {
	opt           Options
	started       time.Time
	shard         *shard
	pool          *pool
	bus           bus
	host          hostWorker
	names         nameWorker
	logs          logWorker
	health        health
	histories     histories
	inv           inventory
	users         directory
	leases        leases
	virtual       virtualAddresses
	trust         trust
	standing      standing
	conversations conversations
	accounts      accounts
	dae           dae
	informs       informs
	scripts       *updown.Runner
	departed      departed
	drain         draining

	lastCommand atomic.Uint64
	waitMu      sync.Mutex
	waiting     map[ike.CommandID]chan ike.CommandDone

	running  atomic.Bool
	closing  chan struct{} // closed when Shutdown begins
	down     chan struct{} // closed when the engine has ended its shutdown
	downOnce sync.Once
	stopOnce sync.Once
	shards   sync.WaitGroup // what stops first at Shutdown: shard, pool, names
	hosts    sync.WaitGroup // what stops after those
	logging  sync.WaitGroup // what stops last
	stop     context.CancelFunc
	stopHost context.CancelFunc
	stopLog  context.CancelFunc
}

// New makes a gateway; nothing happens before Start.
func New(o Options) (*Gateway, error) {
	if o.Dataplane == nil || o.Transport == nil || o.Log == nil || len(o.Versions) == 0 {
		return nil, errors.New("gateway: data plane, transport, log and an IKE version are needed")
	}
	g := &Gateway{opt: o, waiting: map[ike.CommandID]chan ike.CommandDone{}, down: make(chan struct{}), closing: make(chan struct{})}
	g.inv.init()
	g.histories.init()
	g.inv.routeMTU = o.Daemon.RouteMTU
	g.leases.init()
	g.leases.global = o.Daemon.Attributes
	g.leases.kept.store, g.leases.kept.lost = o.Leases, g.loseAddress
	g.leases.granted = g.accounts.framed
	g.conversations.init(g)
	g.accounts.init(g)
	g.dae.g = g
	g.informs.init(g)
	g.trust.init(o.Fetcher)
	g.trust.store.Leave(pki.Leave{CRL: o.Daemon.NoCRL, OCSP: o.Daemon.NoOCSP})
	g.trust.pss, g.trust.notify = o.Daemon.RSAPSS, g.announceTo
	g.trust.rejectTrusted = o.Daemon.RejectTrusted
	g.virtual.held = map[uint64]assumed{}
	g.pool = newPool(max(1, runtime.GOMAXPROCS(0)-1))
	g.shard = newShard(g)
	g.host.init(g)
	g.health.g = g
	g.names.init(g)
	g.bus.subscribe(g.histories.take) // before whoever waits: what ended is known then
	g.bus.subscribe(g.complete)
	g.bus.subscribe(g.accounts.event)
	g.standing.init(g)
	g.bus.subscribe(g.standing.event)
	g.bus.subscribe(g.strays)
	g.logs.init(o.Log)
	g.bus.subscribe(g.logs.take)
	g.scripts = g.newScripts()
	g.bus.subscribe(g.scripts.Event)
	return g, nil
}

// Start runs the gateway until Shutdown. It is called once.
func (g *Gateway) Start() {
	g.started = time.Now()
	var ctx, hostCtx context.Context
	ctx, g.stop = context.WithCancel(context.Background())
	hostCtx, g.stopHost = context.WithCancel(context.Background())
	g.pool.ctx = ctx
	g.opt.Dataplane.Events(g.shard.dataplane)
	for _, run := range []func(context.Context){g.shard.run, g.names.run, g.pool.run, g.health.run, g.runLeases, g.accounts.run, g.dae.run, g.informs.run, g.standing.run} {
		g.shards.Go(func() { run(ctx) })
	}
	g.hosts.Go(func() { g.host.run(hostCtx) })
	logCtx, stopLog := context.WithCancel(context.Background())
	g.stopLog = stopLog
	g.logging.Go(func() { g.logs.run(logCtx) })
	g.running.Store(true)
}

// isRunning reports whether inputs are taken.
func (g *Gateway) isRunning() bool { return g.running.Load() }

// Started is when Start was called.
func (g *Gateway) Started() time.Time { return g.started }

// Datagram takes one IKE message from the network. It never blocks: when the
// gateway cannot keep up, first messages are dropped and counted before others.
// The data is copied.
func (g *Gateway) Datagram(d ike.Datagram) { g.shard.datagram(d) }

// Subscribe has every event delivered to f, on the gateway's own thread: f must
// not block. The returned function ends it.
func (g *Gateway) Subscribe(f func(ike.Event)) (cancel func()) { return g.bus.subscribe(f) }

// Stats are numbers of the running gateway for people and metrics.
type Stats struct {
	Engine                 ike.Stats
	DatagramsDropped       uint64 // mailbox full
	JobsWaiting, JobsTotal int
	Workers, WorkersIdle   int
}

// Stats reads the numbers.
func (g *Gateway) Stats(ctx context.Context) (Stats, error) {
	var s Stats
	err := g.shard.call(ctx, func(e *ike.Engine) { s.Engine = e.Stats() })
	s.DatagramsDropped = g.shard.dropped.Load()
	s.Engine.Bugs += g.shard.bugs.Load() + g.bus.failed.Load()
	s.JobsWaiting, s.JobsTotal = g.pool.waiting(), int(g.shard.outstanding.Load())
	s.Workers, s.WorkersIdle = g.pool.size, g.pool.size-int(g.pool.busy.Load())
	return s, err
}

// Shutdown sends Deletes to all peers, waits a few seconds at most for their
// answers, and stops. SAs, policies and host state are removed. Further calls wait
// for the first one and do nothing.
func (g *Gateway) Shutdown() { g.stopOnce.Do(g.end) }

func (g *Gateway) end() {
	wasRunning := g.running.Swap(false)
	close(g.closing)
	if !wasRunning {
		return
	}
	limit, cancel := context.WithTimeout(context.Background(), shutdownGrace+time.Second)
	defer cancel()
	if g.shard.deliver(limit, ike.Shutdown{Grace: shutdownGrace}) == nil {
		select {
		case <-g.down:
		case <-limit.Done():
		}
	}
	// A Load under way ends soon, since nothing that it waits for is left.
	g.inv.change.Lock()
	g.stop()
	g.inv.change.Unlock() // the name worker may be waiting for it, and we for that
	g.shards.Wait()
	g.inv.change.Lock()
	defer g.inv.change.Unlock()
	g.pool.under.Wait()
	g.removeAll()
	g.host.changed(nil)
	g.stopHost()
	g.hosts.Wait()
	g.scripts.Close()
	g.stopLog()
	g.logging.Wait()
}

// removeAll takes away what is left when the engine has ended: SAs of peers that
// did not answer in time, trap and shunt policies.
func (g *Gateway) removeAll() {
	dp := g.opt.Dataplane
	g.shard.safely(func() {
		for _, sa := range g.shard.engine.SAs() {
			for _, c := range sa.Children {
				_ = dp.DeleteSA(ipsec.SARef{Child: c.ID, Dir: ipsec.Out})
				_ = dp.DeleteSA(ipsec.SARef{Child: c.ID, Dir: ipsec.In})
			}
		}
		for _, id := range g.inv.clear() {
			_ = dp.DeletePolicy(id)
		}
	})
	g.accounts.close()
	g.conversations.close()
	if g.opt.Leases != nil {
		g.opt.Leases.Close()
	}
	g.trust.store.Close()
	g.ClearCredentials()
	g.users.clear()
}

// complete hands the end of a command to whoever waits for it.
func (g *Gateway) complete(e ike.Event) {
	switch e := e.(type) {
	case ike.CommandDone:
		g.waitMu.Lock()
		if ch := g.waiting[e.ID]; ch != nil {
			delete(g.waiting, e.ID)
			ch <- e
		}
		g.waitMu.Unlock()
	case ike.ShutdownDone:
		g.downOnce.Do(func() { close(g.down) })
	}
}

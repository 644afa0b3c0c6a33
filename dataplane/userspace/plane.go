package userspace

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"adit/esp"
	"adit/internal/conn"
	"adit/ipsec"
	"adit/tun"
)

// Plane is the data plane. Make it with New, name the receiver of its events,
// then Start it. SAs and policies may come at any time.
type Plane struct {
	cfg   Config
	count *counters // of what no worker does
	spd   spd
	spis  spiTable
	event atomic.Pointer[func(ipsec.Event)]

	mu       sync.Mutex          // of the calls that change something; never taken by a packet on its way
	byRef    map[ipsec.SARef]*sa // changed under refMu, too
	policies map[ipsec.PolicyID]*entry
	devices  map[uint32]*device
	flusher  *outbound   // sends what waited
	counts   []*counters // count and those of the workers
	workers  []*worker   // move what can be polled; none until there is something of the kind
	started  bool
	closed   bool

	// refMu is held for no longer than a look into byRef takes: whoever reads the
	// counters of thousands of SAs waits for nobody who changes something.
	refMu sync.RWMutex

	// outMu is apart from mu because the Conn reports from within its WriteBatch,
	// which may run under mu.
	outMu    sync.Mutex
	outBySPI map[ipsec.SPI][]*sa // for ICMP reports; peers may choose alike
	here     hereReport          // the last that arose in this host, and when
	hereAt   time.Time

	waiting atomic.Int64
	waitMu  sync.Mutex
	waiters map[*entry]struct{} // policies for which packets wait

	beats []*beat      // of all workers; under mu
	stuck atomic.Int64 // since when Workers has found mu taken, 0: it was free

	wg   sync.WaitGroup
	stop chan struct{}
	done chan struct{} // closed when a worker ended for good
	once sync.Once
	err  atomic.Pointer[error]
}

// device is a packet device and the interface ID of the SAs and policies that use it.
type device struct {
	tun    tun.Device
	ifID   uint32
	queues []tun.Polled // one for each worker, as far as there are; nil: tun alone
}

func newDevice(t tun.Device, ifID uint32) *device {
	d := &device{tun: t, ifID: ifID}
	if q, ok := t.(tun.Queued); ok {
		d.queues = q.Queues()
	}
	return d
}

// of is where a worker writes to: its own queue, so that the kernel sends it the
// answers of the same flows.
func (d *device) of(worker int) tun.Device {
	if worker < len(d.queues) {
		return d.queues[worker]
	}
	return d.tun
}

var _ ipsec.Dataplane = (*Plane)(nil)

// New makes a data plane that moves nothing until Start.
func New(cfg Config) (*Plane, error) {
	if cfg.Tun == nil || cfg.Conn == nil || cfg.IKE == nil {
		return nil, errors.New("userspace: Config without Tun, Conn or IKE")
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	cfg.Workers = max(cfg.Workers, 1)
	p := &Plane{cfg: cfg, byRef: map[ipsec.SARef]*sa{}, outBySPI: map[ipsec.SPI][]*sa{}, policies: map[ipsec.PolicyID]*entry{},
		devices: map[uint32]*device{}, waiters: map[*entry]struct{}{}, stop: make(chan struct{}), done: make(chan struct{})}
	p.spd.index = map[netip.Prefix][]*entry{}
	p.spd.gen.Store(1)
	p.spis.init()
	p.devices[0] = newDevice(cfg.Tun, 0)
	p.count = p.newCounters()
	p.flusher = newOutbound(p, p.devices[0], limitPacket, 16)
	return p, nil
}

// AddDevice adds the device for SAs and policies of an interface ID. It is the
// Plane's from then on, which closes it at the end.
func (p *Plane) AddDevice(ifID uint32, t tun.Device) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return ErrClosed
	case p.devices[ifID] != nil:
		return ErrIfID
	}
	d := newDevice(t, ifID)
	p.devices[ifID] = d
	if p.started {
		return p.startDevice(d)
	}
	return nil
}

// Start begins to move packets: Config.Workers for all that can be polled, and a
// goroutine for each device and each reader that only knows how to wait.
func (p *Plane) Start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.started {
		return ErrClosed
	}
	p.started = true
	for _, d := range p.devices {
		if err := p.startDevice(d); err != nil {
			return err
		}
	}
	for i, r := range p.cfg.Conn.Readers() {
		if err := p.startReader(i, r); err != nil {
			return err
		}
	}
	b := p.newBeat("plane-timer")
	p.wg.Add(1)
	go p.age(b)
	return nil
}

// Done is closed when a device or the Conn failed for good, or by Close; Err
// tells the failure then.
func (p *Plane) Done() <-chan struct{} { return p.done }

// Err is why Done was closed, nil after Close.
func (p *Plane) Err() error {
	if e := p.err.Load(); e != nil {
		return *e
	}
	return nil
}

func (p *Plane) fail(err error) {
	select {
	case <-p.stop:
		err = nil
	default:
	}
	p.once.Do(func() {
		if err != nil {
			p.err.Store(&err)
		}
		close(p.done)
	})
}

// Close ends the data plane and closes the devices and the Conn, as only that
// ends their readers. SAs are forgotten.
func (p *Plane) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.closed = true
	close(p.stop)
	for _, w := range p.workers {
		w.end() // before what it polls is closed
	}
	for _, w := range p.workers {
		w.close() // they rouse each other
	}
	errs := []error{p.cfg.Conn.Close()}
	for _, d := range p.devices {
		errs = append(errs, d.tun.Close())
	}
	for ref := range p.byRef {
		p.deleteSA(ref)
	}
	p.mu.Unlock()
	p.wg.Wait()
	p.fail(nil)
	return errors.Join(errs...)
}

// Events implements ipsec.Dataplane. The function may not call the Plane.
func (p *Plane) Events(f func(ipsec.Event)) { p.event.Store(&f) }

func (p *Plane) emit(e ipsec.Event) {
	if f := p.event.Load(); f != nil {
		(*f)(e)
	}
}

// AddSA implements ipsec.Dataplane.
func (p *Plane) AddSA(params ipsec.SAParams) error {
	s := &sa{ref: params.Ref, spi: params.SPI, resource: params.Resource, own: params.OwnPort}
	e, err := esp.New(params)
	if err != nil {
		return err
	}
	s.SA = e
	p.mu.Lock()
	defer p.mu.Unlock()
	in := params.Ref.Dir == ipsec.In
	s.dev = p.devices[params.IfID]
	switch {
	case p.closed:
		return ErrClosed
	case params.Ref.IsZero() || p.byRef[params.Ref] != nil:
		return ErrRefTaken
	case in && p.spis.get(params.SPI) != nil:
		return ErrSPITaken
	case s.dev == nil:
		return ErrNoDevice
	case !resolved(params.LocalTS) || !resolved(params.RemoteTS):
		return ErrSelector
	}
	s.owner = p.ownerOf(s)
	p.refMu.Lock()
	p.byRef[params.Ref] = s
	p.refMu.Unlock()
	if in {
		p.spis.put(s)
	} else {
		p.outMu.Lock()
		p.outBySPI[s.spi] = append(p.outBySPI[s.spi], s)
		p.outMu.Unlock()
	}
	if twin := p.byRef[ipsec.SARef{Child: s.ref.Child, Dir: 1 - s.ref.Dir}]; twin != nil {
		s.twin.Store(twin)
		twin.twin.Store(s)
	}
	return nil
}

// ownerOf is the worker of an SA: that which gets what comes for the inbound one, so
// that the kernel sends it the answers of the same flows. Called with p.mu held.
func (p *Plane) ownerOf(s *sa) int {
	if s.ref.Dir == ipsec.In {
		return conn.WorkerOf(uint32(s.spi), p.cfg.Workers)
	}
	if s.resource > 0 {
		return int(s.resource-1) % p.cfg.Workers
	}
	if twin := p.byRef[ipsec.SARef{Child: s.ref.Child, Dir: ipsec.In}]; twin != nil {
		return twin.owner
	}
	return int(s.ref.Child % uint32(p.cfg.Workers))
}

func resolved(ts []ipsec.Selector) bool {
	for _, s := range ts {
		if s.IsDynamic() || !s.Valid() {
			return false
		}
	}
	return len(ts) > 0
}

// UpdateSA implements ipsec.Dataplane.
func (p *Plane) UpdateSA(ref ipsec.SARef, u ipsec.SAUpdate) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.byRef[ref]
	if s == nil {
		return ErrNoSA
	}
	return s.Update(u)
}

// DeleteSA implements ipsec.Dataplane. When it returns, no packet passes the SA any more.
func (p *Plane) DeleteSA(ref ipsec.SARef) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.byRef[ref] == nil {
		return ErrNoSA
	}
	p.deleteSA(ref)
	return nil
}

func (p *Plane) deleteSA(ref ipsec.SARef) {
	s := p.byRef[ref]
	p.refMu.Lock()
	delete(p.byRef, ref)
	p.refMu.Unlock()
	if ref.Dir == ipsec.In {
		p.spis.remove(s)
	} else {
		p.outMu.Lock()
		l := slices.DeleteFunc(slices.Clone(p.outBySPI[s.spi]), func(o *sa) bool { return o == s })
		if p.outBySPI[s.spi] = l; len(l) == 0 {
			delete(p.outBySPI, s.spi)
		}
		p.outMu.Unlock()
	}
	if twin := s.twin.Load(); twin != nil {
		twin.twin.Store(nil)
	}
	s.kill()
}

// AddPolicy implements ipsec.Dataplane.
func (p *Plane) AddPolicy(pol ipsec.Policy) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return ErrClosed
	case pol.ID == 0:
		return ErrPolicyID
	case !resolved(pol.Local) || !resolved(pol.Remote):
		return ErrSelector
	case p.devices[pol.IfID] == nil:
		return ErrNoDevice
	}
	var out *sa
	if !pol.Out.IsZero() {
		if out = p.byRef[pol.Out]; out == nil || pol.Out.Dir != ipsec.Out {
			return ErrNoSA
		}
	}
	old := p.policies[pol.ID]
	if old != nil && sameRule(&old.policy, &pol) {
		p.setSingle(old, pol.Resources)
		p.switchOut(old, out)
		p.retryWaiting()
		return nil
	}
	e := &entry{policy: pol, prefixes: indexPrefixes(pol.Remote)}
	if pol.PerResource && p.cfg.Workers > 1 {
		e.single, e.asked = make([]atomic.Pointer[sa], p.cfg.Workers), make([]atomic.Int64, p.cfg.Workers)
		p.setSingle(e, pol.Resources)
	}
	if old != nil {
		p.moveWaiting(old, e)
	}
	p.switchOut(e, out)
	p.policies[pol.ID] = e
	p.spd.replace(old, e)
	p.retryWaiting()
	return nil
}

// setSingle gives a policy the SAs of single workers.
func (p *Plane) setSingle(e *entry, refs []ipsec.SARef) {
	now := make([]*sa, len(e.single))
	for _, ref := range refs {
		if s := p.byRef[ref]; s != nil && s.resource > 0 && len(now) > 0 {
			now[s.owner] = s
		}
	}
	for i := range now {
		e.single[i].Store(now[i])
	}
}

// sameRule reports whether two policies differ in nothing but their SA.
func sameRule(a, b *ipsec.Policy) bool {
	return a.Action == b.Action && a.Priority == b.Priority && a.Mode == b.Mode && a.Trap == b.Trap && a.IfID == b.IfID &&
		a.PerResource == b.PerResource && a.ReqID == b.ReqID && a.Name == b.Name && slices.Equal(a.Local, b.Local) && slices.Equal(a.Remote, b.Remote)
}

// indexPrefixes covers the remote side by prefixes, nil if that takes too many.
func indexPrefixes(remote []ipsec.Selector) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range remote {
		for _, pre := range s.Prefixes() {
			if !slices.Contains(out, pre) {
				out = append(out, pre)
			}
			if len(out) > limitPrefixes {
				return nil
			}
		}
	}
	return out
}

// DeletePolicy implements ipsec.Dataplane. Packets that wait for its SA are dropped.
func (p *Plane) DeletePolicy(id ipsec.PolicyID) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.policies[id]
	if e == nil {
		return ErrNoPolicy
	}
	delete(p.policies, id)
	p.spd.replace(e, nil)
	p.retryWaiting()
	e.mu.Lock()
	e.gone = true
	n := len(e.waiting)
	e.waiting, e.bytes = nil, 0
	e.mu.Unlock()
	p.forget(e, n)
	p.count.drops[OutWaitExpired].Add(uint64(n))
	return nil
}

// Query implements ipsec.Dataplane.
func (p *Plane) Query(ref ipsec.SARef) (ipsec.SAStats, bool) {
	p.refMu.RLock()
	s := p.byRef[ref]
	p.refMu.RUnlock()
	if s == nil {
		return ipsec.SAStats{}, false
	}
	st := s.Stats()
	if t := s.LastUse(); t != 0 {
		st.LastUse = time.Unix(0, t)
	}
	return st, true
}

// Inject sends an IP packet of ours through an outbound SA, whatever its selectors.
func (p *Plane) Inject(ref ipsec.SARef, packet []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refMu.RLock()
	s := p.byRef[ref]
	p.refMu.RUnlock()
	if s == nil || ref.Dir != ipsec.Out {
		return ErrNoSA
	}
	p.flusher.sendWaited(s, packet)
	return nil
}

// Report takes an ICMP error about a datagram of ours (conn.Options.OnReport).
// Only "too big" counts, only if it quotes an outbound SPI in use towards that peer or
// arose in this host, and never below the protocols' minimum (RFC 4301 §8.2, RFC 8201 §4).
func (p *Plane) Report(r conn.Report) {
	here := r.Type == 0 && len(r.Quote) == 0
	if r.MTU == 0 || len(r.Quote) < 4 && !here {
		return
	}
	low := minPMTU4
	if r.Remote.Addr().Is6() {
		low = minPMTU6
	}
	mtu, now := max(r.MTU, low), p.cfg.Clock()
	p.outMu.Lock()
	defer p.outMu.Unlock()
	believed := false
	if here {
		believed = p.lowerTowards(&r, mtu, now)
	} else {
		believed = lower(p.outBySPI[ipsec.SPI(binary.BigEndian.Uint32(r.Quote))], &r, mtu, now)
	}
	if believed {
		p.count.pmtuReports.Add(1)
	} else {
		p.count.pmtuRefused.Add(1)
	}
}

// lower gives the SAs of a list that lead to where a report is from its path MTU, if
// theirs is larger. It tells whether there is one.
func lower(list []*sa, r *conn.Report, mtu int, now time.Time) (found bool) {
	for _, s := range list {
		e := s.Endpoints()
		if e.Remote.Addr() != r.Remote.Addr() || e.Encap == r.Raw {
			continue
		}
		found = true
		if mtu < s.PathMTU() {
			s.setPathMTU(mtu, now)
		}
	}
	return found
}

// lowerTowards takes the word of this host's own kernel, which refused a datagram for
// the MTU of its interface. It quotes nothing, but nobody else can say so.
func (p *Plane) lowerTowards(r *conn.Report, mtu int, now time.Time) (found bool) {
	at := hereReport{r.Remote.Addr(), r.Raw, mtu}
	if at == p.here && now.Sub(p.hereAt) < hereAgain {
		return true // each packet of a train brings one
	}
	p.here, p.hereAt = at, now
	for _, list := range p.outBySPI {
		found = lower(list, r, mtu, now) || found
	}
	return found
}

// hereReport is what a report of this host's own is about.
type hereReport struct {
	remote netip.Addr
	raw    bool
	mtu    int
}

// age drops what waited too long and forgets old path MTUs.
func (p *Plane) age(b *beat) {
	defer p.wg.Done()
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-t.C:
			b.begin(p.cfg.Clock())
			p.dropAged(p.cfg.Clock())
			b.end()
		}
	}
}

func (p *Plane) dropAged(now time.Time) {
	for _, e := range p.waitingEntries() {
		p.dropOld(e, now)
	}
	p.outMu.Lock()
	defer p.outMu.Unlock()
	for _, l := range p.outBySPI {
		for _, s := range l {
			if s.mtuSet.IsZero() || now.Sub(s.mtuSet) < pmtuAge {
				continue
			}
			mtu := int(s.Params().MTU)
			if mtu == 0 {
				mtu = esp.DefaultPathMTU
			}
			s.setPathMTU(mtu, time.Time{})
		}
	}
}

// expire tells the events that a run of packets led to.
func (p *Plane) expire(s *sa) {
	soft, hard := s.Due()
	if soft {
		p.emit(ipsec.Expire{Ref: s.ref})
	}
	if hard {
		p.emit(ipsec.Expire{Ref: s.ref, Hard: true})
	}
}

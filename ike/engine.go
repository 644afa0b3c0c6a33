package ike

import (
	"fmt"
	"net/netip"
	"runtime/debug"
	"slices"
	"time"

	"adit/ike/wire"
	"adit/ipsec"
)

// Engine is one shard's worth of IKE SAs. It is not safe for concurrent use,
// never blocks and never reads a clock. After each input call Take and apply
// the effects in order, then call Wake at NextWake.
type Engine struct {
	cfg      Config
	versions [16]*Version // by major number
	peers    []*Peer
	// authorities are those that CERTREQs name, see Trust.
	authorities    [][20]byte
	authorityNames [][]byte
	own            []netip.Addr // see AddressesChanged

	effects []Effect
	lastJob JobID
	jobs    map[JobID]jobOwner

	lastID, lastChild uint32
	bySPI             map[uint64]*Env   // our IKE SPI
	byID              map[uint32]*Env   // unique number
	byChild           map[uint32]*Env   // who owns the Child SA
	firsts            map[firstKey]*Env // responders by the peer's first message
	conns             map[string]*connection

	halfOpen      int
	halfOpenV1    int // of halfOpen
	bySource      map[netip.Addr]int
	cookies       cookieSecrets
	espSPIs       espSPIs
	policies      policyTable
	linger        lingering
	timers        timerHeap
	touched       []*Env
	dueConns      []*connection
	timed         []*connection // those with a timer
	drops         [dropReasons]dropCounter
	fragmentBytes int // held of messages that have not come whole
	dropWake      time.Time
	notifyNext    time.Time // rate limit of INVALID_MAJOR_VERSION
	orphanNext    time.Time // rate limit of INVALID_SPI

	rejectFrom  time.Time // the second that rejectCount counts in
	rejectCount int

	away         sendAway
	reserved     map[uint64]bool // SPIs of ours for IKE SAs that rekeys are to make
	spent        spentTickets
	tokens       rate // of crash detection, that are given out
	hints        rate // INVALID_SPI of others that are looked at
	shutdown     bool
	shutdownDone bool
	shutdownBy   time.Time
	stats        Stats
}

type jobOwner struct {
	env  *Env
	conn *connection
}

// firstKey names the peer's half of an IKE SA that has not got both SPIs on the wire yet.
type firstKey struct {
	spi  uint64
	addr netip.Addr
}

// Stats are the counters of one engine.
type Stats struct {
	SAs, HalfOpen, Children, Jobs int // now
	FragmentBytes                 int // held of messages that have not come whole
	Established                   int // IKE SAs that are up now
	Datagrams, Sent, Retransmits  uint64
	Initiated, Accepted           uint64
	Cookies, Rejections, Bugs     uint64
	RekeysIKE, RekeysChild        uint64
	Dropped                       map[DropReason]uint64
}

// New makes an engine that speaks the versions given.
func New(cfg Config, versions ...Version) *Engine {
	e := &Engine{cfg: cfg.withDefaults(), peers: cfg.Peers,
		jobs: map[JobID]jobOwner{}, bySPI: map[uint64]*Env{}, byID: map[uint32]*Env{}, byChild: map[uint32]*Env{},
		firsts: map[firstKey]*Env{}, conns: map[string]*connection{}, bySource: map[netip.Addr]int{}}
	e.spent = spentTickets{}
	e.reserved = map[uint64]bool{}
	e.policies.init()
	e.espSPIs.bound(e.cfg.SPIMin, e.cfg.SPIMax)
	for i := range versions {
		e.versions[versions[i].Major&15] = &versions[i]
	}
	return e
}

func (c Config) withDefaults() Config {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	num := func(d *int, v int) {
		if *d == 0 {
			*d = v
		}
	}
	def(&c.Retransmit.Timeout, 4*time.Second)
	num(&c.Retransmit.Tries, 5)
	if c.Retransmit.Base < 1 {
		c.Retransmit.Base = 1.8
	}
	c.Retransmit.Jitter = min(max(c.Retransmit.Jitter, 0), 100)
	def(&c.HalfOpenTimeout, 30*time.Second)
	num(&c.CookieThreshold, 30)
	num(&c.CookieThresholdIP, 3)
	num(&c.BlockThreshold, 5)
	num(&c.InitLimit, limitHalfOpen)
	c.InitLimit = min(c.InitLimit, limitHalfOpen)
	num(&c.FragmentSize, 1280)
	for _, size := range []*int{&c.FragmentSize4, &c.FragmentSize6} {
		num(size, c.FragmentSize)
	}
	for _, size := range []*int{&c.FragmentSize, &c.FragmentSize4, &c.FragmentSize6} {
		*size = min(max(*size, minFragmentSize), maxPacket)
	}
	if c.MaxSAs == 0 || c.MaxSAs > limitSAs {
		c.MaxSAs = limitSAs
	}
	num(&c.MaxPacket, 10_000)
	c.MaxPacket = min(c.MaxPacket, maxPacket)
	def(&c.KeepAlive, 20*time.Second)
	def(&c.DeleteRekeyedDelay, 5*time.Second)
	if c.Port == 0 {
		c.Port = 500
	}
	if c.NATPort == 0 {
		c.NATPort = 4500
	}
	return c
}

// Datagram takes one IKE message from the network.
func (e *Engine) Datagram(now time.Time, d Datagram) {
	e.stats.Datagrams++
	e.datagram(now, d)
	e.settle(now)
}

func (e *Engine) datagram(now time.Time, d Datagram) {
	h, err := wire.ParseHeader(d.Data)
	if err == nil && h.SPIi == 0 && int(h.Length) == len(d.Data) && e.hinted(now, d, &h) {
		return
	}
	if err != nil || h.SPIi == 0 || int(h.Length) != len(d.Data) {
		e.drop(now, DropMalformed, d.Remote)
		return
	}
	v := e.versions[h.Version.Major]
	if v == nil {
		e.drop(now, DropVersion, d.Remote)
		e.refuseVersion(now, d, &h)
		return
	}
	if env := e.route(&h, d.Remote.Addr()); env != nil {
		if env.version != h.Version.Major {
			e.drop(now, DropVersion, d.Remote)
			return
		}
		e.guard(env, func() { env.sa.Datagram(now, d, h) })
		return
	}
	if ours := h.SPIr; h.FromInitiator() && e.answerAgain(now, ours, d) || !h.FromInitiator() && e.answerAgain(now, h.SPIi, d) {
		return
	}
	if h.SPIr != 0 || !v.First(&h) {
		if e.hinted(now, d, &h) {
			return
		}
		e.drop(now, DropUnknownSPI, d.Remote)
		e.lostSA(now, d, &h)
		return
	}
	switch {
	case e.shutdown:
		e.drop(now, DropShutdown, d.Remote)
	case e.cfg.InitiatorOnly:
		e.drop(now, DropInitiatorOnly, d.Remote)
	case e.bySPI[h.SPIi] != nil: // our own first message, sent back to us
		e.drop(now, DropUnexpected, d.Remote)
	case len(d.Data) > limitFirstMessage:
		e.drop(now, DropTooLarge, d.Remote)
	default:
		e.accept(now, v, d, &h)
	}
}

// route finds the IKE SA that a message is for: by our SPI, and for a peer's
// first message, which does not know ours, by the peer's SPI and address.
func (e *Engine) route(h *wire.Header, from netip.Addr) *Env {
	if h.Version.Major == 1 {
		return e.routeV1(h, from)
	}
	ours := h.SPIr
	if !h.FromInitiator() {
		ours = h.SPIi
	}
	if ours == 0 {
		return e.firsts[firstKey{h.SPIi, from}]
	}
	env := e.bySPI[ours]
	if env == nil || env.spiPeer != 0 && env.spiPeer != h.SPIi^h.SPIr^ours {
		return nil
	}
	return env
}

// routeV1 is route for IKEv1, whose header does not say which cookie is ours.
func (e *Engine) routeV1(h *wire.Header, from netip.Addr) *Env {
	if env := e.bySPI[h.SPIi]; env != nil && env.version == 1 && env.initiator && (env.spiPeer == 0 || env.spiPeer == h.SPIr) {
		return env
	}
	if h.SPIr == 0 {
		return e.firsts[firstKey{h.SPIi, from}]
	}
	if env := e.bySPI[h.SPIr]; env != nil && env.version == 1 && !env.initiator && env.spiPeer == h.SPIi {
		return env
	}
	return nil
}

// Wake runs every timer that is due.
func (e *Engine) Wake(now time.Time) {
	e.wakeDrops(now)
	for _, env := range e.timers.due(now) {
		if !env.gone {
			e.guard(env, func() { env.sa.Wake(now) })
			e.touch(env)
		}
	}
	e.wakeConnections(now)
	if e.shutdown && !e.shutdownDone && !now.Before(e.shutdownBy) {
		e.endShutdown()
	}
	e.settle(now)
}

// Done takes the answer to a Job. Answers for SAs that are gone are dropped.
func (e *Engine) Done(now time.Time, r Result) {
	owner, ok := e.jobs[r.Job]
	if !ok {
		return
	}
	delete(e.jobs, r.Job)
	switch {
	case owner.env != nil:
		if delete(owner.env.jobs, r.Job); len(owner.env.jobs) == 0 {
			owner.env.jobs = nil // most IKE SAs have none most of the time
		}
		e.guard(owner.env, func() { owner.env.sa.Done(now, r) })
	case owner.conn != nil:
		owner.conn.done(e, now, r)
	}
	e.settle(now)
}

// Dataplane takes an event of the data plane.
func (e *Engine) Dataplane(now time.Time, ev ipsec.Event) {
	var ref ipsec.SARef
	switch v := ev.(type) {
	case ipsec.Acquire:
		e.acquire(now, v)
	case ipsec.Orphan:
		e.orphan(now, v)
	case ipsec.Expire:
		ref = v.Ref
	case ipsec.MappingChange:
		ref = v.Ref
	}
	if env := e.byChild[ref.Child]; env != nil && !ref.IsZero() {
		e.guard(env, func() { env.sa.Dataplane(now, ev) })
	}
	e.settle(now)
}

// NextWake is when Wake must be called next; the zero time: no timer runs.
func (e *Engine) NextWake() time.Time {
	next := e.timers.next()
	sooner := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	sooner(e.dropWake)
	sooner(e.connWake())
	if e.shutdown && !e.shutdownDone {
		sooner(e.shutdownBy)
	}
	return next
}

// Take hands over the effects since the last call, in order.
func (e *Engine) Take() []Effect {
	out := e.effects
	e.effects = nil
	return out
}

// SAs is a snapshot of all IKE SAs, ordered by number.
func (e *Engine) SAs() []SAInfo {
	out := make([]SAInfo, 0, len(e.byID))
	for _, env := range e.ordered() {
		out = append(out, env.sa.Info())
	}
	return out
}

// Stats is a snapshot of the counters.
func (e *Engine) Stats() Stats {
	s := e.stats
	s.SAs, s.HalfOpen, s.Children, s.Jobs = len(e.byID), e.halfOpen, len(e.byChild), len(e.jobs)
	s.FragmentBytes = e.fragmentBytes
	s.Dropped = make(map[DropReason]uint64, dropReasons)
	for i := range e.drops {
		s.Dropped[DropReason(i)] = e.drops[i].total
	}
	return s
}

// ordered lists the IKE SAs by number, so that nothing depends on map order.
func (e *Engine) ordered() []*Env {
	out := make([]*Env, 0, len(e.byID))
	for _, env := range e.byID {
		out = append(out, env)
	}
	slices.SortFunc(out, func(a, b *Env) int { return int(int64(a.id) - int64(b.id)) })
	return out
}

func (e *Engine) effect(f Effect) { e.effects = append(e.effects, f) }
func (e *Engine) emit(ev Event) {
	if _, ok := ev.(*Rejection); ok {
		e.stats.Rejections++
	}
	e.effect(Emit{ev})
}

// guard runs one step of one SA. A panic is a bug of ours that must not take
// the other SAs along: the SA is dropped and Bug says where it was.
func (e *Engine) guard(env *Env, step func()) {
	defer func() {
		e.touch(env)
		v := recover()
		if v == nil {
			return
		}
		e.stats.Bugs++
		e.emit(Bug{SAKey: env.key(), Value: fmt.Sprint(v), Stack: debug.Stack()})
		env.crash()
	}()
	step()
}

func (e *Engine) touch(env *Env) {
	if !env.touched {
		env.touched = true
		e.touched = append(e.touched, env)
	}
}

// settle brings the timers up to date with what an input changed, and lets
// connections act on it, until nothing changes any more.
func (e *Engine) settle(now time.Time) {
	for len(e.touched) > 0 || len(e.dueConns) > 0 {
		for len(e.touched) > 0 {
			env := e.touched[0]
			e.touched = e.touched[1:]
			env.touched = false
			if env.gone || env.sa == nil {
				e.timers.set(env, time.Time{})
				continue
			}
			e.timers.set(env, env.sa.NextWake())
		}
		if len(e.dueConns) > 0 {
			c := e.dueConns[0]
			e.dueConns = e.dueConns[1:]
			c.queued = false
			c.review(e, now)
		}
	}
	e.touched, e.dueConns = e.touched[:0], e.dueConns[:0]
	if e.shutdown && !e.shutdownDone && len(e.byID) == 0 {
		e.endShutdown()
	}
}

func (e *Engine) endShutdown() {
	e.shutdownDone = true
	e.emit(ShutdownDone{})
}

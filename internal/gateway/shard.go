package gateway

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"adit/ike"
	"adit/ipsec"
)

// shard is the thread that owns one engine: it feeds inputs and applies effects.
// Completions have a queue as large as the jobs that can be outstanding, so a
// finished job never waits for the shard while the shard waits for the pool.
type shard struct {
	unsent unsent // why messages did not leave
	g      *Gateway
	engine *ike.Engine
	pulse  pulse

	first, established chan *ike.Datagram // pointers: the queues are long, and mostly empty
	commands           chan ike.Command
	acquires           chan ipsec.Event
	done               chan *outcome
	calls              chan func(*ike.Engine)
	expired            expiries
	known              spiSet
	ended              chan struct{} // closed when run has returned

	dropped, bugs atomic.Uint64
	outstanding   atomic.Int64
	firstBytes    atomic.Int64 // in the queue first
	leasing       atomic.Int64 // leases that are being written
	ready         []outcome    // answers to effects that were carried out at once
	leaving       bool         // Child SAs left the data plane in this step
}

// firstShare of the turns serve first messages although others wait: a flood of
// first messages must not delay the rest, nor the rest starve them.
const firstShare = 8

// overdue is how long the shard turns to other inputs when a timer stays due.
const overdue = time.Millisecond

func newShard(g *Gateway) *shard {
	cfg := engineConfig(g.opt.Daemon)
	cfg.ForceEncap, cfg.UnsafeExportKeys = g.opt.ForceEncap, g.opt.KeyLog != nil
	cfg.Workers = g.opt.Resources
	cfg.CrashSecret, cfg.TicketSecret = g.opt.CrashSecret, g.opt.TicketSecret
	s := &shard{
		g: g, engine: ike.New(cfg, g.opt.Versions...), ended: make(chan struct{}),
		first: make(chan *ike.Datagram, limitFirst), established: make(chan *ike.Datagram, limitEstablished),
		commands: make(chan ike.Command, limitCommands), acquires: make(chan ipsec.Event, limitAcquires),
		done: make(chan *outcome, limitJobs), calls: make(chan func(*ike.Engine)),
		expired: expiries{signal: make(chan struct{}, 1), pending: map[ipsec.SARef]bool{}},
	}
	s.pulse.init()
	return s
}

// datagram queues a message. What names no IKE SA of ours waits in a queue of its
// own, so that a flood of it cannot push out the messages of established peers.
func (s *shard) datagram(d ike.Datagram) {
	queue, size := s.first, int64(len(d.Data))
	if ours, ok := ourSPI(d.Data, true); ok && s.known.has(ours) {
		queue, size = s.established, 0
	}
	if len(queue) == cap(queue) || size > 0 && s.firstBytes.Load()+size > limitFirstBytes {
		s.dropped.Add(1)
		return
	}
	s.firstBytes.Add(size)
	kept := d
	kept.Data = append([]byte(nil), d.Data...)
	select {
	case queue <- &kept:
	default:
		s.firstBytes.Add(-size)
		s.dropped.Add(1)
	}
}

// deliver queues a command, and waits for room if there is none: commands are
// never lost. Only the end of ctx or of the gateway ends the wait.
func (s *shard) deliver(ctx context.Context, c ike.Command) error {
	closing := s.g.closing
	if _, ok := c.(ike.Shutdown); ok {
		closing = nil
	}
	select {
	case s.commands <- c:
		return nil
	case <-closing:
	case <-s.ended:
	case <-ctx.Done():
		return ctx.Err()
	}
	return ErrNotRunning
}

// dataplane takes an event of the data plane without blocking. Expiries are
// never lost (they are kept by SA); others may be: the data plane repeats them.
func (s *shard) dataplane(e ipsec.Event) {
	if x, ok := e.(ipsec.Expire); ok {
		s.expired.add(x)
		return
	}
	if x, ok := e.(ipsec.Inform); ok {
		s.g.informs.take(x)
		return
	}
	select {
	case s.acquires <- e:
	default:
	}
}

// call runs f on the shard's thread and waits for it.
func (s *shard) call(ctx context.Context, f func(*ike.Engine)) error {
	if !s.g.isRunning() {
		return ErrNotRunning
	}
	done := make(chan struct{})
	select {
	case s.calls <- func(e *ike.Engine) { defer close(done); f(e) }:
	case <-s.ended:
		return ErrNotRunning
	case <-ctx.Done():
		return ctx.Err()
	}
	<-done
	return nil
}

// run serves all inputs until ctx ends. Finished jobs go first, since they are
// bounded and free what they hold; timers are looked at every turn; then every
// other input has the same chance, except that first messages wait for the rest.
func (s *shard) run(ctx context.Context) {
	defer close(s.ended)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for turn := 0; ctx.Err() == nil; turn++ {
		s.wake(timer)
		if len(s.done) > 0 {
			s.finish(*<-s.done)
			continue
		}
		first := s.first
		if s.busy() && turn%firstShare != 0 || s.crowded() {
			first = nil
		}
		select {
		case <-ctx.Done():
		case c := <-s.done:
			s.finish(*c)
		case d := <-s.established:
			s.step(func(now time.Time) { s.engine.Datagram(now, *d) })
		case d := <-first:
			s.firstBytes.Add(-int64(len(d.Data)))
			s.step(func(now time.Time) { s.engine.Datagram(now, *d) })
		case c := <-s.commands:
			s.command(c)
		case e := <-s.acquires:
			s.event(e)
		case <-s.expired.signal:
			for _, x := range s.expired.take() {
				s.step(func(now time.Time) { s.engine.Dataplane(now, x) })
			}
		case <-s.pulse.asked:
			s.pulse.answer()
		case f := <-s.calls:
			s.safely(func() { f(s.engine) })
		case <-timer.C:
		}
	}
}

// busy reports whether something other than a first message waits.
func (s *shard) busy() bool {
	return len(s.established)+len(s.commands)+len(s.acquires)+len(s.expired.signal) > 0
}

// crowded reports whether those who were let in keep the gateway so busy that nobody
// new is to begin: each set-up has half a dozen jobs before it, and what was begun is
// worth more than what may begin. First messages wait meanwhile, in their queue or with
// their senders, who repeat them. What ends this are jobs that get done, of which the
// shard hears.
func (s *shard) crowded() bool {
	return s.g.pool.waiting() > crowdedJobs || s.leasing.Load() > crowdedLeases
}

// wake runs the timers that are due and arms the timer for the next.
func (s *shard) wake(timer *time.Timer) {
	at := s.engine.NextWake()
	if !at.IsZero() && time.Until(at) <= 0 {
		s.step(s.engine.Wake)
		if at = s.engine.NextWake(); !at.IsZero() {
			timer.Reset(max(time.Until(at), overdue))
			return
		}
	}
	if at.IsZero() {
		timer.Stop()
	} else {
		timer.Reset(time.Until(at))
	}
}

// command carries out a command. An initiation takes the configuration as it is
// now: it may have been reloaded since the command was queued.
func (s *shard) command(c ike.Command) {
	if i, ok := c.(ike.Initiate); ok {
		p, err := s.g.inv.find(i.Peer.Name, i.Child)
		if err != nil {
			s.g.bus.publish(ike.CommandDone{ID: i.ID, Err: err})
			return
		}
		i.Peer = p
		c = i
	}
	if !s.step(func(now time.Time) { s.engine.Do(now, c) }) {
		s.g.bus.publish(ike.CommandDone{ID: commandID(c), Err: errBug})
	}
}

func commandID(c ike.Command) ike.CommandID {
	switch c := c.(type) {
	case ike.Initiate:
		return c.ID
	case ike.Terminate:
		return c.ID
	case ike.Rekey:
		return c.ID
	case ike.Redirect:
		return c.ID
	}
	return 0
}

// event passes a data-plane event on. An acquire of a trap policy becomes an
// initiation, because only the gateway knows which connection the trap belongs to.
func (s *shard) event(e ipsec.Event) {
	if a, ok := e.(ipsec.Acquire); ok {
		if c, ok := s.g.inv.acquired(a); ok {
			s.command(c)
			return
		}
	}
	s.step(func(now time.Time) { s.engine.Dataplane(now, e) })
}

func (s *shard) finish(o outcome) {
	s.outstanding.Add(-1)
	s.step(func(now time.Time) { s.conclude(now, o) })
}

// conclude tells the engine how a job ended.
func (s *shard) conclude(now time.Time, o outcome) {
	if o.then != nil {
		err := errBug
		s.safely(func() { err = o.then(o.Err) })
		o.Err = err
	}
	s.engine.Done(now, o.Result)
}

// trapFirst sets the traps that the end of Child SAs leaves before their policies
// go: there is no moment without a guard.
func (s *shard) trapFirst(effects []ike.Effect) {
	for _, e := range effects {
		if e, ok := e.(ike.Emit); ok {
			if down, ok := e.Event.(ike.ChildDown); ok && down.Action&ike.ActionTrap != 0 {
				s.g.trap(staticKey{down.SA.Name, down.Child.Name})
			}
		}
	}
}

// step feeds one input and applies all that follows from it. It reports whether
// the input was taken without a panic.
func (s *shard) step(input func(now time.Time)) bool {
	ok := s.safely(func() { input(time.Now()) })
	defer func() {
		if s.leaving {
			s.leaving = false
			s.g.departed.forget()
		}
	}()
	for {
		effects := s.engine.Take()
		s.safely(func() { s.trapFirst(effects) })
		s.carryOutAll(effects)
		if len(s.ready) == 0 && len(effects) == 0 {
			return ok
		}
		ready := s.ready
		s.ready = nil
		for _, o := range ready {
			s.safely(func() { s.conclude(time.Now(), o) })
		}
	}
}

// carryOutAll applies effects in their order, but addresses are free before the
// answer to a DELETE leaves: whoever gets it, counts on that.
func (s *shard) carryOutAll(effects []ike.Effect) {
	for _, e := range effects {
		if _, ok := e.(ike.ReleaseLease); ok {
			s.carryOut(e)
		}
	}
	for _, e := range effects {
		if _, ok := e.(ike.ReleaseLease); !ok {
			s.carryOut(e)
		}
	}
}

// carryOut applies one effect. If that panics the effect fails, not the gateway.
func (s *shard) carryOut(e ike.Effect) {
	if s.safely(func() { s.apply(e) }) {
		return
	}
	switch e := e.(type) {
	case ike.InstallChild:
		s.safely(func() { s.remove(e.In.Ref.Child, s.g.inv.policiesOf(e.In.Ref.Child)) })
		s.ready = append(s.ready, outcome{Result: ike.Result{Job: e.Job, Err: errBug}})
	case ike.QueryChild:
		s.ready = append(s.ready, outcome{Result: ike.Result{Job: e.Job, Err: errBug}})
	case ike.Compute:
		s.ready = append(s.ready, outcome{Result: ike.Result{Job: e.Job, Err: errBug}})
	case ike.Ask:
		s.ready = append(s.ready, outcome{Result: ike.Result{Job: e.Job, Err: errBug}})
	}
}

// safely runs one piece of work. A panic in it is a bug of ours; it ends that piece
// of work, is counted and told, and the gateway goes on. The engine itself isolates
// the IKE SAs from each other; this is for what lies around them.
func (s *shard) safely(work func()) (ok bool) {
	defer func() {
		if v := recover(); v != nil {
			s.bugs.Add(1)
			s.g.bus.publish(ike.Bug{Value: fmt.Sprint(v), Stack: debug.Stack()})
		}
	}()
	work()
	return true
}

// expiries keeps the expiries that wait, one or two an SA: nothing is lost however
// many come, and what waits is bounded by the SAs that exist.
type expiries struct {
	mu      sync.Mutex
	pending map[ipsec.SARef]bool // true: hard
	order   []ipsec.SARef
	signal  chan struct{}
}

func (q *expiries) add(x ipsec.Expire) {
	q.mu.Lock()
	hard, known := q.pending[x.Ref]
	if !known {
		q.order = append(q.order, x.Ref)
	}
	q.pending[x.Ref] = hard || x.Hard
	q.mu.Unlock()
	select {
	case q.signal <- struct{}{}:
	default:
	}
}

func (q *expiries) take() []ipsec.Expire {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := make([]ipsec.Expire, 0, len(q.order))
	for _, ref := range q.order {
		out = append(out, ipsec.Expire{Ref: ref, Hard: q.pending[ref]})
		delete(q.pending, ref)
	}
	q.order = q.order[:0]
	return out
}

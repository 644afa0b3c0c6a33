package gateway

import (
	"context"
	"encoding/binary"
	"errors"
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
	g      *Gateway
	engine *ike.Engine

	first, established chan ike.Datagram
	commands           chan ike.Command
	acquires           chan ipsec.Event
	done               chan ike.Result
	calls              chan func(*ike.Engine)
	expired            expiries

	dropped     atomic.Uint64
	outstanding atomic.Int64
	ready       []ike.Result // answers to effects that were carried out at once
}

func newShard(g *Gateway) *shard {
	d := g.opt.Daemon
	cfg := ike.Config{
		Retransmit: d.Retransmit, HalfOpenTimeout: d.HalfOpenTimeout,
		CookieThreshold: d.CookieThreshold, CookieThresholdIP: d.CookieThresholdIP,
		BlockThreshold: d.BlockThreshold, InitLimit: d.InitLimit,
		KeepAlive: d.KeepAlive, DeleteRekeyedDelay: d.DeleteRekeyedDelay, RetryInitiate: d.RetryInitiate,
		ForceEncap: g.opt.ForceEncap, BreakBeforeMake: d.BreakBeforeMake,
		UnsafeExportKeys: g.opt.KeyLog != nil, Port: d.Port, NATPort: d.NATPort,
	}
	return &shard{
		g: g, engine: ike.New(cfg, g.opt.Versions...),
		first: make(chan ike.Datagram, limitFirst), established: make(chan ike.Datagram, limitEstablished),
		commands: make(chan ike.Command, limitCommands), acquires: make(chan ipsec.Event, limitAcquires),
		done: make(chan ike.Result, limitJobs), calls: make(chan func(*ike.Engine)),
		expired: expiries{signal: make(chan struct{}, 1), pending: map[ipsec.SARef]bool{}},
	}
}

// datagram queues a message: peers without an SPI of ours wait in their own
// queue, so that a flood of first messages cannot push out established peers.
func (s *shard) datagram(d ike.Datagram) {
	queue := s.established
	if len(d.Data) < 16 || binary.BigEndian.Uint64(d.Data[8:16]) == 0 {
		queue = s.first
	}
	if len(queue) == cap(queue) {
		s.dropped.Add(1)
		return
	}
	d.Data = append([]byte(nil), d.Data...)
	select {
	case queue <- d:
	default:
		s.dropped.Add(1)
	}
}

func (s *shard) command(c ike.Command) bool {
	select {
	case s.commands <- c:
		return true
	default:
		return false
	}
}

// dataplane takes an event of the data plane without blocking. Expiries are
// never lost (they are kept by SA); acquires may be: the data plane repeats them.
func (s *shard) dataplane(e ipsec.Event) {
	if x, ok := e.(ipsec.Expire); ok {
		s.expired.add(x)
		return
	}
	select {
	case s.acquires <- e:
	default:
	}
}

// call runs f on the shard's thread and waits for it.
func (s *shard) call(ctx context.Context, f func(*ike.Engine)) error {
	done := make(chan struct{})
	select {
	case s.calls <- func(e *ike.Engine) { f(e); close(done) }:
	case <-s.g.down:
		return errors.New("the gateway is shutting down")
	case <-ctx.Done():
		return ctx.Err()
	}
	<-done
	return nil
}

func (s *shard) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		if at := s.engine.NextWake(); at.IsZero() {
			timer.Reset(time.Hour)
		} else {
			timer.Reset(time.Until(at))
		}
		// Completions and the messages of known peers come before first messages.
		select {
		case r := <-s.done:
			s.finish(r)
			continue
		case d := <-s.established:
			s.step(func(now time.Time) { s.engine.Datagram(now, d) })
			continue
		default:
		}
		select {
		case <-ctx.Done():
			return
		case r := <-s.done:
			s.finish(r)
		case d := <-s.established:
			s.step(func(now time.Time) { s.engine.Datagram(now, d) })
		case d := <-s.first:
			s.step(func(now time.Time) { s.engine.Datagram(now, d) })
		case c := <-s.commands:
			s.step(func(now time.Time) { s.engine.Do(now, c) })
		case e := <-s.acquires:
			s.event(e)
		case <-s.expired.signal:
			for _, x := range s.expired.take() {
				s.step(func(now time.Time) { s.engine.Dataplane(now, x) })
			}
		case f := <-s.calls:
			f(s.engine)
		case <-timer.C:
			s.step(s.engine.Wake)
		}
	}
}

// event passes a data-plane event on. An acquire of a trap policy becomes an
// initiation, because only the gateway knows which connection the trap belongs to.
func (s *shard) event(e ipsec.Event) {
	if a, ok := e.(ipsec.Acquire); ok {
		if c, ok := s.g.inv.acquired(a); ok {
			s.step(func(now time.Time) { s.engine.Do(now, c) })
			return
		}
	}
	s.step(func(now time.Time) { s.engine.Dataplane(now, e) })
}

func (s *shard) finish(r ike.Result) {
	s.outstanding.Add(-1)
	s.step(func(now time.Time) { s.engine.Done(now, r) })
}

// step feeds one input and applies all that follows from it.
func (s *shard) step(input func(now time.Time)) {
	input(time.Now())
	for {
		effects := s.engine.Take()
		for _, e := range effects {
			s.apply(e)
		}
		if len(s.ready) == 0 && len(effects) == 0 {
			return
		}
		ready := s.ready
		s.ready = nil
		for _, r := range ready {
			s.engine.Done(time.Now(), r)
		}
	}
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

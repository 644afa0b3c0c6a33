package gateway

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// pool runs computations on at most cores − 1 threads, and questions to the
// outside on threads of their own, both bounded: what does not fit waits in a queue
// with room for every job that the shard may have outstanding, and is refused beyond
// that. A refused job ends its set-up for good, while clients repeat a first message
// that got no answer: whoever is overrun takes no new ones (crowded) and refuses
// nobody who was let in. A panic in a job ends that job only.
type pool struct {
	size  int
	jobs  chan func()
	busy  atomic.Int64
	since []atomic.Int64  // by thread: when its job began, in Unix nanoseconds; 0: idle
	ctx   context.Context // of the questions; set by start
	under sync.WaitGroup  // questions under way

	outside, leases askers // apart, so that a dead RADIUS server holds up no lease
}

// askers are questions of one kind.
type askers struct {
	mu    sync.Mutex
	n     int      // under way
	queue []func() // that wait until fewer are
}

func newPool(size int) *pool {
	return &pool{size: size, since: make([]atomic.Int64, size), jobs: make(chan func(), limitJobs), ctx: context.Background()}
}

// run works until ctx ends and every question under way has ended.
func (p *pool) run(ctx context.Context) {
	var wg sync.WaitGroup
	for i := range p.size {
		wg.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case job := <-p.jobs:
					p.busy.Add(1)
					p.since[i].Store(time.Now().UnixNano())
					job()
					p.since[i].Store(0)
					p.busy.Add(-1)
				}
			}
		})
	}
	wg.Wait()
}

func (p *pool) waiting() int { return len(p.jobs) }

func (p *pool) submit(job func(), failed func(error)) bool {
	select {
	case p.jobs <- func() { guarded(job, failed) }:
		return true
	default:
		return false
	}
}

// ask runs a question on a thread of its own, as soon as there are few enough of its
// kind. The question ends early with the pool's context.
func (p *pool) ask(kind *askers, job func(context.Context), failed func(error)) bool {
	run := func() { guarded(func() { job(p.ctx) }, failed) }
	kind.mu.Lock()
	defer kind.mu.Unlock()
	switch {
	case kind.n < limitAsks:
		kind.n++
		p.under.Go(func() { kind.answer(run) })
	case len(kind.queue) < limitJobs:
		kind.queue = append(kind.queue, run)
	default:
		return false
	}
	return true
}

// answer runs a question, and after it those that wait.
func (k *askers) answer(run func()) {
	for run != nil {
		run()
		k.mu.Lock()
		if run = nil; len(k.queue) > 0 {
			run, k.queue[0] = k.queue[0], nil
			k.queue = k.queue[1:]
		} else {
			k.n--
		}
		k.mu.Unlock()
	}
}

func guarded(job func(), failed func(error)) {
	defer func() {
		if v := recover(); v != nil {
			failed(fmt.Errorf("%w: %v", errBug, v))
		}
	}()
	job()
}

func systemResolver(ctx context.Context, host string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

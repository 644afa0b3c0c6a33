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
// outside on threads of their own, both bounded: what does not fit is refused,
// never waited for. A panic in a job ends that job only.
type pool struct {
	size  int
	jobs  chan func()
	busy  atomic.Int64
	since []atomic.Int64  // by thread: when its job began, in Unix nanoseconds; 0: idle
	asks  chan struct{}   // a token for every question under way
	ctx   context.Context // of the questions; set by start
	under sync.WaitGroup  // questions under way
}

func newPool(size int) *pool {
	return &pool{size: size, since: make([]atomic.Int64, size), jobs: make(chan func(), limitComputes), asks: make(chan struct{}, limitAsks), ctx: context.Background()}
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

// ask runs a question on a thread of its own. The question ends early with the pool's context.
func (p *pool) ask(job func(context.Context), failed func(error)) bool {
	select {
	case p.asks <- struct{}{}:
		p.under.Go(func() {
			defer func() { <-p.asks }()
			guarded(func() { job(p.ctx) }, failed)
		})
		return true
	default:
		return false
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

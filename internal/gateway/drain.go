package gateway

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"adit/ike"
)

// Drain says how a gateway is emptied for maintenance: new peers are refused, by
// REDIRECT where they can be redirected, and those that are there are sent to To.
type Drain struct {
	To ike.RedirectTarget // zero: nobody is redirected
	// Rate is how many peers a second are told, 0: 20.
	Rate int
	// Close deletes the IKE SAs of peers that cannot be redirected.
	Close bool
}

// DrainState is how far it has come.
type DrainState struct {
	On    bool
	To    ike.RedirectTarget
	Since time.Time
	// Found peers there were, Told of them were redirected, Closed deleted, Stay cannot
	// be redirected, Waiting have not had their turn.
	Found, Told, Closed, Stay, Waiting int
	// Left is how many established IKE SAs of peers there are now, Own how many more
	// this gateway has begun itself: those are not touched.
	Left, Own int
}

// draining is the state and what ends the work at it.
type draining struct {
	mu     sync.Mutex
	state  DrainState
	cancel context.CancelFunc
}

const (
	drainRate      = 20
	limitDrainRate = 1000
)

// Drain begins to empty the gateway, or goes on with other settings.
func (g *Gateway) Drain(ctx context.Context, d Drain) error {
	if d.Rate == 0 {
		d.Rate = drainRate
	}
	switch {
	case d.Rate < 0 || d.Rate > limitDrainRate:
		return fmt.Errorf("a rate of %d peers a second is not from 1 to %d", d.Rate, limitDrainRate)
	case g.isOurs(d.To):
		return errors.New(d.To.String() + " is this gateway itself")
	}
	if err := g.shard.deliver(ctx, ike.Drain{On: true, To: d.To}); err != nil {
		return err
	}
	var ids []uint32
	if err := g.shard.call(ctx, func(e *ike.Engine) { ids = e.Clients() }); err != nil {
		return err
	}
	run, cancel := context.WithCancel(g.pool.ctx)
	g.drain.mu.Lock()
	if g.drain.cancel != nil {
		g.drain.cancel()
	}
	g.drain.cancel = cancel
	g.drain.state = DrainState{On: true, To: d.To, Since: time.Now(), Found: len(ids), Waiting: len(ids)}
	g.drain.mu.Unlock()
	g.shards.Go(func() { g.sendAway(run, d, ids) })
	return nil
}

// Undrain takes new peers again, and sends no more away.
func (g *Gateway) Undrain(ctx context.Context) error {
	g.drain.mu.Lock()
	if g.drain.cancel != nil {
		g.drain.cancel()
	}
	g.drain.cancel, g.drain.state = nil, DrainState{}
	g.drain.mu.Unlock()
	return g.shard.deliver(ctx, ike.Drain{})
}

// DrainState tells how the draining stands.
func (g *Gateway) DrainState(ctx context.Context) (DrainState, error) {
	g.drain.mu.Lock()
	st := g.drain.state
	g.drain.mu.Unlock()
	err := g.shard.call(ctx, func(e *ike.Engine) {
		st.Left = len(e.Clients())
		st.Own = e.Stats().Established - st.Left
	})
	return st, err
}

// isOurs reports whether the address is one of this host's.
func (g *Gateway) isOurs(to ike.RedirectTarget) bool {
	if !to.Addr.IsValid() {
		return false
	}
	src, err := g.opt.Transport.SourceFor(to.Addr)
	return err == nil && src.Unmap() == to.Addr.Unmap()
}

// sendAway tells one peer after the other, in the given rate.
func (g *Gateway) sendAway(ctx context.Context, d Drain, ids []uint32) {
	tick := time.NewTicker(time.Second / time.Duration(d.Rate))
	defer tick.Stop()
	for _, id := range ids {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		told, closed := false, false
		if d.To.IsSet() {
			n, err := g.Redirect(ctx, ike.Redirect{IKEID: id, Gateway: d.To})
			told = n > 0 && err == nil
		}
		if !told && d.Close {
			closed = true
			// Its end is not waited for: a peer that is dead must not hold up the others.
			if err := g.shard.deliver(ctx, ike.Terminate{IKEID: id}); err != nil {
				return
			}
		}
		g.drain.mu.Lock()
		if ctx.Err() == nil {
			st := &g.drain.state
			st.Waiting--
			switch {
			case told:
				st.Told++
			case closed:
				st.Closed++
			default:
				st.Stay++
			}
		}
		g.drain.mu.Unlock()
	}
}

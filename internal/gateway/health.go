package gateway

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"adit/ike"
	"adit/internal/config"
)

// Part is one thread of the gateway and how long it has not answered.
type Part struct {
	Name string // engine-0, log, host, pool-1, plane-0 …
	// Silent is how long the part has owed an answer, or has been at one piece of work;
	// 0 when it answered the last time it was asked.
	Silent time.Duration
	// Patience is how long it may be silent; 0: SilentAfter.
	Patience time.Duration
}

// SilentAfter is when a part that has not answered counts as stalled. Work that is
// meant to be done on these threads takes milliseconds.
const SilentAfter = 10 * time.Second

// OK reports whether the part answers.
func (p Part) OK() bool {
	if p.Patience > 0 {
		return p.Silent < p.Patience
	}
	return p.Silent < SilentAfter
}

// hostPatience is for the kernel to take the routes and the packet filter of tens of
// thousands of policies at once.
const hostPatience = time.Minute

// Healthy reports whether there are parts and all of them answer.
func Healthy(parts []Part) bool {
	return len(parts) > 0 && !slices.ContainsFunc(parts, func(p Part) bool { return !p.OK() })
}

// healthTick is how often the parts are asked.
const healthTick = time.Second

// pulse is a part's end of being asked: its thread serves asked and calls answer.
type pulse struct {
	asked chan struct{} // room for one question
	since atomic.Int64  // when the question that is not answered was put, 0: none
}

func (p *pulse) init() { p.asked = make(chan struct{}, 1) }

func (p *pulse) ask(now time.Time) {
	if p.since.CompareAndSwap(0, now.UnixNano()) {
		select {
		case p.asked <- struct{}{}:
		default: // the thread is about to take the last one
		}
	}
}

func (p *pulse) answer() { p.since.Store(0) }

func (p *pulse) silent(now time.Time) time.Duration { return silence(p.since.Load(), now) }

// silence is how long it is since a moment in Unix nanoseconds, 0: never.
func silence(since int64, now time.Time) time.Duration {
	if since == 0 {
		return 0
	}
	return max(0, now.Sub(time.Unix(0, since)))
}

// health asks every thread that owns something whether it still turns.
type health struct {
	g       *Gateway
	running atomic.Bool
	last    atomic.Int64 // when the parts were asked the last time
}

// run asks until ctx ends.
func (h *health) run(ctx context.Context) {
	tick := time.NewTicker(healthTick)
	defer tick.Stop()
	defer h.running.Store(false)
	h.last.Store(time.Now().UnixNano())
	h.running.Store(true)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			now := time.Now()
			h.last.Store(now.UnixNano())
			for _, p := range []*pulse{&h.g.shard.pulse, &h.g.host.pulse, &h.g.logs.pulse} {
				p.ask(now)
			}
		}
	}
}

// Health tells of every thread of the running gateway how long it has been silent:
// the engine's, the host's, the log's, those of the job pool, and what
// Options.Workers names. Nil while the gateway does not run.
func (g *Gateway) Health() []Part {
	if !g.health.running.Load() {
		return nil
	}
	now := time.Now()
	parts := []Part{{Name: "engine-0", Silent: g.shard.pulse.silent(now)}, {Name: "log", Silent: g.logs.pulse.silent(now)},
		{Name: "host", Silent: g.host.pulse.silent(now), Patience: hostPatience}}
	for i := range g.pool.since {
		parts = append(parts, Part{Name: fmt.Sprintf("pool-%d", i), Silent: silence(g.pool.since[i].Load(), now)})
	}
	// Whoever asks must turn, too: else nobody would notice that nobody asks.
	if d := silence(g.health.last.Load(), now); d > 2*healthTick {
		parts = append(parts, Part{Name: "health", Silent: d})
	}
	if g.opt.Workers != nil {
		parts = append(parts, g.opt.Workers(now)...)
	}
	return parts
}

// Retune takes over those settings of strongswan.conf that can change while the
// gateway runs. What the settings are the default of in connections counts when those
// are loaded.
func (g *Gateway) Retune(ctx context.Context, d config.Daemon) error {
	cfg := engineConfig(d)
	return g.shard.call(ctx, func(e *ike.Engine) { e.Retune(cfg) })
}

// engineConfig is what of the settings the engine goes by.
func engineConfig(d config.Daemon) ike.Config {
	return ike.Config{
		Retransmit: d.Retransmit, HalfOpenTimeout: d.HalfOpenTimeout,
		CookieThreshold: d.CookieThreshold, CookieThresholdIP: d.CookieThresholdIP,
		BlockThreshold: d.BlockThreshold, InitLimit: d.InitLimit,
		FragmentSize: d.FragmentSize, MaxPacket: d.MaxPacket, NoSignatureAuth: d.NoSignatureAuth, FullTranscript: !d.NoFullTranscript,
		KeepAlive: d.KeepAlive, DeleteRekeyedDelay: d.DeleteRekeyedDelay, RetryInitiate: d.RetryInitiate,
		FragmentSize4: d.FragmentSize4, FragmentSize6: d.FragmentSize6, Habits: d.Habits,
		BreakBeforeMake: d.BreakBeforeMake, Port: d.Port, NATPort: d.NATPort,
	}
}

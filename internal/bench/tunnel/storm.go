package tunnel

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	cost "adit/internal/bench"
	"adit/internal/bench/traffic"
)

const (
	// manySAs is how many set-ups a storm makes at the right gateway, and stormParallel
	// how many are under way at any time.
	manySAs       = 10_000
	manySAsQuick  = 1000
	stormParallel = 64
)

// storms reports whether a measurement that was chosen needs a storm.
func (o *Options) storms() bool {
	return slices.ContainsFunc(o.chosen, func(m measure) bool { return m.storm })
}

// settings are those of strongswan.conf: a storm needs the defences against one out of
// the way, and a flood is to meet them.
func (o *Options) settings() string {
	if slices.ContainsFunc(o.chosen, func(m measure) bool { return m.storm && m.name != "rss_flood" }) {
		return cost.Settings
	}
	return ""
}

// besideSetups pings through the tunnel while set-ups are made at one of its gateways.
func (b *bench) besideSetups(ctx context.Context, s *Sample) error {
	if b.many {
		return fmt.Errorf("there are %d SAs already", manySAs)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := b.begin(ctx)
	if err := pause(ctx, b.warm()); err != nil {
		return err
	}
	p, err := b.left.Ping(ctx, traffic.Ping{To: netip.AddrPortFrom(b.lab.R.Host4, portEcho), For: b.o.Length, Pause: loadedPause})
	if err != nil {
		return err
	}
	whole := len(done) == 0
	o := <-done
	switch {
	case o.err != nil:
		return o.err
	case !whole && !b.o.Quick:
		return fmt.Errorf("the storm ended after %d set-ups, before the measurement", o.up)
	}
	s.Values["setups_s"] = float64(o.up) / o.seconds
	return s.trips(p)
}

// amongMany measures once the right gateway has many SAs, of which one carries packets.
func (b *bench) amongMany(ctx context.Context, do func() error) error {
	if !b.many {
		if o := <-b.begin(ctx); o.err != nil {
			return o.err
		}
	}
	return do()
}

// outcome is how a storm ended.
type outcome struct {
	up      int
	seconds float64
	err     error
}

// begin begins the set-ups.
func (b *bench) begin(ctx context.Context) <-chan outcome {
	done, n := make(chan outcome, 1), manySAs
	if b.o.Quick {
		n = manySAsQuick
	}
	b.many = true
	if err := b.run.storm.Begin(b.lab, n, stormParallel); err != nil {
		done <- outcome{err: err}
		return done
	}
	go func() {
		start := time.Now()
		err := b.run.storm.Run(ctx)
		done <- outcome{b.run.storm.Up(), time.Since(start).Seconds(), err}
	}()
	return done
}

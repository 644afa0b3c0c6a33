package hostnet

import (
	"context"
	"time"

	"golang.org/x/sys/unix"
)

// sleepStep is how often Slept looks, and how far the clocks must have come apart.
const sleepStep = 2 * time.Second

// Slept calls then with how long the host was suspended, each time that it wakes up,
// until ctx ends: CLOCK_BOOTTIME goes on in a suspended host and CLOCK_MONOTONIC, by which
// all timers of a Go program run, does not.
func Slept(ctx context.Context, then func(time.Duration)) {
	slept(ctx, sleepStep, asleep, then)
}

func slept(ctx context.Context, step time.Duration, asleep func() time.Duration, then func(time.Duration)) {
	last := asleep()
	tick := time.NewTicker(step)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := asleep()
		if d := now - last; d >= sleepStep {
			then(d)
		}
		last = now
	}
}

// asleep is how long the host has been suspended since it started, in all.
func asleep() time.Duration {
	var boot, awake unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &awake) != nil || unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot) != nil {
		return 0
	}
	return time.Duration(boot.Nano() - awake.Nano())
}

package hostnet

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestSlept(t *testing.T) {
	if d := asleep(); d < 0 {
		t.Errorf("asleep for %v", d)
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var total atomic.Int64
		var told []time.Duration
		done := make(chan struct{})
		go func() {
			defer close(done)
			slept(ctx, sleepStep, func() time.Duration { return time.Duration(total.Load()) }, func(d time.Duration) { told = append(told, d) })
		}()
		synctest.Wait()
		for _, d := range []time.Duration{0, time.Millisecond, 8 * time.Hour, 0, time.Second, 3 * time.Second} {
			total.Add(int64(d))
			time.Sleep(sleepStep)
			synctest.Wait()
		}
		cancel()
		<-done
		if len(told) != 2 || told[0] != 8*time.Hour || told[1] != 3*time.Second {
			t.Errorf("told %v", told)
		}
	})
}

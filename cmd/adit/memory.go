package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// heapGrowth is GOGC where the environment does not set it: the heap grows by a third
// of what lives before the collector runs. At Go's 100 the garbage of thousands of
// set-ups leaves many more holes between what stays of them; the price is some of
// the collector's time in each set-up (docs/bench.md has figures).
const heapGrowth = 35

// While thousands of peers connect the heap grows, and then nothing happens for a
// long time: a gateway whose tunnels stand allocates next to nothing, so that the
// garbage of the storm and the room for it would stay. returnMemory collects once
// when it is over and gives the pages back.
const (
	memoryTick  = time.Second
	memoryQuiet = 512 << 10 // bytes allocated in a tick: less is no storm
	memoryCalm  = 2         // ticks in a row
	memoryWorth = 4 << 20   // bytes allocated since the last time, at least
)

func returnMemory(ctx context.Context) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(heapGrowth)
	}
	tick := time.NewTicker(memoryTick)
	defer tick.Stop()
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}}
	var last, done uint64
	for calm := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		metrics.Read(sample)
		now, live := sample[0].Value.Uint64(), sample[1].Value.Uint64()
		if calm++; now-last > memoryQuiet {
			calm = 0
		}
		last = now
		if calm >= memoryCalm && now-done > max(memoryWorth, live/8) {
			debug.FreeOSMemory()
			metrics.Read(sample[:1])
			last = sample[0].Value.Uint64()
			done, calm = last, 0
		}
	}
}

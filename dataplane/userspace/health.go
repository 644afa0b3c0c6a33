package userspace

import (
	"sync/atomic"
	"time"
)

// beat tells when a worker began the batch that it is at. Workers that only tests
// drive have none.
type beat struct {
	name  string
	since atomic.Int64 // Unix nanoseconds, 0: it waits for packets
}

func (b *beat) begin(now time.Time) {
	if b != nil {
		b.since.Store(now.UnixNano())
	}
}

func (b *beat) end() {
	if b != nil {
		b.since.Store(0)
	}
}

// newBeat is called with p.mu held.
func (p *Plane) newBeat(name string) *beat {
	b := &beat{name: name}
	p.beats = append(p.beats, b)
	return b
}

// Worker is a thread of the data plane and how long it has been at one batch of
// packets; 0: it waits for packets, which is its answer that it is well.
type Worker struct {
	Name string // plane-0, plane-timer …
	Busy time.Duration
}

// Workers tells of all threads of a started data plane. It waits for no packet and
// for no lock that a stuck call could hold for long: then it tells of that instead.
func (p *Plane) Workers(now time.Time) []Worker {
	if !p.mu.TryLock() {
		// Calls that change something hold it for microseconds; try again for a moment.
		for i := 0; ; i++ {
			time.Sleep(time.Millisecond)
			if p.mu.TryLock() {
				break
			}
			if i == 20 {
				p.stuck.CompareAndSwap(0, now.UnixNano())
				return []Worker{{"plane-lock", max(0, now.Sub(time.Unix(0, p.stuck.Load())))}}
			}
		}
	}
	p.stuck.Store(0)
	beats := p.beats
	p.mu.Unlock()
	out := make([]Worker, len(beats))
	for i, b := range beats {
		out[i].Name = b.name
		if since := b.since.Load(); since != 0 {
			out[i].Busy = max(0, now.Sub(time.Unix(0, since)))
		}
	}
	return out
}

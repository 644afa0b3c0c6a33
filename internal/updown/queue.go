package updown

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"adit/ike"
)

// queue appends a call to its lane and sees to a worker.
func (r *Runner) queue(in *instance, isUp bool) {
	l := r.lanes[in.lane]
	if l == nil {
		l = &lane{key: in.lane}
		r.lanes[in.lane] = l
		r.ready = append(r.ready, l)
	}
	l.calls = append(l.calls, call{in, isUp, in.sa})
	r.waiting++
	if r.workers < min(r.opt.AtOnce, len(r.lanes)) {
		r.workers++
		go r.work()
	}
}

// work runs calls until none is left.
func (r *Runner) work() {
	for {
		r.mu.Lock()
		if len(r.ready) == 0 {
			r.workers--
			if r.workers == 0 {
				select {
				case r.idle <- struct{}{}:
				default:
				}
			}
			r.mu.Unlock()
			return
		}
		l := r.ready[0]
		r.ready = r.ready[1:]
		c := l.calls[0]
		l.calls = l.calls[1:]
		r.waiting--
		run := !c.dropped
		if run && r.ctx.Err() != nil {
			run = false
			r.lost++
		}
		c.started = c.started || run
		missed := 0
		if r.waiting < r.opt.Waiting/2 {
			missed, r.refused = r.refused, 0
		}
		r.mu.Unlock()

		if missed > 0 {
			r.opt.Report(ike.Note{Level: 1, Text: fmt.Sprintf("updown: there is room again; the command was not run for %d Child SAs", missed)})
		}
		if run {
			r.call(c)
		}
		r.mu.Lock()
		if len(l.calls) > 0 {
			r.ready = append(r.ready, l)
		} else {
			delete(r.lanes, l.key)
		}
		r.mu.Unlock()
	}
}

// call runs the command once for every pair. That one fails does not keep the others
// from running: their down will be.
func (r *Runner) call(c call) {
	if c.isUp {
		if r.opt.Device != nil {
			c.device = r.opt.Device(c.up.Local.Addr(), c.up.Remote.Addr())
		}
		if c.device == "" {
			c.device = interfaceOf(c.up.Local.Addr())
		}
	}
	if !c.isUp {
		for _, p := range c.pairs[:c.ran] {
			r.once(c, p)
		}
		return
	}
	for _, p := range c.pairs {
		if r.ups.Err() != nil {
			return // the gateway ends
		}
		c.ran++
		r.once(c, p)
	}
}

func (r *Runner) once(c call, p pair) {
	say := func(level int, format string, a ...any) {
		r.opt.Report(note(c.sa, c.child, level, "updown: "+fmt.Sprintf(format, a...)))
	}
	defer func() {
		if v := recover(); v != nil {
			say(1, "internal error: %v", v)
		}
	}()
	what := verb(c, p)
	lines := 0
	began := time.Now()
	within := r.ctx
	if c.isUp {
		within = r.ups
	}
	ctx, stop := context.WithTimeout(within, r.opt.Timeout)
	defer stop()
	err := r.opt.Run(ctx, c.command, environment(c, p), func(s string) {
		if lines++; lines <= limitLines {
			say(1, "%s", printable(s))
		}
	})
	if lines > limitLines {
		say(1, "%d further lines were left out", lines-limitLines)
	}
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded) && err != nil:
		say(1, "%s was killed: it took longer than %v", what, r.opt.Timeout)
	case ctx.Err() != nil && err != nil:
		say(1, "%s was killed: the gateway ends", what)
	case err != nil:
		say(1, "%s failed: %v", what, err)
	default:
		say(2, "%s took %v", what, time.Since(began).Round(time.Millisecond))
	}
}

// Close runs the down of everything whose up was run, waits for it within a bound, and
// ends. Ups that still wait are not run, and neither is their down; those that run for
// half of that time are killed, so that their down has the other half. Events that
// come later are ignored; a second call does nothing.
func (r *Runner) Close() {
	r.mu.Lock()
	if r.closing {
		r.mu.Unlock()
		return
	}
	r.closing = true
	for _, l := range r.lanes {
		for _, c := range l.calls {
			if c.isUp && !c.started {
				c.dropped = true
			}
		}
	}
	for _, in := range r.sorted() {
		r.goesDown(in)
	}
	r.mu.Unlock()

	limit := time.NewTimer(r.opt.Drain)
	defer limit.Stop()
	defer time.AfterFunc(r.opt.Drain/2, r.cancelUps).Stop()
	for stopped := false; ; {
		r.mu.Lock()
		done := r.workers == 0
		r.mu.Unlock()
		if done {
			break
		}
		expired := limit.C
		if stopped {
			expired = nil // what runs is being killed
		}
		select {
		case <-r.idle:
		case <-expired:
			stopped = true
			r.cancel()
		}
	}
	r.cancel()
	if r.lost > 0 {
		r.opt.Report(ike.Note{Level: 1, Text: fmt.Sprintf("updown: the gateway ends, and %d calls were not run: the commands are too slow", r.lost)})
	}
}

// sorted are all instances in the order of their Child SAs' numbers.
func (r *Runner) sorted() []*instance {
	out := make([]*instance, 0, len(r.children))
	for _, in := range r.children {
		out = append(out, in)
	}
	slices.SortFunc(out, func(a, b *instance) int { return int(int64(a.id) - int64(b.id)) })
	return out
}

// printable shows control characters as ?: neither a log nor an environment has them.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if c < 0x20 && c != '\t' || c == 0x7f {
			return '?'
		}
		return c
	}, s)
}

package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"adit"
)

// watch tells systemd how the gateway is: it feeds the watchdog only while every part
// answers, and writes down what all goroutines do when one does not.
type watch struct {
	parts    func() []adit.Part
	status   func(context.Context) string
	notify   func(state string)
	log      *slog.Logger
	watchdog time.Duration // systemd's interval, 0: none
	dir      string        // of dumps

	dumped  time.Time
	stalled bool
	stalls  int
	told    string
}

const (
	watchTick   = time.Second
	stallAfter  = 10 * time.Second // as healthz has it (gateway.SilentAfter)
	statusEvery = 3 * time.Second
	dumpEvery   = 10 * time.Minute
	dumpsKept   = 8
	limitDump   = 4 << 20 // bytes of one dump
)

func notify(state string) { _, _ = daemon.SdNotify(false, state) }

func newWatch(g *adit.Gateway, log *slog.Logger) *watch {
	w := &watch{parts: g.Health, status: g.Status, notify: notify, log: log, dir: dumpDir()}
	if d, err := daemon.SdWatchdogEnabled(false); err != nil {
		log.Warn("the watchdog's interval cannot be read: " + err.Error())
	} else {
		w.watchdog = d
	}
	return w
}

// dumpDir is where dumps go: what systemd made for us, else /run/adit.
func dumpDir() string {
	for _, name := range []string{"RUNTIME_DIRECTORY", "STATE_DIRECTORY", "LOGS_DIRECTORY"} {
		if dir, _, _ := strings.Cut(os.Getenv(name), ":"); filepath.IsAbs(dir) {
			return dir
		}
	}
	return "/run/adit"
}

// limit is how long a part may be silent: less than the watchdog allows us, but for
// parts that may take longer by their nature.
func (w *watch) limit(p adit.Part) time.Duration {
	switch {
	case p.Patience > 0:
		return p.Patience
	case w.watchdog > 0:
		return min(stallAfter, w.watchdog/2)
	}
	return stallAfter
}

// run watches until ctx ends. A part's question is out for up to a tick of the
// gateway's before it counts, so a feed every third of the interval is in time.
func (w *watch) run(ctx context.Context) {
	every := watchTick
	if w.watchdog > 0 {
		every = min(every, max(w.watchdog/3, 10*time.Millisecond))
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	var shown time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			w.look(now)
			if !w.stalled && now.Sub(shown) >= statusEvery {
				shown = now
				w.show(ctx)
			}
		}
	}
}

// look asks for the parts' health and does what follows.
func (w *watch) look(now time.Time) {
	parts := w.parts()
	if len(parts) == 0 {
		return // not up yet, or going down: systemd has other limits for that
	}
	var silent []string
	for _, p := range parts {
		if p.Silent >= w.limit(p) {
			silent = append(silent, fmt.Sprintf("%s for %v", p.Name, p.Silent.Truncate(100*time.Millisecond)))
		}
	}
	if len(silent) == 0 {
		if w.stalled {
			w.stalled = false
			w.log.Warn("every part of the gateway answers again")
		}
		if w.watchdog > 0 {
			w.notify(daemon.SdNotifyWatchdog)
		}
		return
	}
	if !w.stalled {
		w.stalled = true
		w.stalls++
		text := "does not answer: " + strings.Join(silent, ", ")
		w.notify("STATUS=" + text)
		w.log.Error(text, "stalls", w.stalls)
		w.told = ""
	}
	if w.dumped.IsZero() || now.Sub(w.dumped) >= dumpEvery {
		w.dumped = now
		w.dump("stall")
	}
}

// show tells systemd's status line, if it has changed.
func (w *watch) show(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, watchTick/2)
	defer cancel()
	if s := w.status(ctx); s != w.told {
		w.told = s
		w.notify("STATUS=" + s)
	}
}

// dump writes what all goroutines are at into a file of its own: stacks without
// arguments, so no secrets. The oldest files make room.
func (w *watch) dump(why string) {
	path, err := writeDump(w.dir, why, time.Now())
	if err != nil {
		w.log.Error("the goroutines could not be written down: " + err.Error())
		return
	}
	w.log.Warn("what all goroutines do was written down", "file", path)
}

func writeDump(dir, why string, at time.Time) (string, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	old, _ := filepath.Glob(filepath.Join(dir, "adit-"+why+"-*.txt"))
	slices.Sort(old)
	for len(old) >= dumpsKept {
		_ = os.Remove(old[0])
		old = old[1:]
	}
	path := filepath.Join(dir, fmt.Sprintf("adit-%s-%s.txt", why, at.UTC().Format("20060102T150405.000000Z")))
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return "", err
	}
	err = pprof.Lookup("goroutine").WriteTo(&limited{f, limitDump}, 1)
	if e := f.Close(); err == nil {
		err = e
	}
	return path, err
}

// limited drops what goes beyond n bytes.
type limited struct {
	w io.Writer
	n int
}

func (l *limited) Write(b []byte) (int, error) {
	part := b[:min(len(b), l.n)]
	l.n -= len(part)
	if _, err := l.w.Write(part); err != nil {
		return 0, err
	}
	return len(b), nil
}

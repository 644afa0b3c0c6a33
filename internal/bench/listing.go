package bench

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"time"

	"adit/conf"
	"adit/vici"
)

// listing is one `swanctl --list-sas --raw`: how many IKE SAs it listed, how long that took, and
// how much of the processor swanctl itself used for it; then how long the same took for adit's
// own client, which reads and counts only.
type listing struct {
	sas             int
	took, own, bare time.Duration
}

func (l listing) String() string {
	return fmt.Sprintf("%d IKE SAs in %.2f s (%.2f s CPU of swanctl; adit's client %.2f s)", l.sas, l.took.Seconds(), l.own.Seconds(), l.bare.Seconds())
}

// list runs swanctl.
func list(ctx context.Context, uri string) (listing, error) {
	start := time.Now()
	cmd := exec.CommandContext(ctx, "swanctl", "--list-sas", "--raw", "--uri", uri)
	out, err := cmd.Output()
	if err != nil {
		return listing{}, fmt.Errorf("swanctl --list-sas: %w", err)
	}
	l := listing{sas: bytes.Count(out, []byte("list-sa event {")), took: time.Since(start), own: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}
	c, err := vici.Dial(ctx, uri)
	if err != nil {
		return listing{}, err
	}
	defer c.Close()
	start = time.Now()
	_, err = c.Stream(ctx, "list-sas", "list-sa", nil, func(*conf.Section) error { return nil })
	l.bare = time.Since(start)
	return l, err
}

// listings are taken one after the other while set-ups are made.
type listings struct {
	stop context.CancelFunc
	done chan struct{}
	all  []listing
	err  error
}

// between is the pause between two listings.
const between = 250 * time.Millisecond

func startListings(ctx context.Context, uri string) *listings {
	l := &listings{done: make(chan struct{})}
	ctx, l.stop = context.WithCancel(ctx)
	go func() {
		defer close(l.done)
		for pause(ctx, between) == nil {
			one, err := list(ctx, uri)
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				l.err = err
				return
			}
			l.all = append(l.all, one)
		}
	}()
	return l
}

// end is called when the set-ups are made; it returns the largest listing that was complete by then.
func (l *listings) end() (largest listing, err error) {
	l.stop()
	<-l.done
	for _, x := range l.all {
		if x.sas >= largest.sas {
			largest = x
		}
	}
	return largest, l.err
}

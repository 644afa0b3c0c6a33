package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// progress shows what an action that was asked for does. For programs, and with
// verbose, that is every line of the log that belongs to it. People at a terminal see one
// line that changes, with the step that is waited for and how long; what comes to
// an end stays.
type progress struct {
	out  io.Writer
	name string

	mu    sync.Mutex
	begun time.Time
	step  string // empty: nothing to show
	live  bool
	stop  chan struct{}
	ended sync.WaitGroup
}

// refresh is how often the seconds on the terminal go on.
const refresh = 100 * time.Millisecond

func newProgress(out io.Writer, name string, verbose bool) *progress {
	p := &progress{out: out, name: name, begun: time.Now(), step: "asking the gateway", stop: make(chan struct{})}
	if p.live = !verbose && isTerminal(out); !p.live {
		return p
	}
	p.ended.Go(func() {
		tick := time.NewTicker(refresh)
		defer tick.Stop()
		for {
			p.mu.Lock()
			p.draw()
			p.mu.Unlock()
			select {
			case <-tick.C:
			case <-p.stop:
				return
			}
		}
	})
	return p
}

func isTerminal(out io.Writer) bool {
	f, ok := out.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// draw writes the changing line over itself.
func (p *progress) draw() {
	line := fmt.Sprintf("%s: %s (%.1f s)", p.name, p.step, time.Since(p.begun).Seconds())
	fmt.Fprintf(p.out, "\r%s\x1b[K", clip(line, columns-1))
}

// line takes one line of the log.
func (p *progress) line(group, msg string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.live {
		_, err := fmt.Fprintf(p.out, "[%s] %s\n", group, msg)
		return err
	}
	if group == "NET" {
		p.step = stepOf(msg)
		p.draw()
		return nil
	}
	_, err := fmt.Fprintf(p.out, "\r\x1b[K%s\n", msg)
	return err
}

// end leaves the terminal at the beginning of an empty line.
func (p *progress) end() {
	close(p.stop)
	p.ended.Wait()
	if p.live {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}

// stepOf says in few words what a message means for who waits: the exchange and the peer.
func stepOf(msg string) string {
	head, rest, _ := strings.Cut(msg, " [")
	switch f := strings.Fields(head); {
	case len(f) >= 3 && f[0] == "sent" && f[2] == "request":
		return fmt.Sprintf("%s sent%s, waiting for the answer", f[1], after(rest, " to "))
	case len(f) >= 4 && f[0] == "retransmission":
		return fmt.Sprintf("%s sent again (%s), no answer yet", f[3], f[1])
	case len(f) >= 2 && f[0] == "received":
		return fmt.Sprintf("%s received%s", f[1], after(rest, " from "))
	}
	return head
}

// after is the word that follows a mark, with the mark.
func after(text, mark string) string {
	i := strings.LastIndex(text, mark)
	if i < 0 {
		return ""
	}
	word, _, _ := strings.Cut(text[i+len(mark):], " ")
	return mark + word
}

package tunnel

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// progress tells how far a benchmark is: a bar that changes on a terminal, a line for
// each contender and round elsewhere.
type progress struct {
	out         io.Writer // nil: nobody
	live        bool
	done, total int // steps
	begun       time.Time
	where, what string
}

func newProgress(out io.Writer, live bool, total int) *progress {
	return &progress{out: out, live: live && out != nil, total: max(total, 1), begun: time.Now()}
}

// at says where we are now.
func (p *progress) at(where string) {
	p.where, p.what = where, "setting up"
	if p.live {
		p.draw()
	} else {
		p.say(where)
	}
}

// step says what is being measured now; the one before is done.
func (p *progress) step(what string) {
	if p.what != "setting up" {
		p.done++
	}
	p.what = what
	if p.live {
		p.draw()
	}
}

// reach says how many steps are done for certain.
func (p *progress) reach(n int) {
	p.done = n
	if p.live {
		p.draw()
	}
}

// say prints a line that stays.
func (p *progress) say(line string) {
	if p.out == nil {
		return
	}
	if p.live {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
	fmt.Fprintln(p.out, line)
}

func (p *progress) end() {
	if p.live {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}

// draw writes the bar over itself, in less than 80 columns.
func (p *progress) draw() {
	const width = 20
	n := min(p.done*width/p.total, width)
	left := ""
	if p.done > 0 {
		rest := time.Since(p.begun) * time.Duration(p.total-p.done) / time.Duration(p.done)
		left = fmt.Sprintf(", %v left", rest.Round(time.Second))
	}
	line := fmt.Sprintf("[%s%s] %3d %% %s: %s%s", strings.Repeat("#", n), strings.Repeat(".", width-n), p.done*100/p.total, p.where, p.what, left)
	if r := []rune(line); len(r) > 79 {
		line = string(r[:79])
	}
	fmt.Fprintf(p.out, "\r%s\x1b[K", line)
}

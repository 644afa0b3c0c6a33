package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"adit/vici"
)

func topCommand() *cobra.Command {
	t := top{sort: "rate"}
	cmd := &cobra.Command{
		Use: "top", Short: "Watch the tunnels live, the busiest first",
		Long: `Watch the tunnels live. Keys: r sorts by rate, b by bytes, a by age, n by name,
p pauses, q ends. With -n or where the output is no terminal it prints that many
pictures, one below the other.`,
		Example: "  adit top\n  adit top --interval 5s --sort bytes\n  adit top -n 1",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, ok := orders[t.sort]; !ok {
				return fmt.Errorf("--sort %s: use rate, bytes, age or name", t.sort)
			}
			if t.interval < 100*time.Millisecond {
				return errors.New("--interval: 100ms is the least")
			}
			c, err := dial(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			return t.run(cmd.Context(), c, cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.DurationVar(&t.interval, "interval", 2*time.Second, "time between two pictures")
	f.StringVar(&t.sort, "sort", t.sort, "rate, bytes, age or name")
	f.IntVarP(&t.pictures, "number", "n", 0, "end after so many pictures")
	return cmd
}

// top shows one picture after the other.
type top struct {
	interval time.Duration
	sort     string
	pictures int
	paused   bool
}

// orders are the ways to sort; every one ends at names, so that pictures are steady.
var orders = map[string]func(a, b viewSA) int{
	"rate":  func(a, b viewSA) int { return cmp.Compare(b.rateTotal, a.rateTotal) },
	"bytes": func(a, b viewSA) int { return cmp.Compare(b.bytesIn+b.bytesOut, a.bytesIn+a.bytesOut) },
	"age":   func(a, b viewSA) int { return cmp.Compare(b.age, a.age) },
	"name":  func(a, b viewSA) int { return 0 },
}

var keys = map[byte]string{'r': "rate", 'b': "bytes", 'a': "age", 'n': "name"}

func (t *top) run(ctx context.Context, c *vici.Client, out io.Writer) error {
	screen, _ := out.(*os.File)
	height := 0
	var pressed <-chan byte
	if screen != nil && t.pictures == 0 {
		if size, err := unix.IoctlGetWinsize(int(screen.Fd()), unix.TIOCGWINSZ); err == nil {
			height = int(size.Row)
			restore, err := rawTerminal(int(os.Stdin.Fd()))
			if err != nil {
				return err
			}
			defer restore()
			fmt.Fprint(out, "\x1b[?1049h\x1b[?25l")       // another screen, no cursor
			defer fmt.Fprint(out, "\x1b[?25h\x1b[?1049l") // and back
			pressed = read(os.Stdin)
		}
	}
	if height == 0 && t.pictures == 0 {
		t.pictures = 1
	}
	tick := time.NewTicker(t.interval)
	defer tick.Stop()
	var before *view
	for shown := 0; ; {
		st, err := readStatus(ctx, c)
		if err != nil {
			return err
		}
		v := viewOf(st)
		if before == nil { // rates need two
			before = v
		} else {
			v.rate(before)
			before = v
			t.draw(out, v, height, screen)
			if shown++; t.pictures > 0 && shown == t.pictures {
				return nil
			}
		}
		if end, err := t.wait(ctx, tick.C, pressed, func() { t.draw(out, before, height, screen) }); end || err != nil {
			return err
		}
	}
}

// wait lets one interval pass, and answers keys meanwhile.
func (t *top) wait(ctx context.Context, tick <-chan time.Time, pressed <-chan byte, redraw func()) (end bool, err error) {
	for {
		select {
		case <-ctx.Done():
			return true, nil
		case <-tick:
			if !t.paused {
				return false, nil
			}
		case k, ok := <-pressed:
			switch {
			case !ok || k == 'q' || k == 3: // ^C, which the terminal does not turn into a signal now
				return true, nil
			case k == 'p':
				t.paused = !t.paused
			case keys[k] != "":
				t.sort = keys[k]
			}
			redraw()
		}
	}
}

func (t *top) draw(out io.Writer, v *view, height int, screen *os.File) {
	if height > 0 {
		if size, err := unix.IoctlGetWinsize(int(screen.Fd()), unix.TIOCGWINSZ); err == nil {
			height = int(size.Row)
		}
	}
	lines := t.picture(v, height)
	if height == 0 {
		fmt.Fprintln(out, strings.Join(lines, "\n"))
		return
	}
	fmt.Fprint(out, "\x1b[H"+strings.Join(lines, "\x1b[K\r\n")+"\x1b[K\x1b[J")
}

// picture is what fits the height; 0: all.
func (t *top) picture(v *view, height int) []string {
	order := orders[t.sort]
	slices.SortStableFunc(v.sas, func(a, b viewSA) int {
		return cmp.Or(order(a, b), cmp.Compare(a.name, b.name), cmp.Compare(len(a.id), len(b.id)), cmp.Compare(a.id, b.id))
	})
	var in, out float64
	for _, sa := range v.sas {
		in, out = in+sa.rateIn, out+sa.rateOut
	}
	state := ""
	if t.paused {
		state = ", paused"
	}
	lines := []string{clip(v.header, columns), clip(fmt.Sprintf("in %s, out %s, by %s%s", bits(in), bits(out), t.sort, state), columns),
		fmt.Sprintf("%-24s %-23s %9s %10s %10s", "CONNECTION", "PEER", "UP", "IN", "OUT")}
	for _, sa := range v.sas {
		up := sa.state
		if sa.age >= 0 {
			up = short(sa.age)
		}
		_, host, _ := strings.Cut(sa.remote, " @ ")
		lines = append(lines, fmt.Sprintf("%-24s %-23s %9s %10s %10s", clip(sa.name+"["+sa.id+"]", 24), clip(host, 23), clip(up, 9),
			strings.TrimSuffix(bits(sa.rateIn), "/s"), strings.TrimSuffix(bits(sa.rateOut), "/s")))
		for _, c := range sa.children {
			lines = append(lines, fmt.Sprintf("  %-46s %9s %10s %10s", clip(fmt.Sprintf("%s %s … %s", c.name, c.local, c.remote), 46), "", amount(c.bytesIn), amount(c.bytesOut)))
		}
	}
	for _, c := range v.idle {
		lines = append(lines, fmt.Sprintf("%-24s %-23s %9s", clip(c.conn+"/"+c.child, 24), "", clip(c.state, 9)))
	}
	if height > 0 && len(lines) > height {
		lines = append(lines[:height-1], fmt.Sprintf("… %d more lines", len(lines)-height+1))
	}
	return lines
}

// rawTerminal has keys come at once and unseen.
func rawTerminal(fd int) (restore func(), err error) {
	old, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("standard input is no terminal (use -n): %w", err)
	}
	raw := *old
	raw.Lflag &^= unix.ICANON | unix.ECHO | unix.ISIG
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &raw); err != nil {
		return nil, err
	}
	return func() { _ = unix.IoctlSetTermios(fd, unix.TCSETS, old) }, nil
}

// read delivers the keys that are pressed, until the end of the program.
func read(in io.Reader) <-chan byte {
	pressed := make(chan byte)
	go func() {
		defer close(pressed)
		for b := make([]byte, 1); ; {
			if n, err := in.Read(b); err != nil || n == 0 {
				return
			}
			pressed <- b[0]
		}
	}()
	return pressed
}

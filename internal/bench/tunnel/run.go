package tunnel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"adit/interop/lab"
)

// Options of a benchmark; the zero value of a field means its default.
type Options struct {
	Out io.Writer // the table
	// Progress shows how far it is: on a terminal a bar that changes, else a line for
	// each contender and round. nil: nothing.
	Progress io.Writer
	Terminal bool // Progress is one

	Contenders []string      // by name (all but adit-raw and adit-other)
	Measures   []string      // by name; none: the usual ones
	Rounds     int           // of all contenders; medians count (5)
	Length     time.Duration // of one measurement of throughput (3 s)
	// Quick is one round with measurements of a third of a second: to see that all
	// works, not for figures.
	Quick bool

	Binary    string // the adit that is measured; empty: the program that runs
	Other     string // another adit, measured as adit-other
	WireGuard string // a wireguard-go; empty: one is built
	Secgw     string // a dpdk-ipsec-secgw; empty: looked for in PATH
	JSON, SVG string // files to be written; empty: none

	chosen []measure
}

// Limits of the options.
const (
	MaxRounds = 100
	Shortest  = 50 * time.Millisecond
	Longest   = time.Minute
)

func (o *Options) complete() error {
	if len(o.Contenders) == 0 {
		o.Contenders = DefaultContenders
	}
	known := contenders()
	for i, n := range o.Contenders {
		if !slices.ContainsFunc(known, func(c *contender) bool { return c.name == n }) {
			var names []string
			for _, c := range known {
				names = append(names, c.name)
			}
			return fmt.Errorf("contender %q: known are %s", n, strings.Join(names, ", "))
		}
		if slices.Contains(o.Contenders[:i], n) {
			return fmt.Errorf("contender %q is named twice", n)
		}
	}
	if err := o.choose(); err != nil {
		return err
	}
	if o.Rounds == 0 {
		o.Rounds = 5
		if o.Quick {
			o.Rounds = 1
		}
	}
	if o.Length == 0 {
		o.Length = 3 * time.Second
		if o.Quick {
			o.Length = 300 * time.Millisecond
		}
	}
	if o.Rounds < 1 || o.Rounds > MaxRounds || o.Length < Shortest || o.Length > Longest {
		return fmt.Errorf("%d rounds of %v: 1 to %d rounds of %v to %v are possible", o.Rounds, o.Length, MaxRounds, Shortest, Longest)
	}
	if o.Binary == "" {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		o.Binary = self
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	return nil
}

// choose finds the measurements that are asked for, which are made in their usual order.
func (o *Options) choose() error {
	for _, n := range o.Measures {
		if !slices.ContainsFunc(measures, func(m measure) bool { return m.name == n }) {
			return fmt.Errorf("measurement %q: known are %s", n, strings.Join(Measures(), ", "))
		}
	}
	for _, m := range measures {
		if len(o.Measures) == 0 && !m.asked || slices.Contains(o.Measures, m.name) {
			o.chosen = append(o.chosen, m)
		}
	}
	return nil
}

// Measures are the names of all measurements.
func Measures() (names []string) {
	for _, m := range measures {
		names = append(names, m.name)
	}
	return names
}

// Run measures and prints. It needs root. What it made on the host is gone when it
// returns, also when its context ends; a wireguard-go that it built stays in the user's
// cache.
func Run(ctx context.Context, o Options) error {
	if err := o.complete(); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("adit bench tunnel makes network namespaces, which needs root")
	}
	// Files that can't be written are found out about now, not in half an hour.
	for _, path := range []string{o.JSON, o.SVG} {
		if path == "" {
			continue
		}
		f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		_ = f.Close()
	}
	if err := sweep(); err != nil {
		return err
	}
	res := newResult(&o)
	list := res.find(ctx, &o)
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(list) == 0 {
		return errors.New("no contender can be measured: " + strings.Join(res.missing(), "; "))
	}
	bar := newProgress(o.Progress, o.Terminal, o.Rounds*len(list)*len(o.chosen))
	err := rounds(ctx, &o, res, list, bar)
	bar.end()
	if err != nil {
		return err
	}
	if len(res.Samples) == 0 {
		return errors.New("nothing could be measured")
	}
	res.finish()
	return res.publish(&o)
}

// rounds go through all contenders, each time in another order: the i-th round begins
// with the i-th, and every second one goes backwards.
func rounds(ctx context.Context, o *Options, res *Result, list []*contender, bar *progress) error {
	for round := range o.Rounds {
		for place, c := range order(list, round) {
			bar.at(fmt.Sprintf("round %d of %d, %s", round+1, o.Rounds, c.name))
			err := one(ctx, o, c, &recorder{res: res, bar: bar, round: round + 1, place: place + 1, contender: c.name})
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				res.Failures = append(res.Failures, Failure{Round: round + 1, Contender: c.name, Error: err.Error()})
				bar.say(fmt.Sprintf("round %d, %s failed: %v", round+1, c.name, err))
			}
			bar.reach((round*len(list) + place + 1) * len(o.chosen))
		}
	}
	return nil
}

// order is the contenders' order in a round.
func order(list []*contender, round int) []*contender {
	k := round / 2 % len(list)
	out := slices.Concat(list[k:], list[:k])
	if round%2 == 1 {
		slices.Reverse(out)
	}
	return out
}

// innerMTU is the MTU between hosts and gateways, for all contenders alike: their inner
// packets are the same, and fit everybody's tunnel unfragmented.
const innerMTU = 1400

// labs is how many benchmarks may run at once; they disturb each other, but tests may.
const labs = 10

func labName(n int) string { return fmt.Sprintf("btun%d", n) }

// newLab takes the first name that isn't in use.
func newLab() (l *lab.Lab, err error) {
	for n := range labs {
		if l, err = lab.New(labName(n), lab.Options{InnerMTU: innerMTU}); !errors.Is(err, lab.ErrInUse) {
			break
		}
	}
	return l, err
}

// sweep removes what a killed benchmark left behind: a new lab of the same name does.
func sweep() error {
	for n := range labs {
		if _, err := os.Stat("/var/run/netns/" + labName(n) + "-" + lab.LeftHost); err != nil {
			continue
		}
		l, err := lab.New(labName(n), lab.Options{InnerMTU: innerMTU})
		if errors.Is(err, lab.ErrInUse) {
			continue
		}
		if err == nil {
			err = l.Close()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// oneTimeout bounds a contender's part of a round.
func oneTimeout(o *Options) time.Duration { return 3*time.Minute + 100*o.Length }

// one is one contender in one round, in namespaces and with processes of its own.
func one(ctx context.Context, o *Options, c *contender, rec *recorder) (err error) {
	ctx, cancel := context.WithTimeout(ctx, oneTimeout(o))
	defer cancel()
	l, err := newLab()
	if err != nil {
		return err
	}
	defer func() {
		if e := l.Close(); err == nil {
			err = e
		}
	}()
	r, err := c.start(ctx, l, o)
	if err == nil {
		err = l.WaitPing(lab.LeftHost, l.R.Host4, setupTimeout)
	}
	if err == nil {
		rec.res.setCipher(c.name, r.cipher)
		b := &bench{lab: l, o: o, run: r, rec: rec}
		err = b.measure(ctx)
	}
	if err != nil && r != nil && r.logs != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w\n--- the gateways' last words\n%s", err, lastLines(r.logs(), 12))
	}
	return err
}

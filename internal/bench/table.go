package bench

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

const mega = 1e6

// String is one measurement in a line.
func (s Sample) String() string {
	line := fmt.Sprintf("%s %s, %d SAs: %.3f ms CPU a set-up, %.1f MB resident (%.1f before), %d routes, %.1f s, %d messages repeated",
		s.Peer, s.Auth, s.SAs, ms(s.perSetup()), float64(s.Resident)/mega, float64(s.Base)/mega, s.Routes, s.Wall.Seconds(), s.Repeated)
	if s.ListIdle.sas > 0 {
		line += fmt.Sprintf("\n  swanctl --list-sas --raw: %v among set-ups, %v at rest", s.ListBusy, s.ListIdle)
	}
	return line
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// row is the medians of all samples of one kind.
type row struct {
	auth, peer       string
	sas              int
	cpu              time.Duration // of one set-up
	base, mem        int64
	routes           int
	perCore, per1000 float64 // set-ups a second and core; MB per 1,000 SAs, all of the process
	grown            float64 // MB per 1,000 SAs, what came with the SAs alone
	wallRate         float64 // set-ups a second as it went, with the initiator on the same machine
}

func median[T int | int64 | uint64 | time.Duration | float64](list []T) T {
	list = slices.Clone(list)
	slices.Sort(list)
	return list[len(list)/2]
}

// rows are the medians, in order of first appearance.
func rows(all []Sample) (out []row) {
	for _, s := range all {
		if slices.ContainsFunc(out, func(r row) bool { return r.auth == s.Auth && r.peer == s.Peer && r.sas == s.SAs }) {
			continue
		}
		var cpu, wall []time.Duration
		var base, mem []int64
		var routes []int
		for _, x := range all {
			if x.Auth == s.Auth && x.Peer == s.Peer && x.SAs == s.SAs {
				cpu, wall = append(cpu, x.perSetup()), append(wall, x.Wall)
				base, mem, routes = append(base, x.Base), append(mem, x.Resident), append(routes, x.Routes)
			}
		}
		r := row{auth: s.Auth, peer: s.Peer, sas: s.SAs, cpu: median(cpu), base: median(base), mem: median(mem), routes: median(routes)}
		n := float64(s.SAs)
		r.perCore = 1 / r.cpu.Seconds()
		r.per1000 = float64(r.mem) / mega / n * 1000
		r.grown = float64(r.mem-r.base) / mega / n * 1000
		r.wallRate = n / median(wall).Seconds()
		out = append(out, r)
	}
	slices.SortStableFunc(out, func(a, b row) int {
		if c := strings.Compare(b.auth, a.auth); c != 0 {
			return c
		}
		return a.sas - b.sas
	})
	return out
}

// printTable prints the medians, and adit's as a multiple of charon's.
func printTable(w io.Writer, all []Sample) {
	list := rows(all)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "auth\tresponder\tSAs\tCPU ms/set-up\tset-ups/s/core\tRSS MB\tMB/1,000 SAs\tof them grown\troutes\t")
	for _, r := range list {
		fmt.Fprintf(t, "%s\t%s\t%d\t%.3f\t%.0f\t%.1f\t%.1f\t%.1f\t%d\t\n", r.auth, r.peer, r.sas, ms(r.cpu), r.perCore, float64(r.mem)/mega, r.per1000, r.grown, r.routes)
	}
	_ = t.Flush()
	for _, a := range list {
		for _, c := range list {
			if a.peer == "adit" && c.peer == "charon" && a.auth == c.auth && a.sas == c.sas {
				fmt.Fprintf(w, "%s, %d SAs: adit makes %.2f times charon's set-ups a second and core, in %.2f times its memory\n",
					a.auth, a.sas, a.perCore/c.perCore, float64(a.mem)/float64(c.mem))
			}
		}
	}
}

// printCrowds prints what grows from one number of users to the next.
func printCrowds(w io.Writer, all []*Crowd) {
	for i := 1; i < len(all); i++ {
		a, b := all[i-1], all[i]
		if n := b.Up - a.Up; n > 0 {
			fmt.Fprintf(w, "from %d to %d users: %.1f KB a user\n", a.Up, b.Up, float64((b.Resident-b.Base)-(a.Resident-a.Base))/1e3/float64(n))
		}
	}
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

package tunnel

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// column is a value of the tables.
type column struct {
	group, head string // of two lines
	key         string
	format      string
	width       int
}

var throughput = []column{
	{"TCP 1, Gbit/s", "->", "tcp1_lr.gbit_s", "%.2f", 6}, {"", "<-", "tcp1_rl.gbit_s", "%.2f", 6},
	{"TCP 4, Gbit/s", "->", "tcp4_lr.gbit_s", "%.2f", 6}, {"", "<-", "tcp4_rl.gbit_s", "%.2f", 6},
	{"UDP kpps", "64 B", "udp64.kpps", "%.0f", 6}, {"", "512 B", "udp512.kpps", "%.0f", 6}, {"", "1300 B", "udp1300.kpps", "%.0f", 7},
	{"Mbit/s", "1300 B", "udp1300.mbit_s", "%.0f", 7},
	{"trains", "64 B", "udp64_trains.kpps", "%.0f", 6}, {"kpps", "1300 B", "udp1300_trains.kpps", "%.0f", 6},
	{"CPU s", "per GB", "tcp1_lr.cpu_s_per_gb", "%.2f", 7}, {"RSS", "MB", "rss.mb", "%.0f", 5},
}

var latency = []column{
	{"idle, µs", "p50", "rtt_idle.p50_us", "%.0f", 8}, {"", "p99", "rtt_idle.p99_us", "%.0f", 8},
	{"paused, µs", "p50", "rtt_paused.p50_us", "%.0f", 8}, {"", "p99", "rtt_paused.p99_us", "%.0f", 8},
	{"beside TCP, µs", "p50", "rtt_loaded.p50_us", "%.0f", 8}, {"", "p99", "rtt_loaded.p99_us", "%.0f", 9},
}

var asked = []column{
	{"set-ups", "per s", "rtt_storm.setups_s", "%.0f", 8}, {"RTT, µs", "p50", "rtt_storm.p50_us", "%.0f", 8}, {"", "p99", "rtt_storm.p99_us", "%.0f", 8},
	{"TCP 1, Gbit/s", "->", "tcp1_many_lr.gbit_s", "%.2f", 6}, {"", "<-", "tcp1_many_rl.gbit_s", "%.2f", 6}, {"UDP kpps", "1300 B", "udp1300_many.kpps", "%.0f", 8},
	{"garbage", "kpps", "rss_flood.kpps", "%.0f", 7}, {"RSS, MB", "before", "rss_flood.before_mb", "%.0f", 6}, {"", "most", "rss_flood.most_mb", "%.0f", 5},
}

const nameWidth = 13

// print shows everything to people, in at most 100 columns.
func (r *Result) print(w io.Writer) {
	m := r.Machine
	fmt.Fprintf(w, "\n%s, %d cores, %s; medians of %d rounds of %.3g s\n", m.CPU, m.Cores, m.Kernel, r.Options.Rounds, r.Options.Seconds)
	for _, c := range r.Contenders {
		what := strings.Join(nonEmpty(c.Version, c.Cipher), "; ")
		if c.Missing != "" {
			what = c.Missing
		}
		if what == "" {
			what = c.What
		}
		fmt.Fprintf(w, "  %-*s %s\n", nameWidth, c.Name, what)
	}
	fmt.Fprintf(w, "\nThroughput between the hosts (UDP: the most with at most %.0f %% lost)\n", mostLoss*100)
	r.table(w, throughput)
	fmt.Fprintf(w, "\nRound trips\n")
	r.table(w, latency)
	r.besides(w)
	r.notes(w)
	if r.compared() {
		fmt.Fprintf(w, "\nadit is to reach\n")
		for _, g := range r.Goals {
			fmt.Fprintln(w, "  "+g.String())
		}
	}
}

func nonEmpty(list ...string) (out []string) {
	for _, s := range list {
		if s != "" {
			out = append(out, s)
		}
	}
	return out
}

// besides prints what is measured only if asked for.
func (r *Result) besides(w io.Writer) {
	if slices.ContainsFunc(r.Samples, func(s Sample) bool {
		return slices.ContainsFunc(asked, func(c column) bool { return strings.HasPrefix(c.key, s.Measure+".") })
	}) {
		fmt.Fprintf(w, "\nBeside IKE set-ups; 1 active SA among %d; a flood of garbage\n", manySAs)
		r.table(w, asked)
	}
}

// compared reports whether adit was measured beside another.
func (r *Result) compared() bool {
	for _, g := range r.Goals {
		if g.Known && g.Need != 40 {
			return true
		}
	}
	return false
}

// most is the name with the highest count.
func most(by map[string]int) string {
	name, n := "the hypervisor", 0
	for _, k := range slices.Sorted(maps.Keys(by)) {
		if by[k] > n && k != "" {
			name, n = k, by[k]
		}
	}
	return name
}

func (r *Result) table(w io.Writer, cols []column) {
	line := func(name string, cell func(column) string) {
		fmt.Fprintf(w, "%-*s", nameWidth, name)
		for _, c := range cols {
			fmt.Fprintf(w, " %s", padLeft(cell(c), c.width))
		}
		fmt.Fprintln(w)
	}
	// A group's head stands above its columns, from the left one's beginning.
	head := []rune(strings.Repeat(" ", 120))
	at := nameWidth
	for _, c := range cols {
		copy(head[at+1:], []rune(c.group))
		at += 1 + c.width
	}
	fmt.Fprintln(w, strings.TrimRight(string(head), " "))
	line("", func(c column) string { return c.head })
	for _, c := range r.Contenders {
		if len(c.Medians) == 0 {
			continue
		}
		line(c.Name, func(col column) string { return cell(c.Medians, col) })
	}
}

// cell is a median; a mark stands behind it if the majority was disturbed.
func cell(medians map[string]Stat, col column) string {
	s, ok := medians[col.key]
	if !ok {
		return "-"
	}
	text := fmt.Sprintf(col.format, s.Median)
	if 2*s.Noisy > s.N {
		text += "!"
	}
	return text
}

func padLeft(s string, n int) string {
	return strings.Repeat(" ", max(n-len([]rune(s)), 0)) + s
}

// notes tell of what isn't seen in the medians.
func (r *Result) notes(w io.Writer) {
	noisy, repeated, files := 0, 0, 0
	by := map[string]int{}
	for _, s := range r.Samples {
		if s.noisy() {
			noisy++
			by[s.Disturbance.By]++
		}
		repeated += s.Repeated
		if s.SHA256 != "" {
			files++
		}
	}
	fmt.Fprintf(w, "\n%d measurements; %d files had the same SHA-256 at both ends\n", len(r.Samples), files)
	if repeated > 0 {
		fmt.Fprintf(w, "%d measurements were made again: other processes took more than %.0f %% of a core\n", repeated, othersShare*100)
	}
	if noisy > 0 {
		fmt.Fprintf(w, "%d measurements were disturbed all the same, most of them by %s; ! marks medians of such\n", noisy, most(by))
	}
	for _, f := range r.Failures {
		first, _, _ := strings.Cut(f.Error, "\n")
		fmt.Fprintf(w, "%s failed in round %d: %s\n", f.Contender, f.Round, first)
	}
}

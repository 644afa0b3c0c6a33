package tunnel

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// userTick is the unit of times in /proc: USER_HZ, 100 on every Linux that Go knows.
const userTick = 10 * time.Millisecond

// process is what /proc/PID/stat says that counts here.
type process struct {
	pid, parent int
	name        string
	kernel      bool          // a thread of the kernel
	used        time.Duration // by all its threads, and by children that it waited for
}

// kernelThread is PF_KTHREAD of the kernel's flags of a task.
const kernelThread = 0x00200000

// parseStat reads one /proc/PID/stat (proc(5)). The name may hold anything, blanks and
// brackets too, so fields count from its last bracket.
func parseStat(text string) (p process, err error) {
	head, rest, ok := cutLast(text, ") ")
	f := strings.Fields(rest)
	if !ok || len(f) < 15 {
		return p, fmt.Errorf("%q is no process's stat", text)
	}
	number := func(s string) uint64 {
		n, e := strconv.ParseUint(s, 10, 63)
		err = errors.Join(err, e)
		return n
	}
	pid, name, _ := strings.Cut(head, " (")
	p.name = name
	p.pid, p.parent = int(number(pid)), int(number(f[1]))
	p.kernel = number(f[6])&kernelThread != 0
	for _, s := range f[11:15] { // utime, stime, cutime, cstime
		p.used += time.Duration(number(s)) * userTick
	}
	return p, err
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// processes are all of the machine at this moment.
func processes() ([]process, error) {
	names, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	var list []process
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // ended meanwhile
		}
		p, err := parseStat(string(b))
		if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	return list, nil
}

// usedByOthers is what all processes have used so far that are neither root's nor its
// descendants', nor the kernel's threads, which work for whoever sends packets, by
// process. Since a process that ended counts as its parent's as soon as it is waited for,
// the difference of two sums is what was used in between, also by those that came and
// went.
func usedByOthers(list []process, root int) (others []process, sum time.Duration) {
	parent := map[int]int{}
	for _, p := range list {
		parent[p.pid] = p.parent
	}
	for _, p := range list {
		ours := false
		for pid, n := p.pid, 0; pid > 1 && n < len(list); pid, n = parent[pid], n+1 {
			if pid == root {
				ours = true
				break
			}
		}
		if !ours && !p.kernel {
			others, sum = append(others, p), sum+p.used
		}
	}
	return others, sum
}

// busiest names the process that used the most since before.
func busiest(before, after []process) (name string) {
	had := map[int]time.Duration{}
	for _, p := range before {
		had[p.pid] = p.used
	}
	most := time.Duration(0)
	for _, p := range after {
		if d := p.used - had[p.pid]; d > most {
			name, most = p.name, d
		}
	}
	return name
}

// stolen is what other guests of the machine's host took of our cores: the time of the
// hypervisor in /proc/stat.
func stolen() (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	f := strings.Fields(string(line))
	if len(f) < 9 || f[0] != "cpu" {
		return 0, errors.New("/proc/stat has no line of all cores")
	}
	n, err := strconv.ParseUint(f[8], 10, 63)
	return time.Duration(n) * userTick, err
}

// watch is the beginning of a measurement, for the disturbance at its end.
type watch struct {
	at          time.Time
	others      []process
	used, steal time.Duration
}

func beginWatch() (w watch, err error) {
	list, err := processes()
	if err != nil {
		return w, err
	}
	w.others, w.used = usedByOthers(list, os.Getpid())
	w.steal, err = stolen()
	w.at = time.Now()
	return w, err
}

// Disturbance is what a measurement lost of the machine.
type Disturbance struct {
	Others float64 `json:"others"` // by other processes, cores
	Steal  float64 `json:"steal"`  // by other guests of the same host, cores
	Load   bool    `json:"noisy"`  // more than is allowed
	// By is the name of the other process that used the most.
	By string `json:"by,omitempty"`
}

// Limits of what is called quiet.
const (
	othersShare = 0.05 // of a core
	stealShare  = 0.10 // of a core
	// tickError is what the grain of the counters may add.
	tickError = 2 * userTick
)

func (w watch) end() (d Disturbance, err error) {
	list, err := processes()
	if err != nil {
		return d, err
	}
	steal, err := stolen()
	if err != nil {
		return d, err
	}
	took := time.Since(w.at)
	others, used := usedByOthers(list, os.Getpid())
	d = disturbance(max(used-w.used, 0), max(steal-w.steal, 0), took)
	d.By = busiest(w.others, others)
	return d, nil
}

func disturbance(others, steal, took time.Duration) Disturbance {
	t := max(took.Seconds(), 1e-9)
	return Disturbance{Others: others.Seconds() / t, Steal: steal.Seconds() / t,
		Load: (others-tickError).Seconds() > othersShare*t || (steal-tickError).Seconds() > stealShare*t}
}

func (d Disturbance) sum() float64 { return d.Others + d.Steal }

package tunnel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Schema names the form of the JSON file; it changes when a field changes its meaning.
const Schema = "adit-bench-tunnel/1"

// Result is all that a benchmark found out, as the JSON file has it.
type Result struct {
	Schema  string    `json:"schema"`
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended"`
	Machine Machine   `json:"machine"`
	Options struct {
		Rounds     int      `json:"rounds"`
		Seconds    float64  `json:"seconds"`
		Quick      bool     `json:"quick"`
		InnerMTU   int      `json:"inner_mtu"`
		Contenders []string `json:"contenders"` // that were asked for
	} `json:"options"`
	Contenders []Contender `json:"contenders"` // with their medians
	Goals      []Goal      `json:"goals"`
	Failures   []Failure   `json:"failures"`
	Samples    []Sample    `json:"samples"` // in the order they were taken
}

// Machine is where it was measured.
type Machine struct {
	CPU      string   `json:"cpu"`
	Cores    int      `json:"cores"`
	Features []string `json:"features"` // those that matter to ciphers
	Kernel   string   `json:"kernel"`
	MemoryMB int      `json:"memory_mb"`
	Load     string   `json:"load"` // of the last 1, 5, 15 minutes before the beginning
	Go       string   `json:"go"`
}

// Contender is who took part, or why not.
type Contender struct {
	Name    string          `json:"name"`
	What    string          `json:"what"`
	Version string          `json:"version,omitempty"`
	Cipher  string          `json:"cipher,omitempty"`
	Missing string          `json:"missing,omitempty"`
	Medians map[string]Stat `json:"medians"` // by "measure.value": "tcp1_lr.gbit_s"
}

// Stat is a value over all rounds.
type Stat struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	N      int     `json:"n"`
	Noisy  int     `json:"noisy"` // how many of them were disturbed
}

// Failure is what went wrong for a contender in a round.
type Failure struct {
	Round     int    `json:"round"`
	Contender string `json:"contender"`
	Error     string `json:"error"`
}

// Sample is one measurement. The names of values hold their units.
type Sample struct {
	Round       int                `json:"round"` // from 1
	Place       int                `json:"place"` // of the contender within the round, from 1
	Contender   string             `json:"contender"`
	Measure     string             `json:"measure"`
	Values      map[string]float64 `json:"values"`
	Seconds     float64            `json:"seconds"`
	SHA256      string             `json:"sha256,omitempty"`
	Trials      []trial            `json:"trials,omitempty"` // of a search
	Result      *trial             `json:"result,omitempty"` // the one that counts
	Disturbance Disturbance        `json:"disturbance"`
	Repeated    int                `json:"repeated"` // measured again that often, for disturbance
}

// noisy reports whether the sample was disturbed.
func (s *Sample) noisy() bool {
	if s.Result != nil {
		return s.Result.Noisy
	}
	return s.Disturbance.Load
}

func newResult(o *Options) *Result {
	r := &Result{Schema: Schema, Started: time.Now().UTC().Truncate(time.Second), Machine: machine(), Failures: []Failure{}, Samples: []Sample{}, Goals: []Goal{}}
	r.Options.Rounds, r.Options.Seconds, r.Options.Quick = o.Rounds, o.Length.Seconds(), o.Quick
	r.Options.InnerMTU, r.Options.Contenders = innerMTU, o.Contenders
	return r
}

// machine reads what the kernel says of itself and the processor.
func machine() (m Machine) {
	m.Cores, m.Go, m.Features = runtime.NumCPU(), runtime.Version(), []string{}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:]) + " " + unix.ByteSliceToString(u.Machine[:])
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		m.MemoryMB = int(uint64(info.Totalram) * uint64(info.Unit) / 1e6)
	}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		m.Load = strings.Join(strings.Fields(string(b))[:3], " ")
	}
	b, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(line, ":")
		switch strings.TrimSpace(key) {
		case "model name":
			m.CPU = strings.TrimSpace(value)
		case "flags", "Features":
			has := strings.Fields(value)
			for _, f := range []string{"aes", "pclmulqdq", "avx2", "vaes", "vpclmulqdq", "avx512f", "avx512bw", "avx512vl", "pmull"} {
				if slices.Contains(has, f) {
					m.Features = append(m.Features, f)
				}
			}
		default:
			continue
		}
		if m.CPU != "" && len(m.Features) > 0 {
			break
		}
	}
	return m
}

// find asks each contender for what it needs and returns those that can be measured.
func (r *Result) find(ctx context.Context, o *Options) (list []*contender) {
	for _, name := range o.Contenders {
		all := contenders()
		c := all[slices.IndexFunc(all, func(c *contender) bool { return c.name == name })]
		info := Contender{Name: c.name, What: c.what, Medians: map[string]Stat{}}
		if c.find != nil {
			version, err := c.find(ctx, o)
			if info.Version = version; err != nil {
				info.Missing = err.Error()
			}
		}
		if r.Contenders = append(r.Contenders, info); info.Missing == "" {
			list = append(list, c)
		}
	}
	return list
}

// missing says who can't take part, and why.
func (r *Result) missing() (list []string) {
	for _, c := range r.Contenders {
		if c.Missing != "" {
			list = append(list, c.Name+": "+c.Missing)
		}
	}
	return list
}

func (r *Result) contender(name string) *Contender {
	i := slices.IndexFunc(r.Contenders, func(c Contender) bool { return c.Name == name })
	if i < 0 {
		return nil
	}
	return &r.Contenders[i]
}

func (r *Result) setCipher(name, cipher string) {
	if c := r.contender(name); c != nil {
		c.Cipher = cipher
	}
}

// stat is a contender's value; not there: false.
func (r *Result) stat(contender, key string) (Stat, bool) {
	c := r.contender(contender)
	if c == nil {
		return Stat{}, false
	}
	s, ok := c.Medians[key]
	return s, ok
}

// finish computes the medians and what follows from them.
func (r *Result) finish() {
	r.Ended = time.Now().UTC().Truncate(time.Second)
	values := map[string]map[string][]float64{}
	noisy := map[string]map[string]int{}
	for _, s := range r.Samples {
		if values[s.Contender] == nil {
			values[s.Contender], noisy[s.Contender] = map[string][]float64{}, map[string]int{}
		}
		for name, v := range s.Values {
			key := s.Measure + "." + name
			values[s.Contender][key] = append(values[s.Contender][key], v)
			if s.noisy() {
				noisy[s.Contender][key]++
			}
		}
	}
	for i := range r.Contenders {
		c := &r.Contenders[i]
		for key, list := range values[c.Name] {
			c.Medians[key] = Stat{Median: median(list), Min: slices.Min(list), Max: slices.Max(list), N: len(list), Noisy: noisy[c.Name][key]}
		}
	}
	r.Goals = r.goals()
}

// publish prints the table and writes the files. What adit, or the path without a
// tunnel, failed at is an error; what others failed at is only told.
func (r *Result) publish(o *Options) error {
	r.print(o.Out)
	var errs []error
	if o.JSON != "" {
		text, err := json.MarshalIndent(r, "", " ")
		if err == nil {
			err = os.WriteFile(o.JSON, append(text, '\n'), 0o644)
		}
		errs = append(errs, err)
	}
	if o.SVG != "" {
		errs = append(errs, os.WriteFile(o.SVG, r.svg(), 0o644))
	}
	for _, f := range r.Failures {
		if f.Contender == "plain" || strings.HasPrefix(f.Contender, "adit") {
			errs = append(errs, fmt.Errorf("%s failed in round %d", f.Contender, f.Round))
		}
	}
	return errors.Join(errs...)
}

// recorder takes the samples of one contender in one round.
type recorder struct {
	res          *Result
	bar          *progress
	round, place int
	contender    string
}

func (r *recorder) add(s Sample) { r.res.Samples = append(r.res.Samples, s) }

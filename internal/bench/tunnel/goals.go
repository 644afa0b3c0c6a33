package tunnel

import "fmt"

// Goal is a ratio, or a figure, that adit is to reach, and whether it did.
type Goal struct {
	What  string  `json:"what"`
	Must  bool    `json:"must"` // else it is a goal
	Need  float64 `json:"need"`
	Least bool    `json:"least"` // Need is a lower bound; else the upper
	Value float64 `json:"value"`
	Known bool    `json:"known"` // both sides were measured
	Met   bool    `json:"met"`
}

// ratio is adit's value as a multiple of another's, or, without another, the value.
type ratio struct {
	what, key, other string
	must, goal       float64 // 0: none
	least            bool
}

// ratios are what this project set itself for the user space data plane.
var ratios = []ratio{
	{"TCP, one stream, of wireguard-go's", "tcp1_lr.gbit_s", "wireguard-go", 2, 3, true},
	{"TCP, one stream, of kernel-libipsec's", "tcp1_lr.gbit_s", "libipsec", 10, 0, true},
	{"TCP, one stream, of ipsec-secgw's", "tcp1_lr.gbit_s", "secgw", 1, 0, true},
	{"UDP, 64 bytes, of wireguard-go's", "udp64.kpps", "wireguard-go", 5, 9, true},
	{"UDP, 1300 bytes, of wireguard-go's", "udp1300.kpps", "wireguard-go", 5, 9, true},
	{"CPU time per GB, of wireguard-go's", "tcp1_lr.cpu_s_per_gb", "wireguard-go", 0.4, 0.25, false},
	{"idle round trip, median, of wireguard-go's", "rtt_idle.p50_us", "wireguard-go", 1, 0, false},
	{"idle round trip, p99, of wireguard-go's", "rtt_idle.p99_us", "wireguard-go", 1, 0, false},
	{"memory of the process, MB", "rss.mb", "", 40, 0, false},
}

// goals compares the medians with what is wanted.
func (r *Result) goals() (list []Goal) {
	for _, q := range ratios {
		mine, known := r.stat("adit", q.key)
		value := mine.Median
		if q.other != "" {
			theirs, ok := r.stat(q.other, q.key)
			known = known && ok && theirs.Median > 0
			if value /= theirs.Median; !known {
				value = 0
			}
		}
		for i, need := range []float64{q.must, q.goal} {
			if need == 0 {
				continue
			}
			g := Goal{What: q.what, Must: i == 0, Need: need, Least: q.least, Value: value, Known: known}
			g.Met = known && (q.least && value >= need || !q.least && value < need)
			list = append(list, g)
		}
	}
	return list
}

func (g Goal) String() string {
	kind, sign, verdict := "must", ">=", "NOT MET"
	if !g.Must {
		kind = "goal"
	}
	if !g.Least {
		sign = "< "
	}
	switch {
	case !g.Known:
		return fmt.Sprintf("%-44s %s %s %5.4g  not measured", g.What, kind, sign, g.Need)
	case g.Met:
		verdict = "met"
	}
	return fmt.Sprintf("%-44s %s %s %5.4g  is %6.3g  %s", g.What, kind, sign, g.Need, g.Value, verdict)
}

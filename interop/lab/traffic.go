package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// PingOptions choose how to ping; the zero value sends one echo request of the
// usual 56 octets and waits a second.
type PingOptions struct {
	Count    int           // requests; 0 means 1
	Size     int           // octets of data; 0 means 56
	Interval time.Duration // between requests; 0 means 20 ms
	Timeout  time.Duration // after the last request; 0 means 1 s
	DF       bool          // forbid fragmentation
	Pattern  []byte        // up to 16 octets that fill the data
	Source   netip.Addr    // source address; zero: the kernel's choice
}

// PingResult is what ping saw.
type PingResult struct {
	Sent, Received, Duplicates, Errors int
	Avg                                time.Duration // of the round trips
	Output                             string        // ping's own words
}

// Lost is the number of requests without an answer.
func (r PingResult) Lost() int { return r.Sent - r.Received }

var (
	pingCounts = regexp.MustCompile(`(\d+) packets transmitted, (\d+) received(?:, \+(\d+) duplicates)?(?:, \+(\d+) errors)?`)
	pingTimes  = regexp.MustCompile(`= [\d.]+/([\d.]+)/`)
)

// Ping sends echo requests from a node. Lost answers are a result, not an error.
func (l *Lab) Ping(node string, to netip.Addr, o PingOptions) (PingResult, error) {
	if o.Count == 0 {
		o.Count = 1
	}
	if o.Size == 0 {
		o.Size = 56
	}
	if o.Interval == 0 {
		o.Interval = 20 * time.Millisecond
	}
	if o.Timeout == 0 {
		o.Timeout = time.Second
	}
	secs := func(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', 3, 64) }
	args := []string{"ping", "-n", "-q", "-c", strconv.Itoa(o.Count), "-s", strconv.Itoa(o.Size),
		"-i", secs(o.Interval), "-W", secs(o.Timeout)}
	if o.DF {
		args = append(args, "-M", "do")
	}
	if len(o.Pattern) > 0 {
		args = append(args, "-p", fmt.Sprintf("%x", o.Pattern))
	}
	if o.Source.IsValid() {
		args = append(args, "-I", o.Source.String())
	}
	args = append(args, to.String())
	limit := time.Duration(o.Count)*(o.Interval+5*time.Millisecond) + o.Timeout + 5*time.Second
	out, err := l.Exec(limit, node, args...)
	m := pingCounts.FindStringSubmatch(out)
	if m == nil {
		return PingResult{Output: out}, fmt.Errorf("ping %v gave no result: %w", to, errors.Join(err, errors.New(out)))
	}
	r := PingResult{Output: out}
	for i, p := range []*int{&r.Sent, &r.Received, &r.Duplicates, &r.Errors} {
		*p, _ = strconv.Atoi(m[i+1])
	}
	if m := pingTimes.FindStringSubmatch(out); m != nil {
		ms, _ := strconv.ParseFloat(m[1], 64)
		r.Avg = time.Duration(ms * float64(time.Millisecond))
	}
	return r, nil
}

// WaitPing pings once again and again until one answer comes.
func (l *Lab) WaitPing(node string, to netip.Addr, timeout time.Duration) error {
	return Poll(timeout, func() (bool, error) {
		r, err := l.Ping(node, to, PingOptions{Timeout: 200 * time.Millisecond})
		return r.Received > 0, err
	})
}

// IperfOptions choose an iperf3 run; the zero value is one TCP stream for a second.
type IperfOptions struct {
	Duration time.Duration // 0 means 1 s
	Streams  int           // 0 means 1
	Reverse  bool          // the server sends
	UDPRate  int64         // bits a second; above 0: UDP
	Length   int           // octets a datagram or write; 0: iperf3's choice
	Bytes    int64         // end after that many octets instead of Duration
}

// IperfResult is one run's sum over all streams.
type IperfResult struct {
	BitsPerSecond float64 // received
	Bytes         int64   // received until the client ended; some may still have been on the way
	Retransmits   int     // TCP segments sent again
	LostPercent   float64 // UDP
}

type iperfJSON struct {
	Error string `json:"error"`
	End   struct {
		Sum         iperfSum `json:"sum"`
		SumSent     iperfSum `json:"sum_sent"`
		SumReceived iperfSum `json:"sum_received"`
	} `json:"end"`
}

type iperfSum struct {
	Bytes         float64 `json:"bytes"`
	BitsPerSecond float64 `json:"bits_per_second"`
	Retransmits   int     `json:"retransmits"`
	LostPercent   float64 `json:"lost_percent"`
}

// Iperf runs an iperf3 server on one node and a client on another.
func (l *Lab) Iperf(client, server string, to netip.Addr, o IperfOptions) (IperfResult, error) {
	if o.Duration == 0 {
		o.Duration = time.Second
	}
	if o.Streams == 0 {
		o.Streams = 1
	}
	srv, err := l.Start(server, nil, "iperf3", "-s", "-1", "-B", to.String(), "-p", "5201")
	if err != nil {
		return IperfResult{}, err
	}
	defer srv.Kill()
	if err := Poll(5*time.Second, func() (bool, error) { return listensTCP(srv.PID(), 5201) }); err != nil {
		return IperfResult{}, fmt.Errorf("iperf3 server: %w: %s", err, srv.Log())
	}
	args := []string{"iperf3", "-J", "-c", to.String(), "-p", "5201", "-P", strconv.Itoa(o.Streams)}
	if o.Bytes > 0 {
		args = append(args, "-n", strconv.FormatInt(o.Bytes, 10))
	} else {
		args = append(args, "-t", strconv.FormatFloat(o.Duration.Seconds(), 'f', 0, 64))
	}
	if o.Reverse {
		args = append(args, "-R")
	}
	if o.UDPRate > 0 {
		args = append(args, "-u", "-b", strconv.FormatInt(o.UDPRate, 10))
	}
	if o.Length > 0 {
		args = append(args, "-l", strconv.Itoa(o.Length))
	}
	out, err := l.Exec(o.Duration+30*time.Second, client, args...)
	var j iperfJSON
	if jerr := json.Unmarshal([]byte(out), &j); jerr != nil {
		return IperfResult{}, errors.Join(err, fmt.Errorf("iperf3: %w", jerr))
	}
	if j.Error != "" {
		return IperfResult{}, fmt.Errorf("iperf3: %s", j.Error)
	}
	end := j.End
	if o.UDPRate > 0 {
		got := end.Sum.BitsPerSecond * (1 - end.Sum.LostPercent/100)
		return IperfResult{BitsPerSecond: got, Bytes: int64(end.Sum.Bytes * (1 - end.Sum.LostPercent/100)), LostPercent: end.Sum.LostPercent}, err
	}
	return IperfResult{BitsPerSecond: end.SumReceived.BitsPerSecond, Bytes: int64(end.SumReceived.Bytes), Retransmits: end.SumSent.Retransmits}, err
}

// listensTCP reports whether a TCP socket in the process's namespace listens on a
// port.
func listensTCP(pid, port int) (bool, error) {
	want := fmt.Sprintf(":%04X", port)
	for _, f := range []string{"tcp", "tcp6"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, f))
		if err != nil {
			return false, err
		}
		for line := range strings.Lines(string(b)) {
			w := strings.Fields(line)
			if len(w) > 3 && strings.HasSuffix(w[1], want) && w[3] == "0A" {
				return true, nil
			}
		}
	}
	return false, nil
}

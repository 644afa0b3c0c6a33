package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"
)

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

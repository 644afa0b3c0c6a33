package lab

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"sync/atomic"
	"time"
)

// PingOptions choose how to ping; the zero value sends one echo request of the
// usual 56 octets and waits a second.
type PingOptions struct {
	Count    int           // requests; 0 means 1
	Size     int           // octets of data; 0 means 56
	Interval time.Duration // between requests; 0 means 20 ms
	Timeout  time.Duration // after the last request; 0 means 1 s
	DF       bool          // forbid fragmentation; by ping(8)
	Pattern  []byte        // up to 16 octets that fill the data
	Source   netip.Addr    // source address; zero: the kernel's choice
	Tool     bool          // by ping(8), whose times are those of C
}

// PingResult is what ping saw.
type PingResult struct {
	Sent, Received, Duplicates, Errors int
	Avg                                time.Duration // of the round trips
	Output                             string        // ping(8)'s own words
}

// Lost is the number of requests without an answer.
func (r PingResult) Lost() int { return r.Sent - r.Received }

// Ping sends echo requests from a node. Lost answers are a result, not an error.
//
// ping(8) waits for a last answer no longer than twice the longest round trip before it,
// which on a busy machine takes a late one for a lost one. This waits the whole Timeout.
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
	if o.DF || o.Tool {
		return l.pingTool(node, to, o)
	}
	network, from := "ip4:icmp", "0.0.0.0"
	if to.Is6() {
		network, from = "ip6:ipv6-icmp", "::"
	}
	if o.Source.IsValid() {
		from = o.Source.String()
	}
	var c net.PacketConn
	if err := InNS(l.NS(node), func() (err error) { c, err = net.ListenPacket(network, from); return err }); err != nil {
		return PingResult{}, fmt.Errorf("ping %v: %w", to, err)
	}
	defer c.Close()
	return newPinger(to, o).run(c)
}

// pinger is one series of echo requests.
type pinger struct {
	to       netip.Addr
	o        PingOptions
	request  []byte
	answer   byte // type
	sent     []time.Time
	answered []bool
	sum      time.Duration
	res      PingResult
}

var pingID atomic.Uint32

func newPinger(to netip.Addr, o PingOptions) *pinger {
	p := &pinger{to: to, o: o, request: make([]byte, 8+o.Size), answer: 0, sent: make([]time.Time, o.Count), answered: make([]bool, o.Count)}
	p.request[0] = 8
	if to.Is6() {
		p.request[0], p.answer = 128, 129
	}
	binary.BigEndian.PutUint16(p.request[4:], uint16(pingID.Add(1)))
	for i := 8; i < len(p.request) && len(o.Pattern) > 0; i++ {
		p.request[i] = o.Pattern[(i-8)%len(o.Pattern)]
	}
	return p
}

// run sends and reads in turn; it ends with the last answer.
func (p *pinger) run(c net.PacketConn) (PingResult, error) {
	next := time.Now()
	for p.res.Received < p.o.Count {
		until := next
		if p.res.Sent < p.o.Count && !time.Now().Before(next) {
			p.send(c)
			if next = time.Now().Add(p.o.Interval); p.res.Sent == p.o.Count {
				next = time.Now().Add(p.o.Timeout)
			}
			until = next
		} else if p.res.Sent == p.o.Count && !time.Now().Before(next) {
			break
		}
		if err := p.read(c, until); err != nil {
			return p.res, fmt.Errorf("ping %v: %w", p.to, err)
		}
	}
	if p.res.Received > 0 {
		p.res.Avg = p.sum / time.Duration(p.res.Received)
	}
	return p.res, nil
}

func (p *pinger) send(c net.PacketConn) {
	binary.BigEndian.PutUint16(p.request[6:], uint16(p.res.Sent))
	if !p.to.Is6() { // the kernel does it there
		p.request[2], p.request[3] = 0, 0
		binary.BigEndian.PutUint16(p.request[2:], checksum(p.request))
	}
	p.sent[p.res.Sent] = time.Now()
	p.res.Sent++
	if _, err := c.WriteTo(p.request, &net.IPAddr{IP: p.to.AsSlice()}); err != nil {
		p.res.Errors++ // no route, or a firewall: it is lost
	}
}

// read takes what comes in until then, or until all is answered.
func (p *pinger) read(c net.PacketConn, until time.Time) error {
	b := make([]byte, 1<<16)
	c.SetReadDeadline(until)
	for p.res.Received < p.o.Count {
		n, _, err := c.ReadFrom(b)
		var ne net.Error
		switch {
		case errors.As(err, &ne) && ne.Timeout():
			return nil
		case err != nil:
			return err
		case n != len(p.request) || b[0] != p.answer || !bytes.Equal(b[4:6], p.request[4:6]) || !bytes.Equal(b[8:n], p.request[8:]):
			continue
		}
		seq := int(binary.BigEndian.Uint16(b[6:]))
		switch {
		case seq >= p.res.Sent:
		case p.answered[seq]:
			p.res.Duplicates++
		default:
			p.answered[seq] = true
			p.res.Received++
			p.sum += time.Since(p.sent[seq])
		}
	}
	return nil
}

func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(b[i]) << 8
		if i+1 < len(b) {
			sum += uint32(b[i+1])
		}
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

var (
	pingCounts = regexp.MustCompile(`(\d+) packets transmitted, (\d+) received(?:, \+(\d+) duplicates)?(?:, \+(\d+) errors)?`)
	pingTimes  = regexp.MustCompile(`= [\d.]+/([\d.]+)/`)
)

func (l *Lab) pingTool(node string, to netip.Addr, o PingOptions) (PingResult, error) {
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

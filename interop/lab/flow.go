package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Flow describes a stream of numbered UDP packets from one node to another.
type Flow struct {
	From, To string     // nodes
	Src, Dst netip.Addr // addresses to bind to and send to
	Port     uint16     // of both ends; 0 means 7777
	Rate     int        // packets a second
	Size     int        // octets of UDP payload; at least 16, 0 means 64
}

// FlowResult is what became of a flow.
type FlowResult struct {
	Sent, Received uint64        // Received counts each number once
	Duplicated     uint64        // received again
	Reordered      uint64        // received after a higher number
	Corrupt        uint64        // not our packet, or not as sent
	FirstLost      uint64        // number of the first packet that is missing, if Lost is above 0
	SendErrors     uint64        // refused by the sender's own kernel; counted in Sent, too
	MaxGap         time.Duration // longest time without a packet while sending
	Took           time.Duration // of sending
}

// Lost is the number of packets that never arrived.
func (r FlowResult) Lost() uint64 { return r.Sent - r.Received }

func (r FlowResult) String() string {
	return fmt.Sprintf("%d sent in %v (%.0f/s), %d received, %d lost (first: %d), %d duplicated, %d reordered, %d corrupt, %d send errors, longest gap %v",
		r.Sent, r.Took.Round(time.Millisecond), float64(r.Sent)/max(r.Took.Seconds(), 1e-9), r.Received, r.Lost(), r.FirstLost,
		r.Duplicated, r.Reordered, r.Corrupt, r.SendErrors, r.MaxGap.Round(time.Millisecond))
}

// RunningFlow is a flow under way.
type RunningFlow struct {
	out, in *net.UDPConn
	flow    Flow
	quit    chan struct{}
	wg      sync.WaitGroup

	mu       sync.Mutex
	res      FlowResult
	seen     []uint64 // bitmap by number
	next     uint64   // highest number received, plus one
	last     time.Time
	finished bool
}

// Limits of a flow.
const (
	maxFlowPackets = 1 << 26
	flowBurst      = 2 * time.Millisecond // pace: at most this much is sent a tick of 1 ms
	flowDebt       = 2 * time.Second      // at most this much is made up for later
)

var flowMagic = [4]byte{'a', 'd', 'i', 't'}

// StartFlow begins to send. Stop ends the flow and gives the result; Close ends it
// if Stop did not.
func (l *Lab) StartFlow(f Flow) (*RunningFlow, error) {
	if f.Port == 0 {
		f.Port = 7777
	}
	if f.Size == 0 {
		f.Size = 64
	}
	if f.Size < 16 || f.Rate <= 0 {
		return nil, errors.New("lab: a flow needs a rate and at least 16 octets a packet")
	}
	r := &RunningFlow{flow: f, quit: make(chan struct{})}
	dst := net.UDPAddrFromAddrPort(netip.AddrPortFrom(f.Dst, f.Port))
	err := InNS(l.NS(f.To), func() (err error) {
		r.in, err = net.ListenUDP("udp", dst)
		return err
	})
	if err == nil {
		err = InNS(l.NS(f.From), func() (err error) {
			r.out, err = net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(f.Src, f.Port)), dst)
			return err
		})
	}
	if err == nil {
		err = errors.Join(forceBuffer(r.in, unix.SO_RCVBUFFORCE), forceBuffer(r.out, unix.SO_SNDBUFFORCE))
	}
	if err != nil {
		r.close()
		return nil, fmt.Errorf("lab: flow: %w", err)
	}
	r.wg.Add(2)
	go r.send()
	go r.receive()
	l.onClose(func() { r.Stop() })
	return r, nil
}

func forceBuffer(c *net.UDPConn, opt int) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	if err := raw.Control(func(fd uintptr) { serr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, opt, 32<<20) }); err != nil {
		return err
	}
	return serr
}

func (r *RunningFlow) close() {
	for _, c := range []*net.UDPConn{r.in, r.out} {
		if c != nil {
			c.Close()
		}
	}
}

// fill writes magic, number, and octets that depend on every bit of the number, so
// that a flipped bit anywhere is noticed.
func (r *RunningFlow) fill(b []byte, n uint64) {
	copy(b, flowMagic[:])
	binary.BigEndian.PutUint64(b[4:], n)
	mix := n
	for i := 12; i < len(b); i++ {
		mix = (mix ^ mix>>29) * 0x9e3779b97f4a7c15
		b[i] = byte(mix >> 56)
	}
}

func (r *RunningFlow) send() {
	defer r.wg.Done()
	b := make([]byte, r.flow.Size)
	start := time.Now()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	var n, skipped uint64
	for {
		select {
		case <-r.quit:
			r.mu.Lock()
			r.res.Sent, r.res.Took = n, time.Since(start)
			r.mu.Unlock()
			return
		case <-tick.C:
		}
		// After a stall what is missing is made up for at about twice the rate, not
		// at once: a burst overruns queues, and the flow measures itself.
		due := uint64(time.Since(start).Seconds()*float64(r.flow.Rate)) - skipped
		if debt := uint64(flowDebt.Seconds()*float64(r.flow.Rate)) + 1; due > n+debt {
			skipped += due - n - debt
			due = n + debt
		}
		due = min(due, n+uint64(flowBurst.Seconds()*float64(r.flow.Rate))+1)
		for ; n < due && n < maxFlowPackets; n++ {
			r.fill(b, n)
			if _, err := r.out.Write(b); err != nil {
				r.mu.Lock()
				r.res.SendErrors++
				r.mu.Unlock()
			}
		}
	}
}

func (r *RunningFlow) receive() {
	defer r.wg.Done()
	b, want := make([]byte, 1<<16), make([]byte, r.flow.Size)
	for {
		n, err := r.in.Read(b)
		if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			r.note(b[:n], want)
		}
	}
}

func (r *RunningFlow) note(b, want []byte) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	var n uint64
	if len(b) == len(want) {
		n = binary.BigEndian.Uint64(b[4:])
		r.fill(want, n)
	}
	if len(b) != len(want) || string(b) != string(want) || n >= maxFlowPackets {
		r.res.Corrupt++
		return
	}
	if !r.last.IsZero() {
		r.res.MaxGap = max(r.res.MaxGap, now.Sub(r.last))
	}
	r.last = now
	for uint64(len(r.seen)) <= n/64 {
		r.seen = append(r.seen, 0)
	}
	if r.seen[n/64]&(1<<(n%64)) != 0 {
		r.res.Duplicated++
		return
	}
	r.seen[n/64] |= 1 << (n % 64)
	r.res.Received++
	if n < r.next {
		r.res.Reordered++
	}
	r.next = max(r.next, n+1)
}

// Received is the number of different packets that have arrived so far.
func (r *RunningFlow) Received() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.res.Received
}

// Stop ends sending, waits until everything has arrived or nothing came for half
// a second, and gives the result.
func (r *RunningFlow) Stop() FlowResult {
	r.mu.Lock()
	again := r.finished
	r.finished = true
	r.mu.Unlock()
	if !again {
		close(r.quit)
		// The sender's last word is Sent.
		quiet := time.Now()
		var had uint64
		Poll(10*time.Second, func() (bool, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			if got := r.res.Received + r.res.Duplicated; got != had {
				had, quiet = got, time.Now()
			}
			all := r.res.Took > 0 && r.res.Received == r.res.Sent
			return all || time.Since(quiet) > 500*time.Millisecond, nil
		})
		r.in.SetReadDeadline(time.Now())
		r.wg.Wait()
		r.close()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	res := r.res
	for n := uint64(0); n < res.Sent && res.Lost() > 0; n++ {
		if n/64 >= uint64(len(r.seen)) || r.seen[n/64]&(1<<(n%64)) == 0 {
			res.FirstLost = n
			break
		}
	}
	return res
}

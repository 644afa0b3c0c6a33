package userspace

import (
	"sync/atomic"

	"adit/esp"
	"adit/tun"
)

// Reason names why a packet was dropped.
type Reason uint8

// The reasons: first of the outbound, then of the inbound direction.
const (
	OutMalformed    Reason = iota // not an IP packet, or headers that contradict each other
	OutExtensions                 // IPv6 extension headers beyond the limit
	OutNoPolicy                   // matches no policy
	OutDiscard                    // matches a discard policy
	OutBypass                     // matches a bypass policy, but came by the tunnel's device
	OutNoSA                       // its policy has no SA and is no trap
	OutWaitFull                   // too much waits for an SA already
	OutWaitExpired                // waited too long for an SA
	OutTooBig                     // answered with "packet too big"
	OutTooBigSilent               // too big, but no answer is allowed now
	OutNotPeer                    // transport mode, but not to or from the SA's endpoints
	OutFragment                   // transport mode cannot carry a fragment
	OutExpired                    // the SA's hard lifetime or sequence numbers are used up
	OutSeal                       // could not be sealed for another reason
	OutSend                       // the socket refused it
	OutWorker                     // the worker that seals for its SA is too far behind
	OutRing                       // the device's ring was full (counts modulo 2^32)
	InShort                       // too short to be ESP
	InNoSA                        // unknown SPI
	InReplay                      // replayed or behind the window
	InAuth                        // integrity check failed
	InMalformed                   // authentic, but wrong padding, lengths or inner header
	InNextHeader                  // authentic, but neither IPv4 nor IPv6 in a tunnel
	InDummy                       // dummy packet (RFC 4303 §2.6)
	InECN                         // RFC 6040 demands the drop
	InExpired                     // the SA's hard lifetime is over
	InExtensions                  // IPv6 extension headers beyond the limit
	InSelector                    // does not match the SA's selectors
	InDevice                      // the device did not take it
	BatchPanic                    // a batch was given up after a failed assertion (counts batches)

	numReasons
)

var reasonNames = [numReasons]string{
	"out-malformed", "out-extension-headers", "out-no-policy", "out-discard-policy", "out-bypass-policy", "out-no-sa",
	"out-wait-full", "out-wait-expired", "out-too-big", "out-too-big-silent", "out-not-peer", "out-transport-fragment",
	"out-sa-expired", "out-seal-failed", "out-send-failed", "out-worker-behind", "out-ring-full",
	"in-too-short", "in-unknown-spi", "in-replayed", "in-auth-failed", "in-malformed", "in-next-header", "in-dummy",
	"in-ecn", "in-sa-expired", "in-extension-headers", "in-selector-mismatch", "in-device-refused", "batch-panic",
}

// String is the name under which the reason is shown.
func (r Reason) String() string {
	if r < numReasons {
		return reasonNames[r]
	}
	return "unknown"
}

// Reasons are all reasons, in order.
func Reasons() []Reason {
	rs := make([]Reason, numReasons)
	for i := range rs {
		rs[i] = Reason(i)
	}
	return rs
}

// Counters is a snapshot of what a Plane counted since it was made.
type Counters struct {
	// OutPackets and OutBytes were sealed and sent, InPackets and InBytes opened
	// and given to a device; bytes are those of inner packets.
	OutPackets, OutBytes, InPackets, InBytes uint64
	// Fragmented inner packets, Clamped TCP SYNs, Waited packets (queued for an
	// SA), PMTUReports believed and PMTURefused.
	Fragmented, Clamped, Waited, PMTUReports, PMTURefused uint64
	// Keepalives and IKE datagrams received.
	Keepalives, IKE uint64
	// Waiting packets, SAs and Policies now.
	Waiting, SAs, Policies int
	drops                  [numReasons]uint64
}

// Drops is the number of packets dropped for a reason.
func (c *Counters) Drops(r Reason) uint64 {
	if r < numReasons {
		return c.drops[r]
	}
	return 0
}

// counters are those of one worker, which alone adds to them, or of what is done
// for all of them.
type counters struct {
	_                                                     [64]byte // nobody else's on the same cache line
	outPackets, outBytes, inPackets, inBytes              atomic.Uint64
	fragmented, clamped, waited, pmtuReports, pmtuRefused atomic.Uint64
	keepalives, ike                                       atomic.Uint64
	drops                                                 [numReasons]atomic.Uint64
}

// newCounters makes those of a worker. It is called by New, or with p.mu held.
func (p *Plane) newCounters() *counters {
	c := &counters{}
	p.counts = append(p.counts, c)
	return c
}

func (c *counters) drop(r Reason) { c.drops[r].Add(1) }

func sealReason(err error) Reason {
	switch err {
	case esp.ErrExhausted, esp.ErrExpired:
		return OutExpired
	case esp.ErrFragment:
		return OutFragment
	case esp.ErrExtension:
		return OutExtensions
	case esp.ErrInner:
		return OutMalformed
	}
	return OutSeal
}

func openReason(err error) Reason {
	switch err {
	case esp.ErrTooShort:
		return InShort
	case esp.ErrReplay:
		return InReplay
	case esp.ErrAuth:
		return InAuth
	case esp.ErrNextHeader:
		return InNextHeader
	case esp.ErrDummy:
		return InDummy
	case esp.ErrECN:
		return InECN
	case esp.ErrExpired:
		return InExpired
	}
	return InMalformed
}

// Counters reads the counters.
func (p *Plane) Counters() Counters {
	p.mu.Lock()
	s := Counters{SAs: len(p.byRef), Policies: len(p.policies)}
	counts := p.counts
	for _, d := range p.devices {
		if c, ok := d.tun.(tun.Counted); ok {
			s.drops[OutRing] += c.Stats().RingFull
		}
	}
	p.mu.Unlock()
	s.Waiting = int(p.waiting.Load())
	for _, c := range counts {
		s.add(c)
	}
	return s
}

func (s *Counters) add(c *counters) {
	s.OutPackets += c.outPackets.Load()
	s.OutBytes += c.outBytes.Load()
	s.InPackets += c.inPackets.Load()
	s.InBytes += c.inBytes.Load()
	s.Fragmented += c.fragmented.Load()
	s.Clamped += c.clamped.Load()
	s.Waited += c.waited.Load()
	s.PMTUReports += c.pmtuReports.Load()
	s.PMTURefused += c.pmtuRefused.Load()
	s.Keepalives += c.keepalives.Load()
	s.IKE += c.ike.Load()
	for i := range s.drops {
		s.drops[i] += c.drops[i].Load()
	}
}

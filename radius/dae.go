package radius

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Values of Error-Cause (RFC 5176 §3.6).
const (
	ErrorUnsupportedAttribute  = 401
	ErrorMissingAttribute      = 402
	ErrorNASMismatch           = 403
	ErrorInvalidRequest        = 404
	ErrorUnsupportedService    = 405
	ErrorInvalidAttributeValue = 407
	ErrorSessionNotFound       = 503
	ErrorResources             = 506
)

// Reasons for which a request of dynamic authorization is dropped without an answer.
var (
	ErrNoTimestamp = errors.New("radius: no Event-Timestamp: the request could be an old one")
	ErrTimestamp   = errors.New("radius: Event-Timestamp too far from our clock: an old request, or the clocks differ")
	ErrCrowded     = errors.New("radius: too many requests at once")
)

// The bounds of a DAE server.
const (
	daeWindow  = 5 * time.Minute // RFC 5176 §6.3
	daeAnswers = 4096            // remembered, for as long as a request may be repeated
	daeAtOnce  = 16              // requests that are worked on
)

// Verdict is what became of a request; the zero value is an ACK.
type Verdict struct {
	Nak        bool
	ErrorCause uint32
}

// DAEConfig is what a DAE server is made of.
type DAEConfig struct {
	Secret Key
	// AnyTime takes requests without Event-Timestamp, too: whoever saw one can then repeat
	// it later.
	AnyTime bool
	// Handle carries a verified request out; it is called for each once.
	Handle func(context.Context, *Packet) Verdict
	// Dropped is told why a packet was dropped; may be nil.
	Dropped func(from netip.AddrPort, why error)
}

// DAE serves Disconnect- and CoA-Requests (RFC 5176). A request that is repeated gets
// the same answer and has no second effect; one that is older than the window is dropped.
type DAE struct {
	cfg   DAEConfig
	conn  net.PacketConn
	mu    sync.Mutex
	known map[[16]byte]*daeAnswer
	busy  chan struct{}
}

type daeAnswer struct {
	until time.Time
	bytes []byte // nil: it is being worked on
}

// NewDAE makes a server on a socket, which is its own from then on.
func NewDAE(conn net.PacketConn, cfg DAEConfig) *DAE {
	return &DAE{cfg: cfg, conn: conn, known: map[[16]byte]*daeAnswer{}, busy: make(chan struct{}, daeAtOnce)}
}

// Serve serves until ctx ends.
func (d *DAE) Serve(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { d.conn.Close() })
	defer stop()
	var under sync.WaitGroup
	defer under.Wait()
	buf := make([]byte, MaxPacket+1)
	for {
		n, from, err := d.conn.ReadFrom(buf)
		if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // never spin on an error that stays
			continue
		}
		p, again, err := d.receive(time.Now(), append([]byte(nil), buf[:n]...))
		switch {
		case err != nil:
			if d.cfg.Dropped != nil {
				a, _ := netip.ParseAddrPort(from.String())
				d.cfg.Dropped(a, err)
			}
		case again != nil:
			_, _ = d.conn.WriteTo(again, from)
		case p != nil:
			under.Go(func() {
				defer func() { <-d.busy }()
				if b := d.answer(ctx, p); b != nil {
					_, _ = d.conn.WriteTo(b, from)
				}
			})
		}
	}
}

// receive verifies one datagram: it is a new request, one that has its answer already,
// or (both nil) one that is being worked on.
func (d *DAE) receive(now time.Time, b []byte) (p *Packet, again []byte, err error) {
	if p, err = OpenRequest(b, d.cfg.Secret); err != nil {
		return nil, nil, err
	}
	switch at, ok := p.Uint32(TypeEventTimestamp); {
	case !ok && !d.cfg.AnyTime:
		return nil, nil, ErrNoTimestamp
	case ok && now.Sub(time.Unix(int64(at), 0)).Abs() > daeWindow:
		return nil, nil, ErrTimestamp
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if a := d.known[p.Authenticator]; a != nil && now.Before(a.until) {
		return nil, a.bytes, nil
	}
	if len(d.known) >= daeAnswers {
		for k, a := range d.known {
			if !now.Before(a.until) {
				delete(d.known, k)
			}
		}
	}
	if len(d.known) >= daeAnswers {
		return nil, nil, ErrCrowded
	}
	select {
	case d.busy <- struct{}{}:
	default:
		return nil, nil, ErrCrowded
	}
	// A time stamp may be as much ahead of our clock as it may be behind.
	d.known[p.Authenticator] = &daeAnswer{until: now.Add(2*daeWindow + time.Second)}
	return p, nil, nil
}

// answer carries a request out and remembers what was answered.
func (d *DAE) answer(ctx context.Context, p *Packet) []byte {
	v := d.cfg.Handle(ctx, p)
	a := &Packet{Code: DisconnectACK, Identifier: p.Identifier}
	if p.Code == CoARequest {
		a.Code = CoAACK
	}
	if v.Nak {
		a.Code++ // ACK and NAK are neighbours
		a.AddUint32(TypeErrorCause, v.ErrorCause)
	}
	for _, s := range p.All(TypeProxyState) { // RFC 5176 §3.1
		a.Add(TypeProxyState, s)
	}
	b, err := SealResponse(a, &p.Authenticator, d.cfg.Secret)
	if err != nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if k := d.known[p.Authenticator]; k != nil {
		k.bytes = b
	}
	return b
}

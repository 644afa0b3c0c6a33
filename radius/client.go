package radius

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Errors of the client.
var (
	ErrClosed   = errors.New("radius: client closed")
	ErrNoAnswer = errors.New("radius: no answer")
	ErrBusy     = errors.New("radius: every identifier of every socket is in use")
)

// errMoved: this server was given up for another one.
var errMoved = errors.New("radius: moved to another server")

// ServerConfig describes one server. The zero value of a field that has a default
// means that default.
type ServerConfig struct {
	Name          string        // for messages and Stats; Address if empty
	Address       string        // IP address or host name
	Port          uint16        // authentication; DefaultAuthPort
	Secret        Key           // shared with the server; not empty
	Source        netip.Addr    // local address; the system's choice if invalid
	NASIdentifier string        // NAS-Identifier of requests that have none; none if empty
	Preference    int           // servers with a higher one are asked first
	Sockets       int           // at most; each carries 256 requests at once; DefaultSockets
	Timeout       time.Duration // before the first retransmission; DefaultTimeout
	Base          float64       // of the exponential back-off; DefaultBase
	Tries         int           // transmissions altogether; DefaultTries
}

// Config is what a Client is made of.
type Config struct {
	Servers []ServerConfig
	// DeadTime is how long a server that didn't answer is asked after all others;
	// DefaultDeadTime. Then a single request tries it again, once.
	DeadTime time.Duration
	// Control is called for every socket before it is connected, as net.Dialer's is
	// (for marks, devices); may be nil.
	Control func(network, address string, c syscall.RawConn) error
	// Lookup resolves host names; nil means the system's resolver.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
}

// Client asks RADIUS servers. It may be used by many goroutines at once.
type Client struct {
	cfg     Config
	servers []*Server
	closed  chan struct{}
	once    sync.Once
	readers sync.WaitGroup
}

// NewClient checks a configuration and makes a Client of it. Nothing is sent and no
// socket opened before the first request.
func NewClient(cfg Config) (*Client, error) {
	if len(cfg.Servers) == 0 {
		return nil, errors.New("radius: no server configured")
	}
	if len(cfg.Servers) > MaxServers {
		return nil, fmt.Errorf("radius: %d servers, more than %d", len(cfg.Servers), MaxServers)
	}
	if cfg.DeadTime <= 0 {
		cfg.DeadTime = DefaultDeadTime
	}
	if cfg.Lookup == nil {
		cfg.Lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	c := &Client{cfg: cfg, closed: make(chan struct{})}
	for _, sc := range cfg.Servers {
		s, err := newServer(c, sc)
		if err != nil {
			return nil, err
		}
		c.servers = append(c.servers, s)
	}
	c.cfg.Servers = nil
	return c, nil
}

// Close ends the client: requests in flight return ErrClosed, sockets and goroutines
// are gone when it returns.
func (c *Client) Close() error {
	c.once.Do(func() {
		close(c.closed)
		for _, s := range c.servers {
			s.closeAll()
		}
	})
	c.readers.Wait()
	return nil
}

// Response is a verified response.
type Response struct {
	*Packet
	Server  *Server  // that answered; a conversation goes on with it
	request [16]byte // Request Authenticator, for what is encrypted with it
}

// MSK decrypts the MS-MPPE keys (RFC 2548 §2.4): at least 64 octets, or nil if the
// response has none. The caller owns and clears it. The error is ErrKeys.
func (r *Response) MSK() (Key, error) {
	return openMSK(r.Packet, &r.request, r.Server.cfg.Secret)
}

// Exchange sends an Access-Request, or an Accounting-Request, and returns the verified response. The client
// fills in identifier, authenticator, Message-Authenticator and, if req has none, the
// server's NAS-Identifier; a User-Password is given in clear. req isn't changed.
//
// With a server, only that one is asked: a State attribute means nothing to another
// (RFC 2865 §5.24). Without, the servers are asked in the order of health,
// preference and load until one answers. Responses that don't verify never end the
// waiting. Errors are ErrNoAnswer, ErrBusy or ErrClosed with their circumstances,
// that of the context, or the codec's.
func (c *Client) Exchange(ctx context.Context, req *Packet, to *Server) (*Response, error) {
	if to != nil {
		r, err := to.ask(ctx, req, to.cfg.Tries, false)
		if err != nil {
			return nil, fmt.Errorf("server %s: %w", to.cfg.Name, err)
		}
		return r, nil
	}
	var errs []string
	var last error
	order := c.order(time.Now())
	for i, cand := range order {
		tries := cand.s.cfg.Tries
		if cand.trial {
			tries = 1
		}
		r, err := cand.s.ask(ctx, req, tries, i < len(order)-1)
		if err == nil {
			return r, nil
		}
		err = fmt.Errorf("server %s: %w", cand.s.cfg.Name, err)
		if ctx.Err() != nil || errors.Is(err, ErrClosed) || errors.Is(err, ErrTooLong) || errors.Is(err, ErrPassword) {
			return nil, err
		}
		if !errors.Is(err, errMoved) || last == nil {
			last = err
		}
		errs = append(errs, err.Error())
	}
	if len(errs) > 1 {
		if errors.Is(last, ErrBusy) {
			return nil, fmt.Errorf("%w (%s)", ErrBusy, strings.Join(errs, "; "))
		}
		return nil, fmt.Errorf("%w (%s)", ErrNoAnswer, strings.Join(errs, "; "))
	}
	return nil, last
}

// candidate is a server in the order of asking; trial: it was dead, and this request
// finds out, with one transmission, whether it still is.
type candidate struct {
	s     *Server
	trial bool
	rank  serverRank
}

func (c *Client) order(now time.Time) []candidate {
	alive := 0
	cands := make([]candidate, len(c.servers))
	for i, s := range c.servers {
		cands[i] = candidate{s: s, rank: s.rank(now)}
		if !cands[i].rank.dead {
			alive++
		}
	}
	if alive > 0 {
		for i := range cands {
			cand := &cands[i]
			if cand.rank.expired && cand.s.claimTrial(now, c.cfg.DeadTime) {
				cand.trial, cand.rank.dead = true, false
			}
		}
	}
	slices.SortStableFunc(cands, func(a, b candidate) int {
		return cmp.Or(
			compareBool(a.rank.dead, b.rank.dead),
			cmp.Compare(b.s.cfg.Preference, a.s.cfg.Preference),
			compareBool(b.trial, a.trial),
			cmp.Compare(a.rank.inFlight, b.rank.inFlight),
			cmp.Compare(a.rank.rtt, b.rank.rtt))
	})
	return cands
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// ask asks one server. movable says that another one could be asked instead.
func (s *Server) ask(ctx context.Context, req *Packet, tries int, movable bool) (*Response, error) {
	q := *req
	if _, has := q.Get(TypeNASIdentifier); !has && s.cfg.NASIdentifier != "" {
		q.Attributes = append(slices.Clip(q.Attributes), Attribute{TypeNASIdentifier, []byte(s.cfg.NASIdentifier)})
	}
	rand.Read(q.Authenticator[:]) // unique and unpredictable (RFC 2865 §3)
	cl, err := s.acquire(ctx, q.Authenticator)
	if err != nil {
		if ctx.Err() == nil && !errors.Is(err, ErrBusy) && !errors.Is(err, ErrClosed) {
			s.refusedOnce() // no address, no route
		}
		return nil, err
	}
	defer s.release(cl)
	q.Identifier = cl.id
	b, err := s.seal(&q, cl)
	if err != nil {
		return nil, err
	}
	s.count.requests.Add(1)
	start := time.Now()
	p, err := s.await(ctx, cl, b, tries, movable)
	if err != nil {
		if errors.Is(err, ErrNoAnswer) {
			s.unanswered(start)
		}
		return nil, err
	}
	s.answered(p.Code, time.Since(start))
	return &Response{Packet: p, Server: s, request: q.Authenticator}, nil
}

// seal makes the octets of a request. The authenticator of an Accounting-Request
// follows from its content.
func (s *Server) seal(q *Packet, cl *call) ([]byte, error) {
	if q.Code != AccountingRequest {
		return SealRequest(q, s.cfg.Secret)
	}
	b, err := SealAccounting(q, s.cfg.Secret, false)
	s.mu.Lock()
	defer s.mu.Unlock()
	cl.request, cl.accounting = q.Authenticator, true
	return b, err
}

// await transmits b up to tries times and waits for the verified answer.
func (s *Server) await(ctx context.Context, cl *call, b []byte, tries int, movable bool) (*Packet, error) {
	wait := s.cfg.Timeout
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for n := range tries {
		if n > 0 {
			if movable && s.isDead() {
				return nil, errMoved
			}
			s.count.retransmits.Add(1)
			wait = min(time.Duration(float64(wait)*s.cfg.Base), maxTimeout)
			timer.Reset(wait)
		}
		if _, err := cl.sock.conn.Write(b); err != nil {
			cl.noteRefused()
		}
		for again := true; again; {
			select {
			case p := <-cl.answer:
				return p, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-s.client.closed:
				return nil, ErrClosed
			case <-cl.refused:
				// A hint, not a proof: with nobody else to ask, waiting goes on.
				if movable {
					s.refusedOnce()
					return nil, errMoved
				}
			case <-timer.C:
				again = false
			}
		}
	}
	s.count.timeouts.Add(1)
	if drops, last := s.drops(cl); drops > 0 {
		return nil, fmt.Errorf("%w after %d transmissions, but %d dropped, the last for: %w", ErrNoAnswer, tries, drops, last)
	}
	return nil, fmt.Errorf("%w after %d transmissions", ErrNoAnswer, tries)
}

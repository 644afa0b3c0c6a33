package radius

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Server is one of a Client's servers: its sockets, its health, its counters.
type Server struct {
	client *Client
	cfg    ServerConfig

	// opening is held while a socket is opened, which may take a name server's time.
	opening chan struct{}

	mu         sync.Mutex
	sockets    []*socket
	closed     bool
	inFlight   int
	deadUntil  time.Time // zero: alive
	lastAnswer time.Time
	rtt        time.Duration // smoothed; zero before the first answer
	openErr    error
	openErrAt  time.Time

	count counters
}

type counters struct {
	requests, retransmits, timeouts, accepts, rejects, challenges, stray, malformed,
	badAuthenticator, noMessageAuth, badMessageAuth, refused atomic.Uint64
}

// ServerStats is a snapshot of what happened with one server.
type ServerStats struct {
	Name     string
	Dead     bool          // asked after all others for the time being
	InFlight int           // requests
	Sockets  int           // open
	RTT      time.Duration // smoothed; zero before the first answer

	Requests, Retransmits, Timeouts uint64
	Accepts, Rejects, Challenges    uint64 // verified responses
	// Dropped responses: for no request in flight; malformed or of a code that is no
	// response; with a wrong Response Authenticator; without Message-Authenticator;
	// with a wrong one. The last three smell of a wrong secret, an old server, or an
	// attack.
	Stray, Malformed, BadAuthenticator, NoMessageAuthenticator, BadMessageAuthenticator uint64
	Refused                                                                             uint64 // ICMP errors
}

// Stats returns a snapshot for each server, in the order of the configuration.
func (c *Client) Stats() []ServerStats {
	out := make([]ServerStats, len(c.servers))
	for i, s := range c.servers {
		n := &s.count
		out[i] = ServerStats{
			Name: s.cfg.Name, Requests: n.requests.Load(), Retransmits: n.retransmits.Load(),
			Timeouts: n.timeouts.Load(), Accepts: n.accepts.Load(), Rejects: n.rejects.Load(),
			Challenges: n.challenges.Load(), Stray: n.stray.Load(), Malformed: n.malformed.Load(),
			BadAuthenticator: n.badAuthenticator.Load(), NoMessageAuthenticator: n.noMessageAuth.Load(),
			BadMessageAuthenticator: n.badMessageAuth.Load(), Refused: n.refused.Load(),
		}
		s.mu.Lock()
		out[i].Dead, out[i].InFlight, out[i].Sockets, out[i].RTT = !s.deadUntil.IsZero(), s.inFlight, len(s.sockets), s.rtt
		s.mu.Unlock()
	}
	return out
}

// Name returns the configured name or else the address.
func (s *Server) Name() string { return s.cfg.Name }

func newServer(c *Client, cfg ServerConfig) (*Server, error) {
	if cfg.Name == "" {
		cfg.Name = cfg.Address
	}
	if cfg.Address == "" {
		return nil, errors.New("radius: a server without an address")
	}
	if len(cfg.Secret) == 0 {
		return nil, fmt.Errorf("radius: server %s has no secret", cfg.Name)
	}
	if cfg.Port == 0 {
		cfg.Port = DefaultAuthPort
	}
	if cfg.Sockets <= 0 {
		cfg.Sockets = DefaultSockets
	}
	cfg.Sockets = min(cfg.Sockets, MaxSockets)
	if cfg.Timeout <= 0 {
		cfg.Timeout = DefaultTimeout
	}
	cfg.Timeout = min(cfg.Timeout, maxTimeout)
	if !(cfg.Base >= 1) { // also what isn't a number
		cfg.Base = DefaultBase
	}
	if cfg.Tries <= 0 {
		cfg.Tries = DefaultTries
	}
	cfg.Tries = min(cfg.Tries, maxTries)
	if len(cfg.NASIdentifier) > MaxValue {
		return nil, fmt.Errorf("radius: server %s: NAS-Identifier longer than %d octets", cfg.Name, MaxValue)
	}
	cfg.Secret = append(Key(nil), cfg.Secret...)
	return &Server{client: c, cfg: cfg, opening: make(chan struct{}, 1)}, nil
}

type serverRank struct {
	dead, expired bool // expired: dead, but time to try again
	inFlight      int
	rtt           time.Duration
}

func (s *Server) rank(now time.Time) serverRank {
	s.mu.Lock()
	defer s.mu.Unlock()
	dead := !s.deadUntil.IsZero()
	return serverRank{dead: dead, expired: dead && !now.Before(s.deadUntil), inFlight: s.inFlight, rtt: s.rtt}
}

// claimTrial makes the caller the only one to try a dead server again for a while.
func (s *Server) claimTrial(now time.Time, again time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.deadUntil.IsZero() || now.Before(s.deadUntil) {
		return false
	}
	s.deadUntil = now.Add(again)
	return true
}

func (s *Server) isDead() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.deadUntil.IsZero()
}

func (s *Server) answered(c Code, rtt time.Duration) {
	switch c {
	case AccessAccept:
		s.count.accepts.Add(1)
	case AccessReject:
		s.count.rejects.Add(1)
	case AccessChallenge:
		s.count.challenges.Add(1)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deadUntil, s.lastAnswer = time.Time{}, time.Now()
	if s.rtt == 0 {
		s.rtt = rtt
	} else {
		s.rtt += (rtt - s.rtt) / 8
	}
}

// unanswered declares the server dead unless it answered somebody since start: then
// it is only this request that it doesn't like.
func (s *Server) unanswered(start time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lastAnswer.Before(start) {
		s.deadUntil = time.Now().Add(s.client.cfg.DeadTime)
	}
}

func (s *Server) refusedOnce() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.deadUntil.IsZero() {
		s.deadUntil = time.Now().Add(min(refusedTime, s.client.cfg.DeadTime))
	}
}

// call is a request in flight: one identifier of one socket.
type call struct {
	sock    *socket
	id      uint8
	request [16]byte
	// accounting: the answer is an Accounting-Response. Like request it belongs to Server.mu.
	accounting bool
	answer     chan *Packet  // room for the one that verified
	refused    chan struct{} // room for one hint

	// What came in the answer's place; they belong to Server.mu.
	drops    int
	lastDrop error
}

func (cl *call) noteRefused() {
	select {
	case cl.refused <- struct{}{}:
	default:
	}
}

// socket carries up to 256 requests; the fields but conn belong to Server.mu.
type socket struct {
	conn  *net.UDPConn
	born  time.Time
	calls [256]*call
	used  int
	next  uint8 // identifiers go round, so one that timed out rests as long as possible
}

// acquire registers a request with a socket that has an identifier free, opening one
// if need be.
func (s *Server) acquire(ctx context.Context, request [16]byte) (*call, error) {
	cl := &call{request: request, answer: make(chan *Packet, 1), refused: make(chan struct{}, 1)}
	if ok, err := s.place(cl, false); ok || err != nil {
		return cl, err
	}
	select {
	case s.opening <- struct{}{}:
		defer func() { <-s.opening }()
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.client.closed:
		return nil, ErrClosed
	}
	// Whoever had it before may have opened a socket for us, too, or failed.
	if ok, err := s.place(cl, false); ok || err != nil {
		return cl, err
	}
	if err := s.open(ctx); err != nil && !errors.Is(err, ErrBusy) {
		return nil, err
	}
	if ok, err := s.place(cl, true); ok || err != nil {
		return cl, err
	}
	return nil, ErrBusy
}

// place finds an identifier in the open sockets; old says that retiring ones will do.
func (s *Server) place(cl *call, old bool) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false, ErrClosed
	}
	for _, k := range s.sockets {
		if k.used == len(k.calls) || !old && time.Since(k.born) > socketLife {
			continue
		}
		for k.calls[k.next] != nil {
			k.next++
		}
		cl.sock, cl.id = k, k.next
		k.calls[k.next] = cl
		k.next++
		k.used++
		s.inFlight++
		return true, nil
	}
	return false, nil
}

func (s *Server) release(cl *call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := cl.sock
	k.calls[cl.id] = nil
	k.used--
	s.inFlight--
	if k.used == 0 && time.Since(k.born) > socketLife {
		k.conn.Close() // its reader takes it off the list
	}
}

// open opens one more socket unless there are enough. Only the holder of s.opening
// calls it.
func (s *Server) open(ctx context.Context) error {
	s.mu.Lock()
	n, err := len(s.sockets), s.openErr
	if time.Since(s.openErrAt) > lookupPause {
		err = nil
	}
	s.mu.Unlock()
	if n >= s.cfg.Sockets {
		return ErrBusy
	}
	if err != nil {
		return err
	}
	conn, err := s.dial(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		if ctx.Err() == nil {
			s.openErr, s.openErrAt = err, time.Now()
		}
		return err
	}
	if s.closed {
		conn.Close()
		return ErrClosed
	}
	s.openErr = nil
	k := &socket{conn: conn, born: time.Now()}
	s.sockets = append(s.sockets, k)
	s.client.readers.Go(func() { s.read(k) })
	return nil
}

// dial connects a socket, so that the kernel drops what isn't from the server's
// address and port; our own port is the kernel's random choice.
func (s *Server) dial(ctx context.Context) (*net.UDPConn, error) {
	addr, err := netip.ParseAddr(s.cfg.Address)
	if err != nil {
		ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
		defer cancel()
		addrs, err := s.client.cfg.Lookup(ctx, s.cfg.Address)
		if err != nil {
			return nil, fmt.Errorf("radius: looking up %s: %w", s.cfg.Address, err)
		}
		for _, a := range addrs {
			if a = a.Unmap(); !s.cfg.Source.IsValid() || a.Is4() == s.cfg.Source.Is4() {
				addr = a
				break
			}
		}
		if !addr.IsValid() {
			return nil, fmt.Errorf("radius: %s has no address of the source address's family", s.cfg.Address)
		}
	}
	d := net.Dialer{Control: s.client.cfg.Control}
	if s.cfg.Source.IsValid() {
		d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(s.cfg.Source, 0))
	}
	conn, err := d.DialContext(ctx, "udp", netip.AddrPortFrom(addr, s.cfg.Port).String())
	if err != nil {
		return nil, fmt.Errorf("radius: %w", err)
	}
	return conn.(*net.UDPConn), nil
}

// read takes responses from one socket until it is closed.
func (s *Server) read(k *socket) {
	buf := make([]byte, MaxPacket)
	for {
		n, err := k.conn.Read(buf)
		switch {
		case errors.Is(err, net.ErrClosed):
			s.drop(k)
			return
		case err != nil:
			s.count.refused.Add(1)
			s.hint(k)
			if !isRefusal(err) {
				time.Sleep(10 * time.Millisecond) // never spin on an error that stays
			}
		case s.receive(k, buf[:n]):
			buf = make([]byte, MaxPacket) // the packet given away keeps the other
		}
	}
}

// receive gives a datagram to the request that it answers, if it verifies.
func (s *Server) receive(k *socket, b []byte) bool {
	if len(b) < headerLen {
		s.count.malformed.Add(1)
		return false
	}
	s.mu.Lock()
	cl := k.calls[b[1]]
	open := OpenResponse
	var request [16]byte
	if cl != nil {
		if request = cl.request; cl.accounting {
			open = OpenAccountingResponse
		}
	}
	s.mu.Unlock()
	if cl == nil {
		s.count.stray.Add(1)
		return false
	}
	p, err := open(b, cl.id, &request, s.cfg.Secret)
	if err != nil {
		s.dropped(cl, err)
		return false
	}
	select {
	case cl.answer <- p:
		return true
	default: // a second answer to a retransmission
		s.count.stray.Add(1)
		return false
	}
}

// dropped counts a response that doesn't verify.
func (s *Server) dropped(cl *call, err error) {
	switch err {
	case ErrAuthenticator:
		s.count.badAuthenticator.Add(1)
	case ErrNoMessageAuth:
		s.count.noMessageAuth.Add(1)
	case ErrMessageAuth:
		s.count.badMessageAuth.Add(1)
	default:
		s.count.malformed.Add(1)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	cl.drops++
	cl.lastDrop = err
}

func (s *Server) drops(cl *call) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return cl.drops, cl.lastDrop
}

// hint tells the requests of a socket that somebody sent an ICMP error.
func (s *Server) hint(k *socket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, cl := range k.calls {
		if cl != nil {
			cl.noteRefused()
		}
	}
}

func (s *Server) drop(k *socket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, other := range s.sockets {
		if other == k {
			s.sockets = append(s.sockets[:i], s.sockets[i+1:]...)
			return
		}
	}
}

func (s *Server) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, k := range s.sockets {
		k.conn.Close()
	}
}

// isRefusal says whether a read error was an ICMP error, which reading consumes.
func isRefusal(err error) bool {
	for _, e := range []syscall.Errno{syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.ENOPROTOOPT, syscall.EMSGSIZE, syscall.EACCES} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

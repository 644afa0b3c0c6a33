package vici

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"adit/conf"
)

// Handler answers a command. It may take its time: other clients, and events to this one, go
// on. ctx ends when the client hangs up or the server closes, and the handler must return then.
// An error means that there is no answer, and hangs up on the client; what a client is to be
// told goes into the message, by convention success=no and errmsg.
type Handler func(ctx context.Context, req *Request) (*conf.Section, error)

// Options of a server; the zero value means the defaults of limits.go.
type Options struct {
	MaxClients int
	Queue      int           // packets waiting for one client
	QueueBytes int           // bytes waiting for one client
	Stall      time.Duration // how long a client may not read
	// OnError, if set, is told why a client was hung up on. It is called from several goroutines.
	OnError func(client uint64, err error)
}

// Stats are counters of a server, for metrics.
type Stats struct {
	Clients    int    // now
	Accepted   uint64 // clients let in
	Refused    uint64 // clients beyond MaxClients
	Malformed  uint64 // clients hung up on for what they sent
	Stalled    uint64 // clients hung up on because they did not read
	Commands   uint64 // requests, known or not
	EventsLost uint64 // published events that found a client's queue full
}

// Server answers commands and spreads events. Its methods may be called from any goroutine.
type Server struct {
	opts Options
	ctx  context.Context // of all handlers
	stop context.CancelFunc

	mu        sync.RWMutex
	closed    bool
	handlers  map[string]Handler
	events    map[string]map[*session]bool // known events, and who registered
	sessions  map[*session]bool
	listeners map[net.Listener]bool
	running   sync.WaitGroup

	lastID                                                      atomic.Uint64
	accepted, refused, malformed, stalled, commands, eventsLost atomic.Uint64
}

// ErrClosed is what [Server.Serve] returns after [Server.Close].
var ErrClosed = errors.New("vici: server closed")

// NewServer returns a server without commands and events.
func NewServer(opts Options) *Server {
	if opts.MaxClients <= 0 {
		opts.MaxClients = DefaultClients
	}
	if opts.Queue <= 0 {
		opts.Queue = DefaultQueue
	}
	if opts.QueueBytes <= 0 {
		opts.QueueBytes = DefaultQueueBytes
	}
	if opts.Stall <= 0 {
		opts.Stall = DefaultStall
	}
	s := &Server{
		opts:      opts,
		handlers:  map[string]Handler{},
		events:    map[string]map[*session]bool{},
		sessions:  map[*session]bool{},
		listeners: map[net.Listener]bool{},
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s
}

// Handle makes h answer the command of that name.
func (s *Server) Handle(name string, h Handler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handlers[name] = h
}

// Event makes names known as events that clients can register for.
func (s *Server) Event(names ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range names {
		if s.events[name] == nil {
			s.events[name] = map[*session]bool{}
		}
	}
}

// Publish sends an event to all clients that registered for it. It never waits: a client whose
// queue is full loses the event, which is counted. It fails only if the event is unknown or
// cannot be encoded. Without a client for it, body is not even looked at.
func (s *Server) Publish(event string, body *conf.Section) error {
	if ok, err := s.wanted(event); !ok {
		return err
	}
	packet, err := eventPacket(event, body)
	if err != nil {
		return err
	}
	s.mu.RLock() // held, so that nobody gets an event after the confirmation of its unregistering
	defer s.mu.RUnlock()
	for c := range s.events[event] {
		if !c.out.offer(packet) {
			s.eventsLost.Add(1)
		}
	}
	return nil
}

// Wanted reports whether any client registered for an event, for who wants to
// spare itself making it.
func (s *Server) Wanted(event string) bool {
	ok, _ := s.wanted(event)
	return ok
}

// wanted reports whether any client registered for an event.
func (s *Server) wanted(event string) (bool, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	clients, ok := s.events[event]
	if !ok {
		return false, ErrUnknownEvent
	}
	return len(clients) > 0, nil
}

// eventPacket is an event with its length before it, made in one piece.
func eventPacket(event string, body *conf.Section) ([]byte, error) {
	b, err := Packet{Type: EventNotify, Name: event}.AppendFrame(make([]byte, 0, 1<<10))
	if err == nil {
		b, err = appendSection(b, body, 0)
	}
	size := len(b) - 4
	switch {
	case err != nil:
		return nil, err
	case size > MaxPacket:
		return nil, fmt.Errorf("%w: packet of %d bytes", ErrTooLong, size)
	}
	binary.BigEndian.PutUint32(b, uint32(size))
	return b, nil
}

// Names are the commands and events that the server knows, sorted.
func (s *Server) Names() (commands, events []string) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Sorted(maps.Keys(s.handlers)), slices.Sorted(maps.Keys(s.events))
}

// Stats returns the counters.
func (s *Server) Stats() Stats {
	s.mu.RLock()
	n := len(s.sessions)
	s.mu.RUnlock()
	return Stats{
		Clients: n, Accepted: s.accepted.Load(), Refused: s.refused.Load(), Malformed: s.malformed.Load(),
		Stalled: s.stalled.Load(), Commands: s.commands.Load(), EventsLost: s.eventsLost.Load(),
	}
}

// Serve accepts clients until the server is closed, which it reports as [ErrClosed], or the
// listener fails. It closes the listener. It can be called for several listeners.
func (s *Server) Serve(l net.Listener) error {
	defer l.Close()
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	s.listeners[l] = true
	s.running.Add(1)
	s.mu.Unlock()
	defer s.running.Done()
	defer func() {
		s.mu.Lock()
		delete(s.listeners, l)
		s.mu.Unlock()
	}()
	for wait := time.Duration(0); ; {
		conn, err := l.Accept()
		switch {
		case err == nil:
			wait = 0
			s.admit(conn)
		case s.ctx.Err() != nil:
			return ErrClosed
		case errors.Is(err, net.ErrClosed):
			return err
		default: // out of descriptors or memory, or the client has gone already: passes
			wait = min(max(2*wait, 5*time.Millisecond), time.Second)
			select {
			case <-time.After(wait):
			case <-s.ctx.Done():
				return ErrClosed
			}
		}
	}
}

// admit starts a session for a client, or hangs up if there are too many.
func (s *Server) admit(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.sessions) >= s.opts.MaxClients {
		s.refused.Add(1)
		conn.Close()
		return
	}
	s.accepted.Add(1)
	c := &session{server: s, id: s.lastID.Add(1), conn: conn, out: newOutbox(s.opts.Queue, s.opts.QueueBytes)}
	c.ctx, c.cancel = context.WithCancel(s.ctx)
	s.sessions[c] = true
	s.running.Add(1)
	go func() {
		defer s.running.Done()
		c.run()
		s.mu.Lock()
		delete(s.sessions, c)
		s.mu.Unlock()
	}()
}

// register adds or removes a client's registration and reports whether that was possible.
func (s *Server) register(c *session, event string, on bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	clients, ok := s.events[event]
	if !ok || !on && !clients[c] {
		return false
	}
	if on {
		clients[c] = true
	} else {
		delete(clients, c)
	}
	return true
}

// forget removes all registrations of a client.
func (s *Server) forget(c *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, clients := range s.events {
		delete(clients, c)
	}
}

// Close ends Serve, cancels running handlers, lets clients read for a moment what is queued for
// them, hangs up, and waits until all goroutines are done.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	s.stop()
	for l := range s.listeners {
		l.Close()
	}
	for c := range s.sessions {
		c.conn.SetReadDeadline(time.Now())
		c.conn.SetWriteDeadline(time.Now().Add(closeFlush))
	}
	s.mu.Unlock()
	s.running.Wait()
	return nil
}

// Package proxy lets other programs of this machine into a tunnel that ends inside a
// process: a SOCKS5 server (RFC 1928: CONNECT and UDP ASSOCIATE), an HTTP proxy (RFC 9110
// §9.3.6, CONNECT, and requests with a whole URL) and forwards of single ports.
//
// Names are resolved by whoever dials, never here. It knows nothing of the tunnel but how
// to dial through it.
//
// Start reading at Server.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"
)

// Dialer connects through the tunnel.
type Dialer interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// Limits of one Server.
const (
	// limitConns is the number of connections served at once; more wait to be accepted.
	limitConns = 1024
	// limitAssociated is the number of destinations of one UDP ASSOCIATE.
	limitAssociated = 128
	// greeting bounds the time until a client has said what it wants, dialing the time to
	// reach that, idleUDP how long a destination of UDP is kept without a datagram.
	greeting = 10 * time.Second
	dialing  = 30 * time.Second
	idleUDP  = 2 * time.Minute
	// maxDatagram is the largest UDP payload.
	maxDatagram = 65507
)

// Server serves one listener.
type Server struct {
	Dial Dialer
	Log  *slog.Logger // of what could not be reached; nil: nothing
	kind func(s *Server, ctx context.Context, c net.Conn) error
}

// SOCKS is a server of SOCKS version 5 without authentication: who may connect to its
// listener may use the tunnel.
func SOCKS(d Dialer, log *slog.Logger) *Server {
	return &Server{Dial: d, Log: log, kind: (*Server).socks}
}

// Forward is a server that has every connection go to one address, "host:port".
func Forward(d Dialer, to string, log *slog.Logger) *Server {
	return &Server{Dial: d, Log: log, kind: func(s *Server, ctx context.Context, c net.Conn) error { return s.relay(ctx, c, to, nil, nil) }}
}

// Serve accepts until ctx ends, then closes the listener and all connections and waits
// for their ends.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	room := make(chan struct{}, limitConns)
	for {
		select {
		case room <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		c, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		all.Go(func() {
			defer func() { <-room }()
			defer c.Close()
			defer context.AfterFunc(ctx, func() { c.Close() })()
			if err := s.kind(s, ctx, c); err != nil && s.Log != nil && ctx.Err() == nil && !errors.Is(err, io.EOF) {
				s.Log.Info(fmt.Sprintf("proxy: %v", err))
			}
		})
	}
}

// dial is bounded in time.
func (s *Server) dial(ctx context.Context, network, to string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialing)
	defer cancel()
	return s.Dial.DialContext(ctx, network, to)
}

// relay connects to an address and copies both ways until both have ended. say, if set,
// tells the client how the dialing went; first is what it has sent already.
func (s *Server) relay(ctx context.Context, c net.Conn, to string, first io.Reader, say func(net.Conn, error) error) error {
	up, err := s.dial(ctx, "tcp", to)
	if say != nil {
		if e := say(up, err); err == nil && e != nil {
			up.Close()
			return e
		}
	}
	if err != nil {
		return err
	}
	defer up.Close()
	defer context.AfterFunc(ctx, func() { up.Close() })()
	var from io.Reader = c
	if first != nil {
		from = first
	}
	var back sync.WaitGroup
	back.Go(func() { pipe(c, up) })
	pipe(up, from)
	back.Wait()
	return nil
}

// pipe copies until the end, which it passes on; after an error both are of no use.
func pipe(to net.Conn, from io.Reader) {
	if _, err := io.Copy(to, from); err != nil {
		to.Close()
		if c, ok := from.(net.Conn); ok {
			c.Close()
		}
		return
	}
	if h, ok := to.(interface{ CloseWrite() error }); !ok || h.CloseWrite() != nil {
		to.Close()
	}
}

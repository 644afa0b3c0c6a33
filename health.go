package adit

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"adit/internal/gateway"
)

// Part is a thread of a gateway and how long it has owed an answer.
type Part = gateway.Part

// Health tells of every thread of a running gateway; nil while it does not run.
func (g *Gateway) Health() []Part {
	if gw := g.running.Load(); gw != nil {
		return gw.Health()
	}
	return nil
}

// Status is one line about the gateway, such as "12 IKE SAs, 24 Child SAs".
func (g *Gateway) Status(ctx context.Context) string {
	gw := g.running.Load()
	if gw == nil {
		return "not running"
	}
	s, err := gw.Stats(ctx)
	if err != nil {
		return "busy"
	}
	return fmt.Sprintf("%d IKE SAs, %d Child SAs", s.Engine.Established, s.Engine.Children)
}

// Bounds of the server of /healthz: it is for one or two watchers.
const (
	healthTimeout = 5 * time.Second
	healthHeader  = 4 << 10
	healthClients = 16
)

// serveHealth answers GET /healthz while the returned function was not called: 200
// when every part answers, else 503; the body says which does not and for how long.
func (g *Gateway) serveHealth(gw *gateway.Gateway) (stop func(), err error) {
	addr := g.opt.HealthAddr
	if addr == "" {
		addr = g.daemon.Health
	}
	if addr == "" {
		return func() {}, nil
	}
	network := "tcp"
	if path, ok := strings.CutPrefix(addr, "unix://"); ok {
		network, addr = "unix", path
		_ = os.Remove(path) // of a former run: the namespace's lock says that there is no other
	}
	ln, err := net.Listen(network, addr)
	if err != nil {
		return nil, fmt.Errorf("health: %w", err)
	}
	srv := &http.Server{
		ReadTimeout: healthTimeout, ReadHeaderTimeout: healthTimeout, WriteTimeout: healthTimeout, IdleTimeout: healthTimeout,
		MaxHeaderBytes: healthHeader, DisableGeneralOptionsHandler: true,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Connection", "close")
			healthz(w, r, gw.Health())
		}),
	}
	go func() { _ = srv.Serve(&bounded{Listener: ln, room: make(chan struct{}, healthClients)}) }()
	g.log.Info("health is told", "at", ln.Addr().String())
	return func() { _ = srv.Close() }, nil
}

func healthz(w http.ResponseWriter, r *http.Request, parts []Part) {
	switch {
	case r.URL.Path != "/healthz":
		w.WriteHeader(http.StatusNotFound)
		return
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	type part struct {
		Name   string  `json:"name"`
		OK     bool    `json:"ok"`
		Silent float64 `json:"silent_seconds"`
	}
	body := struct {
		Healthy bool   `json:"healthy"`
		Parts   []part `json:"parts"`
	}{gateway.Healthy(parts), []part{}}
	for _, p := range parts {
		body.Parts = append(body.Parts, part{p.Name, p.OK(), p.Silent.Truncate(time.Millisecond).Seconds()})
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if !body.Healthy {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(body)
}

// bounded is a listener that hangs up on whoever comes when room is full.
type bounded struct {
	net.Listener
	room chan struct{}
}

// Accept returns the next connection that there is room for.
func (b *bounded) Accept() (net.Conn, error) {
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case b.room <- struct{}{}:
			return &boundedConn{Conn: c, room: b.room}, nil
		default:
			_ = c.Close()
		}
	}
}

type boundedConn struct {
	net.Conn
	room chan struct{}
	once sync.Once
}

// Close gives the room back.
func (c *boundedConn) Close() error {
	c.once.Do(func() { <-c.room })
	return c.Conn.Close()
}

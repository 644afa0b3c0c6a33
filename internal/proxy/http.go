package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"
)

// ServeHTTP is an HTTP proxy on a listener until ctx ends: CONNECT for TLS and everything
// else, and requests with a whole http URL.
func ServeHTTP(ctx context.Context, ln net.Listener, d Dialer, log *slog.Logger) error {
	s := &Server{Dial: d, Log: log}
	forward := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL = &url.URL{Scheme: "http", Host: r.In.URL.Host, Path: r.In.URL.Path, RawPath: r.In.URL.RawPath, RawQuery: r.In.URL.RawQuery}
			r.Out.Host = r.In.URL.Host
			r.Out.Header.Del("Proxy-Authorization")
		},
		Transport:  &http.Transport{DialContext: s.dialHTTP, MaxIdleConnsPerHost: 4, IdleConnTimeout: 30 * time.Second},
		BufferPool: nil,
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			http.Error(w, err.Error(), http.StatusBadGateway)
		},
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo),
	}
	defer forward.Transport.(*http.Transport).CloseIdleConnections()
	srv := &http.Server{ReadHeaderTimeout: greeting, MaxHeaderBytes: 1 << 16, ErrorLog: forward.ErrorLog,
		BaseContext: func(net.Listener) context.Context { return ctx },
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.Method == http.MethodConnect:
				s.tunnelHTTP(w, r)
			case r.URL.Scheme == "http" && r.URL.Host != "":
				forward.ServeHTTP(w, r)
			default:
				// A page in a browser must not reach us as if we were a server (DNS rebinding).
				http.Error(w, "this is a proxy", http.StatusBadRequest)
			}
		})}
	defer context.AfterFunc(ctx, func() { srv.Close() })()
	if err := srv.Serve(ln); ctx.Err() == nil && !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (s *Server) dialHTTP(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := s.dial(ctx, network, address)
	if err != nil && s.Log != nil {
		s.Log.Info(fmt.Sprintf("proxy: %v", err))
	}
	return c, err
}

// tunnelHTTP serves CONNECT.
func (s *Server) tunnelHTTP(w http.ResponseWriter, r *http.Request) {
	if _, _, err := net.SplitHostPort(r.Host); err != nil || strings.ContainsAny(r.Host, "/@") {
		http.Error(w, "CONNECT needs host:port", http.StatusBadRequest)
		return
	}
	c, rest, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer c.Close()
	_ = c.SetDeadline(time.Time{})
	// The server forgets a connection that was taken from it: ours ends with the context.
	defer context.AfterFunc(r.Context(), func() { c.Close() })()
	err = s.relay(r.Context(), c, r.Host, rest.Reader, func(_ net.Conn, err error) error {
		answer := "HTTP/1.1 200 Connection established\r\n\r\n"
		if err != nil {
			answer = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
		}
		_, err = c.Write([]byte(answer))
		return err
	})
	if err != nil && s.Log != nil && r.Context().Err() == nil {
		s.Log.Info(fmt.Sprintf("proxy: %v", err))
	}
}

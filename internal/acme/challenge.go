package acme

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
	"golang.org/x/net/netutil"

	"adit/internal/config"
)

// Limits of the server that answers challenges, which everybody can reach meanwhile.
const (
	answerTimeout = 10 * time.Second
	answerHeader  = 4 << 10
	answerConns   = 64
)

// responder answers the challenges of one order: over HTTP by a file (RFC 8555 §8.3),
// over TLS by a certificate (RFC 8737 §3). It listens from the first challenge until it
// is closed, and tells nothing else.
type responder struct {
	kind, listen string

	mu    sync.Mutex
	ln    net.Listener
	srv   *http.Server
	all   sync.WaitGroup
	files map[string]string           // by path
	certs map[string]*tls.Certificate // by name
}

func newResponder(c config.ACME) *responder {
	return &responder{kind: c.Challenge, listen: c.Listen, files: map[string]string{}, certs: map[string]*tls.Certificate{}}
}

// Present has the answer ready.
func (r *responder) Present(_ context.Context, ch acme.Challenge) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ch.Type == config.ChallengeALPN {
		cert, err := acmez.TLSALPN01ChallengeCert(ch)
		if err != nil {
			return err
		}
		r.certs[strings.ToLower(ch.Identifier.Value)] = cert
	} else {
		r.files[ch.HTTP01ResourcePath()] = ch.KeyAuthorization
	}
	if r.ln != nil {
		return nil
	}
	ln, err := net.Listen("tcp", r.listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("challenges cannot be answered at %s, where another server is: choose another place by listen, and have that server pass on to it what comes for ACME", r.listen)
	}
	if err != nil {
		return fmt.Errorf("challenges cannot be answered: %w", err)
	}
	r.ln = netutil.LimitListener(ln, answerConns)
	if r.kind == config.ChallengeALPN {
		r.all.Go(r.serveTLS)
		return nil
	}
	r.srv = &http.Server{Handler: r, ReadTimeout: answerTimeout, WriteTimeout: answerTimeout, IdleTimeout: answerTimeout, MaxHeaderBytes: answerHeader, ErrorLog: log.New(io.Discard, "", 0)}
	r.all.Go(func() { _ = r.srv.Serve(r.ln) })
	return nil
}

// CleanUp forgets an answer.
func (r *responder) CleanUp(_ context.Context, ch acme.Challenge) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.files, ch.HTTP01ResourcePath())
	delete(r.certs, strings.ToLower(ch.Identifier.Value))
	return nil
}

func (r *responder) close() {
	r.mu.Lock()
	if r.srv != nil {
		_ = r.srv.Close()
	}
	if r.ln != nil {
		_ = r.ln.Close()
	}
	r.mu.Unlock()
	r.all.Wait()
}

// ServeHTTP answers over HTTP.
func (r *responder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	text, ok := r.files[req.URL.Path]
	r.mu.Unlock()
	if !ok || req.Method != http.MethodGet && req.Method != http.MethodHead {
		http.NotFound(w, req)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = io.WriteString(w, text)
}

// serveTLS answers over TLS: the handshake is the answer.
func (r *responder) serveTLS() {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{acmez.ACMETLS1Protocol}, GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if c := r.certs[strings.ToLower(h.ServerName)]; c != nil {
			return c, nil
		}
		return nil, errors.New("no such name")
	}}
	for {
		c, err := r.ln.Accept()
		if err != nil {
			return
		}
		r.all.Go(func() {
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(answerTimeout))
			_ = tls.Server(c, cfg).Handshake()
		})
	}
}

// Package download hands out files over TLS, each once: behind a link that cannot be
// guessed, counts one time, and ends.
//
// It owns links and the pages behind them. It must not know what is in the files or
// where the certificate comes from. Start with [Links].
package download

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/netutil"
)

// Limits.
const (
	tokenLen     = 16 // bytes: 128 bits
	maxLinks     = 10_000
	maxConns     = 64
	maxHeader    = 8 << 10
	readTimeout  = 10 * time.Second
	writeTimeout = 60 * time.Second
)

// Bundle is what lies behind a link: one file, or several that go as one ZIP.
type Bundle struct {
	Label string // for people: "alice, ios"
	Name  string // of the file
	Type  string // media type
	Data  []byte
}

// Zip packs files into one bundle.
func Zip(label, name string, files map[string][]byte, order []string) (Bundle, error) {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, n := range order {
		h := &zip.FileHeader{Name: n, Method: zip.Deflate}
		h.SetMode(0o600)
		f, err := w.CreateHeader(h)
		if err == nil {
			_, err = f.Write(files[n])
		}
		if err != nil {
			return Bundle{}, err
		}
	}
	err := w.Close()
	return Bundle{Label: label, Name: name + ".zip", Type: "application/zip", Data: b.Bytes()}, err
}

// Links are the links that count. Safe for concurrent use.
type Links struct {
	log *slog.Logger

	mu   sync.Mutex
	open map[[sha256.Size]byte]*link // by the hash of the token: what a look-up takes tells nothing of a token
}

type link struct {
	hash   [sha256.Size]byte
	bundle Bundle
	until  time.Time
	done   chan struct{} // closed when it was used
}

// NewLinks makes a store without links.
func NewLinks(log *slog.Logger) *Links {
	return &Links{log: log, open: map[[sha256.Size]byte]*link{}}
}

// Add makes a link that counts once and for a time. It returns the token, which stands
// in the URL behind /d/ and nowhere else, and a channel that is closed when it was used.
func (l *Links) Add(b Bundle, life time.Duration) (token string, used <-chan struct{}, err error) {
	var secret [tokenLen]byte
	rand.Read(secret[:])
	token = base64.RawURLEncoding.EncodeToString(secret[:])
	k := &link{hash: sha256.Sum256([]byte(token)), bundle: b, until: time.Now().Add(life), done: make(chan struct{})}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	for h, old := range l.open {
		if now.After(old.until) {
			delete(l.open, h)
		}
	}
	if len(l.open) >= maxLinks {
		return "", nil, fmt.Errorf("more than %d links", maxLinks)
	}
	l.open[k.hash] = k
	l.log.Info("a download link was made", "for", b.Label, "until", k.until.Format(time.RFC3339))
	return token, k.done, nil
}

// find is the link of a token that counts; take uses it up.
func (l *Links) find(token string, take bool) (*link, error) {
	h := sha256.Sum256([]byte(token))
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.open[h]
	switch {
	case k == nil || subtle.ConstantTimeCompare(k.hash[:], h[:]) != 1:
		return nil, errors.New("unknown or used")
	case time.Now().After(k.until):
		delete(l.open, h)
		return nil, errors.New("expired")
	}
	if take {
		delete(l.open, h)
		close(k.done)
	}
	return k, nil
}

var page = template.Must(template.New("").Parse(`<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>VPN profile</title></head>
<body><h1>VPN profile</h1>
{{if .Label}}<p>For {{.Label}}. The button works once.</p>
<form method="post"><button type="submit">Download {{.Name}}</button></form>
{{else}}<p>This link was used, has expired, or never was one. Ask for another.</p>{{end}}
</body></html>
`))

// ServeHTTP shows the page behind a link, and with POST delivers the file: what only
// looks at links (mail scanners, previews) uses nothing up.
func (l *Links) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	token, ok := strings.CutPrefix(r.URL.Path, "/d/")
	if !ok || len(token) > 64 {
		http.NotFound(w, r)
		return
	}
	post := r.Method == http.MethodPost
	if !post && r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD, POST")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	k, err := l.find(token, post)
	if err != nil {
		l.log.Warn("a download was refused: the link is "+err.Error(), "from", r.RemoteAddr)
		h.Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(http.StatusNotFound)
		_ = page.Execute(w, Bundle{})
		return
	}
	if !post {
		h.Set("Content-Type", "text/html; charset=utf-8")
		_ = page.Execute(w, k.bundle)
		return
	}
	l.log.Info("a profile was downloaded", "for", k.bundle.Label, "from", r.RemoteAddr)
	h.Set("Content-Type", k.bundle.Type)
	h.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": k.bundle.Name}))
	h.Set("Content-Length", fmt.Sprint(len(k.bundle.Data)))
	_, _ = w.Write(k.bundle.Data)
}

// Serve answers on ln over TLS until ctx ends; downloads under way are finished.
func (l *Links) Serve(ctx context.Context, ln net.Listener, cert tls.Certificate) error {
	srv := &http.Server{Handler: l, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: readTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog:  slog.NewLogLogger(l.log.Handler(), slog.LevelDebug),
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}}}
	stop := context.AfterFunc(ctx, func() {
		c, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
		defer cancel()
		_ = srv.Shutdown(c)
	})
	defer stop()
	err := srv.ServeTLS(netutil.LimitListener(ln, maxConns), "", "")
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return err
}

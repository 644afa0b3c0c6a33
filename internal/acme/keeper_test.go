package acme

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"adit/internal/acme/acmetest"
	"adit/internal/config"
	"adit/pki/pkitest"
)

const domain = "vpn.example.org"

// pebble is an ACME server on loopback, for which all names of the tests are 127.0.0.1.
type pebble struct {
	acmetest.Config
	addr string
	ca   string // file, of its own certificate
}

// loopback is an address that no other test uses, so that its ports stay free.
func loopback() string {
	return fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
}

func freePort(t *testing.T, addr string) int {
	t.Helper()
	ln, err := net.Listen("tcp", addr+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

func startPebble(t *testing.T, c acmetest.Config) *pebble {
	t.Helper()
	bin, err := acmetest.Build()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	ca := pkitest.NewCA(t, pkitest.Spec{Name: "the ACME server's own CA"})
	p := &pebble{Config: c, addr: loopback(), ca: filepath.Join(dir, "ca.pem")}
	p.Cert, p.Key = ca.Issue(pkitest.Spec{Name: "pebble", IPs: []string{p.addr, "127.0.0.1"}, EKU: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}).WriteFiles(dir, "pebble")
	if err := os.WriteFile(p.ca, ca.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	p.Listen, p.Manage = p.addr+":14000", p.addr+":15000"
	p.HTTPPort, p.TLSPort = 5002, 5001
	file := filepath.Join(dir, "pebble.json")
	if err := p.Write(file); err != nil {
		t.Fatal(err)
	}
	dns, err := net.Listen("tcp", p.addr+":0")
	if err != nil {
		t.Fatal(err)
	}
	go acmetest.Resolve(dns, map[string]netip.Addr{domain: netip.MustParseAddr(p.addr), "www." + domain: netip.MustParseAddr(p.addr), "blocked.example.org": netip.MustParseAddr(p.addr)})
	var log bytes.Buffer
	cmd := exec.Command(bin, acmetest.Args(file, dns.Addr().String())...)
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), acmetest.Env()...), &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		dns.Close()
		if t.Failed() {
			t.Logf("Pebble:\n%s", log.String())
		}
	})
	until(t, "Pebble", func() bool { _, err := acmetest.Root(nil, p.Manage); return err == nil })
	return p
}

func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); !cond(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited too long for %s", what)
		}
	}
}

// section is the configuration of a certificate of this server.
func (p *pebble) section() config.ACME {
	return config.ACME{Name: domain, Domains: []string{domain, "www." + domain}, Directory: "https://" + p.Listen + "/dir", Email: "ops@example.org",
		CACert: p.ca, Challenge: config.ChallengeHTTP, Listen: fmt.Sprint(p.addr, ":", p.HTTPPort), Key: "ecdsa256", AgreeTOS: true}
}

// roots are Pebble's.
func (p *pebble) roots(t *testing.T) *x509.CertPool {
	t.Helper()
	b, err := acmetest.Root(nil, p.Manage)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(b)
	return pool
}

// watched is a Keeper with what it told.
type watched struct {
	*Keeper
	log lockedBuffer

	mu      sync.Mutex
	used    []Identity
	trouble []string
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func watch(t *testing.T, dir string) *watched {
	w := &watched{}
	w.Keeper = New(Options{Dir: dir, Version: "test", Log: slog.New(slog.NewTextHandler(&w.log, nil)),
		Use: func(_ string, id Identity) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.used = append(w.used, id)
		},
		Trouble: func(_ config.ACME, why string, has bool) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.trouble = append(w.trouble, fmt.Sprint(has, " ", why))
		}})
	t.Cleanup(func() {
		w.Close()
		if t.Failed() {
			t.Logf("the keeper:\n%s", w.log.String())
		}
	})
	return w
}

// serials are those of the certificates that were used.
func (w *watched) serials() (list []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range w.used {
		list = append(list, id.Chain[0].Serial())
	}
	return list
}

func TestMain(m *testing.M) {
	leastWait = 20 * time.Millisecond
	os.Exit(m.Run())
}

// A certificate comes by either challenge, with and without an external account, into
// files that only their owner reads; it is used again after a restart without an order,
// renewed when the authority says so, and on request.
func TestObtainAndRenew(t *testing.T) {
	t.Parallel()
	for _, challenge := range []string{config.ChallengeHTTP, config.ChallengeALPN} {
		t.Run(challenge, func(t *testing.T) {
			t.Parallel()
			var eab map[string]string
			if challenge == config.ChallengeALPN {
				eab = map[string]string{"kid-1": "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"}
			}
			p := startPebble(t, acmetest.Config{Validity: 90 * 24 * time.Hour, EAB: eab})
			c := p.section()
			if c.Challenge = challenge; eab != nil {
				c.Listen, c.EABKeyID, c.EABKey = fmt.Sprint(p.addr, ":", p.TLSPort), "kid-1", []byte{0xcd, 0x63, 0x43, 0x64, 0xce, 0x9e, 0x40, 0x61, 0xd6, 0xa5, 0x24, 0x53, 0x3d, 0xa9, 0x79, 0x78, 0x85, 0x18, 0x15, 0x3b, 0xbb, 0x11, 0xa8, 0xd5, 0x22, 0x88, 0x2e, 0xca, 0xca, 0x99, 0xf7, 0x01, 0xb8, 0xe2, 0x73, 0x04, 0xb7, 0x1d, 0xcc, 0x50, 0x0b, 0x14, 0x0e, 0x43, 0x13, 0x43, 0x5d, 0x96}
			}
			dir := filepath.Join(t.TempDir(), "acme")
			w := watch(t, dir)
			w.Configure([]config.ACME{c})
			until(t, "a certificate", func() bool { return len(w.serials()) > 0 })
			id := w.used[0]
			pool := x509.NewCertPool()
			for _, above := range id.Chain[1:] {
				pool.AddCert(above.X509)
			}
			if _, err := id.Chain[0].X509.Verify(x509.VerifyOptions{Roots: p.roots(t), Intermediates: pool, DNSName: domain}); err != nil || len(id.Chain) != 2 {
				t.Errorf("a chain of %d: %v", len(id.Chain), err)
			}
			until(t, "the authority's window", func() bool { return !w.readState(domain).End.IsZero() })
			if s := w.Statuses(); len(s) != 1 || s[0].Serial != id.Chain[0].Serial() || s[0].Error != "" || s[0].Renew.Before(time.Now().Add(50*24*time.Hour)) || s[0].Renew.After(s[0].NotAfter) {
				t.Errorf("%+v", s)
			}
			account := modes(t, dir)

			// Another process takes it from the file.
			w.Close()
			w2 := watch(t, dir)
			w2.Configure([]config.ACME{c})
			if s := w2.serials(); len(s) != 1 || s[0] != id.Chain[0].Serial() {
				t.Fatalf("after a restart: %v", s)
			}
			if _, err := w2.Renew(t.Context(), domain, false); err != nil || len(w2.serials()) != 1 {
				t.Errorf("what is not due was renewed: %v %v", w2.serials(), err)
			}
			if err := acmetest.RenewNow(nil, p.Manage, id.Chain[0].PEM()); err != nil {
				t.Fatal(err)
			}
			if s, err := w2.Renew(t.Context(), domain, false); err != nil || len(w2.serials()) != 2 || s.Serial != w2.serials()[1] {
				t.Errorf("when the authority wants it renewed: %+v %v", s, err)
			}
			if _, err := w2.Renew(t.Context(), domain, true); err != nil || len(w2.serials()) != 3 {
				t.Errorf("on request: %v %v", w2.serials(), err)
			}
			if w2.used[0].Chain[0].KeyHash == w2.used[1].Chain[0].KeyHash {
				t.Error("the new certificate has the old key")
			}
			if again := modes(t, dir); again != account {
				t.Error("another account was made")
			}
			if !strings.Contains(w2.log.String(), "https://example.org/why") {
				t.Errorf("the authority's reason was not told:\n%s", w2.log.String())
			}
			w2.Configure(nil)
			if len(w2.Statuses()) != 0 {
				t.Error("what is not configured is kept")
			}
		})
	}
}

// modes checks that nobody else reads the files, and returns the key of the account.
func modes(t *testing.T, dir string) (account string) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 3 {
		t.Errorf("%d files: %v", len(files), err)
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v %v", f.Name(), info.Mode(), err)
		}
		if strings.HasPrefix(f.Name(), "account-") {
			b, _ := os.ReadFile(filepath.Join(dir, f.Name()))
			account = f.Name() + string(b)
		}
	}
	return account
}

// A certificate of some seconds is replaced again and again before it ends.
func TestRenewsByItself(t *testing.T) {
	t.Parallel()
	p := startPebble(t, acmetest.Config{Validity: 4 * time.Second})
	w := watch(t, filepath.Join(t.TempDir(), "acme"))
	w.Configure([]config.ACME{p.section()})
	until(t, "two renewals", func() bool { return len(w.serials()) > 2 })
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, id := range w.used[1:] {
		if x := id.Chain[0].X509; x.NotBefore.After(w.used[i].Chain[0].X509.NotAfter) {
			t.Errorf("between %v and %v there was none", w.used[i].Chain[0].X509.NotAfter, x.NotBefore)
		}
	}
	if len(w.trouble) > 0 {
		t.Errorf("%q", w.trouble)
	}
}

// What goes wrong is told with the reason, and what there was stays.
func TestTrouble(t *testing.T) {
	t.Parallel()
	p := startPebble(t, acmetest.Config{Validity: 90 * 24 * time.Hour, Blocked: []string{"blocked.example.org"}})
	strict := startPebble(t, acmetest.Config{Validity: 90 * 24 * time.Hour, EAB: map[string]string{"kid-1": "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"}})
	limiter := p.limited(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	w := watch(t, filepath.Join(t.TempDir(), "acme"))
	good := p.section()
	w.Configure([]config.ACME{good})
	until(t, "a certificate", func() bool { return len(w.serials()) == 1 })
	dead := fmt.Sprint(p.addr, ":", freePort(t, p.addr))
	for name, k := range map[string]struct {
		change func(c *config.ACME)
		want   string
		wait   time.Duration
	}{
		"nobody answers the challenge": {func(c *config.ACME) { c.Listen = fmt.Sprint(p.addr, ":", freePort(t, p.addr)) }, domain + ": ", 0},
		"no such name":                 {func(c *config.ACME) { c.Domains = []string{"other.example.org"} }, "other.example.org", 0},
		"not for that name":            {func(c *config.ACME) { c.Domains = []string{"blocked.example.org"} }, "(rejectedIdentifier)", 0},
		"dead server":                  {func(c *config.ACME) { c.Directory = "https://" + dead + "/dir" }, "connection refused", 0},
		"server not believed":          {func(c *config.ACME) { c.CACert = ""; c.Directory = strings.Replace(c.Directory, "/dir", "/dir?", 1) }, "certificate signed by unknown authority", 0},
		"no file of an authority":      {func(c *config.ACME) { c.CACert = "/does/not/exist" }, "no such file", 0},
		"terms of service":             {func(c *config.ACME) { *c = strict.section(); c.AgreeTOS = false }, "set agree_tos = yes", 0},
		"no account":                   {func(c *config.ACME) { *c = strict.section() }, "set eab_kid and eab_key", 0},
		"a wrong account":              {func(c *config.ACME) { *c = strict.section(); c.EABKeyID, c.EABKey = "kid-1", []byte("wrong") }, "external account binding", 0},
		"port taken":                   {func(c *config.ACME) { c.Listen = taken.Addr().String() }, "another server is", 0},
		"no such profile":              {func(c *config.ACME) { c.Profile = "noble" }, "noble", 0},
		"rate limit":                   {func(c *config.ACME) { c.Directory, c.CACert = limiter+"/dir", p.ca }, "the authority limits how often it may be asked: too many certificates already issued (rateLimited)", 45 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			c := p.section()
			k.change(&c)
			w.Configure([]config.ACME{c})
			s, err := w.Renew(t.Context(), domain, true)
			t.Log(err)
			if err == nil || !strings.Contains(err.Error(), k.want) || s.Serial != w.serials()[0] || s.Error != err.Error() || s.Failed.IsZero() {
				t.Errorf("%+v %v", s, err)
			}
			if wait := time.Until(s.Next); wait < max(k.wait, soonWait*3/4)-15*time.Second || wait > mostWait*5/4 {
				t.Errorf("the next attempt is in %v", wait)
			}
			for _, used := range w.serials() { // a changed section uses what there is again
				if used != w.serials()[0] {
					t.Errorf("another certificate was used: %v", w.serials())
				}
			}
			w.mu.Lock()
			if last := w.trouble[len(w.trouble)-1]; !strings.HasPrefix(last, "true ") {
				t.Errorf("told: %q", last)
			}
			w.mu.Unlock()
		})
	}
	w.Configure([]config.ACME{good})
	if s, err := w.Renew(t.Context(), domain, true); err != nil || s.Error != "" || !s.Failed.IsZero() || s.Serial == w.serials()[0] {
		t.Errorf("after all: %+v %v", s, err)
	}
}

// limited is a server before this one whose authority has had enough of orders.
func (p *pebble) limited(t *testing.T) string {
	t.Helper()
	back, _ := url.Parse("https://" + p.Listen)
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(back); r.Out.Host = r.In.Host },
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	var nonces atomic.Int32
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.URL.Path, "order-plz") {
			proxy.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/problem+json")
		w.Header().Set("Retry-After", "2700")
		w.Header().Set("Replay-Nonce", fmt.Sprint("n", nonces.Add(1)))
		w.WriteHeader(http.StatusTooManyRequests)
		_ = json.NewEncoder(w).Encode(map[string]any{"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many certificates\nalready issued", "status": 429})
	})}
	cert, key := p.Cert, p.Key
	go func() { _ = srv.ServeTLS(ln, cert, key) }()
	t.Cleanup(func() { srv.Close() })
	return "https://" + ln.Addr().String()
}

// The renewal is at two thirds of the life, or when the authority wants it but before
// it is too late; attempts become rarer, less so if little is left.
func TestSchedule(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	x := &x509.Certificate{NotBefore: now, NotAfter: now.Add(90 * 24 * time.Hour)}
	for range 100 {
		if at := renewal(x).Sub(now); at > 60*24*time.Hour || at < 58*24*time.Hour {
			t.Fatalf("renewal after %v", at)
		}
		for n, most := range map[int]time.Duration{1: 5 * time.Minute, 2: 10 * time.Minute, 3: 20 * time.Minute, 9: 12 * time.Hour, 100: 12 * time.Hour} {
			if d := backoff(firstWait, n, 30*24*time.Hour); d < most*3/4 || d > most*5/4 {
				t.Fatalf("after %d failures %v", n, d)
			}
		}
		if d := backoff(soonWait, 50, -time.Hour); d > 75*time.Minute {
			t.Fatalf("without a certificate %v", d)
		}
	}
	c := config.ACME{Directory: "d"}
	if st := (state{}); !st.due(c, nil, now).Equal(now) {
		t.Error("without a certificate nothing is due")
	}
	st := state{Next: now.Add(time.Hour), Ask: now.Add(2 * time.Hour)}
	if at := st.next(now); !at.Equal(now.Add(time.Hour)) {
		t.Errorf("after a failure %v", at)
	}
}

// The server for challenges tells nothing but answers.
func TestResponder(t *testing.T) {
	r := newResponder(config.ACME{Challenge: config.ChallengeHTTP, Listen: fmt.Sprint("127.0.0.1:", freePort(t, "127.0.0.1"))})
	defer r.close()
	r.files["/.well-known/acme-challenge/token"] = "token.key"
	srv := httpServer(t, r)
	for path, want := range map[string]int{"/.well-known/acme-challenge/token": 200, "/.well-known/acme-challenge/": 404, "/.well-known/acme-challenge/other": 404, "/": 404, "/.well-known/acme-challenge/../acme-challenge/token/": 404} {
		resp, err := http.Get(srv + path)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != want || (want == 200) != (string(b) == "token.key") {
			t.Errorf("%s: %d %q", path, resp.StatusCode, b)
		}
	}
}

func httpServer(t *testing.T, h http.Handler) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { srv.Close() })
	return "http://" + ln.Addr().String()
}

// What a stranger says is one line that a terminal bears.
func TestPrintable(t *testing.T) {
	if s := printable("a\x1b[2Jb\nc\xff" + strings.Repeat("x", 1000)); strings.ContainsAny(s, "\x1b\n") || !utf8.ValidString(s) || len([]rune(s)) > maxReason+1 {
		t.Errorf("%q", s)
	}
}

// A server whose directory or answers are not what they should be is told, quickly and
// without harm.
func TestHostileServer(t *testing.T) {
	t.Parallel()
	for name, k := range map[string]struct {
		dir  string // answer to the directory, in which URL is the server
		rest func(w http.ResponseWriter, r *http.Request)
		want string
	}{
		"no JSON":       {"<html>", nil, "JSON"},
		"nothing in it": {"{}", nil, "directory fields are missing"},
		"endless":       {`{"newNonce":"` + strings.Repeat("x", 3<<20), nil, ""},
		"not over TLS":  {`{"newNonce":"http://URL/n","newAccount":"http://URL/a","newOrder":"http://URL/o"}`, nil, "is not https"},
		"redirects to it": {`{"newNonce":"https://URL/n","newAccount":"https://URL/a","newOrder":"https://URL/o"}`, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://"+r.Host+"/x", http.StatusFound)
		}, "is not https"},
		"escape sequences": {`{"newNonce":"https://URL/n","newAccount":"https://URL/a","newOrder":"https://URL/o"}`, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Replay-Nonce", "n")
			if r.Method == http.MethodPost {
				w.Header().Set("Content-Type", "application/problem+json")
				w.WriteHeader(http.StatusForbidden)
				_, _ = io.WriteString(w, `{"type":"urn:ietf:params:acme:error:unauthorized","detail":"\u001b[2Jno\n`+strings.Repeat("!", 5000)+`"}`)
			}
		}, "no "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := httptest.NewUnstartedServer(nil)
			srv.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/dir" {
					k.rest(w, r)
					return
				}
				w.Header().Set("Content-Type", "application/json")
				_, _ = io.WriteString(w, strings.ReplaceAll(k.dir, "URL", r.Host))
			})
			srv.Config.ErrorLog = log.New(io.Discard, "", 0)
			srv.StartTLS()
			defer srv.Close()
			dir := t.TempDir()
			ca := filepath.Join(dir, "ca.pem")
			if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
				t.Fatal(err)
			}
			w := watch(t, filepath.Join(dir, "acme"))
			s, err := w.Once(t.Context(), config.ACME{Name: "vpn", Domains: []string{domain}, Directory: srv.URL + "/dir", CACert: ca, Challenge: config.ChallengeHTTP, Listen: "127.0.0.1:0", Key: "ecdsa256"}, false)
			if err == nil || !strings.Contains(s.Error, k.want) || len(s.Error) > 2*maxReason || strings.ContainsAny(s.Error, "\x1b\n") {
				t.Errorf("%q %v", s.Error, err)
			}
		})
	}
}

package download_test

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"adit/internal/download"
	"adit/pki/pkitest"
)

// page is a server on the loopback, and a client that trusts its CA.
type page struct {
	*download.Links
	client *http.Client
	url    string
	log    *logBuffer
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func serve(t *testing.T) *page {
	t.Helper()
	ca := pkitest.NewCA(t, pkitest.Spec{})
	gw := ca.Issue(pkitest.Spec{Name: "gw", DNS: []string{"vpn.example.org"}})
	log := &logBuffer{}
	links := download.NewLinks(slog.New(slog.NewTextHandler(log, nil)))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- links.Serve(ctx, ln, tls.Certificate{Certificate: [][]byte{gw.Cert.DER()}, PrivateKey: gw.Key})
	}()
	roots := x509.NewCertPool()
	roots.AddCert(ca.Cert.X509)
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "vpn.example.org"}}
	t.Cleanup(func() {
		tr.CloseIdleConnections()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return &page{links, &http.Client{Transport: tr}, "https://" + ln.Addr().String(), log}
}

func (p *page) do(t *testing.T, method, path string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, p.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := p.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(b)
}

// A link shows a page to whoever looks, delivers once, and its token is in no log.
func TestOnce(t *testing.T) {
	p := serve(t)
	token, used, err := p.Add(download.Bundle{Label: `al<i>ce, ios`, Name: "alice.mobileconfig", Type: "application/x-apple-aspen-config", Data: []byte("secret profile")}, time.Hour)
	if err != nil || len(token) != 22 {
		t.Fatalf("%q %v", token, err)
	}
	for _, m := range []string{"GET", "HEAD", "GET"} {
		res, body := p.do(t, m, "/d/"+token)
		if res.StatusCode != 200 || strings.Contains(body, "secret profile") || strings.Contains(body, "<i>") || m == "GET" && !strings.Contains(body, "<form method=\"post\">") {
			t.Errorf("%s: %d %s", m, res.StatusCode, body)
		}
	}
	res, body := p.do(t, "POST", "/d/"+token)
	if res.StatusCode != 200 || body != "secret profile" || res.Header.Get("Content-Type") != "application/x-apple-aspen-config" || res.Header.Get("Content-Disposition") != "attachment; filename=alice.mobileconfig" {
		t.Errorf("%d %q %v", res.StatusCode, body, res.Header)
	}
	select {
	case <-used:
	default:
		t.Error("the link is not told as used")
	}
	for _, m := range []string{"GET", "POST"} {
		if res, body := p.do(t, m, "/d/"+token); res.StatusCode != 404 || strings.Contains(body, "secret") {
			t.Errorf("%s again: %d %s", m, res.StatusCode, body)
		}
	}
	if log := p.log.String(); strings.Contains(log, token) || !strings.Contains(log, "was downloaded") || !strings.Contains(log, "unknown or used") || !strings.Contains(log, "127.0.0.1") {
		t.Errorf("log: %s", log)
	}
}

// Of many who press the button at once, one gets the file.
func TestOnceAtOnce(t *testing.T) {
	p := serve(t)
	token, _, err := p.Add(download.Bundle{Label: "x", Name: "x", Type: "text/plain", Data: []byte("secret")}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	var got atomic.Int32
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if res, body := p.do(t, "POST", "/d/"+token); res.StatusCode == 200 && body == "secret" {
				got.Add(1)
			}
		})
	}
	all.Wait()
	if n := got.Load(); n != 1 {
		t.Errorf("%d got it", n)
	}
}

func TestExpiredUnknownAndHeaders(t *testing.T) {
	p := serve(t)
	token, _, err := p.Add(download.Bundle{Label: "x", Name: "x", Type: "text/plain", Data: []byte("secret")}, -time.Second)
	if err != nil {
		t.Fatal(err)
	}
	for path, code := range map[string]int{"/d/" + token: 404, "/d/AAAAAAAAAAAAAAAAAAAAAA": 404, "/": 404, "/d/": 404, "/d/../../etc/passwd": 404, "/d/" + strings.Repeat("a", 5000): 404} {
		for _, m := range []string{"GET", "POST"} {
			res, body := p.do(t, m, path)
			if res.StatusCode != code || strings.Contains(body, "secret") {
				t.Errorf("%s %.40s: %d %s", m, path, res.StatusCode, body)
			}
			for h, want := range map[string]string{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY"} {
				if got := res.Header.Get(h); got != want && !strings.Contains(path, "..") {
					t.Errorf("%s %.40s: %s: %q", m, path, h, got)
				}
			}
			if csp := res.Header.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'") && !strings.Contains(path, "..") {
				t.Errorf("%s: CSP %q", path, csp)
			}
		}
	}
	if res, _ := p.do(t, "DELETE", "/d/x"); res.StatusCode != 405 {
		t.Errorf("DELETE: %d", res.StatusCode)
	}
	if !strings.Contains(p.log.String(), "expired") {
		t.Errorf("log: %s", p.log)
	}
	// Without TLS, or with an old one, there is nothing.
	if res, err := http.Get(strings.Replace(p.url, "https", "http", 1) + "/d/x"); err == nil {
		res.Body.Close()
		if res.StatusCode != 400 {
			t.Errorf("without TLS: %d", res.StatusCode)
		}
	}
	if c, err := tls.Dial("tcp", strings.TrimPrefix(p.url, "https://"), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11}); err == nil {
		c.Close()
		t.Error("TLS 1.1 was spoken")
	}
}

func TestZip(t *testing.T) {
	b, err := download.Zip("alice, adit", "alice", map[string][]byte{"swanctl.conf": []byte("a"), "x509ca/ca.pem": []byte("b")}, []string{"swanctl.conf", "x509ca/ca.pem"})
	if err != nil {
		t.Fatal(err)
	}
	z, err := zip.NewReader(bytes.NewReader(b.Data), int64(len(b.Data)))
	if err != nil || len(z.File) != 2 || z.File[1].Name != "x509ca/ca.pem" || b.Name != "alice.zip" {
		t.Errorf("%v %v", z, err)
	}
}

package pki_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"adit/pki"
	"adit/pki/pkitest"
)

// anywhere lets the tests fetch from loopback, where their servers are.
func anywhere(netip.Addr) bool { return true }

func get(f *pki.HTTPFetcher, url string, limit int) ([]byte, error) {
	return f.Fetch(context.Background(), pki.FetchRequest{Method: "GET", URL: url, Limit: limit})
}

// serve is a server of the test with a fetcher that may reach it.
func serve(t *testing.T, h http.HandlerFunc) (*httptest.Server, *pki.HTTPFetcher) {
	t.Helper()
	f := &pki.HTTPFetcher{AllowAddr: anywhere}
	srv := httptest.NewServer(h)
	t.Cleanup(func() { f.Close(); srv.CloseClientConnections(); srv.Close() })
	return srv, f
}

// TestRevocationFetchAddresses refuses what certificates must not reach (SSRF): this
// host, its link, metadata services; in every spelling.
func TestRevocationFetchAddresses(t *testing.T) {
	for addr, want := range map[string]bool{
		"127.0.0.1": false, "127.9.9.9": false, "::1": false, "0.0.0.0": false, "::": false,
		"169.254.169.254": false, "fe80::1": false, "fe80::1%eth0": false, "224.0.0.1": false, "ff02::1": false,
		"255.255.255.255": false, "::ffff:127.0.0.1": false, "::ffff:169.254.169.254": false, "::127.0.0.1": false,
		"64:ff9b::7f00:1": false, "64:ff9b::c000:201": true, "2002:7f00:1::": false, "2002:c000:201::1": true,
		"fd00:ec2::254": false, "100.100.100.200": false, "2001:0:1::1": false,
		"10.0.0.1": true, "192.168.1.1": true, "172.16.0.1": true, "fd00::1": true, "192.0.2.1": true, "2001:db8::1": true,
	} {
		if got := pki.PublicOrPrivate(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %v", addr, got)
		}
	}
	var hits atomic.Int64
	srv, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) { hits.Add(1); fmt.Fprint(w, "secret") })
	port := srv.URL[strings.LastIndexByte(srv.URL, ':'):]
	var f pki.HTTPFetcher
	defer f.Close()
	for _, host := range []string{"127.0.0.1", "localhost", "0.0.0.0", "[::ffff:127.0.0.1]", "[::1]"} {
		b, err := get(&f, "http://"+host+port+"/", 100)
		if err == nil || b != nil {
			t.Errorf("%s: %q", host, b)
		}
		if !errors.Is(err, pki.ErrAddress) {
			t.Errorf("%s: %v", host, err)
		}
	}
	if hits.Load() != 0 {
		t.Fatal("the server was reached")
	}
	// What the operator configured is.
	b, err := f.Fetch(context.Background(), pki.FetchRequest{Method: "GET", URL: srv.URL, Limit: 100, Configured: true})
	if err != nil || string(b) != "secret" {
		t.Fatalf("configured: %q, %v", b, err)
	}
}

// TestRevocationFetchSchemes fetches http alone, unless https is allowed.
func TestRevocationFetchSchemes(t *testing.T) {
	f := &pki.HTTPFetcher{AllowAddr: anywhere}
	defer f.Close()
	for _, u := range []string{"https://a.example/", "file:///etc/passwd", "ldap://a.example/cn=x", "ftp://a.example/", "gopher://a.example/", "", "a.example/crl", "javascript:1"} {
		if _, err := get(f, u, 100); !errors.Is(err, pki.ErrScheme) {
			t.Errorf("%q: %v", u, err)
		}
	}
	for _, u := range []string{"http:///x", "http://user:pass@a.example/", "http://%zz/", "http://a.example/" + strings.Repeat("x", 3000)} {
		if _, err := get(f, u, 100); err == nil {
			t.Errorf("%.40q was fetched", u)
		}
	}
}

// TestRevocationFetchRedirects follows few redirects, and none to where the URL itself
// couldn't have led.
func TestRevocationFetchRedirects(t *testing.T) {
	var srv *httptest.Server
	srv, f := serve(t, func(w http.ResponseWriter, r *http.Request) {
		var n int
		fmt.Sscanf(r.URL.Path, "/%d", &n)
		switch {
		case r.URL.Path == "/file":
			http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
		case r.URL.Path == "/endless":
			http.Redirect(w, r, "/endless", http.StatusFound)
		case n > 0:
			http.Redirect(w, r, fmt.Sprint("/", n-1), http.StatusMovedPermanently)
		default:
			fmt.Fprint(w, "here")
		}
	})
	for n := range 4 {
		if b, err := get(f, fmt.Sprint(srv.URL, "/", n), 100); err != nil || string(b) != "here" {
			t.Errorf("%d redirects: %q, %v", n, b, err)
		}
	}
	for path, want := range map[string]error{"/4": pki.ErrRedirect, "/endless": pki.ErrRedirect, "/file": pki.ErrScheme} {
		if _, err := get(f, srv.URL+path, 100); !errors.Is(err, want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	// From a configured place to loopback.
	strict := &pki.HTTPFetcher{}
	defer strict.Close()
	_, err := strict.Fetch(context.Background(), pki.FetchRequest{Method: "GET", URL: srv.URL + "/1", Limit: 100, Configured: true})
	if !errors.Is(err, pki.ErrAddress) {
		t.Errorf("redirect to loopback: %v", err)
	}
}

// TestRevocationFetchGiant reads no more than the limit, whatever is announced.
func TestRevocationFetchGiant(t *testing.T) {
	var sent atomic.Int64
	srv, f := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/announced" {
			w.Header().Set("Content-Length", "999999999")
		}
		if r.URL.Path == "/header" {
			w.Header().Set("X", strings.Repeat("x", 1<<20))
		}
		chunk := make([]byte, 1<<16)
		for {
			n, err := w.Write(chunk)
			sent.Add(int64(n))
			if err != nil {
				return
			}
		}
	})
	for _, path := range []string{"/", "/announced"} {
		if _, err := get(f, srv.URL+path, 1<<20); !errors.Is(err, pki.ErrTooLarge) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := get(f, srv.URL+"/header", 1<<20); err == nil {
		t.Error("giant header was taken")
	}
	srv.CloseClientConnections()
	if n := sent.Load(); n > 32<<20 {
		t.Errorf("%d bytes were sent", n)
	}
}

// TestRevocationFetchSlowLoris bounds the total time, also of a body that trickles, and
// of a server that accepts and says nothing.
func TestRevocationFetchSlowLoris(t *testing.T) {
	srv, f := serve(t, func(w http.ResponseWriter, r *http.Request) {
		for {
			if _, err := w.Write([]byte("x")); err != nil {
				return
			}
			w.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	f.Timeout = 300 * time.Millisecond
	for _, u := range []string{srv.URL, "http://" + mute.Addr().String() + "/"} {
		start := time.Now()
		if _, err := get(f, u, 1<<20); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", u, err)
		}
		if took := time.Since(start); took > 8*time.Second {
			t.Errorf("%s: took %v", u, took)
		}
	}
}

// TestRevocationFetchAtOnce bounds the fetches at once from a host.
func TestRevocationFetchAtOnce(t *testing.T) {
	var now, most atomic.Int64
	srv, f := serve(t, func(w http.ResponseWriter, r *http.Request) {
		n := now.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		time.Sleep(20 * time.Millisecond)
		now.Add(-1)
		fmt.Fprint(w, "x")
	})
	f.Timeout = 10 * time.Second
	var wg sync.WaitGroup
	for range 24 {
		wg.Go(func() {
			if _, err := get(f, srv.URL, 10); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if m := most.Load(); m > 4 || m < 2 {
		t.Fatalf("%d at once", m)
	}
}

// TestRevocationOverHTTP fetches a CRL and asks a responder over the network, with
// servers that fail on the way.
func TestRevocationOverHTTP(t *testing.T) {
	mux := http.NewServeMux()
	srv, f := serve(t, mux.ServeHTTP)
	ca := pkitest.NewCA(t, pkitest.Spec{Name: "root"})
	good := ca.Issue(pkitest.Spec{Name: "leaf", CRL: []string{srv.URL + "/404", srv.URL + "/crl"}})
	bad := ca.Issue(pkitest.Spec{Name: "bad", CRL: good.Cert.X509.CRLDistributionPoints})
	asked := ca.Issue(pkitest.Spec{Name: "leaf", OCSP: []string{srv.URL + "/ocsp"}})
	mux.HandleFunc("GET /crl", func(w http.ResponseWriter, _ *http.Request) {
		w.Write(ca.CRL(pkitest.List{Revoked: []*pki.Certificate{bad.Cert}}))
	})
	mux.Handle("POST /ocsp", &pkitest.Responder{CA: ca, Signer: ca.Issue(pkitest.Spec{Name: "ocsp", EKU: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}})})
	s := pki.NewStore(f)
	if err := s.Add(pki.Anchor, ca.Cert); err != nil {
		t.Fatal(err)
	}
	for _, e := range []*pkitest.Entity{good, asked} {
		r := request(e)
		r.Revocation = pki.Strict
		accepted(t, s, r, "leaf root")
	}
	refused(t, s, request(bad), pki.Revoked, srv.URL+"/crl")
	// With a fetcher as certificates get it, loopback isn't reached.
	strict := &pki.HTTPFetcher{}
	defer strict.Close()
	s = pki.NewStore(strict)
	if err := s.Add(pki.Anchor, ca.Cert); err != nil {
		t.Fatal(err)
	}
	r := request(good)
	r.Revocation = pki.IfURI
	refused(t, s, r, pki.RevocationUnknown, "not allowed")
}

// TestGiantCRL refuses a list beyond the limit before it reads it.
func TestGiantCRL(t *testing.T) {
	if _, err := pki.ParseCRL(append([]byte{0x30, 0x84, 0x00, 0x60, 0, 0}, make([]byte, 6<<20)...)); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Fatal(err)
	}
	if _, err := pki.ParseCRL(bytes.Repeat([]byte("-----BEGIN X509 CRL-----\n"), 1<<20)); err == nil {
		t.Fatal("taken")
	}
}

// TestImpatientCaller ends when its context does, without spoiling the fetch for
// others.
func TestImpatientCaller(t *testing.T) {
	sc := newScene(t, pkitest.P256, []string{crlURL}, nil)
	der := sc.ca.CRL(pkitest.List{})
	begun, release := make(chan struct{}, 4), make(chan struct{})
	sc.net.answer[crlURL] = func(pki.FetchRequest) ([]byte, error) {
		begun <- struct{}{}
		<-release
		return der, nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-begun; cancel() }()
	if _, err := sc.store.Verify(ctx, sc.request(pki.Strict)); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	time.AfterFunc(100*time.Millisecond, func() { close(release) })
	accepted(t, sc.store, sc.request(pki.Strict), "leaf root")
	if n := sc.net.fetches(crlURL); n != 1 {
		t.Fatalf("fetched %d times", n)
	}
}

// TestStoreClose ends what is under way.
func TestStoreClose(t *testing.T) {
	srv, f := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	f.Timeout = time.Minute
	ca := pkitest.NewCA(t, pkitest.Spec{Name: "root"})
	s := pki.NewStore(f)
	if err := s.Add(pki.Anchor, ca.Cert); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(100*time.Millisecond, s.Close)
	start := time.Now()
	r := request(ca.Issue(pkitest.Spec{Name: "leaf", CRL: []string{srv.URL}}))
	r.Revocation = pki.Strict
	refused(t, s, r, pki.RevocationUnknown, "canceled")
	if took := time.Since(start); took > 12*time.Second {
		t.Fatalf("took %v", took)
	}
}

package pki

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Errors of the HTTP fetcher, wrapped with more.
var (
	ErrScheme   = errors.New("only http is fetched")
	ErrAddress  = errors.New("address is not allowed for fetching")
	ErrTooLarge = errors.New("answer is too large")
	ErrRedirect = errors.New("too many redirects")
)

// HTTPFetcher fetches over HTTP with limits: in size, in total time, in redirects (each
// checked as the first URL was), in fetches at once. What certificates name can't make
// it reach this host or its link: addresses are checked when they are dialled, after
// resolving, so that DNS can't deceive. Private ranges are allowed, since there the
// responders of companies are. The zero HTTPFetcher is ready; its fields must not be
// changed once it is in use. Close releases idle connections.
type HTTPFetcher struct {
	// HTTPS allows https URLs, too: their certificates are verified by the host's own
	// authorities, which ours must not depend on, so it is off.
	HTTPS bool
	// AllowAddr says which addresses may be dialled for URLs from certificates and for
	// redirects; nil is [PublicOrPrivate]. URLs that the operator configured go
	// anywhere.
	AllowAddr func(netip.Addr) bool
	// Timeout is the total time of a fetch, 10 seconds if zero.
	Timeout time.Duration

	once            sync.Once
	strict, lenient *http.Transport
	mu              sync.Mutex
	hosts           map[string]int // fetches by host
	all             int
	changed         chan struct{} // closed when a fetch ends
}

// PublicOrPrivate allows unicast addresses except loopback, link-local (metadata
// services live there), multicast, reserved ones, and what IPv6 embeds of those.
func PublicOrPrivate(a netip.Addr) bool {
	a = a.Unmap()
	if a.Zone() != "" {
		return false
	}
	for _, p := range forbidden {
		if p.Contains(a) {
			return false
		}
	}
	if a.Is6() {
		b := a.As16()
		switch {
		case nat64.Contains(a):
			return PublicOrPrivate(netip.AddrFrom4([4]byte(b[12:16])))
		case sixToFour.Contains(a):
			return PublicOrPrivate(netip.AddrFrom4([4]byte(b[2:6])))
		}
	}
	return a.IsValid()
}

var (
	nat64     = netip.MustParsePrefix("64:ff9b::/96") // RFC 6052
	sixToFour = netip.MustParsePrefix("2002::/16")    // RFC 3056
	forbidden = prefixes(
		"0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "192.0.0.0/24", "224.0.0.0/4", "240.0.0.0/4", // RFC 6890
		"100.100.100.200/32", "fd00:ec2::254/128", // metadata services outside of link-local
		"::/96", "fe80::/10", "fec0::/10", "ff00::/8", "64:ff9b:1::/48", "100::/64",
		"2001::/32", // Teredo
	)
)

func prefixes(list ...string) (ps []netip.Prefix) {
	for _, s := range list {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

// init makes the transports.
func (f *HTTPFetcher) init() {
	allow := f.AllowAddr
	if allow == nil {
		allow = PublicOrPrivate
	}
	transport := func(control func(network, address string, c syscall.RawConn) error) *http.Transport {
		d := net.Dialer{Timeout: f.timeout(), Control: control, KeepAlive: -1}
		return &http.Transport{
			Proxy: nil, DialContext: d.DialContext, DisableCompression: true,
			MaxIdleConns: maxFetches, MaxIdleConnsPerHost: 1, MaxConnsPerHost: maxPerHost, IdleConnTimeout: 5 * time.Second,
			MaxResponseHeaderBytes: maxHeaderBytes, ResponseHeaderTimeout: f.timeout(),
			TLSHandshakeTimeout: f.timeout(),
		}
	}
	f.lenient = transport(nil)
	f.strict = transport(func(_, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil || !allow(ap.Addr()) {
			return fmt.Errorf("%w: %s", ErrAddress, address)
		}
		return nil
	})
	f.hosts, f.changed = map[string]int{}, make(chan struct{})
}

func (f *HTTPFetcher) timeout() time.Duration {
	if f.Timeout > 0 {
		return f.Timeout
	}
	return fetchTimeout
}

// Close releases idle connections.
func (f *HTTPFetcher) Close() {
	f.once.Do(f.init)
	f.strict.CloseIdleConnections()
	f.lenient.CloseIdleConnections()
}

// Fetch implements [Fetcher].
func (f *HTTPFetcher) Fetch(ctx context.Context, r FetchRequest) ([]byte, error) {
	f.once.Do(f.init)
	ctx, cancel := context.WithTimeout(ctx, f.timeout())
	defer cancel()
	target, transport := r.URL, f.strict
	if r.Configured {
		transport = f.lenient
	}
	for range maxRedirects + 1 {
		body, next, err := f.hop(ctx, transport, target, r)
		if err != nil || next == "" {
			return body, err
		}
		// Where a redirect leads is not what the operator wrote.
		target, transport = next, f.strict
	}
	return nil, fmt.Errorf("%w: more than %d", ErrRedirect, maxRedirects)
}

// hop does one request. next is where it is redirected to.
func (f *HTTPFetcher) hop(ctx context.Context, transport *http.Transport, target string, r FetchRequest) (body []byte, next string, err error) {
	u, err := f.parse(target)
	if err != nil {
		return nil, "", err
	}
	release, err := f.acquire(ctx, u.Host)
	if err != nil {
		return nil, "", err
	}
	defer release()
	req, err := http.NewRequestWithContext(ctx, r.Method, u.String(), bytes.NewReader(r.Body))
	if err != nil {
		return nil, "", err
	}
	req.Header.Set("User-Agent", "adit")
	if r.ContentType != "" {
		req.Header.Set("Content-Type", r.ContentType)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		to, err := resp.Location()
		if err != nil {
			return nil, "", err
		}
		return nil, to.String(), nil
	default:
		return nil, "", fmt.Errorf("server answers %d", resp.StatusCode)
	}
	if resp.ContentLength > int64(r.Limit) {
		return nil, "", fmt.Errorf("%w: %d bytes, at most %d are read", ErrTooLarge, resp.ContentLength, r.Limit)
	}
	body, err = io.ReadAll(io.LimitReader(resp.Body, int64(r.Limit)+1))
	if err != nil {
		return nil, "", err
	}
	if len(body) > r.Limit {
		return nil, "", fmt.Errorf("%w: at most %d bytes are read", ErrTooLarge, r.Limit)
	}
	return body, "", nil
}

// parse checks a URL.
func (f *HTTPFetcher) parse(target string) (*url.URL, error) {
	if len(target) > maxURLBytes {
		return nil, fmt.Errorf("%w: URL of %d bytes", ErrTooLarge, len(target))
	}
	u, err := url.Parse(target)
	if err != nil {
		return nil, err
	}
	if s := strings.ToLower(u.Scheme); s != "http" && (s != "https" || !f.HTTPS) {
		return nil, fmt.Errorf("%w, not %s", ErrScheme, printable(u.Scheme))
	}
	if u.Host == "" || u.User != nil {
		return nil, errors.New("URL without a host, or with a user")
	}
	return u, nil
}

// acquire waits until a fetch from host may begin.
func (f *HTTPFetcher) acquire(ctx context.Context, host string) (release func(), err error) {
	host = strings.ToLower(host)
	for {
		f.mu.Lock()
		if f.hosts[host] < maxPerHost && f.all < maxFetches {
			f.hosts[host]++
			f.all++
			f.mu.Unlock()
			return func() { f.release(host) }, nil
		}
		changed := f.changed
		f.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for other fetches: %w", ctx.Err())
		case <-changed:
		}
	}
}

func (f *HTTPFetcher) release(host string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.hosts[host]--; f.hosts[host] == 0 {
		delete(f.hosts, host)
	}
	f.all--
	close(f.changed)
	f.changed = make(chan struct{})
}

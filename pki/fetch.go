package pki

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// FetchRequest is what a [Fetcher] is asked for.
type FetchRequest struct {
	Method, URL string
	// ContentType and Body are sent with POST.
	ContentType string
	Body        []byte
	// Limit is the largest body of an answer, in bytes; a larger one is an error.
	Limit int
	// Configured says that the operator named the URL; otherwise a certificate did.
	Configured bool
}

// Fetcher gets CRLs and OCSP responses. It is called by many goroutines at once, and
// must end when ctx does.
type Fetcher interface {
	Fetch(ctx context.Context, r FetchRequest) ([]byte, error)
}

// errNoFetcher is the answer of a store that fetches nothing.
var errNoFetcher = errors.New("fetching is switched off")

// online fetches for a store, and remembers.
type online struct {
	fetcher Fetcher
	flights singleflight.Group
	// life ends with end: what is under way then fails.
	life context.Context
	end  context.CancelFunc

	mu       sync.Mutex
	crls     map[string]*CRL // by URL
	crlBytes int
	statuses map[ocspKey]status
	failures map[uri]failure
	epoch    uint64 // counts flushes: what was under way isn't kept
}

// failure is a fetch that failed.
type failure struct {
	until time.Time
	err   error
}

func newOnline(f Fetcher) *online {
	o := &online{fetcher: f}
	o.life, o.end = context.WithCancel(context.Background())
	o.flush()
	return o
}

// flush forgets everything.
func (o *online) flush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.crls, o.crlBytes = map[string]*CRL{}, 0
	o.statuses, o.failures = map[ocspKey]status{}, map[uri]failure{}
	o.epoch++
}

func (o *online) cachedCRLs() (list []*CRL) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, url := range slices.Sorted(maps.Keys(o.crls)) {
		list = append(list, o.crls[url])
	}
	return list
}

// ocsp is a status that is cached.
func (o *online) ocsp(key ocspKey, now time.Time) (status, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	st, ok := o.statuses[key]
	if ok && now.After(st.until) {
		delete(o.statuses, key)
		ok = false
	}
	return st, ok
}

// keepOCSP caches a status.
func (o *online) keepOCSP(key ocspKey, st status) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.statuses) >= maxCachedOCSP {
		for k := range o.statuses { // any: all can be asked for again
			delete(o.statuses, k)
			break
		}
	}
	o.statuses[key] = st
}

// fetch fetches, unless the same place failed a short while ago.
func (o *online) fetch(ctx context.Context, r FetchRequest, now time.Time) ([]byte, error) {
	if o.fetcher == nil {
		return nil, errNoFetcher
	}
	if err := o.failed(uri{r.URL, r.Configured}, now); err != nil {
		return nil, err
	}
	b, err := o.fetcher.Fetch(ctx, r)
	if err == nil && len(b) > r.Limit {
		err = fmt.Errorf("answer of %d bytes, at most %d are read", len(b), r.Limit)
	}
	if err != nil {
		if ctx.Err() == nil { // else it's the caller who had no time
			o.fail(uri{r.URL, r.Configured}, err, now)
		}
		return nil, err
	}
	return b, nil
}

// failed is the error of a fetch that failed a short while ago.
func (o *online) failed(u uri, now time.Time) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	f, ok := o.failures[u]
	if !ok {
		return nil
	}
	// Of verifications at other times nothing is known.
	if left := f.until.Sub(now); left <= 0 || left > failureHold {
		return nil
	}
	return fmt.Errorf("failed a short while ago: %w", f.err)
}

func (o *online) fail(u uri, err error, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.failures) >= maxFailures {
		for any := range o.failures {
			delete(o.failures, any)
			break
		}
	}
	o.failures[u] = failure{now.Add(failureHold), err}
}

// share does f once for all who ask for the same key at the same time. The time of f
// is its own, so that one impatient caller doesn't spoil it for others.
func share[T any](ctx context.Context, o *online, key string, f func(context.Context) (T, error)) (T, error) {
	done := o.flights.DoChan(key, func() (_ any, err error) {
		// It runs on a goroutine of its own, whose panic nobody else would catch.
		defer func() {
			if r := recover(); r != nil {
				err = fmt.Errorf("bug: %v", r)
			}
		}()
		ctx, cancel := context.WithTimeout(o.life, revocationTimeout)
		defer cancel()
		return f(ctx)
	})
	var none T
	select {
	case <-ctx.Done():
		return none, ctx.Err()
	case r := <-done:
		if r.Err != nil {
			return none, r.Err
		}
		return r.Val.(T), nil
	}
}

// crl is the CRL of a place, cached until it is stale. It is verified before it is
// kept, so that a forged one is never served from the cache. Beside an error it may be
// a stale one.
func (o *online) crl(ctx context.Context, u uri, issuer *Certificate, now time.Time) (*CRL, error) {
	o.mu.Lock()
	l, epoch := o.crls[u.url], o.epoch
	o.mu.Unlock()
	if l != nil && l.fresh(now) == nil && l.checkIssuer(issuer) == nil {
		return l, nil
	}
	// The place may be named by two issuers; what one gets is no good for the other.
	key := fmt.Sprintf("crl %d %v %x %s", epoch, u.configured, issuer.Fingerprint, u.url)
	l, err := share(ctx, o, key, func(ctx context.Context) (*CRL, error) {
		return o.fetchCRL(ctx, u, issuer, now, epoch)
	})
	if err != nil {
		o.mu.Lock()
		l = o.crls[u.url]
		o.mu.Unlock()
	}
	return l, err
}

func (o *online) fetchCRL(ctx context.Context, u uri, issuer *Certificate, now time.Time, epoch uint64) (*CRL, error) {
	b, err := o.fetch(ctx, FetchRequest{Method: "GET", URL: u.url, Limit: maxCRLBytes, Configured: u.configured}, now)
	if err != nil {
		return nil, err
	}
	l, err := ParseCRL(b)
	if err == nil {
		err = l.checkIssuer(issuer)
	}
	if err == nil && l.Base != nil {
		err = errors.New("CRL is a delta, a complete one is needed")
	}
	if err != nil {
		o.fail(u, err, now)
		return nil, err
	}
	l.forget()
	err = l.fresh(now)
	o.keepCRL(u.url, l, epoch, err == nil)
	if err != nil {
		o.fail(u, err, now)
		return nil, err
	}
	return l, nil
}

// keepCRL caches a verified CRL within the bounds. One that isn't fresh doesn't
// displace a newer one, so that a replay brings nobody back.
func (o *online) keepCRL(url string, l *CRL, epoch uint64, fresh bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if old := o.crls[url]; old != nil && !fresh && old.newer(l) {
		return
	}
	if o.epoch != epoch || l.size > maxCachedCRLBytes {
		return
	}
	drop := func(u string) {
		if old := o.crls[u]; old != nil {
			o.crlBytes -= old.size
			delete(o.crls, u)
		}
	}
	drop(url)
	for u := range o.crls {
		if len(o.crls) < maxCachedCRLs && o.crlBytes+l.size <= maxCachedCRLBytes {
			break
		}
		drop(u)
	}
	o.crls[url] = l
	o.crlBytes += l.size
}

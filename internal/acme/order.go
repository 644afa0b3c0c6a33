package acme

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"

	"adit/internal/ca"
	"adit/internal/config"
)

// Limits of what an authority may do.
const (
	callTimeout  = 30 * time.Second // one request
	pollTimeout  = 2 * time.Minute  // until it has validated or issued
	orderTimeout = 5 * time.Minute  // all of it
	maxBody      = 1 << 20
	maxReason    = 400 // characters of its words
)

// calls bounds what the authority answers, and remembers for how long it wants to be
// left alone.
type calls struct {
	http.RoundTripper
	again atomic.Int64 // nanoseconds
}

// RoundTrip makes one request, over TLS.
func (t *calls) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" { // RFC 8555 §6.1; a directory or a redirect may say otherwise
		return nil, fmt.Errorf("%s is not https, which ACME is", r.URL.Redacted())
	}
	resp, err := t.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusServiceUnavailable {
		d := time.Duration(0)
		if n, err := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 31); err == nil {
			d = time.Duration(n) * time.Second
		} else if at, err := http.ParseTime(resp.Header.Get("Retry-After")); err == nil {
			d = time.Until(at)
		}
		t.again.Store(int64(min(max(d, 0), waitLimit)))
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxBody), resp.Body}
	return resp, nil
}

func (k *Keeper) client(c config.ACME) (*acme.Client, *calls, error) {
	tr := http.DefaultTransport.(*http.Transport).Clone()
	tr.DisableKeepAlives = true // the next request may be months away
	tr.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CACert != "" {
		b, err := readFile(c.CACert)
		if err != nil {
			return nil, nil, err
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(b) {
			return nil, nil, fmt.Errorf("%s: no certificate in PEM", c.CACert)
		}
		tr.TLSClientConfig.RootCAs = pool
	}
	t := &calls{RoundTripper: tr}
	return &acme.Client{Directory: c.Directory, HTTPClient: &http.Client{Transport: t, Timeout: callTimeout}, UserAgent: "adit/" + k.o.Version, PollTimeout: pollTimeout}, t, nil
}

// obtain orders a certificate with a new key (RFC 8555 §7.1); old is the one that it
// replaces, if any. again is how long the authority wants to be left alone.
func (k *Keeper) obtain(ctx context.Context, c config.ACME, old *x509.Certificate) (id Identity, again time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, orderTimeout)
	defer cancel()
	client, t, err := k.client(c)
	if err != nil {
		return id, 0, err
	}
	defer func() { again = time.Duration(t.again.Load()) }()
	dir, err := client.GetDirectory(ctx)
	if err != nil {
		return id, 0, err
	}
	account, err := k.account(ctx, c, client, dir)
	if err != nil {
		return id, 0, err
	}
	key, err := ca.NewKey(c.Key)
	if err != nil {
		return id, 0, err
	}
	if dir.RenewalInfo == "" {
		old = nil
	}
	chains, err := order(ctx, c, client, account, key, old)
	if old != nil && refusesOld(err) {
		chains, err = order(ctx, c, client, account, key, nil)
	}
	if err != nil {
		return id, 0, err
	}
	if len(chains) == 0 {
		return id, 0, errors.New("the authority sent no certificate")
	}
	id, err = identity(chains[0].ChainPEM, key)
	if err == nil {
		err = fits(id.Chain[0].X509, c, time.Now())
	}
	return id, 0, err
}

// refusesOld says whether an order may have failed because the authority does not know
// the certificate that it was to replace.
func refusesOld(err error) bool {
	var p acme.Problem
	return errors.As(err, &p) && (p.Type == acme.ProblemTypeMalformed || p.Type == acme.ProblemTypeNamespace+"conflict" || p.Type == acme.ProblemTypeServerInternal) && strings.HasPrefix(err.Error(), "creating new order")
}

// fits refuses a certificate that is not what was ordered.
func fits(x *x509.Certificate, c config.ACME, now time.Time) error {
	for _, d := range c.Domains {
		if err := x.VerifyHostname(d); err != nil {
			return fmt.Errorf("the authority issued a certificate without the name %s", d)
		}
	}
	if now.After(x.NotAfter) {
		return fmt.Errorf("the authority issued a certificate that ended on %s; is the clock right?", x.NotAfter.Format(time.RFC3339))
	}
	return nil
}

// account is our account at the authority, which is made if there is none (§7.3).
func (k *Keeper) account(ctx context.Context, c config.ACME, client *acme.Client, dir acme.Directory) (acme.Account, error) {
	key, fresh, err := k.accountKey(c)
	if err != nil {
		return acme.Account{}, err
	}
	a := acme.Account{PrivateKey: key}
	if !fresh {
		found, err := client.GetAccount(ctx, a)
		var p acme.Problem
		if err == nil || !errors.As(err, &p) || p.Type != acme.ProblemTypeAccountDoesNotExist {
			return found, err
		}
	}
	if c.Email != "" {
		a.Contact = []string{"mailto:" + c.Email}
	}
	if m := dir.Meta; m != nil {
		if m.TermsOfService != "" && !c.AgreeTOS {
			return a, fmt.Errorf("the authority has terms of service, %s: read them, then set agree_tos = yes", m.TermsOfService)
		}
		if m.ExternalAccountRequired && c.EABKeyID == "" {
			return a, errors.New("the authority takes nobody without an account there: set eab_kid and eab_key")
		}
	}
	a.TermsOfServiceAgreed = c.AgreeTOS
	if c.EABKeyID != "" {
		eab := acme.EAB{KeyID: c.EABKeyID, MACKey: base64.RawURLEncoding.EncodeToString(c.EABKey)}
		if err := a.SetExternalAccountBinding(ctx, client, eab); err != nil {
			return a, err
		}
	}
	return client.NewAccount(ctx, a)
}

func order(ctx context.Context, c config.ACME, client *acme.Client, account acme.Account, key crypto.Signer, old *x509.Certificate) ([]acme.Certificate, error) {
	csr, err := acmez.NewCSR(key, c.Domains)
	if err != nil {
		return nil, err
	}
	params, err := acmez.OrderParametersFromCSR(account, csr)
	if err != nil {
		return nil, err
	}
	params.Profile, params.Replaces = c.Profile, old
	r := newResponder(c)
	defer r.close()
	high := acmez.Client{Client: client, ChallengeSolvers: map[string]acmez.Solver{c.Challenge: r}}
	return high.ObtainCertificate(ctx, params)
}

// noise is what the library says of itself.
var noise = regexp.MustCompile(`(provisioning client|creating new order|performing request|solving challenges|presenting for challenge|fetching new nonce from server): | \(order=[^)]*\)$`)

// reason is an error in words: the authority's own, if it said something.
func reason(err error) string {
	var p acme.Problem
	if !errors.As(err, &p) {
		return printable(noise.ReplaceAllString(err.Error(), ""))
	}
	who := ""
	if a, ok := p.Resource.(acme.Authorization); ok {
		who = a.IdentifierValue() + ": "
	}
	kind := strings.TrimPrefix(p.Type, acme.ProblemTypeNamespace)
	text := who + p.Detail + " (" + kind + ")"
	if kind == "rateLimited" {
		text = "the authority limits how often it may be asked: " + text
	}
	for _, s := range p.Subproblems[:min(len(p.Subproblems), 5)] {
		text += "; " + s.Identifier.Value + ": " + s.Detail
	}
	return printable(text)
}

// printable is a stranger's text on one line, bounded.
func printable(s string) string {
	r := []rune(strings.ToValidUTF8(s, "?"))
	if len(r) > maxReason {
		r = append(slices.Clone(r[:maxReason]), '…')
	}
	for i, c := range r {
		if !unicode.IsPrint(c) {
			r[i] = ' '
		}
	}
	return string(r)
}

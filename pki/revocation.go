package pki

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"
)

// status is what is known about the revocation of a certificate.
type status struct {
	kind   statusKind
	until  time.Time // when that ends
	at     time.Time // of revocation
	reason int
	from   string // for people
	// named says that there was a place to ask: a URI, configured or in the
	// certificate; err why it had no answer.
	named bool
	err   error
	// stale marks a revocation by a stale list: a fresh answer outweighs it.
	stale bool
}

type statusKind uint8

const (
	statusUnknown statusKind = iota
	statusGood
	statusRevoked
)

// checkRevocation checks every certificate of a chain that is trusted otherwise, from
// the anchor down: what a CA's certificate names is fetched only after the CA above
// has vouched for it, and URIs of an untrusted certificate never are (CVE-2022-40617).
func (v *verification) checkRevocation(ctx context.Context, chain Chain) error {
	// Servers that don't answer must not use up the caller's time where their answer
	// isn't indispensable.
	budget, cancel := context.WithTimeout(ctx, revocationTimeout)
	defer cancel()
	for i := len(chain) - 2; i >= 0; i-- {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		c, issuer := chain[i], chain[i+1]
		key := statusKey(c, issuer)
		st, known := v.statuses[key]
		if !known {
			st = v.status(budget, c, issuer)
			v.statuses[key] = st
		}
		switch {
		case st.kind == statusRevoked:
			return &VerifyError{Reason: Revoked, Cert: c, RevokedAt: st.at, RevokedFor: reasonName(st.reason), Err: errors.New("by " + st.from)}
		case st.kind == statusGood:
			v.trace("revocation of %q: good by %s, until %s", c.Subject(), st.from, stamp(st.until))
		case v.Revocation == Strict, v.Revocation == IfURI && st.named:
			if st.err == nil {
				st.err = errors.New("neither a CRL nor an OCSP responder is known for it")
			}
			return refuse(c, RevocationUnknown, st.err)
		case st.err == nil:
			v.trace("revocation of %q: nowhere to ask, which is tolerated", c.Subject())
		default:
			v.trace("revocation of %q: unknown, which is tolerated: %v", c.Subject(), st.err)
		}
	}
	return nil
}

// status is what is known about c: stored CRLs that revoke it, then OCSP (sent along,
// cached, fetched), then CRLs (stored, cached, fetched).
func (v *verification) status(ctx context.Context, c, issuer *Certificate) status {
	crlURIs, ocspURIs := v.store.configured(issuer)
	leave := v.store.leave
	sources := sources{crls: uris(crlURIs, c.X509.CRLDistributionPoints), ocsps: uris(ocspURIs, c.X509.OCSPServer)}
	var stored status
	if !leave.CRL {
		stored = v.storedCRLs(c, issuer)
	}
	if stored.kind == statusRevoked && !stored.stale {
		return stored
	}
	var asked []func() status
	if !leave.OCSP {
		asked = append(asked, func() status { return v.stapled(c, issuer) }, func() status { return v.onlineOCSP(ctx, c, issuer, sources.ocsps) })
	}
	if !leave.CRL {
		asked = append(asked, func() status { return stored }, func() status { return v.onlineCRLs(ctx, c, issuer, sources.crls) })
	}
	answer := status{named: len(sources.crls)+len(sources.ocsps) > 0}
	var unknown error
	for _, ask := range asked {
		st := ask()
		if st.kind != statusUnknown && !st.stale {
			return st
		}
		if st.stale {
			answer = st
		}
		if st.err != nil {
			v.trace("revocation of %q: %v", c.Subject(), st.err)
			unknown = errors.Join(unknown, st.err)
		}
	}
	answer.err = unknown
	return answer
}

// uri is a place to ask, and whether the operator named it.
type uri struct {
	url        string
	configured bool
}

type sources struct{ crls, ocsps []uri }

// uris are the places to ask: configured ones first, each once, bounded.
func uris(configured, certified []string) (list []uri) {
	seen := map[string]bool{}
	for i, us := range [][]string{configured, certified} {
		n := 0
		for _, u := range us {
			if !seen[u] && n < maxURIs {
				seen[u] = true
				list = append(list, uri{u, i == 0})
				n++
			}
		}
	}
	return list
}

// storedCRLs asks the CRLs of files.
func (v *verification) storedCRLs(c, issuer *Certificate) status {
	return v.judge(c, issuer, v.store.crlsOf(issuer), "stored CRL")
}

// judge is what lists say about c; the newest that is usable counts, with the deltas
// that improve it. A stale list says nothing good any more, but whom it revokes stays
// revoked as long as there is no fresh one: keeping the next list away helps nobody.
func (v *verification) judge(c, issuer *Certificate, lists []*CRL, from string) status {
	var best, stale *CRL
	var err error
	usable := lists[:0:0]
	for _, l := range lists {
		e := l.checkIssuer(issuer)
		if e == nil && !l.covers(c) {
			e = errors.New("CRL doesn't cover the certificate")
		}
		if e == nil {
			e = l.fresh(v.now)
			if e != nil && l.Base == nil && v.now.After(l.ThisUpdate) && (stale == nil || l.newer(stale)) {
				stale = l
			}
		}
		if e != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", from, e))
			continue
		}
		usable = append(usable, l)
		if l.Base == nil && (best == nil || l.newer(best)) {
			best = l
		}
	}
	if best == nil {
		if stale != nil {
			if entry, found := stale.find(c); found && entry.reason != removeFromCRL {
				st := entry.status("stale " + from)
				st.stale, st.err = true, err
				return st
			}
		}
		return status{err: err}
	}
	newest := best
	for _, l := range usable {
		if l.improves(best) && l.newer(newest) {
			newest = l
		}
	}
	entry, found := newest.find(c)
	if !found && newest != best {
		entry, found = best.find(c)
	}
	if found && entry.reason != removeFromCRL {
		return entry.status(from)
	}
	return status{kind: statusGood, until: newest.NextUpdate, from: fmt.Sprintf("%s of %q", from, best.Issuer)}
}

// status is that of a certificate with this entry.
func (r revocation) status(from string) status {
	return status{kind: statusRevoked, at: time.Unix(r.at, 0), reason: int(r.reason), from: from}
}

// stapled asks the OCSP responses that came with the certificate. They are as fresh as
// they say; a nonce means nothing in them.
func (v *verification) stapled(c, issuer *Certificate) (answer status) {
	for i, der := range v.OCSP {
		if i == maxStapled {
			break
		}
		st, err := openOCSP(der, nil, c, issuer, v.now)
		if err != nil {
			answer.err = errors.Join(answer.err, fmt.Errorf("OCSP response of the peer: %w", err))
			continue
		}
		if st.from = "an OCSP response of the peer"; st.kind == statusRevoked {
			return st
		}
		answer = st
	}
	return answer
}

// openOCSP verifies a response about c. nonce is what was asked with, nil for nothing.
// A response without a nonce is taken, since many responders sign in advance: its
// times bound a replay.
func openOCSP(der, nonce []byte, c, issuer *Certificate, now time.Time) (status, error) {
	r, err := ParseOCSPResponse(der)
	if err != nil {
		return status{}, err
	}
	if nonce != nil && r.nonce != nil && !bytes.Equal(nonce, r.nonce) {
		return status{}, errors.New("OCSP response answers another request: its nonce differs")
	}
	// What is cheap to refuse comes before the signature.
	st, err := r.find(c, issuer, now)
	if err != nil {
		return status{}, err
	}
	return st, r.verify(issuer, now)
}

// onlineOCSP asks the cache, then the responders.
func (v *verification) onlineOCSP(ctx context.Context, c, issuer *Certificate, from []uri) status {
	key := statusKey(c, issuer)
	if st, ok := v.store.online.ocsp(key, v.now); ok {
		return st
	}
	var answer status
	for _, u := range from {
		st, err := v.sharedOCSP(ctx, key, u, c, issuer)
		if err == nil {
			return st
		}
		answer.err = errors.Join(answer.err, fmt.Errorf("%s: %w", u.url, err))
	}
	return answer
}

// sharedOCSP asks one responder; who asks at the same time shares the answer, which
// the first one's ctx doesn't end.
func (v *verification) sharedOCSP(ctx context.Context, key ocspKey, u uri, c, issuer *Certificate) (status, error) {
	o, now := v.store.online, v.now
	return share(ctx, o, fmt.Sprintf("ocsp %x %v %s", key, u.configured, u.url), func(ctx context.Context) (status, error) {
		st, err := o.askOCSP(ctx, u, c, issuer, now)
		if err == nil {
			st.from = "OCSP from " + u.url
			o.keepOCSP(key, st)
		}
		return st, err
	})
}

func (o *online) askOCSP(ctx context.Context, u uri, c, issuer *Certificate, now time.Time) (status, error) {
	req, nonce, err := newOCSPRequest(c, issuer)
	if err != nil {
		return status{}, err
	}
	body, err := o.fetch(ctx, FetchRequest{Method: "POST", URL: u.url, ContentType: "application/ocsp-request",
		Body: req, Limit: maxOCSPBytes, Configured: u.configured}, now)
	if err != nil {
		return status{}, err
	}
	return openOCSP(body, nonce, c, issuer, now)
}

// onlineCRLs asks the cache and the distribution points.
func (v *verification) onlineCRLs(ctx context.Context, c, issuer *Certificate, from []uri) (answer status) {
	for _, u := range from {
		l, err := v.store.online.crl(ctx, u, issuer, v.now)
		if err != nil {
			answer.err = errors.Join(answer.err, fmt.Errorf("%s: %w", u.url, err))
		}
		if l == nil {
			continue
		}
		st := v.judge(c, issuer, []*CRL{l}, "CRL from "+u.url)
		if st.kind != statusUnknown && !st.stale {
			return st
		}
		st.err = errors.Join(answer.err, st.err)
		if answer.stale {
			answer.err = st.err
		} else {
			answer = st
		}
	}
	return answer
}

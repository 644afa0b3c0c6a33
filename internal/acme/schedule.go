package acme

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"adit/internal/config"
)

// When certificates are renewed, and attempts that failed are made again.
const (
	askEvery  = 6 * time.Hour // the authority, when to renew, if it says nothing else (RFC 9773 §4.3.2)
	askLeast  = time.Minute
	askMost   = 24 * time.Hour
	firstWait = 5 * time.Minute  // after the authority has refused; Let's Encrypt bears five an hour
	soonWait  = 30 * time.Second // when it was not reached: the network may be just coming up
	mostWait  = 12 * time.Hour
	waitLimit = 7 * 24 * time.Hour // what an authority may ask for
)

// leastWait bounds how often a certificate is looked at; tests have less patience.
var leastWait = 10 * time.Second

// state is what is to be known of a certificate beside itself, in a file.
type state struct {
	Serial    string    `json:"serial,omitempty"` // of the certificate that is meant
	Directory string    `json:"directory,omitempty"`
	Settings  string    `json:"settings,omitempty"` // a hash: attempts that failed with others say nothing
	Renew     time.Time `json:"renew,omitzero"`     // when
	Start     time.Time `json:"start,omitzero"`     // the authority's window, that Renew is in
	End       time.Time `json:"end,omitzero"`
	Ask       time.Time `json:"ask,omitzero"` // when to ask for the window again
	Failures  int       `json:"failures,omitempty"`
	Failed    time.Time `json:"failed,omitzero"`
	Error     string    `json:"error,omitempty"`
	Next      time.Time `json:"next,omitzero"` // no attempt before
}

// renewal is when a certificate is renewed of which the authority says nothing: at two
// thirds of its life, somewhat earlier by chance.
func renewal(c *x509.Certificate) time.Time {
	life := c.NotAfter.Sub(c.NotBefore)
	return c.NotBefore.Add(life*2/3 - part(life/50)).UTC()
}

// part is a random part of a span.
func part(d time.Duration) time.Duration { return time.Duration(rand.Float64() * float64(d)) }

// due is when a certificate is to be had or renewed: now, if there is none, or one of
// another authority or of other names.
func (st *state) due(c config.ACME, id *Identity, now time.Time) time.Time {
	if id == nil || st.Directory != "" && st.Directory != c.Directory {
		return now
	}
	x := id.Chain[0].X509
	names := slices.Clone(x.DNSNames)
	for i := range names {
		names[i] = strings.ToLower(names[i])
	}
	slices.Sort(names)
	if !slices.Equal(names, c.Domains) {
		return now
	}
	if st.Serial != id.Chain[0].Serial() || st.Renew.IsZero() {
		st.Serial, st.Directory, st.Renew = id.Chain[0].Serial(), c.Directory, renewal(x)
		st.Start, st.End, st.Ask = time.Time{}, time.Time{}, time.Time{}
	}
	return st.Renew
}

// settings forgets failures with other settings: whoever has changed them need not wait.
func (st *state) settings(c config.ACME) {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q %q %q %q %q %q %q %v", c.Domains, c.Directory, c.Email, c.CACert, c.Challenge, c.Listen, c.Key, c.Profile, c.EABKeyID, []byte(c.EABKey), c.AgreeTOS))
	if now := hex.EncodeToString(sum[:16]); st.Settings != now {
		st.Settings, st.Failures, st.Failed, st.Error, st.Next = now, 0, time.Time{}, "", time.Time{}
	}
}

// next is when to look again.
func (st *state) next(due time.Time) time.Time {
	if due.Before(st.Next) {
		due = st.Next
	}
	if !st.Ask.IsZero() && st.Ask.Before(due) {
		return st.Ask
	}
	return due
}

// replaces is the certificate that an order is to replace (RFC 9773 §5): one of the same
// authority.
func (st *state) replaces(c config.ACME, id *Identity) *x509.Certificate {
	if id == nil || st.Directory != c.Directory || st.Serial != id.Chain[0].Serial() {
		return nil
	}
	return id.Chain[0].X509
}

// askWhen asks the authority when to renew (RFC 9773 §4.2). The time is chosen anew
// only when the window is another, and is never so late that nothing could go wrong.
func (k *Keeper) askWhen(ctx context.Context, c config.ACME, st *state, id *Identity, due time.Time) time.Time {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	now := time.Now()
	st.Ask = now.Add(askEvery).UTC()
	client, _, err := k.client(c)
	if err != nil {
		return due
	}
	x := id.Chain[0].X509
	info, err := client.GetRenewalInfo(ctx, x)
	if err != nil {
		if !errors.Is(err, acme.ErrUnsupported) {
			k.o.Log.Debug("the authority does not tell when to renew: "+reason(err), "certificate", c.Name)
		}
		return due
	}
	if r := info.RetryAfter; r != nil {
		st.Ask = now.Add(min(max(r.Sub(now), askLeast), askMost)).UTC()
	}
	w := info.SuggestedWindow
	if w.Start.Equal(st.Start) && w.End.Equal(st.End) {
		return due
	}
	st.Start, st.End, st.Renew = w.Start, w.End, info.SelectedTime.UTC()
	if last := x.NotAfter.Add(-x.NotAfter.Sub(x.NotBefore) / 10); st.Renew.After(last) {
		st.Renew = last.UTC()
	}
	if info.ExplanationURL != "" {
		k.o.Log.Info("the authority says why it wants the certificate renewed: "+printable(info.ExplanationURL), "certificate", c.Name)
	}
	return st.Renew
}

// backoff is how long to wait after so many failures: twice as long each time, by
// chance a quarter more or less, and at most a quarter of what the old certificate has
// left, so that a short trouble does not become a long one.
func backoff(first time.Duration, failures int, left time.Duration) time.Duration {
	most := min(mostWait, max(left/4, time.Hour))
	d := most
	if n := failures - 1; n < 12 {
		d = min(first<<n, most)
	}
	return d*3/4 + part(d/2)
}

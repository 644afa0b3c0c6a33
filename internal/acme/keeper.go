// Package acme gets the gateway's certificates from an authority by ACME (RFC 8555),
// and renews them in time.
//
// It owns the account at the authority, the answers to its challenges, the files in the
// state directory and the times of renewal (RFC 9773 where the authority knows it). It
// must not know connections or SAs: who uses a certificate is told of it ([Options.Use]).
//
// Start with [Keeper].
package acme

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"sync"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"adit/conf"
	"adit/internal/config"
)

// Options of a Keeper. Its functions are called from its goroutines.
type Options struct {
	Dir     string // config.Daemon.ACMEDir
	Version string // of the program, for the authority
	Log     *slog.Logger
	Use     func(name string, id Identity)            // this is the certificate from now on
	Forget  func(name string)                         // the configuration has it no more
	Trouble func(c config.ACME, why string, has bool) // it could not be had or renewed; has: an old one counts
}

// Keeper keeps the certificates of a configuration: each has a goroutine that waits
// until it is due. They come one at a time, since challenges may be answered at one port.
type Keeper struct {
	o    Options
	busy chan struct{} // holds a token while a certificate is worked on

	mu     sync.Mutex
	certs  map[string]*keeping
	order  []string
	closed bool
}

type keeping struct {
	cfg    config.ACME
	cancel context.CancelFunc
	done   chan struct{}
	kick   chan struct{} // look again
	used   [32]byte      // fingerprint of the certificate that Use was called with
}

// Status is how things are with one certificate.
type Status struct {
	Name     string
	Domains  []string
	Serial   string // empty: there is none
	NotAfter time.Time
	Renew    time.Time // when it is due
	Failed   time.Time // zero: the last attempt did not fail
	Error    string
	Next     time.Time // the next attempt after a failure
}

// New makes a Keeper that keeps nothing yet.
func New(o Options) *Keeper {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Keeper{o: o, busy: make(chan struct{}, 1), certs: map[string]*keeping{}}
}

// Configure keeps these certificates and no others. What is in the files is used when
// it returns; what is due comes later.
func (k *Keeper) Configure(list []config.ACME) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return
	}
	wanted := map[string]bool{}
	k.order = nil
	for _, c := range list {
		c.Pos = conf.Pos{}
		wanted[c.Name] = true
		k.order = append(k.order, c.Name)
		if old := k.certs[c.Name]; old != nil {
			if reflect.DeepEqual(old.cfg, c) {
				continue
			}
			old.end()
		}
		k.certs[c.Name] = k.begin(c)
	}
	for name, old := range k.certs {
		if !wanted[name] {
			old.end()
			delete(k.certs, name)
			if k.o.Forget != nil {
				k.o.Forget(name)
			}
		}
	}
}

// Close ends all; what is under way is given up.
func (k *Keeper) Close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range k.certs {
		c.cancel()
	}
	for _, c := range k.certs {
		<-c.done
	}
	clear(k.certs)
	k.closed = true
}

func (c *keeping) end() {
	c.cancel()
	<-c.done
}

func (k *Keeper) begin(c config.ACME) *keeping {
	ctx, cancel := context.WithCancel(context.Background())
	g := &keeping{cfg: c, cancel: cancel, done: make(chan struct{}), kick: make(chan struct{}, 1)}
	if id, err := k.read(c.Name); err != nil {
		k.o.Log.Warn("the certificate is not used: "+err.Error(), "certificate", c.Name)
	} else if id != nil {
		k.use(g, *id)
	}
	go func() {
		defer close(g.done)
		k.keep(ctx, g)
	}()
	return g
}

// keep looks after one certificate until ctx ends.
func (k *Keeper) keep(ctx context.Context, g *keeping) {
	for {
		next, err := k.step(ctx, g, false)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			k.o.Log.Debug("ACME: "+err.Error(), "certificate", g.cfg.Name) // said already
		}
		wait := time.NewTimer(max(time.Until(next), leastWait))
		select {
		case <-ctx.Done():
		case <-wait.C:
		case <-g.kick:
		}
		wait.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// step gets or renews a certificate if that is due, or at once with force. It says when
// to look again.
func (k *Keeper) step(ctx context.Context, g *keeping, force bool) (next time.Time, err error) {
	select {
	case k.busy <- struct{}{}:
		defer func() { <-k.busy }()
	case <-ctx.Done():
		return time.Time{}, ctx.Err()
	}
	c := g.cfg
	id, err := k.read(c.Name)
	if err != nil {
		k.o.Log.Warn("the certificate is not used: "+err.Error(), "certificate", c.Name)
	} else if id != nil {
		k.use(g, *id) // another process may have got it
	}
	st := k.readState(c.Name)
	st.settings(c)
	due := st.due(c, id, time.Now())
	if id != nil && st.Directory == c.Directory && !time.Now().Before(st.Ask) {
		due = k.askWhen(ctx, c, &st, id, due)
	}
	if now := time.Now(); !force && (now.Before(due) || now.Before(st.Next)) {
		k.writeState(c.Name, st)
		return st.next(due), nil
	}
	fresh, again, err := k.obtain(ctx, c, st.replaces(c, id))
	if err == nil {
		err = k.write(c.Name, fresh)
	}
	now := time.Now()
	if err != nil {
		if ctx.Err() != nil {
			return time.Time{}, ctx.Err()
		}
		k.failed(c, &st, id, err, again, now)
		return st.next(due), errors.New(st.Error)
	}
	st = state{Serial: fresh.Chain[0].Serial(), Directory: c.Directory, Settings: st.Settings, Renew: renewal(fresh.Chain[0].X509), Ask: now.UTC()}
	k.writeState(c.Name, st)
	k.use(g, fresh)
	k.o.Log.Info("a certificate was issued", "certificate", c.Name, "serial", st.Serial, "by", fresh.Chain[0].Issuer(),
		"until", fresh.Chain[0].X509.NotAfter.Format(time.RFC3339), "renewal", st.Renew.Format(time.RFC3339))
	return st.next(st.Renew), nil
}

// use has a certificate used, once.
func (k *Keeper) use(g *keeping, id Identity) {
	if f := id.Chain[0].Fingerprint; f != g.used {
		g.used = f
		if k.o.Use != nil {
			k.o.Use(g.cfg.Name, id)
		}
	}
}

// failed notes and tells that a certificate could not be had.
func (k *Keeper) failed(c config.ACME, st *state, id *Identity, err error, again time.Duration, now time.Time) {
	st.Failures++
	st.Failed, st.Error = now.UTC(), reason(err)
	var until time.Time
	if id != nil {
		until = id.Chain[0].X509.NotAfter
	}
	first := soonWait
	if errors.As(err, new(acme.Problem)) {
		first = firstWait
	}
	st.Next = now.Add(max(backoff(first, st.Failures, until.Sub(now)), again)).UTC()
	k.writeState(c.Name, *st)
	text := "no certificate could be had: "
	if now.Before(until) {
		text = "the certificate could not be renewed, the old one counts until " + until.Format(time.RFC3339) + ": "
	}
	k.o.Log.Warn(text+st.Error, "certificate", c.Name, "next attempt", st.Next.Format(time.RFC3339))
	if k.o.Trouble != nil {
		k.o.Trouble(c, st.Error, now.Before(until))
	}
}

// Renew gets a certificate now if it is due, or in any case with force, whatever
// attempts have failed before.
func (k *Keeper) Renew(ctx context.Context, name string, force bool) (Status, error) {
	k.mu.Lock()
	g := k.certs[name]
	k.mu.Unlock()
	if g == nil {
		return Status{}, fmt.Errorf("there is no section %s in adit.acme of strongswan.conf", name)
	}
	_, err := k.asked(ctx, g, force)
	select {
	case g.kick <- struct{}{}:
	default:
	}
	return k.Look(g.cfg), err
}

// asked is step for an operator, who may ask before it is time.
func (k *Keeper) asked(ctx context.Context, g *keeping, force bool) (time.Time, error) {
	st := k.readState(g.cfg.Name)
	st.Ask, st.Next = time.Time{}, time.Time{}
	k.writeState(g.cfg.Name, st)
	return k.step(ctx, g, force)
}

// Once is Renew for a Keeper that keeps nothing.
func (k *Keeper) Once(ctx context.Context, c config.ACME, force bool) (Status, error) {
	_, err := k.asked(ctx, &keeping{cfg: c}, force)
	return k.Look(c), err
}

// Statuses are those of all certificates, in the order of the configuration.
func (k *Keeper) Statuses() (list []Status) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, name := range k.order {
		if g := k.certs[name]; g != nil {
			list = append(list, k.Look(g.cfg))
		}
	}
	return list
}

// Look is how things are with a certificate, by its files.
func (k *Keeper) Look(c config.ACME) Status {
	s := Status{Name: c.Name, Domains: c.Domains}
	st := k.readState(c.Name)
	s.Failed, s.Error, s.Next = st.Failed, st.Error, st.Next
	if id, err := k.read(c.Name); err == nil && id != nil {
		s.Serial, s.NotAfter, s.Renew = id.Chain[0].Serial(), id.Chain[0].X509.NotAfter, st.due(c, id, time.Now())
	}
	return s
}

package gateway

import (
	"fmt"
	"net/netip"
	"sync"
	"time"

	"adit/eap"
	"adit/ike"
)

// lockout counts failed logins by identity and by source. Counts decay, so that nobody
// is kept out for long, and who logged in from an address lately is not kept out there by
// what others do elsewhere in his name. Safe for concurrent use.
type lockout struct {
	identity, source int // failures that lock; 0: none do
	mu               sync.Mutex
	counts           map[string]*strikes
	good             map[string]seen // by identity
	swept, sweptGood time.Time       // when full tables were last looked through: once a second at most
}

// strikes are failures, less what has decayed since.
type strikes struct {
	n    float64
	at   time.Time
	per  time.Duration // one decays in this time
	most int
}

// seen is from where an identity logged in last.
type seen struct {
	from netip.Prefix
	at   time.Time
}

func (s *strikes) now(t time.Time) float64 { return max(0, s.n-float64(t.Sub(s.at))/float64(s.per)) }

// sourceOf is what counts as one source: an IPv4 address, or the /64 of an IPv6 one.
func sourceOf(a netip.Addr) netip.Prefix {
	bits := 32
	if a = a.Unmap(); a.Is6() {
		bits = 64
	}
	p, _ := a.WithZone("").Prefix(bits)
	return p
}

// refuses tells why a login is not even tried; empty: it is.
func (l *lockout) refuses(identity string, from netip.Addr, now time.Time) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	src := sourceOf(from)
	if wait := l.locked("from "+src.String(), now); wait > 0 {
		return fmt.Sprintf("locked out: too many failed logins from %s; the next is tried in %s", src, wait)
	}
	if g, ok := l.good[identity]; ok && g.from == src && now.Sub(g.at) < lockoutTrust {
		return ""
	}
	if wait := l.locked("as "+identity, now); wait > 0 {
		return fmt.Sprintf("locked out: too many failed logins of %q; the next is tried in %s", identity, wait)
	}
	return ""
}

// locked is the time until the count of a key is below what locks; 0: it is.
func (l *lockout) locked(key string, now time.Time) time.Duration {
	s := l.counts[key]
	if s == nil {
		return 0
	}
	over := s.now(now) - float64(s.most) + 1
	if over <= 0 {
		return 0
	}
	return max(time.Second, time.Duration(over*float64(s.per)).Round(time.Second))
}

func (l *lockout) failed(identity string, from netip.Addr, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.strike("as "+identity, l.identity, lockoutIdentityDecay, now)
	l.strike("from "+sourceOf(from).String(), l.source, lockoutSourceDecay, now)
}

func (l *lockout) strike(key string, most int, per time.Duration, now time.Time) {
	if most == 0 {
		return
	}
	if l.counts == nil {
		l.counts = map[string]*strikes{}
	}
	s := l.counts[key]
	if s == nil {
		if len(l.counts) >= limitStrikes && now.Sub(l.swept) >= time.Second {
			l.swept = now
			for k, old := range l.counts {
				if old.now(now) == 0 {
					delete(l.counts, k)
				}
			}
		}
		if len(l.counts) >= limitStrikes {
			return
		}
		s = &strikes{per: per}
		l.counts[key] = s
	}
	s.n, s.at, s.most = min(s.now(now)+1, float64(most)), now, most
}

// succeeded forgets an identity's failures.
func (l *lockout) succeeded(identity string, from netip.Addr, now time.Time) {
	if l.identity == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.good == nil {
		l.good = map[string]seen{}
	}
	delete(l.counts, "as "+identity)
	if _, known := l.good[identity]; !known && len(l.good) >= limitStrikes && now.Sub(l.sweptGood) >= time.Second {
		l.sweptGood = now
		for k, g := range l.good {
			if now.Sub(g.at) >= lockoutTrust {
				delete(l.good, k)
			}
		}
	}
	if _, known := l.good[identity]; !known && len(l.good) >= limitStrikes {
		return
	}
	l.good[identity] = seen{sourceOf(from), now}
}

// claimed is who a client says it is, as logs and the lock-out have it.
func claimed(name string) string {
	return ike.Identity{Type: ike.IDFQDN, Data: name[:min(len(name), limitClaimed)]}.String()
}

// login is whose login a conversation is.
func (v *conversation) login(q ike.EAPRound) string {
	if v.claimed != "" {
		return v.claimed
	}
	return q.RemoteID.String()
}

// lockedOut answers the first packet of a client that may not try to log in now: it has
// failed, whatever it knows.
func (c *conversations) lockedOut(v *conversation, q ike.EAPRound) *ike.EAPAnswer {
	if !q.Server || v.admitted || len(q.Message) < 5 {
		return nil
	}
	v.admitted = true
	why := c.lockout.refuses(v.login(q), q.Remote.Addr(), time.Now())
	if why == "" {
		return nil
	}
	v.struck = true // that is no further failure
	return &ike.EAPAnswer{Message: []byte{byte(eap.CodeFailure), q.Message[1], 0, 4}, Done: true, Why: why, Identity: v.claimed}
}

// judge counts how a login went, once a conversation. Of a RADIUS server that does not
// answer the client knows nothing.
func (c *conversations) judge(v *conversation, q ike.EAPRound, a *ike.EAPAnswer) {
	switch {
	case !q.Server || v.struck:
	case a.Done && a.Success:
		v.struck = true
		c.lockout.succeeded(v.login(q), q.Remote.Addr(), time.Now())
	case a.Why != "" && a.Detail != ike.DetailRADIUS:
		v.struck = true
		c.lockout.failed(v.login(q), q.Remote.Addr(), time.Now())
	}
}

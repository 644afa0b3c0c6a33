package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"adit/ike"
	"adit/pki"
)

// standing remembers by which certificates the peers of IKE SAs proved themselves, and
// closes those whose certificate was revoked since. RFC 7296 §2.8 has an IKE SA live as
// long as its ends want; a revocation that only stopped the next set-up would leave
// whoever lost a laptop with its tunnel. Safe for concurrent use.
type standing struct {
	g       *Gateway
	mu      sync.Mutex
	pending map[uint64]*stander // proved, the IKE SA is not up yet; by its Instance
	up      map[uint64]*stander
	signal  chan struct{}
}

type stander struct {
	at     time.Time
	sa     ike.SAInfo
	proofs []standingProof
}

// standingProof is one certificate with what came along, and for which round of which
// connections it was taken.
type standingProof struct {
	round func(conn string) *ike.AuthRound
	chain [][]byte // DER, the peer's own first
}

const (
	// standingEvery is how often all are looked at: so late at most is a CRL's next
	// update noticed. What is fresh in the cache is not fetched again.
	standingEvery = 5 * time.Minute
	// standingWait bounds the questions about one peer.
	standingWait = 20 * time.Second
	limitPending = 65536
	// revokedReason is the reason of an IKEDown. It begins as an operator's end does.
	revokedReason = "terminated: the peer's certificate is revoked"
)

func (s *standing) init(g *Gateway) {
	s.g, s.signal = g, make(chan struct{}, 1)
	s.pending, s.up = map[uint64]*stander{}, map[uint64]*stander{}
}

// proved notes a proof that was accepted for an IKE SA that is to come.
func (s *standing) proved(instance uint64, chain [][]byte, round func(conn string) *ike.AuthRound) {
	if instance == 0 || len(chain) == 0 {
		return
	}
	own := make([][]byte, len(chain)) // not the message that they came in
	for i, der := range chain {
		own[i] = slices.Clone(der)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.pending[instance]
	if x == nil {
		if len(s.pending) >= limitPending {
			return
		}
		x = &stander{at: time.Now()}
		s.pending[instance] = x
	}
	x.proofs = append(x.proofs, standingProof{round, own})
}

// signed notes a signature that was verified, if it was a certificate's.
func (s *standing) signed(p *proof, v *ike.Verdict) {
	if v == nil || v.Signer == nil {
		return
	}
	chain := [][]byte{v.Signer}
	for _, c := range p.certs {
		if !slices.Equal(c.DER(), v.Signer) && len(chain) < limitProvers {
			chain = append(chain, c.DER())
		}
	}
	peers, n := p.Peers, p.Round
	s.proved(p.SA, chain, func(conn string) *ike.AuthRound {
		for _, peer := range peers {
			if peer.Name == conn && n < len(peer.Remote) {
				return &peer.Remote[n]
			}
		}
		return nil
	})
}

func (s *standing) event(e ike.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch e := e.(type) {
	case ike.IKEUp:
		if x := s.pending[e.SA.Instance]; x != nil {
			delete(s.pending, e.SA.Instance)
			x.sa, s.up[e.SA.Instance] = ike.SAInfo{Name: e.SA.Name, ID: e.SA.ID, RemoteID: e.SA.RemoteID}, x
		}
	case ike.IKERekeyed:
		if x := s.up[e.New.Instance]; x != nil {
			x.sa.ID = e.New.ID
		}
	case ike.IKEDown:
		delete(s.up, e.SA.Instance)
	}
}

// look asks for all to be looked at soon: what is known about revocation has changed.
func (s *standing) look() {
	select {
	case s.signal <- struct{}{}:
	default:
	}
}

func (s *standing) run(ctx context.Context) {
	tick := time.NewTicker(standingEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-s.signal:
		}
		guarded(func() { s.pass(ctx) }, func(err error) {
			s.g.bus.publish(ike.Note{Level: 1, Text: fmt.Sprintf("looking for revoked certificates: %v", err)})
		})
	}
}

// pass looks at every proof once. Only a certificate that is said to be revoked ends an
// IKE SA: that nobody answers now is no reason to throw out who was let in.
func (s *standing) pass(ctx context.Context) {
	var list []stander
	s.mu.Lock()
	for k, x := range s.pending {
		if time.Since(x.at) > admitLife {
			delete(s.pending, k)
		}
	}
	for _, x := range s.up {
		list = append(list, *x)
	}
	s.mu.Unlock()
	for _, x := range list {
		for _, p := range x.proofs {
			if ctx.Err() != nil {
				return
			}
			why := s.revoked(ctx, p, x.sa.Name)
			if why == nil {
				continue
			}
			s.g.bus.publish(ike.Note{SAKey: ike.SAKey{Name: x.sa.Name, ID: x.sa.ID}, Level: 1, Text: fmt.Sprintf("closing the IKE SA of %s: %v", x.sa.RemoteID, why)})
			if s.g.shard.deliver(ctx, ike.Terminate{IKEID: x.sa.ID, Reason: revokedReason}) != nil {
				return
			}
			break
		}
	}
}

// revoked is why a proof is no longer believed, nil unless it is for revocation.
func (s *standing) revoked(ctx context.Context, p standingProof, conn string) error {
	t, r := &s.g.trust, p.round(conn)
	if r == nil {
		return nil
	}
	var certs []*pki.Certificate
	for _, der := range p.chain {
		c, err := pki.NewCertificate(der)
		if err != nil {
			return nil
		}
		certs = append(certs, c)
	}
	if configured(r, certs[0]) {
		return nil // the certificate was not asked for
	}
	want, err := constraints(r)
	if err != nil {
		return nil
	}
	ctx, stop := context.WithTimeout(ctx, standingWait)
	defer stop()
	if err := t.believe(ctx, certs[0], certs[1:], nil, r, want); err != nil && detailOf(err) == ike.DetailRevoked {
		return err
	}
	return nil
}

// configured reports whether the connection has the certificate's key itself.
func configured(r *ike.AuthRound, c *pki.Certificate) bool {
	return slices.ContainsFunc(r.Pubkeys, func(der []byte) bool { return slices.Equal(der, c.X509.RawSubjectPublicKeyInfo) })
}

// stillTrusted checks who comes back by a ticket as if it had proved itself now; then it
// is among those who are looked at. A removed shared key lets nobody back in.
func (g *Gateway) stillTrusted(ctx context.Context, q ike.StillTrusted) error {
	if len(q.Rounds) != len(q.Peer.Remote) {
		return errors.New("its connection has other rounds now")
	}
	for i, p := range q.Rounds {
		r := &q.Peer.Remote[i]
		switch {
		case p.Method == ike.AuthPSK:
			keys := g.inv.keys(ike.PSKLookup{Peer: q.Peer, LocalID: q.LocalID, RemoteID: q.RemoteID, Local: q.Local, Remote: q.Remote})
			for _, k := range keys {
				k.Zero()
			}
			if len(keys) == 0 {
				return &ike.Rejection{Detail: ike.DetailNoPSK, Difference: "no shared key for these identities any more"}
			}
		case len(p.Certs) == 0: // a raw key, which the connection names
		default:
			if c, err := pki.NewCertificate(p.Certs[0]); err == nil && configured(r, c) {
				continue
			}
			if err := g.trust.chain(ctx, p.Certs, p.ID, r); err != nil {
				return &ike.Rejection{Detail: detailOf(err), Difference: err.Error()}
			}
			g.standing.proved(q.SA, p.Certs, func(string) *ike.AuthRound { return r })
		}
	}
	return nil
}

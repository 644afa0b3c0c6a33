package ikev2

import (
	"slices"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/ipsec"
)

// pair is one selector of each side.
type pair struct{ local, remote ipsec.Selector }

func (p pair) String() string { return p.local.String() + " === " + p.remote.String() }

// pairing is what is still to be asked for, one pair of selectors a Child SA, of a
// peer that takes no more than one in each: RFC 7296 §2.9 lets a responder narrow
// as it likes, and leaves it to the initiator to ask for the rest.
// Peer quirk (Cisco ASA, FortiGate, Palo Alto's proxy IDs, Juniper's traffic selectors).
type pairing struct {
	left    []pair
	refused []pair
	last    *ike.Rejection // of the last refusal
	offer   *childOffer    // the one with all selectors
	granted bool           // there is a Child SA for some of the selectors
}

// pairs are the pairs of a configuration's selectors, which some packet can match.
func (s *sa) pairs(cfg *ike.Child) (out []pair) {
	local, remote := s.selectorsOf(cfg)
	for _, l := range local {
		for _, r := range remote {
			if l.From.Is4() != r.From.Is4() || l.Proto != 0 && r.Proto != 0 && l.Proto != r.Proto {
				continue
			}
			if len(out) == limitPairs {
				return out
			}
			out = append(out, pair{l, r})
		}
	}
	return out
}

// served reports whether a Child SA of the configuration carries some of the pair.
func (s *sa) served(cfg *ike.Child, p pair) bool {
	for _, c := range s.children {
		if c.cfg.Name == cfg.Name && (c.state == childInstalled || c.state == childRekeying) &&
			len(ipsec.Narrow([]ipsec.Selector{p.local}, c.localTS)) > 0 && len(ipsec.Narrow([]ipsec.Selector{p.remote}, c.remoteTS)) > 0 {
			return true
		}
	}
	return false
}

// pairsFor are the pairs that a request is about: that of the packet that asked, or all.
func (s *sa) pairsFor(cfg *ike.Child, req *ike.ChildRequest) []pair {
	all := s.pairs(cfg)
	if req == nil || req.Acquired == nil {
		return all
	}
	for _, x := range all {
		if _, _, ok := packetSelectors(req.Acquired, []ipsec.Selector{x.local}, []ipsec.Selector{x.remote}); ok {
			return []pair{x}
		}
	}
	return nil
}

// unserved are those of the pairs that no Child SA carries.
func (s *sa) unserved(cfg *ike.Child, list []pair) (out []pair) {
	for _, x := range list {
		if !s.served(cfg, x) {
			out = append(out, x)
		}
	}
	return out
}

// askForRest asks for further Child SAs if the peer has left whole selectors out of
// the one that it granted. A packet that asked for a Child SA gets its own; the
// next packet asks for the next one.
func (s *sa) askForRest(now time.Time, o *childOffer, req *ike.ChildRequest) {
	c := o.c
	if o.single || c.mode != ipsec.ModeTunnel || ipsec.ContainsAll(c.localTS, o.local) && ipsec.ContainsAll(c.remoteTS, o.remote) {
		return
	}
	p := &pairing{offer: o, granted: true, left: s.unserved(c.cfg, s.pairsFor(c.cfg, req))}
	if len(p.left) == 0 {
		return
	}
	s.note(1, "the peer grants "+selectorText(c.localTS, c.remoteTS)+" of "+selectorText(o.local, o.remote)+": further Child SAs of "+c.cfg.Name+" are asked for, one pair of selectors each")
	s.enqueue(&createChild{cfg: c.cfg, pairs: p})
}

// askForPairs asks for the selectors of a refused offer pair by pair, where there
// are several. Peer quirk (Cisco ASA): several selectors in one offer are refused,
// though each pair would be granted.
func (s *sa) askForPairs(o *childOffer, n *wire.Notify, req *ike.ChildRequest, more []*ike.ChildRequest) bool {
	if n.NotifyType != wire.TSUnacceptable || o.single || o.c.mode != ipsec.ModeTunnel || len(o.local)+len(o.remote) < 3 {
		return false
	}
	p := &pairing{offer: o, left: s.pairsFor(o.c.cfg, req)}
	if len(p.left) == 0 || len(s.pairs(o.c.cfg)) < 2 {
		return false
	}
	s.note(1, "the peer refuses "+selectorText(o.local, o.remote)+" in one Child SA of "+o.c.cfg.Name+": asked for again, one pair of selectors each")
	return s.enqueue(&createChild{cfg: o.c.cfg, pairs: p, req: req, more: more})
}

// askAgain asks for the pairs that a Child SA of several carried which the peer has
// deleted, if the configuration brings it back: to the engine the child is up as long as
// one of them is. What was not there for long is left, or a peer that keeps one
// Child SA alone would be asked without end.
// Peer quirk (Cisco ASA): vpn-idle-timeout deletes single Child SAs.
func (s *sa) askAgain(now time.Time, c *child) {
	if c.cause == ike.CauseLocal && c.state == childDeleting || c.cfg.CloseAction&ike.ActionStart == 0 && !c.cfg.KeepUp || now.Sub(c.born) < leastPairLife {
		return
	}
	others := slices.ContainsFunc(s.children, func(x *child) bool {
		return x != c && x.cfg.Name == c.cfg.Name && (x.state == childInstalled || x.state == childRekeying)
	})
	if !others {
		return
	}
	p := &pairing{granted: true}
	for _, x := range s.unserved(c.cfg, s.pairs(c.cfg)) {
		if len(ipsec.Narrow([]ipsec.Selector{x.local}, c.localTS)) > 0 && len(ipsec.Narrow([]ipsec.Selector{x.remote}, c.remoteTS)) > 0 {
			p.left = append(p.left, x)
		}
	}
	if len(p.left) > 0 {
		s.enqueue(&createChild{cfg: c.cfg, pairs: p})
	}
}

// leastPairLife is how long a Child SA of several must have been there to be asked for
// again at once.
const leastPairLife = time.Minute

// next is the next pair that no Child SA carries.
func (p *pairing) next(s *sa, cfg *ike.Child) (pair, bool) {
	for len(p.left) > 0 {
		x := p.left[0]
		p.left = p.left[1:]
		if !s.served(cfg, x) {
			return x, true
		}
		p.granted = true
	}
	return pair{}, false
}

// over ends the search and says what was refused.
func (p *pairing) over(s *sa) *ike.Rejection {
	if len(p.refused) == 0 {
		return nil
	}
	r := *p.last
	r.Ours = ""
	for i, x := range p.refused {
		if i > 0 {
			r.Ours += ", "
		}
		r.Ours += x.String()
	}
	r.Difference = "the peer refuses these pairs of selectors"
	if !p.granted {
		r.Ours, r.Difference = selectorText(p.offer.local, p.offer.remote), "the peer refuses these selectors, together and each pair alone"
	}
	s.reject(&r)
	if p.granted {
		return nil // the child is up as far as the peer lets it
	}
	return &r
}

// pairRefused goes on after the refusal of one pair.
func (t *createChild) pairRefused(s *sa, now time.Time, n *wire.Notify, x pair) {
	p := t.pairs
	p.last = peerRefused(n, "", "")
	p.last.Child = t.cfg.Name
	p.refused = append(p.refused, x)
	switch n.NotifyType {
	case wire.TSUnacceptable, wire.SinglePairRequired:
	default: // no other pair will fare better
		p.refused, p.left = append(p.refused, p.left...), nil
	}
	t.nextPair(s, now)
}

// nextPair lets the others that wait go first.
func (t *createChild) nextPair(s *sa, now time.Time) {
	p := t.pairs
	if len(p.left) == 0 {
		t.ended(s, now, p.over(s))
		return
	}
	s.finish()
	if !s.enqueue(&createChild{cfg: t.cfg, pairs: p, req: t.req, more: t.more}) {
		t.ended(s, now, p.last)
	}
}

// again has the pair in flight asked for once more.
func (t *createChild) again() {
	if t.pairs != nil {
		t.pairs.left = append([]pair{t.pair}, t.pairs.left...)
	}
}

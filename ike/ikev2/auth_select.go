package ikev2

import (
	"slices"
	"strings"
	"unicode"

	"adit/ike"
	"adit/ike/wire"
	"adit/suite"
)

// localID is our identity of the first round: the configured one, or the address.
func localID(p *ike.Peer, addr interface{ AsSlice() []byte }) ike.Identity {
	return roundID(p, 0, addr)
}

// roundID is our identity of a round.
func roundID(p *ike.Peer, round int, addr interface{ AsSlice() []byte }) ike.Identity {
	if id := p.Local[round].ID; !id.IsPattern() {
		return id
	}
	b := addr.AsSlice()
	if len(b) == 4 {
		return ike.Identity{Type: ike.IDIPv4Addr, Data: string(b)}
	}
	return ike.Identity{Type: ike.IDIPv6Addr, Data: string(b)}
}

// answerID is our identity of a round as responder. An initiator that names one
// (IDr) gets it if the configuration leaves it open.
func (s *sa) answerID(p *ike.Peer, round int, idr *wire.ID) (id ike.Identity, score int) {
	id = roundID(p, round, s.local.Addr())
	if idr == nil {
		return id, ike.MatchAny
	}
	want := identity(idr)
	if cfg := p.Local[round].ID; cfg.IsPattern() && !want.IsPattern() && len(want.Data) <= limitIdentity {
		return want, want.Match(cfg)
	}
	return id, want.Match(id)
}

// selectByIDs orders the connections that the identities of the first round fit,
// best first, as strongSwan does: addresses first, which was done, then IDi and IDr.
func (s *sa) selectByIDs(a *authentication, remote ike.Identity, idr *wire.ID) {
	scores := map[*ike.Peer]int{}
	a.keep(func(p *ike.Peer) (ike.Detail, string) {
		m := remote.Match(p.Remote[0].ID)
		if m == ike.MatchNone || len(remote.Data) > limitIdentity {
			return ike.DetailRemoteID, "remote.id " + p.Remote[0].ID.String() + " does not match " + shortText(remote.String())
		}
		ours, n := s.answerID(p, 0, idr)
		if n == ike.MatchNone {
			return ike.DetailLocalID, "local.id " + ours.String() + " is not the " + idText(idr) + " that the peer wants"
		}
		if _, _, err := suite.Select(p.Proposals, []suite.Proposal{s.selected.Proposal()}, suite.SelectOptions{}); err != nil {
			return ike.DetailTransform, "its proposals do not contain what IKE_SA_INIT agreed on"
		}
		scores[p] = m*100 + n
		return "", ""
	})
	slices.SortStableFunc(a.candidates, func(x, y *ike.Peer) int { return scores[y] - scores[x] })
}

// keep drops the connections for which why is not empty.
func (a *authentication) keep(why func(*ike.Peer) (ike.Detail, string)) {
	var left []*ike.Peer
	for _, p := range a.candidates {
		if detail, w := why(p); w != "" {
			a.passed = addAt(a.passed, p.Name, detail, w)
		} else {
			left = append(left, p)
		}
	}
	a.candidates = left
}

// keepMethod drops those that do not take the method in the peer's current round.
func (a *authentication) keepMethod(m ike.AuthMethod) {
	k := len(a.theirs)
	a.keep(func(p *ike.Peer) (ike.Detail, string) {
		switch {
		case k >= len(p.Remote):
			return ike.DetailRounds, "it wants fewer rounds of authentication"
		case !takes(&p.Remote[k], m) || m == ike.AuthEAP && p.Remote[k].Method != m: // any is not for EAP
			return ike.DetailMethod, "it wants authentication by " + p.Remote[k].Method.String() + ", not by " + m.String()
		case m == ike.AuthPSK && p.Remote[k].Method == ike.AuthAny && wantsKey(&p.Remote[k]):
			return ike.DetailMethod, "it wants a certificate or public key, which a shared key is not"
		}
		return "", ""
	})
}

// wantsKey reports whether a round demands something that only a signature can show.
func wantsKey(r *ike.AuthRound) bool {
	return len(r.Certs)+len(r.CACerts)+len(r.CertPolicies)+len(r.Pubkeys)+len(r.Constraints) > 0 || !r.CAID.IsAny()
}

// keepRounds drops those whose number of rounds the peer cannot or did not fulfil.
func (a *authentication) keepRounds() {
	done := len(a.theirs)
	a.keep(func(p *ike.Peer) (ike.Detail, string) {
		switch {
		case a.expects && len(p.Remote) <= done:
			return ike.DetailRounds, "it wants fewer rounds of authentication than the peer begins"
		case !a.expects && len(p.Remote) != done:
			return ike.DetailRounds, "it wants another number of rounds of authentication than the peer did"
		}
		return "", ""
	})
}

// keepShown drops those to which we would have proved ourselves otherwise than we
// did: a switch must not weaken what the peer has been told.
func (a *authentication) keepShown(s *sa) {
	a.keep(func(p *ike.Peer) (ike.Detail, string) {
		if len(p.Local) < len(a.shown) {
			return ike.DetailRounds, "it has fewer local rounds than were shown to the peer"
		}
		for i, was := range a.shown {
			r := p.Local[i]
			id := r.ID
			if id.IsPattern() {
				if was.id.Match(id) == ike.MatchNone {
					return ike.DetailLocalID, "its local identity is not the one that was shown to the peer"
				}
			} else if id != was.id {
				return ike.DetailLocalID, "its local identity is not the one that was shown to the peer"
			}
			if !sameShown(&r, &was.round) {
				return "", "its local authentication is not the one that was shown to the peer"
			}
		}
		return "", ""
	})
}

// sameShown compares what a peer can see of two rounds of ours.
func sameShown(a, b *ike.AuthRound) bool {
	return a.Method == b.Method && slices.Equal(a.Constraints, b.Constraints) && sameDER(a.Certs, b.Certs) && sameDER(a.Pubkeys, b.Pubkeys) && a.EAP == b.EAP
}

// sameEAP reports whether a conversation that began under the rules of one remote
// round also fulfils another one's, identity and groups aside.
func sameEAP(a, b *ike.AuthRound) bool {
	return a.Method == b.Method && a.EAP == b.EAP && a.EAPAsk == b.EAPAsk && a.AAAID == b.AAAID && slices.Equal(a.Constraints, b.Constraints) &&
		sameDER(a.Certs, b.Certs) && sameDER(a.Pubkeys, b.Pubkeys) && sameDER(a.CACerts, b.CACerts) && a.CAID == b.CAID &&
		slices.Equal(a.CertPolicies, b.CertPolicies) && a.Revocation == b.Revocation
}

func sameDER(a, b [][]byte) bool {
	return slices.EqualFunc(a, b, func(x, y []byte) bool { return string(x) == string(y) })
}

// switched tells when another connection than before is gone by.
func (s *sa) switched(a *authentication, before *ike.Peer) {
	if len(a.candidates) == 0 || before == nil || a.candidates[0] == before {
		return
	}
	s.peer = a.candidates[0]
	s.note(2, "switched from connection "+before.Name+" to "+s.peer.Name)
}

// noCandidate is the record of a peer that no connection takes.
func (a *authentication) noCandidate(reason ike.Reason, why string) *ike.Rejection {
	return &ike.Rejection{Reason: reason, Difference: why, Candidates: a.passed}
}

// shortText is a text of the peer's for logs: printable, and not too long.
func shortText(text string) string {
	if len(text) > limitShown {
		text = text[:limitShown] + "…"
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
}

// idText is an identity of the peer's for logs.
func idText(p *wire.ID) string { return shortText(identity(p).String()) }

// groupsOverlap reports whether a member of the groups has may come where want is demanded.
func groupsOverlap(want, has []string) bool {
	return len(want) == 0 || slices.ContainsFunc(want, func(g string) bool { return slices.Contains(has, g) })
}

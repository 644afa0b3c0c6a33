package ikev1

import (
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"time"
	"unicode"

	"adit/ike"
	"adit/ike/wire"
	"adit/suite"
)

// ourID is our identity: the configured one, or the address.
func ourID(p *ike.Peer, addr interface{ AsSlice() []byte }) ike.Identity {
	if id := p.Local[0].ID; !id.IsPattern() {
		return id
	}
	b := addr.AsSlice()
	if len(b) == 4 {
		return ike.Identity{Type: ike.IDIPv4Addr, Data: string(b)}
	}
	return ike.Identity{Type: ike.IDIPv6Addr, Data: string(b)}
}

// signs reports whether we prove ourselves to the peer by a signature.
func signs(p *ike.Peer) bool { return len(p.Local) > 0 && p.Local[0].Method == ike.AuthPubkey }

// methodsOf are the methods of IKEv1 that a connection comes to; kinds are those that
// we can sign with.
func methodsOf(p *ike.Peer, kinds []wire.V1Auth, initiator bool) []wire.V1Auth {
	l, r := p.Local[0].Method, p.Remote[0].Method
	gives, asks := givesPassword(p), asksPassword(p)
	// variant is the method where the initiator gives the password, or the responder.
	variant := func(init, resp wire.V1Auth) []wire.V1Auth {
		if gives == initiator {
			return []wire.V1Auth{init}
		}
		return []wire.V1Auth{resp}
	}
	switch {
	case gives && asks || len(p.Local)+len(p.Remote) > 3 || (len(p.Local) > 1) != gives && l != ike.AuthXAuth || (len(p.Remote) > 1) != asks && r != ike.AuthXAuth:
		return nil
	case (gives || asks) && l == ike.AuthPSK && r == ike.AuthPSK:
		return variant(wire.V1AuthXAuthInitPSK, wire.V1AuthXAuthRespPSK)
	case (gives || asks) && l == ike.AuthPubkey && r == ike.AuthPubkey && slices.Contains(kinds, wire.V1AuthRSASig):
		return variant(wire.V1AuthXAuthInitRSA, wire.V1AuthXAuthRespRSA)
	case l == ike.AuthXAuth && r == ike.AuthPubkey, r == ike.AuthXAuth && l == ike.AuthPubkey && slices.Contains(kinds, wire.V1AuthRSASig):
		return variant(wire.V1AuthHybridInitRSA, wire.V1AuthHybridRespRSA)
	case gives || asks:
		return nil
	case l == ike.AuthPSK && (r == ike.AuthPSK || r == ike.AuthAny):
		return []wire.V1Auth{wire.V1AuthPSK}
	case l == ike.AuthPubkey && (r == ike.AuthPubkey || r == ike.AuthAny):
		return kinds
	}
	return nil
}

// shared reports whether the method is by a shared key.
func shared(a wire.V1Auth) bool {
	return a == wire.V1AuthPSK || a == wire.V1AuthXAuthInitPSK || a == wire.V1AuthXAuthRespPSK
}

// signedBy reports whether a side proves itself by a signature in phase 1: in hybrid
// authentication only the side that asks for the password does.
func signedBy(a wire.V1Auth, initiator bool) bool {
	switch a {
	case wire.V1AuthHybridInitRSA:
		return !initiator
	case wire.V1AuthHybridRespRSA:
		return initiator
	}
	return !shared(a)
}

func offeredMethods(p *wire.V1SA) string {
	var names []string
	for _, x := range p.Proposals {
		for i := range x.Transforms {
			if n := authOf(&x.Transforms[i]).String(); !slices.Contains(names, n) && len(names) < 8 {
				names = append(names, n)
			}
		}
	}
	return strings.Join(names, ", ")
}

// keep drops the connections for which why is not empty.
func (s *sa) keep(why func(*ike.Peer) (ike.Detail, string)) {
	var left []*ike.Peer
	for _, p := range s.setup.candidates {
		if detail, w := why(p); w == "" {
			left = append(left, p)
		} else if len(s.setup.passed) < 16 {
			s.setup.passed = append(s.setup.passed, ike.Candidate{Name: p.Name, Why: w, Detail: detail})
		}
	}
	s.setup.candidates = left
}

// makeKeyring derives the keys: one set for signatures, one for each shared key that
// it may be. Main mode must know the key before it is told the identity (RFC 2409
// §5.4), so that identities are those of the connections for these addresses.
func (s *sa) makeKeyring(now time.Time, then func(time.Time, *ike.Rejection)) {
	st := s.setup
	prf, err := suite.NewPRF(s.selected.PRF)
	if err != nil {
		then(now, &ike.Rejection{Reason: ike.ReasonInternal, Difference: err.Error()})
		return
	}
	add := func(skeyid suite.Key) error {
		k, err := derive(s.selected, skeyid, st.shared, &st.exchanged)
		if err == nil {
			st.keyring = append(st.keyring, k)
		}
		return err
	}
	if !shared(st.auth) {
		if err := add(skeyidSig(prf, st.shared, &st.exchanged)); err != nil {
			then(now, &ike.Rejection{Reason: ike.ReasonInternal, Difference: err.Error()})
			return
		}
		then(now, nil)
		return
	}
	var lookups []ike.PSKLookup
	for _, p := range st.candidates {
		q := ike.PSKLookup{Peer: p, LocalID: ourID(p, s.local.Addr()), RemoteID: s.theirID(p), Local: s.local.Addr(), Remote: s.remote.Addr()}
		if len(lookups) < limitLookups && !slices.ContainsFunc(lookups, func(o ike.PSKLookup) bool { return o.LocalID == q.LocalID && o.RemoteID == q.RemoteID }) {
			lookups = append(lookups, q)
		}
	}
	s.lookUp(now, lookups, nil, func(now time.Time, psks []suite.Key) {
		if len(psks) == 0 && s.initiator {
			then(now, &ike.Rejection{Reason: ike.ReasonAuthentication, Detail: ike.DetailNoPSK, Ours: s.ids[0].String(), Theirs: s.ids[1].String(), Difference: "no shared key for these identities"})
			return
		}
		if len(psks) == 0 {
			// As if there was one: the peer can't tell an unknown identity from a wrong key.
			random := make(suite.Key, 32)
			rand.Read(random)
			psks = []suite.Key{random}
		}
		for _, psk := range psks[:min(len(psks), limitKeys)] {
			if err := add(skeyidPSK(prf, psk, &st.exchanged)); err != nil {
				then(now, &ike.Rejection{Reason: ike.ReasonInternal, Difference: err.Error()})
				return
			}
		}
		for _, psk := range psks {
			psk.Zero()
		}
		then(now, nil)
	})
}

// theirID is the identity that a shared key is looked up for: the configured one, or
// the peer's address.
func (s *sa) theirID(p *ike.Peer) ike.Identity {
	if id := s.setup.peerID; id != nil {
		return *id
	}
	if id := p.Remote[0].ID; !id.IsPattern() {
		return id
	}
	b := s.remote.Addr().Unmap().WithZone("").AsSlice()
	if len(b) == 4 {
		return ike.Identity{Type: ike.IDIPv4Addr, Data: string(b)}
	}
	return ike.Identity{Type: ike.IDIPv6Addr, Data: string(b)}
}

func (s *sa) lookUp(now time.Time, left []ike.PSKLookup, found []suite.Key, then func(time.Time, []suite.Key)) {
	if len(left) == 0 {
		then(now, found)
		return
	}
	s.ask(now, timeoutAsk, left[0], func(now time.Time, r ike.Result) {
		list, _ := r.Value.([]suite.Key)
		for _, k := range list {
			if !slices.ContainsFunc(found, k.Equal) {
				found = append(found, k)
			}
		}
		s.lookUp(now, left[1:], found, then)
	})
}

// authPRF is the PRF of HASH_I and HASH_R: ECDSA's methods name their hash.
func authPRF(a wire.V1Auth, prf suite.PRF) suite.PRF {
	id := map[wire.V1Auth]suite.TransformID{wire.V1AuthECDSA256: suite.PRFHMACSHA2_256, wire.V1AuthECDSA384: suite.PRFHMACSHA2_384, wire.V1AuthECDSA521: suite.PRFHMACSHA2_512}[a]
	if p, err := suite.NewPRF(suite.Transform{Type: suite.TypePRF, ID: id}); err == nil {
		return p
	}
	return prf
}

// prove makes our ID payload and the proof of it: a hash, or certificates and a signature.
func (s *sa) prove(now time.Time, p *ike.Peer, then func(time.Time, []wire.V1Payload, *ike.Rejection)) {
	st := s.setup
	s.ids[0] = ourID(p, s.local.Addr())
	body := identityBody(s.ids[0])
	list := []wire.V1Payload{{Type: wire.PayloadV1ID, Body: body}}
	hash := phase1Hash(authPRF(st.auth, s.keys.prf), s.keys.skeyid, &st.exchanged, st.saBody, body, s.initiator)
	if !signedBy(st.auth, s.initiator) {
		then(now, append(list, wire.V1Payload{Type: wire.PayloadV1Hash, Body: hash}), nil)
		return
	}
	q := ike.SignAuth{Peer: p, ID: s.ids[0], Octets: hash, V1: st.auth, Requested: st.requested, RequestedNames: st.asked}
	s.ask(now, timeoutSign, q, func(now time.Time, r ike.Result) {
		made, ok := r.Value.(*ike.Signature)
		if r.Err != nil || !ok || made == nil {
			rej := &ike.Rejection{Reason: ike.ReasonAuthentication, Detail: ike.DetailNoSignature, Ours: s.ids[0].String(), Difference: "no signature of ours"}
			if r.Err != nil {
				rej.Difference += ": " + r.Err.Error()
			}
			then(now, nil, rej)
			return
		}
		size := 0
		for _, c := range made.Certs {
			if size += len(c.Data); size > wire.MaxMessageLen/2 {
				break
			}
			list = append(list, wire.V1Payload{Type: wire.PayloadV1CERT, Body: append([]byte{byte(c.Encoding)}, c.Data...)})
		}
		then(now, append(list, wire.V1Payload{Type: wire.PayloadV1Signature, Body: made.Data}), nil)
	})
}

// verify checks the identity and the proof of the peer, chooses the connection, and
// takes the identity over. Hashes of shared keys have been checked before.
func (s *sa) verify(now time.Time, in *inbound, then func(time.Time, *ike.Rejection)) {
	st := s.setup
	body := in.get(wire.PayloadV1ID)
	if st.peerIDBody != nil {
		body = st.peerIDBody
	}
	id, ok := identity(body)
	if !ok {
		then(now, &ike.Rejection{Reason: ike.ReasonSyntax, Difference: "the ID payload can't be read"})
		return
	}
	if r := s.selectByID(id); r != nil {
		then(now, r)
		return
	}
	done := func(now time.Time) {
		s.peer, s.ids[1] = st.candidates[0], id
		s.ids[0] = ourID(s.peer, s.local.Addr())
		then(now, nil)
	}
	if shared(st.auth) {
		done(now)
		return
	}
	if !signedBy(st.auth, !s.initiator) {
		want := phase1Hash(s.keys.prf, s.keys.skeyid, &st.exchanged, st.saBody, body, !s.initiator)
		if !equal(in.get(wire.PayloadV1Hash), want) {
			then(now, &ike.Rejection{Reason: ike.ReasonAuthentication, Detail: ike.DetailPSK, Theirs: shortText(id.String()), Difference: "the peer's hash is wrong"})
			return
		}
		done(now)
		return
	}
	hash := phase1Hash(authPRF(st.auth, s.keys.prf), s.keys.skeyid, &st.exchanged, st.saBody, body, !s.initiator)
	q := ike.VerifyAuth{SA: s.env.Instance(), Peers: slices.Clone(st.candidates), ID: id, Certs: certsOf(in), V1: st.auth, Data: in.get(wire.PayloadV1Signature), Octets: hash}
	s.ask(now, timeoutVerify, q, func(now time.Time, r ike.Result) {
		if rej := s.verdict(q, r); rej != nil {
			rej.Theirs = shortText(id.String())
			then(now, rej)
			return
		}
		done(now)
	})
}

// selectByID orders the connections that the identity fits, best first.
func (s *sa) selectByID(id ike.Identity) *ike.Rejection {
	st := s.setup
	scores := map[*ike.Peer]int{}
	s.keep(func(p *ike.Peer) (ike.Detail, string) {
		if scores[p] = id.Match(p.Remote[0].ID); scores[p] == ike.MatchNone {
			return ike.DetailRemoteID, "remote.id " + p.Remote[0].ID.String() + " does not match " + shortText(id.String())
		}
		return "", ""
	})
	slices.SortStableFunc(st.candidates, func(a, b *ike.Peer) int { return scores[b] - scores[a] })
	if len(st.candidates) == 0 {
		r := &ike.Rejection{Reason: ike.ReasonIdentity, Theirs: shortText(id.String()), Difference: "no connection for this identity", Candidates: st.passed}
		if s.initiator {
			r.Detail, r.Ours, r.Difference = ike.DetailRemoteID, s.peer.Remote[0].ID.String(), "the peer's identity is not the one that remote.id wants"
		}
		return r
	}
	return nil
}

// verdict narrows the candidates to those that the signature satisfies.
func (s *sa) verdict(q ike.VerifyAuth, r ike.Result) *ike.Rejection {
	v, ok := r.Value.(*ike.Verdict)
	if r.Err != nil || !ok || v == nil || len(v.Why) != len(q.Peers) || len(q.Data) == 0 {
		x := &ike.Rejection{Reason: ike.ReasonAuthentication, Detail: ike.DetailSignature, Difference: "the peer's signature was not verified"}
		if r.Err != nil {
			x.Difference = r.Err.Error()
		}
		var rej *ike.Rejection
		if errors.As(r.Err, &rej) {
			x.Detail, x.Difference, x.Ours, x.Hint, x.Candidates = rej.Detail, rej.Difference, rej.Ours, rej.Hint, rej.Candidates
		}
		if len(q.Peers) == 1 {
			s.peer = q.Peers[0]
		}
		return x
	}
	why, details := map[*ike.Peer]string{}, map[*ike.Peer]ike.Detail{}
	for i, p := range q.Peers {
		why[p] = v.Why[i]
		if i < len(v.Details) {
			details[p] = v.Details[i]
		}
	}
	s.keep(func(p *ike.Peer) (ike.Detail, string) { return details[p], why[p] })
	if len(s.setup.candidates) > 0 {
		s.note(1, "the peer is "+shortText(q.ID.String())+" by the key of "+v.Subject+", "+v.Scheme)
		return nil
	}
	x := &ike.Rejection{Reason: ike.ReasonAuthentication, Difference: "the signature is good, but no connection takes " + v.Subject, Candidates: s.setup.passed}
	if len(q.Peers) == 1 {
		s.peer, x.Detail, x.Difference = q.Peers[0], details[q.Peers[0]], why[q.Peers[0]]
	}
	return x
}

// certsOf are the peer's CERT payloads.
func certsOf(in *inbound) (list []ike.CertPayload) {
	for _, b := range in.all(wire.PayloadV1CERT) {
		if len(b) > 1 && len(list) < limitCerts && wire.CertEncoding(b[0]) == wire.CertX509Signature {
			list = append(list, ike.CertPayload{Encoding: wire.CertX509Signature, Data: slices.Clone(b[1:])})
		}
	}
	return list
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

// reauthTime is when phase 1 is made anew: IKEv1 knows no rekeying without it.
func reauthTime(p *ike.Peer) time.Duration {
	switch {
	case p.ReauthTime == 0:
		return p.RekeyTime
	case p.RekeyTime == 0:
		return p.ReauthTime
	}
	return min(p.RekeyTime, p.ReauthTime)
}

// established ends phase 1.
func (s *sa) established(now time.Time, contact bool) {
	st := s.setup
	if s.keys.skeyid != nil {
		s.keys.proved()
	}
	child, life := st.child, st.life
	s.leaveSetup()
	s.phase = phaseEstablished
	s.first, s.ext = nil, nil
	s.life.setupEnd = time.Time{}
	s.life.established, s.life.lastIn = now, now
	s.setTimers(now, life)
	s.startKeepAlive(now)
	s.startDPD(now)
	if !contact {
		s.adopt(now)
	}
	s.env.Established(now, s.peer, s.ids[0], s.uniqueID(), contact)
	s.modeConfig()
	switch {
	case child == nil:
	case child.Child == nil:
		s.env.ChildDone(now, child, nil)
	default:
		s.CreateChild(now, child)
	}
	s.run(now)
}

// uniqueID is who the peer is where that has to be one of its kind: with XAUTH its name
// there, since the identity of phase 1 may be a whole group's.
func (s *sa) uniqueID() ike.Identity {
	if s.eapID != "" {
		return ike.Identity{Type: ike.IDKeyID, Data: s.eapID}
	}
	return s.ids[1]
}

// checkUnique applies `unique = keep`, once it is known who the peer is.
func (s *sa) checkUnique() *ike.Rejection {
	if s.setup != nil && byXAuth(s.setup.auth) && s.eapID == "" {
		return nil // XAUTH will tell
	}
	return s.env.CheckUnique(s.peer, s.ids[0], s.uniqueID())
}

// setTimers starts the lifetime of the SA: the configured one, or the peer's if that
// is shorter.
func (s *sa) setTimers(now time.Time, agreed time.Duration) {
	at, over := reauthTime(s.peer), s.peer.OverTime
	hard := at + over
	if at == 0 {
		hard = 0
	}
	if agreed == 0 || s.life.session > 0 && s.life.session < agreed {
		agreed = s.life.session
	}
	if agreed >= leastLife && (hard == 0 || agreed < hard) {
		hard = agreed
		if at == 0 || at > hard/10*9 {
			at = hard / 10 * 9
		}
	}
	if at > 0 {
		s.life.reauthAt = now.Add(at - ike.RandomSpan(min(s.peer.RandTime, at/2)))
	}
	if hard > 0 {
		s.life.endAt = now.Add(hard)
	}
}

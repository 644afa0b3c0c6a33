package ikev2

import (
	"crypto/rand"
	"errors"
	"slices"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/internal/simbug"
	"adit/suite"
)

// certsOf are the peer's CERT payloads of the kinds that are known. Hash-and-URL is
// never announced and so ignored (RFC 7296 §3.6).
func certsOf(payloads []wire.Payload) (list []ike.CertPayload, tooMany bool) {
	for _, p := range payloads {
		c, ok := p.(*wire.Cert)
		if !ok {
			continue
		}
		switch c.Encoding {
		case wire.CertX509Signature, wire.CertRawRSAKey, wire.CertOCSPContent, wire.CertRawPublicKey, wire.CertCRL:
		default:
			continue
		}
		if len(list) == limitCerts {
			return nil, true
		}
		list = append(list, ike.CertPayload{Encoding: c.Encoding, Data: c.Data})
	}
	return list, false
}

// isSignature tells the methods of AUTH that are signatures.
func isSignature(m wire.AuthMethod) bool {
	switch m {
	case wire.AuthRSASignature, wire.AuthDSSSignature, wire.AuthECDSA256, wire.AuthECDSA384, wire.AuthECDSA521, wire.AuthDigitalSignature:
		return true
	}
	return false
}

// verify checks the AUTH payload of the peer's current round, whose ID payload is
// a.peerID, and narrows the candidates to those that it satisfies. then gets what
// is proved; nil with the reason otherwise. As long as no candidate is left, or
// none takes the method, everything is done as if there was one, in vain.
func (s *sa) verify(now time.Time, a *authentication, payloads []wire.Payload, auth *wire.Auth, then func(time.Time, *verified, *ike.Rejection)) {
	before := a.candidates
	method := ike.AuthPSK
	if isSignature(auth.Method) {
		method = ike.AuthPubkey
	}
	a.keepMethod(method)
	known := len(a.candidates) > 0
	asked := a.candidates
	if !known {
		if asked = before; len(asked) == 0 {
			asked = a.fallback()
		}
		asked = asked[:1]
	}
	refused := func(detail ike.Detail, why string) *ike.Rejection {
		r := &ike.Rejection{Reason: ike.ReasonAuthentication, Detail: detail, Notify: wire.AuthenticationFailed.String(), Theirs: idText(a.peerID), Difference: why}
		switch {
		case !known && len(before) == 0:
			r.Reason, r.Detail, r.Difference, r.Candidates = ike.ReasonIdentity, "", "no connection for this identity", a.passed
		case !known:
			r.Detail, r.Difference, r.Candidates = ike.DetailMethod, "no connection takes authentication by "+method.String()+" here", a.passed
		default:
			s.peer = a.candidates[0]
		}
		return r
	}
	if method == ike.AuthPSK {
		s.verifyPSK(now, a, auth, asked[0], known, refused, then)
		return
	}
	s.verifySignature(now, a, payloads, auth, asked, known, refused, then)
}

// fallback is whom questions about an unknown peer are asked for.
func (a *authentication) fallback() []*ike.Peer { return a.first }

func (s *sa) verifyPSK(now time.Time, a *authentication, auth *wire.Auth, p *ike.Peer, known bool, refused func(ike.Detail, string) *ike.Rejection, then func(time.Time, *verified, *ike.Rejection)) {
	ours := s.nextOurID(a, p)
	remote := identity(a.peerID)
	s.askPSK(now, a, ours, remote, p, func(now time.Time) {
		lookedUp := len(a.psks.list) > 0
		psks := a.psks.list
		if !lookedUp || !known {
			random := make(suite.Key, 32)
			rand.Read(random)
			defer random.Zero()
			psks = []suite.Key{random}
		}
		var sent []byte
		shared := auth.Method == wire.AuthSharedKey
		if shared {
			sent = auth.Data
		}
		octets := a.covered(!s.initiator)
		fits := s.keys.pskMatches(psks, sent, octets, a.peerID, !s.initiator)
		if simbug.Chosen == simbug.AuthUnchecked && lookedUp {
			fits = psks[0]
		}
		if fits == nil || !lookedUp || !known {
			detail, why := ike.DetailPSK, "the shared keys differ"
			switch {
			case !shared:
				detail, why = ike.DetailMethod, "the peer authenticates by "+auth.Method.String()+", which is not supported"
			case !lookedUp:
				detail, why = ike.DetailNoPSK, "no shared key for these identities"
			}
			r := refused(detail, why)
			if known {
				r.Ours = ours.String()
			}
			then(now, nil, r)
			return
		}
		a.psks.fits = fits
		// Other connections would have had another key looked up.
		a.keep(func(c *ike.Peer) (ike.Detail, string) {
			if s.nextOurID(a, c) != ours {
				return ike.DetailLocalID, "its local.id is not the one that the shared key was looked up for"
			}
			return "", ""
		})
		then(now, &verified{method: ike.AuthPSK, id: remote}, nil)
	})
}

// nextOurID is our identity towards which the peer proves itself: of our current
// round, or of our last one if all are done.
func (s *sa) nextOurID(a *authentication, p *ike.Peer) ike.Identity {
	if s.initiator || a.ours >= len(p.Local) {
		return identity(a.ourID)
	}
	id, _ := s.answerID(p, a.ours, a.wanted)
	return id
}

// chainShown are the certificate that has proved the peer and those that came with it,
// where they are needed for a ticket.
func (s *sa) chainShown(signer []byte, certs []ike.CertPayload) (list [][]byte) {
	if s.initiator || signer == nil || !s.env.Resumes() {
		return nil
	}
	list = [][]byte{slices.Clone(signer)}
	for _, c := range certs {
		if c.Encoding == wire.CertX509Signature && !slices.Equal(c.Data, signer) {
			list = append(list, slices.Clone(c.Data))
		}
	}
	return list
}

func (s *sa) verifySignature(now time.Time, a *authentication, payloads []wire.Payload, auth *wire.Auth, peers []*ike.Peer, known bool, refused func(ike.Detail, string) *ike.Rejection, then func(time.Time, *verified, *ike.Rejection)) {
	certs, tooMany := certsOf(payloads)
	if tooMany {
		then(now, nil, refused("", "more certificates than are taken"))
		return
	}
	if auth.Method == wire.AuthRSASignature && len(a.announced.hashes) > 0 && !s.config().NoSignatureAuth {
		// Both know RFC 7427, so SHA-1 is not what the two have chosen.
		then(now, nil, refused(ike.DetailWeak, "the peer signs with SHA-1 although both sides know better ("+wire.SignatureHashAlgorithms.String()+")"))
		return
	}
	round := len(a.theirs)
	peers = slices.Clone(peers)
	for i := range peers {
		if round >= len(peers[i].Remote) { // only in vain
			round = 0
		}
	}
	octets := a.covered(!s.initiator)
	id := identity(a.peerID)
	q := ike.VerifyAuth{SA: s.env.Instance(), Peers: peers, Round: round, ID: id, Certs: certs, Method: auth.Method, Data: auth.Data,
		Octets: s.keys.signedOctets(octets, a.peerID, !s.initiator)}
	s.ask(now, timeoutVerify, q, func(now time.Time, r ike.Result) {
		v, ok := r.Value.(*ike.Verdict)
		good := ok && v != nil && r.Err == nil && len(v.Why) == len(peers) && len(auth.Data) > 0
		if simbug.Chosen == simbug.AuthUnchecked && known {
			v, good = &ike.Verdict{Why: make([]string, len(peers))}, true
		}
		switch {
		case !known || !good:
			why := "the peer's signature was not verified"
			var rej *ike.Rejection
			if r.Err != nil {
				why = r.Err.Error()
			}
			x := refused("", why)
			if errors.As(r.Err, &rej) && known {
				x.Detail, x.Difference, x.Ours, x.Hint = rej.Detail, rej.Difference, rej.Ours, rej.Hint
				x.Candidates = append(x.Candidates, rej.Candidates...)
			}
			then(now, nil, x)
			return
		}
		type verdict struct {
			detail ike.Detail
			why    string
		}
		said := map[*ike.Peer]verdict{}
		for i, p := range peers {
			x := verdict{why: v.Why[i]}
			if i < len(v.Details) {
				x.detail = v.Details[i]
			}
			said[p] = x
		}
		a.keep(func(p *ike.Peer) (ike.Detail, string) { return said[p].detail, said[p].why })
		if len(a.candidates) == 0 {
			x := a.noCandidate(ike.ReasonAuthentication, "the signature is good, but no connection takes "+v.Subject)
			if len(peers) == 1 { // then it is about this one
				s.peer, x.Detail, x.Difference = peers[0], said[peers[0]].detail, said[peers[0]].why
			}
			x.Notify, x.Theirs = wire.AuthenticationFailed.String(), idText(a.peerID)
			then(now, nil, x)
			return
		}
		if v.Scheme != "" {
			s.note(1, "the peer is "+id.String()+" by the key of "+v.Subject+", "+v.Scheme)
		}
		if auth.Method == wire.AuthRSASignature && !s.config().NoSignatureAuth {
			s.note(1, "the peer signs with RSA and SHA-1: it does not know RFC 7427")
		}
		then(now, &verified{method: ike.AuthPubkey, id: id, certs: s.chainShown(v.Signer, certs)}, nil)
	})
}

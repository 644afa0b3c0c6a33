package ikev2

import (
	"crypto/rand"
	"crypto/sha1" // names authorities (RFC 7296 §3.7), proves nothing
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"adit/ike"
	"adit/ike/wire"
	"adit/internal/simbug"
	"adit/suite"
	"adit/suite/sig"
)

// The hash algorithms of RFC 7427 §7 and RFC 8420 that may sign for the peer.
// SHA-1 (1) is not among them, whatever a peer offers.
const (
	hashSHA1     = 1
	hashSHA256   = 2
	hashSHA384   = 3
	hashSHA512   = 4
	hashIdentity = 5
)

// hashNotify announces what signatures we verify (RFC 7427 §4).
func hashNotify() *wire.Notify {
	var b []byte
	for _, h := range []uint16{hashSHA256, hashSHA384, hashSHA512, hashIdentity} {
		b = binary.BigEndian.AppendUint16(b, h)
	}
	return notify(wire.SignatureHashAlgorithms, b)
}

// wishes reads what the payloads of a message say about the signature that the
// peer wants of us. What one message leaves out stays as it was.
func (w *authWishes) read(payloads []wire.Payload, signatures bool) {
	if n := wire.FindNotify(payloads, wire.SignatureHashAlgorithms); n != nil && signatures {
		w.hashes = []uint16{}
		for b := n.Data; len(b) >= 2 && len(w.hashes) < limitHashes; b = b[2:] {
			if h := binary.BigEndian.Uint16(b); h != hashSHA1 && !slices.Contains(w.hashes, h) {
				w.hashes = append(w.hashes, h)
			}
		}
	}
	for _, p := range payloads {
		switch p := p.(type) {
		case *wire.CertReq:
			if p.Encoding == wire.CertX509Signature {
				w.requested = true
				room := limitAuthorityBytes - len(w.authorities)
				b := p.Authorities[:len(p.Authorities)/authorityLen*authorityLen]
				w.authorities = append(w.authorities, b[:min(len(b), room/authorityLen*authorityLen)]...)
			}
		case *wire.Notify:
			if p.NotifyType == wire.SupportedAuthMethods && w.methods == nil {
				w.methods = announcements(p.Data)
			}
		}
	}
}

// announcements reads SUPPORTED_AUTH_METHODS (RFC 9593 §3.2); nil: it makes no
// sense, or it is empty, which only promises another one.
func announcements(b []byte) []ike.AuthAnnouncement {
	var list []ike.AuthAnnouncement
	for len(b) > 0 {
		n := int(b[0])
		if n < 2 || n > len(b) || len(list) == limitAnnouncements {
			return nil
		}
		a := ike.AuthAnnouncement{Method: wire.AuthMethod(b[1])}
		if n > 2 {
			a.CertLink = b[2]
			a.Algorithm = slices.Clone(b[3:n])
		}
		list = append(list, a)
		b = b[n:]
	}
	return list
}

// methodsNotify announces how the peer may sign (RFC 9593 §3), where the
// connections restrict it; otherwise SIGNATURE_HASH_ALGORITHMS says enough.
func methodsNotify(peers []*ike.Peer, signatures bool) []wire.Payload {
	var allowed []sig.Constraints
	restricted, shared := false, false
	for _, p := range peers {
		for i := range p.Remote {
			r := &p.Remote[i]
			shared = shared || r.Method == ike.AuthPSK || r.Method == ike.AuthAny
			if r.Method != ike.AuthPubkey && r.Method != ike.AuthAny {
				continue
			}
			c, err := sig.ParseConstraints(strings.Join(r.Constraints, "-"))
			if err != nil {
				return nil
			}
			restricted = restricted || len(c.IKE()) > 0
			allowed = append(allowed, c)
		}
	}
	if !restricted {
		return nil
	}
	var b []byte
	if shared {
		b = append(b, 2, byte(wire.AuthSharedKey))
	}
	takes := func(s sig.Scheme) bool {
		return slices.ContainsFunc(allowed, func(c sig.Constraints) bool { return c.CheckIKE(s) == nil })
	}
	for i, h := range []sig.Hash{sig.SHA256, sig.SHA384, sig.SHA512} {
		if takes(sig.Scheme{Algorithm: sig.ECDSA, Hash: h}) {
			b = append(b, 3, byte(wire.AuthECDSA256)+byte(i), 0)
		}
	}
	if signatures {
		var list []sig.Scheme
		for _, h := range []sig.Hash{sig.SHA256, sig.SHA384, sig.SHA512} {
			list = append(list, sig.Scheme{Algorithm: sig.ECDSA, Hash: h}, sig.Scheme{Algorithm: sig.RSAPKCS1, Hash: h}, sig.PSS(h))
		}
		list = append(list, sig.Scheme{Algorithm: sig.Ed25519, Hash: sig.Identity}, sig.Scheme{Algorithm: sig.Ed448, Hash: sig.Identity})
		for _, x := range list {
			if der, err := sig.AppendAlgorithm(nil, x); err == nil && takes(x) {
				b = append(append(b, byte(3+len(der)), byte(wire.AuthDigitalSignature), 0), der...)
			}
		}
	}
	return []wire.Payload{notify(wire.SupportedAuthMethods, b)}
}

const authorityLen = sha1.Size

// certRequests asks for certificates of the authorities that the connections
// trust: those that each of them names, else all (RFC 7296 §3.7). Too many to
// name are asked for without a name.
func certRequests(env *ike.Env, peers []*ike.Peer) []wire.Payload {
	var named []byte
	all, wanted := false, false
	for _, p := range peers {
		for i := range p.Remote {
			r := &p.Remote[i]
			if !p.SendCertReq || r.Method != ike.AuthPubkey && r.Method != ike.AuthAny {
				continue
			}
			wanted = true
			if len(r.CACerts) == 0 {
				all = true
			}
			for _, der := range r.CACerts {
				if h, ok := authorityOf(der); ok {
					named = addAuthority(named, h)
				}
			}
		}
	}
	if !wanted {
		return nil
	}
	if all {
		named = nil
		for _, h := range env.Authorities() {
			named = addAuthority(named, h)
		}
		if named == nil {
			return nil // we trust no authority: there is nothing to ask for
		}
	}
	if len(named) > limitAskedAuthorities*authorityLen {
		named = nil
	}
	return []wire.Payload{&wire.CertReq{Encoding: wire.CertX509Signature, Authorities: named}}
}

func addAuthority(list []byte, h [authorityLen]byte) []byte {
	for at := 0; at < len(list); at += authorityLen {
		if [authorityLen]byte(list[at:at+authorityLen]) == h {
			return list
		}
	}
	return append(list, h[:]...)
}

// authorityOf is the hash of the SubjectPublicKeyInfo of a certificate.
func authorityOf(der []byte) (h [authorityLen]byte, ok bool) {
	in := cryptobyte.String(der)
	var cert, tbs, spki cryptobyte.String
	if !in.ReadASN1(&cert, asn1.SEQUENCE) || !cert.ReadASN1(&tbs, asn1.SEQUENCE) ||
		!tbs.SkipOptionalASN1(asn1.Tag(0).ContextSpecific().Constructed()) || !tbs.SkipASN1(asn1.INTEGER) {
		return h, false
	}
	for range 4 { // signature, issuer, validity, subject
		if !tbs.SkipASN1(asn1.SEQUENCE) {
			return h, false
		}
	}
	if !tbs.ReadASN1Element(&spki, asn1.SEQUENCE) {
		return h, false
	}
	return sha1.Sum(spki), true
}

// sign asks for our signature of a round; then gets the CERT payloads and AUTH.
func (s *sa) sign(now time.Time, a *authentication, p *ike.Peer, id *wire.ID, then func(time.Time, []wire.Payload, *wire.Auth, *ike.Rejection)) {
	message, nonce := a.covered(s.initiator)
	q := ike.SignAuth{Peer: p, Round: a.ours, ID: identity(id), Octets: s.keys.signedOctets(message, nonce, id, s.initiator),
		Hashes: a.announced.hashes, Announced: a.announced.methods, Requested: a.announced.requested, Authorities: a.announced.authorities}
	s.ask(now, timeoutSign, q, func(now time.Time, r ike.Result) {
		made, ok := r.Value.(*ike.Signature)
		if r.Err != nil || !ok || made == nil {
			rej := &ike.Rejection{Reason: ike.ReasonAuthentication, Notify: wire.AuthenticationFailed.String(), Ours: identity(id).String(),
				Difference: "no signature of ours", Hint: "connections." + p.Name + ".local.certs, pubkeys or id"}
			if r.Err != nil {
				rej.Difference += ": " + r.Err.Error()
			}
			then(now, nil, nil, rej)
			return
		}
		var certs []wire.Payload
		for _, c := range made.Certs {
			certs = append(certs, &wire.Cert{Encoding: c.Encoding, Data: c.Data})
		}
		auth := &wire.Auth{Method: made.Method, Data: made.Data}
		if err := wire.CheckPayloads(append(slices.Clone(certs), auth)); err != nil {
			then(now, nil, nil, &ike.Rejection{Reason: ike.ReasonAuthentication, Notify: wire.AuthenticationFailed.String(), Ours: identity(id).String(),
				Difference: "our certificates do not fit into a message: " + err.Error()})
			return
		}
		then(now, certs, auth, nil)
	})
}

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
	refused := func(why string) *ike.Rejection {
		r := &ike.Rejection{Reason: ike.ReasonAuthentication, Notify: wire.AuthenticationFailed.String(), Theirs: idText(a.peerID), Difference: why}
		switch {
		case !known && len(before) == 0:
			r.Reason, r.Difference, r.Candidates = ike.ReasonIdentity, "no connection for this identity", a.passed
		case !known:
			r.Difference, r.Candidates = "no connection takes authentication by "+method.String()+" here", a.passed
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

func (s *sa) verifyPSK(now time.Time, a *authentication, auth *wire.Auth, p *ike.Peer, known bool, refused func(string) *ike.Rejection, then func(time.Time, *verified, *ike.Rejection)) {
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
		message, nonce := a.covered(!s.initiator)
		fits := s.keys.pskMatches(psks, sent, message, nonce, a.peerID, !s.initiator)
		if simbug.Chosen == simbug.AuthUnchecked && lookedUp {
			fits = psks[0]
		}
		if fits == nil || !lookedUp || !known {
			why := "the shared keys differ"
			switch {
			case !shared:
				why = "the peer authenticates by " + auth.Method.String() + ", which is not supported"
			case !lookedUp:
				why = "no shared key for these identities"
			}
			r := refused(why)
			if known {
				r.Ours, r.Hint = ours.String(), "secrets.ike*"
			}
			then(now, nil, r)
			return
		}
		a.psks.fits = fits
		// Other connections would have had another key looked up.
		a.keep(func(c *ike.Peer) string {
			if s.nextOurID(a, c) != ours {
				return "its local.id is not the one that the shared key was looked up for"
			}
			return ""
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

func (s *sa) verifySignature(now time.Time, a *authentication, payloads []wire.Payload, auth *wire.Auth, peers []*ike.Peer, known bool, refused func(string) *ike.Rejection, then func(time.Time, *verified, *ike.Rejection)) {
	certs, tooMany := certsOf(payloads)
	if tooMany {
		then(now, nil, refused("more certificates than are taken"))
		return
	}
	if auth.Method == wire.AuthRSASignature && len(a.announced.hashes) > 0 && !s.config().NoSignatureAuth {
		// Both know RFC 7427, so SHA-1 is not what the two have chosen.
		then(now, nil, refused("the peer signs with SHA-1 although both sides know better ("+wire.SignatureHashAlgorithms.String()+")"))
		return
	}
	round := len(a.theirs)
	peers = slices.Clone(peers)
	for i := range peers {
		if round >= len(peers[i].Remote) { // only in vain
			round = 0
		}
	}
	message, nonce := a.covered(!s.initiator)
	id := identity(a.peerID)
	q := ike.VerifyAuth{Peers: peers, Round: round, ID: id, Certs: certs, Method: auth.Method, Data: auth.Data,
		Octets: s.keys.signedOctets(message, nonce, a.peerID, !s.initiator)}
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
			x := refused(why)
			if errors.As(r.Err, &rej) && known {
				x.Difference, x.Ours, x.Hint = rej.Difference, rej.Ours, rej.Hint
				x.Candidates = append(x.Candidates, rej.Candidates...)
			}
			then(now, nil, x)
			return
		}
		why := map[*ike.Peer]string{}
		for i, p := range peers {
			why[p] = v.Why[i]
		}
		a.keep(func(p *ike.Peer) string { return why[p] })
		if len(a.candidates) == 0 {
			x := a.noCandidate(ike.ReasonAuthentication, "the signature is good, but no connection takes "+v.Subject)
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
		then(now, &verified{method: ike.AuthPubkey, id: id}, nil)
	})
}

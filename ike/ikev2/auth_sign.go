package ikev2

import (
	"crypto/sha1" // names authorities (RFC 7296 §3.7), proves nothing
	"encoding/binary"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"adit/ike"
	"adit/ike/wire"
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
			if p.Encoding == wire.CertRawPublicKey { // RFC 7670 §3
				w.requested = true
			}
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
	all, wanted, status := false, false, false
	for _, p := range peers {
		for i := range p.Remote {
			r := &p.Remote[i]
			if !p.SendCertReq || r.Method != ike.AuthPubkey && r.Method != ike.AuthAny {
				continue
			}
			wanted, status = true, status || p.AskOCSP
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
	list := []wire.Payload{&wire.CertReq{Encoding: wire.CertX509Signature, Authorities: named}}
	if status {
		list = append(list, &wire.CertReq{Encoding: wire.CertOCSPContent}) // RFC 4806 §3.1: any responder will do
	}
	return list
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

// sign asks for our signature of a round, by keys (of which there may be some without a
// PPK); then gets the CERT payloads and AUTH.
func (s *sa) sign(now time.Time, a *authentication, p *ike.Peer, id *wire.ID, keys *ikeKeys, then func(time.Time, []wire.Payload, *wire.Auth, *ike.Rejection)) {
	octets := a.covered(s.initiator)
	q := ike.SignAuth{Peer: p, Round: a.ours, ID: identity(id), Octets: keys.signedOctets(octets, id, s.initiator),
		Hashes: a.announced.hashes, Announced: a.announced.methods, Requested: a.announced.requested, Authorities: a.announced.authorities}
	s.ask(now, timeoutSign, q, func(now time.Time, r ike.Result) {
		made, ok := r.Value.(*ike.Signature)
		if r.Err != nil || !ok || made == nil {
			rej := &ike.Rejection{Reason: ike.ReasonAuthentication, Detail: ike.DetailNoSignature, Notify: wire.AuthenticationFailed.String(), Ours: identity(id).String(),
				Difference: "no signature of ours"}
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
		s.peerCaps.certWithheld = len(certs) == 0 && !q.Requested && p.SendCert == ike.SendIfAsked && len(p.Local[q.Round].Certs) > 0
		then(now, certs, auth, nil)
	})
}

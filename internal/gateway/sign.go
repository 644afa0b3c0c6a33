package gateway

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/rsa"
	"fmt"
	"slices"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/pki"
	"adit/suite/sig"
)

// Our own proof: which key and certificate for an identity, and how to sign with it.

// own is a key that may sign, with its certificate or as a raw public key.
type own struct {
	signer crypto.Signer
	cert   *pki.Certificate // nil: raw
	spki   []byte
	chain  []*pki.Certificate // the intermediates above cert, nearest first
	asked  bool               // the peer asked for an authority in the chain
	valid  bool               // the certificate is, now
}

// rank is which of several the peer rather takes: one that it asked for, one that has
// not expired.
func (o own) rank() int {
	n := 0
	if o.asked {
		n += 2
	}
	if o.valid {
		n++
	}
	return n
}

// sign answers a SignAuth.
func (t *trust) sign(q ike.SignAuth) (*ike.Signature, error) {
	r := &q.Peer.Local[q.Round]
	want, err := constraints(r)
	if err != nil {
		return nil, err
	}
	list := t.owned(q, r)
	if len(list) == 0 {
		return nil, fmt.Errorf("no private key with a certificate for %s (%s)", q.ID, t.whyMissing(q.ID, r.Name))
	}
	var refused error
	for _, o := range list {
		if err := want.CheckKey(o.signer.Public()); err != nil {
			refused = cmp.Or(refused, err)
			continue
		}
		if q.V1 != 0 {
			signature, err := signV1(q, o)
			if err != nil {
				refused = cmp.Or(refused, err)
				continue
			}
			return signature, nil
		}
		choice, err := t.choose(q, o, want)
		if err != nil {
			refused = cmp.Or(refused, err)
			continue
		}
		data, err := sig.Sign(o.signer, choice, q.Octets)
		if err != nil {
			return nil, err
		}
		return &ike.Signature{Method: wire.AuthMethod(choice.Method), Data: data, Certs: payloads(q, o)}, nil
	}
	return nil, refused
}

// owned are the keys that may sign as the identity: of the certificates and keys
// that the connection names, else of all that are loaded. Those that the peer asked
// for by an authority go first, then those that are valid now: a renewed certificate
// may lie beside the old one.
func (t *trust) owned(q ike.SignAuth, r *ike.AuthRound) (list []own) {
	add := func(c *pki.Certificate) {
		if key := t.keyOf(c.KeyHash, c); key != nil && !slices.ContainsFunc(list, func(o own) bool { return o.cert != nil && o.cert.Equal(c) }) {
			list = append(list, own{signer: key, cert: c})
		}
	}
	configured := slices.DeleteFunc(t.parseAll(r.Certs), func(c *pki.Certificate) bool { return c == nil })
	for _, c := range configured {
		add(c)
	}
	for _, der := range r.Pubkeys {
		if k, err := pki.NewPublicKey(der); err == nil {
			if key := t.keyOf(k.KeyHash, nil); key != nil {
				list = append(list, own{signer: key, spki: der})
			}
		}
	}
	if len(r.Certs)+len(r.Pubkeys) == 0 {
		for _, c := range t.store.List(pki.Trusted) {
			if q.ID.ConfirmedBy(t.identitiesOf(c)) {
				add(c)
			}
		}
	}
	now := time.Now()
	anchors := t.store.List(pki.Anchor)
	known := slices.Concat(configured, t.store.List(pki.Intermediate), anchors)
	for i := range list {
		if list[i].cert == nil {
			list[i].valid = true
			continue
		}
		list[i].valid = !now.Before(list[i].cert.X509.NotBefore) && !now.After(list[i].cert.X509.NotAfter)
		list[i].chain = issuers(list[i].cert, known)
		list[i].asked = asksFor(q.Authorities, append([]*pki.Certificate{list[i].cert}, list[i].chain...), anchors) ||
			asksByName(q.RequestedNames, append([]*pki.Certificate{list[i].cert}, list[i].chain...))
	}
	slices.SortStableFunc(list, func(a, b own) int { return b.rank() - a.rank() })
	return list
}

// issuers are those of the known certificates that stand above one, without the root:
// what a peer needs that has the root alone.
func issuers(leaf *pki.Certificate, pool []*pki.Certificate) (chain []*pki.Certificate) {
	for c := leaf; len(chain) < limitSent && !c.SelfIssued(); {
		i := slices.IndexFunc(pool, func(o *pki.Certificate) bool {
			return o.IsCA() && bytes.Equal(o.X509.RawSubject, c.X509.RawIssuer) && !o.Equal(c) &&
				(len(c.X509.AuthorityKeyId) == 0 || len(o.X509.SubjectKeyId) == 0 || bytes.Equal(c.X509.AuthorityKeyId, o.X509.SubjectKeyId))
		})
		if i < 0 || pool[i].SelfIssued() || slices.ContainsFunc(chain, pool[i].Equal) {
			break
		}
		c = pool[i]
		chain = append(chain, c)
	}
	return chain
}

// asksFor reports whether one of the authorities, 20 bytes each, is in the chain or
// above it.
func asksFor(authorities []byte, chain, anchors []*pki.Certificate) bool {
	top := chain[len(chain)-1]
	for ; len(authorities) >= 20; authorities = authorities[20:] {
		hash := [20]byte(authorities)
		for i, c := range chain {
			if i > 0 && c.KeyHash == hash {
				return true
			}
		}
		for _, a := range anchors {
			if a.KeyHash == hash && bytes.Equal(a.X509.RawSubject, top.X509.RawIssuer) {
				return true
			}
		}
	}
	return false
}

// choose says how to sign: by what the configuration wants, the peer understands and,
// if it said so, announced (RFC 9593).
func (t *trust) choose(q ike.SignAuth, o own, want sig.Constraints) (sig.Choice, error) {
	var hashes []sig.Hash
	if q.Hashes != nil {
		hashes = make([]sig.Hash, len(q.Hashes))
		for i, h := range q.Hashes {
			hashes[i] = sig.Hash(h)
		}
	}
	list := sig.Choose(o.signer.Public(), hashes, want.IKE())
	_, isRSA := o.signer.Public().(*rsa.PublicKey)
	marked := o.cert != nil && o.cert.PSSOnly
	if isRSA && (marked || t.pss && len(want.IKE()) == 0) {
		pss, _ := sig.ParseConstraints("rsa/pss-sha256-sha384-sha512")
		preferred := sig.Choose(o.signer.Public(), hashes, pss.IKE())
		if marked {
			list = nil
		}
		list = append(preferred, list...)
	}
	if len(list) == 0 {
		kind, bits := sig.KeyKind(o.signer.Public())
		return sig.Choice{}, fmt.Errorf("no signature scheme for the %s key of %d bits that the peer (hashes %v) and the configuration (%s) both take", kind, bits, hashes, want)
	}
	for _, c := range list {
		if announced(q.Announced, c) {
			return c, nil
		}
	}
	return list[0], nil // what it announced cannot be met: let it say no itself
}

func announced(list []ike.AuthAnnouncement, c sig.Choice) bool {
	if list == nil {
		return true
	}
	alg, _ := sig.AppendAlgorithm(nil, c.Scheme)
	return slices.ContainsFunc(list, func(a ike.AuthAnnouncement) bool {
		return uint8(a.Method) == c.Method && (len(a.Algorithm) == 0 || bytes.Equal(a.Algorithm, alg))
	})
}

// payloads are the CERT payloads for a signature, as send_cert says.
func payloads(q ike.SignAuth, o own) (list []ike.CertPayload) {
	if q.Peer.SendCert == ike.SendNever || q.Peer.SendCert == ike.SendIfAsked && !q.Requested {
		return nil
	}
	if o.cert == nil {
		return []ike.CertPayload{{Encoding: wire.CertRawPublicKey, Data: o.spki}}
	}
	list = append(list, ike.CertPayload{Encoding: wire.CertX509Signature, Data: o.cert.DER()})
	for _, c := range o.chain {
		list = append(list, ike.CertPayload{Encoding: wire.CertX509Signature, Data: c.DER()})
	}
	return list
}

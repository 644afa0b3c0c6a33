package gateway

import (
	"bytes"
	"errors"
	"slices"

	"adit/ike"
	"adit/ike/wire"
	"adit/pki"
	"adit/suite/sig"
)

// Signatures of IKEv1, whose method is agreed on before anybody signs.

// kinds answers a SignerKinds.
func (t *trust) kinds(q ike.SignerKinds) ([]wire.V1Auth, error) {
	r := &q.Peer.Local[q.Round]
	want, err := constraints(r)
	if err != nil {
		return nil, err
	}
	list := []wire.V1Auth{}
	for _, o := range t.owned(ike.SignAuth{Peer: q.Peer, Round: q.Round, ID: q.ID}, r) {
		m := wire.V1Auth(sig.V1Method(o.signer.Public()))
		if m != 0 && o.cert != nil && !o.cert.PSSOnly && want.CheckKey(o.signer.Public()) == nil && !slices.Contains(list, m) {
			list = append(list, m)
		}
	}
	return list, nil
}

// signV1 signs by the method that was agreed on.
func signV1(q ike.SignAuth, o own) (*ike.Signature, error) {
	if o.cert == nil || o.cert.PSSOnly {
		return nil, errors.New("IKEv1 wants a certificate, of a key that isn't for RSASSA-PSS alone")
	}
	data, err := sig.SignV1(o.signer, uint16(v1Signature(q.V1)), q.Octets)
	if err != nil {
		return nil, err
	}
	return &ike.Signature{Data: data, Certs: payloads(q, o)}, nil
}

// v1Signature is the kind of signature that a method of IKEv1 has.
func v1Signature(a wire.V1Auth) wire.V1Auth {
	switch a {
	case wire.V1AuthXAuthInitRSA, wire.V1AuthXAuthRespRSA, wire.V1AuthHybridInitRSA, wire.V1AuthHybridRespRSA:
		return wire.V1AuthRSASig
	}
	return a
}

// asksByName reports whether one of the names, DER as in a CERTREQ of IKEv1, is of an
// authority above the chain's first certificate.
func asksByName(names [][]byte, chain []*pki.Certificate) bool {
	return slices.ContainsFunc(names, func(name []byte) bool {
		return slices.ContainsFunc(chain, func(c *pki.Certificate) bool { return bytes.Equal(c.X509.RawIssuer, name) })
	})
}

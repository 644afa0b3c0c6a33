package ikev1

import (
	"bytes"
	"crypto/x509"
	"slices"

	"adit/ike"
	"adit/ike/wire"
)

// Certificate requests (RFC 2408 §3.10): which authorities each side would rather see a
// certificate of, by their names. They are a hint: whether a certificate will do is found
// when it is there.

// readCertReqs takes the authorities that the peer asks for, by their names.
func (s *sa) readCertReqs(in *inbound) {
	for _, b := range in.all(wire.PayloadV1CERTREQ) {
		if len(b) > 0 && wire.CertEncoding(b[0]) == wire.CertX509Signature && len(s.setup.asked) < limitAuthorities {
			s.setup.requested = true
			if len(b) > 1 {
				s.setup.asked = append(s.setup.asked, slices.Clone(b[1:]))
			}
		}
	}
}

// certRequests asks for a certificate: one payload for each authority that the
// connections trust, by its name. An empty one stands for any: where there are too many
// to name, where one can't be read, and with brief, for who has not shown yet that it
// receives what it is sent.
func (s *sa) certRequests(brief bool) []wire.V1Payload {
	if shared(s.setup.auth) || !slices.ContainsFunc(s.setup.candidates, func(p *ike.Peer) bool { return p.SendCertReq }) {
		return nil
	}
	names := [][]byte{nil}
	if !brief {
		names = askedNames(s.setup.candidates, s.env.AuthorityNames())
	}
	var list []wire.V1Payload
	for _, name := range names {
		list = append(list, wire.V1Payload{Type: wire.PayloadV1CERTREQ, Body: append([]byte{byte(wire.CertX509Signature)}, name...)})
	}
	return list
}

// askedNames are the names to ask for, an empty one alone for any: those that each
// connection has authorities for, else all.
func askedNames(candidates []*ike.Peer, trusted [][]byte) [][]byte {
	var names [][]byte
	size := 0
	add := func(name []byte) {
		if !slices.ContainsFunc(names, func(n []byte) bool { return bytes.Equal(n, name) }) {
			names, size = append(names, name), size+len(name)
		}
	}
	readable := true
	for _, p := range candidates {
		for i := range p.Remote {
			r := &p.Remote[i]
			if !p.SendCertReq || r.Method != ike.AuthPubkey && r.Method != ike.AuthAny {
				continue
			}
			if len(r.CACerts) == 0 {
				for _, name := range trusted[:min(len(trusted), limitAskedFor+1)] {
					add(name)
				}
			}
			for _, der := range r.CACerts {
				c, err := x509.ParseCertificate(der)
				if readable = readable && err == nil; err == nil {
					add(c.RawSubject)
				}
			}
		}
	}
	if len(names) == 0 || len(names) > limitAskedFor || size > limitAskedBytes || !readable {
		return [][]byte{nil}
	}
	return names
}

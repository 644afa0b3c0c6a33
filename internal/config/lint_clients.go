package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"slices"
	"strings"

	"adit/ike"
	"adit/pki"
)

// clients looks at what the VPN clients of Windows, Apple and Android demand of the
// gateway's certificate: of a connection whose peers come from anywhere and use EAP or
// are given addresses.
func (l *linter) clients(p *ike.Peer) {
	eap := slices.ContainsFunc(p.Remote, func(r ike.AuthRound) bool { return r.Method == ike.AuthEAP })
	if !anywhere(p) || !eap && len(p.Pools) == 0 {
		return
	}
	for _, r := range p.Local {
		if r.Method != ike.AuthPubkey {
			continue
		}
		c := l.certOf(r)
		if c == nil {
			continue // told already
		}
		at := connPath(p, r.Name, "certs")
		if p.SendCert == ike.SendIfAsked && !slices.ContainsFunc(l.m.Certs, func(k Cert) bool { return k.Kind == CertX509 && k.Flag == "CA" }) {
			l.warn(connPath(p, "send_cert"), "clients that believe the system's authorities (Apple's, adit connect) ask for no certificate, and get none: set send_cert = always")
		}
		x := c.X509
		switch {
		case len(x.DNSNames)+len(x.IPAddresses) == 0:
			l.warn(at, "certificate %s has no subjectAltName: the clients of Windows, Apple and Android refuse it; issue it with the name that they connect to as dNSName", name(c))
		case r.ID.Type == ike.IDFQDN && !slices.ContainsFunc(x.DNSNames, func(n string) bool { return strings.EqualFold(n, r.ID.String()) || wildcard(n, r.ID.String()) }):
			l.warn(at, "certificate %s has no dNSName %s: clients that connect to this name refuse it; issue it with that name", name(c), r.ID)
		case len(x.DNSNames) == 0:
			l.warn(at, "certificate %s has addresses as subjectAltName and no dNSName: the client of Windows looks for either of them as dNSName; add one", name(c))
		}
		if !slices.ContainsFunc(x.ExtKeyUsage, func(u x509.ExtKeyUsage) bool {
			return u == x509.ExtKeyUsageServerAuth || u == x509.ExtKeyUsageAny
		}) {
			l.warn(at, "certificate %s has no extendedKeyUsage serverAuth: the clients of Windows and Apple refuse it; issue it with serverAuth", name(c))
		}
		switch k := x.PublicKey.(type) {
		case *rsa.PublicKey:
			if k.N.BitLen() < 2048 {
				l.warn(at, "certificate %s has an RSA key of %d bits: clients refuse less than 2048", name(c), k.N.BitLen())
			}
		case *ecdsa.PublicKey:
			if k.Curve != elliptic.P256() && k.Curve != elliptic.P384() {
				l.warn(at, "certificate %s has a key on %s: the client of Windows knows RSA, P-256 and P-384 only", name(c), k.Curve.Params().Name)
			}
		default:
			l.warn(at, "certificate %s has a key that the client of Windows does not know: it takes RSA, P-256 and P-384 only", name(c))
		}
	}
}

func wildcard(pattern, name string) bool {
	suffix, ok := strings.CutPrefix(strings.ToLower(pattern), "*")
	_, rest, found := strings.Cut(strings.ToLower(name), ".")
	return ok && found && suffix == "."+rest
}

// certOf is the certificate that a local round proves itself with, nil if none is found.
func (l *linter) certOf(r ike.AuthRound) *pki.Certificate {
	for _, der := range r.Certs {
		if c, err := pki.NewCertificate(der); err == nil && !c.IsCA() {
			return c
		}
	}
	if len(r.Certs) > 0 || r.ID.IsAny() {
		return nil
	}
	for _, k := range l.m.Certs {
		if k.Kind != CertX509 {
			continue
		}
		if c, err := pki.NewCertificate(k.DER); err == nil && !c.IsCA() && r.ID.ConfirmedBy(CertIdentities(c)) {
			return c
		}
	}
	return nil
}

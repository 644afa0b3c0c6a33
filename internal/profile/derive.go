package profile

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"adit/ike"
	"adit/ike/wire"
	"adit/internal/config"
	"adit/pki"
)

// Of derives a profile from a connection of a configuration: the one of that name, or,
// with an empty name, the only one that people come in by. gateway overrides the name
// to connect to.
func Of(m *config.Model, conn, gateway string) (*Profile, error) {
	peer, err := pick(m, conn)
	if err != nil {
		return nil, err
	}
	p := &Profile{Name: peer.Name, IKE: peer.Proposals}
	r := &peer.Remote[0]
	p.EAPTLS = r.Method == ike.AuthEAP && r.EAP == ike.EAPTLS
	local := &peer.Local[0]
	own, err := certOf(m, local)
	if err != nil {
		return nil, fmt.Errorf("connection %s: %w", peer.Name, err)
	}
	p.RemoteID = local.ID.String()
	if local.ID.IsAny() {
		p.RemoteID = own.Subject()
	}
	switch {
	case gateway != "":
		p.Gateway = gateway
	case local.ID.Type == ike.IDFQDN:
		p.Gateway = local.ID.String()
	case len(own.X509.DNSNames) > 0:
		p.Gateway = own.X509.DNSNames[0]
	default:
		return nil, fmt.Errorf("connection %s: neither local.id nor the certificate has a name to connect to: use --gateway", peer.Name)
	}
	p.Issuer, p.Unasked = own.X509.Issuer.CommonName, peer.SendCert == ike.SendAlways
	if p.CA = authorityOf(m, own); p.CA == nil {
		p.Root = systemRoot(m, own)
	}
	p.traffic(m, peer)
	for _, c := range peer.Children {
		p.ESP = append(p.ESP, c.Proposals...)
	}
	return p, nil
}

// NeedsCert says whether the connection wants a certificate of the user.
func NeedsCert(m *config.Model, conn string) (bool, error) {
	peer, err := pick(m, conn)
	if err != nil {
		return false, err
	}
	r := &peer.Remote[0]
	return r.Method == ike.AuthPubkey || r.Method == ike.AuthEAP && r.EAP == ike.EAPTLS, nil
}

// pick is the connection.
func pick(m *config.Model, name string) (*ike.Peer, error) {
	var fits []*ike.Peer
	var names []string
	for _, p := range m.Peers {
		if name != "" && p.Name != name {
			continue
		}
		why := unfit(p)
		if name != "" && why != "" {
			return nil, fmt.Errorf("connection %s: %s", name, why)
		}
		if why == "" {
			fits, names = append(fits, p), append(names, p.Name)
		}
	}
	switch {
	case len(fits) == 1:
		return fits[0], nil
	case name != "":
		return nil, fmt.Errorf("there is no connection %s", name)
	case len(fits) == 0:
		return nil, errors.New("there is no connection for people: one with a certificate as local.auth, eap-* or pubkey as remote.auth, and pools")
	}
	return nil, fmt.Errorf("several connections are for people: choose with --connection one of %s", strings.Join(names, ", "))
}

// unfit says why nobody can have a profile for a connection, empty if one can.
func unfit(p *ike.Peer) string {
	switch {
	case p.Version == 1:
		return "it is IKEv1"
	case len(p.Pools) == 0:
		return "it has no pools, so clients would get no address"
	case len(p.Local) != 1 || p.Local[0].Method != ike.AuthPubkey:
		return "local.auth is not pubkey: clients want a certificate of the gateway"
	case len(p.Remote) != 1:
		return "it has several rounds of remote authentication, which no profile can say"
	}
	switch r := &p.Remote[0]; {
	case r.Method == ike.AuthPubkey:
	case r.Method != ike.AuthEAP:
		return "remote.auth is neither eap-* nor pubkey"
	case r.EAP == ike.EAPMD5 || r.EAP == ike.EAPGTC || r.EAP == ike.EAPTTLS:
		return "the clients of Windows, Apple and Android know eap-mschapv2 and eap-tls only"
	}
	return ""
}

// certOf is the gateway's certificate.
func certOf(m *config.Model, r *ike.AuthRound) (*pki.Certificate, error) {
	for _, der := range r.Certs {
		if c, err := pki.NewCertificate(der); err == nil {
			return c, nil
		}
	}
	for _, k := range m.Certs {
		if k.Kind != config.CertX509 || r.ID.IsAny() {
			continue
		}
		if c, err := pki.NewCertificate(k.DER); err == nil && !c.IsCA() && r.ID.ConfirmedBy(config.CertIdentities(c)) {
			return c, nil
		}
	}
	return nil, errors.New("there is no certificate for local.id")
}

// authorityOf is the root above the certificate that lies in x509ca; nil if none does,
// as with a certificate that every system trusts.
func authorityOf(m *config.Model, c *pki.Certificate) *pki.Certificate {
	for range 8 {
		var next *pki.Certificate
		for _, k := range m.Certs {
			if k.Kind != config.CertX509 {
				continue
			}
			ca, err := pki.NewCertificate(k.DER)
			if err == nil && ca.IsCA() && ca.Subject() == c.Issuer() && c.X509.CheckSignatureFrom(ca.X509) == nil {
				next = ca
				break
			}
		}
		if next == nil {
			return nil
		}
		if next.SelfIssued() {
			return next
		}
		c = next
	}
	return nil
}

// systemPool are the authorities that this system knows.
var systemPool = x509.SystemCertPool

// systemRoot is the root above a certificate among those that this system knows, nil if
// none is.
func systemRoot(m *config.Model, c *pki.Certificate) *pki.Certificate {
	roots, err := systemPool()
	if err != nil {
		return nil
	}
	between := x509.NewCertPool()
	for _, k := range m.Certs {
		if x, err := pki.NewCertificate(k.DER); k.Kind == config.CertX509 && err == nil && x.IsCA() {
			between.AddCert(x.X509)
		}
	}
	chains, err := c.X509.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		return nil
	}
	root, err := pki.NewCertificate(chains[0][len(chains[0])-1].Raw)
	if err != nil {
		return nil
	}
	return root
}

// traffic finds what goes through the tunnel, and the domains of its name servers.
func (p *Profile) traffic(m *config.Model, peer *ike.Peer) {
	for _, c := range peer.Children {
		for _, s := range c.Local {
			if s.IsDynamic() {
				continue
			}
			for _, x := range s.Prefixes() {
				if x.Bits() == 0 {
					p.Subnets = nil
					p.domains(m, peer)
					return
				}
				if !slices.Contains(p.Subnets, x) {
					p.Subnets = append(p.Subnets, x)
				}
			}
		}
	}
	p.domains(m, peer)
}

func (p *Profile) domains(m *config.Model, peer *ike.Peer) {
	const internalDNSDomain = 25 // RFC 8598 §4.1
	for _, pool := range m.Pools {
		if !slices.Contains(peer.Pools, pool.Name) {
			continue
		}
		for _, a := range pool.Attributes {
			if d := string(a.Value); a.Type == wire.AttributeType(internalDNSDomain) && d != "" && !slices.Contains(p.Domains, d) {
				p.Domains = append(p.Domains, d)
			}
		}
	}
}

// families says of which families the subnets are.
func families(list []netip.Prefix) (v4, v6 []netip.Prefix) {
	for _, x := range list {
		if x.Addr().Is4() {
			v4 = append(v4, x)
		} else {
			v6 = append(v6, x)
		}
	}
	return v4, v6
}

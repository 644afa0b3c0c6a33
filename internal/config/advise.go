package config

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"adit/ike"
	"adit/pki"
)

// CertIdentities are the identities that a certificate speaks for (RFC 4945 §5.1):
// its subject, its subjectAltNames, and its keys' names.
func CertIdentities(c *pki.Certificate) []ike.Identity {
	x := c.X509
	ips := make([]netip.Addr, 0, len(x.IPAddresses))
	for _, ip := range x.IPAddresses {
		if a, ok := netip.AddrFromSlice(ip); ok {
			ips = append(ips, a.Unmap())
		}
	}
	return ike.CertificateIdentities(x.RawSubject, x.DNSNames, x.EmailAddresses, ips, x.SubjectKeyId, c.KeyID[:], c.KeyHash[:])
}

// advise warns of what does not fit together in a whole configuration: certificates
// without private keys, of others, or out of their time; peers that nothing can
// be believed of; pools and secrets that are missing.
func (d *decoder) advise(m *Model, now time.Time) {
	if d.dir == "" {
		return // credentials come from elsewhere
	}
	a := adviser{d: d, m: m, now: now, parsed: map[string]*pki.Certificate{}, told: map[string]bool{}, keys: map[[20]byte]bool{}}
	for _, k := range m.Keys {
		if h, err := pki.KeyHash(k.Signer.Public()); err == nil {
			a.keys[h] = true
		}
	}
	for _, c := range m.Certs {
		if x := a.parse(c.DER); c.Kind == CertX509 && x != nil {
			a.times(x, Warning{Pos: c.Pos})
			if a.keys[x.KeyHash] {
				a.own = append(a.own, x)
			} else {
				a.others = a.others || !x.IsCA()
			}
		}
		a.others = a.others || c.Kind == CertPubkey || c.Flag == "CA"
	}
	for _, p := range m.Peers {
		if p.OnlyShunts() {
			continue
		}
		for _, r := range p.Local {
			a.local(p, r)
		}
		for _, r := range p.Remote {
			a.remote(p, r)
		}
		for _, name := range p.Pools {
			if name != RADIUSPool && !slices.ContainsFunc(m.Pools, func(q Pool) bool { return q.Name == name }) {
				a.warn(p, ike.AuthRound{}, fmt.Sprintf("there is no pool %s in pools", name))
			}
		}
	}
}

type adviser struct {
	d      *decoder
	m      *Model
	now    time.Time
	parsed map[string]*pki.Certificate
	told   map[string]bool
	keys   map[[20]byte]bool  // private keys, by pki.KeyHash
	own    []*pki.Certificate // loaded ones with a private key
	others bool               // authorities, or certificates and keys of peers, are loaded
}

func (a *adviser) parse(der []byte) *pki.Certificate {
	c, ok := a.parsed[string(der)]
	if !ok {
		c, _ = pki.NewCertificate(der)
		a.parsed[string(der)] = c
	}
	return c
}

func (a *adviser) warn(p *ike.Peer, r ike.AuthRound, text string) {
	path := "connections." + p.Name
	if r.Name != "" {
		path += "." + r.Name
	}
	pos, ok := a.d.places[path]
	if !ok {
		pos = a.d.places["connections."+p.Name]
	}
	a.d.warn(pos, path+": "+text)
}

// times warns once of a certificate that is not valid now.
func (a *adviser) times(c *pki.Certificate, at Warning) {
	text := ""
	switch {
	case a.now.After(c.X509.NotAfter):
		text = "has expired on " + c.X509.NotAfter.UTC().Format(time.DateTime)
	case a.now.Before(c.X509.NotBefore):
		text = "is not valid before " + c.X509.NotBefore.UTC().Format(time.DateTime)
	}
	if text != "" && !a.told[string(c.DER())] {
		a.told[string(c.DER())] = true
		a.d.warn(at.Pos, fmt.Sprintf("%scertificate %s %s (UTC)", at.Text, name(c), text))
	}
}

func name(c *pki.Certificate) string {
	if id, err := ike.DNIdentity(c.X509.RawSubject); err == nil {
		return id.String()
	}
	return "without subject, serial " + c.Serial()
}

// local checks how we prove ourselves.
func (a *adviser) local(p *ike.Peer, r ike.AuthRound) {
	switch r.Method {
	case ike.AuthPSK:
		a.shared(p, r)
		return
	case ike.AuthEAP:
		a.secret(p, r)
		if r.EAP != ike.EAPTLS {
			return
		}
	case ike.AuthPubkey:
	default:
		return
	}
	at := Warning{Pos: a.d.places["connections."+p.Name+"."+r.Name], Text: "connections." + p.Name + "." + r.Name + ": "}
	for _, der := range r.Pubkeys {
		if k, err := pki.NewPublicKey(der); err == nil && a.keys[k.KeyHash] {
			return
		}
	}
	certs := r.Certs
	if len(certs) == 0 && len(r.Pubkeys) == 0 {
		for _, x := range a.own {
			if r.ID.IsAny() || r.ID.ConfirmedBy(CertIdentities(x)) {
				certs = append(certs, x.DER())
			}
		}
	}
	var own []*pki.Certificate
	for _, der := range certs {
		if x := a.parse(der); x != nil && a.keys[x.KeyHash] {
			own = append(own, x)
			a.times(x, at)
		}
	}
	switch {
	case len(own) == 0 && len(r.Certs)+len(r.Pubkeys) > 0:
		a.warn(p, r, "none of its certificates and public keys has its private key in "+a.d.dir+"/private or the other directories")
	case len(own) == 0 && r.ID.IsAny():
		a.warn(p, r, "auth = pubkey, but there is no certificate with its private key")
	case len(own) == 0:
		a.warn(p, r, fmt.Sprintf("auth = pubkey, but there is no certificate for %s with its private key", r.ID))
	case !r.ID.IsAny() && !slices.ContainsFunc(own, func(c *pki.Certificate) bool { return r.ID.ConfirmedBy(CertIdentities(c)) }):
		a.warn(p, r, fmt.Sprintf("id %s is neither the subject nor a subjectAltName of certificate %s: peers will refuse it", r.ID, name(own[0])))
	}
}

// shared checks that there is a pre-shared key for the identities of a connection.
func (a *adviser) shared(p *ike.Peer, r ike.AuthRound) {
	for _, s := range a.m.Secrets {
		if s.Kind != SecretIKE {
			continue
		}
		fits := len(s.Owners) == 0 || r.ID.IsAny() // its address
		for _, o := range s.Owners {
			fits = fits || r.ID.Match(o) != ike.MatchNone || slices.ContainsFunc(p.Remote, func(q ike.AuthRound) bool {
				return q.ID.IsPattern() || q.ID.IsAny() || q.ID.Match(o) != ike.MatchNone
			})
		}
		if fits {
			return
		}
	}
	a.warn(p, r, "auth = psk, but there is no section secrets.ike* for these identities")
}

// secret checks that a client of EAP has its password.
func (a *adviser) secret(p *ike.Peer, r ike.AuthRound) {
	id := r.EAPID
	if id.IsAny() {
		id = r.ID
	}
	if r.EAP == ike.EAPTLS || id.IsAny() {
		return
	}
	for _, s := range a.m.Secrets {
		if s.Kind != SecretEAP && s.Kind != SecretNTLM {
			continue
		}
		if len(s.Owners) == 0 || slices.ContainsFunc(s.Owners, func(o ike.Identity) bool { return id.Match(o) != ike.MatchNone }) {
			return
		}
	}
	a.warn(p, r, fmt.Sprintf("there is no secret of %s for EAP", id))
}

// pinned checks that a certificate named for the peer is of whom is expected.
func (a *adviser) pinned(p *ike.Peer, r ike.AuthRound) {
	if len(r.Certs) == 0 || r.ID.IsAny() || r.ID.IsPattern() {
		return
	}
	var first *pki.Certificate
	for _, der := range r.Certs {
		x := a.parse(der)
		if x == nil || x.IsCA() || r.ID.ConfirmedBy(CertIdentities(x)) {
			return
		}
		if first == nil {
			first = x
		}
	}
	if first != nil {
		a.warn(p, r, fmt.Sprintf("id %s is neither the subject nor a subjectAltName of certificate %s: the peer cannot prove it by that one", r.ID, name(first)))
	}
}

// remote checks that the peer can be believed.
func (a *adviser) remote(p *ike.Peer, r ike.AuthRound) {
	password := slices.Contains([]ike.EAPMethod{ike.EAPMD5, ike.EAPGTC, ike.EAPMSCHAPv2, ike.EAPTTLS}, r.EAP)
	if r.Method == ike.AuthEAP && password && len(a.m.Users) == 0 && !slices.ContainsFunc(a.m.Secrets, func(s Secret) bool { return s.Kind == SecretEAP || s.Kind == SecretNTLM }) {
		a.warn(p, r, "auth = eap-"+string(r.EAP)+", but there is no password in secrets.eap*, nor a user of adit user")
	}
	for _, der := range slices.Concat(r.Certs, r.CACerts) {
		if x := a.parse(der); x != nil {
			a.times(x, Warning{Pos: a.d.places["connections."+p.Name+"."+r.Name], Text: "connections." + p.Name + "." + r.Name + ": "})
		}
	}
	a.pinned(p, r)
	if r.Method != ike.AuthPubkey && (r.Method != ike.AuthEAP || r.EAP != ike.EAPTLS) || len(r.Certs)+len(r.CACerts)+len(r.Pubkeys)+len(a.m.Authorities) > 0 {
		return
	}
	if !a.others {
		a.warn(p, r, "no certificate can be believed: there is no CA in "+a.d.dir+"/x509ca, no cacerts, certs or pubkeys")
	}
}

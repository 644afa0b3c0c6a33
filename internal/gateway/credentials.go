package gateway

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"slices"
	"sync"

	"adit/ike"
	"adit/internal/config"
	"adit/pki"
)

// trust is what we prove ourselves with and whom we believe: certificates, private
// keys, authorities. Safe for concurrent use.
type trust struct {
	store *pki.Store
	pss   bool // RSA-PSS before PKCS#1 v1.5 where nothing else is configured
	// rejectTrusted refuses peers that prove themselves by a certificate that is loaded.
	rejectTrusted bool
	notify        func(ike.Trust) // hears of every change of the anchors

	mu          sync.Mutex
	certs       []ownedCert
	keys        []ownedKey
	authorities []ownedAuthority
	kept        map[string]kept   // by the sections of adit.acme
	missing     map[string]string // what is the matter with a domain of theirs
	// parsed and names remember certificates of connections, and whose they are, by
	// their DER and fingerprint: both are asked for at every set-up.
	parsed map[string]*pki.Certificate
	names  map[[32]byte][]ike.Identity
}

type ownedCert struct {
	config.Cert
	x509   *pki.Certificate
	raw    *pki.PublicKey
	crl    *pki.CRL
	source Source
}

type ownedKey struct {
	config.Key
	hash   [20]byte // of the SubjectPublicKeyInfo, as pki.Certificate.KeyHash
	source Source
}

type ownedAuthority struct {
	config.Authority
	source Source
}

func (t *trust) init(f pki.Fetcher) {
	t.store = pki.NewStore(f)
	t.parsed, t.names = map[string]*pki.Certificate{}, map[[32]byte][]ike.Identity{}
}

// parse is the certificate of some DER, nil if it is none. What it has parsed it
// remembers, up to a bound.
func (t *trust) parse(der []byte) *pki.Certificate {
	t.mu.Lock()
	c, ok := t.parsed[string(der)]
	t.mu.Unlock()
	if ok {
		return c
	}
	c, err := pki.NewCertificate(der)
	if err != nil {
		c = nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.parsed) >= limitParsed {
		clear(t.parsed)
	}
	t.parsed[string(der)] = c
	return c
}

// parseAll keeps a nil for what is no certificate: a constraint that cannot be read
// matches nothing, where an empty list would match all.
func (t *trust) parseAll(list [][]byte) []*pki.Certificate {
	out := make([]*pki.Certificate, len(list))
	for i, der := range list {
		out[i] = t.parse(der)
	}
	return out
}

// identitiesOf remembers the identities of certificates that are loaded.
func (t *trust) identitiesOf(c *pki.Certificate) []ike.Identity {
	t.mu.Lock()
	ids, ok := t.names[c.Fingerprint]
	t.mu.Unlock()
	if ok {
		return ids
	}
	ids = identities(c)
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.names) >= limitParsed {
		clear(t.names)
	}
	t.names[c.Fingerprint] = ids
	return ids
}

// fetches reports whether an authority names where revocation is to be asked for.
func (t *trust) fetches() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.ContainsFunc(t.authorities, func(a ownedAuthority) bool { return len(a.CRLURIs)+len(a.OCSPURIs) > 0 })
}

// LoadCert adds a certificate, CRL or public key.
func (g *Gateway) LoadCert(c config.Cert) error {
	err := g.trust.load(c, FromVICI)
	g.trust.announce()
	if c.Kind == config.CertCRL {
		g.standing.look()
	}
	return err
}

// announce tells the engine of the authorities.
func (t *trust) announce() {
	if t.notify != nil {
		t.notify(ike.Trust{Authorities: t.store.Authorities(), Names: t.store.AuthorityNames()})
	}
}

func (t *trust) load(c config.Cert, source Source) error {
	o := ownedCert{Cert: c, source: source}
	var err error
	switch c.Kind {
	case config.CertX509:
		o.x509, err = pki.NewCertificate(c.DER)
	case config.CertCRL:
		o.crl, err = pki.ParseCRL(c.DER)
	case config.CertPubkey:
		o.raw, err = pki.NewPublicKey(c.DER)
	default:
		err = fmt.Errorf("certificates of type %s are not supported", c.Kind)
	}
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, old := range t.certs {
		if old.Kind == c.Kind && old.Flag == c.Flag && slices.Equal(old.DER, c.DER) {
			if old.source != Kept {
				t.certs[i].source = min(old.source, source) // what the file has too stays the file's
			}
			return nil
		}
	}
	if len(t.certs) >= limitCerts {
		return fmt.Errorf("more than %d certificates", limitCerts)
	}
	if err := t.enter(o); err != nil {
		return err
	}
	t.certs = append(t.certs, o)
	return nil
}

// enter puts a credential into the store; the caller holds mu.
func (t *trust) enter(o ownedCert) error {
	switch {
	case o.crl != nil:
		_, err := t.store.AddCRL(o.crl)
		return err
	case o.raw != nil:
		return t.store.AddKey(o.raw)
	case o.Flag == "CA":
		return t.store.Add(pki.Anchor, o.x509)
	case o.x509.IsCA():
		return t.store.Add(pki.Intermediate, o.x509)
	}
	return t.store.Add(pki.Trusted, o.x509)
}

// rebuild fills the store anew after something was taken away; the caller holds mu.
func (t *trust) rebuild() error {
	t.store.Flush()
	var errs []error
	for _, c := range t.certs {
		errs = append(errs, t.enter(c))
	}
	for _, a := range t.authorities {
		errs = append(errs, t.setAuthority(a.Authority))
	}
	return errors.Join(errs...)
}

func (t *trust) setAuthority(a config.Authority) error {
	ca, err := pki.NewCertificate(a.CACert)
	if err != nil {
		return err
	}
	return t.store.SetAuthority(pki.Authority{Name: a.Name, CA: ca, CRLs: a.CRLURIs, OCSPs: a.OCSPURIs, CertURIBase: a.CertURIBase})
}

// LoadKey adds a private key.
func (g *Gateway) LoadKey(k config.Key) error { return g.trust.loadKey(k, FromVICI) }

func (t *trust) loadKey(k config.Key, source Source) error {
	hash, err := pki.KeyHash(k.Signer.Public())
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, old := range t.keys {
		if old.hash == hash {
			return nil
		}
	}
	if len(t.keys) >= limitKeys {
		return fmt.Errorf("more than %d private keys", limitKeys)
	}
	t.keys = append(t.keys, ownedKey{k, hash, source})
	return nil
}

// UnloadKey forgets the private key of that ID.
func (g *Gateway) UnloadKey(id string) error {
	t := &g.trust
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(t.keys)
	t.keys = slices.DeleteFunc(t.keys, func(k ownedKey) bool { return k.ID == id && k.source != Kept })
	if len(t.keys) == n {
		return notFound("private key", id)
	}
	return nil
}

// KeyIDs are the IDs of the loaded private keys, without those of [Gateway.KeepCert]:
// whoever lists them unloads those that it does not know.
func (g *Gateway) KeyIDs() []string {
	t := &g.trust
	t.mu.Lock()
	defer t.mu.Unlock()
	ids := []string{}
	for _, k := range t.keys {
		if k.source != Kept {
			ids = append(ids, k.ID)
		}
	}
	return ids
}

// LoadAuthority adds what is known of a CA, or replaces it by name.
func (g *Gateway) LoadAuthority(a config.Authority) error {
	err := g.trust.loadAuthority(a, FromVICI)
	g.trust.announce()
	return err
}

func (t *trust) loadAuthority(a config.Authority, source Source) error {
	if err := t.setAuthority(a); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, old := range t.authorities {
		if old.Name == a.Name {
			t.authorities[i].Authority = a
			return nil
		}
	}
	t.authorities = append(t.authorities, ownedAuthority{a, source})
	return nil
}

// UnloadAuthority forgets the authority of that name, with its CA certificate.
func (g *Gateway) UnloadAuthority(name string) error {
	t := &g.trust
	defer t.announce()
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(t.authorities)
	t.authorities = slices.DeleteFunc(t.authorities, func(a ownedAuthority) bool { return a.Name == name })
	if len(t.authorities) == n {
		return notFound("authority", name)
	}
	return t.rebuild()
}

// Authorities are the loaded authorities in the order of loading.
func (g *Gateway) Authorities() []config.Authority {
	t := &g.trust
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]config.Authority, len(t.authorities))
	for i, a := range t.authorities {
		out[i] = a.Authority
	}
	return out
}

// LoadedCert is one certificate, CRL or public key that is loaded or was fetched.
type LoadedCert struct {
	config.Cert
	HasKey bool // the private key is loaded
	Anchor bool
}

// Certificates are all that are loaded, in the order of loading, then those of
// connections and the CRLs that were fetched.
func (g *Gateway) Certificates() []LoadedCert {
	t := &g.trust
	conns := g.Conns()
	fetched := t.store.CRLs()
	t.mu.Lock()
	defer t.mu.Unlock()
	seen := map[string]bool{}
	var out []LoadedCert
	add := func(c config.Cert, anchor bool, hash [20]byte) {
		if k := string(c.Kind) + string(c.DER); !seen[k] {
			seen[k] = true
			out = append(out, LoadedCert{Cert: c, Anchor: anchor, HasKey: slices.ContainsFunc(t.keys, func(k ownedKey) bool { return k.hash == hash })})
		}
	}
	for _, c := range t.certs {
		var hash [20]byte
		switch {
		case c.x509 != nil:
			hash = c.x509.KeyHash
		case c.raw != nil:
			hash = c.raw.KeyHash
		}
		add(c.Cert, c.Flag == "CA", hash)
	}
	for _, a := range t.authorities {
		add(config.Cert{Kind: config.CertX509, Flag: "CA", DER: a.CACert}, true, [20]byte{})
	}
	for _, p := range conns {
		for _, r := range slices.Concat(p.Local, p.Remote) {
			for _, der := range slices.Concat(r.Certs, r.CACerts) {
				if c, err := pki.NewCertificate(der); err == nil {
					add(config.Cert{Kind: config.CertX509, Flag: "NONE", DER: der}, false, c.KeyHash)
				}
			}
		}
	}
	for _, l := range fetched {
		if l.DER() == nil {
			continue // too large to be kept
		}
		add(config.Cert{Kind: config.CertCRL, Flag: "NONE", DER: l.DER()}, false, [20]byte{})
	}
	return out
}

// FlushCerts forgets what was fetched: CRLs and OCSP answers. kind is a
// config.CertKind; ANY or empty means all. Loaded certificates stay.
func (g *Gateway) FlushCerts(kind string) {
	switch config.CertKind(kind) {
	case "", "ANY", config.CertCRL, config.CertOCSP:
		g.trust.store.FlushCache()
		g.standing.look()
	}
}

// ClearCredentials forgets certificates, keys and secrets, as VICI's clear-creds;
// those of the configuration file, too: whoever clears loads anew. Authorities stay.
func (g *Gateway) ClearCredentials() {
	g.ClearSecrets()
	t := &g.trust
	t.mu.Lock()
	t.certs = slices.DeleteFunc(t.certs, func(c ownedCert) bool { return c.source != Kept })
	t.keys = slices.DeleteFunc(t.keys, func(k ownedKey) bool { return k.source != Kept })
	_ = t.rebuild()
	t.mu.Unlock()
	t.announce()
}

// replace makes the file's credentials these. What cannot be used is returned, the
// rest is loaded.
func (t *trust) replace(m *config.Model) error {
	t.mu.Lock()
	t.certs = slices.DeleteFunc(t.certs, func(c ownedCert) bool { return c.source == FromFile })
	t.keys = slices.DeleteFunc(t.keys, func(k ownedKey) bool { return k.source == FromFile })
	t.authorities = slices.DeleteFunc(t.authorities, func(a ownedAuthority) bool { return a.source == FromFile })
	errs := []error{t.rebuild()}
	t.mu.Unlock()
	for _, c := range m.Certs {
		if c.Kept {
			continue
		}
		if err := t.load(c, FromFile); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.Pos, err))
		}
	}
	for _, k := range m.Keys {
		if k.Kept {
			continue
		}
		if err := t.loadKey(k, FromFile); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", k.Pos, err))
		}
	}
	for _, a := range m.Authorities {
		if err := t.loadAuthority(a, FromFile); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", a.Pos, err))
		}
	}
	t.announce()
	return errors.Join(errs...)
}

// keyOf is the private key of the public key with that hash, nil if there is none.
// The certificate, if there is one, tells keys that are marked for RSASSA-PSS.
func (t *trust) keyOf(hash [20]byte, c *pki.Certificate) crypto.Signer {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, k := range t.keys {
		if k.hash == hash || c != nil && c.PSSOnly && c.Matches(k.Signer) {
			return k.Signer
		}
	}
	return nil
}

// announceTo has the engine told of the authorities.
func (g *Gateway) announceTo(list ike.Trust) {
	if g.isRunning() {
		_ = g.shard.deliver(context.Background(), list)
	}
}

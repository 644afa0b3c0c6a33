package gateway

import (
	"crypto/sha256"
	"slices"
	"strings"

	"adit/ike"
	"adit/internal/config"
	"adit/pki"
)

// Certificates that the gateway gets for itself (adit.acme): they come and are replaced
// while it runs, and no reload touches them.

// kept is a certificate with those above it, and its key.
type kept struct {
	chain []*pki.Certificate
	key   ownedKey
}

// KeepCert has the gateway prove itself by a certificate of its own, from the next
// signature on; chain has those above it behind it. What it had under that name before
// is forgotten. IKE SAs are not touched: their authentication is done.
func (g *Gateway) KeepCert(name string, chain []*pki.Certificate, key config.Key) error {
	hash, err := pki.KeyHash(key.Signer.Public())
	if err != nil {
		return err
	}
	t := &g.trust
	t.mu.Lock()
	if t.kept == nil {
		t.kept = map[string]kept{}
	}
	t.kept[name] = kept{chain, ownedKey{key, hash, Kept}}
	for _, d := range chain[0].X509.DNSNames {
		delete(t.missing, strings.ToLower(d))
	}
	err = t.showKept()
	t.mu.Unlock()
	return err
}

// ForgetCert takes away what KeepCert gave.
func (g *Gateway) ForgetCert(name string) {
	t := &g.trust
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.kept, name)
	_ = t.showKept()
}

// MissCert notes why there is no certificate for these names.
func (g *Gateway) MissCert(domains []string, why string) {
	t := &g.trust
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.missing == nil {
		t.missing = map[string]string{}
	}
	for _, d := range domains {
		t.missing[strings.ToLower(d)] = why
	}
}

// whyMissing says what to do about a certificate that there is not.
func (t *trust) whyMissing(id ike.Identity, round string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if why, ok := t.missing[strings.ToLower(id.String())]; ok {
		return "adit.acme: " + why
	}
	return "secrets.private*, " + round + ".certs"
}

// showKept makes certs, keys and the store have what is kept: first what is new, so that
// at no time there is none. The caller holds mu.
func (t *trust) showKept() error {
	wanted := map[[sha256.Size]byte]bool{}
	keys := map[[20]byte]bool{}
	for _, k := range t.kept {
		for _, c := range k.chain {
			sum := sha256.Sum256(c.DER())
			wanted[sum] = true
			if i := slices.IndexFunc(t.certs, func(o ownedCert) bool { return o.Kind == config.CertX509 && slices.Equal(o.DER, c.DER()) }); i >= 0 {
				t.certs[i].source = Kept
				continue
			}
			o := ownedCert{Cert: config.Cert{Kind: config.CertX509, Flag: "NONE", DER: c.DER(), Kept: true}, x509: c, source: Kept}
			if err := t.enter(o); err != nil {
				return err
			}
			t.certs = append(t.certs, o)
		}
		keys[k.key.hash] = true
		if i := slices.IndexFunc(t.keys, func(o ownedKey) bool { return o.hash == k.key.hash }); i >= 0 {
			t.keys[i].source = Kept
		} else {
			t.keys = append(t.keys, k.key)
		}
	}
	t.certs = slices.DeleteFunc(t.certs, func(o ownedCert) bool {
		gone := o.source == Kept && !wanted[sha256.Sum256(o.DER)]
		if gone {
			use := pki.Trusted
			if o.x509.IsCA() {
				use = pki.Intermediate
			}
			t.store.Remove(use, o.x509)
		}
		return gone
	})
	t.keys = slices.DeleteFunc(t.keys, func(o ownedKey) bool { return o.source == Kept && !keys[o.hash] })
	return nil
}

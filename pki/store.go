package pki

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// Use says what a stored certificate is for.
type Use uint8

const (
	// Anchor is for the certificates of CAs that the operator trusts (x509ca). Chains
	// end at self-issued ones only, as with strongSwan: a stored intermediate CA only
	// helps to build chains, so that its revocation is seen.
	Anchor Use = iota
	// Trusted is for end entities that are trusted because they are loaded (x509).
	Trusted
	// Intermediate is for certificates that help to build chains and aren't trusted.
	Intermediate
	uses
)

var (
	// ErrNotCA is the answer to an anchor that isn't a CA certificate.
	ErrNotCA = errors.New("pki: not a CA certificate")
	// ErrFull is the answer of a store at its limit.
	ErrFull = errors.New("pki: store is full")
)

// Authority is what is configured about one CA (swanctl's authorities section).
type Authority struct {
	Name string
	CA   *Certificate
	// CRLs and OCSPs are URIs that are asked before those in the certificates.
	CRLs, OCSPs []string
	// CertURIBase is the prefix of hash-and-URL (RFC 7296 §3.6) for certificates that
	// the CA issued.
	CertURIBase string
}

// Store holds what is believed and known: certificates, CRLs, authorities and raw
// public keys, and what was fetched about revocation. It is safe for concurrent use;
// verifications see one state of it. Its lists keep the order of addition.
type Store struct {
	mu          sync.RWMutex
	certs       [uses]certSet
	crls        []*CRL
	authorities []Authority
	keys        []*PublicKey
	// generation counts the changes of anchors and intermediates.
	generation atomic.Uint64

	chains chainCache
	online *online
	leave  Leave
}

// Leave says which ways to learn of revocation are left out.
type Leave struct{ CRL, OCSP bool }

// Leave leaves ways to learn of revocation out. It is called before anything is verified.
func (s *Store) Leave(l Leave) { s.leave = l }

// certSet is an ordered set of certificates, found by subject.
type certSet struct {
	list      []*Certificate
	known     map[[32]byte]bool
	bySubject map[string][]*Certificate
}

// NewStore makes an empty store. Revocation is fetched through f; nil fetches nothing.
func NewStore(f Fetcher) *Store {
	s := &Store{online: newOnline(f)}
	s.generation.Store(1)
	return s
}

// Add stores c for a use; what is stored already stays once.
func (s *Store) Add(use Use, c *Certificate) error {
	if use >= uses || c == nil {
		return fmt.Errorf("pki: no certificate, or use %d", use)
	}
	if use == Anchor && !c.IsCA() {
		return fmt.Errorf("%w: %q", ErrNotCA, c.Subject())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	set := &s.certs[use]
	if set.known[c.Fingerprint] {
		return nil
	}
	if len(set.list) >= maxStored {
		return ErrFull
	}
	if set.known == nil {
		set.known, set.bySubject = map[[32]byte]bool{}, map[string][]*Certificate{}
	}
	name := string(c.X509.RawSubject)
	set.list = append(set.list, c)
	set.known[c.Fingerprint] = true
	set.bySubject[name] = append(set.bySubject[name], c)
	s.generation.Add(1)
	return nil
}

// Remove forgets c for a use and says whether it was there.
func (s *Store) Remove(use Use, c *Certificate) bool {
	if use >= uses || c == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	set := &s.certs[use]
	if !set.known[c.Fingerprint] {
		return false
	}
	// Fresh slices: readers may hold the old ones.
	without := func(list []*Certificate) []*Certificate {
		return slices.DeleteFunc(slices.Clone(list), c.Equal)
	}
	name := string(c.X509.RawSubject)
	set.list = without(set.list)
	delete(set.known, c.Fingerprint)
	if set.bySubject[name] = without(set.bySubject[name]); len(set.bySubject[name]) == 0 {
		delete(set.bySubject, name)
	}
	s.generation.Add(1)
	return true
}

// List is every certificate stored for a use, in the order of addition.
func (s *Store) List(use Use) []*Certificate {
	if use >= uses {
		return nil
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Clone(s.certs[use].list)
}

// Flush forgets everything stored and cached.
func (s *Store) Flush() {
	s.mu.Lock()
	s.certs, s.crls, s.authorities, s.keys = [uses]certSet{}, nil, nil, nil
	s.generation.Add(1)
	s.mu.Unlock()
	s.FlushCache()
}

// Close ends the fetches that are under way, which may outlive the verifications that
// began them. Nothing is fetched any more afterwards.
func (s *Store) Close() { s.online.end() }

// FlushCache forgets what was fetched, and which fetches failed.
func (s *Store) FlushCache() { s.online.flush() }

// Authorities are the key hashes of all anchors, in the order of addition and each
// once: what CERTREQ carries (RFC 7296 §3.7).
func (s *Store) Authorities() [][20]byte {
	s.mu.RLock()
	defer s.mu.RUnlock()
	seen := make(map[[20]byte]bool, len(s.certs[Anchor].list))
	hashes := make([][20]byte, 0, len(s.certs[Anchor].list))
	for _, c := range s.certs[Anchor].list {
		if !seen[c.KeyHash] {
			seen[c.KeyHash] = true
			hashes = append(hashes, c.KeyHash)
		}
	}
	return hashes
}

// AuthorityNames are the subjects of all anchors, DER, in the order of addition and each
// once: what CERTREQ carries in IKEv1 (RFC 2408 §3.10).
func (s *Store) AuthorityNames() (names [][]byte) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	seen := make(map[string]bool, len(s.certs[Anchor].list))
	for _, c := range s.certs[Anchor].list {
		if subject := c.X509.RawSubject; !seen[string(subject)] {
			seen[string(subject)] = true
			names = append(names, subject)
		}
	}
	return names
}

// AddCRL stores a CRL. One of the same issuer and scope that isn't newer is replaced;
// if the stored one is newer, it stays and the answer is false.
func (s *Store) AddCRL(l *CRL) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, old := range s.crls {
		if !old.sameScope(l) {
			continue
		}
		if old.newer(l) {
			return false, nil
		}
		s.crls = slices.Clone(s.crls)
		s.crls[i] = l
		return true, nil
	}
	if len(s.crls) >= maxStoredCRLs {
		return false, ErrFull
	}
	s.crls = append(s.crls, l)
	return true, nil
}

// CRLs are the stored CRLs, those that were fetched last.
func (s *Store) CRLs() []*CRL {
	s.mu.RLock()
	list := slices.Clone(s.crls)
	s.mu.RUnlock()
	return append(list, s.online.cachedCRLs()...)
}

// FlushCRLs forgets every stored and fetched CRL.
func (s *Store) FlushCRLs() {
	s.mu.Lock()
	s.crls = nil
	s.mu.Unlock()
	s.online.flush()
}

// SetAuthority stores what is configured about a CA, in place of what has its name.
// The CA is an anchor from then on.
func (s *Store) SetAuthority(a Authority) error {
	if a.CA == nil {
		return fmt.Errorf("pki: authority %q has no CA certificate", a.Name)
	}
	if err := s.Add(Anchor, a.CA); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.authorities = slices.Clone(s.authorities)
	for i := range s.authorities {
		if s.authorities[i].Name == a.Name {
			s.authorities[i] = a
			return nil
		}
	}
	if len(s.authorities) >= maxStored {
		return ErrFull
	}
	s.authorities = append(s.authorities, a)
	return nil
}

// RemoveAuthority forgets the authority of a name and says whether there was one. Its
// certificate stays.
func (s *Store) RemoveAuthority(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.authorities)
	s.authorities = slices.DeleteFunc(slices.Clone(s.authorities), func(a Authority) bool { return a.Name == name })
	return len(s.authorities) < n
}

// AuthorityList is every authority, in the order of addition.
func (s *Store) AuthorityList() []Authority {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Clone(s.authorities)
}

// AddKey stores a raw public key that is trusted because it is loaded.
func (s *Store) AddKey(k *PublicKey) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.ContainsFunc(s.keys, func(o *PublicKey) bool { return o.KeyHash == k.KeyHash }) {
		return nil
	}
	if len(s.keys) >= maxStored {
		return ErrFull
	}
	s.keys = append(s.keys, k)
	return nil
}

// RemoveKey forgets a raw public key and says whether it was there.
func (s *Store) RemoveKey(k *PublicKey) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.keys)
	s.keys = slices.DeleteFunc(slices.Clone(s.keys), func(o *PublicKey) bool { return o.KeyHash == k.KeyHash })
	return len(s.keys) < n
}

// Keys are the raw public keys, in the order of addition.
func (s *Store) Keys() []*PublicKey {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Clone(s.keys)
}

// issuers are the stored certificates with the name of c's issuer that may have
// issued it: anchors before intermediates.
func (s *Store) issuers(c *Certificate) []*Certificate {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Concat(s.certs[Anchor].bySubject[string(c.X509.RawIssuer)],
		s.certs[Intermediate].bySubject[string(c.X509.RawIssuer)])
}

// has says whether c is stored for a use.
func (s *Store) has(use Use, c *Certificate) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.certs[use].known[c.Fingerprint]
}

// configured is what the authorities with ca's key say: CRL and OCSP URIs.
func (s *Store) configured(ca *Certificate) (crls, ocsps []string) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, a := range s.authorities {
		if a.CA.KeyHash == ca.KeyHash {
			crls, ocsps = append(crls, a.CRLs...), append(ocsps, a.OCSPs...)
		}
	}
	return crls, ocsps
}

// CertURL is the hash-and-URL form of c (RFC 7296 §3.6): the cert_uri_base of the
// authority that issued it with the SHA-1 of the certificate behind, or "".
func (s *Store) CertURL(c *Certificate) string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, a := range s.authorities {
		if a.CertURIBase != "" && string(a.CA.X509.RawSubject) == string(c.X509.RawIssuer) {
			return a.CertURIBase + c.sha1Hex()
		}
	}
	return ""
}

// crlsOf are the stored CRLs in the name of ca.
func (s *Store) crlsOf(ca *Certificate) (list []*CRL) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, l := range s.crls {
		if l.issuer == string(ca.X509.RawSubject) {
			list = append(list, l)
		}
	}
	return list
}

// ocspKey names a certificate's status in the cache.
type ocspKey [32]byte

func statusKey(c, issuer *Certificate) ocspKey {
	h := sha256.New()
	h.Write(issuer.Fingerprint[:])
	h.Write(c.Fingerprint[:])
	return ocspKey(h.Sum(nil))
}

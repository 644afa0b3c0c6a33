package gateway

import (
	"cmp"
	"fmt"
	"slices"

	"adit/eap"
	"adit/ike"
	"adit/internal/config"
	"adit/suite"
)

type secret struct {
	config.Secret
	source Source
}

// LoadSecret adds a pre-shared key, or replaces the one of the same ID that VICI loaded.
func (g *Gateway) LoadSecret(s config.Secret) error {
	v := &g.inv
	v.mu.Lock()
	defer v.mu.Unlock()
	v.passwords = nil
	for i, old := range v.secrets {
		switch {
		case s.ID != "" && old.ID == s.ID:
			v.secrets[i] = secret{s, old.source}
			old.Key.Zero()
			return nil
		case s.ID == "" && old.ID == "" && old.Kind == s.Kind && old.Key.Equal(s.Key) && slices.Equal(old.Owners, s.Owners):
			return nil // a client that loads the same again adds nothing
		}
	}
	if len(v.secrets) >= limitSecrets {
		return fmt.Errorf("more than %d secrets", limitSecrets)
	}
	v.secrets = append(v.secrets, secret{s, FromVICI})
	return nil
}

// UnloadSecret forgets the key of that ID.
func (g *Gateway) UnloadSecret(id string) error {
	v := &g.inv
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.forgetSecrets(func(s secret) bool { return s.ID == id && id != "" }) == 0 {
		return fmt.Errorf("shared key '%s' %w", id, ErrNotFound)
	}
	return nil
}

// SecretIDs are the names of the loaded keys.
func (g *Gateway) SecretIDs() []string {
	v := &g.inv
	v.mu.Lock()
	defer v.mu.Unlock()
	var ids []string
	for _, s := range v.secrets {
		if s.ID != "" {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

// ClearSecrets forgets every key.
func (g *Gateway) ClearSecrets() {
	v := &g.inv
	v.mu.Lock()
	defer v.mu.Unlock()
	v.forgetSecrets(func(secret) bool { return true })
}

// forgetSecrets zeroes and removes keys; the caller holds mu. Who asked for keys has copies.
func (v *inventory) forgetSecrets(which func(secret) bool) (n int) {
	v.passwords = nil
	v.secrets = slices.DeleteFunc(v.secrets, func(s secret) bool {
		gone := which(s)
		if gone {
			s.Key.Zero()
			n++
		}
		return gone
	})
	return n
}

// replaceSecrets puts the file's secrets in the place of those that it had before;
// the caller holds mu.
func (v *inventory) replaceSecrets(list []config.Secret) {
	v.forgetSecrets(func(s secret) bool { return s.source == FromFile })
	for _, s := range list {
		v.secrets = append(v.secrets, secret{s, FromFile})
	}
}

// named is the first password whose owners name this very identity: of thousands of
// users each is found at once. The caller holds mu.
func (v *inventory) named(identity string) (*secret, bool) {
	if v.passwords == nil {
		v.passwords = map[string]int{}
		for i, s := range v.secrets {
			if s.Kind != config.SecretEAP && s.Kind != config.SecretNTLM {
				continue
			}
			for _, o := range s.Owners {
				if _, known := v.passwords[o.String()]; !known {
					v.passwords[o.String()] = i
				}
			}
		}
	}
	i, ok := v.passwords[identity]
	if !ok {
		return nil, false
	}
	return &v.secrets[i], true
}

// eapSecret is a copy of it.
func (s *secret) eapSecret() eap.Secret {
	if s.Kind == config.SecretNTLM {
		return eap.Secret{NTHash: slices.Clone(s.Key)}
	}
	return eap.Secret{Password: slices.Clone(s.Key)}
}

// keys are the pre-shared keys that fit both identities, best first: those whose
// owners name the peer, else those whose owners name only us, before those that are
// everybody's. Keys with owners that name neither don't fit. A peer for which a key is
// named proves itself by no other one: who has a key beside ours with us, or one that
// is everybody's, can't be everybody. Deviates: strongSwan tries all of them.
func (v *inventory) keys(q ike.PSKLookup) []suite.Key {
	v.mu.Lock()
	defer v.mu.Unlock()
	fits := v.fitting(q)
	out := make([]suite.Key, len(fits))
	for i, s := range fits {
		out[i] = append(suite.Key(nil), s.Key...)
	}
	return out
}

// fitting are the secrets whose keys those are; the caller holds mu.
func (v *inventory) fitting(q ike.PSKLookup) []*secret {
	type fit struct {
		secret      *secret
		peer, local int
	}
	var fits []fit
	for i := range v.secrets {
		s := &v.secrets[i]
		if s.Kind != config.SecretIKE && s.Kind != "" {
			continue
		}
		f := fit{secret: s}
		for _, o := range s.Owners {
			f.peer = max(f.peer, q.RemoteID.Match(o))
			f.local = max(f.local, q.LocalID.Match(o))
		}
		if len(s.Owners) == 0 || f.peer > 0 || f.local > 0 {
			fits = append(fits, f)
		}
	}
	slices.SortStableFunc(fits, func(a, b fit) int {
		return cmp.Or(cmp.Compare(b.peer, a.peer), cmp.Compare(b.local, a.local))
	})
	if i := slices.IndexFunc(fits, func(f fit) bool { return f.peer < fits[0].peer }); i > 0 {
		fits = fits[:i]
	}
	out := make([]*secret, len(fits))
	for i, f := range fits {
		out[i] = f.secret
	}
	return out
}

// ppk is the post-quantum preshared key of an identity: one that names it, else one
// that names nobody; nil: there is none.
func (v *inventory) ppk(id string) (found suite.Key) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for i := range v.secrets {
		s := &v.secrets[i]
		if s.Kind != config.SecretPPK {
			continue
		}
		if slices.ContainsFunc(s.Owners, func(o ike.Identity) bool { return o.String() == id }) {
			return slices.Clone(s.Key)
		}
		if len(s.Owners) == 0 && found == nil {
			found = slices.Clone(s.Key)
		}
	}
	return found
}

// SecretsOf names the sections of the pre-shared keys that count between two
// identities, the first that is tried first.
func (g *Gateway) SecretsOf(local, remote ike.Identity) (names []string) {
	g.inv.mu.Lock()
	defer g.inv.mu.Unlock()
	for _, s := range g.inv.fitting(ike.PSKLookup{LocalID: local, RemoteID: remote}) {
		if s.ID != "" {
			names = append(names, s.ID)
		}
	}
	return names
}

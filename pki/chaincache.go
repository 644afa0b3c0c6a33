package pki

import (
	"crypto/sha256"
	"sync"
)

// chainCache remembers the chains that were built, so that a peer that comes again
// costs no signatures. Only what can't change is in it: validity, constraints and
// revocation are checked each time, and any change of the store's certificates makes
// it useless.
type chainCache struct {
	mu     sync.Mutex
	chains map[[32]byte]builtChains
}

// builtChains are chains built when the store's certificates were of that generation.
type builtChains struct {
	generation uint64
	chains     []Chain
}

// chainKey names the certificates that a peer sent, in their order.
func (v *verification) chainKey() [32]byte {
	h := sha256.New()
	h.Write(v.Leaf.Fingerprint[:])
	for _, c := range v.Intermediates {
		if c != nil {
			h.Write(c.Fingerprint[:])
		}
	}
	return [32]byte(h.Sum(nil))
}

// remembered are the chains of this request that were built before, if all of them
// are still valid.
func (v *verification) remembered() []Chain {
	generation := v.store.generation.Load()
	c := &v.store.chains
	c.mu.Lock()
	b := c.chains[v.chainKey()]
	c.mu.Unlock()
	if b.generation != generation {
		return nil
	}
	for _, chain := range b.chains {
		for _, cert := range chain {
			if v.checkValidity(cert) != nil {
				return nil
			}
		}
	}
	return b.chains
}

// remember keeps chains that were built from the store as it was at a generation.
func (v *verification) remember(generation uint64, chains []Chain) {
	c := &v.store.chains
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.chains == nil {
		c.chains = map[[32]byte]builtChains{}
	}
	for k := range c.chains { // any: all can be built again
		if len(c.chains) < maxCachedChains {
			break
		}
		delete(c.chains, k)
	}
	c.chains[v.chainKey()] = builtChains{generation, chains}
}

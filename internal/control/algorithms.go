package control

import (
	"context"

	"adit/conf"
	"adit/suite"
	"adit/vici"
)

// getAlgorithms lists what can be negotiated and used, in strongSwan's sections. Where
// strongSwan names the plugin that implements an algorithm stands "adit".
func (c *controller) getAlgorithms(context.Context, *vici.Request) (*conf.Section, error) {
	m := conf.New("")
	sections := map[string]*conf.Section{}
	for _, name := range []string{"encryption", "integrity", "aead", "hasher", "prf", "xof", "kdf", "drbg", "ke", "rng", "nonce-gen"} {
		sections[name] = m.Add(name)
	}
	for _, t := range suite.Algorithms() {
		name := map[suite.TransformType]string{suite.TypeENCR: "encryption", suite.TypeINTEG: "integrity", suite.TypePRF: "prf", suite.TypeKE: "ke"}[t.Type]
		if t.AEAD() {
			name = "aead"
		}
		if s := sections[name]; s != nil {
			s.Set(t.Name(), "adit")
		}
	}
	for section, names := range map[string][]string{
		// Of signatures (RFC 7427), fingerprints and NAT detection.
		"hasher": {"HASH_SHA1", "HASH_SHA2_256", "HASH_SHA2_384", "HASH_SHA2_512", "HASH_IDENTITY"},
		"kdf":    {"KDF_PRF", "KDF_PRF_PLUS"},
		"rng":    {"RNG_WEAK", "RNG_STRONG", "RNG_TRUE"}, "nonce-gen": {"NONCE_GEN"},
	} {
		for _, name := range names {
			sections[section].Set(name, "adit")
		}
	}
	return m, nil
}

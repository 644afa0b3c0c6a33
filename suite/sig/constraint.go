package sig

import (
	"crypto"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// limitConstraintTokens bounds the elements of one `auth` value, so that its
// checks stay cheap.
const limitConstraintTokens = 64

// Constraint is one kind of signature that is acceptable: by a type of key (or
// any), with one hash; RSA-PSS only if asked for by name.
type Constraint struct {
	key  kind
	pss  bool
	hash Hash
}

// permits reports whether a scheme is what the constraint asks for. A salt's
// length is never asked for; the fixed methods of ECDSA count by their hash.
func (c Constraint) permits(s Scheme) bool {
	if c.hash != s.Hash || c.key != kindAny && c.key != s.kind() {
		return false
	}
	return c.pss == (s.Algorithm == RSAPSS)
}

// String spells the constraint as in an `auth` option, e.g. rsa/pss-sha256.
func (c Constraint) String() string { return c.keyToken() + "-" + c.hash.String() }

func (c Constraint) keyToken() string {
	if c.pss {
		return "rsa/pss"
	}
	return kindNames[c.key]
}

func permitted(list []Constraint, s Scheme) bool {
	return slices.ContainsFunc(list, func(c Constraint) bool { return c.permits(s) })
}

func constraintList(list []Constraint) string {
	text := make([]string, len(list))
	for i, c := range list {
		text[i] = c.String()
	}
	return strings.Join(text, " or ")
}

// keyRule is a type of key with the least strength in bits, 0 for any.
type keyRule struct {
	kind kind
	bits int
}

// Constraints is what an `auth` option with public keys demands of the keys and
// signatures. The zero value demands nothing.
type Constraints struct {
	text  string
	keys  []keyRule
	chain []Constraint
	ike   []Constraint
}

// ParseConstraints reads an `auth` value for public keys in strongSwan's grammar:
// elements joined by "-" (several values of one round are joined likewise), where pubkey, rsa, rsa/pss, ecdsa, ed25519 or ed448 begins
// a group, a number after rsa or ecdsa is the least strength in bits, and sha256,
// sha384, sha512 (sha1 for rsa, identity for Edwards curves) are hashes that
// signatures by such keys may have. A group that begins with "ike:" speaks of the
// AUTH payload only; where none does, the others hold for it as well as for
// certificates. The empty text demands nothing.
//
// Deviates: what strongSwan ignores with a line in its log is an error; a group
// without number or hash still demands that type of key; ed25519 and ed448 need no
// "-identity" beside other groups with hashes; rsa/pss without a hash is "any".
func ParseConstraints(text string) (Constraints, error) {
	c := Constraints{text: text}
	if text == "" {
		return c, nil
	}
	tokens := strings.Split(text, "-")
	if len(tokens) > limitConstraintTokens {
		return Constraints{}, fmt.Errorf("auth: more than %d elements", limitConstraintTokens)
	}
	var groups []*group
	for _, token := range tokens {
		name, ike := strings.CutPrefix(token, "ike:")
		if k, ok := groupKinds[name]; ok {
			groups = append(groups, &group{kind: k, pss: name == "rsa/pss", ike: ike, token: token})
			continue
		}
		if name == "bliss" {
			return Constraints{}, fmt.Errorf("auth %q: bliss signatures are not supported: they are broken by side channels, and strongSwan dropped them", text)
		}
		if len(groups) == 0 {
			return Constraints{}, fmt.Errorf("auth %q: must begin with pubkey, rsa, rsa/pss, ecdsa, ed25519 or ed448, not %q", text, token)
		}
		if err := groups[len(groups)-1].read(token); err != nil {
			return Constraints{}, fmt.Errorf("auth %q: %w", text, err)
		}
	}
	c.adopt(groups)
	return c, nil
}

var groupKinds = map[string]kind{"pubkey": kindAny, "rsa": kindRSA, "rsa/pss": kindRSA, "ecdsa": kindECDSA, "ed25519": kindEd25519, "ed448": kindEd448}

// group is a key type with what follows it.
type group struct {
	kind     kind
	pss, ike bool
	token    string
	bits     int
	hashes   []Hash
}

func (g *group) read(token string) error {
	if n, err := strconv.ParseUint(token, 10, 16); err == nil {
		switch {
		case g.kind != kindRSA && g.kind != kindECDSA:
			return fmt.Errorf("%s has no strength to choose, %q stands after it", g.token, token)
		case g.bits != 0 || len(g.hashes) > 0:
			return fmt.Errorf("the strength %q must stand once and first after %s", token, g.token)
		case n == 0 || g.kind == kindRSA && n > limitRSABits || g.kind == kindECDSA && n > 521:
			return fmt.Errorf("no %s key has %s bits", g.token, token)
		}
		g.bits = int(n)
		return nil
	}
	edwards := g.kind == kindEd25519 || g.kind == kindEd448
	switch token {
	case "md5", "sha224", "sha1":
		if token == "sha1" && !g.pss && (g.kind == kindRSA || g.kind == kindAny) {
			break // RFC 7296's own method 1, never method 14
		}
		return fmt.Errorf("%s signatures with %s are not supported: the hash is too weak", g.token, token)
	case "sha256", "sha384", "sha512":
		if edwards {
			return fmt.Errorf("%s has no hash but identity, %q stands after it", g.token, token)
		}
	case "identity":
		if !edwards && g.kind != kindAny {
			return fmt.Errorf("identity is no hash of %s signatures", g.token)
		}
	case "":
		return fmt.Errorf("an element is empty")
	default:
		return fmt.Errorf("unknown element %q after %s", token, g.token)
	}
	for h, k := range hashes {
		if k.name == token && !slices.Contains(g.hashes, h) {
			g.hashes = append(g.hashes, h)
		}
	}
	return nil
}

// adopt turns the groups into rules.
func (c *Constraints) adopt(groups []*group) {
	hashed := func(ike bool) bool {
		return slices.ContainsFunc(groups, func(g *group) bool { return g.ike == ike && len(g.hashes) > 0 })
	}
	inChain, inIKE := hashed(false), hashed(true)
	for _, g := range groups {
		c.keys = append(c.keys, keyRule{g.kind, g.bits})
		list := g.hashes
		if len(list) == 0 && (g.kind == kindEd25519 || g.kind == kindEd448) && (g.ike && inIKE || !g.ike && inChain) {
			list = []Hash{Identity}
		}
		for _, h := range list {
			if s := (Constraint{g.kind, g.pss, h}); g.ike {
				c.ike = append(c.ike, s)
			} else {
				c.chain = append(c.chain, s)
			}
		}
	}
	if !inIKE {
		c.ike = slices.Clone(c.chain)
	}
	for _, g := range groups {
		// rsa/pss alone says how to sign, and nothing about who signed certificates.
		for _, h := range []Hash{SHA256, SHA384, SHA512} {
			if s := (Constraint{g.kind, true, h}); g.pss && len(g.hashes) == 0 && !slices.Contains(c.ike, s) {
				c.ike = append(c.ike, s)
			}
		}
	}
}

// String is the text that ParseConstraints read.
func (c Constraints) String() string { return c.text }

// IKE are the schemes that an AUTH payload may have, in the order of preference,
// for Choose and Verify; empty means any. The slice must not be changed.
func (c Constraints) IKE() []Constraint { return c.ike }

// CheckKey reports whether the key that signs the AUTH payload is of a wanted type
// and strong enough. The error wraps ErrConstraints and says what was wanted.
func (c Constraints) CheckKey(pub crypto.PublicKey) error { return c.checkKey(pub, false) }

// CheckChainKey does the same for the key of a CA in the chain, where a type
// without a strength demands nothing, so that an `auth = ecdsa` peer may have an
// RSA CA; with a strength, as in rsa-2048, RSA and ECDSA keys of the chain must
// find their type among the wanted ones.
func (c Constraints) CheckChainKey(pub crypto.PublicKey) error { return c.checkKey(pub, true) }

func (c Constraints) checkKey(pub crypto.PublicKey, ca bool) error {
	k, bits := kindOf(pub)
	demanded := len(c.keys) > 0
	if ca {
		sized := slices.ContainsFunc(c.keys, func(r keyRule) bool { return r.bits > 0 })
		demanded = sized && (k == kindRSA || k == kindECDSA)
	}
	if !demanded {
		return nil
	}
	// A type that is named twice keeps its strength: in rsa-2048-ike:rsa/pss-sha256
	// the second group speaks of signatures.
	listed, sized, strong := false, false, false
	for _, r := range c.keys {
		listed = listed || r.kind == kindAny || r.kind == k
		if r.kind == k && r.bits > 0 {
			sized, strong = true, strong || bits >= r.bits
		}
	}
	if k != kindNone && listed && (strong || !sized) {
		return nil
	}
	name, _ := KeyKind(pub)
	return fmt.Errorf("%w: %s key of %d bits, wanted is %s", ErrConstraints, name, bits, c.text)
}

// RSABits is the least strength that is demanded of RSA keys by a number, 0: none.
func (c Constraints) RSABits() (bits int) {
	for _, r := range c.keys {
		if r.kind == kindRSA && r.bits > 0 && (bits == 0 || r.bits < bits) {
			bits = r.bits
		}
	}
	return bits
}

// CheckIKE reports whether the scheme of an AUTH payload is acceptable. The error
// wraps ErrConstraints and says what was wanted.
func (c Constraints) CheckIKE(s Scheme) error { return checkScheme("IKE", c.ike, s) }

// CheckChain reports whether the scheme of a certificate's signature is
// acceptable; see CertificateScheme. It isn't asked for trust anchors.
func (c Constraints) CheckChain(s Scheme) error { return checkScheme("certificate", c.chain, s) }

func checkScheme(what string, list []Constraint, s Scheme) error {
	if len(list) == 0 || permitted(list, s) {
		return nil
	}
	return fmt.Errorf("%w: %s signature %v, wanted is %s", ErrConstraints, what, s, constraintList(list))
}

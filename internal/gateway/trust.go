package gateway

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha1" // RFC 7296 §3.6: names certificates, nobody trusts it
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"adit/ike"
	"adit/ike/wire"
	"adit/internal/config"
	"adit/pki"
	"adit/suite/sig"
)

// A peer's proof: is the signature good, and which connections does it satisfy?

// prover is whose signature it may be: a certificate, or a raw public key alone.
type prover struct {
	cert *pki.Certificate
	raw  *pki.PublicKey
}

func (p prover) key() crypto.PublicKey {
	if p.cert != nil {
		return p.cert.PublicKey
	}
	return p.raw.Key
}

// pssOnly reports whether the key is marked for RSASSA-PSS alone (RFC 4055 §1.2).
func (p prover) pssOnly() bool {
	if p.cert != nil {
		return p.cert.PSSOnly
	}
	return p.raw.PSSOnly
}

func (p prover) String() string {
	if p.cert != nil {
		return p.cert.Subject()
	}
	name, bits := sig.KeyKind(p.raw.Key)
	return fmt.Sprintf("raw public key %s %d, %x", name, bits, p.raw.KeyID[:8])
}

// proof is a VerifyAuth with its CERT payloads read.
type proof struct {
	ike.VerifyAuth
	certs     []*pki.Certificate // as they came; the first ought to be the signer's
	raw       []*pki.PublicKey
	ocsp      [][]byte
	malformed error // of a payload that could not be read
}

func readProof(q ike.VerifyAuth) *proof {
	p := &proof{VerifyAuth: q}
	for _, c := range q.Certs {
		var err error
		switch c.Encoding {
		case wire.CertX509Signature:
			var x *pki.Certificate
			if x, err = pki.NewCertificate(c.Data); err == nil {
				p.certs = append(p.certs, x)
			}
		case wire.CertRawPublicKey:
			var k *pki.PublicKey
			if k, err = pki.NewPublicKey(c.Data); err == nil {
				p.raw = append(p.raw, k)
			}
		case wire.CertOCSPContent:
			p.ocsp = append(p.ocsp, c.Data)
		}
		if err != nil && p.malformed == nil {
			p.malformed = err
		}
	}
	return p
}

// mayFetch reports whether the verification may have to ask others about revocation.
func (p *proof) mayFetch(t *trust) bool {
	if t.fetches() {
		return true
	}
	return slices.ContainsFunc(p.certs, func(c *pki.Certificate) bool {
		return len(c.X509.CRLDistributionPoints)+len(c.X509.OCSPServer) > 0
	})
}

// provers are those who could have signed as the identity, the peer's own word
// first: what it sent, then what is configured for it or loaded.
func (t *trust) provers(p *proof) (list []prover, not []string) {
	add := func(c *pki.Certificate) {
		if len(list) >= limitProvers || slices.ContainsFunc(list, func(o prover) bool { return o.cert != nil && o.cert.Equal(c) }) {
			return
		}
		if t.rejectTrusted && slices.ContainsFunc(t.store.List(pki.Trusted), c.Equal) {
			if len(not) < limitProvers {
				not = append(not, fmt.Sprintf("certificate %q is loaded here, and reject_trusted_end_entity = yes", c.Subject()))
			}
			return
		}
		if ids := identities(c); p.ID.ConfirmedBy(ids) {
			list = append(list, prover{cert: c})
		} else if len(not) < limitProvers {
			not = append(not, fmt.Sprintf("certificate %q is not one of %s but of %s", c.Subject(), p.ID, joined(ids)))
		}
	}
	if len(p.certs) > 0 {
		add(p.certs[0]) // RFC 7296 §3.6: the first has the key of AUTH
	}
	for _, k := range p.raw[:min(len(p.raw), limitProvers)] {
		list = append(list, prover{raw: k})
	}
	for _, peer := range p.Peers {
		for _, der := range peer.Remote[p.Round].Certs {
			if c := t.parse(der); c != nil && !c.IsCA() {
				add(c)
			}
		}
		for _, der := range peer.Remote[p.Round].Pubkeys {
			if k, err := pki.NewPublicKey(der); err == nil && len(list) < limitProvers {
				list = append(list, prover{raw: k})
			}
		}
	}
	for _, c := range t.store.List(pki.Trusted) {
		if len(list) >= limitProvers {
			break
		}
		if p.ID.ConfirmedBy(t.identitiesOf(c)) {
			add(c)
		}
	}
	return list, not
}

// verify answers a VerifyAuth. The error is for the local log only.
func (t *trust) verify(ctx context.Context, p *proof) (*ike.Verdict, error) {
	list, not := t.provers(p)
	if len(list) == 0 {
		switch {
		case p.malformed != nil:
			return nil, p.malformed
		case len(not) > 0:
			return nil, unproved(ike.DetailOtherName, strings.Join(not, "; "))
		case len(p.certs) == 0:
			return nil, unproved(ike.DetailNoCertificate, fmt.Sprintf("the peer sent no certificate, and none is loaded for %s", p.ID))
		}
		return nil, unproved(ike.DetailNoCertificate, fmt.Sprintf("no key for %s", p.ID))
	}
	var signer prover
	var scheme sig.Scheme
	var failed error
	for _, c := range list {
		s, err := p.verified(c)
		if err == nil && p.V1 == 0 && c.pssOnly() && s.Algorithm != sig.RSAPSS {
			err = errors.New("the key is for RSASSA-PSS only, and the signature is " + s.String())
		}
		if err == nil {
			signer, scheme, failed = c, s, nil
			break
		}
		if failed == nil {
			failed = fmt.Errorf("AUTH by the key of %s: %w", c, err)
		}
	}
	if failed != nil {
		return nil, unproved(ike.DetailSignature, failed.Error())
	}
	v := &ike.Verdict{Why: make([]string, len(p.Peers)), Details: make([]ike.Detail, len(p.Peers)), Subject: signer.String(), Scheme: scheme.String()}
	if signer.cert != nil {
		v.Signer = signer.cert.DER()
	}
	if p.V1 != 0 {
		v.Scheme = p.V1.String()
	}
	checks := checker{t: t, ctx: ctx, proof: p, signer: signer, scheme: scheme, known: map[string]misfit{}}
	for i, peer := range p.Peers {
		m := checks.fits(&peer.Remote[p.Round])
		v.Why[i], v.Details[i] = m.why, m.detail
	}
	if len(p.Peers) == 0 {
		checks.fits(&ike.AuthRound{Method: ike.AuthPubkey}) // the same work for nobody's identity
	}
	return v, nil
}

// verified checks the signature by one key; of IKEv1 there is no scheme.
func (p *proof) verified(c prover) (sig.Scheme, error) {
	if p.V1 == 0 {
		return sig.Verify(c.key(), uint8(p.Method), p.Data, p.Octets, nil)
	}
	if c.pssOnly() {
		return sig.Scheme{}, errors.New("the key is for RSASSA-PSS only")
	}
	return sig.Scheme{}, sig.VerifyV1(c.key(), uint16(v1Signature(p.V1)), p.Data, p.Octets)
}

// checker holds one signer against the constraints of several connections; equal
// constraints are looked at once.
type checker struct {
	t      *trust
	ctx    context.Context
	proof  *proof
	signer prover
	scheme sig.Scheme
	known  map[string]misfit
}

// misfit is why a constraint is not fulfilled; the zero value: it is.
type misfit struct {
	detail ike.Detail
	why    string
}

// unproved is the record of a proof that is wrong for whomever it was meant.
func unproved(detail ike.Detail, why string) *ike.Rejection {
	return &ike.Rejection{Reason: ike.ReasonAuthentication, Detail: detail, Difference: why}
}

// detailOf is the case of a certificate, key or chain that is not believed.
func detailOf(err error) ike.Detail {
	var v *pki.VerifyError
	if !errors.As(err, &v) {
		return ike.DetailConstraint
	}
	switch v.Reason {
	case pki.Expired:
		return ike.DetailExpired
	case pki.NotYetValid:
		return ike.DetailNotYetValid
	case pki.Untrusted, pki.WrongCA, pki.BadSignature:
		return ike.DetailUntrusted
	case pki.Revoked:
		return ike.DetailRevoked
	case pki.RevocationUnknown:
		return ike.DetailNoRevocation
	case pki.WeakKey, pki.WeakSignature:
		return ike.DetailWeak
	}
	return ike.DetailConstraint
}

// fits says why the signer does not fulfil a round's constraints.
func (c *checker) fits(r *ike.AuthRound) misfit {
	key := constraintKey(r)
	if m, ok := c.known[key]; ok {
		return m
	}
	var m misfit
	switch {
	case r.Method != ike.AuthPubkey && r.Method != ike.AuthAny:
		m = misfit{ike.DetailMethod, "it wants " + r.Method.String() + " and the peer used a signature"}
	case len(c.known) >= limitChecks:
		return misfit{ike.DetailConstraint, "too many different constraints among the candidates"}
	default:
		if err := c.check(r); err != nil {
			m = misfit{detailOf(err), err.Error()}
		}
	}
	c.known[key] = m
	return m
}

func constraintKey(r *ike.AuthRound) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d|%d|%q|%q|%d|%q", r.Method, r.Revocation, r.Constraints, r.CertPolicies, r.CAID.Type, r.CAID.Data)
	for _, list := range [][][]byte{r.Certs, r.CACerts, r.Pubkeys} {
		b.WriteByte('|')
		for _, der := range list {
			fmt.Fprintf(&b, "%d:", len(der))
			b.Write(der)
		}
	}
	return b.String()
}

// constraints are what a round's `auth` demands of keys and signatures.
func constraints(r *ike.AuthRound) (sig.Constraints, error) {
	return sig.ParseConstraints(strings.Join(r.Constraints, "-"))
}

func (c *checker) check(r *ike.AuthRound) error {
	want, err := constraints(r)
	if err != nil {
		return err
	}
	if err := checkKey(want, c.signer.key(), false); err != nil {
		return &pki.VerifyError{Reason: pki.WeakKey, Cert: c.signer.cert, Err: err}
	}
	if err := want.CheckIKE(c.scheme); err != nil && c.proof.V1 == 0 {
		return &pki.VerifyError{Reason: pki.WeakSignature, Cert: c.signer.cert, Err: err}
	}
	if c.signer.cert == nil {
		if !slices.ContainsFunc(r.Pubkeys, func(der []byte) bool { return slices.Equal(der, c.signer.raw.SPKI) }) {
			return errors.New("its pubkeys do not have the peer's raw public key")
		}
		return nil
	}
	if slices.ContainsFunc(r.Pubkeys, func(der []byte) bool { return slices.Equal(der, c.signer.cert.X509.RawSubjectPublicKeyInfo) }) {
		return nil // the key is configured; what the certificate adds is not asked for
	}
	if len(r.Pubkeys) > 0 && len(r.Certs) == 0 {
		return errors.New("its pubkeys do not have the key of the peer's certificate")
	}
	more := c.proof.certs // all of them, if the signer's is a loaded one
	if len(more) > 0 && more[0].Equal(c.signer.cert) {
		more = more[1:]
	}
	return c.t.believe(c.ctx, c.signer.cert, more, c.proof.ocsp, r, want)
}

// checkKey holds a key of the peer's, or of an authority above it, against the
// constraints. Deviates: RSA keys that nobody should have any more are refused unless
// the configuration names a strength for them; strongSwan takes any.
func checkKey(want sig.Constraints, k crypto.PublicKey, ca bool) error {
	if r, ok := k.(*rsa.PublicKey); ok && r.N.BitLen() < leastRSA && want.RSABits() == 0 {
		return fmt.Errorf("RSA key of %d bits, wanted are %d where auth names no strength", r.N.BitLen(), leastRSA)
	}
	if ca {
		return want.CheckChainKey(k)
	}
	return want.CheckKey(k)
}

// leastRSA is the size of RSA keys that peers must have by default, in bits.
const leastRSA = 2048

// believe verifies a chain under a round's constraints.
func (t *trust) believe(ctx context.Context, leaf *pki.Certificate, more []*pki.Certificate, ocsp [][]byte, r *ike.AuthRound, want sig.Constraints) error {
	var trace []string
	req := pki.VerifyRequest{
		Leaf: leaf, Intermediates: more, OCSP: ocsp, At: time.Now(),
		Pinned: t.parseAll(r.Certs), Anchors: t.parseAll(r.CACerts), Policies: r.CertPolicies,
		Revocation:     map[ike.RevocationPolicy]pki.Policy{ike.RevocationRelaxed: pki.Relaxed, ike.RevocationIfURI: pki.IfURI, ike.RevocationStrict: pki.Strict}[r.Revocation],
		CheckKey:       func(k crypto.PublicKey, ca bool) error { return checkKey(want, k, ca) },
		CheckSignature: want.CheckChain,
		Trace: func(s string) {
			if len(trace) < limitTrace {
				trace = append(trace, s)
			}
		},
	}
	chain, err := t.store.Verify(ctx, req)
	if err != nil {
		return fmt.Errorf("%w (%s)", err, strings.Join(trace, "; "))
	}
	if !r.CAID.IsAny() && !slices.ContainsFunc(chain[1:], func(c *pki.Certificate) bool { return r.CAID.ConfirmedBy(t.identitiesOf(c)) }) {
		return fmt.Errorf("no authority of its chain is ca_id %s", r.CAID)
	}
	return nil
}

// chain verifies certificates that came inside of EAP-TLS under a round's
// constraints, for an identity; the zero identity takes any.
func (t *trust) chain(ctx context.Context, raw [][]byte, id ike.Identity, r *ike.AuthRound) error {
	if len(raw) == 0 {
		return errors.New("the peer sent no certificate")
	}
	var certs []*pki.Certificate
	for _, der := range raw[:min(len(raw), limitProvers)] {
		c, err := pki.NewCertificate(der)
		if err != nil {
			return err
		}
		certs = append(certs, c)
	}
	if ids := identities(certs[0]); !id.IsAny() && !id.ConfirmedBy(ids) {
		return fmt.Errorf("certificate %q is not one of %s but of %s", certs[0].Subject(), id, joined(ids))
	}
	want, err := constraints(r)
	if err != nil {
		return err
	}
	return t.believe(ctx, certs[0], certs[1:], nil, r, want)
}

// identities are all that a certificate speaks for; here its own SHA-1 names it, too.
func identities(c *pki.Certificate) []ike.Identity {
	sum := sha1.Sum(c.DER())
	return append(config.CertIdentities(c), ike.Identity{Type: ike.IDKeyID, Data: string(sum[:])})
}

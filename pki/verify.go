package pki

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"

	"adit/suite/sig"
)

// Policy says what an unknown revocation status means (swanctl's revocation).
type Policy uint8

const (
	// Relaxed refuses only what is known to be revoked.
	Relaxed Policy = iota
	// IfURI refuses also what names a CRL or OCSP responder (itself or by its
	// authority) whose answer isn't to be had.
	IfURI
	// Strict refuses what isn't known to be good.
	Strict
)

// Chain is an end entity, the CAs between, and a trust anchor last. Of a certificate
// that is trusted by being loaded it may be that one alone.
type Chain []*Certificate

// VerifyRequest says which certificate is to be believed, and under what constraints.
type VerifyRequest struct {
	// Leaf is the end entity, Intermediates what the peer sent beside it, in any order.
	Leaf          *Certificate
	Intermediates []*Certificate
	// At is the time of validity; zero is now.
	At time.Time
	// Pinned is a list of end entities of which it must be one (remote certs). Those,
	// like the store's Trusted, are believed without a chain. Empty: any.
	Pinned []*Certificate
	// Anchors is a list of CAs of which one must be in the chain (remote cacerts).
	// Empty: any.
	Anchors []*Certificate
	// Policies are dotted OIDs of certificate policies, all of which the end entity and
	// every CA above, except the anchor, must have (RFC 5280 §4.2.1.4).
	Policies []string
	// Revocation says what an unknown status means. OCSP are responses that the peer
	// sent along (RFC 4806).
	Revocation Policy
	OCSP       [][]byte
	// CheckKey and CheckSignature are further constraints, nil for none: on the key of
	// every certificate of the chain (ca: not the end entity's), and on every signature
	// but the anchor's own.
	CheckKey       func(key crypto.PublicKey, ca bool) error
	CheckSignature func(sig.Scheme) error
	// Trace is told of each step, for people; nil for nobody. It is called by this
	// goroutine alone.
	Trace func(string)
}

// verification is one run of Verify.
type verification struct {
	*VerifyRequest
	store   *Store
	now     time.Time
	lines   int
	trusted bool // the leaf is, without a chain
	// statuses remembers what revocation said, since chains share certificates.
	statuses map[ocspKey]status
}

func (v *verification) trace(format string, args ...any) {
	if v.Trace == nil || v.lines > maxTraceLines {
		return
	}
	if v.lines++; v.lines > maxTraceLines {
		format, args = "… more than fits here", nil
	}
	v.Trace(fmt.Sprintf(format, args...))
}

// Verify finds a chain from the leaf to a trust anchor that stands all constraints.
// Its errors are *[VerifyError] and those of ctx. Revocation may fetch, so ctx wants a
// deadline; nothing named by a certificate is fetched before its chain is trusted.
// The identity that the certificate is for is the caller's to check.
func (s *Store) Verify(ctx context.Context, req VerifyRequest) (Chain, error) {
	v := &verification{VerifyRequest: &req, store: s, now: req.At, statuses: map[ocspKey]status{}}
	if v.now.IsZero() {
		v.now = time.Now()
	}
	if len(req.Intermediates) > maxIntermediates {
		v.trace("of %d certificates the first %d are looked at", len(req.Intermediates), maxIntermediates)
		req.Intermediates = req.Intermediates[:maxIntermediates]
	}
	chain, err := v.run(ctx)
	if err != nil {
		v.trace("refused: %v", err)
		return nil, err
	}
	if v.Trace != nil {
		v.trace("trusted: %q", chain[0].Subject())
	}
	return chain, nil
}

func (v *verification) run(ctx context.Context) (Chain, error) {
	if v.Leaf == nil {
		return nil, refusef(nil, Untrusted, "there is no certificate")
	}
	if err := v.checkLeaf(); err != nil {
		return nil, err
	}
	if chain, err := v.first(ctx, v.remembered()); chain != nil || ctx.Err() != nil {
		return chain, err
	}
	generation := v.store.generation.Load()
	chains, pathErr := v.build()
	if len(chains) == 0 {
		if !v.trusted {
			return nil, pathErr
		}
		return v.alone(pathErr)
	}
	v.remember(generation, chains)
	return v.first(ctx, chains)
}

// first is the first of the chains that stands all constraints.
func (v *verification) first(ctx context.Context, chains []Chain) (Chain, error) {
	var first error
	for _, chain := range chains {
		v.traceChain(chain)
		err := v.checkChain(chain)
		if err == nil {
			err = v.checkRevocation(ctx, chain)
		}
		if err == nil {
			return slices.Clone(chain), nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		v.trace("chain refused: %v", err)
		// A revocation says more than a chain that isn't asked for.
		var ve *VerifyError
		if first == nil || errors.As(err, &ve) && ve.Reason == Revoked {
			first = err
		}
	}
	return nil, first
}

func (v *verification) traceChain(chain Chain) {
	if v.Trace == nil {
		return
	}
	for i, c := range chain {
		name, bits := sig.KeyKind(c.PublicKey)
		what := "end entity"
		switch {
		case i == len(chain)-1:
			what = "trust anchor"
		case i > 0:
			what = "intermediate CA"
		}
		v.trace("chain %d: %s %q, serial %s, %s key of %d bits, valid %s to %s", i, what, c.Subject(), c.Serial(),
			name, bits, c.X509.NotBefore.UTC().Format(time.DateTime), c.X509.NotAfter.UTC().Format(time.DateTime))
	}
}

// Object identifiers of extended key usages that IKE may have (RFC 4945 §5.1.3.12).
var ikeUsages = []asn1.ObjectIdentifier{
	{1, 3, 6, 1, 5, 5, 8, 2, 2},                              // ikeIntermediate
	{1, 3, 6, 1, 5, 5, 7, 3, 17},                             // ipsecIKE (RFC 4945)
	{1, 3, 6, 1, 5, 5, 7, 3, 5}, {1, 3, 6, 1, 5, 5, 7, 3, 6}, // ipsecEndSystem and
	{1, 3, 6, 1, 5, 5, 7, 3, 7}, // ipsecTunnel, ipsecUser: deprecated
}

// usableForIKE says whether the extended key usages of c, if it has any, have one for
// IKE or TLS. RFC 4945 asks for ipsecIKE; what peers have is serverAuth or clientAuth,
// and strongSwan doesn't look. A certificate for mail or OCSP alone is refused.
func usableForIKE(c *Certificate) bool {
	x := c.X509
	if len(x.ExtKeyUsage) == 0 && len(x.UnknownExtKeyUsage) == 0 {
		return true
	}
	for _, u := range x.ExtKeyUsage {
		switch u {
		case x509.ExtKeyUsageAny, x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth,
			x509.ExtKeyUsageIPSECEndSystem, x509.ExtKeyUsageIPSECTunnel, x509.ExtKeyUsageIPSECUser:
			return true
		}
	}
	for _, u := range x.UnknownExtKeyUsage {
		if slices.ContainsFunc(ikeUsages, u.Equal) {
			return true
		}
	}
	return false
}

// checkLeaf checks what the end entity must be whatever its chain.
func (v *verification) checkLeaf() error {
	leaf, x := v.Leaf, v.Leaf.X509
	if len(v.Pinned) > 0 && !slices.ContainsFunc(v.Pinned, leaf.Equal) {
		return refuse(leaf, WrongCertificate, nil)
	}
	v.trusted = len(v.Pinned) > 0 || v.store.has(Trusted, leaf)
	if err := v.checkValidity(leaf); err != nil {
		return err
	}
	if len(x.UnhandledCriticalExtensions) > 0 {
		return refusef(leaf, CriticalExtension, "%v", x.UnhandledCriticalExtensions[0])
	}
	if err := v.checkKey(leaf, false); err != nil {
		return err
	}
	if v.trusted {
		// What the operator loaded is like a raw key: its usages aren't asked.
		v.trace("%q is trusted because it is loaded", leaf.Subject())
		return nil
	}
	// RFC 4945 §5.1.3.2: digitalSignature or nonRepudiation.
	if x.KeyUsage != 0 && x.KeyUsage&(x509.KeyUsageDigitalSignature|x509.KeyUsageContentCommitment) == 0 {
		return refusef(leaf, KeyUsage, "neither digitalSignature nor nonRepudiation")
	}
	if !usableForIKE(leaf) {
		return refusef(leaf, KeyUsage, "extended key usages without one for IKE or TLS")
	}
	return nil
}

func (v *verification) checkValidity(c *Certificate) error {
	switch x := c.X509; {
	case v.now.Before(x.NotBefore):
		return refusef(c, NotYetValid, "valid from %s, now it is %s", stamp(x.NotBefore), stamp(v.now))
	case v.now.After(x.NotAfter):
		return refusef(c, Expired, "valid until %s, now it is %s", stamp(x.NotAfter), stamp(v.now))
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func (v *verification) checkKey(c *Certificate, ca bool) error {
	if v.CheckKey == nil {
		return nil
	}
	if err := v.CheckKey(c.PublicKey, ca); err != nil {
		return refuse(c, WeakKey, err)
	}
	return nil
}

// checkChain checks a chain that is built against the constraints.
func (v *verification) checkChain(chain Chain) error {
	if len(v.Anchors) > 0 {
		wanted := func(c *Certificate) bool { return slices.ContainsFunc(v.Anchors, c.Equal) }
		if !slices.ContainsFunc(chain[1:], wanted) && !wanted(chain[0]) {
			return refusef(chain[0], WrongCA, "its anchor is %q", chain[len(chain)-1].Subject())
		}
	}
	for i, c := range chain {
		if i > 0 {
			if err := v.checkKey(c, true); err != nil {
				return err
			}
		}
		if i == len(chain)-1 && i > 0 {
			break // what an anchor says of itself is not asked
		}
		scheme, err := signatureOf(c)
		if err == nil && v.CheckSignature != nil && len(chain) > 1 {
			err = v.CheckSignature(scheme)
		}
		if err != nil && len(chain) > 1 {
			return refuse(c, WeakSignature, err)
		}
		if i > 0 && !usableForIKE(c) {
			return refusef(c, KeyUsage, "an intermediate CA for other uses than IKE or TLS")
		}
	}
	for _, oid := range v.Policies {
		if err := checkPolicy(chain, oid); err != nil {
			return err
		}
	}
	return nil
}

// oidAnyPolicy is anyPolicy (RFC 5280 §4.2.1.4).
const oidAnyPolicy = "2.5.29.32.0"

// checkPolicy wants a policy in every certificate but the anchor. anyPolicy of a CA
// stands for it as long as inhibitAnyPolicy (§4.2.1.14) above doesn't forbid that; in
// the end entity it must stand itself. Mapped policies (§4.2.1.5) aren't followed,
// which refuses more.
func checkPolicy(chain Chain, oid string) error {
	last := max(len(chain)-1, 1)
	anyLeft := len(chain) // certificates for which anyPolicy still counts
	for i := len(chain) - 1; i >= 0; i-- {
		c := chain[i]
		if i < last {
			has := hasPolicy(c, oid) || i > 0 && anyLeft > 0 && hasPolicy(c, oidAnyPolicy)
			if !has {
				return refusef(c, PolicyMissing, "%s", oid)
			}
			if !c.SelfIssued() {
				anyLeft--
			}
		}
		if x := c.X509; x.InhibitAnyPolicy > 0 || x.InhibitAnyPolicyZero {
			anyLeft = min(anyLeft, x.InhibitAnyPolicy)
		}
	}
	return nil
}

func hasPolicy(c *Certificate, oid string) bool {
	return slices.ContainsFunc(c.X509.Policies, func(p x509.OID) bool { return p.String() == oid })
}

// alone decides about a certificate that is trusted by being loaded and that no chain
// is known of; pathErr says why not.
func (v *verification) alone(pathErr error) (Chain, error) {
	chain := Chain{v.Leaf}
	if err := v.checkChain(chain); err != nil {
		return nil, err
	}
	x := v.Leaf.X509
	named := len(x.CRLDistributionPoints)+len(x.OCSPServer) > 0
	// A certificate that is its own issuer is revoked by unloading it.
	if (v.Revocation == Strict || v.Revocation == IfURI && named) && !v.Leaf.SelfSigned() {
		return nil, refusef(v.Leaf, RevocationUnknown, "its issuer isn't known, so that its CRL or OCSP responses can't be checked")
	}
	if !v.Leaf.SelfIssued() {
		v.trace("no chain to an anchor: %v", pathErr)
	}
	return chain, nil
}

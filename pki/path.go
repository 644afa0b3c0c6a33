package pki

import (
	"crypto/x509"
	"errors"
	"slices"
)

// build finds chains from the leaf to anchors, the best first. Without any, the error
// says why.
func (v *verification) build() ([]Chain, error) {
	roots, others := v.candidates()
	chains, err := v.standardPaths(roots, others)
	if len(chains) > 0 {
		return chains, nil
	}
	// Either there is none, or crypto/x509 can't see it; the own path knows, and says
	// better what is missing.
	own := ownPath{verification: v, roots: roots, others: others}
	own.extend(Chain{v.Leaf})
	if len(own.found) > 0 {
		return own.found, nil
	}
	return nil, own.explain(err)
}

// candidates are the certificates that can be in a chain from the leaf by the names of
// issuers: trust anchors, and others. Only self-issued CAs end a chain.
func (v *verification) candidates() (roots, others []*Certificate) {
	known := map[[32]byte]bool{v.Leaf.Fingerprint: true}
	queue := []*Certificate{v.Leaf}
	if v.store.has(Anchor, v.Leaf) && v.Leaf.SelfIssued() {
		roots = append(roots, v.Leaf)
	}
	for i := 0; i < len(queue) && len(queue) < maxCandidates; i++ {
		c := queue[i]
		issuers := v.store.issuers(c)
		for _, m := range v.Intermediates {
			if m != nil && string(m.X509.RawSubject) == string(c.X509.RawIssuer) {
				issuers = append(issuers, m)
			}
		}
		for _, is := range issuers {
			if known[is.Fingerprint] || len(queue) == maxCandidates {
				continue
			}
			known[is.Fingerprint] = true
			queue = append(queue, is)
			if is.SelfIssued() && v.store.has(Anchor, is) {
				roots = append(roots, is)
			} else {
				others = append(others, is)
			}
		}
	}
	return roots, others
}

// standardPaths has crypto/x509 find the chains. It checks signatures, validity,
// basicConstraints with path lengths, keyUsage of CAs, name constraints and policy
// constraints (RFC 5280 §6.1), and bounds its own work.
func (v *verification) standardPaths(roots, others []*Certificate) ([]Chain, error) {
	wrapped := map[*x509.Certificate]*Certificate{v.Leaf.X509: v.Leaf}
	opts := x509.VerifyOptions{
		Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: v.now,
		KeyUsages:                 []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, // ours is in usableForIKE
		MaxConstraintComparisions: maxConstraintChecks,
	}
	for _, c := range roots {
		opts.Roots.AddCert(c.X509)
		wrapped[c.X509] = c
	}
	for _, c := range others {
		opts.Intermediates.AddCert(c.X509)
		wrapped[c.X509] = c
	}
	found, err := v.Leaf.X509.Verify(opts)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(found, func(a, b []*x509.Certificate) int { return len(a) - len(b) })
	var chains []Chain
	for _, f := range found {
		if len(f) > maxChain || len(chains) == maxChains {
			break
		}
		chain := make(Chain, len(f))
		for i, x := range f {
			chain[i] = wrapped[x]
		}
		if !slices.Contains(chain, nil) {
			chains = append(chains, chain)
		}
	}
	if len(chains) == 0 {
		return nil, refusef(v.Leaf, PathLength, "at most %d certificates", maxChain)
	}
	return chains, nil
}

// standardReason is what crypto/x509's error is in our words; nil if it says no more
// than that there is no chain.
func (v *verification) standardReason(err error) *VerifyError {
	var invalid x509.CertificateInvalidError
	if !errors.As(err, &invalid) {
		return nil
	}
	at := v.Leaf
	if invalid.Cert != nil {
		if c, err := wrap(invalid.Cert); err == nil {
			at = c
		}
	}
	reasons := map[x509.InvalidReason]Reason{
		x509.NotAuthorizedToSign:           NotCA,
		x509.Expired:                       Expired,
		x509.CANotAuthorizedForThisName:    NameConstraint,
		x509.UnconstrainedName:             NameConstraint,
		x509.NameConstraintsWithoutSANs:    NameConstraint,
		x509.TooManyConstraints:            NameConstraint,
		x509.TooManyIntermediates:          PathLength,
		x509.CANotAuthorizedForExtKeyUsage: KeyUsage,
		x509.IncompatibleUsage:             KeyUsage,
		x509.NoValidChains:                 PolicyMissing,
	}
	if r, ok := reasons[invalid.Reason]; ok {
		return refuse(at, r, err)
	}
	return nil
}

package pki

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"

	"adit/suite/sig"
)

// ownPath builds the chains that crypto/x509 can't: with an issuer whose key is Ed448
// (RFC 8410) or marked for RSASSA-PSS (RFC 4055), neither of which it verifies. It does
// the checks of RFC 5280 §6.1 except name constraints and the policy tree, and so it
// refuses a chain that has one of those. A chain that crypto/x509 could have verified
// but didn't is never accepted here: then this only finds out what was wrong.
type ownPath struct {
	*verification
	roots, others []*Certificate
	found         []Chain
	signatures    int // checked so far
	// worst is the reason of the longest chain that failed; depth its length.
	worst *VerifyError
	depth int
	whole bool // a chain to an anchor was found that isn't ours to accept
}

// extend continues chain, whose last certificate isn't an anchor yet, by every issuer
// that can be, depth first.
func (o *ownPath) extend(chain Chain) {
	last := chain[len(chain)-1]
	if len(chain) == 1 && slices.ContainsFunc(o.roots, last.Equal) {
		o.accept(chain) // the leaf itself is an anchor
		return
	}
	if len(chain) >= maxChain {
		o.note(chain, refusef(last, PathLength, "at most %d certificates", maxChain))
		return
	}
	if last.SelfIssued() {
		if o.signatures++; o.signatures <= maxOwnSignatures && checkSignedBy(last, last) == nil {
			o.note(chain, refusef(last, Untrusted, "it is self-signed and no trust anchor"))
			return
		}
	}
	named := false
	for _, list := range [][]*Certificate{o.roots, o.others} {
		for _, issuer := range list {
			if !bytes.Equal(issuer.X509.RawSubject, last.X509.RawIssuer) || repeats(chain, issuer) {
				continue
			}
			named = true
			if len(o.found) == maxChains {
				return
			}
			if o.signatures++; o.signatures > maxOwnSignatures {
				o.note(chain, refuse(last, TooMuchWork, nil))
				return
			}
			if err := o.checkIssuer(chain, last, issuer); err != nil {
				o.note(chain, err)
				continue
			}
			longer := append(slices.Clone(chain), issuer)
			if slices.ContainsFunc(o.roots, issuer.Equal) {
				o.accept(longer)
			} else {
				o.extend(longer)
			}
		}
	}
	if named {
		return
	}
	o.note(chain, &VerifyError{Reason: Untrusted, Cert: last, MissingIssuer: last.Issuer()})
}

// repeats says whether chain has a certificate of the same name and key as c: then it
// is a loop (cross-signed CAs, or one CA renewed).
func repeats(chain Chain, c *Certificate) bool {
	return slices.ContainsFunc(chain, func(o *Certificate) bool {
		return o.KeyHash == c.KeyHash && bytes.Equal(o.X509.RawSubject, c.X509.RawSubject)
	})
}

// checkIssuer checks that issuer may have issued last and did, at the end of chain.
func (o *ownPath) checkIssuer(chain Chain, last, issuer *Certificate) *VerifyError {
	x := issuer.X509
	if err := checkSignedBy(last, issuer); err != nil {
		switch {
		case errors.Is(err, sig.ErrWeakHash), errors.Is(err, sig.ErrAlgorithm), errors.Is(err, sig.ErrPSS):
			return refuse(last, WeakSignature, err)
		}
		return refuse(last, BadSignature, fmt.Errorf("by %q: %w", issuer.Subject(), err))
	}
	if err := o.checkValidity(issuer); err != nil {
		var ve *VerifyError
		errors.As(err, &ve)
		return ve
	}
	if !issuer.IsCA() {
		return refuse(issuer, NotCA, nil)
	}
	if x.KeyUsage != 0 && x.KeyUsage&x509.KeyUsageCertSign == 0 {
		return refusef(issuer, KeyUsage, "without keyCertSign")
	}
	if len(x.UnhandledCriticalExtensions) > 0 {
		return refusef(issuer, CriticalExtension, "%v", x.UnhandledCriticalExtensions[0])
	}
	// RFC 5280 §4.2.1.9: self-issued CAs below don't count.
	below := 0
	for _, c := range chain[1:] {
		if !c.SelfIssued() {
			below++
		}
	}
	if limit := x.MaxPathLen; x.BasicConstraintsValid && (limit > 0 || limit == 0 && x.MaxPathLenZero) && below > limit {
		return refusef(issuer, PathLength, "%d intermediate CAs below, at most %d are allowed", below, limit)
	}
	return nil
}

// accept takes a whole chain if it is one that crypto/x509 can't see and that has
// nothing which isn't evaluated here.
func (o *ownPath) accept(chain Chain) {
	if !slices.ContainsFunc(chain[1:], beyondStandard) {
		o.whole = true
		return
	}
	for _, c := range chain {
		switch {
		case hasExtension(c, oidNameConstraints):
			o.note(chain, refusef(c, NameConstraint, "they aren't evaluated in chains with Ed448 or RSASSA-PSS keys"))
			return
		case hasExtension(c, oidPolicyConstraints):
			o.note(chain, refusef(c, PolicyMissing, "policy constraints aren't evaluated in chains with Ed448 or RSASSA-PSS keys"))
			return
		}
	}
	o.found = append(o.found, chain)
}

// OIDs of RFC 5280 §4.2.1.10 and §4.2.1.11.
var (
	oidNameConstraints   = asn1.ObjectIdentifier{2, 5, 29, 30}
	oidPolicyConstraints = asn1.ObjectIdentifier{2, 5, 29, 36}
)

func hasExtension(c *Certificate, id asn1.ObjectIdentifier) bool {
	return slices.ContainsFunc(c.X509.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(id) })
}

// beyondStandard says whether crypto/x509 can't verify what c signs.
func beyondStandard(c *Certificate) bool { return c.X509.PublicKey == nil }

// note keeps the reason of the longest chain that failed.
func (o *ownPath) note(chain Chain, err *VerifyError) {
	if o.worst == nil || len(chain) > o.depth {
		o.worst, o.depth = err, len(chain)
	}
	o.trace("no chain through %q: %v", chain[len(chain)-1].Subject(), err)
}

// explain is the error if there is no chain; standard is crypto/x509's.
func (o *ownPath) explain(standard error) error {
	if o.whole || o.worst == nil {
		// All but what only crypto/x509 evaluates was in order.
		if ve := o.standardReason(standard); ve != nil {
			return ve
		}
		var ve *VerifyError
		if errors.As(standard, &ve) {
			return ve
		}
		return refuse(o.Leaf, Untrusted, standard)
	}
	return o.worst
}

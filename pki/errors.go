package pki

import (
	"fmt"
	"time"
)

// Reason says why a certificate is not believed.
type Reason string

// The reasons of [VerifyError], as people read them.
const (
	Expired           Reason = "expired"
	NotYetValid       Reason = "not yet valid"
	Untrusted         Reason = "no trusted issuer"
	BadSignature      Reason = "signature is wrong"
	WeakSignature     Reason = "signature not acceptable"
	WeakKey           Reason = "key not acceptable"
	NotCA             Reason = "issuer is not a CA"
	KeyUsage          Reason = "key usage forbids it"
	PathLength        Reason = "chain too long"
	NameConstraint    Reason = "name constraints forbid it"
	PolicyMissing     Reason = "certificate policy missing"
	WrongCA           Reason = "not issued by a CA that is asked for"
	WrongCertificate  Reason = "not a certificate that is asked for"
	CriticalExtension Reason = "unknown critical extension"
	Revoked           Reason = "revoked"
	RevocationUnknown Reason = "revocation status unknown"
	TooMuchWork       Reason = "too many candidate certificates"
)

// VerifyError is the answer of [Store.Verify] to what it doesn't believe.
type VerifyError struct {
	// Reason is the kind of refusal.
	Reason Reason
	// Cert is the certificate of the chain that is at fault.
	Cert *Certificate
	// MissingIssuer is the name of the issuer that was looked for, if Untrusted.
	MissingIssuer string
	// RevokedAt and RevokedFor are set if Revoked (RFC 5280 §5.3.1 names the reasons).
	RevokedAt  time.Time
	RevokedFor string
	// Err says more, or is nil.
	Err error
}

// Error is one line with everything.
func (e *VerifyError) Error() string {
	s := "certificate"
	if e.Cert != nil {
		s = fmt.Sprintf("certificate %q", e.Cert.Subject())
	}
	s += ": " + string(e.Reason)
	if e.MissingIssuer != "" {
		s += fmt.Sprintf(" (issuer %q is needed)", e.MissingIssuer)
	}
	if !e.RevokedAt.IsZero() {
		s += fmt.Sprintf(" on %s, reason: %s", e.RevokedAt.UTC().Format(time.RFC3339), e.RevokedFor)
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap gives Err.
func (e *VerifyError) Unwrap() error { return e.Err }

// refuse is a VerifyError about c; more may be nil.
func refuse(c *Certificate, r Reason, more error) *VerifyError {
	return &VerifyError{Reason: r, Cert: c, Err: more}
}

// refusef is a VerifyError about c with a text.
func refusef(c *Certificate, r Reason, format string, args ...any) *VerifyError {
	return refuse(c, r, fmt.Errorf(format, args...))
}

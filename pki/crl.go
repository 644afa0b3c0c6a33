package pki

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"sync/atomic"
	"time"
)

// CRL is a certificate revocation list (RFC 5280 §5), kept small: of each entry the
// serial number, the time and the reason. It is immutable; its signature is checked
// when it is used.
type CRL struct {
	// Issuer is the issuer's name, for people.
	Issuer string
	// Number is the CRL number (§5.2.3), nil if it has none. Base is the number that a
	// delta CRL (§5.2.4) builds on, nil for a complete CRL.
	Number, Base *big.Int
	// ThisUpdate and NextUpdate are its validity; NextUpdate may be zero.
	ThisUpdate, NextUpdate time.Time

	der      []byte
	issuer   string // raw name
	signer   string // authorityKeyIdentifier, which tells namesakes apart; may be empty
	revoked  map[string]revocation
	point    issuingPoint
	verified atomic.Pointer[[32]byte] // fingerprint of the issuer that its signature was checked with
	size     int
}

// revocation is an entry.
type revocation struct {
	at     int64 // seconds since 1970
	reason uint8
}

// issuingPoint is what issuingDistributionPoint (RFC 5280 §5.2.5) narrows a list to.
type issuingPoint struct {
	OnlyUser, OnlyCA bool
	// hasDistribution says that it is for one distribution point, with those URIs.
	hasDistribution bool
	uris            []string
}

// OIDs of RFC 5280 §5.2 and §5.3.
var (
	oidIssuingPoint = asn1.ObjectIdentifier{2, 5, 29, 28}
	oidDelta        = asn1.ObjectIdentifier{2, 5, 29, 27}
	oidReason       = asn1.ObjectIdentifier{2, 5, 29, 21}
)

// removeFromCRL is the reason of an entry of a delta CRL that revokes no longer.
const removeFromCRL = 8

// reasons are the names of RFC 5280 §5.3.1.
var reasons = []string{"unspecified", "keyCompromise", "cACompromise", "affiliationChanged", "superseded",
	"cessationOfOperation", "certificateHold", "7", "removeFromCRL", "privilegeWithdrawn", "aACompromise"}

func reasonName(r int) string {
	if r >= 0 && r < len(reasons) {
		return reasons[r]
	}
	return fmt.Sprint(r)
}

// ParseCRL reads a CRL, PEM or DER. It refuses indirect CRLs, those for attribute
// certificates or some reasons only, and critical extensions that it doesn't know.
func ParseCRL(b []byte) (*CRL, error) {
	if len(b) > 2*maxCRLBytes {
		return nil, fmt.Errorf("pki: CRL of %d bytes", len(b))
	}
	if !looksDER(b) {
		block, _ := pem.Decode(b)
		if block == nil {
			return nil, errors.New("pki: no CRL in the file: neither PEM nor DER")
		}
		if block.Type != "X509 CRL" && block.Type != "CRL" {
			return nil, fmt.Errorf("pki: no CRL in the file, but %s", printable(block.Type))
		}
		b = block.Bytes
	}
	if len(b) > maxCRLBytes {
		return nil, fmt.Errorf("pki: CRL of %d bytes, at most %d are read", len(b), maxCRLBytes)
	}
	list, err := x509.ParseRevocationList(b)
	if err != nil {
		return nil, fmt.Errorf("pki: CRL: %w", err)
	}
	l := &CRL{Issuer: nameText(list.RawIssuer, list.Issuer), Number: list.Number, ThisUpdate: list.ThisUpdate, NextUpdate: list.NextUpdate,
		der: list.Raw, issuer: string(list.RawIssuer), signer: string(list.AuthorityKeyId), size: len(list.Raw),
		revoked: make(map[string]revocation, len(list.RevokedCertificateEntries))}
	for _, e := range list.Extensions {
		if err := l.readExtension(e); err != nil {
			return nil, fmt.Errorf("pki: CRL of %q: %w", l.Issuer, err)
		}
	}
	for _, e := range list.RevokedCertificateEntries {
		for _, x := range e.Extensions {
			if x.Critical && !x.Id.Equal(oidReason) {
				return nil, fmt.Errorf("pki: CRL of %q: critical extension %v of an entry isn't known", l.Issuer, x.Id)
			}
		}
		l.revoked[string(e.SerialNumber.Bytes())] = revocation{e.RevocationTime.Unix(), uint8(e.ReasonCode & 0xff)}
	}
	return l, nil
}

func (l *CRL) readExtension(e pkix.Extension) error {
	switch {
	case e.Id.Equal(oidIssuingPoint):
		return l.point.read(e.Value)
	case e.Id.Equal(oidDelta):
		l.Base = new(big.Int)
		if rest, err := asn1.Unmarshal(e.Value, &l.Base); err != nil || len(rest) > 0 {
			return errors.New("malformed deltaCRLIndicator")
		}
	case e.Critical:
		return fmt.Errorf("critical extension %v isn't known", e.Id)
	}
	return nil
}

// read reads an issuingDistributionPoint, and refuses what isn't evaluated.
func (p *issuingPoint) read(der []byte) error {
	var f struct {
		Name        asn1.RawValue  `asn1:"optional,tag:0"`
		OnlyUser    bool           `asn1:"optional,tag:1"`
		OnlyCA      bool           `asn1:"optional,tag:2"`
		SomeReasons asn1.BitString `asn1:"optional,tag:3"`
		Indirect    bool           `asn1:"optional,tag:4"`
		OnlyAttr    bool           `asn1:"optional,tag:5"`
	}
	rest, err := asn1.Unmarshal(der, &f)
	switch {
	case err != nil || len(rest) > 0:
		return errors.New("malformed issuingDistributionPoint")
	case f.Indirect:
		return errors.New("indirect CRLs are refused")
	case f.OnlyAttr, f.SomeReasons.BitLength > 0, f.OnlyUser && f.OnlyCA:
		return errors.New("CRLs for attribute certificates or for some reasons are refused")
	}
	p.OnlyUser, p.OnlyCA = f.OnlyUser, f.OnlyCA
	if len(f.Name.FullBytes) == 0 {
		return nil
	}
	p.hasDistribution = true
	var full asn1.RawValue // DistributionPointName: [0] fullName or [1]
	if _, err := asn1.Unmarshal(f.Name.Bytes, &full); err != nil || full.Class != asn1.ClassContextSpecific {
		return errors.New("malformed distributionPoint")
	}
	if full.Tag != 0 {
		return nil // relative to the issuer: matches nothing
	}
	for b := full.Bytes; len(b) > 0 && len(p.uris) < 64; {
		var name asn1.RawValue
		if b, err = asn1.Unmarshal(b, &name); err != nil {
			return errors.New("malformed distributionPoint")
		}
		if name.Class == asn1.ClassContextSpecific && name.Tag == 6 {
			p.uris = append(p.uris, string(name.Bytes))
		}
	}
	return nil
}

// DER is the list's encoding; nil if it came from a fetch and is too large to keep for
// listings.
func (l *CRL) DER() []byte { return l.der }

// Len is the number of entries.
func (l *CRL) Len() int { return len(l.revoked) }

// sameScope says whether both lists are of one issuer and speak of the same
// certificates, so that the newer makes the older useless.
func (l *CRL) sameScope(o *CRL) bool {
	return l.issuer == o.issuer && l.signer == o.signer && (l.Base == nil) == (o.Base == nil) &&
		l.point.OnlyUser == o.point.OnlyUser && l.point.OnlyCA == o.point.OnlyCA &&
		l.point.hasDistribution == o.point.hasDistribution && slices.Equal(l.point.uris, o.point.uris)
}

// newer says whether l is newer than o: by number if both have one.
func (l *CRL) newer(o *CRL) bool {
	if l.Number != nil && o.Number != nil {
		if c := l.Number.Cmp(o.Number); c != 0 {
			return c > 0
		}
	}
	return l.ThisUpdate.After(o.ThisUpdate)
}

// checkIssuer checks that l is issuer's and signed by it (RFC 5280 §6.3.3 (f), (g)).
func (l *CRL) checkIssuer(issuer *Certificate) error {
	if l.issuer != string(issuer.X509.RawSubject) {
		return fmt.Errorf("CRL of another issuer, %q", l.Issuer)
	}
	if f := l.verified.Load(); f != nil && *f == issuer.Fingerprint {
		return nil
	}
	if u := issuer.X509.KeyUsage; u != 0 && u&x509.KeyUsageCRLSign == 0 {
		return fmt.Errorf("%q may not sign CRLs by its key usage", issuer.Subject())
	}
	if l.der == nil {
		return errors.New("CRL is signed by another key of the issuer")
	}
	if err := checkSignature(l.der, issuer); err != nil {
		return fmt.Errorf("CRL of %q: %w", l.Issuer, err)
	}
	l.verified.Store(&issuer.Fingerprint)
	return nil
}

// forget drops a large encoding once the signature has been checked.
func (l *CRL) forget() {
	if len(l.der) > maxKeptCRLBytes {
		l.der = nil
	}
}

// covers says whether l speaks about c (RFC 5280 §6.3.3 (b)(2)): a CRL of a part says
// nothing about certificates of other parts, which would all look good by it.
func (l *CRL) covers(c *Certificate) bool {
	if l.point.OnlyUser && c.IsCA() || l.point.OnlyCA && !c.IsCA() {
		return false
	}
	if !l.point.hasDistribution {
		return true
	}
	return slices.ContainsFunc(l.point.uris, func(u string) bool { return slices.Contains(c.X509.CRLDistributionPoints, u) })
}

// fresh says whether l is valid at now; a list without nextUpdate isn't (RFC 5280
// §5.1.2.5 demands it).
func (l *CRL) fresh(now time.Time) error {
	switch {
	case now.Add(clockSkew).Before(l.ThisUpdate):
		return fmt.Errorf("CRL is from the future, of %s", stamp(l.ThisUpdate))
	case l.NextUpdate.IsZero():
		return errors.New("CRL has no nextUpdate")
	case now.After(l.NextUpdate):
		return fmt.Errorf("CRL is stale, a new one was due at %s", stamp(l.NextUpdate))
	}
	return nil
}

// find is c's entry.
func (l *CRL) find(c *Certificate) (revocation, bool) {
	r, ok := l.revoked[string(c.X509.SerialNumber.Bytes())]
	return r, ok
}

// improves says whether delta l adds to base (RFC 5280 §5.2.4).
func (l *CRL) improves(base *CRL) bool {
	return l.Base != nil && base.Base == nil && base.Number != nil && l.Number != nil &&
		base.Number.Cmp(l.Base) >= 0 && l.Number.Cmp(base.Number) > 0 &&
		l.point.OnlyUser == base.point.OnlyUser && l.point.OnlyCA == base.point.OnlyCA &&
		slices.Equal(l.point.uris, base.point.uris)
}

package pki

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha1" // names issuers in requests (RFC 6960 §4.1.1), which nobody trusts
	_ "crypto/sha256"
	_ "crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"
)

// OIDs of RFC 6960 §4.
var (
	oidOCSPBasic = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 1}
	oidOCSPNonce = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 2}
)

// certIDHashes are the hashes of a CertID.
var certIDHashes = []struct {
	oid  asn1.ObjectIdentifier
	hash crypto.Hash
}{
	{asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}, crypto.SHA1},
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}, crypto.SHA256},
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}, crypto.SHA384},
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3}, crypto.SHA512},
}

// The messages of RFC 6960 §4.1.1 and §4.2.1.
type (
	certID struct {
		Hash     pkix.AlgorithmIdentifier
		NameHash []byte
		KeyHash  []byte
		Serial   *big.Int
	}
	ocspRequest struct {
		TBS ocspTBSRequest
	}
	ocspTBSRequest struct {
		Requests   []ocspSingleRequest
		Extensions []pkix.Extension `asn1:"explicit,tag:2,optional"`
	}
	ocspSingleRequest struct {
		ID certID
	}
	ocspResponse struct {
		Status asn1.Enumerated
		Body   struct {
			Type     asn1.ObjectIdentifier
			Response []byte
		} `asn1:"explicit,tag:0,optional"`
	}
	ocspBasic struct {
		TBS       asn1.RawValue
		Algorithm asn1.RawValue
		Signature asn1.BitString
		Certs     []asn1.RawValue `asn1:"explicit,tag:0,optional"`
	}
	ocspTBSResponse struct {
		Version    int `asn1:"explicit,tag:0,optional,default:0"`
		Responder  asn1.RawValue
		ProducedAt time.Time `asn1:"generalized"`
		Responses  []ocspSingle
		Extensions []pkix.Extension `asn1:"explicit,tag:1,optional"`
	}
	ocspSingle struct {
		ID      certID
		Good    asn1.Flag `asn1:"tag:0,optional"`
		Revoked struct {
			At     time.Time       `asn1:"generalized"`
			Reason asn1.Enumerated `asn1:"explicit,tag:0,optional"`
		} `asn1:"tag:1,optional"`
		Unknown    asn1.Flag        `asn1:"tag:2,optional"`
		ThisUpdate time.Time        `asn1:"generalized"`
		NextUpdate time.Time        `asn1:"generalized,explicit,tag:0,optional"`
		Extensions []pkix.Extension `asn1:"explicit,tag:1,optional"`
	}
)

// ocspErrors are the names of OCSPResponseStatus (RFC 6960 §4.2.1).
var ocspErrors = map[asn1.Enumerated]string{1: "malformedRequest", 2: "internalError", 3: "tryLater", 5: "sigRequired", 6: "unauthorized"}

// newOCSPRequest is a request about c and the nonce in it (RFC 8954).
func newOCSPRequest(c, issuer *Certificate) (der, nonce []byte, err error) {
	nonce = make([]byte, nonceBytes)
	rand.Read(nonce)
	value, err := asn1.Marshal(nonce)
	if err != nil {
		return nil, nil, err
	}
	name := sha1.Sum(issuer.X509.RawSubject)
	der, err = asn1.Marshal(ocspRequest{ocspTBSRequest{
		Requests: []ocspSingleRequest{{certID{
			Hash:     pkix.AlgorithmIdentifier{Algorithm: certIDHashes[0].oid, Parameters: asn1.NullRawValue},
			NameHash: name[:], KeyHash: issuer.KeyID[:], Serial: c.X509.SerialNumber,
		}}},
		Extensions: []pkix.Extension{{Id: oidOCSPNonce, Value: value}},
	}})
	return der, nonce, err
}

// OCSPResponse is a response whose signature hasn't been checked yet.
type OCSPResponse struct {
	basic ocspBasic
	tbs   ocspTBSResponse
	nonce []byte // nil: none
}

// ParseOCSPResponse reads a response (DER). A response that reports an error, or isn't
// of the basic type, is an error.
func ParseOCSPResponse(b []byte) (*OCSPResponse, error) {
	if len(b) > maxOCSPBytes {
		return nil, fmt.Errorf("pki: OCSP response of %d bytes, at most %d are read", len(b), maxOCSPBytes)
	}
	var outer ocspResponse
	if rest, err := asn1.Unmarshal(b, &outer); err != nil {
		return nil, fmt.Errorf("pki: OCSP response: %w", err)
	} else if len(rest) > 0 {
		return nil, errors.New("pki: OCSP response: trailing bytes")
	}
	if outer.Status != 0 {
		return nil, fmt.Errorf("pki: OCSP responder answers %d (%s)", outer.Status, ocspErrors[outer.Status])
	}
	if !outer.Body.Type.Equal(oidOCSPBasic) {
		return nil, errors.New("pki: OCSP response isn't of the basic type")
	}
	r := &OCSPResponse{}
	if rest, err := asn1.Unmarshal(outer.Body.Response, &r.basic); err != nil || len(rest) > 0 {
		return nil, fmt.Errorf("pki: OCSP response: malformed body: %v", err)
	}
	if rest, err := asn1.Unmarshal(r.basic.TBS.FullBytes, &r.tbs); err != nil || len(rest) > 0 {
		return nil, fmt.Errorf("pki: OCSP response: malformed data: %v", err)
	}
	for _, e := range r.tbs.Extensions {
		switch {
		case e.Id.Equal(oidOCSPNonce):
			if rest, err := asn1.Unmarshal(e.Value, &r.nonce); err != nil || len(rest) > 0 {
				// RFC 6960 left the nonce's encoding open, and some echo it raw.
				r.nonce = e.Value
			}
			if r.nonce == nil {
				r.nonce = []byte{}
			}
		case e.Critical:
			return nil, fmt.Errorf("pki: OCSP response: critical extension %v isn't known", e.Id)
		}
	}
	return r, nil
}

// verify checks that the issuer, or whom it delegated OCSP to, signed the response
// (RFC 6960 §4.2.2.2).
func (r *OCSPResponse) verify(issuer *Certificate, now time.Time) error {
	signers := []*Certificate{issuer}
	for i, raw := range r.basic.Certs {
		if i == maxResponders {
			break
		}
		if c, err := NewCertificate(raw.FullBytes); err == nil && !c.Equal(issuer) {
			signers = append(signers, c)
		}
	}
	err := errors.New("OCSP response is signed by somebody else than the CA or its responder")
	for _, c := range signers {
		if !r.namesResponder(c) {
			continue
		}
		if !c.Equal(issuer) {
			if e := mayRespond(c, issuer, now); e != nil {
				err = e
				continue
			}
		}
		if e := verifySignature(c, r.basic.Algorithm.FullBytes, r.basic.TBS.FullBytes, r.basic.Signature.RightAlign()); e != nil {
			err = fmt.Errorf("OCSP response by %q: %w", c.Subject(), e)
			continue
		}
		return nil
	}
	return err
}

// namesResponder says whether the response names c as its responder.
func (r *OCSPResponse) namesResponder(c *Certificate) bool {
	id := r.tbs.Responder
	if id.Class != asn1.ClassContextSpecific {
		return false
	}
	switch id.Tag {
	case 1: // byName
		return bytes.Equal(id.Bytes, c.X509.RawSubject)
	case 2: // byKey
		var hash []byte
		_, err := asn1.Unmarshal(id.Bytes, &hash)
		return err == nil && bytes.Equal(hash, c.KeyID[:])
	}
	return false
}

// mayRespond checks that issuer delegated OCSP to c: issued it directly, for that use.
// Revocation of c itself isn't asked (as with id-pkix-ocsp-nocheck).
func mayRespond(c, issuer *Certificate, now time.Time) error {
	switch x := c.X509; {
	case !bytes.Equal(x.RawIssuer, issuer.X509.RawSubject):
		return fmt.Errorf("OCSP responder %q is certified by %q, not by the CA", c.Subject(), c.Issuer())
	case !slices.Contains(x.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning):
		return fmt.Errorf("OCSP responder %q isn't delegated: its certificate isn't for OCSPSigning", c.Subject())
	case x.KeyUsage != 0 && x.KeyUsage&(x509.KeyUsageDigitalSignature|x509.KeyUsageContentCommitment) == 0:
		return fmt.Errorf("OCSP responder %q may not sign by its key usage", c.Subject())
	case now.Before(x.NotBefore) || now.After(x.NotAfter):
		return fmt.Errorf("certificate of OCSP responder %q is not valid now", c.Subject())
	case len(x.UnhandledCriticalExtensions) > 0:
		return fmt.Errorf("certificate of OCSP responder %q has a critical extension that isn't known", c.Subject())
	}
	if err := checkSignedBy(c, issuer); err != nil {
		return fmt.Errorf("certificate of OCSP responder %q is forged: %w", c.Subject(), err)
	}
	return nil
}

// find is what the response says about c, if it is fresh.
func (r *OCSPResponse) find(c, issuer *Certificate, now time.Time) (status, error) {
	err := errors.New("OCSP response is about other certificates")
	for i := range r.tbs.Responses {
		s := &r.tbs.Responses[i]
		if i == maxSingles {
			break
		}
		if !s.ID.names(c, issuer) {
			continue
		}
		if slices.ContainsFunc(s.Extensions, func(e pkix.Extension) bool { return e.Critical }) {
			return status{}, errors.New("OCSP response has a critical extension that isn't known")
		}
		until := s.NextUpdate
		if until.IsZero() {
			until = s.ThisUpdate.Add(ocspMaxAge)
		}
		switch {
		case now.Add(clockSkew).Before(s.ThisUpdate):
			err = fmt.Errorf("OCSP response is from the future, of %s", stamp(s.ThisUpdate))
		case now.After(until):
			err = fmt.Errorf("OCSP response is stale, it was good until %s", stamp(until))
		case bool(s.Good):
			return status{kind: statusGood, until: until}, nil
		case !s.Revoked.At.IsZero():
			return status{kind: statusRevoked, until: until, at: s.Revoked.At, reason: int(s.Revoked.Reason)}, nil
		default:
			err = errors.New("OCSP responder doesn't know the certificate")
		}
	}
	return status{}, err
}

// names says whether the CertID is that of c.
func (id *certID) names(c, issuer *Certificate) bool {
	if id.Serial == nil || id.Serial.Cmp(c.X509.SerialNumber) != 0 {
		return false
	}
	for _, h := range certIDHashes {
		if !h.oid.Equal(id.Hash.Algorithm) {
			continue
		}
		var key spki
		if _, err := asn1.Unmarshal(issuer.X509.RawSubjectPublicKeyInfo, &key); err != nil {
			return false
		}
		return bytes.Equal(id.NameHash, digest(h.hash, issuer.X509.RawSubject)) &&
			bytes.Equal(id.KeyHash, digest(h.hash, key.Key.RightAlign()))
	}
	return false
}

func digest(h crypto.Hash, b []byte) []byte {
	d := h.New()
	d.Write(b)
	return d.Sum(nil)
}

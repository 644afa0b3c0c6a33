package pkitest

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"sync/atomic"
	"time"

	"adit/pki"
)

// Status of a certificate in an OCSP response (RFC 6960 §4.2.1).
const (
	Good = iota
	Revoked
	Unknown
)

// Responder answers OCSP requests (RFC 6960) over HTTP, rightly or as the fields say.
// The zero fields make an honest one, signed by the CA itself.
type Responder struct {
	CA     *Entity
	Signer *Entity // delegated, sent along; nil: the CA

	Status    func(serial *big.Int) int // nil: Good
	RevokedAt time.Time
	Reason    int

	ThisUpdate, NextUpdate time.Time // zero: an hour ago, in an hour
	NoNextUpdate           bool

	NoNonce    bool     // leaves the nonce out
	Nonce      []byte   // sends this nonce instead
	Serial     *big.Int // answers for this serial instead
	Error      int      // OCSPResponseStatus, without a body
	ClaimCA    bool     // names the CA as the responder, whoever signs
	WithoutKey bool     // doesn't send the delegated certificate along

	// Requests counts what was asked.
	Requests atomic.Int64
}

var (
	oidNonce = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 2}
	oidBasic = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 1}
)

type certID struct {
	Hash       pkix.AlgorithmIdentifier
	Name, Key  []byte
	SerialOfIt *big.Int
}

type request struct {
	TBS struct {
		Version    int           `asn1:"optional,explicit,tag:0,default:0"`
		Requestor  asn1.RawValue `asn1:"optional,explicit,tag:1"`
		Requests   []struct{ ID certID }
		Extensions []pkix.Extension `asn1:"optional,explicit,tag:2"`
	}
}

// ServeHTTP answers a POST with a request.
func (r *Responder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(io.LimitReader(req.Body, 1<<16))
	if err == nil {
		body, err = r.Answer(body)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/ocsp-response")
	w.Write(body)
}

// Answer is the response to a request.
func (r *Responder) Answer(body []byte) ([]byte, error) {
	r.Requests.Add(1)
	var ask request
	if _, err := asn1.Unmarshal(body, &ask); err != nil || len(ask.TBS.Requests) == 0 {
		return nil, fmt.Errorf("malformed request: %v", err)
	}
	var nonce []byte
	for _, e := range ask.TBS.Extensions {
		if e.Id.Equal(oidNonce) {
			if _, err := asn1.Unmarshal(e.Value, &nonce); err != nil {
				return nil, fmt.Errorf("malformed nonce: %v", err)
			}
		}
	}
	return r.respond(ask.TBS.Requests[0].ID, nonce), nil
}

// Staple is a response for cert without a nonce, as a peer sends it (RFC 4806).
func (r *Responder) Staple(cert *pki.Certificate) []byte {
	hash := func(b []byte) []byte {
		h := crypto.SHA1.New()
		h.Write(b)
		return h.Sum(nil)
	}
	key := r.CA.Cert.KeyID
	return r.respond(certID{
		Hash: pkix.AlgorithmIdentifier{Algorithm: hashOIDs[crypto.SHA1], Parameters: null},
		Name: hash(r.CA.Cert.X509.RawSubject), Key: bytes.Clone(key[:]), SerialOfIt: cert.X509.SerialNumber,
	}, nil)
}

// respond is the response for id.
func (r *Responder) respond(id certID, nonce []byte) []byte {
	tb := r.CA.tb
	if r.Error != 0 {
		return der(0x30, der(0x0a, []byte{byte(r.Error)}))
	}
	if r.Serial != nil {
		id.SerialOfIt = r.Serial
	}
	signer := r.Signer
	if signer == nil {
		signer = r.CA
	}
	name := signer.Cert
	if r.ClaimCA {
		name = r.CA.Cert
	}
	tbs := append(der(0xa1, name.X509.RawSubject), generalized(tb, time.Now())...)
	tbs = append(tbs, der(0x30, r.single(id))...)
	if r.Nonce != nil {
		nonce = r.Nonce
	}
	if nonce != nil && !r.NoNonce {
		ext := []pkix.Extension{{Id: oidNonce, Value: must(tb, nonce)}}
		tbs = append(tbs, der(0xa1, must(tb, ext))...)
	}
	tbs = der(0x30, tbs)
	ai, sig := signer.sign(tbs, 0, false)
	basic := append(bytes.Clone(tbs), must(tb, ai)...)
	basic = append(basic, must(tb, asn1.BitString{Bytes: sig, BitLength: 8 * len(sig)})...)
	if r.Signer != nil && !r.WithoutKey {
		basic = append(basic, der(0xa0, der(0x30, r.Signer.Cert.DER()))...)
	}
	inner := append(must(tb, oidBasic), der(4, der(0x30, basic))...)
	return der(0x30, append([]byte{0x0a, 1, 0}, der(0xa0, der(0x30, inner))...))
}

// single is the SingleResponse for id.
func (r *Responder) single(id certID) []byte {
	tb := r.CA.tb
	status := Good
	if r.Status != nil {
		status = r.Status(id.SerialOfIt)
	}
	this, next := r.ThisUpdate, r.NextUpdate
	if this.IsZero() {
		this = time.Now().Add(-time.Hour)
	}
	if next.IsZero() {
		next = time.Now().Add(time.Hour)
	}
	b := must(tb, id)
	switch status {
	case Good:
		b = append(b, 0x80, 0)
	case Revoked:
		at := r.RevokedAt
		if at.IsZero() {
			at = this
		}
		body := append(generalized(tb, at), der(0xa0, der(0x0a, []byte{byte(r.Reason)}))...)
		b = append(b, der(0xa1, body)...)
	case Unknown:
		b = append(b, 0x82, 0)
	}
	b = append(b, generalized(tb, this)...)
	if !r.NoNextUpdate {
		b = append(b, der(0xa0, generalized(tb, next))...)
	}
	return der(0x30, b)
}

func generalized(tb TB, t time.Time) []byte {
	tb.Helper()
	b, err := asn1.MarshalWithParams(t.UTC(), "generalized")
	if err != nil {
		tb.Fatalf("pkitest: %v", err)
	}
	return b
}

// der is one DER element of any length up to 64 KiB.
func der(tag byte, body []byte) []byte {
	switch n := len(body); {
	case n < 128:
		return append([]byte{tag, byte(n)}, body...)
	case n < 256:
		return append([]byte{tag, 0x81, byte(n)}, body...)
	default:
		return append([]byte{tag, 0x82, byte(n >> 8), byte(n)}, body...)
	}
}

// RandomNonce is a nonce that nobody asked for.
func RandomNonce() []byte {
	b := make([]byte, 16)
	rand.Read(b)
	return b
}

package ikev1_test

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"testing"
	"time"

	"adit/ike"
)

// authority is a certificate, DER, and its name, DER.
func authority(t *testing.T, name string) (cert, subject []byte) {
	t.Helper()
	key := newKey(t, "ecdsa")
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return der, c.RawSubject
}

// TestRFC2408_3_10_Authorities has both sides name their authorities, and each hear of the
// other's before it chooses its certificate.
func TestRFC2408_3_10_Authorities(t *testing.T) {
	one, first := authority(t, "first")
	_, second := authority(t, "second")
	var many [][]byte
	for i := range 33 {
		many = append(many, fmt.Appendf(nil, "name %d", i))
	}
	all := [][]byte{first, second}
	for _, c := range []struct {
		name       string
		trusted    [][]byte
		certs      [][]byte
		aggressive bool
		// what a as initiator hears, and b
		a, b [][]byte
	}{
		{"all", all, nil, false, all, all},
		{"those of the connection", all, [][]byte{one, one}, false, all[:1], all[:1]},
		{"unreadable", all, [][]byte{one, {1}}, false, nil, nil},
		{"none", nil, nil, false, nil, nil},
		{"too many", many, nil, false, nil, nil},
		{"too long", [][]byte{make([]byte, 2049)}, nil, false, nil, nil},
		{"as many as may be", many[:32], nil, false, many[:32], many[:32]},
		{"aggressive mode, whose responder is brief", all, nil, true, nil, all},
	} {
		p := newPair(t, func(a, b *side) {
			for _, s := range []*side{a, b} {
				s.peer.Aggressive, s.peer.SendCertReq = c.aggressive, true
				s.peer.Local[0].Method, s.peer.Remote[0].Method = ike.AuthPubkey, ike.AuthPubkey
				s.peer.Remote[0].CACerts = c.certs
			}
		})
		introduce(p.a, p.b, "a.example.org", newKey(t, "ecdsa"))
		introduce(p.b, p.a, "b.example.org", newKey(t, "ecdsa"))
		for _, h := range []*host{p.a, p.b} {
			h.do(ike.Trust{Names: c.trusted})
		}
		p.a.initiate("net")
		p.run(time.Second)
		p.up()
		for h, want := range map[*host][][]byte{p.a: c.a, p.b: c.b} {
			if len(h.creds.signed) != 1 || !h.creds.signed[0].Requested || fmt.Sprintf("%q", h.creds.signed[0].RequestedNames) != fmt.Sprintf("%q", want) {
				t.Errorf("%s: %s was asked for %+v", c.name, h.name, h.creds.signed)
			}
		}
	}
}

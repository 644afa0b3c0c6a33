package gateway

import (
	"context"
	"errors"
	"testing"

	"adit/eap"
	"adit/ike"
	"adit/internal/config"
	"adit/pki/pkitest"
)

// What a round demands of a certificate is not fulfilled by a password: neither by one
// that a client has, nor, where EAP alone proves the gateway, by one that it knows.
func TestPasswordFulfilsNoCertificateConstraint(t *testing.T) {
	client, server := schools(t)
	other := [][]byte{pkitest.NewCA(t, pkitest.Spec{Name: "another CA"}).Cert.DER()}
	demands := map[string]func(r *ike.AuthRound){
		"cacerts":     func(r *ike.AuthRound) { r.CACerts = other },
		"certs":       func(r *ike.AuthRound) { r.Certs = other },
		"cert_policy": func(r *ike.AuthRound) { r.CertPolicies = []string{"1.2.3.4"} },
	}
	for name, demand := range demands {
		for _, m := range []ike.EAPMethod{ike.EAPAny, ike.EAPDynamic, ike.EAPMSCHAPv2, ike.EAPMD5, ike.EAPTTLS, ike.EAPTLS} {
			for _, by := range []ike.EAPMethod{ike.EAPMSCHAPv2, ike.EAPMD5, ike.EAPTTLS, ike.EAPTLS} {
				d := &dialogue{client: client, server: server, local: alice(by), remote: asking(m)}
				demand(&d.remote)
				if c, s := d.run(t); s.Success {
					t.Errorf("%s, %q: %s came in: %+v", name, m, by, c)
				}
			}
		}
		for _, by := range []ike.EAPMethod{ike.EAPMSCHAPv2, ike.EAPTTLS, ike.EAPTLS} {
			d := &dialogue{client: client, server: server, local: alice(by), remote: asking(ike.EAPAny), mutual: true, session: ike.RandomUint64()}
			qc, qs := d.questions()
			demand(&qc.Peer.Remote[0])
			a, err := server.conversations.next(context.Background(), qs)
			for i := 0; err == nil && a.Message != nil && !a.Done && i < 40; i++ {
				qc.Message = a.Message
				if a, err = client.conversations.next(context.Background(), qc); err == nil && !a.Done {
					qs.Message = a.Message
					a, err = server.conversations.next(context.Background(), qs)
				}
			}
			if err == nil && a.Success {
				t.Errorf("%s: the gateway is proved by %s", name, by)
			}
		}
	}
	// Nor by the word of a RADIUS server, which shows no certificate.
	g := examinee(t, config.RADIUSServer{Name: "r", Address: "192.0.2.9", Secret: []byte("a secret of sixteen")})
	d := &dialogue{client: client, server: g, local: alice(ike.EAPMSCHAPv2), remote: asking(ike.EAPRadius), session: 7}
	d.remote.CACerts = other
	_, qs := d.questions()
	if a, err := g.conversations.next(context.Background(), qs); !errors.Is(err, errConstrained) {
		t.Errorf("%+v, %v", a, err)
	}
	// TLS with a certificate of the CA that is wanted comes in, whatever else is allowed.
	client, server = schools(t)
	d = &dialogue{client: client, server: server, local: ike.AuthRound{EAP: ike.EAPTLS}, remote: asking(ike.EAPAny)}
	for _, c := range server.Certificates() {
		if c.Flag == "CA" {
			d.remote.CACerts = [][]byte{c.DER}
		}
	}
	d.agree(t, methodName(eap.TypeTLS), clientName, true)
}
